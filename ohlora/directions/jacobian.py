"""Directions from the mean gradients of a network's scores through the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.directions import layers
from ohlora.directions.covariance import covariance_of, covariance_solved, covariance_solved_by_layer
from ohlora.directions.edits import Directions, LocalBasis, PathBasis, added
from ohlora.directions.finder import Finder, Notes, Source, check_variety
from ohlora.directions.groups import Groups
from ohlora.directions.held import ScoresAndIdentity, held_names, seen
from ohlora.errors import ConfigError, DataError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import Scorer, counted_latents, score_gradients
from ohlora.utils import checks, counted


class Jacobian(Finder):
    """Averages the gradients of the search CNN through the generator, then solves for steps that hold the others.

    The first round takes them at the latents themselves; later rounds at latents edited with the steps found so far, by
    random strengths within the grid, since that is where the steps must hold. The steps come from the mean of all
    rounds but the first. It costs latents × rounds images, with a backward pass per attribute. See
    :mod:`ohlora.directions.covariance`.

    Args:
        latents: Latents whose gradients are taken.
        rounds: How often they are taken.
        covariance_count: Latents for the covariance of w; no images.
        hold: What the directions must not change; by default all that is measured.
        identity_axes: With a guide, the directions also hold the place of an image along so many principal axes of the
            guide's embeddings, so that they show the same person.
        common: See :class:`ohlora.directions.finder.Finder`.
    """

    holds_identity = True

    def __init__(
        self,
        latents: int = 300,
        rounds: int = 3,
        covariance_count: int = 20000,
        hold: Sequence[str] | None = None,
        identity_axes: int = 12,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if latents < 1 or rounds < 1 or covariance_count < 2:
            raise ConfigError(
                f"latents is {latents}, rounds {rounds} and covariance_count {covariance_count}; expected at least 1, "
                "1 and 2"
            )
        checks.at_least(1, identity_axes=identity_axes)
        self.latents, self.rounds, self.covariance_count, self.hold = latents, rounds, covariance_count, hold
        self.identity_axes = identity_axes

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`."""
        generator, _ = source.networks
        start = Codes(self._codes(generator, "search", self.latents), Space.W)
        network = seen(source, start, self.identity_axes)
        held = held_names(self.targets, self.hold, network.outputs)
        groups, targets = self.groups(source), range(len(self.targets))
        covariance = covariance_of(self._codes(generator, "covariance", self.covariance_count))
        gradients = self._gradients(source, network, start, groups, held, covariance, notes)
        self._show(gradients, covariance, held, notes)

        def steps_of(chosen: layers.Range | None) -> Tensor:
            first, last = chosen or (0, generator.num_ws - 1)
            return covariance_solved(gradients[:, :, first : last + 1].sum(dim=2), covariance, targets)

        acting: str | dict[str, layers.Range] = "each"
        if self.layers == "each":
            steps = Codes(covariance_solved_by_layer(gradients, covariance, targets), Space.W_BY_LAYER)
        else:
            steps, acting = layers.arranged(self, steps_of, groups, source, notes)
        provenance: dict[str, Any] = {"latents": self.latents, "rounds": self.rounds, "held": held, "seed": self.seed}
        provenance |= {"images": self.latents * self.rounds, "layers": acting}
        basis = self.basis(held, gradients.cpu(), covariance.cpu(), source)
        if basis is not None and isinstance(network, ScoresAndIdentity):
            basis = replace(basis, axes=network.axes.cpu())
        steps = Codes(steps.values.cpu(), steps.space)
        return Directions.of_steps(self.targets, steps, groups, self.name, provenance, basis)

    def basis(
        self, held: list[str], gradients: Tensor, covariance: Tensor, source: Source
    ) -> LocalBasis | PathBasis | None:
        """What edits at single latents start from; None for a finder that makes none."""
        return None

    @torch.no_grad()
    def _codes(self, generator: Generator, stream: str, count: int) -> Tensor:
        parts = torch.split(torch.arange(count), 1000)
        latents = (counted_latents(generator, self.seed, part.tolist(), f"{stream}/") for part in parts)
        return torch.cat([generator.map(*part).values for part in latents])

    def _gradients(
        self,
        source: Source,
        network: Scorer,
        start: Codes,
        groups: Groups,
        held: list[str],
        covariance: Tensor,
        notes: Notes,
    ) -> Tensor:
        """Mean gradients of what is held, from the search's latents: G×K×L×D."""
        generator, scoring = source.networks
        places = [network.outputs.index(name) for name in held]
        codes = start.in_space(Space.W_BY_LAYER, generator.num_ws)
        scores, found = score_gradients(generator, network, codes, places, source.batch_size)
        notes.add_scores(scoring.outputs, scores[:, : len(scoring.outputs)].cpu().numpy())
        group = torch.from_numpy(groups.assign(network.outputs, scores.cpu().numpy())).to(found.device)
        weights = torch.nn.functional.one_hot(group, len(groups.names)).double()
        counts = weights.sum(dim=0)
        if empty := [name for name, count in zip(groups.names, counts.tolist(), strict=True) if not count]:
            raise DataError(
                f"no latent of {self.latents} is in group {', '.join(empty)}; take more latents or fewer groups"
            )
        check_variety(scores[:, places])

        def averaged(gradients: Tensor) -> Tensor:
            """Means of each group, summed in double precision without a copy of all."""
            size = source.batch_size
            parts = zip(torch.split(weights, size), torch.split(gradients, size), strict=True)
            summed = sum(torch.einsum("ng,nkld->gkld", own, part.double()) for own, part in parts)
            return summed / counts[:, None, None, None]

        total = averaged(found)
        for k in range(1, self.rounds):
            steps = covariance_solved_by_layer(total / max(1, k - 1), covariance, range(len(self.targets)))
            strengths = strengths_of_round(self.seed, k, self.latents, source.ends(self.targets))
            codes = added(start, strengths.to(start.values)[:, None], Codes(steps[group], Space.W_BY_LAYER)).flat()
            of_round = averaged(score_gradients(generator, network, codes, places, source.batch_size)[1])
            total = of_round if k == 1 else total + of_round
        return total / max(1, self.rounds - 1)

    def _show(self, gradients: Tensor, covariance: Tensor, held: list[str], notes: Notes) -> None:
        """How strongly each layer moves each attribute."""
        along = torch.einsum("gkld,de,gkle->gkl", gradients, covariance, gradients)
        reach = along.mean(dim=0).clamp(min=0).sqrt().cpu().numpy()
        title = "change by one standard deviation of w in a layer"
        notes.add_layers(reach, held, title)


def strengths_of_round(seed: int, number: int, count: int, within: tuple[Tensor, Tensor]) -> Tensor:
    """Random strengths of N = ``count`` latents in a later round of a search, N×P in float64, between two (P,) each."""
    low, high = within
    drawn = counted.generators(seed, f"search/strengths/{number}", range(count))
    uniform = torch.from_numpy(np.stack([random.random(len(low)) for random in drawn]))
    return torch.lerp(low.double(), high.double(), uniform)

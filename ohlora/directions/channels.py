"""Directions over all style channels, from mean gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ohlora.directions.covariance import covariance_solved
from ohlora.directions.edits import Directions, added
from ohlora.directions.finder import Notes, Source, check_variety
from ohlora.directions.held import held_names, seen
from ohlora.directions.jacobian import strengths_of_round
from ohlora.directions.stylespace import StyleSpaceFinder
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import score_gradients
from ohlora.utils import checks


class Channels(StyleSpaceFinder):
    """Averages the search CNN's gradients by style channels, and solves for steps that hold all else.

    The solution is that of :mod:`ohlora.directions.covariance` with channels that vary independently of each other, so
    that each takes a step in proportion to its own variance. (With their covariance, which w alone decides, it would be
    the direction in W.) Rounds are as for :class:`ohlora.directions.jacobian.Jacobian`.

    Args:
        latents: Latents whose gradients are taken.
        rounds: How often they are taken.
        hold: What the directions must not change; by default all that is measured.
        identity_axes: See :class:`ohlora.directions.jacobian.Jacobian`.
        common: See :class:`ohlora.directions.stylespace.StyleSpaceFinder`.
    """

    holds_identity = True

    def __init__(
        self,
        latents: int = 300,
        rounds: int = 3,
        hold: Sequence[str] | None = None,
        identity_axes: int = 12,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if latents < 2 or rounds < 1:
            raise ConfigError(f"latents is {latents} and rounds {rounds}; expected at least 2 and 1")
        checks.at_least(1, identity_axes=identity_axes)
        self.latents, self.rounds, self.hold, self.identity_axes = latents, rounds, hold, identity_axes

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`."""
        generator, scoring = source.networks
        start = self.codes(generator, "search", self.latents)
        network = seen(source, start, self.identity_axes)
        held = held_names(self.targets, self.hold, network.outputs)
        places, targets = [network.outputs.index(name) for name in held], range(len(self.targets))
        _, variance = self.moments(generator)
        scores, found = score_gradients(generator, network, start, places, source.batch_size)
        notes.add_scores(scoring.outputs, scores[:, : len(scoring.outputs)].cpu().numpy())
        check_variety(scores[:, places])
        mean = found.double().mean(dim=0)
        total = torch.zeros_like(mean)
        for k in range(1, self.rounds):
            steps = covariance_solved(mean, variance, targets)
            strengths = strengths_of_round(self.seed, k, self.latents, source.ends(self.targets))
            codes = added(
                start, strengths.to(start.values)[:, None], Codes(steps.expand(self.latents, -1, -1), Space.S)
            ).flat()
            _, found = score_gradients(generator, network, codes, places, source.batch_size)
            total += found.double().mean(dim=0)
            mean = total / k
        steps = covariance_solved(mean, variance, targets).cpu()
        by_layer = torch.split(mean.square() * variance, list(generator.style_sizes), dim=-1)
        reach = torch.stack([part.sum(dim=-1) for part in by_layer], dim=-1).sqrt().cpu().numpy()
        notes.add_layers(reach, held, "change by one standard deviation of every channel of a layer")
        provenance: dict[str, Any] = {"latents": self.latents, "rounds": self.rounds, "held": held, "seed": self.seed}
        provenance["images"] = self.latents * self.rounds
        return Directions.of_steps(
            self.targets, Codes(steps[None], Space.S), self.groups(source), self.name, provenance
        )

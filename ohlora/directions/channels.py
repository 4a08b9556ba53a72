"""Directions over all style channels, from mean gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ohlora.directions.covariance import covariance_solved, held_names
from ohlora.directions.edits import Directions, added
from ohlora.directions.finder import Notes, Source
from ohlora.directions.jacobian import ends
from ohlora.directions.stylespace import StyleSpaceFinder, checked
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import score_gradients
from ohlora.utils import counted, figures


class Channels(StyleSpaceFinder):
    """Averages the search CNN's gradients by style channels, and solves for steps that hold all else.

    The solution is that of :mod:`ohlora.directions.covariance` with channels that vary independently of each other, so
    that each takes a step in proportion to its own variance. (With their covariance, which w alone decides, it would be
    the direction in W.) Rounds are as for :class:`ohlora.directions.jacobian.Jacobian`, and so is the unit of strength.

    Args:
        latents: Latents whose gradients are taken.
        rounds: How often they are taken.
        hold: What the directions must not change; by default all that is measured.
        common: See :class:`ohlora.directions.stylespace.StyleSpaceFinder`.
    """

    def __init__(self, latents: int = 300, rounds: int = 3, hold: Sequence[str] | None = None, **common: Any) -> None:
        super().__init__(**common)
        if latents < 2 or rounds < 1:
            raise ConfigError(f"latents is {latents} and rounds {rounds}; expected at least 2 and 1")
        self.latents, self.rounds, self.hold = latents, rounds, hold

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`."""
        generator, network = source.networks
        held = held_names(self.targets, self.hold, network.outputs)
        places, targets = [network.outputs.index(name) for name in held], range(len(self.targets))
        _, variance = self.moments(generator)
        start = self.codes(generator, "search", self.latents)
        low, high = ends(self.targets, source)
        scores, found = score_gradients(generator, network, start, places, source.batch_size)
        notes.add_scores(network.outputs, scores.cpu().numpy())
        deviations = checked(scores[:, places].double().std(dim=0, correction=0))[:, None]
        mean = found.double().mean(dim=0) / deviations
        total = torch.zeros_like(mean)
        for k in range(1, self.rounds):
            steps = covariance_solved(mean, variance, targets)
            drawn = counted.generators(self.seed, f"search/strengths/{k}", range(self.latents))
            uniform = torch.from_numpy(np.stack([random.random(len(self.targets)) for random in drawn]))
            strengths = torch.lerp(low.double(), high.double(), uniform).to(start.values)[:, None]
            codes = added(start, strengths, Codes(steps.expand(self.latents, -1, -1), Space.S)).flat()
            _, found = score_gradients(generator, network, codes, places, source.batch_size)
            total += found.double().mean(dim=0) / deviations
            mean = total / k
        steps = covariance_solved(mean, variance, targets).cpu()
        by_layer = torch.split(mean.square() * variance, list(generator.style_sizes), dim=-1)
        reach = torch.stack([part.sum(dim=-1) for part in by_layer], dim=-1).sqrt().cpu().numpy()
        numbers = range(reach.shape[1])
        title = "change by one standard deviation of every channel of a layer"
        notes.pictures["layers_of_attributes"] = figures.heat_map(reach, held, [*map(str, numbers)], title)
        notes.tables["layers_of_attributes"] = figures.named_rows(reach, held, [f"layer_{k}" for k in numbers])
        provenance: dict[str, Any] = {"latents": self.latents, "rounds": self.rounds, "held": held, "seed": self.seed}
        provenance["images"] = self.latents * self.rounds
        return Directions.of_steps(
            self.targets, Codes(steps[None], Space.S), self.groups(source), self.name, provenance
        )

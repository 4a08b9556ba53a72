"""Directions as differences of means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.directions.finder import Row
from ohlora.directions.sampled import Part, SampleFinder, class_size
from ohlora.errors import ConfigError


class MeanDifference(SampleFinder):
    """Mean of the samples that score highest minus mean of those that score lowest.

    Args:
        fraction: Share of a group in each of the two classes.
        common: See :class:`ohlora.directions.sampled.SampleFinder`.
    """

    noted = ("seed", "fraction")

    def __init__(self, fraction: float = 0.2, **common: Any) -> None:
        super().__init__(**common)
        if not 0 < fraction <= 0.5:
            raise ConfigError(f"fraction is {fraction}; expected above 0 and at most 0.5")
        self.fraction = fraction

    def large_enough(self, count: int, size: int) -> bool:
        """Two classes must not overlap."""
        return count >= 2 * class_size(count, self.fraction)

    def solve(self, part: Part) -> tuple[Tensor, list[Row]]:
        """See :meth:`ohlora.directions.sampled.SampleFinder.solve`."""
        w = part.codes.numpy()
        classes = [part.classes(name, self.fraction) for name in self.targets]
        means = [np.subtract(*(w[members].mean(axis=0, dtype=np.float64) for members in pair)) for pair in classes]
        return part.one_deviation(torch.from_numpy(np.stack(means))), []

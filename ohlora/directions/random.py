"""Random directions: the baseline of comparisons."""

from __future__ import annotations

import torch
from torch import Tensor

from ohlora.directions.finder import Row
from ohlora.directions.sampled import Part, SampleFinder
from ohlora.utils import counted


class Random(SampleFinder):
    """Draws directions; one that hardly moves its attribute is as long as one standard deviation of w along it."""

    def solve(self, part: Part) -> tuple[Tensor, list[Row]]:
        """See :meth:`ohlora.directions.sampled.SampleFinder.solve`."""
        shape = (len(self.targets), part.codes.shape[-1])
        drawn = counted.generator(self.seed, "random directions", part.number).standard_normal(shape)
        return part.one_deviation(torch.from_numpy(drawn)), []

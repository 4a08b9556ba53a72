"""Directions by ridge regression of all scores on w at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ohlora.directions.covariance import covariance_of, covariance_solved, ridge_gradients
from ohlora.directions.finder import Row
from ohlora.directions.held import held_names
from ohlora.directions.sampled import Part, SampleFinder
from ohlora.errors import ConfigError


class Ridge(SampleFinder):
    """Regresses all scores on w (Hoerl & Kennard, 1970) in closed form, then solves for steps that hold the others.

    See :mod:`ohlora.directions.covariance`.

    Args:
        penalty: Weight of the squared coefficients, as a share of the mean variance of w.
        hold: What the directions must not change; by default all that is measured.
        common: See :class:`ohlora.directions.sampled.SampleFinder`.
    """

    def __init__(self, penalty: float = 1e-3, hold: Sequence[str] | None = None, **common: Any) -> None:
        super().__init__(**common)
        if penalty < 0:
            raise ConfigError(f"penalty is {penalty}; expected at least 0")
        self.penalty, self.hold = penalty, hold

    def large_enough(self, count: int, size: int) -> bool:
        """A regression needs more samples than coefficients."""
        return count > size + 1

    def solve(self, part: Part) -> tuple[Tensor, list[Row]]:
        """See :meth:`ohlora.directions.sampled.SampleFinder.solve`."""
        size, held = part.codes.shape[1], held_names(self.targets, self.hold, part.outputs)
        columns = [part.outputs.index(name) for name in held]
        joint = covariance_of(torch.cat([part.codes, torch.from_numpy(part.scores[:, columns])], dim=1))
        gradients = ridge_gradients(joint[:size, :size], joint[:size, size:], self.penalty)
        return covariance_solved(gradients, part.covariance, range(len(self.targets))), []

"""Streamed means and covariances."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor


class Moments:
    """Mean and covariance of rows, from sums in float64.

    Args:
        size: Length D of a row.
        origin: A value near the mean, (D,), which is taken off before squares are summed, so that none is lost to
            rounding; None is zero.
        device: Where the sums are.

    Attributes:
        sums: What is to be added up over processes: count, sum, sum of outer products.
    """

    def __init__(self, size: int, origin: Tensor | None = None, device: torch.device | str = "cpu") -> None:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self.origin = zeros(size) if origin is None else origin.to(device, torch.float64)
        self._count, self._sum, self._products = zeros(()), zeros(size), zeros(size, size)
        self.sums: list[Tensor] = [self._count, self._sum, self._products]

    def update(self, rows: Tensor) -> None:
        """Adds rows, N×D."""
        centred = rows.double() - self.origin
        self._count += len(rows)
        self._sum += centred.sum(dim=0)
        self._products += centred.T @ centred

    @property
    def count(self) -> int:
        """Rows so far."""
        return int(self._count)

    @property
    def mean(self) -> Tensor:
        """Mean, (D,) float64."""
        return self._sum / self._count + self.origin

    @property
    def covariance(self) -> Tensor:
        """Covariance (divided by the count), D×D float64."""
        mean = self._sum / self._count
        return self._products / self._count - torch.outer(mean, mean)

"""Directions from scored samples, other than SVMs; the same interface as :class:`ohlora.directions.svm.SVMs`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ohlora.directions.covariance import covariance_solved, ridge_gradients
from ohlora.directions.moments import Moments
from ohlora.directions.svm import TRAINING


class MeanDifferences:
    """Mean of the samples that score highest minus mean of those that score lowest; one pass.

    Args:
        groups: Number of groups G.
        properties: Number of attributes P.
        size: Length D of w.
        device: Where the sums are.
    """

    def __init__(self, groups: int, properties: int, size: int, device: torch.device | str = "cpu") -> None:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self._totals, self._counts = zeros(groups, properties, 2, size), zeros(groups, properties, 2)
        self.sums: list[Tensor] = [self._totals, self._counts]
        self.passes = 0

    def update(self, w: Tensor, group: Tensor, label: Tensor) -> None:
        """Adds samples: w N×D, N groups, and labels N×P from :func:`ohlora.directions.svm.classes`."""
        w = w.double()
        for g in range(len(self._totals)):
            members = group == g
            for k, sign in enumerate((1, -1)):
                inside = (label[members] == sign * TRAINING).double()
                self._totals[g, :, k] += inside.T @ w[members]
                self._counts[g, :, k] += inside.sum(dim=0)

    def finish_pass(self) -> bool:
        """The end."""
        self.passes += 1
        return True

    def directions(self) -> Tensor:
        """Unit vectors, upwards: G×P×D float64."""
        means = self._totals / self._counts[..., None]
        return torch.nn.functional.normalize(means[:, :, 0] - means[:, :, 1], dim=-1)


class Ridges:
    """All scores regressed on w at once, then covariance-solved; one pass.

    Args:
        groups: Number of groups G.
        size: Length D of w.
        scores: Number K of scores.
        device: Where the sums are.
    """

    def __init__(self, groups: int, size: int, scores: int, device: torch.device | str = "cpu") -> None:
        self.size = size
        self._moments = [Moments(size + scores, device=device) for _ in range(groups)]
        self.sums: list[Tensor] = [tensor for moments in self._moments for tensor in moments.sums]
        self.passes = 0

    def update(self, w: Tensor, group: Tensor, scores: Tensor) -> None:
        """Adds samples: w N×D, N groups, scores N×K."""
        rows = torch.cat([w.double(), scores.double()], dim=1)
        for g, moments in enumerate(self._moments):
            members = group == g
            if members.any():
                moments.update(rows[members])

    def finish_pass(self) -> bool:
        """The end."""
        self.passes += 1
        return True

    def steps(self, covariance: Tensor, deviations: Tensor, targets: list[int], penalty: float) -> Tensor:
        """Steps of one standard deviation each.

        Args:
            covariance: Of w over all samples, D×D.
            deviations: Standard deviations of the scores over all samples, (K,).
            targets: The scores to move.
            penalty: See :func:`ohlora.directions.covariance.ridge_gradients`.

        Returns:
            G×P×D.
        """
        d, found = self.size, []
        for moments in self._moments:
            joint = moments.covariance
            gradients = ridge_gradients(joint[:d, :d], joint[:d, d:], deviations, penalty)
            found.append(covariance_solved(gradients, covariance, targets))
        return torch.stack(found)

"""How well one set of images covers another, by balls around their features.

The manifold of a set is the union of closed balls around its points; a ball reaches to the k-th nearest other point.
Distances that differ by rounding only count as equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

K_MANIFOLD = 3
"""The k of precision and recall, as in Kynkäänniemi et al. (2019)."""
K_DENSITY = 5
"""The k of density and coverage, as in Naeem et al. (2020)."""
LEAST = K_DENSITY + 1
"""Number of images that a set must have."""
BLOCK = 1000
"""Points whose distances to all others are in memory at once."""
ROUNDING = 1e-7
"""Relative error of a distance."""


def _blocks(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of blocks of N×F to all of M×F."""
    for first in range(0, len(points), BLOCK):
        part = slice(first, first + BLOCK)
        yield part, torch.cdist(points[part], others)


def neighbour_distances(points: Tensor, *ks: int) -> list[Tensor]:
    """For each k, the distance of every point of N×F to its k-th nearest other point: (N,); N > k."""
    rows = [
        distances.topk(max(ks) + 1, largest=False).values  # the nearest of all is the point itself
        for _, distances in _blocks(points, points)
    ]
    sorted_rows = torch.cat(rows)
    return [sorted_rows[:, k] for k in ks]


def manifold_measures(
    real: Tensor, fake: Tensor, k_manifold: int = K_MANIFOLD, k_density: int = K_DENSITY
) -> dict[str, float]:
    """Precision, recall, density and coverage of a set of images, from features N×F of real and M×F of fake ones.

    Sets of the same distribution have density 1; precision, recall and coverage are at most 1 and depend on N and M, so
    that only sets of one size can be compared.

    Args:
        real: N×F.
        fake: M×F.
        k_manifold: The k of precision and recall.
        k_density: The k of density and coverage.

    Returns:
        ``precision``: share of fakes within the manifold of the reals; ``recall``: share of reals within that of the
        fakes (Kynkäänniemi et al., 2019). ``density``: number of balls of reals that a fake lies in, over k, on
        average; ``coverage``: share of reals whose ball holds a fake (Naeem et al., 2020).

    Raises:
        ValueError: If a set has no more than k points.
    """
    least = max(k_manifold, k_density) + 1
    if min(len(real), len(fake)) < least:
        raise ValueError(f"sets of {len(real)} and {len(fake)} images; expected at least {least} each")
    center = real.double().mean(dim=0)  # near the origin fewer digits are lost
    real, fake = real.double() - center, fake.double() - center
    radius, radius_of_density = (r * (1 + ROUNDING) for r in neighbour_distances(real, k_manifold, k_density))
    (fake_radius,) = (r * (1 + ROUNDING) for r in neighbour_distances(fake, k_manifold))
    precise, balls = 0, 0
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = recalled.clone()
    for part, distances in _blocks(fake, real):
        precise += int((distances <= radius).any(dim=1).sum())
        inside = distances <= radius_of_density
        balls += int(inside.sum())
        covered |= inside.any(dim=0)
        recalled |= (distances <= fake_radius[part, None]).any(dim=0)
    return {
        "precision": precise / len(fake),
        "recall": float(recalled.double().mean()),
        "density": balls / (k_density * len(fake)),
        "coverage": float(covered.double().mean()),
    }


class Density:
    """How densely single images lie among real ones: the density of Naeem et al. (2020), image by image.

    Args:
        real: Features of N real images, N×F.
        others: Features of other real images, M×F, whose mean density is what 1 stands for.
        k: The neighbour to which a real image's ball reaches.

    Attributes:
        of_reals: Mean density of the others, before they are 1; near 1 for large sets.

    Raises:
        ValueError: If there are no more than k real images, or none of the others lies near one.
    """

    def __init__(self, real: Tensor, others: Tensor, k: int = K_DENSITY) -> None:
        if len(real) <= k or not len(others):
            raise ValueError(f"sets of {len(real)} and {len(others)} images; expected at least {k + 1} and 1")
        self.center, self.k = real.double().mean(dim=0), k  # near the origin fewer digits are lost
        self.real, self.of_reals = real.double() - self.center, 1.0
        self.radius = neighbour_distances(self.real, k)[0] * (1 + ROUNDING)
        self.of_reals = float(self(others).mean())
        if self.of_reals == 0:
            raise ValueError(f"none of {len(others)} real images lies near one of {len(real)} others")

    def __call__(self, points: Tensor) -> Tensor:
        """Density of each of M points, M×F, over that of reals: (M,) float64."""
        blocks = _blocks(points.double() - self.center, self.real)
        inside = [(distances <= self.radius).sum(dim=1) for _, distances in blocks]
        return torch.cat(inside).double() / self.k / self.of_reals

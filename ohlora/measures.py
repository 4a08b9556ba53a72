"""Figures of sets of images, from the features that a network sees in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ohlora import counted
from ohlora.networks.attribute_cnn import AttributeCNN

FEATURES = 256
"""Most features that set distances use: their covariance must be estimated from a few thousand images."""
SUBSET = 1000
"""Rows per subset of the kernel distance, at most."""


class Penultimate(nn.Module):
    """The hidden layer of an attribute CNN as features: N×3×R×R → N×F, F ≤ 256.

    Wider layers are projected onto 256 random orthonormal directions, always the same ones.

    Attributes:
        num_features: F; torchmetrics asks for it.
    """

    projection: Tensor | None

    def __init__(self, network: AttributeCNN) -> None:
        super().__init__()
        self.network = network.eval()
        width = sum(spec.hidden for spec in network.specs)
        self.num_features = min(width, FEATURES)
        projection = None
        if width > FEATURES:
            random = counted.normal(0, "projection", range(width), FEATURES)
            projection = torch.linalg.qr(random.double())[0].float()
        self.register_buffer("projection", projection)

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch."""
        features = self.network.features(images)
        return features if self.projection is None else features @ self.projection


def mean_pairwise_distance(features: Tensor) -> float:
    """Mean Euclidean distance between two different rows of N×F; how varied a set is."""
    count = len(features)
    return float(torch.cdist(features.double(), features.double()).sum() / (count * (count - 1)))


def set_distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    """How far two sets of features lie apart.

    Args:
        real: N×F.
        fake: M×F.

    Returns:
        ``frechet_distance`` (Heusel et al., 2017) and ``kernel_distance`` (Bińkowski et al., 2018); 0 for equal
        distributions.
    """
    as_they_are = nn.Identity()
    as_they_are.num_features = real.shape[1]  # type: ignore[assignment]
    # Only rank zero measures, so that waiting for other ranks would never end.
    frechet = FrechetInceptionDistance(as_they_are, sync_on_compute=False)
    kernel = KernelInceptionDistance(as_they_are, subset_size=min(len(real), len(fake), SUBSET), sync_on_compute=False)
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    with torch.random.fork_rng(devices=[]):  # the kernel distance draws its subsets
        torch.manual_seed(0)
        kernel_distance, _ = kernel.compute()
    return {"frechet_distance": float(frechet.compute()), "kernel_distance": float(kernel_distance)}

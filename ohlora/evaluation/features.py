"""Sets of images compared by the features that a network sees in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.utils import counted

FEATURES = 256
"""Most features that set distances use: their covariance must be estimated from a few thousand images."""
SUBSET = 1000
"""Rows per subset of the kernel distance, at most."""


class Penultimate(nn.Module):
    """The hidden layer of an attribute CNN as features: N×3×R×R → N×F, F ≤ 256.

    Wider layers are projected onto 256 random orthonormal directions, always the same ones.

    Attributes:
        num_features: F.
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

    def projected(self, hidden: Tensor) -> Tensor:
        """Features from the hidden layers that the network's ``features`` gave."""
        return hidden if self.projection is None else hidden @ self.projection.to(hidden.device)

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch."""
        return self.projected(self.network.features(images))


def label_correlations(labels: Tensor, scores: np.ndarray) -> np.ndarray:
    """Pearson correlation of each label input with each measured attribute.

    Args:
        labels: N×K.
        scores: N×K, of the attributes that the labels stand for.

    Returns:
        K×K: row label, column attribute.
    """
    count = labels.shape[1]
    return np.asarray(np.corrcoef(labels.numpy().T, scores.T)[:count, count:])


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

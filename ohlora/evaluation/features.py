"""Distances between sets of images, and their diversity, from the hidden features of an attribute CNN."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.utils import counted

FEATURES = 256
"""Largest number of features: their covariance must be estimated from a few thousand images."""
SUBSET = 1000
"""Largest number of images in a subset of the kernel distance."""


class Penultimate(nn.Module):
    """Feature extractor: the last hidden layer of an attribute CNN, N×3×R×R in [−1, 1] → N×F with F ≤ 256.

    A wider layer is projected onto 256 random orthonormal directions, which are the same in every run.

    Args:
        network: The attribute CNN; it is set to evaluation mode.

    Attributes:
        num_features: The number F of features.
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
        """Projects hidden layers, N×(their width) as returned by the network's ``features``, to features: N×F."""
        return hidden if self.projection is None else hidden @ self.projection.to(hidden.device)

    def forward(self, images: Tensor) -> Tensor:
        """The features of a batch: N×F."""
        return self.projected(self.network.features(images))


def label_correlations(labels: Tensor, scores: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each label with each measured attribute: K×K, a row per label.

    Args:
        labels: The generator's conditions, N×K.
        scores: Scores of the images, N×K; column k is the attribute that label k stands for.
    """
    count = labels.shape[1]
    return np.asarray(np.corrcoef(labels.numpy().T, scores.T)[:count, count:])


def mean_pairwise_distance(features: Tensor) -> float:
    """The mean Euclidean distance between two different rows of N×F, a measure of diversity; N ≥ 2."""
    count = len(features)
    return float(torch.cdist(features.double(), features.double()).sum() / (count * (count - 1)))


def set_distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Distances between two sets of images from their features N×F and M×F; both are 0 for equal distributions.

    Returns:
        ``frechet_distance`` (Heusel et al., 2017) and ``kernel_distance`` (Bińkowski et al., 2018).
    """
    identity = nn.Identity()  # the features are given already
    identity.num_features = real.shape[1]  # type: ignore[assignment]
    # Only rank zero computes these distances; synchronising with the other ranks would wait forever.
    frechet = FrechetInceptionDistance(identity, sync_on_compute=False)
    kernel = KernelInceptionDistance(identity, subset_size=min(len(real), len(fake), SUBSET), sync_on_compute=False)
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    with torch.random.fork_rng(devices=[]):  # the kernel distance draws its subsets from torch's global generator
        torch.manual_seed(0)
        kernel_distance, _ = kernel.compute()
    return {"frechet_distance": float(frechet.compute()), "kernel_distance": float(kernel_distance)}

"""Features of images, from networks of several sorts, and the distances and diversity of sets that follow from them."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.utils import counted
from ohlora.utils.images import resized

FEATURES = 256
"""Largest number of features: their covariance must be estimated from a few thousand images."""
SUBSET = 1000
"""Largest number of images in a subset of the kernel distance."""
SUBSETS = 20
"""Number of subsets of the kernel distance, where there are more images than in one."""


class Features(nn.Module, ABC):
    """Base of feature extractors: square images N×3×H×H in [−1, 1] → N×F with F ≤ 256, in evaluation mode.

    Images of another size than the network takes are resized (bilinearly, with averaging when they shrink). A wider
    output is projected onto 256 random orthonormal directions, which are the same in every run.

    Args:
        resolution: Height and width that the network takes; None for any.
        width: Size of its output.

    Attributes:
        num_features: The number F of features.
        differentiable: Whether gradients of the outputs reach the images.
    """

    projection: Tensor | None
    differentiable: bool = True

    def __init__(self, resolution: int | None, width: int) -> None:
        super().__init__()
        self.resolution, self.num_features = resolution, min(width, FEATURES)
        projection = None
        if width > FEATURES:
            random = counted.normal(0, "projection", range(width), FEATURES)
            projection = torch.linalg.qr(random.double())[0].float()
        self.register_buffer("projection", projection)

    @abstractmethod
    def outputs_of(self, images: Tensor) -> Tensor:
        """The network's outputs for images of its size: N×width."""

    def projected(self, outputs: Tensor) -> Tensor:
        """Projects outputs, N×width, to features: N×F."""
        return outputs if self.projection is None else outputs @ self.projection

    def outputs(self, images: Tensor) -> Tensor:
        """The network's whole outputs for images of any size: N×width."""
        return self.outputs_of(images if self.resolution is None else resized(images, self.resolution))

    def forward(self, images: Tensor) -> Tensor:
        """The features of a batch: N×F."""
        return self.projected(self.outputs(images))


class Penultimate(Features):
    """The last hidden layers of an attribute CNN, which is set to evaluation mode."""

    def __init__(self, network: AttributeCNN) -> None:
        super().__init__(network.resolution, sum(spec.hidden for spec in network.specs))
        self.network = network.eval()

    def outputs_of(self, images: Tensor) -> Tensor:
        """The hidden layers."""
        return self.network.features(images)


class NetworkFeatures(Features):
    """The outputs of any network, flattened.

    Args:
        network: Takes images, N×3×H×H; it is set to evaluation mode. It says ``differentiable`` False if it has no
            gradients.
        resolution: Height and width that it takes; None for any.
        mean: What is subtracted from pixel values in 0…1, per channel.
        std: What they are divided by then. With both 0.5, the network gets [−1, 1].

    Raises:
        ValueError: If it does not make a tensor with a row for each image.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        resolution: int | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        # From [−1, 1]: ((x + 1) / 2 − mean) / std; with both 0.5 this is exact.
        scale = 0.5 / torch.tensor(std)
        shift = (0.5 - torch.tensor(mean)) / torch.tensor(std)
        network = network.eval()
        with torch.inference_mode():
            made = network(torch.zeros(2, 3, resolution or 64, resolution or 64))
        if not isinstance(made, Tensor) or made.ndim < 2 or len(made) != 2:
            what = f"a tensor {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"makes {what} of two images; expected a tensor with a row for each, such as 2×512")
        super().__init__(resolution, made.flatten(1).shape[1])
        self.network = network.requires_grad_(False)
        self.differentiable = getattr(network, "differentiable", True)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)

    def outputs_of(self, images: Tensor) -> Tensor:
        """The network's outputs, flattened."""
        made: Tensor = self.network(images * self.scale + self.shift)
        return made.flatten(1).float()


class RandomFeatures(Features):
    """A convolutional network with random weights, the same in every run, where no trained network is at hand.

    Naeem et al. (2020) find such features fit for comparing sets of images that no network was trained on. Strided
    convolutions halve the image to 8×8; averages over a 4×4 grid of 16 feature maps are the features.

    Args:
        resolution: Height and width of the images, at least 8.
    """

    def __init__(self, resolution: int) -> None:
        super().__init__(resolution, FEATURES)
        layers: list[nn.Module] = []
        width = 3
        with counted.seeded(0):
            for _ in range(max(1, (resolution // 8).bit_length() - 1)):
                layers += [nn.Conv2d(width, 32, 3, 2, padding=1), nn.LeakyReLU(0.2)]
                width = 32
            layers.append(nn.Conv2d(width, 16, 3, padding=1))
            for layer in layers:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, a=0.2)
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.network = nn.Sequential(*layers).eval().requires_grad_(False)

    def outputs_of(self, images: Tensor) -> Tensor:
        """Averages over the grid, flattened."""
        return F.adaptive_avg_pool2d(self.network(images), 4).flatten(1)


def mean_pairwise_distance(features: Tensor) -> float:
    """The mean Euclidean distance between two different rows of N×F, a measure of diversity; N ≥ 2."""
    count = len(features)
    return float(torch.cdist(features.double(), features.double()).sum() / (count * (count - 1)))


def _given(features: Tensor) -> nn.Module:
    """What torchmetrics takes for a network, where the features are there already."""
    identity = nn.Identity()
    identity.num_features = features.shape[1]  # type: ignore[assignment]
    return identity


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """The Fréchet distance (Heusel et al., 2017) of two sets of features, N×F and M×F."""
    # Only rank zero computes distances; synchronising with the other ranks would wait forever.
    metric = FrechetInceptionDistance(_given(real), sync_on_compute=False)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def set_distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Distances between two sets of images from their features N×F and M×F; both are 0 for equal distributions.

    Returns:
        ``frechet_distance`` (Heusel et al., 2017) and ``kernel_distance`` (Bińkowski et al., 2018).
    """
    size = min(len(real), len(fake), SUBSET)
    subsets = 1 if size == len(real) == len(fake) else SUBSETS
    with warnings.catch_warnings():  # a few thousand features take little memory
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        kernel = KernelInceptionDistance(_given(real), subsets=subsets, subset_size=size, sync_on_compute=False)
    kernel.update(real, real=True)
    kernel.update(fake, real=False)
    with counted.seeded(0):  # the kernel distance draws its subsets from torch's global generator
        kernel_distance, _ = kernel.compute()
    return {"frechet_distance": frechet_distance(real, fake), "kernel_distance": float(kernel_distance)}

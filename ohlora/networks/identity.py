"""A network that recognises a person across expressions: images → unit vectors, alike for pictures of one person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohlora.networks.operations import check_images

LEAK = 0.1
"""Slope of every leaky ReLU."""
GROUP = 8
"""Feature maps that are normalised together."""


class Calibration(nn.Module):
    """Turns cosine similarities into probabilities of the same person: sigmoid(scale · similarity + bias).

    This is logistic regression (Platt, 1999).

    Args:
        scale: Four times the slope where the probability is one half; NaN before it is known.
        bias: Likewise; the probability is one half at a similarity of −bias / scale.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, scale: float = torch.nan, bias: float = torch.nan) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, similarity: Tensor) -> Tensor:
        """Probabilities, 0…1, for similarities of any shape."""
        return torch.sigmoid(self.scale * similarity + self.bias)


class IdentityNetwork(nn.Module):
    """Embeds images N×3×R×R in [−1, 1] as unit vectors N×D; their cosine similarity tells the same person from others.

    Convolutions of kernel size 3, each with group normalisation (Wu and He, 2018) and leaky ReLU, a dense layer, and
    the embedding.

    Args:
        widths: Feature maps of each convolution; multiples of 8.
        strides: Strides of each convolution, 1 or 2.
        hidden: Width of the dense layer.
        size: Size D of the embedding.
        resolution: Height and width R of the images.
        patch: Height and width of squares whose pixels become channels before the first convolution, which loses none
            of them and costs far less than convolutions at full resolution; 1 leaves the images as they are.

    Attributes:
        calibration: From similarities to probabilities; part of the file.

    Raises:
        ValueError: If widths and strides do not go together, or are of another kind.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 96),
        strides: Sequence[int] = (2, 2, 2, 2),
        hidden: int = 96,
        size: int = 64,
        resolution: int = 64,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if not widths or any(width % GROUP or width < GROUP for width in widths):
            raise ValueError(f"widths are {list(widths)}; expected one or more multiples of {GROUP}")
        if len(strides) != len(widths) or any(stride not in (1, 2) for stride in strides):
            raise ValueError(f"strides are {list(strides)}; expected 1 or 2 for each of {len(widths)} widths")
        if patch < 1 or resolution % patch:
            raise ValueError(f"patch is {patch}; expected a divisor of the resolution {resolution}")
        self.widths, self.strides, self.hidden, self.size = tuple(widths), tuple(strides), hidden, size
        self.resolution, self.patch = resolution, patch
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch)] if patch > 1 else []
        side, inputs = resolution // patch, 3 * patch**2
        for width, stride in zip(widths, strides, strict=True):
            layers += [
                nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
                nn.GroupNorm(GROUP, width),
                nn.LeakyReLU(LEAK, inplace=True),
            ]
            side, inputs = -(-side // stride), width
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(inputs * side * side, hidden)
        self.embedding = nn.Linear(hidden, size)
        self.calibration = Calibration()

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that rebuild this network."""
        sizes = {"hidden": self.hidden, "size": self.size, "resolution": self.resolution, "patch": self.patch}
        return {"widths": list(self.widths), "strides": list(self.strides), **sizes}

    def features(self, images: Tensor) -> Tensor:
        """The dense layer: N×``hidden``."""
        check_images(images, self.resolution)
        return F.leaky_relu(self.dense(self.convolutions(images).flatten(1)), LEAK)

    def embedded(self, features: Tensor) -> Tensor:
        """From what :meth:`features` returned, the unit vectors N×D."""
        with torch.autocast(features.device.type, enabled=False):  # similarities near 1 need the precision
            return F.normalize(self.embedding(features.float()), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors, N×D.

        Raises:
            ValueError: If the images are not N×3×R×R.
        """
        return self.embedded(self.features(images))

    def same_person(self, a: Tensor, b: Tensor) -> Tensor:
        """The probability, (N,), that image k of ``a`` and image k of ``b`` (N×3×R×R each) show the same person.

        It is that of the pairs on which the calibration was fitted; see :mod:`ohlora.modules.identity`.
        """
        return self.calibration(F.cosine_similarity(self(a), self(b)))  # type: ignore[no-any-return]

"""A U-Net (Ronneberger et al., 2015) for face parsing: it predicts class scores for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.1
"""Slope of every leaky ReLU."""


class _Pair(nn.Sequential):
    """Two 3×3 convolutions, each with group normalisation and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for first in (inputs, outputs):
            layers += [
                nn.Conv2d(first, outputs, 3, padding=1, bias=False),
                nn.GroupNorm(8, outputs),
                nn.LeakyReLU(LEAK, inplace=True),
            ]
        super().__init__(*layers)


class FaceParserNetwork(nn.Module):
    """U-Net: images N×3×H×W in [−1, 1] → class scores N×K×H×W, before the softmax.

    Args:
        classes: Names of the K classes, by id.
        widths: Number of feature maps per level, from the finest to the coarsest; multiples of 8. Each level halves the
            resolution of the one before.

    Raises:
        ValueError: If there are fewer than two widths, or one is not a multiple of 8.
    """

    def __init__(self, classes: Sequence[str], widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        if len(widths) < 2 or any(width % 8 or width < 8 for width in widths):
            raise ValueError(f"widths are {list(widths)}; expected two or more multiples of 8")
        self.classes, self.widths = tuple(classes), tuple(widths)
        self.down = nn.ModuleList(
            _Pair(inputs, outputs) for inputs, outputs in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(_Pair(coarse + fine, fine) for fine, coarse in pairwise(widths))
        self.head = nn.Conv2d(widths[0], len(self.classes), 1)

    def arguments(self) -> dict[str, list[str] | list[int]]:
        """The constructor arguments that rebuild this network."""
        return {"classes": list(self.classes), "widths": list(self.widths)}

    @property
    def step(self) -> int:
        """What height and width must be multiples of, since every level but the first halves them."""
        return 1 << (len(self.widths) - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores.

        Raises:
            ValueError: If height or width is not a multiple of :attr:`step`.
        """
        if images.shape[2] % self.step or images.shape[3] % self.step:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected height and width to be multiples of {self.step}"
            )
        x, skips = images, []
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.up[level](torch.cat([x, skips[level]], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

"""A U-Net that parses faces: images to class scores per pixel (Ronneberger et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.1


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
    """Images N×3×H×W in [−1, 1] → class scores N×K×H×W, before any softmax.

    Args:
        classes: Names of the K classes, by id.
        widths: Feature maps from the finest level to the coarsest; multiples of 8. Each level halves the resolution.
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
        """What height and width must be multiples of, so that they can be halved often enough."""
        return 1 << (len(self.widths) - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores every pixel.

        Raises:
            ValueError: If height or width is no multiple of :attr:`step`.
        """
        if images.shape[2] % self.step or images.shape[3] % self.step:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected height and width to be multiples of {self.step}"
            )
        x, passed = images, []
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else F.max_pool2d(x, 2))
            passed.append(x)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.up[level](torch.cat([x, passed[level]], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

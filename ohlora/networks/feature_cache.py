"""A cache for the features that a frozen network computes from fixed images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Key = tuple[int, bool]
"""Index of an image in its dataset, and whether the image is mirrored."""


class FeatureCache:
    """Computes the features of each image once and keeps them in memory.

    Images are computed one by one: in a batch, the last bits of the features may depend on the size of the batch, and
    after a resume the same images meet in other batches.

    Args:
        compute: Function from images N×3×R×R to features N×…; the features of an image must depend on that image alone,
            and the function must not change.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self.compute = compute
        self._kept: dict[Key, Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def __call__(self, images: Tensor, keys: Sequence[Key]) -> Tensor:
        """Features of images N×3×R×R, N×…, without graph; a key must always stand for the same image."""
        for position, key in enumerate(keys):
            if key not in self._kept:
                self._kept[key] = self.compute(images[position : position + 1])
        return torch.cat([self._kept[key] for key in keys])

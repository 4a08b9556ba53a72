"""Features of fixed images, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Key = tuple[int, bool]
"""Number of an image in its dataset, and whether it is mirrored."""


class FeatureCache:
    """Keeps what a frozen trunk makes of each image.

    Every image is computed by itself: in batches its last bits could hang on which other images it meets, and so on
    where a run was resumed.

    Args:
        compute: Images N×3×R×R → features N×…; must treat every image by itself and never change.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self.compute = compute
        self._kept: dict[Key, Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def __call__(self, images: Tensor, keys: Sequence[Key]) -> Tensor:
        """Features of a batch, N×…, without graph.

        Args:
            images: N×3×R×R.
            keys: N keys; the same key must always come with the same image.
        """
        for position, key in enumerate(keys):
            if key not in self._kept:
                self._kept[key] = self.compute(images[position : position + 1])
        return torch.cat([self._kept[key] for key in keys])

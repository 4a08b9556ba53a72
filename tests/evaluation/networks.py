"""A network as a user may have one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Means(nn.Module):
    """The means of each channel, times weights: N×3×H×W → N×3.

    Args:
        channels: How many there are.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Looks at images."""
        return images.mean(dim=(2, 3)) * self.weight

"""A generator whose pixels are its latent, and a network that reads scores off them: all is linear."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ohlora.networks.generator import Generator

GREY = 0.04
"""Change of a pixel per unit of w, so that images are rounded to fifths of a unit."""


class Pixels(Generator):
    """w is z, of four numbers, each the grey of a pixel."""

    kind = "pixels"

    def __init__(self) -> None:
        super().__init__(2, z_dim=4, w_dim=4, c_dim=0, labels="none", label_rows=0)
        self.num_ws, self.style_sizes = 1, (4,)

    def compute_w(self, z: Tensor, label: Tensor | None) -> Tensor:
        return z

    def compute_styles(self, w: Tensor) -> Tensor:
        return w[:, 0]

    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return GREY * styles.reshape(-1, 1, 2, 2).expand(-1, 3, -1, -1)

    def noise_buffers(self) -> list[Tensor]:
        return []


class Reader(nn.Module):
    """Scores that are linear in the pixels.

    Args:
        outputs: Names of K scores.
        weights: Change of each per unit of w, K×4.
    """

    def __init__(self, outputs: tuple[str, ...], weights: Tensor) -> None:
        super().__init__()
        self.outputs, self.weights = outputs, weights.float()

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1).flatten(1) / GREY @ self.weights.T

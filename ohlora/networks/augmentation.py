"""Augmentations of what the discriminator sees, real and fake alike, so that it does not memorise a small training set.

They are differentiable twice: the generator learns through them, and gradient penalties reach through them.

Shapes: N images of R×R pixels, N×3×R×R in [−1, 1].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from ohlora.networks.operations import resample
from ohlora.utils import checks

GREY = [[1 / 3] * 3] * 3
"""Projection of colours onto the grey axis, vvᵀ of v = (1, 1, 1) / √3."""
ACROSS = [[k / math.sqrt(3) for k in row] for row in ([0, -1, 1], [1, 0, -1], [-1, 1, 0])]
"""The vector product with v."""


class Drawn:
    """Random numbers for N images: those of image i are drawn from its own generator alone.

    Args:
        generators: One random generator per image.
        like: A tensor whose dtype and device the numbers get.
    """

    def __init__(self, generators: Sequence[np.random.Generator], like: Tensor) -> None:
        self._generators, self._like = generators, like

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers from ``low`` to ``high``, (N,)."""
        return self._tensor(lambda g: g.uniform(low, high))

    def normal(self, deviation: float) -> Tensor:
        """Normal numbers of mean 0, (N,)."""
        return self._tensor(lambda g: g.normal(0, deviation))

    def integer(self, low: int, high: int) -> Tensor:
        """Whole numbers from ``low`` to ``high``, both included, (N,)."""
        return self._tensor(lambda g: float(g.integers(low, high, endpoint=True)))

    def event(self, p: Tensor) -> Tensor:
        """1 with probability ``p``, else 0, (N,)."""
        return (self.uniform() < p).to(self._like.dtype)

    def _tensor(self, draw: Callable[[np.random.Generator], float]) -> Tensor:
        return torch.tensor([draw(g) for g in self._generators], dtype=self._like.dtype, device=self._like.device)


class Augmentation(nn.Module, ABC):
    """Changes images at random, each as its own random generator decides.

    Attributes:
        mirrors: Whether images may be mirrored, which some labels do not allow.
    """

    mirrors: bool = False

    def forward(self, images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Images N×3×R×R and one random generator per image → images N×3×R×R, of float32 at least."""
        with torch.autocast(images.device.type, enabled=False):  # places in an image need the precision
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            return self.augment(images, Drawn(generators, images))

    @abstractmethod
    def augment(self, images: Tensor, drawn: Drawn) -> Tensor:
        """See :meth:`forward`."""


class DiffAugment(Augmentation):
    """DiffAugment (Zhao et al., 2020): every image changes its colours, is shifted, and loses a square.

    Brightness, saturation and contrast change. The shift is at most an eighth of the image in each direction, and what
    it lays open is 0, as is the square, which is half as wide as the image.
    """

    def augment(self, images: Tensor, drawn: Drawn) -> Tensor:
        size = images.shape[-1]
        x = images + _of_image(drawn.uniform(-0.5, 0.5))
        grey = x.mean(dim=1, keepdim=True)
        x = torch.lerp(grey, x, _of_image(drawn.uniform(0, 2)))
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = torch.lerp(mean, x, _of_image(drawn.uniform(0.5, 1.5)))
        reach = round(size / 8)
        right, down = drawn.integer(-reach, reach), drawn.integer(-reach, reach)
        x = resample(x, shift(right * 2 / size, down * 2 / size), "nearest", "zeros")
        centres = torch.stack([drawn.integer(0, size), drawn.integer(0, size)])
        pixels = torch.arange(size, device=x.device)
        columns, rows = (pixels - centres[:, :, None] + size // 4).div(size // 2, rounding_mode="floor") == 0
        lost: Tensor = rows[:, None, :, None] & columns[:, None, None, :]
        return x * ~lost


class ADA(Augmentation):
    """Adaptive discriminator augmentation (Karras et al., 2020a): changes whose probability follows the overfitting.

    The changes are, in this order: mirroring, quarter turns, a shift by whole pixels, scaling, rotation, scaling of one
    axis against the other, rotation again, a shift by fractions of pixels; brightness, contrast, inversion of luma,
    hue, saturation. Each takes place with probability ``p`` (the rotations so that one of them does), with the strength
    of the paper. As long as ``p`` stays below about 0.8, the generator does not learn to make changed images.

    Changes of place are joined and sampled once, bicubically. Beyond its borders an image is continued by its
    reflection. The paper's wavelet filters are left out.

    Args:
        flip: Mirrors images. It must be off where labels change with mirroring.
        turns: Turns images by quarters.
        target: Value of the sign statistic that ``p`` is adapted to.
        kimg: Thousands of images in which ``p`` can go from 0 to 1.

    Attributes:
        p: The probability, a scalar; 0 at first.
    """

    INTERVAL = 4
    """``p`` is adapted every so many steps."""
    p: Tensor
    sign_sum: Tensor
    steps: Tensor

    def __init__(self, flip: bool = True, turns: bool = False, target: float = 0.6, kimg: float = 500.0) -> None:
        super().__init__()
        checks.between(-1, 1, target=target)
        checks.above(0, kimg=kimg)
        self.mirrors, self.turns, self.target, self.kimg = flip, turns, target, kimg
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("sign_sum", torch.zeros(()))  # over the steps since p was last adapted
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def observe(self, sign: Tensor, images: int) -> None:
        """Takes in the sign statistic of a step, and adapts ``p`` if that is due.

        Args:
            sign: Mean of :meth:`ohlora.networks.losses.AdversarialLoss.signs` over the step's images, a scalar.
            images: Number of these images.
        """
        self.sign_sum += sign
        self.steps += 1
        if int(self.steps) == self.INTERVAL:
            direction = torch.sign(self.sign_sum / self.INTERVAL - self.target)
            self.p.add_(direction * (self.INTERVAL * images / (1000 * self.kimg))).clamp_(0, 1)
            self.sign_sum.zero_()
            self.steps.zero_()

    def augment(self, images: Tensor, drawn: Drawn) -> Tensor:
        x = resample(images, self.places(drawn, images.shape[-1]), "bicubic", "reflection")
        p = self.p
        brightness = drawn.normal(0.2) * drawn.event(p)
        contrast = torch.exp2(drawn.normal(0.5) * drawn.event(p))
        luma = contrast * (1 - 2 * drawn.integer(0, 1) * drawn.event(p))
        hue = drawn.uniform(-math.pi, math.pi) * drawn.event(p)
        chroma = contrast * torch.exp2(drawn.normal(1.0) * drawn.event(p))
        # A colour is scaled along the grey axis, and scaled and turned across it.
        grey, across = x.new_tensor(GREY), x.new_tensor(ACROSS)
        parts = (luma, grey), (chroma * hue.cos(), torch.eye(3).to(grey) - grey), (chroma * hue.sin(), across)
        matrix = torch.stack([factor[:, None, None] * part for factor, part in parts]).sum(dim=0)
        return torch.baddbmm((luma * brightness)[:, None, None], matrix, x.flatten(2)).view_as(x)

    def places(self, drawn: Drawn, size: int) -> Tensor:
        """Where the places of the augmented images come from: affine maps N×3×3, as :func:`resample` takes them.

        They are joined from the inverses of the changes, which have the distribution of the changes themselves.
        """
        p, of_rotation = self.p, 1 - (1 - self.p).sqrt()
        maps = []
        if self.mirrors:
            maps.append(stretch(1 - 2 * drawn.integer(0, 1) * drawn.event(p), 1.0))
        if self.turns:
            maps.append(rotation(math.pi / 2 * drawn.integer(0, 3) * drawn.event(p)))
        happens = drawn.event(p)
        right, down = ((drawn.uniform(-0.125, 0.125) * size).round() * (2 / size) * happens for _ in range(2))
        maps.append(shift(right, down))
        scale = torch.exp2(drawn.normal(0.2) * drawn.event(p))
        maps.append(stretch(scale, scale))
        maps.append(rotation(drawn.uniform(-math.pi, math.pi) * drawn.event(of_rotation)))
        scale = torch.exp2(drawn.normal(0.2) * drawn.event(p))
        maps.append(stretch(scale, 1 / scale))
        maps.append(rotation(drawn.uniform(-math.pi, math.pi) * drawn.event(of_rotation)))
        happens = drawn.event(p)
        maps.append(shift(drawn.normal(0.25) * happens, drawn.normal(0.25) * happens))
        joined: Tensor = reduce(_product, maps)
        return joined


def shift(right: Tensor, down: Tensor) -> Tensor:
    """Maps x to x + right and y to y + down, N×3×3 in homogeneous coordinates; of numbers (N,)."""
    return _matrix(right, [[1, 0, right], [0, 1, down]])


def stretch(across: Tensor, down: Tensor | float) -> Tensor:
    """Multiplies x by ``across`` and y by ``down``; see :func:`shift`."""
    return _matrix(across, [[across, 0, 0], [0, down, 0]])


def rotation(angle: Tensor) -> Tensor:
    """Turns from the x axis towards the y axis by an angle in radians; see :func:`shift`."""
    cos, sin = angle.cos(), angle.sin()
    return _matrix(angle, [[cos, -sin, 0], [sin, cos, 0]])


def _matrix(like: Tensor, rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
    whole = [*rows, [0, 0, 1]]
    return torch.stack([torch.stack([torch.zeros_like(like) + e for e in row], dim=1) for row in whole], dim=1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product, written out: a GPU may compute that of torch with fewer digits."""
    return (a[:, :, :, None] * b[:, None]).sum(dim=2)


def _of_image(values: Tensor) -> Tensor:
    """Numbers (N,) as N×1×1×1."""
    return values[:, None, None, None]

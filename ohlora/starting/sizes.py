"""What a new world begins with, by resolution, number of images and device: one table, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ohlora.errors import ConfigError

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Size:
    """A StyleGAN2 that is trained from random weights, and how.

    Attributes:
        resolution: Height and width of the images.
        z_dim: Size of its latents, and of w.
        mapping_layers: Layers of its mapping network.
        channel_base: Feature maps at resolution r are this over r, at most ``channel_max``.
        channel_max: Likewise.
        batch_size: Images per step.
        gamma: Weight of R1 and R2.
        kimg: Length of the training, in thousands of images.
        seconds: What a kimg takes, in seconds of one CPU core, R1, R2 and score matching included, as measured; None
            where it was not measured.
    """

    resolution: int
    z_dim: int
    mapping_layers: int
    channel_base: int
    channel_max: int
    batch_size: int
    gamma: float
    kimg: float
    seconds: float | None = None

    @property
    def architecture(self) -> dict[str, Any]:
        """Settings of :class:`ohlora.networks.registry.Architecture`."""
        return {
            "kind": "stylegan2",
            "resolution": self.resolution,
            "z_dim": self.z_dim,
            "w_dim": self.z_dim,
            "mapping_layers": self.mapping_layers,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "mbstd_group_size": 4,
        }

    def hours(self, kimg: float) -> float | None:
        """Hours of one CPU core for a training; None where that was not measured."""
        return None if self.seconds is None else kimg * self.seconds / 3600


SIZES: Mapping[Device, tuple[Size, ...]] = {
    "cpu": (
        Size(16, 64, 2, 512, 32, 8, 1.0, 60, 11.5),
        Size(32, 64, 4, 1024, 64, 8, 1.0, 120, 32),
        Size(64, 64, 4, 1024, 64, 8, 1.0, 120, 43),
        Size(128, 64, 4, 2048, 64, 8, 1.0, 120, 140),
        Size(256, 64, 4, 4096, 64, 8, 2.0, 120, 690),
    ),
    "gpu": (
        Size(16, 64, 2, 512, 32, 32, 1.0, 500),
        Size(32, 64, 4, 2048, 64, 32, 1.0, 1000),
        Size(64, 128, 4, 8192, 256, 32, 1.0, 2500),
        Size(128, 512, 8, 16384, 512, 32, 2.0, 5000),
        Size(256, 512, 8, 16384, 512, 32, 4.0, 10000),
        Size(512, 512, 8, 32768, 512, 16, 8.0, 25000),
        Size(1024, 512, 8, 32768, 512, 16, 16.0, 25000),
    ),
}
"""The sizes by device, rising. Those for a GPU were not run here: channels and γ are StyleGAN2-ADA's, or smaller."""
RATES: Mapping[Device, float] = {"cpu": 0.005, "gpu": 0.0025}
"""Learning rates of a StyleGAN from random weights. That for a CPU goes with small batches; the other is
StyleGAN2-ADA's."""
PASSES = 100
"""Where every image is seen more often than this, real images and fakes are augmented: a discriminator would learn them
by heart."""
LEAST = 500
"""Fewer images than this are hardly enough for a StyleGAN."""
LEARNED = 40_000
"""Images that a property network sees in training, about; few images are seen in more epochs."""


def size_for(resolution: int, device: Device) -> Size:
    """The row of the table for a resolution.

    Raises:
        ConfigError: If there is none.
    """
    for size in SIZES[device]:
        if size.resolution == resolution:
            return size
    known = ", ".join(str(size.resolution) for size in SIZES[device])
    raise ConfigError(f"--size is {resolution}; on a {device.upper()} expected one of {known}")


def resolution_for(shorter: int, device: Device) -> int:
    """The resolution for images of which half have a shorter side of at least so many pixels.

    It is the largest of the table that they have, and at most 64 on a CPU and 256 on a GPU.
    """
    most = {"cpu": 64, "gpu": 256}[device]
    fitting = [size.resolution for size in SIZES[device] if size.resolution <= min(shorter, most)]
    return max(fitting, default=SIZES[device][0].resolution)


def epochs_for(count: int) -> int:
    """Epochs of a property network on so many images."""
    return min(60, max(8, round(LEARNED / count)))


def advice(count: int) -> list[str]:
    """What the number of images means for a StyleGAN."""
    if count < LEAST:
        return [
            f"{count:,} images are few for a StyleGAN (expected {LEAST} or more): it will repeat them. Take more, or a "
            "generator of similar images with --generator"
        ]
    return []

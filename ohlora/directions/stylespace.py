"""What finders of directions in StyleSpace have in common.

StyleSpace (Wu et al., 2021, "StyleSpace analysis: disentangled controls for StyleGAN image generation") has the style
channels of all layers as its axes. They are affine in w, C of them, and each acts in one layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ohlora.directions.finder import Finder
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_latents

CHUNK = 1000
"""Codes whose style channels are computed at once."""


class StyleSpaceFinder(Finder):
    """Base of the finders in StyleSpace: one direction for all latents, over the channels of all layers.

    Args:
        covariance_count: Latents for means and variances of the style channels; no images.
        common: See :class:`ohlora.directions.finder.Finder`; ``group_by`` and ``layers`` stay what they are.
    """

    def __init__(self, covariance_count: int = 20000, **common: Any) -> None:
        super().__init__(**common)
        if self.layers != "all":
            raise ConfigError(f"layers is {self.layers!r}; a style channel is in one layer already, so leave it out")
        if self.group_by:
            raise ConfigError("style channels are searched for all latents at once; set group_by to []")
        if covariance_count < 2:
            raise ConfigError(f"covariance_count is {covariance_count}; expected at least 2")
        self.covariance_count = covariance_count

    @torch.no_grad()
    def codes(self, generator: Generator, stream: str, count: int) -> Codes:
        """Counted codes in S, on the generator's device: ``count`` × C."""
        return generator.styles(generator.map(*counted_latents(generator, self.seed, range(count), f"{stream}/")))

    @torch.no_grad()
    def moments(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Means and variances of the style channels, (C,) float64 each."""
        total = squares = torch.zeros((), dtype=torch.float64, device=generator.device)
        for part in torch.split(torch.arange(self.covariance_count), CHUNK):
            latents = counted_latents(generator, self.seed, part.tolist(), "covariance/")
            styles = generator.styles(generator.map(*latents)).values.double()
            total, squares = total + styles.sum(dim=0), squares + styles.square().sum(dim=0)
        mean = total / self.covariance_count
        return mean, (squares / self.covariance_count - mean.square()).clamp(min=0)

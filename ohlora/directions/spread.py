"""How the codes of a generator vary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ohlora.directions.covariance import covariance_of, covariance_root
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_latents

LATENTS = 5000
"""Latents from which that is taken; no images are made of them."""


class Spread(NamedTuple):
    """How codes vary, from which they are told in standard deviations.

    Attributes:
        root: Of the covariance of w, D×D, lower triangular; or of S, the channels' standard deviations (C,).
        mean: Of w, (D,), or of S, (C,).
    """

    root: Tensor
    mean: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, generator: Generator, seed: int, codes: Codes, stream: str) -> Spread:
        """That of a generator's codes, in the space of ``codes``; ``stream`` names the latents it is taken from."""
        w = generator.map(*counted_latents(generator, seed, range(LATENTS), stream))
        if codes.space is Space.S:
            styles = generator.in_space(w, Space.S).values
            deviation = styles.std(dim=0).clamp_min(torch.finfo(styles.dtype).eps)
            return cls(deviation.to(codes.values), styles.mean(dim=0).to(codes.values))
        root = covariance_root(covariance_of(w.values))
        return cls(root.to(codes.values), w.values.mean(dim=0).to(codes.values))

    def whitened(self, shifts: Tensor) -> Tensor:
        """Shifts of codes in standard deviations."""
        if self.root.ndim == 1:
            return shifts / self.root
        found: Tensor = torch.linalg.solve_triangular(self.root, shifts.mT, upper=False)
        return found.mT

    def coloured(self, learned: Tensor) -> Tensor:
        """The shifts of which that is said."""
        return learned * self.root if self.root.ndim == 1 else learned @ self.root.mT

"""Codes of images, and the space they live in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor


class Space(StrEnum):
    """Where codes live. L is the generator's ``num_ws``, D its ``w_dim``, C the number of its style channels."""

    W = "w"
    """One style code for all layers: …×D."""
    W_BY_LAYER = "w_by_layer"
    """A style code per layer: …×L×D."""
    S = "s"
    """StyleSpace (Wu et al., 2021): the style channels of all layers joined, …×C; the generator knows the offsets."""

    @property
    def ndim(self) -> int:
        """Number of dimensions of one code."""
        return 2 if self is Space.W_BY_LAYER else 1


@dataclass(frozen=True)
class Codes:
    """Codes of any number of images.

    Attributes:
        values: Batch dimensions, then one code each: …×D, …×L×D or …×C by ``space``.
        space: Where they live.
    """

    values: Tensor
    space: Space

    def __post_init__(self) -> None:
        if self.values.ndim < self.space.ndim + 1:
            raise ValueError(
                f"codes in {self.space} have shape {tuple(self.values.shape)}; expected a batch of codes of "
                f"{self.space.ndim} dimensions"
            )

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch dimensions."""
        return tuple(self.values.shape[: -self.space.ndim])

    def flat(self) -> Codes:
        """The same codes with a single batch dimension."""
        return replace(self, values=self.values.flatten(0, len(self.batch) - 1))

    def split(self, size: int) -> list[Codes]:
        """Parts of at most ``size`` along the first batch dimension."""
        return [replace(self, values=part) for part in torch.split(self.values, size)]

    def in_space(self, space: Space, num_ws: int) -> Codes:
        """The same codes in another space, where that needs no network: in W repeated for all ``num_ws`` layers.

        Raises:
            ValueError: If these codes do not exist there, or a network is needed to say what they are there.
        """
        if space is self.space:
            return self
        if (self.space, space) == (Space.W, Space.W_BY_LAYER):
            return Codes(self.values.unsqueeze(-2).expand(*self.values.shape[:-1], num_ws, -1), space)
        raise ValueError(f"codes in {self.space} cannot be written in {space}")

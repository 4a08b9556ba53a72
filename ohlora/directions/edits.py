"""Edits: directions with their unit of strength, and the grid of strengths on which they are tested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ohlora.directions.groups import Groups

GRID: dict[str, tuple[float, ...]] = {
    "mouth": (-1.8, -0.9, 0.0, 0.9, 1.8),
    "eyes": (-1.2, 1.2),
    "pose": (-0.6, 0.0, 0.6, 1.2, 1.8),
}
"""The recipe's strengths, upwards; the first attribute changes slowest. The original's "pose" is the tilt, ``roll``."""
LIMITS = {"eyes": 0.92, "mouth": 0.88, "pose": 0.88}
"""A latent passes the image generation test where every correlation is at least this."""
TILT = {"roll": "pose"}
"""Attributes that are tested as another is."""


def tested_as(name: str) -> str:
    """The attribute whose strengths and limit apply to an attribute."""
    return TILT.get(name, name)


@dataclass(frozen=True)
class Directions:
    """Directions in W, one per group and attribute.

    Adding ``strength · units[g, p] · vectors[g, p]`` to a w of group g moves attribute p, upwards for a positive
    strength.

    Attributes:
        attributes: The P attributes.
        vectors: Unit vectors, G×P×D.
        units: Length of one unit of strength, G×P.
        groups: The rule that finds a sample's group.
        method: How they were found.
        provenance: From what.
    """

    attributes: tuple[str, ...]
    vectors: Tensor
    units: Tensor
    groups: Groups
    method: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.groups.names), len(self.attributes))
        if self.vectors.ndim != 3 or self.vectors.shape[:2] != expected or self.units.shape != expected:
            raise ValueError(
                f"vectors have shape {tuple(self.vectors.shape)} and units {tuple(self.units.shape)}; expected "
                f"{expected[0]} groups × {expected[1]} attributes"
            )

    @property
    def steps(self) -> Tensor:
        """One unit of strength as a vector: G×P×D."""
        return self.units[..., None] * self.vectors

    def edit(self, w: Tensor, group: Tensor, strengths: Tensor) -> Tensor:
        """Style codes of edits.

        Args:
            w: N×D.
            group: N indices of groups.
            strengths: E×P, the same edits for all, or N×E×P.

        Returns:
            N×E×D.
        """
        steps = self.steps.to(w)[group]
        strengths = strengths.to(w).expand(len(w), -1, -1)
        return w[:, None] + strengths @ steps


@dataclass(frozen=True)
class Grid:
    """A full grid of strengths.

    Attributes:
        levels: Attribute → strengths, rising; the first attribute changes slowest.
    """

    levels: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, attributes: Sequence[str], levels: Mapping[str, Sequence[float]] = GRID) -> Grid:
        """The grid of some attributes, in the order of ``levels``.

        Raises:
            ValueError: If an attribute has no levels, or fewer than two.
        """
        chosen = {
            name: tuple(float(v) for v in levels[key])
            for key in levels
            for name in attributes
            if key in (name, tested_as(name)) and (name not in levels or key == name)
        }
        missing = [name for name in attributes if len(set(chosen.get(name, ()))) < 2]
        if missing:
            raise ValueError(f"the grid has fewer than two strengths for {', '.join(missing)}; it has {dict(levels)}")
        return cls(chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """Levels per attribute, in the order of ``levels``."""
        return tuple(len(v) for v in self.levels.values())

    @property
    def size(self) -> int:
        """Edits E."""
        return math.prod(self.shape)

    def strengths(self, attributes: Sequence[str]) -> Tensor:
        """All edits, E×P: a column per attribute asked for."""
        names = list(self.levels)
        rows = torch.tensor(list(product(*self.levels.values())))
        return rows[:, [names.index(name) for name in attributes]]

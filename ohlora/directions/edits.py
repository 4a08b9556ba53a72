"""Edits: what turns a latent and strengths into style codes, and the grid of strengths on which that is tested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

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


class Edits(Protocol):
    """Anything that turns latents and strengths into edited style codes."""

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Tensor:
        """Style codes of edits.

        Args:
            latents: N latents.
            group: N indices of groups.
            strengths: E×P, the same edits for all, or N×E×P.

        Returns:
            N×E×D, or N×E×L×D where layers get codes of their own.
        """
        ...


@dataclass(frozen=True)
class Latents:
    """Latents with all that edits may start from.

    Attributes:
        z: N×Z.
        label: N×K, or None for a generator without labels.
        w: N×D.
    """

    z: Tensor
    label: Tensor | None
    w: Tensor

    def part(self, place: int) -> Latents:
        """One of them."""
        chosen = slice(place, place + 1)
        return Latents(self.z[chosen], None if self.label is None else self.label[chosen], self.w[chosen])


def added(w: Tensor, strengths: Tensor, steps: Tensor) -> Tensor:
    """Codes w + Σ strength · step.

    Args:
        w: N×D.
        strengths: E×P or N×E×P.
        steps: N×P×D, or N×P×L×D for steps that differ between layers.

    Returns:
        N×E×D or N×E×L×D.
    """
    strengths = strengths.to(w).expand(len(w), -1, -1)
    shift = strengths @ steps.to(w).flatten(2)
    if steps.ndim == 3:
        return w[:, None] + shift
    return w[:, None, None] + shift.reshape(*shift.shape[:2], *steps.shape[2:])


@dataclass(frozen=True)
class Directions:
    """Directions in W, one per group and attribute.

    Adding ``strength · units[g, p] · vectors[g, p]`` to a w of group g moves attribute p, upwards for a positive
    strength.

    Attributes:
        attributes: The P attributes.
        vectors: Unit vectors, G×P×D, or G×P×L×D where each of L style layers has a part of its own.
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
        if self.vectors.ndim not in (3, 4) or self.vectors.shape[:2] != expected or self.units.shape != expected:
            raise ValueError(
                f"vectors have shape {tuple(self.vectors.shape)} and units {tuple(self.units.shape)}; expected "
                f"{expected[0]} groups × {expected[1]} attributes"
            )

    @classmethod
    def of_steps(
        cls,
        attributes: tuple[str, ...],
        steps: Tensor,
        groups: Groups,
        method: str,
        provenance: Mapping[str, Any] | None = None,
    ) -> Directions:
        """Directions whose unit of strength is a step: G×P×D or G×P×L×D."""
        units = steps.flatten(2).norm(dim=-1)
        shape = (*units.shape, *[1] * (steps.ndim - 2))
        return cls(attributes, steps / units.reshape(shape), units, groups, method, provenance or {})

    @property
    def steps(self) -> Tensor:
        """One unit of strength as a vector: G×P×D or G×P×L×D."""
        return self.units.reshape(*self.units.shape, *[1] * (self.vectors.ndim - 2)) * self.vectors

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Tensor:
        """See :class:`Edits`."""
        return added(latents.w, strengths, self.steps.to(latents.w)[group])


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

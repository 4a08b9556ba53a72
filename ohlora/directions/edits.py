"""Edits: what turns a latent and strengths into style codes, and the grid of strengths on which that is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol

import torch
from torch import Tensor

from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space

GRID: dict[str, tuple[float, ...]] = {
    "mouth": (-1.8, -0.9, 0.0, 0.9, 1.8),
    "eyes": (-1.2, 1.2),
    "pose": (-0.6, 0.0, 0.6, 1.2, 1.8),
}
"""The recipe's strengths, upwards; the first attribute changes slowest. The original's "pose" is the tilt, ``roll``."""
LIMITS = {"eyes": 0.92, "mouth": 0.88, "pose": 0.88}
"""A latent passes the evaluation of edits where every correlation is at least this."""
TILT = {"roll": "pose"}
"""Attributes that are tested as another is."""


def tested_as(name: str) -> str:
    """The attribute whose strengths and limit apply to an attribute."""
    return TILT.get(name, name)


class Edits(Protocol):
    """Anything that turns latents and strengths into edited style codes."""

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Codes:
        """N×E codes, in the space in which the edits move them.

        Args:
            latents: N latents.
            group: N indices of groups.
            strengths: E×P, the same edits for all, or N×E×P.
        """
        ...


@dataclass(frozen=True)
class Latents:
    """Latents with all that edits may start from.

    Attributes:
        z: N×Z.
        label: N×K, or None for a generator without labels.
        codes: N codes, in W or, where edits move style channels, in S.
    """

    z: Tensor
    label: Tensor | None
    codes: Codes

    def part(self, place: int) -> Latents:
        """One of them."""
        label = None if self.label is None else self.label[[place]]
        return Latents(self.z[[place]], label, replace(self.codes, values=self.codes.values[[place]]))


def added(codes: Codes, strengths: Tensor, steps: Codes) -> Codes:
    """N×E codes, in the space of the steps: N codes moved by Σ strength · step.

    Args:
        codes: N codes.
        strengths: E×P or N×E×P.
        steps: N×P differences of codes, in the same space; those by layer also move codes in W.
    """
    values = steps.values.to(codes.values)
    strengths = strengths.to(values).expand(len(values), -1, -1)
    shift = (strengths @ values.flatten(2)).reshape(*strengths.shape[:2], *values.shape[2:])
    start = codes.in_space(steps.space, num_ws=values.shape[-2])
    return Codes(start.values[:, None] + shift, steps.space)


@dataclass(frozen=True)
class LocalBasis:
    """What edits at single latents start from; see :class:`ohlora.directions.local.LocalEdits`.

    Attributes:
        outputs: The search CNN's outputs whose gradients are here, K names.
        gradients: Mean gradients by layer, K×L×D, in standard deviations of score per unit of w.
        covariance: Of w, D×D.
        deviations: Standard deviations of the scores, (K,).
        points: Gradients taken per latent and round.
        rounds: How often a latent's step is taken anew.
        share: Weight of the latent's own gradients against the mean ones, 0…1.
        low: Lowest strength of each target in a round, (P,).
        high: Highest likewise.
        seed: Of the points.
    """

    outputs: tuple[str, ...]
    gradients: Tensor
    covariance: Tensor
    deviations: Tensor
    points: int
    rounds: int
    share: float
    low: Tensor
    high: Tensor
    seed: int


@dataclass(frozen=True)
class Directions:
    """Directions in a space of codes, one per group g and attribute p.

    Adding ``strength · units[g, p] · vectors[g, p]`` to a code moves the attribute, upwards for a positive strength.

    Attributes:
        attributes: The P attributes.
        vectors: Unit vectors: G×P×D in W, G×P×L×D where each of L style layers has a part of its own, G×P×C in S.
        units: Length of one unit of strength, G×P.
        groups: The rule that finds a sample's group.
        method: How they were found: the finder's name.
        provenance: What they were found from.
        space: Where they live.
        basis: What edits at single latents start from, where the method makes them; these directions are their mean.
    """

    attributes: tuple[str, ...]
    vectors: Tensor
    units: Tensor
    groups: Groups
    method: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    space: Space = Space.W
    basis: LocalBasis | None = None

    def __post_init__(self) -> None:
        expected = (len(self.groups.names), len(self.attributes))
        shapes = (self.vectors.shape[: -self.space.ndim], self.units.shape)
        if shapes != (expected, expected):
            raise ValueError(
                f"vectors in {self.space} have shape {tuple(self.vectors.shape)} and units {tuple(self.units.shape)}; "
                f"expected {expected[0]} groups × {expected[1]} attributes, and {self.space.ndim} dimensions more of "
                "the vectors"
            )

    @classmethod
    def of_steps(
        cls,
        attributes: tuple[str, ...],
        steps: Codes,
        groups: Groups,
        method: str,
        provenance: Mapping[str, Any] | None = None,
        basis: LocalBasis | None = None,
    ) -> Directions:
        """Directions whose unit of strength is a step: G×P differences of codes."""
        units = steps.values.flatten(2).norm(dim=-1)
        vectors = steps.values / units.reshape(*units.shape, *[1] * steps.space.ndim)
        return cls(attributes, vectors, units, groups, method, provenance or {}, steps.space, basis)

    @property
    def steps(self) -> Codes:
        """One unit of strength as a difference of codes: G×P."""
        return Codes(self.units.reshape(*self.units.shape, *[1] * self.space.ndim) * self.vectors, self.space)

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Codes:
        """See :class:`Edits`."""
        steps = self.steps.values.to(latents.codes.values)[group]
        return added(latents.codes, strengths, Codes(steps, self.space))


@dataclass(frozen=True)
class Grid:
    """A full grid of strengths: attribute → its levels, rising; the first attribute changes slowest."""

    levels: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, attributes: Sequence[str], levels: Mapping[str, Sequence[float]] = GRID) -> Grid:
        """The grid of some attributes, in the order of ``levels``.

        Raises:
            ConfigError: If an attribute has no levels, or fewer than two.
        """
        chosen = {
            name: tuple(float(v) for v in levels[key])
            for key in levels
            for name in attributes
            if key in (name, tested_as(name)) and (name not in levels or key == name)
        }
        missing = [name for name in attributes if len(set(chosen.get(name, ()))) < 2]
        if missing:
            raise ConfigError(f"the grid has fewer than two strengths for {', '.join(missing)}; it has {dict(levels)}")
        return cls(chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """Levels per attribute, in the order of ``levels``."""
        return tuple(len(v) for v in self.levels.values())

    def strengths(self, attributes: Sequence[str]) -> Tensor:
        """All edits, E×P: a column per attribute asked for."""
        rows = torch.tensor(list(product(*self.levels.values())))
        return rows[:, [list(self.levels).index(name) for name in attributes]]

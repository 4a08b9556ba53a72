"""Edits: what turns a latent and strengths into style codes, and the grid of strengths on which that is tested."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ohlora.attributes import vocabulary
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space

Unit = Literal["data", "samples", "vector"]
UNITS: Mapping[str, str] = {
    "data": "one z-score of the attribute over the data that its network was trained on",
    "samples": "one standard deviation over the generator's images, of the attribute or of w along the direction",
    "vector": "one unit of length of the code",
}
"""What one unit of strength is, as files call it."""
GUIDE = "guide"
"""What the provenance of directions calls the fingerprint of the network that held the person."""
FULL_GRID = 50
"""Edits of the largest full grid by default: as many as the original makes of its three attributes."""


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


def own_space(moving: Space) -> Space:
    """The space of a latent's own steps, by that of the directions they came from: S, or W by layer."""
    return Space.S if moving is Space.S else Space.W_BY_LAYER


def added(codes: Codes, strengths: Tensor, steps: Codes) -> Codes:
    """:func:`moved` by straight steps, N×P differences of codes."""
    return moved(codes, strengths, Steps(steps))


@dataclass(frozen=True)
class Steps:
    """What strengths add to codes: straight steps, or paths that bend.

    Attributes:
        shifts: Differences of codes: …×P, what one unit of strength adds, or …×P×M, what is added at the nodes.
        nodes: Strengths of the nodes, …×P×M, rising, 0 among them; None for straight steps. In between, shifts are
            linear; beyond the ends they stay what they are there.
    """

    shifts: Codes
    nodes: Tensor | None = None

    def __post_init__(self) -> None:
        if self.nodes is not None and (self.nodes.shape != self.shifts.batch or self.nodes.shape[-1] < 2):
            raise ValueError(
                f"there are nodes of shape {tuple(self.nodes.shape)} for shifts of {self.shifts.batch}; expected the "
                "same, and at least two nodes"
            )

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch dimensions, whose last is P."""
        return self.shifts.batch if self.nodes is None else self.shifts.batch[:-1]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What files hold of them: ``steps``, and ``nodes`` where there are some."""
        return {"steps": self.shifts.values} | ({} if self.nodes is None else {"nodes": self.nodes})

    @classmethod
    def of_latents(cls, tensors: Mapping[str, Tensor], moving: Space) -> Steps:
        """Latents' own steps of their :attr:`tensors`; ``moving`` is the space of the directions they came from."""
        return cls(Codes(tensors["steps"], own_space(moving)), tensors.get("nodes"))

    def part(self, *places: int) -> Steps:
        """Those at some places of the first batch dimension."""
        nodes = None if self.nodes is None else self.nodes[list(places)]
        return Steps(replace(self.shifts, values=self.shifts.values[list(places)]), nodes)

    def per(self, units: Tensor) -> Steps:
        """The same, for strengths that count in other units: strength 1 is then what ``units`` (…×P) was."""
        if self.nodes is not None:
            return Steps(self.shifts, self.nodes / units[..., None].to(self.nodes))
        values = self.shifts.values
        factors = units.reshape(*units.shape, *[1] * self.shifts.space.ndim)
        return Steps(replace(self.shifts, values=(values * factors).to(values.dtype)))

    def at(self, strengths: Tensor) -> Tensor:
        """What strengths …×E×P add to codes: …×E, then one code each."""
        values = self.shifts.values
        flat = values.flatten(-self.shifts.space.ndim)
        if self.nodes is None:
            summed = strengths.to(values) @ flat
        else:
            weights = _shares(strengths.to(self.nodes), self.nodes).to(values)
            summed = weights.flatten(-2) @ flat.flatten(-3, -2)
        return summed.reshape(*summed.shape[:-1], *values.shape[-self.shifts.space.ndim :])


def _shares(strengths: Tensor, nodes: Tensor) -> Tensor:
    """Weights of the nodes …×P×M at strengths …×E×P by linear interpolation: …×E×P×M."""
    nodes = nodes.expand(*strengths.shape[:-2], *nodes.shape[-2:]).contiguous()
    s = strengths.mT.contiguous()
    upper = torch.searchsorted(nodes, s).clamp(1, nodes.shape[-1] - 1)
    low, high = nodes.gather(-1, upper - 1), nodes.gather(-1, upper)
    share = ((s - low) / (high - low)).clamp(0, 1)
    weights = torch.zeros(*s.shape, nodes.shape[-1]).to(nodes)
    weights.scatter_(-1, (upper - 1)[..., None], (1 - share)[..., None])
    weights.scatter_(-1, upper[..., None], share[..., None])
    return weights.transpose(-3, -2)


def moved(codes: Codes, strengths: Tensor, steps: Steps) -> Codes:
    """N×E codes, in the space of the steps: N codes moved by the strengths of all attributes, added up.

    Args:
        codes: N codes.
        strengths: E×P or N×E×P.
        steps: N×P, in the same space; those by layer also move codes in W.
    """
    values = steps.shifts.values.to(codes.values)
    steps = replace(steps, shifts=replace(steps.shifts, values=values))
    space = steps.shifts.space
    start = codes.in_space(space, num_ws=values.shape[-2])
    strengths = strengths.to(values).expand(len(values), -1, -1)
    return Codes(start.values[:, None] + steps.at(strengths), space)


@dataclass(frozen=True)
class LocalBasis:
    """What edits at single latents start from; see :class:`ohlora.directions.local.LocalEdits`.

    Attributes:
        outputs: What the gradients are of, K names: the search CNN's outputs, then axes of the guide's embeddings.
        gradients: Mean gradients by layer, K×L×D, in units of strength per unit of w.
        covariance: Of w, D×D.
        scales: One unit of strength in the network's scores, (K,): 1, and in earlier files the scores' standard
            deviations over samples.
        points: Gradients taken per latent and round.
        rounds: How often a latent's step is taken anew.
        share: Weight of the latent's own gradients against the mean ones, 0…1.
        low: Lowest strength of each target in a round, (P,).
        high: Highest likewise.
        seed: Of the points.
        axes: Axes of the guide's embeddings that are held, E×A; None without a guide.
    """

    outputs: tuple[str, ...]
    gradients: Tensor
    covariance: Tensor
    scales: Tensor
    points: int
    rounds: int
    share: float
    low: Tensor
    high: Tensor
    seed: int
    axes: Tensor | None = None


@dataclass(frozen=True)
class PathBasis:
    """What paths of single latents start from; see :class:`ohlora.directions.paths.PathEdits`.

    Attributes:
        outputs: What is moved or held, K names: the search CNN's outputs, then axes of the guide's embeddings.
        gradients: Mean gradients by layer, K×L×D, in units of strength per unit of w.
        covariance: Of w, D×D.
        low: Lower end of the data's range of each target, in z-scores, (P,).
        high: Upper end likewise.
        nodes: Nodes on either side of the latent.
        damping: Of each step, as a share of the gradients' own squared lengths.
        jitter: By how much codes are moved at random before gradients are taken, in standard deviations of w.
        memory: Weight of the gradients of earlier nodes, 0…1.
        share: Weight of the latent's own gradients of scores against the mean ones, 0…1.
        reach: How far a path goes, in parts of the way to the end of the data's range.
        seed: Of the jitter.
        axes: Axes of the guide's embeddings that are held, E×A; None without a guide.
    """

    outputs: tuple[str, ...]
    gradients: Tensor
    covariance: Tensor
    low: Tensor
    high: Tensor
    nodes: int
    damping: float
    jitter: float
    memory: float
    share: float
    reach: float
    seed: int
    axes: Tensor | None = None


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
        unit: What one unit of strength is; see :data:`UNITS`.
    """

    attributes: tuple[str, ...]
    vectors: Tensor
    units: Tensor
    groups: Groups
    method: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    space: Space = Space.W
    basis: LocalBasis | PathBasis | None = None
    unit: Unit = "data"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"the unit of strength is {self.unit!r}; expected one of {', '.join(UNITS)}")
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
        basis: LocalBasis | PathBasis | None = None,
    ) -> Directions:
        """Directions of steps, G×P differences of codes, that move an attribute by one z-score of the data each."""
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
    """A grid of strengths.

    All combinations of the levels, the first attribute changing slowest, where these are at most ``largest`` edits.
    Otherwise each attribute changes alone, the others at 0, and all change together in as few edits as balance: each
    attribute is at its highest level in half of them, and so is any other in half of those (rows of a Hadamard matrix).
    The first kind grows with the product of the numbers of levels, the second with their sum.

    Attributes:
        levels: Attribute → its levels, rising.
        largest: Edits of the largest full grid.
    """

    levels: Mapping[str, tuple[float, ...]]
    largest: int = FULL_GRID

    @classmethod
    def of(
        cls,
        attributes: Sequence[str],
        levels: Mapping[str, Sequence[float]] | None = None,
        largest: int = FULL_GRID,
    ) -> Grid:
        """The grid of some attributes.

        Args:
            attributes: The attributes.
            levels: Attribute → levels; those of other attributes are what the world declares. Attributes come in this
                order, then in that of the world.
            largest: Edits of the largest full grid.

        Raises:
            ConfigError: If an attribute has no levels, fewer than two, or such as do not rise.
        """
        known = {**(levels or {}), **{k: v for k, v in vocabulary().grid.items() if k not in (levels or {})}}
        missing = [name for name in attributes if len(set(known.get(name, ()))) < 2]
        if missing:
            raise ConfigError(
                f"the grid has fewer than two strengths for {', '.join(missing)}; it has {dict(known)}. Give them in "
                "model.init_args.grid, or as grid of the attribute in the world's file"
            )
        for name in attributes:
            if not all(low < high for low, high in pairwise(known[name])):
                raise ConfigError(f"the grid of {name} is {list(known[name])}; expected strengths that rise")
        return cls({key: tuple(map(float, known[key])) for key in known if key in attributes}, largest)

    @property
    def full(self) -> bool:
        """Whether it is all combinations."""
        return math.prod(len(levels) for levels in self.levels.values()) <= self.largest

    @cached_property
    def edits(self) -> dict[tuple[float, ...], int]:
        """Strengths of each edit, in the order of ``levels`` → its place."""
        levels = list(self.levels.values())
        if self.full:
            return {row: place for place, row in enumerate(product(*levels))}
        rows = [tuple(v if k == p else 0.0 for k in range(len(levels))) for p, own in enumerate(levels) for v in own]
        signs = torch.ones(1, 1)
        while len(signs) <= len(levels):
            signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
        for row in signs[:, 1 : 1 + len(levels)].tolist():
            rows.append(tuple(max(own) if sign > 0 else min(own) for sign, own in zip(row, levels, strict=True)))
        return {row: place for place, row in enumerate(dict.fromkeys(rows))}

    def strengths(self, attributes: Sequence[str]) -> Tensor:
        """All edits, E×P: a column per attribute asked for."""
        return torch.tensor(list(self.edits))[:, [list(self.levels).index(name) for name in attributes]]

    def neighbours(self, attribute: str) -> Tensor:
        """Pairs of edits that differ in one attribute by one level, the higher one second: M×2 places."""
        place, levels = list(self.levels).index(attribute), self.levels[attribute]
        above = dict(pairwise(levels))
        pairs = []
        for row, edit in self.edits.items():
            higher = (*row[:place], above.get(row[place], math.nan), *row[place + 1 :])
            if higher in self.edits:
                pairs.append((edit, self.edits[higher]))
        return torch.tensor(pairs)

    def alone(self, attribute: str) -> list[int]:
        """Places of the edits in which one attribute rises and the others are at 0; a full grid may have none."""
        place = list(self.levels).index(attribute)
        found = {row[place]: k for row, k in self.edits.items() if not any(row[:place] + row[place + 1 :])}
        return [found[level] for level in sorted(found)]

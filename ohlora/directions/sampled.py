"""What finders that search scored samples have in common: a search per group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ohlora.directions import layers
from ohlora.directions.covariance import covariance_of
from ohlora.directions.edits import Directions, added
from ohlora.directions.finder import Finder, Notes, Row, Source
from ohlora.directions.groups import UNGROUPED
from ohlora.directions.held import held_names
from ohlora.errors import ConfigError, DataError
from ohlora.networks.codes import Codes
from ohlora.networks.sampling import scores_of_codes
from ohlora.utils import checks, counted
from ohlora.utils.files import shortened
from ohlora.utils.progress import tracked


def class_size(count: int, fraction: float) -> int:
    """Samples in each of the two classes, of ``count`` samples: max(⌊fraction · count⌋, 1)."""
    return max(int(fraction * count + 1e-9), 1)


def training_size(size: int, share: float) -> int:
    """Samples of a class of ``size`` that train; the others validate."""
    return int(share * size + 1e-9)


def extremes(scores: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of those of N scores that are highest and lowest, each from the outermost inwards, ties by index.

    Raises:
        ValueError: If all scores are equal, or ``fraction``, the share of each class, leaves too few for two classes.
    """
    size = class_size(len(scores), fraction)
    if len(scores) < 2 * size:
        raise ValueError(f"there are {len(scores)} samples; expected at least {2 * size} for two classes")
    if scores.min() == scores.max():
        raise ValueError(f"every score is {scores[0]}: nothing can be learned from it")
    order = np.argsort(scores, kind="stable")
    return order[::-1][:size], order[:size]


def split(members: np.ndarray, training_share: float, seed: int, stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Parts of a class that train and that validate: a function of (seed, stream) alone."""
    shuffled = members[counted.permutation(seed, stream, 0, len(members))]
    train = training_size(len(members), training_share)
    return shuffled[:train], shuffled[train:]


WEAKEST = 0.1
"""Least slope, in z-scores, of a step that is scaled: of a weaker one, images fall apart before it moves anything."""


@dataclass(frozen=True)
class Part:
    """The n samples of one group, and what is known of all samples.

    Attributes:
        name: The group's.
        number: Its place among the groups.
        outputs: Names of the K scores.
        codes: n×D, float32.
        scores: n×K.
        covariance: Of all codes, D×D float64.
    """

    name: str
    number: int
    outputs: tuple[str, ...]
    codes: Tensor
    scores: np.ndarray
    covariance: Tensor

    def classes(self, attribute: str, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the samples that score highest and lowest.

        Raises:
            DataError: If all score the same.
        """
        try:
            return extremes(self.scores[:, self.outputs.index(attribute)], fraction)
        except ValueError as error:
            raise DataError(f"{attribute}, throughout group {self.name}: {error}") from error

    def one_deviation(self, vectors: Tensor) -> Tensor:
        """Vectors (P×D) in the length of one standard deviation of all codes along them: P×D float64."""
        unit = torch.nn.functional.normalize(vectors.double(), dim=-1)
        return unit * torch.einsum("pd,de,pe->p", unit, self.covariance, unit).clamp(min=0).sqrt()[:, None]


class SampleFinder(Finder):
    """Base of the finders that search scored samples, group by group.

    Samples tell where an attribute rises, and not how much an edit moves it. So steps are scaled by what they do: each
    is tried on some samples of its group at the lowest and the highest strength of the grid, and divided by the slope
    that the search CNN sees, twice. One that moves its attribute by less than a tenth of a z-score, or downwards, keeps
    its length; a message and the file name it. This costs groups × targets × ``scaling_count`` × 4 images.

    Args:
        scaling_count: Samples of each group on which steps are tried.
        small_groups: What becomes of a group too small for a search: ``ungrouped`` takes the direction of all samples
            for it and says so, ``raise`` ends the run.
        common: See :class:`ohlora.directions.finder.Finder`.

    Attributes:
        noted: Settings that files of directions tell.
    """

    uses_samples = True
    grouped_by_default = True
    noted: ClassVar[tuple[str, ...]] = ("seed",)

    def __init__(
        self, scaling_count: int = 20, small_groups: Literal["ungrouped", "raise"] = "ungrouped", **common: Any
    ) -> None:
        super().__init__(**common)
        checks.at_least(1, scaling_count=scaling_count)
        if self.layers == "each":
            raise ConfigError("layers is 'each'; samples do not tell layers apart, gradients do")
        self.scaling_count, self.small_groups = scaling_count, small_groups

    @property
    def needs(self) -> set[str]:
        """See :attr:`ohlora.directions.finder.Finder.needs`."""
        return {"samples", "generator", "network"}

    @abstractmethod
    def solve(self, part: Part) -> tuple[Tensor, list[Row]]:
        """Searches one group.

        Returns:
            Steps P×D float64, whose length is where their scaling begins, and per attribute what a table shows of the
            search; no rows where there is nothing to show.
        """

    def large_enough(self, count: int, size: int) -> bool:
        """Whether a group of ``count`` samples of length ``size`` can be searched by itself."""
        return True

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`; samples are searched group by group."""
        samples, groups = source.samples, self.groups(source)
        assert samples is not None  # asked for by ``needs``
        held_names(self.targets, (), samples.outputs)  # refuses targets without a score
        notes.add_scores(samples.outputs, samples.scores)
        group = groups.assign(samples.outputs, samples.scores)
        codes, scores = samples.codes.values, samples.scores
        whole = Part(UNGROUPED, 0, samples.outputs, codes, scores, covariance_of(codes))
        members = {name: np.flatnonzero(group == g) for g, name in enumerate(groups.names)}
        small = [name for name, chosen in members.items() if not self.large_enough(len(chosen), codes.shape[-1])]
        if small:
            listed = ", ".join(f"{name} ({len(members[name])})" for name in small)
            said = f"too few samples in {len(small)} of {len(members)} groups: {listed}"
            if self.small_groups == "raise" or len(members) == 1:
                raise DataError(f"{said}; take more samples, fewer grouping attributes or a larger fraction")
            print(f"{said}; they get the direction of all samples")
        of_all = self.solve(whole) if small else None
        found: list[Tensor] = []
        rows: list[Row] = []
        for g, (name, chosen) in enumerate(tracked(list(members.items()), "groups")):
            if of_all is None or name not in small:
                own = codes[torch.from_numpy(chosen)]
                steps, shown = self.solve(replace(whole, name=name, number=g, codes=own, scores=scores[chosen]))
            else:
                steps, shown = of_all
            found.append(steps)
            about = {"group": name, "samples": len(chosen), "own_direction": name not in small}
            rows += [about | {"attribute": a} | row for a, row in zip(self.targets, shown, strict=False)]
        notes.metrics["groups_without_own_direction"] = len(small)
        if rows:
            notes.tables["search"] = rows
        of_groups = torch.stack(found)
        arranged, acting = layers.arranged(self, lambda _: of_groups, groups, source, notes)
        scaled, unscaled, images = self._scaled(arranged, members, source)
        if unscaled:
            listed = shortened(unscaled, ", ")
            print(f"{len(unscaled)} directions hardly move their attribute, and keep their length: {listed}")
        provenance = {name: getattr(self, name) for name in self.noted}
        provenance |= {"samples": len(group), "ungrouped": small, "layers": acting}
        provenance |= {"images": images, "unscaled": unscaled}
        return Directions.of_steps(self.targets, scaled, groups, self.name, provenance)

    @torch.no_grad()
    def _scaled(self, steps: Codes, members: Mapping[str, np.ndarray], source: Source) -> tuple[Codes, list[str], int]:
        """Scales steps by their slopes.

        Args:
            steps: G×P.
            members: Places of the samples of each group; where there are none, all samples are taken.
            source: What the finder was given.

        Returns:
            G×P steps, which of them were not scaled, in words, and the number of images made.
        """
        generator, network = source.networks
        samples = source.samples
        assert samples is not None  # asked for by ``needs``
        held_names(self.targets, (), network.outputs)
        places = [network.outputs.index(name) for name in self.targets]
        low, high = source.ends(self.targets)
        strengths = torch.cat([torch.diag(low), torch.diag(high)]).to(generator.device)
        factors = torch.ones(steps.batch, dtype=torch.float64)
        weak = torch.zeros(steps.batch, dtype=torch.bool)
        images = 0
        for g, own in enumerate(tracked(list(members.values()), "scaling")):
            pool = own if len(own) else np.arange(len(samples.scores))
            chosen = pool[counted.permutation(self.seed, f"scale/{g}", 0, len(pool))[: self.scaling_count]]
            start = Codes(samples.codes.values[torch.from_numpy(chosen)].to(generator.device), samples.codes.space)
            for _ in range(2):
                tried = steps.values[g] * factors[g].reshape(-1, *[1] * steps.space.ndim).to(steps.values)
                moved = added(start, strengths, Codes(tried.expand(len(chosen), *tried.shape), steps.space))
                (seen,) = scores_of_codes(generator, [network], moved.flat(), source.batch_size)
                at_low, at_high = seen[:, places].double().cpu().reshape(len(chosen), 2, len(places), -1).unbind(1)
                change = torch.diagonal(at_high - at_low, dim1=1, dim2=2).mean(dim=0)
                slope = change / (high - low).double()
                weak[g] |= slope < WEAKEST
                factors[g] /= torch.where(slope < WEAKEST, 1.0, slope)
                images += len(seen)
        scaled = steps.values * factors.reshape(*factors.shape, *[1] * steps.space.ndim).to(steps.values)
        unscaled = [f"{self.targets[p]} of group {list(members)[g]}" for g, p in weak.nonzero().tolist()]
        return Codes(scaled, steps.space), unscaled, images

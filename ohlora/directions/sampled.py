"""What finders that search scored samples have in common: a search per group."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import GROUPING
from ohlora.directions import layers
from ohlora.directions.covariance import covariance_of
from ohlora.directions.edits import Directions
from ohlora.directions.extremes import extremes
from ohlora.directions.finder import Finder, Notes, SampleSet, Source
from ohlora.directions.groups import UNGROUPED, Groups
from ohlora.errors import ConfigError, DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """The samples of one group.

    Attributes:
        name: The group's.
        number: Its place among the groups.
        outputs: Names of the K scores.
        codes: n×D, float32.
        scores: n×K.
        covariance: Of the codes of all samples, D×D float64.
        deviations: Standard deviations of the scores of all samples, (K,) float64.
    """

    name: str
    number: int
    outputs: tuple[str, ...]
    codes: Tensor
    scores: np.ndarray
    covariance: Tensor
    deviations: Tensor

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

    Args:
        small_groups: What becomes of a group too small for a search: ``ungrouped`` takes the direction of all samples
            for it and says so, ``raise`` ends the run.
        common: See :class:`ohlora.directions.finder.Finder`.
    """

    uses_samples: ClassVar[bool] = True
    grouped_by_default: ClassVar[tuple[str, ...]] = GROUPING

    def __init__(self, small_groups: Literal["ungrouped", "raise"] = "ungrouped", **common: Any) -> None:
        super().__init__(**common)
        if self.layers == "each":
            raise ConfigError("layers is 'each'; samples do not tell layers apart, gradients do")
        self.small_groups = small_groups

    @abstractmethod
    def solve(self, part: Part) -> tuple[Tensor, list[Row]]:
        """Searches one group.

        Returns:
            Steps that are one unit of strength each, P×D float64, and per attribute what a table shows of the search;
            no rows where there is nothing to show.
        """

    def large_enough(self, count: int, size: int) -> bool:
        """Whether a group of ``count`` samples of length ``size`` can be searched by itself."""
        return True

    def scored(self, samples: SampleSet) -> list[str]:
        """Which scores the search looks at."""
        return list(self.targets)

    def settings(self) -> dict[str, Any]:
        """What a file of directions says of the search."""
        return {"seed": self.seed}

    def show(self, rows: list[Row], groups: Groups, notes: Notes) -> None:
        """Adds what else is worth showing of the table's rows, of which there is one per group and attribute."""

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`; rows are searched group by group."""
        samples, groups = source.scored_samples, self.groups(source)
        unknown = [name for name in self.scored(samples) if name not in samples.outputs]
        if unknown:
            raise ConfigError(f"there is no score for {', '.join(unknown)}; there are {', '.join(samples.outputs)}")
        group = groups.assign(samples.outputs, samples.scores)
        values = samples.codes.values
        sizes = np.bincount(group, minlength=len(groups.names)).tolist()
        small = [g for g, size in enumerate(sizes) if not self.large_enough(size, values.shape[-1])]
        self._say_small(small, sizes, groups)
        whole = covariance_of(values), torch.from_numpy(samples.scores).double().std(dim=0, correction=0)

        def solved(name: str, number: int, chosen: np.ndarray) -> tuple[Tensor, list[Row]]:
            part = Part(name, number, samples.outputs, values[torch.from_numpy(chosen)], samples.scores[chosen], *whole)
            try:
                return self.solve(part)
            except ArithmeticError as error:
                raise DataError(f"group {name}: {error}; look at its scores, or raise max_iterations") from error

        of_all = solved(UNGROUPED, 0, np.arange(len(group))) if small else None
        found = []
        rows: list[Row] = []
        for g, name in enumerate(groups.names):
            steps, shown = of_all if of_all and g in small else solved(name, g, np.flatnonzero(group == g))
            found.append(steps)
            about = {"group": name, "samples": sizes[g], "own_direction": g not in small}
            rows += [about | {"attribute": a} | row for a, row in zip(self.targets, shown, strict=False)]
        steps = torch.stack(found)
        notes.metrics["groups_without_own_direction"] = len(small)
        if rows:
            notes.tables["search"] = rows
            self.show(rows, groups, notes)
        arranged, chosen = layers.arranged(self, lambda _: steps, groups, source, notes)
        about = {"samples": len(group), "ungrouped": [groups.names[g] for g in small], "layers": chosen}
        return Directions.of_steps(self.targets, arranged, groups, self.name, self.settings() | about)

    def _say_small(self, small: list[int], sizes: list[int], groups: Groups) -> None:
        if not small:
            return
        names = groups.names
        listed = ", ".join(f"{names[g]} ({sizes[g]})" for g in small)
        said = f"too few samples in {len(small)} of {len(names)} groups: {listed}"
        if self.small_groups == "raise" or len(names) == 1:
            raise DataError(f"{said}; take more samples, fewer grouping attributes or a larger fraction")
        print(f"{said}; they get the direction of all samples")

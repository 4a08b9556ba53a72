"""What every way of finding directions has in common.

A finder is an object of the configuration (``model.init_args.finder``, by ``class_path``): its constructor holds its
settings, and :meth:`Finder.find` turns samples, or a generator and a network, into directions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import vocabulary
from ohlora.directions.edits import Directions, Grid
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError, DataError
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.scales import DataScale
from ohlora.evaluation.scores import score_correlations
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator
from ohlora.utils import figures

Layers = Literal["all", "each", "sweep", "auto"]
Row = dict[str, Any]


@dataclass(frozen=True)
class SampleSet:
    """Scored samples in memory.

    Attributes:
        outputs: Names of the K scores.
        codes: N codes, float32, on the CPU.
        scores: N×K float32.
        generator: Fingerprint of the generator that made them; empty where it is not known.
    """

    outputs: tuple[str, ...]
    codes: Codes
    scores: np.ndarray
    generator: str = ""


@dataclass(frozen=True)
class Source:
    """What directions are found from; a finder's :attr:`Finder.needs` says which of the first three must be there.

    Attributes:
        samples: Scored samples.
        generator: Makes images, frozen.
        network: Scores them: the search CNN, frozen.
        medians: Median of each score, by which groups are told apart.
        grid: Attribute → strengths that edits are later used at; of others, those that the world declares.
        batch_size: Images made at once.
        scales: What the network's z-scores are in the data, of the attributes of which it tells.
        guide: Recognises people, frozen: finders with :attr:`Finder.holds_identity` then hold the person.
    """

    samples: SampleSet | None = None
    generator: Generator | None = None
    network: AttributeCNN | AttributeEnsemble | None = None
    medians: Mapping[str, float] = field(default_factory=dict)
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)
    batch_size: int = 100
    scales: Mapping[str, DataScale] = field(default_factory=dict)
    guide: Identity | None = None

    @property
    def networks(self) -> tuple[Generator, AttributeCNN | AttributeEnsemble]:
        """Generator and search CNN, for finders that need both."""
        assert self.generator is not None and self.network is not None
        return self.generator, self.network

    def ends(self, targets: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Lowest and highest strength of each target on the grid, (P,) each."""
        levels = Grid.of(targets, self.grid).levels
        low, high = (torch.tensor([end(levels[name]) for name in targets]) for end in (min, max))
        return low, high


@dataclass
class Notes:
    """What a search shows of itself: numbers, pictures (H×W×3 uint8) and tables, by name."""

    metrics: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def add_scores(self, outputs: Sequence[str], scores: np.ndarray) -> None:
        """Shows how the attributes that a search learns from go together: names of K outputs, and scores, N×K."""
        pictures, tables = score_correlations(dict(zip(outputs, scores.T, strict=True)))
        self.pictures |= pictures
        self.tables |= tables

    def add_layers(self, reach: np.ndarray, names: Sequence[str], title: str) -> None:
        """Shows how strongly each of L layers moves each of K attributes: K×L; the title says what is measured."""
        numbers = range(reach.shape[1])
        self.pictures["layers_of_attributes"] = figures.heat_map(reach, names, [*map(str, numbers)], title)
        self.tables["layers_of_attributes"] = figures.named_rows(reach, names, [f"layer_{k}" for k in numbers])


def check_variety(scores: Tensor) -> None:
    """Insists on scores, N×K, that differ between latents.

    Raises:
        DataError: If one is the same for all.
    """
    if not bool((scores.amax(dim=0) > scores.amin(dim=0)).all()):
        raise DataError("a score of the search CNN is the same for all latents: nothing can be learned from it")


class Finder(ABC):
    """Base of the finders.

    Args:
        targets: What the directions move; by default the world's expressions.
        group_by: By which attributes latents are grouped; an empty list finds one direction for all. By default the
            world's grouping attributes for samples, none for gradients.
        layers: Where directions act: ``all`` style layers alike; ``each`` layer by a part of its own (finders that take
            gradients); ``sweep`` is ``all``, with a table of every range of layers; ``auto`` takes, for each attribute,
            the range of that table that leaks least; or first and last layer, counted from 0.
        sweep_count: Latents of the sweep over layers.
        seed: Seed of the search: splits and latents.
    """

    uses_samples: ClassVar[bool] = False
    grouped_by_default: ClassVar[bool] = False
    holds_identity: ClassVar[bool] = False

    def __init__(
        self,
        targets: Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        layers: Layers | Sequence[int] = "all",
        sweep_count: int = 20,
        seed: int = 0,
    ) -> None:
        if not isinstance(layers, str) and (len(layers) != 2 or not 0 <= layers[0] <= layers[1]):
            raise ConfigError(f"layers is {list(layers)}; expected first and last, counted from 0")
        known = vocabulary()
        grouped = known.names("grouping") if self.grouped_by_default else ()
        self.targets = self._known(known.names("expression") if targets is None else targets)
        self.group_by = self._known(grouped if group_by is None else group_by)
        if not self.targets:
            raise ConfigError(f"there is nothing to search: {known.where} declares no expression; name some as targets")
        self.layers, self.sweep_count, self.seed = layers, sweep_count, seed

    @staticmethod
    def _known(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(vocabulary()[name].name for name in names)

    @property
    def name(self) -> str:
        """What files of directions say of how they were found: the name of the finder's module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def needs(self) -> set[str]:
        """Which parts of a :class:`Source` the search uses: samples, generator, network."""
        found = {"samples"} if self.uses_samples else {"generator", "network"}
        if self.layers in ("sweep", "auto"):
            found |= {"generator", "network"}
        elif not isinstance(self.layers, str):
            found |= {"generator"}
        return found

    @abstractmethod
    def find(self, source: Source, notes: Notes) -> Directions:
        """Searches in what :attr:`needs` asks for; ``notes`` takes what the search shows of itself.

        One unit of strength moves an attribute by one z-score of the data, which is a unit of the search CNN's score.

        Raises:
            ConfigError: If settings and source do not fit each other.
            DataError: If nothing can be learned from the source.
        """

    def groups(self, source: Source) -> Groups:
        """The grouping rule.

        Raises:
            ConfigError: If a median is missing.
        """
        missing = [name for name in self.group_by if name not in source.medians]
        if missing:
            raise ConfigError(
                f"there is no median of {', '.join(missing)}, by which latents are grouped; set "
                "model.init_args.medians, or the finder's group_by to []"
            )
        return Groups(self.group_by, tuple(source.medians[name] for name in self.group_by))

"""Edits that are a latent's own: what their finders, and they themselves, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ohlora.directions.edits import Latents, LocalBasis, PathBasis, Steps, moved
from ohlora.directions.finder import Source
from ohlora.directions.jacobian import Jacobian
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import Scorer

Basis = TypeVar("Basis", LocalBasis, PathBasis)
UNKNOWN = DataScale(-1.96, 1.96)
"""The data's range where the network does not tell it: of normal scores, the 2.5th and the 97.5th percentile."""
LEAST_ROOM = 0.2
"""A path goes at least so far to either side, in z-scores: also from a latent that is at the end of the range."""


def data_range(scales: Sequence[DataScale | None]) -> tuple[Tensor, Tensor]:
    """Lower and upper end of the data's range of P attributes, in z-scores, (P,) each; None is not known."""
    ends = [(of.low, of.high) for of in (scale or UNKNOWN for scale in scales)]
    low, high = torch.tensor(ends).unbind(dim=1)
    return low, high


def room(ends: tuple[Tensor, Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    """Strengths from the scores N×P of N latents to the ends of the data's range, (P,) each: N×P each, about 0."""
    low, high = (end.to(scores) - scores for end in ends)
    return low.clamp(max=-LEAST_ROOM), high.clamp(min=LEAST_ROOM)


class OwnFinder(Jacobian):
    """Base of the finders of what such edits start from; always by layer, and without groups.

    Args:
        common: See :class:`ohlora.directions.jacobian.Jacobian`.
    """

    edits: ClassVar[str]
    """What is found, in words."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        if self.layers not in ("all", "each"):
            raise ConfigError(f"layers is {self.layers!r}; {self.edits} take each layer by itself, so leave it out")
        if self.group_by:
            raise ConfigError(f"{self.edits} are a latent's own and need no groups; set group_by to []")
        self.layers = "each"

    @abstractmethod
    def basis(self, held: list[str], gradients: Tensor, covariance: Tensor, source: Source) -> LocalBasis | PathBasis:
        """What the edits start from."""


@dataclass(frozen=True)
class OwnEdits(ABC, Generic[Basis]):
    """Base of the edits.

    Attributes:
        attributes: What is edited.
        basis: What they start from.
        generator: Makes the images.
        network: Sees what the basis' outputs name: the search CNN, with the guide where the person is held.
        batch_size: Images made at once.
    """

    attributes: tuple[str, ...]
    basis: Basis
    generator: Generator
    network: Scorer
    batch_size: int = 50

    @property
    def places(self) -> list[int]:
        """Places of the basis' outputs among the network's."""
        return [self.network.outputs.index(name) for name in self.basis.outputs]

    @property
    def targets(self) -> list[int]:
        """Places of the attributes among the basis' outputs."""
        return [self.basis.outputs.index(name) for name in self.attributes]

    @abstractmethod
    def own(self, codes: Codes) -> Steps:
        """What strengths add to N codes in W: N×P steps by layer."""

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Codes:
        """See :class:`ohlora.directions.edits.Edits`."""
        return moved(latents.codes, strengths, self.own(latents.codes))

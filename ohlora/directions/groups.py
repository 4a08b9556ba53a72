"""Groups of latents: which side of its median each grouping attribute lies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ohlora.errors import ConfigError

UNGROUPED = "all"


@dataclass(frozen=True)
class Groups:
    """A rule that sorts samples into 2ⁿ groups by n attributes.

    Attributes:
        attributes: The grouping attributes, in the order of a name's letters; none puts everything into one group.
        medians: The score from which on each counts as high; NaN where it is not known.
    """

    attributes: tuple[str, ...] = ()
    medians: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.attributes) != len(self.medians):
            raise ValueError(f"{len(self.medians)} medians for {', '.join(self.attributes)}; expected one each")

    @property
    def names(self) -> tuple[str, ...]:
        """Group names: a letter per attribute, ``h`` (at or above the median) or ``l``; hhhh, hhhl, … llll."""
        if not self.attributes:
            return (UNGROUPED,)
        return tuple("".join(letters) for letters in product("hl", repeat=len(self.attributes)))

    def assign(self, outputs: Sequence[str], scores: np.ndarray) -> np.ndarray:
        """The group of each of N samples, as an index into :attr:`names`, from scores N×K of the names ``outputs``.

        Raises:
            ConfigError: If an attribute has no column, or its median is not known.
        """
        missing = [name for name in self.attributes if name not in outputs]
        if missing:
            raise ConfigError(f"there is no score for {', '.join(missing)}, by which samples are grouped")
        unknown = [name for name, m in zip(self.attributes, self.medians, strict=True) if np.isnan(m)]
        if unknown:
            raise ConfigError(f"the median of {', '.join(unknown)} is not known; import the directions with --medians")
        group = np.zeros(len(scores), dtype=np.int64)
        for name, median in zip(self.attributes, self.medians, strict=True):
            # Compared in single precision, in which scores are: a median printed with four decimals is met by equals.
            group = 2 * group + (scores[:, outputs.index(name)] < np.float32(median))
        return group

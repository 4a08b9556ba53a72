"""What z-scores of an attribute stand for: their range in the data, and the physical value that goes with each.

A network that learned an attribute keeps both with its weights, so that whoever scores with it can say how much of the
data's range a score covers, and how far open an eye is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ohlora.attributes import Physical

PERCENTILES = (2.5, 97.5)
"""The percentiles of the data between which an attribute's range lies."""
KNOTS = 41
"""Knots of the map to physical values, at most: percentiles of the scores at equal distances."""
DATA = "data"
"""What a network's provenance calls the scales of its outputs."""


class PhysicalMap(NamedTuple):
    """A rising map from z-scores to physical values, linear between knots and constant beyond.

    Attributes:
        column: What the physical value is called.
        unit: Its unit, in words.
        scores: z-scores of the knots, rising.
        values: Physical values there.
    """

    column: str
    unit: str
    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, score: float) -> float:
        """The physical value of a z-score."""
        return float(np.interp(score, self.scores, self.values))

    def score_of(self, value: float) -> float:
        """The z-score of a physical value; the middle of those that have it, where there are several."""
        values, scores = np.array(self.values), np.array(self.scores)
        low, high = np.searchsorted(values, value, "left"), np.searchsorted(values, value, "right")
        if high > low:
            return float((scores[low] + scores[high - 1]) / 2)
        return float(np.interp(value, values, scores))

    @classmethod
    def fit(cls, about: Physical, scores: np.ndarray, values: np.ndarray) -> PhysicalMap:
        """The map of N z-scores to their physical values that fits best among those that rise (isotonic regression).

        Raises:
            ValueError: If the physical values do not rise with the scores.
        """
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression().fit(scores, values)
        knots = np.unique(np.percentile(scores.astype(np.float64), np.linspace(0, 100, KNOTS)))
        fitted = model.predict(knots)
        if not fitted[-1] > fitted[0]:
            raise ValueError(f"{about.column} does not rise with it")
        return cls(about.column, about.unit, *(tuple(found.round(6).tolist()) for found in (knots, fitted)))


@dataclass(frozen=True)
class DataScale:
    """What an attribute's z-scores are in the data.

    Attributes:
        low: The 2.5th percentile of the scores.
        high: The 97.5th.
        physical: The map to physical values, where the data have some.
        extremes: The lowest and the highest score; None in networks of earlier versions.
    """

    low: float
    high: float
    physical: PhysicalMap | None = None
    extremes: tuple[float, float] | None = None

    @classmethod
    def of(cls, scores: np.ndarray, physical: PhysicalMap | None = None) -> DataScale:
        """The scale of N scores."""
        low, high = np.percentile(scores.astype(np.float64), PERCENTILES).round(6).tolist()
        return cls(low, high, physical, (round(float(scores.min()), 6), round(float(scores.max()), 6)))

    def outside(self, scores: np.ndarray, margin: float) -> float:
        """Share of scores beyond the extremes by more than ``margin`` of the distance between them; NaN if unknown."""
        if self.extremes is None:
            return float("nan")
        low, high = self.extremes
        slack = margin * (high - low)
        return float(((scores < low - slack) | (scores > high + slack)).mean())

    def covered(self, lowest: float, highest: float) -> float:
        """Share of the data's range that lies between two z-scores, 0…1; 0 where the data do not vary."""
        overlap = min(highest, self.high) - max(lowest, self.low)
        return max(0.0, overlap) / (self.high - self.low) if self.high > self.low else 0.0

    def described(self) -> dict[str, Any]:
        """What rebuilds it; anything JSON can hold."""
        about: dict[str, Any] = {"percentiles": [self.low, self.high]}
        if self.extremes is not None:
            about["extremes"] = list(self.extremes)
        return about if self.physical is None else about | {"physical": self.physical._asdict()}


def scales_in(provenance: Mapping[str, Any]) -> dict[str, DataScale]:
    """The scales that a network's provenance tells, by attribute.

    Of merged networks, those of all parts; of an ensemble, whose parts tell of the same attributes, those of the first.
    Networks that were imported, or trained by earlier versions, tell none.
    """
    found: dict[str, DataScale] = {}
    for part in provenance.get("merged_from", {}).values():
        found = scales_in(part) | found
    for name, about in provenance.get(DATA, {}).items():
        said = about.get("physical")
        physical = None
        if said is not None:
            physical = PhysicalMap(said["column"], said["unit"], tuple(said["scores"]), tuple(said["values"]))
        low, high = about["percentiles"]
        ends = about.get("extremes")
        found[name] = DataScale(low, high, physical, None if ends is None else (ends[0], ends[1]))
    return found

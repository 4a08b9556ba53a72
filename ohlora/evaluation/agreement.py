"""Whether search CNN and judge see the same in generated images, and what the data also showed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr

from ohlora import handover
from ohlora.evaluation.scales import DataScale

COMPARED = 500
"""Unedited images on which the two are compared, at most."""
_FOUND = {
    "agreement": "r of search CNN and judge on generated images",
    "outside": "share of scores outside the data's range",
}


@dataclass(frozen=True)
class Agreement:
    """What two networks say of the same generated images.

    Attributes:
        agreement: Attribute → correlation of their scores; NaN where one of them is constant.
        outside: Attribute → share of the search CNN's scores outside the range of its data, where that is known.
    """

    agreement: Mapping[str, float]
    outside: Mapping[str, float]

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        searched: Mapping[str, np.ndarray],
        judged: Mapping[str, np.ndarray],
        scales: Mapping[str, DataScale],
    ) -> Agreement:
        """Compares N images.

        Args:
            names: Attributes to compare, as far as both networks score them.
            searched: Output of the search CNN → its scores (N,).
            judged: The judge's, likewise.
            scales: What the search CNN's data showed.
        """
        agreement, outside = {}, {}
        for name in names:
            if name not in searched or name not in judged:
                continue
            both = np.stack([searched[name], judged[name]]).astype(np.float64)
            varied = both.shape[1] > 1 and bool((np.ptp(both, axis=1) > 0).all())
            agreement[name] = float(pearsonr(both[0], both[1]).statistic) if varied else math.nan
            if name in scales and scales[name].extremes is not None:
                outside[name] = scales[name].outside(both[0], handover.MARGIN)
        return cls(agreement, outside)

    @property
    def numbers(self) -> dict[str, float]:
        """All of it, as ``agreement_<name>`` and ``outside_<name>``."""
        return {f"{check}_{name}": value for check in _FOUND for name, value in getattr(self, check).items()}

    @property
    def failing(self) -> list[str]:
        """The checks that fail."""
        return [check for check in _FOUND if self._reasons(check)]

    @property
    def reasons(self) -> list[str]:
        """Why what is found by the search CNN in such images is not fit for use; nothing where it is."""
        return [reason for check in _FOUND for reason in self._reasons(check)]

    def _reasons(self, check: str) -> list[str]:
        return handover.failing(check, getattr(self, check), _FOUND[check])

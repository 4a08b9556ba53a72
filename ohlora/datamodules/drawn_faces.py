"""Drawn faces as training data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ohlora.datamodules.base import ImageDataModule, Sample
from ohlora.toy import drawing
from ohlora.utils import checks

HELD_OUT = 10_000
"""Drawn faces that follow those of training and are held out; only those that are used are drawn."""


class DrawnFaceDataset:
    """The drawn faces ``first`` … ``first + size − 1`` of a seed; each is drawn at first use and kept.

    ``rates`` are the shares of faces with a 0/1 attribute set; those not named keep their default.
    """

    def __init__(
        self, size: int, resolution: int, seed: int, rates: dict[str, float] | None = None, first: int = 0
    ) -> None:
        self.size, self.resolution, self.seed, self.rates, self.first = size, resolution, seed, rates, first
        self._drawn: dict[int, np.ndarray] = {}

    labels = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if index not in self._drawn:
            truth = drawing.sample_truth(self.seed, self.first + index, self.rates)
            self._drawn[index] = drawing.draw(truth, self.resolution).image
        return {"image": self._drawn[index], "index": index}


class DrawnFaces(ImageDataModule):
    """Faces drawn from known attribute values; face i is a function of (seed, i) alone.

    Args:
        resolution: Height and width in pixels.
        train_size: Number of faces: indices 0 … train_size − 1. Those that follow are held out.
        rates: Share of faces with each 0/1 attribute set (gender, quality, age, glass), 0…1.
        **settings: See :class:`ohlora.datamodules.base.ImageDataModule`; ``seed`` is also that of the faces.
    """

    def __init__(
        self,
        resolution: int = 64,
        train_size: int = 8000,
        rates: dict[str, float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        checks.at_least(1, train_size=train_size)
        checks.at_least(8, resolution=resolution)
        checks.between(0, 1, **(rates or {}))
        self.resolution, self.train_size, self.rates = resolution, train_size, rates
        drawing.sample_truth(self.seed, 0, rates)  # refuses unknown rates before anything starts

    def setup(self, stage: str) -> None:
        """Declares the faces; they are drawn when first used."""
        what = self.resolution, self.seed, self.rates
        self.train_set = DrawnFaceDataset(self.train_size, *what)
        self.held_out = DrawnFaceDataset(HELD_OUT, *what, first=self.train_size)

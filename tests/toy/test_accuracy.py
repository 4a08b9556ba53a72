"""Arithmetic of what is read off drawn faces."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from ohlora.faces.classes import CLASSES
from ohlora.toy import accuracy


def test_ranks_share_ties() -> None:
    values = np.array([[3.0, 1.0], [1.0, 1.0], [3.0, 5.0], [2.0, 1.0]])
    assert (accuracy.ranks(values) == rankdata(values, axis=0)).all()


def test_iou_counts_pixels_per_class() -> None:
    true, found = np.array([[[0, 0, 1, 2]]], np.uint8), np.array([[[0, 1, 1, 2]]], np.uint8)
    values = accuracy.intersections_over_unions(true, found)
    assert [values[name] for name in CLASSES[:3]] == [1 / 2, 1 / 2, 1]
    assert all(np.isnan(values[name]) for name in CLASSES[3:])

"""Arithmetic of what is read off drawn faces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from ohlora.attributes import MEASURED
from ohlora.faces import scoring
from ohlora.faces.classes import CLASSES
from ohlora.toy import accuracy, drawing


def test_correlations_are_spearmans_and_ties_share_ranks() -> None:
    truths = [drawing.sample_truth(3, index) for index in range(12)]
    truths += truths[:4]
    faces = [drawing.draw(truth, 64) for truth in truths]
    pictures, maps = np.stack([face.image for face in faces]), np.stack([face.parsing for face in faces])
    found = accuracy.correlations(truths, pictures, maps)
    scores = [scoring.score(picture, parsing) for picture, parsing in zip(pictures, maps, strict=True)]
    for name in MEASURED:
        expected = spearmanr([truth.attributes[name] for truth in truths], [score[name] for score in scores])
        assert found[name] == pytest.approx(expected.statistic, abs=1e-6)


def test_iou_counts_pixels_per_class() -> None:
    true, found = np.array([[[0, 0, 1, 2]]], np.uint8), np.array([[[0, 1, 1, 2]]], np.uint8)
    values = accuracy.intersections_over_unions(true, found)
    assert [values[name] for name in CLASSES[:3]] == [1 / 2, 1 / 2, 1]
    assert all(np.isnan(values[name]) for name in CLASSES[3:])

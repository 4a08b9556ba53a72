"""Accuracy of scores and parsing maps on drawn faces."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from ohlora import pipeline
from ohlora.faces.classes import CLASSES
from ohlora.faces.measuring import Scores
from ohlora.toy import accuracy, drawing
from ohlora.toy.drawing import EXPRESSIONS


def test_correlations_are_spearmans_with_ties() -> None:
    truths = [drawing.sample_truth(0, index) for index in range(8)]
    truths += truths[:3]  # equal faces have equal scores
    faces = [drawing.draw(truth, 32) for truth in truths]
    images, maps = np.stack([face.image for face in faces]), np.stack([face.parsing for face in faces])
    attributes = pipeline.world("toy").attributes.scored
    found = accuracy.correlations(truths, images, maps, attributes)
    scores = [Scores(attributes)(image, parsing) for image, parsing in zip(images, maps, strict=True)]
    assert list(found) == [attribute.name for attribute in attributes]
    for name in found:
        about = EXPRESSIONS.get(name)
        true = [drawing.physical(t)[about.name] if about else t.attributes[name] for t in truths]
        expected = spearmanr(true, [score[name] for score in scores])[0]
        assert found[name] == pytest.approx(expected, abs=1e-6), name


def test_iou_counts_pixels_per_class() -> None:
    true, found = np.array([[[0, 0, 1, 2]]], np.uint8), np.array([[[0, 1, 1, 2]]], np.uint8)
    values = accuracy.intersections_over_unions(true, found)
    assert [values[name] for name in CLASSES[:3]] == [1 / 2, 1 / 2, 1]
    assert all(np.isnan(values[name]) for name in CLASSES[3:])

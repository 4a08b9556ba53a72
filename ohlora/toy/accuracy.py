"""How well a parser and the scores read drawn faces, whose truth is known."""

from __future__ import annotations

import numpy as np

from ohlora.attributes import MEASURED
from ohlora.faces import scoring
from ohlora.faces.classes import CLASSES
from ohlora.toy import drawing


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column of an N×K array, equal values sharing their mean rank."""
    ranked = np.empty(values.shape)
    for k, column in enumerate(values.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranked[:, k] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranked


def correlations(truths: list[drawing.Truth], images: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """Spearman correlation of each raw score with the truth.

    Args:
        truths: The truth of N faces.
        images: N×H×W×3 uint8.
        maps: Their parsing maps, N×H×W uint8.
    """
    scores = [scoring.score(image, parsing) for image, parsing in zip(images, maps, strict=True)]
    true = ranks(np.array([[truth.attributes[name] for name in MEASURED] for truth in truths]))
    read = ranks(np.array([[score[name] for name in MEASURED] for score in scores]))
    return {name: float(np.corrcoef(true[:, k], read[:, k])[0, 1]) for k, name in enumerate(MEASURED)}


def intersections_over_unions(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """IoU of each class over all pixels of two stacks of maps; NaN for a class that neither has."""
    size = len(CLASSES)
    table = np.bincount(true.ravel().astype(np.int64) * size + found.ravel(), minlength=size**2).reshape(size, size)
    union = table.sum(axis=0) + table.sum(axis=1) - table.diagonal()
    values = np.divide(table.diagonal(), union, out=np.full(size, np.nan), where=union > 0)
    return dict(zip(CLASSES, values.tolist(), strict=True))

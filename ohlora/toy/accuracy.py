"""Accuracy of a face parser and of the scores on drawn faces, whose true values are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.classification import multiclass_jaccard_index

from ohlora.attributes import Attribute
from ohlora.faces.classes import CLASSES
from ohlora.faces.measuring import Scores
from ohlora.toy import drawing
from ohlora.toy.drawing import EXPRESSIONS, physical


def correlations(
    truths: list[drawing.Truth], images: np.ndarray, maps: np.ndarray, attributes: Sequence[Attribute]
) -> dict[str, float]:
    """Spearman's correlation of raw scores with true values, by attribute.

    True are the physical values of expressions, and the z-scores of all others.

    Args:
        truths: The true values of N faces.
        images: N×H×W×3 uint8.
        maps: Parsing maps of the images, N×H×W uint8.
        attributes: The measured attributes, as the world declares their scores.
    """
    scores = Scores(attributes)
    true, read = [], []
    for truth, image, parsing in zip(truths, images, maps, strict=True):
        values, measured = physical(truth), scores(image, parsing)
        true.append([values[EXPRESSIONS[n].name] if n in EXPRESSIONS else truth.attributes[n] for n in scores.names])
        read.append([measured[n] for n in scores.names])
    tables = (torch.tensor(table, dtype=torch.float64) for table in (read, true))
    return dict(zip(scores.names, spearman_corrcoef(*tables).tolist(), strict=True))


def intersections_over_unions(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Intersection over union (IoU, Jaccard index) of each parsing class over all pixels of two uint8 arrays of maps.

    Returns:
        Class → IoU, 0…1; NaN for a class that occurs in neither.
    """
    values = multiclass_jaccard_index(
        torch.from_numpy(found).flatten(),
        torch.from_numpy(true).flatten(),
        len(CLASSES),
        average="none",
        zero_division=float("nan"),
    )
    return dict(zip(CLASSES, values.tolist(), strict=True))

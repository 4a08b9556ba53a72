"""Accuracy of a face parser and of the scores on drawn faces, whose true values are known."""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.classification import multiclass_jaccard_index

from ohlora.faces import scoring
from ohlora.faces.classes import CLASSES
from ohlora.toy import drawing
from ohlora.toy.drawing import MEASURED


def correlations(truths: list[drawing.Truth], images: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """Spearman's correlation of raw scores with true values, by measured attribute.

    Args:
        truths: The true values of N faces.
        images: N×H×W×3 uint8.
        maps: Parsing maps of the images, N×H×W uint8.
    """
    scores = [scoring.score(image, parsing) for image, parsing in zip(images, maps, strict=True)]
    true = torch.tensor([[truth.attributes[name] for name in MEASURED] for truth in truths], dtype=torch.float64)
    read = torch.tensor([[score[name] for name in MEASURED] for score in scores], dtype=torch.float64)
    return dict(zip(MEASURED, spearman_corrcoef(read, true).tolist(), strict=True))


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

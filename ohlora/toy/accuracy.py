"""How well a parser and the scores read drawn faces, whose truth is known."""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.classification import multiclass_jaccard_index

from ohlora.attributes import MEASURED
from ohlora.faces import scoring
from ohlora.faces.classes import CLASSES
from ohlora.toy import drawing


def correlations(truths: list[drawing.Truth], images: np.ndarray, maps: np.ndarray) -> dict[str, float]:
    """Spearman correlation of each raw score with the truth.

    Args:
        truths: The truth of N faces.
        images: N×H×W×3 uint8.
        maps: Their parsing maps, N×H×W uint8.
    """
    scores = [scoring.score(image, parsing) for image, parsing in zip(images, maps, strict=True)]
    true = torch.tensor([[truth.attributes[name] for name in MEASURED] for truth in truths], dtype=torch.double)
    read = torch.tensor([[score[name] for name in MEASURED] for score in scores], dtype=torch.double)
    return dict(zip(MEASURED, spearman_corrcoef(read, true).tolist(), strict=True))


def intersections_over_unions(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """IoU of each class over all pixels of two stacks of maps; NaN for a class that neither has."""
    both = torch.from_numpy(found), torch.from_numpy(true)
    values = multiclass_jaccard_index(*both, num_classes=len(CLASSES), average="none", zero_division=torch.nan)
    return dict(zip(CLASSES, values.tolist(), strict=True))

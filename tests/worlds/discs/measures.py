"""What the world of discs measures in an image."""

from __future__ import annotations

import numpy as np


def size(image: np.ndarray, classes: np.ndarray | None) -> float:
    """Share of the image that is not grey."""
    assert classes is None
    return float((np.ptp(image.astype(int), axis=2) > 40).mean())


def redness(image: np.ndarray, classes: np.ndarray | None) -> float:
    """How much more red than blue the middle of the image is."""
    middle = image[6:10, 6:10].astype(float)
    return float((middle[..., 0] - middle[..., 2]).mean())

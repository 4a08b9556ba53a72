"""The two classes of a search over samples: those that score highest and those that score lowest."""

from __future__ import annotations

import numpy as np

from ohlora.utils import counted


def class_size(count: int, fraction: float) -> int:
    """Samples in each of the two classes, of ``count`` samples: max(⌊fraction · count⌋, 1)."""
    return max(int(fraction * count + 1e-9), 1)


def training_size(size: int, share: float) -> int:
    """Samples of a class of ``size`` that train; the others validate."""
    return int(share * size + 1e-9)


def extremes(scores: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of those of N scores that are highest and lowest, each from the outermost inwards, ties by index.

    Raises:
        ValueError: If all scores are equal, or ``fraction``, the share of each class, leaves too few for two classes.
    """
    size = class_size(len(scores), fraction)
    if len(scores) < 2 * size:
        raise ValueError(f"there are {len(scores)} samples; expected at least {2 * size} for two classes")
    if scores.min() == scores.max():
        raise ValueError(f"every score is {scores[0]}: nothing can be learned from it")
    order = np.argsort(scores, kind="stable")
    return order[::-1][:size], order[:size]


def split(members: np.ndarray, training_share: float, seed: int, stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Parts of a class that train and that validate: a function of (seed, stream) alone."""
    shuffled = members[counted.permutation(seed, stream, 0, len(members))]
    train = training_size(len(members), training_share)
    return shuffled[:train], shuffled[train:]

"""What scores of a set of images say: how attributes go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ohlora.utils import figures


def pearson(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each column of one table with each of another.

    Args:
        rows: N×R, of at least one image.
        columns: N×C, of the same images.

    Returns:
        R×C in −1…1; NaN where one of the two does not vary.
    """
    a, b = (_standardised(values.astype(np.float64)) for values in (rows, columns))
    found: np.ndarray = (a.T @ b).clip(-1, 1)
    return found


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and length 1; NaN where a column does not vary."""
    centred = values - values.mean(axis=0)
    # Rounding leaves a little of a constant column.
    lengths = np.where(np.ptp(values, axis=0) > 0, np.linalg.norm(centred, axis=0), np.nan)
    standardised: np.ndarray = centred / lengths
    return standardised


def score_correlations(
    scores: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, list[dict[str, Any]]]]:
    """How the attributes of a set of images go together: a heat map and a table, both called ``score_correlations``.

    Args:
        scores: Attribute → N scores.
    """
    names, values = list(scores), np.stack([*scores.values()], axis=1)
    table = pearson(values, values)
    title = f"correlation of scores, {len(values):,} images"
    heat = figures.heat_map(table, names, names, title)
    return {"score_correlations": heat}, {"score_correlations": figures.named_rows(table, names, names)}

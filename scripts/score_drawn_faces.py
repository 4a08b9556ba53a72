"""Measures how well the scores read a drawn face's truth off its image and true parsing map.

Usage::

    python scripts/score_drawn_faces.py
    python scripts/score_drawn_faces.py --resolution 64
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from ohlora.attributes import MEASURED
from ohlora.faces import drawing, scoring


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column of an N×K array, equal values sharing their mean rank."""
    ranked = np.empty(values.shape)
    for k, column in enumerate(values.T):
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranked[:, k] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranked


def correlations(count: int, resolution: int, seed: int) -> dict[str, float]:
    """Spearman correlation of each raw score with the truth, over ``count`` faces."""
    truths = [drawing.sample_truth(seed, index) for index in range(count)]
    faces = [drawing.draw(truth, resolution) for truth in truths]
    scores = [scoring.score(face.image, face.parsing) for face in faces]
    true = ranks(np.array([[truth.attributes[name] for name in MEASURED] for truth in truths]))
    read = ranks(np.array([[score[name] for name in MEASURED] for score in scores]))
    return {name: float(np.corrcoef(true[:, k], read[:, k])[0, 1]) for k, name in enumerate(MEASURED)}


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Spearman correlation of scores with the truth of drawn faces.")
    parser.add_argument("--count", type=int, default=500, help="number of faces (default: 500)")
    parser.add_argument("--resolution", type=int, default=256, help="pixels a side (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faces (default: 0)")
    given = parser.parse_args(args)
    for name, value in correlations(given.count, given.resolution, given.seed).items():
        print(f"{name:16} {value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

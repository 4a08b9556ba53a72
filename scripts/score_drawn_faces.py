r"""Measures how well the scores read a drawn face's truth off its image and its parsing map.

Usage::

    python scripts/score_drawn_faces.py
    python scripts/score_drawn_faces.py --resolution 64
    python scripts/score_drawn_faces.py --resolution 64 --seed 1 --first 6000 --count 1000 \
        --parser ohlora/weights/toy/parser.safetensors

By default maps are the true ones. A parser's maps are compared with them first: intersection over union (IoU) of each
class over all pixels, their mean and the worst. The last command measures the toy parser on faces that it has not seen.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch

from ohlora.attributes import MEASURED
from ohlora.errors import OhloraError
from ohlora.faces import drawing, scoring
from ohlora.faces.parsing import FaceParser, load_parser
from ohlora.images import to_float

BATCH = 50
"""Faces parsed at once."""


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


@torch.inference_mode()
def parsed(parser: FaceParser, images: np.ndarray) -> np.ndarray:
    """A parser's maps of N×H×W×3 uint8 images: N×H×W uint8."""
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    return np.concatenate([parser(to_float(batch)).numpy() for batch in batches])


def intersections_over_unions(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """IoU of each class over all pixels of two stacks of maps; NaN for a class that neither has."""
    size = len(drawing.CLASSES)
    table = np.bincount(true.ravel().astype(np.int64) * size + found.ravel(), minlength=size**2).reshape(size, size)
    union = table.sum(axis=0) + table.sum(axis=1) - table.diagonal()
    values = np.divide(table.diagonal(), union, out=np.full(size, np.nan), where=union > 0)
    return dict(zip(drawing.CLASSES, values.tolist(), strict=True))


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Spearman correlation of scores with the truth of drawn faces.")
    parser.add_argument("--count", type=int, default=500, help="number of faces (default: 500)")
    parser.add_argument("--first", type=int, default=0, help="number of the first face (default: 0)")
    parser.add_argument("--resolution", type=int, default=256, help="pixels a side (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faces (default: 0)")
    parser.add_argument("--parser", metavar="FILE", help="parser whose maps are scored (default: the true maps)")
    given = parser.parse_args(args)
    try:
        face_parser = load_parser(given.parser) if given.parser else None
    except OhloraError as error:
        print(f"score_drawn_faces: {error}", file=sys.stderr)
        return 2
    truths = [drawing.sample_truth(given.seed, index) for index in range(given.first, given.first + given.count)]
    faces = [drawing.draw(truth, given.resolution) for truth in truths]
    images, maps = np.stack([face.image for face in faces]), np.stack([face.parsing for face in faces])
    if face_parser is not None:
        true, maps = maps, parsed(face_parser, images)
        ious = intersections_over_unions(true, maps)
        values = np.array(list(ious.values()))
        summary = {"mean": float(np.nanmean(values)), "worst": float(np.nanmin(values))}
        for name, value in (ious | summary).items():
            print(f"{'IoU ' + name:16} {value:.4f}")
    for name, value in correlations(truths, images, maps).items():
        print(f"{name:16} {value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

r"""Measures how well the scores of drawn faces agree with their true attribute values.

Usage::

    python scripts/measure_drawn_faces.py
    python scripts/measure_drawn_faces.py --resolution 64
    python scripts/measure_drawn_faces.py --resolution 64 --seed 1 --first 6000 --count 1000 \
        --parser ohlora/weights/toy/parser.safetensors

Scores are measured from the images and, by default, from the true parsing maps; their Spearman correlation with the
true values (the physical ones of expressions) is printed. With ``--parser``, the maps of a parser are used instead, and
their intersection over union (IoU) with the true maps is printed first: for each class over all pixels, the mean and
the worst. The last command measures the toy parser on faces that it was not trained on.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from ohlora import pipeline
from ohlora.faces.parsing import load_parser, parsed
from ohlora.toy import drawing
from ohlora.toy.accuracy import correlations, intersections_over_unions
from ohlora.utils.commands import command

TOY = pipeline.world("toy").attributes


@command("measure_drawn_faces")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description="Prints the Spearman correlation of the scores of drawn faces with their true attribute values."
    )
    parser.add_argument("--count", type=int, default=500, help="number of faces (default: 500)")
    parser.add_argument("--first", type=int, default=0, help="number of the first face (default: 0)")
    parser.add_argument("--resolution", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faces (default: 0)")
    parser.add_argument("--parser", metavar="FILE", help="parser whose maps are used (default: the true maps)")
    given = parser.parse_args(args)
    face_parser = load_parser(given.parser) if given.parser else None
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
    for name, value in correlations(truths, images, maps, TOY.scored).items():
        print(f"{name:16} {value:.4f}")


if __name__ == "__main__":
    sys.exit(main())

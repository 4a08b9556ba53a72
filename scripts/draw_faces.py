"""Draws labelled faces into files: the toy world's stand-in for images labelled by hand.

python scripts/draw_faces.py artifacts/toy/drawn
python scripts/draw_faces.py artifacts/toy/drawn_test --count 1000 --first 6000

Writes ``images/000000.png`` …, ``masks/000000.png`` … (class ids 0…10 of each pixel), ``manifest.csv`` (index, path,
mask and the truth of every attribute) and ``normalization.json`` (the truth's own scale: mean 0, standard deviation 1).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ohlora.attributes import MEASURED
from ohlora.faces.scoring import Normalization
from ohlora.toy import drawing
from ohlora.utils import images
from ohlora.utils.files import replacing, write_rows


def draw(folder: Path, count: int, resolution: int, seed: int, first: int, rates: dict[str, float]) -> None:
    """Draws faces ``first`` … ``first + count − 1`` of a seed into a folder."""
    rows: list[dict[str, Any]] = []
    for index in range(first, first + count):
        truth = drawing.sample_truth(seed, index, rates)
        face = drawing.draw(truth, resolution)
        row: dict[str, Any] = {"index": index}
        for column, kind, pixels in (("path", "images", face.image), ("mask", "masks", face.parsing)):
            row[column] = f"{kind}/{index:06d}.png"
            images.save_png(pixels, folder / row[column])
        row |= {name: int(truth.attributes[name]) for name in drawing.DEFAULT_RATES}
        row |= {name: round(truth.attributes[name], 4) for name in MEASURED}
        rows.append(row)
    own = Normalization(dict.fromkeys(MEASURED, 0.0), dict.fromkeys(MEASURED, 1.0))
    with replacing(folder / "normalization.json") as part:
        part.write_text(json.dumps(own.to_dict(), indent=2) + "\n", encoding="utf-8")
    write_rows(folder / "manifest.csv", rows)
    print(f"{count} faces in {folder}, with masks, manifest.csv and normalization.json")


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Draws labelled faces and their parsing maps into a folder.")
    parser.add_argument("folder", type=Path, metavar="OUT", help="folder to fill")
    parser.add_argument("--count", type=int, default=6000, help="number of faces (default: 6000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first face (default: 0)")
    parser.add_argument("--resolution", type=int, default=64, help="pixels a side (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faces (default: 1)")
    for name, rate in drawing.DEFAULT_RATES.items():
        parser.add_argument(f"--{name}", type=float, default=rate, help=f"share with {name} 1 (default: {rate})")
    given = parser.parse_args(args)
    rates = {name: getattr(given, name) for name in drawing.DEFAULT_RATES}
    try:
        draw(given.folder, given.count, given.resolution, given.seed, given.first, rates)
    except ValueError as error:
        print(f"draw_faces: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

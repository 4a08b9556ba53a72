"""Draws faces with known attribute values into files; the toy world uses them in place of images labelled by hand.

Writes ``images/000000.png`` …, ``masks/000000.png`` … (parsing maps: class ids 0…10), ``manifest.csv`` (index, path,
mask, the true value of every attribute, and the physical values of the expressions: ``eye_opening``, ``mouth_opening``,
``yaw_degrees``, ``mouth_corners``, see :data:`ohlora.toy.drawing.EXPRESSIONS`) and ``normalization.json`` (the scale of
the true values: mean 0, standard deviation 1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ohlora.errors import ConfigError
from ohlora.faces.scoring import Normalization
from ohlora.toy import drawing
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import replacing, write_rows


def draw(folder: Path, count: int, resolution: int, seed: int, first: int, rates: dict[str, float]) -> None:
    """Draws the faces ``first`` … ``first + count − 1`` of a seed into a folder.

    Args:
        folder: Folder of the files.
        count: Number of faces.
        resolution: Height and width in pixels.
        seed: Seed of the faces, ≥ 0.
        first: Number of the first face, ≥ 0.
        rates: 0/1 attribute → probability that it is 1.

    Raises:
        ValueError: If the resolution, seed, first number or a rate is out of its range.
    """
    from ohlora.utils import images

    rows: list[dict[str, Any]] = []
    for index in range(first, first + count):
        truth = drawing.sample_truth(seed, index, rates)
        face = drawing.draw(truth, resolution)
        row: dict[str, Any] = {"index": index}
        for column, kind, pixels in (("path", "images", face.image), ("mask", "masks", face.parsing)):
            row[column] = f"{kind}/{index:06d}.png"
            images.save_png(pixels, folder / row[column])
        row |= {name: int(truth.attributes[name]) for name in drawing.DEFAULT_RATES}
        row |= {name: round(truth.attributes[name], 4) for name in drawing.MEASURED}
        row |= {name: round(value, 4) for name, value in drawing.physical(truth).items()}
        rows.append(row)
    normalization = Normalization(dict.fromkeys(drawing.MEASURED, 0.0), dict.fromkeys(drawing.MEASURED, 1.0))
    with replacing(folder / "normalization.json") as part:
        part.write_text(json.dumps(normalization.to_dict(), indent=2) + "\n", encoding="utf-8")
    write_rows(folder / "manifest.csv", rows)
    others = len(images.images_in(folder / "images")[0]) - count
    if others:
        print(
            f"{folder / 'images'} also holds {others:,} images that were there before; manifest.csv does not name them"
        )
    print(f"{count} faces in {folder}, with masks, manifest.csv and normalization.json")


@command("ohlora draw-faces")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "draw-faces",
        "Draws faces with known attribute values, and their parsing maps, into a folder.",
        "artifacts/toy/drawn",
        "artifacts/toy/drawn_test --count 1000 --first 6000",
    )
    parser.add_argument("folder", type=Path, metavar="OUT", help="folder of the files")
    parser.add_argument("--count", type=int, metavar="N", default=6000, help="number of faces (default: 6000)")
    parser.add_argument("--first", type=int, metavar="I", default=0, help="number of the first face (default: 0)")
    parser.add_argument(
        "--resolution", type=int, metavar="PX", default=64, help="height and width in pixels (default: 64)"
    )
    parser.add_argument("--seed", type=int, metavar="S", default=1, help="seed of the faces (default: 1)")
    for name, rate in drawing.DEFAULT_RATES.items():
        parser.add_argument(
            f"--{name}", type=float, default=rate, metavar="P", help=f"probability that {name} is 1 (default: {rate})"
        )
    given = parser.parse_args(args)
    rates = {name: getattr(given, name) for name in drawing.DEFAULT_RATES}
    try:
        draw(given.folder, given.count, given.resolution, given.seed, given.first, rates)
    except ValueError as error:
        raise ConfigError(str(error)) from error

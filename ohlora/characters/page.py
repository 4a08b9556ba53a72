"""A character as a web page: one HTML file that needs no server and asks nothing of the network.

The page holds images of the character on a grid of strengths, and blends those around the sliders (multilinear
interpolation) on the visitor's GPU. At rest it moves as :func:`ohlora.characters.motion.idle` says, with the same
random numbers. Its markup and scripts are in ``page.html``.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from ohlora.attributes import Motion
from ohlora.characters import motion
from ohlora.characters.character import Character
from ohlora.utils import images
from ohlora.utils.files import replacing

ENDING = ".html"
SLIDERS = 4
"""The most that a page holds; a grid over more would be too large."""
SIDE = 128
"""Height and width, in pixels, to which the images of a page are shrunk at most."""
LIVELIEST, LEAST, MOST = 9, 4, 25
"""Positions on the grid: at least of the slider that changes the image most, at least of any other, at most."""
IMAGES, PIXELS = 1800, 24_000_000
"""Of a grid, at most; the browser keeps four bytes per pixel."""
SHEET = 1024
"""Height and width of a sheet of images, in pixels, at most; every WebGL 2 takes 2,048."""
QUALITIES = range(92, 27, -4)
"""JPEG's qualities that are tried, until the images fit."""
BYTES = 3_900_000
"""What the images may take in the page; with the rest it stays below 4 MB."""
SWEPT = 17
"""Positions of a slider between which changes of the image are measured."""


@dataclass(frozen=True)
class Grid:
    """Positions of sliders at which images are made.

    Attributes:
        nodes: Attribute → its strengths, rising, of at most four; in the order in which images vary ever faster.
        left_out: The attributes that stay as they are.
    """

    nodes: dict[str, np.ndarray]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, character: Character, names: Sequence[str] = ()) -> Grid:
        """A grid that is finer along sliders that change the image more.

        Args:
            character: The character.
            names: The attributes to steer, at most four; by default the character's first four.
        """
        names = tuple(names) or character.attributes[:SLIDERS]
        pictures = _shown(character, [_rest(character, character.attributes)])
        most = min(IMAGES, PIXELS // (pictures.shape[1] * pictures.shape[2]))
        changes = {name: _change(character, name) for name in names}
        counts = dict.fromkeys(names, LEAST)
        counts[max(names, key=lambda name: changes[name])] = LIVELIEST
        while any(count < MOST for count in counts.values()):
            growing = [name for name in names if counts[name] < MOST]
            coarsest = max(growing, key=lambda name: changes[name] / (counts[name] - 1))
            if np.prod([*counts.values()]) // counts[coarsest] * (counts[coarsest] + 1) > most:
                break
            counts[coarsest] += 1
        nodes = {name: np.linspace(*character.ranges[name], counts[name]) for name in names}
        return cls(nodes, tuple(name for name in character.attributes if name not in names))

    def images(self, character: Character) -> np.ndarray:
        """The images of the grid, the last slider varying fastest: N×H×W×3 uint8, at most 128 pixels a side."""
        start = dict(zip(character.attributes, _rest(character, character.attributes), strict=True))
        rows = [
            [(start | dict(zip(self.nodes, values, strict=True)))[name] for name in character.attributes]
            for values in product(*self.nodes.values())
        ]
        return _shown(character, rows)


def write(path: str | Path, character: Character, names: Sequence[str] = ()) -> str:
    """Writes a character as a page, whole or not at all.

    Args:
        path: The file.
        character: The character.
        names: The attributes to steer, at most four; by default the character's first four.

    Returns:
        What was written and what was left out, in words.
    """
    path = Path(path)
    grid = Grid.of(character, names)
    pictures = grid.images(character)
    height, width = pictures.shape[1:3]
    columns, rows = SHEET // width, SHEET // height
    sheets = [_sheet(pictures[k : k + columns * rows], columns) for k in range(0, len(pictures), columns * rows)]
    for quality in QUALITIES:
        coded = [_jpeg(sheet, quality) for sheet in sheets]
        if sum(map(len, coded)) <= BYTES:
            break
    sliders = []
    for name, nodes in grid.nodes.items():
        own = character.motions.get(name, Motion())
        low, high = character.ranges[name]
        meaning = f": {character.meanings[name]}" if name in character.meanings else ""
        sliders.append(
            {"name": name, "label": name + meaning, "low": low, "high": high, "nodes": nodes.tolist()}
            | {"breath": own.breath, "drifts": own.drift, "blinks": own.blinks}
            | {"stream": _stream(f"idle/{name}")}
        )
    moving: dict[str, object] = {"seed": 0, "breath": motion.BREATH, "drift": motion.DRIFT, "blink": motion.BLINK}
    moving |= {"closed": motion.BLINK_CLOSED, "length": motion.BLINK_LENGTH, "blinks": _stream("idle/blinks")}
    sizes = {"height": height, "width": width, "columns": columns, "rows": rows}
    data = json.dumps(sizes | {"sliders": sliders, "motion": moving, "sheets": coded})
    left_out = f"Not on this page: {', '.join(grid.left_out)}." if grid.left_out else ""
    unit = f"A strength of 1 is {character.unit}." if character.unit else ""
    subject = str(character.card.get("subject", ""))
    subject = f"{subject[:1].upper()}{subject[1:]}." if subject else ""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    filled = {
        "title": escape(path.stem),
        "about": escape(" ".join(said for said in (subject, unit, left_out) if said)),
        "last": f"</kbd> … <kbd>{len(sliders)}" if len(sliders) > 1 else "",
        "data": data.replace("<", "\\u003c"),  # no name may end the script
    }
    for what, text in filled.items():
        page = page.replace(f"{{{{{what}}}}}", text)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")
    counts = ", ".join(f"{name} {len(nodes)}" for name, nodes in grid.nodes.items())
    said = f"{path.stat().st_size / 1e6:.1f} MB, {len(pictures):,} images of {width}×{height}, positions: {counts}"
    if grid.left_out:
        why = "" if names else f" (a page has at most {SLIDERS} sliders; choose by --sliders)"
        said += f"; left out: {', '.join(grid.left_out)}{why}"
    return said


def _rest(character: Character, names: Sequence[str]) -> list[float]:
    """The strengths of attributes at rest: 0, or the end of the range that is nearest."""
    return [float(np.clip(0, *character.ranges[name])) for name in names]


def _shown(character: Character, rows: Sequence[Sequence[float]]) -> np.ndarray:
    return images.shrink(character.frames(rows), SIDE)


def _change(character: Character, name: str) -> float:
    """How much the image changes from one end of a slider to the other: the sum of the changes on the way, RMS."""
    rows = np.tile(_rest(character, character.attributes), (SWEPT, 1))
    rows[:, character.attributes.index(name)] = np.linspace(*character.ranges[name], SWEPT)
    steps = np.diff(_shown(character, rows.tolist()).astype(float), axis=0)
    return float(np.sqrt(np.square(steps).mean((1, 2, 3))).sum())


def _sheet(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Images side by side, row by row, in a sheet that is as wide as ``columns`` of them."""
    missing = -len(pictures) % columns
    filled = np.concatenate([pictures, np.repeat(pictures[-1:], missing, axis=0)])
    return images.grid(filled, columns, gap=0)


def _jpeg(sheet: np.ndarray, quality: int) -> str:
    """A sheet as a data URI, its colours in full resolution: on drawings, half of it would cost a decibel."""
    coded = io.BytesIO()
    Image.fromarray(sheet).save(coded, "JPEG", quality=quality, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(coded.getvalue()).decode()}"


def _stream(name: str) -> int:
    """The number of a stream of random numbers, as :func:`ohlora.utils.counted.generator` keys it."""
    return zlib.crc32(name.encode())

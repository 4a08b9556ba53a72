"""The page about a new world: what was found, a contact sheet, and a histogram per column."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ohlora.starting.survey import Survey
from ohlora.utils import counted, figures, images
from ohlora.utils.files import replacing
from ohlora.utils.pages import STYLE, figure

SHOWN = 96
"""Images of the contact sheet, at most."""
COLUMNS = 12
ENLARGED = 64
"""Height and width of an image in it, in pixels."""
PAIRS = 12
"""Pairs of look-alikes that are shown, at most."""


def _figure(picture: np.ndarray, caption: str) -> str:
    """A picture inside the page, without loss."""
    return figure(Image.fromarray(picture), caption, lossless=True)


def _sheet(found: Survey, target: Path, chosen: Sequence[int], columns: int) -> np.ndarray:
    """Images side by side: the copies, where there are some, or the originals' thumbnails."""
    shown = []
    copies, _ = images.images_in(target / "images") if (target / "images").is_dir() else ([], {})
    for place in chosen:
        small = found.pictures[place].thumbnail
        if len(copies) == len(found.pictures):
            small = np.asarray(images.decode(copies[place]).convert("RGB").resize((ENLARGED, ENLARGED)))
        shown.append(np.asarray(Image.fromarray(small).resize((ENLARGED, ENLARGED))))
    return images.grid(np.stack(shown), columns)


def write(path: Path, found: Survey, title: str, said: Sequence[str], next_to_do: Sequence[str]) -> None:
    """Writes the page, one file without references to others.

    Args:
        path: The file; its folder is that of the copies.
        found: What was found.
        title: The heading.
        said: What was chosen, and what it costs.
        next_to_do: Commands.
    """
    count = len(found.pictures)
    chosen = sorted(counted.permutation(0, "contact sheet", 0, count)[:SHOWN].tolist())
    parts = [_figure(_sheet(found, path.parent, chosen, COLUMNS), f"{len(chosen)} of {count:,} images, by chance")]
    alike = [place for pair in found.near[:PAIRS] for place in pair]
    if alike:
        parts.append(_figure(_sheet(found, path.parent, alike, 2), "Images that look alike, two in a row"))
    if found.table is not None and found.table.columns:
        by_name = {column.name: column.values for column in found.table.columns}
        notes = {
            column.name: column.kind + (f", {column.missing:,} missing" if column.missing else "")
            for column in found.table.columns
        }
        parts.append(_figure(figures.histograms(by_name, {}, notes, "value"), "The columns of the table"))
    listed = "".join(f"<li>{escape(line.strip())}</li>" for line in found.lines())
    chosen_text = "".join(f"<p>{escape(line)}</p>" for line in said)
    commands = "".join(f"<pre>{escape(line)}</pre>" for line in next_to_do)
    html = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE} figure {{ margin: 1rem 0; }}</style></head><body><main>
<h1>{escape(title)}</h1><h2>What was found</h2><ul>{listed}</ul>{"".join(parts)}
<h2>What was chosen</h2>{chosen_text}<h2>Next</h2>{commands}
</main></body></html>
"""
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8")

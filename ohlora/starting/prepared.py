"""Copies of the images at one size, and of the table beside them; the originals stay as they are."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from ohlora.datamodules.scores import ANNOTATOR
from ohlora.errors import ConfigError, DataError
from ohlora.starting.survey import Column, Survey, as_written
from ohlora.utils import images
from ohlora.utils.files import replacing, write_rows
from ohlora.utils.progress import tracked

Fit = Literal["crop", "pad"]
DATASET = "dataset.json"
"""Labels in an archive as NVIDIA's tools write it."""


def unpacked(archive: Path, target: Path) -> tuple[Path, Path | None]:
    """Unpacks a zip archive of images, as NVIDIA's tools write it.

    Returns:
        The folder of the images, and the labels, if it holds ``dataset.json`` with some.

    Raises:
        DataError: If it is no such archive, or a file in it would lie outside.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if not (target / name).resolve().is_relative_to(target.resolve()):
                    raise DataError(f"{archive}: {name!r} would lie outside of {target}; nothing was unpacked")
            file.extractall(target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); expected a zip archive of images") from error
    labels = target / DATASET
    has_labels = labels.is_file() and '"labels": null' not in labels.read_text(encoding="utf-8")
    return target, labels if has_labels else None


def fitted(image: Image.Image, size: int, fit: Fit | None, background: str | None) -> Image.Image:
    """An RGB image of ``size`` pixels a side.

    Args:
        image: An image of any size and mode.
        size: Height and width.
        fit: Of images that are not square, the middle is cut out (``crop``), or they are laid on the background
            (``pad``); needed where there are some.
        background: Colour of what is transparent, and of what is added; black is added where it is not given.
    """
    plain = images.as_rgb(image, background)
    if fit == "pad":
        return ImageOps.pad(plain, (size, size), Image.Resampling.LANCZOS, color=images.colour(background or "black"))
    return ImageOps.fit(plain, (size, size), Image.Resampling.LANCZOS)


def prepare(
    found: Survey, target: Path, size: int, fit: Fit | None, background: str | None, columns: Sequence[Column]
) -> Path | None:
    """Writes ``images/…`` below a folder, with the originals' names and subfolders, and ``labels.csv``.

    Args:
        found: What there is.
        target: The folder.
        size: Height and width of the copies.
        fit: See :func:`fitted`.
        background: Likewise.
        columns: Columns that the table gets, besides ``path`` and ``annotator``.

    Returns:
        The table; None where there is none.

    Raises:
        ConfigError: If the folder would lie within that of the originals, or the other way round.
    """
    copies = target / "images"
    if copies.resolve().is_relative_to(found.folder.resolve()) or found.folder.resolve().is_relative_to(
        copies.resolve()
    ):
        raise ConfigError(f"{copies} and the images in {found.folder} lie in each other; choose another --images")
    names = _names(found)
    for picture in tracked(found.pictures, f"writing copies of {size}×{size}"):
        path = copies / names[picture.path]
        with replacing(path) as part:
            fitted(images.decode(picture.path), size, fit, background).save(part, format="PNG")
    left_out = {**found.broken, **found.left_out}
    if left_out:
        rows = [{"path": path.as_posix(), "reason": reason} for path, reason in left_out.items()]
        write_rows(target / "left_out.csv", rows)
    if found.table is None:
        return None
    table = target / "labels.csv"
    written = []
    for row, path in found.table.rows:
        about = {"path": f"images/{names[path].as_posix()}"}
        if ANNOTATOR in row:
            about[ANNOTATOR] = row[ANNOTATOR]
        written.append(about | as_written(row, columns))
    write_rows(table, written)
    return table


def _names(found: Survey) -> dict[Path, Path]:
    """Original → name of its copy below the folder of copies; its suffix is a part of it where names would clash."""
    plain = {picture.path: picture.path.relative_to(found.folder).with_suffix(".png") for picture in found.pictures}
    count: dict[str, int] = {}
    for name in plain.values():
        count[os.fspath(name)] = count.get(os.fspath(name), 0) + 1
    return {
        path: name if count[os.fspath(name)] == 1 else name.with_name(f"{path.name.replace('.', '_')}.png")
        for path, name in plain.items()
    }

"""Image files as training data, checked before the first step."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from ohlora.attributes import vocabulary
from ohlora.datamodules.base import ImageDataModule, Sample
from ohlora.errors import ConfigError, DataError, SizeError, TransparencyError
from ohlora.pipeline import require
from ohlora.utils import checks, counted, images
from ohlora.utils.files import Row, located, printable, read_rows, shortened, write_rows

CACHE_LIMIT = 4 * 2**30
"""Bytes of decoded images that ``cache: auto`` keeps at most."""
NUMBERS = ("index", "img_no", "idx", "img_name")
"""Columns that number images."""
SKIPPED = "skipped.csv"
"""Name of the file in the run folder that lists what was left out, with the reasons."""


@dataclass(eq=False)
class ImageFileDataset:
    """Image files, and what belongs to each of them.

    Attributes:
        source: The file or folder that names them, for messages.
        paths: The N files.
        resolution: See :class:`ImageFiles`.
        resize: Likewise.
        numbers: What each image is called in tables.
        arrays: What samples hold besides their files' content, N rows by name, such as ``label``.
        cached: What the files hold, decoded, N rows by name; None decodes at each use.
        left_out: What was found with them but is not among them, with the reason.
        background: See :class:`ImageFiles`.
    """

    source: Path
    paths: list[Path]
    resolution: int
    resize: bool
    numbers: list[int]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    cached: dict[str, np.ndarray] | None = None
    left_out: dict[Path, str] = field(default_factory=dict)
    background: str | None = None

    @property
    def labels(self) -> np.ndarray | None:
        """N×K float32, or None."""
        return self.arrays.get("label")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        content = self.read(index) if self.cached is None else _rows(self.cached, index)
        return {"index": index, **content, **_rows(self.arrays, index)}

    def read(self, index: int) -> dict[str, np.ndarray]:
        """Decodes ``image``, H×W×3 uint8, from an image's files; raises a DataError if they cannot be used."""
        return {"image": images.read_rgb(self.paths[index], self.resolution, self.resize, self.background)}

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Self:
        """Some of the images, by place."""
        return replace(
            self,
            paths=[self.paths[k] for k in chosen],
            numbers=[self.numbers[k] for k in chosen],
            arrays=_rows(self.arrays, chosen),
            cached=None if self.cached is None else _rows(self.cached, chosen),
        )


def _rows(arrays: dict[str, np.ndarray], places: int | Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    return {name: rows[places] for name, rows in arrays.items()}


AnyFiles = TypeVar("AnyFiles", bound=ImageFileDataset)


class ImageFiles(ImageDataModule):
    """Base of the datamodules that read image files: checks every one before the first step.

    Args:
        resolution: Height and width that every image must have, in pixels.
        cache: ``memory`` keeps decoded images (uint8), ``none`` decodes at each use, ``auto`` keeps them up to 4 GiB.
        on_bad_image: ``raise`` lists images that are unreadable, of another size or transparent, and stops; ``skip``
            leaves them out. Whatever is left out is counted in a message, and listed in the run folder's
            ``skipped.csv``.
        resize: Resizes square images of another size (bilinearly) instead of refusing them.
        background: The colour on which transparent images are laid, such as ``white`` or ``#8090a0``.
        **settings: See :class:`ohlora.datamodules.base.ImageDataModule`.
    """

    train_set: ImageFileDataset

    def __init__(
        self,
        resolution: int,
        cache: Literal["auto", "memory", "none"] = "auto",
        on_bad_image: Literal["raise", "skip"] = "raise",
        resize: bool = False,
        background: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        checks.at_least(1, resolution=resolution)
        self.resolution, self.cache, self.on_bad_image, self.resize = resolution, cache, on_bad_image, resize
        self.background = background
        if background is not None:
            images.colour(background)

    def files(
        self,
        source: Path,
        paths: list[Path],
        numbers: list[int] | None = None,
        left_out: dict[Path, str] | None = None,
        /,
        **arrays: np.ndarray,
    ) -> ImageFileDataset:
        """Images of this resolution, not yet checked; see :class:`ImageFileDataset`. They are numbered by place."""
        places = list(range(len(paths)))
        return ImageFileDataset(
            source,
            paths,
            self.resolution,
            self.resize,
            numbers or places,
            arrays,
            left_out=left_out or {},
            background=self.background,
        )

    def load(self, listed: AnyFiles) -> AnyFiles:
        """Checks every image, and keeps the decoded ones where they fit; returns those that can be used.

        Raises:
            DataError: If there are no images, or bad ones with ``on_bad_image: raise``; or if the files lie in a folder
                whose name is not UTF-8, for tables could not name them.
        """
        count = len(listed)
        if not count:
            found = images.left_out_as(listed.left_out, listed.source)
            raise DataError(f"{listed.source} holds no images" + (f"; left out: {found}" if found else ""))
        if printable(where := str(listed.paths[0].parent.absolute())) != where:
            raise DataError(f"{printable(where)}: the folder's name is not UTF-8; rename it")
        size = count * self.resolution**2 * 3
        keep = self.cache == "memory" or (self.cache == "auto" and size <= CACHE_LIMIT)
        cached: dict[str, np.ndarray] = {}
        good: list[int] = []
        bad: dict[Path, str] = {}
        misfits = veiled = 0
        for k, path in enumerate(listed.paths):
            try:
                content = listed.read(k)
            except DataError as error:
                bad[path] = str(error)
                misfits += isinstance(error, SizeError)
                veiled += isinstance(error, TransparencyError)
                continue
            for name, decoded in content.items() if keep else ():
                if name not in cached:
                    cached[name] = np.empty((count, *decoded.shape), decoded.dtype)
                cached[name][len(good)] = decoded
            good.append(k)
        folder = listed.source if listed.source.is_dir() else listed.source.parent
        named = shortened(reason.replace(f"{folder}/", "") for reason in bad.values())
        if bad and (self.on_bad_image == "raise" or not good):
            advice = "Mend or remove them" + (", or set data.init_args.on_bad_image to skip" if good else "")
            if misfits == count and not self.resize:
                advice = "Set resolution (of model or data) to theirs, or data.init_args.resize to true"
            elif veiled:
                advice = f"Set data.init_args.background to a colour, such as white. {advice}"
            raise DataError(f"{len(bad):,} of {count:,} images cannot be used: {named}; in {folder}. {advice}")
        self._say(listed, bad, named)
        loaded = listed.subset(good)
        loaded.cached = {name: rows[: len(good)] for name, rows in cached.items()} if keep else None
        return loaded

    def _say(self, listed: ImageFileDataset, bad: Mapping[Path, str], named: str) -> None:
        """Says how many images were taken and what was left out, and lists that in the run folder."""
        taken, left_out = len(listed) - len(bad), listed.left_out | dict(bad)
        if not left_out:
            return
        parts = [images.left_out_as(listed.left_out, listed.source)] if listed.left_out else []
        parts += [f"{len(bad):,} (cannot be used): {named}"] if bad else []
        rank_zero_info(f"{listed.source}: took {taken:,} images, left out {'; '.join(parts)}")
        folder = self.trainer.log_dir if self.trainer is not None else None
        if self.trainer is not None and self.trainer.is_global_zero and folder is not None:
            rows = [{"path": path.as_posix(), "reason": reason} for path, reason in left_out.items()]
            write_rows(Path(folder) / SKIPPED, rows)


class Images(ImageFiles):
    """Images of a folder, or those a manifest lists.

    Args:
        resolution: Height and width that every image must have, in pixels.
        folder: Folder of images (PNG, JPEG, WebP, BMP or TIFF), with its subfolders and links to folders; or
        manifest: CSV with a header and a column ``path``, relative to the manifest; a column ``index`` numbers them.
        label_columns: Columns of the manifest that hold the labels, in the generator's order; a name may lack its
            ``_score``. ``label`` stands for all attributes of that role, in the order of the world.
        held_out: How many images are not trained on, chosen by the seed, so that a generator can be compared with them;
            at most a tenth of all.
        **settings: See :class:`ImageFiles`.
    """

    def __init__(
        self,
        resolution: int,
        folder: str | None = None,
        manifest: str | None = None,
        label_columns: list[str] | Literal["label"] | None = None,
        held_out: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, **settings)
        checks.at_least(0, held_out=held_out)
        if (folder is None) == (manifest is None):
            raise DataError(f"expected either 'folder' or 'manifest'; given folder={folder}, manifest={manifest}")
        if label_columns and manifest is None:
            raise DataError("'label_columns' needs a 'manifest' that has them")
        self.folder, self.manifest, self.most_held_out = folder, manifest, held_out
        known = vocabulary()
        named = known.names("label") if label_columns == "label" else label_columns or []
        self.label_names = tuple(known[name.removesuffix("_score")].name for name in named)
        if self.flip:
            refuse_turning(self.label_names)

    def setup(self, stage: str) -> None:
        """Finds, checks and loads the images.

        Raises:
            MissingArtifactError: If folder or manifest is not there.
            DataError: If an image or a row cannot be used.
        """
        source = Path(self.manifest or self.folder or "")
        require(source, folder=not self.manifest)
        if not self.manifest:
            found, left_out = images.images_in(source)
            self.train_set = self.load(self.files(source, found, None, left_out))
            self._hold_out(stage)
            return
        rows = read_rows(source)
        wanted = [attribute_column(source, rows[0] if rows else (), name) or name for name in self.label_names]
        if len(set(wanted)) < len(wanted):
            raise DataError(f"label_columns name {', '.join(wanted)}; expected each column once")
        check_columns(source, rows, ["path", *wanted])
        paths = paths_of(source, rows, once=bool(wanted))
        labels = {"label": numbers_in(source, rows, wanted)} if wanted else {}
        self.train_set = self.load(self.files(source, paths, image_numbers(source, rows), **labels))
        self._hold_out(stage)

    def _hold_out(self, stage: str) -> None:
        """Sets images aside, where it is for training."""
        count = len(self.train_set)
        held = min(self.most_held_out, count // 10) if stage == "fit" else 0
        if held:
            order = counted.permutation(self.seed, "held out", 0, count)
            everything = self.train_set
            self.held_out = everything.subset(np.sort(order[:held]))
            self.train_set = everything.subset(np.sort(order[held:]))

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Every image once, in order, shared out in turn between processes."""
        return self.in_order(self.train_set)


def refuse_turning(names: Iterable[str], setting: str = "data.init_args.flip") -> None:
    """Insists on attributes that mirroring does not change.

    Raises:
        ConfigError: Naming the others, and the setting that mirrors images.
    """
    if turning := [name for name in names if vocabulary()[name].mirror]:
        raise ConfigError(
            f"mirroring changes {', '.join(turning)}, as {vocabulary().where} declares; set {setting} to false"
        )


def check_columns(source: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Insists on columns of a table; raises a DataError naming those that are missing and those that are there."""
    missing = [c for c in columns if rows and c not in rows[0]]
    if missing:
        raise DataError(
            f"{source}: missing columns {shortened(missing, ', ')}; the header has {shortened(rows[0], ', ')}"
        )


def attribute_column(source: Path, header: Iterable[str], name: str) -> str | None:
    """The column of a table that holds an attribute: one of :attr:`ohlora.attributes.Attribute.columns`, or None.

    Raises:
        ConfigError: If there is no such attribute.
        DataError: If the table has two of its columns.
    """
    there = set(header)
    found = [called for called in vocabulary()[name].columns if called in there]
    if len(found) > 1:
        raise DataError(f"{source} has both {' and '.join(found[:2])}; rename or remove the one that is not meant")
    return found[0] if found else None


def paths_of(source: Path, rows: Sequence[Row], once: bool = True, folder: str | Path | None = None) -> list[Path]:
    """The images that a table names in its column ``path``; see :func:`ohlora.utils.files.located`.

    Args:
        source: The table, to whose folder paths are relative.
        rows: Its rows.
        once: Whether to refuse images that several rows name; otherwise a message tells how many there are.
        folder: Another folder to which paths may be relative: that of the images.

    Raises:
        DataError: Naming the rows that name none, or with ``once`` an image that an earlier row names.
    """
    empty = [f"{row}: path is empty" for row in rows if not row["path"]]
    if empty:
        raise DataError(f"{source}, {shortened(empty)}; expected an image in every row")
    folders = [source.parent, *([] if folder is None else [Path(folder)])]
    paths = [located(row["path"], folders) for row in rows]
    first: dict[str, Row] = {}
    double: list[str] = []
    for row, path in zip(rows, paths, strict=True):
        before = first.setdefault(os.path.normpath(path), row)
        if before is not row:
            double.append(f"{row}: {row['path']} was on {before} already")
    if double and once:
        raise DataError(f"{source}, {shortened(double)}; expected each image once")
    if double:
        rank_zero_info(f"{source}: took {len(double):,} images again that an earlier row names: {shortened(double)}")
    return paths


MISSING = ("", "na", "n/a", "nan", "null", "none")
"""How tables say that a value is missing, in small or capital letters."""
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
"""A number as tables must not have it."""


def is_missing(text: str) -> bool:
    """Whether a cell of a table says nothing, in one of the ways of :data:`MISSING`."""
    return text.strip().lower() in MISSING


def numbers_in(
    source: Path,
    rows: Sequence[Row],
    columns: list[str],
    dtype: type[np.floating[Any]] = np.float32,
    missing: bool = False,
) -> np.ndarray:
    """Columns of a table as N×K numbers.

    Args:
        source: The table, for messages.
        rows: Its rows.
        columns: The columns.
        dtype: The type of the numbers.
        missing: Whether values may be missing (:data:`MISSING`), and are NaN then.

    Raises:
        DataError: Naming the lines with a value that is no finite number.
    """
    exact = np.full((len(rows), len(columns)), np.nan)
    for k, row in enumerate(rows):
        for j, name in enumerate(columns):
            with suppress(ValueError):
                exact[k, j] = float(row[name])
    with np.errstate(over="ignore"):
        values = exact.astype(dtype)
    texts = [(k, j, rows[k][columns[j]]) for k, j in np.argwhere(~np.isfinite(values))]
    wrong = [(k, j, text) for k, j, text in texts if not (missing and is_missing(text))]
    if wrong:
        bad = [f"{rows[k]}: {columns[j]} is {text!r}" for k, j, text in wrong]
        expected = "a finite number" + (" or nothing" if missing else "")
        if any(DECIMAL_COMMA.fullmatch(text) for *_, text in wrong):
            expected += ", with a point before its decimals: 0.5, not 0,5"
        raise DataError(f"{source}, {shortened(bad)}; expected {expected}")
    return values


def image_numbers(source: Path, rows: Sequence[Row], once: bool = True) -> list[int] | None:
    """What a table calls its images, or None where it has no such column.

    Raises:
        DataError: Naming rows that have no number, or with ``once`` the number of an earlier row's other image.
    """
    found = number_column(source, rows[0]) if rows else None
    if found is None:
        return None
    bad = [f"{row}: {found} is {row[found]!r}" for row in rows if not row[found].isdecimal() or len(row[found]) > 18]
    if bad:
        raise DataError(f"{source}, {shortened(bad)}; expected the image's number")
    first: dict[int, Row] = {}
    for row in rows:
        before = first.setdefault(int(row[found]), row)
        if once and before is not row and ("path" not in row or row["path"] != before["path"]):
            bad.append(f"{row}: {found} {row[found]} was on {before} already")
    if bad:
        raise DataError(f"{source}, {shortened(bad)}; expected each number once")
    return [int(row[found]) for row in rows]


def number_column(source: Path, header: Iterable[str]) -> str | None:
    """The column that numbers images, in our tables (``index``) or in the original's; a DataError if there are two."""
    found = [name for name in header if name in NUMBERS]
    if len(found) > 1:
        raise DataError(f"{source} numbers its images in {' and in '.join(found)}; remove the column not meant")
    return found[0] if found else None

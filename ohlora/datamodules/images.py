"""Image files as training data, checked before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from ohlora.attributes import LABELS, column
from ohlora.datamodules.base import ImageDataModule, Sample
from ohlora.errors import DataError
from ohlora.pipeline import require
from ohlora.utils import images
from ohlora.utils.files import read_rows, write_rows

CACHE_LIMIT = 4 * 2**30
"""Bytes of decoded images that ``cache: auto`` keeps at most."""
LISTED = 10
"""Bad images named in a message; the rest are counted."""


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
    """

    source: Path
    paths: list[Path]
    resolution: int
    resize: bool
    numbers: list[int]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    cached: dict[str, np.ndarray] | None = None

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
        return {"image": images.read_rgb(self.paths[index], self.resolution, self.resize)}

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
        on_bad_image: ``raise`` lists images that are unreadable, of another size or not RGB, and stops; ``skip`` leaves
            them out, says how many, and writes ``skipped.csv`` into the run folder.
        resize: Resizes square images of another size (bilinearly) instead of refusing them.
        **settings: See :class:`ohlora.datamodules.base.ImageDataModule`.
    """

    train_set: ImageFileDataset

    def __init__(
        self,
        resolution: int,
        cache: Literal["auto", "memory", "none"] = "auto",
        on_bad_image: Literal["raise", "skip"] = "raise",
        resize: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.resolution, self.cache, self.on_bad_image, self.resize = resolution, cache, on_bad_image, resize

    def files(
        self, source: Path, paths: list[Path], numbers: list[int] | None = None, **arrays: np.ndarray
    ) -> ImageFileDataset:
        """Images of this resolution, not yet checked; see :class:`ImageFileDataset`. They are numbered by place."""
        places = list(range(len(paths)))
        return ImageFileDataset(source, paths, self.resolution, self.resize, numbers or places, arrays)

    def load(self, listed: AnyFiles) -> AnyFiles:
        """Checks every image, and keeps the decoded ones where they fit; returns those that can be used.

        Raises:
            DataError: If there are no images, or bad ones with ``on_bad_image: raise``.
        """
        count = len(listed)
        if not count:
            raise DataError(f"{listed.source} holds no images")
        size = count * self.resolution**2 * 3
        keep = self.cache == "memory" or (self.cache == "auto" and size <= CACHE_LIMIT)
        cached: dict[str, np.ndarray] = {}
        good: list[int] = []
        bad: list[dict[str, str]] = []
        for k, path in enumerate(listed.paths):
            try:
                content = listed.read(k)
            except DataError as error:
                bad.append({"path": path.as_posix(), "reason": str(error)})
                continue
            for name, decoded in content.items() if keep else ():
                if name not in cached:
                    cached[name] = np.empty((count, *decoded.shape), decoded.dtype)
                cached[name][len(good)] = decoded
            good.append(k)
        if bad:
            self._report(bad, count)
        if not good:
            raise DataError(f"{listed.source}: none of {count} images is usable")
        loaded = listed.subset(good)
        loaded.cached = {name: rows[: len(good)] for name, rows in cached.items()} if keep else None
        return loaded

    def _report(self, bad: list[dict[str, str]], total: int) -> None:
        named = shortened([row["reason"] for row in bad])
        if self.on_bad_image == "raise":
            raise DataError(
                f"{len(bad)} of {total} images cannot be used: {named}. Mend or remove them, or set "
                "data.init_args.on_bad_image to skip"
            )
        rank_zero_info(f"skipping {len(bad)} of {total} images: {named}")
        assert self.trainer is not None
        folder = self.trainer.log_dir
        if self.trainer.is_global_zero and folder is not None:
            write_rows(Path(folder) / "skipped.csv", bad)


class Images(ImageFiles):
    """Images of a folder, or those a manifest lists.

    Args:
        resolution: Height and width that every image must have, in pixels.
        folder: Folder of images (PNG or JPEG, subfolders too); or
        manifest: CSV with a header and a column ``path``, relative to the manifest; a column ``index`` numbers them.
        label_columns: Columns of the manifest that hold the labels, in the generator's order; a name may lack its
            ``_score``. ``label`` stands for all attributes of that role (:data:`ohlora.attributes.LABELS`).
        **settings: See :class:`ImageFiles`.
    """

    def __init__(
        self,
        resolution: int,
        folder: str | None = None,
        manifest: str | None = None,
        label_columns: list[str] | Literal["label"] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, **settings)
        if (folder is None) == (manifest is None):
            raise DataError(f"expected either 'folder' or 'manifest'; given folder={folder}, manifest={manifest}")
        if label_columns and manifest is None:
            raise DataError("'label_columns' needs a 'manifest' that has them")
        self.folder, self.manifest = folder, manifest
        self.label_columns = [*LABELS] if label_columns == "label" else label_columns or []
        self.label_names = tuple(name.removesuffix("_score") for name in self.label_columns)

    def setup(self, stage: str) -> None:
        """Finds, checks and loads the images.

        Raises:
            MissingArtifactError: If folder or manifest is not there.
            DataError: If an image or a row cannot be used.
        """
        source = Path(self.manifest or self.folder or "")
        require(source, folder=not self.manifest)
        if not self.manifest:
            self.train_set = self.load(self.files(source, images.paths_in(source)))
            return
        rows = read_rows(source)
        wanted = [column(rows[0] if rows else (), name) or name for name in self.label_columns]
        check_columns(source, rows, ["path", *wanted])
        paths = [source.parent / row["path"] for row in rows]
        labels = {"label": numbers_in(source, rows, wanted)} if wanted else {}
        self.train_set = self.load(self.files(source, paths, image_numbers(source, rows), **labels))

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Every image once, in order, shared out in turn between processes."""
        return self.in_order(self.train_set)


def check_columns(source: Path, rows: list[dict[str, str]], columns: Sequence[str]) -> None:
    """Insists on columns of a table, and on a value in every row.

    Raises:
        DataError: Naming those that are missing and those that are there, or the rows that are too short.
    """
    missing = [c for c in columns if rows and c not in rows[0]]
    if missing:
        raise DataError(f"{source}: missing columns {', '.join(missing)}; the header has {', '.join(rows[0])}")
    short = [f"row {k + 2}" for k, row in enumerate(rows) if any(row[c] is None for c in columns)]
    if short:
        raise DataError(f"{source}, {shortened(short)}: too few values; expected {', '.join(columns)} in every row")


def numbers_in(
    source: Path, rows: list[dict[str, str]], columns: list[str], dtype: type[np.floating[Any]] = np.float32
) -> np.ndarray:
    """Columns of a table as N×K numbers; raises a DataError naming the rows with a value that is not finite."""
    values = np.empty((len(rows), len(columns)), dtype)
    bad: list[str] = []
    for k, row in enumerate(rows):
        for j, name in enumerate(columns):
            try:
                values[k, j] = float(row[name])
            except (TypeError, ValueError):  # a short row has no value at all
                values[k, j] = np.nan
            if not np.isfinite(values[k, j]):
                bad.append(f"row {k + 2}: {name} is {row[name]!r}")
    if bad:
        raise DataError(f"{source}, {shortened(bad)}; expected a finite number")
    return values


def shortened(items: list[str]) -> str:
    """The first few of a list of complaints, and how many more there are."""
    more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more


def image_numbers(source: Path, rows: list[dict[str, str]]) -> list[int] | None:
    """What a table calls its images, or None where it has no such column; raises a DataError naming bad rows."""
    found = number_column(rows[0]) if rows else None
    if found is None:
        return None
    bad = [f"row {k + 2}: {found} is {row[found]!r}" for k, row in enumerate(rows) if not str(row[found]).isdecimal()]
    if bad:
        raise DataError(f"{source}, {shortened(bad)}; expected the image's number")
    return [int(row[found]) for row in rows]


def number_column(header: Iterable[str]) -> str | None:
    """The column that numbers images, in our tables (``index``) or in the original's."""
    return next((name for name in ("index", "img_no", "idx", "img_name") if name in header), None)

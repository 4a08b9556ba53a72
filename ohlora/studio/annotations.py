"""Annotating images with 0 or 1, or with levels: the table of the annotations, and the state of one browser tab."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ohlora.datamodules.images import MISSING, attribute_column, number_column
from ohlora.errors import ConfigError, DataError
from ohlora.utils import images
from ohlora.utils.files import FORMS, content_stamp, located, read_rows, rewriting, shortened, write_rows

Order = Literal["file", "uncertain", "disputed"]
"""Order in which images are offered, see :meth:`AnnotationSession.arrange`."""

Annotation = dict[str, int]
"""Attribute → 0 or 1, or its level."""


class AnnotationFile:
    """The table of annotations that filters are trained on: one row per annotated image.

    The whole table is written atomically after every annotation. A new table has the columns ``idx`` (if the images'
    names are numbers, each once), ``path`` (relative to the table) and one per attribute. An existing table keeps its
    columns, so that tables of the original (``idx,gender,quality,age,glass``) can be continued.

    Args:
        path: The CSV file; it need not exist yet.
        pictures: The images, in the order in which they are offered.
        attributes: The attributes that are annotated.
        highest: The highest annotation; the lowest is 0.
        folder: The folder of the images, to which the paths of an existing table may be relative, too.

    Attributes:
        annotations: Index of an image in ``pictures`` → its annotation.
        columns: Columns of the table.
        seen: The table's content stamp when it was last read or written.

    Raises:
        DataError: If the table has other attributes, or annotates an image that is not among ``pictures``.
    """

    def __init__(
        self,
        path: Path,
        pictures: Sequence[Path],
        attributes: Sequence[str],
        highest: int = 1,
        folder: Path | None = None,
    ) -> None:
        self.path, self.pictures, self.attributes, self.highest = path, list(pictures), tuple(attributes), highest
        self.folders = [path.parent, *([] if folder is None else [folder])]
        if path.suffix.lower() in FORMS:
            raise DataError(f"{path}: annotations are written as CSV; name another file in --annotations")
        self._by_path = {picture.resolve(): k for k, picture in enumerate(self.pictures)}
        self.columns = ["path", *self.attributes]
        if self._numbered():
            self.columns.insert(0, "idx")
        self.annotations: dict[int, Annotation] = {}
        self._rows: dict[int, dict[str, str]] = {}  # as read, with the columns that are not annotated here
        self.reload()

    def reload(self) -> None:
        """Reads the table again.

        A table that cannot be used leaves this object as it was. Since the table has changed, it is not overwritten
        either, until it could be read.

        Raises:
            DataError: If the table cannot be used; the message names the header or row.
        """
        seen = content_stamp(self.path)
        annotations: dict[int, Annotation] = {}
        rows = read_rows(self.path) if seen is not None else []
        kept: dict[int, dict[str, str]] = {}
        header = list(rows[0]) if rows else self.columns
        by_number = {}
        named = {name: attribute_column(self.path, header, name) or "" for name in self.attributes}
        missing = [name for name, there in named.items() if not there]
        number = number_column(self.path, header)
        if "path" in header:  # a table without a column can get it
            header += missing
            named |= {name: name for name in missing}
            missing = []
        if missing or ("path" not in header and number is None):
            raise DataError(
                f"{self.path}: the header has {shortened(header, ', ')}; expected {', '.join(self.attributes)} and a "
                "column that names the image (path or idx)"
            )
        if "path" not in header:
            places = {picture: k for k, picture in enumerate(self.pictures)}
            by_number = {number: places[picture] for number, picture in images.by_number(self.pictures).items()}
        elif number is not None and not self._numbered():
            raise DataError(
                f"{self.path} numbers its images in {number}, but the names of the images are not numbers, each once; "
                f"remove the column {number}"
            )
        for row in rows:
            if "path" in header:
                name = row["path"]
                index = self._by_path.get(located(name, self.folders).resolve())
            else:
                name = row[str(number)]
                index = by_number.get(name.lstrip("0") or "0")
            if index is None:
                raise DataError(f"{self.path}, {row}: there is no image {name} among those to annotate")
            if index in kept:
                raise DataError(f"{self.path}, {row}: image {name} is annotated twice")
            kept[index] = row
            if any(row.get(there, "").strip().lower() in MISSING for there in named.values()):
                continue  # such as the rows of a table with other columns; they stay in it
            if any(row[there] not in map(str, range(self.highest + 1)) for there in named.values()):
                expected = "0 or 1" if self.highest == 1 else f"0 to {self.highest}"
                raise DataError(f"{self.path}, {row}: expected {expected} for {', '.join(self.attributes)}")
            annotations[index] = {a: int(row[there]) for a, there in named.items()}
        self.seen, self.columns, self.annotations, self._rows = seen, header, annotations, kept
        self._read = frozenset(annotations)
        self._named = named

    def write(self, index: int, annotation: Annotation | None) -> None:
        """Sets or removes the annotation of an image, and writes the table.

        Args:
            index: Index of the image in ``pictures``.
            annotation: The annotation, or None to remove it.

        Raises:
            ConfigError: If the table has changed since it was read; nothing is written then.
        """
        with rewriting(self.path, self.seen):
            annotations = {k: known for k, known in self.annotations.items() if k != index}
            if annotation is not None:
                annotations[index] = dict(annotation)
            unfinished = {k for k in self._rows if k not in self._read}
            if there := sorted({*annotations, *unfinished}):
                write_rows(self.path, [self._row(k, annotations.get(k, {})) for k in there])
            else:
                self.path.unlink(missing_ok=True)
            self.annotations, self.seen = annotations, content_stamp(self.path)

    def _numbered(self) -> bool:
        """Whether the names of the images are numbers, each once."""
        return len({int(p.stem) for p in self.pictures if p.stem.isdecimal()}) == len(self.pictures)

    def _row(self, index: int, annotation: Annotation) -> dict[str, str]:
        picture = self.pictures[index]
        row = {"path": Path(os.path.relpath(picture.resolve(), self.path.parent.resolve())).as_posix()}
        number = number_column(self.path, self.columns)
        if number is not None:
            row[number] = picture.stem.lstrip("0") or "0"
        row |= self._rows.get(index, {}) | {self._named[name]: str(value) for name, value in annotation.items()}
        return {column: row.get(column, "") for column in self.columns}


@dataclass
class AnnotationSession:
    """The state of one browser tab: the order of the images, the image that is shown, and what can be undone.

    Attributes:
        file: The table and its images.
        defaults: The annotation that is proposed for an image that has none.
        scores: Probabilities predicted by filter ensembles, N×K, NaN where no ensemble predicts the attribute; None
            until they are computed. The orders ``uncertain`` and ``disputed`` need them.
        order: Indices of images, in the order in which they are offered.
        position: Position in ``order`` of the image that is shown.
        kind: Which order it is.
        note: What was left out of the folder of images.
    """

    file: AnnotationFile
    defaults: Annotation
    scores: np.ndarray | None = None
    order: list[int] = field(default_factory=list)
    position: int = 0
    kind: Order = "file"
    note: str = ""
    _undo: list[tuple[int, Annotation | None]] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = list(range(len(self.file.pictures)))
        if self.file.annotations:
            self.jump()

    @property
    def index(self) -> int:
        """Index of the image that is shown."""
        return self.order[self.position]

    @property
    def annotation(self) -> Annotation:
        """The annotation of the image that is shown, or the one that is proposed."""
        return self.file.annotations.get(self.index, self.defaults)

    def picture(self, size: int = 512) -> np.ndarray:
        """The image that is shown, enlarged to at most ``size`` pixels on its shorter side: H×W×3 uint8.

        Raises:
            DataError: If the image cannot be read.
        """
        # What is transparent is shown on white; this is for looking only.
        shown = images.as_rgb(images.decode(self.file.pictures[self.index]), "white")
        return images.enlarge(np.asarray(shown), size)

    def toggle(self, attribute: str) -> None:
        """Changes one attribute of the annotation from 0 to 1 or from 1 to 0, and saves it.

        Raises:
            ConfigError: If the table has changed since it was read.
            DataError: If the image cannot be read.
        """
        self._save({**self.annotation, attribute: 1 - self.annotation[attribute]})

    def grade(self, attribute: str, level: int) -> None:
        """Sets an ordinal attribute of the annotation to a level, and saves it; errors as for :meth:`toggle`."""
        self._save({**self.annotation, attribute: level})

    def confirm(self) -> None:
        """Saves the annotation that is shown, and moves to the next image; errors as for :meth:`toggle`."""
        self._save(self.annotation)
        self.step(1)

    def step(self, by: int) -> None:
        """Moves ``by`` images ahead (or back, where negative) without saving, as far as there are images."""
        self.position = int(np.clip(self.position + by, 0, len(self.order) - 1))

    def jump(self) -> None:
        """Moves to the next image without annotation; after the last image, the search goes on at the first."""
        ahead = [*range(self.position, len(self.order)), *range(self.position)]
        self.position = next((k for k in ahead if self.order[k] not in self.file.annotations), self.position)

    def undo(self) -> None:
        """Takes back the last change that was made in this tab, and shows its image.

        Raises:
            ConfigError: If there is nothing to undo, or the table has changed since it was read.
        """
        if not self._undo:
            raise ConfigError("there is nothing to undo in this tab")
        index, before = self._undo[-1]
        self.file.write(index, before)
        self._undo.pop()
        if index in self.order:
            self.position = self.order.index(index)

    def arrange(self, kind: Order) -> None:
        """Changes the order in which images are offered.

        Args:
            kind: ``file``: all images in the order of the files; ``uncertain``: images without annotation, first those
                whose predictions are closest to 0.5; ``disputed``: images whose annotation the predictions contradict,
                first those with the largest difference.

        Raises:
            ConfigError: If the order needs scores and there are none, or it would contain no image.
        """
        if kind == "file":
            order = list(range(len(self.file.pictures)))
        elif self.scores is None:
            raise ConfigError("there are no filter ensembles yet; train them on a few hundred annotations first")
        elif kind == "uncertain":
            distance = np.nanmin(np.abs(self.scores - 0.5), axis=1)
            order = [int(k) for k in np.argsort(distance, kind="stable") if int(k) not in self.file.annotations]
        else:
            difference = {
                k: float(np.nanmax(np.abs(self.scores[k] - [annotation[a] for a in self.file.attributes])))
                for k, annotation in self.file.annotations.items()
            }
            order = sorted((k for k, d in difference.items() if d > 0.5), key=lambda k: -difference[k])
        if not order:
            contradicted = "the ensembles contradict none of the annotations"
            raise ConfigError("every image is annotated" if kind == "uncertain" else contradicted)
        self.kind, self.order, self.position = kind, order, 0
        if kind == "file":
            self.jump()

    def predictions(self) -> Mapping[str, float]:
        """Returns the probabilities that the ensembles predict for the image that is shown, by attribute."""
        if self.scores is None:
            return {}
        row = zip(self.file.attributes, self.scores[self.index].tolist(), strict=True)
        return {name: value for name, value in row if not np.isnan(value)}

    def pace(self) -> float | None:
        """Returns the annotations per minute over the last twenty; None before the second."""
        recent = self._times[-20:]
        return 60 * (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else None

    def _save(self, annotation: Annotation) -> None:
        images.decode(self.file.pictures[self.index])  # an image that cannot be shown must not be annotated
        before = self.file.annotations.get(self.index)
        self.file.write(self.index, annotation)
        self._undo.append((self.index, before))
        if before is None:
            self._times.append(time.monotonic())

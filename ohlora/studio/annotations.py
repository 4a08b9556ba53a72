"""Labelling images with 0 or 1, levels or scores: the table of the annotations, and the state of one browser tab."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ohlora.attributes import Attribute, vocabulary
from ohlora.datamodules.images import attribute_column, is_missing, number_column
from ohlora.datamodules.scores import ANNOTATOR, COMPARISONS
from ohlora.errors import ConfigError, DataError
from ohlora.utils import images
from ohlora.utils.files import FORMS, content_stamp, located, read_rows, rewriting, shortened, write_rows

Order = Literal["file", "uncertain", "disputed"]
"""Order in which images are offered, see :meth:`AnnotationSession.arrange`."""

Annotation = dict[str, float]
"""Attribute → 0 or 1, its level, or its score; attributes that are not answered are left out."""


class Scale(NamedTuple):
    """What a slider of scores covers, and the step between two of its positions."""

    low: float
    high: float
    step: float


FRESH = Scale(0, 100, 1)
"""The scale of scores where the table has none yet, or only whole numbers within it."""


def choices(of: Attribute) -> range | None:
    """The answers that an attribute has: 0 and 1, or its levels; None for any number."""
    if of.kind == "binary":
        return range(2)
    return range(of.levels + 1) if of.levels else None


def per_minute(times: Sequence[float]) -> float | None:
    """How many answers a minute are given, by when the last twenty were, in seconds; None before the second."""
    recent = times[-20:]
    return 60 * (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else None


class AnnotationFile:
    """The table of annotations that networks are trained on: one row per image, or per image and annotator.

    The whole table is written atomically after every annotation. A new table has the columns ``idx`` (if the images'
    names are numbers, each once), ``path`` (relative to the table) and one per attribute. An existing table keeps its
    columns, so that tables of the original (``idx,gender,quality,age,glass``) can be continued. Where several people
    label, it has a column ``annotator``, as :class:`ohlora.datamodules.scores.ScoredImages` reads it; rows of others
    are kept as they are.

    Args:
        path: The CSV file; it need not exist yet.
        pictures: The images, in the order in which they are offered.
        attributes: The attributes that are annotated.
        folder: The folder of the images, to which the paths of an existing table may be relative, too.
        annotator: Who labels; '' where nobody else does.

    Attributes:
        annotations: Index of an image in ``pictures`` → its annotation by ``annotator``, which may lack attributes.
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
        folder: Path | None = None,
        annotator: str = "",
    ) -> None:
        self.path, self.pictures, self.attributes, self.annotator = path, list(pictures), tuple(attributes), annotator
        self.folders = [path.parent, *([] if folder is None else [folder])]
        if path.suffix.lower() in FORMS:
            raise DataError(f"{path}: annotations are written as CSV; name another file in --annotations")
        self._by_path = {picture.resolve(): k for k, picture in enumerate(self.pictures)}
        self.columns = ["path", *self.attributes]
        if self._numbered():
            self.columns.insert(0, "idx")
        self.annotations: dict[int, Annotation] = {}
        self._rows: dict[tuple[int, str], dict[str, str]] = {}
        """Image and annotator → row as read, with the columns that are not annotated here."""
        self._kept: set[tuple[int, str]] = set()
        """Rows that stay without an annotation of the attributes."""
        self._scales: dict[str, Scale] = {}
        self.reload()

    @property
    def changed(self) -> bool:
        """Whether another tab or program has written the table since it was read."""
        return content_stamp(self.path) != self.seen

    def reload(self) -> None:
        """Reads the table again.

        A table that cannot be used leaves this object as it was. Since the table has changed, it is not overwritten
        either, until it could be read.

        Raises:
            DataError: If the table cannot be used; the message names the header or row.
        """
        seen = content_stamp(self.path)
        rows = read_rows(self.path) if seen is not None else []
        header = list(rows[0]) if rows else self.columns
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
        by_number = {}
        if "path" not in header:
            places = {picture: k for k, picture in enumerate(self.pictures)}
            by_number = {number: places[picture] for number, picture in images.by_number(self.pictures).items()}
        elif number is not None and not self._numbered():
            raise DataError(
                f"{self.path} numbers its images in {number}, but the names of the images are not numbers, each once; "
                f"remove the column {number}"
            )
        annotations: dict[int, Annotation] = {}
        found: dict[tuple[int, str], dict[str, str]] = {}
        values: dict[str, list[float]] = {name: [] for name in self.attributes}
        own = {*named.values(), "path", ANNOTATOR, str(number)}
        kept = set()
        for row in rows:
            if "path" in header:
                name = row["path"]
                index = self._by_path.get(located(name, self.folders).resolve())
            else:
                name = row[str(number)]
                index = by_number.get(name.lstrip("0") or "0")
            if index is None:
                raise DataError(f"{self.path}, {row}: there is no image {name} among those to label")
            who = row.get(ANNOTATOR, "")
            if (index, who) in found:
                raise DataError(f"{self.path}, {row}: image {name} is labelled twice" + (f" by {who}" if who else ""))
            found[index, who] = row
            annotation = {a: value for a, there in named.items() if (value := self._value(row, a, there)) is not None}
            for a, value in annotation.items():
                values[a].append(value)
            if not annotation or any(value for column, value in row.items() if column not in own):
                kept.add((index, who))  # such as the rows of a table with other columns
            if annotation and who == self.annotator:
                annotations[index] = annotation
        self.seen, self.columns, self.annotations = seen, header, annotations
        self._rows, self._kept, self._named = found, kept, named
        self._scales = {name: _scale(vocabulary()[name], known) for name, known in values.items()}

    def scale(self, attribute: str) -> Scale:
        """What a slider of an attribute covers: the values that the table had when it was read."""
        return self._scales[attribute]

    def write(self, index: int, annotation: Annotation | None) -> None:
        """Sets or removes the annotation of an image, and writes the table.

        Args:
            index: Index of the image in ``pictures``.
            annotation: The annotation, or None to remove it.

        Raises:
            ConfigError: If the table has changed since it was read, or has annotators and it is not known who labels;
                nothing is written then.
        """
        if ANNOTATOR in self.columns and not self.annotator:
            raise ConfigError(f"{self.path.name} says who labelled what; say who labels now, and answer again")
        with rewriting(self.path, self.seen):
            annotations = {k: known for k, known in self.annotations.items() if k != index}
            if annotation:
                annotations[index] = dict(annotation)
            mine = {(k, self.annotator) for k in annotations}
            others = {key for key in self._rows if key[1] != self.annotator}
            if there := sorted(mine | others | self._kept):
                write_rows(self.path, [self._row(k, who, annotations.get(k, {})) for k, who in there])
            else:
                self.path.unlink(missing_ok=True)
            self.annotations, self.seen = annotations, content_stamp(self.path)

    def write_scores(
        self, scores: Mapping[str, Mapping[int, float]], counts: Mapping[str, Mapping[int, int]], replace: bool = False
    ) -> None:
        """Sets the scores that comparisons have made, of one or more attributes, and writes the table once.

        They are nobody's own where the table has annotators: everybody's comparisons are pooled. Scores of an earlier
        ranking are replaced; images that are not in an attribute's ``scores`` have none of it afterwards. How often an
        image was compared stands beside its score, in the column ``<attribute>_comparisons``, by which a score of
        comparisons is known.

        Args:
            scores: Attribute, one of ``attributes`` → index of an image in ``pictures`` → score.
            counts: The same attributes → index of an image → in how many comparisons it was.
            replace: Also replaces values that were not made of comparisons.

        Raises:
            ConfigError: If the table has changed since it was read, or without ``replace`` has values of an attribute
                that comparisons did not make; nothing is written then.
        """
        for name in scores:
            column, count = self._named[name], name + COMPARISONS
            others = [row for row in self._rows.values() if self._says(row, column) and not self._says(row, count)]
            if others and not replace:
                raise ConfigError(
                    f"{self.path} has {len(others):,} values of {name} that were not made of comparisons; move them "
                    "to another table, or replace them: ohlora rank … --replace"
                )
        with rewriting(self.path, self.seen):
            for name in scores:
                if name + COMPARISONS not in self.columns:
                    self.columns.insert(self.columns.index(self._named[name]) + 1, name + COMPARISONS)
            scored = {(index, "") for own in scores.values() for index in own}
            rows = []
            for index, who in sorted({*self._rows, *scored}):
                row, before = self._row(index, who, self.annotations.get(index, {})), self._rows.get((index, who), {})
                for name, own in scores.items():
                    given = who == "" and index in own
                    row[self._named[name]] = f"{own[index]:.6g}" if given else ""
                    row[name + COMPARISONS] = str(counts[name][index]) if given else ""
                held = any(self._says(before, name + COMPARISONS) for name in scores)
                if held and not any(map(row.get, set(row) - self._own)):
                    continue  # it held nothing but scores that are gone
                rows.append(row)
            write_rows(self.path, rows)
            self.reload()

    @staticmethod
    def _says(row: Mapping[str, str], column: str) -> bool:
        return not is_missing(row.get(column, ""))

    @property
    def _own(self) -> set[str]:
        """The columns that say which image a row is about, and whose."""
        return {"path", ANNOTATOR, str(number_column(self.path, self.columns))}

    def _numbered(self) -> bool:
        """Whether the names of the images are numbers, each once."""
        return len({int(p.stem) for p in self.pictures if p.stem.isdecimal()}) == len(self.pictures)

    def _value(self, row: Mapping[str, str], attribute: str, column: str) -> float | None:
        """What a row says of an attribute; None where that is missing."""
        text = row.get(column, "")
        if is_missing(text):
            return None
        of = vocabulary()[attribute]
        known = choices(of)
        if known is not None and text in map(str, known):
            return int(text)
        try:
            value = float(text) if known is None else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (of.kind == "ordinal" and value != round(value)):
            expected = "a whole number" if of.kind == "ordinal" else "a number"
            if known is not None:
                expected = f"0 {'or' if known[-1] == 1 else 'to'} {known[-1]}"
            raise DataError(f"{self.path}, {row}: {column} is {text!r}; expected {expected}, or nothing")
        return value

    def _row(self, index: int, who: str, annotation: Annotation) -> dict[str, str]:
        picture, read = self.pictures[index], self._rows.get((index, who), {})
        row = {"path": Path(os.path.relpath(picture.resolve(), self.path.parent.resolve())).as_posix()}
        number = number_column(self.path, self.columns)
        if number is not None:
            row[number] = picture.stem.lstrip("0") or "0"
        row |= read
        columns = list(self.columns)
        if self.annotator and ANNOTATOR not in columns:
            columns.insert(columns.index("path") + 1 if "path" in columns else 0, ANNOTATOR)
        row[ANNOTATOR] = who
        if who == self.annotator:
            for name, there in self._named.items():
                row[there] = f"{annotation[name]:.6g}" if name in annotation else ""
                if annotation.get(name) != self._value(read, name, there):
                    row[name + COMPARISONS] = ""  # it is a value by hand now
        return {column: row.get(column, "") for column in columns}


def _scale(of: Attribute, known: Sequence[float]) -> Scale:
    """The scale of a slider by the values that there are, see :data:`FRESH`."""
    if of.kind == "ordinal":
        return Scale(min([0, *known]), max([9, *known]), 1)
    if len(set(known)) < 2 or all(FRESH.low <= value <= FRESH.high and value == round(value) for value in known):
        return FRESH
    low, high = min(known), max(known)
    return Scale(low, high, float(f"{(high - low) / 100:.1g}"))


@dataclass
class AnnotationSession:
    """The state of one browser tab: the order of the images, the image that is shown, and what can be undone.

    Attributes:
        file: The table and its images.
        defaults: What is proposed for an image: attribute → 0 or 1, of those where something is.
        scores: Probabilities predicted by filter ensembles, N×K, NaN where no ensemble predicts the attribute; None
            until they are computed. The orders ``uncertain`` and ``disputed`` need them.
        blind: Whether only answers that were given in this tab are shown: no proposal, prediction or earlier answer.
        order: Indices of images, in the order in which they are offered.
        position: Position in ``order`` of the image that is shown.
        kind: Which order it is.
        note: What was left out of the folder of images.
    """

    file: AnnotationFile
    defaults: Annotation
    scores: np.ndarray | None = None
    blind: bool = False
    order: list[int] = field(default_factory=list)
    position: int = 0
    kind: Order = "file"
    note: str = ""
    _undo: list[tuple[int, str, Annotation | None, set[str]]] = field(default_factory=list)
    """Image, the score that was changed, its annotation before, and what had been answered in this tab."""
    _given: dict[int, set[str]] = field(default_factory=dict)
    """Image → the attributes that were answered in this tab."""
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
    def answers(self) -> Annotation:
        """The answers to the image that is shown; of a blind session, those that were given in this tab."""
        known = self.file.annotations.get(self.index, {})
        given = self._given.get(self.index, set())
        return {name: value for name, value in known.items() if not self.blind or name in given}

    @property
    def annotation(self) -> Annotation:
        """The answers, and what is proposed where there is none; nothing is in a blind session."""
        return self.answers if self.blind else {**self.defaults, **self.answers}

    def picture(self, size: int = 512) -> np.ndarray:
        """The image that is shown, enlarged to at most ``size`` pixels on its shorter side: H×W×3 uint8.

        Raises:
            DataError: If the image cannot be read.
        """
        # What is transparent is shown on white; this is for looking only.
        shown = images.as_rgb(images.decode(self.file.pictures[self.index]), "white")
        return images.enlarge(np.asarray(shown), size)

    def answer(self, attribute: str, value: float) -> None:
        """Answers for one attribute of the image that is shown, and saves the answer.

        Scores of one image in a row, as by a slider that is dragged, are undone together.

        Raises:
            ConfigError: If the table has changed since it was read.
            DataError: If the image cannot be read.
        """
        self._save({attribute: value}, attribute if choices(vocabulary()[attribute]) is None else "")

    def confirm(self) -> None:
        """Saves what is proposed where there is no answer, and moves to the next image; errors as for :meth:`answer`.

        Raises:
            ConfigError: If an attribute has neither an answer nor a proposal.
        """
        shown = self.annotation
        if missing := [name for name in self.file.attributes if name not in shown]:
            raise ConfigError(f"not answered yet: {', '.join(missing)}")
        new = {name: value for name, value in shown.items() if name not in self.answers}
        if new:
            self._save(new, "")
        self.step(1)

    def step(self, by: int) -> None:
        """Moves ``by`` images ahead (or back, where negative) without saving, as far as there are images."""
        self.position = int(np.clip(self.position + by, 0, len(self.order) - 1))

    def done(self, index: int) -> bool:
        """Whether every attribute of an image is answered; of a blind session, in this tab."""
        known = self._given.get(index, set()) if self.blind else self.file.annotations.get(index, {})
        return all(name in known for name in self.file.attributes)

    def jump(self) -> None:
        """Moves to the next image that is not :meth:`done`; after the last image, the search goes on at the first."""
        ahead = [*range(self.position, len(self.order)), *range(self.position)]
        self.position = next((k for k in ahead if not self.done(self.order[k])), self.position)

    def undo(self) -> None:
        """Takes back the last change that was made in this tab, and shows its image.

        Raises:
            ConfigError: If there is nothing to undo, or the table has changed since it was read.
        """
        if not self._undo:
            raise ConfigError("there is nothing to undo in this tab")
        index, _, before, given = self._undo[-1]
        self.file.write(index, before)
        self._undo.pop()
        self._given[index] = given
        if index in self.order:
            self.position = self.order.index(index)

    def labels_as(self, annotator: str) -> None:
        """Says who labels from now on; what another one did cannot be undone.

        Raises:
            DataError: If the table cannot be used.
        """
        before = self.file.annotator
        self.file.annotator = annotator
        try:
            self.file.reload()
        except DataError:
            self.file.annotator = before
            raise
        self._undo, self._given, self.position = [], {}, 0
        self.jump()

    def arrange(self, kind: Order) -> None:
        """Changes the order in which images are offered.

        Args:
            kind: ``file``: all images in the order of the files; ``uncertain``: images that are not :meth:`done`, first
                those whose predictions are closest to 0.5; ``disputed``: images whose answers the predictions
                contradict, first those with the largest difference.

        Raises:
            ConfigError: If the order needs scores and there are none, or it would contain no image.
        """
        if kind == "file":
            order = list(range(len(self.file.pictures)))
        elif self.scores is None:
            raise ConfigError("there are no filter ensembles yet; train them on a few hundred labels first")
        elif kind == "uncertain":
            distance = np.nanmin(np.abs(self.scores - 0.5), axis=1)
            order = [int(k) for k in np.argsort(distance, kind="stable") if not self.done(int(k))]
        else:
            difference = {
                k: float(np.nan_to_num(np.abs(self.scores[k] - self._row(annotation))).max())
                for k, annotation in self.file.annotations.items()
            }
            order = sorted((k for k, d in difference.items() if d > 0.5), key=lambda k: -difference[k])
        if not order:
            contradicted = "the ensembles contradict none of the labels"
            raise ConfigError("every image is labelled" if kind == "uncertain" else contradicted)
        self.kind, self.order, self.position = kind, order, 0
        if kind == "file":
            self.jump()

    def predictions(self) -> Mapping[str, float]:
        """The probabilities that the ensembles predict for the image that is shown; none in a blind session."""
        if self.scores is None or self.blind:
            return {}
        row = zip(self.file.attributes, self.scores[self.index].tolist(), strict=True)
        return {name: value for name, value in row if not np.isnan(value)}

    def pace(self) -> float | None:
        """Returns the images per minute over the last twenty; None before the second."""
        return per_minute(self._times)

    def _row(self, annotation: Annotation) -> list[float]:
        return [annotation.get(name, math.nan) for name in self.file.attributes]

    def _save(self, new: Annotation, score: str) -> None:
        index = self.index
        images.decode(self.file.pictures[index])  # an image that cannot be shown must not be annotated
        before, given, done = self.file.annotations.get(index), self._given.get(index, set()), self.done(index)
        self.file.write(index, {**(before or {}), **new})
        self._given[index] = given | set(new)
        if not score or not self._undo or self._undo[-1][:2] != (index, score):
            self._undo.append((index, score, before, given))
        if not done and self.done(index):
            self._times.append(time.monotonic())

"""Labelling by comparison: the table of comparisons, the pair that comes next, and the state of one browser tab."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ohlora.datamodules.comparisons import (
    COLUMNS,
    OUTCOMES,
    Answer,
    Comparison,
    Ranking,
    comparable,
    comparison,
    ranking,
)
from ohlora.datamodules.images import check_columns
from ohlora.datamodules.scores import ANNOTATOR
from ohlora.errors import ConfigError, DataError
from ohlora.evaluation import bradley_terry
from ohlora.studio.annotations import AnnotationFile, per_minute
from ohlora.utils import images
from ohlora.utils.files import FORMS, Row, content_stamp, read_rows, rewriting, write_rows

START = 20
"""Images that are compared with each other at first, and that come in at once later."""
ENOUGH = 6
"""Comparisons of each image that is compared, before others come in."""
NEAR = 0.5
"""Images whose strengths differ by less, in the logarithm of odds, count as equally near."""
AGAIN = 10
"""Every tenth pair is one that another annotator has compared, so that their agreement is known."""
SEED = 0
"""Of the order in which images come in, and of which image is left."""


def table_of(annotations: Path) -> Path:
    """The table of comparisons that belongs to a table of annotations: ``labels_comparisons.csv`` of ``labels.csv``."""
    return annotations.with_name(f"{annotations.stem}_comparisons.csv")


class ComparisonFile:
    """A table of comparisons, of all attributes and annotators: a row for each, in the order in which they were made.

    The whole table is written atomically after every comparison.

    Args:
        path: The CSV file; it need not exist yet.
        pictures: The images that can be compared.
        folder: The folder of the images, to which the paths of an existing table may be relative, too.

    Attributes:
        comparisons: What was compared.
        seen: The table's content stamp when it was last read or written.

    Raises:
        DataError: If the table cannot be used, or compares an image that is not among ``pictures``.
    """

    def __init__(self, path: Path, pictures: Sequence[Path], folder: Path | None = None) -> None:
        if path.suffix.lower() in FORMS:
            raise DataError(f"{path}: comparisons are written as CSV; name another file in --annotations")
        self.path, self.pictures = path, list(pictures)
        self.folders = [path.parent, *([] if folder is None else [folder])]
        self.places = {picture.resolve(): k for k, picture in enumerate(self.pictures)}
        self.comparisons: list[Comparison] = []
        self._rows: list[dict[str, str]] = []
        self.reload()

    @property
    def changed(self) -> bool:
        """Whether another tab or program has written the table since it was read."""
        return content_stamp(self.path) != self.seen

    def reload(self) -> None:
        """Reads the table again; one that cannot be used leaves this object as it was, and raises a DataError."""
        seen = content_stamp(self.path)
        rows = read_rows(self.path) if seen is not None else []
        if rows:
            check_columns(self.path, rows, COLUMNS)
        found = [self._read(row) for row in rows]
        self.seen, self.comparisons = seen, found
        self._rows = [dict(row) for row in rows]

    def _read(self, row: Row) -> Comparison:
        one = comparison(self.path, row, self.folders)
        for column, path in (("path_a", one.a), ("path_b", one.b)):
            if path not in self.places:
                raise DataError(f"{self.path}, {row}: there is no image {row[column]} among those to compare")
        return one

    def add(self, one: Comparison) -> None:
        """Adds a comparison, and writes the table.

        Raises:
            ConfigError: If the table has changed since it was read, or has annotators and it is not known who compares;
                nothing is written then.
        """
        if self._rows and ANNOTATOR in self._rows[0] and not one.annotator:
            raise ConfigError(f"{self.path.name} says who compared what; say who labels now, and answer again")
        row = dict(zip(COLUMNS, (self._named(one.a), self._named(one.b), one.attribute, one.answer), strict=True))
        if one.annotator:
            row[ANNOTATOR] = one.annotator
        self._write([*self._rows, row], [*self.comparisons, one])

    def remove(self, one: Comparison) -> None:
        """Takes the last such comparison out again, and writes the table; a ConfigError as for :meth:`add`."""
        at = max(k for k, other in enumerate(self.comparisons) if other == one)
        self._write([*self._rows[:at], *self._rows[at + 1 :]], [*self.comparisons[:at], *self.comparisons[at + 1 :]])

    def _write(self, rows: list[dict[str, str]], comparisons: list[Comparison]) -> None:
        with rewriting(self.path, self.seen):
            if rows:
                write_rows(self.path, rows)
            else:
                self.path.unlink(missing_ok=True)
            self._rows, self.comparisons, self.seen = rows, comparisons, content_stamp(self.path)

    def _named(self, picture: Path) -> str:
        return Path(os.path.relpath(picture, self.path.parent.resolve())).as_posix()


def next_pair(
    items: int, pairs: np.ndarray, outcomes: np.ndarray, mine: np.ndarray, broken: Sequence[int] = (), seed: int = SEED
) -> tuple[int, int] | None:
    """The pair to compare next, left and right; the same for the same comparisons and seed.

    Images come in by twenties, in random order, whenever all that are in have :data:`ENOUGH` comparisons. The image
    with the fewest of them is compared with one that it was not compared with yet: rather one that no chain of
    comparisons leads to, then one of nearly the same strength, then one with few comparisons. Every tenth pair is one
    that another annotator compared, where there is such a pair.

    Args:
        items: M, the number of images.
        pairs: N×2 int, what was compared by all annotators.
        outcomes: N, see :mod:`ohlora.evaluation.bradley_terry`.
        mine: N bool, which of it by who compares now.
        broken: Images that are left out.
        seed: Of the order of images and of sides.

    Returns:
        The pair, or None where everybody's images are all compared with each other.
    """
    order = np.random.default_rng(seed).permutation(items)
    place = np.argsort(order)
    own, answered = _distinct(pairs[mine]), int(mine.sum())
    left_out = set(broken)
    turned = bool(np.random.default_rng([seed, answered]).integers(2))

    def sides(a: int, b: int) -> tuple[int, int]:
        return (b, a) if turned else (a, b)

    if answered % AGAIN == AGAIN - 1:
        for a, b in pairs[~mine].tolist():
            if (min(a, b), max(a, b)) not in own and not {a, b} & left_out:
                return sides(a, b)
    counts = np.bincount(pairs.ravel(), minlength=items)
    usable = np.ones(items, dtype=bool)
    usable[list(left_out)] = False
    order = order[usable[order]]
    size = START
    while size < len(order) and (counts[order[:size]] >= ENOUGH).all():
        size += START
    inside = usable & (counts > 0)
    inside[order[:size]] = True
    pool = np.flatnonzero(inside)
    strengths = bradley_terry.strengths(items, pairs, outcomes)
    group = bradley_terry.groups(items, pairs)
    for first in pool[np.lexsort((place[pool], counts[pool]))].tolist():
        free = np.array([k for k in pool.tolist() if k != first and (min(first, k), max(first, k)) not in own], int)
        if len(free):
            far = np.abs(strengths[free] - strengths[first]) // NEAR
            best = np.lexsort((place[free], counts[free], far, group[free] == group[first]))[0]
            return sides(first, int(free[best]))
    return None


def _distinct(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(min(a, b), max(a, b)) for a, b in pairs.tolist()}


@dataclass
class ComparisonSession:
    """The state of one browser tab.

    Attributes:
        file: The table and its images.
        attribute: The score in which images are compared.
        annotator: Who compares; '' where nobody else does.
        pair: The images that are shown, left and right, by index; None where there is no pair left.
        note: What was left out because it cannot be read.
    """

    file: ComparisonFile
    attribute: str
    annotator: str = ""
    pair: tuple[int, int] | None = None
    note: str = ""
    _undo: list[Comparison] = field(default_factory=list)
    _broken: dict[int, str] = field(default_factory=dict)
    _times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        comparable(self.attribute)
        self.go_on()

    @property
    def own(self) -> list[Comparison]:
        """What was compared in this attribute, by everybody."""
        return [one for one in self.file.comparisons if one.attribute == self.attribute]

    @property
    def mine(self) -> int:
        """How many comparisons in this attribute are of who compares now."""
        return sum(one.annotator == self.annotator for one in self.own)

    @property
    def _pairs(self) -> np.ndarray:
        """The images of each of :attr:`own`, by index: N×2 int."""
        places = self.file.places
        return np.array([(places[one.a], places[one.b]) for one in self.own], int).reshape(-1, 2)

    def go_on(self) -> None:
        """Moves to the next pair of images that can be read; a DataError where there are no two of them."""
        own = self.own
        pairs = self._pairs
        outcomes = np.array([OUTCOMES[one.answer] for one in own])
        mine = np.array([one.annotator == self.annotator for one in own], dtype=bool)
        while True:
            if len(self.file.pictures) - len(self._broken) < 2:
                raise DataError(
                    f"{len(self.file.pictures) - len(self._broken)} images can be read; expected two to compare"
                )
            self.pair = next_pair(len(self.file.pictures), pairs, outcomes, mine, list(self._broken))
            if not self._unreadable():
                return

    def _unreadable(self) -> bool:
        """Whether an image of the pair cannot be read; it is left out from now on."""
        bad = {}
        for index in self.pair or ():
            try:
                images.decode(self.file.pictures[index])
            except DataError as error:
                bad[index] = str(error)
        self._broken |= bad
        if bad:
            self.note = f"⚠️ left out: {'; '.join(self._broken.values())}"
        return bool(bad)

    def pictures(self, size: int = 512) -> list[np.ndarray]:
        """The images that are shown, each enlarged to at most ``size`` pixels: H×W×3 uint8.

        Raises:
            DataError: If one cannot be read any more.
        """
        read = [images.as_rgb(images.decode(self.file.pictures[index]), "white") for index in self.pair or ()]
        return [images.enlarge(np.asarray(picture), size) for picture in read]

    def answer(self, answer: Answer) -> None:
        """Says which image has more of the attribute, saves it, and moves to the next pair.

        Raises:
            ConfigError: If there is no pair left, or the table has changed since it was read.
        """
        if self.pair is None:
            raise ConfigError("there is no pair left to compare")
        a, b = (self.file.pictures[index].resolve() for index in self.pair)
        one = Comparison(a, b, self.attribute, answer, self.annotator)
        self.file.add(one)
        self._undo.append(one)
        self._times.append(time.monotonic())
        self.go_on()

    def undo(self) -> None:
        """Takes back the last comparison that was made in this tab, and shows its pair.

        Raises:
            ConfigError: If there is nothing to undo, or the table has changed since it was read.
        """
        if not self._undo:
            raise ConfigError("there is nothing to undo in this tab")
        one = self._undo[-1]
        if one not in self.file.comparisons:
            raise ConfigError(f"{self.file.path.name} does not hold the last comparison of this tab any more")
        self.file.remove(one)
        self._undo.pop()
        self.pair = self.file.places[one.a], self.file.places[one.b]

    def reload(self) -> None:
        """Reads the table again; a DataError if it cannot be used."""
        self.file.reload()
        self.go_on()

    def compares_as(self, annotator: str) -> None:
        """Says who compares from now on; what another one did cannot be undone."""
        self.annotator, self._undo = annotator, []
        self.go_on()

    def pace(self) -> float | None:
        """Returns the comparisons per minute over the last twenty; None before the second."""
        return per_minute(self._times)

    @property
    def apart(self) -> int:
        """How many groups of images that were compared no comparison connects."""
        pairs = self._pairs
        return len(np.unique(bradley_terry.groups(len(self.file.pictures), pairs)[pairs]))

    def scores_into(self, annotations: Path) -> Ranking:
        """Makes scores of all comparisons in this attribute, and writes them into a table of annotations.

        Raises:
            DataError: If there are no scores, or the table cannot be used.
            ConfigError: If the table has values of the attribute that comparisons did not make.
        """
        found = ranking(self.file.comparisons, self.attribute)
        write_rankings([found], annotations, self.file.pictures, self.file.folders[1:])
        return found


def write_rankings(
    rankings: Sequence[Ranking],
    table: Path,
    pictures: Sequence[Path],
    folders: Sequence[Path] = (),
    replace: bool = False,
) -> None:
    """Writes the scores of rankings into a table of annotations, all or none.

    Errors are those of :class:`AnnotationFile` and :meth:`ohlora.studio.annotations.AnnotationFile.write_scores`.

    Args:
        rankings: The rankings, each of another attribute.
        table: The table; it need not exist yet.
        pictures: The images that the table may name; those of the rankings are among them.
        folders: A folder of images to which the table's paths may be relative, too; at most one.
        replace: See :meth:`ohlora.studio.annotations.AnnotationFile.write_scores`.
    """
    file = AnnotationFile(table, pictures, [found.attribute for found in rankings], folders[0] if folders else None)
    places = {picture.resolve(): k for k, picture in enumerate(pictures)}
    scores: dict[str, dict[int, float]] = {}
    counts: dict[str, dict[int, int]] = {}
    for found in rankings:
        own = [places[path] for path in found.paths]
        scores[found.attribute] = dict(zip(own, found.scores.tolist(), strict=True))
        counts[found.attribute] = dict(zip(own, found.counts.tolist(), strict=True))
    file.write_scores(scores, counts, replace)

"""Labelling images 0 or 1: the file that keeps the answers, and one browser tab's way through the images."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ohlora.datamodules.images import number_column
from ohlora.errors import ConfigError, DataError
from ohlora.utils import images
from ohlora.utils.files import content_stamp, read_rows, rewriting, write_rows

Order = Literal["file", "uncertain", "disputed"]
Answer = dict[str, int]
"""Attribute → 0 or 1."""


class AnnotationFile:
    """The label table of the filters: a row per labelled image, written whole after every answer.

    A new table has the columns ``idx``, ``path`` (relative to the table) and one per attribute; one that exists keeps
    the columns it has, so that tables of the original (``idx,gender,quality,age,glass``) can be gone on with.

    Args:
        path: The CSV; it need not exist yet.
        pictures: The images, in the order in which they are offered.
        attributes: What is labelled.

    Raises:
        DataError: If the table labels something else, or images that are not there.
    """

    def __init__(self, path: Path, pictures: Sequence[Path], attributes: Sequence[str]) -> None:
        self.path, self.pictures, self.attributes = path, list(pictures), tuple(attributes)
        self._place = {picture.resolve(): k for k, picture in enumerate(self.pictures)}
        self._by_number = {picture.stem.lstrip("0") or "0": k for k, picture in enumerate(self.pictures)}
        self.columns = ["idx", "path", *self.attributes]
        self.answers: dict[int, Answer] = {}
        self._others: dict[int, dict[str, str]] = {}  # what a row of the table says besides
        self.reload()

    def reload(self) -> None:
        """Takes what the file says now; a file that cannot be taken changes nothing here, and is not written over.

        Raises:
            DataError: Naming the row that cannot be used.
        """
        seen = content_stamp(self.path)
        answers: dict[int, Answer] = {}
        others: dict[int, dict[str, str]] = {}
        rows = read_rows(self.path) if seen is not None else []
        header = list(rows[0]) if rows else self.columns
        missing = [name for name in self.attributes if name not in header]
        number = number_column(header)
        if missing or ("path" not in header and number is None):
            raise DataError(
                f"{self.path}: the header has {', '.join(header)}; expected {', '.join(self.attributes)} and a column "
                "that names the image (path or idx)"
            )
        for k, row in enumerate(rows):
            name = row["path"] if "path" in header else row[str(number)]
            place = (
                self._place.get((self.path.parent / name).resolve())
                if "path" in header
                else self._by_number.get(name.lstrip("0") or "0")
            )
            if place is None:
                raise DataError(f"{self.path}, row {k + 2}: there is no image {name} among those shown")
            if place in answers:
                raise DataError(f"{self.path}, row {k + 2}: image {name} is labelled twice")
            if any(row[a] not in ("0", "1") for a in self.attributes):
                raise DataError(f"{self.path}, row {k + 2}: expected 0 or 1 for {', '.join(self.attributes)}")
            answers[place] = {a: int(row[a]) for a in self.attributes}
            others[place] = row
        self.seen, self.columns, self.answers, self._others = seen, header, answers, others

    def write(self, place: int, answer: Answer | None) -> None:
        """Sets or removes the answer for an image, and writes the table.

        Raises:
            ConfigError: If somebody else has written the table since it was read; nothing is written then.
        """
        with rewriting(self.path, self.seen):
            answers = dict(self.answers)
            if answer is None:
                answers.pop(place, None)
            else:
                answers[place] = dict(answer)
            rows = [self._row(k, answers[k]) for k in sorted(answers)]
            if rows:
                write_rows(self.path, rows)
            else:
                self.path.unlink(missing_ok=True)
            self.answers, self.seen = answers, content_stamp(self.path)

    def _row(self, place: int, answer: Answer) -> dict[str, str]:
        picture = self.pictures[place]
        known = {"path": Path(os.path.relpath(picture.resolve(), self.path.parent.resolve())).as_posix()}
        number = number_column(self.columns)
        if number is not None:
            known[number] = picture.stem.lstrip("0") or "0"
        said = {**known, **self._others.get(place, {}), **{name: str(value) for name, value in answer.items()}}
        return {column: said.get(column, "") for column in self.columns}


@dataclass
class LabelSession:
    """One browser tab: where it is, what is shown, and how it got there.

    Attributes:
        file: The table and its images.
        defaults: What is assumed of an image that was not labelled yet.
        scores: N×K probabilities by ensembles, NaN where there is none; for the orders but ``file``.
        order: Places of images in the order they are offered.
        at: Where in that order the tab is.
    """

    file: AnnotationFile
    defaults: Answer
    scores: np.ndarray | None = None
    order: list[int] = field(default_factory=list)
    at: int = 0
    kind: Order = "file"
    _undo: list[tuple[int, Answer | None]] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = list(range(len(self.file.pictures)))
        if self.file.answers:
            self.jump()

    @property
    def place(self) -> int:
        """The image that is shown."""
        return self.order[self.at]

    @property
    def answer(self) -> Answer:
        """What is said of it, or assumed."""
        return self.file.answers.get(self.place, self.defaults)

    def picture(self, size: int = 512) -> np.ndarray:
        """It, large: H×W×3 uint8."""
        return images.enlarge(np.asarray(images.decode(self.file.pictures[self.place]).convert("RGB")), size)

    def toggle(self, attribute: str) -> None:
        """Turns one answer round, and saves."""
        self._save({**self.answer, attribute: 1 - self.answer[attribute]})

    def confirm(self) -> None:
        """Saves what is shown, and goes on."""
        self._save(self.answer)
        self.step(1)

    def step(self, by: int) -> None:
        """Goes to another image without saving."""
        self.at = int(np.clip(self.at + by, 0, len(self.order) - 1))

    def jump(self) -> None:
        """Goes to the next image that is not labelled, from the start again after the last."""
        ahead = [*range(self.at, len(self.order)), *range(self.at)]
        self.at = next((k for k in ahead if self.order[k] not in self.file.answers), self.at)

    def undo(self) -> None:
        """Takes back the last answer of this tab, and shows its image."""
        if not self._undo:
            raise ConfigError("there is nothing to undo in this tab")
        place, before = self._undo[-1]
        self.file.write(place, before)
        self._undo.pop()
        if place in self.order:
            self.at = self.order.index(place)

    def arrange(self, kind: Order) -> None:
        """Changes the order in which images are offered.

        Args:
            kind: ``file``; ``uncertain``: those not labelled of which the ensembles are least sure, first; or
                ``disputed``: those whose label the ensembles contradict, the most decided contradiction first.

        Raises:
            ConfigError: If there are no scores, or no such image.
        """
        if kind == "file":
            order = list(range(len(self.file.pictures)))
        elif self.scores is None:
            raise ConfigError("there are no filter ensembles yet; train them on a few hundred labels first")
        elif kind == "uncertain":
            distance = np.nanmin(np.abs(self.scores - 0.5), axis=1)
            order = [int(k) for k in np.argsort(distance, kind="stable") if int(k) not in self.file.answers]
        else:
            contradiction = {
                k: float(np.nanmax(np.abs(self.scores[k] - [answer[a] for a in self.file.attributes])))
                for k, answer in self.file.answers.items()
            }
            order = sorted((k for k, d in contradiction.items() if d > 0.5), key=lambda k: -contradiction[k])
        if not order:
            raise ConfigError(
                "every image is labelled" if kind == "uncertain" else "the ensembles contradict none of the labels"
            )
        self.kind, self.order, self.at = kind, order, 0
        if kind == "file":
            self.jump()

    def said(self) -> Mapping[str, float]:
        """What the ensembles say of the image that is shown: attribute → probability, where there is one."""
        if self.scores is None:
            return {}
        row = zip(self.file.attributes, self.scores[self.place].tolist(), strict=True)
        return {name: value for name, value in row if not np.isnan(value)}

    def pace(self) -> float | None:
        """Answers per minute over the last twenty; None before the second."""
        recent = self._times[-20:]
        return 60 * (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else None

    def _save(self, answer: Answer) -> None:
        images.decode(self.file.pictures[self.place])  # what nobody can see gets no answer
        before = self.file.answers.get(self.place)
        self.file.write(self.place, answer)
        self._undo.append((self.place, before))
        if before is None:
            self._times.append(time.monotonic())

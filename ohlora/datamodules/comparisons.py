"""Tables of comparisons: of two images, which has more of an attribute; and the scores that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np

from ohlora.attributes import vocabulary
from ohlora.datamodules.images import check_columns
from ohlora.datamodules.scores import ANNOTATOR
from ohlora.errors import DataError
from ohlora.evaluation import bradley_terry
from ohlora.evaluation.bradley_terry import PRIOR, Reproduced
from ohlora.utils.files import Row, is_readable_file, located, read_rows, shortened

Answer = Literal["a", "b", "equal"]
"""Which image has more of the attribute; ``equal`` also where that cannot be told."""
OUTCOMES: Mapping[Answer, float] = {"a": 1.0, "b": 0.0, "equal": 0.5}
"""Answer → outcome for :mod:`ohlora.evaluation.bradley_terry`."""
COLUMNS = ("path_a", "path_b", "attribute", "answer")
"""The columns of a table of comparisons; ``annotator`` may be another."""


class Comparison(NamedTuple):
    """A row of a table of comparisons.

    Attributes:
        a: The left image, resolved.
        b: The right one, another.
        attribute: A score of the world.
        answer: Which has more of it.
        annotator: Who compared; '' where the table does not say.
    """

    a: Path
    b: Path
    attribute: str
    answer: Answer
    annotator: str = ""


class Agreement(NamedTuple):
    """How two annotators agree about the pairs that both compared.

    Attributes:
        people: Their names.
        share: The share of the pairs that they answered alike; of one who compared a pair again, the last answer.
        pairs: How many pairs both compared.
    """

    people: tuple[str, str]
    share: float
    pairs: int


@dataclass(frozen=True)
class Ranking:
    """Scores of images by their comparisons in one attribute.

    Attributes:
        attribute: The attribute.
        paths: The M images of the largest connected group.
        scores: Their scores, M, as z-scores: mean 0 and standard deviation 1 over these images.
        errors: The standard errors of the scores, M.
        counts: In how many comparisons each was, M int.
        spread: The standard deviation of the strengths, in the logarithm of odds: one z-score.
        apart: How many images the other groups have, the largest first.
        reproduced: How many comparisons the scores reproduce.
        agreements: How annotators agree, of each two with pairs in common.
    """

    attribute: str
    paths: list[Path]
    scores: np.ndarray
    errors: np.ndarray
    counts: np.ndarray
    spread: float
    apart: list[int]
    reproduced: Reproduced
    agreements: list[Agreement]

    @property
    def lines(self) -> list[str]:
        """What is to be known of it, in words."""
        comparisons, share = int(self.counts.sum()) // 2, self.reproduced.share
        said = [f"{self.attribute}: {len(self.paths)} images by {comparisons} comparisons, {self._each} each"]
        if self.reproduced.decided and self.reproduced.held_out:
            said.append(f"{share:.0%} of {self.reproduced.decided} held-out comparisons with a winner are reproduced")
        elif self.reproduced.decided:
            said.append(
                f"{share:.0%} of the {self.reproduced.decided} comparisons with a winner are reproduced; from "
                f"{bradley_terry.ENOUGH} on, this is told of comparisons that are held out"
            )
        said.append(f"a score is known to ±{np.median(self.errors):.2f} standard deviations (standard error, median)")
        for found in self.agreements:
            one, other = (name or "who gave no name" for name in found.people)
            said.append(f"{one} and {other} answered {found.share:.0%} of {found.pairs} pairs alike")
        if self.apart:
            sizes = ", ".join(map(str, self.apart[:10])) + (", …" if len(self.apart) > 10 else "")
            said.append(
                f"⚠️ {sum(self.apart)} more images, in groups of {sizes}, are not connected with these by any "
                "comparison: their scores would have another zero, so they get none. Compare one of each group with "
                "one of these"
            )
        return said

    @property
    def _each(self) -> str:
        low, high = int(self.counts.min()), int(self.counts.max())
        return f"{low}" if low == high else f"{low} to {high}"


def read_comparisons(path: Path, folder: Path | None = None) -> list[Comparison]:
    """Reads a table of comparisons.

    Args:
        path: The table, with the columns ``path_a`` and ``path_b`` (relative to the table, or to ``folder``),
            ``attribute`` and ``answer`` (``a``, ``b`` or ``equal``), and perhaps ``annotator``.
        folder: Another folder to which paths may be relative: that of the images.

    Raises:
        DataError: If there is no such table, a row cannot be used, or an image is not there; names the row.
        ConfigError: If the world in use does not declare an attribute.
    """
    rows = read_rows(path)
    if rows:
        check_columns(path, rows, COLUMNS)
    folders = [path.parent, *([] if folder is None else [folder])]
    found = [comparison(path, row, folders) for row in rows]
    there = {image: is_readable_file(image) for one in found for image in (one.a, one.b)}
    absent = [
        f"{row}: there is no image {row[column]}"
        for row, one in zip(rows, found, strict=True)
        for column, image in (("path_a", one.a), ("path_b", one.b))
        if not there[image]
    ]
    if absent:
        looked = " and ".join(map(str, folders))
        raise DataError(f"{path}, {shortened(absent)}; looked in {looked}: name the folder of the images with --images")
    return found


def comparison(source: Path, row: Row, folders: Sequence[Path]) -> Comparison:
    """What a row of a table says; errors as for :func:`read_comparisons`."""
    if row["answer"] not in get_args(Answer):
        raise DataError(f"{source}, {row}: answer is {row['answer']!r}; expected {', '.join(get_args(Answer))}")
    for column in ("path_a", "path_b"):
        if not row[column]:
            raise DataError(f"{source}, {row}: {column} is empty; expected an image")
    a, b = (located(row[column], folders).resolve() for column in ("path_a", "path_b"))
    if a == b:
        raise DataError(f"{source}, {row}: {row['path_a']} is compared with itself; expected two images")
    comparable(row["attribute"], f"{source}, {row}: ")
    return Comparison(a, b, row["attribute"], cast(Answer, row["answer"]), row.get(ANNOTATOR, ""))


def comparable(name: str, where: str = "") -> None:
    """Insists on a score of the world in use: what has answers or levels of its own is no matter of comparison.

    Raises:
        ConfigError: If no attribute has this name.
        DataError: If it is no score.
    """
    of = vocabulary()[name]
    if of.kind != "score":
        known = ", ".join(other.name for other in vocabulary() if other.kind == "score")
        raise DataError(f"{where}{name} is a {of.kind} attribute; expected a score to compare by: {known or 'none'}")


def ranking(comparisons: Iterable[Comparison], attribute: str, prior: float = PRIOR) -> Ranking:
    """Scores the images that were compared in an attribute; those of all annotators are pooled.

    Args:
        comparisons: Comparisons, also in other attributes.
        attribute: The attribute.
        prior: Standard deviation of the strengths' prior, see :func:`ohlora.evaluation.bradley_terry.strengths`.

    Raises:
        DataError: If nothing was compared in the attribute, or all comparisons were ties.
    """
    own = [one for one in comparisons if one.attribute == attribute]
    if not own:
        raise DataError(f"nothing was compared in {attribute} yet; expected comparisons to make scores from")
    paths = sorted({path for one in own for path in (one.a, one.b)})
    places = {path: k for k, path in enumerate(paths)}
    pairs = np.array([(places[one.a], places[one.b]) for one in own])
    outcomes = np.array([OUTCOMES[one.answer] for one in own])
    group = bradley_terry.groups(len(paths), pairs)
    sizes = np.bincount(group)
    largest = int(sizes.argmax())
    inside = group[pairs[:, 0]] == largest
    kept = np.flatnonzero(group == largest)
    new = np.full(len(paths), -1)
    new[kept] = np.arange(len(kept))
    pairs, outcomes = new[pairs[inside]], outcomes[inside]
    found = bradley_terry.strengths(len(kept), pairs, outcomes, prior)
    spread = float(found.std())
    if spread < 1e-6:
        raise DataError(
            f"the {len(outcomes)} comparisons in {attribute} have no winner, or cancel each other: all {len(kept)} "
            "images are equal; compare more of them"
        )
    return Ranking(
        attribute,
        [paths[k] for k in kept],
        found / spread,
        bradley_terry.standard_errors(found, pairs, prior) / spread,
        np.bincount(pairs.ravel(), minlength=len(kept)),
        spread,
        sorted(map(int, np.delete(sizes, largest)), reverse=True),
        bradley_terry.reproduced(len(kept), pairs, outcomes, prior),
        _agreements(own),
    )


def _agreements(comparisons: Iterable[Comparison]) -> list[Agreement]:
    answers: dict[str, dict[tuple[Path, Path], float]] = {}
    for one in comparisons:
        turned = one.b < one.a
        pair = (one.b, one.a) if turned else (one.a, one.b)
        outcome = OUTCOMES[one.answer]
        answers.setdefault(one.annotator, {})[pair] = 1 - outcome if turned else outcome
    found = []
    for people in combinations(sorted(answers), 2):
        first, second = (answers[name] for name in people)
        if both := first.keys() & second.keys():
            share = sum(first[pair] == second[pair] for pair in both) / len(both)
            found.append(Agreement(people, share, len(both)))
    return found

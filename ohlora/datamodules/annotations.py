"""Images annotated with 0 or 1 by hand, divided into folds."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from ohlora.attributes import vocabulary
from ohlora.datamodules.epochs import EpochImages
from ohlora.datamodules.images import (
    ImageFileDataset,
    attribute_column,
    image_numbers,
    is_missing,
    number_column,
    paths_of,
    refuse_turning,
)
from ohlora.errors import ConfigError, DataError
from ohlora.pipeline import require
from ohlora.utils import images
from ohlora.utils.files import is_readable_file, located, read_rows, shortened

TRAIN, INNER, OUTER = 0, 1, 2
"""What a sample is to a member of an ensemble: learned from, stopped on, reported on."""


def fold_roles(answers: np.ndarray, folds: int, inner_share: float, seed: int) -> np.ndarray:
    """Divides samples among the members of an ensemble, keeping the share of positives everywhere.

    Args:
        answers: N annotations of 0 or 1.
        folds: Number K of members, at least 2.
        inner_share: Share of a member's own samples to stop on, between 0 and 1.
        seed: Seed of the division.

    Returns:
        Roles, N×K int8. Every sample is ``OUTER`` for exactly one member; the others are its own.

    Raises:
        ConfigError: If there are too few samples of a class to divide.
    """
    counts = Counter(answers.astype(int).tolist())
    fewest = min(counts.get(0, 0), counts.get(1, 0))
    if folds < 2 or not 0 < inner_share < 1 or fewest < 2 * folds:
        raise ConfigError(
            f"{counts.get(0, 0)} samples are labelled 0 and {counts.get(1, 0)} are labelled 1, folds is {folds} and "
            f"inner_share {inner_share}; expected at least {2 * max(folds, 2)} of each, 2 or more folds, and a "
            "share between 0 and 1"
        )
    roles = np.full((len(answers), folds), TRAIN, dtype=np.int8)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for k, (rest, outer) in enumerate(splitter.split(np.zeros(len(answers)), answers)):
        inner_splitter = StratifiedShuffleSplit(1, test_size=inner_share, random_state=seed + k)
        _, inner = next(inner_splitter.split(rest, answers[rest]))
        roles[outer, k] = OUTER
        roles[rest[inner], k] = INNER
    return roles


class AnnotatedImages(EpochImages):
    """Images annotated with 0 or 1; samples also tell their ``roles`` (K, see :func:`fold_roles`) in an ensemble.

    The annotations are a table (:func:`ohlora.utils.files.read_rows`). Ours has a column ``path``, relative to the
    table or to ``folder``. The original's numbers its images (``idx``, ``img_no`` or ``img_name``), which are found in
    ``folder`` by the number in their file names. Rows without a value (:data:`ohlora.datamodules.images.MISSING`) are
    left out, such as those of images that only have a score.

    Args:
        resolution: Height and width that every image must have, in pixels.
        annotations: The table.
        attribute: Which attribute to learn; its column may also be called ``<attribute>_score``.
        folder: Where the images are.
        folds: Members of the ensemble.
        inner_share: Share of a member's training samples that it stops on.
        **settings: See :class:`ohlora.datamodules.images.ImageFiles`.
    """

    def __init__(
        self,
        resolution: int,
        annotations: str,
        attribute: str,
        folder: str | None = None,
        folds: int = 5,
        inner_share: float = 0.125,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, **settings)
        if vocabulary()[attribute].kind != "binary":
            raise ConfigError(f"{attribute} is no attribute of 0 and 1; scores and ordinals are learned by regression")
        if self.flip:
            refuse_turning([attribute])
        self.annotations_path, self.attribute, self.folder = Path(annotations), attribute, folder
        self.folds, self.inner_share = folds, inner_share

    def setup(self, stage: str) -> None:
        """Reads and checks annotations and images, and divides them.

        Raises:
            MissingArtifactError: If annotations or folder are not there.
            DataError: Naming every row that cannot be used.
        """
        self.train_set = self.load(self._listed())
        answers = self.train_set.arrays["label"][:, 0]
        self.train_set.arrays["roles"] = fold_roles(answers, self.folds, self.inner_share, self.seed)
        self.val_set = self.train_set  # each member takes from it what it stops on and what it is reported on

    def _listed(self) -> ImageFileDataset:
        source = self.annotations_path
        require(source)
        rows = read_rows(source)
        if not rows:
            raise DataError(f"{source} has no rows; expected one per labelled image below the header")
        header = list(rows[0])
        value, number = attribute_column(source, header, self.attribute), number_column(source, header)
        if value is None or ("path" not in header and number is None):
            raise DataError(
                f"{source}: the header has {shortened(header, ', ')}; expected a column {self.attribute} "
                "and one that names the image (path, index, idx, img_no or img_name)"
            )
        if "path" not in header and self.folder is None:
            raise DataError(f"{source} numbers its images; name the folder they are in with 'folder'")
        image_numbers(source, rows, once="path" in header)
        unlabelled = [row for row in rows if is_missing(row[value])]
        rows = [row for row in rows if not is_missing(row[value])]
        numbers = image_numbers(source, rows, once=False) or list(range(len(rows)))
        left_out: dict[Path, str] = {}
        if "path" in header:
            paths: list[Path | None] = [*paths_of(source, rows, folder=self.folder)]
            folders = [source.parent, *([] if self.folder is None else [Path(self.folder)])]
            others: list[Path | None] = [located(row["path"], folders) for row in unlabelled]
        else:
            require(str(self.folder), folder=True)
            found, left_out = images.images_in(str(self.folder))
            numbered = images.by_number(found)
            paths = [numbered.get(str(n)) for n in numbers]
            others = [numbered.get(str(n)) for n in image_numbers(source, unlabelled, once=False) or ()]
            left_out |= dict.fromkeys(sorted({*found} - {*paths, *others}), f"no row in {source.name}")
        bad: list[str] = []
        seen: set[Path] = set()
        for row, path in zip(rows, paths, strict=True):
            if path is None or not is_readable_file(path):
                bad.append(f"{row}: there is no image {row['path' if 'path' in header else str(number)]}")
            elif path in seen:
                bad.append(f"{row}: image {row[str(number)]} is labelled twice")
            elif row[value] not in ("0", "1"):
                bad.append(f"{row}: {value} is {row[value]!r}, expected 0 or 1")
            else:
                seen.add(path)
        taken = {os.path.normpath(path) for path in seen}
        for row, path in zip(unlabelled, others, strict=True):
            if path is None or not is_readable_file(path):
                bad.append(f"{row}: there is no image {row['path' if 'path' in header else str(number)]}")
            elif os.path.normpath(path) not in taken:  # another annotator may have labelled it
                left_out[path] = f"no value of {self.attribute}"
        if bad:
            raise DataError(f"{source}: {shortened(bad)}")
        answers = np.array([float(row[value]) for row in rows], np.float32)[:, None]
        return self.files(source, [path for path in paths if path], numbers, left_out, label=answers)

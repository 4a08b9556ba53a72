"""What there is: images of a folder, a table about them, and how the two fit together; nothing is changed."""

from __future__ import annotations

import hashlib
import keyword
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from ohlora.attributes import RESERVED, Kind
from ohlora.datamodules.images import DECIMAL_COMMA, NUMBERS, is_missing, numbers_in
from ohlora.datamodules.scores import ANNOTATOR, COMPARISONS
from ohlora.errors import DataError
from ohlora.utils import counted, images
from ohlora.utils.files import Row, located, read_rows, shortened
from ohlora.utils.progress import tracked

THUMBNAIL = 32
"""Height and width at which images are compared."""
NEAR = 2.5
"""Images whose thumbnails differ by less than so many grey levels (root mean square) are near-duplicates."""
COMPARED = 20_000
"""Images among which near-duplicates are searched, at most; of more, a random choice."""
MOST_LEVELS = 9
"""Highest level of a column of whole numbers that is taken for an ordinal."""
MODES = {"1": "of black and white", "L": "of grey levels", "P": "with a palette"}
"""Names of modes whose letters say nothing."""
YES_NO = {"true": "1", "yes": "1", "false": "0", "no": "0"}
"""Words for 1 and 0, in small letters."""


@dataclass(frozen=True)
class Picture:
    """An image file that can be used.

    Attributes:
        path: The file.
        size: Width and height, upright.
        mode: PIL's mode.
        transparent: Whether it is not opaque somewhere.
        content: A digest of its pixels.
        thumbnail: The image, small, on white: H×W×3 uint8.
    """

    path: Path
    size: tuple[int, int]
    mode: str
    transparent: bool
    content: str
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Column:
    """A column of the table that can be an attribute.

    Attributes:
        column: What the table calls it.
        name: The attribute's name: the column's in small letters, digits and _.
        kind: What its values look like.
        values: Those that are there, (N,) float64.
        missing: Rows without a value.
    """

    column: str
    name: str
    kind: Kind
    values: np.ndarray
    missing: int

    @property
    def levels(self) -> int:
        """Highest level of an ordinal."""
        return int(self.values.max())


@dataclass(frozen=True)
class Table:
    """A table about images.

    Attributes:
        path: The file.
        rows: Its rows that belong to an image, with that image.
        columns: What can be attributes.
        ignored: Other columns → why they are none.
        counts: Those of them that say how often an image was compared; they can be weights.
        rows_without_image: Rows whose image is not there, as messages name them.
        named_by: The column that names the images.
    """

    path: Path
    rows: list[tuple[Row, Path]]
    columns: list[Column]
    ignored: Mapping[str, str]
    counts: list[Column]
    rows_without_image: list[str]
    named_by: str

    @property
    def annotators(self) -> int:
        """Number of people who labelled; 0 where the table does not say."""
        return len({row[ANNOTATOR] for row, _ in self.rows if ANNOTATOR in row})


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        folder: The folder of the images.
        pictures: Images that can be used, in the order of their names.
        broken: Images that cannot → why.
        left_out: Other files → why they are no images.
        duplicates: Groups of images with the same pixels, as places in ``pictures``.
        near: Pairs of others that look alike, likewise, the likest first.
        compared: Images among which near-duplicates were searched.
        table: The table, if there is one.
    """

    folder: Path
    pictures: list[Picture]
    broken: Mapping[Path, str]
    left_out: Mapping[Path, str]
    duplicates: list[list[int]]
    near: list[tuple[int, int]]
    compared: int
    table: Table | None = field(default=None)

    @property
    def shorter(self) -> int:
        """Median of the images' shorter sides."""
        return int(np.median([min(picture.size) for picture in self.pictures]))

    @property
    def transparent(self) -> list[Path]:
        """Images that are not opaque somewhere."""
        return [picture.path for picture in self.pictures if picture.transparent]

    @property
    def oblong(self) -> list[Path]:
        """Images that are not square."""
        return [picture.path for picture in self.pictures if picture.size[0] != picture.size[1]]

    @property
    def without_row(self) -> list[Path]:
        """Images that the table does not name."""
        named = {path for _, path in self.table.rows} if self.table is not None else set()
        return [picture.path for picture in self.pictures if picture.path not in named]

    def lines(self) -> list[str]:
        """What was found, in lines for a terminal."""
        modes = Counter(picture.mode for picture in self.pictures)
        sizes = Counter(picture.size for picture in self.pictures)
        shown = [f"{count:,} of {w}×{h}" for (w, h), count in sizes.most_common(3)]
        more = f", and {len(sizes) - 3:,} other sizes" if len(sizes) > 3 else ""
        found = [
            f"{len(self.pictures):,} images in {self.folder}: {', '.join(shown)}{more}; "
            + ", ".join(f"{count:,} {MODES.get(mode, mode)}" for mode, count in modes.most_common())
        ]
        for what, some in (
            ("transparent in places", self.transparent),
            ("not square", self.oblong),
            ("broken, left out", list(self.broken.values())),
            ("other files, left out", [f"{path.name} ({why})" for path, why in self.left_out.items()]),
        ):
            if some:
                names = [each if isinstance(each, str) else self._name(each) for each in some]
                found.append(f"{len(some):,} {what}: {shortened([n.replace(f'{self.folder}/', '') for n in names])}")
        if self.duplicates:
            groups = [" = ".join(self._name(self.pictures[k].path) for k in group) for group in self.duplicates]
            count = sum(len(group) - 1 for group in self.duplicates)
            found.append(f"{count:,} images repeat another pixel by pixel: {shortened(groups)}")
        if self.near:
            pairs = [f"{self._name(self.pictures[a].path)} ~ {self._name(self.pictures[b].path)}" for a, b in self.near]
            found.append(f"{len(pairs):,} pairs look alike: {shortened(pairs)}")
        if self.compared < len(self.pictures):
            found.append(f"(look-alikes were searched among {self.compared:,} images)")
        return found + (self._lines_of(self.table) if self.table is not None else [])

    def _lines_of(self, table: Table) -> list[str]:
        found = [f"{table.path}: {len(table.rows):,} rows belong to an image, named by the column {table.named_by}"]
        if table.annotators:
            found.append(f"{table.annotators} people labelled them; the values of an image are averaged")
        if table.rows_without_image:
            found.append(f"{len(table.rows_without_image):,} rows without image: {shortened(table.rows_without_image)}")
        if without := self.without_row:
            found.append(f"{len(without):,} images without row: {shortened(map(self._name, without))}")
        for column in table.columns:
            called = "" if column.name == column.column else f" (column {column.column!r})"
            low, high = column.values.min(), column.values.max()
            missing = f", missing in {column.missing:,} rows" if column.missing else ""
            found.append(f"  {column.name}{called}: {column.kind}, {low:g} … {high:g}{missing}")
        return found + [f"  {name}: left out, {why}" for name, why in table.ignored.items()]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def survey(folder: Path, labels: Path | None = None) -> Survey:
    """Looks at a folder of images, and at a table about them.

    Raises:
        DataError: If no image can be used, or the table names none of them.
    """
    found, left_out = images.images_in(folder)
    pictures: list[Picture] = []
    broken: dict[Path, str] = {}
    for path in tracked(found, "looking at the images"):
        try:
            pictures.append(_picture(path))
        except DataError as error:
            broken[path] = str(error)
    if not pictures:
        reasons = shortened(broken.values()) or images.left_out_as(left_out, folder) or "it is empty"
        raise DataError(f"{folder} holds no images that can be used: {reasons}")
    groups: dict[str, list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        groups[picture.content].append(place)
    duplicates = [places for places in groups.values() if len(places) > 1]
    first = sorted(places[0] for places in groups.values())
    order = counted.permutation(0, "survey", 0, len(first))[:COMPARED]
    compared = [first[k] for k in sorted(order.tolist())]
    near = _near(pictures, compared)
    table = _table(labels, folder, [picture.path for picture in pictures]) if labels is not None else None
    return Survey(folder, pictures, broken, left_out, duplicates, near, len(compared), table)


def _picture(path: Path) -> Picture:
    image = images.decode(path)
    veiled = images.transparent(image)
    try:
        plain = images.as_rgb(image, "white")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # Of what is transparent, the opacity counts, too.
    pixels = image.convert("RGBA").tobytes() if veiled else plain.tobytes()
    content = hashlib.sha256(f"{image.size}".encode() + pixels).hexdigest()
    small = plain.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=3.0)
    return Picture(path, image.size, image.mode, veiled, content, np.asarray(small))


def _near(pictures: Sequence[Picture], chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of images that look alike, by their thumbnails: each with the nearest other, the likest first."""
    if len(chosen) < 2:
        return []
    thumbnails = np.stack([pictures[k].thumbnail for k in chosen]).astype(np.float32).reshape(len(chosen), -1)
    # Distances between averages over 4×4 pixels are at most those between thumbnails, and a sixteenth of the work.
    coarse = thumbnails.reshape(-1, THUMBNAIL // 4, 4, THUMBNAIL // 4, 4, 3).mean(axis=(2, 4)).reshape(len(chosen), -1)
    nearest = NearestNeighbors(n_neighbors=2).fit(coarse).kneighbors(coarse, return_distance=False)
    pairs = {tuple(sorted(map(int, pair))) for pair in nearest}
    distances = {
        (a, b): float(np.sqrt(np.square(thumbnails[a] - thumbnails[b]).mean())) for a, b in sorted(pairs) if a != b
    }
    alike = sorted((distance, pair) for pair, distance in distances.items() if distance < NEAR)
    return [(chosen[a], chosen[b]) for _, (a, b) in alike]


# --- the table


def _table(path: Path, folder: Path, pictures: Sequence[Path]) -> Table:
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path} has no rows; expected one per image")
    named_by, places = _naming_column(path, rows, folder, pictures)
    joined = [(row, place) for row, place in zip(rows, places, strict=True) if place is not None]
    absent = [f"{row} ({row[named_by]})" for row, place in zip(rows, places, strict=True) if place is None]
    columns: list[Column] = []
    ignored: dict[str, str] = {}
    counts: list[Column] = []
    taken: dict[str, str] = {}
    called = {attribute_name(header) for header in rows[0]}
    for header in rows[0]:
        if header in (named_by, ANNOTATOR, *NUMBERS):
            continue
        found = _column(path, [row for row, _ in joined], header)
        if isinstance(found, str):
            ignored[header] = found
        elif header.endswith(COMPARISONS) and attribute_name(header.removesuffix(COMPARISONS)) in called:
            ignored[header] = "it says how often an image was compared"
            counts.append(found)
        elif found.name in taken:
            ignored[header] = f"{taken[found.name]!r} has the same name, {found.name}; rename one"
        else:
            taken[found.name] = header
            columns.append(found)
    return Table(path, joined, columns, ignored, counts, absent, named_by)


def _naming_column(
    path: Path, rows: Sequence[Row], folder: Path, pictures: Sequence[Path]
) -> tuple[str, list[Path | None]]:
    """The column by which most rows find their image, and the images, None where there is none."""
    there = {picture.resolve(): picture for picture in pictures}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_stem[picture.stem].append(picture)

    def image(name: str) -> Path | None:
        found = there.get(located(name, [path.parent, folder]).resolve()) if name.strip() and "\0" not in name else None
        alone = by_stem.get(name, [])  # a name without suffix
        return found or (alone[0] if len(alone) == 1 else None)

    best: tuple[str, list[Path | None]] = "", []
    for header in ("path", *(name for name in rows[0] if name != "path")):
        if header not in rows[0]:
            continue
        found = [image(row[header]) for row in rows]
        if sum(place is not None for place in found) > sum(place is not None for place in best[1]):
            best = header, found
        if header == "path" and best[0]:
            break
    if not best[0]:
        raise DataError(
            f"{path}: no column names images of {folder}; the header has {shortened(rows[0], ', ')}. Expected a column "
            f"path with names such as {pictures[0].relative_to(folder).as_posix()}"
        )
    return best


def _column(path: Path, rows: Sequence[Row], header: str) -> Column | str:
    """A column as an attribute; or why it is none."""
    name = attribute_name(header)
    texts = [YES_NO.get(row[header].strip().lower(), row[header]) for row in rows]
    given = [text for text in texts if not is_missing(text)]
    if not given:
        return "it is empty"
    texts_only = [text for text in given if not _is_number(text)]
    if texts_only and not any(map(DECIMAL_COMMA.fullmatch, texts_only)):  # those are refused below
        return f"it holds text, such as {shortened([texts_only[0]])!r}"
    numbered = [_replaced(row, header, text) for row, text in zip(rows, texts, strict=True)]
    values = numbers_in(path, numbered, [header], np.float64, missing=True)[:, 0]
    known = values[np.isfinite(values)]
    if known.min() == known.max():
        return f"it is {known[0]:g} in every row"
    return Column(header, name, _kind(known), known, len(values) - len(known))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _replaced(row: Row, header: str, text: str) -> Row:
    found = Row(row | {header: text})
    found.line = row.line
    return found


def _kind(values: np.ndarray) -> Kind:
    if set(np.unique(values).tolist()) <= {0.0, 1.0}:
        return "binary"
    whole = bool((values == np.round(values)).all()) and values.min() >= 0 and values.max() <= MOST_LEVELS
    return "ordinal" if whole else "score"


def attribute_name(column: str) -> str:
    """A name of an attribute for a column: ``Long hair (cm)`` becomes ``long_hair_cm``."""
    name = re.sub(r"\W+", "_", column.strip().lower()).strip("_").removesuffix("_score") or "column"
    taken = not name.isidentifier() or keyword.iskeyword(name) or name in RESERVED
    return f"a_{name}" if taken else name


def chosen_columns(
    table: Table, names: Iterable[str] | None, what: Literal["--steer", "--attributes", "--weights"]
) -> list[Column]:
    """Columns of a table by their names or those of their attributes; all of them for None.

    Raises:
        DataError: If there is no such column.
    """
    if names is None:
        return table.columns
    by_name: dict[str, Column] = {}
    for column in [*table.columns, *(table.counts if what == "--weights" else [])]:
        by_name |= {column.column: column, column.name: column}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        why = "; ".join(f"{name}: {table.ignored[name]}" for name in unknown if name in table.ignored)
        known = ", ".join(column.name for column in table.columns) or "none"
        near = [close[0] for name in unknown if (close := get_close_matches(name, by_name, 1))]
        meant = f"; did you mean {', '.join(near)}?" if near and not why else ""
        raise DataError(f"{what} names {', '.join(unknown)}; {why or f'the table has {known}'}{meant}")
    return [by_name[name] for name in names]


def as_written(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """A row's values as the prepared table has them: numbers, 0 and 1, or nothing."""
    found = {}
    for column in columns:
        text = row[column.column].strip()
        text = YES_NO.get(text.lower(), text)
        found[column.column] = "" if is_missing(text) else text
    return found

"""Attribute scores of a face, measured from its image and its parsing map.

Images and maps are resized to 224×224, and all constants are pixels of that size. Of the colour of a pixel only the
mean of the three channels is used, here called its brightness. Every score has a default variant, ``"ohlora"``; the
original's algorithms stay available as ``"v1"`` (labels of its first fine-tuning), ``"v2"`` (all later work) and, for
hairstyle, ``"original"``.

The default variants differ from the original as follows:

* ``eyes``: v2 takes the tallest column of the taller eye in whole pixels, which gives a few dozen distinct values only.
  The default takes the mean height of the middle columns of an eye, and averages the eyes. It is corrected for the tilt
  of the line through both eyes; v2 takes the line through the two points of an eye that are farthest apart, which is
  steep in the far eye of a turned head.
* ``pose``: the distance of the nose from the midpoint between the eyes, along the line through the eyes, divided by the
  distance between the eyes. The original's v2 measures the tilt of that line, here called ``roll``; its v1 measures the
  slant of the nose.
* ``hairstyle``: all 16 pixels of each of four blocks must be hair; the original tests two corners of each block, one of
  them at a wrong place.
* ``smile`` is no score of the original: the height of the corners of the mouth.
* ``mouth`` has a further variant ``"height"``, which is proportional to the opening; the default, a share of areas,
  grows ever slower.
* ``hair_color``, ``hair_length``, ``mouth``, ``background_mean`` and ``background_std`` are equal to v2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 224
"""Height and width, in pixels, at which all scores are measured."""

DEFAULT_VARIANT = "ohlora"
"""The variant that is used where none is named."""

_BACKGROUND, _LEFT_EYE, _RIGHT_EYE, _NOSE, _UPPER_LIP, _INNER_MOUTH, _LOWER_LIP, _HAIR = 0, 4, 5, 6, 7, 8, 9, 10
_EYE_WINDOWS = (
    (_LEFT_EYE, slice(56, 168), slice(0, 168)),
    (_RIGHT_EYE, slice(56, 168), slice(56, 224)),
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """A face prepared for scoring.

    Attributes:
        brightness: Mean of the channels of every pixel, 224×224, float32, 0…255.
        parsing: Class ids 0…10, 224×224, uint8.
    """

    brightness: npt.NDArray[np.float32]
    parsing: npt.NDArray[np.uint8]


Scorer = Callable[[Frame], float]


def prepare(image: npt.NDArray[np.uint8], parsing: npt.NDArray[np.uint8]) -> Frame:
    """Checks an image and its parsing map, and resizes both to 224×224.

    Args:
        image: RGB, H×W×3 uint8; resized bilinearly, with averaging when it shrinks.
        parsing: Class ids 0…10 of the same face, H'×W' uint8; resized by nearest neighbour.

    Raises:
        TypeError: If one of the two is not an array of uint8.
        ValueError: If a shape is wrong, or a class id is larger than 10.
    """
    for name, array in (("image", image), ("parsing", parsing)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            given = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name} is of type {given}; expected an array of uint8")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image has shape {image.shape}; expected height × width × 3")
    if parsing.ndim != 2 or parsing.size == 0:
        raise ValueError(f"parsing has shape {parsing.shape}; expected height × width")
    if parsing.max() > _HAIR:
        raise ValueError(f"parsing holds class {parsing.max()}; expected class ids from 0 to {_HAIR}")
    if image.shape[:2] != (SIZE, SIZE):
        image = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    if parsing.shape != (SIZE, SIZE):
        parsing = np.asarray(Image.fromarray(parsing).resize((SIZE, SIZE), Image.Resampling.NEAREST))
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    return Frame((red + green + blue) / np.float32(3), parsing)


def score(
    image: npt.NDArray[np.uint8],
    parsing: npt.NDArray[np.uint8],
    variants: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Measures all scores of a face.

    Args:
        image: RGB, H×W×3 uint8.
        parsing: Class ids 0…10 of the same face, H'×W' uint8.
        variants: Attribute → variant, see :data:`SCORERS`; attributes that are left out use ``"ohlora"``.

    Returns:
        A raw score for every name in :data:`SCORERS`, in that order. Where the region that an
        attribute is measured from is missing, the score is a constant: hair_color 127.5, hairstyle 0.45,
        background_mean 192, all others 0.

    Raises:
        TypeError: If image or map is not an array of uint8.
        ValueError: If a shape or class id is wrong, or an attribute or variant is unknown.
    """
    check_variants(variants or {})
    chosen = dict.fromkeys(SCORERS, DEFAULT_VARIANT) | dict(variants or {})
    frame = prepare(image, parsing)
    return {name: SCORERS[name][variant](frame) for name, variant in chosen.items()}


def check_variants(variants: Mapping[str, str]) -> None:
    """Checks the names of attributes and variants.

    Raises:
        ValueError: If an attribute or variant is unknown; the message lists those that exist.
    """
    for name, variant in variants.items():
        if name not in SCORERS:
            raise ValueError(f"unknown score {name!r}; expected one of {', '.join(SCORERS)}")
        if variant not in SCORERS[name]:
            raise ValueError(f"score {name!r} has no variant {variant!r}; expected one of {', '.join(SCORERS[name])}")


# --- eyes, roll, pose -------------------------------------------------------------------------------------------------


def _rows(mask: Mask) -> npt.NDArray[np.intp]:
    return np.flatnonzero(mask.any(axis=1))


def _extent(positions: npt.NDArray[np.intp]) -> int:
    """Last minus first of sorted positions; 0 if there is none."""
    return int(positions[-1] - positions[0]) if len(positions) else 0


def _column_heights(mask: Mask) -> npt.NDArray[np.intp]:
    """Last minus first row of the mask in every column; 0 where the column is empty."""
    last = len(mask) - 1 - np.argmax(mask[::-1], axis=0)
    return np.where(mask.any(axis=0), last - np.argmax(mask, axis=0), 0)


def _tilt_factor(mask: Mask) -> float:
    """Cosine of the angle between the horizontal and the line through the two points that are farthest apart.

    Only the first and the last point of a row can be among these two, so only they are compared. Of several pairs with
    the largest distance, the first in row-major order is taken. The factor is 1 if there are fewer than two points.
    """
    rows = _rows(mask)
    if len(rows) == 0:
        return 1.0
    first = np.argmax(mask[rows], axis=1)
    last = mask.shape[1] - 1 - np.argmax(mask[rows][:, ::-1], axis=1)
    y, x = np.repeat(rows, 2), np.stack([first, last], axis=1).ravel()
    squared = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    a, b = divmod(int(np.argmax(squared)), len(y))
    distance = math.sqrt(squared[a, b])
    return abs(int(x[a] - x[b])) / distance if distance > 0 else 1.0


def _eye_masks(frame: Frame) -> list[Mask]:
    return [frame.parsing[rows, columns] == number for number, rows, columns in _EYE_WINDOWS]


def _eyes(frame: Frame) -> float:
    """Mean height of the middle half of an eye's columns, times the cosine of the roll; mean over the visible eyes.

    A closed eye has the height of the line that its lids leave, or 0 where the map shows none.
    """
    heights = [height for mask in _eye_masks(frame) if (height := _middle_height(mask)) > 0]
    return sum(heights) / len(heights) * math.cos(math.atan(_roll(frame))) if heights else 0.0


def _middle_height(mask: Mask) -> float:
    """Mean number of pixels in the middle half of a mask's columns; 0 if it is empty."""
    counts = mask.sum(axis=0)
    columns = np.flatnonzero(counts)
    if len(columns) == 0:
        return 0.0
    margin = (columns[-1] - columns[0] + 1) // 4
    return float(counts[columns[0] + margin : columns[-1] - margin + 1].mean())


def _eyes_v1(frame: Frame) -> float:
    # The original searches only the upper 84 of the window's 112 rows.
    return sum(_extent(_rows(mask[:84])) for mask in _eye_masks(frame)) / 2


def _eyes_v2(frame: Frame) -> float:
    return max(float(_column_heights(mask).max()) * _tilt_factor(mask) for mask in _eye_masks(frame))


def _centroid(mask: Mask) -> tuple[float, float] | None:
    """Mean row and column of a mask, or None if it is empty."""
    total = int(np.count_nonzero(mask))
    if total == 0:
        return None
    y = float(mask.sum(axis=1) @ np.arange(mask.shape[0])) / total
    x = float(mask.sum(axis=0) @ np.arange(mask.shape[1])) / total
    return y, x


def _eye_centroids(frame: Frame) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Centroids (row, column) of the left and the right eye in the frame, or None if either is missing."""
    found = []
    for number, rows, columns in _EYE_WINDOWS:
        centroid = _centroid(frame.parsing[rows, columns] == number)
        if centroid is None:
            return None
        found.append((centroid[0] + rows.start, centroid[1] + columns.start))
    return found[0], found[1]


def _roll(frame: Frame) -> float:
    """Slope of the line through the centroids of the eyes; 0 if an eye is missing or the line is vertical."""
    eyes = _eye_centroids(frame)
    if eyes is None or eyes[0][1] == eyes[1][1]:
        return 0.0
    return (eyes[1][0] - eyes[0][0]) / (eyes[1][1] - eyes[0][1])


def _pose(frame: Frame) -> float:
    """Position of the nose along the line through the eyes.

    It is the signed distance of the nose's centroid from the midpoint of the eyes' centroids, in units of the distance
    between the eyes, positive to the image's right; 0 if the nose or an eye is missing.
    """
    eyes = _eye_centroids(frame)
    nose = _centroid(frame.parsing == _NOSE)
    if eyes is None or nose is None:
        return 0.0
    (left_y, left_x), (right_y, right_x) = eyes
    dy, dx = right_y - left_y, right_x - left_x
    squared = dx * dx + dy * dy
    if squared == 0:
        return 0.0
    return ((nose[1] - (left_x + right_x) / 2) * dx + (nose[0] - (left_y + right_y) / 2) * dy) / squared


def _pose_v1(frame: Frame) -> float:
    """Negative correlation between the columns and the rows of the nose's pixels; 0 where it is undefined."""
    y, x = np.nonzero(frame.parsing == _NOSE)
    if len(y) < 2 or np.ptp(y) == 0 or np.ptp(x) == 0:
        return 0.0
    return -float(np.corrcoef(x, y)[0, 1])


# --- hair -------------------------------------------------------------------------------------------------------------


def _hair_color(frame: Frame) -> float:
    values = np.sort(frame.brightness[frame.parsing == _HAIR])
    kept = values[int(0.1 * len(values)) : int(0.9 * len(values))]
    return float(kept.mean(dtype=np.float64)) if len(kept) else 127.5


def _hair_color_v1(frame: Frame) -> float:
    values = frame.brightness[frame.parsing == _HAIR]
    return float(np.median(values)) if len(values) else 127.5


def _bottom_counts(hair: Mask) -> tuple[int, int]:
    """Numbers of hair pixels in the left and the right half of the bottom row."""
    return int(hair[-1, : SIZE // 2].sum()), int(hair[-1, SIZE // 2 :].sum())


def _hair_length(frame: Frame) -> float:
    hair = frame.parsing == _HAIR
    enough = hair[56:].sum(axis=1) >= 20
    length = float(enough.sum())
    if enough[-1]:
        length += sum(max(count - 10, 0) / 2 for count in _bottom_counts(hair))
    return length


def _hair_length_v1(frame: Frame) -> float:
    hair = frame.parsing == _HAIR
    rows = _rows(hair)
    if len(rows) == 0:
        return 0.0
    bottom = float(rows[-1])
    return bottom + sum(_bottom_counts(hair)) / 2 if bottom == SIZE - 1 else bottom


_STEP, _BLOCK = 8, 4
_ANCHOR_ROWS = np.arange(112, SIZE - _STEP - _BLOCK + 1)
_ANCHOR_COLUMNS = np.arange(8, SIZE - _STEP - _BLOCK + 1)


def _block_sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sums over all 4×4 blocks; the index is the upper left corner of a block."""
    wide = values[:, :-3] + values[:, 1:-2] + values[:, 2:-1] + values[:, 3:]
    return np.asarray(wide[:-3] + wide[1:-2] + wide[2:-1] + wide[3:], np.float32)


def _grids(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Values at four offsets from all anchors: at the anchor, below it, left of it and right of it.

    The array starts at row 112 of the frame.
    """
    n_rows, n_columns = len(_ANCHOR_ROWS), len(_ANCHOR_COLUMNS)
    return tuple(
        values[down : down + n_rows, 8 + along : 8 + along + n_columns]
        for down, along in ((0, 0), (_STEP, 0), (0, -_STEP), (0, _STEP))
    )


def _change_ratio(frame: Frame, accepted: Mask) -> float:
    """Ratio of the vertical to the horizontal change of brightness, mean over the accepted anchors."""
    if not accepted.any():
        return 0.45
    means = _block_sums(frame.brightness[112:]) / np.float32(_BLOCK * _BLOCK)
    here, below, left, right = (grid[accepted].astype(np.float32) for grid in _grids(means))
    sideways = np.maximum(np.abs(here - left), np.abs(here - right))
    return float((np.abs(here - below) / (sideways + np.float32(5))).mean(dtype=np.float64))


def _hairstyle(frame: Frame) -> float:
    full = _block_sums((frame.parsing[112:] == _HAIR).astype(np.float32)) == _BLOCK * _BLOCK
    here, below, left, right = _grids(full)
    return _change_ratio(frame, np.asarray(here & below & left & right, np.bool_))


def _hairstyle_original(frame: Frame) -> float:
    hair = frame.parsing == _HAIR
    y, x = _ANCHOR_ROWS[:, None], _ANCHOR_COLUMNS
    accepted = np.ones((len(y), len(x)), np.bool_)
    # The offset (3, -11) should be (3, -5); in the original it also wraps around the left edge of the frame.
    for down, along in ((0, 0), (8, 0), (0, -8), (0, 8), (3, 3), (11, 3), (3, -11), (3, 11)):
        accepted &= hair[y + down, (x + along) % SIZE]
    return _change_ratio(frame, accepted)


# --- mouth, background ------------------------------------------------------------------------------------------------


def _mouth(frame: Frame) -> float:
    counts = np.bincount(frame.parsing.ravel(), minlength=_HAIR + 1)
    inner = int(counts[_INNER_MOUTH])
    total = inner + int(counts[_UPPER_LIP] + counts[_LOWER_LIP])
    return inner / total if total else 0.0


def _mouth_v1(frame: Frame) -> float:
    lips = _rows((frame.parsing == _UPPER_LIP) | (frame.parsing == _LOWER_LIP))
    return float(_extent(lips) + _extent(_rows(frame.parsing == _INNER_MOUTH)))


def _lower_lid(mask: Mask) -> tuple[float, float]:
    """Mean row and column of the lowest pixels in the middle half of the columns of a mask that is not empty.

    Where nothing is in the middle, as of a mask in two parts, all columns count.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    margin = (columns[-1] - columns[0] + 1) // 4
    middle = columns[(columns >= columns[0] + margin) & (columns <= columns[-1] - margin)]
    middle = middle if len(middle) else columns
    lowest = len(mask) - 1 - np.argmax(mask[::-1, middle], axis=0)
    return float(lowest.mean()), float(middle.mean())


def _smile(frame: Frame) -> float:
    """Height of the corners of the mouth above the middle of the upper lip.

    Both are those of a parabola that is fitted to the upper edge of the mouth, which stays in place as the mouth opens.
    They are measured along the axis of the face, in units of its distance from the lower lids to the middle of the
    upper lip, which hardly changes as the head turns or the eyes close. 0 where an eye is missing or the mouth has less
    than three columns.
    """
    eyes = _eye_centroids(frame)
    mouth = (frame.parsing >= _UPPER_LIP) & (frame.parsing <= _LOWER_LIP)
    x = np.flatnonzero(mouth.any(axis=0))
    if eyes is None or len(x) < 3:
        return 0.0
    angle = math.atan2(eyes[1][0] - eyes[0][0], eyes[1][1] - eyes[0][1])
    cos, sin = math.cos(angle), math.sin(angle)
    lids = [_lower_lid(frame.parsing == number) for number in (_LEFT_EYE, _RIGHT_EYE)]
    above = sum(row * cos - column * sin for row, column in lids) / 2
    y = np.argmax(mouth[:, x], axis=0)
    along, down = x * cos + y * sin, y * cos - x * sin
    start, end = along.min(), along.max()
    bend, _, middle = np.polyfit((2 * along - start - end) / (end - start), down, 2)
    return float(-bend / (middle - above)) if middle > above else 0.0


def _mouth_height(frame: Frame) -> float:
    """Mean height of the middle half of the inner mouth's columns, times the cosine of the roll; 0 if it is closed."""
    return _middle_height(frame.parsing == _INNER_MOUTH) * math.cos(math.atan(_roll(frame)))


def _background(frame: Frame) -> tuple[float, float]:
    """Mean and standard deviation of the brightness of the background in the top half; 5 % are cut at either end."""
    half = SIZE // 2
    values = np.sort(frame.brightness[:half][frame.parsing[:half] == _BACKGROUND])
    if len(values) > 1:
        values = values[int(0.05 * len(values)) : int(0.95 * len(values))]
    if len(values) == 0:
        return 192.0, 0.0
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def _background_mean(frame: Frame) -> float:
    return _background(frame)[0]


def _background_std(frame: Frame) -> float:
    return _background(frame)[1]


SCORERS: Mapping[str, Mapping[str, Scorer]] = MappingProxyType(
    {
        "eyes": {"ohlora": _eyes, "v1": _eyes_v1, "v2": _eyes_v2},
        "hair_color": {"ohlora": _hair_color, "v1": _hair_color_v1, "v2": _hair_color},
        "hair_length": {"ohlora": _hair_length, "v1": _hair_length_v1, "v2": _hair_length},
        "mouth": {"ohlora": _mouth, "height": _mouth_height, "v1": _mouth_v1, "v2": _mouth},
        "pose": {"ohlora": _pose, "v1": _pose_v1, "v2": _roll},
        "background_mean": {"ohlora": _background_mean, "v1": _background_mean, "v2": _background_mean},
        "background_std": {"ohlora": _background_std, "v1": _background_std, "v2": _background_std},
        "hairstyle": {"ohlora": _hairstyle, "original": _hairstyle_original},
        "roll": {"ohlora": _roll},
        "smile": {"ohlora": _smile},
    }
)
"""Attribute → variant → the function that computes the raw score of a :class:`Frame`."""


# --- normalisation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalization:
    """Converts raw scores to z-scores with respect to a population.

    Attributes:
        mean: Attribute → mean of the raw scores.
        std: Attribute → sample standard deviation (n − 1) of the raw scores, larger than 0.

    Raises:
        ValueError: If the two name different attributes, a number is not finite, or a deviation is not positive.
    """

    mean: Mapping[str, float]
    std: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.mean.keys() != self.std.keys():
            names = f"{', '.join(self.mean)}, but std of {', '.join(self.std)}"
            raise ValueError(f"mean is of {names}; expected the same names")
        for name in self.mean:
            if not (math.isfinite(self.mean[name]) and math.isfinite(self.std[name]) and self.std[name] > 0):
                raise ValueError(
                    f"{name!r} has mean {self.mean[name]} and std {self.std[name]}; "
                    "expected finite numbers, std larger than 0"
                )

    @classmethod
    def fit(cls, scores: Sequence[Mapping[str, float]]) -> Normalization:
        """Mean and standard deviation of the raw scores of at least two faces, all with the same names.

        Raises:
            ValueError: If there are fewer than two faces, their names differ, or all faces have the same score.
        """
        if len(scores) < 2:
            raise ValueError(f"{len(scores)} faces were given; expected at least 2")
        names = list(scores[0])
        for place, row in enumerate(scores):
            if row.keys() != scores[0].keys():
                raise ValueError(f"face {place} has scores {', '.join(row)}; expected {', '.join(names)}")
        table = np.array([[row[name] for name in names] for row in scores], np.float64)
        mean, std = table.mean(axis=0).tolist(), table.std(axis=0, ddof=1).tolist()
        return cls(dict(zip(names, mean, strict=True)), dict(zip(names, std, strict=True)))

    def apply(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The z-scores of one face from raw scores of some or all attributes of this normalisation.

        Raises:
            ValueError: If an attribute has no mean and deviation here.
        """
        unknown = [name for name in scores if name not in self.mean]
        if unknown:
            raise ValueError(f"no normalisation for {unknown[0]!r}; expected some of {', '.join(self.mean)}")
        return {name: (value - self.mean[name]) / self.std[name] for name, value in scores.items()}

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Attribute → ``mean`` and ``std``, to be written as JSON."""
        return {name: {"mean": self.mean[name], "std": self.std[name]} for name in self.mean}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, float]]) -> Normalization:
        """Reads what :meth:`to_dict` wrote.

        Raises:
            ValueError: If an entry does not consist of ``mean`` and ``std``.
        """
        for name, entry in values.items():
            if set(entry) != {"mean", "std"}:
                raise ValueError(f"entry {name!r} holds {', '.join(entry)}; expected mean and std")
        mean = {name: float(entry["mean"]) for name, entry in values.items()}
        return cls(mean, {name: float(entry["std"]) for name, entry in values.items()})

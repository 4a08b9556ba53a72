"""The renderer of drawn faces: a portrait and its parsing map, drawn from known attribute values.

All shapes are polygons in the unit square (x to the right, y downwards). Points of the head have a depth and are turned
about the vertical axis (x' = x·cos(yaw) + depth·sin(yaw)), so that nose, eyes, ears, outline and hair move as on a
solid head. Shapes are drawn as *paint numbers* on one supersampled canvas. A palette maps the numbers to colours and a
second table maps the same numbers to parsing classes, so that image and map always agree. Whatever has no edge
(background, strands of hair, blush) is a smooth function that is added at the final resolution.

The parsing classes are those of :data:`ohlora.faces.classes.CLASSES`. Skin is that of face, ears and neck. The line of
the upper lashes belongs to the eye, so that a closed eye, which is nothing but this line, has pixels of its class.
Clothes have the class of the background: they lie below the middle row, where no score measures the background.
Glasses and bad image quality do not change the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ohlora.utils import counted

FloatArray = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]


DEFAULT_RATES: Mapping[str, float] = MappingProxyType({"gender": 0.55, "quality": 0.95, "age": 0.08, "glass": 0.10})
"""0/1 attribute → probability that it is 1."""

MEASURED = (
    "eyes",
    "hair_color",
    "hair_length",
    "mouth",
    "pose",
    "background_mean",
    "background_std",
    "hairstyle",
    "roll",
    "smile",
)
"""The continuous attributes of a face, z-scores."""

DRAWN = (*DEFAULT_RATES, *MEASURED)
"""The attributes from which a face is drawn; ``configs/worlds/toy.yaml`` declares the same."""

NUISANCES: tuple[str, ...] = (
    "skin",
    "iris",
    "hair_warmth",
    "hair_volume",
    "parting",
    "fringe",
    "face_shape",
    "eye_slant",
    "brows",
    "nose_size",
    "clothes_hue",
    "tint_hue",
)
"""Properties of a face that vary but are no attributes; each is uniform on 0…1."""

MIN_RESOLUTION = 16
"""Smallest height and width, in pixels, at which faces are drawn."""


class Physical(NamedTuple):
    """How an expression's z-score becomes a physical value.

    A normal deviate is cut off at both ends, where the picture reaches its extremes, and standardised; this is the
    z-score of the attribute. The physical value is linear in it.

    Attributes:
        name: Name of the physical value.
        low, high: Its smallest and its largest value.
        start, end: The normal deviates at which these are reached.
    """

    name: str
    low: float
    high: float
    start: float
    end: float

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of a normal deviate that is cut off at ``start`` and ``end``."""
        a, b = self.start, self.end
        below, above = (0.5 + 0.5 * math.erf(edge / math.sqrt(2)) for edge in (a, b))
        at_a, at_b = (math.exp(-edge * edge / 2) / math.sqrt(2 * math.pi) for edge in (a, b))
        mean = a * below + b * (1 - above) + at_a - at_b
        square = a * a * below + b * b * (1 - above) + (above - below) + a * at_a - b * at_b
        return mean, math.sqrt(square - mean * mean)

    def z_score(self, normal: float) -> float:
        """The z-score that is drawn from a normal deviate."""
        mean, deviation = self.moments()
        return (min(max(normal, self.start), self.end) - mean) / deviation

    def value(self, z_score: float) -> float:
        """The physical value of a z-score, ``low``…``high``."""
        mean, deviation = self.moments()
        share = (z_score * deviation + mean - self.start) / (self.end - self.start)
        return self.low + (self.high - self.low) * min(max(share, 0.0), 1.0)


_TENTH = 1.2816  # a normal deviate exceeds it with a probability of 0.1

EXPRESSIONS: Mapping[str, Physical] = MappingProxyType(
    {
        # A tenth of the faces at 0, a tenth above 0.9.
        "eyes": Physical("eye_opening", 0.0, 1.0, -_TENTH, 1.222 * _TENTH),
        "mouth": Physical("mouth_opening", 0.0, 1.0, -_TENTH, 1.222 * _TENTH),
        # A fifth of the faces beyond 25 degrees.
        "pose": Physical("yaw_degrees", -35.0, 35.0, -1.4 * _TENTH, 1.4 * _TENTH),
        # A tenth of the faces beyond 0.9 at either end.
        "smile": Physical("mouth_corners", -1.0, 1.0, -_TENTH / 0.9, _TENTH / 0.9),
    }
)
"""Expression → its physical value.

``eye_opening``: 0 closed … 1 wide open. ``mouth_opening``: 0 closed … 1 wide open. ``yaw_degrees``: turn of the head in
degrees, positive to the image's right. ``mouth_corners``: height of the corners of the mouth, −1 down … 1 up.
"""


@dataclass(frozen=True)
class Truth:
    """The values from which a face is drawn.

    Attributes:
        attributes: A value for every name in :data:`DRAWN`: a z-score for each measured attribute (any finite number;
            the drawing saturates), and 0 or 1 for gender (1: female), quality (1: good), age (1: older) and glass
            (1: worn).
        nuisances: A value between 0 and 1 for every name in :data:`NUISANCES`.

    Raises:
        ValueError: If a name is missing or unknown, or a value is out of its range.
    """

    attributes: Mapping[str, float]
    nuisances: Mapping[str, float]

    def __post_init__(self) -> None:
        _check_names("attributes", self.attributes, DRAWN)
        _check_names("nuisances", self.nuisances, NUISANCES)
        for name in MEASURED:
            if not math.isfinite(self.attributes[name]):
                raise ValueError(f"attribute {name!r} is {self.attributes[name]}; expected a finite number")
        for name in DEFAULT_RATES:
            if self.attributes[name] not in (0, 1):
                raise ValueError(f"attribute {name!r} is {self.attributes[name]}; expected 0 or 1")
        for name in NUISANCES:
            if not 0 <= self.nuisances[name] <= 1:
                raise ValueError(f"nuisance {name!r} is {self.nuisances[name]}; expected a number from 0 to 1")

    def replace(self, **changes: float) -> Truth:
        """The values of the same face with some attributes or nuisances changed, by name.

        Raises:
            ValueError: If a name is neither an attribute nor a nuisance, or a value is out of its range.
        """
        unknown = [name for name in changes if name not in self.attributes and name not in self.nuisances]
        if unknown:
            known = ", ".join([*self.attributes, *self.nuisances])
            raise ValueError(f"unknown name {unknown[0]!r}; expected one of {known}")
        return Truth(*({k: changes.get(k, v) for k, v in old.items()} for old in (self.attributes, self.nuisances)))


@dataclass(frozen=True)
class DrawnFace:
    """A portrait and its parsing map.

    Attributes:
        image: RGB, H×W×3 uint8.
        parsing: Class ids 0…10, see :data:`ohlora.faces.classes.CLASSES`, H×W uint8.
    """

    image: ByteArray
    parsing: ByteArray


def physical(truth: Truth) -> dict[str, float]:
    """The physical values of a face's expressions, by the names and in the units of :data:`EXPRESSIONS`."""
    return {about.name: about.value(truth.attributes[name]) for name, about in EXPRESSIONS.items()}


def sample_truth(seed: int, index: int, rates: Mapping[str, float] | None = None) -> Truth:
    """Samples the values of one face, which depend on (seed, index) and the rates alone.

    Every value has a random stream of its own, so that a further attribute changes no other value. A 0/1 attribute is 1
    where a uniform number is below its rate, so a changed rate changes no other value either.

    Args:
        seed: Seed of the population, 0 or larger.
        index: Number of the face in the population, 0 or larger.
        rates: 0/1 attribute → probability that it is 1; the others use :data:`DEFAULT_RATES`.

    Returns:
        Measured attributes of mean 0 and standard deviation 1 (normal; those of expressions are cut off at the ends of
        their physical range), 0/1 attributes with their rates, and nuisances uniform on 0…1.

    Raises:
        ValueError: If seed or index is negative, or a rate has an unknown name or lies outside 0…1.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index are {seed} and {index}; expected whole numbers of 0 or more")
    cuts = {**DEFAULT_RATES, **(rates or {})}
    for name, rate in cuts.items():
        if name not in DEFAULT_RATES:
            raise ValueError(f"unknown rate {name!r}; expected one of {', '.join(DEFAULT_RATES)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"the rate of {name!r} is {rate}; expected a number from 0 to 1")
    streams = {name: counted.generator(seed, f"drawn/{name}", index) for name in (*DRAWN, *NUISANCES)}
    values = {name: float(streams[name].random() < cuts[name]) for name in DEFAULT_RATES}
    for name in MEASURED:
        normal = float(streams[name].standard_normal())
        values[name] = EXPRESSIONS[name].z_score(normal) if name in EXPRESSIONS else normal
    return Truth(values, {name: float(streams[name].random()) for name in NUISANCES})


def draw(truth: Truth, resolution: int) -> DrawnFace:
    """Draws a face and its parsing map, ``resolution`` pixels wide and high.

    Raises:
        ValueError: If the resolution is too small.
    """
    if resolution < MIN_RESOLUTION:
        raise ValueError(f"the resolution is {resolution}; expected at least {MIN_RESOLUTION} pixels")
    head = _Head(truth)
    person, parsing, masks = _paint(truth, head, resolution)
    frame = _frame(resolution)
    image = person + masks[..., 0:1] * _background(truth, frame)
    image += (masks[..., 1] * _strands(truth, head, frame))[..., None]
    image += masks[..., 2:3] * _complexion(truth, head, frame)
    if truth.attributes["quality"] == 0:
        image = _degraded(image, masks[..., 0], frame)
    np.clip(image + 0.5, 0, 255, out=image)
    return DrawnFace(image.astype(np.uint8), parsing)


def _check_names(what: str, given: Mapping[str, float], expected: tuple[str, ...]) -> None:
    if given.keys() != set(expected):
        missing = ", ".join(name for name in expected if name not in given) or "none"
        unknown = ", ".join(str(name) for name in given if name not in expected) or "none"
        raise ValueError(f"{what} must be named {', '.join(expected)}; missing: {missing}; unknown: {unknown}")


# --- from attributes to lengths (unit: the side of the image) and grey levels (0…255) ---------------------------------


def _sigmoid(value: float) -> float:
    return 0.5 + 0.5 * math.tanh(value / 2)


def _hair_end(truth: Truth) -> float:
    """Height y at which the hair ends: below the middle row; the longest hair leaves the image."""
    return 0.86 + 0.175 * math.tanh(truth.attributes["hair_length"] / 1.6)


def _hair_level(truth: Truth) -> float:
    return 112.0 + 82.0 * math.tanh(truth.attributes["hair_color"] / 1.5)


def _curliness(truth: Truth) -> float:
    return _sigmoid(truth.attributes["hairstyle"] / 0.9)


def _tilt(truth: Truth) -> float:
    """Angle of the line through the eyes in radians; positive where the eye on the image's right is lower."""
    return math.radians(9.0) * math.tanh(truth.attributes["roll"] / 2.0)


def _background_level(truth: Truth) -> float:
    return 134.0 + 56.0 * math.tanh(truth.attributes["background_mean"] / 1.8)


def _background_spread(truth: Truth) -> float:
    return 3.0 + 29.0 * _sigmoid((truth.attributes["background_std"] - 0.3) / 0.8)


# --- geometry ---------------------------------------------------------------------------------------------------------

_EYE_X = 0.150
_EYE_Y = 0.462
_EYE_HALF_WIDTH = 0.113
_MOUTH_Y = 0.690
_PIVOT_Y = 0.56
_HEAD_HALF_WIDTH = 0.318
_HEAD_DEPTH = 0.30
_FACE_DEPTH = 0.25

_ANGLES = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.sin(_ANGLES), -np.cos(_ANGLES)], axis=1)
_SPAN = np.linspace(-1, 1, 19)


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> Points:
    ellipse: Points = _CIRCLE * np.array([half_width, half_height]) + np.array([x, y])
    return ellipse


def _strip(x: Points, upper: Points, lower: Points) -> Points:
    """Polygon between two curves over the same x, N points each."""
    return np.array([np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])]).T


def _stroke(x: Points, y: Points, thickness: float | Points, ends: float = 0.25) -> Points:
    """Polygon of a line that is as thick as stated in its middle; its ends have the stated share of that."""
    half = 0.5 * thickness * (1 - (1 - ends) * np.linspace(-1, 1, len(x)) ** 2)
    return _strip(x, y - half, y + half)


class _Head:
    """Turns and tilts the points of the head."""

    def __init__(self, truth: Truth) -> None:
        values = physical(truth)
        self.eyes, self.mouth, self.smile = (values[n] for n in ("eye_opening", "mouth_opening", "mouth_corners"))
        yaw = math.radians(values["yaw_degrees"])
        self.cos, self.sin = math.cos(yaw), math.sin(yaw)
        self.tilt = _tilt(truth)

    def __call__(self, points: Points, depth: float | Points = 0.0) -> Points:
        """Moves points on the surface of the face.

        Args:
            points: N×2; x is relative to the middle of the face, y to the top of the image.
            depth: Height above the surface; one number or N numbers.

        Returns:
            N×2, relative to the upper left corner of the image.
        """
        x = points[:, 0]
        surface = _FACE_DEPTH * np.sqrt(np.maximum(1 - (x / _HEAD_HALF_WIDTH) ** 2, 0.0))
        return self.tilted(x * self.cos + (surface + depth) * self.sin, points[:, 1])

    def around(self, angle: Points, y: Points, half_width: float, depth: float) -> Points:
        """Moves points of a solid whose horizontal section is an ellipse; those behind its edge stay at the edge.

        Args:
            angle: N angles about the axis of the turn, in radians; 0 is the middle of the front, π/2 the right side.
            y: N heights.
            half_width: Half the width of the section, seen from the front.
            depth: Half its depth.
        """
        x = half_width * np.sin(angle) * self.cos + depth * np.cos(angle) * self.sin
        edge = math.atan2(half_width * self.cos, depth * self.sin)  # where x is largest
        limit = math.hypot(half_width * self.cos, depth * self.sin)
        x = np.where(angle > edge, limit, np.where(angle < edge - math.pi, -limit, x))
        return self.tilted(x, y)

    def tilted(self, x: Points, y: Points, weight: float | Points = 1.0) -> Points:
        """Tilts points that were turned already; ``weight`` 0 leaves them where they are."""
        angle = self.tilt * weight
        cos, sin = np.cos(angle), np.sin(angle)
        away = y - _PIVOT_Y
        return np.array([0.5 + x * cos - away * sin, _PIVOT_Y + x * sin + away * cos]).T

    def edges(self, half_width: Points, depth: Points, forward: float | Points) -> tuple[Points, Points]:
        """Left and right edge of a solid whose horizontal sections are ellipses.

        Args:
            half_width: Half its width, seen from the front.
            depth: Half its depth.
            forward: How far the middle of the section lies before the axis of the turn.
        """
        half = np.sqrt((half_width * self.cos) ** 2 + (depth * self.sin) ** 2)
        middle = np.asarray(forward) * self.sin
        return middle - half, middle + half


# --- paint ------------------------------------------------------------------------------------------------------------


# Parsing class → its paints. Glasses and the lashes beyond the lid's line do not change the map.
_PAINTS_OF_CLASSES = {
    0: "background clothes clothes_shade clothes_line",
    1: "skin skin_shade skin_line neck neck_shade ear_shade lid crease lash frame",
    2: "left_brow",
    3: "right_brow",
    4: "left_white left_shade left_rim left_iris left_glow left_pupil left_glint left_lash",
    5: "right_white right_shade right_rim right_iris right_glow right_pupil right_glint right_lash",
    6: "nose nose_shade nose_light",
    7: "upper_lip lip_line",
    8: "inner_mouth teeth tongue",
    9: "lower_lip lip_light",
    10: "hair_line back_hair hair hair_shade hair_light",
}
_CLASSES = {paint: parsing for parsing, paints in _PAINTS_OF_CLASSES.items() for paint in paints.split()}
_NUMBERS = {paint: number for number, paint in enumerate(_CLASSES)}
_CLASSES_OF_PAINTS = np.array([*_CLASSES.values()], np.uint8)
_BLUSHING = ("skin", "skin_shade", "lid", "nose", "nose_shade")
_STRANDED = ("back_hair", "hair", "hair_shade", "hair_light")


def _mask_palette() -> bytes:
    """Palette in which the channels red, green and blue are the masks of background, hair and skin."""
    table = np.zeros((256, 3), np.uint8)
    for channel, paints in enumerate((("background",), _STRANDED, _BLUSHING)):
        table[[_NUMBERS[paint] for paint in paints], channel] = 255
    return table.tobytes()


_MASK_PALETTE = _mask_palette()


class _Canvas:
    """A supersampled canvas of paint numbers."""

    def __init__(self, resolution: int) -> None:
        self.factor = max(4, -(-256 // resolution))
        self.size = resolution * self.factor
        self.image = Image.new("P", (self.size, self.size), 0)
        self._draw = ImageDraw.Draw(self.image)

    def fill(self, paint: str, points: Points) -> None:
        """Fills a polygon of N×2 points."""
        self._draw.polygon(np.rint(points * self.size - 0.5).ravel().tolist(), fill=_NUMBERS[paint])

    def line(self, paint: str, points: Points, width: float) -> None:
        """Draws a line of constant width along N×2 points."""
        pixels = np.rint(points * self.size - 0.5).ravel().tolist()
        self._draw.line(pixels, fill=_NUMBERS[paint], width=max(round(width * self.size), 1), joint="curve")

    def reduce(self, palette: bytes) -> FloatArray:
        """Returns the canvas in the colours of a palette at the final resolution: R×R×3, 0…255."""
        self.image.putpalette(palette, "RGB")
        return np.asarray(self.image.convert("RGB").reduce(self.factor), np.float32)

    def classes(self) -> ByteArray:
        """Returns the parsing class at the centre of every pixel: R×R."""
        numbers = np.asarray(self.image)[self.factor // 2 :: self.factor, self.factor // 2 :: self.factor]
        classes: ByteArray = _CLASSES_OF_PAINTS[numbers]
        return classes


def _paint(truth: Truth, head: _Head, resolution: int) -> tuple[FloatArray, ByteArray, FloatArray]:
    """Draws all polygons.

    Returns:
        The person on a black background (R×R×3, 0…255), the parsing map (R×R), and the shares of each pixel that are
        background, hair and skin (R×R×3, 0…1).
    """
    canvas = _Canvas(resolution)
    _paint_hair_and_body(canvas, truth, head)
    _paint_face(canvas, truth, head)
    _paint_creases(canvas, truth, head)
    _paint_nose(canvas, truth, head)
    _paint_mouth(canvas, head)
    _paint_fringe(canvas, truth, head)
    lashes = _paint_eyes(canvas, truth, head)
    parsing = canvas.classes()
    for lash in lashes:
        canvas.fill("lash", lash)
    if truth.attributes["glass"] == 1:
        _paint_glasses(canvas, head)
    masks = canvas.reduce(_MASK_PALETTE) / np.float32(255)
    return canvas.reduce(_palette(truth)), parsing, masks


# --- hair and body ----------------------------------------------------------------------------------------------------

_CROWN_Y = 0.022
_WIDEST_Y = 0.43
_CURL_LENGTH = 0.135
_CURL_HEIGHT = 0.026
_OUTLINE_Y = np.concatenate([_CROWN_Y + 0.12 * np.linspace(0, 1, 12) ** 2, np.arange(0.155, 1.1, 0.015)])
_TIP = np.sin(np.linspace(0, math.pi / 2, 7))
_LINE = 0.011


def _half_width_of_hair(y: npt.NDArray[Any], volume: float) -> npt.NDArray[Any]:
    """Half the width of the hair at height y, without curls."""
    rise = np.clip((_WIDEST_Y - y) / (_WIDEST_Y - _CROWN_Y), 0, 1)
    width: npt.NDArray[Any] = (0.392 + 0.022 * volume) * np.sqrt(np.maximum(1 - rise**2.25, 0.0))
    return width


def _curl(y: npt.NDArray[Any], curliness: float) -> npt.NDArray[Any]:
    """Horizontal displacement of the outline of the hair at height y, positive outwards; 0 at the crown."""
    swing = np.abs(np.sin((y - 0.05) * (math.pi / _CURL_LENGTH))) * 2 - 1.1
    curl: npt.NDArray[Any] = _CURL_HEIGHT * curliness * np.clip((y - 0.08) / 0.2, 0, 1) * swing
    return curl


def _hair_shift(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How far the middle of the hair lies before the axis of the turn: the hair that hangs down lies behind it."""
    shift: npt.NDArray[Any] = -0.065 * np.clip((y - 0.15) / 0.4, 0, 1)
    return shift


def _hanging(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Share of the head's tilt that hair follows at height y; its ends hang down."""
    share: npt.NDArray[Any] = np.clip((1.05 - y) / 0.5, 0, 1)
    return share


_NECK_TURN = 0.06
_SHOULDERS = np.array(
    # from the collar to the edge of the image, and back below it
    [
        *([0.10, 0.90], [0.17, 0.925], [0.30, 0.945], [0.40, 0.962], [0.47, 0.985], [0.52, 1.03]),
        *([0.52, 1.1], [0.0, 1.1], [0.0, 1.0], [0.05, 0.985]),
    ]
)


def _hair_sides(truth: Truth, head: _Head, y: Points, inset: float | Points = 0.0) -> tuple[Points, Points]:
    """Left and right outline of the hair at heights y, N×2 each, top down."""
    curliness = _curliness(truth)
    width = _half_width_of_hair(y, truth.nuisances["hair_volume"])
    left, right = head.edges(width, 0.97 * width, _hair_shift(y))
    out = _curl(y, curliness) - inset
    weight = _hanging(y)
    return head.tilted(left - out, y, weight), head.tilted(right + out, y, weight)


def _paint_hair_and_body(canvas: _Canvas, truth: Truth, head: _Head) -> None:
    end = _hair_end(truth)
    female = truth.attributes["gender"]
    y = np.concatenate([_OUTLINE_Y[end - 0.06 > _OUTLINE_Y], end - 0.06 + 0.06 * _TIP])
    # The hair ends in a round tip.
    tip = 0.055 * (1 - np.sqrt(1 - (1 - np.clip((end - y) / 0.06, 0, 1)) ** 2))
    left, right = _hair_sides(truth, head, y, tip)
    outline = np.concatenate([right, left[::-1]])
    canvas.fill("back_hair", outline)
    canvas.line("hair_line", outline, _LINE)

    # The neck stands still below the head; its upper end follows the turn.
    neck = 0.118 - 0.018 * female
    for paint, grown in (("skin_line", _LINE), ("neck", 0.0)):
        upper, lower = 0.92 * neck + grown, neck + 0.02 + grown
        middle = 0.5 + _NECK_TURN * head.sin
        corners = [[middle - upper, 0.75], [middle + upper, 0.75], [0.5 + lower, 1.01], [0.5 - lower, 1.01]]
        canvas.fill(paint, np.array(corners))
    for side, paint in ((-1, "clothes"), (1, "clothes_shade")):
        shoulder = _SHOULDERS * np.array([side, 1.0]) + np.array([0.5, 0.0])
        canvas.fill("clothes_line", shoulder - np.array([0.0, 0.012]))
        canvas.fill(paint, shoulder)

    # Locks of hair lie in front of the shoulders.
    inside = 0.245 + 0.5 * _curl(y, _curliness(truth)) - tip
    low = y > 0.6
    weight = _hanging(y[low])
    for side, outer in ((-1, left[low]), (1, right[low])):
        inner = head.tilted(side * inside[low] + _hair_shift(y[low]) * head.sin, y[low], weight)
        canvas.fill("hair_line", np.concatenate([outer, (inner - np.array([side * _LINE, 0]))[::-1]]))
        canvas.fill("back_hair", np.concatenate([outer, inner[::-1]]))
        canvas.line("hair_line", outer, _LINE)


def _hairline(truth: Truth) -> tuple[Points, Points]:
    """The lower edge of the fringe from the left to the right temple: angles about the axis, and heights."""
    n = truth.nuisances
    x = np.linspace(-1, 1, 41)
    parting = (n["parting"] - 0.5) * 0.7
    away = np.abs(x - parting) / (1 + np.sign(x - parting) * -parting)
    swept = 0.150 + 0.265 * away**1.3
    bangs = 0.200 + 0.050 * np.abs(np.sin(1.5 * math.pi * (x - parting))) + 0.18 * np.abs(x) ** 5
    curls = 0.010 * _curliness(truth) * np.sin(away * 17) * away
    return np.arcsin(x), swept + n["fringe"] * (bangs - swept) + curls


def _paint_fringe(canvas: _Canvas, truth: Truth, head: _Head) -> None:
    angle, edge = _hairline(truth)

    def around(y: Points) -> Points:
        return head.around(angle, y, _HEAD_HALF_WIDTH, _HEAD_DEPTH)

    left, right = _hair_sides(truth, head, _OUTLINE_Y[_OUTLINE_Y < 0.47])
    line = around(edge)
    canvas.fill("skin_shade", np.concatenate([around(edge + 0.026), around(edge - 0.05)[::-1]]))
    canvas.fill("hair", np.concatenate([right[::-1], left, line]))
    # The shaded rim of the fringe, and the shine that lies around the head like a ring.
    canvas.fill("hair_shade", np.concatenate([line, around(edge - 0.032 * np.cos(angle) ** 2)[::-1]]))
    canvas.line("hair_line", line, _LINE)
    canvas.line("hair_line", np.concatenate([right[::-1], left]), _LINE)
    span = np.linspace(-1, 1, 25)
    y = 0.100 + 0.080 * span**2
    width = _half_width_of_hair(y, truth.nuisances["hair_volume"]) - 0.03
    thick = 0.034 * np.sqrt(np.maximum(1 - span**2, 0)) * (0.75 + 0.25 * np.cos(span * 19))
    x = width * np.sin(0.85 * span + 0.8 * math.asin(head.sin))
    canvas.fill("hair_light", np.concatenate([head.tilted(x, y - thick / 2), head.tilted(x, y + thick / 2)[::-1]]))


# --- face -------------------------------------------------------------------------------------------------------------


def _face_half_width(truth: Truth) -> float:
    return _HEAD_HALF_WIDTH - 0.012 * truth.nuisances["face_shape"]


def _face_outline(truth: Truth, head: _Head, inset: float = 0.0) -> tuple[Points, Points]:
    """Left and right outline of the face, N×2 each, from the forehead to the chin."""
    female, shape = truth.attributes["gender"], truth.nuisances["face_shape"]
    chin = 0.872 + 0.020 * shape + 0.055 * head.mouth - inset
    power, root = 3.1 - 0.8 * female, 0.47 + 0.14 * female
    t = 1 - (1 - np.linspace(0, 1, 18)) ** 2
    cheek = 0.5
    y = np.concatenate([np.array([0.1, 0.2, 0.3, 0.4]), cheek + (chin - cheek) * t])
    width = _face_half_width(truth) - inset
    lower = (1 - t**power) ** root
    half = width * np.concatenate([np.array([0.75, 0.92, 0.98, 1.0]), lower])
    forward = np.concatenate([np.zeros(4), 0.175 * t**1.5])
    left, right = head.edges(half, half * (_HEAD_DEPTH / _HEAD_HALF_WIDTH), forward)
    return head.tilted(left, y), head.tilted(right, y)


def _paint_face(canvas: _Canvas, truth: Truth, head: _Head) -> None:
    left, right = _face_outline(truth, head)
    outline = np.concatenate([right, left[::-1]])
    # The face casts a shadow onto the neck.
    middle = 0.5 + _NECK_TURN * head.sin
    low, high = np.array([middle - 0.11, 0.0]), np.array([middle + 0.11, 1.0])
    canvas.fill("neck_shade", np.clip(outline + np.array([0.0, 0.05]), low, high))
    far = 1 if head.sin > 0 else -1
    _paint_ear(canvas, truth, head, far)
    canvas.fill("skin_shade", outline)
    canvas.line("skin_line", outline, _LINE)
    # The light comes from the upper left.
    left, right = _face_outline(truth, head, 0.016)
    canvas.fill("skin", np.concatenate([right - np.array([0.022, 0.0]), left[::-1] - np.array([0.008, 0.0])]))
    _paint_ear(canvas, truth, head, -far)


_EAR_SPAN = np.linspace(0, 1, 13)
_EAR_BULGE = np.sqrt(1 - (2 * _EAR_SPAN - 1) ** 2) * (1.12 - 0.4 * _EAR_SPAN)


def _paint_ear(canvas: _Canvas, truth: Truth, head: _Head, side: int) -> None:
    """Draws an ear, which is flat and points backwards: it widens as the head turns away from it."""
    # Seen from the front, it begins at the outline of the face, so that it appears and disappears behind it gradually.
    turned = min(abs(head.sin) * 4, 1.0)
    base = (_face_half_width(truth) + 0.002 - 0.018 * turned) * head.cos
    width = 0.040 * head.cos - 0.085 * side * head.sin
    if width <= 0:
        return
    for paint, size, height in (("skin_line", 1.0, 0.090), ("skin", 0.78, 0.083), ("ear_shade", 0.42, 0.055)):
        y = 0.520 + height * (2 * _EAR_SPAN - 1)
        x = side * (base + width * size * _EAR_BULGE)
        inner = np.full_like(x, side * base)
        canvas.fill(paint, head.tilted(np.concatenate([x, inner]), np.concatenate([y, y[::-1]])))


def _paint_creases(canvas: _Canvas, truth: Truth, head: _Head) -> None:
    """Draws the wrinkles of an older face: on the forehead, below the eyes, and beside the mouth."""
    if truth.attributes["age"] == 0:
        return
    along = np.linspace(0, 1, 9)
    for height, reach in ((0.205, 0.13), (0.238, 0.16)):
        canvas.fill("crease", head(_stroke(reach * _SPAN, height - 0.010 * np.cos(_SPAN * 4), 0.013)))
    for side in (-1, 1):
        x = side * (_EYE_X + 0.005 + 0.085 * _SPAN)
        canvas.fill("crease", head(_stroke(x, 0.562 + 0.020 * (1 - _SPAN**2), 0.015)))
        fold = np.stack([side * (0.070 + 0.095 * along**0.8), 0.605 + 0.150 * along], 1)
        width = 0.011 * np.sin(math.pi * np.clip(along, 0.1, 0.95))[:, None] * [1.0, 0.3]
        canvas.fill("crease", head(np.concatenate([fold - width, (fold + width)[::-1]])))


def _paint_nose(canvas: _Canvas, truth: Truth, head: _Head) -> None:
    size = 0.9 + 0.2 * truth.nuisances["nose_size"] + 0.12 * (1 - truth.attributes["gender"])
    right = np.array([[0.014, 0.475], [0.018, 0.52], [0.030, 0.565], [0.045, 0.590], [0.044, 0.612], [0.024, 0.620]])
    shape = np.concatenate([right, [[0.0, 0.626]], right[::-1] * np.array([-1, 1])])
    shape = (shape - np.array([0.0, 0.60])) * np.array([size, 1.0]) + np.array([0.0, 0.60])
    depth = 0.015 + 0.095 * np.clip((shape[:, 1] - 0.46) / 0.13, 0, 1)
    canvas.fill("nose", head(shape, depth))
    # Shade on the right side and below, a light on the tip.
    canvas.fill(
        "nose_shade",
        head(
            np.concatenate([shape[:7], [[-0.03, 0.616], [-0.005, 0.606], [0.016, 0.59], [0.008, 0.54], [0.006, 0.48]]]),
            np.concatenate([depth[:7], [0.1, 0.11, 0.11, 0.08, 0.03]]),
        ),
    )
    canvas.fill("nose_light", head(_ellipse(-0.010, 0.580, 0.013, 0.015), 0.11))


def _paint_mouth(canvas: _Canvas, head: _Head) -> None:
    """Draws the lips and the inner mouth.

    The lips keep their thickness when the mouth opens, and a smile moves whole columns up or down, so that the share
    of the inner mouth depends on its height alone.
    """
    height = 0.185 * head.mouth
    half = 0.108 + 0.016 * head.smile + 0.010 * head.mouth
    x = half * _SPAN
    bulge = (1 - np.abs(_SPAN) ** 2.4) ** 0.55
    line = _MOUTH_Y - 0.004 - 0.012 * head.mouth + head.smile * (0.014 - 0.062 * np.abs(_SPAN) ** 1.8)
    top, bottom = line, line + height * bulge
    bow = 0.028 * bulge * (1 - 0.22 * np.exp(-((_SPAN / 0.25) ** 2)))

    def band(upper: Points, lower: Points) -> Points:
        return head(_strip(x, upper, lower), 0.02)

    canvas.fill("lower_lip", band(bottom - 0.004, bottom + 0.038 * bulge))
    canvas.fill("lip_light", head(_ellipse(-0.012, float(bottom.max()) + 0.016, 0.026, 0.008), 0.02))
    canvas.fill("upper_lip", band(top - bow, top + 0.002))
    canvas.fill("inner_mouth", band(top, bottom))
    teeth = 0.055 * math.tanh(7 * max(head.mouth - 0.04, 0.0) * 0.5)
    if teeth > 0:
        canvas.fill("teeth", band(top, np.minimum(top + teeth * bulge**0.5, bottom)))
    tongue = 0.075 * max(head.mouth - 0.25, 0.0) / 0.75
    if tongue > 0:
        middle = np.abs(_SPAN) < 0.8
        dome = tongue * (1 - (_SPAN[middle] / 0.8) ** 2) ** 0.5
        floor = bottom[middle]
        canvas.fill("tongue", head(_strip(x[middle], floor - dome, floor), 0.02))
    canvas.line("lip_line", head(np.stack([x, line], 1), 0.02), 0.010)


def _paint_eyes(canvas: _Canvas, truth: Truth, head: _Head) -> list[Points]:
    """Draws eyes and brows.

    Returns:
        The polygons of the lashes beyond the lid's line. They must not change the parsing map and are therefore drawn
        after it was read.
    """
    female = truth.attributes["gender"]
    n = truth.nuisances
    opening = head.eyes
    lens = (1 - np.abs(_SPAN) ** 2.3) ** 0.85
    lashes: list[Points] = []
    for side, name in ((-1, "left"), (1, "right")):
        outwards = side * _SPAN
        corner = _EYE_Y - (0.018 * n["eye_slant"] - 0.004) * outwards
        x = side * _EYE_X + _EYE_HALF_WIDTH * _SPAN
        # A closed lid lies on the lower one; an open one rises, and the lower one sinks a little.
        upper = corner + (0.040 - 0.172 * opening) * lens
        lower = corner + (0.040 + 0.024 * opening) * lens
        crease = corner - (0.078 + 0.082 * opening) * lens
        canvas.fill("lid", head(_strip(x, crease, lower)))
        canvas.fill(f"{name}_white", head(_strip(x, upper, lower)))
        canvas.fill(f"{name}_shade", head(_strip(x, upper, np.minimum(upper + 0.034 * lens, lower))))
        middle = side * _EYE_X
        gaze_y = _EYE_Y + 0.004 - 0.038 * opening
        for part, radius, aside, up in (
            ("rim", 0.068, 0.0, 0.0),
            ("iris", 0.056, 0.0, 0.0),
            ("glow", 0.044, 0.0, -0.016),
            ("pupil", 0.029, 0.0, 0.0),
            ("glint", 0.021, 0.026, 0.026),
        ):
            disc = _ellipse(middle - aside, gaze_y - up, radius, radius)
            # The lids cover the rest of the disc.
            disc[:, 1] = np.clip(disc[:, 1], np.interp(disc[:, 0], x, upper), np.interp(disc[:, 0], x, lower))
            canvas.fill(f"{name}_{part}", head(disc))

        # The lid's line is as thick for every opening, so that what is measured is the opening.
        thick = 0.028 - 0.008 * np.clip(-outwards, 0, 1)
        canvas.fill(f"{name}_lash", head(_strip(x, upper - thick, upper + 0.004)))
        lashes.append(head(_strip(x, lower, lower + 0.007 * lens)))
        if female:
            tip = np.array([[0.085, 0.012], [0.140, -0.012], [0.128, 0.008], [0.112, 0.016]])
            tip[:, 1] += np.array([0.01, -0.014, -0.012, 0.0]) * (2 * opening - 1)
            lashes.append(
                head(tip * np.array([side, 1]) + np.array([side * _EYE_X, float(corner[-1 if side > 0 else 0])]))
            )

        arch = (0.012 + 0.014 * n["brows"]) * (1 - (_SPAN - 0.25 * side) ** 2)
        brow_y = 0.286 - 0.006 * female - arch + (0.010 - 0.012 * n["brows"]) * outwards
        thickness = (0.052 - 0.022 * female) * (1.05 - 0.35 * outwards)
        canvas.fill(f"{name}_brow", head(_stroke(side * (_EYE_X + 0.004) + 0.100 * _SPAN, brow_y, thickness), 0.01))
    return lashes


_RIM = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.7
_RIM = np.concatenate([_RIM, _RIM[:1]])


def _paint_glasses(canvas: _Canvas, head: _Head) -> None:
    for side in (-1, 1):
        middle = np.array([side * (_EYE_X + 0.002), _EYE_Y - 0.010])
        outer, inner = _RIM * np.array([0.143, 0.146]) + middle, _RIM * np.array([0.117, 0.120]) + middle
        canvas.fill("frame", head(np.concatenate([outer, inner[::-1]]), 0.02))  # a ring, cut open at one point
        arm = np.array([[0.28, 0.405], [0.318, 0.415], [0.318, 0.445], [0.28, 0.435]])
        canvas.fill("frame", head(arm * np.array([side, 1]), 0.0))
    x = 0.04 * _SPAN
    canvas.fill("frame", head(_strip(x, 0.428 - 0.012 * (1 - _SPAN**2), 0.456 - 0.012 * (1 - _SPAN**2)), 0.03))


# --- colour -----------------------------------------------------------------------------------------------------------

_SKIN_STOPS = (0.0, 0.35, 0.65, 0.85, 1.0)
_SKIN_RAMP = ((255, 226, 204), (246, 204, 172), (226, 170, 130), (180, 122, 88), (140, 90, 66))
_IRIS_STOPS = (0.0, 0.35, 0.65, 1.0)
_IRIS_RAMP = ((150, 84, 40), (110, 140, 60), (50, 150, 150), (70, 122, 214))


def _ramp(value: float, stops: tuple[float, ...], ramp: tuple[tuple[int, int, int], ...]) -> Points:
    place = 0
    while place < len(stops) - 2 and value > stops[place + 1]:
        place += 1
    share = (value - stops[place]) / (stops[place + 1] - stops[place])
    return np.array([a + share * (b - a) for a, b in zip(ramp[place], ramp[place + 1], strict=True)])


def _hue(angle: float) -> Points:
    """Colour offset of amplitude 1 whose three channels sum to 0; the angle is in turns."""
    hue: Points = np.cos(2 * math.pi * (angle - np.array([0.0, 1 / 3, 2 / 3])))
    return hue


def _hair_colour(truth: Truth) -> Points:
    """Colour between black-brown and platinum blond; the mean of its channels is exactly the level of the hair."""
    warmth, level = truth.nuisances["hair_warmth"], _hair_level(truth)
    chroma = min(level, 0.5 * level + 60, 1.6 * (255 - level)) * (0.55 + 0.55 * warmth)
    if truth.attributes["age"]:
        chroma *= 0.15
    red, golden = np.array([0.60, -0.16, -0.44]), np.array([0.42, 0.06, -0.48])
    # Dark hair with a golden tone would look green, and bright hair with a red tone pink.
    gold = min(max((level - 60) / 110, 0), 1)
    colour: Points = level + chroma * (red + gold * (golden - red))
    return colour


def _palette(truth: Truth) -> bytes:
    n, female, older = truth.nuisances, truth.attributes["gender"], truth.attributes["age"]
    skin = _ramp(n["skin"], _SKIN_STOPS, _SKIN_RAMP)
    shade = skin * [0.86, 0.74, 0.71]
    line = skin * [0.52, 0.38, 0.36]
    hair = _hair_colour(truth)
    clothes = 142 + 62 * _hue(n["clothes_hue"])
    iris = _ramp(n["iris"], _IRIS_STOPS, _IRIS_RAMP)
    lips = (0.45 * skin + 0.55 * np.array([214.0, 52, 78])) if female else skin * [0.86, 0.66, 0.62]
    brow = np.array([214.0, 212, 208]) if older else 0.50 * np.minimum(hair, 150) + np.array([10.0, 5, 3])
    colours: dict[str, Points] = {
        "background": np.zeros(3),
        "clothes": clothes,
        "clothes_shade": clothes * 0.86,
        "clothes_line": clothes * 0.5,
        "hair_line": hair * 0.52,
        "back_hair": hair * 0.84,
        "hair": hair,
        "hair_shade": hair * 0.84,
        "hair_light": np.minimum(hair * 1.12 + 30, 255),
        "skin": skin,
        "skin_shade": shade,
        "skin_line": line,
        "neck": skin * [0.93, 0.86, 0.84],
        "neck_shade": skin * [0.76, 0.62, 0.60],
        "ear_shade": skin * [0.80, 0.64, 0.60],
        "lid": skin * ([0.93, 0.80, 0.82] if female else [0.93, 0.86, 0.84]),
        "crease": skin * [0.66, 0.52, 0.48],
        "nose": skin * [0.97, 0.91, 0.89],
        "nose_shade": skin * [0.80, 0.64, 0.60],
        "nose_light": 0.5 * skin + 127,
        "upper_lip": lips * 0.86,
        "lip_line": lips * [0.50, 0.40, 0.42],
        "inner_mouth": np.array([104.0, 26, 38]),
        "teeth": np.array([252.0, 250, 246]),
        "tongue": np.array([226.0, 104, 112]),
        "lower_lip": lips,
        "lip_light": 0.66 * lips + 84,
        "lash": np.array([52.0, 30, 34]),
        "frame": np.array([40.0, 34, 52]),
    }
    for side in ("left", "right"):
        colours |= {
            f"{side}_brow": brow,
            f"{side}_white": np.array([253.0, 252, 250]),
            f"{side}_shade": np.array([206.0, 208, 226]),
            f"{side}_rim": iris * 0.45,
            f"{side}_iris": iris * 0.86,
            f"{side}_glow": np.minimum(iris * 1.15 + 34, 255),
            f"{side}_pupil": np.array([26.0, 18, 26]),
            f"{side}_glint": np.array([255.0, 255, 255]),
            f"{side}_lash": np.array([52.0, 30, 34]),
        }
    table = np.zeros((256, 3))
    table[: len(_NUMBERS)] = [colours[name] for name in _NUMBERS]
    return np.clip(table + 0.5, 0, 255).astype(np.uint8).tobytes()


# --- smooth functions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Pixel centres of the image (x: 1×R, y: R×1), and the pattern of the background (R×R)."""

    x: FloatArray
    y: FloatArray
    pattern: FloatArray


_DISCS = np.array(
    # x, y, radius, brightness
    [
        [0.10, 0.07, 0.100, 1.0],
        [0.93, 0.11, 0.110, 0.9],
        [0.02, 0.27, 0.070, 0.8],
        [0.76, 0.00, 0.070, 0.7],
        [0.99, 0.33, 0.060, 0.9],
    ],
    np.float32,
)


@lru_cache(maxsize=8)
def _frame(resolution: int) -> _Frame:
    """The pattern is a soft gradient with discs of light.

    It has mean 0 and standard deviation 1 over the part of the top half that hair hardly ever covers (trimmed as in the
    score), so that mean and deviation of the background are those of the attributes.
    """
    centres = ((np.arange(resolution) + 0.5) / resolution).astype(np.float32)
    x, y = centres[None, :], centres[:, None]
    across, down, radius = (_DISCS[:, column, None, None] for column in range(3))
    distance = np.sqrt((x[None] - across) ** 2 + (y[None] - down) ** 2)
    discs = np.clip((radius - distance) * np.float32(25) + np.float32(0.5), 0, 1)
    pattern = np.tensordot(_DISCS[:, 3], discs, 1) * np.float32(0.7) - np.float32(1.2) * y
    rise = np.clip((_WIDEST_Y - y) / (_WIDEST_Y - _CROWN_Y + 0.01), 0, 1)
    clear = (np.abs(x - 0.5) > 0.42 * np.sqrt(1 - rise**2.25) + 0.01) & (y < 0.5)
    seen = np.sort(pattern[clear])
    seen = seen[int(0.05 * len(seen)) : int(0.95 * len(seen))]
    return _Frame(x, y, np.clip((pattern - seen.mean()) / seen.std(), -3, 3))


def _background(truth: Truth, frame: _Frame) -> FloatArray:
    """The background, R×R×3."""
    hue = truth.nuisances["tint_hue"]
    tint, glow = 34 * _hue(hue), _background_spread(truth) + 4 * _hue(hue + 0.17)
    colour = (_background_level(truth) + tint).astype(np.float32) + frame.pattern[..., None] * glow.astype(np.float32)
    clipped: FloatArray = np.clip(colour, 0, 255)
    return clipped


_STRAND_CYCLES = 5.0


def _strands(truth: Truth, head: _Head, frame: _Frame) -> FloatArray:
    """Brightness of strands and curls, which is added to the hair: R×R, mean about 0.

    Strands run parallel to the outline: the brightness of straight hair varies horizontally only, that of curly hair
    also vertically.
    """
    curliness = _curliness(truth)
    y = frame.y
    width = np.maximum(_half_width_of_hair(y, truth.nuisances["hair_volume"]), 0.05).astype(np.float32)
    low = np.clip((y - np.float32(0.15)) / np.float32(0.4), 0, 1)
    parting = (truth.nuisances["parting"] - 0.5) * 0.2 + 0.2 * head.sin
    lean = math.tan(head.tilt) * (_PIVOT_Y - y) * np.clip((1.05 - y) / 0.5, 0, 1)
    middle = 0.5 + parting * (1 - low) + _hair_shift(y) * head.sin + lean
    away = np.abs(frame.x - middle.astype(np.float32)) / width
    strand = np.tanh(2.0 * np.cos(away * np.float32(2 * math.pi * _STRAND_CYCLES)))
    strand = strand * np.clip((width - np.float32(0.12)) / np.float32(0.18), 0, 1)
    turns = (y - np.float32(0.05)) / np.float32(_CURL_LENGTH) - np.float32(1.3) * (away - 1)
    curl = np.tanh(2.0 * np.cos(np.float32(2 * math.pi) * (turns - np.float32(0.5))))
    curl = curl * np.clip((y - 0.12) / 0.2, 0, 1).astype(np.float32)
    shade = 14.0 * (1 - 0.75 * curliness) * strand + 20.0 * curliness * curl
    return np.asarray(shade, np.float32)


def _complexion(truth: Truth, head: _Head, frame: _Frame) -> FloatArray:
    """Blush, and the stubble of men, which are added to the skin: R×R×3."""
    female = truth.attributes["gender"]
    places = head(np.array([[-0.205, 0.595], [0.205, 0.595], [0.0, 0.77]]))
    smile = max(head.smile, 0.0)
    blush = np.zeros((len(frame.y), len(frame.y)), np.float32)
    for x, y in places[:2]:
        lift = y - 0.012 * smile
        blush += np.exp(-(((frame.x - np.float32(x)) / np.float32(0.065)) ** 2)) * np.exp(
            -(((frame.y - np.float32(lift)) / np.float32(0.042)) ** 2)
        )
    colour = np.array([0, -30, -22], np.float32) * np.float32(0.55 + 0.45 * female + 0.35 * smile)
    skin: FloatArray = blush[..., None] * colour
    if not female:
        x, y = places[2]
        jaw = np.exp(-(((frame.y - np.float32(y + 0.03 * head.mouth)) / np.float32(0.12)) ** 4)) * np.exp(
            -(((frame.x - np.float32(x)) / np.float32(0.24)) ** 4)
        )
        skin = skin + jaw[..., None] * np.array([-24, -17, -10], np.float32)
    return skin


def _degraded(image: FloatArray, background: FloatArray, frame: _Frame) -> FloatArray:
    """Lowers the quality of an image: hair and forehead are blurred and streaked, as in failed images of a GAN."""
    resolution = len(image)
    rows = -(-resolution * 3 // 8)
    part = Image.fromarray(np.clip(image[:rows] + 0.5, 0, 255).astype(np.uint8))
    blurred = part.resize((6, 3), Image.Resampling.BOX).resize(part.size, Image.Resampling.BICUBIC)
    streaks = 34 * np.sin(2 * math.pi * (3.5 * frame.x + 6 * frame.y[:rows] + 0.25 * np.sin(9 * frame.x)))
    weight = np.clip((0.36 - frame.y[:rows]) / 0.08, 0, 1)[..., None] * (1 - background[:rows, :, None])
    bad = np.asarray(blurred, np.float32) + streaks[..., None] * np.array([1.0, 0.6, 1.2], np.float32)
    result = image.copy()
    result[:rows] += weight * (bad - image[:rows])
    return result

"""The renderer of drawn faces: a portrait and its parsing map, drawn from known attribute values.

All shapes are polygons in the unit square (x to the right, y downwards). They are drawn as *paint numbers* on one
supersampled canvas. A palette maps the numbers to colours and a second table maps the same numbers to parsing classes,
so that image and map always agree. Whatever has no edge (background, strands of hair, blush, shading of the skin) is a
smooth function that is added at the final resolution.

The parsing classes are those of :data:`ohlora.faces.classes.CLASSES`. Skin is that of face and neck. Clothes have the
class of the background: they lie below the middle row, where no score measures the background. Glasses, lashes and bad
image quality do not change the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

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
)
"""The continuous attributes of a face, z-scores; the order is that in which they are drawn at random."""

DRAWN = (*DEFAULT_RATES, *MEASURED)
"""The attributes from which a face is drawn; ``configs/worlds/toy.yaml`` declares the same."""

NUISANCES: tuple[str, ...] = (
    "skin",
    "iris",
    "hair_warmth",
    "hair_tone",
    "hair_volume",
    "parting",
    "face_width",
    "chin",
    "smile",
    "mouth_width",
    "clothes_hue",
    "clothes_light",
    "neckline",
    "tint_hue",
    "tint_strength",
    "bokeh_x",
    "bokeh_y",
)
"""Properties of a face that vary but are no attributes; each is uniform on 0…1."""

MIN_RESOLUTION = 16
"""Smallest height and width, in pixels, at which faces are drawn."""


@dataclass(frozen=True)
class Truth:
    """The values from which a face is drawn.

    Attributes:
        attributes: A value for every name in :data:`DRAWN`: a z-score for each measured attribute (any finite number;
            the drawing saturates smoothly beyond about ±3), and 0 or 1 for gender (1: female), quality (1: good), age
            (1: older) and glass (1: worn).
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


def sample_truth(seed: int, index: int, rates: Mapping[str, float] | None = None) -> Truth:
    """Samples the values of one face, which depend on (seed, index) and the rates alone.

    A 0/1 attribute is 1 where a uniform number is below its rate, so a changed rate changes no other value.

    Args:
        seed: Seed of the population, 0 or larger.
        index: Number of the face in the population, 0 or larger.
        rates: 0/1 attribute → probability that it is 1; the others use :data:`DEFAULT_RATES`.

    Returns:
        Measured attributes from N(0, 1), 0/1 attributes with their rates, and nuisances uniform on 0…1.

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
    rng = np.random.default_rng([seed, index])
    normal = dict(zip(MEASURED, rng.standard_normal(len(MEASURED)).tolist(), strict=True))
    uniform = dict(zip(DEFAULT_RATES, rng.random(len(DEFAULT_RATES)).tolist(), strict=True))
    nuisances = dict(zip(NUISANCES, rng.random(len(NUISANCES)).tolist(), strict=True))
    values = normal | {name: float(value < cuts[name]) for name, value in uniform.items()}
    return Truth({name: values[name] for name in DRAWN}, nuisances)


def draw(truth: Truth, resolution: int) -> DrawnFace:
    """Draws a face and its parsing map, ``resolution`` pixels wide and high.

    Raises:
        ValueError: If the resolution is too small.
    """
    if resolution < MIN_RESOLUTION:
        raise ValueError(f"the resolution is {resolution}; expected at least {MIN_RESOLUTION} pixels")
    pose = _Pose(truth)
    person, parsing, masks = _paint(truth, pose, resolution)
    frame = _frame(resolution)
    image = person + masks[..., 0:1] * _background(truth, frame)
    image += (masks[..., 1] * _strands(truth, frame))[..., None]
    image += masks[..., 2:3] * _complexion(truth, pose, frame)
    if truth.attributes["quality"] == 0:
        image = _degraded(image, frame)
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


def _eye_height(truth: Truth) -> float:
    return 0.076 + 0.046 * math.tanh(truth.attributes["eyes"] / 1.7)


def _mouth_height(truth: Truth) -> float:
    """Height of the inner mouth; it is never 0, so that its share of the mouth increases everywhere."""
    return 0.006 + 0.098 * _sigmoid((truth.attributes["mouth"] - 0.2) / 1.0)


def _hair_end(truth: Truth) -> float:
    """Height y at which the hair ends: below the middle row, and inside the image."""
    return 0.805 + 0.18 * math.tanh(truth.attributes["hair_length"] / 2.0)


def _hair_level(truth: Truth) -> float:
    return 112.0 + 82.0 * math.tanh(truth.attributes["hair_color"] / 1.8)


def _waviness(truth: Truth) -> float:
    return _sigmoid(truth.attributes["hairstyle"] / 0.9)


def _turn(truth: Truth) -> float:
    return math.tanh(truth.attributes["pose"] / 2.2)


def _tilt(truth: Truth) -> float:
    """Angle of the line through the eyes in radians; positive where the eye on the image's right is lower."""
    return math.radians(9.0) * math.tanh(truth.attributes["roll"] / 2.5)


def _background_level(truth: Truth) -> float:
    return 134.0 + 52.0 * math.tanh(truth.attributes["background_mean"] / 1.8)


def _background_spread(truth: Truth) -> float:
    return 3.0 + 25.0 * _sigmoid((truth.attributes["background_std"] - 0.3) / 0.8)


# --- geometry ---------------------------------------------------------------------------------------------------------

_EYE_Y = 0.463
_EYE_X = 0.118
_EYE_HALF_WIDTH = 0.074
_PIVOT_Y = 0.58
_WAVE_LENGTH = 0.125
_WAVE_HEIGHT = 0.024

_ANGLES = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.sin(_ANGLES), -np.cos(_ANGLES)], axis=1)
_SPAN = np.linspace(-1, 1, 15)


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> Points:
    ellipse: Points = _CIRCLE * np.array([half_width, half_height]) + np.array([x, y])
    return ellipse


def _strip(x: Points, upper: Points, lower: Points) -> Points:
    """Polygon between two curves over the same x, N points each."""
    return np.stack([np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])], 1)


class _Pose:
    """Moves the points of the face as the head turns and tilts."""

    def __init__(self, truth: Truth) -> None:
        self.turn = _turn(truth)
        tilt = _tilt(truth)
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)

    def __call__(self, points: Points, depth: float | Points) -> Points:
        """Moves points; those that are nearer to the viewer (larger depth) move further.

        Args:
            points: N×2; x is relative to the middle of the face, y to the top of the image.
            depth: Shift at a full turn; one number or N numbers.

        Returns:
            N×2, relative to the upper left corner of the image.
        """
        x = points[:, 0]
        # Perspective: the half of the face that turns away becomes narrower, the other half wider.
        x = x - 0.55 * self.turn * x * x + depth * self.turn
        y = points[:, 1] - _PIVOT_Y
        return np.stack([0.5 + x * self.cos - y * self.sin, _PIVOT_Y + x * self.sin + y * self.cos], axis=1)


def _half_width_of_hair(y: npt.NDArray[Any], volume: float) -> npt.NDArray[Any]:
    """Half the width of the hair's outline at height y, without waves."""
    widest = 0.366 + 0.02 * volume
    rise = np.clip((0.40 - y) / (0.40 - _CROWN_Y), 0, 1)
    width: npt.NDArray[Any] = widest * np.sqrt(np.maximum(1 - rise**2.3, 0.0)) + 0.02 * np.clip(y - 0.5, 0, 0.5)
    return width


def _wave(y: npt.NDArray[Any], waviness: float) -> npt.NDArray[Any]:
    """Horizontal displacement of the hair at height y, positive outwards; 0 at the crown."""
    swing = np.sin((y - 0.03) * (2 * math.pi / _WAVE_LENGTH))
    wave: npt.NDArray[Any] = _WAVE_HEIGHT * waviness * np.clip((y - 0.15) / 0.2, 0, 1) * swing
    return wave


# --- paint ------------------------------------------------------------------------------------------------------------


# Parsing class → its paints. Lashes and glasses do not change the map.
_PAINTS_OF_CLASSES = {
    0: "background clothes clothes_trim",
    1: "skin neck_shadow hair_shadow jaw_shadow crease lash frame",
    2: "left_brow",
    3: "right_brow",
    4: "left_white left_iris left_pupil left_glint left_shade",
    5: "right_white right_iris right_pupil right_glint right_shade",
    6: "nose nose_shadow nose_light nostril",
    7: "upper_lip",
    8: "inner_mouth teeth tongue",
    9: "lower_lip lip_light",
    10: "back_hair hair",
}
_CLASSES = {paint: parsing for parsing, paints in _PAINTS_OF_CLASSES.items() for paint in paints.split()}
_NUMBERS = {paint: number for number, paint in enumerate(_CLASSES)}
_CLASSES_OF_PAINTS = np.array([*_CLASSES.values()], np.uint8)
_SHADED = ("skin", "neck_shadow", "hair_shadow", "jaw_shadow", "crease", "nose", "nose_shadow", "nose_light")


def _mask_palette() -> bytes:
    """Palette in which the channels red, green and blue are the masks of background, hair and skin."""
    table = np.zeros((256, 3), np.uint8)
    for channel, paints in enumerate((("background",), ("back_hair", "hair"), _SHADED)):
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

    def reduce(self, palette: bytes) -> FloatArray:
        """Returns the canvas in the colours of a palette at the final resolution: R×R×3, 0…255."""
        self.image.putpalette(palette, "RGB")
        return np.asarray(self.image.convert("RGB").reduce(self.factor), np.float32)

    def classes(self) -> ByteArray:
        """Returns the parsing class at the centre of every pixel: R×R."""
        numbers = np.asarray(self.image)[self.factor // 2 :: self.factor, self.factor // 2 :: self.factor]
        classes: ByteArray = _CLASSES_OF_PAINTS[numbers]
        return classes


def _paint(truth: Truth, pose: _Pose, resolution: int) -> tuple[FloatArray, ByteArray, FloatArray]:
    """Draws all polygons.

    Returns:
        The person on a black background (R×R×3, 0…255), the parsing map (R×R), and the shares of each pixel that are
        background, hair and skin (R×R×3, 0…1).
    """
    canvas = _Canvas(resolution)
    _paint_hair_and_body(canvas, truth)
    _paint_face(canvas, truth)
    _paint_creases(canvas, truth, pose)
    _paint_nose(canvas, pose)
    _paint_mouth(canvas, truth, pose)
    _paint_fringe(canvas, truth)
    lashes = _paint_eyes(canvas, truth, pose)
    parsing = canvas.classes()
    for lash in lashes:
        canvas.fill("lash", lash)
    if truth.attributes["glass"] == 1:
        _paint_glasses(canvas, pose)
    masks = canvas.reduce(_MASK_PALETTE) / np.float32(255)
    return canvas.reduce(_palette(truth)), parsing, masks


_CROWN_Y = 0.065
_OUTLINE_Y = np.concatenate([_CROWN_Y + 0.135 * np.linspace(0, 1, 14) ** 2, np.arange(0.2125, 1.0, 0.0125)])
_TIP = np.sin(np.linspace(0, math.pi / 2, 8))
_SHOULDERS_RIGHT = np.array([[0.08, 0.86], [0.14, 0.88], [0.26, 0.905], [0.37, 0.93], [0.43, 0.965], [0.46, 1.02]])


def _paint_hair_and_body(canvas: _Canvas, truth: Truth) -> None:
    n, end = truth.nuisances, _hair_end(truth)
    female = truth.attributes["gender"]
    waviness = _waviness(truth)
    y = np.concatenate([_OUTLINE_Y[end - 0.05 > _OUTLINE_Y], end - 0.05 + 0.05 * _TIP])
    width = _half_width_of_hair(y, n["hair_volume"]) + _wave(y, waviness)
    # The hair ends in a round tip, which is the same for every waviness.
    tip = np.clip((end - y) / 0.05, 0, 1)
    outer = width - 0.045 * (1 - np.sqrt(1 - (1 - tip) ** 2))
    canvas.fill("back_hair", _mirrored(outer, y))

    neck = 0.098 - 0.018 * female
    canvas.fill("clothes", _mirrored(_SHOULDERS_RIGHT[:, 0], _SHOULDERS_RIGHT[:, 1]))
    base = 0.915 + 0.03 * n["neckline"]
    canvas.fill("clothes_trim", _ellipse(0.5, base - 0.02, neck + 0.053, 0.075))
    canvas.fill("skin", _ellipse(0.5, base - 0.02, neck + 0.035, 0.055))
    canvas.fill("skin", _mirrored(np.array([neck, neck + 0.012]), np.array([0.7, base])))
    canvas.fill("neck_shadow", _mirrored(np.array([neck, neck, 0.0]), np.array([0.7, 0.88, 0.925])))

    # Two locks of hair lie in front of the shoulders. The waves of their inner edge, which the face partly covers, are
    # smaller.
    inside = 0.165 + 0.3 * _wave(y, waviness) + 0.045 * (1 - np.sqrt(1 - (1 - tip) ** 2))
    low = y > 0.3
    y, outer, inside = y[low], outer[low], inside[low]
    for side in (-1, 1):
        lock = np.concatenate([np.stack([0.5 + side * outer, y], 1), np.stack([0.5 + side * inside, y], 1)[::-1]])
        canvas.fill("hair", lock)


def _mirrored(half_width: Points, y: Points) -> Points:
    """Polygon that is symmetric about the middle: down its right side and up its left side."""
    right = np.stack([0.5 + half_width, y], 1)
    return np.concatenate([right, np.stack([0.5 - half_width, y], 1)[::-1]])


def _face_outline(truth: Truth) -> Points:
    n = truth.nuisances
    width = 0.236 + 0.012 * n["face_width"]
    chin = 0.862 + 0.016 * n["chin"]
    jaw = 0.74 + 0.16 * truth.attributes["gender"]  # below 1 the jaw is square, near 1 it is oval
    sine, cosine = _CIRCLE[:, 0], -_CIRCLE[:, 1]
    low = cosine < 0
    x = np.where(low, np.sign(sine) * np.abs(sine) ** jaw, sine) * width
    y = 0.5 - cosine * np.where(low, chin - 0.5, 0.32)
    return np.stack([x, y], 1)


def _paint_face(canvas: _Canvas, truth: Truth) -> None:
    outline = _face_outline(truth)
    canvas.fill("jaw_shadow", outline + np.array([0.5, 0.0]))
    canvas.fill("skin", (outline - np.array([0.0, 0.5])) * np.array([0.975, 0.965]) + 0.5)


def _hairline(truth: Truth, x: Points) -> Points:
    """Height y of the lower edge of the fringe at x (relative to the middle); it is parted on one side."""
    parting = (truth.nuisances["parting"] - 0.5) * 0.24
    reach = np.where(x < parting, parting + 0.25, 0.25 - parting)
    away = np.minimum(np.abs(x - parting) / reach, 1)
    scallop = 0.4 * _WAVE_HEIGHT * _waviness(truth) * np.sin(away * 15.0) * away
    return 0.212 + 0.19 * away**1.35 + scallop


def _paint_fringe(canvas: _Canvas, truth: Truth) -> None:
    x = np.linspace(-0.232, 0.232, 33)
    edge = _hairline(truth, x)
    canvas.fill("hair_shadow", _strip(x + 0.5, edge + 0.016, edge - 0.03))
    y = _OUTLINE_Y[_OUTLINE_Y < 0.46]
    width = _half_width_of_hair(y, truth.nuisances["hair_volume"]) + _wave(y, _waviness(truth))
    x = np.linspace(-0.25, 0.25, 33)
    edge = _hairline(truth, x)
    top = _mirrored(width, y)
    # The outline runs from the right temple over the crown to the left temple, and back along the hairline.
    outline = np.concatenate([top[: len(y)][::-1], top[len(y) :][::-1]])
    canvas.fill("hair", np.concatenate([outline, np.stack([x + 0.5, edge], 1)]))


def _stroke(x: Points, y: Points, thickness: float | Points) -> Points:
    """Polygon of a line whose ends are thinner than its middle."""
    half = 0.5 * thickness * (1 - 0.75 * np.linspace(-1, 1, len(x)) ** 2)
    return _strip(x, y - half, y + half)


def _paint_creases(canvas: _Canvas, truth: Truth, pose: _Pose) -> None:
    """Draws the wrinkles of an older face: on the forehead, beside and below the eyes, and beside the mouth."""
    if truth.attributes["age"] == 0:
        return
    for height, reach in ((0.285, 0.1), (0.322, 0.125)):
        x = _SPAN * reach
        canvas.fill("crease", pose(_stroke(x, height - 0.012 * np.cos(_SPAN * 4), 0.014), 0.036))
    for side in (-1, 1):
        x = side * (_EYE_X + 0.06 * _SPAN)
        canvas.fill("crease", pose(_stroke(x, 0.545 + 0.014 * (1 - _SPAN**2), 0.013), 0.036))
        for drop in (-0.022, 0.0, 0.022):
            x, y = side * np.array([0.196, 0.226]), _EYE_Y + np.array([0.4, 1.5]) * drop
            taper = np.array([0.006, 0.003])
            canvas.fill("crease", pose(_strip(x, y - taper, y + taper), 0.03))
        along = np.linspace(0, 1, 9)
        fold = np.stack([side * (0.062 + 0.058 * along**0.8), 0.60 + 0.115 * along], 1)
        width = 0.006 * np.sin(math.pi * np.clip(along, 0.1, 0.95))[:, None] * [1.0, 0.3]
        canvas.fill("crease", pose(np.concatenate([fold - width, (fold + width)[::-1]]), 0.045))


_NOSE_RIGHT = np.array([[0.017, 0.448], [0.018, 0.5], [0.026, 0.55], [0.043, 0.578], [0.045, 0.599], [0.03, 0.609]])
_NOSE = np.concatenate([_NOSE_RIGHT, [[0.0, 0.618]], _NOSE_RIGHT[::-1] * np.array([-1, 1])])
_NOSE_DEPTH = 0.042 + 0.045 * np.clip((_NOSE[:, 1] - 0.44) / 0.16, 0, 1)


def _paint_nose(canvas: _Canvas, pose: _Pose) -> None:
    canvas.fill("nose", pose(_NOSE, _NOSE_DEPTH))
    bottom = np.concatenate([_NOSE[3:10], [[-0.02, 0.598], [0.0, 0.604], [0.02, 0.598]]])
    canvas.fill("nose_shadow", pose(bottom, 0.087))
    canvas.fill("nose_light", pose(_ellipse(-0.004, 0.572, 0.014, 0.016), 0.09))
    for side in (-1, 1):
        canvas.fill("nostril", pose(_ellipse(side * 0.021, 0.605, 0.009, 0.006), 0.087))


def _paint_mouth(canvas: _Canvas, truth: Truth, pose: _Pose) -> None:
    """Draws the lips and the inner mouth.

    The lips keep their thickness when the mouth opens or widens, and a smile only moves whole columns up or down, so
    that the share of the inner mouth depends on its height alone.
    """
    n = truth.nuisances
    height = _mouth_height(truth)
    half = 0.106 + 0.01 * n["mouth_width"]
    smile = (0.012 + 0.018 * n["smile"]) * (1 - _SPAN**2)
    bulge = 1 - _SPAN**2
    x = half * _SPAN
    line = 0.674 + smile
    inner = bulge**0.6
    top = line
    bottom = line + height * inner
    bow = 0.031 * bulge**0.6 * (1 - 0.28 * np.exp(-((_SPAN / 0.22) ** 2)))
    depth = 0.046

    def band(upper: Points, lower: Points) -> Points:
        return pose(_strip(x, upper, lower), depth)

    canvas.fill("lower_lip", band(bottom - 0.004, bottom + 0.038 * bulge**0.6))
    canvas.fill("lip_light", pose(_ellipse(0.0, float(bottom.max()) + 0.0125, 0.026, 0.0055), depth))
    canvas.fill("upper_lip", band(top - bow, top + 0.004))
    canvas.fill("inner_mouth", band(top, bottom))
    opening = max(height - 0.022, 0.0)
    if opening > 0:
        canvas.fill("teeth", band(top + 0.001, top + 0.001 + 0.5 * opening * inner))
        drop = max(height - 0.045, 0.0)
        if drop > 0:
            tongue = np.clip(bulge - 0.35, 0, 1) ** 0.6
            canvas.fill("tongue", band(bottom - 0.6 * drop * tongue, bottom - 0.001))


def _paint_eyes(canvas: _Canvas, truth: Truth, pose: _Pose) -> list[Points]:
    """Draws eyes and brows.

    Returns:
        The polygons of the lashes. They must not change the parsing map and are therefore drawn after it was read.
    """
    female = truth.attributes["gender"]
    height = _eye_height(truth)
    lens = 1 - np.abs(_SPAN) ** 2.3
    depth = 0.034
    lashes: list[Points] = []
    for side, name in ((-1, "left"), (1, "right")):
        outwards = side * _SPAN
        corner = _EYE_Y - 0.006 * outwards  # the outer corner is a little higher
        x = side * _EYE_X + _EYE_HALF_WIDTH * _SPAN
        upper, lower = corner - 0.56 * height * lens, corner + 0.44 * height * lens
        canvas.fill(f"{name}_white", pose(_strip(x, upper, lower), depth))
        canvas.fill(f"{name}_shade", pose(_strip(x, upper, upper + 0.22 * height * lens), depth))
        gaze = side * _EYE_X + 0.008 * pose.turn
        for part, radius, aside, up in (
            ("iris", 0.040, 0.0, 0.0),
            ("pupil", 0.021, 0.0, 0.0),
            ("glint", 0.0125, 0.014, 0.014),
        ):
            disc = _ellipse(gaze - aside, _EYE_Y - 0.004 - up, radius, radius)
            # The lids cover the rest of the disc.
            disc[:, 1] = np.clip(disc[:, 1], np.interp(disc[:, 0], x, upper), np.interp(disc[:, 0], x, lower))
            canvas.fill(f"{name}_{part}", pose(disc, depth))

        thick = 0.011 + 0.008 * female
        wing = 0.016 * female * np.clip(outwards - 0.55, 0, 1)
        lid = thick * (0.45 + 0.55 * np.clip(outwards + 0.4, 0, 1)) + 0.35 * thick
        lashes.append(pose(_strip(x, upper - lid * (1 - 0.6 * outwards**8) - wing, upper), depth))
        lashes.append(pose(_strip(x, lower, lower + 0.005 * lens), depth))
        if female:
            tip = np.array([[0.060, -0.02], [0.092, -0.030], [0.074, 0.003]])
            tip[:, 1] -= 0.15 * height
            lashes.append(pose(tip * np.array([side, 1]) + np.array([side * _EYE_X, _EYE_Y]), depth))

        arch = (0.010 + 0.010 * female) * (1 - (_SPAN - 0.25 * side) ** 2)
        brow_y = 0.368 - 0.004 * female - arch + 0.004 * outwards
        thickness = (0.036 - 0.012 * female) * (1.05 - 0.35 * outwards)
        canvas.fill(f"{name}_brow", pose(_stroke(side * _EYE_X + 0.08 * _SPAN, brow_y, thickness), 0.036))
    return lashes


_RIM = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.75
_RIM = np.concatenate([_RIM, _RIM[:1]])


def _paint_glasses(canvas: _Canvas, pose: _Pose) -> None:
    for side in (-1, 1):
        middle = np.array([side * _EYE_X, _EYE_Y + 0.006])
        outer, inner = _RIM * np.array([0.104, 0.080]) + middle, _RIM * np.array([0.083, 0.059]) + middle
        canvas.fill("frame", pose(np.concatenate([outer, inner[::-1]]), 0.04))  # a ring, cut open at one point
        arm = np.array([[0.215, 0.437], [0.243, 0.428], [0.243, 0.446], [0.215, 0.457]])
        canvas.fill("frame", pose(arm * np.array([side, 1]), 0.02))
    bridge = np.array([[-0.022, 0.445], [0.0, 0.438], [0.022, 0.445], [0.022, 0.465], [0.0, 0.457], [-0.022, 0.465]])
    canvas.fill("frame", pose(bridge, 0.042))


# --- colour -----------------------------------------------------------------------------------------------------------

_SKIN_STOPS = (0.0, 0.3, 0.6, 0.85, 1.0)
_SKIN_RAMP = ((255, 222, 198), (244, 200, 166), (224, 168, 128), (178, 120, 86), (140, 90, 64))
_IRIS_STOPS = (0.0, 0.35, 0.65, 1.0)
_IRIS_RAMP = ((112, 66, 34), (104, 112, 52), (52, 124, 128), (58, 104, 176))


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
    n, level = truth.nuisances, _hair_level(truth)
    warmth = 0.6 + 0.5 * n["hair_warmth"]
    chroma = min(level, 0.5 * level + 48, 1.6 * (255 - level)) * warmth
    red, golden = np.array([0.50, -0.14, -0.36]), np.array([0.34, 0.04, -0.38])
    # Dark hair with a golden tone would look green, and bright hair with a red tone pink.
    gold = 0.7 * n["hair_tone"] + min(max((level - 90) / 80, 0), 1) * (1 - 0.7 * n["hair_tone"])
    colour: Points = level + chroma * (red + gold * (golden - red))
    return colour


def _palette(truth: Truth) -> bytes:
    n, female, older = truth.nuisances, truth.attributes["gender"], truth.attributes["age"]
    skin = _ramp(n["skin"], _SKIN_STOPS, _SKIN_RAMP)
    shadow = skin * [0.84, 0.74, 0.70]
    hair = _hair_colour(truth)
    clothes = 95 + 95 * n["clothes_light"] + 48 * _hue(n["clothes_hue"])
    iris = _ramp(n["iris"], _IRIS_STOPS, _IRIS_RAMP)
    lips = (0.35 * skin + 0.65 * np.array([206.0, 40, 62])) if female else skin * [0.82, 0.60, 0.56]
    brow = np.array([206.0, 204, 200]) if older else 0.55 * np.minimum(hair, 150) + np.array([8.0, 4, 2])
    colours: dict[str, Points] = {
        "background": np.zeros(3),
        "clothes": clothes,
        "clothes_trim": clothes * 0.78,
        "back_hair": hair - 14,
        "hair": hair,
        "skin": skin,
        "neck_shadow": skin * [0.80, 0.68, 0.64],
        "hair_shadow": shadow,
        "jaw_shadow": skin * [0.90, 0.83, 0.80],
        "crease": skin * [0.66, 0.54, 0.50],
        "nose": skin * [0.955, 0.89, 0.86],
        "nose_shadow": skin * [0.78, 0.62, 0.57],
        "nose_light": 0.8 * skin + 50,
        "nostril": skin * [0.5, 0.36, 0.34],
        "upper_lip": lips * 0.86,
        "inner_mouth": np.array([92.0, 22, 30]),
        "teeth": np.array([250.0, 246, 240]),
        "tongue": np.array([206.0, 92, 96]),
        "lower_lip": lips,
        "lip_light": 0.72 * lips + 68,
        "lash": np.array([44.0, 26, 28]),
        "frame": np.array([38.0, 32, 44]),
    }
    for side in ("left", "right"):
        colours |= {f"{side}_brow": brow, f"{side}_iris": iris, f"{side}_white": np.array([252.0, 250, 248])}
        colours |= {f"{side}_pupil": np.array([22.0, 16, 18]), f"{side}_glint": np.array([255.0, 255, 255])}
        colours[f"{side}_shade"] = np.array([208.0, 206, 216])
    table = np.zeros((256, 3))
    table[: len(_NUMBERS)] = [colours[name] for name in _NUMBERS]
    return np.clip(table + 0.5, 0, 255).astype(np.uint8).tobytes()


# --- smooth functions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Pixel centres of the image (x: 1×R, y: R×1), and where its top half is background for every truth (R×R)."""

    x: FloatArray
    y: FloatArray
    clear: npt.NDArray[np.bool_]


@lru_cache(maxsize=8)
def _frame(resolution: int) -> _Frame:
    centres = ((np.arange(resolution) + 0.5) / resolution).astype(np.float32)
    x, y = centres[None, :], centres[:, None]
    clear = (np.abs(x - 0.5) > _half_width_of_hair(y, 0.5) + 0.01) & (y < 0.5)
    return _Frame(x, y, clear)


_BOKEH = np.array(
    # x, y, radius, brightness
    [
        [0.07, 0.10, 0.095, 1.0],
        [0.92, 0.09, 0.080, 0.8],
        [0.28, 0.02, 0.060, 0.6],
        [0.95, 0.34, 0.085, 1.0],
        [0.04, 0.40, 0.070, 0.7],
        [0.73, 0.03, 0.050, 1.0],
        [0.06, 0.66, 0.080, 0.9],
        [0.95, 0.62, 0.070, 0.7],
    ],
    np.float32,
)


def _background(truth: Truth, frame: _Frame) -> FloatArray:
    """Background: a soft gradient with discs of light, R×R×3.

    The pattern is normalised to mean 0 and standard deviation 1 over the part of the top half that no hair covers
    (trimmed as in the score), so that mean and deviation of the background are those of the attributes for every
    pattern.
    """
    n = truth.nuisances
    turn = np.float32(2 * math.pi)
    across, down, radius = (_BOKEH[:, column, None, None] for column in range(3))
    x = frame.x[None] - across - np.float32(0.03) * np.sin(turn * (n["bokeh_x"] + down))
    y = frame.y[None] - down - np.float32(0.04) * np.sin(turn * (n["bokeh_y"] + across))
    distance = np.sqrt(x * x + y * y)
    discs = np.clip((radius - distance) * np.float32(40) + np.float32(0.5), 0, 1)
    slope = frame.x * np.float32(n["bokeh_x"] - 0.5) - frame.y
    pattern = np.tensordot(_BOKEH[:, 3], discs, 1) + np.float32(0.9) * slope
    seen = np.sort(pattern[frame.clear])
    seen = seen[int(0.05 * len(seen)) : int(0.95 * len(seen))]
    pattern = (pattern - seen.mean()) / max(float(seen.std()), 1e-6)
    level = _background_level(truth) + _background_spread(truth) * pattern
    tint = (10 + 22 * n["tint_strength"]) * _hue(n["tint_hue"])
    glow = 5.0 * _hue(n["tint_hue"] + 0.17)
    colour = level[..., None] + tint.astype(np.float32) + pattern[..., None] * glow.astype(np.float32)
    clipped: FloatArray = np.clip(colour, 0, 255)
    return clipped


_STRAND_CYCLES = 5.4
_STRAND_DEPTH = 15.0


def _strands(truth: Truth, frame: _Frame) -> FloatArray:
    """Brightness of the strands and of the shine at the crown, which is added to the hair: R×R, mean about 0.

    Strands run parallel to the outline: the brightness of straight hair varies horizontally only, that of wavy hair
    also vertically.
    """
    waviness = _waviness(truth)
    parting = np.float32((truth.nuisances["parting"] - 0.5) * 0.24)
    y = frame.y
    width = np.maximum(_half_width_of_hair(y, truth.nuisances["hair_volume"]), 0.05).astype(np.float32)
    middle = np.float32(0.5) + parting * np.clip((np.float32(0.36) - y) / np.float32(0.2), 0, 1)
    away = np.abs(frame.x - middle) - _wave(y, waviness).astype(np.float32)
    phase = away * (np.float32(2 * math.pi * _STRAND_CYCLES) / width)
    # Near the crown the strands would be finer than a pixel, so they fade out.
    strand = np.cos(phase) * np.clip((width - np.float32(0.12)) / np.float32(0.18), 0, 1)
    curl = np.cos((y - 0.03) * (2 * math.pi / _WAVE_LENGTH) - 1.2) * np.clip((y - 0.15) / 0.2, 0, 1)
    ring_x, ring_y = (frame.x - np.float32(0.5)) / np.float32(0.38), (y - np.float32(0.42)) / np.float32(0.355)
    ring = np.sqrt(ring_x**2 + ring_y**2)
    shine = 30 * np.exp(-(((ring - 0.80) / 0.055) ** 2)) - 16 * np.exp(-(((ring - 0.62) / 0.08) ** 2))
    shine = shine * np.clip((0.40 - y) / 0.12, 0, 1)
    shade = _STRAND_DEPTH * (1 - 0.25 * waviness) * strand + 13.0 * waviness * curl.astype(np.float32)
    shade = shade + shine * (1 + 0.35 * strand)
    return np.asarray(shade, np.float32)


def _complexion(truth: Truth, pose: _Pose, frame: _Frame) -> FloatArray:
    """Blush, shading and stubble, which are added to the skin: R×R×3."""
    female, older = truth.attributes["gender"], truth.attributes["age"]
    x = frame.x - np.float32(0.5 + 0.03 * pose.turn)
    y = frame.y
    cheeks = np.exp(-(((np.abs(x) - 0.145) / 0.055) ** 2)) * np.exp(-(((y - 0.605) / 0.045) ** 2))
    strength = np.float32(0.6 + 0.7 * female - 0.3 * older)
    blush = cheeks.astype(np.float32)[..., None] * np.array([2, -26, -20], np.float32) * strength
    side = (np.clip(np.abs(x) - 0.1, 0, 1) ** 2 * -900.0 * (y < 0.9)).astype(np.float32)
    light = 9 * np.exp(-((x / 0.16) ** 2)) * np.exp(-(((y - 0.4) / 0.2) ** 2)) + side
    skin: FloatArray = blush + light[..., None].astype(np.float32)
    if not female:
        jaw = np.exp(-(((y - 0.79) / 0.085) ** 4)) * np.exp(-((x / 0.2) ** 4))
        skin = skin + jaw.astype(np.float32)[..., None] * np.array([-34, -24, -14], np.float32)
    return skin


def _degraded(image: FloatArray, frame: _Frame) -> FloatArray:
    """Lowers the quality of an image: the upper part is blurred and has streaks, as in failed images of a GAN."""
    resolution = len(image)
    rows = -(-resolution * 3 // 8)
    part = Image.fromarray(np.clip(image[:rows] + 0.5, 0, 255).astype(np.uint8))
    blurred = part.resize((6, 3), Image.Resampling.BOX).resize(part.size, Image.Resampling.BICUBIC)
    streaks = 20 * np.sin(2 * math.pi * (3.5 * frame.x + 6 * frame.y[:rows] + 0.25 * np.sin(9 * frame.x)))
    weight = np.clip((0.36 - frame.y[:rows]) / 0.08, 0, 1)[..., None]
    bad = np.asarray(blurred, np.float32) + streaks[..., None]
    result = image.copy()
    result[:rows] += weight * (bad - image[:rows])
    return result

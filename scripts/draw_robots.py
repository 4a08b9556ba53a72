"""Draws robots, a second drawn set that is no human face, into a folder: PNG images and a table of their attributes.

Usage::

    python scripts/draw_robots.py robots --count 5000 --size 64 --seed 0

The folder then looks as a user's own data would: ``images/00000.png`` … and ``labels.csv``, which names each image
(``path``, relative to the table) and the values from which it was drawn:

- ``lamp``, ``turn``, ``mouth``: steered attributes, z-scores from N(0, 1). What is drawn is the physical value beside
  them: ``lamp_light`` (0 off … 1 bright; at most 3 % of the picture), ``turn_degrees`` (−40 … 40, positive to the
  image's right; it changes every outline of the head) and ``mouth_opening`` (0 closed … 1 wide).
- ``visor``: 0 or 1, worn.
- ``body_hue`` (degrees) and ``brightness`` (of the background, 0 … 1): continuous, uniform.

Each attribute, and each property that varies without being one, is drawn from a random stream of its own, so that
robot *i* of a seed stays the same when others are added or drawn.

Shapes are polygons in the unit square (x to the right, y downwards), drawn in colour on a supersampled canvas. The
head is a solid: its parts have a depth, are turned about the neck, and are seen in perspective.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ohlora.utils import checks, counted, images
from ohlora.utils.commands import command
from ohlora.utils.files import write_rows

Points = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]

STEERED: Mapping[str, tuple[str, float, float]] = MappingProxyType(
    {"lamp": ("lamp_light", 0.0, 1.0), "turn": ("turn_degrees", -40.0, 40.0), "mouth": ("mouth_opening", 0.0, 1.0)}
)
"""Steered attribute → name, lowest and highest value of the physical quantity that it moves."""

VISOR_RATE = 0.3
"""Probability that a robot wears a visor."""

HUES = (20.0, 320.0)
"""Lowest and highest hue of a body, in degrees of OKLCH."""

COLUMNS = ("body_hue", "brightness")
"""Looks that are columns of the table."""

NUISANCES = (
    "body_chroma",
    "body_light",
    "accent_hue",
    "background_hue",
    "background_chroma",
    "disc_x",
    "disc_size",
    "plate",
    "glow_hue",
    "head_width",
    "head_height",
    "head_boxiness",
    "head_taper",
    "eye_size",
    "eye_gap",
    "eye_height",
    "eyelid",
    "eyelid_tilt",
    "gaze",
    "cheeks",
    "mouth_width",
    "mouth_curve",
    "ear_size",
    "ear_length",
    "horn_length",
    "horn_lean",
    "mast",
    "shoulders",
)
"""Looks that vary without being attributes."""

MIN_SIZE = 16
"""Smallest height and width, in pixels, at which robots are drawn."""

_EXTREME = 1.2816
"""The z-score beyond which a tenth of N(0, 1) lies."""


@dataclass(frozen=True)
class Robot:
    """The values from which a robot is drawn.

    Attributes:
        steered: Name in :data:`STEERED` → z-score, any finite number.
        visor: Whether it wears a visor.
        looks: Name in :data:`COLUMNS` or :data:`NUISANCES` → number from 0 to 1.
    """

    steered: Mapping[str, float]
    visor: bool
    looks: Mapping[str, float]

    def physical(self, name: str) -> float:
        """The physical value of a steered attribute: linear in the z-score, and constant in both outer tenths."""
        _, low, high = STEERED[name]
        share = 0.5 + 0.5 * min(max(self.steered[name] / _EXTREME, -1.0), 1.0)
        return low + share * (high - low)

    @property
    def body_hue(self) -> float:
        """Hue of the body, in degrees of OKLCH."""
        return HUES[0] + self.looks["body_hue"] * (HUES[1] - HUES[0])

    def row(self) -> dict[str, Any]:
        """Its columns in the table, without that of the image."""
        return {
            **{name: round(z, 4) for name, z in self.steered.items()},
            "visor": int(self.visor),
            "body_hue": round(self.body_hue, 2),
            "brightness": round(self.looks["brightness"], 4),
            **{STEERED[name][0]: round(self.physical(name), 4) for name in self.steered},
        }


def sample(seed: int, index: int) -> Robot:
    """Draws the values of one robot, which depend on (seed, index) alone, each from a stream of its own.

    Args:
        seed: Seed of the population, ≥ 0.
        index: Number of the robot in the population, ≥ 0.
    """

    def stream(name: str) -> np.random.Generator:
        return counted.generator(seed, f"robot {name}", index)

    return Robot(
        {name: float(stream(name).standard_normal()) for name in STEERED},
        bool(stream("visor").random() < VISOR_RATE),
        {name: float(stream(name).random()) for name in (*COLUMNS, *NUISANCES)},
    )


def draw(robot: Robot, size: int) -> ByteArray:
    """Draws a robot, ``size`` pixels wide and high.

    Returns:
        RGB, size×size×3 uint8.
    """
    head = _Head(robot)
    canvas = _Canvas(size, _colours(robot))
    _paint_background(canvas, robot)
    _paint_body(canvas, robot)
    bulb = _paint_mast(canvas, head, robot)
    _paint_skull(canvas, head, robot)
    _paint_mouth(canvas, head, robot)
    _paint_eyes(canvas, head, robot)
    return _lit(canvas.reduced(), bulb, robot.physical("lamp"))


# --- colour -----------------------------------------------------------------------------------------------------------

_OKLAB_TO_LMS = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _srgb(oklch: Points) -> Points:
    """Converts N×3 (lightness 0…1, chroma, hue in degrees) to sRGB, N×3, 0…255, clipped (OKLab: Ottosson 2020)."""
    hue = np.radians(oklch[:, 2])
    lab = np.stack([oklch[:, 0], oklch[:, 1] * np.cos(hue), oklch[:, 1] * np.sin(hue)], axis=1)
    linear = np.clip((lab @ _OKLAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0, 1)
    srgb: Points = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb


def _step(value: float, low: float, high: float) -> float:
    """Smooth step from 0 (at ``low`` and below) to 1 (at ``high`` and above)."""
    x = min(max((value - low) / (high - low), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _colours(robot: Robot) -> dict[str, tuple[int, ...]]:
    """Paint → its colour in sRGB."""
    looks, hue = robot.looks, robot.body_hue
    # Yellow is pale and blue is deep; at one lightness yellow would look like mud.
    light = 0.62 + 0.10 * looks["body_light"] + 0.08 * math.cos(math.radians(hue - 100))
    chroma = 0.085 + 0.075 * looks["body_chroma"]
    accent = hue + 130 + 100 * looks["accent_hue"]
    back = 130 + 225 * looks["background_hue"]  # from green over blue to rose: dark yellow would be dull
    back_light, back_chroma = 0.48 + 0.38 * looks["brightness"], 0.04 + 0.06 * looks["background_chroma"]
    glow = 85 + 150 * looks["glow_hue"]
    pale = _step(looks["plate"], 0.38, 0.48)  # dark plates and pale ones, and few between
    paints = {
        "ink": (0.25, 0.045, hue),
        "body": (light, chroma, hue),
        "body_shade": (light - 0.14, chroma * 0.95, hue - 8),
        "body_light": (min(light + 0.13, 0.96), chroma * 0.6, hue + 6),
        "accent": (0.72, 0.14, accent),
        "accent_shade": (0.57, 0.13, accent - 8),
        "accent_light": (0.86, 0.08, accent),
        "steel": (0.78, 0.015, hue + 180),
        "steel_shade": (0.58, 0.02, hue + 180),
        "plate": (0.94, 0.02, hue),
        "plate_shade": (0.82, 0.045, hue),
        "background": (back_light, back_chroma, back),
        "disc": (back_light + 0.085, back_chroma * 1.15, back + 14),
        "lens": (0.24, 0.04, glow),
        "iris": (0.80, 0.15, glow),
        "iris_light": (0.95, 0.07, glow),
        "glint": (1.0, 0.0, 0.0),
        "cavity": (0.27, 0.07, 30.0),
        "ember": (0.70, 0.18, 50.0),
        "ember_light": (0.88, 0.15, 85.0),
        "cheek": (0.50 + 0.26 * pale, 0.12, 20.0),
        "bulb": (0.40, 0.07, 60.0),
        "bulb_shade": (0.31, 0.06, 50.0),
    }
    colours = dict(zip(paints, _srgb(np.array([*paints.values()])), strict=True))
    for name, dark in (("plate", (35, 43, 64)), ("plate_shade", (20, 27, 46))):
        colours[name] = colours[name] * pale + np.array(dark) * (1 - pale)
    return {name: tuple(np.rint(colour).astype(int).tolist()) for name, colour in colours.items()}


# --- shapes -----------------------------------------------------------------------------------------------------------

_ANGLES = np.linspace(0, 2 * math.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.sin(_ANGLES), -np.cos(_ANGLES)], axis=1)
_SPAN = np.linspace(-1, 1, 15)
_LINE = 0.0155
"""Width of an outline."""


def _rounded(exponent: float) -> Points:
    """Superellipse of half-width and half-height 1: a circle for exponent 2, boxier above; 40×2."""
    shape: Points = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2 / exponent)
    return shape


def _grown(points: Points, by: float) -> Points:
    """A polygon whose edge is moved outwards."""
    ring = np.concatenate([points[-1:], points, points[:1]])
    along = ring[2:] - ring[:-2]
    area = float(points[:, 0] @ along[:, 1])  # its sign tells which side is outside
    length = np.maximum(np.sqrt(along[:, 0] ** 2 + along[:, 1] ** 2), 1e-9)
    grown: Points = points + along[:, ::-1] * np.array([by, -by]) * (math.copysign(1, area) / length)[:, None]
    return grown


def _scaled(points: Points, by: float, towards: tuple[float, float]) -> Points:
    """A smaller copy of a shape within it, near a point that is given as fractions of its box."""
    low, high = points.min(axis=0), points.max(axis=0)
    anchor = low + (high - low) * np.array(towards)
    scaled: Points = anchor + by * (points - anchor)
    return scaled


class _Canvas:
    """A supersampled canvas in colour."""

    def __init__(self, size: int, paints: Mapping[str, tuple[int, ...]]) -> None:
        self._factor = max(4, -(-384 // size))
        self._size = size * self._factor
        self._paints = paints
        self._image = Image.new("RGB", (self._size, self._size), paints["background"])
        self._draw = ImageDraw.Draw(self._image)

    def fill(self, paint: str, points: Points) -> None:
        """Fills a polygon of N×2 points."""
        self._draw.polygon(self._pixels(points), fill=self._paints[paint])

    def _pixels(self, points: Points) -> list[float]:
        pixels: list[float] = np.rint(points * self._size - 0.5).ravel().tolist()
        return pixels

    def part(self, paint: str, points: Points, line: float = _LINE) -> None:
        """Fills a polygon and draws its outline around it."""
        self.fill("ink", _grown(points, line))
        self.fill(paint, points)

    def ring(self, paint: str, outer: Points, inner: Points) -> None:
        """Fills what lies between two closed lines of N×2 points each."""
        self.fill(paint, np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]))

    def solid(self, paint: str, points: Points, rim: float = 0.86) -> None:
        """Draws a convex part in two tones, lit from the upper left, with its outline."""
        self.part(f"{paint}_shade", points)
        self.fill(paint, _scaled(points, rim, (0.18, 0.12)))

    def tint(self, paint: str, points: Points, strength: float) -> None:
        """Lays a colour over a polygon; what is below shines through."""
        low = np.floor(points.min(axis=0) * self._size).astype(int)
        width, height = (np.ceil(points.max(axis=0) * self._size).astype(int) - low + 1).tolist()
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon(self._pixels(points - low / self._size), fill=round(255 * strength))
        left, top = low.tolist()
        self._image.paste(self._paints[paint], (left, top, left + width, top + height), mask)

    def reduced(self) -> npt.NDArray[np.float32]:
        """The picture at its final size: size×size×3, 0…255."""
        return np.asarray(self._image.reduce(self._factor), np.float32)


_CENTRE_Y = 0.535
_DEPTH = 0.8
"""Depth of the head relative to its width."""
_DEPTH_EXPONENT = 3.2
"""Exponent of the superellipse that is the head as seen from above."""
_PIVOT = 0.07
"""How far the middle of the head lies before the axis of the neck."""
_DISTANCE = 2.4
"""Distance of the camera."""


class _Head:
    """A superellipsoid that turns about a vertical axis; x and y are relative to its middle, z points to the viewer."""

    def __init__(self, robot: Robot) -> None:
        looks = robot.looks
        angle = math.radians(robot.physical("turn"))
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.width = 0.275 + 0.05 * looks["head_width"]
        self.height = 0.225 + 0.045 * looks["head_height"]
        self._exponent = 2.3 + 3.2 * looks["head_boxiness"] ** 1.5
        self._taper = 0.24 * (looks["head_taper"] - 0.4)

    def half_width(self, y: float | Points) -> Points:
        """Half the width at height y."""
        v = np.clip(np.asarray(y) / self.height, -1, 1)
        width = (1 - np.abs(v) ** self._exponent) ** (1 / self._exponent) * (1 + self._taper * v)
        return np.asarray(self.width * width, np.float64)

    def seen(self, x: Points, y: Points, z: Points | float) -> Points:
        """Where points of the head are in the picture: N×2."""
        forward = z + _PIVOT
        aside = x * self.cos + forward * self.sin
        scale = _DISTANCE / (_DISTANCE + _PIVOT - (forward * self.cos - x * self.sin))
        return np.stack([0.5 + aside * scale, _CENTRE_Y + y * scale], axis=1)

    def front(self, points: Points, lift: float = 0.0) -> Points:
        """Where a drawing on the head's front is in the picture: N×2 to N×2.

        Args:
            points: x and y on the front as it is seen when the head is not turned.
            lift: How far the points stand out from the front.
        """
        x, y = points[:, 0], points[:, 1]
        return self.seen(x, y, self._front_depth(x, y) + lift)

    def disc(self, x: float, y: float, shape: Points, lift: float) -> Points:
        """Where a flat plate before the front is in the picture; ``shape`` is relative to its middle."""
        return self.seen(x + shape[:, 0], y + shape[:, 1], self._front_depth(x, y) + lift)

    def _front_depth(self, x: float | Points, y: float | Points) -> Points:
        width = self.half_width(y)
        reach = np.clip(np.abs(x) / np.maximum(width, 1e-6), 0, 1)
        depth: Points = _DEPTH * width * (1 - reach**_DEPTH_EXPONENT) ** (1 / _DEPTH_EXPONENT)
        return depth

    def outline(self) -> Points:
        """Outline of the turned head in the picture."""
        rise = np.sin(np.linspace(-math.pi / 2, math.pi / 2, 41))
        y = self.height * np.sign(rise) * np.abs(rise) ** (2 / self._exponent)
        width = self.half_width(y)
        around = _rounded(_DEPTH_EXPONENT)
        x = np.outer(width, around[:, 0]).ravel()
        z = np.outer(width * _DEPTH, around[:, 1]).ravel()
        points = self.seen(x, np.repeat(y, len(around)), z).reshape(len(y), len(around), 2)
        rows = np.arange(len(y))
        left = points[rows, points[..., 0].argmin(axis=1)]
        right = points[rows, points[..., 0].argmax(axis=1)]
        return np.concatenate([right, left[::-1]])


# --- parts ------------------------------------------------------------------------------------------------------------


def _paint_background(canvas: _Canvas, robot: Robot) -> None:
    looks = robot.looks
    middle = np.array([0.5 + 0.16 * (looks["disc_x"] - 0.5), 0.5])
    canvas.fill("disc", _CIRCLE * (0.38 + 0.07 * looks["disc_size"]) + middle)


def _paint_body(canvas: _Canvas, robot: Robot) -> None:
    for y, half in ((0.845, 0.085), (0.812, 0.075), (0.78, 0.075)):
        canvas.solid("steel", _rounded(4) * np.array([half, 0.017]) + np.array([0.5, y]), 0.8)
    half = 0.31 + 0.09 * robot.looks["shoulders"]
    canvas.solid("body", _rounded(2.5) * np.array([half, 0.25]) + np.array([0.5, 1.095]), 0.92)
    canvas.solid("accent", _rounded(3) * np.array([0.135, 0.027]) + np.array([0.5, 0.862]), 0.87)
    badge = np.array([0.5, 0.962])
    canvas.solid("steel", _CIRCLE * 0.05 + badge)
    canvas.fill("lens", _CIRCLE * 0.034 + badge)
    canvas.fill("iris", _CIRCLE * 0.025 + badge)
    canvas.fill("iris_light", _CIRCLE * 0.012 + badge - 0.007)


_BULB = 0.05
"""Radius of the lamp."""
_HALO = 0.094
"""Radius beyond which the lamp changes nothing: 2.8 % of the picture."""


def _paint_mast(canvas: _Canvas, head: _Head, robot: Robot) -> Points:
    """Draws the mast on top of the head and its lamp, which is off; returns the lamp's middle."""
    length = 0.05 + 0.035 * robot.looks["mast"]
    y = np.array([0.02, -length, -length - _BULB * 0.9]) - head.height
    foot, top, middle = head.seen(np.zeros(3), y, 0.0)
    aside = np.array([0.016, 0.0])
    canvas.part("steel", np.stack([foot - aside, top - aside * 0.7, top + aside * 0.7, foot + aside]))
    canvas.solid("accent", _rounded(3) * np.array([0.07, 0.034]) + foot, 0.8)
    canvas.solid("bulb", _CIRCLE * _BULB + middle, 0.8)
    centre: Points = middle
    return centre


def _lit(picture: npt.NDArray[np.float32], bulb: Points, light: float) -> ByteArray:
    """Adds the light of the lamp, whose core and halo grow from nothing, to a picture."""
    size = len(picture)
    low = np.maximum(np.floor((bulb - _HALO) * size), 0).astype(int)
    high = np.ceil((bulb + _HALO) * size).astype(int)
    place = (slice(low[1], high[1]), slice(low[0], high[0]))
    x, y = (((np.arange(size) + 0.5) / size)[place[1 - axis]] - bulb[axis] for axis in (0, 1))
    distance = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2)
    glass = np.clip((_BULB - distance) * size + 0.5, 0, 1) * light
    core = np.clip((_BULB * 0.9 * light - distance) * size + 0.5, 0, 1) * min(light * 6, 1.0)
    halo = 0.9 * np.clip((_HALO - distance) / (_HALO - _BULB), 0, 1) ** 0.8 * light
    lit = picture.copy()
    for weight, colour in ((halo, (255, 214, 84)), (glass, (255, 196, 40)), (core, (255, 248, 206))):
        lit[place] += weight[..., None] * (np.array(colour) - lit[place])
    rounded: ByteArray = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
    return rounded


def _paint_skull(canvas: _Canvas, head: _Head, robot: Robot) -> None:
    """Draws the head with its ears, crest and face plate."""
    ears = [_Ear(head, robot, side) for side in (-1, 1)]
    for ear in ears:
        if not ear.faces_viewer:
            ear.paint(canvas)
    outline = head.outline()
    canvas.part("body_shade", outline)
    canvas.fill("body", _scaled(outline, 0.91, (0.2, 0.1)))
    for ear in ears:
        if ear.faces_viewer:
            ear.paint(canvas)
    crest = np.linspace(-0.985, -0.3, 12) * head.height
    half = 0.045 - 0.012 * np.linspace(1, 0, 12)
    stripe = np.concatenate([np.stack([half, crest], 1), np.stack([-half, crest], 1)[::-1]])
    canvas.fill("accent", head.front(stripe))
    shine = np.stack([-0.62 * head.width + 0.10 * _SPAN, -0.72 * head.height - 0.03 * (1 - _SPAN**2)], 1)
    shine = np.concatenate([shine, (shine + np.array([0.0, 0.018]))[::-1]])
    canvas.fill("body_light", head.front(shine))
    plate = _rounded(3.4) * np.array([0.80 * head.width, 0.70 * head.height]) + np.array([0.0, 0.12 * head.height])
    plate[:, 0] = np.clip(plate[:, 0], -0.88 * head.half_width(plate[:, 1]), 0.88 * head.half_width(plate[:, 1]))
    canvas.part("plate_shade", head.front(plate))
    canvas.fill("plate", head.front(_scaled(plate, 0.93, (0.5, 1.0))))


class _Ear:
    """An ear: a cylinder whose axis runs from side to side, with a horn behind it.

    Attributes:
        faces_viewer: Whether its cap is seen, and nothing of it is behind the head. Where that changes, the ear is seen
            edge-on at the outline of the head, so that the order of drawing does not matter.
    """

    def __init__(self, head: _Head, robot: Robot, side: int) -> None:
        looks = robot.looks
        self._head, self._side, self._y = head, side, 0.02
        self._radius = 0.062 + 0.045 * looks["ear_size"]
        self._inner = side * (float(head.half_width(self._y)) + 0.022)
        self._outer = self._inner + side * (0.026 + 0.03 * looks["ear_length"])
        self._horn = self._radius + 0.17 * _step(looks["horn_length"], 0.2, 1.0)
        self._lean = side * (0.02 + 0.05 * looks["horn_lean"])
        # The cap is seen at an angle of its own, because of the perspective.
        self._tilt = side * (head.sin + self._inner * head.cos**2 / _DISTANCE)
        self.faces_viewer = self._tilt < 0

    def paint(self, canvas: _Canvas) -> None:
        """Draws the ear."""
        head, radius = self._head, self._radius
        along = np.sin(np.linspace(0, math.pi / 2, 12))
        middle = self._inner + self._side * 0.022 + self._lean * along**1.5
        half = 0.026 * np.sqrt(1 - along**4)
        x = np.concatenate([middle - half, (middle + half)[::-1]])
        y = self._y - self._horn * np.concatenate([along, along[::-1]])
        canvas.part("body_shade", head.seen(x, y, 0.0))
        rise, depth = radius * np.cos(_ANGLES[:21]), radius * np.sin(_ANGLES[:21])
        outward = math.copysign(1.0, self._tilt)
        rim = head.seen(np.full(21, self._outer), self._y - rise, outward * depth)
        foot = head.seen(np.full(21, self._inner), self._y + rise, -outward * depth)
        canvas.part("accent_shade", np.concatenate([rim, foot]))
        if self.faces_viewer:
            cap = head.seen(np.full(40, self._outer), self._y + radius * _CIRCLE[:, 1], radius * _CIRCLE[:, 0])
            canvas.fill("accent", cap)
            canvas.fill("accent_light", _scaled(cap, 0.45, (0.4, 0.4)))


def _paint_mouth(canvas: _Canvas, head: _Head, robot: Robot) -> None:
    """Draws the mouth: a steel rim around a dark slit, which opens downwards and shows a glow."""
    looks, opening = robot.looks, robot.physical("mouth")
    half, y = 0.085 + 0.03 * looks["mouth_width"], 0.37 * head.height
    bend = 0.006 + 0.024 * looks["mouth_curve"]
    gape = 0.36 * head.height * opening
    x = np.sin(0.5 * math.pi * _SPAN)
    bulge = np.cos(0.5 * math.pi * _SPAN) ** 0.7

    def band(wide: float, upper: Points, lower: Points) -> Points:
        """What lies between two heights, which are relative to the line of the closed mouth."""
        line = bend * (1 - x**2)
        edge = [np.stack([half * wide * x, line + upper], 1), np.stack([half * wide * x, line + lower], 1)[::-1]]
        return head.disc(0.0, y, np.concatenate(edge), 0.006)

    drop = gape * bulge
    canvas.part("steel", band(1 + 0.02 / half, -0.02 * bulge - 0.005, drop + 0.02 * bulge + 0.005))
    canvas.fill("cavity", band(1.0, -0.007 * bulge, drop + 0.007 * bulge))
    if opening > 0:
        canvas.fill("ember", band(0.84, 0.42 * drop, 0.98 * drop))
        canvas.fill("ember_light", band(0.55, 0.62 * drop, 0.94 * drop))


def _paint_eyes(canvas: _Canvas, head: _Head, robot: Robot) -> None:
    """Draws cheeks and lamp eyes with lids, and the visor over them."""
    looks = robot.looks
    radius = 0.072 + 0.02 * looks["eye_size"]
    gap = 0.1 + 0.02 * looks["eye_gap"] + 0.3 * (radius - 0.072)
    y = (-0.20 + 0.1 * looks["eye_height"]) * head.height
    for side in (-1, 1):
        cheek = _CIRCLE * np.array([0.036, 0.024]) * _step(looks["cheeks"], 0.2, 0.8)
        canvas.fill("cheek", head.front(cheek + np.array([side * 0.6 * head.width, 0.36 * head.height])))
        x = side * gap

        def disc(share: float, lift: float, aside: float = 0.0, up: float = 0.0, x: float = x) -> Points:
            return head.disc(x + aside, y - up, _CIRCLE * radius * share, lift)

        canvas.part("steel_shade", disc(1.0, 0.0))
        canvas.fill("steel", _scaled(disc(1.0, 0.012), 0.93, (0.2, 0.15)))
        canvas.fill("lens", disc(0.78, 0.012))
        aside = 0.013 * (2 * looks["gaze"] - 1)
        canvas.fill("iris", disc(0.60, 0.004, aside))
        canvas.fill("iris_light", disc(0.33, 0.004, aside))
        canvas.fill("glint", disc(0.2, 0.02, -0.25 * radius, 0.28 * radius))
        slope = side * 0.5 * (looks["eyelid_tilt"] - 0.5)
        for paint, drop in (("ink", 0.012), ("body_shade", 0.0)):
            lid = _CIRCLE * radius * 0.84
            edge = radius * (-1.1 + 0.85 * looks["eyelid"]) + slope * lid[:, 0] + drop
            lid[:, 1] = np.minimum(lid[:, 1], np.maximum(edge, -radius * 0.84 * np.abs(_CIRCLE[:, 1])))
            canvas.fill(paint, head.disc(x, y, lid, 0.02))
    if robot.visor:
        _paint_visor(canvas, head, y, radius + 0.02)


def _paint_visor(canvas: _Canvas, head: _Head, y: float, half: float) -> None:
    """Draws a band of tinted glass, which follows the front of the head, in a frame."""
    wide = 0.86 * float(head.half_width(abs(y) + half))

    def edge(by: float) -> Points:
        return head.front(_rounded(5) * np.array([wide - by, half - by]) + np.array([0.0, y]), 0.015)

    for side in (-1, 1):
        along = side * np.linspace(0.84, 0.985, 12) * float(head.half_width(y))
        upper, lower = (head.front(np.stack([along, np.full(12, y + rise)], 1)) for rise in (-0.022, 0.022))
        seen = int((side * upper[:, 0]).argmax()) + 1  # the rest of the strap is behind the head
        canvas.part("accent_shade", np.concatenate([upper[:seen], lower[:seen][::-1]]), 0.01)
    glass = edge(0.0)
    canvas.tint("accent", glass, 0.45)
    glare = np.array([[-0.62, -0.8], [-0.38, -0.8], [-0.60, 0.8], [-0.84, 0.8]]) * np.array([wide, half])
    canvas.tint("glint", head.front(glare + np.array([0.0, y]), 0.015), 0.4)
    canvas.ring("ink", edge(-_LINE), edge(0.018 + 0.7 * _LINE))
    canvas.ring("accent", glass, edge(0.018))


def write(folder: Path, count: int, size: int, seed: int) -> None:
    """Draws the robots 0 … count − 1 of a seed into a folder.

    Raises:
        ConfigError: If count, size or seed is out of its range.
        StorageError: If the folder cannot be written.
    """
    checks.at_least(1, count=count)
    checks.at_least(MIN_SIZE, size=size)
    checks.seeds(seed=seed)
    checks.writable(folder)
    rows: list[dict[str, Any]] = []
    for index in range(count):
        robot = sample(seed, index)
        path = f"images/{index:05d}.png"
        images.save_png(draw(robot, size), folder / path)
        rows.append({"path": path} | robot.row())
    write_rows(folder / "labels.csv", rows)
    print(f"{count} robots in {folder / 'images'}, and their attributes in {folder / 'labels.csv'}")


@command("draw_robots")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Draws robots, and a table of their attributes, into a folder.")
    parser.add_argument("folder", type=Path, help="folder of the files")
    parser.add_argument("--count", type=int, default=5000, help="number of robots (default: 5000)")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the robots (default: 0)")
    given = parser.parse_args(args)
    write(given.folder, given.count, given.size, given.seed)


if __name__ == "__main__":
    sys.exit(main())

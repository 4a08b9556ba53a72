"""How a character moves: rows of strengths over time.

The original's motion is given in its own units, in which eyes reach from −1.2 to 1.2 and mouth and tilt up to 1.8; here
it is scaled to each character's tested range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ohlora.directions.edits import GRID, tested_as
from ohlora.utils import counted

BASE = {"eyes": 0.2, "mouth": 1.0, "pose": 0.0}
"""Where idle motion wanders about, in the original's units."""
WALK = {"eyes": 0.035, "mouth": 0.025, "pose": 0.045}
"""Largest change from one frame to the next."""
REACH = {"eyes": 0.25, "mouth": 0.15, "pose": 0.4}
"""Farthest from the base."""
BLINK_CHANCE = 0.025
"""Per frame, once a second has passed since the last blink."""

Ranges = Mapping[str, tuple[float, float]]


def sweep(attributes: Sequence[str], ranges: Ranges, steps: int = 20) -> np.ndarray:
    """One attribute after the other from its lowest to its highest strength, the others at 0: (P · steps)×P."""
    rows = np.zeros((len(attributes) * steps, len(attributes)))
    for k, name in enumerate(attributes):
        rows[k * steps : (k + 1) * steps, k] = np.linspace(*ranges[name], steps)
    return rows


def idle(
    attributes: Sequence[str], ranges: Ranges, frames: int, frames_per_second: float = 20.0, seed: int = 0
) -> np.ndarray:
    """A face at rest: a slow random walk about the base strengths, and blinks.

    A blink takes 4 to 6 frames and closes the eyes by 1.1 to 1.5 times a bow whose peak is 0.7 to 0.8.

    Returns:
        A row per frame and a column per attribute, within ``ranges``; attributes without a motion of their own stay
        at 0.
    """
    rows = np.zeros((frames, len(attributes)))
    for k, name in enumerate(attributes):
        kind = tested_as(name)
        if kind not in BASE:
            continue
        random = counted.generator(seed, f"idle/{kind}", 0)
        value, walk = BASE[kind], []
        for change in random.uniform(-WALK[kind], WALK[kind], frames):
            value = float(np.clip(value + change, BASE[kind] - REACH[kind], BASE[kind] + REACH[kind]))
            walk.append(value)
        rows[:, k] = walk
        if kind == "eyes":
            rows[:, k] -= _blinks(frames, frames_per_second, seed)
        rows[:, k] *= ranges[name][1] / max(GRID[kind])
    low, high = (np.array([ranges[name][k] for name in attributes]) for k in (0, 1))
    return np.clip(rows, low, high)


def shown(
    attributes: Sequence[str],
    ranges: Ranges,
    steps: int = 20,
    frames: int = 100,
    frames_per_second: float = 20.0,
    seed: int = 0,
) -> np.ndarray:
    """What shows a character: :func:`sweep`, then :func:`idle`."""
    moving = sweep(attributes, ranges, steps), idle(attributes, ranges, frames, frames_per_second, seed)
    return np.concatenate(moving)


def _blinks(frames: int, frames_per_second: float, seed: int) -> np.ndarray:
    """How far the eyes are closed in each frame, in the original's units: (N,)."""
    random = counted.generator(seed, "idle/blinks", 0)
    closed = np.zeros(frames)
    last = frame = 0
    while frame < frames:
        if (frame - last) / frames_per_second >= 1 and random.random() < BLINK_CHANCE:
            count = int(random.integers(4, 7))
            bow = np.sin(np.pi * np.arange(1, count + 1) / (count + 1))
            bow *= random.uniform(0.7, 0.8) / bow.max() * random.uniform(1.1, 1.5)
            closed[frame : frame + count] = bow[: frames - frame]
            frame += count
            last = frame
        else:
            frame += 1
    return closed

"""How a character moves: rows of strengths over time.

How an attribute moves at rest is declared in the strengths of its grid; here it is scaled to each character's tested
range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ohlora.attributes import Motion
from ohlora.utils import counted

BLINK_CHANCE = 0.025
"""Per frame, once a second has passed since the last blink."""
CLOSED = 1.2
"""Strength at which the original's eyes are closed; blinks are as deep in proportion to any highest strength."""

Ranges = Mapping[str, tuple[float, float]]


def sweep(attributes: Sequence[str], ranges: Ranges, steps: int = 20) -> np.ndarray:
    """One attribute after the other from its lowest to its highest strength, the others at 0: (P · steps)×P."""
    rows = np.zeros((len(attributes) * steps, len(attributes)))
    for k, name in enumerate(attributes):
        rows[k * steps : (k + 1) * steps, k] = np.linspace(*ranges[name], steps)
    return rows


def idle(
    attributes: Sequence[str],
    ranges: Ranges,
    motions: Mapping[str, Motion],
    frames: int,
    frames_per_second: float = 20.0,
    seed: int = 0,
) -> np.ndarray:
    """A character at rest: a slow random walk about the base strengths, and blinks.

    A blink takes 4 to 6 frames; it closes eyes, whose highest strength is 1.2, by 1.1 to 1.5 times a bow whose peak is
    0.7 to 0.8.

    Returns:
        A row per frame and a column per attribute, within ``ranges``; attributes without a motion of their own stay
        at 0.
    """
    rows = np.zeros((frames, len(attributes)))
    for k, name in enumerate(attributes):
        if name not in motions:
            continue
        own = motions[name]
        random = counted.generator(seed, f"idle/{name}", 0)
        value, walk = own.base, []
        for change in random.uniform(-own.walk, own.walk, frames):
            value = float(np.clip(value + change, own.base - own.reach, own.base + own.reach))
            walk.append(value)
        rows[:, k] = walk
        if own.blinks:
            rows[:, k] -= _blinks(frames, frames_per_second, seed) * (own.highest / CLOSED)
        rows[:, k] *= ranges[name][1] / own.highest
    low, high = (np.array([ranges[name][k] for name in attributes]) for k in (0, 1))
    return np.clip(rows, low, high)


def shown(
    attributes: Sequence[str],
    ranges: Ranges,
    motions: Mapping[str, Motion],
    steps: int = 20,
    frames: int = 100,
    frames_per_second: float = 20.0,
    seed: int = 0,
) -> np.ndarray:
    """What shows a character: :func:`sweep`, then :func:`idle` if any attribute moves at rest."""
    rows = sweep(attributes, ranges, steps)
    if not set(attributes) & set(motions):
        return rows
    return np.concatenate([rows, idle(attributes, ranges, motions, frames, frames_per_second, seed)])


def _blinks(frames: int, frames_per_second: float, seed: int) -> np.ndarray:
    """How far eyes are closed in each frame, in the original's units: (N,)."""
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

"""How a character moves: rows of strengths at given times, in seconds.

The motion of an attribute is declared in shares of its tested range (:class:`ohlora.attributes.Motion`) and is added to
the position of its slider. It is a function of seed and time: the same moment looks the same at any frame rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ohlora.attributes import Motion
from ohlora.characters.speech import Speech
from ohlora.utils import counted

BREATH = 4.0
"""Seconds of a breath; adults at rest take 12 to 20 breaths a minute."""
DRIFT = 2.0
"""Seconds from one random position to the next."""
BLINK = 4.0
"""Seconds in which there is one blink."""
BLINK_CLOSED = (0.6, 2.4)
"""When the eyes close within these seconds: the first time before 3 s, later times 2.2 to 5.8 s apart."""
BLINK_LENGTH = (0.21, 0.25)
"""Seconds from open to open. Eyes are closed for 40 % of them, so that 12 frames per second show every blink closed."""

FRAMES_PER_SECOND = 20.0
"""Of an animation, where no other number is given."""
SWEEP = 1.6
"""Seconds in which an attribute goes from end to end and back in an animation."""
REST = 8.0
"""Seconds at rest at its end; there are two blinks at least."""

Ranges = Mapping[str, tuple[float, float]]


def sweep(attributes: Sequence[str], ranges: Ranges, steps: int) -> np.ndarray:
    """One attribute after the other from its lowest to its highest strength, the others at 0: (P · steps)×P."""
    rows = np.zeros((len(attributes) * steps, len(attributes)))
    for k, name in enumerate(attributes):
        rows[k * steps : (k + 1) * steps, k] = np.linspace(*ranges[name], steps)
    return rows


def tour(
    times: np.ndarray, attributes: Sequence[str], ranges: Ranges, strengths: Sequence[float], seconds: float
) -> np.ndarray:
    """One attribute after the other from its slider to its lowest and highest strength, and back.

    Args:
        times: N times, in seconds from the start.
        attributes: The P attributes.
        ranges: Attribute → lowest and highest strength.
        strengths: The positions of the P sliders, within the ranges.
        seconds: Time that each attribute takes, > 0.

    Returns:
        Strengths, N×P; those of the sliders once the last attribute is back.
    """
    rows = np.tile(np.asarray(strengths, dtype=float), (len(times), 1))
    for k, name in enumerate(attributes):
        part = 4 * (np.asarray(times) / seconds - k)  # a quarter to the lowest, a half to the highest, a quarter back
        low, high = ranges[name]
        down, up, back = _eased(part), _eased((part - 1) / 2), _eased(part - 3)
        rows[:, k] += down * (low - strengths[k]) + up * (high - low) + back * (strengths[k] - high)
    return rows


def idle(
    times: np.ndarray,
    attributes: Sequence[str],
    ranges: Ranges,
    motions: Mapping[str, Motion],
    strengths: Sequence[float],
    seed: int = 0,
    speech: Speech | None = None,
) -> np.ndarray:
    """A character at rest, or speaking: breath, slow random motion and blinks on top of the sliders.

    It begins at the sliders. Eyes are closed for the first time within 3 s, and then every 2 to 6 s. While the
    character speaks, the mouth opens from the lower end of its range, and closes in pauses; before and after, it is
    where its slider is.

    Args:
        times: N times, in seconds from the start, ≥ 0, in any order.
        attributes: The P attributes.
        ranges: Attribute → lowest and highest strength.
        motions: Attribute → how it moves, of those that do; the others stay where their sliders are.
        strengths: The positions of the P sliders, which are brought into the ranges.
        seed: Of the random motion and of the blinks.
        speech: What is said from time 0 on.

    Returns:
        Strengths within the ranges, N×P.
    """
    times = np.asarray(times, dtype=float)
    rows = np.empty((len(times), len(attributes)))
    for k, name in enumerate(attributes):
        low, high = ranges[name]
        own = motions.get(name, Motion())
        share = own.breath * np.sin(2 * np.pi * times / BREATH) + own.drift * _drift(times, seed, name)
        row = np.clip(strengths[k], low, high) + (high - low) * share
        if speech is not None and own.speaks:
            row += speech.presence(times) * (low + own.speaks * (high - low) * speech.opening(times) - row)
        row = np.clip(row, low, high)
        if own.blinks:
            row += blinking(times, seed) * (low - row)
        rows[:, k] = row
    return rows


def shown(
    attributes: Sequence[str],
    ranges: Ranges,
    motions: Mapping[str, Motion],
    strengths: Sequence[float],
    frames_per_second: float = FRAMES_PER_SECOND,
    sweep: float = SWEEP,
    rest: float = REST,
    seed: int = 0,
    speech: Speech | None = None,
) -> np.ndarray:
    """What shows a character: :func:`tour`, then :func:`idle`.

    Args:
        attributes: See :func:`idle`, as for all that is not listed here.
        ranges: As there.
        motions: As there.
        strengths: As there.
        frames_per_second: Rows per second.
        sweep: Seconds that each attribute takes, ≥ 0.
        rest: Seconds at rest, or speaking.
        seed: As there.
        speech: What is said once the attributes have been shown.

    Returns:
        Strengths within the ranges, a row per frame and a column per attribute.
    """
    start = sweep * len(attributes)
    times = np.arange(round((start + rest) * frames_per_second)) / frames_per_second
    rows = idle(np.maximum(times - start, 0), attributes, ranges, motions, strengths, seed, speech)
    touring = times < start
    if touring.any():
        inside = [float(np.clip(strength, *ranges[name])) for name, strength in zip(attributes, strengths, strict=True)]
        rows[touring] = tour(times[touring], attributes, ranges, inside, sweep)
    return rows


def blinking(times: np.ndarray, seed: int = 0) -> np.ndarray:
    """How far eyes are closed by blinks, 0 (not at all) … 1 (closed), at N times in seconds: (N,)."""
    closed = np.zeros(len(times))
    slots = np.floor(times / BLINK).astype(int)
    for slot in np.unique(slots):
        random = counted.generator(seed, "idle/blinks", int(slot))
        middle, length = BLINK * slot + random.uniform(*BLINK_CLOSED), random.uniform(*BLINK_LENGTH)
        here = slots == slot
        part = (times[here] - middle) / length + 0.45  # eyes open more slowly than they close
        closed[here] = _eased(np.minimum(part / 0.25, (1 - part) / 0.35))
    return closed


def _drift(times: np.ndarray, seed: int, name: str) -> np.ndarray:
    """A smooth random walk between −1 and 1 that begins at 0: (N,)."""
    slots = np.floor(times / DRIFT).astype(int)
    needed = np.union1d(slots, slots + 1)
    ends = [counted.generator(seed, f"idle/{name}", int(k)).uniform(-1, 1) if k else 0.0 for k in needed]
    before, after = (np.array(ends)[np.searchsorted(needed, slots + k)] for k in (0, 1))
    walked: np.ndarray = before + (after - before) * _eased(times / DRIFT - slots)
    return walked


def _eased(part: np.ndarray) -> np.ndarray:
    """From 0 to 1 without a jerk at either end (the cubic 3x² − 2x³); 0 below and 1 above."""
    part = part.clip(0, 1)
    eased: np.ndarray = part * part * (3 - 2 * part)
    return eased

"""How a character moves at rest: breath, drift and blinks, as functions of time on top of the sliders."""

from __future__ import annotations

import numpy as np
import pytest

from ohlora.attributes import Motion, Vocabulary, recipe
from ohlora.characters import motion, speech
from ohlora.pipeline import world

NAMES = ("eyes", "mouth", "pose")
RANGES = {"eyes": (-2.0, 1.0), "mouth": (-1.5, 2.5), "pose": (-1.0, 1.0)}
MOTIONS = {"eyes": Motion(drift=0.05, blinks=True), "mouth": Motion(speaks=0.8), "pose": Motion(0.1, 0.2)}
ZEROS = [0.0, 0.0, 0.0]


def closures(closed: np.ndarray, times: np.ndarray) -> np.ndarray:
    """When eyes are closed, in seconds: the middle of each run of frames in which they are."""
    inside = np.flatnonzero(closed)
    return np.array([times[run].mean() for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)])


@pytest.mark.parametrize("seed", range(20))
def test_a_blink_within_three_seconds_and_then_every_two_to_six(seed: int) -> None:
    times = np.arange(0, 120, 1 / 200)
    eyes = motion.idle(times, NAMES, RANGES, MOTIONS, ZEROS, seed)[:, 0]
    found = closures(eyes < -2 + 1e-9, times)
    assert len(found) == 30 and found[0] < 3
    apart = np.diff(found)
    assert apart.min() >= 2 and apart.max() <= 6 and apart.std() > 0.3
    # From open to open: below anything that drift reaches.
    starts = np.flatnonzero((eyes[1:] < -0.15 - 1e-9) & (eyes[:-1] >= -0.15 - 1e-9))
    ends = np.flatnonzero((eyes[1:] >= -0.15 - 1e-9) & (eyes[:-1] < -0.15 - 1e-9))
    lengths = (ends - starts) / 200
    assert lengths.min() >= 0.15 and lengths.max() <= 0.25
    # No blink falls between the frames of the studio.
    for shift in np.linspace(0, 1 / 12, 7, endpoint=False):
        slow = np.arange(0, 120, 1 / 12) + shift
        assert len(closures(motion.blinking(slow, seed) > 0.999, slow)) == 30


def test_idle_motion_is_a_function_of_seed_and_time() -> None:
    at_60 = np.arange(600) / 60
    rows = motion.idle(at_60, NAMES, RANGES, MOTIONS, ZEROS, 3)
    assert np.allclose(rows[::3], motion.idle(np.arange(200) / 20, NAMES, RANGES, MOTIONS, ZEROS, 3))
    assert np.allclose(rows[::-1], motion.idle(at_60[::-1], NAMES, RANGES, MOTIONS, ZEROS, 3))
    assert np.allclose(rows[417], motion.idle(at_60[417:418], NAMES, RANGES, MOTIONS, ZEROS, 3)[0])
    assert not np.allclose(rows, motion.idle(at_60, NAMES, RANGES, MOTIONS, ZEROS, 4))
    order = ("pose", "eyes", "mouth")
    assert np.allclose(rows[:, [2, 0, 1]], motion.idle(at_60, order, RANGES, MOTIONS, ZEROS, 3))
    assert np.allclose(rows[0], 0)  # it begins where the sliders are


def test_idle_motion_is_added_to_the_sliders() -> None:
    times = np.arange(0, 40, 1 / 100)
    rest = motion.idle(times, NAMES, RANGES, MOTIONS, ZEROS)
    moved = motion.idle(times, NAMES, RANGES, MOTIONS, [0.5, 1.0, -0.3])
    assert np.allclose(moved[:, 2], rest[:, 2] - 0.3) and (moved[:, 1] == 1.0).all() and not rest[:, 1].any()
    open_ = motion.blinking(times) == 0
    assert np.allclose(moved[open_, 0], rest[open_, 0] + 0.5) and np.allclose([moved[:, 0].min(), rest[:, 0].min()], -2)
    # Shares of the range, 2 wide, of the pose, to both sides, slowly.
    pose = rest[:, 2]
    assert 0.3 < pose.max() <= 0.6 and -0.6 <= pose.min() < -0.3
    assert np.abs(np.diff(pose)).max() * 100 < 2 * (0.1 * 2 * np.pi / motion.BREATH + 0.2 * 2 * 1.5 / motion.DRIFT)
    breath = motion.idle(times, ("pose",), RANGES, {"pose": Motion(breath=0.1)}, [0.0])[:, 0]
    assert breath.max() == pytest.approx(0.2, abs=1e-3) and len(closures(breath > 0.19, times)) == 10  # in 40 s
    # The ends of the range hold.
    for strengths in ([-2.0, -1.5, -1.0], [1.0, 2.5, 1.0], [9.0, 9.0, 9.0]):
        rows = motion.idle(times, NAMES, RANGES, MOTIONS, strengths)
        for name, row in zip(NAMES, rows.T, strict=True):
            assert RANGES[name][0] - 1e-9 <= row.min() <= row.max() <= RANGES[name][1] + 1e-9
    assert (rows[:, 1] == 2.5).all()


def test_speech_moves_the_mouth_and_leaves_it_to_its_slider() -> None:
    said = speech.of_text("mama", rate=4)  # a second
    times = np.arange(0, 3, 1 / 100)
    rows = motion.idle(times, NAMES, RANGES, MOTIONS, [0.0, 1.5, 0.0], 0, said)
    mouth = dict(zip(times.round(2), rows[:, 1], strict=True))
    assert mouth[0.0] == 1.5 and mouth[0.62] == pytest.approx(-1.5)  # its slider, then the second m
    assert mouth[0.38] == pytest.approx(-1.5 + 0.8 * 4)  # as far as it speaks
    assert (rows[times > 1.1 + 1e-9, 1] == 1.5).all()
    silent = motion.idle(times, NAMES, RANGES, MOTIONS, [0.0, 1.5, 0.0])
    assert (rows[:, [0, 2]] == silent[:, [0, 2]]).all() and (silent[:, 1] == 1.5).all()


def test_every_shipped_world_blinks_breathes_and_speaks() -> None:
    vocabularies: dict[str, Vocabulary] = {"recipe": recipe(), "toy": world("toy").attributes}
    for name, declared in vocabularies.items():
        motions = declared.described(declared.names("expression"))[1]
        assert motions["eyes"].blinks and motions["mouth"].speaks and motions["pose"].breath, name


def test_levels_of_one_attribute_at_a_time() -> None:
    rows = motion.sweep(NAMES, RANGES, 20)
    assert rows.shape == (60, 3) and (np.count_nonzero(rows, axis=1) <= 1).all()
    assert (rows[0, 0], rows[19, 0], rows[40, 2], rows[59, 2]) == (-2.0, 1.0, -1.0, 1.0)


def test_an_animation_shows_every_slider_from_end_to_end_and_then_rests() -> None:
    strengths = [0.5, 0.0, 0.25]
    rows = motion.shown(NAMES, RANGES, MOTIONS, strengths)
    assert len(rows) == 20 * (3 * 1.6 + 8)
    for k, name in enumerate(NAMES):
        part = rows[32 * k : 32 * (k + 1)]
        assert (part[:, k].min(), part[:, k].max()) == pytest.approx(RANGES[name])
        others = [j for j in range(3) if j != k]
        assert np.allclose(part[:, others], np.array(strengths)[others]) and np.allclose(part[0], strengths)
        assert np.abs(np.diff(part[:, k])).max() < 0.2 * np.ptp(RANGES[name])  # no jump
    rest = rows[96:]
    assert np.allclose(rest, motion.idle(np.arange(160) / 20, NAMES, RANGES, MOTIONS, strengths))
    assert len(closures(rest[:, 0] < -2 + 1e-9, np.arange(160) / 20)) == 2
    assert np.allclose(motion.shown(NAMES, RANGES, MOTIONS, strengths, sweep=0, rest=1), rest[:20])
    assert np.allclose(motion.shown(NAMES, RANGES, {}, strengths, 10, 0, 1), strengths)

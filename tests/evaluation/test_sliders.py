"""Sliders against curves whose values can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.evaluation.sliders import Frames, Limits, Slider, SliderEdits, joint_measures, random_settings

EDITS = SliderEdits(2, 3.0, 6)
LEVELS = EDITS.levels
Curve = Callable[[np.ndarray], np.ndarray]


def slider(
    curve: Curve, other: Curve = np.zeros_like, density: Any = None, jumps: Any = None, identity: Any = None
) -> Slider:
    """A slider that moves the second of two scores along a curve, and the first along another."""
    scores = np.stack([other(LEVELS), curve(LEVELS)], axis=1)
    return Slider(LEVELS, scores, 1, density, np.zeros(12) if jumps is None else jumps, identity)


def range_of(of: Slider, slope: float = 1.0, **limits: float) -> tuple[float, float]:
    """Strengths of the tested range."""
    low, high = of.tested_range(Limits(**limits), slope)
    return float(LEVELS[low]), float(LEVELS[high])


def measured(of: Slider, low: float = -3.0, high: float = 3.0) -> dict[str, float]:
    places = [int(np.flatnonzero(level == LEVELS)[0]) for level in (low, high)]
    return of.measures(*places)


def test_sliders_share_the_unedited_image() -> None:
    strengths = EDITS.strengths.numpy()
    assert strengths.shape == (1 + 2 * 12, 2) and not strengths[0].any()
    for p in range(2):
        frames = strengths[EDITS.places(p)]
        assert np.allclose(frames[:, p], LEVELS) and not frames[:, 1 - p].any()
    assert LEVELS[6] == 0 and len(LEVELS) == 13


def test_a_straight_slider_goes_all_the_way() -> None:
    straight = slider(lambda s: 0.5 + 0.9 * s)
    assert range_of(straight) == (-3, 3)
    found = measured(straight)
    assert found["lowest"] == pytest.approx(0.5 - 2.7) and found["highest"] == pytest.approx(0.5 + 2.7)
    assert found["saturation"] == pytest.approx(1) and found["jump"] == pytest.approx(0.45)
    assert "density" not in found and found["pixel_jump"] == 0


def test_a_slider_that_saturates_ends_where_it_stands_still() -> None:
    """Eyes that are closed at −1 stay closed; upwards they open a little less with every unit."""
    saturating = slider(lambda s: np.where(s < 0, np.maximum(s, -1.0), 2 * np.tanh(s / 2)))
    # The slope of 2 tanh(s/2) is 1 − tanh²(s/2): a fifth is left at s = 2.89, a half at 1.76.
    assert range_of(saturating) == (-1.0, 3.0)
    assert range_of(saturating, growth=0.5) == (-1.0, 2.0)
    whole = measured(saturating)
    gained = 1 + 2 * np.tanh(0.75)
    assert whole["saturation"] == pytest.approx((2 * np.tanh(1.5) - 2 * np.tanh(0.75)) / gained)
    assert measured(slider(lambda s: s.clip(-2, 2)))["saturation"] == pytest.approx(1 / 3)
    assert measured(slider(lambda s: s.clip(-1.5, 1.5)))["saturation"] == 0
    assert measured(saturating, -1.0, 2.0)["lowest"] == -1


def test_the_range_goes_over_a_dip() -> None:
    dip = slider(lambda s: s - 0.8 * (np.abs(s - 1) < 0.1))
    assert range_of(dip) == (-3, 3) and measured(dip)["jump"] == pytest.approx(1.3)


def test_a_direction_that_goes_nowhere_has_no_range() -> None:
    still = slider(np.zeros_like)
    assert range_of(still, slope=0.0) == (0, 0)
    names = ("start", "lowest", "highest", "saturation", "jump", "pixel_jump")
    assert measured(still, 0.0, 0.0) == dict.fromkeys(names, 0)
    assert measured(still)["saturation"] == 0
    falling = slider(lambda s: -s)
    assert range_of(falling, slope=-1.0) == (0, 0)  # the other way is not what was asked
    assert measured(falling)["saturation"] == 0


def test_a_jump_is_seen() -> None:
    step = slider(lambda s: 2.0 * (s > 0.9), jumps=np.r_[np.ones(7), 40.0, np.ones(4)])
    found = measured(step)
    assert found["jump"] == 2 and found["pixel_jump"] == 40
    assert measured(step, -3.0, 0.5)["pixel_jump"] == 1  # within the range only
    assert range_of(step) == (0, 1)


def test_leakage_ends_a_slider() -> None:
    """The other score changes by a fifth at first, and by half of its own change beyond 1."""
    leaking = slider(lambda s: s, lambda s: np.where(np.abs(s) <= 1, 0.2 * s, 0.5 * s))
    assert range_of(leaking) == (-1, 1)
    assert range_of(leaking, leakage=0.1) == (-0.5, 0.5)  # up to one z-score, its share is of that
    assert range_of(leaking, leakage=0.6) == (-3, 3)
    only = Slider(LEVELS, LEVELS[:, None], 0, None, np.zeros(12))
    assert range_of(only) == (-3, 3)  # a judge with one output sees nothing leak


def test_frames_that_are_not_real_end_a_slider() -> None:
    density = np.array([0, 0, 0, 0, 0, 0.5, 1, 1, 1, 1, 1, 0, 0])
    unreal = slider(lambda s: s, density=density)
    # Downwards the means of the outer half are 0.75 and 0.25, upwards 1 four times, 0.75 and 0.5.
    assert range_of(unreal) == (-0.5, 3)
    assert range_of(unreal, realism=0.75) == (-0.5, 2.5)
    assert measured(unreal, -0.5, 3.0)["density"] == pytest.approx(5.5 / 8)
    # A face that is unusual by itself is compared with itself.
    assert range_of(slider(lambda s: s, density=density / 10)) == (-0.5, 3)
    assert range_of(slider(lambda s: s, density=np.zeros(13))) == (-3, 3)


def test_another_person_ends_a_slider() -> None:
    """Every frame up to the end must show the same person; what comes after another one does not count."""
    kept = np.array([1, 1, 0.5, 0.95, 0.92, 1, 1, 1, 0.97, 0.93, 0.91, 0.89, 0.88])
    bent = slider(lambda s: s, identity=kept)
    assert range_of(bent) == (-1.5, 2.0)
    assert range_of(bent, identity=0.94) == (-0.5, 1.0)
    assert range_of(bent, identity=0.5) == (-3, 3)
    found = measured(bent, -1.5, 2.0)
    assert found["identity"] == pytest.approx(kept[3:11].mean()) and found["identity_min"] == 0.91
    assert "identity" not in measured(slider(lambda s: s))


def test_change_has_a_price() -> None:
    """Upwards a tenth is lost with every unit, downwards everything at once; the change is the mean of both sides."""
    kept = np.where(LEVELS < 0, 0.0, 1 - LEVELS / 10)
    dear = slider(lambda s: 2 * s, identity=kept)
    assert dear.change_within([0, 0.051, 0.101, 0.31, 0.99, 1]) == pytest.approx([0, 0.5, 1, 3, 3, 6])
    back = slider(lambda s: np.where(s > 1, 1.0, s), identity=np.where(LEVELS < 0, 0.0, 1.0))
    assert back.change_within([0.2]) == pytest.approx([0.5]), "the largest on the way"
    wrong = slider(lambda s: -s, identity=np.ones(13))
    assert wrong.change_within([1.0]) == [0], "the other way is not what was asked"
    with pytest.raises(ValueError, match="identity was not measured"):
        slider(lambda s: s).change_within([0.1])


def test_pixels_are_told_in_grey_levels() -> None:
    images = torch.zeros(3, 3, 4, 4)
    images[1, 0] = 2 / 127.5 * 3  # a third of all values, by six grey levels
    images[2] = 1.0
    frames = Frames(images, np.zeros((3, 1)), None)
    assert frames.pixel_jumps([1, 0, 2]) == pytest.approx([2, 127.5])


def test_all_sliders_at_once() -> None:
    one, two = slider(lambda s: 0.8 * s), slider(lambda s: s.clip(-1, 1))
    one = Slider(LEVELS, one.scores[:, ::-1], 0, None, one.pixel_jumps)
    ranges = np.array([[-2.0, 1.0], [-1.0, 3.0]])
    settings = random_settings(ranges, 500, np.random.default_rng(0))
    assert (settings >= ranges[:, 0]).all() and (settings <= ranges[:, 1]).all()
    assert settings.mean(axis=0) == pytest.approx(ranges.mean(axis=1), abs=0.2)
    alone = np.stack([0.8 * settings[:, 0], settings[:, 1].clip(-1, 1)], axis=1)
    r, errors = joint_measures([one, two], settings, alone)
    assert r[0] == pytest.approx(1) and errors == pytest.approx([0, 0], abs=1e-12)
    assert r[1] == pytest.approx(np.corrcoef(settings[:, 1], alone[:, 1])[0, 1])
    # The second slider also moves the first attribute.
    r, errors = joint_measures([one, two], settings, alone + np.stack([settings[:, 1], 0 * settings[:, 1]], axis=1))
    assert errors == pytest.approx([np.abs(settings[:, 1]).mean(), 0]) and r[0] < 0.8
    still = np.zeros_like(settings)
    assert joint_measures([one, two], still, alone)[0].tolist() == [0, 0]

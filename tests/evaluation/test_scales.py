"""What z-scores stand for: percentiles, and maps to physical values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ohlora.attributes import Physical
from ohlora.evaluation.scales import DataScale, PhysicalMap, scales_in
from ohlora.toy import drawing

OPENING = Physical("eye_opening", "0 closed … 1 wide")


def test_the_range_is_that_of_the_data() -> None:
    scale = DataScale.of(np.linspace(-2, 2, 1001))
    assert [scale.low, scale.high] == pytest.approx([-1.9, 1.9])
    assert scale.covered(-1.9, 1.9) == 1 and scale.covered(-5, 5) == 1
    assert scale.covered(0, 1.9) == pytest.approx(0.5) and scale.covered(-0.19, 0.19) == pytest.approx(0.1)
    assert scale.covered(2, 3) == 0 and DataScale.of(np.ones(5)).covered(-1, 2) == 0


def test_drawn_faces_are_mapped_as_they_are_drawn() -> None:
    """Linear between closed and wide, and cut off at both: a tenth of all faces have closed eyes."""
    about = drawing.EXPRESSIONS["eyes"]
    rng = np.random.default_rng(0)
    scores = np.array([about.z_score(normal) for normal in rng.standard_normal(2000)])
    found = PhysicalMap.fit(OPENING, scores, np.array([about.value(score) for score in scores]))
    for score in np.linspace(-3, 3, 50):
        assert found(score) == pytest.approx(about.value(score), abs=1e-3)
    assert (found(-9), found(9)) == (0, 1) and len(found.scores) <= 41


def test_noisy_values_make_a_rising_map() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal(3000)
    values = np.tanh(scores) + 0.3 * rng.standard_normal(3000)
    found = PhysicalMap.fit(OPENING, scores, values)
    assert (np.diff(found.values) >= 0).all()
    assert np.abs(np.tanh(np.linspace(-1.5, 1.5, 30)) - [found(s) for s in np.linspace(-1.5, 1.5, 30)]).max() < 0.15
    with pytest.raises(ValueError, match="eye_opening does not rise with it"):
        PhysicalMap.fit(OPENING, scores, -values)


def test_scales_come_back_from_what_a_network_tells() -> None:
    rng = np.random.default_rng(2)
    scores = rng.standard_normal(500)
    eyes = DataScale.of(scores, PhysicalMap.fit(OPENING, scores, 2 * scores))
    told = {"data": {"eyes": eyes.described(), "pose": DataScale(-1.5, 2.0).described()}, "images_seen": 7}
    merged = {"merged_from": {"property.safetensors": told, "hairstyle.safetensors": {"stage": "hairstyle_cnn"}}}
    assert scales_in(json.loads(json.dumps(merged))) == {"eyes": eyes, "pose": DataScale(-1.5, 2.0)}
    assert scales_in({"stage": "judge_cnn"}) == {}
    wider = {"data": {"pose": DataScale(-9.0, 9.0).described()}}
    ensemble = {"merged_from": {"1 cnn.safetensors": told, "2 cnn.safetensors": wider}}
    assert scales_in(ensemble) == {"eyes": eyes, "pose": DataScale(-1.5, 2.0)}, "the first one tells"

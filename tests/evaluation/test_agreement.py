"""Agreement of search CNN and judge on generated images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ohlora.evaluation.agreement import Agreement
from ohlora.evaluation.scales import DataScale

RANDOM = np.random.default_rng(0)
SEEN = RANDOM.normal(size=400)


def test_networks_that_agree_pass_every_check() -> None:
    scale = DataScale(-2.0, 2.0, extremes=(-4.0, 4.0))
    found = Agreement.of(("eyes", "mouth"), {"eyes": SEEN}, {"eyes": 2 * SEEN + 1, "mouth": SEEN}, {"eyes": scale})
    assert found.agreement == pytest.approx({"eyes": 1.0}) and found.outside == {"eyes": 0.0}
    assert not found.reasons and not found.failing
    assert found.numbers == pytest.approx({"agreement_eyes": 1.0, "outside_eyes": 0.0})


def test_networks_that_disagree_and_scores_beyond_the_data_are_told() -> None:
    noisy = SEEN + 3 * RANDOM.normal(size=400)
    scales = {"eyes": DataScale(-0.2, 0.2, extremes=(-0.5, 0.5)), "mouth": DataScale(-2.0, 2.0)}
    found = Agreement.of(("eyes", "mouth"), {"eyes": SEEN, "mouth": 0 * SEEN}, {"eyes": noisy, "mouth": SEEN}, scales)
    r = np.corrcoef(SEEN, noisy)[0, 1]
    assert found.agreement["eyes"] == pytest.approx(r) and r < 0.5 and math.isnan(found.agreement["mouth"])
    assert found.outside == pytest.approx({"eyes": np.mean(np.abs(SEEN) > 0.6)})
    assert found.failing == ["agreement", "outside"] and len(found.reasons) == 3
    assert found.reasons[0].startswith(f"eyes: r of search CNN and judge on generated images is {r:.3g}; expected at")

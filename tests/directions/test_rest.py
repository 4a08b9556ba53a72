"""Rest: what is declared is reached, the other scores and the picture stay, each latent by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ohlora.attributes import Attribute, Physical
from ohlora.directions.rest import Rest, scores_at_rest
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale, PhysicalMap
from ohlora.networks.codes import Codes, Space
from tests.directions.linear import Pixels, Reader

NAMES = ("eyes", "mouth", "hair")
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
START = Codes(torch.tensor([[1.4, -0.8, 0.6, 0.2], [-2.0, 1.0, -0.5, 0.5], [0.3, 0.1, 1.0, -1.0]]), Space.W)
WANTED = {"eyes": 0.6, "mouth": -0.2}
SETTINGS = Rest(steps=200, rate=0.2, likely=0.0, likeness=0.0)


def rested(settings: Rest = SETTINGS, start: Codes = START, batch_size: int = 2) -> Codes:
    found: Codes = settings(start, WANTED, Pixels(), Reader(NAMES, WEIGHTS), batch_size)  # type: ignore[arg-type]
    return found


def scores(codes: Codes) -> Tensor:
    with torch.no_grad():
        seen: Tensor = Reader(NAMES, WEIGHTS)(Pixels().synthesize(codes))
    return seen


def test_what_is_declared_is_reached_and_the_other_scores_stay() -> None:
    found = rested()
    assert found.space is Space.W and found.values.shape == (3, 4) and not found.values.requires_grad
    torch.testing.assert_close(scores(found)[:, :2], torch.tensor([[0.6, -0.2]]).expand(3, 2), atol=0.05, rtol=0)
    torch.testing.assert_close(scores(found)[:, 2], scores(START)[:, 2], atol=0.05, rtol=0)
    free = rested(replace(SETTINGS, hold=0.0, likely=0.1))
    assert float(scores(free)[:, 2].abs().mean()) < 0.2, "what nothing holds goes to the mean"


def test_a_latent_comes_to_the_same_rest_whatever_is_beside_it() -> None:
    few = replace(SETTINGS, steps=8)
    together, alone = rested(few), rested(few, Codes(START.values[1:2], Space.W))
    torch.testing.assert_close(together.values[1:2], alone.values, rtol=1e-5, atol=1e-6)
    assert torch.equal(rested(few).values, together.values)
    assert not torch.equal(rested(replace(few, seed=1)).values, together.values)


def test_a_likely_code_is_sought() -> None:
    """A far code comes nearer to the mean, the nearer the more that counts."""
    far = Codes(3 * START.values, Space.W)
    lengths = [rested(replace(SETTINGS, likely=likely), far).values.norm() for likely in (0.0, 0.05, 1.0)]
    assert lengths[0] > lengths[1] > lengths[2]


def test_likeness_keeps_what_no_score_sees() -> None:
    """The fourth pixel could give the eyes what they want; a picture that is to stay gives less of it."""
    moved = []
    for likeness in (0.0, 500.0):
        found = rested(replace(SETTINGS, likeness=likeness))
        moved.append(float((found.values - START.values).norm()))
    assert moved[1] < 0.9 * moved[0]


def test_it_works_where_inference_is_all_that_is_asked() -> None:
    with torch.inference_mode():
        found = rested(replace(SETTINGS, steps=3), Codes(START.values + 0, Space.W))
    torch.testing.assert_close(found.values, rested(replace(SETTINGS, steps=3)).values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"rate": 0}, "rate is 0"),
        ({"likely": -1}, "likely is -1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rest(**settings)


def test_scores_of_what_is_declared() -> None:
    opening = Physical("eye_opening", "0 closed … 1 wide")
    eyes = Attribute("eyes", "open", "score", rest=0.75, physical=opening)
    mouth, hair = Attribute("mouth", "open", "score", rest=-0.5), Attribute("hair", "long", "score")
    known = {"eyes": DataScale(-2, 2, PhysicalMap("eye_opening", "", (-2.0, 2.0), (0.0, 1.0)))}
    assert scores_at_rest([eyes, mouth, hair], known, "cnn") == {"eyes": 1.0, "mouth": -0.5}
    with pytest.raises(ConfigError, match=r"eyes is to rest at 0.75 \(0 closed … 1 wide\), and cnn was trained on no"):
        scores_at_rest([eyes], {}, "cnn")
    with pytest.raises(ConfigError, match="no attribute that is steered declares one; declare rest"):
        scores_at_rest([hair], known, "cnn")

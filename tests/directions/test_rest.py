"""Rest: what is declared is reached, the other scores and the picture stay, each latent by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ohlora.attributes import Attribute, Physical
from ohlora.directions.rest import Rest, scores_at_rest
from ohlora.directions.spread import Spread
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale, PhysicalMap
from ohlora.networks.codes import Codes, Space
from tests.directions.linear import Pixels, Reader

NAMES = ("eyes", "mouth", "hair")
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
START = Codes(torch.tensor([[1.4, -0.8, 0.6, 0.2], [-2.0, 1.0, -0.5, 0.5], [0.3, 0.1, 1.0, -1.0]]), Space.W)
WANTED = {"eyes": 0.6, "mouth": -0.2}
SETTINGS = Rest(likely=0.0, jitter=0.0)


def rested(settings: Rest = SETTINGS, start: Codes = START) -> Codes:
    spread = Spread.of(Pixels(), 0, start, "rest/")
    found: Codes = settings(start, WANTED, Pixels(), Reader(NAMES, WEIGHTS), spread)  # type: ignore[arg-type]
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
    assert float(scores(free)[:, 2].abs().mean()) < 0.3, "what nothing holds goes to the mean"


def test_a_latent_comes_to_the_same_rest_whatever_is_beside_it() -> None:
    settings = Rest()
    together, alone = rested(settings), rested(settings, Codes(START.values[1:2], Space.W))
    torch.testing.assert_close(together.values[1:2], alone.values, rtol=1e-5, atol=1e-5)
    assert torch.equal(rested(settings).values, together.values)


def test_a_likely_code_is_sought() -> None:
    """A far code comes nearer to the mean, the nearer the more that counts."""
    far = Codes(3 * START.values, Space.W)
    lengths = [rested(replace(SETTINGS, hold=0.0, likely=likely), far).values.norm() for likely in (0.0, 0.05, 1.0)]
    assert lengths[0] > lengths[1] > lengths[2]


def test_no_step_is_longer_than_it_may_be() -> None:
    """One step from far away: in standard deviations of w, which is nearly standard normal here."""
    found = rested(replace(SETTINGS, steps=1, longest=0.25), Codes(3 * START.values, Space.W))
    lengths = (found.values - 3 * START.values).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((3,), 0.25), rtol=0.1, atol=0)


class Kinked(Reader):
    """The first score only starts to change half a unit away."""

    def forward(self, images: Tensor) -> Tensor:
        straight = super().forward(images)
        return torch.cat([(straight[:, :1] - 1.9).clamp_min(0), straight[:, 1:]], dim=1)


def test_what_a_code_itself_does_not_show_is_found_near_it() -> None:
    start, spread = Codes(torch.tensor([[1.8, 0.0, 0.0, 0.0]]), Space.W), Spread.of(Pixels(), 0, START, "rest/")
    reached = []
    for jitter in (0.0, 0.5):
        settings = Rest(likely=0.0, jitter=jitter)
        found = settings(start, WANTED, Pixels(), Kinked(NAMES, WEIGHTS), spread)  # type: ignore[arg-type]
        with torch.no_grad():
            reached.append(float(Kinked(NAMES, WEIGHTS)(Pixels().synthesize(found))[0, 0]))
    assert reached[0] == 0 and reached[1] > 0.3


def test_it_works_where_inference_is_all_that_is_asked() -> None:
    with torch.inference_mode():
        found = rested(start=Codes(START.values + 0, Space.W))
    torch.testing.assert_close(found.values, rested().values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"damping": 0}, "damping is 0"),
        ({"memory": 2}, "memory is 2"),
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
    with pytest.raises(
        ConfigError, match=r"eyes is to rest at 3 \(0 closed … 1 wide\), and the data of cnn go from 0 to 1"
    ):
        scores_at_rest([replace(eyes, rest=3.0)], known, "cnn")
    with pytest.raises(ConfigError, match="no attribute that is steered declares one; declare rest"):
        scores_at_rest([hair], known, "cnn")

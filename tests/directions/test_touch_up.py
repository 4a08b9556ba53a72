"""Touch-up: what strengths add is trained until scores follow and the rest stays, each latent by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ohlora.directions.edits import Steps, moved
from ohlora.directions.touch_up import TouchUp
from ohlora.errors import ConfigError
from ohlora.evaluation.features import Features
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.scales import DataScale
from ohlora.networks.codes import Codes, Space
from ohlora.networks.identity import Calibration
from tests.directions.linear import GREY, Pixels, Reader

NAMES = ("eyes", "mouth", "pose")
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
SCALES = {name: DataScale(-1.5, 1.5) for name in NAMES}
START = Codes(torch.tensor([[0.2, 0.0, 0.0, 0.0], [-0.3, 0.4, 0.1, 0.5]]), Space.W)
SETTINGS = TouchUp(steps=300, edits=8, rate=0.05, likeness=0.0)


class Bent(Reader):
    """The first score grows ever more slowly, and leaks into the second the farther it goes."""

    def forward(self, images: Tensor) -> Tensor:
        straight = super().forward(images)
        eyes = 2 * torch.tanh(straight[:, 0] / 2)
        return torch.stack([eyes, straight[:, 1] + 0.3 * straight[:, 0] ** 2, straight[:, 2]], dim=1)


def straight() -> Steps:
    """Unit steps of the first two scores, as they would be if all were linear."""
    return Steps(Codes(WEIGHTS[:2].repeat(2, 1, 1)[:, :, None], Space.W_BY_LAYER))


def touched_up(settings: TouchUp = SETTINGS, *places: int) -> Steps:
    chosen = list(places or (0, 1))
    start, given = replace(START, values=START.values[chosen]), straight().part(*chosen)
    return settings(start, given, NAMES[:2], Pixels(), Bent(NAMES, WEIGHTS), SCALES)  # type: ignore[arg-type]


def errors(steps: Steps, settings: Tensor) -> Tensor:
    """By how much scores miss what was asked of them."""
    network = Bent(NAMES, WEIGHTS)
    seen = network(Pixels().synthesize(moved(START, settings, steps).flat())).view(2, len(settings), 3)
    change = seen - network(Pixels().synthesize(START))[:, None]
    change[..., :2] -= settings
    missed: Tensor = change.abs()
    return missed


def test_scores_follow_alone_and_together_and_the_rest_stays() -> None:
    found = touched_up()
    assert found.nodes is not None and found.nodes.shape == (2, 2, 7)
    torch.testing.assert_close(found.nodes[..., 3], torch.zeros(2, 2))
    assert not found.shifts.values[:, :, 3].any(), "the unedited image must stay as it is"
    ends = torch.tensor([[-1.2, 0.0], [1.1, 0.0], [0.0, -1.4], [0.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    before, after = errors(straight(), ends), errors(found, ends)
    assert float(before.amax()) > 0.4
    assert float(after.amax()) < 0.2 and float(after.mean()) < 0.3 * float(before.mean())


def test_a_path_may_go_beyond_the_data() -> None:
    data, beyond = (touched_up(replace(SETTINGS, steps=1, reach=reach)).nodes for reach in (1.0, 1.5))
    assert data is not None and beyond is not None
    torch.testing.assert_close(data[0, 0, [0, -1]], torch.tensor([-1.5 - 0.2, 1.5 - 0.2]), atol=0.02, rtol=0)
    torch.testing.assert_close(beyond, 1.5 * data)


def test_a_latent_becomes_the_same_whatever_is_trained_beside_it() -> None:
    settings = replace(SETTINGS, steps=5)
    together, alone = touched_up(settings), touched_up(settings, 1)
    torch.testing.assert_close(together.shifts.values[1:], alone.shifts.values, rtol=1e-5, atol=1e-6)
    again = touched_up(settings, 1)
    assert torch.equal(alone.shifts.values, again.shifts.values)
    assert not torch.equal(alone.shifts.values, touched_up(replace(settings, seed=1), 1).shifts.values)


def test_likeness_keeps_what_no_score_sees() -> None:
    """The fourth pixel is seen by no score; a step that changes it is undone for the picture's sake only."""
    given = straight()
    given.shifts.values[..., 3] = 1.0
    made = []
    for likeness in (0.0, 2000.0):  # differences of pixels are small here: 0.04 a unit
        settings = replace(SETTINGS, likeness=likeness)
        found = settings(START, given, NAMES[:2], Pixels(), Bent(NAMES, WEIGHTS), SCALES)  # type: ignore[arg-type]
        made.append(float(found.shifts.values[..., 3].abs().mean()))
    assert made[1] < 0.5 * made[0]


class Fourth(Features):
    """Sees nothing but the fourth pixel, as an angle."""

    def outputs_of(self, images: Tensor) -> Tensor:
        seen = images[:, 0, 1, 1] / GREY
        return torch.stack([seen.cos(), seen.sin()], dim=1)


@pytest.mark.parametrize("calibration", [None, Calibration(20.0, -16.0)])
def test_a_guide_keeps_the_person(calibration: Calibration | None) -> None:
    """The first pixel or the fourth can move the first score, and the guide sees another person in the fourth."""
    weights = WEIGHTS.clone()
    weights[0, 3] = 1.0
    network, guide = Reader(NAMES, weights), Identity(Fourth(None, 2), calibration)
    given = Steps(
        Codes(torch.tensor([[0.5, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0]]).repeat(2, 1, 1)[:, :, None], Space.W_BY_LAYER)
    )
    ends, made = torch.tensor([[-1.2, 0.0], [1.1, 0.0], [0.0, 1.0], [-1.0, 1.0]]), []
    for person in (0.0, 1.0):
        by = Pixels(), network, SCALES, guide
        found = replace(SETTINGS, person=person)(START, given, NAMES[:2], *by)  # type: ignore[arg-type]
        pictures = Pixels().synthesize(moved(START, ends, found).flat())
        unedited = Pixels().synthesize(START)
        follows = network(pictures).view(2, 4, 3) - network(unedited)[:, None]
        torch.testing.assert_close(follows[..., :2], ends.expand(2, -1, -1), atol=0.2, rtol=0)
        made.append(float(guide.similarity(unedited.repeat_interleave(4, dim=0), pictures).min()))
    assert made[0] < 0.9 and made[1] > 0.98


def test_style_channels_are_touched_up_as_well() -> None:
    """Of this generator, they are the pixels, too."""
    start, given = replace(START, space=Space.S), Steps(Codes(WEIGHTS[:2].repeat(2, 1, 1), Space.S))
    found = SETTINGS(start, given, NAMES[:2], Pixels(), Bent(NAMES, WEIGHTS), SCALES)  # type: ignore[arg-type]
    assert found.shifts.space is Space.S and found.shifts.values.shape == (2, 2, 7, 4)
    settings = torch.tensor([[-1.2, 0.0], [1.0, -1.0]])
    network = Bent(NAMES, WEIGHTS)
    seen = network(Pixels().synthesize(moved(start, settings, found).flat())).view(2, 2, 3)
    change = seen - network(Pixels().synthesize(start))[:, None]
    torch.testing.assert_close(change[..., :2], settings.expand(2, -1, -1), atol=0.2, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"edits": 1}, {"nodes": 0}, {"rate": 0.0}, {"reach": 0.0}, {"likeness": -1.0}, {"person": -1.0}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TouchUp(**wrong)  # type: ignore[arg-type]

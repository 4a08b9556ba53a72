"""Sliders of planted cases, on networks where all is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora import attributes
from ohlora.attributes import Physical, Vocabulary
from ohlora.directions.edits import added
from ohlora.errors import DataError
from ohlora.evaluation.features import Features
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.scales import DataScale, PhysicalMap
from ohlora.evaluation.sliders import Limits, SliderEdits
from ohlora.modules.sliders import LOSSES, Slid, SliderTest
from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.networks.codes import Codes, Space
from ohlora.utils import images
from tests.directions.linear import GREY, Pixels, Reader

NAMES = ("straight", "saturating", "jumping", "dead")
SCALE = DataScale(-2.0, 2.0, PhysicalMap("opening", "0 … 1", (-2.0, 2.0), (0.0, 1.0)))


class Bent(Reader):
    """Each score follows the pixel of its own place; the first straight, the last not at all."""

    resolution = 2

    def forward(self, images: Tensor) -> Tensor:
        straight, saturating, jumping, dead = super().forward(images).unbind(dim=1)
        jumped = torch.where(jumping > 1.12, 2.0, 0.0)
        return torch.stack([straight, saturating.clamp(-1, 1), jumped, 0 * dead + 0.3], dim=1)


class PixelFeatures(Features):
    """The pixels' values in w."""

    def __init__(self) -> None:
        super().__init__(None, 4)

    def outputs_of(self, images: Tensor) -> Tensor:
        return images.mean(dim=1).flatten(1) / GREY


@pytest.fixture
def declared() -> None:
    """The world says of the first that it has a physical value."""
    about = {"meaning": "more", "kind": "score", "roles": ["expression"], "grid": [-1, 1], "limit": 0.9}
    said: dict[str, Any] = {name: dict(about) for name in NAMES}
    said["straight"]["physical"] = {"column": "opening", "unit": "0 … 1"}
    attributes.use(Vocabulary.read(Path("mine.yaml"), said))


def made(network: Identity | None = None, **limits: float) -> SliderTest:
    judge = cast(AttributeCNN, Bent(NAMES, torch.eye(4)))
    scales = {"straight": SCALE, "saturating": SCALE}
    edits = SliderEdits(4, 3.0, 12)
    return SliderTest(NAMES, Pixels(), judge, scales, edits, Limits(**limits), 64, 0, batch_size=7, identity=network)


def measure(test: SliderTest, start: Tensor, index: int = 0, steps: Tensor | None = None) -> Slid:
    """Sliders of a latent whose pixels are moved by one unit each."""
    code = Codes(start[None], Space.W)
    moving = Codes(torch.eye(4)[None] if steps is None else steps[None], Space.W)
    return test.measure(index, lambda strengths: added(code, strengths, moving), [1.0, 1.0, 1.0, 0.0])


def test_planted_sliders(declared: None) -> None:
    slid = measure(made(), torch.tensor([0.5, 0.0, 0.0, 0.0]))
    found, rounding = slid.numbers, 0.11  # images are rounded to grey levels
    assert slid.scores.shape == (4, 25) and slid.ranges.shape == (4, 2)
    # Straight: to both ends, beyond the range of the data.
    assert (found["straight_range_low"], found["straight_range_high"]) == (-3, 3) and slid.ranges[0].tolist() == [-3, 3]
    assert found["straight_lowest"] == pytest.approx(-2.5, abs=rounding) and found["straight_reach"] == 1
    assert found["straight_highest"] == pytest.approx(3.5, abs=rounding)
    sides = [found[f"straight_reach_{side}"] for side in ("below", "above")]  # from 0.5, within the data's −2 … 2
    assert sides == pytest.approx([2.5 / 4, 1.5 / 4], abs=rounding)
    assert (found["opening_lowest"], found["opening_highest"]) == (0, 1)
    assert found["straight_saturation"] == pytest.approx(1, abs=0.15)
    assert found["straight_jump"] == pytest.approx(0.25, abs=2 * rounding)
    assert found["straight_joint_corr"] > 0.99 and found["straight_joint_error"] < rounding
    # Saturating: as far as it grows, half of the data's range.
    assert slid.ranges[1] == pytest.approx([-1, 1], abs=0.25)
    assert (found["saturating_lowest"], found["saturating_highest"]) == (-1, 1)
    assert found["saturating_reach"] == pytest.approx(0.5)
    # Jumping: between two frames.
    assert found["jumping_jump"] == 2 and found["jumping_range_low"] == 0
    assert found["jumping_range_high"] == pytest.approx(1.25) and "jumping_reach" not in found
    # Dead: a judge that sees nothing.
    assert slid.ranges[3].tolist() == [0, 0] and found["dead_lowest"] == found["dead_highest"] == pytest.approx(0.3)
    assert found["dead_joint_corr"] == found["dead_joint_error"] == found["dead_jump"] == 0
    # A pixel of four changes by a quarter of a unit from frame to frame.
    grey = 127.5 * GREY * 0.25 / 4
    assert found["straight_pixel_jump"] == pytest.approx(grey, abs=0.26)
    assert not [name for name in found if name.endswith("density")]
    assert list(found) == [name for name in made().names if name in found]


class Angle(PixelFeatures):
    """Turns by 0.1 radians with each unit of the first pixel; the others do not matter."""

    def outputs_of(self, images: Tensor) -> Tensor:
        angle = super().outputs_of(images)[:, 0] / 10
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_identity_ends_sliders_and_is_told(declared: None) -> None:
    start = torch.tensor([0.5, 0.0, 0.0, 0.0])  # what counts is the change from the unedited image
    test = made(Identity(Angle()), identity=float(np.cos(0.16)))
    slid = measure(test, start)
    found = slid.numbers
    assert slid.ranges[0] == pytest.approx([-1.5, 1.5]) and slid.ranges[1] == pytest.approx([-1, 1], abs=0.25)
    assert found["straight_identity_min"] == pytest.approx(np.cos(0.15), abs=2e-3)
    assert np.cos(0.15) < found["straight_identity"] < 1 and found["saturating_identity_min"] == pytest.approx(1)
    # All at once, only the first matters: it is uniform on its range.
    assert np.cos(0.16) < found["joint_identity_min"] < np.cos(0.1) < found["joint_identity"] < 1
    assert slid.identity is not None and slid.within is not None
    assert slid.identity[0] == pytest.approx(np.cos(0.1 * np.linspace(-3, 3, 25)), abs=3e-3)
    # 0.02 are lost after two units; all three after 0.045.
    change = dict(zip(LOSSES.round(2).tolist(), slid.within[0], strict=True))
    assert change[0.02] == pytest.approx(2, abs=0.3) and change[0.5] == pytest.approx(3, abs=0.15)
    assert found["straight_change_area"] == pytest.approx(np.trapezoid(slid.within[0], LOSSES) / 0.5)
    pictures, tables = test.curves([slid, slid])
    assert [*pictures] == ["sliders", "identity", "change_and_identity"] and pictures["identity"].ndim == 3
    row = tables["sliders"][0]
    assert [*row][2:] == ["p10", "mean", "p90", "identity_p10", "identity_mean", "identity_p90"]
    assert row["identity_mean"] == pytest.approx(np.cos(0.3), abs=3e-3)
    assert tables["change_and_identity"][1]["straight"] == pytest.approx(change[0.02], abs=1e-4)
    without, found = made(), measure(made(), start).numbers
    assert not [name for name in found if "identity" in name or "area" in name]
    pictures, tables = without.curves([measure(without, start)])
    assert [*pictures] == [*tables] == ["sliders"] and "identity_mean" not in tables["sliders"][0]


def test_a_direction_that_goes_nowhere(declared: None) -> None:
    found = measure(made(), torch.zeros(4), steps=torch.zeros(4, 4)).numbers
    assert found["straight_range_low"] == found["straight_range_high"] == 0
    assert found["straight_reach"] == found["straight_joint_corr"] == found["straight_pixel_jump"] == 0
    assert found["opening_lowest"] == found["opening_highest"] == pytest.approx(0.5, abs=0.03)


def test_sliders_that_move_each_other_compose_badly(declared: None) -> None:
    steps = torch.eye(4)
    steps[1, 0] = 1.0  # the second moves the first as much as its own
    found = measure(made(leakage=9.0), torch.zeros(4), steps=steps).numbers
    # It is uniform on −1 … 1, so that the mean error is a half; the first moves by ±3, three times as far.
    assert found["straight_joint_error"] == pytest.approx(0.5, abs=0.2)
    assert found["straight_joint_corr"] == pytest.approx(3 / np.sqrt(10), abs=0.04)
    assert measure(made(), torch.zeros(4), steps=steps).numbers["saturating_range_high"] < 1  # by leakage


def test_settings_are_counted(declared: None) -> None:
    test, start = made(), torch.zeros(4)
    first = measure(test, start, index=5)
    assert measure(made(), start, index=5).numbers == first.numbers
    assert measure(test, start, index=6).numbers["straight_joint_error"] != first.numbers["straight_joint_error"]


def pictures(count: int, spread: float = 1.0) -> list[Tensor]:
    """Real images, whose pixels are normal, in batches."""
    w = spread * torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return list(torch.split(images.rounded(GREY * w.expand(-1, 3, -1, -1)), 50))


def test_frames_are_compared_with_real_images(declared: None) -> None:
    test = made()
    test.compare_with(pictures(800, spread=0.5), PixelFeatures(), torch.device("cpu"))
    assert test.density is not None and test.density.of_reals == pytest.approx(1, abs=0.25)
    found = measure(test, torch.zeros(4)).numbers
    # In the middle of the data, images are denser than on average; six deviations away there are none.
    assert -3 < found["straight_range_low"] < 0 < found["straight_range_high"] < 3
    assert found["straight_density"] > 0.5 and found["joint_density"] > 0
    unusual = measure(test, torch.tensor([0.0, 0.0, 0.0, 9.0])).numbers
    assert unusual["straight_density"] == 0 and unusual["straight_range_high"] == 3


def test_reals_must_have_something_in_common(declared: None) -> None:
    apart = [torch.full((20, 3, 2, 2), -1.0), torch.full((20, 3, 2, 2), 1.0)]
    with pytest.raises(DataError, match="nothing to compare realism with: none of 20 real images"):
        made().compare_with(apart, PixelFeatures(), torch.device("cpu"))


def test_a_map_of_another_physical_value_is_none() -> None:
    """What the world declares is meant, and not what the judge's data had."""
    other = PhysicalMap.fit(Physical("height", "cm"), np.arange(5.0), np.arange(5.0))
    about = {"meaning": "more", "kind": "score", "physical": {"column": "opening", "unit": "0 … 1"}}
    attributes.use(Vocabulary.read(Path("mine.yaml"), {"straight": about}))
    judge = cast(AttributeCNN, Bent(NAMES, torch.eye(4)))
    scales = {"straight": DataScale(0, 1, other)}
    test = SliderTest(("straight",), Pixels(), judge, scales, SliderEdits(1, 3.0, 2), Limits(), 2, 0, 10)
    assert test.columns == {"straight": "opening"} and not test.physical

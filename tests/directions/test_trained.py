"""Trained directions: one step for all, improved by what its edits show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ohlora.directions.edits import Directions
from ohlora.directions.finder import Finder, Notes, Source
from ohlora.directions.groups import Groups
from ohlora.directions.jacobian import Jacobian
from ohlora.directions.trained import Trained
from ohlora.errors import ConfigError
from ohlora.evaluation.features import Features
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.scales import DataScale
from ohlora.networks.codes import Codes, Space
from tests.directions.linear import GREY, Pixels, Reader

NAMES = ("eyes", "mouth")
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]])
SCALES = {name: DataScale(-2.0, 2.0) for name in (*NAMES, "pose")}


class Saturating(Reader):
    """The first score grows ever more slowly on both sides."""

    def forward(self, images: Tensor) -> Tensor:
        straight = super().forward(images)
        return torch.cat([3 * torch.tanh(straight[:, :1] / 3), straight[:, 1:]], dim=1)


class Fourth(Features):
    """Sees nothing but the fourth pixel, as an angle."""

    def outputs_of(self, images: Tensor) -> Tensor:
        seen = images[:, 0, 1, 1] / GREY
        return torch.stack([seen.cos(), seen.sin()], dim=1)


class Given(Finder):
    """Has found steps already."""

    def __init__(self, steps: Codes, groups: Groups | None = None, holds: bool = False) -> None:
        super().__init__(targets=NAMES, group_by=())
        self.steps, self.rule, self.holds_identity = steps, groups or Groups(), holds  # type: ignore[misc]

    @property
    def needs(self) -> set[str]:
        return {"samples"}

    def find(self, source: Source, notes: Notes) -> Directions:
        self.guided = source.guide is not None
        return Directions.of_steps(self.targets, self.steps, self.rule, "given", {"images": 7})


def of_steps(*rows: list[float], space: Space = Space.W) -> Codes:
    return Codes(torch.tensor(rows)[None], space)


START = of_steps([0.3, 0.0, 0.0, 0.0], [0.0, 0.3, 0.0, 0.0])


def source(guided: bool = False) -> Source:
    guide = Identity(Fourth(None, 2)) if guided else None
    network = Saturating((*NAMES, "pose"), WEIGHTS)
    return Source(None, Pixels(), network, scales=SCALES, guide=guide)  # type: ignore[arg-type]


def trained(start: Finder, guided: bool = False, **settings: float) -> tuple[Directions, Notes]:
    notes, defaults = Notes(), {"steps": 200, "rate": 0.05, "likeness": 0.0}
    found = Trained(start, **(defaults | settings)).find(source(guided), notes)  # type: ignore[arg-type]
    return found, notes


def test_short_and_leaking_steps_learn_to_move_what_they_should() -> None:
    """The second begins too short and the first leaks into the third; a step of 1 is to move its score by 1."""
    leaking = of_steps([0.5, 0.0, 0.5, 0.0], [0.0, 0.3, 0.0, 0.0])
    found, notes = trained(Given(leaking))
    assert found.method == "trained" and found.unit == "data" and found.space is Space.W
    moved = found.steps.values[0] @ WEIGHTS.T
    torch.testing.assert_close(moved[1], torch.tensor([0.0, 1.0, 0.0]), atol=0.1, rtol=0)
    # The first saturates, so that a straight step is longer than it would have to be at the middle.
    assert 1.0 < float(moved[0, 0]) < 1.8 and float(moved[0, 1:].abs().max()) < 0.1
    assert notes.metrics["loss_last"] < 0.5 * notes.metrics["loss_first"]


def test_what_made_them_is_told() -> None:
    found, _ = trained(Given(START), steps=3)
    assert found.provenance["start"] == {"method": "given", "images": 7}
    assert found.provenance["images"] == 7 + 3 * 8 * (4 + 1) and found.provenance["steps"] == 3


def test_a_guide_chooses_the_step_that_keeps_the_person() -> None:
    """First and fourth pixel both move the first score, and the guide sees another person in the fourth."""
    found = {}
    for guided in (False, True):
        start = Given(of_steps([0.5, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0]))
        found[guided] = trained(start, guided, person=3.0)[0].steps.values[0, 0]
        assert 0.8 < float(found[guided] @ WEIGHTS[0]) < 1.8
    assert abs(float(found[True][3])) < 0.1 < 0.3 < float(found[False][3])


@pytest.mark.parametrize("holds", [False, True])
def test_the_start_gets_what_it_needs(holds: bool) -> None:
    """A guide only where it can hold the person, and samples where it searches them."""
    start = Given(START, holds=holds)
    trained(start, guided=True, steps=1)
    assert start.guided == holds and Trained(start).needs == {"samples", "generator", "network"}


def test_seeds_decide_and_nothing_else_does() -> None:
    one, again, other = (trained(Given(START), steps=3, seed=seed)[0].vectors for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


class Halved(Reader):
    """Where the third score is positive, the first moves by half as much."""

    def forward(self, images: Tensor) -> Tensor:
        straight = super().forward(images)
        slope = torch.where(straight[:, 2:] > 0, 0.5, 1.0)
        return torch.cat([slope * straight[:, :1], straight[:, 1:]], dim=1)


def test_each_group_learns_from_its_own_latents() -> None:
    """What needs a step of 2 in one group needs one of 1 in the other."""
    values = START.values.repeat(2, 1, 1)
    given = Source(None, Pixels(), Halved((*NAMES, "pose"), WEIGHTS), scales=SCALES)  # type: ignore[arg-type]
    finder = Trained(Given(Codes(values, Space.W), Groups(("pose",), (0.0,))), steps=200, rate=0.05, likeness=0.0)
    found = finder.find(given, Notes())
    assert found.vectors.shape == (2, 2, 4) and found.groups.names == ("h", "l")
    straight = found.steps.values[:, 0] @ WEIGHTS[0]
    torch.testing.assert_close(straight, torch.tensor([2.0, 1.0]), atol=0.3, rtol=0)


def test_images_are_made_in_parts() -> None:
    """The search's batch size limits how many are made at once, and changes nothing else."""
    made = []
    for size in (100, 8):
        given, notes = replace(source(), batch_size=size), Notes()
        largest = [0]

        def watched(module: Any, args: tuple[Tensor, ...], largest: list[int] = largest) -> None:
            largest[0] = max(largest[0], len(args[0]))

        assert given.network is not None
        given.network.register_forward_pre_hook(watched)
        made.append(Trained(Given(START), steps=5).find(given, notes).steps.values)
        assert largest[0] == (32 if size == 100 else 8)
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-5)


def test_channels_that_the_start_leaves_alone_stay_so() -> None:
    single = of_steps([0.3, 0.0, 0.0, 0.0], [0.0, 0.3, 0.0, 0.0], space=Space.S)
    found, _ = trained(Given(single), steps=50)
    assert found.space is Space.S and float(found.steps.values[0, 0, 0]) > 0.8
    assert not found.steps.values[0][single.values[0] == 0].any()


def test_the_default_start_finds_them_by_gradients() -> None:
    finder = Trained(steps=2)
    assert isinstance(finder.start, Jacobian) and finder.needs == {"generator", "network"}
    assert finder.targets == finder.start.targets
    assert Trained(targets=["mouth"]).targets == Trained(targets=["mouth"]).start.targets == ("mouth",)
    with pytest.raises(ConfigError, match="start has targets of its own"):
        Trained(Given(START), targets=["mouth"])
    assert Trained(group_by=["pose"]).start.group_by == Trained(group_by=["pose"]).group_by == ("pose",)
    with pytest.raises(ConfigError, match="start has group_by of its own"):
        Trained(Given(START), group_by=["pose"])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"edits": 1}, {"rate": 0.0}, {"person": -1.0}, {"batch_size": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Trained(Given(START), **wrong)  # type: ignore[arg-type]

"""The finders in StyleSpace where everything can be worked out by hand.

Four style channels are independent, with standard deviations 1, 2, 1 and ½. Each is the grey of one pixel, and scores
are linear in them: ``eyes`` = 3 s₀ − 2 s₁ + s₂, ``mouth`` = −4 s₃, ``hairstyle`` = s₁. One standard deviation of the
channels moves ``eyes`` by (3, −4, 1, 0), that of the samples by √26.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ohlora.directions.channels import Channels
from ohlora.directions.finder import Notes, SampleSet, Source
from ohlora.directions.single_channel import SingleChannel
from ohlora.errors import ConfigError, DataError
from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator

GREY = 0.04
DEVIATIONS = torch.tensor([1.0, 2.0, 1.0, 0.5])
MEANS = torch.tensor([1.0, -2.0, 0.0, 3.0])
NAMES = ("eyes", "mouth", "hairstyle")
WEIGHTS = torch.tensor([[3.0, -2.0, 1.0, 0.0], [0.0, 0.0, 0.0, -4.0], [0.0, 1.0, 0.0, 0.0]])


class FourPixels(Generator):
    """w is z, and its four numbers are shifted and scaled to channels: two of the first layer, two of the second."""

    kind = "four-pixels"

    def __init__(self) -> None:
        super().__init__(2, z_dim=4, w_dim=4, c_dim=0, labels="none", label_rows=0)
        self.num_ws, self.style_sizes = 2, (2, 2)

    def compute_w(self, z: Tensor, label: Tensor | None) -> Tensor:
        return z

    def compute_styles(self, w: Tensor) -> Tensor:
        return torch.cat([w[:, 0, :2], w[:, 1, 2:]], dim=1) * DEVIATIONS + MEANS

    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return GREY * styles.reshape(-1, 1, 2, 2).expand(-1, 3, -1, -1)

    def noise_buffers(self) -> list[Tensor]:
        return []


class Reader(nn.Module):
    """The scores, read off the pixels."""

    outputs = NAMES

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1).flatten(1) / GREY @ WEIGHTS.T


def source(count: int = 20000) -> Source:
    """Networks and samples."""
    generator = FourPixels()
    w = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    scores = (generator.styles(Codes(w, Space.W)).values @ WEIGHTS.T).numpy()
    samples = SampleSet(NAMES, Codes(w, Space.W), scores)
    return Source(samples, generator, cast(AttributeCNN, Reader()), batch_size=1000)


@pytest.mark.parametrize(("hold", "expected"), [([], [3.0, -8.0, 1.0, 0.0]), (["hairstyle"], [3.0, 0.0, 1.0, 0.0])])
def test_channels_step_in_proportion_to_gradient_and_variance(hold: list[str], expected: list[float]) -> None:
    """The step is V a, without the held channel, as long as moves the score by one."""
    finder = Channels(targets=["eyes"], hold=hold, latents=2000, rounds=1, covariance_count=4000)
    found = finder.find(source(), Notes())
    direction = torch.tensor(expected)
    step = direction / (WEIGHTS[0] @ direction)
    torch.testing.assert_close(found.steps.values[0, 0].float(), step, rtol=0.06, atol=0.02)
    moved = WEIGHTS @ found.steps.values[0, 0].float()
    assert float(moved[0]) == pytest.approx(1, rel=0.05)
    assert not hold or abs(float(moved[2])) < 1e-4


def single(rank: str, **settings: Any) -> SingleChannel:
    small = {"fraction": 0.1, "latents": 20, "verified": 20, "covariance_count": 4000}
    return SingleChannel(targets=["eyes", "mouth"], rank=rank, **(small | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("rank", ["difference", "gradient"])
def test_the_channel_that_leaks_nothing_is_chosen(rank: str) -> None:
    """s₁ moves the eyes most, but the hairstyle too; s₂ moves nothing else, but the eyes too little; s₀ remains."""
    notes = Notes()
    found = single(rank).find(source(), notes)
    expected = torch.zeros(2, 4)
    expected[0, 0], expected[1, 3] = 1 / 3, -1 / 4
    torch.testing.assert_close(found.steps.values[0].float(), expected, rtol=0.06, atol=0)
    of_eyes = {"layer": 0, "channel": 0}
    assert found.provenance["channels"] == {"eyes": of_eyes, "mouth": {"layer": 1, "channel": 1}}
    assert found.provenance["images"] == 2 * 4 * 20 * 5 + (20 if rank == "gradient" else 0)
    rows = [row for row in notes.tables["channels"] if row["attribute"] == "eyes"]
    moved = torch.tensor([3.0, -4.0, 1.0, 0.0])
    relevance, slope = torch.zeros(4), torch.zeros(4)
    for row in rows:
        relevance[2 * row["layer"] + row["channel"]] = row["relevance"]
        slope[2 * row["layer"] + row["channel"]] = row["slope"]
    torch.testing.assert_close(slope, moved, rtol=0.1, atol=0.05)
    assert [row["rank"] for row in rows] == [0, 1, 2, 3] and rows[1] | of_eyes == rows[1]
    if rank == "gradient":
        torch.testing.assert_close(relevance, moved, rtol=0.1, atol=1e-6)
    else:
        # Of a channel that correlates with the score by ρ, among the highest tenth of a normal distribution: the mean
        # is ρ λ and the variance 1 − ρ² λ (λ − q), with λ the mean of the score there and q its quantile.
        q, height = 1.28155, 1.75498
        rho = moved / math.sqrt(26)
        expected = rho * height / (1 - rho.square() * height * (height - q)).sqrt()
        torch.testing.assert_close(relevance, expected, rtol=0, atol=0.15)


@pytest.mark.parametrize("rank", ["difference", "gradient"])
def test_a_channel_that_never_changes_comes_last(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.DEVIATIONS", torch.tensor([1.0, 0.0, 1.0, 0.5]))
    monkeypatch.setattr(f"{__name__}.WEIGHTS", WEIGHTS + torch.tensor([[0.0], [0.0], [1.0]]))
    notes = Notes()
    found = single(rank, verified=3).find(source(200), notes)
    assert torch.isfinite(found.steps.values).all()
    for name in ("eyes", "mouth"):
        last = [row for row in notes.tables["channels"] if row["attribute"] == name][-1]
        assert last["relevance"] == 0 and abs(last["slope"]) < 1e-9 and not last["chosen"]


def test_channels_that_do_not_move_the_attribute_are_refused() -> None:
    """Samples may say of an attribute what the search CNN does not: here that the mouth depends on s₀."""
    given = source(200)
    assert given.samples is not None and given.generator is not None
    scores = np.repeat(given.generator.styles(given.samples.codes).values[:, :1].numpy(), 3, axis=1)
    given = replace(given, samples=replace(given.samples, scores=scores))
    with pytest.raises(DataError, match="none of 1 style channels moves mouth; verify more candidates"):
        single("difference", candidates=1).find(given, Notes())
    found = single("difference", candidates=4).find(given, Notes())
    assert found.provenance["channels"]["mouth"] == {"layer": 1, "channel": 1}


def test_what_cannot_be_searched() -> None:
    with pytest.raises(DataError, match=r"eyes: a share of 0\.1 of 12 samples is 1; expected at least 2"):
        single("difference").find(source(12), Notes())
    for settings, said in (
        ({"fraction": 0.6}, "fraction is 0.6"),
        ({"reach": math.nan}, "reach is nan; expected more than 0"),
        ({"candidates": 0}, "candidates is 0; expected at least 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            single("difference", **settings)

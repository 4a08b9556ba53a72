"""Augmentations against plain references, and how ADA's probability adapts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.errors import ConfigError
from ohlora.networks.augmentation import ADA, Augmentation, DiffAugment, Drawn, rotation, shift, stretch
from ohlora.networks.operations import resample
from ohlora.utils import counted


def generators(count: int, first: int = 0) -> list[np.random.Generator]:
    return counted.generators(0, "test", range(first, first + count))


def ada(p: float, turns: bool = False) -> ADA:
    made = ADA(turns=turns)
    made.p.fill_(p)
    return made


@pytest.mark.parametrize("augmentation", [DiffAugment(), ada(0.7, turns=True)], ids=["DiffAugment", "ADA"])
def test_they_are_differentiable_twice(augmentation: Augmentation) -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        made: Tensor = augmentation(x, generators(2))
        return made

    assert torch.autograd.gradcheck(function, images)
    assert torch.autograd.gradgradcheck(function, images)


@pytest.mark.parametrize("augmentation", [DiffAugment(), ada(0.7)], ids=["DiffAugment", "ADA"])
def test_an_image_changes_by_itself(augmentation: Augmentation) -> None:
    images = torch.randn(5, 3, 16, 16)
    whole, part = augmentation(images, generators(5)), augmentation(images[3:], generators(2, first=3))
    torch.testing.assert_close(whole[3:], part)
    same = augmentation(images[:1].expand(5, -1, -1, -1), generators(5))
    assert all(not torch.allclose(same[0], other) for other in same[1:])


def test_half_precision_becomes_whole() -> None:
    images = torch.randn(2, 3, 16, 16).bfloat16()
    expected = ada(0.7)(images.float(), generators(2))
    with torch.autocast("cpu", torch.bfloat16):
        made = ada(0.7)(images, generators(2))
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, expected)


def test_diffaugment_is_that_of_a_plain_reference() -> None:
    size, count = 16, 40
    images = torch.randn(count, 3, size, size)
    made = DiffAugment()(images, generators(count))
    drawn = Drawn(generators(count), images)
    brightness, saturation, contrast = drawn.uniform(-0.5, 0.5), drawn.uniform(0, 2), drawn.uniform(0.5, 1.5)
    right, down, column, row = (drawn.integer(*ends).int().tolist() for ends in ((-2, 2), (-2, 2), (0, 16), (0, 16)))
    for k in range(count):
        x = images[k] + brightness[k]
        x = (x - x.mean(dim=0)) * saturation[k] + x.mean(dim=0)
        x = (x - x.mean()) * contrast[k] + x.mean()
        expected = torch.zeros(3, size + 4, size + 4)
        expected[:, 2 - down[k] :, 2 - right[k] :][:, :size, :size] = x
        expected = expected[:, 2:-2, 2:-2].clone()
        expected[:, max(row[k] - 4, 0) : row[k] + 4, max(column[k] - 4, 0) : column[k] + 4] = 0
        torch.testing.assert_close(made[k], expected, msg=str(k))
    assert {-2, -1, 0, 1, 2} == {*right} == {*down} and {0, 16} <= {*column, *row}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_resampling_moves_pixels(interpolation: str) -> None:
    x = torch.randn(1, 3, 8, 8)
    one = torch.ones(1)

    def moved(maps: Tensor, border: str = "zeros") -> Tensor:
        return resample(x, maps, interpolation, border)

    torch.testing.assert_close(moved(stretch(-one, 1)), x.flip(3))
    torch.testing.assert_close(moved(stretch(one, -1)), x.flip(2))
    # The place to the right comes from what was below: everything turns from down to right.
    torch.testing.assert_close(moved(rotation(one * math.pi / 2)), x.rot90(1, (2, 3)))
    by_two = moved(shift(2 * 2 / 8 * one, 2 / 8 * one))
    torch.testing.assert_close(by_two[:, :, :-1, :-2], x[:, :, 1:, 2:])
    assert float(by_two[:, :, -1].abs().max()) < 1e-5
    continued = moved(shift(2 * 2 / 8 * one, 0 * one), "reflection")
    torch.testing.assert_close(continued[..., -2:], x[..., -2:].flip(3))


def test_nothing_changes_at_probability_0() -> None:
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(ADA(turns=True)(images, generators(4)), images, atol=1e-5, rtol=1e-5)


def test_colours_of_ada_are_those_of_the_papers_matrices() -> None:
    count = 20
    colours = torch.randn(count, 3, dtype=torch.float64)
    augmentation = ada(1.0)
    made = augmentation(colours[:, :, None, None].expand(-1, -1, 8, 8), generators(count))
    drawn = Drawn(generators(count), colours)
    augmentation.places(drawn, 8)
    axis = np.ones(3) / math.sqrt(3)
    projection = np.outer(axis, axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    sure = augmentation.p
    brightness, _ = drawn.normal(0.2), drawn.event(sure)
    contrast, _ = drawn.normal(0.5), drawn.event(sure)
    inverted, _ = drawn.integer(0, 1), drawn.event(sure)
    hue, _ = drawn.uniform(-math.pi, math.pi), drawn.event(sure)
    saturation, _ = drawn.normal(1.0), drawn.event(sure)
    assert {*inverted.tolist()} == {0.0, 1.0}
    for k in range(count):
        c = colours[k].numpy() + float(brightness[k])
        c = c * 2 ** float(contrast[k])
        c = (np.eye(3) - 2 * projection * float(inverted[k])) @ c
        cos, sin = math.cos(hue[k]), math.sin(hue[k])
        c = (cos * np.eye(3) + sin * cross + (1 - cos) * projection) @ c
        c = (projection + (np.eye(3) - projection) * 2 ** float(saturation[k])) @ c
        torch.testing.assert_close(made[k, :, 3, 5], torch.from_numpy(c))


def test_changes_of_place_are_as_frequent_and_as_strong_as_the_paper_has_them() -> None:
    count, size = 4000, 64
    half = ada(0.5, turns=True)
    maps = half.places(Drawn(generators(count), torch.zeros((), dtype=torch.float64)), size)
    unchanged = (maps - torch.eye(3)).abs().amax(dim=(1, 2)) < 1e-9
    # Of mirroring half do nothing, of turns a quarter; of two rotations both are left out with probability a half.
    assert float(unchanged.double().mean()) == pytest.approx(0.75 * 0.625 * 0.5**5, abs=0.005)
    assert float((torch.linalg.det(maps) < 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    area = torch.linalg.det(maps).abs().log2() / 2
    scaled = area.abs() > 1e-9
    assert float(scaled.double().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(area[scaled].std()) == pytest.approx(0.2, abs=0.01)
    plain = ADA(flip=False)
    plain.p.fill_(1.0)
    maps = plain.places(Drawn(generators(count), torch.zeros((), dtype=torch.float64)), size)
    assert bool((torch.linalg.det(maps) > 0).all())  # never mirrored
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])
    assert float(angle.cos().mean()) == pytest.approx(0, abs=0.05)  # of all directions
    assert float(maps[:, :2, 2].abs().max()) < 2.5


def test_the_probability_follows_the_signs() -> None:
    augmentation = ADA(kimg=1.0)
    seen = []
    for sign in (*[1.0, 1.0, 1.0, 0.0], *[1.0] * 4, *[0.5] * 4, *[0.0] * 8, *[0.5, 0.7, 0.7, 0.7], *[1.0] * 32):
        augmentation.observe(torch.tensor(sign), 50)
        seen.append(float(augmentation.p))
    assert seen[2] == 0 and seen[3] == pytest.approx(0.2) and seen[7] == pytest.approx(0.4)
    assert seen[11] == pytest.approx(0.2) and seen[15] == pytest.approx(0) and seen[19] == 0
    assert seen[23] == pytest.approx(0.2) and seen[-1] == 1


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"target is 1\.5; expected -1 to 1"):
        ADA(target=1.5)
    with pytest.raises(ConfigError, match="kimg is 0; expected more than 0"):
        ADA(kimg=0)

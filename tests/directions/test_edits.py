"""Groups, edits, the grid, and the figures of edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional import pearson_corrcoef

from ohlora.attributes import recipe
from ohlora.directions.covariance import covariance_of
from ohlora.directions.edits import Directions, Grid, Latents
from ohlora.directions.groups import Groups
from ohlora.evaluation.conditions import passing
from ohlora.evaluation.edits import EditReport, correlations, monotone_shares, slopes, summary
from ohlora.networks.codes import Codes, Space
from ohlora.utils.files import read_rows

PUBLISHED = Path(__file__).parents[1] / "data" / "reference"
EDITED = ("eyes", "mouth", "pose")
LIMITS = {name: float(recipe()[name].limit or 0) for name in EDITED}


def test_groups_are_named_by_letters() -> None:
    groups = Groups(("hair_color", "hair_length"), (0.1, 0.5))
    assert groups.names == ("hh", "hl", "lh", "ll")
    scores = np.array([[9, 0.5, 0.1], [9, 0.4, 0.1], [9, 0.5, 0.0], [9, 0.0, 0.0]], dtype=np.float32)
    assert groups.assign(("eyes", "hair_length", "hair_color"), scores).tolist() == [0, 1, 2, 3]
    assert Groups().names == ("all",) and Groups().assign((), scores).tolist() == [0] * 4
    assert len(Groups(("a", "b", "c", "d"), (0.0,) * 4).names) == 16
    with pytest.raises(ValueError, match="no score for hair_length"):
        groups.assign(("hair_color",), scores[:, :1])
    with pytest.raises(ValueError, match="median of hair_length is not known"):
        Groups(("hair_color", "hair_length"), (0.1, float("nan"))).assign(("hair_color", "hair_length"), scores)


def test_the_grid_is_the_recipe() -> None:
    grid = Grid.of(EDITED)
    rows = grid.strengths(EDITED)
    assert grid.full and rows.shape == (50, 3)
    assert rows[0].tolist() == pytest.approx([-1.2, -1.8, -0.6])
    assert rows[1].tolist() == pytest.approx([-1.2, -1.8, 0.0])  # the pose changes fastest
    assert rows[5].tolist() == pytest.approx([-1.2, -0.9, -0.6]) and rows[25, 0].item() == pytest.approx(1.2)
    assert list(Grid.of(("roll", "eyes", "mouth")).levels) == ["eyes", "mouth", "roll"]
    assert list(Grid.of(("eyes", "mouth"), {"mouth": (-1, 1)}).levels) == ["mouth", "eyes"]
    assert Grid.of(("mouth",)).strengths(("mouth",))[:, 0].tolist() == pytest.approx([-1.8, -0.9, 0, 0.9, 1.8])
    with pytest.raises(ValueError, match="fewer than two strengths for hairstyle"):
        Grid.of(("eyes", "hairstyle"))
    for wrong in ((1.8, -1.8), (0, 0, 1), (float("nan"), 1)):  # neighbours, or their places, would be others
        with pytest.raises(ValueError, match=r"the grid of mouth is .*; expected strengths that rise"):
            Grid.of(("eyes", "mouth"), {"mouth": wrong})


def test_many_attributes_do_not_multiply_the_edits() -> None:
    """Six of five levels: each alone, and eight corners, in which every attribute and every pair is balanced."""
    names = tuple("abcdef")
    levels = dict.fromkeys(names, (-1.0, -0.5, 0.0, 0.5, 2.0))
    grid = Grid.of(names, levels)
    rows = grid.strengths(names).double()
    assert not grid.full and len(rows) == 6 * 4 + 1 + 8 and len(set(map(tuple, rows.tolist()))) == len(rows)
    corners = rows[(rows != 0).all(dim=1)]
    high = (corners == 2.0).double()
    assert len(corners) == 8 and high.sum(dim=0).eq(4).all()
    together = high.T @ high
    assert together[~torch.eye(6, dtype=torch.bool)].eq(2).all()
    assert [rows[k, 1].item() for k in grid.alone("b")] == [-1.0, -0.5, 0.0, 0.5, 2.0]
    assert all((rows[b] - rows[a])[1] > 0 for a, b in grid.neighbours("b").tolist())
    slope = torch.randn(6, 3, dtype=torch.double)
    torch.testing.assert_close(slopes(rows, (rows @ slope)[None])[0], slope)
    report = EditReport(names, names, [grid.neighbours(name) for name in names])
    report.update(torch.tensor([0]), torch.tensor([0]), rows, rows[None], torch.zeros(1, 6))
    (row,) = report.compute()
    assert all(row[f"{name}_corr"] == pytest.approx(1) and row[f"{name}_monotone"] == 1 for name in names)
    assert Grid.of(names[:2], levels).full and len(Grid.of(names, levels, 5**6).strengths(names)) == 5**6


def test_edits_add_the_directions_of_the_group() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 2, 6), dim=-1)
    units = torch.rand(4, 2) + 0.5
    found = Directions(("eyes", "mouth"), vectors, units, Groups(("a", "b"), (0.0, 0.0)), "svm")
    w, strengths = torch.randn(3, 6), torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    latents = Latents(w, None, Codes(w, Space.W))
    codes = found.codes(latents, torch.tensor([2, 0, 2]), strengths)
    assert codes.space is Space.W and torch.equal(codes.values[:, 0], w)
    expected = w[1] + units[0, 0] * vectors[0, 0] - 2 * units[0, 1] * vectors[0, 1]
    torch.testing.assert_close(codes.values[1, 1], expected)
    by_layer = torch.randn(4, 2, 5, 6)
    steps = Codes(by_layer, Space.W_BY_LAYER)
    layered = Directions.of_steps(("eyes", "mouth"), steps, found.groups, "jacobian")
    assert torch.allclose(layered.vectors.flatten(2).norm(dim=-1), torch.ones(4, 2))
    torch.testing.assert_close(layered.steps.values, by_layer)
    codes = layered.codes(latents, torch.tensor([2, 0, 2]), strengths)
    assert codes.space is Space.W_BY_LAYER
    torch.testing.assert_close(codes.values[1, 1, 3], w[1] + by_layer[0, 0, 3] - 2 * by_layer[0, 1, 3])
    with pytest.raises(ValueError, match="4 groups × 1 attributes"):
        Directions(("eyes",), vectors, units, found.groups, "svm")
    with pytest.raises(ValueError, match="vectors in w_by_layer"):
        Directions(("eyes", "mouth"), vectors, units, found.groups, "svm", space=Space.W_BY_LAYER)


def test_style_channels_are_moved_as_codes_are() -> None:
    """Directions in S are as many numbers as the generator has style channels."""
    vectors = torch.nn.functional.normalize(torch.randn(1, 2, 11), dim=-1)
    found = Directions(("eyes", "mouth"), vectors, torch.ones(1, 2), Groups(), "svm", space=Space.S)
    start = Codes(torch.randn(3, 11), Space.S)
    codes = found.codes(Latents(torch.zeros(3, 4), None, start), torch.zeros(3, dtype=torch.long), torch.eye(2))
    assert codes.space is Space.S
    torch.testing.assert_close(codes.values[2, 1], start.values[2] + vectors[0, 1])
    with pytest.raises(ValueError, match="codes in w cannot be written in s"):
        found.codes(
            Latents(torch.zeros(3, 4), None, Codes(torch.zeros(3, 8), Space.W)),
            torch.zeros(3, dtype=torch.long),
            torch.eye(2),
        )


def test_covariances_of_rows_far_from_zero() -> None:
    rows = torch.randn(5000, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 1e4
    torch.testing.assert_close(covariance_of(rows, chunk=999), torch.cov(rows.T, correction=0))


def edits(slope: torch.Tensor, noise: float, latents: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    strengths = Grid.of(EDITED).strengths(EDITED).double()
    random = torch.Generator().manual_seed(0)
    scores = strengths @ slope + noise * torch.randn(latents, 50, slope.shape[1], generator=random, dtype=torch.double)
    return strengths, scores


def test_correlations_slopes_and_monotony() -> None:
    slope = torch.tensor([[1.0, 0.0, 0.2, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, -1.0, 0.3]]).double()
    strengths, scores = edits(slope, 0.0)
    torch.testing.assert_close(slopes(strengths, scores), slope.expand(30, 3, 4))
    grid = Grid.of(EDITED)
    assert len(grid.neighbours("eyes")) == 25 and len(grid.neighbours("pose")) == 40
    assert monotone_shares(scores[..., 0], grid.neighbours("eyes")).eq(1).all()
    assert monotone_shares(scores[..., 2], grid.neighbours("pose")).eq(0).all()
    strengths, scores = edits(slope, 0.5)
    r = correlations(strengths, scores)
    for p in range(3):
        for k in range(4):
            torch.testing.assert_close(r[7, p, k], pearson_corrcoef(scores[7, :, k], strengths[:, p]))
    scores[0, :, 0] = 3.0
    assert correlations(strengths, scores)[0, :, 0].eq(0).all()  # no change, no correlation


def test_the_report_over_batches() -> None:
    outputs = ("eyes", "mouth", "pose", "hair_color")
    slope = torch.tensor([[1.0, 0.1, 0.0, 0.2], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.3]]).double()
    strengths, scores = edits(slope, 0.0)
    report = EditReport(EDITED, outputs, [Grid.of(EDITED).neighbours(name) for name in EDITED])
    unedited = torch.zeros(30, 4)
    for part in (range(20, 30), range(20)):
        places = torch.tensor([*part])
        report.update(places, places % 4, strengths, scores[places], unedited[places])
    rows = report.compute()
    assert [row["index"] for row in rows] == list(range(30)) and rows[5]["group"] == 1
    row = rows[0]
    assert row["eyes_corr"] == pytest.approx(float(correlations(strengths, scores)[0, 0, 0]))
    assert row["mouth_slope"] == pytest.approx(0.5) and row["eyes_monotone"] == 1
    assert row["eyes_leakage"] == pytest.approx((0.1 + 0.0 + 0.2) / 3)
    assert row["drift_hair_color"] == pytest.approx(float(scores[0, :, 3].abs().mean()))
    limits = dict.fromkeys(EDITED, 0.9)
    found = summary(rows, EDITED, outputs, limits)
    assert found["latents"] == 30 and found["pose_slope_mean"] == pytest.approx(1.0)
    assert found["eyes_systematic_leakage"] == pytest.approx(0.1) and found["passed_ratio"] == 1


def test_a_wrong_sign_does_not_pass() -> None:
    row = {"eyes_corr": 0.95, "mouth_corr": -0.95, "pose_corr": 0.95}
    assert passing(LIMITS).met(row) is False and passing(LIMITS).met(row | {"mouth_corr": 0.88})


def test_the_published_test_passes_as_published() -> None:
    rows = read_rows(PUBLISHED / "image_generation_test.csv")
    # The original's directions point downwards.
    passed = [passing(LIMITS).met({f"{n}_corr": -float(row[f"{n}_corr"]) for n in EDITED}) for row in rows]
    assert len(rows) == 2000 and passed.count(True) == 49
    assert passed == [row["passed"] == "O" for row in rows]

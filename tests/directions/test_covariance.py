"""Covariance-solved steps, and directions from scored samples."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from ohlora.directions.covariance import covariance_solved, covariance_solved_by_layer, ridge_gradients
from ohlora.directions.finder import Notes, SampleSet, Source
from ohlora.directions.mean_difference import MeanDifference
from ohlora.directions.ridge import Ridge
from ohlora.directions.sampled import SampleFinder
from ohlora.directions.svm import SVM
from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.networks.codes import Codes, Space
from tests.directions.linear import Pixels, Reader


def problem(outputs: int = 4, size: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    gradients = torch.randn(outputs, size, generator=random, dtype=torch.double)
    root = torch.randn(size, size, generator=random, dtype=torch.double)
    return gradients, root @ root.T + 0.1 * torch.eye(size)


def test_a_step_moves_its_attribute_and_holds_the_others() -> None:
    gradients, covariance = problem()
    steps = covariance_solved(gradients, covariance, [2, 0])
    expected = torch.zeros(2, 4, dtype=torch.double)
    expected[0, 2] = expected[1, 0] = 1
    torch.testing.assert_close(steps @ gradients.T, expected)
    # Any other such step is longer under the data.
    precision = torch.linalg.inv(covariance)
    beside = torch.linalg.svd(gradients)[2][4:]  # changes no attribute
    for direction in beside:
        other = steps[0] + 0.1 * direction
        assert other @ precision @ other > steps[0] @ precision @ steps[0]
    many = torch.stack([gradients, 2 * gradients])
    torch.testing.assert_close(covariance_solved(many, covariance, [2, 0])[1], steps / 2)


def test_gradients_that_depend_on_each_other_are_refused() -> None:
    gradients, covariance = problem()
    gradients[3] = gradients[0] + gradients[1]
    with pytest.raises(ValueError, match="hold to fewer attributes"):
        covariance_solved(gradients, covariance, [0])


def test_layers_take_their_own_part() -> None:
    gradients, covariance = problem()
    by_layer = torch.stack([gradients, 0 * gradients, 3 * gradients], dim=1)
    steps = covariance_solved_by_layer(by_layer, covariance, [1])
    assert steps.shape == (1, 3, 7) and not steps[0, 1].any()
    torch.testing.assert_close(steps[0, 2], 3 * steps[0, 0])  # to where it does more
    change = torch.einsum("pld,kld->pk", steps, by_layer)
    torch.testing.assert_close(change, torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.double))


def test_ridge_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6))
    scores = w @ rng.standard_normal((6, 3)) + rng.standard_normal((200, 3))
    joint = np.cov(np.concatenate([w, scores], axis=1).T, bias=True)
    penalty = 0.05
    found = ridge_gradients(torch.from_numpy(joint[:6, :6]), torch.from_numpy(joint[:6, 6:]), penalty)
    model = SklearnRidge(alpha=penalty * np.trace(joint[:6, :6]) / 6 * 200).fit(w, scores)
    assert np.allclose(found.numpy(), model.coef_, atol=1e-8)


NAMES = ("eyes", "mouth", "pose", "hair_color")
WEIGHTS = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 2.0, 0.3, 0.0], [0.2, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])


def source(w: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor = WEIGHTS) -> Source:
    """Scored samples, and networks where scores are linear in w."""
    network = cast(AttributeCNN, Reader(NAMES, weights))
    given = SampleSet(NAMES, Codes(w, Space.W), scores.numpy())
    return Source(given, Pixels(), network, {"hair_color": 0.0}, batch_size=500)


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Codes of length 4, their scores, and places of both groups: by the last score, which alternates."""
    w = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    scores = w @ WEIGHTS.T
    scores[:, 3] = 1 - 2 * (torch.arange(count) % 2)
    return w, scores, np.stack([np.arange(0, count, 2), np.arange(1, count, 2)])


def test_ridges_of_groups() -> None:
    w, scores, places = samples(900, 1)
    true = torch.stack([WEIGHTS[:3], WEIGHTS[:3].roll(1, dims=1)])
    for own, weights in zip(places, true, strict=True):
        scores[own, :3] = w[own] @ weights.T
    finder = Ridge(penalty=0.0, targets=["mouth"], hold=["eyes", "pose"], group_by=["hair_color"])
    steps = finder.find(source(w, scores), Notes()).steps.values.float()
    # Noiseless: the step changes the score of its own group, and no other.
    for g in range(2):
        moved = steps[g, 0] @ true[g].T
        torch.testing.assert_close(moved / moved[1], torch.tensor([0.0, 1.0, 0.0]), rtol=1e-4, atol=1e-4)


def test_mean_differences() -> None:
    w, scores, places = samples(600, 2)
    steps = MeanDifference(targets=["eyes"], group_by=["hair_color"]).find(source(w, scores), Notes()).steps.values
    for g, own in enumerate(places):
        order = scores[own, 0].argsort().numpy()
        expected = w[own][order[-60:]].mean(dim=0) - w[own][order[:60]].mean(dim=0)
        cosine = torch.nn.functional.cosine_similarity(steps[g, 0].float(), expected, dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("finder", [SVM, MeanDifference, Ridge])
@pytest.mark.parametrize("spread", [1.0, 0.2])
def test_a_unit_is_one_z_score_of_the_data(finder: type[SampleFinder], spread: float) -> None:
    """However narrow the generator: what its samples differ by is no unit."""
    w, scores, _ = samples(600, 3)
    found = finder(targets=["eyes", "mouth"], group_by=[]).find(source(spread * w, spread * scores), Notes())
    slopes = (found.steps.values[0] * WEIGHTS[:2].double()).sum(dim=1)
    torch.testing.assert_close(slopes, torch.ones(2, dtype=torch.double), rtol=0.05, atol=0)
    assert found.unit == "data" and found.provenance["unscaled"] == []
    assert found.provenance["images"] == 2 * 20 * 4


def test_a_direction_that_goes_nowhere_keeps_its_length(capsys: pytest.CaptureFixture[str]) -> None:
    """Samples may say of an attribute what no image shows: here the search CNN sees no mouth, and a falling pose."""
    w, scores, _ = samples(600, 4)
    weights = WEIGHTS * torch.tensor([[1.0], [0.01], [-1.0], [0.0]])
    found = MeanDifference(targets=["eyes", "mouth", "pose"], group_by=[]).find(source(w, scores, weights), Notes())
    assert found.provenance["unscaled"] == ["mouth of group all", "pose of group all"]
    assert "2 directions hardly move their attribute, and keep their length: mouth of group all" in (
        capsys.readouterr().out
    )
    along = w.double() @ found.vectors[0].T.double()
    torch.testing.assert_close(found.units[0, 1:], along.std(dim=0, correction=0)[1:])
    assert float(found.steps.values[0, 0] @ weights[0].double()) == pytest.approx(1, rel=0.05)

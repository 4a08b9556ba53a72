"""Covariance-solved steps, and directions from scored samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from ohlora.directions.covariance import covariance_solved, covariance_solved_by_layer, ridge_gradients
from ohlora.directions.finder import Finder, Notes, SampleSet, Source
from ohlora.directions.mean_difference import MeanDifference
from ohlora.directions.ridge import Ridge
from ohlora.networks.codes import Codes, Space


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
    deviations = scores.std(axis=0)
    penalty = 0.05
    found = ridge_gradients(
        torch.from_numpy(joint[:6, :6]), torch.from_numpy(joint[:6, 6:]), torch.from_numpy(deviations), penalty
    )
    model = SklearnRidge(alpha=penalty * np.trace(joint[:6, :6]) / 6 * 200).fit(w, scores / deviations)
    assert np.allclose(found.numpy(), model.coef_, atol=1e-8)


def samples(count: int, seed: int) -> tuple[np.random.Generator, torch.Tensor, np.ndarray]:
    """Codes of length 5, and an even/odd grouping score."""
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.standard_normal((count, 5)).astype(np.float32))
    return rng, w, np.where(np.arange(count) % 2, -1.0, 1.0)


def found(finder: Finder, w: torch.Tensor, scores: np.ndarray, names: tuple[str, ...]) -> torch.Tensor:
    """Steps of both groups."""
    given = SampleSet(names, Codes(w, Space.W), scores.astype(np.float32))
    return finder.find(Source(given, medians={"hair_color": 0.0}), Notes()).steps.values


def test_ridges_of_groups() -> None:
    rng, w, side = samples(900, 1)
    true = torch.from_numpy(rng.standard_normal((2, 5, 3))).float()
    scores = torch.einsum("nd,ndk->nk", w, true[(side < 0).astype(int)])
    finder = Ridge(penalty=0.0, targets=["mouth"], hold=["eyes", "pose"], group_by=["hair_color"])
    table = np.concatenate([scores.numpy(), side[:, None]], axis=1)
    steps = found(finder, w, table, ("eyes", "mouth", "pose", "hair_color")).float()
    # Noiseless: the step changes score b of its own group by one of its standard deviations, and no other.
    deviation = float(scores[:, 1].std(correction=0))
    for g in range(2):
        torch.testing.assert_close(steps[g, 0] @ true[g], torch.tensor([0.0, deviation, 0.0]), rtol=1e-4, atol=1e-4)


def test_mean_differences() -> None:
    rng, w, side = samples(600, 2)
    scores = rng.standard_normal(600).astype(np.float32)
    finder = MeanDifference(targets=["eyes"], group_by=["hair_color"])
    steps = found(finder, w, np.stack([scores, side], axis=1), ("eyes", "hair_color"))
    inside = side < 0
    order = np.argsort(scores[inside])
    expected = w[inside][order[-60:]].mean(dim=0) - w[inside][order[:60]].mean(dim=0)
    cosine = torch.nn.functional.cosine_similarity(steps[1, 0].float(), expected, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-6)
    along = w.double() @ torch.nn.functional.normalize(steps[1, 0].double(), dim=0)
    assert float(steps[1, 0].norm()) == pytest.approx(float(along.std(correction=0)), rel=1e-6)

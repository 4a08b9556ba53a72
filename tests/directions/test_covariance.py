"""Covariance-solved steps, and directions from scored samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from ohlora.directions.covariance import covariance_solved, covariance_solved_by_layer, ridge_gradients
from ohlora.directions.sampled import MeanDifferences, Ridges
from ohlora.directions.svm import classes


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
    with pytest.raises(ValueError, match="hold fewer attributes"):
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
    model = Ridge(alpha=penalty * np.trace(joint[:6, :6]) / 6 * 200).fit(w, scores / deviations)
    assert np.allclose(found.numpy(), model.coef_, atol=1e-8)


def test_ridges_of_groups_in_parts() -> None:
    rng = np.random.default_rng(1)
    w = torch.from_numpy(rng.standard_normal((900, 5)))
    true = torch.from_numpy(rng.standard_normal((2, 5, 3)))
    group = torch.arange(900) % 2
    scores = torch.einsum("nd,ndk->nk", w, true[group])
    solver = Ridges(2, 5, 3)
    for part in torch.split(torch.randperm(900), 77):
        solver.update(w[part], group[part], scores[part])
    assert solver.finish_pass()
    ones = torch.ones(3, dtype=torch.double)
    steps = solver.steps(torch.eye(5, dtype=torch.double), ones, [1], 0.0)
    # Noiseless: the step changes score 1 of its own group by one, and no other.
    for g in range(2):
        torch.testing.assert_close(steps[g, 0] @ true[g], torch.tensor([0.0, 1.0, 0.0], dtype=torch.double))


def test_mean_differences() -> None:
    rng = np.random.default_rng(2)
    w, scores, group = rng.standard_normal((600, 4)), rng.standard_normal((600, 2)), np.arange(600) % 3
    label = classes(scores, group, 3, 0.2)
    solver = MeanDifferences(3, 2, 4)
    for part in np.array_split(np.arange(600), 7):
        solver.update(torch.from_numpy(w[part]), torch.from_numpy(group[part]), torch.from_numpy(label[part]))
    assert solver.finish_pass()
    inside = group == 1
    order = np.argsort(scores[inside, 0])
    expected = w[inside][order[-40:]].mean(axis=0) - w[inside][order[:40]].mean(axis=0)
    assert np.allclose(solver.directions()[1, 0].numpy(), expected / np.linalg.norm(expected))

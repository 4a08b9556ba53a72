"""The streamed SVM against scikit-learn's, run to convergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from ohlora.directions import svm_direction
from ohlora.directions.svm import TRAINING, VALIDATION, SVMs, classes


def made(count: int = 900, size: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated codes off the origin, and three noisy scores."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((count, size)) @ rng.standard_normal((size, size)) + rng.standard_normal(size)
    scores = w @ rng.standard_normal((size, 3)) + rng.standard_normal((count, 3))
    return w.astype(np.float32), scores.astype(np.float32)


def converged(w: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    model = LinearSVC(C=c, tol=1e-10, dual=False, max_iter=100_000).fit(w.astype(np.float64), y)
    return np.asarray(model.coef_[0] / np.linalg.norm(model.coef_[0]))


@pytest.mark.parametrize("c", [1.0, 0.001])
def test_the_plain_form_agrees_with_scikit_learn(c: float) -> None:
    w, scores = made()
    for column in scores.T:
        found = svm_direction(w, column, 0.2, c)
        order = np.argsort(column, kind="stable")
        chosen = np.concatenate([order[-180:], order[:180]])
        expected = converged(w[chosen], np.repeat([1, -1], 180), c)
        assert found.dtype == np.float64 and np.linalg.norm(found) == pytest.approx(1)
        assert found @ expected >= 0.99999
        assert np.corrcoef(w @ found, column)[0, 1] > 0.5  # upwards


def test_separable_classes_too() -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((400, 6)).astype(np.float32)
    scores = w[:, 0].astype(np.float64) * 100
    order = np.argsort(scores, kind="stable")
    chosen = np.concatenate([order[-80:], order[:80]])
    assert svm_direction(w, scores) @ converged(w[chosen], np.repeat([1, -1], 80), 1.0) >= 0.99999


def test_ties_go_by_index() -> None:
    w, _ = made(50)
    scores = np.zeros(50)
    scores[:3] = -1
    label = classes(scores[:, None], np.zeros(50, dtype=np.int64), 1, 0.2)
    assert np.flatnonzero(label == -1).tolist() == list(range(10))  # the three, then the first of the equal ones
    assert np.flatnonzero(label == 1).tolist() == list(range(40, 50))
    assert np.isfinite(svm_direction(w, scores)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros(49)}, r"expected \(N, D\) and \(N,\)"),
        ({"scores": np.full(50, np.nan)}, "not finite"),
        ({"scores": np.ones(50)}, "throughout group 0"),
        ({"fraction": 0.6}, "at most 0.5"),
    ],
)
def test_what_cannot_be_solved_is_refused(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"w": made(50)[0], "scores": made(50)[1][:, 0]}
    with pytest.raises(ValueError, match=message):
        svm_direction(**(given | change))  # type: ignore[arg-type]


def test_the_split_takes_whole_shares_and_is_counted() -> None:
    _, scores = made(1000)
    group = np.arange(1000) % 4
    label = classes(scores, group, 4, 0.2, 0.8, seed=3)
    for g in range(4):
        for p in range(3):
            of_group = label[group == g, p]
            counts = [(of_group == sign * part).sum() for part in (TRAINING, VALIDATION) for sign in (1, -1)]
            assert counts == [40, 40, 10, 10]
            values = scores[group == g, p]
            assert values[of_group > 0].min() > values[of_group == 0].max()
    assert (label == classes(scores, group, 4, 0.2, 0.8, seed=3)).all()
    assert (label != classes(scores, group, 4, 0.2, 0.8, seed=4)).any()


def test_all_problems_at_once_in_any_parts_and_order() -> None:
    w, scores = made(2000)
    group = (np.arange(2000) // 3) % 4
    label = classes(scores, group, 4, 0.2, 0.8)
    rng = np.random.default_rng(2)

    def solve(size: int, order: np.ndarray) -> SVMs:
        solver = SVMs(4, 3, w.shape[1])
        done = False
        while not done:
            for first in range(0, len(order), size):
                part = order[first : first + size]
                solver.update(torch.from_numpy(w[part]), torch.from_numpy(group[part]), torch.from_numpy(label[part]))
            done = solver.finish_pass()
        return solver

    whole = solve(2000, np.arange(2000))
    pieces = solve(37, rng.permutation(2000))
    assert (whole.directions() - pieces.directions()).abs().max() < 1e-9
    assert 4 <= whole.passes <= 30
    for g in range(4):
        for p in range(3):
            chosen = (group == g) & (np.abs(label[:, p]) == TRAINING)
            expected = converged(w[chosen], np.sign(label[chosen, p]), 1.0)
            assert float(whole.directions()[g, p] @ torch.from_numpy(expected)) >= 0.99999
            x = torch.cat([torch.from_numpy(w).double(), torch.ones(2000, 1)], dim=1)
            side = np.sign((x @ whole.weights[g, p]).numpy())
            for k, part in enumerate((TRAINING, VALIDATION)):
                inside = (group == g) & (np.abs(label[:, p]) == part)
                assert int(whole.correct[g, p, k]) == int((side[inside] == np.sign(label[inside, p])).sum())
                assert int(whole.total[g, p, k]) == int(inside.sum())


def test_a_search_that_goes_on_ends_in_the_same() -> None:
    w, scores = made()
    group = torch.zeros(len(w), dtype=torch.long)
    label = torch.from_numpy(classes(scores, group.numpy(), 1, 0.2))

    def passes(solver: SVMs, count: int) -> bool:
        for _ in range(count):
            solver.update(torch.from_numpy(w), group, label)
            if solver.finish_pass():
                return True
        return False

    whole, first, second = (SVMs(1, 3, w.shape[1]) for _ in range(3))
    assert passes(whole, 100) and not passes(first, 3)
    second.restore({key: value.clone() for key, value in first.state().items()})
    assert passes(second, 100)
    assert torch.equal(whole.weights, second.weights) and whole.passes == second.passes

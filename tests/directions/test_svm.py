"""The SVM's direction against scikit-learn's own, converged further, and the classes it is trained on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from ohlora.directions import svm_direction
from ohlora.directions.sampled import extremes, split
from ohlora.directions.svm import hyperplane


def made(count: int = 900, size: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated codes off the origin, and three noisy scores."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((count, size)) @ rng.standard_normal((size, size)) + rng.standard_normal(size)
    scores = w @ rng.standard_normal((size, 3)) + rng.standard_normal((count, 3))
    return w.astype(np.float32), scores.astype(np.float32)


def converged(w: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    model = LinearSVC(C=c, tol=1e-12, dual=False, max_iter=100_000).fit(w.astype(np.float64), y)
    return np.asarray(model.coef_[0] / np.linalg.norm(model.coef_[0]))


@pytest.mark.parametrize(("size", "c"), [(12, 1.0), (12, 0.001), (60, 1.0)])
def test_the_direction_is_the_converged_one(size: int, c: float) -> None:
    """With 60 numbers, 360 samples are separable, and the default tolerance is not enough."""
    w, scores = made(size=size)
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


def test_a_solver_that_gives_up_says_so() -> None:
    w, scores = made()
    with pytest.raises(ArithmeticError, match="not converged after 1 iterations"):
        hyperplane(w, np.where(scores[:, 0] > 0, 1, -1), 1.0, max_iterations=1)


def test_ties_go_by_index() -> None:
    w, _ = made(50)
    scores = np.zeros(50)
    scores[:3] = -1
    high, low = extremes(scores, 0.2)
    assert sorted(low) == list(range(10))  # the three, then the first of the equal ones
    assert sorted(high) == list(range(40, 50))
    assert np.isfinite(svm_direction(w, scores)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros(49)}, r"expected \(N, D\) and \(N,\)"),
        ({"scores": np.full(50, np.nan)}, "not finite"),
        ({"scores": np.ones(50)}, "every score is 1.0"),
        ({"fraction": 0.6}, "at most 0.5"),
    ],
)
def test_what_cannot_be_solved_is_refused(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"w": made(50)[0], "scores": made(50)[1][:, 0]}
    with pytest.raises(ValueError, match=message):
        svm_direction(**(given | change))  # type: ignore[arg-type]


def test_the_classes_take_whole_shares_and_their_split_is_counted() -> None:
    scores = made(250)[1][:, 0]
    high, low = extremes(scores, 0.2)
    assert len(high) == len(low) == 50
    rest = np.setdiff1d(np.arange(250), [*high, *low])
    assert scores[high].min() >= scores[rest].max() and scores[low].max() <= scores[rest].min()
    train, validate = split(high, 0.8, 3, "split/0/0/1")
    assert len(train) == 40 and sorted([*train, *validate]) == sorted(high)
    assert (train == split(high, 0.8, 3, "split/0/0/1")[0]).all()
    assert (train != split(high, 0.8, 4, "split/0/0/1")[0]).any()

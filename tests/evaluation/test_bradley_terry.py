"""Strengths from comparisons: closed cases, known strengths, errors, groups, and what is reproduced."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from ohlora.evaluation import bradley_terry


def simulated(true: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs, and who won by the model."""
    random = np.random.default_rng(seed)
    pairs = np.stack([random.choice(len(true), 2, replace=False) for _ in range(count)])
    odds = np.exp(true[pairs[:, 0]] - true[pairs[:, 1]])
    return pairs, (random.random(count) < odds / (1 + odds)).astype(float)


@pytest.mark.parametrize(
    ("outcomes", "difference"),
    [([1, 1, 1, 0], math.log(3)), ([0.5, 0.5], 0.0), ([1, 0.5], math.log(3)), ([1, 1, 0.5, 0, 0.5], math.log(3 / 2))],
)
def test_the_difference_of_two_is_the_logarithm_of_their_odds(outcomes: list[float], difference: float) -> None:
    pairs = np.array([[0, 1]] * len(outcomes))
    found = bradley_terry.strengths(2, pairs, np.array(outcomes), math.inf)
    assert found[0] - found[1] == pytest.approx(difference, abs=1e-5) and found.sum() == pytest.approx(0)
    turned = bradley_terry.strengths(2, pairs[:, ::-1], 1 - np.array(outcomes), math.inf)
    assert turned == pytest.approx(found, abs=1e-6)


def test_three_in_a_circle_are_equal() -> None:
    pairs = np.array([[0, 1], [1, 2], [2, 0]])
    assert bradley_terry.strengths(3, pairs, np.ones(3)) == pytest.approx(np.zeros(3), abs=1e-6)


def test_who_always_wins_stays_finite() -> None:
    """The maximum of 3 log σ(2s) − s²/9, for strengths of ±s: 6 (1 − σ(2s)) = 2s/9."""
    found = bradley_terry.strengths(2, np.array([[0, 1]] * 3), np.ones(3), prior=3.0)
    s = float(found[0])
    assert 0 < s < 3 and 6 / (1 + math.exp(2 * s)) == pytest.approx(2 * s / 9, abs=1e-4)
    assert bradley_terry.strengths(2, np.array([[0, 1]] * 3), np.ones(3), prior=1.0)[0] < s


def test_what_was_never_compared_is_average() -> None:
    found = bradley_terry.strengths(3, np.array([[0, 2]]), np.ones(1))
    assert found[0] > found[1] == pytest.approx(0, abs=1e-6) and found[2] == pytest.approx(-found[0])
    assert bradley_terry.strengths(3, np.zeros((0, 2), int), np.zeros(0)).tolist() == [0, 0, 0]


def test_known_strengths_are_recovered_within_their_errors() -> None:
    true = np.random.default_rng(1).normal(0, 2, 100)
    pairs, outcomes = simulated(true, 3000)
    found = bradley_terry.strengths(100, pairs, outcomes)
    assert spearmanr(found, true).statistic >= 0.95
    errors = bradley_terry.standard_errors(found, pairs)
    # Distances in standard errors are those of a standard normal variable.
    distances = (found - (true - true.mean())) / errors
    assert 0.7 < distances.std() < 1.3
    few = bradley_terry.standard_errors(bradley_terry.strengths(100, pairs[:600], outcomes[:600]), pairs[:600])
    assert few.mean() > 1.5 * errors.mean()


def test_the_error_of_two_without_a_prior() -> None:
    """The variance of the difference is 1 / (n p (1 − p)); each is half of it from the mean."""
    pairs = np.array([[0, 1]] * 8)
    found = bradley_terry.strengths(2, pairs, np.repeat([1.0, 0.0], [6, 2]), math.inf)
    expected = math.sqrt(1 / (8 * 0.75 * 0.25)) / 2
    assert bradley_terry.standard_errors(found, pairs, math.inf) == pytest.approx([expected] * 2, abs=1e-4)


def test_groups_that_nothing_connects() -> None:
    assert bradley_terry.groups(6, np.array([[0, 3], [4, 3], [1, 5]])).tolist() == [0, 1, 2, 0, 0, 1]


def test_what_is_reproduced_of_held_out_comparisons() -> None:
    true = np.random.default_rng(2).normal(0, 3, 30)
    pairs, outcomes = simulated(true, 600)
    found = bradley_terry.reproduced(30, pairs, outcomes)
    # What nobody could do better: the share in which the truly stronger one won.
    best = float(np.mean((true[pairs[:, 0]] > true[pairs[:, 1]]) == (outcomes == 1)))
    assert found.held_out and found.decided == 600 and best - 0.06 < found.share <= best + 0.03
    guessed = np.random.default_rng(3).integers(0, 2, 600).astype(float)
    assert 0.4 < bradley_terry.reproduced(30, pairs, guessed).share < 0.6, "noise is not reproduced"
    few = bradley_terry.reproduced(30, pairs[:10], outcomes[:10])
    assert not few.held_out and few.share > 0.9
    ties = bradley_terry.reproduced(30, pairs[:10], np.full(10, 0.5))
    assert ties.decided == 0 and math.isnan(ties.share)

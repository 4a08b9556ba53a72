"""Strengths from comparisons of pairs, by the model of Bradley and Terry (1952).

The odds that one item wins against another are exp(difference of their strengths). A tie counts as half a win of each.
Bradley and Terry, "Rank analysis of incomplete block designs: I. The method of paired comparisons", Biometrika 39,
1952; its maximum of likelihood is a logistic regression, without an intercept, on the differences of items.

Throughout, N comparisons of items 0…M−1 are ``pairs``, N×2 int, and ``outcomes``, N: 1 where the first item won, 0
where the second did, 0.5 for a tie.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

PRIOR = 3.0
"""Standard deviation of the strengths' prior, by which an item that always wins stays finite. An item at 3 wins against
an average one with odds of 20 to 1."""
FOLDS = 5
"""Folds over which :func:`reproduced` holds comparisons out."""
ENOUGH = 50
"""Comparisons with a winner from which on some are held out."""


class Reproduced(NamedTuple):
    """How many comparisons the strengths reproduce.

    Attributes:
        share: Of the comparisons with a winner, the share in which the winner is the stronger item; equal strengths
            count as half. NaN without any.
        decided: How many comparisons had a winner.
        held_out: Whether the strengths were those of other comparisons.
    """

    share: float
    decided: int
    held_out: bool


def strengths(items: int, pairs: np.ndarray, outcomes: np.ndarray, prior: float = PRIOR) -> np.ndarray:
    """Estimates strengths.

    Args:
        items: M.
        pairs: N×2.
        outcomes: N.
        prior: Standard deviation of their normal prior with mean 0; ``math.inf`` for none, where the most likely
            strengths must be finite: no group of items wins every comparison with the others.

    Returns:
        M float64, mean 0; an item that was never compared has 0. Between groups of items that no comparison connects,
        they mean nothing (:func:`groups`).
    """
    from sklearn.linear_model import LogisticRegression

    found = np.zeros(items)
    if not len(pairs):
        return found
    # Each comparison is told from both sides, so that both classes exist whoever won; a tie is half a win on each.
    both = np.concatenate([pairs, pairs])
    won = np.repeat([1.0, 0.0], len(pairs))
    weights = np.concatenate([outcomes, 1 - outcomes])
    model = LogisticRegression(C=prior**2, fit_intercept=False, tol=1e-8, max_iter=1000)
    found = model.fit(_differences(items, both), won, weights).coef_[0].astype(np.float64)
    return np.asarray(found - found.mean())


def standard_errors(found: np.ndarray, pairs: np.ndarray, prior: float = PRIOR) -> np.ndarray:
    """Standard errors of strengths about their mean, by the curvature of the likelihood (and of the prior).

    Args:
        found: The M strengths.
        pairs: The N×2 comparisons that they were estimated from.
        prior: See :func:`strengths`; without one, the comparisons must connect all items.

    Returns:
        M float64.
    """
    items = len(found)
    probability = 1 / (1 + np.exp(found[pairs[:, 1]] - found[pairs[:, 0]]))
    differences = _differences(items, pairs)
    weighted = differences.multiply((probability * (1 - probability))[:, None])
    curvature = (differences.T @ weighted).toarray()
    # The mean is not estimated: a curvature of 1 along it makes the matrix regular, and is taken out again.
    curvature += prior**-2 * np.eye(items) + 1 / items
    variances = np.diag(np.linalg.inv(curvature)) - 1 / (items * (1 + prior**-2))
    return np.asarray(np.sqrt(np.maximum(variances, 0)))


def groups(items: int, pairs: np.ndarray) -> np.ndarray:
    """The number of the group of each item, M int: groups are not connected by any comparison."""
    graph = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(items, items))
    return np.asarray(connected_components(graph, directed=False)[1])


def reproduced(items: int, pairs: np.ndarray, outcomes: np.ndarray, prior: float = PRIOR, seed: int = 0) -> Reproduced:
    """Tells how many comparisons strengths reproduce.

    With :data:`ENOUGH` comparisons that have a winner, strengths are estimated without each fifth of the pairs, and
    compared with it; with fewer, they are compared with what they were estimated from, which is too favourable.
    """
    from sklearn.model_selection import GroupKFold

    decided = outcomes != 0.5
    count = int(decided.sum())
    predicted = np.full(len(pairs), math.nan)
    distinct, same = np.unique(np.sort(pairs, axis=1), axis=0, return_inverse=True)
    held_out = count >= ENOUGH and len(distinct) >= FOLDS
    everything = np.arange(len(pairs))
    folds = iter([(everything, everything)])
    if held_out:  # a pair that was compared several times is held out as a whole
        shuffled = np.random.default_rng(seed).permutation(len(distinct))
        folds = GroupKFold(FOLDS).split(everything, groups=shuffled[same.ravel()])
    for kept, out in folds:
        found = strengths(items, pairs[kept], outcomes[kept], prior)
        predicted[out] = (np.sign(found[pairs[out, 0]] - found[pairs[out, 1]]) + 1) / 2
    right = 1 - np.abs(predicted - outcomes)[decided]
    return Reproduced(float(right.mean()) if count else math.nan, count, held_out)


def _differences(items: int, pairs: np.ndarray) -> csr_array:
    """A row per comparison: +1 at its first item, −1 at its second."""
    rows = np.repeat(np.arange(len(pairs)), 2)
    return csr_array((np.tile([1.0, -1.0], len(pairs)), (rows, pairs.ravel())), shape=(len(pairs), items))

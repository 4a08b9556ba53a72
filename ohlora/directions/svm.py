"""Linear SVMs between the samples that score highest and lowest.

The boundary between faces that show an attribute and faces that do not is a hyperplane in latent space, and its normal
the direction that changes the attribute (Shen et al., 2020, "Interpreting the Latent Space of GANs for Semantic Face
Editing").
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.directions.edits import Directions
from ohlora.directions.finder import Notes, Row, Source
from ohlora.directions.sampled import Part, SampleFinder, class_size, extremes, split, training_size
from ohlora.errors import ConfigError, DataError
from ohlora.utils import figures

TOLERANCE = 1e-8
"""Tolerance of scikit-learn's stopping rule. With 1e-4, its default, cosines to the solution were as low as 0.996; 1e-6
leaves more than 1e-5 where the classes can be separated."""
MAX_ITERATIONS = 100_000


def hyperplane(w: np.ndarray, y: np.ndarray, c: float, max_iterations: int = MAX_ITERATIONS) -> np.ndarray:
    """The plane between two classes: scikit-learn's LinearSVC in its primal form.

    With x = (w, 1), so that the intercept is penalised, it minimises ½‖θ‖² + C Σ max(0, 1 − y θᵀx)².

    Args:
        w: N×D.
        y: N times 1 or −1.
        c: Weight C of the losses.
        max_iterations: After which the solver gives up.

    Returns:
        θ, (D + 1,) float64; the last entry is the intercept.

    Raises:
        ArithmeticError: If the solver has not converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=c, loss="squared_hinge", dual=False, tol=TOLERANCE, max_iter=max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(w.astype(np.float64), y)
        except ConvergenceWarning as error:
            raise ArithmeticError(f"an SVM has not converged after {max_iterations} iterations") from error
    return np.append(model.coef_[0], model.intercept_)


def svm_direction(w: np.ndarray, scores: np.ndarray, fraction: float = 0.2, c: float = 1.0) -> np.ndarray:
    """The direction along which a score rises, as the normal of a linear SVM between its highest and lowest samples.

    All of both classes trains; see :func:`hyperplane` for the objective.

    Args:
        w: Style codes, N×D.
        scores: N scores; equal ones are ordered by index.
        fraction: Share of the samples in each class, 0…0.5.
        c: Weight of the losses against the norm.

    Returns:
        Unit vector (D,), float64, pointing upwards.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or the scores are all equal.
        ArithmeticError: If the solver has not converged.
    """
    w, scores = np.asarray(w), np.asarray(scores)
    if w.ndim != 2 or scores.shape != (len(w),):
        raise ValueError(f"w has shape {w.shape} and scores {scores.shape}; expected (N, D) and (N,)")
    if not (np.isfinite(w).all() and np.isfinite(scores).all()):
        raise ValueError("w or scores hold values that are not finite; leave those samples out")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction is {fraction}; expected above 0 and at most 0.5")
    high, low = extremes(scores, fraction)
    theta = hyperplane(w[np.concatenate([high, low])], np.repeat([1, -1], [len(high), len(low)]), c)
    direction: np.ndarray = theta[:-1] / np.linalg.norm(theta[:-1])
    return direction


class SVM(SampleFinder):
    """The original recipe: a linear SVM per group and attribute.

    Args:
        fraction: Share of a group in each of the two classes.
        training_share: Share of a class that trains; the others validate.
        c: Weight of the losses against the norm.
        max_iterations: Iterations of the solver, after which the search ends with an error.
        common: See :class:`ohlora.directions.sampled.SampleFinder`.
    """

    noted = ("seed", "fraction")

    def __init__(
        self,
        fraction: float = 0.2,
        training_share: float = 0.8,
        c: float = 1.0,
        max_iterations: int = MAX_ITERATIONS,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not 0 < fraction <= 0.5 or not 0 < training_share < 1 or c <= 0 or max_iterations < 1:
            raise ConfigError(
                f"fraction is {fraction}, training_share {training_share}, c {c} and max_iterations {max_iterations}; "
                "expected 0 < fraction <= 0.5, 0 < training_share < 1, c > 0 and max_iterations >= 1"
            )
        self.fraction, self.training_share, self.c, self.max_iterations = fraction, training_share, c, max_iterations

    def large_enough(self, count: int, size: int) -> bool:
        """Both classes need members that train and members that validate."""
        of_class = class_size(count, self.fraction)
        return count >= 2 * of_class and 1 <= training_size(of_class, self.training_share) < of_class

    def solve(self, part: Part) -> tuple[Tensor, list[Row]]:
        """Normals of the planes, and their accuracies."""
        normals, rows = [], []
        for p, name in enumerate(self.targets):
            classes = zip((1, -1), part.classes(name, self.fraction), strict=True)
            stream = f"split/{part.number}/{p}"
            halves = [split(members, self.training_share, self.seed, f"{stream}/{sign}") for sign, members in classes]
            (w, y), validation = (
                (part.codes.numpy()[np.concatenate(pair)], np.repeat([1, -1], [len(members) for members in pair]))
                for pair in zip(*halves, strict=True)
            )
            try:
                theta = hyperplane(w, y, self.c, self.max_iterations)
            except ArithmeticError as error:
                raise DataError(f"group {part.name}: {error}; look at its scores, or raise max_iterations") from error
            row: Row = {}
            for what, (x, side) in (("training", (w, y)), ("validation", validation)):
                right = side * (x @ theta[:-1] + theta[-1]) > 0
                row |= {f"{what}_count": len(side), f"{what}_accuracy": round(float(right.mean()), 4)}
            normals.append(theta[:-1])
            rows.append(row)
        return part.one_deviation(torch.from_numpy(np.stack(normals))), rows

    def find(self, source: Source, notes: Notes) -> Directions:
        """Also notes mean accuracies over the groups with a direction of their own, and a heat map of all."""
        found = super().find(source, notes)
        rows = notes.tables["search"]
        own = [row for row in rows if row["own_direction"]] or rows
        for name in self.targets:
            for what in ("training", "validation"):
                table = [(row[f"{what}_accuracy"], row[f"{what}_count"]) for row in own if row["attribute"] == name]
                accuracies, counts = zip(*table, strict=True)
                notes.metrics[f"{what}_accuracy/{name}"] = float(np.average(accuracies, weights=counts))
        accuracy = np.array([row["validation_accuracy"] for row in rows]).reshape(-1, len(self.targets))
        title = "validation accuracy"
        notes.pictures["accuracy"] = figures.heat_map(accuracy, found.groups.names, self.targets, title, (0, 1))
        return found

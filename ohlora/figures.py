"""Plots as pictures: H×W×3 uint8 arrays, for the run folder and for W&B alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def rendered(figure: Figure) -> np.ndarray:
    """A figure's pixels: H×W×3 uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def roc_curve(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> np.ndarray:
    """Receiver operating characteristics: label → (false positive rates, true positive rates)."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="lightgrey", linewidth=1)
    for label, (false_rates, true_rates) in curves.items():
        axes.plot(false_rates, true_rates, label=label)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    axes.legend(loc="lower right")
    return rendered(figure)


def scatter(names: Sequence[str], expected: np.ndarray, predicted: np.ndarray, notes: Sequence[str]) -> np.ndarray:
    """One scatter plot per column of two N×K arrays, with a note (such as a correlation) in each title."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, k + 1)
        both = np.concatenate([expected[:, k], predicted[:, k]])
        limits = float(both.min()), float(both.max())
        axes.plot(limits, limits, color="lightgrey", linewidth=1)
        axes.scatter(expected[:, k], predicted[:, k], s=4, alpha=0.5)
        axes.set(xlabel="label", ylabel="network", title=f"{name} ({notes[k]})")
    return rendered(figure)


def curves(rows: Sequence[Mapping[str, float]], names: Sequence[str], axis: str = "kimg") -> np.ndarray:
    """Columns of a table over one of its columns, a line each."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        axes.plot([row[axis] for row in rows], [row[name] for row in rows], marker=".", label=name)
    axes.set(xlabel=axis, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return rendered(figure)

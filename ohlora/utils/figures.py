"""Plots as pictures: H×W×3 uint8 arrays, for the run folder and for W&B alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ohlora.utils import images


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


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, limits: tuple[float, float] = (-1, 1)
) -> np.ndarray:
    """A table of numbers as coloured cells, each with its value: R×C."""
    figure = Figure(figsize=(1.5 + 0.6 * len(columns), 1.5 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(values, cmap="RdBu_r", vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set(title=title, xticks=range(len(columns)), yticks=range(len(rows)))
    axes.set_xticklabels(columns, rotation=45, ha="right")
    axes.set_yticklabels(rows)
    middle, reach = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    for r, c in np.ndindex(*values.shape):
        colour = "white" if abs(values[r, c] - middle) > 0.6 * reach else "black"
        axes.text(c, r, f"{values[r, c]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    return rendered(figure)


def histograms(values: Mapping[str, np.ndarray], limits: Mapping[str, float], title: str) -> np.ndarray:
    """A histogram per name, with a line at its limit: name → N values."""
    figure = Figure(figsize=(4 * len(values), 3), layout="constrained")
    for k, (name, of_name) in enumerate(values.items()):
        axes = figure.add_subplot(1, len(values), k + 1)
        axes.hist(of_name, bins=np.linspace(min(0.0, float(of_name.min())), 1, 51).tolist())
        axes.axvline(limits[name], color="tab:red", linewidth=1)
        share = float((of_name >= limits[name]).mean())
        axes.set(title=f"{name}: mean {of_name.mean():.3f}, {share:.0%} pass", xlabel=title)
    return rendered(figure)


def captioned(picture: np.ndarray, lines: Sequence[str], size: int = 14) -> np.ndarray:
    """A picture with lines of text above it, on white; H×W×3 uint8."""
    line = size + 4
    height, width = picture.shape[:2]
    sheet = Image.new("RGB", (width, height + line * len(lines) + 4), "white")
    sheet.paste(Image.fromarray(picture), (0, line * len(lines) + 4))
    pen = ImageDraw.Draw(sheet)
    for k, text in enumerate(lines):
        pen.text((4, 2 + k * line), text, fill="black", font=ImageFont.load_default(size))
    return np.asarray(sheet)


def side_by_side(pictures: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """Pictures of one height in a row, with white gaps."""
    height = pictures[0].shape[0]
    white = np.full((height, gap, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (white, picture)]
    return np.concatenate(parts[1:], axis=1)


def edit_sheet(pictures: np.ndarray, levels: Mapping[str, Sequence[float]], lines: Sequence[str]) -> np.ndarray:
    """The edits of one latent: a block per strength of the second attribute, rows by the first, columns by the third.

    Args:
        pictures: E×H×W×3 uint8 in the order of a grid of three attributes.
        levels: The grid's strengths, slowest first.
        lines: What to write above.

    Returns:
        H×W×3 uint8.
    """
    rows, blocks, columns = (list(strengths) for strengths in levels.values())
    down, across, right = levels
    by_place = pictures.reshape(len(rows), len(blocks), len(columns), *pictures.shape[1:])
    sheets = []
    for b, strength in enumerate(blocks):
        block = images.grid(by_place[:, b].reshape(-1, *pictures.shape[1:]), len(columns))
        sheets.append(captioned(images.enlarge(block, 400), [f"{across} {strength:+.2f}"]))
    axes = f"down: {down} {rows[0]:+.2f} … {rows[-1]:+.2f}   right: {right} {columns[0]:+.2f} … {columns[-1]:+.2f}"
    return captioned(side_by_side(sheets), [*lines, axes])

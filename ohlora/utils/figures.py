"""Figures as images: every function returns an H×W×3 uint8 array, which can be saved as PNG and logged to W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from PIL import Image, ImageDraw, ImageFont

from ohlora.utils import images


def rendered(figure: Figure) -> np.ndarray:
    """Draws a figure into an array: H×W×3 uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def roc_curve(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> np.ndarray:
    """Receiver operating characteristic (ROC) curves: legend entry → false and true positive rates, each in 0…1."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="lightgrey", linewidth=1)
    for label, (false_rates, true_rates) in curves.items():
        axes.plot(false_rates, true_rates, label=label)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    axes.legend(loc="lower right")
    return rendered(figure)


def scatter(names: Sequence[str], expected: np.ndarray, predicted: np.ndarray, notes: Sequence[str]) -> np.ndarray:
    """Predictions over targets, both N×K: a scatter plot per column, titled with its name and a note."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, k + 1)
        both = np.concatenate([expected[:, k], predicted[:, k]])
        limits = float(both.min()), float(both.max())
        axes.plot(limits, limits, color="lightgrey", linewidth=1)
        axes.scatter(expected[:, k], predicted[:, k], s=4, alpha=0.5)
        axes.set(xlabel="target", ylabel="prediction", title=f"{name} ({notes[k]})")
    return rendered(figure)


def curves(
    rows: Sequence[Mapping[str, float]], names: Sequence[str], axis: str = "kimg", label: str = ""
) -> np.ndarray:
    """Columns ``names`` of a table as lines over the column ``axis``, with a label of the vertical axis."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(cycler(linestyle=["-", "--"]) * rcParams["axes.prop_cycle"])
    for name in names:
        axes.plot([row[axis] for row in rows], [row[name] for row in rows], marker=".", label=name)
    axes.set(xlabel=axis.replace("_", " "), ylabel=label, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return rendered(figure)


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, limits: tuple[float, float] = (-1, 1)
) -> np.ndarray:
    """A matrix of R named rows and C named columns as coloured cells with their values.

    Args:
        values: R×C; what is NaN is left white.
        rows: Names of the R rows.
        columns: Names of the C columns.
        title: Title of the figure.
        limits: Values at the two ends of the colour scale.
    """
    width = max(1.5 + 0.6 * len(columns), 0.3 + 0.1 * len(title))  # few columns must not cut off the title
    figure = Figure(figsize=(width, 1.5 + 0.45 * len(rows)), layout="constrained")
    figure.suptitle(title)
    axes = figure.add_subplot()
    axes.imshow(values, cmap="RdBu_r", vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set(xticks=range(len(columns)), yticks=range(len(rows)))
    axes.set_xticklabels(columns, rotation=45, ha="right")
    axes.set_yticklabels(rows)
    middle, reach = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    for r, c in np.ndindex(*values.shape):
        colour = "white" if abs(values[r, c] - middle) > 0.6 * reach else "black"
        told = "–" if np.isnan(values[r, c]) else f"{values[r, c]:.2f}"
        axes.text(c, r, told, ha="center", va="center", fontsize=7, color=colour)
    return rendered(figure)


def bars(
    panels: Mapping[str, Mapping[str, float]], ticks: Mapping[str, Mapping[str, float]], lines: Mapping[str, float]
) -> np.ndarray:
    """Horizontal bars, a panel beside the other, of the same names in the same order.

    Args:
        panels: Title → name → length of the bar; what is not finite has none.
        ticks: Title → name → where its bar has a tick, such as a reference value; likewise.
        lines: Title → where a dashed line crosses all bars of a panel.
    """
    names = list(next(iter(panels.values())))
    figure = Figure(figsize=(1 + 4 * len(panels), 1 + 0.35 * len(names)), layout="constrained")
    for k, (title, values) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), k + 1)
        axes.barh(range(len(names)), [np.nan_to_num(values[name], posinf=0.0) for name in names], color="tab:blue")
        marks = [ticks.get(title, {}).get(name, np.nan) for name in names]
        axes.plot(marks, range(len(names)), linestyle="none", marker="|", markersize=12, color="black")
        if title in lines:
            axes.axvline(lines[title], color="tab:red", linewidth=1, linestyle="--")
        axes.set(title=title, yticks=range(len(names)), xlim=(0, None))
        axes.set_yticklabels(names if k == 0 else [])
        axes.invert_yaxis()
    return rendered(figure)


def bands(
    levels: np.ndarray, values: Mapping[str, np.ndarray], lines: Mapping[str, Sequence[float]], label: str
) -> np.ndarray:
    """Plots one panel per name, four in a row: mean over N curves, and where 80 % of them lie.

    Args:
        levels: What the curves are over, (F,).
        values: Name → N curves, N×F.
        lines: Name → where horizontal lines are drawn, for those that have some.
        label: Label of the vertical axes.
    """
    columns = min(4, len(values))
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for k, (name, curves_of) in enumerate(values.items()):
        axes = figure.add_subplot(rows, columns, k + 1)
        low, high = np.percentile(curves_of, (10, 90), axis=0)
        axes.fill_between(levels, low, high, alpha=0.25)
        axes.plot(levels, curves_of.mean(axis=0), marker=".")
        for height in lines.get(name, ()):
            axes.axhline(height, color="tab:red", linewidth=1, linestyle="--")
        axes.set(title=name, xlabel="strength", ylabel=label)
        axes.grid(alpha=0.3)
    return rendered(figure)


def named_rows(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], key: str = "attribute"
) -> list[dict[str, Any]]:
    """A matrix as a table: a row per name in ``rows``, called ``key``, with four decimals."""
    named = zip(rows, values.astype(float).round(4).tolist(), strict=True)
    return [{key: name, **dict(zip(columns, row, strict=True))} for name, row in named]


def histograms(
    values: Mapping[str, np.ndarray],
    limits: Mapping[str, float],
    notes: Mapping[str, str],
    label: str,
    ends: tuple[float, float] | None = None,
) -> np.ndarray:
    """Plots one histogram per name, four in a row.

    Args:
        values: Name → one or more finite values.
        limits: Name → where a vertical line stands, for those that have one.
        notes: Name → what its title says besides the mean, likewise.
        label: Label of the horizontal axes.
        ends: What every horizontal axis reaches at least; None shows the values' own range, and the line.
    """
    columns = min(4, len(values))
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for k, (name, numbers) in enumerate(values.items()):
        axes = figure.add_subplot(rows, columns, k + 1)
        line = [limits[name]] if name in limits else []
        seen = [*(ends or ()), *line, float(numbers.min()), float(numbers.max())]
        axes.hist(numbers, bins=np.histogram_bin_edges(seen, 50).tolist())
        for place in line:
            axes.axvline(place, color="tab:red", linewidth=1)
        told = f"{name}: mean {numbers.mean():.3f}"
        axes.set(title=f"{told}, {notes[name]}" if name in notes else told, xlabel=label)
    return rendered(figure)


def captioned(picture: np.ndarray, lines: Sequence[str], size: int = 14) -> np.ndarray:
    """Puts lines of text above an H×W×3 uint8 picture, black on white, with a font of ``size`` pixels.

    A line that is wider than the picture goes on below, between words.
    """
    line, font = size + 4, ImageFont.load_default(size)
    height, width = picture.shape[:2]
    lines = [part for text in lines for part in _wrapped(text, width - 8, font)]
    sheet = Image.new("RGB", (width, height + line * len(lines) + 4), "white")
    sheet.paste(Image.fromarray(picture), (0, line * len(lines) + 4))
    pen = ImageDraw.Draw(sheet)
    for k, text in enumerate(lines):
        pen.text((4, 2 + k * line), text, fill="black", font=font)
    return np.asarray(sheet)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """A text in lines of at most so many pixels, as far as its words allow."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def strips(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of pictures, one below the other, each with a caption above it: caption → N×H×W×3 uint8, all of one size."""
    longest = max(len(pictures) for pictures in rows.values())
    padded = {
        caption: np.pad(pictures, [(0, longest - len(pictures)), *[(0, 0)] * 3], constant_values=255)
        for caption, pictures in rows.items()
    }
    return np.concatenate([captioned(images.grid(p, longest), [caption]) for caption, p in padded.items()])


def edit_sheet(pictures: np.ndarray, levels: Mapping[str, Sequence[float]], lines: Sequence[str]) -> np.ndarray:
    """Arranges the edits of one latent over a full grid of any number of attributes.

    The last attribute changes from column to column, the one before it from row to row; the sheet has one block per
    combination of the others.

    Args:
        pictures: E×H×W×3 uint8, in the order of the grid.
        levels: Attribute → its strengths; the first one changes slowest.
        lines: Lines of text above the sheet.
    """
    *across, right = levels
    columns = list(levels[right])
    axes = f"right: {right} {columns[0]:+.2f} … {columns[-1]:+.2f}"
    rows = 1
    if across:
        down = across.pop()
        rows = len(levels[down])
        axes = f"down: {down} {levels[down][0]:+.2f} … {levels[down][-1]:+.2f}   {axes}"
    sheets = []
    of_blocks = pictures.reshape(-1, rows * len(columns), *pictures.shape[1:])
    for block, strengths in zip(of_blocks, product(*(levels[name] for name in across)), strict=True):
        sheet = images.enlarge(images.grid(block, len(columns)), 400)
        said = ", ".join(f"{name} {strength:+.2f}" for name, strength in zip(across, strengths, strict=True))
        sheet = captioned(sheet, [said]) if across else sheet
        sheets.append(np.pad(sheet, ((0, 0), (0, 8), (0, 0)), constant_values=255))
    return captioned(np.concatenate(sheets, axis=1), [*lines, axes])

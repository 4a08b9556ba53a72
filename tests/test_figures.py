"""Figures that are logged."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from ohlora.utils import figures


@pytest.mark.parametrize("columns", [1, 2, 12])
def test_the_title_of_a_heat_map_is_not_cut_off(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    drawn: list[Figure] = []
    draw = figures.rendered

    def kept(figure: Figure) -> np.ndarray:
        drawn.append(figure)
        return draw(figure)

    monkeypatch.setattr(figures, "rendered", kept)
    title = "spread by kimg; 1: as varied as the real images"
    figures.heat_map(
        np.zeros((3, columns)), ["eyes", "background_mean", "pose"], [str(k) for k in range(columns)], title
    )
    (figure,) = drawn
    (text,) = figure.findobj(lambda part: getattr(part, "get_text", str)() == title)
    box, whole = text.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


def test_a_caption_is_not_cut_off() -> None:
    said = [
        "case 18, group all",
        "eyes: r 0.922, slope 0.90, identity 0.00   mouth: r 0.985, slope 0.96, identity 0.12",
    ]
    narrow, wide = (np.zeros((30, width, 3), np.uint8) for width in (200, 1000))

    def ink(picture: np.ndarray) -> tuple[float, np.ndarray]:
        shown = figures.captioned(picture, said)
        assert shown.shape[1] == picture.shape[1] and not shown[-30:].any()
        return float((255 - shown[:-30].astype(float)).sum()), shown[:-30]

    (whole, _), (found, shown) = ink(wide), ink(narrow)
    assert found == pytest.approx(whole, rel=0.01) and shown[:, -4:].min() == 255


def test_bars_are_seen_beside_a_limit_that_is_far_from_them() -> None:
    """Bins span what the axis shows: values that hardly differ would make a bar that is too thin to be drawn."""
    values = np.linspace(0.998, 1.0, 1000)
    shown = figures.histograms({"quality": values}, {"quality": 0.5}, {}, "score").astype(int)
    blue = (shown[..., 2] - shown[..., 0] > 80).any(axis=0)
    assert blue.sum() >= 3, "the bar is three pixels wide at least"

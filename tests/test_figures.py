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

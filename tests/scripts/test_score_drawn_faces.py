"""The table of scores against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from ohlora.attributes import MEASURED
from scripts import score_drawn_faces


def test_ranks_share_ties() -> None:
    values = np.array([[3.0, 1.0], [1.0, 1.0], [3.0, 5.0], [2.0, 1.0]])
    assert (score_drawn_faces.ranks(values) == rankdata(values, axis=0)).all()


def test_prints_a_line_per_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert score_drawn_faces.main(["--count", "30", "--resolution", "64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == list(MEASURED)
    assert all(0.7 < float(value) <= 1 for _, value in lines)

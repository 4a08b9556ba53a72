"""Scores of drawn faces against their true values."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora.faces.classes import CLASSES
from ohlora.toy.drawing import MEASURED
from scripts import measure_drawn_faces

PARSER = Path(__file__).parents[2] / "ohlora/weights/toy/parser.safetensors"


def test_prints_a_line_per_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_drawn_faces.main(["--count", "30", "--resolution", "64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == list(MEASURED)
    assert all(0.9 < float(value) <= 1 for _, value in lines)


def test_the_toy_parser_on_held_out_faces(capsys: pytest.CaptureFixture[str]) -> None:
    held_out = ["--resolution", "64", "--seed", "1", "--first", "6000", "--count", "150"]
    assert measure_drawn_faces.main([*held_out, "--parser", str(PARSER)]) == 0
    measured = {line[:16].strip(): float(line[16:]) for line in capsys.readouterr().out.splitlines()}
    assert list(measured) == [*(f"IoU {name}" for name in (*CLASSES, "mean", "worst")), *MEASURED]
    # Limits are below those for 1,000 faces, since these are few.
    assert measured["IoU mean"] > 0.90 and measured["IoU worst"] > 0.75
    assert all(measured[name] > 0.90 for name in MEASURED)


def test_a_missing_parser_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_drawn_faces.main(["--parser", "nowhere.safetensors"]) == 2
    assert "nowhere.safetensors does not exist" in capsys.readouterr().err

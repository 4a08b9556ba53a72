"""The benchmark, at its smallest."""

from __future__ import annotations

import json

import pytest

from scripts import benchmark


def test_finetune_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["finetune", "--resolution", "16", "--batch", "2", "--steps", "1"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures["ratio"] > 0 and figures["ratio_every_step"] > 0
    assert figures["gradient_difference"] <= 1e-5
    assert 0.5 <= figures["required_share"] <= 1
    assert figures["peak_memory_bytes"] > 2**20


def test_sampling_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--resolution", "16", "--batch", "4", "--count", "8", "--reference-count", "4"]
    assert benchmark.main([*words, "--precision", "bf16-mixed"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures["ratio"] > 0 and figures["images_per_second"] > 0 and 0 < figures["peak_share"] < 1.5
    assert 0 < figures["score_difference_rms"] <= figures["score_difference_max"] < 1


def test_directions_end_with_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["directions", "--resolution", "16", "--batch", "2", "--steps", "1"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures["scores_per_second"] > figures["gradients_per_second"] > 0
    assert figures["seconds_by_gradients_1000"] == pytest.approx(3000 / figures["gradients_per_second"], rel=0.01)


def test_rendering_ends_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["render", "--resolution", "16", "--steps", "2"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    names = {f"{what}_milliseconds_{size}" for what in ("render", "studio") for size in (16, 64)}
    assert set(figures) == names and all(value > 0 for value in figures.values())

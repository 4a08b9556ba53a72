"""The benchmark, at its smallest."""

from __future__ import annotations

import json

import pytest

from scripts import benchmark


def test_finetune_ends_with_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["finetune", "--resolution", "16", "--batch", "2", "--steps", "1"]) == 0
    metrics = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert metrics["ratio"] > 0 and metrics["ratio_every_step"] > 0
    assert metrics["gradient_difference"] <= 1e-5
    assert 0.5 <= metrics["required_share"] <= 1
    assert metrics["peak_memory_bytes"] > 2**20


SAMPLE = ["sample", "--resolution", "16", "--batch", "4", "--count", "8", "--reference-count", "4"]


def test_sampling_ends_with_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(SAMPLE) == 0
    metrics = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert metrics["ratio"] > 0 and metrics["images_per_second"] > 0 and 0 < metrics["peak_share"] < 1.5


@pytest.mark.slow  # a CPU without instructions for bf16 takes minutes
@pytest.mark.timeout(1800)
def test_sampling_in_lower_precision_tells_how_scores_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*SAMPLE, "--precision", "bf16-mixed"]) == 0
    metrics = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert 0 < metrics["score_difference_rms"] <= metrics["score_difference_max"] < 1


def test_directions_end_with_their_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["directions", "--resolution", "16", "--batch", "2", "--steps", "1"]) == 0
    metrics = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert metrics["scores_per_second"] > metrics["gradients_per_second"] > 0
    assert metrics["seconds_by_gradients_1000"] == pytest.approx(3000 / metrics["gradients_per_second"], rel=0.01)


def test_rendering_ends_with_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["render", "--resolution", "16", "--steps", "2"]) == 0
    metrics = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    names = {f"{what}_milliseconds_{size}" for what in ("render", "studio") for size in (16, 64)}
    assert set(metrics) == names and all(value > 0 for value in metrics.values())

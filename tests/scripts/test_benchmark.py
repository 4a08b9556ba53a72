"""The benchmark, at its smallest."""

from __future__ import annotations

import json

import pytest
import torch

from ohlora.formats import nvidia_networks
from ohlora.formats.foreign_files import Layer, NvidiaNetwork
from ohlora.networks.codes import Space
from ohlora.networks.stylegan2 import Generator
from scripts import benchmark, plain_stylegan2
from tests import golden


@pytest.mark.slow
def test_finetune_ends_with_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["finetune", "--resolution", "16", "--batch", "2", "--steps", "1"]) == 0
    out, err = capsys.readouterr()
    assert "step 1 of 2, R1 every 1, ours and the reference's: " in err
    metrics = json.loads(out.strip().splitlines()[-1])
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


def test_stylegan2_ends_with_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["stylegan2", "--resolution", "16", "--batch", "2", "--steps", "1"]) == 0
    out, err = capsys.readouterr()
    metrics = json.loads(out.strip().splitlines()[-1])
    ratios = {f"{what}_ratio_2" for what in ("image", "step_with_r1", "lazy_step")}
    assert ratios <= metrics.keys() and all(metrics[name] > 0 for name in ratios)
    assert metrics["forward_difference"] <= 1e-10 and metrics["gradient_difference"] <= 1e-10
    assert "[5/5, " in err and "batch 2, path length: ours" in err


def test_the_plain_stylegan2_is_the_published_one() -> None:
    """Its images are the golden values, too; in float64 its scores and gradients are those of ours."""
    case = "stylegan2-64-tiny"
    states = {name: golden.stylegan2_state(case, name) for name in ("generator", "discriminator")}
    layers = {"synthesis.b4.conv1": Layer("", {"conv_clamp": None}), "b4.conv": Layer("", {"conv_clamp": None})}
    read = {name: NvidiaNetwork(name, (), {}, state, layers) for name, state in states.items()}
    g = nvidia_networks.generator_of(read["generator"], case)
    assert isinstance(g, Generator)
    z, drawn = golden.normal(121, (4, g.z_dim), (4, g.c_dim or 1))
    expected = golden.values(case)
    with torch.no_grad():
        codes = g.in_space(g.map(z, drawn if g.c_dim else None), Space.W_BY_LAYER).values
        for fused in (False, True):
            images = plain_stylegan2.images(g, codes, g.noise_buffers(), fused)
            middle = images[:, :, 28:36, 28:36].numpy().reshape(expected["image_center"].shape)
            assert abs(middle - expected["image_center"]).max() <= 1e-4 * abs(expected["image_center"]).max()

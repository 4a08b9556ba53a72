"""StyleGAN2 and StyleGAN3 compute what the reference implementations computed from the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.__main__ import main
from ohlora.formats import network_files, nvidia_networks
from ohlora.formats.foreign_files import Layer, NvidiaNetwork
from ohlora.networks import stylegan2, stylegan3
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Discriminator, Generator
from tests import golden


def close(computed: Tensor, expected: np.ndarray) -> None:
    difference = np.abs(computed.detach().numpy().reshape(expected.shape) - expected).max()
    assert difference <= 1e-4 * np.abs(expected).max()


def check(case: str, seed: int, count: int, generator: Generator, discriminator: Discriminator) -> None:
    expected = golden.values(case)
    labelled = generator.c_dim > 0
    drawn = golden.normal(seed, (count, generator.z_dim), (count, generator.c_dim or 1))
    z, label = drawn[0], drawn[1] if labelled else None

    def pooled(images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 16)

    with torch.no_grad():
        w = generator.map(z, label)
        close(w.values, expected["w"])
        images = generator.synthesize(w)
        close(images.mean(dim=(1, 2, 3)), expected["image_mean"])
        close(images.std(dim=(1, 2, 3)), expected["image_std"])
        close(pooled(images), expected["image_pool16"])
        middle = slice(generator.resolution // 2 - 4, generator.resolution // 2 + 4)
        close(images[:, :, middle, middle], expected["image_center"])
        if "truncated_pool16" in expected:
            close(pooled(generator(z, label, truncation_psi=0.7, truncation_cutoff=4)), expected["truncated_pool16"])
            close(pooled(generator.synthesize(w, "none")), expected["no_noise_pool16"])
        else:
            all_layers = generator(z, label, truncation_psi=0.7, truncation_cutoff=generator.num_ws)
            close(pooled(all_layers), expected["truncated_all_pool16"])
        close(discriminator(images, label), expected["score_of_fake"])
    (noise,) = golden.normal(seed + 1, (count, 3, generator.resolution, generator.resolution))
    noise = (noise * 0.5).requires_grad_()
    scores = discriminator(noise, label)
    close(scores, expected["score_of_noise"])
    (gradient,) = torch.autograd.grad(scores.sum(), noise)
    close(gradient.square().sum(dim=(1, 2, 3)), expected["r1_per_image"])


@pytest.mark.parametrize(
    ("case", "seed", "count", "clamp"), [("stylegan2-64-tiny", 121, 4, None), ("stylegan2-256", 111, 2, 256)]
)
def test_stylegan2(case: str, seed: int, count: int, clamp: int | None) -> None:
    states = {name: golden.stylegan2_state(case, name) for name in ("generator", "discriminator")}
    layers = {"synthesis.b4.conv1": Layer("", {"conv_clamp": clamp}), "b4.conv": Layer("", {"conv_clamp": clamp})}
    networks = {name: NvidiaNetwork(name, (), {}, state, layers) for name, state in states.items()}
    generator = nvidia_networks.generator_of(networks["generator"], case)
    discriminator = nvidia_networks.discriminator_of(networks["discriminator"], case)
    assert isinstance(generator, stylegan2.Generator)
    assert generator.conv_clamp == discriminator.conv_clamp == clamp
    check(case, seed, count, generator, discriminator)


def test_rosinality(tmp_path: Path) -> None:
    states = {name: golden.stylegan2_state("rosinality-32", name) for name in ("generator", "discriminator")}
    latent_avg = golden.normal(173, (1, 64))[0][0] * 0.1
    path = tmp_path / "any.name"
    torch.save({"g_ema": states["generator"], "d": states["discriminator"], "latent_avg": latent_avg}, path)
    assert main(["import-weights", str(path), str(tmp_path / "out")]) == 0
    generator = network_files.load_generator(tmp_path / "out" / "generator.safetensors")
    discriminator = network_files.load_discriminator(tmp_path / "out" / "discriminator.safetensors")
    check("rosinality-32", 171, 3, generator, discriminator)


@pytest.mark.parametrize(
    ("case", "seed"), [("stylegan2-ada-16", 151), ("stylegan3-t-16", 161), ("stylegan3-r-16", 161)]
)
def test_nvidia_pickles_by_the_command_line(
    case: str, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(golden.GOLDEN / f"{case}.pkl")
    assert main(["import-weights", source, str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"averaged weights of {case}.pkl (NVIDIA, G_ema)" in said
    generator = network_files.load_generator(tmp_path / "out" / "generator.safetensors")
    discriminator = network_files.load_discriminator(tmp_path / "out" / "discriminator.safetensors")
    expected = golden.values(case)
    z, drawn = golden.normal(seed, (3, 32), (3, 3))
    label = drawn if generator.c_dim else None
    with torch.no_grad():
        w = generator.map(z, label)
        close(w.values, expected["w"])
        images = generator.synthesize(w)
        close(images, expected["image"])
        close(discriminator(images, label), expected["score_of_fake"])
        # The same image by layer and by style channels.
        styles = generator.styles(Codes(w.values[:, None].repeat(1, generator.num_ws, 1), Space.W_BY_LAYER))
        close(generator.synthesize(styles), expected["image"])
    assert main(["import-weights", source, str(tmp_path / "raw"), "--raw"]) == 0
    assert "averaged" not in capsys.readouterr().out
    raw = network_files.load_generator(tmp_path / "raw" / "generator.safetensors")
    assert torch.equal(
        raw.get_parameter("mapping.layers.dense0.weight") * 2, generator.get_parameter("mapping.layers.dense0.weight")
    )
    assert isinstance(generator, stylegan3.Generator if "stylegan3" in case else stylegan2.Generator)

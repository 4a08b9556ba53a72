"""GAN training of StyleGAN2, and the settings that came with it, against plain references."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.networks.stylegan2 import Discriminator, Generator
from ohlora.utils import counted
from ohlora.utils.files import read_rows
from tests.conftest import assert_same, network_state, trained
from tests.modules.test_gan import RECIPES, Recording, build, fit
from tests.networks.test_stylegan2 import tiny

Run = Callable[..., int]
FAMILY = [
    *("--model.init_args.architecture.kind", "stylegan2", "--model.init_args.ema_rampup", "0.5"),
    *("--model.init_args.path_length_weight", "2", "--model.init_args.path_length_interval", "2"),
    *("--model.init_args.frozen_blocks", "1"),
]


class RecordingAll(Recording):
    """Also keeps the gradients of earlier steps."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.all: list[list[Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        """Notes the gradients, then steps."""
        done = super().step(closure)
        self.all.append(self.gradients)
        return done


@pytest.fixture
def networks(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a tiny StyleGAN2 generator and discriminator."""
    paths = tmp_path / "weights" / "generator.safetensors", tmp_path / "weights" / "discriminator.safetensors"
    for network, path in zip(tiny(), paths, strict=True):
        network_files.save_network(network, path)
    return paths


def test_path_length_regularisation_has_the_gradients_of_a_plain_reference(networks: tuple[Path, Path]) -> None:
    g = network_files.load_generator(networks[0]).train()
    assert isinstance(g, Generator)
    z = counted.normal(0, "path/z", range(4), 8)
    w = g.mapping(z, None)[:, None].repeat(1, g.num_ws, 1)
    noise = g.draw_noise("random", counted.generators(0, "path/noise", range(4)), 4)
    images = g.compute_images(g.compute_styles(w), noise)
    drawn = counted.normal(0, "path/directions", range(4), 3 * 16 * 16).view(4, 3, 16, 16)
    (slope,) = torch.autograd.grad((images * drawn).sum() / 16, w, create_graph=True)
    lengths = slope.pow(2).sum(dim=2).mean(dim=1).sqrt()
    mean = 0.01 * lengths.detach().mean()
    expected = torch.autograd.grad(4 * 2.0 * (lengths - mean).pow(2).mean(), list(g.parameters()), allow_unused=True)

    module = build(networks, path_length_weight=2.0, generator_optimizer=RecordingAll)
    optimizer = fit(module).optimizers[0]
    assert isinstance(optimizer, RecordingAll) and len(optimizer.all) == 2
    torch.testing.assert_close(module.path_length, mean)
    # Some biases move no path length.
    given = [name for (name, _), wanted in zip(g.named_parameters(), expected, strict=True) if wanted is not None]
    assert len(optimizer.all[0]) == len(given)
    for name, gradient in zip(given, optimizer.all[0], strict=True):
        wanted = expected[[name for name, _ in g.named_parameters()].index(name)]
        assert wanted is not None
        assert float((gradient - wanted).abs().max()) <= 1e-4 * max(0.01, float(wanted.abs().max())), name


def test_lazy_path_lengths_correct_the_generators_adam(networks: tuple[Path, Path]) -> None:
    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01, betas=(0.0, 0.99))

    module = build(networks, path_length_weight=2.0, path_length_interval=4, generator_optimizer=adam, kimg=0.04)
    group = fit(module).optimizers[0].param_groups[0]
    assert group["lr"] == pytest.approx(0.01 * 4 / 5) and group["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert [phase.name for phase in module.phases] == ["discriminator", "path length", "generator"]
    plain = build(networks)
    assert not hasattr(plain, "path_length")


def test_an_odd_share_of_a_process_has_no_half(networks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of each of two shares of three are two images; one process would take three."""
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    module = build(networks, path_length_weight=2.0, mbstd_group_size=1)
    with pytest.raises(
        ConfigError, match=r"path lengths are measured on half .* each of 2 processes has 3; expected an"
    ):
        trained(module, networks[0].parent, batch_size=6)


def test_a_frozen_mapping_has_path_lengths_too(networks: tuple[Path, Path]) -> None:
    module = build(networks, path_length_weight=2.0, trainable_generator=["synthesis.*"])
    fit(module)
    assert float(module.path_length) > 0


def test_the_first_blocks_can_be_frozen(networks: tuple[Path, Path]) -> None:
    before = network_state(networks[1])
    module = build(networks, frozen_blocks=2)
    fit(module)
    changed = {key for key, value in module.discriminator.state_dict().items() if not torch.equal(value, before[key])}
    assert not {key for key in changed if key.startswith(("from_rgb", "blocks.block16"))}
    assert {"blocks.block8.layer0.weight", "blocks.block8.skip", "epilogue.score.weight"} <= changed
    assert not module.trunk_frozen and build(networks, frozen_blocks=3).trunk_frozen
    with pytest.raises(ConfigError, match="frozen_blocks is 4; the trunk has 3 parts: from_rgb, "):
        build(networks, frozen_blocks=4)


@pytest.mark.parametrize("family", ["stylegan", "stylegan2"])
def test_noise_can_be_left_out(family: str, request: pytest.FixtureRequest) -> None:
    """Also where the networks of the file have used it; no strength trains, and none is left."""
    files = request.getfixturevalue("weights" if family == "stylegan" else "networks")
    generator = network_files.load_generator(files[0])
    with torch.no_grad():
        for strength in generator.noise_strengths():
            strength.fill_(0.5)
    assert generator.noise_strengths()
    network_files.save_network(generator, files[0])
    z = torch.randn(4, generator.z_dim)
    trains = build(files)
    fit(trains)
    assert any(not torch.equal(p, torch.full_like(p, 0.5)) for p in trains.generator.noise_strengths())
    module = build(files, use_noise=False)
    assert not torch.equal(module.generator(z), generator(z))
    assert torch.equal(module.generator(z), generator(z, noise_mode="none"))
    fit(module)
    for network in (module.generator, module.G_ema):
        assert not any(p.any() for p in network.noise_strengths())
        assert torch.equal(network(z, noise_mode="random"), network(z))


def test_a_run_does_not_change_whether_there_is_noise(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed without, a generator that has learned to use noise would keep it, though its strengths did not train."""
    trains = ["--model.init_args.trainable_generator", '["mapping.*"]']
    words = ["fit", "pretrain", *FAMILY, *trains]
    assert ohlora(*words, "--model.init_args.kimg", "0.024") == 0
    capsys.readouterr()
    assert ohlora(*words, "--model.init_args.use_noise", "false", "--ckpt_path", "last") == 2
    assert "use_noise is True in the checkpoint and False now" in capsys.readouterr().err


def test_the_average_is_short_while_training_is_young(networks: tuple[Path, Path]) -> None:
    module = build(networks, ema_kimg=0.1, ema_rampup=0.5)
    fit(module)  # one step of 8 images: the half-life is 4 of them
    key = "mapping.layers.dense0.bias"
    before, after = network_state(networks[0])[key], module.generator.state_dict()[key]
    torch.testing.assert_close(module.G_ema.state_dict()[key], before * 0.25 + after * 0.75)
    module.images_seen += 1000
    assert module._half_life() == 100.0


OURS = ("label contrast", "score matching")
OTHERS = sorted(RECIPES.keys() - set(OURS))


@pytest.mark.parametrize("recipe", [*OURS, *(pytest.param(r, marks=pytest.mark.slow) for r in OTHERS)])
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, ohlora: Run, recipe: str) -> None:
    whole, parts, words = tmp_path / "whole", tmp_path / "parts", [*FAMILY, *RECIPES[recipe]]
    assert ohlora("fit", "pretrain", *words, stage_dir=whole) == 0
    assert ohlora("fit", "pretrain", *words, "--model.init_args.kimg", "0.024", stage_dir=parts) == 0
    folder = parts / "runs" / "0001" / "checkpoints"
    (folder / "images-0000000024.ckpt").rename(folder / ".images-0000000024.ckpt.part")  # killed while saving
    torch.manual_seed(1234)  # nothing may hang on torch's global generator
    assert ohlora("fit", "pretrain", *words, "--ckpt_path", "last", stage_dir=parts) == 0
    assert isinstance(network_files.load_generator(whole / "generator.safetensors"), Generator)
    assert isinstance(network_files.load_discriminator(whole / "discriminator.safetensors"), Discriminator)
    last = [torch.load(d / "runs/0001/checkpoints/images-0000000048.ckpt", weights_only=True) for d in (whole, parts)]
    assert "path_length" in last[0]["state_dict"]
    assert_same(last[0]["state_dict"], last[1]["state_dict"])
    rows = read_rows(whole / "runs" / "0001" / "metrics.csv")
    assert float(rows[0]["loss/path_length"]) > 0 and rows[1]["loss/path_length"] in ("", "nan")


@pytest.mark.parametrize("head", ["linear", "projection"])
def test_labels_train_with_either_head(head: str, tmp_path: Path, ohlora: Run) -> None:
    words = ["--model.init_args.architecture.c_dim", "2", "--model.init_args.labels", "normal"]
    words += ["--model.init_args.kimg", "0.016"]
    assert ohlora("fit", "pretrain", *FAMILY, *words, "--model.init_args.label_head", head) == 0
    d = network_files.load_discriminator(tmp_path / "stage" / "discriminator.safetensors")
    assert (d.c_dim, d.label_head) == (2, head)


def test_labels_that_could_not_be_learned_are_refused(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a StyleGAN2 they enter the projection head through the mapping, and nowhere else."""
    words = ["--model.init_args.architecture.c_dim", "2", "--model.init_args.labels", "normal"]
    words += ["--model.init_args.kimg", "0.016", "--model.init_args.label_head", "projection"]
    epilogue = '["epilogue.*"]'
    assert ohlora("fit", "pretrain", *FAMILY, *words, "--model.init_args.trainable_discriminator", epilogue) == 2
    assert (
        "leaves out mapping.*, through which labels enter the projection head: none could be learned"
        in capsys.readouterr().err
    )
    both = '["epilogue.*", "mapping.*"]'
    start = tmp_path / "stage" / "discriminator.safetensors"
    assert ohlora("fit", "pretrain", *FAMILY, *words, "--model.init_args.trainable_discriminator", both) == 0
    assert network_files.load_discriminator(start).label_head == "projection"


def test_labels_may_enter_at_a_rate_of_their_own(networks: tuple[Path, Path]) -> None:
    def moved(rate: float) -> dict[str, float]:
        def adam(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=0.001, betas=(0.0, 0.99))

        labels = {"add_labels": 2, "labels": "normal", "label_head": "projection", "label_rate": rate}
        module = build(networks, discriminator_optimizer=adam, **labels)
        before = {name: p.detach().clone() for name, p in module.discriminator.named_parameters()}
        fit(module)
        after = module.discriminator.state_dict()
        return {name: float((after[name] - p).abs().max()) for name, p in before.items()}

    usual, fast = moved(1.0), moved(100.0)
    assert {name.partition(".")[0] for name in usual} == {"from_rgb", "blocks", "epilogue", "mapping"}
    for name, distance in fast.items():
        assert distance == pytest.approx(usual[name] * (100 if name.startswith("mapping.") else 1), rel=1e-3), name


def test_a_mapping_trains_at_a_rate_of_its_own(networks: tuple[Path, Path]) -> None:
    def moved(rate: float) -> dict[str, float]:
        def adam(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.Adam(parameters, lr=0.001, betas=(0.0, 0.99))

        module = build(networks, generator_optimizer=adam, mapping_rate=rate)
        before = {name: p.detach().clone() for name, p in module.generator.named_parameters()}
        fit(module)
        after = module.generator.state_dict()
        return {name: float((after[name] - p).abs().max()) for name, p in before.items()}

    usual, fast = moved(1.0), moved(50.0)
    assert {name.partition(".")[0] for name in usual} == {"mapping", "synthesis"}
    for name, distance in fast.items():
        assert distance == pytest.approx(usual[name] * (50 if name.startswith("mapping.") else 1), rel=0.02), name
    with pytest.raises(ConfigError, match=r"mapping_rate is 50\.0, and trainable_generator leaves out mapping\.\*"):
        build(networks, mapping_rate=50.0, trainable_generator=["synthesis.*"])


def test_a_rate_of_labels_that_has_nothing_to_work_on_is_refused(networks: tuple[Path, Path]) -> None:
    labels: dict[str, Any] = {"add_labels": 2, "labels": "normal", "label_rate": 100.0}
    with pytest.raises(ConfigError, match=r"label_rate is 100\.0, and the discriminator has no projection head"):
        build(networks, **labels)
    with pytest.raises(ConfigError, match=r"leaves out mapping\.\*, through which labels enter the projection head"):
        build(networks, **labels, label_head="projection", trainable_discriminator=["epilogue.*"])


def test_a_run_resumes_with_the_rate_of_its_labels(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["--model.init_args.architecture.c_dim", "2", "--model.init_args.labels", "normal"]
    words += ["--model.init_args.label_head", "projection", "--model.init_args.label_rate"]
    assert ohlora("fit", "pretrain", *FAMILY, *words, "10", stage_dir=whole) == 0
    assert ohlora("fit", "pretrain", *FAMILY, *words, "10", "--model.init_args.kimg", "0.016", stage_dir=parts) == 0
    assert ohlora("fit", "pretrain", *FAMILY, *words, "20", "--ckpt_path", "last", stage_dir=parts) == 2
    assert "label_rate is 10.0 in the checkpoint and 20.0 now" in capsys.readouterr().err
    assert ohlora("fit", "pretrain", *FAMILY, *words, "10", "--ckpt_path", "last", stage_dir=parts) == 0
    for name in ("generator", "discriminator"):
        assert_same(network_state(whole / f"{name}.safetensors"), network_state(parts / f"{name}.safetensors"))


def test_mixed_precision_trains(tmp_path: Path, ohlora: Run) -> None:
    words = ["--trainer.precision", "bf16-mixed", "--model.init_args.kimg", "0.016"]
    assert ohlora("fit", "pretrain", *FAMILY, *words) == 0
    made = network_files.load_generator(tmp_path / "stage" / "generator.safetensors")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in made.parameters())
    w = made.map(torch.randn(2, 8))
    exact = made.synthesize(w)
    with torch.autocast("cpu", torch.bfloat16):
        images = made.synthesize(w)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, exact, atol=0.05 * float(exact.detach().abs().max()), rtol=0)


def test_training_goes_on_at_a_higher_resolution(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    small, whole, parts = tmp_path / "small", tmp_path / "whole", tmp_path / "parts"
    words = [*FAMILY[:2], *("--model.init_args.architecture.channel_base", "256")]
    assert ohlora("fit", "pretrain", *words, "--data.init_args.resolution", "16", stage_dir=small) == 0
    files = [f"--model.init_args.{name}={small / name}.safetensors" for name in ("generator", "discriminator")]
    words = [*files, "--model.init_args.architecture=null", "--model.init_args.grow_to=32"]
    assert ohlora("fit", "pretrain", *words, "--data.init_args.resolution", "16", stage_dir=whole) == 2
    assert "32" in capsys.readouterr().err
    words += ["--data.init_args.resolution", "32"]
    assert ohlora("fit", "pretrain", *words, stage_dir=whole) == 0
    made = network_files.load_generator(whole / "generator.safetensors")
    assert made.resolution == 32 and made(torch.randn(1, made.z_dim)).shape == (1, 3, 32, 32)
    before, after = network_state(small / "generator.safetensors"), made.state_dict()
    assert not torch.equal(before["mapping.layers.dense0.weight"], after["mapping.layers.dense0.weight"])
    assert ohlora("fit", "pretrain", *words, "--model.init_args.kimg", "0.016", stage_dir=parts) == 0
    assert ohlora("fit", "pretrain", *words, "--ckpt_path", "last", stage_dir=parts) == 0
    for name in ("generator", "discriminator"):
        assert_same(network_state(whole / f"{name}.safetensors"), network_state(parts / f"{name}.safetensors"))
    assert ohlora("fit", "pretrain", "--model.init_args.grow_to=32", stage_dir=tmp_path / "random") == 2
    assert "grow_to is 32 and architecture.resolution is 16" in capsys.readouterr().err

"""GAN training through the real entry point, and its arithmetic against a plain reference."""

from __future__ import annotations

import csv
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ohlora.attributes import vocabulary
from ohlora.datamodules.drawn_faces import DrawnFaces
from ohlora.directions.label_contrast import LabelContrast
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.formats import network_files
from ohlora.modules.gan import GAN, Batch
from ohlora.networks.augmentation import ADA, Augmentation, DiffAugment
from ohlora.networks.feature_cache import FeatureCache
from ohlora.networks.generator import Generator
from ohlora.networks.registry import Architecture
from ohlora.networks.surgery import with_projection
from ohlora.utils import counted
from ohlora.utils.files import read_rows
from tests.conftest import ROOT, assert_same, network_state, tiny_networks, trained

Run = Callable[..., int]
SGD = partial(torch.optim.SGD, lr=1.0)
TOY = ROOT / "ohlora" / "weights" / "toy"


def build(weights: tuple[Path, Path], **changes: Any) -> GAN:
    """A GAN whose plain SGD steps of rate 1 reveal the gradients."""
    settings: dict[str, Any] = {
        "kimg": 0.008,
        "generator_optimizer": SGD,
        "discriminator_optimizer": SGD,
        "generator": str(weights[0]),
        "discriminator": str(weights[1]),
        "r1_interval": 1,
        "max_generator_updates": 1,
    }
    return GAN(**(settings | changes))


def fit(module: GAN, batch_size: int = 8) -> L.Trainer:
    """Trains beside the module's generator until its budget is spent."""
    return trained(module, Path(str(module.hparams["generator"])).parent / "out", batch_size)


def reals(batch_size: int = 8) -> Tensor:
    """The first batch that training sees."""
    data = DrawnFaces(16, 12, batch_size=batch_size)
    data.setup("fit")
    order = counted.permutation(0, "order", 0, 12)[:batch_size]
    pictures = [torch.from_numpy(data.train_set[int(k)]["image"].copy()).permute(2, 0, 1) for k in order]
    return torch.stack(pictures).float() / 127.5 - 1


def fakes(generator: Generator, stream: str, batch_size: int = 8) -> Tensor:
    """The fakes of a phase of the first step."""
    z = counted.normal(0, f"{stream}/z", range(batch_size), 8)
    made: Tensor = generator(z, noise_mode="random", noise=counted.generators(0, f"{stream}/noise", range(batch_size)))
    return made


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
@pytest.mark.parametrize("gammas", [(10.0, 0.0), (0.0, 0.0), (10.0, 4.0), (0.0, 4.0)], ids=str)
@pytest.mark.parametrize("trains", [("*", "*"), ("mapping.*", "epilogue.*")], ids=["all", "ends"])
def test_one_step_has_the_gradients_of_a_plain_reference(
    weights: tuple[Path, Path], trains: tuple[str, str], gammas: tuple[float, float], loss: Any
) -> None:
    """R1 and R2 in every step: written out here without phases, freezing, toggling, joining or kept features."""
    g, d = network_files.load_generator(weights[0]), network_files.load_discriminator(weights[1])
    g.train()
    d.train()
    x, made = reals().requires_grad_(), fakes(g, "discriminator").detach().requires_grad_()
    real_scores, fake_scores = d(x), d(made)
    if loss == "relativistic":
        loss_d = F.softplus(fake_scores - real_scores).mean()
    else:
        loss_d = F.softplus(fake_scores).mean() + F.softplus(-real_scores).mean()
    for gamma, scores, images in ((gammas[0], real_scores, x), (gammas[1], fake_scores, made)):
        (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        loss_d = loss_d + gamma / 2 * slope.pow(2).flatten(1).sum(1).mean()
    gradients_d = torch.autograd.grad(loss_d, list(d.parameters()))
    with torch.no_grad():
        for (name, p), gradient in zip(d.named_parameters(), gradients_d, strict=True):
            if fnmatch(name, trains[1]):
                p.sub_(gradient)
    ahead = d(reals()) if loss == "relativistic" else 0.0
    gradients_g = torch.autograd.grad(F.softplus(ahead - d(fakes(g, "generator0"))).mean(), list(g.parameters()))

    module = build(
        weights,
        trainable_generator=[trains[0]],
        trainable_discriminator=[trains[1]],
        loss=loss,
        r1_gamma=gammas[0],
        r2_gamma=gammas[1],
        generator_optimizer=Recording,
        discriminator_optimizer=Recording,
    )
    optimizers = fit(module).optimizers
    assert (module.kept_features is not None) == (trains[1] != "*" and gammas[0] == 0)
    for network, optimizer, expected in ((g, optimizers[0], gradients_g), (d, optimizers[1], gradients_d)):
        assert isinstance(optimizer, Recording)
        names = [name for name, _ in network.named_parameters() if fnmatch(name, trains[network is d])]
        assert len(names) == len(optimizer.gradients)
        for name, gradient, wanted in zip(names, optimizer.gradients, keep(network, names, expected), strict=True):
            assert float((gradient - wanted).abs().max()) <= 1e-5 * max(0.01, float(wanted.abs().max())), name


def matrices(augmentation: Augmentation, stream: str) -> tuple[Tensor, Tensor]:
    """An augmentation, which is an affine map of each image's pixels, as matrices 8×P×P and offsets 8×P."""
    pixels, name = 3 * 16 * 16, f"{stream}/augmentation"
    basis = torch.cat([torch.zeros(1, pixels), torch.eye(pixels)]).view(-1, 3, 16, 16)
    found = []
    for k in range(8):
        made = augmentation(basis, [counted.generator(0, name, k) for _ in basis]).flatten(1)
        found.append((made[1:] - made[0], made[0]))
    return torch.stack([matrix.T for matrix, _ in found]), torch.stack([offset for _, offset in found])


@pytest.mark.parametrize("kind", [DiffAugment, ADA])
def test_one_augmented_step_has_the_gradients_of_a_plain_reference(
    weights: tuple[Path, Path], kind: type[Augmentation]
) -> None:
    """Reals and fakes of both networks are augmented, each in its own way, and penalties reach through."""
    augmentation = kind()
    if isinstance(augmentation, ADA):
        augmentation.p.fill_(0.5)
    g, d = network_files.load_generator(weights[0]).train(), network_files.load_discriminator(weights[1]).train()
    maps = {stream: matrices(augmentation, stream) for stream in ("real", "discriminator", "generator0")}

    def scores(images: Tensor, stream: str) -> Tensor:
        matrix, offset = maps[stream]
        seen: Tensor = d(((matrix @ images.flatten(1)[:, :, None])[:, :, 0] + offset).view_as(images))
        return seen

    x, made = reals().requires_grad_(), fakes(g, "discriminator").detach().requires_grad_()
    real_scores, fake_scores = scores(x, "real"), scores(made, "discriminator")
    loss_d = F.softplus(fake_scores - real_scores).mean()
    for gamma, of_images, images in ((4.0, real_scores, x), (2.0, fake_scores, made)):
        (slope,) = torch.autograd.grad(of_images.sum(), images, create_graph=True)
        loss_d = loss_d + gamma / 2 * slope.pow(2).flatten(1).sum(1).mean()
    gradients_d = torch.autograd.grad(loss_d, list(d.parameters()))
    with torch.no_grad():
        for p, gradient in zip(d.parameters(), gradients_d, strict=True):
            p.sub_(gradient)
    loss_g = F.softplus(scores(reals(), "real") - scores(fakes(g, "generator0"), "generator0")).mean()
    gradients_g = torch.autograd.grad(loss_g, list(g.parameters()))

    optimizers = {f"{name}_optimizer": Recording for name in ("generator", "discriminator")}
    penalties = {"r1_gamma": 4.0, "r2_gamma": 2.0}
    module = build(weights, loss="relativistic", augmentation=augmentation, **penalties, **optimizers)
    for optimizer, expected in zip(fit(module).optimizers, (gradients_g, gradients_d), strict=True):
        assert isinstance(optimizer, Recording)
        for gradient, wanted in zip(optimizer.gradients, expected, strict=True):
            assert float((gradient - wanted).abs().max()) <= 1e-4 * max(0.01, float(wanted.abs().max()))


def test_the_probability_of_ada_follows_the_training(weights: tuple[Path, Path]) -> None:
    sure = ADA(kimg=0.064, target=-1.0)
    module = build(weights, augmentation=sure, kimg=0.04, loss="relativistic")
    seen: list[Tensor] = []
    observe = sure.observe

    def watch(sign: Tensor, images: int) -> None:
        seen.append(sign)
        observe(sign, images)

    sure.observe = watch  # type: ignore[method-assign]
    fit(module)
    assert len(seen) == 5 and float(sure.p) == 0.5 and int(sure.steps) == 1
    assert torch.equal(sure.sign_sum, seen[-1]) and all(-1 <= float(sign) <= 1 for sign in seen)
    assert {"augmentation.p", "augmentation.sign_sum", "augmentation.steps"} <= module.state_dict().keys()


def test_kept_features_do_not_go_with_augmentation(weights: tuple[Path, Path]) -> None:
    frozen = {"augmentation": DiffAugment(), "trainable_discriminator": ["epilogue.*"]}
    with pytest.raises(ConfigError, match="set feature_cache to 0, let the trunk train, or leave augmentation out"):
        build(weights, r1_interval=16, **frozen)
    for changes in ({"r1_interval": 16, "feature_cache": 0.0}, {"r1_interval": 1}):
        module = build(weights, **frozen, **changes)
        fit(module)
        assert module.kept_features is None


class Recording(torch.optim.SGD):
    """Plain SGD of rate 1 that keeps the gradients of its step; differences of weights would round them."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=1.0)

    def step(self, closure: Any = None) -> Any:
        """Notes the gradients, then steps."""
        self.gradients = [p.grad.clone() for p in self.param_groups[0]["params"] if p.grad is not None]
        return super().step(closure)


def keep(network: torch.nn.Module, chosen: list[str], gradients: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of the chosen parameters."""
    names = [name for name, _ in network.named_parameters()]
    return [gradient for name, gradient in zip(names, gradients, strict=True) if name in chosen]


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
def test_features_of_reals_are_computed_once(
    weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, loss: Any
) -> None:
    module = build(weights, kimg=0.024, r1_interval=16, trainable_discriminator=["epilogue.*"], loss=loss)
    seen: list[int] = []
    features = module.discriminator.features

    def watch(images: Tensor) -> Tensor:
        seen.append(len(images))
        return features(images)

    monkeypatch.setattr(module.discriminator, "features", watch)
    fit(module)  # 24 images seen of 12
    assert seen.count(1) == 12 and module.kept_features is not None and len(module.kept_features) == 12
    assert seen.count(8) == 3 + 1 + 3  # fakes of the discriminator, R1 once, fakes of the generator


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [16, 8, 8]),
        ({"trainable_discriminator": ["epilogue.*"]}, [16, 8]),
        ({"trainable_discriminator": ["epilogue.*"], "r1_gamma": 0.0}, [8, *[1] * 8, 8]),
        ({"trainable_discriminator": ["epilogue.*"], "feature_cache": 0.0, "r1_interval": 2}, [8, 8, 16, 8]),
    ],
    ids=["trunk trains", "trunk is frozen", "cached", "lazy"],
)
def test_a_relativistic_step_asks_the_trunk_no_more_than_it_must(
    weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: list[int]
) -> None:
    """Reals and fakes of the penalties at once, fakes of the generator, and reals where their scores have changed."""
    module = build(weights, **({"loss": "relativistic", "r2_gamma": 4.0} | changes))
    seen: list[int] = []
    made: list[str] = []
    features, make = module.discriminator.features, module._fakes

    def watch(images: Tensor) -> Tensor:
        seen.append(len(images))
        return features(images)

    def watch_fakes(stream: str, batch: Batch) -> Tensor:
        made.append(stream)
        return make(stream, batch)

    monkeypatch.setattr(module.discriminator, "features", watch)
    monkeypatch.setattr(module, "_fakes", watch_fakes)
    fit(module)
    assert seen == expected and made == ["discriminator", "generator0"]


@pytest.mark.parametrize(
    "changes",
    [{"trainable_discriminator": ["*"]}, {"r1_interval": 1}, {"feature_cache": 0.0}],
    ids=["trunk trains", "R1 in every step", "no memory"],
)
def test_features_are_not_kept_where_they_cannot_be(weights: tuple[Path, Path], changes: dict[str, Any]) -> None:
    module = build(weights, **({"r1_interval": 16, "trainable_discriminator": ["epilogue.*"]} | changes))
    fit(module)
    assert module.kept_features is None


def test_a_mirrored_image_has_features_of_its_own() -> None:
    cache = FeatureCache(lambda images: images.mean(dim=(1, 2)))
    images = torch.randn(2, 3, 4, 4)
    made = cache(torch.cat([images, images.flip(3)]), [(5, False), (7, False), (5, True), (7, True)])
    torch.testing.assert_close(made[:2], made[2:].flip(1))
    assert torch.equal(cache(torch.zeros(1, 3, 4, 4), [(7, True)]), made[3:]) and len(cache) == 4


def test_a_rule_that_cannot_repeat_is_never_asked(weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bool:
        raise AssertionError("the host waited for the device")

    module = build(weights, max_generator_updates=1)
    monkeypatch.setattr(module, "_generator_keeps_up", fail)
    fit(module)


@pytest.mark.parametrize("gammas", [(10.0, 0.0), (10.0, 4.0), (0.0, 4.0)], ids=str)
def test_lazy_penalties_are_a_phase_of_their_own_with_corrected_adam(
    weights: tuple[Path, Path], gammas: tuple[float, float]
) -> None:
    adam = partial(torch.optim.Adam, lr=0.01, betas=(0.0, 0.99))
    module = build(
        weights,
        r1_gamma=gammas[0],
        r2_gamma=gammas[1],
        r1_interval=4,
        discriminator_optimizer=adam,
        generator_optimizer=adam,
    )
    phases = [("discriminator", 1), ("gradient penalty", 4), ("generator", 1)]
    assert [(p.name, p.interval) for p in module.phases] == phases
    generator, discriminator = module.configure_optimizers()
    assert discriminator.param_groups[0]["lr"] == pytest.approx(0.01 * 4 / 5)
    assert discriminator.param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert generator.param_groups[0]["lr"] == 0.01
    module._terms = {}
    loss = module.penalty_phase(Batch(reals(), None, list(range(8)), []), 0)
    expected = torch.zeros(())
    for gamma, x in zip(gammas, (reals(), fakes(module.generator, "discriminator").detach()), strict=True):
        (slope,) = torch.autograd.grad(module.discriminator(x.requires_grad_()).sum(), x)
        expected = expected + 4 * gamma / 2 * slope.square().flatten(1).sum(1).mean()
    torch.testing.assert_close(loss.detach(), expected)
    names = {name for name, gamma in zip(("loss/r1", "loss/r2"), gammas, strict=True) if gamma}
    assert module._terms.keys() == names and ("loss/r2" in module._means) == (gammas[1] > 0)


def test_without_penalties_no_phase_computes_them(weights: tuple[Path, Path]) -> None:
    module = build(weights, r1_gamma=0.0, r1_interval=4)
    assert [phase.name for phase in module.phases] == ["discriminator", "generator"]
    assert all(optimizer.param_groups[0]["lr"] == 1.0 for optimizer in module.configure_optimizers())


def test_fakes_of_the_discriminator_carry_no_graph_and_w_avg_is_detached(
    weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build(weights, kimg=0.016)
    seen: list[bool] = []
    features = module.discriminator.features

    def watch(images: Tensor) -> Tensor:
        seen.append(images.requires_grad and not images.is_leaf)
        return features(images)

    monkeypatch.setattr(module.discriminator, "features", watch)
    before = module.generator.w_avg.clone()
    fit(module)
    assert seen == [False, False, True] * 2  # fakes, reals (a leaf, for R1), then the generator's fakes
    assert module.generator.w_avg.grad_fn is None and not torch.equal(module.generator.w_avg, before)


def test_only_the_chosen_parameters_train(weights: tuple[Path, Path]) -> None:
    module = build(
        weights,
        trainable_generator=["mapping.*", "synthesis.block4.*"],
        trainable_discriminator=["epilogue.*"],
    )
    before = {key: value.clone() for key, value in module.state_dict().items()}
    fit(module)
    for network, prefixes in (("generator", ("mapping.", "synthesis.block4.")), ("discriminator", ("epilogue.",))):
        for name, p in getattr(module, network).named_parameters():
            trained = name.startswith(prefixes)
            assert trained != torch.equal(before[f"{network}.{name}"], p), name
            assert trained or p.grad is None


def test_the_repeat_rule(weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to four updates, with fresh latents each, until L_G < ratio · L_D."""
    for ratio, expected in ((1e9, 1), (0.0, 4)):
        module = build(weights, max_generator_updates=4, repeat_ratio=ratio)
        streams: list[str] = []
        make = module._fakes

        def watch(stream: str, batch: Batch, streams: list[str] = streams, make: Any = make) -> Tensor:
            streams.append(stream)
            made: Tensor = make(stream, batch)
            return made

        monkeypatch.setattr(module, "_fakes", watch)
        fit(module)
        assert streams == ["discriminator", *(f"generator{k}" for k in range(expected))]


def test_the_averaged_generator_has_its_half_life(weights: tuple[Path, Path]) -> None:
    module = build(weights, ema_kimg=0.008)
    start = {name: p.detach().clone() for name, p in module.G_ema.named_parameters()}
    fit(module)
    for name, p in module.G_ema.named_parameters():
        end = module.generator.get_parameter(name).detach()
        torch.testing.assert_close(p, (start[name] + end) / 2, atol=1e-6, rtol=1e-5)
    assert torch.equal(module.G_ema.w_avg, module.generator.w_avg)


def test_a_kind_of_generator_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"architecture\.kind is 'stylegan9'; expected stylegan"):
        GAN(0.008, SGD, SGD, architecture=Architecture("stylegan9"))


def test_labels_of_the_data_are_kept_with_the_weights(tmp_path: Path, image_folder: Path, ohlora: Run) -> None:
    g, d = tiny_networks(c_dim=2)
    network_files.save_network(g, tmp_path / "g.safetensors")
    network_files.save_network(d, tmp_path / "d.safetensors")
    rows: list[list[object]] = [["path", "eyes", "mouth"], *([f"images/{k:03d}.png", k / 10, -k] for k in range(12))]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    words = [
        *("--model.init_args.generator", str(tmp_path / "g.safetensors")),
        *("--model.init_args.discriminator", str(tmp_path / "d.safetensors")),
        *("--data.init_args.folder", "null", "--data.init_args.manifest", str(tmp_path / "manifest.csv")),
    ]
    labelled = ["--model.init_args.labels", "dataset", "--data.init_args.label_columns", "[eyes, mouth]"]
    assert ohlora("fit", "finetune", *words, *labelled) == 0
    made = network_files.load_generator(tmp_path / "stage" / "generator.safetensors")
    assert made.labels == "dataset" and made.label_table.shape == (12, 2)
    assert made.label_table[3].tolist() == pytest.approx([0.3, -3])
    assert ohlora("fit", "finetune", *words, "--model.init_args.labels", "dataset") == 2  # no label columns
    # What was trained with the data's labels can be resumed.
    assert ohlora("fit", "finetune", *words, *labelled, "--model.init_args.kimg", "0.04", "--ckpt_path", "last") == 0


@pytest.fixture
def labelled(tmp_path: Path, weights: tuple[Path, Path], image_folder: Path) -> list[str]:
    """Words that fine-tune label-free weights on images with two labels."""
    rows: list[list[object]] = [["path", "eyes", "mouth"], *([f"images/{k:03d}.png", k / 10, -k] for k in range(12))]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return [
        *("--model.init_args.generator", str(weights[0]), "--model.init_args.discriminator", str(weights[1])),
        *("--data.init_args.folder", "null", "--data.init_args.manifest", str(tmp_path / "manifest.csv")),
        *("--data.init_args.label_columns", "[eyes, mouth]", "--model.init_args.labels", "dataset"),
    ]


def test_label_contrast_takes_labels_in_the_order_of_the_world(
    tmp_path: Path, labelled: list[str], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    names = vocabulary().names("label")
    rows: list[list[object]] = [["path", *names], *([f"images/{k:03d}.png", *[k / 10] * len(names)] for k in range(12))]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    words = [*labelled, "--model.init_args.add_labels", "label"]
    words += ["--model.init_args.label_contrast.network", str(TOY / "merged.safetensors")]
    turned = f"[{', '.join(reversed(names))}]"
    assert ohlora("fit", "finetune", *words, "--data.init_args.label_columns", turned) == 2
    assert f"and the data has {turned[1:-1]}; set data.init_args.label_columns to 'label'" in capsys.readouterr().err
    assert ohlora("fit", "finetune", *words, "--data.init_args.label_columns", "label") == 0


def test_labels_are_added_when_training_starts(tmp_path: Path, labelled: list[str], ohlora: Run) -> None:
    added = ["--model.init_args.add_labels", "2", "--model.init_args.r1_interval", "2"]
    assert ohlora("fit", "finetune", *labelled, *added) == 0
    made = network_files.load_generator(tmp_path / "stage" / "generator.safetensors")
    assert made.c_dim == 2 and made.label_table.shape == (12, 2)
    assert ohlora("fit", "finetune", *labelled, *added, "--model.init_args.kimg", "0.04", "--ckpt_path", "last") == 0


def test_projection_and_shuffled_labels(tmp_path: Path, labelled: list[str], ohlora: Run) -> None:
    settings = {"add_labels": 2, "label_head": "projection", "shuffled_labels": 0.5, "r1_interval": 2}
    words = [word for key, value in settings.items() for word in (f"--model.init_args.{key}", str(value))]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ohlora("fit", "finetune", *labelled, *words, stage_dir=whole) == 0
    row = read_rows(whole / "runs" / "0001" / "metrics.csv")[0]
    assert float(row["loss/shuffled"]) > 0 and "score/shuffled" in row
    made = network_files.load_discriminator(whole / "discriminator.safetensors")
    assert made.label_head == "projection" and float(made.get_parameter("epilogue.embedding.weight").abs().max()) > 0
    assert ohlora("fit", "finetune", *labelled, *words, "--model.init_args.kimg", "0.016", stage_dir=parts) == 0
    assert ohlora("fit", "finetune", *labelled, *words, "--ckpt_path", "last", stage_dir=parts) == 0
    for name in ("generator", "discriminator"):
        assert_same(network_state(whole / f"{name}.safetensors"), network_state(parts / f"{name}.safetensors"))


def test_ada_does_not_mirror_images_whose_labels_would_change(
    tmp_path: Path, labelled: list[str], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    added = ["--model.init_args.add_labels", "2", "--model.init_args.trainable_discriminator", '["*"]']
    words = [*labelled, *added, "--model.init_args.augmentation", "ohlora.networks.augmentation.ADA"]
    assert ohlora("fit", "finetune", *words) == 0  # eyes and mouth stay what they are
    table = tmp_path / "manifest.csv"
    table.write_text(table.read_text().replace("mouth", "pose"))
    words[words.index("[eyes, mouth]")] = "[eyes, pose]"
    assert ohlora("fit", "finetune", *words) == 2
    assert "mirroring changes pose" in (said := capsys.readouterr().err)
    assert "set model.init_args.augmentation.init_args.flip to false" in said
    assert ohlora("fit", "finetune", *words, "--model.init_args.augmentation.init_args.flip", "false") == 0


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
def test_the_shuffled_term_is_that_of_a_plain_reference(weights: tuple[Path, Path], loss: Any) -> None:
    module = build(weights, add_labels=2, labels="dataset", label_head="projection", shuffled_labels=0.5, loss=loss)
    torch.nn.init.normal_(module.discriminator.get_parameter("epilogue.embedding.weight"))
    table = torch.randn(5, 2)
    module.generator.set_labels("dataset", table)
    x = reals()
    module._terms = {}
    batch = Batch(x, table[:1].repeat(8, 1), list(range(8)), [])
    scores = module.discriminator(x, batch.label)
    term = module._shuffled_term(module.discriminator.features(x), scores, batch)
    others = table[[int(r.integers(5)) for r in counted.generators(0, "shuffled", range(8))]]
    assert len({tuple(row.tolist()) for row in others}) > 1
    relative = scores if loss == "relativistic" else 0.0
    torch.testing.assert_close(term, F.softplus(module.discriminator(x, others) - relative).mean())


@pytest.mark.parametrize("changes", [{"score_matching": 1.0}, {"scored_by": ["merged.safetensors"]}])
def test_score_matching_needs_a_network_and_a_weight(weights: tuple[Path, Path], changes: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match="expected a weight above 0 and files of networks that score attributes, or neither"
    ):
        build(weights, **changes)


def test_score_matching_begins_when_there_are_pictures(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, short, whole = tmp_path / "plain", tmp_path / "short", tmp_path / "whole"
    late = [*RECIPES["score matching"], "--model.init_args.score_matching_start", "0.016"]
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.016", stage_dir=plain) == 0
    assert ohlora("fit", "pretrain", *late, "--model.init_args.kimg", "0.016", stage_dir=short) == 0
    assert "score_matching has no effect: it starts at 0.016 kimg" in capsys.readouterr().out
    for name in ("generator", "discriminator"):
        assert_same(network_state(plain / f"{name}.safetensors"), network_state(short / f"{name}.safetensors"))
    assert ohlora("fit", "pretrain", *late, "--model.init_args.log_every", "0.008", stage_dir=whole) == 0
    found = [row["loss/score_matching"] for row in read_rows(whole / "runs" / "0001" / "metrics.csv")]
    assert found[:2] == ["", ""] and all(float(value) > 0 for value in found[2:]) and len(found) > 3


def test_score_matching_needs_more_than_one_image(weights: tuple[Path, Path]) -> None:
    scored_by = [str(TOY / "merged.safetensors")]
    with pytest.raises(ConfigError, match="score_matching compares the images of a batch; expected data"):
        fit(build(weights, score_matching=1.0, scored_by=scored_by, mbstd_group_size=1), batch_size=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shuffled_labels": 1.0}, "shuffled_labels is 1.0 with labels 'none'; it needs 'dataset'"),
        ({"add_labels": -1, "labels": "normal"}, "cannot add -1 label values"),
        ({"add_labels": 2}, "labels is 'none' and the networks take 2 label values; expected 'dataset'"),
        ({"label_head": "projection"}, "a projection needs labels"),
    ],
)
def test_settings_about_labels_that_do_not_fit(
    weights: tuple[Path, Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(weights, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "label_contrast changes labels, and labels is 'none'; set labels to 'dataset' or 'normal'"),
        (
            {"add_labels": 2, "labels": "normal"},
            r"those of the world, eyes, .*; the generator has 2\. Leave label_cont",
        ),
    ],
)
def test_label_contrast_needs_labels_of_the_world(
    weights: tuple[Path, Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(weights, label_contrast=LabelContrast(str(TOY / "merged.safetensors")), **changes)


def test_a_projection_head_is_not_taken_back(tmp_path: Path) -> None:
    g, d = tiny_networks(c_dim=2)
    paths = tmp_path / "g.safetensors", tmp_path / "d.safetensors"
    network_files.save_network(g, paths[0])
    network_files.save_network(with_projection(d), paths[1])
    with pytest.raises(ConfigError, match="label_head is 'linear' and the discriminator's is 'projection'"):
        build(paths, labels="normal", label_head="linear")
    assert build(paths, labels="normal").discriminator.label_head == "projection"


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_bad_value_stops_the_run_by_name(weights: tuple[Path, Path], network: str) -> None:
    module = build(weights)
    name = {"generator": "synthesis.to_rgb.bias", "discriminator": "from_rgb.bias"}[network]
    getattr(module, network).get_parameter(name).data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"loss/discriminator.* is not finite in step 0 \(0 images seen"):
        fit(module)


def test_a_bad_gradient_stops_the_run_before_the_update(weights: tuple[Path, Path]) -> None:
    module = build(weights)
    parameter = module.generator.get_parameter("synthesis.to_rgb.bias")
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]
    with pytest.raises(NonFiniteError, match="gradient of the generator is not finite in step 0"):
        fit(module)
    assert torch.equal(parameter.detach(), before)


def test_a_run_leaves_what_a_user_expects(tmp_path: Path, ohlora: Run) -> None:
    assert ohlora("fit", "pretrain") == 0
    run = tmp_path / "stage" / "runs" / "0001"
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["kimg"]) for row in rows] == pytest.approx([0.008 * k for k in range(1, 7)])
    wanted = {"loss/discriminator", "loss/generator", "loss/r1", "score/real", "score/fake", "auroc/real_fake"}
    assert wanted <= rows[0].keys() and all(0 <= float(row["auroc/real_fake"]) <= 1 for row in rows)
    pictures = sorted(p.name for p in (run / "pictures").iterdir())
    assert pictures == [*(f"fakes-{k:09d}.png" for k in (0, 16, 32, 48)), "reals-000000000.png"]
    with Image.open(run / "pictures" / "fakes-000000048.png") as picture:
        assert picture.width == picture.height >= 400
    assert (run / "config.yaml").is_file()
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "images-0000000032.ckpt",
        "images-0000000048.ckpt",
    ]
    product = load_file(tmp_path / "stage" / "generator.safetensors")
    assert_same(product, load_file(run / "generator.safetensors"))
    assert network_files.read_metadata(tmp_path / "stage" / "generator.safetensors")["provenance"]["images_seen"] == 48


RELATIVISTIC = ("--model.init_args.loss", "relativistic", "--model.init_args.r2_gamma", "2")
RECIPES = {
    "logistic": (),
    "relativistic": RELATIVISTIC,
    "DiffAugment": ("--model.init_args.augmentation", "ohlora.networks.augmentation.DiffAugment"),
    "ADA": (
        *RELATIVISTIC,
        *("--model.init_args.augmentation", "ohlora.networks.augmentation.ADA"),
        *("--model.init_args.augmentation.init_args.kimg", "0.1"),
        *("--model.init_args.augmentation.init_args.target", "-1"),  # p rises where not all fakes score higher
        *("--model.init_args.seed", "1"),
    ),
    "score matching": (
        *("--model.init_args.score_matching", "0.01"),
        *("--model.init_args.scored_by", f"[{TOY / 'merged.safetensors'}]"),
    ),
    "label contrast": (
        *("--model.init_args.add_labels", "label", "--model.init_args.labels", "normal"),
        *("--model.init_args.label_contrast.network", str(TOY / "merged.safetensors")),
        *(
            "--model.init_args.label_contrast.guide.file",
            str(ROOT / "ohlora" / "weights" / "toy" / "identity.safetensors"),
        ),
        *("--model.init_args.label_contrast.weight", "0.01", "--model.init_args.mapping_rate", "2"),
    ),
}
"""Words that choose parts of training."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_clean_stop_and_resume_is_bit_identical(tmp_path: Path, ohlora: Run, recipe: str) -> None:
    whole, parts, words = tmp_path / "whole", tmp_path / "parts", RECIPES[recipe]
    assert ohlora("fit", "pretrain", *words, stage_dir=whole) == 0
    assert ohlora("fit", "pretrain", *words, "--model.init_args.kimg", "0.024", stage_dir=parts) == 0
    # Nothing may hang on torch's global generator.
    torch.manual_seed(1234)
    resumed = ["--ckpt_path", "last", "--seed_everything", "99"]
    assert ohlora("fit", "pretrain", *words, *resumed, stage_dir=parts) == 0
    for name in ("generator", "discriminator"):
        file = f"{name}.safetensors"
        assert_same(network_state(whole / file), network_state(parts / file))
    last = [torch.load(d / "runs/0001/checkpoints/images-0000000048.ckpt", weights_only=True) for d in (whole, parts)]
    assert_same(last[0]["state_dict"], last[1]["state_dict"])
    for a, b in zip(last[0]["optimizer_states"], last[1]["optimizer_states"], strict=True):
        for k, state in a["state"].items():
            assert_same(state, b["state"][k])
    p = [float(row["ada/p"]) for row in read_rows(whole / "runs" / "0001" / "metrics.csv") if "ada/p" in row]
    assert p == ([0, 0, 0, 0, pytest.approx(0.32), pytest.approx(0.32)] if recipe == "ADA" else [])
    # One run, told as one: no row twice, and the earlier configuration kept.
    assert [p.name for p in (parts / "runs").iterdir()] == ["0001"]
    texts = [(d / "runs/0001/metrics.csv").read_text().splitlines() for d in (whole, parts)]
    assert [line.split(",")[:4] for line in texts[0]] == [line.split(",")[:4] for line in texts[1]]
    assert (parts / "runs/0001/config.1.yaml").is_file()


def test_a_resumed_fine_tune_with_kept_features_is_bit_identical(
    tmp_path: Path, weights: tuple[Path, Path], image_folder: Path, ohlora: Run
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = [
        *("--model.init_args.generator", str(weights[0]), "--model.init_args.discriminator", str(weights[1])),
        *("--data.init_args.folder", str(image_folder), "--model.init_args.r1_interval", "4"),
    ]
    assert ohlora("fit", "finetune", *words, "--model.init_args.kimg", "0.096", stage_dir=whole) == 0
    assert ohlora("fit", "finetune", *words, "--model.init_args.kimg", "0.04", stage_dir=parts) == 0
    resumed = ["--model.init_args.kimg", "0.096", "--data.init_args.num_workers", "1", "--ckpt_path", "last"]
    assert ohlora("fit", "finetune", *words, *resumed, stage_dir=parts) == 0
    for name in ("generator", "discriminator"):
        assert_same(network_state(whole / f"{name}.safetensors"), network_state(parts / f"{name}.safetensors"))


def test_what_a_killed_run_did_after_its_last_checkpoint_is_done_again(tmp_path: Path, ohlora: Run) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ohlora("fit", "pretrain", stage_dir=whole) == 0
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.024", stage_dir=parts) == 0
    folder = parts / "runs" / "0001" / "checkpoints"
    (folder / "images-0000000024.ckpt").rename(folder / ".images-0000000024.ckpt.part")  # killed while saving
    assert ohlora("fit", "pretrain", "--ckpt_path", "last", stage_dir=parts) == 0
    for name in ("generator", "discriminator"):
        assert_same(network_state(whole / f"{name}.safetensors"), network_state(parts / f"{name}.safetensors"))
    tables = [read_rows(d / "runs" / "0001" / "metrics.csv") for d in (whole, parts)]
    assert [row["kimg"] for row in tables[0]] == [row["kimg"] for row in tables[1]]
    assert not list(folder.glob(".*"))


def test_resuming_a_finished_run_does_nothing(tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert ohlora("fit", "pretrain") == 0
    before = network_state(tmp_path / "stage" / "generator.safetensors")
    assert ohlora("fit", "pretrain", "--ckpt_path", "last") == 0
    assert_same(before, network_state(tmp_path / "stage" / "generator.safetensors"))


def test_the_schedule_steps_on_the_kimg_clock(weights: tuple[Path, Path]) -> None:
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    sgd = partial(torch.optim.SGD, lr=1e-6)
    module = build(
        weights, kimg=2.0, schedule=halve, generator_optimizer=sgd, discriminator_optimizer=sgd, r1_gamma=0.0
    )
    rates: dict[int, float] = {}

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            rates[int(module.images_seen)] = trainer.optimizers[0].param_groups[0]["lr"]

    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        max_epochs=-1,
        use_distributed_sampler=False,
        callbacks=[Watch()],
        default_root_dir=str(weights[0].parent / "out"),
    )
    data = DrawnFaces(16, 64, batch_size=200)
    module.connect(data)
    trainer.fit(module, datamodule=data)
    assert rates[800] == 1e-6 and rates[1000] == 0.5e-6 and rates[1800] == 0.5e-6 and rates[2000] == 0.25e-6


def test_mixed_precision_trains(tmp_path: Path, ohlora: Run) -> None:
    assert ohlora("fit", "pretrain", "--trainer.precision", "bf16-mixed", "--model.init_args.kimg", "0.016") == 0
    made = network_files.load_generator(tmp_path / "stage" / "generator.safetensors")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in made.parameters())

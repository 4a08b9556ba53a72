"""Weights of other projects, read by the command line; what the networks compute is in the golden tests."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ohlora.__main__ import main
from ohlora.formats import network_files
from ohlora.formats.rosinality_networks import what_differs
from ohlora.networks.stylegan2 import Discriminator, Generator
from ohlora.utils import counted
from tests.conftest import assert_same, network_state
from tests.formats import nvidia_pickles
from tests.golden import GOLDEN
from tests.networks.test_stylegan2 import tiny

Change = Callable[[dict[str, Any]], object]


def pickled(path: Path, change: Change, case: str = "stylegan2-ada-16") -> str:
    """A golden pickle after a change, written anew."""
    with nvidia_pickles.named():
        content = pickle.loads((GOLDEN / f"{case}.pkl").read_bytes())
        change(content)
        path.write_bytes(pickle.dumps(content, protocol=3))
    return str(path)


def module(content: dict[str, Any], path: str) -> dict[str, Any]:
    """The state of a module, such as ``G_ema.synthesis.b4``."""
    first, *rest = path.split(".")
    state = content[first].meta["state"]
    for name in rest:
        state = state["_modules"][name].meta["state"]
    return state  # type: ignore[no-any-return]


def set_tensor(content: dict[str, Any], path: str, value: Tensor | None) -> None:
    """Replaces a parameter or buffer; None takes it away."""
    where, _, name = path.rpartition(".")
    state = module(content, where)
    for part in ("_parameters", "_buffers"):
        if state[part].pop(name, None) is not None and value is not None:
            state[part][name] = value


@pytest.fixture
def imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(source: str, *words: str) -> tuple[int, str, str]:
        code = main(["import-weights", source, str(tmp_path / "out"), *words])
        return (code, *capsys.readouterr())

    return run


def test_a_discriminator_is_said_to_be_missing_or_left_out(
    tmp_path: Path, imports: Callable[..., tuple[int, str, str]]
) -> None:
    code, said, _ = imports(pickled(tmp_path / "a", lambda c: c.update(D=None)))
    assert code == 0 and "there is no discriminator in the file: fine-tuning needs one" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["generator.safetensors"]

    def foreign_discriminator(content: dict[str, Any]) -> None:
        content["D"] = nvidia_pickles.module("ProjectedDiscriminator", {"weight": torch.ones(2)})

    code, said, _ = imports(pickled(tmp_path / "b", foreign_discriminator))
    assert code == 0 and "the discriminator is left out: D in " in said and "is a ProjectedDiscriminator" in said
    code, said, _ = imports(pickled(tmp_path / "c", lambda c: c.update(G=None, G_ema=None)))
    assert code == 0 and "discriminator, stylegan2, 16×16, 3 label values, weights of c" in said


def test_each_network_is_said_to_be_of_its_own_entry(imports: Callable[..., tuple[int, str, str]]) -> None:
    code, said, _ = imports(str(GOLDEN / "stylegan2-ada-16.pkl"))
    assert code == 0 and "averaged weights of stylegan2-ada-16.pkl (NVIDIA, G_ema)" in said
    assert "3 label values, weights of stylegan2-ada-16.pkl (NVIDIA, D)" in said


def test_labels_of_nvidias_networks_are_classes(tmp_path: Path, imports: Callable[..., tuple[int, str, str]]) -> None:
    code, said, _ = imports(str(GOLDEN / "stylegan2-ada-16.pkl"))
    assert code == 0 and "its 3 label values are taken for classes, drawn equally often" in said
    generator = network_files.load_generator(tmp_path / "out" / "generator.safetensors")
    drawn = generator.draw_labels(counted.generators(0, "label", range(300)))
    assert drawn is not None and set(drawn.flatten().tolist()) == {0.0, 1.0} and (drawn.sum(dim=1) == 1).all()
    assert drawn.sum(dim=0).min() > 70  # 100 are expected

    def many(content: dict[str, Any]) -> None:
        set_tensor(content, "G_ema.mapping.embed.weight", torch.ones(32, 5000))

    code, _, error = imports(pickled(tmp_path / "many", many))
    assert code == 2 and "takes 5000 label values; expected at most 4096" in error
    code, said, _ = imports(str(GOLDEN / "stylegan3-t-16.pkl"))
    assert code == 0 and "classes" not in said


def test_some_of_the_classes_can_be_chosen(tmp_path: Path, imports: Callable[..., tuple[int, str, str]]) -> None:
    conditional, plain = (str(GOLDEN / f"{name}-16.pkl") for name in ("stylegan2-ada", "stylegan3-t"))
    assert imports(conditional, "--classes", "2", "0", "2")[0] == 0
    generator = network_files.load_generator(tmp_path / "out" / "generator.safetensors")
    drawn = generator.draw_labels(counted.generators(0, "label", range(100)))
    assert drawn is not None and 30 < drawn[:, 0].sum() < 70 and not drawn[:, 1].any()
    code, _, error = imports(conditional, "--classes", "3")
    assert code == 2 and f"--classes is 3; the classes of {conditional} are 0 to 2" in error
    code, _, error = imports(plain, "--classes", "0")
    assert code == 2 and "holds no generator of classes; leave it out" in error


def test_raw_needs_a_raw_generator(tmp_path: Path, imports: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = imports(pickled(tmp_path / "a", lambda c: c.update(G=None, D=None)), "--raw")
    assert (
        code == 2 and "has no G; it has training_set_kwargs, G_ema. Leave --raw out" in error and error.count("\n") == 1
    )
    code, said, _ = imports(pickled(tmp_path / "b", lambda c: c.update(G_ema=None)))
    assert code == 0 and "averaged" not in said and "(NVIDIA, G)" in said


REFUSED: dict[str, tuple[Change, str]] = {
    "not finite": (
        lambda c: set_tensor(c, "G_ema.synthesis.b8.conv0.bias", torch.full((32,), torch.nan)),
        "G_ema in .*: not all values are finite in synthesis.b8.conv0.bias: its training failed",
    ),
    "grey": (
        lambda c: set_tensor(c, "G_ema.synthesis.b4.torgb.weight", torch.ones(1, 32, 1, 1)),
        r"makes images of 1 channels; expected 3 \(RGB\)",
    ),
    "wide": (
        lambda c: set_tensor(c, "G_ema.synthesis.b4.const", torch.ones(32, 4, 7)),
        "begins at 4×7 pixels; expected 4×4, as for square images",
    ),
    "other sizes": (
        lambda c: module(c, "G_ema.synthesis")["_modules"].update(
            b24=module(c, "G_ema.synthesis")["_modules"].pop("b16")
        ),
        "resolution is 24; expected a power of two from 8 to 1024",
    ),
    "a missing tensor": (
        lambda c: set_tensor(c, "G_ema.synthesis.b8.conv1.noise_const", None),
        "missing synthesis.b8.conv1.noise_const",
    ),
    "another filter": (
        lambda c: set_tensor(c, "G_ema.synthesis.b8.resample_filter", torch.ones(4, 4) / 16),
        "synthesis.b8.resample_filter is another filter than that of the published networks",
    ),
    "another activation": (
        lambda c: module(c, "G_ema.synthesis.b8.conv1").update(activation="relu"),
        "synthesis.b8.conv1 has activation 'relu'; expected 'lrelu'",
    ),
    "two limits": (
        lambda c: module(c, "G_ema.synthesis.b8.conv1").update(conv_clamp=2),
        r"clamps its layers to \['2', '256'\]; expected one limit",
    ),
    "an odd limit": (
        lambda c: module(c, "G_ema.synthesis.b8.conv1").update(conv_clamp=[1]),
        r"conv_clamp is \[1\]; expected a positive number",
    ),
    "a long number": (
        lambda c: module(c, "G_ema.mapping.fc0").update(bias_gain=2**1024 - 1),
        r"mapping.fc0 has bias_gain \d+; expected 0.01",
    ),
    "a million mapping layers": (
        lambda c: module(c, "G_ema.mapping")["_modules"].update(fc9999=module(c, "G_ema.mapping")["_modules"]["fc1"]),
        "missing mapping.fc2.weight, mapping.fc2.bias; unexpected mapping.fc9999.weight",
    ),
    "no channels": (
        lambda c: set_tensor(c, "G_ema.synthesis.b16.conv1.weight", torch.ones(0, 32, 3, 3)),
        "has feature maps 32 at 4×4, 32 at 8×8, 0 at 16×16; expected min",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_generator_that_does_not_fit_says_why(
    name: str, tmp_path: Path, imports: Callable[..., tuple[int, str, str]]
) -> None:
    change, message = REFUSED[name]
    code, _, error = imports(pickled(tmp_path / "a", change))
    assert code == 2 and error.count("\n") == 1
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


STYLEGAN3: dict[str, tuple[Change, str]] = {
    "factor": (lambda c: module(c, "G_ema.synthesis.L1_36_16").update(up_factor=10**6), "L1_36_16 resamples by"),
    "padding": (lambda c: module(c, "G_ema.synthesis.L1_36_16").update(padding=[10**9] * 4), "has padding"),
    "size": (lambda c: module(c, "G_ema.synthesis.input").update(size=[10**6] * 2), "its input has size"),
    "rate": (lambda c: module(c, "G_ema.synthesis.input").update(bandwidth=8.0), "expected over twice the bandwidth"),
    "filter": (lambda c: set_tensor(c, "G_ema.synthesis.L1_36_16.up_filter", None), "its filters are missing"),
    "resolution": (lambda c: module(c, "G_ema.synthesis").update(img_resolution=-1), "images of -1 pixels"),
    "another resolution": (
        lambda c: module(c, "G_ema.synthesis").update(img_resolution=17),
        "its layers make 16×16 pixels; expected its img_resolution, 17",
    ),
    "a truth value": (lambda c: module(c, "G_ema.synthesis").update(img_resolution=True), "images of True pixels"),
    "scale": (lambda c: module(c, "G_ema.synthesis").update(output_scale=2**1024 - 1), "expected a positive number"),
    "cut away": (
        lambda c: module(c, "G_ema.synthesis.L1_36_16").update(padding=[-600] * 4),
        "its layers do not fit each other",
    ),
    "grown": (
        lambda c: [
            module(c, f"G_ema.synthesis.{name}").update(up_factor=8, down_factor=1, padding=[1000] * 4)
            for name in module(c, "G_ema.synthesis")["_modules"]
            if name[:2] in ("L0", "L1", "L2", "L3")
        ],
        "pixels, over 8192",
    ),
    "kernel": (
        lambda c: set_tensor(c, "G_ema.synthesis.L1_36_16.weight", torch.ones(16, 16, 0, 0)),
        "its layers make 13×13 pixels",
    ),
}


@pytest.mark.parametrize("name", STYLEGAN3)
def test_a_stylegan3_that_does_not_fit_says_why(
    name: str, tmp_path: Path, imports: Callable[..., tuple[int, str, str]]
) -> None:
    change, message = STYLEGAN3[name]
    code, _, error = imports(pickled(tmp_path / "a", change, "stylegan3-t-16"))
    assert code == 2 and message in error and error.count("\n") == 1


def rosinality(path: Path, latent_avg: bool = True, prefix: str = "", dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint of a tiny network, made by the exporter; returns the folder of the networks."""
    g, d = tiny(clamp=None)
    folder = path.parent / "ours"
    network_files.save_network(g, folder / "generator.safetensors")
    network_files.save_network(d, folder / "discriminator.safetensors")
    words = [str(folder / f"{name}.safetensors") for name in ("generator", "discriminator")]
    assert main(["export-weights", *words, str(path)]) == 0
    content = torch.load(path, weights_only=True)
    for name in ("g", "g_ema", "d"):
        content[name] = {f"{prefix}{key}": value.to(dtype) for key, value in content[name].items()}
    if not latent_avg:
        del content["latent_avg"]
    torch.save({**content, "args": argparse.Namespace(size=16), "g_optim": {}}, path)
    return folder


def test_stylegan2_is_exported_and_read_back_bit_for_bit(
    tmp_path: Path, imports: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rosinality(tmp_path / "a.pt")
    said = capsys.readouterr().out
    assert "a.pt: g, g_ema, latent_avg, d" in said
    assert "rosinality's stylegan2-pytorch: its feature maps are min(128 / resolution, 8)" in said
    code, said, _ = imports(str(tmp_path / "a.pt"))
    assert code == 0 and "averaged weights of a.pt (rosinality, g_ema)" in said and "latent_avg" not in said
    for name in ("generator.safetensors", "discriminator.safetensors"):
        assert_same(network_state(folder / name), network_state(tmp_path / "out" / name))
        told = [network_files.read_metadata(f / name) for f in (folder, tmp_path / "out")]
        assert told[0]["arguments"] == told[1]["arguments"]
    state = torch.load(tmp_path / "a.pt", weights_only=False)["g_ema"]
    assert state["convs.0.conv.weight"].shape == (1, 8, 8, 3, 3) and state["to_rgbs.0.bias"].shape == (1, 3, 1, 1)
    torch.testing.assert_close(state["convs.0.conv.blur.kernel"].sum(), torch.tensor(4.0))


def test_wrapped_half_precision_checkpoints_without_a_mean_style(
    tmp_path: Path, imports: Callable[..., tuple[int, str, str]]
) -> None:
    folder = rosinality(tmp_path / "a.pt", latent_avg=False, prefix="module._orig_mod.", dtype=torch.float16)
    code, said, _ = imports(str(tmp_path / "a.pt"), "--raw")
    assert code == 0 and "the file has no latent_avg: w_avg is the mean of 10,000 latents" in said
    assert "averaged" not in said and "(rosinality, g)" in said
    generator = network_files.load_generator(tmp_path / "out" / "generator.safetensors")
    before = network_state(folder / "generator.safetensors")
    key = "synthesis.block8.layer0.weight"
    assert torch.equal(generator.state_dict()[key], before[key].half().float())
    with torch.no_grad():
        mean = generator.map(torch.randn(20000, 8)).values.mean(dim=0)
    torch.testing.assert_close(generator.w_avg, mean, atol=0.05, rtol=0)


@pytest.mark.parametrize(("base", "maximum"), [(100, 100), (100, 9), (2047, 7), (16, 1), (77, 19)])
def test_odd_feature_maps_are_exported_and_read_back(
    tmp_path: Path, imports: Callable[..., tuple[int, str, str]], base: int, maximum: int
) -> None:
    sizes: dict[str, Any] = {"resolution": 16, "channel_base": base, "channel_max": maximum, "conv_clamp": None}
    paths = [tmp_path / f"{name}.safetensors" for name in ("generator", "discriminator")]
    networks = Generator(**sizes, z_dim=6, w_dim=10, mapping_layers=3), Discriminator(**sizes)
    for network, path in zip(networks, paths, strict=True):
        network_files.save_network(network, path)
    assert main(["export-weights", *map(str, paths), str(tmp_path / "a.pt")]) == 0
    assert imports(str(tmp_path / "a.pt"))[0] == 0
    for network, path in zip(networks, paths, strict=True):
        again = network_files.load_network(tmp_path / "out" / path.name)
        assert type(again) is type(network)
        assert_same(network.state_dict(), again.state_dict())


@pytest.mark.parametrize(
    ("resolution", "base", "maximum", "fits"),
    [
        (256, 16384, 512, True),
        (256, 32768, 512, True),
        (256, 49152, 512, False),  # its table has 768 feature maps at 64×64
        (256, 49152, 768, False),  # and 512 up to 32×32
        (256, 8192, 512, False),
        (32, 16384, 512, True),
        (32, 20000, 512, True),
        (32, 8192, 512, False),
        (8, 16384, 256, False),
    ],
)
def test_what_rosinalitys_code_would_have_to_change(resolution: int, base: int, maximum: int, fits: bool) -> None:
    with torch.device("meta"):
        sizes: dict[str, Any] = {"resolution": resolution, "channel_base": base, "channel_max": maximum}
        for network in (Generator(**sizes, conv_clamp=None), Discriminator(**sizes, conv_clamp=None)):
            assert any("the table of channels" in said for said in what_differs(network)) is not fits


def test_labels_have_no_place_in_rosinalitys_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    g, _ = tiny(c_dim=2)
    network_files.save_network(g, tmp_path / "g.safetensors")
    assert main(["export-weights", str(tmp_path / "g.safetensors"), str(tmp_path / "out.pt")]) == 2
    assert "takes 2 label values, for which rosinality's layout has no place" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


def test_families_are_not_mixed(tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    network_files.save_network(tiny()[0], tmp_path / "g.safetensors")
    assert main(["export-weights", str(tmp_path / "g.safetensors"), str(weights[1]), str(tmp_path / "out.pt")]) == 2
    assert "is of kind stylegan2, " in capsys.readouterr().err


def test_files_of_our_own_and_labels(tmp_path: Path, imports: Callable[..., tuple[int, str, str]]) -> None:
    g, d = tiny()
    network_files.save_network(g, tmp_path / "any.name")
    code, said, _ = imports(str(tmp_path / "any.name"), "--add-labels", "3")
    assert code == 0 and "generator, stylegan2, 16×16, 3 label values, weights of any.name (ohlora)" in said
    labelled = network_files.load_generator(tmp_path / "out" / "generator.safetensors")
    assert isinstance(labelled, Generator) and labelled.c_dim == 3
    z = torch.randn(2, 8)
    torch.testing.assert_close(labelled(z, torch.randn(2, 3)), g(z), atol=1e-5, rtol=1e-5)
    (tmp_path / "bare.yaml").write_text("attributes: {}")
    code, _, wrong = imports(str(tmp_path / "any.name"), "--world", str(tmp_path / "bare.yaml"), "--add-labels")
    assert code == 2 and "bare.yaml declares no label; say how many, or leave it out" in wrong
    network_files.save_network(d, tmp_path / "d")
    assert imports(str(tmp_path / "d"))[0] == 0
    assert isinstance(network_files.load_discriminator(tmp_path / "out" / "discriminator.safetensors"), Discriminator)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("convs.0.conv1.0.weight", (8, 8, 3, 3), "unexpected convs.0.conv1.0.weight"),
        ("convs.9.conv1.0.weight", (8, 8, 3, 3), "has layers for images of impossible sizes; expected 4×4, 8×8"),
        ("a\nb\x1b[31m", (1,), "unexpected a b [31m"),
    ],
)
def test_a_damaged_discriminator_is_told_in_one_line(
    tmp_path: Path, imports: Callable[..., tuple[int, str, str]], key: str, shape: tuple[int, ...], message: str
) -> None:
    rosinality(tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=False)
    content["d"][key] = torch.ones(shape)
    torch.save(content, tmp_path / "a.pt")
    code, said, _ = imports(str(tmp_path / "a.pt"))
    assert code == 0 and f"the discriminator is left out: d in {tmp_path}" in said and message in said
    assert all(line.isprintable() for line in said.splitlines())
    torch.save({"d": content["d"]}, tmp_path / "d.pt")
    code, _, error = imports(str(tmp_path / "d.pt"))
    assert code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seed", "-1"), "seed is -1; expected 0 to"),
        (("--seed", str(2**64)), "expected 0 to 2⁶³ − 1"),
        (("--add-labels", "100000000"), "cannot add 100000000 label values"),
        (("--add-labels", str(10**20)), "expected 1 to 65536 and a network without labels"),
    ],
)
def test_slips_are_refused(
    tmp_path: Path, imports: Callable[..., tuple[int, str, str]], words: tuple[str, ...], message: str
) -> None:
    network_files.save_network(tiny()[0], tmp_path / "g")
    code, _, error = imports(str(tmp_path / "g"), *words)
    assert code == 2 and message in error and error.count("\n") == 1


def test_pages_and_pointers_say_what_to_do(tmp_path: Path, imports: Callable[..., tuple[int, str, str]]) -> None:
    path = tmp_path / "ffhq.pkl"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    code, _, error = imports(str(path))
    assert code == 2 and error.startswith("ohlora import-weights: ") and "run git lfs pull" in error

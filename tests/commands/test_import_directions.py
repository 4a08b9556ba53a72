"""InterFaceGAN's boundaries by the command line; the original's folder is tested with the characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.__main__ import main
from ohlora.formats import network_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes, Space
from tests.networks.test_stylegan2 import tiny


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    path = tmp_path / "generator.safetensors"
    network_files.save_network(tiny()[0], path)
    return path


def boundary(path: Path, seed: int, size: int = 8) -> np.ndarray:
    """A unit vector, written as InterFaceGAN does."""
    normal = np.random.default_rng(seed).standard_normal((1, size)).astype(np.float32)
    normal /= np.linalg.norm(normal)
    np.save(path, normal)
    first: np.ndarray = normal[0]
    return first


def test_boundaries_in_w(tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("stylegan_ffhq_age_w_boundary", "stylegan_ffhq_Smile_w_boundary")
    paths = [tmp_path / f"{name}.npy" for name in names]
    normals = [boundary(path, k) for k, path in enumerate(paths)]
    target = tmp_path / "directions.safetensors"
    words = [*map(str, paths), str(target), "--space", "w", "--generator", str(generator)]
    assert main(["import-directions", *words]) == 0
    assert "age, smile, upwards; a unit of strength is one unit of length in W" in capsys.readouterr().out
    found = load_directions(target)
    assert found.attributes == ("age", "smile") and found.space is Space.W and found.groups.names == ("all",)
    np.testing.assert_allclose((found.vectors * found.units[..., None])[0].numpy(), normals, rtol=1e-5)
    assert found.provenance["space"] == "w" and found.provenance["generator"] == network_files.fingerprint(generator)


def test_boundaries_in_z_take_their_mean_change_of_w(
    tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normal = torch.from_numpy(boundary(tmp_path / "pose_boundary.npy", 1))
    target = tmp_path / "directions.safetensors"
    words = [str(tmp_path / "pose_boundary.npy"), str(target), "--space", "z", "--generator", str(generator)]
    assert main(["import-directions", *words, "--attributes", "yaw"]) == 0
    said = capsys.readouterr().out
    assert "yaw: one direction in W stands for the one in Z" in said
    network, found = network_files.load_generator(generator), load_directions(target)
    z = torch.randn(5000, 8)
    with torch.no_grad():
        changes = (network.map(z + normal).values - network.map(z - normal).values) / 2
        step = (found.vectors * found.units[..., None])[0, 0]
        torch.testing.assert_close(step, changes.mean(dim=0), atol=0.1 * float(step.norm()), rtol=0)
        cosine = float(torch.cosine_similarity(changes, step[None]).mean())
    assert 0 < cosine < 1 and abs(float(said.split("mean cosine of ")[1]) - cosine) < 0.05
    network.synthesize(Codes(network.map(z[:1]).values + step, Space.W))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a_boundary.npy"], "is a file and taken for a boundary, which needs --generator and --space"),
        (["a_boundary.npy", "--space", "w", "G", "--medians", "m.csv"], "and no --medians"),
        (["long_boundary.npy", "--space", "w", "G"], "is a direction of 9 numbers; expected 8"),
        (["w_boundary.npy", "--space", "w", "G"], "tells no attribute; say which with --attributes"),
        (["a_boundary.npy", "--space", "w", "G", "--attributes", "a", "b"], "1 boundaries for a, b; expected one each"),
        ([".", "--space", "w"], "a folder of the original's is imported alone"),
        (["none", "--space", "w"], "none does not exist"),
    ],
)
def test_what_does_not_fit(
    words: list[str], message: str, tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("a", 8), ("long", 9), ("w", 8)):
        boundary(tmp_path / f"{name}_boundary.npy", 0, size)
    source, *rest = [
        str(tmp_path / words[0]),
        *(f"--generator={generator}" if word == "G" else word for word in words[1:]),
    ]
    assert main(["import-directions", source, str(tmp_path / "out.safetensors"), *rest]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()

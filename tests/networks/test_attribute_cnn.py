"""Attribute networks: agreement with the reference, named instances, ensembles and merging."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.attributes import Crop, recipe
from ohlora.formats import foreign, network_files
from ohlora.networks.attribute_cnn import (
    PUBLISHED_FILTERS,
    AttributeCNN,
    AttributeEnsemble,
    Branch,
    attribute_cnn,
    cut,
    merge,
)
from tests import golden
from tests.conftest import assert_same


def original(case: str, shapes: dict[str, list[int]], path: Path) -> Path:
    """Writes a state dict of the original's CNNs, rebuilt from seeds as for the golden values."""
    state = {}
    for key, shape in shapes.items():
        r = np.random.default_rng(zlib.crc32(f"{case}/{key}".encode())).standard_normal(shape)
        scale = 0.01 if key.endswith("bias") else 1 / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(r * scale, dtype=np.float32))
    torch.save(state, path)
    return path


def read(path: Path) -> AttributeCNN:
    (network,) = foreign.read_foreign(path).networks.values()
    assert isinstance(network, AttributeCNN)
    return network


def shapes(case: str) -> dict[str, list[int]]:
    content: dict[str, list[int]] = golden.manifest(case)  # type: ignore[assignment]
    return content


def close(computed: Tensor, expected: np.ndarray) -> None:
    difference = np.abs(computed.detach().numpy() - expected).max()
    assert difference <= 1e-4 * np.abs(expected).max()


def test_the_merged_cnn_agrees_with_the_reference(tmp_path: Path) -> None:
    network = read(original("property-cnn", shapes("property-cnn"), tmp_path / "merged.pth"))
    (x,) = golden.normal(31, (3, 3, 256, 256))
    scores = dict(zip(network.outputs, network(torch.tanh(x)).unbind(dim=1), strict=True))
    # The reference's column 4 is called pose, but measures the slope of the line through the eyes.
    names = ["roll" if name == "pose" else name for name in (*recipe().names("label"), "hairstyle")]
    close(torch.stack([scores[name] for name in names], dim=1), golden.values("property-cnn")["scores"])


@pytest.mark.parametrize(("name", "seed"), list(zip(PUBLISHED_FILTERS, (51, 52, 53, 54), strict=True)))
def test_filters_agree_with_the_reference(name: str, seed: int, tmp_path: Path) -> None:
    manifest = golden.manifest("filter-cnns")[name]
    network = read(original(f"{name}-cnn", manifest, tmp_path / "filter.pt"))
    (x,) = golden.normal(seed, (3, 3, 256, 256))
    assert network.outputs == (name,)
    expected = golden.values("filter-cnns")[name]
    close(network(torch.sigmoid(x) * 2 - 1).reshape(expected.shape), expected)


def test_property_and_hairstyle_files_make_the_merged_one(tmp_path: Path) -> None:
    every = shapes("property-cnn")
    whole = read(original("property-cnn", every, tmp_path / "merged.pth"))
    state = torch.load(tmp_path / "merged.pth", weights_only=True)
    hair = {key.removeprefix("hairstyle_score_cnn."): v for key, v in state.items() if key.startswith("hairstyle")}
    torch.save(hair, tmp_path / "hairstyle.pth")
    torch.save({k: v for k, v in state.items() if not k.startswith("hairstyle")}, tmp_path / "property.pth")
    merged = merge([read(tmp_path / "property.pth"), read(tmp_path / "hairstyle.pth")])
    assert merged.outputs == whole.outputs and merged.arguments() == whole.arguments()
    assert_same(merged.state_dict(), whole.state_dict())
    with pytest.raises(ValueError, match="each once"):
        merge([whole, read(tmp_path / "hairstyle.pth")])


@pytest.mark.parametrize(
    ("name", "count"),
    [("gender", 5845697), ("quality", 6828481), ("age", 7418561), ("glass", 3682753), ("merged", 20122184)],
)
def test_the_original_plans_have_the_original_sizes(name: str, count: int) -> None:
    assert sum(p.numel() for p in attribute_cnn(name).parameters()) == count


def test_a_branch_depends_on_its_windows_alone() -> None:
    network = attribute_cnn("glass", "small", 64).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    moved = images.clone()
    moved[:, :, 40:] = 0  # below the eyes
    assert torch.equal(network(images), network(moved))
    moved[:, :, 22:30, 20:40] = 0
    assert not torch.equal(network(images), network(moved))
    assert cut(images, Crop(1 / 2, 1, 0, 3 / 8)).shape == (2, 3, 32, 24)


def test_an_ensemble_is_the_mean_of_its_members(tmp_path: Path) -> None:
    torch.manual_seed(0)
    members = [attribute_cnn("quality", "small", 64).eval() for _ in range(3)]
    ensemble = AttributeEnsemble.of(members)
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    expected = torch.stack([member(images) for member in members]).mean(dim=0)
    torch.testing.assert_close(ensemble(images), expected)
    network_files.save_network(ensemble, tmp_path / "quality.safetensors")
    loaded = network_files.load_attributes(tmp_path / "quality.safetensors")
    assert isinstance(loaded, AttributeEnsemble) and loaded.outputs == ("quality",)
    torch.testing.assert_close(loaded(images), expected)
    with pytest.raises(ValueError, match="differ in nothing but weights"):
        AttributeEnsemble.of([members[0], attribute_cnn("glass", "small", 64)])


def test_outputs_are_named_in_the_file(tmp_path: Path) -> None:
    branch = Branch(("hairstyle",), (Crop(0.5, 1, 0, 1), Crop(0, 0.5, 0, 1)), "8/2 8/2", hidden=4)
    network = AttributeCNN([branch], 32)
    network_files.save_network(network, tmp_path / "n.safetensors")
    arguments = network_files.read_metadata(tmp_path / "n.safetensors")["arguments"]
    assert arguments["branches"][0]["outputs"] == ["hairstyle"]
    assert AttributeCNN(**arguments).specs == [branch]


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ([], "expected at least one"),
        ([Branch(("eyes",), (Crop(0, 1, 0, 1),), "8"), Branch(("eyes",), (Crop(0, 1, 0, 1),), "8")], "each once"),
        ([Branch(("train",), (Crop(0, 1, 0, 1),), "8")], "a branch cannot be called train"),
        ([Branch(("eyes",), (Crop(0, 1, 0, 1),), "8 pol")], "'pol' is neither 'pool' nor a width"),
        ([Branch(("eyes",), (Crop(0, 1 / 8, 0, 1),), "8 pool 8")], "leaves nothing of a window"),
    ],
)
def test_invalid_branches_are_refused(branches: list[Branch], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttributeCNN(branches, 32)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 3, 64, 64\)"):
        attribute_cnn("glass", "small", 64)(torch.zeros(1, 3, 32, 32))

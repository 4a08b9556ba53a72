"""Networks for features, from files of every sort."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ohlora.errors import ConfigError, FormatError, MissingArtifactError
from ohlora.evaluation.features import Penultimate
from ohlora.formats import network_files
from ohlora.formats.feature_files import FeatureNetwork
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.utils.images import resized
from tests.onnx_files import DOUBLE, FLOAT, write_network

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
MEANS = "tests.evaluation.networks.Means"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_file({"weight": torch.tensor([1.0, 2.0, 3.0])}, tmp_path / "means.safetensors")
    return str(tmp_path / "means.safetensors")


def test_an_attribute_cnn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = attribute_cnn("property", "small", 16).eval()
    network_files.save_network(network, tmp_path / "property.safetensors")
    features = FeatureNetwork(str(tmp_path / "property.safetensors")).load()
    assert isinstance(features, Penultimate) and torch.equal(features(IMAGES), network.features(IMAGES))


def test_a_network_of_the_users(weights: str) -> None:
    features = FeatureNetwork(weights, MEANS, {"channels": 3}, 8, (0, 0, 0), (1, 1, 1)).load()
    expected = (resized(IMAGES, 8).mean(dim=(2, 3)) + 1) / 2 * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(features(IMAGES), expected)


def test_its_module_may_lie_beside_the_file(weights: str) -> None:
    module = Path(weights).with_name("networks_beside.py")
    module.write_text("from tests.evaluation.networks import Means\n\n\nclass Own(Means):\n    pass\n")
    try:
        features = FeatureNetwork(weights, "networks_beside.Own", {"channels": 3}).load()
    finally:
        sys.modules.pop("networks_beside", None)
    assert features.num_features == 3 and str(module.parent) not in sys.path


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network_class": "nowhere.Means"}, "there is no module nowhere, installed or beside"),
        ({"network_class": "tests.evaluation.networks.Mean"}, "has no class Mean"),
        ({"network_class": "Means"}, "expected package.module.name"),
        ({"network_class": MEANS}, "TypeError: .*'channels'; look at network_args"),
        ({"network_class": "collections.OrderedDict"}, "makes a OrderedDict; expected a torch.nn.Module"),
        ({"network_class": MEANS, "network_args": {"channels": 4}}, "weight .3,. instead of .4,."),
        ({"network_class": MEANS, "network_args": {"channels": 3}, "resolution": 0}, "resolution is 0"),
        ({"network_class": MEANS, "network_args": {"channels": 3}, "std": (1, 0, 1)}, "std is .1, 0, 1."),
        ({"network_args": {"channels": 3}}, "expected network_class as well"),
        ({"resolution": 16}, "is to be a network of ohlora, which takes no resolution"),
        ({}, "not a network written by ohlora"),
    ],
)
def test_settings_that_cannot_be(weights: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, FormatError), match=said):
        FeatureNetwork(weights, **settings).load()


def test_a_network_that_takes_other_images(weights: str) -> None:
    save_file({"weight": torch.zeros(4, 5), "bias": torch.zeros(4)}, weights)
    given = FeatureNetwork(weights, "torch.nn.Linear", {"in_features": 5, "out_features": 4}, 16)
    with pytest.raises(ConfigError, match=r"tried with two images of 16×16: .*shapes.*Look at resolution"):
        given.load()


def test_a_missing_file() -> None:
    with pytest.raises(MissingArtifactError, match=r"nowhere\.onnx does not exist"):
        FeatureNetwork("nowhere.onnx").load()


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    file = write_network(tmp_path / "pooling.onnx", ("N", 3, 16, 16))
    with pytest.raises(ConfigError, match=r"needs onnxruntime, .*pip install 'ohlora\[onnx\]'"):
        FeatureNetwork(str(file)).load()


@pytest.mark.parametrize(
    ("sizes", "resolution"), [(("N", 3, 16, 16), None), ((1, 3, 16, 16), None), ((2, 3, "H", "W"), 16)]
)
def test_an_onnx_file(tmp_path: Path, sizes: tuple[int | str, ...], resolution: int | None) -> None:
    pytest.importorskip("onnxruntime")
    file = write_network(tmp_path / "pooling.onnx", sizes)
    features = FeatureNetwork(str(file), resolution=resolution, mean=(0, 0, 0), std=(1, 1, 1)).load()
    assert features.resolution == 16 and features.num_features == 3
    torch.testing.assert_close(features(IMAGES), (IMAGES.mean(dim=(2, 3)) + 1) / 2)
    larger = IMAGES.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(features(larger), features(resized(larger, 16)))


@pytest.mark.parametrize(
    ("sizes", "kind", "said"),
    [
        (("N", 16, 16, 3), FLOAT, r"takes images: tensor\(float\) \['N', 16, 16, 3\]; expected one input"),
        (("N", 3, 16, 8), FLOAT, "expected one input"),
        (("N", 3, 16, 16), DOUBLE, r"takes images: tensor\(double\)"),
    ],
)
def test_onnx_files_that_take_other_inputs(tmp_path: Path, sizes: tuple[int | str, ...], kind: int, said: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(FormatError, match=said):
        FeatureNetwork(str(write_network(tmp_path / "pooling.onnx", sizes, kind, "Identity"))).load()


def test_onnx_files_that_do_not_fit(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = write_network(tmp_path / "pooling.onnx", ("N", 3, 16, 16))
    with pytest.raises(ConfigError, match=r"resolution is 8, and .* takes 16"):
        FeatureNetwork(str(file), resolution=8).load()
    file.write_bytes(b"no model")
    with pytest.raises(FormatError, match="cannot be read as ONNX"):
        FeatureNetwork(str(file)).load()

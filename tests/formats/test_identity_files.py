"""Networks that recognise people, from files of every sort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ohlora.errors import ConfigError, DataError, MissingArtifactError
from ohlora.formats import network_files
from ohlora.formats.feature_files import FeatureNetwork
from ohlora.formats.identity_files import IdentityFile
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.utils import images
from ohlora.utils.files import write_rows
from ohlora.utils.images import resized
from tests.networks.test_identity import IMAGES, tiny
from tests.onnx_files import write_network

MEANS = "tests.evaluation.networks.Means"
CHANNELS = {"channels": 3}


@pytest.fixture
def own(tmp_path: Path) -> str:
    network_files.save_network(tiny(), tmp_path / "identity.safetensors")
    return str(tmp_path / "identity.safetensors")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_file({"weight": torch.tensor([1.0, 1.0, 1.0])}, tmp_path / "means.safetensors")
    return str(tmp_path / "means.safetensors")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Plain images in four hues, of several sizes: two of one hue are one person; one answer is wrong."""
    rng = np.random.default_rng(0)
    hues = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 30]])
    for k in range(16):
        size = 8 + k % 3
        picture = np.clip(hues[k % 4] + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
        images.save_png(np.broadcast_to(picture, (size, size, 3)).copy(), tmp_path / "faces" / f"{k}.png")
    rows: list[dict[str, Any]] = [
        {"path": f"faces/{j}.png", "other": f"faces/{k}.png", "same": int(j % 4 == k % 4)}
        for j in range(16)
        for k in range(j)
    ]
    rows[0]["same"] = 1 - rows[0]["same"]
    write_rows(tmp_path / "pairs.csv", rows)
    return tmp_path / "pairs.csv"


def test_our_own_network_has_its_calibration(own: str) -> None:
    identity = IdentityFile(own).identity()
    assert identity.measure == "same_person" and identity.differentiable
    expected = tiny().same_person(IMAGES[:1].expand(5, -1, -1, -1), IMAGES)
    torch.testing.assert_close(identity(IMAGES[:1], IMAGES), expected)
    larger = IMAGES.repeat_interleave(2, 2).repeat_interleave(2, 3)
    smaller = resized(larger, 16)
    assert torch.equal(identity(larger, larger.flip(0)), identity(smaller, smaller.flip(0)))


def test_its_embeddings_are_features_too(own: str) -> None:
    features = FeatureNetwork(own).load()
    assert features.num_features == 6 and torch.equal(features(IMAGES), tiny()(IMAGES))


def test_a_network_of_the_users(weights: str) -> None:
    plain = IdentityFile(weights, MEANS, CHANNELS, 8, (0, 0, 0), (1, 1, 1))
    assert plain.identity().measure == "cosine_similarity"
    means = torch.nn.functional.normalize((resized(IMAGES, 8).mean(dim=(2, 3)) + 1) / 2, dim=1)
    expected = means @ means[0]
    torch.testing.assert_close(plain.identity()(IMAGES[:1], IMAGES), expected)
    given = IdentityFile(weights, MEANS, CHANNELS, 8, (0, 0, 0), (1, 1, 1), threshold=0.9, scale=20).identity()
    torch.testing.assert_close(given(IMAGES[:1], IMAGES), torch.sigmoid(20 * (expected - 0.9)))
    edited = IMAGES.clone().requires_grad_()
    given(IMAGES[:1], edited).sum().backward()
    assert edited.grad is not None and edited.grad.abs().sum() > 0


def test_a_table_of_pairs_calibrates(weights: str, pairs: Path) -> None:
    identity = IdentityFile(weights, MEANS, CHANNELS, mean=(0, 0, 0), std=(1, 1, 1), pairs=str(pairs)).identity()
    red, red_too, green = (
        images.to_float(np.asarray(images.decode(pairs.parent / "faces" / f"{k}.png"))[None]) for k in (0, 12, 9)
    )
    assert float(identity.probability(red, red_too)) > 0.8 and float(identity.probability(red, green)) < 0.1


def test_an_onnx_file_can_only_judge(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = write_network(tmp_path / "pooling.onnx", ("N", 3, 16, 16))
    identity = IdentityFile(str(file), threshold=0.5, scale=10).identity()
    found = identity(IMAGES[:1], IMAGES)
    assert not identity.differentiable and found.shape == (5,) and 0 <= float(found.min()) <= float(found.max()) <= 1
    with pytest.raises(ConfigError, match="has no gradients: it can judge edits"):
        identity(IMAGES[:1], IMAGES.clone().requires_grad_())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 0.5}, "threshold is 0.5 and scale None; expected both, or neither"),
        ({"threshold": 1.5, "scale": 3}, "threshold is 1.5; expected -1 to 1"),
        ({"threshold": 0.5, "scale": 0}, "scale is 0; expected more than 0"),
        ({"threshold": 0.5, "scale": 3, "pairs": "pairs.csv"}, "expected one of them"),
    ],
)
def test_settings_that_cannot_be(weights: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        IdentityFile(weights, MEANS, CHANNELS, **settings)


def test_networks_that_do_not_fit(tmp_path: Path, own: str, weights: str) -> None:
    with pytest.raises(ConfigError, match="has its own calibration; leave threshold, scale and pairs out"):
        IdentityFile(own, threshold=0.5, scale=3).identity()
    network_files.save_network(attribute_cnn("property", "small", 16), tmp_path / "property.safetensors")
    with pytest.raises(ConfigError, match="holds a network that predicts attributes; expected one that embeds faces"):
        IdentityFile(str(tmp_path / "property.safetensors")).identity()
    with pytest.raises(MissingArtifactError, match=r"nowhere\.csv does not exist"):
        IdentityFile(weights, MEANS, CHANNELS, pairs="nowhere.csv").identity()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,other\nfaces/0.png,faces/1.png\n", "has no same; expected path, other, same"),
        ("path,other,same\n", "has no rows; expected path, other, same"),
        ("path,other,same\nfaces/0.png,faces/1.png,yes\n", "row 2: same is 'yes'; expected 1 for one person"),
        ("path,other,same\nfaces/0.png,faces/4.png,1\n", "same is 1 in all 1 rows; expected some of 0 and 1 each"),
        ("path,other,same\nfaces/0.png,faces/4.png,1\nfaces/0.png,gone.png,0\n", "gone.png"),
        ("path,other,same\nfaces/0.png,faces/4.png,0\nfaces/0.png,faces/1.png,1\n", "not more alike than others"),
        ("path,other,same\nfaces/0.png,faces/4.png,1\nfaces/0.png,wide.png,0\n", "has size 8×4; expected a square"),
    ],
)
def test_tables_of_pairs_that_tell_nothing(weights: str, pairs: Path, text: str, said: str) -> None:
    images.save_png(np.zeros((4, 8, 3), np.uint8), pairs.parent / "wide.png")
    pairs.write_text(text)
    with pytest.raises((DataError, MissingArtifactError), match=said):
        IdentityFile(weights, MEANS, CHANNELS, mean=(0, 0, 0), std=(1, 1, 1), pairs=str(pairs)).identity()

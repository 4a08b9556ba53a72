"""The identity network, its calibration and its loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ohlora.errors import FormatError, NonFiniteError
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.networks.identity import Calibration, IdentityNetwork
from ohlora.networks.losses import supervised_contrastive_loss

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tiny(seed: int = 0, calibrated: bool = True) -> IdentityNetwork:
    torch.manual_seed(seed)
    network = IdentityNetwork((8, 16), (2, 1), hidden=12, size=6, resolution=16).eval()
    if calibrated:
        network.calibration.load_state_dict(Calibration(8.0, -4.0).state_dict())
    return network


def test_patches_become_channels(tmp_path: Path) -> None:
    """A convolution of one pixel then sees what one of the patch's size does."""
    network = IdentityNetwork((8, 16), (1, 2), hidden=12, size=6, resolution=16, patch=4).eval()
    assert network(IMAGES).shape == (5, 6) and network.dense.in_features == 16 * 2 * 2
    unshuffle, convolution = network.convolutions[0], network.convolutions[1]
    assert isinstance(convolution, torch.nn.Conv2d)
    convolution.weight.data[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0.0
    kernel = convolution.weight.data[:, :, 1, 1].reshape(8, 3, 4, 4)
    torch.testing.assert_close(convolution(unshuffle(IMAGES)), torch.conv2d(IMAGES, kernel, stride=4))
    network.calibration.load_state_dict(Calibration(8.0, -4.0).state_dict())
    network_files.save_network(network, tmp_path / "identity.safetensors")
    assert torch.equal(network_files.load_identity(tmp_path / "identity.safetensors")(IMAGES), network(IMAGES))
    with pytest.raises(ValueError, match="patch is 3; expected a divisor of the resolution 16"):
        IdentityNetwork(resolution=16, patch=3)


def test_embeddings_are_unit_vectors_and_a_file_rebuilds_them(tmp_path: Path) -> None:
    network = tiny()
    found = network(IMAGES)
    assert found.shape == (5, 6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    network_files.save_network(network, tmp_path / "identity.safetensors")
    read = network_files.load_identity(tmp_path / "identity.safetensors")
    assert torch.equal(read(IMAGES), found) and read.arguments() == network.arguments()
    assert torch.equal(read.same_person(IMAGES, IMAGES.flip(0)), network.same_person(IMAGES, IMAGES.flip(0)))
    assert network_files.read_metadata(tmp_path / "identity.safetensors")["kind"] == "identity"


def test_the_same_image_is_the_same_person_by_the_calibration() -> None:
    network = tiny()
    expected = torch.sigmoid(torch.tensor(8.0 - 4.0))
    torch.testing.assert_close(network.same_person(IMAGES, IMAGES), expected.expand(5))
    similarity = F.cosine_similarity(network(IMAGES[:2]), network(IMAGES[2:4]))
    torch.testing.assert_close(network.same_person(IMAGES[:2], IMAGES[2:4]), torch.sigmoid(8 * similarity - 4))


def test_a_network_without_calibration_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"calibration\.(scale|bias) holds values that are not finite"):
        network_files.save_network(tiny(calibrated=False), tmp_path / "identity.safetensors")


def test_other_networks_are_refused(tmp_path: Path) -> None:
    network_files.save_network(attribute_cnn("property", "small", 16), tmp_path / "property.safetensors")
    with pytest.raises(FormatError, match="holds a attribute_cnn; expected an identity network"):
        network_files.load_identity(tmp_path / "property.safetensors")
    network_files.save_network(tiny(), tmp_path / "identity.safetensors")
    with pytest.raises(FormatError, match="holds a identity; expected a network that predicts attributes"):
        network_files.load_attributes(tmp_path / "identity.safetensors")


@pytest.mark.parametrize(
    ("widths", "strides", "said"),
    [
        ((8, 12), (2, 2), "widths are .8, 12.; expected one or more multiples of 8"),
        ((), (), "widths are ..; expected one or more"),
        ((8, 8), (2,), "strides are .2.; expected 1 or 2 for each of 2 widths"),
        ((8,), (3,), "strides are .3.; expected 1 or 2"),
    ],
)
def test_layers_that_cannot_be(widths: tuple[int, ...], strides: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IdentityNetwork(widths, strides)


def test_the_contrastive_loss_of_a_closed_case() -> None:
    """Two people, two pictures each, at right angles: each picture has one at similarity 1 and two at 0."""
    embeddings = torch.eye(2).repeat_interleave(2, dim=0).requires_grad_()
    person = torch.tensor([3, 3, 8, 8])
    expected = torch.log(torch.exp(torch.tensor(2.0)) + 2) - 2
    torch.testing.assert_close(supervised_contrastive_loss(embeddings, person, 0.5), expected)
    apart = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    fewer = torch.log(torch.exp(torch.tensor(2.0)) + 1) - 2
    loss = supervised_contrastive_loss(embeddings, person, 0.5, apart)
    torch.testing.assert_close(loss, (2 * expected + 2 * fewer) / 4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()


def test_pictures_of_a_person_attract_and_others_repel() -> None:
    torch.manual_seed(0)
    free = torch.randn(8, 4, requires_grad=True)
    person = torch.arange(4).repeat(2)
    optimizer = torch.optim.Adam([free], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        supervised_contrastive_loss(F.normalize(free, dim=1), person, 0.1).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    similarity = F.normalize(free, dim=1) @ F.normalize(free, dim=1).T
    same = person[:, None] == person
    assert similarity[same].min() > 0.9 > similarity[~same].max() + 0.5

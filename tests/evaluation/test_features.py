"""Features of images, from networks of several sorts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ohlora.evaluation.features import NetworkFeatures, Penultimate, RandomFeatures, set_distances
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.toy import drawing
from ohlora.utils.images import resized, to_float
from tests.evaluation.networks import Means


def drawn(first: int, count: int, rates: dict[str, float] | None = None) -> Tensor:
    truths = [drawing.sample_truth(0, k, rates) for k in range(first, first + count)]
    return torch.cat([to_float(drawing.draw(truth, 32).image[None]) for truth in truths])


def test_images_are_resized_for_the_network() -> None:
    torch.manual_seed(0)
    features = Penultimate(attribute_cnn("property", "small", 16))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(features(images), features(resized(images, 16)))
    assert resized(images, 32) is images
    # Means over a channel do not change when an image shrinks.
    torch.testing.assert_close(resized(images, 8).mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.02, rtol=0)


def test_pixels_are_scaled_as_the_network_wants_them() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None].expand(3, 3, 4, 4)
    assert NetworkFeatures(Means(3), 4)(images)[:, 0].tolist() == [-1, 0, 1]
    assert NetworkFeatures(Means(3), 4, mean=(0, 0, 0), std=(1, 1, 1))(images)[:, 0].tolist() == [0, 0.5, 1]
    seen = NetworkFeatures(Means(3), 4, (0.5, 0.25, 0), (0.5, 0.25, 0.125))(images)[2]
    assert seen.tolist() == pytest.approx([1, 3, 8])


def test_wide_outputs_are_projected_and_flattened() -> None:
    features = NetworkFeatures(nn.Identity(), 16)
    images = torch.rand(3, 3, 16, 16)
    assert features.num_features == 256 and features(images).shape == (3, 256)
    before = torch.pdist(images.flatten(1))
    after = torch.pdist(features(images)) * (768 / 256) ** 0.5
    torch.testing.assert_close(after, before, rtol=0.2, atol=0)


@pytest.mark.parametrize(
    ("network", "said"), [(nn.Flatten(0), r"a tensor \(384,\)"), (nn.MaxPool2d(2, return_indices=True), "tuple")]
)
def test_a_network_without_a_row_per_image_is_refused(network: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=f"makes {said} of two images; expected a tensor with a row for each"):
        NetworkFeatures(network, 8)


def test_random_features_tell_sets_of_images_apart() -> None:
    features = RandomFeatures(32)
    assert torch.equal(features(drawn(0, 2)), RandomFeatures(32)(drawn(0, 2)))
    real, other, narrow = features(drawn(0, 300)), features(drawn(300, 300)), features(drawn(0, 300, {"glass": 1.0}))
    blurred = features(resized(resized(drawn(300, 300), 8), 32))
    floor = set_distances(real, other)["frechet_distance"]
    assert set_distances(real, blurred)["frechet_distance"] > 3 * floor
    assert set_distances(real, narrow)["frechet_distance"] > 1.2 * floor

"""Measures of recognition, and the seam to networks that recognise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ohlora.errors import ConfigError
from ohlora.evaluation.features import NetworkFeatures
from ohlora.evaluation.identity import Identity, calibrated, equal_error_rate, measures
from ohlora.networks.identity import Calibration
from tests.evaluation.networks import Means
from tests.networks.test_identity import IMAGES, tiny


@pytest.mark.parametrize(
    ("same", "two", "rate"),
    [
        ([0.9, 0.8], [0.1, 0.2], 0.0),
        ([0.1, 0.2], [0.9, 0.8], 1.0),
        ([0.9, 0.3], [0.6, 0.1], 0.5),
        ([0.9, 0.8, 0.7, 0.3], [0.6, 0.2, 0.1, 0.0], 0.25),
        ([0.5, 0.5], [0.5, 0.5], 0.5),
        ([0.9, 0.8, 0.7, 0.2], [0.5, 0.1], 0.25),  # a line from (0, 0.25) on: it lies at a quarter throughout
    ],
)
def test_the_equal_error_rate_of_closed_cases(same: list[float], two: list[float], rate: float) -> None:
    scores, answers = np.array([*same, *two]), np.array([True] * len(same) + [False] * len(two))
    found, threshold = equal_error_rate(scores, answers)
    assert found == pytest.approx(rate)
    assert min(scores) <= threshold <= max(scores)


def test_the_equal_error_rate_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(2, 1, 20_000), rng.normal(0, 1, 40_000)])
    rate, threshold = equal_error_rate(scores, np.arange(60_000) < 20_000)
    assert rate == pytest.approx(0.1587, abs=0.004) and threshold == pytest.approx(1, abs=0.03)


def test_a_calibration_finds_the_probabilities_that_it_was_drawn_with() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.uniform(-0.2, 1, 40_000)
    probability = 1 / (1 + np.exp(-(20 * similarity - 14)))
    same = rng.random(40_000) < probability
    # As many of both, as the fit weighs them.
    balance = np.log(same.mean() / (1 - same.mean()))
    scale, bias = calibrated(similarity, same)
    assert scale == pytest.approx(20, rel=0.05) and bias == pytest.approx(-14 - balance, rel=0.05)
    assert calibrated(similarity, ~same)[0] < 0


def test_measures_by_what_is_compared() -> None:
    kinds = np.array(["same"] * 4 + ["others"] * 2 + ["skin"] * 2 + ["brows"])
    found = measures(np.array([0.9, 0.8, 0.7, 0.6, 0.1, 0.2, 0.5, 0.65, 0.95]), kinds)
    assert list(found) == ["all", "look_alikes", "others", "brows", "skin"]
    assert [found[name]["pairs"] for name in found] == [5, 3, 2, 1, 2]
    assert (found["others"]["eer"], found["others"]["auroc"]) == (0, 1)
    assert (found["brows"]["eer"], found["brows"]["auroc"]) == (1, 0)
    assert found["skin"]["auroc"] == pytest.approx(7 / 8)
    assert np.isnan(measures(np.ones(2), np.array(["same", "same"]))["all"]["eer"])


def test_our_own_network_gives_probabilities() -> None:
    network = tiny()
    identity = Identity(NetworkFeatures(network, 16), network.calibration)
    assert identity.measure == "same_person" and identity.differentiable
    found = identity.probability(IMAGES[:3], IMAGES[2:])
    torch.testing.assert_close(found, network.same_person(IMAGES[:3], IMAGES[2:]))
    torch.testing.assert_close(identity(IMAGES[:3], IMAGES[2:]), found)
    torch.testing.assert_close(identity.similarity(IMAGES[:1], IMAGES), (network(IMAGES[:1]) * network(IMAGES)).sum(1))


def test_gradients_reach_the_edited_images_and_not_the_network() -> None:
    network = tiny()
    edited = IMAGES[1:2].clone().requires_grad_()
    found = Identity(NetworkFeatures(network, 16), network.calibration).probability(IMAGES[:1], edited)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert edited.grad is not None and edited.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_is_lost_has_a_gradient_where_the_probability_has_none() -> None:
    """In parts of what is lost where the network is in doubt: here at a cosine similarity of 0.9."""
    identity = Identity(NetworkFeatures(tiny(), 16), Calibration(400.0, -360.0))
    one = torch.eye(6)[:1]
    angles = torch.tensor([1.0, 0.98, 0.9, 0.8]).acos().requires_grad_()
    other = torch.stack([angles.cos(), angles.sin(), *[torch.zeros(4)] * 4], dim=1)
    lost = identity.lost(one, other)
    torch.testing.assert_close(lost, torch.tensor([0.0, 0.2, 1.0, 2.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(identity.compared(one, other)[:3], torch.tensor([1.0, 1.0, 0.5]), atol=1e-3, rtol=0)
    lost.sum().backward()  # type: ignore[no-untyped-call]
    assert angles.grad is not None and (angles.grad[1:] > 1).all()
    plain = Identity(NetworkFeatures(tiny(), 16))
    torch.testing.assert_close(plain.lost(one, other).detach(), torch.tensor([0.0, 0.02, 0.1, 0.2]), atol=1e-5, rtol=0)
    blind = Identity(NetworkFeatures(tiny(), 16), Calibration(10.0, -11.0))  # in doubt even of the same image
    torch.testing.assert_close(blind.lost(one, other), plain.lost(one, other))


def test_wide_embeddings_are_compared_as_they_are() -> None:
    """Features are projected to 256 values; an identity is not."""
    features = NetworkFeatures(nn.Flatten(), 16)
    assert features.num_features == 256
    flat = torch.nn.functional.normalize(IMAGES.flatten(1), dim=1)
    torch.testing.assert_close(Identity(features).similarity(IMAGES[:1], IMAGES), flat @ flat[0])


def test_without_a_calibration_similarities_are_named_so() -> None:
    identity = Identity(NetworkFeatures(Means(3), 8))
    assert identity.measure == "cosine_similarity"
    torch.testing.assert_close(identity(IMAGES, IMAGES), torch.ones(5))
    with pytest.raises(ConfigError, match=r"no calibration, .*give its threshold and scale, or a table of pairs"):
        identity.probability(IMAGES, IMAGES)
    given = Identity(NetworkFeatures(Means(3), 8), Calibration(10.0, -9.0))
    torch.testing.assert_close(given(IMAGES, IMAGES), torch.sigmoid(torch.ones(5)))


def test_a_network_without_gradients_can_only_judge() -> None:
    network = Means(3)
    network.differentiable = False  # type: ignore[assignment]
    identity = Identity(NetworkFeatures(network, 8))
    assert not identity.differentiable and identity(IMAGES, IMAGES).shape == (5,)
    with pytest.raises(ConfigError, match="has no gradients: it can judge edits and not guide their search"):
        identity(IMAGES, IMAGES.clone().requires_grad_())

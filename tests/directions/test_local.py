"""Gradients of scores by style codes, and edits that depend on the latent."""

from __future__ import annotations

import pytest
import torch

from ohlora.directions.covariance import covariance_solved_by_layer
from ohlora.directions.edits import Latents, LocalBasis, added
from ohlora.directions.labels import LabelEdits
from ohlora.directions.local import LocalEdits
from ohlora.networks.attribute_cnn import AttributeCNN, attribute_cnn
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import score_gradients
from tests.conftest import tiny_networks

EDITED = ("eyes", "mouth", "pose")


def networks(c_dim: int = 0) -> tuple[Generator, AttributeCNN]:
    g, _ = tiny_networks(c_dim)
    torch.manual_seed(1)
    network = attribute_cnn("merged", "small", 16)
    return g.double().requires_grad_(False), network.double().eval().requires_grad_(False)


def test_gradients_are_those_of_small_changes() -> None:
    g, network = networks()
    w = torch.randn(3, g.num_ws, 8, dtype=torch.double) * 0.3
    codes = Codes(w, Space.W_BY_LAYER)
    scores, gradients = score_gradients(g, network, codes, [0, 4], batch_size=2)
    assert scores.shape == (3, 8) and gradients.shape == (3, 2, g.num_ws, 8)
    change = torch.randn(g.num_ws, 8, dtype=torch.double) * 1e-6

    def see(w: torch.Tensor) -> torch.Tensor:
        return network(g.synthesize(Codes(w, Space.W_BY_LAYER)).clamp(-1, 1))[:, [0, 4]]  # type: ignore[no-any-return]

    torch.testing.assert_close(scores[:, [0, 4]], see(w))
    measured = (see(w + change) - see(w - change)) / 2
    torch.testing.assert_close((gradients * change).sum(dim=(2, 3)), measured, rtol=1e-3, atol=1e-11)
    with torch.inference_mode():  # as within a test
        again = score_gradients(g, network, Codes(w.clone(), Space.W_BY_LAYER), [0, 4], batch_size=3)[1]
    torch.testing.assert_close(again, gradients)


def basis(g: Generator, network: AttributeCNN, share: float, rounds: int = 1) -> LocalBasis:
    torch.manual_seed(3)
    outputs = (*EDITED, "hairstyle")
    mean = torch.randn(4, g.num_ws, 8, dtype=torch.double)
    low, high = torch.tensor([-1.2, -1.8, -0.6]), torch.tensor([1.2, 1.8, 1.8])
    covariance = torch.eye(8, dtype=torch.double)
    scales = torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=torch.double)
    return LocalBasis(outputs, mean, covariance, scales, 3, rounds, share, low, high, 0)


def test_local_steps_lie_between_the_mean_and_the_latent_s_own() -> None:
    g, network = networks()
    w = Codes(torch.randn(4, 8, dtype=torch.double) * 0.3, Space.W)
    one = Codes(w.values[1:2], Space.W)
    shared = basis(g, network, 0.0)
    mean_steps = covariance_solved_by_layer(shared.gradients, shared.covariance, [0, 1, 2])
    found = LocalEdits(EDITED, shared, g, network).steps(w).values
    torch.testing.assert_close(found, mean_steps.expand(4, -1, -1, -1))
    own = basis(g, network, 1.0)
    edits = LocalEdits(EDITED, own, g, network)
    codes = added(one, edits._strengths(0), Codes(mean_steps[None], Space.W_BY_LAYER)).flat()
    places = [network.outputs.index(name) for name in own.outputs]
    gradients = score_gradients(g, network, codes, places)[1].mean(dim=0) / own.scales[:, None, None]
    expected = covariance_solved_by_layer(gradients, own.covariance, [0, 1, 2])
    torch.testing.assert_close(edits.steps(w).values[1], expected)
    # Whatever else is in the batch, and with a second round.
    twice = LocalEdits(EDITED, basis(g, network, 0.8, rounds=2), g, network, batch_size=5)
    torch.testing.assert_close(twice.steps(w).values[1:2], twice.steps(one).values)
    strengths = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -2.0]])
    moved = twice.codes(Latents(w.values, None, w), torch.zeros(4, dtype=torch.long), strengths)
    assert moved.space is Space.W_BY_LAYER and moved.values.shape == (4, 2, g.num_ws, 8)
    torch.testing.assert_close(moved.values[:, 0, 0], w.values)


def test_label_edits_move_the_labels() -> None:
    g, _ = networks(c_dim=2)
    z, label = torch.randn(3, 8, dtype=torch.double), torch.randn(3, 2, dtype=torch.double)
    latents = Latents(z, label, g.map(z, label))
    edits = LabelEdits(("mouth",), g, ("eyes", "mouth"))
    codes = edits.codes(latents, torch.zeros(3, dtype=torch.long), torch.tensor([[0.0], [1.5]]))
    torch.testing.assert_close(codes.values[:, 0], latents.codes.values)
    torch.testing.assert_close(codes.values[:, 1], g.map(z, label + torch.tensor([0.0, 1.5])).values)
    with pytest.raises(ValueError, match="no labels to move"):
        edits.codes(Latents(z, None, Codes(z, Space.W)), torch.zeros(3, dtype=torch.long), torch.tensor([[0.0]]))

"""Score matching: scores of generated images come to be distributed as those of real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.networks.score_matching import ScoreMatching


def matching(real: Tensor, recent: int = 512) -> ScoreMatching:
    """Compares with real images of which only the scores are known."""
    network = attribute_cnn(["eyes", "mouth"], "small", 16)
    part = ScoreMatching(network, recent)
    part.real = real
    return part


def distance(part: ScoreMatching, scores: Tensor, step: int = 0) -> Tensor:
    found: Tensor = part(scores, scores.detach(), np.random.default_rng(step))
    return found


@pytest.fixture
def real() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(500, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])


def test_it_is_that_of_optimal_transport(real: Tensor) -> None:
    part = matching(real)
    same = part._standardised(real)[torch.randperm(len(real))]
    assert float(distance(part, same)) < 1e-10  # whatever their order
    moved = distance(matching(real), same + torch.tensor([0.5, 0.0]))
    # Along the attributes 0.5 and 0, along two random directions at right angles 0.5 in all; half a square each.
    assert float(moved) == pytest.approx(0.5 * (0.5**2 + 0.5**2) / 4, rel=1e-4)


def test_what_is_far_outside_pulls_no_harder(real: Tensor) -> None:
    scores = torch.tensor([[0.0, 0.0], [40.0, 0.0]], requires_grad=True)
    nearer = torch.tensor([[0.0, 0.0], [20.0, 0.0]], requires_grad=True)
    for given in (scores, nearer):
        distance(matching(real), given).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None and nearer.grad is not None
    torch.testing.assert_close(scores.grad, nearer.grad)
    assert float(scores.grad[1, 0]) > 0


@pytest.mark.parametrize("start", [0.1, 3.0])
def test_scores_come_to_vary_as_in_the_data(real: Tensor, start: float) -> None:
    """Batches of eight, of a generator that makes z, scaled and mixed."""
    part = matching(real, recent=64)
    mixing = (start * torch.eye(2)).requires_grad_()
    centre = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([mixing, centre], lr=0.01)
    found = []
    for step in range(1000):
        optimizer.zero_grad()
        distance(part, torch.randn(8, 2) @ mixing + centre, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step >= 500:
            found.append(torch.cat([(mixing.T @ mixing).flatten(), centre]).detach())
    wanted = torch.cat([torch.cov(part._standardised(real).T).flatten(), torch.zeros(2)])
    torch.testing.assert_close(torch.stack(found).mean(dim=0), wanted, atol=0.12, rtol=0)


def test_scores_of_recent_images_are_kept_in_turn(real: Tensor) -> None:
    part = matching(real, recent=6)
    for k in range(4):
        distance(part, torch.full((4, 2), float(k)))
    assert part.kept[:, 0].tolist() == [3, 3, 3, 3, 2, 2] and int(part.count) == 16
    assert set(part.state_dict()) == {"real", "kept", "count"}


def test_images_of_another_size_are_scored(real: Tensor) -> None:
    part = matching(torch.empty(0, 2))
    part.look_at([torch.rand(3, 3, 16, 16), torch.rand(2, 3, 16, 16)])
    assert part.real.shape == (5, 2)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    part.scores(images).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and images.grad.abs().sum() > 0

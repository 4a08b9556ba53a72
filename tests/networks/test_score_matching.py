"""Score matching: scores of generated images come to be distributed as those of real ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.networks.score_matching import ScoreMatching
from ohlora.utils.images import resized


def matching(real: Tensor, scores: int = 2) -> ScoreMatching:
    """Compares with real images of which only scores, and perhaps components, are known."""
    part = ScoreMatching([attribute_cnn(["eyes", "mouth", "pose"][:scores], "small", 16)])
    part.real = real
    return part


def distance(part: ScoreMatching, scores: Tensor) -> Tensor:
    found: Tensor = part(scores, scores.detach())
    return found


@pytest.fixture
def real() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(500, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])


def test_it_is_the_energy_distance(real: Tensor) -> None:
    part = matching(real)
    scores = torch.randn(7, 2)
    y = part._standardised(real)
    expected = 0.0
    for columns in ([0], [1], [0, 1]):
        a, b = scores[:, columns], y[:, columns]
        among = torch.cdist(a, a).sum() / (7 * 6)
        of_real = torch.cdist(b, b).sum() / (len(b) * (len(b) - 1))
        weight = 0.5 if len(columns) == 1 else 2**-0.5
        expected += weight * float(2 * torch.cdist(a, b).mean() - among - of_real)
    assert float(distance(part, scores)) == pytest.approx(expected, rel=1e-4)


def test_processes_share_it(real: Tensor) -> None:
    """The mean over two halves, which each see the scores of both, has the gradients of the whole."""
    part, scores = matching(real), torch.randn(6, 2, requires_grad=True)
    distance(part, scores).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    whole, scores.grad = scores.grad, None
    halves = [part(half, scores.detach()) for half in scores.chunk(2)]
    torch.stack(halves).mean().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(scores.grad, whole)


def test_what_is_far_outside_pulls_no_harder(real: Tensor) -> None:
    grads = []
    for far in (20.0, 40.0):
        scores = torch.tensor([[0.0, 0.0], [far, 0.0]], requires_grad=True)
        distance(matching(real), scores).backward()  # type: ignore[no-untyped-call]
        assert scores.grad is not None
        grads.append(scores.grad)
    torch.testing.assert_close(*grads, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("start", [0.1, 3.0])
def test_scores_come_to_vary_as_in_the_data(real: Tensor, start: float) -> None:
    """Batches of eight, of a generator that makes z, scaled and mixed."""
    part = matching(real)
    mixing = (start * torch.eye(2)).requires_grad_()
    centre = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([mixing, centre], lr=0.01)
    found = []
    for step in range(1000):
        optimizer.zero_grad()
        distance(part, torch.randn(8, 2) @ mixing + centre).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step >= 500:
            found.append(torch.cat([(mixing.T @ mixing).flatten(), centre]).detach())
    wanted = torch.cat([torch.cov(part._standardised(real).T).flatten(), torch.zeros(2)])
    torch.testing.assert_close(torch.stack(found).mean(dim=0), wanted, atol=0.12, rtol=0)


def test_components_are_matched_like_scores(real: Tensor) -> None:
    """Each group of columns has a distance of its own, and the two are added."""
    both, scores = torch.cat([real, real.flip(0), real[:, :1]], dim=1), torch.randn(7, 5)
    parts = [distance(matching(real), scores[:, :2]), distance(matching(both[:, 2:], 3), scores[:, 2:])]
    torch.testing.assert_close(distance(matching(both), scores), torch.stack(parts).sum())


def test_images_of_another_size_are_scored() -> None:
    part = matching(torch.empty(0, 2))
    assert not part.state_dict()  # looked at anew at each start
    reals = torch.rand(60, 3, 16, 16)
    part.look_at(torch.split(reals, 25))
    assert part.real.shape == (60, 2 + part.axes.shape[1]) and 8 < part.axes.shape[1] <= 48
    columns = part._standardised(part.real)[:, 2:]
    torch.testing.assert_close(torch.cov(columns.T, correction=0), torch.eye(columns.shape[1]), atol=2e-2, rtol=0)
    torch.testing.assert_close(part.scores(reals), part._standardised(part.real), atol=1e-2, rtol=1e-3)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    part.scores(images).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and images.grad.abs().sum() > 0
    alone = ScoreMatching([attribute_cnn(["eyes", "mouth"], "small", 16)], components=0)
    alone.look_at([reals])
    assert alone.real.shape == (60, 2) and alone.scores(reals).shape == (60, 2)


def test_filters_are_matched_as_logits_beside_the_scores() -> None:
    torch.manual_seed(0)
    scores, gender = attribute_cnn(["eyes", "mouth"], "small", 16), attribute_cnn(["gender"], "small", 32)
    filters = AttributeEnsemble.of([gender, attribute_cnn(["gender"], "small", 32)])
    part, reals = ScoreMatching([scores, filters]), torch.rand(60, 3, 16, 16)
    part.look_at([reals])
    assert part.real.shape == (60, 3 + part.axes.shape[1]) and len(part.axes) == 2 * scores.specs[0].hidden
    wanted = torch.stack([member.logits(resized(reals, 32)) for member in filters.eval().members]).mean(dim=0)  # type: ignore[operator]
    torch.testing.assert_close(part.real[:, 2:3], wanted)
    torch.testing.assert_close(part.real[:, :2], scores.eval()(reals))
    with torch.no_grad():  # an image far from the concept, where a sigmoid is flat
        for member in filters.members:
            member.branches["gender"].score.bias.add_(-50)  # type: ignore[index, union-attr]
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    of_images = part.scores(images)
    of_images[:, 2].sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and images.grad.abs().sum() > 1e-3
    alone = ScoreMatching([filters])
    alone.look_at([reals])
    assert alone.real.shape == (60, 1) and alone.axes.shape == (0, 0)

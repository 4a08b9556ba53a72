"""Losses of GAN training on closed cases."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ohlora.networks.losses import Logistic, Relativistic, gradient_penalties

FAKE, REAL = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([0.0, 3.0, -3.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean(*values: float) -> Tensor:
    return torch.tensor(values).mean()


def unused() -> Tensor:
    raise AssertionError("the logistic loss of the generator asks for no real scores")


def test_the_logistic_loss_takes_every_image_by_itself() -> None:
    loss = Logistic()
    of_fake = mean(softplus(0), softplus(1), softplus(-2))
    torch.testing.assert_close(loss.rejection(FAKE, REAL), of_fake)
    of_real = mean(softplus(0), softplus(-3), softplus(3))
    torch.testing.assert_close(loss.discriminator(FAKE, REAL), of_fake + of_real)
    torch.testing.assert_close(loss.generator(FAKE, unused), mean(softplus(0), softplus(-1), softplus(2)))
    assert loss.signs(FAKE, REAL).tolist() == [0, 1, -1]


def test_the_relativistic_loss_takes_pairs() -> None:
    loss = Relativistic()
    torch.testing.assert_close(loss.discriminator(FAKE, REAL), mean(softplus(0), softplus(-2), softplus(1)))
    torch.testing.assert_close(loss.generator(FAKE, lambda: REAL), mean(softplus(0), softplus(2), softplus(-1)))
    assert loss.signs(FAKE, REAL).tolist() == [0, 1, -1]
    for offset in (-5.0, 5.0):
        same = loss.discriminator(FAKE + offset, REAL + offset)
        torch.testing.assert_close(same, loss.discriminator(FAKE, REAL))
        assert torch.equal(loss.signs(FAKE + offset, REAL + offset), loss.signs(FAKE, REAL))


def test_gradient_penalties_are_of_each_image() -> None:
    images = torch.randn(3, 3, 4, 4, requires_grad=True)
    factor = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    penalties = gradient_penalties(factor * images.square().sum(dim=(1, 2, 3)) / 2, images)
    norms = images.detach().square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(penalties, torch.tensor([0.0, 1.0, 4.0]) * norms)
    (slope,) = torch.autograd.grad(penalties.sum(), factor)
    torch.testing.assert_close(slope, 2 * factor.detach() * norms)

"""Losses of training, as functions of scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_scores: Tensor) -> Tensor:
    """Non-saturating logistic loss (Goodfellow et al., 2014): mean softplus(−D(fake)); scores (N,) → scalar."""
    return F.softplus(-fake_scores).mean()


def discriminator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    """Logistic loss: mean softplus(D(fake)) + mean softplus(−D(real)); scores (N,) → scalar."""
    return F.softplus(fake_scores).mean() + F.softplus(-real_scores).mean()


def r1_penalty(real_scores: Tensor, images: Tensor) -> Tensor:
    """R1 (Mescheder et al., 2018): squared norm of the gradient of the scores by the images, mean over the batch.

    Args:
        real_scores: (N,), computed from ``images``.
        images: N×3×H×W, requiring gradients.

    Returns:
        A scalar that can be differentiated again.
    """
    (gradient,) = torch.autograd.grad(real_scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def dice_loss(scores: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes (Milletari et al., 2016).

    Every class counts the same however few pixels it has, which lifts thin ones.

    Args:
        scores: N×K×H×W, before the softmax.
        target: N×H×W, class ids 0…K−1 (int64).

    Returns:
        A scalar in 0…1; sums over pixels run over the whole batch.
    """
    probabilities = scores.softmax(dim=1)
    truth = F.one_hot(target, scores.shape[1]).movedim(3, 1).to(probabilities.dtype)
    pixels = (0, 2, 3)
    shared = (probabilities * truth).sum(pixels)
    total = probabilities.sum(pixels) + truth.sum(pixels)
    return (1 - (2 * shared + 1) / (total + 1)).mean()  # a class that is neither there nor predicted costs nothing

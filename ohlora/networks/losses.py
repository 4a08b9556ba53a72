"""Losses of GAN training, as functions of scores."""

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

"""Loss functions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.networks.operations import gradients_of_inputs_only


def generator_loss(fake_scores: Tensor) -> Tensor:
    """Non-saturating logistic loss of the generator (Goodfellow et al., 2014) from D's scores (N,) of its images."""
    return F.softplus(-fake_scores).mean()


def discriminator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    """Logistic loss of the discriminator (Goodfellow et al., 2014) from its scores (N,) and (M,)."""
    return F.softplus(fake_scores).mean() + F.softplus(-real_scores).mean()


def r1_penalty(real_scores: Tensor, images: Tensor) -> Tensor:
    """R1 penalty (Mescheder et al., 2018): the squared norm of the scores' gradient by the images, mean over the batch.

    The scores (N,) must have been computed from ``images``, N×3×H×W, which require gradients.
    """
    with gradients_of_inputs_only():
        (gradient,) = torch.autograd.grad(real_scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: Tensor, codes: Tensor, directions: Tensor) -> Tensor:
    """Path lengths (Karras et al., 2020, section 3.2): how far images move per step of their codes, (N,).

    Args:
        images: N×3×H×W, computed from ``codes``.
        codes: Codes by layer, N×L×D, which require gradients.
        directions: Random images N×3×H×W of N(0, 1), along which the images' movement is measured.

    Returns:
        Norms of the gradients by a code, root mean square over the layers; with graph.
    """
    pixels = images.shape[2] * images.shape[3]
    with gradients_of_inputs_only():
        (gradient,) = torch.autograd.grad((images * directions).sum() / math.sqrt(pixels), codes, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def dice_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Dice loss (Milletari et al., 2016): one minus the soft Dice coefficient, mean over the classes.

    Every class has the same weight, however few pixels it has. Sums over pixels run over the whole batch.

    Args:
        scores: Class scores before the softmax, N×K×H×W.
        target: Class ids 0…K−1, N×H×W, int64.
    """
    probabilities = scores.softmax(dim=1)
    truth = F.one_hot(target, scores.shape[1]).movedim(3, 1).to(probabilities.dtype)
    pixels = (0, 2, 3)
    shared = (probabilities * truth).sum(pixels)
    total = probabilities.sum(pixels) + truth.sum(pixels)
    return (1 - (2 * shared + 1) / (total + 1)).mean()  # + 1: a class that neither occurs nor is predicted has loss 0

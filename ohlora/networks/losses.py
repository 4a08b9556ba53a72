"""Loss functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.networks.operations import gradients_of_inputs_only


class AdversarialLoss(ABC):
    """What generator and discriminator are trained to do to the discriminator's scores.

    Scores are (N,). Real and fake ones with the same index make a pair, and have the same label.
    """

    def discriminator(self, fake_scores: Tensor, real_scores: Tensor) -> Tensor:
        """The discriminator's loss, mean over the batch."""
        return self.rejection(fake_scores, real_scores)

    @abstractmethod
    def rejection(self, scores: Tensor, real_scores: Tensor) -> Tensor:
        """The part of the discriminator's loss that lowers scores of what is to be taken for fake."""

    @abstractmethod
    def signs(self, fake_scores: Tensor, real_scores: Tensor) -> Tensor:
        """Signs, (N,), whose mean rises towards 1 as the discriminator overfits (Karras et al., 2020a)."""

    @abstractmethod
    def generator(self, fake_scores: Tensor, real_scores: Callable[[], Tensor]) -> Tensor:
        """The generator's loss, mean over the batch; ``real_scores`` is called only where the loss depends on them."""


class Logistic(AdversarialLoss):
    """Non-saturating logistic loss (Goodfellow et al., 2014)."""

    def discriminator(self, fake_scores: Tensor, real_scores: Tensor) -> Tensor:
        return self.rejection(fake_scores, real_scores) + F.softplus(-real_scores).mean()

    def rejection(self, scores: Tensor, real_scores: Tensor) -> Tensor:
        return F.softplus(scores).mean()

    def signs(self, fake_scores: Tensor, real_scores: Tensor) -> Tensor:
        """Those of the real images' scores."""
        return real_scores.sign()

    def generator(self, fake_scores: Tensor, real_scores: Callable[[], Tensor]) -> Tensor:
        return F.softplus(-fake_scores).mean()


class Relativistic(AdversarialLoss):
    """Relativistic pairing loss (Jolicoeur-Martineau, 2018; with R1 and R2, Huang et al., 2024).

    Only the difference of a real and a fake score counts, so that the generator cannot fool the discriminator on fakes
    without losing ground to every real image that it does not cover.
    """

    def rejection(self, scores: Tensor, real_scores: Tensor) -> Tensor:
        return F.softplus(scores - real_scores).mean()

    def signs(self, fake_scores: Tensor, real_scores: Tensor) -> Tensor:
        """Those of the differences from paired fakes: a score by itself has no meaning here."""
        return (real_scores - fake_scores).sign()

    def generator(self, fake_scores: Tensor, real_scores: Callable[[], Tensor]) -> Tensor:
        return F.softplus(real_scores() - fake_scores).mean()


Loss = Literal["logistic", "relativistic"]
LOSSES: Mapping[Loss, type[AdversarialLoss]] = {"logistic": Logistic, "relativistic": Relativistic}
"""Name → class."""


def gradient_penalties(scores: Tensor, images: Tensor) -> Tensor:
    """Squared norms of the scores' gradients by their images, (N,); with graph.

    Their mean over real images is the R1 penalty, over fakes R2 (Mescheder et al., 2018). The scores (N,) must have
    been computed from ``images``, N×3×H×W, which require gradients.
    """
    with gradients_of_inputs_only():
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


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


def supervised_contrastive_loss(
    embeddings: Tensor, person: Tensor, temperature: float, left_out: Tensor | None = None
) -> Tensor:
    """Supervised contrastive loss (Khosla et al., 2020, equation 2): pictures of a person attract, all others repel.

    Args:
        embeddings: Unit vectors, N×D.
        person: Whom each shows, N ints; every person occurs at least twice.
        temperature: By which cosine similarities are divided, above 0.
        left_out: Pairs that neither attract nor repel, N×N booleans.

    Returns:
        Mean over the N pictures.
    """
    ignored = torch.eye(len(person), dtype=torch.bool, device=embeddings.device)
    if left_out is not None:
        ignored = ignored | left_out
    same = (person[:, None] == person[None]) & ~ignored
    similarity = (embeddings @ embeddings.T / temperature).masked_fill(ignored, -torch.inf)
    log_share = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(~same, 0.0)
    return -(log_share.sum(dim=1) / same.sum(dim=1)).mean()

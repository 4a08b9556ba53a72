"""Edits that depend on the latent: its own gradients, or its label inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ohlora.directions.covariance import covariance_solved_by_layer
from ohlora.directions.edits import Latents, added
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import score_gradients
from ohlora.utils import counted


@dataclass(frozen=True)
class LocalBasis:
    """What a search by gradients leaves for edits at single latents.

    Attributes:
        outputs: The search CNN's outputs whose gradients are here, K names.
        gradients: Mean gradients, K×L×D, in standard deviations of score per unit of w.
        covariance: Of w, D×D.
        deviations: Standard deviations of the scores, (K,).
        points: Gradients taken per latent and round.
        rounds: How often a latent's step is taken anew.
        share: Weight of the latent's own gradients against the mean ones, 0…1.
        low: Lowest strength of each target in a round, (P,).
        high: Highest likewise.
        seed: Of the points.
    """

    outputs: tuple[str, ...]
    gradients: Tensor
    covariance: Tensor
    deviations: Tensor
    points: int
    rounds: int
    share: float
    low: Tensor
    high: Tensor
    seed: int


@dataclass(frozen=True)
class LocalEdits:
    """Steps of each latent's own, from gradients averaged over the neighbourhood that its edits reach.

    The gradient at the latent itself is noisy: it says what the smallest change would do. So it is taken at ``points``
    codes, edited at random within the tested range, averaged, shrunk towards the mean over all latents, and solved like
    those (:mod:`ohlora.directions.covariance`); the next round edits with the steps just found. A latent costs points ×
    rounds images, each with a backward pass per attribute.

    Attributes:
        attributes: What is edited.
        basis: The mean gradients to start from.
        generator: Makes the images.
        network: The search CNN.
        batch_size: Images made at once.
    """

    attributes: tuple[str, ...]
    basis: LocalBasis
    generator: Generator
    network: AttributeCNN | AttributeEnsemble
    batch_size: int = 50

    def steps(self, w: Tensor) -> Tensor:
        """One standard deviation of each attribute as a step: N×P×L×D from codes N×D."""
        b = self.basis
        places = [self.network.outputs.index(name) for name in b.outputs]
        targets = [b.outputs.index(name) for name in self.attributes]
        mean, covariance = b.gradients.to(w.device, torch.double), b.covariance.to(w.device, torch.double)
        steps = covariance_solved_by_layer(mean, covariance, targets).expand(len(w), -1, -1, -1)
        total = torch.zeros_like(mean).expand(len(w), -1, -1, -1).clone()
        for k in range(b.rounds):
            codes = Codes(added(w, self._strengths(k), steps).flatten(0, 1), Space.W_BY_LAYER)
            _, gradients = score_gradients(self.generator, self.network, codes, places, self.batch_size)
            scaled = gradients.double() / b.deviations.to(w.device)[:, None, None]
            total += scaled.reshape(len(w), b.points, *mean.shape).mean(dim=1)
            own = total / (k + 1)
            steps = covariance_solved_by_layer(torch.lerp(mean, own, b.share), covariance, targets)
        return steps

    def _strengths(self, round_number: int) -> Tensor:
        """Random strengths within the range, points×P; the same for all latents."""
        random = counted.generator(self.basis.seed, "local", round_number)
        uniform = torch.from_numpy(random.random((self.basis.points, len(self.attributes))))
        return torch.lerp(self.basis.low.double(), self.basis.high.double(), uniform).float()

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Tensor:
        """See :class:`ohlora.directions.edits.Edits`."""
        return added(latents.w, strengths, self.steps(latents.w).to(latents.w))


@dataclass(frozen=True)
class LabelEdits:
    """Moves the label inputs of a conditional generator; costs nothing to find.

    Attributes:
        attributes: What is edited.
        generator: A generator with labels.
        labels: Names of its label inputs.
    """

    attributes: tuple[str, ...]
    generator: Generator
    labels: Sequence[str]

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Tensor:
        """See :class:`ohlora.directions.edits.Edits`; a unit is one unit of the label."""
        if latents.label is None:
            raise ValueError("the generator has no labels to move")
        strengths = strengths.to(latents.w).expand(len(latents.w), -1, -1)
        count = strengths.shape[1]
        label = latents.label[:, None].repeat(1, count, 1)
        for p, name in enumerate(self.attributes):
            label[:, :, list(self.labels).index(name)] += strengths[:, :, p]
        z = latents.z[:, None].expand(-1, count, -1)
        w = self.generator.map(z.flatten(0, 1), label.flatten(0, 1)).values
        return w.reshape(len(latents.w), count, -1)

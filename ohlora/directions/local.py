"""Edits at single latents: steps from a latent's own gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ohlora.directions.covariance import covariance_solved_by_layer
from ohlora.directions.edits import LocalBasis, Steps, added
from ohlora.directions.finder import Source
from ohlora.directions.own import OwnEdits, OwnFinder
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import score_gradients
from ohlora.utils import counted


class Local(OwnFinder):
    """The mean gradients of :class:`Jacobian`, by layer, from which :class:`LocalEdits` takes each latent's own steps.

    Args:
        points: Gradients per latent and local round.
        local_rounds: Local rounds.
        share: Weight of a latent's own gradients against the mean, 0…1.
        common: See :class:`ohlora.directions.jacobian.Jacobian`; steps are always by layer.
    """

    edits = "local edits"

    def __init__(self, points: int = 8, local_rounds: int = 2, share: float = 0.8, **common: Any) -> None:
        super().__init__(**common)
        if points < 1 or local_rounds < 1 or not 0 <= share <= 1:
            raise ConfigError(
                f"points is {points}, local_rounds {local_rounds} and share {share}; expected at least 1, at least 1 "
                "and 0 to 1"
            )
        self.points, self.local_rounds, self.share = points, local_rounds, share

    def basis(self, held: list[str], gradients: Tensor, covariance: Tensor, source: Source) -> LocalBasis:
        """See :class:`ohlora.directions.edits.LocalBasis`."""
        settings = (self.points, self.local_rounds, self.share, *source.ends(self.targets), self.seed)
        scales = torch.ones(len(held), dtype=torch.float64)
        return LocalBasis(tuple(held), gradients[0], covariance, scales, *settings)


class LocalEdits(OwnEdits[LocalBasis]):
    """Steps of each latent's own, from gradients averaged over the neighbourhood that its edits reach.

    The gradient at the latent itself is noisy: it says what the smallest change would do. So it is taken at ``points``
    codes, edited at random within the tested range, averaged, shrunk towards the mean over all latents, and solved as
    that is (:mod:`ohlora.directions.covariance`); the next round edits with the steps just found. A latent costs points
    × rounds images, each with a backward pass per attribute.
    """

    def steps(self, codes: Codes) -> Codes:
        """One unit of strength of each attribute as a step: N×P steps by layer from N codes in W."""
        b, w, places, targets = self.basis, codes.values, self.places, self.targets
        mean, covariance = b.gradients.to(w.device, torch.double), b.covariance.to(w.device, torch.double)
        steps = covariance_solved_by_layer(mean, covariance, targets).expand(len(w), -1, -1, -1)
        total = torch.zeros_like(mean).repeat(len(w), 1, 1, 1)
        for k in range(b.rounds):
            edited = added(codes, self._strengths(k), Codes(steps, Space.W_BY_LAYER)).flat()
            _, gradients = score_gradients(self.generator, self.network, edited, places, self.batch_size)
            scaled = gradients.double() / b.scales.to(w.device)[:, None, None]
            total += scaled.reshape(len(w), b.points, *mean.shape).mean(dim=1)
            own = total / (k + 1)
            steps = covariance_solved_by_layer(torch.lerp(mean, own, b.share), covariance, targets)
        return Codes(steps, Space.W_BY_LAYER)

    def _strengths(self, round_number: int) -> Tensor:
        """Random strengths within the range, points×P; the same for all latents."""
        random = counted.generator(self.basis.seed, "local", round_number)
        uniform = torch.from_numpy(random.random((self.basis.points, len(self.attributes))))
        return torch.lerp(self.basis.low.double(), self.basis.high.double(), uniform).float()

    def own(self, codes: Codes) -> Steps:
        """:meth:`steps`, which are straight."""
        return Steps(self.steps(codes))

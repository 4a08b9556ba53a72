"""Score matching: generated images are to be scored as real ones are, attribute by attribute and together.

A discriminator sees an eye of five pixels as a small part of the image, and a generator can satisfy it with half-open
eyes. A network that scores attributes sees nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.utils.images import resized


class ScoreMatching(nn.Module):
    """Sliced Wasserstein distance between the scores of generated and of real images.

    Along a direction, the optimal transport between two sets is that of their ranks (Rabin et al., 2011; as a loss of
    generators, Deshpande et al., 2018): the image that ranks in the middle of the generated ones is to score as the
    middle one of the real ones does. A batch is too small for ranks, so the scores of recent batches count as well.
    Directions are the attributes themselves, and as many at random, which see how attributes go together. The distance
    grows linearly beyond one standard deviation, since what scores far outside the data is mostly an artefact.

    Args:
        network: Scores K attributes; images of another size are resized. Its weights are not trained.
        recent: Scores of this many generated images are kept.

    Attributes:
        real: Scores of real images, M×K, once :meth:`look_at` has seen some.
    """

    real: Tensor
    kept: Tensor
    count: Tensor

    def __init__(self, network: AttributeCNN, recent: int = 512) -> None:
        super().__init__()
        self._network = (network.eval().requires_grad_(False),)  # not a part: no checkpoint needs to hold it
        size = len(network.outputs)
        self.register_buffer("real", torch.empty(0, size))
        self.register_buffer("kept", torch.zeros(recent, size))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))  # of all scores that have been kept so far

    @torch.no_grad()
    def look_at(self, batches: Iterable[Tensor]) -> None:
        """Keeps the scores of real images: batches of N×3×H×H in [−1, 1]."""
        self.real = torch.cat([self._scored(batch) for batch in batches])

    def _scored(self, images: Tensor) -> Tensor:
        network = self._network[0].to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            scores: Tensor = network(resized(images.float(), network.resolution))
        return scores

    def _standardised(self, scores: Tensor) -> Tensor:
        """In standard deviations of the real images' scores, from their mean."""
        deviation, mean = torch.std_mean(self.real, dim=0, correction=0)
        return (scores - mean) / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)

    def scores(self, images: Tensor) -> Tensor:
        """Scores N×K of generated images N×3×H×H in [−1, 1], standardised by those of real images; with graph."""
        return self._standardised(self._scored(images))

    def forward(self, scores: Tensor, of_all: Tensor, generator: np.random.Generator) -> Tensor:
        """The distance, a scalar, to which the scores of this step are added.

        Args:
            scores: From :meth:`scores`, N×K.
            of_all: Those of all processes, without graph.
            generator: Draws the directions.
        """
        size = scores.shape[1]
        drawn = torch.from_numpy(generator.standard_normal((size, size), dtype=np.float32)).to(scores)
        directions = torch.cat([torch.eye(size).to(scores), torch.linalg.qr(drawn).Q], dim=1)
        real = self._standardised(self.real) @ directions
        self._keep(of_all)
        others = self.kept[: int(self.count)] @ directions
        along = scores @ directions
        ordered = others.T.sort(dim=1).values.contiguous()
        ranks = torch.searchsorted(ordered, along.detach().T.contiguous()) + 0.5
        places = ranks / ordered.shape[1] * len(real) - 0.5
        lower = places.floor().clamp(0, len(real) - 1).long()
        wanted = real.T.sort(dim=1).values
        upper = (lower + 1).clamp_max(len(real) - 1)
        targets = torch.lerp(wanted.gather(1, lower), wanted.gather(1, upper), (places - lower).clamp(0, 1))
        return F.smooth_l1_loss(along.T, targets)

    def _keep(self, scores: Tensor) -> None:
        """Puts scores in place of the oldest ones."""
        places = torch.arange(len(scores), device=scores.device).add(self.count) % len(self.kept)
        self.kept[places] = scores.to(self.kept)
        self.count += len(scores)

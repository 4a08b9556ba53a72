"""Score matching: generated images are to be scored as real ones are, attribute by attribute and together.

A discriminator sees an eye of five pixels as a small part of the image, and a generator can satisfy it with half-open
eyes. A network that scores attributes sees nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.utils.images import resized


class ScoreMatching(nn.Module):
    """Energy distance (Székely and Rizzo, 2013) between the scores of generated and of real images.

    It is 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ for scores X of generated and Y of real images: 0 where both are
    distributed alike, and above 0 otherwise. Its gradients are right on average however small the batch, which those of
    Wasserstein distances are not (Bellemare et al., 2017): they would teach too little variety. What scores far outside
    the data, mostly an artefact, pulls no harder than what is a little outside. It is taken of all attributes together
    and, so that none is lost among the others, of each by itself.

    Args:
        network: Scores K attributes; images of another size are resized. Its weights are not trained.

    Attributes:
        real: Scores of real images, M×K, once :meth:`look_at` has seen some.
    """

    real: Tensor

    def __init__(self, network: AttributeCNN) -> None:
        super().__init__()
        self._network = (network.eval().requires_grad_(False),)  # not a part: no checkpoint needs to hold it
        self.register_buffer("real", torch.empty(0, len(network.outputs)))
        self._of_real: Tensor | None = None

    @torch.no_grad()
    def look_at(self, batches: Iterable[Tensor]) -> None:
        """Keeps the scores of real images: batches of N×3×H×H in [−1, 1]."""
        self.real = torch.cat([self._scored(batch) for batch in batches])
        self._of_real = None

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

    def forward(self, scores: Tensor, of_all: Tensor) -> Tensor:
        """The distance, a scalar: the mean of that of each attribute, plus that of all together over √K.

        :attr:`real` must not change afterwards but by :meth:`look_at`.

        Args:
            scores: From :meth:`scores`, N×K.
            of_all: Those of all processes, N×W rows without graph, which hold the same rows; at least two.
        """
        real = self._standardised(self.real)
        between = _distances(scores, real)
        among = _distances(scores, of_all) * (len(of_all) / (len(of_all) - 1))  # an image has no distance to itself
        if self._of_real is None:  # once: these are the most pairs by far
            parts = [len(part) * _distances(part, real) for part in torch.split(real, 100)]
            self._of_real = torch.stack(parts).sum() / max(len(real) - 1, 1)
        # Each pair of generated images moves both, of which one has a graph here.
        return 2 * between - 2 * among + among.detach() - self._of_real


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """Mean distances of N rows to M others: by each of K columns, the mean over them, plus by all over √K."""
    size = rows.shape[1]
    alone = (rows[:, None] - others[None]).abs().mean()
    # The root of 0 has no gradient; a row's distance to itself comes up.
    together = (rows[:, None] - others[None]).square().sum(dim=2).clamp_min(1e-12).sqrt().mean()
    return alone + together / math.sqrt(size)

"""Score matching: generated images are to be scored as real ones are, attribute by attribute and together.

A discriminator sees an eye of five pixels as a small part of the image, and a generator can satisfy it with half-open
eyes. A network that scores attributes sees nothing else. Its hidden layers also see what else varies in a face, so that
a generator whose images agree with the data there shows more of it. Where the real images are those of a concept,
filters say how far an image is from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.utils.images import resized

COMPONENTS = 48
"""Principal components of the hidden layers, where nothing else is said."""


class ScoreMatching(nn.Module):
    """Energy distance (Székely and Rizzo, 2013) between the scores of generated and of real images.

    It is 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ for scores X of generated and Y of real images: 0 where both are
    distributed alike, and above 0 otherwise. Its gradients are right on average however small the batch, which those of
    Wasserstein distances are not (Bellemare et al., 2017): they would teach too little variety. What scores far outside
    the data, mostly an artefact, pulls no harder than what is a little outside. It is taken of all attributes together
    and, so that none is lost among the others, of each by itself. The same is done with the principal components of the
    networks' hidden layers over the real images, each in standard deviations: this is feature matching (Salimans et
    al., 2016) of whole distributions in place of means. Probabilities are matched as logits, whose gradients do not
    vanish where an image is far from what is wanted.

    Args:
        networks: Score K attributes together; images of another size are resized. Their weights are not trained. Of an
            ensemble, the mean logits of the members are matched, and no hidden layers.
        components: Principal components that are matched beside the scores, at most; 0 for the scores alone.

    Attributes:
        real: Scores of M real images and D components, M×(K + D), once :meth:`look_at` has seen some.
        mean: Mean of the H hidden features of the real images (H,).
        axes: The components as columns, H×D.
    """

    real: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(self, networks: Sequence[AttributeCNN | AttributeEnsemble], components: int = COMPONENTS) -> None:
        super().__init__()
        # In a tuple they are no parts: no checkpoint needs to hold them.
        self._networks = tuple(network.eval().requires_grad_(False) for network in networks)
        self.count = sum(len(network.outputs) for network in networks)
        self.components = components
        for name, shape in {"real": (0, self.count), "mean": (0,), "axes": (0, 0)}.items():
            self.register_buffer(name, torch.empty(shape), persistent=False)  # as the networks see the real images now
        self._of_real: Tensor | None = None

    @torch.no_grad()
    def look_at(self, batches: Iterable[Tensor]) -> None:
        """Keeps the scores of real images, batches of N×3×H×H in [−1, 1], and finds the components."""
        scores, hidden = map(torch.cat, zip(*map(self._seen, batches), strict=True))
        self.mean = hidden.mean(dim=0)
        _, sizes, axes = torch.linalg.svd(hidden - self.mean, full_matrices=False)
        varied = int((sizes > sizes[:1] * torch.finfo(sizes.dtype).eps * len(hidden)).sum())
        self.axes = axes[: min(self.components, varied)].T.contiguous()
        self.real = torch.cat([scores, (hidden - self.mean) @ self.axes], dim=1)
        self._of_real = None

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores N×K, probabilities as logits, and hidden features N×H of images."""
        scores: list[Tensor] = []
        hidden: list[Tensor] = []
        with torch.autocast(images.device.type, enabled=False):
            for network in self._networks:
                network.to(images.device)
                seen = resized(images.float(), network.resolution)
                if isinstance(network, AttributeCNN):
                    hidden.append(network.features(seen))
                    scores.append(network.read_logits(hidden[-1]))
                else:
                    scores.append(network.logits(seen))
        return torch.cat(scores, dim=1), torch.cat([images.new_zeros(len(images), 0), *hidden], dim=1)

    def _standardised(self, scores: Tensor) -> Tensor:
        """In standard deviations of the real images' scores, from their mean."""
        deviation, mean = torch.std_mean(self.real, dim=0, correction=0)
        return (scores - mean) / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)

    def scores(self, images: Tensor) -> Tensor:
        """Scores and components, N×(K + D), of generated images N×3×H×H in [−1, 1]; with graph.

        They are standardised by those of real images.
        """
        scores, hidden = self._seen(images)
        return self._standardised(torch.cat([scores, (hidden - self.mean) @ self.axes], dim=1))

    def forward(self, scores: Tensor, of_all: Tensor) -> Tensor:
        """The distance, a scalar: the mean of that of each attribute, plus that of all together over √K.

        That of the components is added likewise.

        :attr:`real` must not change afterwards but by :meth:`look_at`.

        Args:
            scores: From :meth:`scores`.
            of_all: Those of all processes, N×W rows without graph, which hold the same rows; at least two.
        """
        real = self._standardised(self.real)
        between = self._distances(scores, real)
        among = self._distances(scores, of_all) * (
            len(of_all) / (len(of_all) - 1)
        )  # an image has no distance to itself
        if self._of_real is None:  # once: these are the most pairs by far
            parts = [len(part) * self._distances(part, real) for part in torch.split(real, 100)]
            self._of_real = torch.stack(parts).sum() / max(len(real) - 1, 1)
        # Each pair of generated images moves both, of which one has a graph here.
        return 2 * between - 2 * among + among.detach() - self._of_real

    def _distances(self, rows: Tensor, others: Tensor) -> Tensor:
        """Mean distances of N rows to M others, of scores and of components: by each column, plus by all over √K."""
        total = rows.new_zeros(())
        sizes = [self.count, rows.shape[1] - self.count]
        for apart in torch.split(rows[:, None] - others[None], sizes, dim=2):
            if size := apart.shape[2]:
                # The root of 0 has no gradient; a row's distance to itself comes up.
                together = apart.square().sum(dim=2).clamp_min(1e-12).sqrt().mean()
                total = total + apart.abs().mean() + together / math.sqrt(size)
        return total

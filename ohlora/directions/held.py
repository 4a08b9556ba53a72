"""What edits hold: the scores of what they do not move, and the person, as a guide sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ohlora.directions.finder import Source
from ohlora.errors import ConfigError
from ohlora.evaluation.identity import Identity
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes

LEAST_SIZE = 1e-4
"""Axes along which embeddings differ by less than this share of the largest difference are rounding errors."""
AXIS = "identity axis "
"""What places along axes of a guide's embeddings are called, before their numbers from 1; no attribute has spaces."""


class ScoresAndIdentity(nn.Module):
    """An attribute CNN's K scores, and A places along axes of what a guide says: images → N×(K + A).

    An edit that holds all of them holds the person, too: to first order, the embedding stays where it is.

    Args:
        network: Scores the images.
        guide: Recognises people, with gradients.
        axes: Axes of its embeddings, D×A.

    Attributes:
        outputs: Names of the scores, then of the axes.
    """

    axes: Tensor

    def __init__(self, network: AttributeCNN | AttributeEnsemble, guide: Identity, axes: Tensor) -> None:
        super().__init__()
        self.network, self.guide = network, guide
        self.outputs = (*network.outputs, *(f"{AXIS}{k + 1}" for k in range(axes.shape[1])))
        self.register_buffer("axes", axes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores and places, N×(K + A)."""
        return torch.cat([self.network(images), self.guide.embed(images) @ self.axes], dim=1)


def seen(source: Source, start: Codes, axes: int) -> AttributeCNN | AttributeEnsemble | ScoresAndIdentity:
    """What is to be held in the images of a search: scores, and the person where the search has a guide.

    Args:
        source: What directions are found from.
        start: Codes of the latents of the search, in whose images the principal axes of embeddings are found.
        axes: How many of them are held.

    Raises:
        ConfigError: If so many axes cannot be found.
    """
    generator, network = source.networks
    if source.guide is None:
        return network
    with torch.no_grad():
        parts = start.split(source.batch_size)
        embedded = torch.cat([source.guide.embed(generator.synthesize(part).clamp(-1, 1)) for part in parts])
    _, sizes, rows = torch.linalg.svd(embedded - embedded.mean(dim=0), full_matrices=False)
    most = int((sizes > sizes[0] * LEAST_SIZE).sum())
    if axes > most:
        raise ConfigError(
            f"identity_axes is {axes}, and embeddings of {len(embedded)} images with {embedded.shape[1]} numbers each "
            f"differ along {most} axes; set the finder's identity_axes to fewer, or take more latents"
        )
    return ScoresAndIdentity(network, source.guide, rows[:axes].mT.contiguous()).to(embedded.device)


def held_names(targets: Sequence[str], hold: Sequence[str] | None, outputs: Sequence[str]) -> list[str]:
    """Which of the ``outputs`` that are seen enter the solution: targets, then what is held; None holds all outputs.

    The axes of a guide are held in any case.

    Raises:
        ConfigError: If one is not seen.
    """
    axes = [name for name in outputs if name.startswith(AXIS)]
    wanted = list(dict.fromkeys([*targets, *(outputs if hold is None else hold), *axes]))
    unknown = [name for name in wanted if name not in outputs]
    if unknown:
        raise ConfigError(f"there is no score for {', '.join(unknown)}; there are {', '.join(outputs)}")
    return wanted

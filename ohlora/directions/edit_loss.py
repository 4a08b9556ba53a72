"""The loss of an edit: scores that move go where they are wanted; the others, the picture and the person stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.evaluation.identity import Identity
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble

COARSE = 8
"""Height and width, in parts of an image, of what is compared with the unedited image."""
BEND = 0.3
"""z-scores from which on an error of a score counts linearly (Huber, 1964)."""


class Seen(NamedTuple):
    """What is compared of N images.

    Attributes:
        scores: Of the search CNN, N×K.
        coarse: The images made small, N×3×c×c.
        persons: What the guide says, unit vectors N×D; None without a guide.
    """

    scores: Tensor
    coarse: Tensor
    persons: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> Seen:
        """The same of other images: ``change`` chooses or repeats rows."""
        return Seen(change(self.scores), change(self.coarse), None if self.persons is None else change(self.persons))


def look(images: Tensor, network: AttributeCNN | AttributeEnsemble, guide: Identity | None) -> Seen:
    """What is compared of N×3×R×R images in [−1, 1] of the size that the CNN takes."""
    coarse = F.adaptive_avg_pool2d(images, COARSE)
    return Seen(network(images), coarse, None if guide is None else guide.embed(images))


@dataclass(frozen=True)
class EditLoss:
    """The loss of edits.

    Attributes:
        hold: Weight of the scores that are to stay, against those that are to change.
        likeness: Weight of the mean squared difference from the unedited image, both averaged over squares of an eighth
            of their size.
        person: Weight of how much of the person is lost, as the guide sees it; see
            :meth:`ohlora.evaluation.identity.Identity.lost`.
    """

    hold: float
    likeness: float
    person: float

    def __call__(
        self, before: Seen, after: Seen, wanted: Tensor, moves: Tensor, guide: Identity | None = None
    ) -> Tensor:
        """The loss of each of N edited images, (N,).

        Args:
            before: The unedited images.
            after: The edited ones.
            wanted: The scores that are wanted of them, N×K.
            moves: Which of the K scores are to change, booleans, (K,) or N×K; errors of the others count by ``hold``.
            guide: What has embedded both.
        """
        errors = F.huber_loss(after.scores, wanted, reduction="none", delta=BEND) / BEND
        loss = (errors * torch.where(moves, 1, self.hold)).sum(dim=1)
        loss = loss + self.likeness * (after.coarse - before.coarse).square().flatten(1).mean(dim=1)
        if guide is not None and before.persons is not None and after.persons is not None:
            loss = loss + self.person * guide.lost(before.persons, after.persons)
        return loss

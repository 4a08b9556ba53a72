"""The loss of an edit: scores that move go where they are wanted; the others, the picture and the person stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.evaluation.identity import Identity
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator
from ohlora.utils import counted

COARSE = 8
"""Height and width, in parts of an image, of what is compared with the unedited image."""
SMALL = 0.002
"""Weight of the squared Mahalanobis length of what is trained, layers taken as if they varied independently."""
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

    def of_edits(
        self,
        before: Seen,
        edited: Codes,
        strengths: Tensor,
        own: Sequence[int],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        guide: Identity | None,
    ) -> Tensor:
        """The loss of E edits of each of N latents, whose own scores are to change by the strengths, (N·E,).

        Args:
            before: The unedited images, N.
            edited: Codes of the edits, N×E.
            strengths: N×E×P.
            own: Places of the P scores that move.
            generator: Makes the images.
            network: Scores them.
            guide: Recognises people; None holds no person.
        """
        repeated = before.each(lambda rows: rows.repeat_interleave(edited.batch[1], dim=0))
        after = look(generator.synthesize(edited.flat()).clamp(-1, 1), network, guide)
        wanted = repeated.scores.clone()
        wanted[:, own] += strengths.flatten(0, 1).to(wanted)
        moves = torch.zeros(wanted.shape[1], dtype=torch.bool, device=wanted.device)
        moves[own] = True
        return self(repeated, after, wanted, moves, guide)


def drawn_strengths(
    seed: int, stream: str, number: int, edits: int, range_of: tuple[Tensor, Tensor], alike: bool = False
) -> Tensor:
    """Random strengths of a step of training, N×E×P: in half of the edits one attribute moves, in the others all do.

    Args:
        seed: Of the random numbers.
        stream: Likewise.
        number: Of the step: each attribute has its turn to move alone.
        edits: E, of each latent.
        range_of: Lowest and highest strengths of N latents, about 0, N×P each.
        alike: Whether all latents get the same parts of their ranges, so that one does not depend on the others.
    """
    low, high = range_of
    count, size = (1 if alike else len(low)), low.shape[1]
    shares = torch.from_numpy(counted.generator(seed, stream, number).uniform(-1, 1, (count, edits, size)))
    alone = edits // 2
    turns = (number * count * alone + torch.arange(count * alone)) % size
    shares[:, :alone] *= F.one_hot(turns, size).reshape(count, alone, size)
    shares = shares.to(low)
    return torch.where(shares < 0, -low[:, None], high[:, None]) * shares

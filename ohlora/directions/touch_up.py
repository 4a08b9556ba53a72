"""Touch-up: the edits of single latents, trained until scores follow strengths over the whole range of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ohlora.directions.edit_loss import SMALL, EditLoss, Seen, drawn_strengths, look
from ohlora.directions.edits import Steps, moved, own_space
from ohlora.directions.own import data_range, room
from ohlora.directions.spread import Spread
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.scales import DataScale
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator
from ohlora.utils import checks
from ohlora.utils.progress import tracked


class _Edits(NamedTuple):
    """What N latents and their edits start from.

    Attributes:
        codes: N codes, in W by layer or in S.
        seen: What is compared of the unedited images.
        nodes: Strengths of the nodes, N×P×M.
    """

    codes: Codes
    seen: Seen
    nodes: Tensor


@dataclass(frozen=True)
class TouchUp:
    """Trains what strengths add to single latents, and neither generator nor network.

    Straight steps and paths alike become paths whose nodes lie evenly between the ends of the data's range, or of more
    than that (``reach``). The shifts at the nodes are then trained by Adam on random strengths: in half of the edits
    one attribute moves alone, in the others all at once. The search CNN's scores of what moves are to change by the
    strength, all others are to stay, and so is the picture as a whole, looked at coarsely: scores know nothing of the
    colour of a skin or of clothes. A guide, which is a network that recognises people, also holds the person. Shifts
    are learned in standard deviations of the codes and held small, so that codes stay near those that the generator
    knows.

    Attributes:
        steps: Steps of gradient descent; each makes ``edits`` images of a latent, with one backward pass.
        edits: Edits of each latent and step.
        nodes: Nodes of a path on either side of the latent.
        reach: How far a path goes, in parts of the way to the end of the data's range.
        rate: Learning rate at first, in standard deviations of the codes; it falls to 0 along a cosine.
        hold: Weight of the scores that are to stay, against those that are to change.
        likeness: Weight of the mean squared difference from the unedited image, both averaged over squares of an eighth
            of their size.
        person: Weight of how much of the person is lost, as the guide sees it: 1 where it is in doubt; of a guide
            without calibration, one minus the cosine similarity.
        seed: Of the strengths.
    """

    steps: int = 150
    edits: int = 6
    nodes: int = 3
    reach: float = 1.0
    rate: float = 0.02
    hold: float = 1.0
    likeness: float = 5.0
    person: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps, nodes=self.nodes)
        checks.at_least(2, edits=self.edits)
        checks.above(0, reach=self.reach, rate=self.rate)
        checks.at_least(0, hold=self.hold, likeness=self.likeness, person=self.person)
        checks.seeds(seed=self.seed)

    def __call__(
        self,
        codes: Codes,
        given: Steps,
        attributes: Sequence[str],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        scales: Mapping[str, DataScale],
        guide: Identity | None = None,
    ) -> Steps:
        """The trained paths of N latents, whatever other latents are trained beside them.

        Args:
            codes: N codes, in W or, where edits move style channels, in S.
            given: What their edits are so far, N×P.
            attributes: The P attributes.
            generator: Makes the images.
            network: The search CNN.
            scales: What its z-scores are in the data, of attributes of which that is known.
            guide: Recognises people, with gradients; without it nothing but the scores and the picture is held.

        Returns:
            N×P paths, by layer or in S.
        """
        own = [network.outputs.index(name) for name in attributes]
        with torch.inference_mode(False), torch.enable_grad():
            known = [scales.get(name) for name in attributes]
            start = self._start(codes, given, generator, network, own, known, guide)
            spread = Spread.of(generator, self.seed, start.codes, "touch_up/")
            shifts = _at_nodes(given, start.nodes, generator.num_ws).to(start.codes.values)
            learned = spread.whitened(shifts).clone().requires_grad_()
            moving = torch.ones(2 * self.nodes + 1, *[1] * start.codes.space.ndim).to(shifts)
            moving[self.nodes] = 0  # the unedited image stays
            optimizer = torch.optim.Adam([learned], lr=self.rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            for number in tracked(range(self.steps), "touching up"):
                shown = learned * moving
                loss = self._loss(number, start, spread.coloured(shown), own, generator, network, guide)
                loss = loss + SMALL * shown.square().flatten(3).sum(dim=3).mean(dim=(1, 2)).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        found = spread.coloured(learned * moving).detach()
        return Steps(replace(start.codes, values=found), start.nodes)

    @torch.no_grad()
    def _start(
        self,
        codes: Codes,
        given: Steps,
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        own: Sequence[int],
        scales: Sequence[DataScale | None],
        guide: Identity | None,
    ) -> _Edits:
        start = generator.in_space(codes, own_space(given.shifts.space))
        images = generator.synthesize(start).clamp(-1, 1)
        seen = look(images, network, guide)
        low, high = room(data_range(scales), seen.scores[:, own])
        shares = torch.arange(1, self.nodes + 1).to(low) * self.reach / self.nodes
        sides = low[..., None] * shares.flip(0), torch.zeros_like(low)[..., None], high[..., None] * shares
        return _Edits(replace(start, values=start.values.clone()), seen, torch.cat(sides, dim=2))

    def _loss(
        self,
        number: int,
        start: _Edits,
        shifts: Tensor,
        own: Sequence[int],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        guide: Identity | None,
    ) -> Tensor:
        """The loss of the edits of a step, summed over latents, so that each has the gradients it has alone."""
        ends = start.nodes[..., 0], start.nodes[..., -1]
        strengths = drawn_strengths(self.seed, "touch_up/strengths", number, self.edits, ends, alike=True)
        edited = moved(start.codes, strengths, Steps(replace(start.codes, values=shifts), start.nodes))
        loss = EditLoss(self.hold, self.likeness, self.person)
        return loss.of_edits(start.seen, edited, strengths, own, generator, network, guide).sum() / self.edits


def _at_nodes(given: Steps, nodes: Tensor, num_ws: int) -> Tensor:
    """What N×P steps add at strengths N×P×M of one attribute alone: N×P×M codes, by layer or in S."""
    size, count = nodes.shape[1:]
    alone = torch.eye(size).to(nodes)[None, :, None] * nodes[..., None]  # N×P×M×P
    added = given.at(alone.flatten(1, 2))
    found = replace(given.shifts, values=added).in_space(own_space(given.shifts.space), num_ws).values
    return found.reshape(len(found), size, count, *found.shape[2:])

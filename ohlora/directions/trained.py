"""Directions for all latents, trained on what their edits show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from ohlora.directions.edit_loss import SMALL, EditLoss, drawn_strengths, look
from ohlora.directions.edits import Directions, added
from ohlora.directions.finder import Finder, Notes, Source
from ohlora.directions.groups import Groups
from ohlora.directions.jacobian import Jacobian
from ohlora.directions.own import data_range, room
from ohlora.directions.spread import Spread
from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import counted_latents
from ohlora.utils import checks
from ohlora.utils.progress import tracked


class Trained(Finder):
    """Trains the directions of another finder by gradient descent, with what edits are to be like as the loss.

    The directions are the parameters. Each step draws new latents, moves each by random strengths within the data's
    range, in half of the edits one attribute and in the others all, and asks for what is asked of single latents by
    :class:`ohlora.directions.touch_up.TouchUp`: scores change by the strength, the others stay, and so do the picture,
    looked at coarsely, and the person, as a guide sees it. Where other finders say what the smallest change does, or
    what goes together in samples, this one looks at the edits themselves, and since it looks at other latents all the
    time, what it learns holds for all. It makes steps × batch_size × (edits + 1) images, besides those of ``start``.

    Args:
        start: The finder whose directions are trained, with its targets, groups, layers and seed; of steps that are a
            latent's own, their mean. If it can hold the person, it also gets the guide. By default
            :class:`ohlora.directions.jacobian.Jacobian` by layer on 100 latents, once.
        targets: What the directions move, where ``start`` is the default.
        group_by: By which attributes latents are grouped, likewise; by default they are not.
        steps: Steps of gradient descent.
        batch_size: Latents of a step; images with gradients are made in parts of the search's ``image_batch_size``.
        edits: Edits of each.
        rate: Learning rate at first, in standard deviations of the codes; it falls to 0 along a cosine.
        reach: How far edits go, in parts of the way to the end of the data's range.
        hold: Weight of the scores that are to stay, against those that are to change.
        likeness: Weight of the mean squared difference from the unedited image, both averaged over squares of an eighth
            of their size.
        person: Weight of how much of the person is lost, as the guide sees it: 1 where it is in doubt; of a guide
            without calibration, one minus the cosine similarity.
        seed: Of latents and strengths.

    Raises:
        ConfigError: If a setting is out of its range, or is ``start``'s own and is given beside it.
    """

    holds_identity = True

    def __init__(
        self,
        start: Finder | None = None,
        targets: Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        steps: int = 300,
        batch_size: int = 8,
        edits: int = 4,
        rate: float = 0.02,
        reach: float = 1.2,
        hold: float = 1.0,
        likeness: float = 3.0,
        person: float = 1.0,
        seed: int = 0,
    ) -> None:
        own = {"targets": targets, "group_by": group_by}
        if start is not None and (double := [name for name, value in own.items() if value is not None]):
            names = " and ".join(double)
            raise ConfigError(f"{names} are given, and start has {names} of its own; leave them out")
        self.start = start or Jacobian(
            latents=100, rounds=1, layers="each", seed=seed, targets=targets, group_by=group_by
        )
        super().__init__(self.start.targets, self.start.group_by, seed=seed)
        checks.at_least(1, steps=steps, batch_size=batch_size)
        checks.at_least(2, edits=edits)
        checks.above(0, rate=rate, reach=reach)
        checks.at_least(0, hold=hold, likeness=likeness, person=person)
        checks.seeds(seed=seed)
        self.steps, self.batch_size, self.edits, self.rate, self.reach = steps, batch_size, edits, rate, reach
        self.loss = EditLoss(hold, likeness, person)

    @property
    def needs(self) -> set[str]:
        """See :attr:`ohlora.directions.finder.Finder.needs`."""
        return self.start.needs | {"generator", "network"}

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`."""
        guide = source.guide if self.start.holds_identity else None
        begun = self.start.find(replace(source, guide=guide), notes)
        with torch.enable_grad():
            steps = self._trained(begun.steps, begun.groups, source, notes)
        provenance: dict[str, Any] = {
            "start": {"method": begun.method, **begun.provenance},
            "images": begun.provenance.get("images", 0) + self.steps * self.batch_size * (self.edits + 1),
            **{name: getattr(self, name) for name in ("steps", "batch_size", "edits", "rate", "reach", "seed")},
            **asdict(self.loss),
        }
        return Directions.of_steps(self.targets, steps, begun.groups, self.name, provenance)

    def _trained(self, begun: Codes, groups: Groups, source: Source, notes: Notes) -> Codes:
        """The trained steps, G×P, from those that another finder has found."""
        generator, network = source.networks
        device = counted_latents(generator, self.seed, [0], "trained/")[0].device
        own = [network.outputs.index(name) for name in self.targets]
        ends = data_range([source.scales.get(name) for name in self.targets])
        begun = replace(begun, values=begun.values.float().to(device))
        spread = Spread.of(generator, self.seed, begun, "trained/spread/")
        learned = spread.whitened(begun.values).clone().requires_grad_()
        acting = begun.values != 0  # channels and layers that the start leaves alone stay so
        if begun.space is not Space.S:
            acting = acting.any(dim=-1, keepdim=True)
        optimizer = torch.optim.Adam([learned], lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        losses: list[float] = []
        size = max(1, source.batch_size // self.edits)  # latents whose edits are made at once
        for number in tracked(range(self.steps), "training directions"):
            with torch.no_grad():
                indices = range(number * self.batch_size, (number + 1) * self.batch_size)
                codes = generator.map(*counted_latents(generator, self.seed, indices, "trained/"))
                parts = generator.in_space(codes, begun.space).split(size)
                seen = [look(generator.synthesize(part).clamp(-1, 1), network, source.guide) for part in parts]
            scores = torch.cat([of_part.scores for of_part in seen])
            low, high = (end * self.reach for end in room(ends, scores[:, own]))
            strengths = drawn_strengths(self.seed, "trained/strengths", number, self.edits, (low, high))
            group = torch.from_numpy(groups.assign(network.outputs, scores.cpu().numpy())).to(device)
            split = torch.split(strengths, size), torch.split(group, size)
            optimizer.zero_grad()
            loss = SMALL * (learned * acting).square().flatten(2).sum(dim=2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(0.0)
            for part, before, moving, places in zip(parts, seen, *split, strict=True):
                steps: Tensor = spread.coloured(learned * acting)
                edited = added(part, moving, Codes(steps[places], begun.space))
                of_edits = self.loss.of_edits(before, edited, moving, own, generator, network, source.guide)
                loss = of_edits.sum() / (self.batch_size * self.edits)
                loss.backward()  # type: ignore[no-untyped-call]
                losses[-1] += float(loss.detach())
            optimizer.step()
            schedule.step()
        tenth = max(1, self.steps // 10)
        notes.metrics |= {"loss_first": sum(losses[:tenth]) / tenth, "loss_last": sum(losses[-tenth:]) / tenth}
        return Codes(spread.coloured(learned * acting).detach().cpu(), begun.space)

"""Label contrast: what a label changes of an image is its attribute, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ohlora.attributes import vocabulary
from ohlora.directions.edit_loss import EditLoss, look
from ohlora.directions.own import data_range
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import scales_in
from ohlora.formats import network_files
from ohlora.formats.identity_files import IdentityFile, guide_of, tell_unfit
from ohlora.utils import checks, counted
from ohlora.utils.images import resized


@dataclass
class LabelContrast:
    """What :class:`LabelPairs` teaches a generator with labels, and how.

    Attributes:
        network: File of the attribute CNN that scores the images: the search CNN.
        guide: Network that recognises people; without it, scores and picture are held only.
        attributes: The labels that are to move their attributes; by default the world's expressions among the labels.
        weight: Of the term in the generator's loss.
        hold: Weight of the scores that are to stay, against those that are to change.
        likeness: Weight of the mean squared difference of the two images, both averaged over squares of an eighth of
            their size.
        person: Weight of how much of the person is lost, as the guide sees it; see :class:`TouchUp`.
    """

    network: str
    guide: IdentityFile | None = None
    attributes: Sequence[str] | None = None
    weight: float = 0.25
    hold: float = 1.0
    likeness: float = 10.0
    person: float = 1.0

    def __post_init__(self) -> None:
        checks.above(0, weight=self.weight)
        if self.attributes is not None:
            checks.some(attributes=self.attributes)
        checks.at_least(0, hold=self.hold, likeness=self.likeness, person=self.person)


class LabelPairs(nn.Module):
    """The loss of pairs of images that share a latent and differ in labels.

    Of the labels that are to move their attributes, one or all are drawn anew for the second image, anywhere in the
    data's range. Its scores are to
    differ by as much as the labels do; whatever else differs counts against the generator: the other scores, the
    picture seen coarsely, and the person, as a guide sees it (contrastive learning, as in Deng et al., 2020, and
    Shoshan et al., 2021). A discriminator asks of a label only that its images are like the data's. So the generator
    learns to move an expression without making another face, and searches find such edits in W.

    Args:
        contrast: What is to be taught.
        labels: Names of the generator's labels.

    Attributes:
        spread: Which of the P attributes get labels from the whole range of the data.
        low: Lower end of the data's range of the P attributes, in z-scores (P,); no label moves an image beyond.
        high: The upper end.

    Raises:
        ConfigError: If an attribute is no label, or is not scored, or there is none.
    """

    low: Tensor
    high: Tensor

    def __init__(self, contrast: LabelContrast, labels: Sequence[str]) -> None:
        super().__init__()
        network = network_files.load_attributes(contrast.network)
        expressions = [name for name in vocabulary().names("expression") if name in labels]
        attributes = expressions if contrast.attributes is None else list(contrast.attributes)
        if not attributes:
            raise ConfigError(
                f"label_contrast has no attributes: none of the labels ({', '.join(labels) or 'there are none'}) is an "
                "expression of the world. Name some with model.init_args.label_contrast.attributes"
            )
        if unknown := [name for name in attributes if name not in labels]:
            raise ConfigError(
                f"label_contrast.attributes names {', '.join(unknown)}, which is no label; the labels are "
                f"{', '.join(labels) or 'none'}"
            )
        if unknown := [name for name in attributes if name not in network.outputs]:
            raise ConfigError(
                f"{contrast.network} does not score {', '.join(unknown)}; it scores {', '.join(network.outputs)}. "
                "Change label_contrast.network, or leave them out of label_contrast.attributes"
            )
        guide = None
        if contrast.guide is not None:
            guide = guide_of(contrast.guide)
            tell_unfit(contrast.guide, guide)
        # In a tuple they are no parts: no checkpoint needs to hold them.
        self._network, self._guide = (network.eval().requires_grad_(False),), (guide,)
        self.loss = EditLoss(contrast.hold, contrast.likeness, contrast.person)
        self.scored = [network.outputs.index(name) for name in attributes]
        self.labelled = [list(labels).index(name) for name in attributes]
        scales = scales_in(network_files.provenance(contrast.network))
        known = vocabulary()
        self.spread = [k for k, name in enumerate(attributes) if known[name].kind == "score" and name in scales]
        for name, value in zip(("low", "high"), data_range([scales.get(name) for name in attributes]), strict=True):
            self.register_buffer(name, value, persistent=False)

    def drawn(self, others: Tensor, seed: int, stream: str, indices: Sequence[int]) -> Tensor:
        """New labels, of which those that are to move a score lie anywhere in the data's range.

        As the data have them, few would be far from the mean, and that is where edits are worst.

        Args:
            others: Labels as the data have them, N×K. What is 0 or 1, or has levels, stays so, and also a score whose
                range the network does not tell.
            seed: Of the random numbers.
            stream: Likewise.
            indices: Numbers of the images.
        """
        draws = [g.random(len(self.low)) for g in counted.generators(seed, stream, indices)]
        shares = torch.from_numpy(np.stack(draws)).to(self.low)
        uniform = (self.low + shares * (self.high - self.low)).to(others)
        found = others.clone()
        for k in self.spread:
            found[:, self.labelled[k]] = uniform[:, k]
        return found

    def edited(self, label: Tensor, other: Tensor, indices: Sequence[int]) -> Tensor:
        """Labels of the second images, N×K.

        Args:
            label: Labels of the first.
            other: Labels drawn anew, N×K.
            indices: Numbers of the images, by which each attribute has its turn, and then all together.
        """
        count = len(self.labelled)
        turns = torch.tensor([index % (count + 1) for index in indices], device=label.device)
        found = label.clone()
        for k, column in enumerate(self.labelled):
            found[:, column] = torch.where((turns == k) | (turns == count), other[:, column], label[:, column])
        return found

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            images: N images, then N of the same latents with other labels: 2N×3×R×R in [−1, 1]; of another size
                than the CNN takes, they are resized.
            labels: Their labels, 2N×K.
        """
        (network,), (guide,) = self._network, self._guide
        network.to(images.device)
        if guide is not None:
            guide.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            seen = look(resized(images.float().clamp(-1, 1), network.resolution), network, guide)
            half = len(images) // 2
            one, two = seen.each(lambda rows: rows[:half]), seen.each(lambda rows: rows[half:])
            one_label, two_label = labels[:, self.labelled].float().chunk(2)
            change = two_label - one_label
            moves = torch.zeros_like(one.scores, dtype=torch.bool)
            moves[:, self.scored] = change != 0
            losses = []
            for before, after, by in ((one, two, change), (two, one, -change)):
                wanted = before.scores.clone()
                own = wanted[:, self.scored]
                # What lies beyond the data's range already is not asked to come back.
                low, high = torch.minimum(own, self.low).detach(), torch.maximum(own, self.high).detach()
                wanted[:, self.scored] = (own + by).clamp(low, high)
                losses.append(self.loss(before, after, wanted, moves, guide))
        return torch.stack(losses).mean()

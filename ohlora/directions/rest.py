"""Rest: latents as they look when nothing is asked of them, from which edits then start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ohlora.attributes import Attribute
from ohlora.directions.learned import Spread, coarse, score_errors
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.utils import checks, counted
from ohlora.utils.progress import tracked


@dataclass(frozen=True)
class Rest:
    """Brings latents to rest, such as open eyes and a head that looks ahead; trains neither generator nor network.

    A latent has some expression by chance: a face that sleeps cannot blink, and one that is turned away has half of its
    turn behind it. So a code is moved, by Adam, until the search CNN's scores of what the world declares a ``rest`` for
    are there; its other scores are to stay, and so is the picture as a whole, looked at coarsely. Codes are learned in
    standard deviations and drawn towards the mean of w, where the generator knows most. They stay in W, and what a
    latent comes to does not depend on what others are brought to rest beside it.

    Attributes:
        steps: Steps of gradient descent; each makes an image of a latent, with one backward pass.
        rate: Learning rate at first, in standard deviations of w; it falls to 0 along a cosine.
        hold: Weight of the scores that are to stay, against those of rest.
        likeness: Weight of the mean squared difference from the latent's image, both averaged over squares of an eighth
            of their size.
        likely: Weight of the squared Mahalanobis length from the mean of w.
        jitter: Images are looked at near a code, moved at random by so many standard deviations of w at first and none
            at last, since gradients at a code itself say what the smallest change would do (SmoothGrad; Smilkov et al.,
            2017).
        seed: Of these moves.
    """

    steps: int = 100
    rate: float = 0.1
    hold: float = 0.5
    likeness: float = 2.0
    likely: float = 0.05
    jitter: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps)
        checks.above(0, rate=self.rate)
        checks.at_least(0, hold=self.hold, likeness=self.likeness, likely=self.likely, jitter=self.jitter)
        checks.seeds(seed=self.seed)

    def __call__(
        self,
        codes: Codes,
        scores: Mapping[str, float],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        batch_size: int,
    ) -> Codes:
        """N codes in W at rest.

        Args:
            codes: N codes in W.
            scores: What is wanted, attribute → z-score; see :func:`scores_at_rest`.
            generator: Makes the images.
            network: The search CNN.
            batch_size: Images made at once.
        """
        with torch.inference_mode(False), torch.enable_grad():
            spread = Spread.of(generator, self.seed, codes, "rest/")
            given = Codes(codes.values.clone(), Space.W)  # what inference made takes no gradients
            parts = [self._rested(part, spread, scores, generator, network) for part in given.split(batch_size)]
        return Codes(torch.cat(parts), Space.W)

    def _rested(
        self,
        codes: Codes,
        spread: Spread,
        scores: Mapping[str, float],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
    ) -> Tensor:
        """The codes of a batch at rest, N×D."""
        with torch.no_grad():
            images = generator.synthesize(codes).clamp(-1, 1)
            wanted, whole = network(images).clone(), coarse(images)
        weights = torch.full_like(wanted[0], self.hold)
        for name, score in scores.items():
            place = network.outputs.index(name)
            wanted[:, place], weights[place] = score, 1
        learned = spread.whitened(codes.values - spread.mean).clone().requires_grad_()
        optimizer = torch.optim.Adam([learned], lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        moves = counted.normal(self.seed, "rest/jitter", range(self.steps), learned.shape[1]).to(learned)
        for k in tracked(range(self.steps), "bringing to rest"):
            near = learned + self.jitter * (1 - k / self.steps) * moves[k]
            images = generator.synthesize(Codes(spread.mean + spread.coloured(near), Space.W)).clamp(-1, 1)
            loss = (score_errors(network(images), wanted) * weights).sum()
            loss = loss + self.likeness * (coarse(images) - whole).square().mean(dim=(1, 2, 3)).sum()
            # Summed over latents, so that each has the gradients that it has alone.
            loss = loss + self.likely * learned.square().sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        return spread.mean + spread.coloured(learned.detach())


def scores_at_rest(attributes: Iterable[Attribute], scales: Mapping[str, DataScale], network: str) -> dict[str, float]:
    """z-scores of the attributes that declare a rest.

    Args:
        attributes: What is steered.
        scales: What z-scores are in the data of the search CNN.
        network: The file of the search CNN, for messages.

    Raises:
        ConfigError: If none declares one, or one is in a unit that the network does not know.
    """
    found: dict[str, float] = {}
    for attribute in attributes:
        if attribute.rest is None:
            continue
        if attribute.physical is None:
            found[attribute.name] = attribute.rest
            continue
        scale = scales.get(attribute.name)
        if scale is None or scale.physical is None or scale.physical.column != attribute.physical.column:
            raise ConfigError(
                f"{attribute.name} is to rest at {attribute.rest:g} ({attribute.physical.unit}), and {network} was "
                f"trained on no table with {attribute.physical.column}; train it on one, or leave model.init_args.rest "
                "out"
            )
        found[attribute.name] = scale.physical.score_of(attribute.rest)
    if not found:
        raise ConfigError(
            "model.init_args.rest brings latents to rest, and no attribute that is steered declares one; declare rest "
            "in the world's file (docs/attributes.md), or leave it out"
        )
    return found

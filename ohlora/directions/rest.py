"""Rest: latents as they look when nothing is asked of them, from which edits then start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ohlora.attributes import Attribute
from ohlora.directions.spread import Spread
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import clipped_scores, counted_latents, score_gradients
from ohlora.utils import checks, counted

TOGETHER = 8
"""Latents that are brought to rest together, by their numbers: what is summed over a batch is rounded by its size, and
from step to step a difference of rounding grows until it can be seen."""
ARRIVED = 0.6
"""Share of the steps after which a latent is asked for all of the way, and no longer for the next part."""


@dataclass(frozen=True)
class Rest:
    """Brings latents to rest, such as open eyes and a head that looks ahead; trains neither generator nor network.

    A latent has some expression by chance: a face that sleeps cannot blink, and one that is turned away has half of its
    turn behind it. So a code is moved in W, step by step, until the search CNN's scores of what the world declares a
    ``rest`` for are there, and its other scores stay. Each step is the least-squares solution to first order, from the
    gradients near the image reached so far (Marquardt, 1963), in standard deviations of w; it also draws the code to
    the mean of w, where the generator knows most.

    Attributes:
        steps: How many; each costs an image with a backward pass per score.
        hold: Weight of the scores that are to stay, against those of rest.
        likely: Weight of the squared Mahalanobis length from the mean of w.
        damping: Weight of the squared length of a step, which keeps steps short where gradients say little.
        longest: Of a step, in standard deviations of w.
        jitter: Gradients are taken at codes that are moved at random by so many standard deviations of w, since those
            at a code itself say what the smallest change would do (SmoothGrad; Smilkov et al., 2017).
        memory: Weight of the gradients of earlier steps against those of the last, 0…1.
        seed: Of the jitter.
    """

    steps: int = 10
    hold: float = 0.3
    likely: float = 0.01
    damping: float = 0.1
    longest: float = 1.5
    jitter: float = 0.15
    memory: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps)
        checks.above(0, damping=self.damping, longest=self.longest)
        checks.at_least(0, hold=self.hold, likely=self.likely, jitter=self.jitter)
        checks.between(0, 1, memory=self.memory)
        checks.seeds(seed=self.seed)

    def __call__(
        self,
        codes: Codes,
        scores: Mapping[str, float],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        spread: Spread,
    ) -> Codes:
        """N codes in W at rest.

        Args:
            codes: N codes in W.
            scores: What is wanted, attribute → z-score; see :func:`scores_at_rest`.
            generator: Makes the images.
            network: The search CNN.
            spread: How w varies.
        """
        places = range(len(network.outputs))
        learned, root = spread.whitened(codes.values - spread.mean).double(), spread.root.double()
        begun = clipped_scores(generator, network, codes, len(codes.values)).double()
        wanted, weights = begun.clone(), torch.full_like(begun[0], self.hold)
        for name, score in scores.items():
            place = network.outputs.index(name)
            wanted[:, place], weights[place] = score, 1
        moves = self.jitter * counted.normal(self.seed, "rest/jitter", range(self.steps), learned.shape[1]).to(learned)
        ridge = (self.likely + self.damping) * torch.eye(learned.shape[1]).to(learned)
        known: Tensor | None = None
        for k in range(self.steps):
            near, reached = (self._codes(at, spread) for at in (learned + moves[k], learned))
            _, found = score_gradients(generator, network, near, places, len(learned))
            gradients = found.double() @ root  # by standard deviation of w
            known = gradients if known is None else torch.lerp(gradients, known, self.memory)
            asked_for = torch.lerp(begun, wanted, min(1.0, (k + 1) / (ARRIVED * self.steps)))
            missing = asked_for - clipped_scores(generator, network, reached, len(learned)).double()
            pulls = known.mT * weights
            pull = (pulls @ missing[..., None])[..., 0] - self.likely * learned
            step = torch.linalg.solve(pulls @ known + ridge, pull)
            learned = learned + step * (self.longest / step.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp(max=1)
        return self._codes(learned, spread)

    def _codes(self, learned: Tensor, spread: Spread) -> Codes:
        """The codes that lie so many standard deviations from the mean of w."""
        return Codes(spread.mean + spread.coloured(learned.to(spread.mean)), Space.W)


class Resting:
    """Counted latents at rest, whichever of them a process asks for.

    Args:
        rest: Brings them there.
        scores: What is wanted, attribute → z-score; see :func:`scores_at_rest`.
        generator: Makes the images.
        network: The search CNN.
        seed: Of the latents.
    """

    def __init__(
        self,
        rest: Rest,
        scores: Mapping[str, float],
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        seed: int,
    ) -> None:
        self.rest, self.scores, self.generator, self.network, self.seed = rest, scores, generator, network, seed
        self._group = lru_cache(maxsize=1)(self._rested)  # latents are asked for in order

    def codes(self, stream: str, indices: Sequence[int]) -> Codes:
        """Codes in W of N latents of a stream."""
        rested = [self._group(stream, index // TOGETHER).values[index % TOGETHER] for index in indices]
        return Codes(torch.stack(rested), Space.W)

    def _rested(self, stream: str, group: int) -> Codes:
        codes = self._mapped(f"{stream}/", range(group * TOGETHER, (group + 1) * TOGETHER))
        return self.rest(codes, self.scores, self.generator, self.network, self._spread)

    @cached_property
    def _spread(self) -> Spread:
        return Spread.of(self.generator, self.rest.seed, self._mapped("rest/", range(1)), "rest/")

    def _mapped(self, stream: str, indices: Sequence[int]) -> Codes:
        return self.generator.map(*counted_latents(self.generator, self.seed, indices, stream))


def scores_at_rest(attributes: Iterable[Attribute], scales: Mapping[str, DataScale], network: str) -> dict[str, float]:
    """z-scores of the attributes that declare a rest.

    Args:
        attributes: What is steered.
        scales: What z-scores are in the data of the search CNN.
        network: The file of the search CNN, for messages.

    Raises:
        ConfigError: If none declares one, or one is in a unit that the network does not know, or outside its data.
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
                f"trained on no table with {attribute.physical.column}; train it on one, or set model.init_args.rest "
                "to null"
            )
        low, high = scale.physical.values[0], scale.physical.values[-1]
        if not low <= attribute.rest <= high:
            raise ConfigError(
                f"{attribute.name} is to rest at {attribute.rest:g} ({attribute.physical.unit}), and the data of "
                f"{network} go from {low:g} to {high:g}; set rest of the attribute to a value between them"
            )
        found[attribute.name] = scale.physical.score_of(attribute.rest)
    if not found:
        raise ConfigError(
            "model.init_args.rest brings latents to rest, and no attribute that is steered declares one; declare rest "
            "in the world's file (docs/attributes.md), or set model.init_args.rest to null"
        )
    return found

"""Rest: latents as they look when nothing is asked of them, from which edits then start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ohlora.attributes import Attribute
from ohlora.directions.spread import Spread
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import score_gradients
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
        begun = self._scores(generator, network, codes)
        wanted, weights = begun.clone(), torch.full_like(begun[0], self.hold)
        for name, score in scores.items():
            place = network.outputs.index(name)
            wanted[:, place], weights[place] = score, 1
        moves = self.jitter * counted.normal(self.seed, "rest/jitter", range(self.steps), learned.shape[1]).to(learned)
        ridge = (self.likely + self.damping) * torch.eye(learned.shape[1]).to(learned)
        known: Tensor | None = None
        for k in range(self.steps):
            near = self._codes(learned + moves[k], spread, codes)
            _, found = score_gradients(generator, network, near, places, len(learned))
            gradients = found.double() @ root  # by standard deviation of w
            known = gradients if known is None else torch.lerp(gradients, known, self.memory)
            missing = torch.lerp(begun, wanted, min(1.0, (k + 1) / (ARRIVED * self.steps)))
            missing = missing - self._scores(generator, network, self._codes(learned, spread, codes))
            pulls = known.mT * weights
            asked = (pulls @ missing[..., None])[..., 0] - self.likely * learned
            step = torch.linalg.solve(pulls @ known + ridge, asked)
            learned = learned + step * (self.longest / step.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp(max=1)
        return self._codes(learned, spread, codes)

    def _codes(self, learned: Tensor, spread: Spread, like: Codes) -> Codes:
        """The codes that lie so many standard deviations from the mean of w."""
        return Codes(spread.mean + spread.coloured(learned.to(like.values.dtype)), Space.W)

    @torch.no_grad()
    def _scores(self, generator: Generator, network: AttributeCNN | AttributeEnsemble, codes: Codes) -> Tensor:
        """The search CNN's scores of images that are not rounded, as its gradients are of such."""
        seen: Tensor = network(generator.synthesize(codes).clamp(-1, 1))
        return seen.double()


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

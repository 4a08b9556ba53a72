"""How good a generator is: measures of its images against real ones that it was not trained on.

Every measure has a *floor*: the same measure between two halves of the real images, which no generator is expected to
beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ohlora.evaluation.features import Features, Penultimate, RandomFeatures, frechet_distance, set_distances
from ohlora.evaluation.manifolds import LEAST, manifold_measures
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.utils import figures
from ohlora.utils.images import resized

MEASURES: Mapping[str, bool] = {
    "frechet_distance": False,
    "kernel_distance": False,
    "precision": True,
    "recall": True,
    "density": True,
    "coverage": True,
    "untrained_distance": False,
}
"""Measures of two sets of images → whether more is better."""
RANGE = (5, 95)
"""The percentiles between which an attribute's range lies."""


@dataclass(frozen=True)
class Observed:
    """What networks see in N images.

    Attributes:
        features: N×F, on the CPU.
        untrained: Features of a network with random weights, N×256, on the CPU: a generator can learn to deceive a
            trained network, and networks that were trained alike are deceived alike; there is nothing to deceive here.
        scores: Attribute → N scores.
    """

    features: Tensor
    untrained: Tensor
    scores: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.features)

    def part(self, first: int, last: int) -> Observed:
        """Images ``first`` … ``last − 1``."""
        scores = {name: values[first:last] for name, values in self.scores.items()}
        return Observed(self.features[first:last], self.untrained[first:last], scores)


class Observer(nn.Module):
    """Looks at images once for everything that is measured of them.

    Args:
        features: Makes the features.
        scoring: Networks that score attributes, each of its own; images of another size are resized.

    Attributes:
        outputs: Names of the K attributes that are scored.
    """

    def __init__(self, features: Features, scoring: Sequence[AttributeCNN | AttributeEnsemble] = ()) -> None:
        super().__init__()
        self.features, self.scoring = features, nn.ModuleList(network.eval() for network in scoring)
        self.outputs = tuple(name for network in scoring for name in network.outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features N×F and scores N×K of square images, N×3×H×H in [−1, 1]."""
        seen: list[Tensor] = []
        features: Tensor | None = None
        for network in self.scoring:
            fitting = resized(images, network.resolution)  # type: ignore[arg-type]
            if isinstance(self.features, Penultimate) and network is self.features.network:
                hidden = self.features.outputs_of(fitting)
                features = self.features.projected(hidden)
                seen.append(self.features.network.read(hidden))
            else:
                seen.append(network(fitting))
        if features is None:
            features = self.features(images)
        return features, torch.cat(seen, dim=1) if seen else images.new_empty(len(images), 0)

    @torch.inference_mode()
    def observe(self, batches: Iterable[Tensor], device: torch.device) -> Observed:
        """What is seen in batches of images, N×3×H×H each."""
        self.to(device)
        untrained: RandomFeatures | None = None
        seen: list[tuple[Tensor, ...]] = []
        for batch in batches:
            images = batch.to(device)
            if untrained is None:
                untrained = RandomFeatures(images.shape[2]).to(device)
            seen.append(tuple(part.cpu() for part in (*self(images), untrained(images))))
        features, scores, plain = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return Observed(features, plain, dict(zip(self.outputs, scores.numpy().T, strict=True)))


class Spread(NamedTuple):
    """How much of an attribute's variety in real images generated ones have.

    Attributes:
        spread: Standard deviation of the generated images' scores over that of the reals'; NaN where the reals' is 0.
        reached: Share of the range between the reals' 5th and 95th percentile that lies between those of the generated
            images, 0…1; NaN where there is no such range.
    """

    spread: float
    reached: float


def attribute_spread(real: np.ndarray, fake: np.ndarray) -> Spread:
    """Compares the scores of N real and M generated images by one attribute."""
    deviation = float(real.std())
    (low, high), (fake_low, fake_high) = (np.percentile(scores, RANGE).tolist() for scores in (real, fake))
    overlap = max(0.0, min(high, fake_high) - max(low, fake_low))
    return Spread(
        float(fake.std()) / deviation if deviation > 0 else np.nan, overlap / (high - low) if high > low else np.nan
    )


def spread_summary(spreads: Mapping[str, Spread]) -> dict[str, float]:
    """Mean and minimum over the attributes of how near each spread s is to 1: min(s, 1/s), 0…1.

    Too much spread counts like too little, for artefacts also spread scores.

    Returns:
        ``spread_mean`` and ``spread_min``; empty where there is no attribute with a spread.
    """
    near = [min(s.spread, 1 / s.spread) if s.spread > 0 else 0.0 for s in spreads.values() if np.isfinite(s.spread)]
    return {"spread_mean": fmean(near), "spread_min": min(near)} if near else {}


def set_measures(real: Observed, fake: Observed, few: int | None = None) -> dict[str, float]:
    """All of :data:`MEASURES` of two sets of N ≥ :data:`LEAST` images each.

    ``untrained_distance`` is the Fréchet distance on features of a network with random weights over the variance of the
    real images' ones, summed over the features: 1 is the distance of images that all look like the mean of the real
    ones. It is taken of the first ``few`` images, by default of all.
    """
    few = len(real) if few is None else few
    return {
        **set_distances(real.features, fake.features),
        **manifold_measures(real.features, fake.features),
        "untrained_distance": untrained_distance(real.part(0, few), fake.part(0, few)),
    }


def untrained_distance(real: Observed, fake: Observed) -> float:
    """See :func:`set_measures`; NaN where the real images do not vary."""
    variance = float(real.untrained.double().var(dim=0).sum())
    return frechet_distance(real.untrained, fake.untrained) / variance if variance > 0 else np.nan


class Reals:
    """Real images, as far as networks have seen them, that generators are compared with.

    Args:
        seen: What was seen in them; their order must be random.
        count: How many are compared, at most; for the floor, two halves of that size need twice as many.

    Attributes:
        count: How many are compared: all of ``seen`` at most.
        floor_count: Size of each half.
        floor: Measure → its value between the halves; empty with fewer than :data:`LEAST` images in each.
        floor_spread: Attribute → its spread in the second half, compared with the first; likewise.
    """

    def __init__(self, seen: Observed, count: int) -> None:
        self.count, self.floor_count = min(count, len(seen)), min(count, len(seen) // 2)
        self.seen = seen.part(0, self.count)
        one, other = seen.part(0, self.floor_count), seen.part(self.floor_count, 2 * self.floor_count)
        self.floor: dict[str, float] = {}
        self.floor_spread: dict[str, Spread] = {}
        if self.floor_count >= LEAST:
            self.floor = set_measures(one, other)
            self.floor_spread = self._spread(one, other)

    @property
    def enough(self) -> bool:
        """Whether there are enough images to compare with."""
        return self.count >= LEAST

    def measures(self, fakes: Observed) -> dict[str, float]:
        """All of :data:`MEASURES` of generated images; as many of both are compared."""
        count = min(self.count, len(fakes))
        # Fewer images are farther apart: as few as for the floor, if there is one.
        few = min(count, self.floor_count) if self.floor else count
        return set_measures(self.seen.part(0, count), fakes.part(0, count), few)

    def spread(self, fakes: Observed) -> dict[str, Spread]:
        """Attribute → its spread in generated images."""
        return self._spread(self.seen, fakes)

    def table(self, fakes: Observed) -> list[dict[str, Any]]:
        """A row per attribute of generated images.

        It holds ``attribute``, its :class:`Spread`, the floors of both (``floor_spread``, ``floor_reached``; without
        one, none), and mean, standard deviation and the percentiles of :data:`RANGE` of both sets. What is not finite
        is None.
        """
        rows = []
        for name, spread in self.spread(fakes).items():
            row = spread._asdict()
            if name in self.floor_spread:
                row |= {f"floor_{key}": value for key, value in self.floor_spread[name]._asdict().items()}
            for of, scores in (("real", self.seen.scores[name]), ("generated", fakes.scores[name])):
                low, high = np.percentile(scores, RANGE)
                row |= {f"{of}_mean": scores.mean(), f"{of}_std": scores.std(), f"{of}_p5": low, f"{of}_p95": high}
            finite = {key: round(float(value), 4) if np.isfinite(value) else None for key, value in row.items()}
            rows.append({"attribute": name, **finite})
        return rows

    @staticmethod
    def _spread(real: Observed, fake: Observed) -> dict[str, Spread]:
        return {name: attribute_spread(values, fake.scores[name]) for name, values in real.scores.items()}


def spread_picture(table: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The rows of :meth:`Reals.table` as bars, with the floors as ticks: H×W×3 uint8."""

    def column(key: str) -> dict[str, float]:
        values = {row["attribute"]: row.get(key) for row in table}
        return {name: np.nan if value is None else value for name, value in values.items()}

    what = ("spread", "reached")
    return figures.bars(
        {name: column(name) for name in what},
        {name: column(f"floor_{name}") for name in what},
        dict.fromkeys(what, 1.0),
    )

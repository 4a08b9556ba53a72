"""Directions that move a single style channel each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ohlora.directions.edits import Directions
from ohlora.directions.finder import Notes, Row, Source
from ohlora.directions.held import held_names
from ohlora.directions.sampled import extremes
from ohlora.directions.stylespace import CHUNK, StyleSpaceFinder
from ohlora.errors import ConfigError, DataError
from ohlora.evaluation.edits import correlations, slopes
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import score_gradients, scores_of_codes
from ohlora.utils import checks
from ohlora.utils.progress import tracked

STRONG = 0.5
"""Share of the strongest candidate's effect that a channel needs to be chosen for its small leakage."""
ROUNDING = 1e-6
"""Slope below which a channel moves nothing: scores that stay the same differ by rounding."""
LEVELS = 5
"""Strengths at which a channel is verified."""


class SingleChannel(StyleSpaceFinder):
    """For each attribute the style channel that moves it and little else.

    Channels are ranked, and the first of each attribute are verified: moved by up to ``reach`` of their standard
    deviations at some latents, while the search CNN measures what changes. Of those that move the attribute at least
    half as much as the strongest does, the one that leaks least is taken, and its slope there sets the unit of
    strength. Verifying costs candidates × attributes × ``verified`` × 5 images.

    Ranking by ``difference`` is that of Wu et al. (2021). With δ the difference of a sample's channel from the mean
    over all latents, in the channel's standard deviations, the relevance is the mean of δ over the samples that show
    the attribute, divided by the standard deviation of δ over the same samples: it is large where all of them agree.
    Wu et al. look at the first channels by eye, and leave out those of to-RGB layers. Here leakage decides, and all
    channels take part, since an attribute may be a colour. Ranking by ``gradient`` is our own.

    Args:
        rank: By what: ``difference``, which needs samples; or ``gradient``, the mean gradient of the score by the
            channel times the channel's standard deviation over all latents, which needs none.
        fraction: Share of the samples, those that score highest, that show an attribute; for ``difference``.
        latents: Latents whose gradients are taken, for ``gradient``.
        candidates: Channels of each attribute that are verified.
        verified: Latents at which they are.
        reach: How far channels are moved then.
        common: See :class:`ohlora.directions.stylespace.StyleSpaceFinder`.
    """

    uses_samples = True

    def __init__(
        self,
        rank: Literal["difference", "gradient"] = "difference",
        fraction: float = 0.02,
        latents: int = 100,
        candidates: int = 10,
        verified: int = 20,
        reach: float = 3.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not 0 < fraction <= 0.5:
            raise ConfigError(f"fraction is {fraction}; expected above 0 and at most 0.5")
        checks.at_least(1, latents=latents, candidates=candidates, verified=verified)
        checks.above(0, reach=reach)
        self.rank, self.fraction, self.latents = rank, fraction, latents
        self.candidates, self.verified, self.reach = candidates, verified, reach

    @property
    def needs(self) -> set[str]:
        """See :attr:`ohlora.directions.finder.Finder.needs`."""
        return {"generator", "network", *(["samples"] if self.rank == "difference" else [])}

    def find(self, source: Source, notes: Notes) -> Directions:
        """See :meth:`ohlora.directions.finder.Finder.find`."""
        generator, network = source.networks
        held_names(self.targets, (), network.outputs)  # refuses targets without a score
        channel_means, variances = self.moments(generator)
        channel_deviations = variances.sqrt()
        images = 0
        if self.rank == "difference":
            relevance = self._differences(source, generator, channel_means, channel_deviations)
        else:
            places = [network.outputs.index(name) for name in self.targets]
            codes = self.codes(generator, "search", self.latents)
            images += self.latents
            _, gradients = score_gradients(generator, network, codes, places, source.batch_size)
            relevance = gradients.double().mean(dim=0) * channel_deviations
        chosen: dict[str, int] = {}
        steps = torch.zeros(1, len(self.targets), len(channel_deviations), dtype=torch.float64)
        rows: list[Row] = []
        for p, name in enumerate(self.targets):
            order = relevance[p].abs().argsort(descending=True, stable=True)[: self.candidates].tolist()
            found = self._verified(source, name, order, channel_deviations)
            images += len(found) * self.verified * LEVELS
            strongest = max(abs(row["slope"]) for row in found)
            if strongest < ROUNDING:
                raise DataError(f"none of {len(found)} style channels moves {name}; verify more candidates")
            best = min((r for r in found if abs(r["slope"]) >= STRONG * strongest), key=lambda row: row["leakage"])
            chosen[name] = best["place"]
            steps[0, p, best["place"]] = float(channel_deviations[best["place"]]) / best["slope"]
            for place, row in enumerate(found):
                about = {"attribute": name, "rank": place, "relevance": float(relevance[p, row["place"]])}
                rows.append(about | _named(generator, row) | {"chosen": row is best})
        notes.tables["channels"] = rows
        provenance: dict[str, Any] = {"rank": self.rank, "seed": self.seed, "verified": self.verified, "images": images}
        provenance |= {"channels": {name: _named(generator, {"place": c}) for name, c in chosen.items()}}
        found_codes = Codes(steps, Space.S)
        return Directions.of_steps(self.targets, found_codes, self.groups(source), self.name, provenance)

    @torch.no_grad()
    def _differences(self, source: Source, generator: Generator, means: Tensor, deviations: Tensor) -> Tensor:
        """Relevance of each channel for each target, P×C; see the class. The sign is that of the difference."""
        samples = source.samples
        assert samples is not None  # asked for by ``needs``
        held_names(self.targets, (), samples.outputs)
        found = []
        for name in self.targets:
            try:
                high, _ = extremes(samples.scores[:, samples.outputs.index(name)], self.fraction)
            except ValueError as error:
                raise DataError(f"{name}: {error}") from error
            if len(high) < 2:
                raise DataError(
                    f"{name}: a share of {self.fraction} of {len(samples.scores)} samples is {len(high)}; expected at "
                    "least 2, so take more samples or a larger fraction"
                )
            total = squares = torch.zeros_like(deviations)
            for part in torch.split(samples.codes.values[torch.from_numpy(high.copy())], CHUNK):
                styles = generator.styles(Codes(part.to(generator.device), samples.codes.space)).values
                normalised = (styles.double() - means) / deviations.clamp(min=1e-30)
                total, squares = total + normalised.sum(dim=0), squares + normalised.square().sum(dim=0)
            mean = total / len(high)
            spread = (squares / len(high) - mean.square()).clamp(min=0).sqrt()
            found.append(torch.where((deviations > 0) & (spread > 0), mean / spread.clamp(min=1e-30), 0.0))
        return torch.stack(found)

    @torch.no_grad()
    def _verified(self, source: Source, name: str, order: list[int], deviations: Tensor) -> list[Row]:
        """What moving each of some channels does: ``r`` and ``slope`` of the attribute, ``leakage`` into the others."""
        generator, network = source.networks
        start, k = self.codes(generator, "verify", self.verified).values, network.outputs.index(name)
        strengths = torch.linspace(-self.reach, self.reach, LEVELS, dtype=torch.float64, device=start.device)
        rows: list[Row] = []
        for place in tracked(order, f"channels of {name}"):
            moved = start[:, None].repeat(1, len(strengths), 1)
            moved[..., place] += (strengths * deviations[place]).to(start)
            (seen,) = scores_of_codes(generator, [network], Codes(moved, Space.S).flat(), source.batch_size)
            judged = seen.double().reshape(*moved.shape[:2], -1)
            slope = slopes(strengths[:, None], judged)[:, 0]
            own, reach = float(slope[:, k].mean()), slope.abs().mean(dim=0)
            leakage = float((reach.sum() - reach[k]) / max(1, len(reach) - 1) / reach[k].clamp(min=1e-30))
            r = float(correlations(strengths[:, None], judged)[:, 0, k].mean())
            rows.append({"place": place, "r": r, "slope": own, "leakage": leakage})
        return rows


def _named(generator: Generator, row: Row) -> Row:
    """A row whose ``place`` among all channels is told as style layer and channel, counted from 0."""
    layer = int(np.searchsorted(generator.style_offsets, row["place"], side="right")) - 1
    about = {"layer": layer, "channel": row["place"] - generator.style_offsets[layer]}
    return about | {key: value for key, value in row.items() if key != "place"}

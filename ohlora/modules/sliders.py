"""The sliders of latents, as the evaluation of edits makes and judges them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ohlora.attributes import vocabulary
from ohlora.errors import DataError
from ohlora.evaluation.features import Features
from ohlora.evaluation.generators import Observer
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.manifolds import Density
from ohlora.evaluation.scales import DataScale
from ohlora.evaluation.sliders import (
    FloatArray,
    Frames,
    Limits,
    Slider,
    SliderEdits,
    joint_measures,
    random_settings,
)
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator
from ohlora.utils import counted, figures, images

NUMBERS = (
    *("range_low", "range_high", "reach", "reach_below", "reach_above", "lowest", "start", "highest"),
    *("saturation", "jump", "pixel_jump", "density", "identity", "identity_min", "change_area"),
    *("joint_corr", "joint_error"),
)
"""What is measured of each slider of a latent, as far as it can be."""
START_DENSITY, JOINT_DENSITY = "start_density", "joint_density"
JOINT_IDENTITY = ("joint_identity", "joint_identity_min")
LOSSES = np.linspace(0.0, 0.5, 26)
"""Amounts of identity lost at which is told how far sliders go; at the last, it is as likely another person."""
CHANGE_TABLE, LOST = "change_and_identity", "identity_lost"
"""The table of how far sliders go for an amount of identity lost, and its column of these amounts."""


@dataclass(frozen=True)
class Slid:
    """What was measured of the P sliders of a latent.

    Attributes:
        numbers: By the names of :attr:`SliderTest.names`, as far as they could be measured.
        ranges: Lowest and highest strength of the tested ranges, P×2.
        scores: The judge's scores of each attribute along its slider, P×F.
        identity: What the identity network says along them, P×F; None where there is none.
        within: Change of each attribute for each of :data:`LOSSES`, P×B; see :meth:`Slider.change_within`. None
            likewise.
    """

    numbers: dict[str, float]
    ranges: FloatArray
    scores: FloatArray
    identity: FloatArray | None
    within: FloatArray | None


class SliderTest:
    """Moves each of P attributes alone in fine steps, then all at once at random, and judges the images.

    Args:
        edited: The attributes.
        generator: Makes the images.
        judge: Scores them.
        scales: What the judge's z-scores are in its data, of attributes of which that is known.
        edits: The edits of all sliders.
        limits: How far they may go.
        joint_count: Random settings of all sliders at once.
        seed: Of these settings.
        batch_size: Images made and judged at once.
        identity: Tells whether edits show the same person as the unedited image.

    Attributes:
        density: Tells how densely images lie among real ones; None until :meth:`compare_with`.
    """

    def __init__(
        self,
        edited: Sequence[str],
        generator: Generator,
        judge: AttributeCNN | AttributeEnsemble,
        scales: Mapping[str, DataScale],
        edits: SliderEdits,
        limits: Limits,
        joint_count: int,
        seed: int,
        batch_size: int,
        identity: Identity | None = None,
    ) -> None:
        self.identity = identity
        self.edited, self.generator, self.judge, self.edits, self.limits = edited, generator, judge, edits, limits
        self.joint_count, self.seed, self.batch_size = joint_count, seed, batch_size
        self.own = [judge.outputs.index(name) for name in edited]
        self.scales = {name: scales[name] for name in edited if name in scales}
        self.columns = {name: column for name in edited if (column := physical_column(name)) is not None}
        self.physical = {
            name: scale.physical
            for name, scale in self.scales.items()
            if scale.physical is not None and scale.physical.column == self.columns.get(name)
        }
        self.density: Density | None = None

    @property
    def names(self) -> list[str]:
        """What the numbers of a latent are called."""
        values = [f"{column}_{what}" for column in self.columns.values() for what in ("lowest", "start", "highest")]
        of_all = [START_DENSITY, JOINT_DENSITY, *JOINT_IDENTITY]
        return [f"{name}_{what}" for what in NUMBERS for name in self.edited] + values + of_all

    def compare_with(self, reals: Iterable[Tensor], features: Features, device: torch.device) -> None:
        """Also measures how densely frames lie among real images, half of which say what is dense.

        Args:
            reals: Batches N×3×H×W in [−1, 1], in random order.
            features: Makes the features on which density is measured.
            device: Where.

        Raises:
            DataError: If they are too few, or have nothing in common.
        """
        self.observer = Observer(features, [self.judge])
        seen = self.observer.observe(reals, device).features.to(device)
        half = len(seen) // 2
        try:
            self.density = Density(seen[:half], seen[half:])
        except ValueError as error:
            raise DataError(
                f"there is nothing to compare realism with: {error}. Take more real images "
                "(model.init_args.real_count), or others"
            ) from error

    @torch.no_grad()
    def look(self, codes: Codes) -> Frames:
        """The images of E codes, and what is seen in them."""
        made: list[Tensor] = []
        scores: list[Tensor] = []
        densities: list[Tensor] = []
        embedded: list[Tensor] = []
        for part in codes.split(self.batch_size):
            made.append(images.rounded(self.generator.synthesize(part)))
            if self.density is None:
                scores.append(self.judge(made[-1]))
            else:
                features, seen = self.observer(made[-1])
                scores.append(seen)
                densities.append(self.density(features))
            if self.identity is not None:
                embedded.append(self.identity.embed(made[-1]))
        density = torch.cat(densities).cpu().numpy() if densities else None
        seen = torch.cat(scores).double().cpu().numpy()
        return Frames(torch.cat(made), seen, density, torch.cat(embedded) if embedded else None)

    def _kept(self, unedited: Frames, edited: Frames) -> FloatArray | None:
        """What the identity network says of E edits and the first of the frames ``unedited``, (E,)."""
        if self.identity is None or unedited.embedded is None or edited.embedded is None:
            return None
        found: FloatArray = self.identity.compared(unedited.embedded[:1], edited.embedded).double().cpu().numpy()
        return found

    def measure(self, index: int, moved: Callable[[Tensor], Codes], slopes: Sequence[float]) -> Slid:
        """Measures one latent.

        Args:
            index: The latent's number.
            moved: Makes its codes moved by E×P strengths, 1×E.
            slopes: z-scores per unit of strength of each attribute, as measured on the grid.
        """
        seen, levels = self.look(moved(self.edits.strengths).flat()), self.edits.levels
        kept = self._kept(seen, seen)
        sliders: list[Slider] = []
        ends: list[tuple[int, int]] = []
        for p, own in enumerate(self.own):
            at = self.edits.places(p)
            density = None if seen.density is None else seen.density[at]
            same = None if kept is None else kept[at]
            sliders.append(Slider(levels, seen.scores[at], own, density, seen.pixel_jumps(at), same))
            ends.append(sliders[p].tested_range(self.limits, slopes[p]))
        ranges: FloatArray = levels[np.array(ends)]
        settings = random_settings(ranges, self.joint_count, counted.generator(self.seed, "settings", index))
        joint = self.look(moved(torch.from_numpy(settings).float()).flat())
        r, errors = joint_measures(sliders, settings, joint.scores)
        found: dict[str, float] = {}
        for p, name in enumerate(self.edited):
            measured = dict(zip(("range_low", "range_high"), ranges[p].tolist(), strict=True))
            measured |= sliders[p].measures(*ends[p]) | {"joint_corr": float(r[p]), "joint_error": float(errors[p])}
            lowest, start, highest = (measured[what] for what in ("lowest", "start", "highest"))
            if name in self.scales:
                scale = self.scales[name]
                measured["reach"] = scale.covered(lowest, highest)
                measured |= {"reach_below": scale.covered(lowest, start), "reach_above": scale.covered(start, highest)}
            if name in self.physical:
                of = self.physical[name]
                attained = {"lowest": lowest, "start": start, "highest": highest}
                found |= {f"{of.column}_{what}": of(value) for what, value in attained.items()}
            found |= {f"{name}_{what}": value for what, value in measured.items()}
        if seen.density is not None and joint.density is not None:
            found[START_DENSITY] = float(seen.density[0])
            found[JOINT_DENSITY] = float(joint.density.mean())
        if (kept_together := self._kept(seen, joint)) is not None:
            found |= dict(zip(JOINT_IDENTITY, (float(kept_together.mean()), float(kept_together.min())), strict=True))
        identity = within = None
        if kept is not None:
            identity = np.stack([kept[self.edits.places(p)] for p in range(len(self.edited))])
            within = np.stack([slider.change_within(LOSSES.tolist()) for slider in sliders])
            areas = np.trapezoid(within, LOSSES, axis=1) / LOSSES[-1]
            found |= {f"{name}_change_area": float(area) for name, area in zip(self.edited, areas, strict=True)}
        in_order = {name: found[name] for name in self.names if name in found}
        return Slid(in_order, ranges, np.stack([slider.moved for slider in sliders]), identity, within)

    def curves(self, slid: Sequence[Slid]) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, list[dict[str, Any]]]]:
        """How the sliders of many latents go: pictures and tables.

        Returns:
            ``sliders``: the judge's scores along them. Where there is an identity network, what it says of the same
            frames is in the table as well, and in the picture ``identity``; ``change_and_identity`` tells the change
            that is reached for an amount of identity lost.
        """
        levels = self.edits.levels
        ends = {name: (scale.low, scale.high) for name, scale in self.scales.items()}
        along = {"": np.stack([of.scores for of in slid])}
        pictures = {"sliders": figures.bands(levels, self._by_name(along[""]), ends, "z-score")}
        kept = [of.identity for of in slid if of.identity is not None]
        within = [of.within for of in slid if of.within is not None]
        if self.identity is not None:
            along["identity_"] = np.stack(kept)
            limits = dict.fromkeys(self.edited, (self.limits.identity,) if np.isfinite(self.limits.identity) else ())
            label = self.identity.measure.replace("_", " ")
            pictures["identity"] = figures.bands(levels, self._by_name(along["identity_"]), limits, label)
        columns: dict[str, FloatArray] = {}
        for what, values in along.items():
            (low, high), mean = np.percentile(values, (10, 90), axis=0), values.mean(axis=0)
            columns |= {f"{what}p10": low, f"{what}mean": mean, f"{what}p90": high}
        rows: list[dict[str, Any]] = [
            {"attribute": name, "strength": round(float(level), 4)}
            | {what: round(float(of[p, f]), 4) for what, of in columns.items()}
            for p, name in enumerate(self.edited)
            for f, level in enumerate(levels)
        ]
        tables = {"sliders": rows}
        if within:
            change = np.mean(within, axis=0)
            table: list[dict[str, Any]] = [
                {LOST: round(float(lost), 4)}
                | {name: round(float(change[p, b]), 4) for p, name in enumerate(self.edited)}
                for b, lost in enumerate(LOSSES)
            ]
            pictures[CHANGE_TABLE] = figures.curves(table, self.edited, LOST, "change in z-scores")
            tables[CHANGE_TABLE] = table
        return pictures, tables

    def _by_name(self, values: FloatArray) -> dict[str, FloatArray]:
        """N×P×F values by the P attributes."""
        return dict(zip(self.edited, values.swapaxes(0, 1), strict=True))


def physical_column(name: str) -> str | None:
    """What the physical value of an attribute is called, if the world in use declares one."""
    declared = vocabulary().declared.get(name)
    return declared.physical.column if declared is not None and declared.physical is not None else None

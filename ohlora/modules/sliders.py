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
    *("range_low", "range_high", "reach", "lowest", "highest", "saturation", "jump", "pixel_jump", "density"),
    *("joint_corr", "joint_error"),
)
"""What is measured of each slider of a latent, as far as it can be."""
JOINT_DENSITY = "joint_density"


@dataclass(frozen=True)
class Slid:
    """What was measured of the P sliders of a latent.

    Attributes:
        numbers: By the names of :attr:`SliderTest.names`, as far as they could be measured.
        ranges: Lowest and highest strength of the tested ranges, P×2.
        scores: The judge's scores of each attribute along its slider, P×F.
    """

    numbers: dict[str, float]
    ranges: FloatArray
    scores: FloatArray


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
    ) -> None:
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
        ends = [f"{column}_{end}" for column in self.columns.values() for end in ("lowest", "highest")]
        return [f"{name}_{what}" for what in NUMBERS for name in self.edited] + ends + [JOINT_DENSITY]

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
        for part in codes.split(self.batch_size):
            made.append(images.rounded(self.generator.synthesize(part)))
            if self.density is None:
                scores.append(self.judge(made[-1]))
            else:
                features, seen = self.observer(made[-1])
                scores.append(seen)
                densities.append(self.density(features))
        density = torch.cat(densities).cpu().numpy() if densities else None
        return Frames(torch.cat(made), torch.cat(scores).double().cpu().numpy(), density)

    def measure(self, index: int, moved: Callable[[Tensor], Codes], slopes: Sequence[float]) -> Slid:
        """Measures one latent.

        Args:
            index: The latent's number.
            moved: Makes its codes moved by E×P strengths, 1×E.
            slopes: z-scores per unit of strength of each attribute, as measured on the grid.
        """
        seen, levels = self.look(moved(self.edits.strengths).flat()), self.edits.levels
        sliders: list[Slider] = []
        ends: list[tuple[int, int]] = []
        for p, own in enumerate(self.own):
            at = self.edits.places(p)
            density = None if seen.density is None else seen.density[at]
            sliders.append(Slider(levels, seen.scores[at], own, density, seen.pixel_jumps(at)))
            ends.append(sliders[p].tested_range(self.limits, slopes[p]))
        ranges: FloatArray = levels[np.array(ends)]
        settings = random_settings(ranges, self.joint_count, counted.generator(self.seed, "settings", index))
        joint = self.look(moved(torch.from_numpy(settings).float()).flat())
        r, errors = joint_measures(sliders, settings, joint.scores)
        found: dict[str, float] = {}
        for p, name in enumerate(self.edited):
            measured = dict(zip(("range_low", "range_high"), ranges[p].tolist(), strict=True))
            measured |= sliders[p].measures(*ends[p]) | {"joint_corr": float(r[p]), "joint_error": float(errors[p])}
            lowest, highest = measured["lowest"], measured["highest"]
            if name in self.scales:
                measured["reach"] = self.scales[name].covered(lowest, highest)
            if name in self.physical:
                of = self.physical[name]
                found |= {f"{of.column}_lowest": of(lowest), f"{of.column}_highest": of(highest)}
            found |= {f"{name}_{what}": value for what, value in measured.items()}
        if joint.density is not None:
            found[JOINT_DENSITY] = float(joint.density.mean())
        in_order = {name: found[name] for name in self.names if name in found}
        return Slid(in_order, ranges, np.stack([slider.moved for slider in sliders]))

    def curves(self, slid: Iterable[Slid]) -> tuple[npt.NDArray[np.uint8], list[dict[str, Any]]]:
        """How the judge's scores go along the sliders of many latents: a picture, and a table."""
        scores, levels = np.stack([of.scores for of in slid]), self.edits.levels
        ends = {name: (scale.low, scale.high) for name, scale in self.scales.items()}
        picture = figures.bands(levels, dict(zip(self.edited, scores.swapaxes(0, 1), strict=True)), ends, "z-score")
        (low, high), mean = np.percentile(scores, (10, 90), axis=0), scores.mean(axis=0)
        rows = [
            {"attribute": name, "strength": round(float(level), 4)}
            | {what: round(float(of[p, f]), 4) for what, of in (("p10", low), ("mean", mean), ("p90", high))}
            for p, name in enumerate(self.edited)
            for f, level in enumerate(levels)
        ]
        return picture, rows


def physical_column(name: str) -> str | None:
    """What the physical value of an attribute is called, if the world in use declares one."""
    declared = vocabulary().declared.get(name)
    return declared.physical.column if declared is not None and declared.physical is not None else None

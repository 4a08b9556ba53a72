"""How far a slider goes, and how well: one attribute moved alone in fine steps, and all attributes at once.

A slider is a latent edited by rising strengths of one attribute, the others at 0; a judge scores every frame in
z-scores of its data. Correlation is blind to what is seen here: eyes that move by a pixel follow their strength, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ohlora.evaluation.edits import correlations

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """How far a slider may go.

    Attributes:
        growth: Least that a further unit of strength adds to the attribute, as a share of what it adds on the grid.
        leakage: Largest mean change of the other attributes, as a share of the change of its own, or of one z-score
            where that is less.
        realism: Least mean density of the outer half of the frames between the unedited image and the end, as a share
            of the reals' or of the unedited image's own, whichever is less. (All frames would let a dense beginning
            make up for an end that nothing real is like, and a single frame says little.)
        identity: Least that an identity network says of each frame and the unedited image: the probability of the same
            person, or their cosine similarity.
    """

    growth: float = 0.2
    leakage: float = 0.25
    realism: float = 0.5
    identity: float = 0.9


@dataclass(frozen=True)
class SliderEdits:
    """The edits of all P sliders of a latent, which share the unedited image.

    Attributes:
        count: The number P of attributes.
        farthest: Strength at either end.
        frames: Frames on either side of the unedited one.
    """

    count: int
    farthest: float
    frames: int

    @property
    def levels(self) -> FloatArray:
        """Strengths of the F = 2 · frames + 1 frames of a slider, rising."""
        return np.linspace(-self.farthest, self.farthest, 2 * self.frames + 1)

    @property
    def strengths(self) -> Tensor:
        """All edits, E×P; the first is none."""
        moving = np.delete(self.levels, self.frames)
        rows = torch.kron(torch.eye(self.count, dtype=torch.float64), torch.from_numpy(moving)[:, None])
        return torch.cat([torch.zeros(1, self.count, dtype=torch.float64), rows]).float()

    def places(self, attribute: int) -> list[int]:
        """Places of a slider's frames among the edits, rising."""
        first = 1 + 2 * self.frames * attribute
        return [*range(first, first + self.frames), 0, *range(first + self.frames, first + 2 * self.frames)]


@dataclass(frozen=True)
class Frames:
    """E images, and what was seen in them.

    Attributes:
        images: E×3×H×W in [−1, 1], rounded to grey levels.
        scores: The judge's, E×K.
        density: Density of each among real images over that of reals, (E,); None where it is not measured.
        embedded: Unit vectors of an identity network, E×D; None where there is none.
    """

    images: Tensor
    scores: FloatArray
    density: FloatArray | None
    embedded: Tensor | None = None

    def pixel_jumps(self, places: Sequence[int]) -> FloatArray:
        """Mean absolute change of the pixels from each of F places to the next, in grey levels: (F − 1,)."""
        steps = self.images[list(places)].double().diff(dim=0).abs().mean(dim=(1, 2, 3))
        found: FloatArray = (127.5 * steps).cpu().numpy()
        return found


@dataclass(frozen=True)
class Slider:
    """What was seen of one slider.

    Attributes:
        levels: Strengths of the F frames, rising, 0 in the middle.
        scores: The judge's, F×K.
        own: Column of the attribute that is moved.
        density: Density of each frame among real images over that of reals, (F,); None where it is not measured.
        pixel_jumps: Mean absolute change of the pixels from each frame to the next, in grey levels, (F − 1,).
        identity: What an identity network says of each frame and the unedited image, (F,); None where there is none.
    """

    levels: FloatArray
    scores: FloatArray
    own: int
    density: FloatArray | None
    pixel_jumps: FloatArray
    identity: FloatArray | None = None

    @property
    def start(self) -> int:
        """Place of the unedited frame."""
        return len(self.levels) // 2

    @property
    def moved(self) -> FloatArray:
        """Scores of the attribute that is moved, (F,)."""
        return self.scores[:, self.own]

    def tested_range(self, limits: Limits, slope: float) -> tuple[int, int]:
        """Places of the first and last frame of the tested range.

        To either side, the range goes as far as leakage, realism and identity allow all the way from the unedited
        image; and of that, to the frame that gains most after ``growth`` times the slope is taken off for every unit of
        strength. So it goes on while a unit adds more than that on average, over dips as well, and ends where the
        attribute stands still.

        Args:
            limits: See :class:`Limits`.
            slope: z-scores per unit of strength, as measured on the grid.
        """
        start = self.start
        sides = np.arange(start, -1, -1), np.arange(start, len(self.levels))
        low, high = (self._end(side, limits, slope) for side in sides)
        return low, high

    def _end(self, side: npt.NDArray[np.int_], limits: Limits, slope: float) -> int:
        """Place of the range's end among those of one side, from the unedited frame outwards."""
        away = self.levels[side] - self.levels[side[0]]
        changes = self.scores[side] - self.scores[side[0]]
        change = changes[:, self.own]
        others = np.delete(np.abs(changes), self.own, axis=1).sum(axis=1) / max(1, changes.shape[1] - 1)
        allowed = others <= limits.leakage * np.maximum(np.abs(change), 1)
        if self.density is not None:
            density = self.density[side]
            outer = np.array([density[k // 2 : k + 1].mean() for k in range(len(side))])
            allowed &= outer >= limits.realism * min(1.0, float(density[0]))
        if self.identity is not None:
            allowed &= self.identity[side] >= limits.identity
        within = np.logical_and.accumulate(allowed)
        gain = np.sign(away) * change - limits.growth * max(slope, 0.0) * np.abs(away)
        return int(side[np.argmax(np.where(within, gain, -np.inf))])

    def measures(self, low: int, high: int) -> dict[str, float]:
        """Numbers of the frames from place ``low`` to ``high``, which lie on either side of the unedited one.

        Returns:
            ``start``, ``lowest`` and ``highest``: z-scores of the unedited frame, and attained below and above it.
            ``saturation``: change of
            the attribute in the outer half of the range over that in the inner half; 1 for a straight line, 0 where the
            outer half does nothing (or the inner one does nothing, or the wrong). ``jump``: largest change between
            neighbouring frames, in z-scores. ``pixel_jump``: the largest of their pixels. ``density``: mean over the
            frames, where it is measured; ``identity`` and ``identity_min``: mean and least over the frames, likewise.
        """
        moved, start = self.moved, self.start
        found = {"start": float(moved[start]), "lowest": float(moved[low : start + 1].min())}
        found["highest"] = float(moved[start : high + 1].max())
        found["saturation"] = _saturation(self.levels, moved, self.levels[low], self.levels[high])
        found["jump"] = float(np.abs(np.diff(moved[low : high + 1])).max(initial=0.0))
        found["pixel_jump"] = float(self.pixel_jumps[low:high].max(initial=0.0))
        if self.density is not None:
            found["density"] = float(self.density[low : high + 1].mean())
        if self.identity is not None:
            kept = self.identity[low : high + 1]
            found |= {"identity": float(kept.mean()), "identity_min": float(kept.min())}
        return found

    def change_within(self, losses: Sequence[float]) -> FloatArray:
        """How far the attribute can be moved at a price.

        Args:
            losses: B amounts of identity that may be lost, 0 or more.

        Returns:
            For each amount, the largest change of the attribute, in z-scores the way it was asked, over the frames up
            to which no more is lost than that; mean of the two sides, (B,).

        Raises:
            ValueError: If identity is not measured.
        """
        if self.identity is None:
            raise ValueError("identity was not measured along this slider")
        start, found = self.start, np.zeros(len(losses))
        for side in (slice(start, None, -1), slice(start, None)):
            change = np.sign(self.levels[side] - self.levels[start]) * (self.moved[side] - self.moved[start])
            lost = np.maximum.accumulate(self.identity[start] - self.identity[side])
            within = lost[None] <= np.asarray(losses)[:, None]
            found += np.where(within, np.maximum.accumulate(change.clip(min=0.0)), 0.0).max(axis=1) / 2
        return found


def _saturation(levels: FloatArray, scores: FloatArray, low: float, high: float) -> float:
    at_low, inner_low, inner_high, at_high = np.interp([low, low / 2, high / 2, high], levels, scores)
    inner = inner_high - inner_low
    return float(((at_high - at_low) - inner) / inner) if inner > 0 else 0.0


def random_settings(ranges: FloatArray, count: int, random: np.random.Generator) -> FloatArray:
    """Settings of all sliders at once, ``count``×P: uniform within P ranges, P×2 strengths."""
    low, high = ranges.T
    settings: FloatArray = low + (high - low) * random.random((count, len(ranges)))
    return settings


def joint_measures(
    sliders: Sequence[Slider], settings: FloatArray, scores: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """How well sliders do together.

    Args:
        sliders: The P sliders.
        settings: Strengths of M edits, M×P.
        scores: The judge's, M×K.

    Returns:
        Correlation of each strength with the score of its attribute over the edits, (P,), 0 where one does not change;
        and composition error, (P,): mean absolute difference, in z-scores, between the score of an attribute and the
        one that its slider alone attains at the same strength.
    """
    own = [slider.own for slider in sliders]
    r = correlations(torch.from_numpy(settings), torch.from_numpy(scores)[None])[0][range(len(own)), own]
    alone = np.stack([np.interp(settings[:, p], s.levels, s.moved) for p, s in enumerate(sliders)], axis=1)
    errors: FloatArray = np.abs(scores[:, own] - alone).mean(axis=0)
    return r.numpy(), errors

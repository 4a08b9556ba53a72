"""How well edits do what was asked: the figures of the image generation test.

With strengths s (E×P, a full grid) and scores y (K attributes, in standard deviations over the samples) of a latent's
E edits: r is Pearson's correlation of s and y of the same attribute; the slope of y by s says by how many standard
deviations a unit of strength moves it; the leakage of an edit is the mean absolute slope of the other attributes over
that of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat


def correlations(strengths: Tensor, scores: Tensor) -> Tensor:
    """Pearson's correlation of each strength with each score.

    Args:
        strengths: E×P.
        scores: N×E×K.

    Returns:
        N×P×K, 0 where a score does not change.
    """
    s = strengths - strengths.mean(dim=0)
    y = scores - scores.mean(dim=1, keepdim=True)
    products = torch.einsum("ep,nek->npk", s, y)
    norms = s.norm(dim=0)[:, None] * y.norm(dim=1)[:, None]
    return torch.where(norms > 0, products / norms.clamp(min=1e-30), 0.0).clamp(-1, 1)


def slopes(strengths: Tensor, scores: Tensor) -> Tensor:
    """Change of each score per unit of each strength, by least squares on a full grid: N×P×K from E×P and N×E×K."""
    s = strengths - strengths.mean(dim=0)
    return torch.einsum("ep,nek->npk", s / s.square().sum(dim=0), scores)


def monotone_shares(scores: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """Share of neighbours along an axis of the grid where the higher strength has the higher score.

    Args:
        scores: N×E, E in the order of the grid.
        shape: Levels per axis.
        axis: Which one.

    Returns:
        (N,), 0…1.
    """
    rising = scores.reshape(-1, *shape).diff(dim=axis + 1) > 0
    return torch.mean(rising.flatten(1).double(), dim=1)


class EditReport(torchmetrics.Metric):
    """Figures of the edits of many latents, over batches and processes.

    Args:
        attributes: The P attributes that edits move.
        outputs: The K attributes that are scored.
        shape: Levels of the grid, slowest first.
        axes: The grid's axis of each attribute.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(
        self, attributes: Sequence[str], outputs: Sequence[str], shape: Sequence[int], axes: Sequence[int]
    ) -> None:
        super().__init__()
        self.attributes, self.outputs = tuple(attributes), tuple(outputs)
        self.shape, self.axes = tuple(shape), tuple(axes)
        self.own = [self.outputs.index(name) for name in attributes]
        self.staying = [k for k, name in enumerate(outputs) if name not in self.attributes]
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    @property
    def columns(self) -> list[str]:
        """Names of the figures of a latent, after its index and group."""
        names = ["index", "group"]
        for what in ("corr", "slope", "monotone", "leakage"):
            names += [f"{name}_{what}" for name in self.attributes]
        names += [f"drift_{self.outputs[k]}" for k in self.staying]
        return names + [f"slope_{name}_{other}" for name in self.attributes for other in self.outputs]

    def update(self, index: Tensor, group: Tensor, strengths: Tensor, scores: Tensor, unedited: Tensor) -> None:
        """Adds latents.

        Args:
            index: N numbers of latents.
            group: N groups.
            strengths: E×P.
            scores: N×E×K, in standard deviations.
            unedited: N×K, likewise.
        """
        strengths, scores, unedited = strengths.to(scores).double(), scores.double(), unedited.double()
        each = range(len(self.attributes))
        r = correlations(strengths, scores)[:, each, self.own]
        slope = slopes(strengths, scores)
        own = slope[:, each, self.own]
        monotone = [monotone_shares(scores[..., k], self.shape, a) for k, a in zip(self.own, self.axes, strict=True)]
        others = slope.abs().sum(dim=2) - own.abs()
        leakage = others / (len(self.outputs) - 1) / own.abs()
        drift = (scores - unedited[:, None]).abs().mean(dim=1)[:, self.staying]
        parts = [index[:, None].double(), group[:, None].double(), r, own, torch.stack(monotone, dim=1), leakage, drift]
        self.rows.append(torch.cat([part.to(scores) for part in (*parts, slope.flatten(1))], dim=1))

    def compute(self) -> list[dict[str, float]]:
        """The figures of each latent, in the order of their index; collective."""
        rows = dim_zero_cat(self.rows)  # one tensor after a reduction over processes, a list before it
        ordered = rows[rows[:, 0].argsort()].cpu()
        return [dict(zip(self.columns, row, strict=True)) for row in ordered.tolist()]


def passes(row: dict[str, float], limits: dict[str, float]) -> bool:
    """Whether every correlation is at its limit or above, sign included."""
    return all(row[f"{name}_corr"] >= limit for name, limit in limits.items())


def summary(
    rows: Sequence[dict[str, float]], attributes: Sequence[str], outputs: Sequence[str], limits: dict[str, float]
) -> dict[str, Any]:
    """Figures over all latents.

    Returns:
        ``passed`` and ``passed_ratio``; per attribute the means of r, slope and monotone share, ``leakage`` (mean of
        the latents' own), ``systematic_leakage`` (absolute mean slope of the others over that of its own); per staying
        attribute the drift.
    """
    table = {key: torch.tensor([row[key] for row in rows], dtype=torch.float64) for key in rows[0]}
    passed = sum(passes(row, limits) for row in rows)
    found: dict[str, Any] = {"latents": len(rows), "passed": passed, "passed_ratio": passed / len(rows)}
    for name in attributes:
        found[f"{name}_corr_mean"] = float(table[f"{name}_corr"].mean())
        found[f"{name}_passed_ratio"] = float((table[f"{name}_corr"] >= limits[name]).double().mean())
        found[f"{name}_slope_mean"] = float(table[f"{name}_slope"].mean())
        found[f"{name}_monotone_mean"] = float(table[f"{name}_monotone"].mean())
        found[f"{name}_leakage_mean"] = float(table[f"{name}_leakage"].mean())
        means = {other: float(table[f"slope_{name}_{other}"].mean()) for other in outputs}
        apart = [abs(value) for other, value in means.items() if other != name]
        found[f"{name}_systematic_leakage"] = sum(apart) / len(apart) / abs(means[name])
        for other, value in means.items():
            found[f"slope_{name}_{other}_mean"] = value
    for key in table:
        if key.startswith("drift_"):
            found[f"{key}_mean"] = float(table[key].mean())
    return found

"""How well edits do what was asked.

With strengths s (E×P, a grid) and scores y (K attributes, in z-scores of the data) of a latent's E edits: r is
Pearson's correlation of s and y of the same attribute; the slope of y by s says by how many z-scores a unit of strength
moves it; the leakage of an edit is the mean absolute slope of the other attributes over that of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from ohlora.evaluation.conditions import passing


def correlations(strengths: Tensor, scores: Tensor) -> Tensor:
    """Pearson's correlation of each strength (E×P) with each score (N×E×K): N×P×K, 0 where a score does not change."""
    s = strengths - strengths.mean(dim=0)
    y = scores - scores.mean(dim=1, keepdim=True)
    products = torch.einsum("ep,nek->npk", s, y)
    norms = s.norm(dim=0)[:, None] * y.norm(dim=1)[:, None]
    return torch.where(norms > 0, products / norms.clamp(min=1e-30), 0.0).clamp(-1, 1)


def slopes(strengths: Tensor, scores: Tensor) -> Tensor:
    """Change of each score per unit of each strength, by least squares: N×P×K from E×P and N×E×K."""
    s = strengths - strengths.mean(dim=0)
    return torch.einsum("pe,nek->npk", torch.linalg.solve(s.T @ s, s.T), scores)


def monotone_shares(scores: Tensor, neighbours: Tensor) -> Tensor:
    """Share of neighbours on the grid where the higher strength has the higher score: (N,), 0…1.

    Args:
        scores: N×E.
        neighbours: Pairs of edits, the one with the higher strength second: M×2.
    """
    lower, higher = neighbours.to(scores.device).T
    return (scores[:, higher] > scores[:, lower]).double().mean(dim=1)


class EditReport(torchmetrics.Metric):
    """Numbers of the edits of many latents, over batches and processes.

    Args:
        attributes: The P attributes that edits move.
        outputs: The K attributes that are scored.
        neighbours: Per attribute, its neighbours on the grid; see :func:`monotone_shares`.

    Attributes:
        followed: Mean correlation of each strength with each score, P×K; there after :meth:`compute`.
    """

    full_state_update = False
    rows: list[Tensor]
    followed: Tensor

    def __init__(self, attributes: Sequence[str], outputs: Sequence[str], neighbours: Sequence[Tensor]) -> None:
        super().__init__()
        self.attributes, self.outputs, self.neighbours = tuple(attributes), tuple(outputs), tuple(neighbours)
        self.own = [self.outputs.index(name) for name in attributes]
        self.staying = [k for k, name in enumerate(outputs) if name not in self.attributes]
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, group: Tensor, strengths: Tensor, scores: Tensor, unedited: Tensor) -> None:
        """Adds N latents: their numbers (N,), groups (N,), strengths E×P, scores N×E×K and those unedited, N×K."""
        strengths, scores, unedited = strengths.to(scores).double(), scores.double(), unedited.double()
        each = range(len(self.attributes))
        r = correlations(strengths, scores)
        slope = slopes(strengths, scores)
        own = slope[:, each, self.own]
        monotone = [monotone_shares(scores[..., k], near) for k, near in zip(self.own, self.neighbours, strict=True)]
        others = slope.abs().sum(dim=2) - own.abs()
        leakage = others / max(1, len(self.outputs) - 1) / own.abs()  # with one output there is nothing to leak to
        drift = (scores - unedited[:, None]).abs().mean(dim=1)[:, self.staying]
        about = torch.stack([index, group], dim=1).to(scores)
        parts = [about, r[:, each, self.own], own, torch.stack(monotone, dim=1), leakage, drift, slope.flatten(1)]
        self.rows.append(torch.cat([*parts, r.flatten(1)], dim=1))

    @property
    def names(self) -> list[str]:
        """What the numbers of a latent are called."""
        names = ["index", "group"]
        names += [f"{name}_{what}" for what in ("corr", "slope", "monotone", "leakage") for name in self.attributes]
        names += [f"drift_{self.outputs[k]}" for k in self.staying]
        return names + [f"slope_{name}_{other}" for name in self.attributes for other in self.outputs]

    def compute(self) -> list[dict[str, float]]:
        """The numbers of each latent, in the order of their index; collective."""
        rows = dim_zero_cat(self.rows)  # one tensor after a reduction over processes, a list before it
        of_latents, r = rows[rows[:, 0].argsort()].tensor_split([len(self.names)], dim=1)
        self.followed = r.mean(dim=0).view(len(self.attributes), len(self.outputs))
        return [dict(zip(self.names, row, strict=True)) for row in of_latents.tolist()]


def summary(
    rows: Sequence[dict[str, float]], attributes: Sequence[str], outputs: Sequence[str], limits: dict[str, float]
) -> dict[str, Any]:
    """Numbers over all latents.

    Returns:
        ``latents``, ``passed`` and ``passed_ratio``; per attribute the share that passes and ``systematic_leakage``
        (absolute mean slope of the others over that of its own; infinite where that is 0); the mean of each number of
        ``rows``, as ``…_mean``.
    """
    columns = [key for key in rows[0] if key not in ("index", "group")]
    table = {key: torch.tensor([row[key] for row in rows], dtype=torch.float64) for key in columns}
    means = {key: float(values.mean()) for key, values in table.items()}
    passed = sum(map(bool, map(passing(limits).met, rows)))
    found: dict[str, Any] = {"latents": len(rows), "passed": passed, "passed_ratio": passed / len(rows)}
    for name in attributes:
        found[f"{name}_passed_ratio"] = float((table[f"{name}_corr"] >= limits[name]).double().mean())
        others = [abs(means[f"slope_{name}_{other}"]) for other in outputs if other != name]
        own = abs(means[f"slope_{name}_{name}"])
        found[f"{name}_systematic_leakage"] = fmean(others or [0.0]) / own if own else math.inf
    return found | {f"{key}_mean": value for key, value in means.items()}

"""On which style layers a direction acts: the ranges of layers, measured and chosen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ohlora.directions.edits import Grid
from ohlora.directions.finder import Finder, Notes, Row, Source
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError
from ohlora.evaluation.edits import correlations, slopes
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import counted_latents, scores_of_codes

Range = tuple[int, int]
"""First and last style layer, counted from 0."""
TOLERATED = 0.02
"""How far below the best correlation a range of layers may lie to be chosen for its small leakage."""


def arranged(
    finder: Finder, steps_of: Callable[[Range | None], Tensor], groups: Groups, source: Source, notes: Notes
) -> tuple[Codes, str | dict[str, Range]]:
    """Steps on the layers that the finder's setting ``layers`` names, other than ``each``.

    Args:
        finder: The finder.
        steps_of: Steps for a range of layers, or for all (None): G×P×D.
        groups: The grouping rule.
        source: What the finder was given.
        notes: Takes the table of a sweep.

    Returns:
        G×P steps, in W where all layers share them, otherwise by layer; and a range per attribute, or ``all``.

    Raises:
        ConfigError: If a range reaches beyond the generator's layers.
    """
    if finder.layers in ("sweep", "auto"):
        notes.tables["layers"] = rows = swept(finder, steps_of, groups, source)
    if finder.layers == "auto":
        chosen = {name: least_leaking([row for row in rows if row["attribute"] == name]) for name in finder.targets}
    elif isinstance(finder.layers, str):
        return Codes(steps_of(None), Space.W), "all"
    else:
        chosen = dict.fromkeys(finder.targets, (finder.layers[0], finder.layers[1]))
    assert source.generator is not None  # see Finder.needs
    count, parts = source.generator.num_ws, []
    for p, (first, last) in enumerate(chosen.values()):
        if last >= count:
            raise ConfigError(f"layers reach to {last}; the generator has {count}, 0 to {count - 1}")
        step = steps_of((first, last))[:, p]
        by_layer = step.new_zeros(len(step), count, step.shape[-1])
        by_layer[:, first : last + 1] = step[:, None]
        parts.append(by_layer)
    return Codes(torch.stack(parts, dim=1), Space.W_BY_LAYER), chosen


def least_leaking(rows: list[Row]) -> Range:
    """Of the ranges that follow nearly as well as the best one does, the one that leaks least."""
    best = max(row["r"] for row in rows)
    row = min((row for row in rows if row["r"] >= best - TOLERATED), key=lambda row: row["leakage"])
    return int(row["first"]), int(row["last"])


@torch.no_grad()
def swept(finder: Finder, steps_of: Callable[[Range | None], Tensor], groups: Groups, source: Source) -> list[Row]:
    """``r``, ``slope``, ``leakage`` and ``drift`` of every range of layers and attribute, by the search CNN."""
    generator, network = source.networks
    outputs, count, targets = network.outputs, generator.num_ws, finder.targets

    def seen(codes: Codes) -> Tensor:
        return scores_of_codes(generator, [network], codes, source.batch_size)[0]

    own = generator.map(*counted_latents(generator, finder.seed, range(finder.sweep_count), "layers/"))
    scores = seen(own)
    unedited = scores.double()
    group = torch.from_numpy(groups.assign(outputs, scores.cpu().numpy()))
    staying = [k for k, name in enumerate(outputs) if name not in targets]
    levels = Grid.of(targets, source.grid).levels
    start = own.in_space(Space.W_BY_LAYER, count).values[:, None]
    rows: list[Row] = []
    for first in range(count):
        for last in range(first, count):
            steps = steps_of((first, last)).to(start)[group.to(start.device)]
            for p, name in enumerate(targets):
                strengths = torch.linspace(min(levels[name]), max(levels[name]), 5).to(start)
                codes = start.repeat(1, 5, 1, 1)
                codes[:, :, first : last + 1] += (strengths[:, None] * steps[:, p, None])[:, :, None]
                judged = seen(Codes(codes, Space.W_BY_LAYER).flat()).double().reshape(len(start), 5, -1)
                alone, k = strengths[:, None].double(), outputs.index(name)
                slope = slopes(alone, judged)[:, 0]
                reach = slope.abs().mean(dim=0)
                measured = {
                    "r": correlations(alone, judged)[:, 0, k].mean(),
                    "slope": slope[:, k].mean(),
                    "leakage": (reach.sum() - reach[k]) / max(1, len(outputs) - 1) / reach[k],
                    "drift": (judged - unedited[:, None]).abs()[..., staying].mean(),
                }
                row: Row = {"attribute": name, "first": first, "last": last}
                rows.append(row | {key: round(float(value), 4) for key, value in measured.items()})
    return rows

"""Compares ways of finding directions, and writes docs/results/comparison.csv and docs/images/comparison.png.

Beside the figure stands another of the change that each method reaches for an amount of identity lost
(``comparison_identity.png``), where the evaluation has an identity network.

python scripts/compare_directions.py --config configs/toy/compare_directions.yaml

Every method searches and is evaluated through the entry point, on the same generator, latents, judge and grid (labels
alone move latents that are not at rest), with strengths scaled so that each moves its attribute by one of the judge's
z-scores. A cell (method, budget, seed) is saved when it is done and skipped the next time; ``--part 1/2`` and
``--part 2/2`` can run side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from ohlora import commandline, pipeline, worlds
from ohlora.__main__ import main as ohlora
from ohlora.attributes import vocabulary
from ohlora.characters.reports import DIRECTIONS, STATISTICS
from ohlora.directions.edits import Directions, LocalBasis, PathBasis
from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.formats.direction_files import load_directions
from ohlora.modules.sliders import CHANGE_TABLE, LOST
from ohlora.utils import figures, images
from ohlora.utils.commands import command
from ohlora.utils.files import config_file, locked, read_rows, write_json, write_rows

Row = dict[str, Any]
COUNTED = {"gradients": "latents", "steps": "steps"}
"""Budgets other than samples → the finder's setting that says how many."""
PER_ATTRIBUTE = {
    "r": "corr_mean",
    "slope": "slope_mean",
    "monotone": "monotone_mean",
    "leakage_systematic": "systematic_leakage",
    "leakage_per_latent": "leakage_mean",
    "reach": "reach_mean",
    "identity_min": "identity_min_mean",
    "change_area": "change_area_mean",
    "r_parsed": "parsed_corr_mean",
}


def run(verb: str, files: Sequence[str], settings: Mapping[str, object]) -> float:
    """Runs a command of the entry point; seconds it took.

    Raises:
        ConfigError: If it fails; it has said why.
    """
    words = [verb, *(word for file in files for word in ("--config", file))]
    for key, value in settings.items():
        words += [f"--{key}", json.dumps(value) if value is None or isinstance(value, (list, dict)) else str(value)]
    words += ["--trainer.logger.init_args.mode", "disabled", "--trainer.enable_progress_bar", "false"]
    started = time.monotonic()
    if ohlora(words):
        raise ConfigError(f"ohlora {' '.join(words)} failed")
    return time.monotonic() - started


def sampled(config: DictConfig, seed: int) -> tuple[Path, float]:
    """The samples of a seed, made where they are missing; their folder, and seconds per sample."""
    folder, count = Path(config.root) / f"samples_{seed}", max(config.samples)
    note = folder / "seconds.json"
    with locked(folder):  # parts that run side by side wait for the one that samples
        if not note.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # half-made, it would make the rest look fast
            settings: dict[str, object] = {
                "model.init_args.output": folder,
                "model.init_args.network": config.network,
                "model.init_args.seed": seed,
                "data.init_args.count": count,
            }
            seconds = run("predict", config.sampling, settings | {"trainer.default_root_dir": folder / "stage"})
            write_json(note, seconds / count)
    return folder, float(json.loads(note.read_text(encoding="utf-8")))


def cells(config: DictConfig) -> list[tuple[str, int | None, int]]:
    """All (method, budget, seed), cheap ones first."""
    found: list[tuple[str, int | None, int]] = []
    for seed in config.seeds:
        for name, method in config.methods.items():
            budgets = config[method.budget] if method.budget else [None]
            found += [(name, budget, seed) for budget in budgets]
    # Labels need no search, so that seeds do not matter.
    unseeded = {name for name, method in config.methods.items() if "labels" in method}
    return [cell for cell in found if cell[0] not in unseeded or cell[2] == config.seeds[0]]


def images_per_latent(found: Directions) -> int:
    """Images with gradients that edits of a single latent take, where they are its own."""
    if isinstance(found.basis, LocalBasis):
        return found.basis.points * found.basis.rounds
    if isinstance(found.basis, PathBasis):
        return 2 * found.basis.nodes * len(found.attributes)
    return 0


def measured(config: DictConfig, name: str, budget: int | None, seed: int) -> Row:
    """Searches and evaluates one cell."""
    method = OmegaConf.to_container(config.methods[name])
    assert isinstance(method, dict)
    folder = Path(config.root) / "runs" / f"{name}-{budget or 0}-{seed}"
    # The guide is that of the method's search, if there is one.
    evaluation: dict[str, object] = {"directions": folder / DIRECTIONS, "network": config.network, "guide": None}
    seconds, used, per_latent = 0.0, 0, 0
    if "labels" in method:
        # Every label is another code, so that nothing is at rest.
        evaluation |= {"directions": None, "labels": method["labels"], "rest": None}
    else:
        # The recipe's own finder says how it groups, and would hand that on to every other.
        settings: dict[str, Any] = {"group_by": None} | (method["finder"].get("init_args") or {}) | {"seed": seed}
        search: dict[str, object] = {"model.init_args.output": folder, "trainer.default_root_dir": folder}
        search["model.init_args.network"] = config.network
        if method["budget"] in COUNTED:
            settings |= {COUNTED[method["budget"]]: budget}
        else:
            data, per_sample = sampled(config, seed)
            used = int(budget or 1000)
            seconds = per_sample * used
            search |= {"data.init_args.folder": data, "data.init_args.count": used}
        if method.get("guided", False):
            search["model.init_args.guide"] = evaluation["guide"] = {"file": config.guide}
        search["model.init_args.finder"] = {"class_path": method["finder"]["class_path"], "init_args": settings}
        seconds += run("fit", config.recipe, search)
        found_directions = load_directions(folder / DIRECTIONS)
        used += found_directions.provenance.get("images", 0)
        per_latent = images_per_latent(found_directions)
    evaluation |= {"output": folder, "sheets": 1}
    evaluation |= {key: config[key] for key in ("calibrate", "parser", "discriminator", "closer_count")}
    words: dict[str, object] = {f"model.init_args.{key}": value for key, value in evaluation.items()}
    words |= {"data.init_args.count": config.latents, "data.init_args.batch_size": 12}
    tested = run("test", config.evaluation, words | {"trainer.default_root_dir": folder / "evaluation"})
    (found,) = read_rows(folder / STATISTICS)
    runs = sorted((folder / "evaluation" / "runs").iterdir())
    change = runs[-1] / f"{CHANGE_TABLE}.csv"
    row: Row = {"method": name, "budget": budget or "", "seed": seed, "pass_rate": float(found["passed_ratio"])}
    for what, column in PER_ATTRIBUTE.items():
        row |= {f"{what}_{a}": float(found.get(f"{a}_{column}", "nan")) for a in vocabulary().names("expression")}
    drift = [float(value) for key, value in found.items() if key.startswith("drift_")]
    row |= {"drift": round(float(np.mean(drift)), 4), "realism_change": float(found.get("realism_change", "nan"))}
    images_used = {"images": used, "images_per_latent": per_latent}
    row |= images_used | {"seconds": round(seconds, 1), "test_seconds": round(tested, 1)}
    return row | {CHANGE_TABLE: read_rows(change) if change.is_file() else []}


def _refuse_another_measure(config: DictConfig) -> None:
    """Cells of two search CNNs, or of two ways of evaluating, must not stand in one table."""
    said = "".join(Path(config_file(str(path))).read_text(encoding="utf-8") for path in config.evaluation)
    settings = {key: config[key] for key in ("latents", "calibrate")}
    own = {
        "network": network_files.fingerprint(config.network),
        "evaluation": hashlib.sha256(f"{said}{settings}".encode()).hexdigest(),
    }
    note = Path(config.root) / "measure.json"
    with locked(Path(config.root)):
        if not note.is_file():
            write_json(note, own)
    known = json.loads(note.read_text(encoding="utf-8"))
    if differs := [key for key, value in own.items() if known[key] != value]:
        raise ConfigError(f"{config.root} was measured with another {' and '.join(differs)}; remove it, or set root=…")


def compare(config: DictConfig, part: int, parts: int) -> list[Row]:
    """Measures what is missing of a part of the cells.

    Returns:
        The rows of all cells that are done, of any part.

    Raises:
        ConfigError: If the cells that are done are of another search CNN or evaluation, or one fails.
    """
    _refuse_another_measure(config)
    paths = [Path(config.root) / "cells" / f"{name}-{budget or 0}-{seed}.json" for name, budget, seed in cells(config)]
    for place, (path, (name, budget, seed)) in enumerate(zip(paths, cells(config), strict=True)):
        if not path.is_file() and place % parts == part - 1:
            row = measured(config, name, budget, seed)
            write_json(path, row)
            print(f"{name} {budget or ''} seed {seed}: {row['pass_rate']:.1%} pass", flush=True)
    # Only now: other parts have measured meanwhile.
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def drawn(rows: list[Row], methods: Sequence[str]) -> np.ndarray:
    """Bars of the means over seeds, a panel per figure; budgets of a method side by side."""
    panels = {
        "pass rate": "pass_rate",
        "mean r": "r",
        "leakage per latent": "leakage_per_latent",
        "leakage, systematic": "leakage_systematic",
        "drift (standard deviations)": "drift",
        "monotone share": "monotone",
        "images": "images",
        "seconds": "seconds",
    }
    figure = Figure(figsize=(16, 8), layout="constrained")
    for k, (title, what) in enumerate(panels.items()):
        columns = [f"{what}_{a}" for a in vocabulary().names("expression")] if what in PER_ATTRIBUTE else [what]
        axes = figure.add_subplot(2, 4, k + 1)
        for m, name in enumerate(methods):
            budgets = sorted({row["budget"] for row in rows if row["method"] == name}, key=lambda b: b or 0)
            for b, budget in enumerate(budgets):
                mine = [row for row in rows if (row["method"], row["budget"]) == (name, budget)]
                values = [float(np.mean([row[column] for column in columns])) for row in mine]
                place = m + (b - (len(budgets) - 1) / 2) * 0.25
                shade = 0.4 + 0.3 * b if len(budgets) > 1 else 1.0
                axes.bar(place, np.mean(values), 0.23, color="tab:blue", alpha=shade)
                axes.plot([place] * len(values), values, ".", color="black", markersize=3)
        axes.set(title=title, xticks=range(len(methods)))
        axes.set_xticklabels(methods, rotation=60, ha="right", fontsize=8)
        if title.startswith("leakage"):
            axes.set_ylim(0, 1)
        if title in ("images", "seconds"):
            axes.set_yscale("symlog")
    return figures.rendered(figure)


def identity_drawn(rows: Sequence[Row], methods: Sequence[str]) -> np.ndarray | None:
    """Change reached, mean over attributes and seeds, for an amount of identity lost; None where it is not measured.

    A line per method at its largest budget, with the area under it over its width.
    """
    lines: dict[str, dict[float, float]] = {}
    for name in methods:
        mine = [row for row in rows if row["method"] == name and row[CHANGE_TABLE]]
        if not mine:
            continue
        largest = max(row["budget"] or 0 for row in mine)
        points: dict[float, list[float]] = {}
        for point in (point for row in mine if (row["budget"] or 0) == largest for point in row[CHANGE_TABLE]):
            change = [float(value) for attribute, value in point.items() if attribute != LOST]
            points.setdefault(float(point[LOST]), []).extend(change)
        line = {lost: float(np.mean(change)) for lost, change in sorted(points.items())}
        area = np.trapezoid([*line.values()], [*line]) / max(line)
        lines[f"{name} {largest or ''}: area {area:.2f}"] = line
    if not lines:
        return None
    at = next(iter(lines.values()))
    table = [{LOST: lost} | {name: line[lost] for name, line in lines.items()} for lost in at]
    return figures.curves(table, [*lines], LOST, "change reached, z-scores")


@command("compare_directions")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Compares ways of finding directions.")
    parser.add_argument("--config", type=Path, required=True, help="what to compare")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="measure every N-th cell only (default: 1/1)")
    parser.add_argument("--output", type=Path, default=Path("docs/results/comparison.csv"), help="table to write")
    parser.add_argument("--figure", type=Path, default=Path("docs/images/comparison.png"), help="figure to write")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, such as latents=10")
    given = parser.parse_args(args)
    known = OmegaConf.load(config_file(str(given.config)))
    commandline.use(pipeline.world(OmegaConf.select(known, "world", default=worlds.DEFAULT)))
    OmegaConf.set_struct(known, True)
    part, _, parts = given.part.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"--part is {given.part}; expected K/N with 1 <= K <= N")
    try:
        config = OmegaConf.merge(known, OmegaConf.from_dotlist(given.overrides))
        assert isinstance(config, DictConfig)
        rows = compare(config, int(part), int(parts))
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise ConfigError(str(error)) from error
    if len(rows) < len(cells(config)):
        print(f"{len(rows)} of {len(cells(config))} cells are done")
        return
    write_rows(given.output, [{key: value for key, value in row.items() if key != CHANGE_TABLE} for row in rows])
    images.save_png(drawn(rows, list(config.methods)), given.figure)
    made = [given.output, given.figure]
    if (of_identity := identity_drawn(rows, list(config.methods))) is not None:
        made.append(given.figure.with_stem(f"{given.figure.stem}_identity"))
        images.save_png(of_identity, made[-1])
    print(", ".join(map(str, made)))


if __name__ == "__main__":
    sys.exit(main())

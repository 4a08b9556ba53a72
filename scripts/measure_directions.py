"""Measures the toy world's directions, and writes docs/results/directions.csv.

python scripts/measure_directions.py

Samples, searches and tests anew, in a temporary folder, with the toy fine-tune v8 (docs/finetuning.md makes it).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.__main__ import main as ohlora
from ohlora.attributes import EXPRESSIONS
from ohlora.character import Character
from ohlora.errors import OhloraError
from ohlora.files import read_rows, require, write_results
from ohlora.networks.stylegan import Generator
from ohlora.reports import STATISTICS, Report

Row = dict[str, Any]
FOUND = "as found"


def stage(command: str, name: str, **settings: object) -> float:
    """Runs a stage of the toy world with some settings changed; seconds it took."""
    words = [command, "--config", f"configs/{name}.yaml", "--config", f"configs/toy/{name}.yaml"]
    words += ["--trainer.logger.init_args.mode", "disabled"]
    words += [word for key, value in settings.items() for word in (f"--{key.replace('__', '.')}", str(value))]
    started = time.monotonic()
    if ohlora(words):
        raise SystemExit(2)
    return time.monotonic() - started


def milliseconds(work: Callable[[], object], times: int) -> float:
    """Median time of some work, after it has warmed up."""
    work()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))


def rendering_rows(small: Character) -> list[Row]:
    """What an image of a character takes at both resolutions; the larger has random weights."""
    torch.manual_seed(0)
    large = Character(Generator(256).eval(), torch.randn(512), small.attributes, torch.randn(3, 512), small.ranges)
    asked = dict.fromkeys(small.attributes, 0.1)
    return [
        {"what": "Character.render at 64×64, milliseconds", "target": "<= 15"}
        | {"measured": milliseconds(lambda: small.render(strict=False, **asked), 50)},
        {"what": "Character.render at 256×256, milliseconds", "target": "<= 500"}
        | {"measured": milliseconds(lambda: large.render(strict=False, **asked), 5)},
    ]


def measure(generator: Path, folder: Path, latents: int) -> list[Row]:
    """All rows of the table."""
    require(generator, "python -m ohlora fit --config configs/finetune_v8.yaml --config configs/toy/finetune_v8.yaml")
    root, set_folder, found = folder / "stage", folder / "samples", folder / "found"
    common = {"trainer__default_root_dir": root, "model__init_args__generator": generator}
    sampling = stage("predict", "sample_240k", **common, model__init_args__output=set_folder)
    search: dict[str, object] = {"data__init_args__folder": set_folder, "model__init_args__output": found, **common}
    searching = stage("fit", "vectorfind_v8", **search)
    testing = stage("test", "vectorfind_v8", **search, data__init_args__test_count=latents)
    (statistics,) = read_rows(found / STATISTICS)
    rows: list[Row] = []
    for what, column in (
        ("mean r", "corr_mean"),
        ("share at the limit", "passed_ratio"),
        ("mean slope", "slope_mean"),
        ("monotone share", "monotone_mean"),
        ("leakage, mean of latents", "leakage_mean"),
        ("leakage, systematic", "systematic_leakage"),
    ):
        rows += [
            {"what": f"svm, {what}: {name}", "target": FOUND, "measured": float(statistics[f"{name}_{column}"])}
            for name in EXPRESSIONS
        ]
    for key, value in statistics.items():
        if key.startswith("drift_"):
            name = key.removeprefix("drift_").removesuffix("_mean")
            rows.append({"what": f"svm, drift of {name}", "target": FOUND, "measured": float(value)})
    rows.append({"what": "svm, pass rate", "target": FOUND, "measured": float(statistics["passed_ratio"])})
    rows += [
        {"what": "sampling 40,000, seconds", "target": "<= 240", "measured": sampling},
        {"what": "direction search on 40,000, seconds", "target": "<= 20", "measured": searching},
        {"what": f"image generation test of {latents:,} latents, seconds", "target": FOUND, "measured": testing},
    ]
    report = Report.load(found, generator)
    return rows + rendering_rows(report.character(report.ranked()[0]))


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Measures the toy world's directions.")
    parser.add_argument("--generator", type=Path, default=Path("artifacts/toy/finetune_v8/generator.safetensors"))
    parser.add_argument("--latents", type=int, default=2000, help="latents of the test (default: 2000)")
    parser.add_argument("--output", type=Path, default=Path("docs/results/directions.csv"), help="table to write")
    given = parser.parse_args(args)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(given.generator, Path(folder), given.latents)
    except OhloraError as error:
        print(f"measure_directions: {error}", file=sys.stderr)
        return 2
    write_results(given.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables what the image generation tests of the toy world found, and writes docs/results/directions.csv.

python scripts/measure_directions.py

Reads the tests of the original's directions and of ours (docs/directions.md makes them), and times the character.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.attributes import EXPRESSIONS
from ohlora.character import Character
from ohlora.errors import OhloraError
from ohlora.files import read_rows, require, write_results
from ohlora.networks.stylegan import Generator
from ohlora.reports import RESULTS, STATISTICS

Row = dict[str, Any]
FOUND = "as found"
TESTS = {"svm": "vectorfind_v8", "local": "vectorfind_v9"}
"""Method of each of the two recipes."""


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


def test_rows(method: str, folder: Path, stage: str) -> list[Row]:
    """What a test found of its edits."""
    files = f"--config configs/{stage}.yaml --config configs/toy/{stage}.yaml"
    require(folder / STATISTICS, f"python -m ohlora test {files}")
    (statistics,) = read_rows(folder / STATISTICS)
    columns = {f"pass rate of {len(read_rows(folder / RESULTS)):,} latents": "passed_ratio"}
    for what, column in (
        ("mean r", "corr_mean"),
        ("share at the limit", "passed_ratio"),
        ("mean slope", "slope_mean"),
        ("monotone share", "monotone_mean"),
        ("leakage, mean of latents", "leakage_mean"),
        ("leakage, systematic", "systematic_leakage"),
    ):
        columns |= {f"{what}: {name}": f"{name}_{column}" for name in EXPRESSIONS}
    drifts = [key for key in statistics if key.startswith("drift_")]
    columns |= {f"drift of {key.removeprefix('drift_').removesuffix('_mean')}": key for key in drifts}
    return [
        {"what": f"{method}, {what}", "target": FOUND, "measured": float(statistics[column])}
        for what, column in columns.items()
    ]


def measure(runs: Path) -> list[Row]:
    """All rows of the table."""
    rows = [row for method, stage in TESTS.items() for row in test_rows(method, runs / stage, stage)]
    return rows + rendering_rows(Character.load(runs / "characters" / "mina.safetensors"))


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Measures the toy world's directions.")
    parser.add_argument("--runs", type=Path, default=Path("artifacts/toy"), help="folder of the stages")
    parser.add_argument("--output", type=Path, default=Path("docs/results/directions.csv"), help="table to write")
    given = parser.parse_args(args)
    try:
        rows = measure(given.runs)
    except OhloraError as error:
        print(f"measure_directions: {error}", file=sys.stderr)
        return 2
    write_results(given.output, rows, given.runs / "results" / "directions.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())

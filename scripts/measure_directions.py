"""Tables what the evaluations of the toy world's edits found, and writes docs/results/directions.csv.

python scripts/measure_directions.py

Reads the evaluations of the original's directions and of ours; docs/directions.md makes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ohlora import pipeline
from ohlora.characters.reports import RESULTS, STATISTICS
from ohlora.pipeline import require
from ohlora.utils.commands import Row, measuring
from ohlora.utils.files import read_rows

HEADLINES = {
    "svm_pass": "svm, pass rate",
    "svm_r": "svm, mean r",
    "trained_pass": "trained, pass rate",
    "trained_r": "trained, mean r",
}
"""For ``dvc metrics show``."""

EVALUATIONS = {"svm": "evaluate_v8", "trained": "evaluate_v9"}
"""Finder of each of the two recipes."""


def rows_of(method: str, folder: Path) -> list[Row]:
    """What an evaluation found of its edits."""
    require(folder / STATISTICS)
    (statistics,) = read_rows(folder / STATISTICS)
    columns = {f"pass rate of {len(read_rows(folder / RESULTS)):,} latents": "passed_ratio"}
    columns["share of good latents"] = "good_ratio"
    for what, column in (
        ("mean r", "corr_mean"),
        ("share at the limit", "passed_ratio"),
        ("mean slope", "slope_mean"),
        ("monotone share", "monotone_mean"),
        ("leakage, mean of latents", "leakage_mean"),
        ("leakage, systematic", "systematic_leakage"),
        ("share of the data's range reached", "reach_mean"),
        ("density along the slider, over that of reals", "density_mean"),
        ("least identity along the slider", "identity_min_mean"),
        ("change against identity lost, area", "change_area_mean"),
        ("mean r of all sliders at once", "joint_corr_mean"),
        ("composition error of all sliders at once", "joint_error_mean"),
    ):
        columns |= {
            f"{what}: {name}": f"{name}_{column}" for name in pipeline.world("toy").attributes.names("expression")
        }
    drifts = [key for key in statistics if key.startswith("drift_")]
    columns |= {f"drift of {key.removeprefix('drift_').removesuffix('_mean')}": key for key in drifts}
    measured = {what: column for what, column in columns.items() if column in statistics}
    return [(f"{method}, {what}", "as found", float(statistics[column])) for what, column in measured.items()]


def measure(runs: Path) -> list[Row]:
    """All rows of the table."""
    return [row for method, stage in EVALUATIONS.items() for row in rows_of(method, runs / stage)]


main = measuring("directions", "Measures the toy world's directions.", measure, HEADLINES)

if __name__ == "__main__":
    sys.exit(main())

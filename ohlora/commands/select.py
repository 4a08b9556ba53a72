"""Ranks the latents that passed the evaluation of edits, and shows them for choosing by eye.

Writes ``candidates.csv`` (first those whose worst slider is seen to go farthest, then by identity kept, then by
leakage) and ``candidates.png``: of each candidate a row per slider, from its lowest to its highest tested strength, and
a row of combined expressions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ohlora import handover
from ohlora.pipeline import require
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import write_rows

if TYPE_CHECKING:
    from ohlora.characters.reports import Report

BESIDE = 2
"""Candidates beside each other."""


def select(report: Report, target: Path, count: int) -> None:
    """Writes table and contact sheet of the best candidates.

    Raises:
        ConfigError: If none does.
    """
    from ohlora.utils import images

    handover.warn("a character of this evaluation", report.unfit)
    ranked = report.ranked()
    shown = ranked[:count]
    write_rows(target / "candidates.csv", [{"rank": k + 1, **report.rows[place]} for k, place in enumerate(ranked)])
    pictures = [report.picture(place) for place in shown]
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    filled = [
        np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures
    ]
    images.save_png(images.grid(np.stack(filled), min(BESIDE, len(filled)), gap=12), target / "candidates.png")
    what = f"{len(ranked)} of {len(report.rows)} latents pass"
    if not report.passed[ranked[0]]:
        what = f"none of {len(report.rows)} latents passes; ranked are {len(ranked)} whose sliders all move and rise"
    print(f"{what}: {target / 'candidates.csv'}")
    print(f"the first {len(shown)} to look at: {target / 'candidates.png'}")


@command("ohlora select")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "select",
        "Ranks the latents that passed the evaluation of edits, and shows them: candidates.csv and candidates.png.",
        "artifacts/evaluate_v9 artifacts/characters --count 8",
    )
    parser.add_argument("report", type=Path, metavar="TEST_DIR", help="folder of the evaluation of edits")
    parser.add_argument("target", type=Path, metavar="OUT_DIR", help="folder to write to")
    parser.add_argument(
        "--generator", type=Path, metavar="FILE", help="the generator that was tested (default: as the report says)"
    )
    parser.add_argument(
        "--directions", type=Path, metavar="FILE", help="the directions that were tested (default: as the report says)"
    )
    parser.add_argument("--count", type=int, metavar="N", default=20, help="candidates shown (default: 20)")
    given = parser.parse_args(args)
    require(given.report, folder=True)
    from ohlora.characters.reports import Report

    select(Report.load(given.report, given.generator, given.directions), given.target, max(1, given.count))

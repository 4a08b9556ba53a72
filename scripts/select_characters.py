"""Ranks the latents that passed the evaluation of edits, and shows them for choosing by eye.

python scripts/select_characters.py artifacts/evaluate_v8 artifacts/characters

writes ``candidates.csv`` (first those whose worst correlation is highest, then by leakage) and ``candidates.png``, a
row per candidate: as it is, then eyes, mouth and pose at their lowest and highest tested strength.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ohlora.characters.reports import Report
from ohlora.utils import images
from ohlora.utils.commands import command
from ohlora.utils.files import write_rows


def select(report: Report, target: Path, count: int) -> None:
    """Writes table and contact sheet of the best candidates.

    Raises:
        ConfigError: If none does.
    """
    ranked = report.ranked()
    shown = ranked[:count]
    write_rows(target / "candidates.csv", [{"rank": k + 1, **report.rows[place]} for k, place in enumerate(ranked)])
    sheet = np.concatenate([report.picture(place) for place in shown])
    images.save_png(sheet, target / "candidates.png")
    print(f"{len(ranked)} of {len(report.rows)} latents pass: {target / 'candidates.csv'}")
    print(f"the first {len(shown)} to look at: {target / 'candidates.png'}")


@command("select_characters")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Ranks the latents that passed the evaluation of edits.")
    parser.add_argument("report", type=Path, metavar="TEST_DIR", help="folder of the evaluation of edits")
    parser.add_argument("target", type=Path, metavar="OUT_DIR", help="folder to write to")
    parser.add_argument("--generator", type=Path, help="the generator that was tested (default: as the report says)")
    parser.add_argument("--directions", type=Path, help="the directions that were tested (default: as the report says)")
    parser.add_argument("--count", type=int, default=20, help="candidates shown (default: 20)")
    given = parser.parse_args(args)
    select(Report.load(given.report, given.generator, given.directions), given.target, max(1, given.count))


if __name__ == "__main__":
    sys.exit(main())

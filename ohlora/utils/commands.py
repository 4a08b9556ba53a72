"""The frames of commands."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from ohlora.errors import OhloraError
from ohlora.utils.files import artifacts_root, replacing, write_rows


class Main(Protocol):
    """A command's main function."""

    def __call__(self, args: list[str] | None = None) -> int:
        """Runs the command with the words after its name, or with those of the process; returns its exit code."""


def command(name: str) -> Callable[[Callable[[list[str] | None], None]], Main]:
    """Makes a function the main function of a command.

    It returns 0, or, for an error that the user can mend, 2 after a line on standard error that begins with ``name``.
    """

    def framed(work: Callable[[list[str] | None], None]) -> Main:
        @wraps(work)
        def main(args: list[str] | None = None) -> int:
            try:
                work(args)
            except OhloraError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2
            return 0

        return main

    return framed


def measuring(
    what: str, about: str, measure: Callable[[Path], list[dict[str, Any]]], headlines: Mapping[str, str]
) -> Main:
    """The main function of a script that measures the toy world, and writes a table and a summary of a few metrics.

    Args:
        what: Name of the table, ``docs/results/<what>.csv``, and of the summary for ``dvc metrics``,
            ``results/<what>.json`` in the folder of the stages.
        about: What is measured, for ``--help``.
        measure: Folder of the stages → rows: ``what`` was measured, the ``target`` value, and the ``measured`` value,
            which is rounded to four decimals.
        headlines: Name of a metric in the summary → the words that ``what`` begins or ends with; of several such rows,
            the lowest measured value is taken.
    """

    @command(f"measure_{what}")
    def main(args: list[str] | None = None) -> None:
        parser = argparse.ArgumentParser(description=about)
        runs = artifacts_root() / "toy"
        parser.add_argument("--runs", type=Path, default=runs, help=f"folder of the stages (default: {runs})")
        parser.add_argument("--output", type=Path, default=Path(f"docs/results/{what}.csv"), help="table to write")
        given = parser.parse_args(args)
        rows = measure(given.runs)
        for row in rows:
            row["measured"] = round(row["measured"], 4)
            print(f"{row['what']:90} {row['target']!s:14} {row['measured']:.4f}")
        write_rows(given.output, rows)
        values = {
            name: min(row["measured"] for row in rows if row["what"].startswith(words) or row["what"].endswith(words))
            for name, words in headlines.items()
        }
        with replacing(given.runs / "results" / f"{what}.json") as part:
            part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    return main

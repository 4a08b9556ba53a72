"""The frames of commands."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import NoReturn, Protocol

from ohlora.utils import mistakes
from ohlora.utils.files import artifacts_root, replacing, write_rows

Row = tuple[str, float | str, float]
"""What was measured, the target value, and the measured value, which is written with four decimals."""


class Main(Protocol):
    """A command's main function."""

    def __call__(self, args: list[str] | None = None) -> int:
        """Runs the command with the words after its name, or with those of the process; returns its exit code."""


def command(name: str) -> Callable[[Callable[[list[str] | None], None]], Main]:
    """Makes a function the main function of a command.

    It returns 0, or, for an error that the user can mend (:func:`ohlora.utils.mistakes.readable`), 2 after a line on
    standard error that begins with ``name``; ``--traceback`` among the words shows where the error comes from instead.
    Ctrl-C makes it return 130.
    """

    def framed(work: Callable[[list[str] | None], None]) -> Main:
        @wraps(work)
        def main(args: list[str] | None = None) -> int:
            given = sys.argv[1:] if args is None else args
            traceback = "--traceback" in given
            try:
                work([word for word in given if word != "--traceback"])
            except KeyboardInterrupt:
                mistakes.report(name, f"stopped by Ctrl-C; files are whole, {mistakes.AGAIN}")
                return 130
            except Exception as error:
                return mistakes.answer(name, mistakes.readable(error), traceback)
            return 0

        return main

    return framed


class Parser(argparse.ArgumentParser):
    """Meets a mistake with one line, which says what may be meant or where to look."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        given = unknown.partition(" ")[0].partition("=")[0]
        next_to_do = f"see {self.prog} --help"
        if unknown != message and given.startswith("-"):
            message = f"there is no option {given}"
            if near := get_close_matches(given, re.findall(r"--[\w-]+", self.format_usage()), 1):
                next_to_do = f"did you mean {near[0]}?"
        elif unknown != message:
            message = f"{unknown} is more than it takes"
        self.exit(2, f"{self.prog}: {message}; {next_to_do}\n")


def arguments(name: str, about: str, *examples: str) -> Parser:
    """The parser of ``ohlora NAME``.

    Args:
        name: The command.
        about: What it does, in one line.
        examples: Words after the command's name that do something useful.
    """
    shown = [f"  ohlora {name} {words}".rstrip() for words in examples]
    return Parser(
        prog=f"ohlora {name}",
        description=about,
        epilog="\n".join(["examples:" if len(shown) > 1 else "example:", *shown]),
        formatter_class=_Help,
    )


class _Help(argparse.HelpFormatter):
    """Fills paragraphs as usual, but leaves examples as they are, for copying."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example") else super()._fill_text(text, width, indent)


def measuring(what: str, about: str, measure: Callable[[Path], list[Row]], headlines: Mapping[str, str]) -> Main:
    """The main function of a script that measures the toy world, and writes a table and a summary of a few metrics.

    Args:
        what: Name of the table, ``docs/results/<what>.csv``, and of the summary for ``dvc metrics``,
            ``results/<what>.json`` in the folder of the stages.
        about: What is measured, for ``--help``.
        measure: Folder of the stages → rows of the table.
        headlines: Name of a metric in the summary → how the texts of its rows begin or end; of several, the lowest
            value is taken.
    """

    @command(f"measure_{what}")
    def main(args: list[str] | None = None) -> None:
        parser = argparse.ArgumentParser(description=about)
        runs = artifacts_root() / "toy"
        parser.add_argument("--runs", type=Path, default=runs, help=f"folder of the stages (default: {runs})")
        parser.add_argument("--output", type=Path, default=Path(f"docs/results/{what}.csv"), help="table to write")
        given = parser.parse_args(args)
        rows = [(text, target, round(value, 4)) for text, target, value in measure(given.runs)]
        for text, target, value in rows:
            print(f"{text:90} {target!s:14} {value:.4f}")
        write_rows(given.output, [dict(zip(("what", "target", "measured"), row, strict=True)) for row in rows])
        values = {
            name: min(value for text, _, value in rows if text.startswith(words) or text.endswith(words))
            for name, words in headlines.items()
        }
        with replacing(given.runs / "results" / f"{what}.json") as part:
            part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    return main

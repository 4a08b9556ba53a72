"""The frame of a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Protocol

from ohlora.errors import OhloraError


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

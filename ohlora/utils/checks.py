"""Checks of settings and folders, before the work."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ohlora.errors import ConfigError, StorageError


def at_least(low: float, **settings: float | None) -> None:
    """Insists on numbers of at least ``low``; None is not looked at.

    Raises:
        ConfigError: Naming those that are less, not finite or no numbers, with their values.
    """
    _refuse(f"expected at least {low:g}", {name: value for name, value in settings.items() if not _within(value, low)})


def above(low: float, **settings: float | None) -> None:
    """Insists on numbers above ``low``; see :func:`at_least`."""
    wrong = {name: value for name, value in settings.items() if not _within(value, low) or value == low}
    _refuse(f"expected more than {low:g}", wrong)


def between(low: float, high: float, **settings: float | None) -> None:
    """Insists on numbers from ``low`` to ``high``; see :func:`at_least`."""
    wrong = {name: value for name, value in settings.items() if not _within(value, low, high)}
    _refuse(f"expected {low:g} to {high:g}", wrong)


def seeds(**settings: int) -> None:
    """Insists on seeds that randomness can be counted by; see :func:`at_least`."""
    _refuse("expected 0 to 2⁶³ − 1", {name: value for name, value in settings.items() if not 0 <= value < 2**63})


def some(**settings: Sequence[Any]) -> None:
    """Insists on lists that are not empty.

    Raises:
        ConfigError: Naming those that are.
    """
    _refuse("expected at least one entry", {name: list(value) for name, value in settings.items() if not value})


def _within(value: float | None, low: float, high: float = math.inf) -> bool:
    return value is None or (math.isfinite(value) and low <= value <= high)


def _refuse(expected: str, wrong: dict[str, Any]) -> None:
    if wrong:
        raise ConfigError(f"{' and '.join(f'{name} is {value}' for name, value in wrong.items())}; {expected}")


def writable(folder: str | Path, need: int = 0) -> None:
    """Insists on a folder that can be written to, or made; writes a few bytes there and removes them.

    Args:
        folder: The folder, which need not exist.
        need: Bytes that must be free.

    Raises:
        StorageError: Saying what is in the way.
    """
    folder = Path(folder)
    if "\0" in str(folder):
        raise StorageError(f"{folder}: no name of a folder; choose another folder")
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise StorageError(f"{folder} cannot be made: {there} is a file; choose another folder")
        with tempfile.TemporaryFile(dir=there, prefix=".ohlora-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
        free = shutil.disk_usage(there).free
    except StorageError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = (
            "make room there or choose another folder" if full else "choose another folder, or make this one writable"
        )
        raise StorageError(f"{folder} cannot be written: {error.strerror}; {advice}") from error
    if free < need:
        raise StorageError(
            f"{folder} has {free / 2**20:,.1f} MiB free, and at least {need / 2**20:,.1f} MiB are needed; make room "
            "there or choose another folder"
        )

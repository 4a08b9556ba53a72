"""Writing files whole or not at all, and tables as CSV."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ohlora.errors import ConfigError

UMASK = os.umask(0)
"""What new files may not allow; it can only be read by setting it, which is no thing to do while threads write."""
os.umask(UMASK)


def artifacts_root() -> Path:
    """Where everything is that runs make: ``OHLORA_ARTIFACTS``, or ``artifacts``."""
    return Path(os.environ.get("OHLORA_ARTIFACTS", "artifacts"))


def shipped(name: str) -> Path:
    """A file that comes with ohlora.

    Args:
        name: ``configs/…`` or ``weights/…``, with POSIX separators.

    Returns:
        Its path: below the working directory a relative one, so that what is noted of a run in a clone can move with
        it; elsewhere an absolute one. The file need not exist.
    """
    package = Path(__file__).parents[1]
    path = package / name
    if not name.startswith("weights/") and not (package / "configs").is_dir():
        path = package.parent / name  # a source tree keeps them beside the package
    return seen_from(Path.cwd(), path)


def seen_from(folder: Path, path: Path) -> Path:
    """A path below an absolute folder as a relative one; any other as it is."""
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def config_file(given: str) -> str:
    """A configuration file as it was given; where there is none, the copy of ``configs/…`` that ships."""
    copy = shipped(given)
    if given.startswith("configs/") and not Path(given).is_file() and copy.is_file():
        print(f"{given}: the copy that ships with ohlora")
        return str(copy)
    return given


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; moves it there when the block succeeds, removes it when it fails.

    The temporary name keeps the suffix, since writers choose formats by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)  # some writers make private files
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keeps other threads and processes that ask the same out, for as long as the block runs."""
    lock = Path(path).with_name(f".{Path(path).name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def rewriting(path: str | Path, seen: str | None) -> Iterator[None]:
    """For writing a file anew that others may write too: keeps them out while the block runs.

    Args:
        path: The file.
        seen: Its :func:`content_stamp` when it was read.

    Raises:
        ConfigError: If it was written since; the block does not run then.
    """
    with locked(path):
        if content_stamp(path) != seen:
            raise ConfigError(
                f"{Path(path).name} was changed by another tab or program; this answer was not saved. Reload it and go "
                "on from what it says now"
            )
        yield


def content_stamp(path: str | Path) -> str | None:
    """What tells whether a file was changed by others: a digest of its content, or None where there is none."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: str | Path, rows: list[dict[str, Any]] | list[dict[str, str]]) -> None:
    """Writes a CSV file with a header over the union of the rows' columns, whole or not at all."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_results(
    path: str | Path, rows: list[dict[str, Any]], metrics: str | Path, headlines: Mapping[str, str]
) -> None:
    """Prints and writes a table of what was measured: ``what``, ``target``, ``measured`` (to four decimals).

    Args:
        path: The table, CSV.
        rows: Its rows.
        metrics: A JSON file for ``dvc metrics``: a few values that fit a terminal.
        headlines: Their names → what ``what`` begins or ends with; of several rows, the lowest value counts.
    """
    for row in rows:
        row["measured"] = round(row["measured"], 4)
        print(f"{row['what']:90} {row['target']!s:14} {row['measured']:.4f}")
    write_rows(path, rows)
    with replacing(metrics) as part:
        values = {
            name: min(row["measured"] for row in rows if row["what"].startswith(words) or row["what"].endswith(words))
            for name, words in headlines.items()
        }
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends to a CSV file; a row with new columns rewrites it with a wider header."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
        if set(row) <= set(columns):
            with path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, restval="").writerow(row)
            return
        write_rows(path, [*read_rows(path), {key: str(value) for key, value in row.items()}])
        return
    write_rows(path, [dict(row)])

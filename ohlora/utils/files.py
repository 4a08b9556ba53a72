"""Where files are, writing them atomically, and CSV tables."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ohlora.errors import ConfigError

UMASK = os.umask(0)
"""The file mode creation mask. It can only be read by setting it, so it is read once, before threads start."""
os.umask(UMASK)


def artifacts_root() -> Path:
    """Returns the folder below which runs write everything: ``OHLORA_ARTIFACTS``, or ``artifacts`` by default."""
    return Path(os.environ.get("OHLORA_ARTIFACTS", "artifacts"))


def shipped(name: str) -> Path:
    """Locates a file that ships with ohlora, in a source tree or in an installed package.

    Args:
        name: ``configs/…`` or ``weights/…``, with POSIX separators.

    Returns:
        Its path; the file need not exist. Below the working directory the path is relative, so that paths recorded by a
        run stay valid when the clone is moved; elsewhere it is absolute.
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
    """Finds a configuration file.

    Args:
        given: A path as typed.

    Returns:
        The path itself, or, where there is no such file and it begins with ``configs/``, the path of the copy that
        ships with ohlora.
    """
    copy = shipped(given)
    if given.startswith("configs/") and not Path(given).is_file() and copy.is_file():
        print(f"{given}: not found here; using the copy that ships with ohlora")
        return str(copy)
    return given


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Writes a file atomically: yields a temporary path, which replaces ``path`` when the block succeeds.

    When the block fails, the temporary file is removed and ``path`` stays as it was. The temporary name keeps the
    suffix, since many writers choose the file format by it. Missing folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)  # some writers create files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds an exclusive lock that belongs to ``path`` while the block runs.

    Other threads and processes that ask for the same lock wait. The lock is a hidden file beside ``path``, which need
    not exist itself.
    """
    lock = Path(path).with_name(f".{Path(path).name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def rewriting(path: str | Path, seen: str | None) -> Iterator[None]:
    """Locks a file that others may write as well, for rewriting it without losing their changes.

    Args:
        path: The file, which need not exist.
        seen: Its :func:`content_stamp` when it was read.

    Raises:
        ConfigError: If the file has changed since; the block does not run then.
    """
    with locked(path):
        if content_stamp(path) != seen:
            raise ConfigError(
                f"{Path(path).name} was changed by another tab or program; this answer was not saved. Reload the file "
                "and answer again"
            )
        yield


def content_stamp(path: str | Path) -> str | None:
    """Returns the SHA-256 digest of a file's content, by which changes are noticed; None if there is no such file."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Reads the rows of a UTF-8 CSV file with a header; every value is a string."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a UTF-8 CSV file atomically.

    The header is the union of the rows' columns in order of first appearance; a missing value becomes an empty string.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a UTF-8 JSON file atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends to a CSV file; a row with new columns rewrites it with a wider header."""
    columns: list[str] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
    if columns and set(row) <= set(columns):
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns, restval="").writerow(row)
    else:
        write_rows(path, [*(read_rows(path) if columns else []), dict(row)])

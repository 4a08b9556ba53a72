"""Where files are, writing them atomically, and CSV tables."""

from __future__ import annotations

import bisect
import codecs
import csv
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from ohlora.errors import ConfigError, DataError, FormatError

UMASK = os.umask(0)
"""The file mode creation mask. It can only be read by setting it, so it is read once, before threads start."""
os.umask(UMASK)
SHOWN = 280
"""Characters of a list that a message shows; the rest is counted."""


FORMS = (".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of tables that are no CSV, see :func:`read_rows`."""


class Row(dict[str, str]):
    """A row of a table, by column; ``line`` is the line of the file on which it begins, as an editor counts."""

    line: int = 0

    def __str__(self) -> str:
        return f"row {self.line}"


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


def shortened(items: Iterable[str], separator: str = "; ") -> str:
    """The first few items of a list for a message, each cut where it is long, and how many more there are."""
    items = [item if len(item) <= SHOWN else f"{item[: SHOWN // 2]}…{item[-SHOWN // 2 :]}" for item in items]
    ends = list(accumulate(len(item) + len(separator) for item in items))
    count = max(1, bisect.bisect_right(ends, SHOWN + len(separator)))
    more = f"{separator}and {len(items) - count:,} more" if len(items) > count else ""
    return separator.join(items[:count]) + more


def printable(text: object) -> str:
    r"""A text that can be written as UTF-8: bytes of file names that are not become ``\xNN``."""
    return os.fsencode(str(text)).decode("utf-8", "backslashreplace")


def readable_file(path: str | Path) -> Path:
    """Insists on a regular file, since opening others (a pipe, a device) may wait forever.

    Raises:
        DataError: If there is nothing of that name, or something else.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{printable(path)}: no such file") from error
    except (OSError, ValueError) as error:  # a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{printable(path)}: unreadable ({reason})") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise DataError(f"{printable(path)}: {kind}; expected a file")
    return path


def is_readable_file(path: str | Path) -> bool:
    """Whether :func:`readable_file` would take it."""
    try:
        readable_file(path)
    except DataError:
        return False
    return True


def located(name: str, folders: Sequence[Path]) -> Path:
    """The file that a table means by a name.

    Args:
        name: A path, absolute or relative to one of the folders, with the separators of any system, its letters in
            either normal form of Unicode (a Mac takes ``é`` apart).
        folders: Where to look, in order; at least one.

    Returns:
        The first that exists; where none does, the name as it is, in the first folder.
    """
    turned = name.replace("\\", "/")
    for folder in folders:
        for form in (name, turned):
            if os.path.lexists(folder / form):
                return folder / form
        if not turned.isascii() and (found := _respelled(folder, Path(turned).parts)) is not None:
            return found
    return folders[0] / name


def _respelled(folder: Path, parts: Sequence[str]) -> Path | None:
    """A path below a folder whose names are equal to some in their normal form."""
    place = folder
    for part in parts:
        path = place / part
        if not os.path.lexists(path):
            there = _composed(place, place.stat().st_mtime_ns) if place.is_dir() else {}
            spelled = there.get(unicodedata.normalize("NFC", part))
            if spelled is None:
                return None
            path = place / spelled
        place = path
    return place


@lru_cache(maxsize=64)
def _composed(folder: Path, changed: int) -> dict[str, str]:
    """The names in a folder by their composed form; the time of its last change makes the cache see it."""
    return {unicodedata.normalize("NFC", entry.name): entry.name for entry in os.scandir(folder)}


def read_rows(path: str | Path, cut: bool = False) -> list[Row]:
    """Reads the rows of a table.

    The suffix tells its form: ``.jsonl`` (or ``.ndjson``), an object per line; ``.parquet``, which needs pyarrow;
    ``.json``, the labels as NVIDIA's tools write them (``dataset.json``), as columns ``path`` and ``label`` or
    ``label0``, ``label1``, …; any other, CSV: UTF-8 with or without a byte order mark, commas, semicolons or tabs
    between the columns, a header without double names.

    Args:
        path: The file.
        cut: Accepts rows that are too short, as a full disk leaves them in a CSV file that is appended to.

    Returns:
        The rows that are not blank; every value is a string, '' where there is none. What is true or false in other
        forms than CSV is ``1`` or ``0``.

    Raises:
        DataError: If there is no such file, or it is not such a table; the message says what was seen, on which line,
            and what was expected.
    """
    path = readable_file(path)
    try:
        match path.suffix.lower():
            case ".jsonl" | ".ndjson":
                return _from_objects(_json_lines(_text(path)))
            case ".json":
                return _from_objects(enumerate(_dataset_labels(_text(path)), 1))
            case ".parquet":
                return _from_objects(enumerate(_parquet(path), 1))
            case _:
                return _from_csv(_text(path), cut)
    except OSError as error:
        raise DataError(f"{path}: unreadable ({error.strerror or error})") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _from_csv(text: str, cut: bool) -> list[Row]:
    lines = _lines(text)
    _, header = next(lines, (1, []))
    _check_header(header)
    rows: list[Row] = []
    for line, values in lines:
        if len(values) > len(header) or (len(values) < len(header) and not cut):
            much = "many" if len(values) > len(header) else "few"
            raise ValueError(f"row {line}: too {much} values; expected {shortened(header, ', ')}")
        rows.append(_row(line, zip(header, values, strict=False)))
    return rows


def _row(line: int, values: Iterable[tuple[str, str]]) -> Row:
    row = Row(values)
    row.line = line
    return row


def _from_objects(objects: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Row]:
    """Rows of objects with the numbers of their lines; the columns are those of all objects."""
    numbered = list(objects)
    header = list(dict.fromkeys(key for _, known in numbered for key in known))
    _check_header(header)
    return [_row(line, ((key, _cell(line, key, known.get(key))) for key in header)) for line, known in numbered]


def _cell(line: int, key: str, value: Any) -> str:
    if value is None or value != value:  # what has no value is NaN in a column of numbers
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (Mapping, list, tuple, bytes)):
        raise ValueError(f"row {line}: {key} is {shortened([str(value)])}; expected a text or a number")
    return str(value)


def _json_lines(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # other ends of lines may stand in a text
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"row {number} is no JSON ({error}); expected an object per line") from error
        if not isinstance(found, dict):
            raise ValueError(f"row {number} holds {type(found).__name__}; expected an object per line")
        yield number, found


def _dataset_labels(text: str) -> Iterator[Mapping[str, Any]]:
    try:
        said = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"no JSON ({error})") from error
    pairs = said.get("labels") if isinstance(said, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError('no labels as NVIDIA\'s tools write them; expected {"labels": [["a.png", 3], …]}')
    for path, label in pairs:
        several = label if isinstance(label, list) else []
        yield {"path": path, **({f"label{k}": value for k, value in enumerate(several)} or {"label": label})}


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise ValueError("a Parquet table needs pyarrow: pip install 'ohlora[tables]'; or save it as CSV") from error
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise ValueError(f"no Parquet table ({shortened([' '.join(str(error).split())])})") from error
    return rows


def _separator(text: str) -> str:
    """What separates the columns: whatever of comma, semicolon and tab divides the header most often."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    counts = {mark: len(next(csv.reader([header[:1000]], delimiter=mark), [])) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark])


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, with the numbers of their first lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(text))
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"row {line} cannot be read ({error}); look at its quotes") from error
        if values:
            yield line, values


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"PK\3\4"):
        raise ValueError("a zip archive, as Excel's workbooks are; export the sheet as CSV (UTF-8)")
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\0" not in content:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
    else:
        line = content.count(b"\n", 0, content.find(b"\0")) + 1
    likely = _likely_encoding(content)
    if likely is None:
        raise ValueError(f"row {line} is no text; expected a CSV table in UTF-8")
    raise ValueError(
        f"row {line} is not UTF-8, but probably {likely}; save the table as UTF-8 (iconv -f {likely} -t UTF-8)"
    )


def _likely_encoding(content: bytes) -> str | None:
    """An encoding in which a text that is not UTF-8 reads like one; None for what is no text."""
    if b"\0" in content:
        names = ["UTF-32"] if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) else []
        names += ["UTF-16"] if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else []
        names = names or ["UTF-16LE", "UTF-16BE"]
    else:
        names = ["CP949", "CP932", "CP1252", "LATIN1"]
    for name in names:
        with suppress(UnicodeDecodeError):
            text = content.decode(name)
            if (
                re.search("[,;\t]", text)
                and "\0" not in text
                and not (name == "CP949" and not re.search("[가-힣]", text))
            ):
                return name
    return None


def _check_header(header: list[str]) -> None:
    """Raises a ValueError if this is not the header of a table."""
    said = shortened(header, ",")
    if header and (header[0].startswith("#") or header[0].lower().startswith("sep=")):
        raise ValueError(f"begins with {said!r}; expected the header as the first line. Remove the lines above it")
    if len(header) == 1 and "|" in header[0]:
        raise ValueError(f"its columns are separated by '|': {said!r}; expected commas, semicolons or tabs")
    double = [name or "(no name)" for name, count in Counter(header).items() if count > 1]
    if double:
        raise ValueError(f"several columns are called {shortened(double, ', ')}; expected each name once")
    spaced = [repr(name) for name in header if name != name.strip()]
    if spaced:
        raise ValueError(f"the header has blanks around {shortened(spaced, ', ')}; remove them")


class _Unique(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses mappings in which a key is repeated: YAML lets the last win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Composes a mapping, and looks at its keys."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise ConfigError(f"line {line}: {key.value} was said on line {lines[key.value]} already; say it once")
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                lines[key.value] = line
        return node


def read_yaml(path: str | Path) -> Any:
    """Reads a YAML file.

    Raises:
        ConfigError: If it cannot be read, is no YAML, or repeats a key; the message names the file and the line.
    """
    try:
        # The loader is safe.
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Unique)
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date, a text that is not UTF-8
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        FormatError: If it cannot be read or holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON ({error}); remove it and make it again") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds {type(found).__name__}; expected an object")
    return found


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a UTF-8 CSV file atomically.

    The header is the union of the rows' columns in order of first appearance; a missing value becomes an empty string.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        try:
            writer.writerows(rows)
        except UnicodeEncodeError as error:
            raise DataError(f"{printable(path)}: {printable(error.object)} is not UTF-8; rename the file") from error


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
        write_rows(path, [*(read_rows(path, cut=True) if columns else []), dict(row)])

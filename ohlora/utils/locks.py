"""Locks of folders and files that only one run may write to at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ohlora.errors import ConfigError


class Lock:
    """Holds a folder, or a file that need not exist, for this process until it is released or the process ends.

    The lock is a hidden file that says who holds it: ``.lock`` in the folder, ``.NAME.lock`` beside the file. The
    operating system takes it back when the process ends, however it ends.

    Args:
        path: The folder, or a file with a suffix.

    Raises:
        ConfigError: If another process holds it, saying which, where and since when.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        place = path.with_name(f".{path.name}.lock") if path.suffix else path / ".lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] | None = place.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            who = _described(self._file.read())
            self._file.close()
            raise ConfigError(f"{path} is in use by {who}; wait for it or stop it") from error
        except OSError:  # some network file systems know no locks
            return
        # A loader process would keep the lock of a run that was killed.
        os.register_at_fork(after_in_child=self._close)
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        self._file.truncate(0)
        self._file.write(json.dumps(about))
        self._file.flush()

    def release(self) -> None:
        """Lets others take it."""
        if self._file is not None:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _described(text: str) -> str:
    try:
        about: dict[str, Any] = json.loads(text)
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (ValueError, KeyError, TypeError):  # the other has not written it yet
        return "another process"

"""Locks of folders and files that only one run may write to at a time."""

from __future__ import annotations

import errno
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
        self._place = path.with_name(f".{path.name}.lock") if path.suffix else path / ".lock"
        self._file: IO[str] | None = None
        self._made = not self._place.parent.exists()
        try:
            while self._file is None or not self._there():  # another may have removed it between opening and locking
                self._close()
                self._place.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._place.open("a+", encoding="utf-8")
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            assert self._file is not None
            self._file.seek(0)
            who = _described(self._file.read())
            self._close()
            raise ConfigError(f"{path} is in use by {who}; wait for it or stop it") from error
        except OSError as error:
            if self._file is None:
                raise
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that knows no locks
                raise
            return
        # A loader process would keep the lock of a run that was killed.
        os.register_at_fork(after_in_child=self._close)
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        self._file.truncate(0)
        self._file.write(json.dumps(about))
        self._file.flush()

    def release(self) -> None:
        """Lets others take it; leaves neither the hidden file nor a folder that is empty."""
        if self._file is not None:
            with suppress(OSError):
                self._place.unlink()  # while it is held: who opened it before finds that it is gone
                if self._made:
                    self._place.parent.rmdir()
        self._close()

    def _there(self) -> bool:
        """Whether the file that is held is still the one in the folder."""
        assert self._file is not None
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._place.stat())
        except FileNotFoundError:
            return False

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

"""SIGTERM and Ctrl-C: work stops at a place where nothing is lost, wherever it is.

By default a signal raises :class:`Stopped` where the main thread is, since files are written as a whole or not at all.
Between :func:`hold` and :func:`release` it waits, for work that must not be cut, such as a training step. A second
signal ends the process at once, also within a long call of compiled code.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 10.0
"""Seconds after which a signal ends the process if compiled code keeps the main thread from noticing it."""


class Stopped(BaseException):
    """A signal asks to stop; no ``Exception``, so that nothing takes it for a fault.

    Attributes:
        signal: Which one.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}")


class _State:
    """What signals have come to in this process."""

    owner = 0  # the process whose main thread handles signals; 0 for none
    received: signal.Signals | None = None
    held = 0


def received() -> signal.Signals | None:
    """The signal that asks to stop, if one has come."""
    return _State.received


def check() -> None:
    """Raises :class:`Stopped` if a signal has come."""
    if _State.received is not None:
        raise Stopped(_State.received)


def hold() -> None:
    """Lets signals wait from now on."""
    _State.held += 1


def release() -> None:
    """Takes one :func:`hold` back; raises nothing, see :func:`check`."""
    _State.held = max(0, _State.held - 1)


@contextmanager
def at_once() -> Iterator[None]:
    """Work within :func:`hold` that may be cut: signals raise :class:`Stopped` again while the block runs."""
    held, _State.held = _State.held, 0
    try:
        check()
        yield
    finally:
        _State.held = held


def install() -> None:
    """Makes this module's handlers the process's again, where another library has put its own."""
    if _State.owner == os.getpid() and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _on_signal)


@contextmanager
def handled() -> Iterator[None]:
    """Handles signals while the block runs; within another such block, or outside the main thread, does nothing."""
    if _State.owner == os.getpid() or threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    woken = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    _State.owner, _State.received, _State.held = os.getpid(), None, 0
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    install()
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        _State.owner = 0
        writer.close()


def _on_signal(number: int, frame: FrameType | None) -> Any:
    if os.getpid() != _State.owner:  # a loader process, which its parent ends
        return
    if _State.received is not None:
        _end(number, "a second signal")
    _State.received = signal.Signals(number)
    if not _State.held:
        raise Stopped(number)


def _watch(reader: socket.socket) -> None:
    """Hears of signals while the main thread is in compiled code, where Python's handlers do not run."""
    first: int | None = None
    while True:
        reader.settimeout(GRACE if first is not None and _State.received is None else None)
        try:
            heard = reader.recv(64)
        except TimeoutError:
            if first is not None and _State.received is None:
                _end(first, "no file was left half-written; run the same command again")
            continue
        if not heard or os.getpid() != _State.owner:
            reader.close()
            return
        for number in heard:
            if number in SIGNALS:
                if first is not None:
                    _end(number, "a second signal")
                first = number


def _end(number: int, why: str) -> None:
    name = signal.Signals(number).name
    with suppress(Exception):
        sys.stdout.flush()
    os.write(2, f"ohlora: ended by {name} ({why})\n".encode())
    os._exit(128 + number)

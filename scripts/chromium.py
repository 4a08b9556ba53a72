"""Chromium, for what measures pages in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from ohlora.errors import MissingArtifactError

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def launched(options: Sequence[str] = ("--no-sandbox",)) -> Iterator[Browser]:
    """A browser of its own.

    Raises:
        MissingArtifactError: If there is no Chromium.
    """
    if BROWSER is None:
        raise MissingArtifactError("there is no Chromium here; install it (apt install chromium)")
    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=list(options))
        yield found
        found.close()

"""Chromium, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = BROWSER is None and not os.environ.get("CI")
"""Whether tests in a browser are skipped."""


@contextmanager
def launched(options: Sequence[str] = ("--no-sandbox",)) -> Iterator[Browser]:
    """A browser of its own."""
    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=list(options))
        yield found
        found.close()

"""Whether there is a browser to test in; see :mod:`scripts.chromium`."""

from __future__ import annotations

import os

from scripts.chromium import BROWSER

MISSING = BROWSER is None and not os.environ.get("CI")
"""Whether tests in a browser are skipped."""

"""The studio's page by axe-core: nothing serious or critical, on light and dark screens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.studio.test_browser import Server, artifacts, browser, opened, serve, wait_for

__all__ = ["artifacts", "browser", "serve"]

AXE = Path(os.environ.get("AXE_CORE", "axe.min.js"))
"""axe-core as npm has it: `npm install --prefix FOLDER axe-core` puts it into node_modules/axe-core/axe.min.js."""
if not AXE.is_file():
    pytest.skip(
        "no axe-core here: npm install --prefix FOLDER axe-core, and set AXE_CORE to "
        "FOLDER/node_modules/axe-core/axe.min.js",
        allow_module_level=True,
    )
READY = {"World": ("world-stages", "stages made"), "Label": ("label-status", "000000.png"),
         "Choose": ("choose-status", "case 11"), "Steer": ("steer-status", "mouth")}  # fmt: skip


def faults(page: Page) -> list[str]:
    """What axe-core finds serious or critical, with the elements."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("() => axe.run()")
    return [
        f"{rule['id']} ({rule['impact']}): {' '.join(node['target'])}: {node['html'][:160]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious(browser: Browser, serve: Callable[..., Server], scheme: Literal["light", "dark"]) -> None:
    server = serve("--attributes", "gender", "pose")
    found: list[str] = []
    for tab, (element, text) in READY.items():
        page = opened(browser, server, tab)
        page.emulate_media(color_scheme=scheme)
        page.reload()
        page.get_by_role("tab", name=tab).click()
        wait_for(page, element, text)
        found += [f"{tab}: {fault}" for fault in faults(page)]
        if tab == "Label":
            page.get_by_label("How to label").click()
            page.get_by_role("option", name="Compare two images: pose").click()
            wait_for(page, "compare-question", "Which is more")
            found += [f"Label, two images: {fault}" for fault in faults(page)]
        page.close()
    assert not found, "\n".join(found)

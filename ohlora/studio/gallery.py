"""The server's side of the tab Choose: one WebSocket per browser tab; ``choose.js`` is the other side."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ohlora.characters.reports import RESULTS, Choice, Report
from ohlora.errors import DataError, OhloraError
from ohlora.pipeline import require
from ohlora.studio.choices import STILLS, ChoiceSession
from ohlora.studio.connection import Connection, route
from ohlora.studio.empty import missing
from ohlora.studio.settings import Settings
from ohlora.utils import images, pages

ROUTE = "/choose/socket"
THUMBNAIL = 128
"""Height and width, in pixels, to which a candidate is enlarged at most."""


def choosing(settings: Settings, local: bool) -> WebSocketRoute:
    """The route of the WebSocket; see :func:`ohlora.studio.connection.route`."""
    return route(ROUTE, partial(_Gallery, settings), local)


class _Gallery(Connection):
    """What one browser tab chooses among."""

    def __init__(self, settings: Settings, socket: WebSocket) -> None:
        super().__init__(socket)
        self.settings = settings
        self.session: ChoiceSession | None = None
        self.told = False
        """Whether the tab was told that files have changed."""

    def first(self) -> list[dict[str, Any]]:
        return [self.do_reload()]

    def news(self) -> list[dict[str, Any]]:
        tab = self.session
        if tab is None:
            return [self.do_reload()] if (self.settings.test / RESULTS).is_file() else []
        if self.told or not (tab.changed or tab.retested):
            return []
        self.told = True
        what = (
            "the evaluation was run again" if tab.retested else f"{tab.path.name} was changed by another tab or program"
        )
        return [{"what": "message", "note": f"⚠️ {what}. Reload the list"}]

    def opened(self) -> ChoiceSession:
        if self.session is None:
            raise DataError("there is nothing to choose from")
        return self.session

    def chosen(self, note: str = "") -> dict[str, Any]:
        return {"what": "chosen", "choices": self.opened().choices, "note": note}

    # --- what a tab asks for

    def do_reload(self) -> dict[str, Any]:
        self.told = False
        try:
            for path in (self.settings.test / RESULTS, self.settings.generator):
                require(path)
            tab = self.session = ChoiceSession(Report.load(self.settings.test, self.settings.generator))
        except OhloraError as error:
            self.session = None
            absent = [path for path in (self.settings.test / RESULTS, self.settings.generator) if not path.exists()]
            title = "No candidates to choose from"
            why = "Candidates are the latents that passed the evaluation of edits, with the generator that made them."
            told = missing(
                absent[0] if absent else self.settings.test, title, why, error, self.settings.world == "demo"
            )
            return {"what": "empty", "html": told}
        return {
            "what": "rows",
            "rows": tab.table(),
            "columns": tab.columns(),
            "told": tab.told(),
            "kind": tab.kind,
            "stills": STILLS,
            "sliders": list(tab.report.attributes),
            "choices": tab.choices,
        }

    def do_choose(self, cases: list[int], choice: Choice | None) -> dict[str, Any]:
        self.opened().choose(cases, choice)
        return self.chosen()

    def do_undo(self) -> dict[str, Any]:
        self.opened().undo()
        return self.chosen("The last choice was taken back.")

    def do_sheet(self, case: int) -> dict[str, Any]:
        return {
            "what": "sheet",
            "case": case,
            "data": pages.address(Image.fromarray(self.opened().picture(case)), "PNG"),
        }

    def do_still(self, case: int) -> dict[str, Any]:
        return {"what": "still", "case": case, "data": self._row(self.opened().still(case)[None], "PNG")}

    def do_film(self, case: int) -> dict[str, Any]:
        """The images of a film side by side."""
        return {"what": "film", "case": case, "data": self._row(self.opened().film(case), "WEBP")}

    def do_export(self) -> dict[str, Any]:
        folder = self.settings.root / "characters"
        written = self.opened().export(folder)
        names = ", ".join(path.name for path in written)
        return {"what": "message", "note": f"{len(written)} characters for the tab Steer are in {folder}: {names}"}

    @staticmethod
    def _row(pictures: np.ndarray, form: str) -> str:
        """Small pictures side by side, as an address."""
        small = images.shrink(pictures, THUMBNAIL) if max(pictures.shape[1:3]) > THUMBNAIL else pictures
        return pages.address(Image.fromarray(np.concatenate(list(small), axis=1)), form, quality=90)

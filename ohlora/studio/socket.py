"""The server's side of the tab Steer: one WebSocket per browser tab, over which settings come in and pictures go out.

Texts are JSON. A picture is a message of bytes: number, width, height, count of pictures and of strengths (uint32),
milliseconds (float32), the strengths that are shown (float32), and RGBA of every picture; all little-endian.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ohlora.characters.character import Character
from ohlora.errors import DataError, OhloraError
from ohlora.faces.parsing import load_parser
from ohlora.studio.connection import Connection, route, warning
from ohlora.studio.steering import Film, Presets, SteeringSession, settings_of
from ohlora.utils.files import is_readable_file

ROUTE = "/steer/socket"
SAVED = "studio"
"""Folder below the root into which pictures are saved."""
TYPES = {
    **{".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"},
    **{".mp4": "video/mp4", ".webm": "video/webm"},
}
"""Ending of what is saved → its media type."""
SETTLED = 1_000_000_000
"""Nanoseconds after which a folder's time tells of every change: file systems count in ticks."""


@dataclass(frozen=True)
class Steerable:
    """What can be steered.

    Attributes:
        root: Folder of the artifacts; names are relative to it.
        files: Finds characters and directions, and says what is left out.
        empty: HTML for the place of a character where there is none.
        inside: Returns a path that lies below the root, or raises a ConfigError.
        parser: Where the world's face parser is, which finds the background; raises an OhloraError where
            there is none.
    """

    root: Path
    files: Callable[[], tuple[list[str], list[str], str]]
    empty: Callable[[], str]
    inside: Callable[[Path], Path]
    parser: Callable[[], Path]

    def route(self, local: bool) -> WebSocketRoute:
        """The route of the WebSocket; see :func:`ohlora.studio.connection.route`."""
        return route(ROUTE, partial(_Connection, self), local)


class _Connection(Connection):
    """What one browser tab has opened, and what it waits for."""

    def __init__(self, files: Steerable, socket: WebSocket) -> None:
        super().__init__(socket)
        self.files = files
        self.session: SteeringSession | None = None
        self.name = ""
        self.presets = Presets(files.root / SAVED / "presets.json")
        self.drawing: dict[str, Any] | None = None
        """The newest picture that was asked for; earlier ones are not drawn."""
        self.tensors = TensorFiles(files.root)
        self.seen: dict[Path, int] = {}
        """The files that could hold something, and when they were written."""

    def first(self) -> list[dict[str, Any]]:
        return [self.listed("files")]

    def news(self) -> list[dict[str, Any]]:
        return [self.listed("listed")] if self.tensors.written() != self.seen else []

    def listed(self, what: str) -> dict[str, Any]:
        """What there is to steer."""
        self.seen = self.tensors.written()
        characters, directions, note = self.files.files()
        empty = "" if characters else self.files.empty()
        told = {"characters": characters, "directions": directions, "note": note, "empty": empty}
        return {"what": what, **told}

    def received(self, data: bytes) -> dict[str, Any]:
        name, settings = settings_of(data)
        if not is_readable_file(self.files.inside(self.files.root / name)):
            raise DataError(f"the picture shows {name}, which is not below {self.files.root}")
        return {"what": "restored", "name": name, "settings": settings}

    def heard(self, message: dict[str, Any]) -> None:
        if message["do"] == "draw":
            self.drawing = message
        else:
            super().heard(message)

    async def draw(self) -> None:
        drawing, self.drawing = self.drawing, None
        if drawing is None or self.session is None:
            return
        spoke = self.session.speech is not None
        picture = await asyncio.to_thread(self.picture, self.session, drawing)
        if picture:
            await self.socket.send_bytes(picture)
        if spoke and self.session.speech is None:
            await self.socket.send_json({"what": "speech", "on": False})

    def picture(self, session: SteeringSession, asked: dict[str, Any]) -> bytes:
        """The message of a picture; nothing for the sliders of a character that was opened before."""
        ranges = [session.character.ranges[name] for name in session.character.attributes]
        if len(asked["at"]) != len(ranges):
            return b""
        values = [float(np.clip(value, *limits)) for value, limits in zip(asked["at"], ranges, strict=True)]
        strengths = session.strengths(values, asked["idle"])
        drawn, taken = session.pictures([strengths])
        shown = np.concatenate(drawn)
        height, width, channels = shown.shape[1:]
        head = struct.pack("<5If", asked["number"], width, height, len(shown), len(strengths), taken)
        pixels = np.full((len(shown), height, width, 4), 255, np.uint8)
        pixels[..., :channels] = shown
        return head + np.asarray(strengths, "<f4").tobytes() + pixels.tobytes()

    # --- what a tab asks for

    def do_open(self, name: str) -> dict[str, Any]:
        character = Character.load(self.files.inside(self.files.root / name))
        cuts = self.session.parser if self.session is not None else None
        self.session, self.name = SteeringSession(character, parser=cuts), name
        sliders = []
        for steered in character.attributes:
            low, high = character.ranges[steered]
            meaning = f": {character.meanings[steered]}" if steered in character.meanings else ""
            limits = {"low": math.ceil(100 * low) / 100, "high": math.floor(100 * high) / 100}
            sliders.append({"name": steered, "label": steered + meaning} | limits)
        note = f"A strength of 1 is {character.unit}." if character.unit else ""
        told = {"name": name, "sliders": sliders, "presets": self.presets.of(name), "note": note}
        return {"what": "opened", **told, "captions": self.session.captions, "uncut": self.uncut()}

    def uncut(self) -> str:
        """Why the background cannot be cut out; empty where it can."""
        try:
            self.files.parser()
        except OhloraError as error:  # of whatever kind: only this box needs the parser
            return str(error)
        return ""

    def do_cut(self, on: bool) -> dict[str, Any]:
        session = self.opened()
        session.parser = None
        try:
            session.parser = load_parser(self.files.parser()) if on else None
        except OhloraError as error:
            return {"what": "cut", "on": False, "note": warning(error)}
        return {"what": "cut", "on": on, "note": ""}

    def do_compare(self, name: str) -> dict[str, Any]:
        session = self.opened()
        try:
            session.compare(self.files.inside(self.files.root / name) if name else None)
        except OhloraError as error:
            session.compare(None)
            return self.compared(warning(error))
        said = (
            f"Other directions: {name} (mean step). Strengths are in its own unit, so edits may be larger or smaller."
        )
        return self.compared(said if name else "")

    def do_beside(self, names: Sequence[str]) -> dict[str, Any]:
        found = {name: Character.load(self.files.inside(self.files.root / name)) for name in names}
        session = self.opened()
        stems = Counter(Path(name).stem for name in found)
        session.beside = {
            name if stems[Path(name).stem] > 1 else Path(name).stem: character for name, character in found.items()
        }
        lacking = {
            name: [own for own in session.character.attributes if own not in character.attributes]
            for name, character in session.beside.items()
        }
        said = [f"{name} has no {', '.join(without)}" for name, without in lacking.items() if without]
        return self.compared("; ".join(said))

    def compared(self, note: str) -> dict[str, Any]:
        session = self.opened()
        return {"what": "compared", "other": session.other is not None, "captions": session.captions, "note": note}

    def do_say(self, text: str) -> dict[str, Any]:
        self.opened().say(text)
        return {"what": "speech", "on": True}

    def do_keep(self, name: str, at: Sequence[float]) -> dict[str, Any]:
        settings = dict(zip(self.opened().character.attributes, at, strict=True))
        return {"what": "presets", "presets": self.presets.keep(self.name, name, settings)}

    def do_forget(self, name: str) -> dict[str, Any]:
        return {"what": "presets", "presets": self.presets.keep(self.name, name, None)}

    def do_save(self, kind: str, at: Sequence[float]) -> dict[str, Any]:
        folder = self.files.inside(self.files.root / SAVED)
        return self.saved(self.opened().save(kind, at, folder, self.name))  # type: ignore[arg-type]

    def do_record(self, form: Film, moments: Sequence[tuple[float, Sequence[float]]]) -> dict[str, Any]:
        folder = self.files.inside(self.files.root / SAVED)
        return self.saved(self.opened().record(moments, form, folder))

    def saved(self, path: Path) -> dict[str, Any]:
        kind = TYPES[path.suffix]
        data = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        return {"what": "saved", "note": f"Saved {path}", "name": path.name, "data": data}

    def opened(self) -> SteeringSession:
        if self.session is None:
            raise DataError("no character is open")
        return self.session


class TensorFiles:
    """The tensor files below a folder, and when each was written.

    A folder is listed again only when its own time has changed, as it does when a file comes or goes: below a world's
    root there are tens of thousands of images, and few folders.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, tuple[int, list[Path], list[Path]]] = {}

    def written(self) -> dict[Path, int]:
        """Path → its time of modification, in nanoseconds."""
        listed, found, waiting = dict(self._listed), {}, [self.root]
        self._listed = {}
        while waiting:
            folder = waiting.pop()
            # Gone since its parent was listed, or not to be read by this user: the other folders still count.
            with suppress(OSError):
                changed = folder.stat().st_mtime_ns
                known = listed.get(folder)
                if known is None or known[0] != changed or time.time_ns() - changed < SETTLED:
                    with os.scandir(folder) as entries:
                        inside = list(entries)
                    folders = [Path(entry.path) for entry in inside if entry.is_dir(follow_symlinks=False)]
                    known = changed, folders, [Path(e.path) for e in inside if e.name.endswith(".safetensors")]
                self._listed[folder] = known
                waiting += known[1]
                for path in known[2]:
                    with suppress(OSError):
                        found[path] = path.stat().st_mtime_ns
        return found

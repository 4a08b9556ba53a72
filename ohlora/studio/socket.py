"""The server's side of the tab Steer: one WebSocket per browser tab, over which settings come in and pictures go out.

Texts are JSON. A picture is a message of bytes: number, width, height, count of pictures and of strengths (uint32),
milliseconds (float32), the strengths that are shown (float32), and RGBA of every picture; all little-endian.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import mimetypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ohlora.characters.character import Character
from ohlora.errors import DataError, OhloraError
from ohlora.studio.steering import Presets, SteeringSession, settings_of
from ohlora.utils.files import is_readable_file

ROUTE = "/steer/socket"
REFUSED = 1008
"""Code of a WebSocket that is closed by policy."""
SAVED = "studio"
"""Folder below the root into which pictures are saved."""
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Steerable:
    """What can be steered.

    Attributes:
        root: Folder of the artifacts; names are relative to it.
        files: Finds characters and directions, and says what is missing or left out.
        inside: Returns a path that lies below the root, or raises a ConfigError.
    """

    root: Path
    files: Callable[[], tuple[list[str], list[str], str]]
    inside: Callable[[Path], Path]

    def route(self, local: bool) -> WebSocketRoute:
        """The route of the WebSocket.

        Args:
            local: Whether the server is reachable from this machine only; it then answers to its own names only.
        """

        async def steer(socket: WebSocket) -> None:
            if not (is_own(socket.headers.get("host"), socket.headers.get("origin"), local) and is_known(socket)):
                await socket.close(REFUSED)
                return
            await socket.accept()
            try:
                await _Connection(self, socket).run()
            except WebSocketDisconnect:
                return

        return WebSocketRoute(ROUTE, steer)


def is_own(host: str | None, origin: str | None, local: bool) -> bool:
    """Whether a page of this server asks: no other site, and no name that was made to lead to this machine."""
    if not host or not origin or urlsplit(origin).netloc != host:
        return False
    return not local or urlsplit(f"//{host}").hostname in LOOPBACK


def is_known(socket: WebSocket) -> bool:
    """Whether the visitor has entered the password, if there is one; Gradio's application keeps who has."""
    app = socket.app
    if app.auth is None:
        return True
    tokens = [socket.cookies.get(f"{name}-{app.cookie_id}") for name in ("access-token", "access-token-unsecure")]
    return any(token in app.tokens for token in tokens if token)


class _Connection:
    """What one browser tab has opened, and what it waits for."""

    def __init__(self, files: Steerable, socket: WebSocket) -> None:
        self.files, self.socket = files, socket
        self.session: SteeringSession | None = None
        self.name = ""
        self.presets = Presets(files.root / SAVED / "presets.json")
        self.drawing: dict[str, Any] | None = None
        """The newest picture that was asked for; earlier ones are not drawn."""
        self.asked: list[dict[str, Any] | bytes] = []
        self.more = asyncio.Event()

    async def run(self) -> None:
        characters, directions, note = await asyncio.to_thread(self.files.files)
        await self.socket.send_json({"what": "files", "characters": characters, "directions": directions, "note": note})
        listener = asyncio.create_task(self.listen())
        try:
            while True:
                waiting = asyncio.create_task(self.more.wait())
                done, _ = await asyncio.wait({listener, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if listener in done:
                    waiting.cancel()
                    return listener.result()
                self.more.clear()
                asked, self.asked = self.asked, []
                for message in asked:
                    for answer in await asyncio.to_thread(self.answers, message):
                        await self.socket.send_json(answer)
                drawing, self.drawing = self.drawing, None
                if drawing is not None and self.session is not None:
                    spoke = self.session.speech is not None
                    picture = await asyncio.to_thread(self.picture, self.session, drawing)
                    if picture:
                        await self.socket.send_bytes(picture)
                    if spoke and self.session.speech is None:
                        await self.socket.send_json({"what": "speech", "on": False})
        finally:
            listener.cancel()

    async def listen(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (data := message.get("bytes")) is not None:
                self.asked.append(data)
            else:
                said = json.loads(message["text"])
                if said["do"] == "draw":
                    self.drawing = said
                else:
                    self.asked.append(said)
            self.more.set()

    def answers(self, message: dict[str, Any] | bytes) -> list[dict[str, Any]]:
        """Does what was asked for; what went wrong is an answer, too."""
        try:
            if isinstance(message, bytes):
                name, settings = settings_of(message)
                if not is_readable_file(self.files.inside(self.files.root / name)):
                    raise DataError(f"the picture shows {name}, which is not below {self.files.root}")
                return [{"what": "restored", "name": name, "settings": settings}]
            return [getattr(self, f"do_{message.pop('do')}")(**message)]
        except OhloraError as error:
            return [{"what": "message", "note": f"⚠️ {error}"}]

    def picture(self, session: SteeringSession, asked: dict[str, Any]) -> bytes:
        """The message of a picture; nothing for the sliders of a character that was opened before."""
        ranges = [session.character.ranges[name] for name in session.character.attributes]
        if len(asked["at"]) != len(ranges):
            return b""
        values = [float(np.clip(value, *limits)) for value, limits in zip(asked["at"], ranges, strict=True)]
        strengths = session.strengths(values, asked["idle"])
        own, other, taken = session.image(strengths)
        shown = [own] if other is None else [own, other]
        height, width = own.shape[:2]
        head = struct.pack("<5If", asked["number"], width, height, len(shown), len(strengths), taken)
        opaque = np.full((len(shown), height, width, 4), 255, np.uint8)
        opaque[..., :3] = shown
        return head + np.asarray(strengths, "<f4").tobytes() + opaque.tobytes()

    # --- what a tab asks for

    def do_open(self, name: str) -> dict[str, Any]:
        character = Character.load(self.files.inside(self.files.root / name))
        self.session, self.name = SteeringSession(character), name
        sliders = []
        for steered in character.attributes:
            low, high = character.ranges[steered]
            meaning = f": {character.meanings[steered]}" if steered in character.meanings else ""
            limits = {"low": math.ceil(100 * low) / 100, "high": math.floor(100 * high) / 100}
            sliders.append({"name": steered, "label": steered + meaning} | limits)
        note = f"A strength of 1 is {character.unit}." if character.unit else ""
        presets = self.presets.of(name)
        return {"what": "opened", "name": name, "sliders": sliders, "presets": presets, "note": note}

    def do_compare(self, name: str) -> dict[str, Any]:
        session = self.opened()
        try:
            session.compare(self.files.inside(self.files.root / name) if name else None)
        except OhloraError as error:
            session.compare(None)
            return {"what": "compared", "other": False, "note": f"⚠️ {error}"}
        said = f"Right: {name} (mean step). Strengths are in its own unit, so edits may be larger or smaller."
        return {"what": "compared", "other": bool(name), "note": said if name else ""}

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
        path = self.opened().save(kind, at, folder, self.name)  # type: ignore[arg-type]
        data = f"data:{mimetypes.guess_type(path)[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        return {"what": "saved", "note": f"Saved {path}", "name": path.name, "data": data}

    def opened(self) -> SteeringSession:
        if self.session is None:
            raise DataError("no character is open")
        return self.session

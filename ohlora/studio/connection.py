"""A WebSocket per browser tab, over which a tab of the studio asks and is answered.

Texts are JSON: ``do`` names what is asked for, ``what`` what is answered.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ohlora.errors import DataError, OhloraError

REFUSED = 1008
"""Code of a WebSocket that is closed by policy."""
LOOPBACK = ("127.0.0.1", "localhost")
WATCHED = 3.0
"""Seconds without a question after which files are looked at again, here and in the tabs without a WebSocket."""


def warning(error: OhloraError) -> str:
    """How the page says what went wrong."""
    return f"⚠️ {error}"


class Connection(ABC):
    """What one browser tab has opened, and what it waits for.

    A subclass answers ``{"do": "open", …}`` by its method ``do_open``.
    """

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.asked: list[dict[str, Any] | bytes] = []
        self.more = asyncio.Event()

    @abstractmethod
    def first(self) -> list[dict[str, Any]]:
        """What a tab is told when it connects."""

    @abstractmethod
    def news(self) -> list[dict[str, Any]]:
        """What a tab is told of files that have changed; called while nothing is asked."""

    def answers(self, message: dict[str, Any] | bytes) -> list[dict[str, Any]]:
        """Does what was asked for; what went wrong is an answer, too."""
        try:
            if isinstance(message, bytes):
                return [self.received(message)]
            return [getattr(self, f"do_{message.pop('do')}")(**message)]
        except OhloraError as error:
            return [{"what": "message", "note": warning(error)}]

    def received(self, data: bytes) -> dict[str, Any]:
        """Answers to a file that was dropped on the tab; a DataError where none is taken."""
        raise DataError("this tab takes no files; drop a saved picture on the tab Steer")

    def heard(self, message: dict[str, Any]) -> None:
        """Takes a question that was just asked."""
        self.asked.append(message)

    async def draw(self) -> None:  # noqa: B027 - only Steer draws
        """Sends pictures, once the questions are answered."""

    async def run(self) -> None:
        """Answers until the tab is closed."""
        for answer in await asyncio.to_thread(self.first):
            await self.socket.send_json(answer)
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                waiting = asyncio.create_task(self.more.wait())
                done, _ = await asyncio.wait({listener, waiting}, timeout=WATCHED, return_when=asyncio.FIRST_COMPLETED)
                if listener in done:
                    waiting.cancel()
                    return listener.result()
                if waiting not in done:
                    waiting.cancel()
                    for answer in await asyncio.to_thread(self.news):
                        await self.socket.send_json(answer)
                    continue
                self.more.clear()
                asked, self.asked = self.asked, []
                for message in asked:
                    for answer in await asyncio.to_thread(self.answers, message):
                        await self.socket.send_json(answer)
                await self.draw()
        finally:
            listener.cancel()

    async def _listen(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (data := message.get("bytes")) is not None:
                self.asked.append(data)
            else:
                self.heard(json.loads(message["text"]))
            self.more.set()


def route(path: str, connect: Callable[[WebSocket], Connection], local: bool) -> WebSocketRoute:
    """The route of a WebSocket.

    Args:
        path: Its address.
        connect: Makes the connection of a browser tab.
        local: Whether the server is reachable from this machine only; it then answers to its own names only.
    """

    async def serve(socket: WebSocket) -> None:
        if not (is_own(socket.headers.get("host"), socket.headers.get("origin"), local) and is_known(socket)):
            await socket.close(REFUSED)
            return
        await socket.accept()
        try:
            await connect(socket).run()
        except WebSocketDisconnect:
            return

    return WebSocketRoute(path, serve)


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

"""The tab Steer without a browser: its WebSocket, speech, presets, and settings in saved pictures."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from ohlora.attributes import Motion
from ohlora.characters import speech
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.errors import ConfigError, DataError, FormatError
from ohlora.studio.app import steerable
from ohlora.studio.settings import Settings
from ohlora.studio.socket import ROUTE, is_own
from ohlora.studio.steering import Presets, SteeringSession, settings_of
from tests.toy_tables import report_of_latents

OWN = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}


@pytest.fixture
def mina(tmp_path: Path, weights: tuple[Path, Path]) -> Path:
    Report.load(report_of_latents(tmp_path / "tested", weights[0]), weights[0]).character(0).save(
        tmp_path / "mina.safetensors"
    )
    return tmp_path / "mina.safetensors"


@pytest.fixture
def client(tmp_path: Path, mina: Path) -> TestClient:
    """A client of the studio's WebSocket alone."""
    nothing = tmp_path / "nothing"
    settings = Settings(tmp_path, "toy", nothing, nothing, (), (), nothing, nothing)
    app = Starlette(routes=[steerable(settings).route(local=True)])
    app.auth, app.tokens, app.cookie_id = None, {"key": "ohlora"}, "id"  # type: ignore[attr-defined]  # as Gradio's
    return TestClient(app)


@pytest.mark.parametrize(
    ("host", "origin", "local", "own"),
    [
        ("127.0.0.1:7860", "http://127.0.0.1:7860", True, True),
        ("localhost:7860", "http://localhost:7860", True, True),
        ("127.0.0.1:7860", "http://elsewhere.example", True, False),
        ("127.0.0.1:7860", "http://127.0.0.1:9999", True, False),
        ("127.0.0.1:7860", None, True, False),
        ("elsewhere.example:7860", "http://elsewhere.example:7860", True, False),  # a name that leads to this machine
        ("studio.example", "https://studio.example", False, True),
        ("studio.example", "https://elsewhere.example", False, False),
    ],
)
def test_only_pages_of_the_studio_may_ask(host: str, origin: str | None, local: bool, own: bool) -> None:
    assert is_own(host, origin, local) == own


def test_other_sites_and_strangers_are_refused(client: TestClient) -> None:
    def refused(headers: dict[str, str]) -> bool:
        try:
            with client.websocket_connect(ROUTE, headers=headers) as socket:
                socket.receive_json()
        except WebSocketDisconnect:
            return True
        return False

    assert not refused(OWN) and refused(OWN | {"origin": "http://elsewhere.example"})
    client.app.auth = {"ohlora": "secret"}  # type: ignore[attr-defined]
    assert refused(OWN) and refused(OWN | {"cookie": "access-token-id=guessed"})
    assert not refused(OWN | {"cookie": "access-token-id=key"})


def asked(socket: WebSocketTestSession, do: str, **more: object) -> dict[str, object]:
    socket.send_text(json.dumps({"do": do, **more}))
    answer: dict[str, object] = socket.receive_json()
    return answer


def test_pictures_follow_the_newest_setting(client: TestClient, mina: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    character = Character.load(mina)
    inner = SteeringSession.image

    def slow(self: SteeringSession, strengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray | None, float]:
        time.sleep(0.05)
        return inner(self, strengths)

    monkeypatch.setattr(SteeringSession, "image", slow)
    with client.websocket_connect(ROUTE, headers=OWN) as socket:
        assert socket.receive_json()["characters"] == ["mina.safetensors"]
        assert asked(socket, "save", kind="png", at=[0, 0, 0])["note"] == "⚠️ no character is open"
        assert "lies outside" in str(asked(socket, "open", name="../mina.safetensors")["note"])
        opened = asked(socket, "open", name="mina.safetensors")
        assert opened["what"] == "opened" and [s["name"] for s in opened["sliders"]] == ["eyes", "mouth", "pose"]  # type: ignore[attr-defined]
        for number in range(1, 41):
            socket.send_text(json.dumps({"do": "draw", "number": number, "at": [0, number / 20, 99], "idle": False}))
        numbers: list[int] = []
        while not numbers or numbers[-1] < 40:
            message = socket.receive_bytes()
            number, width, height, count, sliders, took = struct.unpack_from("<5If", message)
            numbers.append(number)
        assert len(numbers) < 40 and (width, height, count, sliders) == (16, 16, 1, 3) and took > 0
        at = np.frombuffer(message, "<f4", 3, 24).copy()
        assert at.tolist() == pytest.approx([0, 2, character.ranges["pose"][1]])  # brought into the range
        pixels = np.frombuffer(message, np.uint8, offset=36).reshape(16, 16, 4)
        assert np.array_equal(pixels[..., :3], character.frames(at[None])[0]) and (pixels[..., 3] == 255).all()

        # What is saved brings its settings back, from a file that is dropped on the page.
        saved = asked(socket, "save", kind="png", at=[0.5, -1.0, 0.25])
        path = mina.parent / "studio" / "png-0001.png"
        assert saved["note"] == f"Saved {path}"
        socket.send_bytes(path.read_bytes())
        settings = {"eyes": 0.5, "mouth": -1.0, "pose": 0.25}
        assert socket.receive_json() == {"what": "restored", "name": "mina.safetensors", "settings": settings}
        socket.send_bytes(b"no picture")
        assert "this is no PNG that the studio saved" in socket.receive_json()["note"]
        kept = {"what": "presets", "presets": {"aside": settings}}
        assert asked(socket, "keep", name="aside", at=[0.5, -1.0, 0.25]) == kept
        assert "expected Latin letters or Hangul" in str(asked(socket, "say", text="Да")["note"])
    with client.websocket_connect(ROUTE, headers=OWN) as socket:
        socket.receive_json()
        assert asked(socket, "open", name="mina.safetensors")["presets"] == kept["presets"]
        assert asked(socket, "forget", name="aside")["presets"] == {}


def test_a_text_is_said_on_top_of_the_sliders(mina: Path) -> None:
    times = [5.0]
    motions = {"mouth": Motion(speaks=1.0), "eyes": Motion(blinks=True)}
    session = SteeringSession(replace(Character.load(mina), motions=motions), clock=lambda: times[-1])
    session.say("Mama")
    said = speech.of_text("Mama")
    at, found = [0.2, 0.4, 0.0], []
    for moment in np.arange(0, said.ends, 0.02):
        times.append(5.0 + moment)
        found.append(session.strengths(at, idle=False))
    expected = session.character.idle(np.array(times[1:]) - 5.0, at, speech=said)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(expected[:, 1]) > 3
    times.append(5.0 + said.ends + 2 * speech.FADE)
    assert session.strengths(at, idle=False) == at and session.speech is None
    with pytest.raises(ConfigError, match="no attribute of this character speaks"):
        SteeringSession(replace(session.character, motions={})).say("Mama")


def test_presets_of_a_damaged_file_are_not_overwritten(tmp_path: Path) -> None:
    presets = Presets(tmp_path / "presets.json")
    assert presets.of("mina") == {}
    presets.keep("mina", "aside", {"pose": 1.0})
    presets.keep("other", "up", {"pose": 2.0})
    assert presets.of("mina") == {"aside": {"pose": 1.0}}
    presets.path.write_text("{")
    with pytest.raises(FormatError, match=r"presets\.json is no JSON"):
        presets.keep("mina", "down", {"pose": 0.0})
    assert presets.path.read_text() == "{"


def test_pictures_of_others_have_no_settings() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    with pytest.raises(DataError, match="no PNG that the studio saved"):
        settings_of(file.getvalue())

"""The tab Steer without a browser: its WebSocket, speech, presets, and settings in saved pictures."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from ohlora.attributes import Motion
from ohlora.characters import speech
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError, DataError, FormatError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.stylegan import Generator
from ohlora.studio.app import steerable
from ohlora.studio.connection import is_own
from ohlora.studio.settings import Settings
from ohlora.studio.socket import ROUTE, SETTLED, TYPES, TensorFiles
from ohlora.studio.steering import Presets, SteeringSession, settings_of
from ohlora.utils import images
from tests.films import decoded, opacity
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
    return client_of(tmp_path, "toy")


def client_of(root: Path, world: str) -> TestClient:
    nothing = root / "nothing"
    settings = Settings(root, world, nothing, nothing, (), (), nothing, nothing)
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
    inner = SteeringSession.pictures

    def slow(self: SteeringSession, strengths: Sequence[Sequence[float]]) -> tuple[list[np.ndarray], float]:
        time.sleep(0.05)
        return inner(self, strengths)

    monkeypatch.setattr(SteeringSession, "pictures", slow)
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


def test_moves_are_recorded_of_all_characters_that_are_shown(client: TestClient, mina: Path, tmp_path: Path) -> None:
    character = Character.load(mina)
    # Another one, larger, without a pose, and with less room for its mouth.
    torch.manual_seed(4)
    large = Generator(resolution=32, channel_base=128, channel_max=8, z_dim=8, w_dim=8, mapping_layers=2, c_dim=0)
    code = Codes(torch.randn(1, 8), Space.W)
    steps = Steps(Codes(torch.randn(1, 2, 8), Space.W))
    other = Character(large.eval(), code, ("mouth", "eyes"), steps, {"mouth": (-0.5, 0.5), "eyes": (-2.0, 2.0)})
    other.save(tmp_path / "more" / "lee.safetensors")
    other.save(tmp_path / "most" / "lee.safetensors")
    moments = [[10.0, [0, 0, 0]], [10.5, [0, 2, 0]], [11.0, [0, 2, 1]]]
    with client.websocket_connect(ROUTE, headers=OWN) as socket:
        both = ["more/lee.safetensors", "most/lee.safetensors"]
        assert socket.receive_json()["characters"] == ["mina.safetensors", *both]
        assert asked(socket, "open", name="mina.safetensors")["captions"] == []
        assert asked(socket, "beside", names=both)["captions"] == both, "of one name, both are shown, and told apart"
        told = asked(socket, "beside", names=["more/lee.safetensors"])
        assert told["captions"] == ["lee"] and told["note"] == "lee has no pose"
        socket.send_text(json.dumps({"do": "draw", "number": 1, "at": [0.5, 2, 1], "idle": False}))
        message = socket.receive_bytes()
        _, width, height, count, _, _ = struct.unpack_from("<5If", message)
        assert (width, height, count) == (16, 16, 2)
        pixels = np.frombuffer(message, np.uint8, offset=36).reshape(2, 16, 16, 4)[..., :3]
        followed = other.render(eyes=0.5, mouth=0.5).resize((16, 16))
        assert np.array_equal(pixels[0], np.asarray(character.render(eyes=0.5, mouth=2, pose=1)))
        assert np.array_equal(pixels[1], np.asarray(followed))

        for form in ("webp", "mp4", "webm"):
            saved = asked(socket, "record", form=form, moments=moments)
            path = tmp_path / "studio" / f"film-0001.{form}"
            assert saved["note"] == f"Saved {path}"
            assert str(saved["data"]).startswith(f"data:{TYPES[path.suffix]};base64,")
            film = decoded(path)
            assert film.frames.shape == (20, 256, 512, 3) and film.seconds == pytest.approx(1, abs=0.06)
            # A quarter of a second after the start, the mouth is half open.
            expected = images.enlarge(np.asarray(character.render(mouth=1.0)), 256)
            assert np.abs(film.frames[5][:, :256].astype(int) - expected).mean() < 6
            assert np.abs(film.frames[0][:, :256].astype(int) - expected).mean() > 6
        long = [[0, [0, 0, 0]], [500, [0, 0, 0]]]
        for bad, said in (([], "take 0.00 s"), (long, "take 500.00 s; expected 0.1 to 120 s")):
            assert said in str(asked(socket, "record", form="webp", moments=bad)["note"])
        assert "expected mp4, webm, webp" in str(asked(socket, "record", form="../x.webp", moments=moments)["note"])
        assert len(list((tmp_path / "studio").iterdir())) == 3


def test_the_background_is_cut_out_of_all_that_is_drawn(drawn_mina: Path) -> None:
    folder = drawn_mina.parent
    character = Character.load(drawn_mina)
    shutil.copy(drawn_mina, folder / "twin.safetensors")
    with client_of(folder, "demo").websocket_connect(ROUTE, headers=OWN) as socket:
        socket.receive_json()
        assert asked(socket, "open", name="mina.safetensors")["uncut"] == ""

        def drawn() -> np.ndarray:
            socket.send_text(json.dumps({"do": "draw", "number": 1, "at": [0.5], "idle": False}))
            message = socket.receive_bytes()
            count = struct.unpack_from("<5If", message)[3]
            return np.frombuffer(message, np.uint8, offset=28).reshape(count, 64, 64, 4)

        assert (drawn()[..., 3] == 255).all()
        assert asked(socket, "cut", on=True) == {"what": "cut", "on": True, "note": ""}
        shown = drawn()[0]
        assert shown[0, 0, 3] == shown[0, -1, 3] == 0 and (shown[24:40, 24:40, 3] == 255).all()
        plain = character.frames([[0.5]])[0]
        assert np.array_equal(shown[24:40, 24:40, :3], plain[24:40, 24:40])
        asked(socket, "beside", names=["twin.safetensors"])
        assert np.array_equal(*drawn())

        asked(socket, "save", kind="png", at=[0.5])
        with Image.open(folder / "studio" / "png-0001.png") as saved:
            picture = np.asarray(saved)
            assert settings_of((folder / "studio" / "png-0001.png").read_bytes())[1] == {"mouth": 0.5}
        assert np.array_equal(picture[::6, ::6], shown)
        assert ".gif has no transparency with soft edges" in str(asked(socket, "save", kind="gif", at=[0])["note"])
        moments = [[0.0, [-1]], [1.0, [1]]]
        for form in ("webp", "webm"):
            asked(socket, "record", form=form, moments=moments)
            alpha = opacity(folder / "studio" / f"film-0001.{form}")
            assert alpha.shape == (20, 256, 512)
            assert alpha[:, :16, [0, 240, 256, 496]].max() < 5 and alpha[:, 96:160, 96:160].min() > 250
        assert ".mp4 has no transparency" in str(asked(socket, "record", form="mp4", moments=moments)["note"])
        left = sorted(path.name for path in (folder / "studio").iterdir())
        assert left == ["film-0001.webm", "film-0001.webp", "png-0001.png"]
        asked(socket, "open", name="twin.safetensors")
        assert drawn()[0, 0, 0, 3] == 0, "it stays for the next character"
        assert asked(socket, "cut", on=False)["on"] is False and (drawn()[..., 3] == 255).all()


def test_without_a_parser_the_background_stays(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.websocket_connect(ROUTE, headers=OWN) as socket:
        socket.receive_json()
        why = str(asked(socket, "open", name="mina.safetensors")["uncut"])
        assert "face_parser/parser.safetensors does not exist; it is made by: python -m ohlora fit face_parser" in why
        told = asked(socket, "cut", on=True)
        assert told == {"what": "cut", "on": False, "note": f"⚠️ {why}"}


def test_a_parser_that_cannot_be_read_keeps_no_character_from_opening(
    tmp_path: Path, mina: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    (tmp_path / "long").mkdir()
    world = tmp_path / "long.yaml"
    world.write_text(f"base: toy\nroot: long\nnames: {{face_parser/parser.safetensors: {'x' * 300}.safetensors}}\n")
    with client_of(tmp_path, str(world)).websocket_connect(ROUTE, headers=OWN) as socket:
        socket.receive_json()
        opened = asked(socket, "open", name="mina.safetensors")
        assert opened["what"] == "opened" and "cannot be read: File name too long" in str(opened["uncut"])
        assert "cannot be read" in str(asked(socket, "cut", on=True)["note"])


def test_new_files_are_noticed(client: TestClient, mina: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohlora.studio.connection.WATCHED", 0.05)
    with client.websocket_connect(ROUTE, headers=OWN) as socket:
        assert socket.receive_json()["what"] == "files"
        shutil.copy(mina, mina.with_name("lee.safetensors"))
        told = socket.receive_json()
        assert told["what"] == "listed" and told["characters"] == ["lee.safetensors", "mina.safetensors"]


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


def test_folders_are_listed_again_only_where_something_came_or_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/one.safetensors", "a/images/1.png", "b/c/two.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    long_ago = time.time_ns() - 10 * SETTLED
    folders = [tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())]
    for folder in folders:
        os.utime(folder, ns=(long_ago, long_ago))
    listed: list[Path] = []
    scandir = os.scandir

    def noting(path: Path) -> Any:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noting)
    files = TensorFiles(tmp_path)
    first = files.written()
    assert {path.name for path in first} == {"one.safetensors", "two.safetensors"} and len(listed) == len(folders)
    listed.clear()
    assert files.written() == first and not listed
    os.utime(tmp_path / "a" / "one.safetensors", ns=(1, 1))  # written anew in its place
    assert files.written() != first and not listed
    (tmp_path / "b" / "c" / "three.safetensors").write_bytes(b"1")
    assert "three.safetensors" in {path.name for path in files.written()} and listed == [tmp_path / "b" / "c"]
    (tmp_path / "b" / "c" / "three.safetensors").unlink()
    (tmp_path / "b" / "c" / "two.safetensors").unlink()
    (tmp_path / "b" / "c").rmdir()
    assert {path.name for path in files.written()} == {"one.safetensors"}


def test_a_folder_that_may_not_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "shut", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.safetensors").touch()
    scandir = os.scandir

    def refusing(path: Path) -> Any:  # as the system does; the superuser, who may run this, reads any folder
        if path == tmp_path / "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert {path.name for path in TensorFiles(tmp_path).written()} == {"a.safetensors", "z.safetensors"}

"""The settings that ``ohlora studio`` refuses before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora.__main__ import main
from ohlora.studio.server import remove_left_behind
from ohlora.utils.locks import Lock


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others connect; give a --password too"),
        (["--annotations", "/etc/labels.csv"], "/etc/labels.csv lies outside"),
        (["--images", ".."], ".. lies outside"),
        (["--test", "ROOT/toy/../../elsewhere"], "lies outside"),
        (["--attributes", "grin"], "unknown attribute 'grin'"),
    ],
)
def test_unsafe_settings_are_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("gradio")
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path / "artifacts"))
    words = [word.replace("ROOT", str(tmp_path / "artifacts")) for word in words]
    assert main(["studio", "--no-browser", *words]) == 2
    assert message in capsys.readouterr().err


def test_only_what_a_killed_studio_left_is_removed(tmp_path: Path) -> None:
    dead, alive, starting, other = (tmp_path / f"{name}" for name in
                                    ("ohlora-studio-a", "ohlora-studio-b", "ohlora-studio-c", "other"))  # fmt: skip
    for folder in (dead, alive, starting, other):
        (folder / "shown").mkdir(parents=True)
    for folder in (dead, other):
        (folder / ".lock").write_text("{}")
    lock = Lock(alive)
    remove_left_behind(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["ohlora-studio-b", "ohlora-studio-c", "other"]
    lock.release()

"""The settings that ``ohlora studio`` refuses before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora.__main__ import main


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

"""What ``ohlora studio`` refuses before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others in; give a --password too"),
        (["--labels", "/etc/labels.csv"], "/etc/labels.csv lies outside"),
        (["--images", ".."], ".. lies outside"),
        (["--test", "ROOT/toy/../../elsewhere"], "lies outside"),
        (["--attributes", "smile"], "unknown attribute 'smile'"),
    ],
)
def test_what_is_not_safe_is_refused(
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

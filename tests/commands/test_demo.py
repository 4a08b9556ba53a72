"""The demo, as a stranger runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ohlora.__main__ import main as ohlora
from ohlora.characters.character import Character
from ohlora.formats import network_files
from ohlora.utils.files import read_rows


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_leaves_a_page_and_a_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    assert ohlora(["demo"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n→ ") == 15 and "of 48 faces follow in all three" in said
    page = (tmp_path / "demo" / "index.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/') == 9
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page), "the page stands alone"
    assert all(command in page for command in ("ohlora filter ", "--ckpt_path last", "ohlora animate "))
    assert len(read_rows(tmp_path / "demo" / "generate_original" / "manifest.csv")) == 1000
    made = network_files.read_metadata(tmp_path / "demo" / "finetune_v8" / "generator.safetensors")
    assert made["provenance"]["images_seen"] == 4000
    face = Character.load(tmp_path / "demo" / "characters" / "mina.safetensors")
    assert face.render(mouth=0.5).size == (64, 64)
    # Resumed once, in the same run.
    assert [p.name for p in (tmp_path / "demo" / "finetune_v8" / "runs").iterdir()] == ["0001"]

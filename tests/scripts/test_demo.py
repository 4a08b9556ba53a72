"""The demo, as a stranger runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora import checkpoints
from ohlora.character import Character
from ohlora.files import read_rows
from scripts import demo


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_names_pictures_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    assert demo.main() == 0
    said = capsys.readouterr().out.split("Done in")[1]
    paths = [Path(line.split(":", 1)[1].strip()) for line in said.splitlines() if line.startswith("  ")]
    assert len(paths) == 16 and all(path.is_file() for path in paths)
    assert len(read_rows(tmp_path / "demo" / "generate_10k" / "manifest.csv")) == 1000
    made = checkpoints.read_metadata(tmp_path / "demo" / "finetune_v8" / "generator.safetensors")
    assert made["provenance"]["images_seen"] == 4000
    face = Character.load(tmp_path / "demo" / "character" / "character.safetensors")
    assert face.render(mouth=0.5).size == (64, 64)
    # Resumed once, in the same run.
    assert [p.name for p in (tmp_path / "demo" / "finetune_v8" / "runs").iterdir()] == ["0001"]

"""``ohlora doctor`` on empty and half-filled folders, and whether the declaration it reads holds together."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ohlora import doctor
from ohlora.__main__ import main
from ohlora.utils.files import shipped

ROOT = Path(__file__).parents[1]


def test_it_says_what_is_there_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path / "made"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for words in ("torch 2.", "CPU: ", "a key was found", "GiB free", "the demo was not run: make demo"):
        assert words in said
    assert "the toy world, 64×64: 0 of " in said and f"python scripts/draw_faces.py {tmp_path}/made/toy/drawn" in said
    assert "next is original, which needs stylegan_celeba_partial256x256.pth" in said

    toy = {stage.name: stage for stage in doctor.stages("toy")}
    for name in ("drawn", "drawn_judge", "generate_original"):
        for path in toy[name].makes:
            path.mkdir(parents=True)
            (path / "manifest.csv").touch()
    assert main(["doctor", "--world", "toy"]) == 0
    said = capsys.readouterr().out
    assert (
        f"3 of {len(toy)} stages done" in said and "    x generate_original" in said and "      score_original" in said
    )
    assert "next:\n      python -m ohlora fit --config configs/filter_gender.yaml" in said
    assert "256" not in said.split("Made")[1]


@pytest.mark.parametrize("world", doctor.WORLDS)
def test_every_stage_gets_what_it_needs(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each need is made by an earlier stage, ships, or is a download or label file of the user's; no two make one."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OHLORA_ARTIFACTS", raising=False)
    made: list[Path] = []
    for stage in doctor.stages(world):
        for path in stage.needs:
            inside = path.parts[0] == "artifacts"
            own = path.parts[:2] in (("artifacts", "labels"), ("artifacts", "CelebAMask-HQ"))
            assert not inside or own or any(path == m or m in path.parents for m in made), f"{stage.name} needs {path}"
            if not inside and world != "celeba256":
                assert path.is_file(), f"{stage.name} needs {path}"
        for path in stage.makes:
            assert path not in made
            made.append(path)
        for command in stage.commands:
            words = shlex.split(command)
            scripts = [ROOT / word for word in words if word.startswith("scripts/")]
            files = [shipped(word) for word in words if word.startswith("configs/")]
            assert (scripts or files) and all(path.is_file() for path in scripts + files)

"""``ohlora doctor`` on empty and half-filled folders."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from ohlora import pipeline
from ohlora.__main__ import main


def test_it_says_what_is_there_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path / "made"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for words in ("torch 2.", "CPU: ", "a key was found", "GiB free", "the demo was not run: ohlora demo"):
        assert words in said
    assert "the toy world, 64×64: 0 of " in said and f"python -m ohlora draw-faces {tmp_path}/made/toy/drawn" in said
    assert "next is original, which needs:" in said
    assert "stylegan_celeba_partial256x256.pth (docs/celeba256.md says from where)" in said

    toy = pipeline.world("toy")
    for name in ("drawn", "drawn_judge", "generate_original"):
        for path in toy.makes(toy.stages[name]):
            path.mkdir(parents=True)
            (path / "manifest.csv").touch()
    assert main(["doctor", "--world", "toy"]) == 0
    said = capsys.readouterr().out
    assert (
        f"3 of {len(toy.stages)} stages done" in said
        and "    ✓ generate_original" in said
        and "      score_original" in said
    )
    assert "next:\n      python -m ohlora fit filter_gender --world toy" in said
    assert "256" not in said.split("Made")[1]
    assert main(["doctor", "--world", "toy", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (made,) = told["Made"]
    assert [stage["name"] for stage in made["stages"] if stage["done"]] == ["drawn", "drawn_judge", "generate_original"]
    assert made["next"] == "python -m ohlora fit filter_gender --world toy" and "torch 2." in told["Installed"][1]
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", ascii_only)
        assert main(["doctor", "--world", "toy"]) == 0
    ascii_only.seek(0)
    assert "    x generate_original" in ascii_only.read()
    assert main(["doctor", "--world", "tyo"]) == 2
    assert "there is no world tyo; expected toy, demo, celeba256, stylegan2" in capsys.readouterr().err

"""The messages that docs/troubleshooting.md shows are those that the commands print."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora.__main__ import main
from ohlora.characters.character import Character
from ohlora.directions.edits import Steps
from ohlora.networks.codes import Codes, Space
from ohlora.utils import counted
from tests.conftest import tiny_networks
from tests.documented import ROOT, blocks

PAGE = ROOT / "docs" / "troubleshooting.md"


def sessions() -> list[tuple[str, str]]:
    """The commands in the page's boxes, each with the lines that it prints."""
    text = "".join(block for _, block in blocks(PAGE, "console"))
    return [(command, said) for command, said in re.findall(r"^\$ ohlora (.*)\n((?:(?!\$ ).*\n)+)", text, re.M)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mistakes in it."""
    here = tmp_path_factory.mktemp("mistakes")
    for name, shape in (("photos", (64, 64, 3)), ("wide", (64, 96, 3)), ("stickers", (64, 64, 4))):
        (here / name).mkdir()
        for k in range(4):
            pixels = counted.generator(0, name, k).integers(0, 255, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(here / name / f"{k}.png")
    (here / "photos" / "4.png").touch()
    tables = {
        "commas.csv": "path;lamp\n0.png;0,5\n1.png;0,7\n",
        "annotations.csv": "path,gender\nphotos/0.png,1\nphotos/1.png,2\n",
        "scores.csv": "index,path,gender\n" + "".join(f"{k},photos/{k}.png,0.{k}\n" for k in range(4)),
        "twice.yaml": "about: x\nbase: toy\nroot: a\nroot: b\n",
        "mistyped.yaml": "about: x\nbase: toy\nroot: a\natributes: {}\n",
        "model.pkl": "<!DOCTYPE html><html><body>Sign in</body></html>",
        "model.pt": f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n",
        "age_w_boundary.npy": "",
    }
    for name, text in tables.items():
        (here / name).write_text(text)
    (here / "korean.csv").write_bytes("path,밝기\n0.png,1\n".encode("cp949"))
    (here / "cut.pkl").write_bytes(b"\x80\x03]q\x00(")
    shutil.copy(ROOT / "ohlora/weights/toy/generator.safetensors", here)
    names = ("eyes", "mouth", "pose")
    steps = Steps(Codes(torch.ones(1, 3, 8), Space.W))
    ranges = dict.fromkeys(names, (-1.0, 1.0))
    Character(tiny_networks()[0], Codes(torch.ones(1, 8), Space.W), names, steps, ranges, {}).save(
        here / "mina.safetensors"
    )
    return here


def test_there_are_boxes() -> None:
    assert len(sessions()) > 30


@pytest.mark.parametrize(("command", "said"), sessions(), ids=[command[:70] for command, _ in sessions()])
def test_what_is_shown_is_what_is_printed(
    command: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OHLORA_ARTIFACTS", raising=False)
    monkeypatch.delenv("OHLORA_STUDIO_PASSWORD", raising=False)
    assert main(shlex.split(command)) == 2
    done = capsys.readouterr()
    printed = (done.out + done.err).splitlines()
    for line in said.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert any(re.fullmatch(pattern, one) for one in printed), f"{line}\nnot in\n{done.out}{done.err}"

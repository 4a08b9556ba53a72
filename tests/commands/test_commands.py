"""The table of commands, and what every command has in common."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ohlora.__main__ import main
from ohlora.commands import COMMANDS, STAGES
from ohlora.errors import ConfigError
from tests.conftest import ROOT, ran

HELP = """
import contextlib, io, sys
from ohlora.__main__ import main
from ohlora.commands import COMMANDS
for name in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([name, "--help"])
    assert said.getvalue().startswith(f"usage: ohlora {name} "), name
    slow = [module for module in ("torch", "lightning", "wandb", "jsonargparse", "gradio") if module in sys.modules]
    assert not slow, (name, slow)
    if COMMANDS[name].module.startswith("ohlora.commands."):
        assert f"  ohlora {name}" in said.getvalue().partition("\\nexample")[2], name
"""

EARLY = """
import contextlib, io, sys
from ohlora.__main__ import main
generator, *lines = sys.argv[1:]
for line in lines:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(line.replace("GENERATOR", generator).split()) == 2, line
    assert " none" in said.getvalue() and "does not exist" in said.getvalue(), said.getvalue()
    slow = [module for module in ("torch", "lightning", "wandb") if module in sys.modules]
    assert not slow, (line, slow)
"""


def answers_without_torch(python: str, folder: Path) -> None:
    """Insists that each command that needs no configuration answers --help before anything heavy is imported."""
    ran([python, "-c", HELP, *(name for name, entry in COMMANDS.items() if entry.group != STAGES)], folder)


def test_help_waits_for_nothing_heavy() -> None:
    answers_without_torch(sys.executable, ROOT)


def test_a_missing_file_is_told_before_anything_heavy_is_imported() -> None:
    lines = [
        "evaluate none.safetensors --data .",
        "evaluate GENERATOR --data none",
        "evaluate GENERATOR --data . --features none.onnx",
        "evaluate GENERATOR --data . --features random --scores none.safetensors",
        "filter none.csv out.csv",
        "merge none.safetensors out.safetensors",
        "select none out",
        "animate none.safetensors out.gif",
        "export-weights none.safetensors out.pt",
        "export-weights GENERATOR none.safetensors out.pt",
        "export-character saved none.safetensors out.html",
        "export-character tested none best out.html",
        "import-weights none.pkl out",
        "import-directions none out",
        "finish none",
    ]
    generator = ROOT / "ohlora" / "weights" / "toy" / "generator.safetensors"
    ran([sys.executable, "-c", EARLY, str(generator), *lines], ROOT)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert f"  {name:18} {entry.about}\n" in said
    assert all(len(line) <= 100 for line in said.splitlines())
    assert main([]) == 0 and capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("given", "meant"), [("filtr", "filter"), ("import_weights", "import-weights"), ("tset", "test"), ("xyzzy", None)]
)
def test_a_mistyped_command_is_met_with_all_of_them(
    given: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([given, "--world", "toy"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"ohlora: there is no command {given}; ") and said.count("\n") == 1
    assert (f"did you mean {meant}? " in said) == (meant is not None) and ("did you mean" in said) == (
        meant is not None
    )
    assert said.endswith(f"he commands are {', '.join(COMMANDS)}\n")


def test_an_error_is_one_line_unless_its_place_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["filter", str(tmp_path / "scores.csv"), str(tmp_path / "out.csv"), "--keep", "gender"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("ohlora filter: --keep: ")
    for with_traceback in (["--traceback", *words], [*words, "--traceback"]):
        with pytest.raises(ConfigError, match="--keep: "):
            main(with_traceback)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["draw-faces", "out", "--cnt", "5"], "ohlora draw-faces: there is no option --cnt; did you mean --count?"),
        (["draw-faces", "out", "--xyzzy=5"], "ohlora draw-faces: there is no option --xyzzy; see ohlora draw-faces "),
        (["draw-faces"], "ohlora draw-faces: the following arguments are required: OUT; see ohlora draw-faces --help"),
        (["draw-faces", "out", "in"], "ohlora draw-faces: in is more than it takes; see ohlora draw-faces --help"),
        (["demo", "--seed", "a"], "ohlora demo: argument --seed: invalid int value: 'a'; see ohlora demo --help"),
        (["doctor", "--jsn"], "ohlora doctor: there is no option --jsn; did you mean --json?"),
        (["export-character", "tested", "--casee"], "ohlora export-character tested: the following arguments are"),
        (["fit", "finetune_v8", "--world"], "ohlora: argument --world: expected one argument; see ohlora --help"),
    ],
)
def test_a_mistake_in_options_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)

"""What a run writes into a terminal of 80 columns and into a pipe: one line of progress, no boilerplate, the result."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import torch

from ohlora.directions.edits import Directions
from ohlora.directions.groups import Groups
from ohlora.formats import network_files
from ohlora.formats.direction_files import save_directions
from ohlora.networks.attribute_cnn import attribute_cnn
from tests.conftest import CONF, ROOT
from tests.toy_tables import brightness_table, options, watching

PROGRAM = """
import json, sys
from ohlora.__main__ import main
for words in json.loads(sys.argv[1]):
    print("====", flush=True)
    assert main(words) == 0
"""
BOILERPLATE = re.compile(r"[Ss]eed|TPU|GPU|litlogger|Warning|Metric `|stopped:|─")


@pytest.fixture
def runs(tmp_path: Path, weights: tuple[Path, Path], image_folder: Path) -> dict[str, tuple[list[str], str, str]]:
    """Runs by name: words, what the progress must have shown, and the last line."""
    torch.manual_seed(0)
    for name in ("merged", "judge"):
        network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / f"{name}.safetensors")
    manifest, _ = brightness_table(tmp_path / "data", 60)
    vectors = torch.nn.functional.normalize(torch.randn(1, 3, 8), dim=-1)
    edited = Directions(("eyes", "mouth", "pose"), vectors, torch.rand(1, 3) + 0.5, Groups((), ()), "svm")
    save_directions(edited, tmp_path / "d.safetensors")
    paths: dict[str, Any] = {"generator": weights[0], "network": tmp_path / "merged.safetensors"}
    small = {"latents": 10, "rounds": 1, "covariance_count": 50, "group_by": "[]", "sweep_count": 3}

    def run(verb: str, conf: str, *words: str, **settings: Any) -> list[str]:
        given = options({f"model.init_args.{key}": value for key, value in settings.items()})
        where = ["--trainer.default_root_dir", str(tmp_path / conf), "--trainer.enable_progress_bar", "true"]
        return [verb, "--config", str(CONF / f"{conf}.yaml"), *where, *given, *words]

    finder = options({f"model.init_args.finder.init_args.{key}": value for key, value in small.items()})
    finder = ["--model.init_args.finder", "ohlora.directions.jacobian.Jacobian", *finder]
    watch = options(watching(tmp_path))
    trained = [*watch, "--data.init_args.folder", str(image_folder), "--trainer.logger.init_args.mode", "offline"]
    properties = ["--data.init_args.manifests", f"[{manifest}]", "--trainer.max_epochs", "2"]
    return {
        "supervised": (run("fit", "properties", *properties), r"epoch ./2 +\d+/12 ", r"hairstyle\S*: validation loss "),
        "validate": (run("validate", "properties", *properties), r"validating +\d/2 ", r"loss/validation [\d.]+, "),
        "watched": (
            run("fit", "finetune", *trained, generator=weights[0], discriminator=weights[1], kimg=0.1),
            r"training +\d+/13 .*left kimg",
            r"generator.safetensors: 0.104 kimg, concept rate \S+, diversity \S+$",
        ),
        "generate": (
            run("predict", "generate", "--data.init_args.count", "40", generator=weights[0], output=tmp_path / "made"),
            r"predicting +\d+/14 ",
            r"^40 images in \S+/made",
        ),
        "search": (
            run("fit", "directions", *finder, output=tmp_path / "found", **paths),
            "training",
            r"directions.safetensors$",
        ),
        "test": (
            run("test", "evaluation", **paths, judge=tmp_path / "judge.safetensors", output=tmp_path / "tested",
                directions=tmp_path / "d.safetensors"),
            r"testing +\d/3 ",
            r"of 5 latents pass .*test_result.csv$",
        ),
    }  # fmt: skip


def in_terminal(words: list[str], cwd: Path, columns: int = 80) -> str:
    """All that a program writes into a terminal."""
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    env.pop("COLUMNS", None)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(words[0], words, env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    written = b""
    while True:
        try:
            written += (part := os.read(terminal, 65536))
        except OSError:  # the end, as Linux has it
            break
        if not part:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, written.decode()
    return written.decode()


def seen(written: str) -> tuple[list[str], list[str]]:
    """The lines that are left on a terminal, and all states in which its last line was."""
    lines, row, states = [""], 0, []
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] if row == len(lines) else []
        elif part.startswith("\x1b"):
            row -= int(part[2:-1] or 1) if part.endswith("A") else 0
            lines[row] = "" if part.endswith("2K") else lines[row]
        elif part == "\r":
            states.append(lines[row])
        elif states and states[-1] is lines[row]:
            lines[row] = part
        else:
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()], states


@pytest.mark.parametrize(
    "names",
    [
        ("supervised", "generate"),
        pytest.param(("validate", "watched", "search", "test"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_terminal_shows_one_line_of_progress_and_then_the_result(
    names: tuple[str, ...], tmp_path: Path, runs: dict[str, tuple[list[str], str, str]]
) -> None:
    program = [sys.executable, "-c", PROGRAM, json.dumps([runs[name][0] for name in names])]
    for name, part in zip(names, in_terminal(program, tmp_path).split("====")[1:], strict=True):
        _, progress, result = runs[name]
        left, states = seen(part)
        assert re.search(result, left[-1]), (name, left)
        assert any(re.search(progress, state) for state in states), (name, states)
        assert all(len(state) <= 80 for state in states if " left " in state), name
        assert not any(" left " in line for line in left) and len(left) <= 4, (name, left)
        assert not BOILERPLATE.search(part), (name, left)


def test_a_pipe_gets_the_result_alone(tmp_path: Path, runs: dict[str, tuple[list[str], str, str]]) -> None:
    program = [sys.executable, "-c", PROGRAM, json.dumps([runs["generate"][0]])]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()[1:]
    assert re.search(runs["generate"][2], line) and done.stderr == ""

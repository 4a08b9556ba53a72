"""The pipeline's declaration says what the commands read and write."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ohlora import doctor
from ohlora.__main__ import main as ohlora

ROOT = Path(__file__).parents[1]
STAGES = [(world, stage) for world in doctor.WORLDS for stage in doctor.stages(world)]
CONFIGURED = [(world, stage) for world, stage in STAGES if "-m ohlora " in stage.commands[0]]


NETWORKS = {"generator", "merged", "judge"}
"""What a search by samples names for the test that follows, and does not read; the test reads no samples."""


def leaves(value: Any) -> Iterator[str]:
    """Every text in a configuration, but hints of what makes a missing file."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in ("made_by", "default_root_dir"):
                yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, str):
        yield value


def covers(declared: Path, path: Path) -> bool:
    """Whether a declared path is a path, lies in it, or holds it."""
    return declared == path or path in declared.parents or declared in path.parents


@pytest.mark.parametrize(("world", "stage"), CONFIGURED, ids=lambda value: getattr(value, "name", value))
def test_what_a_configuration_names_is_declared(
    world: str, stage: doctor.Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OHLORA_ARTIFACTS", raising=False)
    (command,) = stage.commands
    with pytest.raises(SystemExit):
        ohlora([*shlex.split(command)[3:], "--print_config"])
    resolved = yaml.safe_load(capsys.readouterr().out)
    named = {Path(text) for text in leaves(resolved) if text.startswith(("artifacts/", "ohlora/weights/"))}
    assert named
    unread = {"vectorfind_v8": NETWORKS, "test_v8": {"sample_v8"}, "vectorfind_v9": {"judge"}}.get(stage.name, set())
    named = {path for path in named if path.stem not in unread}
    missing = [path for path in named if not any(covers(d, path) for d in (*stage.needs, *stage.makes))]
    assert not missing, f"{world}-{stage.name}: {missing} are in no dependency and no output"


@pytest.mark.parametrize(("world", "stage"), STAGES, ids=lambda value: getattr(value, "name", value))
def test_what_a_stage_makes_is_in_its_command(world: str, stage: doctor.Stage) -> None:
    """Outputs of scripts are among their words (but for tables of figures, whose place is the script's default)."""
    (command,) = stage.commands
    if "scripts/" in command and "measure_" not in command:
        words = [Path(word) for word in shlex.split(command)]
        for path in (*stage.makes, *[need for need in stage.needs if need.parts[0] == "artifacts"]):
            inside = any(covers(word, path) for word in words if len(word.parts) > 1)
            assert inside or path.name.startswith(("shards", "images")), f"{world}-{stage.name}: {path}"

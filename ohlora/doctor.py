"""``ohlora doctor``: what is installed, what it can use, what has been made, and what to run next."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ohlora import __version__
from ohlora.utils.accounts import wandb_key_found
from ohlora.utils.files import artifacts_root, shipped

WORLDS = {
    "celeba256": "the recipe at 256×256",
    "toy": "the toy world, 64×64",
    "demo": "the toy world at the size of the demo",
}
LIBRARIES = ("torch", "lightning", "torchmetrics", "wandb", "numpy", "pillow", "scikit-learn", "omegaconf")
OPTIONAL = {"transformers": "parsing", "dvc": "pipeline", "gradio": "studio"}
"""Library → the extra that installs it."""
ROOT = "artifacts"
"""The artifacts root as the pipeline's declaration writes it."""


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline's declaration: name without its world, title, commands, and the paths it needs and makes.

    A path that belongs to no stage's products is a download, labels of one's own, or something that ships.
    """

    name: str
    title: str
    commands: tuple[str, ...]
    needs: tuple[Path, ...]
    makes: tuple[Path, ...]

    @property
    def done(self) -> bool:
        """Whether everything it makes is there."""
        return all(path.exists() for path in self.makes)


def as_typed(command: str) -> str:
    """A declared command as it is typed here: with the artifacts root in use, and scripts from an installed ohlora."""
    root = artifacts_root().as_posix()
    if root != ROOT:
        command = re.sub(rf"(?<![\w/.]){ROOT}/", f"{root}/", command)
    if shipped("configs/generate_original.yaml").is_relative_to(Path(__file__).parent):
        command = re.sub(r"^python scripts/(\w+)\.py", r"python -m ohlora.scripts.\1", command)
    return command


def stages(world: str) -> list[Stage]:
    """The declared stages of a world, in order, with paths below the artifacts root in use."""
    root = artifacts_root()

    def located(entry: object) -> Path:
        path = Path(str(entry if isinstance(entry, str) else next(iter(entry))))  # type: ignore[call-overload]
        if path.parts[0] == ROOT:
            return root.joinpath(*path.parts[1:])
        if path.parts[:2] == ("ohlora", "weights"):
            return shipped(path.relative_to("ohlora").as_posix())
        return path

    declared: Any = OmegaConf.to_container(OmegaConf.load(shipped("dvc.yaml")))
    found = []
    for name, stage in declared["stages"].items():
        if not name.startswith(f"{world}-"):
            continue
        commands = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
        made = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, ())]
        found.append(
            Stage(
                name.removeprefix(f"{world}-"),
                stage["desc"],
                tuple(as_typed(command) for command in commands),
                tuple(located(entry) for entry in stage.get("deps", ())),
                tuple(located(entry) for entry in made),
            )
        )
    return found


def next_stage(of: list[Stage]) -> Stage | None:
    """The first stage that is not done and has what it needs."""
    return next((s for s in of if not s.done and all(path.exists() for path in s.needs)), None)


def _installed() -> list[str]:
    lines = [f"ohlora {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines.append(", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    for name, extra in OPTIONAL.items():
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} is not installed: pip install 'ohlora[{extra}]'")
    return lines


def _devices() -> list[str]:
    import torch

    lines = [f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"]
    for k in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(k)
        lines.append(f"GPU {k}: {about.name}, {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        lines.append("GPU: Apple MPS")
    if len(lines) == 1:
        lines.append("no GPU: the toy world needs none; fine-tuning at 256×256 takes days on a CPU")
    return lines


def _wandb() -> str:
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return f"WANDB_MODE is {mode}"
    if wandb_key_found():
        return "a key was found: runs are logged online"
    return "no key: runs are logged offline, and say how to upload them; `wandb login` stores one"


def _made(world: str) -> list[str]:
    of = stages(world)
    done = [stage for stage in of if stage.done]
    lines = [f"{WORLDS[world]}: {len(done)} of {len(of)} stages done"]
    if done:
        lines += [f"  {'x' if stage.done else ' '} {stage.name:24} {stage.title}" for stage in of]
    following = next_stage(of)
    if following is not None:
        lines += ["  next:", *(f"    {command}" for command in following.commands)]
    elif len(done) < len(of):
        stage = next(s for s in of if not s.done)
        missing = [str(path) for path in stage.needs if not path.exists()]
        where = " (docs/celeba256.md says from where)" if world == "celeba256" else ""
        lines.append(f"  next is {stage.name}, which needs {', '.join(missing)}{where}")
    return lines


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="ohlora doctor",
        description="Says what is installed, what it can use, what has been made, and what is next.",
    )
    found.add_argument("--world", choices=[*WORLDS], help="look at one world only")
    return found


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = parser().parse_args(sys.argv[1:] if args is None else args)
    root = artifacts_root()
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    sections = {
        "Installed": _installed(),
        "Devices": _devices(),
        "Weights & Biases": [_wandb()],
        "Disk": [f"{root}: {free:.1f} GiB free; the recipe at 256×256 fills about 10 GiB, the toy world half of one"],
    }
    for title, lines in sections.items():
        print(f"{title}\n" + "\n".join(f"  {line}" for line in lines))
    print("Made")
    for world in [given.world] if given.world else [*WORLDS]:
        if world == "demo" and not given.world and not any(stage.done for stage in stages(world)):
            print("  the demo was not run: make demo")
            continue
        print("\n".join(f"  {line}" for line in _made(world)))
    return 0

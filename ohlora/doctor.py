"""``ohlora doctor``: what is installed, what it can use, what has been made, and what to run next."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

from ohlora import __version__, pipeline
from ohlora.errors import ConfigError
from ohlora.utils.accounts import wandb_key_found
from ohlora.utils.files import artifacts_root
from ohlora.worlds import SHIPPED, World

LIBRARIES = ("torch", "lightning", "torchmetrics", "wandb", "numpy", "pillow", "scikit-learn", "omegaconf")
OPTIONAL = {"transformers": "parsing", "dvc": "pipeline", "gradio": "studio"}
"""Library → the extra that installs it."""


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


def _made(world: World) -> list[str]:
    done = [stage for stage in world.stages if world.done(stage)]
    lines = [f"{world.about}: {len(done)} of {len(world.stages)} stages done"]
    if done:
        lines += [f"  {'x' if stage in done else ' '} {stage.name:24} {stage.about}" for stage in world.stages]
    following = world.next_stage()
    if following is not None:
        lines += ["  next:", f"    {world.command(following)}"]
    elif len(done) < len(world.stages):
        stage = next(s for s in world.stages if s not in done)
        missing = [path for path in world.needs(stage) if not path.exists()]
        lines += [f"  next is {stage.name}, which needs:"]
        lines += [f"    {path}" + (f" ({how})" if (how := pipeline.hint(path)) else "") for path in missing]
    return lines


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="ohlora doctor",
        description="Says what is installed, what it can use, what has been made, and what is next.",
    )
    found.add_argument("--world", help=f"look at one world only: {', '.join(SHIPPED)}, or the path of a world's file")
    return found


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = parser().parse_args(sys.argv[1:] if args is None else args)
    if given.world:
        try:
            pipeline.use(pipeline.world(given.world))
        except ConfigError as error:
            print(f"ohlora: {error}", file=sys.stderr)
            return 2
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
    for name in [given.world] if given.world else SHIPPED:
        world = pipeline.world(name)
        if name == "demo" and not given.world and not any(world.done(stage) for stage in world.stages):
            print("  the demo was not run: make demo")
            continue
        print("\n".join(f"  {line}" for line in _made(world)))
    return 0

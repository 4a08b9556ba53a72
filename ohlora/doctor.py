"""``ohlora doctor``: what is installed, what it can use, what has been made, and what to run next."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from ohlora import __version__, pipeline
from ohlora.utils.accounts import wandb_key_found
from ohlora.utils.commands import command
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
    left = [stage for stage in world.stages.values() if not world.done(stage)]
    lines = [f"{world.about}: {len(world.stages) - len(left)} of {len(world.stages)} stages done"]
    if len(left) < len(world.stages):
        lines += [f"  {' ' if s in left else 'x'} {s.name:24} {s.about}" for s in world.stages.values()]
    missing = [[path for path in world.needs(stage) if not path.exists()] for stage in left]
    if [] in missing:
        lines += ["  next:", f"    {world.command(left[missing.index([])])}"]
    elif left:
        lines += [f"  next is {left[0].name}, which needs:"]
        lines += [f"    {path}" + (f" ({how})" if (how := pipeline.hint(path)) else "") for path in missing[0]]
    return lines


@command("ohlora")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="ohlora doctor",
        description="Says what is installed, what it can use, what has been made, and what is next.",
    )
    parser.add_argument("--world", help=f"look at one world only: {', '.join(SHIPPED)}, or the path of a world's file")
    given = parser.parse_args(args)
    if given.world:
        pipeline.use(pipeline.world(given.world))
    root = artifacts_root()
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    sections = {
        "Installed": _installed(),
        "Devices": _devices(),
        "Weights & Biases": [_wandb()],
        "Disk": [f"{root}: {free:.1f} GiB free; the recipe at 256×256 fills about 10 GiB, the toy world half of one"],
        "Made": [],
    }
    for world in map(pipeline.world, [given.world] if given.world else SHIPPED):
        if world.given == "demo" and not given.world and not any(map(world.done, world.stages.values())):
            sections["Made"].append("the demo was not run: ohlora demo")
        else:
            sections["Made"] += _made(world)
    for title, lines in sections.items():
        print(f"{title}\n" + "\n".join(f"  {line}" for line in lines))

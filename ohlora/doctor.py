"""``ohlora doctor``: what is installed, what it can use, what has been made, and what to run next."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ohlora import __version__, handover, pipeline
from ohlora.errors import FormatError
from ohlora.utils.accounts import wandb_key_found
from ohlora.utils.commands import Parser, command
from ohlora.utils.files import artifacts_root
from ohlora.worlds import SHIPPED, Stage, World

LIBRARIES = ("torch", "lightning", "torchmetrics", "wandb", "numpy", "pillow", "scikit-learn", "omegaconf")
OPTIONAL = {
    **{"transformers": "parsing", "dvc": "pipeline", "gradio": "studio", "onnxruntime": "onnx"},
    **{"av": "video", "pyarrow": "tables"},
}
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

    from ohlora.utils import threads

    used = f"torch uses {torch.get_num_threads()} threads"
    if not threads.chosen():
        used = threads.described(threads.measured())
    lines = [f"CPU: {os.cpu_count()} cores, {used}"]
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


def made(world: World) -> dict[str, Any]:
    """What of a world has been made, and its next stage: the command, or what it needs first and how to come by it."""
    left = [stage for stage in world.stages.values() if not world.done(stage)]
    found: dict[str, Any] = {"world": world.name, "about": world.about}
    found["stages"] = [
        {"name": s.name, "about": s.about, "done": s not in left, handover.UNFIT: _unfit(world, s)}
        for s in world.stages.values()
    ]
    missing = [[path for path in world.needs(stage) if not path.exists()] for stage in left]
    if [] in missing:
        found["next"] = world.command(left[missing.index([])])
    elif left:
        needs = [{"path": path.as_posix(), "hint": pipeline.hint(path)} for path in missing[0]]
        found["blocked"] = {"stage": left[0].name, "needs": needs}
    return found


def _unfit(world: World, stage: Stage) -> list[str]:
    """Why the products of a stage are not fit for use, as their files say."""
    from ohlora.formats import tensor_files

    files = [path for path in world.makes(stage) if path.suffix == ".safetensors" and path.is_file()]
    found = []
    for path in files:
        try:
            found += [f"{path.name}: {mark}" for mark in handover.marks(tensor_files.described(path))]
        except FormatError as error:
            found.append(str(error))
    return found


def _lines(made: dict[str, Any], briefly: bool) -> list[str]:
    """The same as text."""
    stages = made["stages"]
    done = sum(stage["done"] for stage in stages)
    if briefly and not done and made["world"] == "demo":
        return ["the demo was not run: ohlora demo"]
    lines = [f"{made['about']}: {done} of {len(stages)} stages done"]
    if done:
        for stage in stages:
            lines.append(f"  {'✓' if stage['done'] else ' '} {stage['name']:24} {stage['about']}")
            lines += [f"    ! {reason}" for reason in stage[handover.UNFIT]]
    if "next" in made:
        lines += ["  next:", f"    {made['next']}"]
    elif "blocked" in made:
        lines += [f"  next is {made['blocked']['stage']}, which needs:"]
        lines += [f"    {n['path']}" + (f" ({n['hint']})" if n["hint"] else "") for n in made["blocked"]["needs"]]
    return lines


def _shown(text: str) -> str:
    """The text, with plain letters for what the terminal's encoding does not have."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("✓", "x").replace("×", "x")
    return text.encode(encoding, "replace").decode(encoding)


@command("ohlora")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = Parser(
        prog="ohlora doctor",
        description="Says what is installed, what it can use, what has been made, and what is next.",
    )
    parser.add_argument("--world", help=f"look at one world only: {', '.join(SHIPPED)}, or the path of a world's file")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
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
    }
    found = [made(pipeline.world(name)) for name in ([given.world] if given.world else SHIPPED)]
    if given.json:
        print(json.dumps({**sections, "Made": found}, indent=2))
        return
    if given.world:
        sections["Checks where a stage hands over to the next"] = list(map(str, handover.CHECKS.values()))
    sections["Made"] = [line for one in found for line in _lines(one, briefly=not given.world)]
    for title, lines in sections.items():
        print(_shown(f"{title}\n" + "\n".join(f"  {line}" for line in lines)))

"""``ohlora fit --help``: the common settings, and those of a stage that is named, from the schema of all settings."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from ohlora import settings
from ohlora.worlds import World

COMMON: Mapping[str, str] = {
    "world": "toy, demo, celeba256, stylegan2, or a world's file",
    "config": "file of settings; of several, later ones win",
    "ckpt_path": "checkpoint to start from; last: the newest",
    "seed_everything": "seed of the run",
    "trainer.default_root_dir": "folder of the stage",
    "trainer.accelerator": "auto, cpu, gpu or mps",
    "trainer.devices": "how many devices, or their numbers",
    "trainer.num_nodes": "how many machines",
    "trainer.strategy": "how devices work together: auto, ddp",
    "trainer.precision": "32, bf16-mixed, 16-mixed, ...",
    "trainer.max_epochs": "epochs, where a stage counts them",
    "trainer.max_time": "limit as days:hours:minutes:seconds",
    "trainer.limit_train_batches": "batches of an epoch, or a share",
    "trainer.limit_val_batches": "likewise in validation",
    "trainer.limit_predict_batches": "likewise in prediction",
    "trainer.log_every_n_steps": "steps between two entries of the log",
    "trainer.enable_progress_bar": "false shows no bar",
    "trainer.callbacks": "list of class_path and init_args",
    "trainer.logger.init_args.mode": "W&B: auto, online, offline, disabled",
    "checkpoint.every_kimg": "1000 images between two; 0: end only",
    "checkpoint.keep": "how many of the newest stay",
}
"""The settings that are used most, of every stage."""


def text(verb: str, stage: str | None, world: World, said: Mapping[str, Any]) -> str:
    """What ``ohlora VERB [STAGE] --help`` shows.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        stage: The stage, if one was named.
        world: The world it speaks of.
        said: What configurations and options say, see :func:`ohlora.settings.check`.
    """
    width = min(120, shutil.get_terminal_size().columns)
    lines = [f"usage: ohlora {verb} STAGE [--world WORLD] [--setting VALUE] ..."]
    lines += [f"       ohlora {verb} --config FILE ... [--setting VALUE] ...", ""]
    if stage is None:
        of = [one.name for one in world.stages_of(verb)]
        lines += [f"stages of the world {world.name}:"]
        lines += [*textwrap.wrap(", ".join(of), width, initial_indent="  ", subsequent_indent="  "), ""]
    elif stage in world.stages:
        lines += [f"{stage}: {world.stages[stage].about}", ""]
    lines += ["common settings [value now]:"]
    for name, about in COMMON.items():
        lines += _lines(f"--{name}", _at(said, name), about, width)
    for section in ("model", "data"):
        path = _at(said, f"{section}.class_path")
        if node := settings.of_class(path):
            lines += ["", f"{section}, as --{section}.init_args.NAME VALUE ({path}):"]
            for name, one in node["properties"].items():
                value = _at(said, f"{section}.init_args.{name}")
                value = one.get("default") if value is None else value
                lines += _lines(name, value, one.get("description", ""), width)
    more = {} if stage else {"STAGE --help": "also lists what its model and data take"}
    more |= {"--help-all": "lists everything", "--model.help CLASS": "explains a class in full; also --data.help"}
    lines += ["", *(f"  ohlora {verb} {words:19} {about}" for words, about in more.items())]
    return "\n".join(lines) + "\n"


def _at(said: Mapping[str, Any], name: str) -> Any:
    """What was said of a setting; the parser's default where nothing was."""
    found: Any = said
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    section, _, key = name.partition(".")
    of: Any = settings.schema()["commands"]["fit"]["properties"].get(section, {})
    if key:
        of = (settings.of_class(of.get("$ref", "").rpartition("/")[2]) or {}).get("properties", {}).get(key, {})
    return of.get("default") if found is None else found


def _lines(name: str, value: Any, about: str, width: int) -> list[str]:
    """One setting: its name, what it is, and the value it has now."""
    if isinstance(value, Mapping):
        value = str(value.get("class_path", "...")).rpartition(".")[2]
    elif isinstance(value, list):
        value = "..." if any(isinstance(each, Mapping) for each in value) else ", ".join(map(str, value))
    now = "" if value is None else " [" + re.sub(r"\$\{world:(.*?)\}", r"\1", str(value)) + "]"
    start = f"  {name:{31 if name.startswith('--') else 24}} "
    plain = re.sub("``|`", "", about) + now
    return textwrap.wrap(plain or "-", width, initial_indent=start, subsequent_indent=" " * len(start))

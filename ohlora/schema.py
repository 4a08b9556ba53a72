"""The schema of all settings, made from the parser: what ``ohlora.settings`` checks mistakes by and shows in helps."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import lightning as L
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

import ohlora
from ohlora import worlds
from ohlora.callbacks.checkpoint import ImagesSeenCheckpoint
from ohlora.cli import CLI, PARSER
from ohlora.commands import COMMANDS
from ohlora.directions.finder import Finder
from ohlora.networks.augmentation import Augmentation
from ohlora.settings import DECIDES, released
from ohlora.utils.files import shipped

BASES = (L.LightningModule, L.LightningDataModule, L.Callback, Logger, Finder, Augmentation)
"""What configurations name classes of ours for."""
SCALARS = {int: "integer", float: "number", bool: "boolean", str: "string", NoneType: "null"}
Node = dict[str, Any]


class _Built(Exception):  # noqa: N818
    """Raised once the parsers are there, in place of parsing."""


class _Parsers(CLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.of = {verb: self._parser(verb) for verb in worlds.VERBS}
        raise _Built

    def __init__(self) -> None:
        with contextlib.suppress(_Built):
            super().__init__(parser_kwargs=PARSER, seed_everything_default=0, args=[])


def schema() -> str:
    """The text of ``ohlora/settings.json``: the options of every command, and the settings of every class."""
    classes: dict[str, type] = {"trainer": L.Trainer, "checkpoint": ImagesSeenCheckpoint}
    commands: dict[str, Node] = {}
    for verb, parser in _Parsers().of.items():
        found = _properties(parser)
        classes_of = {name: {"$ref": f"#/$defs/{_path(of)}"} for name, of in classes.items()}
        commands[verb] = {"properties": {k: v for k, v in found.items() if "." not in k} | classes_of}
        defined = {
            _path(of): {"properties": {k.partition(".")[2]: v for k, v in found.items() if k.startswith(f"{name}.")}}
            for name, of in classes.items()
        }
    for of in sorted({*_ours(), *_named()}, key=_path):
        defined[_path(of)] = _settings(of)
    while missing := {*re.findall(r"#/\$defs/([\w.]+)", json.dumps(defined))} - defined.keys():  # dataclasses
        defined |= {path: _settings(pkgutil.resolve_name(path)) for path in missing}
    made_with = {name: released(name) for name in DECIDES}
    content = {"made_with": made_with, "commands": commands, "$defs": dict(sorted(defined.items()))}
    content["options"] = {name: _options(entry.module) for name, entry in COMMANDS.items() if name not in worlds.VERBS}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _options(module: str) -> list[str]:
    """The options of a command that has a parser of its own, as its ``--help`` lists them."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[\w-]+", said.getvalue())))


def _ours() -> Iterable[type]:
    """The classes of this project that configurations may name."""
    for package in ("modules", "datamodules", "callbacks", "directions"):
        folder = importlib.import_module(f"{ohlora.__name__}.{package}")
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            importlib.import_module(module.name)
    left: list[type] = list(BASES)
    while left:
        below: list[type] = type.__subclasses__(left.pop())
        below = [of for of in below if of.__module__.startswith("ohlora.") and of not in left]
        left += below
        yield from (of for of in below if not of.__name__.startswith("_") and of.__module__ != "ohlora.cli")


def _named() -> Iterable[type]:
    """The classes of other libraries that configurations which ship name."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(shipped("configs")).rglob("*.yaml"))]
    for path in sorted(set(re.findall(r"class_path: ([\w.]+)", "".join(texts)))):
        if not path.startswith("ohlora."):
            yield pkgutil.resolve_name(path)


def _path(of: type) -> str:
    """How configurations name a class: torch's optimizers by their package."""
    package = of.__module__.rpartition(".")[0]
    short = not of.__module__.startswith("ohlora.") and hasattr(importlib.import_module(package), of.__name__)
    return f"{package if short else of.__module__}.{of.__name__}"


def _settings(of: type) -> Node:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(of, fail_untyped=False)
    about = (of.__doc__ or "").strip().partition("\n")[0]
    return {"description": about, "properties": _properties(parser)}


def _properties(parser: ArgumentParser) -> dict[str, Node]:
    """Setting → what may stand there, its first sentence and its default."""
    found = {}
    for action in parser._actions:  # argparse has no public way to list what a parser takes
        name = action.dest
        if name in ("help", "print_config") or name.endswith(".help") or not action.option_strings:
            continue
        node = _node(getattr(action, "_typehint", action.type))  # jsonargparse keeps it there only
        about = " ".join((action.help or "").split())
        if about and about != "==SUPPRESS==":
            node["description"] = re.split(r"(?<=[.;])\s", re.sub(r"%\(\w+\)s|%%", "", about))[0].rstrip(".;")
        if isinstance(default := _plain(action.default), str | int | float | list | dict) and default != "==SUPPRESS==":
            node["default"] = default
        found[name] = node
    return found


def _plain(value: Any) -> Any:
    """A default as JSON has it; None where it is not that simple."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if isinstance(value, tuple):
        value = list(value)
    try:
        json.dumps(value)
    except TypeError:
        return None
    return value


def _node(hint: Any) -> Node:
    """What may stand where a type is expected; an empty node where only the parser can tell."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in SCALARS:
        return {"type": SCALARS[hint]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, UnionType):
        # typing keeps the order in which a union of these types was first written anywhere in the process
        nodes = sorted(map(_node, args), key=json.dumps)
        return {} if {} in nodes else {"anyOf": nodes}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/$defs/{_path(hint)}"}
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _node(args[1])}
    if origin is not None and isinstance(origin, type) and origin in (list, Sequence, Iterable):
        return {"type": "array", "items": _node(args[0])}
    if isinstance(hint, type) and issubclass(hint, BASES):
        return {"class": True}
    if repr(hint).startswith("typing.Callable") and "torch.optim" in repr(hint):
        return {"class": True}  # an optimizer or a schedule: its class and settings
    return {}

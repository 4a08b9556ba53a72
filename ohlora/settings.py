"""The settings of every command and class, known without importing them: mistakes are found before anything heavy is.

``settings.json`` is a JSON schema, with ``{"class": true}`` where a class with its ``init_args`` is expected, and an
empty node where only the parser can tell. It is made from the parser by ``ohlora pipeline --write``. What it does not
know, such as a class of the user's own, is left to the parser; it refuses nothing that the parser takes.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ohlora import renamed, worlds
from ohlora.errors import ConfigError, MissingArtifactError
from ohlora.utils.files import read_yaml

Node = Mapping[str, Any]
FILE = Path(__file__).with_name("settings.json")
DECIDES = ("lightning", "torch")
"""Libraries whose classes are described; with other versions than those described, the parser decides on them."""
SPEC = ("class_path", "init_args", "dict_kwargs")
"""What a class is given by."""
EXPECTED = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
EXPECTED |= {"null": "null", "array": "a list", "object": "settings"}


class Word(str):
    """A value as typed on the command line, which may be meant as YAML."""

    __slots__ = ()


@cache
def schema() -> Node:
    """The content of ``settings.json``."""
    content: Node = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def of_class(path: Any) -> Node | None:
    """The settings of a class; None where they are not known, or another version of its library is installed."""
    found: Node | None = schema()["$defs"].get(path)
    library = str(path).partition(".")[0]
    if library in DECIDES and released(library) != schema()["made_with"][library]:
        return None
    return found


def released(library: str) -> str:
    """The version of a library, without what a build adds to it."""
    return version(library).partition("+")[0]


def check(words: Sequence[str]) -> dict[str, Any]:
    """Refuses what the parser would refuse, as far as the schema tells.

    Args:
        words: The long form of a command line: verb, then options.

    Returns:
        All that configurations and options say, as nested mappings; later ones win.

    Raises:
        ConfigError: For an unknown option or setting, and for a value of a wrong type.
        MissingArtifactError: For a configuration that is not there.
    """
    verb, *left = words
    said: dict[str, Any] = {}
    kept: dict[str, str] = {}
    asks = any(re.match(r"-[^-\d]|--print_config|--(\S+\.)?help", word) for word in left)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            if not asks:  # these may be followed by a word
                raise ConfigError(f"{word} belongs to no option; options begin with --")
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals and left and not left[0].startswith("--"):
            value, equals = left.pop(0), " "
        if name.endswith("help") or name.startswith("print_config"):
            continue
        if not equals:
            raise ConfigError(f"--{name}: a value must follow")
        if name == "config":
            where, given = f"{value}: ", _read(value)
        else:
            where, given = "--", _nested(name, value)
        if found := problem(given, schema()["commands"][verb], said, ""):
            raise ConfigError(f"{where}{found}")
        # What comes after an appended item may be meant for it, which only the parser can tell.
        _merge(said, _nested(name.removesuffix("+"), []) if name.endswith("+") else given, kept)
    for setting, before in kept.items():
        print(f"{setting} stays as it was said for {before}; say it again to change it", file=sys.stderr)
    return said


def _nested(name: str, value: str | list[Any]) -> dict[str, Any]:
    """An option as a configuration would say it; what it appends to a list is left to the parser."""
    given: Any = None if name.endswith("+") else Word(value) if isinstance(value, str) else value
    for key in reversed(name.removesuffix("+").split(".")):
        given = {key: given}
    return given  # type: ignore[no-any-return]


def _read(path: str) -> dict[str, Any]:
    """The content of a configuration; nothing where it is not a file of settings, on which the parser decides."""
    if not Path(path).is_file():
        if path.lstrip().startswith("{"):
            return {}  # settings in place of a file
        folder, name = Path(path).parent, Path(path).name
        near = difflib.get_close_matches(name, [file.name for file in folder.glob("*.yaml")], 1)
        meant = f"; did you mean {folder / near[0]}?" if near else ""
        raise MissingArtifactError(f"--config {path}: no such file{meant}")
    given = read_yaml(path)
    return given if isinstance(given, dict) and not set(given) & {*worlds.VERBS, "__path__"} else {}


def _merge(said: dict[str, Any], given: Mapping[str, Any], kept: dict[str, str], place: str = "") -> None:
    """Lays settings over others.

    Where a class is replaced by one of ours, the parser keeps what was said for the class before and fits the new one;
    ``kept`` notes these settings, with the class before, until they are said anew.
    """
    for key, value in given.items():
        before, path = said.get(key), f"{place}{key}"
        kept.pop(path, None)
        if isinstance(before, dict) and "class_path" in before:
            now = value.get("class_path") if isinstance(value, Mapping) else value
            of = of_class(now) if now != before["class_path"] and str(now).startswith("ohlora.") else None
            if of is not None:
                args, nodes = before.get("init_args") or {}, of["properties"]
                before["init_args"] = {name: args[name] for name in args if name in nodes}
                differing = [name for name, v in before["init_args"].items() if v != nodes[name].get("default")]
                kept |= {f"{path}.init_args.{name}": str(before["class_path"]) for name in differing}
        if isinstance(value, Mapping) and isinstance(before, dict):
            _merge(before, value, kept, f"{path}.")
        elif isinstance(before, dict) and "class_path" in before and isinstance(value, str):
            before["class_path"] = str(value)
        else:
            said[key] = copy.deepcopy(value)


def problem(value: Any, node: Node, before: Any, place: str) -> str | None:
    """What is wrong with a value; None where nothing is, or the schema cannot tell.

    Args:
        value: What was given.
        node: What may stand there.
        before: What stood there already.
        place: Its keys, joined by dots.
    """
    if "$ref" in node:
        node = of_class(node["$ref"].rpartition("/")[2]) or {}
    if value is None or (isinstance(value, str) and "${" in value):
        return None
    if isinstance(value, Word):
        try:
            loaded = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
        return problem(str(value), node, before, place) and problem(loaded, node, before, place)
    if "anyOf" in node:
        before = node.get("default") if before is None else before
        each_of = [(problem(value, each, before, place), each) for each in node["anyOf"]]
        if not all(found for found, _ in each_of):
            return None
        inside = [found for found, each in each_of if _is_branch(value, each)]
        return inside[0] if inside else _mismatch(value, node, place)
    if "class" in node:
        return _problem_of_class(value, node, before, place)
    if "properties" in node:
        if not isinstance(value, dict):  # text may be the path of a file
            return None if isinstance(value, str) else _mismatch(value, node, place)
        return _problem_of_settings(value, node, before, place)
    if "enum" in node:
        taken = isinstance(value, bool) or str(value) in map(str, node["enum"])
        return None if taken else _mismatch(value, node, place)
    kind = node.get("type")
    if kind == "array" and isinstance(value, list):
        found = [problem(each, node["items"], None, f"{place}[{k}]") for k, each in enumerate(value)]
    elif kind == "object" and isinstance(value, dict):
        found = [problem(each, node["additionalProperties"], None, f"{place}.{k}") for k, each in value.items()]
    else:
        return None if _is(value, kind) else _mismatch(value, node, place)
    return next(filter(None, found), None)


def _problem_of_settings(value: Node, node: Node, before: Any, place: str, owner: str = "") -> str | None:
    before = before if isinstance(before, dict) else {}
    for key, inner in ((str(name), inner) for name, inner in value.items()):
        path = f"{place}.{key}".removeprefix(".")
        if key not in node["properties"]:
            if key == "$schema" or _declared(owner, key):
                continue
            return _unknown(path, key, node, before, owner)
        if found := problem(inner, node["properties"][key], before.get(key), path):
            return found
    return None


def _problem_of_class(value: Any, node: Node, before: Any, place: str) -> str | None:
    if not isinstance(value, str | dict):
        return _mismatch(value, node, place)
    before = node.get("default") if before is None else before
    before = {"class_path": before} if isinstance(before, str) else before
    given = {"class_path": value} if isinstance(value, str) else value
    if isinstance(before, list):
        return None  # one of them is meant, which the parser knows
    before = before if isinstance(before, dict) else {}
    path = given.get("class_path", before.get("class_path"))
    if path is not None and not isinstance(path, str):
        return _mismatch(path, {"class": True}, f"{place}.class_path")
    if "class_path" in given and (found := _no_class(str(path))):
        return f"{place}: {found}"
    settings: Any = given
    if given.keys() & set(SPEC):
        if found := _problem_of_settings(given, {"properties": {key: {} for key in SPEC}}, {}, place):
            return found
        settings = given.get("init_args")
    of = of_class(path)
    if of is None or not isinstance(settings, dict):
        return None
    return _problem_of_settings(settings, of, before.get("init_args"), f"{place}.init_args", str(path))


def _is_branch(value: Any, node: Node) -> bool:
    if isinstance(value, dict):
        return "class" in node or "$ref" in node or node.get("type") == "object"
    return node.get("type") == "array" if isinstance(value, list) else isinstance(value, str) and "class" in node


def _is(value: Any, kind: str | None) -> bool:
    """Whether the parser may take a value as of a kind; text is read as YAML and as Python would."""
    if kind is None:
        return True
    if kind == "string":
        return not isinstance(value, list | dict)
    if kind in ("array", "object", "null") or isinstance(value, list | dict):
        return isinstance(value, str) and Path(value).is_file()
    if kind == "boolean":
        return str(value).lower() in ("true", "false", "yes", "no", "on", "off", "0", "1")
    try:
        number = float(value)
    except ValueError:
        return False
    return kind == "number" or (number.is_integer() and not isinstance(value, bool))


def _mismatch(value: Any, node: Node, place: str) -> str:
    shown = json.dumps(value, default=str) if isinstance(value, list | dict) else value
    return f"{place} is {shown}; expected {expected(node)}"


def expected(node: Node) -> str:
    """What may stand somewhere, in words."""
    *parts, last = dict.fromkeys(_parts(node))
    return f"{', '.join(parts)} or {last}" if parts else last


def _parts(node: Node) -> Iterator[str]:
    for each in node.get("anyOf", [node]):
        if "enum" in each:
            yield from map(str, each["enum"])
        else:
            yield "a class" if "class" in each else EXPECTED[each.get("type", "object")]


def _unknown(path: str, key: str, node: Node, said: Node, owner: str) -> str:
    """That there is no such setting, and which may be meant."""
    if key in renamed.SETTINGS:
        return f"{path}: {renamed.setting_now(key)}"
    names = list(node["properties"])
    near = difflib.get_close_matches(key, names, 1)
    meant = [path.removesuffix(key) + near[0]] if near else []
    if not meant and "trainer" in names:  # the beginning was left out
        meant = [name for name in _all(said, names) if name.rpartition(".")[2] == path.rpartition(".")[2]][:1]
    what = f"{owner} has no such setting" if owner else "there is no such setting"
    if meant:
        return f"{path}: {what}; did you mean {meant[0]}?"
    return f"{path}: {what}; expected one of {', '.join(name for name in names)}"


def _all(said: Node, sections: Sequence[str]) -> Iterator[str]:
    """All settings of trainer, checkpoints, stage and data that are in reach."""
    root = schema()["commands"]["fit"]["properties"]
    for section in sections:
        path = (said.get(section) or {}).get("class_path") if isinstance(said.get(section), dict) else None
        of = of_class(path or str(root.get(section, {}).get("$ref")).rpartition("/")[2])
        if of is not None:
            yield from (f"{section}{'.init_args' if path else ''}.{name}" for name in of["properties"])


def _no_class(path: str) -> str | None:
    """That a class of ours does not exist; None for any other, on which the parser decides."""
    if path in renamed.CLASSES:
        return f"{path} is now {renamed.CLASSES[path]}"
    if not path.startswith("ohlora.") or path in schema()["$defs"]:
        return None
    module, _, name = path.rpartition(".")
    file = FILE.parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if file.is_file() and re.search(rf"\b{re.escape(name)}\b", file.read_text(encoding="utf-8")):
        return None
    near = difflib.get_close_matches(path, schema()["$defs"], 1)
    return f"there is no class {path}" + (f"; did you mean {near[0]}?" if near else "")


def _declared(owner: str, key: str) -> bool:
    """Whether the module of a class of ours declares a setting that was added since the schema was written."""
    if not owner.startswith("ohlora."):
        return False
    file = FILE.parent.joinpath(*owner.split(".")[1:-1]).with_suffix(".py")
    return re.search(rf"^ +{re.escape(key)}: .*[,=]", file.read_text(encoding="utf-8"), re.M) is not None

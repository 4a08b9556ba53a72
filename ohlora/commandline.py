"""The words of a command before they are parsed: which world is meant, and which configurations a stage has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from ohlora import pipeline, renamed, worlds
from ohlora.errors import ConfigError
from ohlora.utils.files import config_file, seen_from, shipped
from ohlora.worlds import World


def expanded(given: list[str]) -> tuple[list[str], World]:
    """The long form of a command, and its world.

    ``fit finetune_v8 --world toy`` is short for ``fit --config configs/finetune_v8.yaml --config
    configs/toy/finetune_v8.yaml --world toy``. Configurations that are not at hand are replaced by the copies that
    ship.

    Args:
        given: The words after the program's name.

    Returns:
        The words, and the world: that of ``--world``, else the one that the last configuration with a ``world:`` names,
        else :data:`ohlora.worlds.DEFAULT`.

    Raises:
        ConfigError: If a stage or configuration is not there or has another name now, or is run by another command.
    """
    if given[:1] and given[0] in worlds.VERBS and given[1:2] and not given[1].startswith("-"):
        verb, stage, *rest = given
        _refuse_renamed(verb, stage)
        world = pipeline.world(_option(rest, "--world") or worlds.DEFAULT)
        return [verb, *_words_of(world, verb, stage), *rest], world
    words, files = [], []
    for before, word in zip(["", *given], given, strict=False):
        option, sign, value = word.partition("=")
        if before == "--config" or (option == "--config" and sign):
            file = word if before == "--config" else value
            if not Path(file).is_file() or given[0] == "test":
                _refuse_renamed(given[0], Path(file).stem)
            files.append(config_file(file))
            words.append(files[-1] if before == "--config" else f"--config={files[-1]}")
        else:
            words.append(word)
    named = _option(words, "--world") or next(_worlds_named(reversed(files)), worlds.DEFAULT)
    return words, pipeline.world(named)


def use(world: World) -> None:
    """Makes ``${world:…}`` and ``${shipped:…}`` in configurations stand for paths, and hints speak of this world.

    Interpolation is resolved file by file, so that the world must be known before the first is read.
    """
    pipeline.use(world)
    here = Path.cwd()  # the parser works in the folder of each configuration

    def found(path: Path) -> str:
        return str(seen_from(here, path))

    OmegaConf.register_resolver("world", lambda name: found(world.path(name)), replace=True)
    OmegaConf.register_resolver("shipped", lambda name: found(shipped(name)), replace=True)


def _words_of(world: World, verb: str, name: str) -> list[str]:
    """The configurations and options of a stage."""
    stage = world.by_name.get(name)
    if stage is not None and (
        not stage.configured or (stage.command != verb and (stage.command, verb) != ("fit", "validate"))
    ):
        raise ConfigError(f"{name} is not run by {verb}; it is run by: {world.command(stage)}")
    files = world.configs(name)
    if not files:
        known = ", ".join(s.name for s in world.stages if s.configured)
        raise ConfigError(f"the world {world.name} has no stage {name}; expected one of {known}")
    options = world.words(stage.options) if stage is not None else []
    return [*(word for file in files for word in ("--config", str(file))), *options]


def _refuse_renamed(verb: str, name: str) -> None:
    if f"{verb} {name}" in renamed.COMMANDS:
        raise ConfigError(f"ohlora {verb} {name} is now: ohlora {renamed.COMMANDS[f'{verb} {name}']}")
    if name in renamed.STAGES:
        raise ConfigError(f"{name} is now called {renamed.STAGES[name]}")


def _option(words: list[str], name: str) -> str | None:
    """The last value of an option, written ``--name value`` or ``--name=value``."""
    found = None
    for before, word in zip(["", *words], words, strict=False):
        if before == name:
            found = word
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def _worlds_named(files: Iterator[str]) -> Iterator[str]:
    """The worlds that configurations name at their top level."""
    for file in files:
        try:
            said = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            continue  # the parser says what is wrong with it
        if isinstance(said, dict) and said.get("world"):
            yield str(said["world"])

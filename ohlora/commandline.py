"""The words of a command before they are parsed: which world is meant, which configurations a stage has, mistakes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from ohlora import pipeline, renamed, settings, usage, worlds
from ohlora.errors import ConfigError
from ohlora.utils import mistakes
from ohlora.utils.commands import Parser
from ohlora.utils.files import config_file, read_yaml, seen_from, shipped
from ohlora.worlds import World


def main(args: list[str] | None = None) -> int:
    """Runs one command of a stage; mistakes that the settings' schema shows are told before anything heavy is imported.

    Args:
        args: Command line without the program's name; None takes the process's.

    Returns:
        The exit code, see :func:`ohlora.cli.run`.
    """
    given = list(sys.argv[1:] if args is None else args)
    traceback = "--traceback" in given
    try:
        asked = {word for word in given if word in ("-h", "--help", "--help-all")}
        words, world = expanded([word for word in given if word != "--traceback" and word not in asked])
        if words and words[0] in worlds.VERBS:
            said = settings.check(words)
            if asked - {"--help-all"}:
                stage = given[1] if not given[1].startswith("-") else None
                print(usage.text(words[0], stage, world, said), end="")
                return 0
            read = r"-[^-\d]|--config|--print_config|--(\S+\.)?help"  # may name a stage, or ask
            if not asked and not said.get("model") and not any(re.match(read, word) for word in words):
                raise ConfigError(f"{words[0]} needs a stage, or --config FILE; {_expected(world, words[0])}")
    except Exception as error:
        return mistakes.answer("ohlora", mistakes.readable(error), traceback)
    from ohlora import cli

    return cli.run([*words, "--help"] if asked else words, world, traceback)


def expanded(given: list[str]) -> tuple[list[str], World]:
    """The long form of the words after the program's name, and the world they speak of.

    ``fit finetune_v8 --world toy`` is short for ``fit --config configs/finetune_v8.yaml --config
    configs/toy/finetune_v8.yaml --world toy``. Configurations that are not at hand are replaced by the copies that
    ship.

    Returns:
        The words, and the world: that of ``--world``, else the one that the last configuration with a ``world:`` names,
        else :data:`ohlora.worlds.DEFAULT`.

    Raises:
        ConfigError: If a stage or configuration is not there or has another name now, or is run by another command.
    """
    words = [part for word in given for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    match words:
        case [verb, stage, *rest] if verb in worlds.VERBS and not stage.startswith("-"):
            _refuse_renamed(verb, stage)
            named = _world_option(rest)
            world = pipeline.world(named or worlds.DEFAULT)
            return [verb, *_words_of(world, verb, stage), *rest, *_last(named)], world
    files = []
    for place in (place for place in range(1, len(words)) if words[place - 1] == "--config"):
        if not Path(words[place]).is_file() or words[0] == "test":
            _refuse_renamed(words[0], Path(words[place]).stem)
        words[place] = config_file(words[place])
        files.append(words[place])
    named = _world_option(words)
    return [*words, *_last(named)], pipeline.world(named or _world_named(reversed(files)) or worlds.DEFAULT)


def use(world: World) -> None:
    """Makes a world the one that is meant: its attributes, and its paths in ``${world:…}`` and ``${shipped:…}``.

    Interpolation is resolved file by file, so that the world must be known before the first is read.
    """
    from omegaconf import OmegaConf

    pipeline.use(world)
    here = Path.cwd()  # the parser works in the folder of each configuration
    OmegaConf.register_resolver("world", lambda name: str(seen_from(here, world.path(name))), replace=True)
    OmegaConf.register_resolver("shipped", lambda name: str(seen_from(here, shipped(name))), replace=True)


def _words_of(world: World, verb: str, name: str) -> list[str]:
    """The configurations and options of a stage."""
    stage = world.stages.get(name)
    if stage is not None and verb != stage.command and (verb, stage.command) != ("validate", "fit"):
        raise ConfigError(f"{name} is not run by {verb}; it is run by: {world.command(stage)}")
    files = world.configs(name)
    if not files:
        near = get_close_matches(name, [stage.name for stage in world.stages.values() if stage.configured], 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"the world {world.name} has no stage {name}; {meant}{_expected(world, verb)}")
    options = world.words(stage.options) if stage is not None else []
    return [*(word for file in files for word in ("--config", str(file))), *options]


def _expected(world: World, verb: str) -> str:
    names = ", ".join(stage.name for stage in world.stages_of(verb))
    return f"{verb} runs {names}" if names else f"the world {world.name} has none that {verb} runs"


def _refuse_renamed(verb: str, name: str) -> None:
    if f"{verb} {name}" in renamed.COMMANDS:
        raise ConfigError(f"ohlora {verb} {name} is now: ohlora {renamed.COMMANDS[f'{verb} {name}']}")
    if name in renamed.STAGES:
        raise ConfigError(f"{name} is now called {renamed.STAGES[name]}")


def _world_option(words: list[str]) -> str | None:
    parser = Parser(prog="ohlora", add_help=False, allow_abbrev=False)
    parser.add_argument("--world")
    found: str | None = parser.parse_known_args(words)[0].world
    return found


def _last(world: str | None) -> list[str]:
    """Says the world once more, where it stood before configurations that may name another."""
    return [] if world is None else ["--world", world]


def _world_named(files: Iterable[str]) -> str | None:
    """The world that the first of some configurations with a ``world:`` names."""
    for file in files:
        try:
            said = read_yaml(file)
        except ConfigError:
            continue  # the parser says what is wrong with it
        if isinstance(said, dict) and said.get("world"):
            return str(said["world"])
    return None

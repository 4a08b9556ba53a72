"""Stages and worlds as data: what a stage reads and writes, and where a world keeps it.

A stage names files below a world's root (``finetune_v1/generator.safetensors``) and no world. A world says where its
root is, which overlays its configurations get, which stages it runs, and what differs in them. The worlds that ship are
``configs/worlds/*.yaml``; one's own is a file of the same form.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from ohlora.attributes import Vocabulary, recipe
from ohlora.errors import ConfigError
from ohlora.utils.files import artifacts_root, read_yaml, seen_from, shipped

SHIPPED = ("toy", "demo", "celeba256", "stylegan2")
"""The worlds that come with ohlora, in the order in which they are shown."""
DEFAULT = "celeba256"
"""The world of a command that names none."""
VERBS = ("fit", "validate", "test", "predict")
"""The commands of the entry point that run a stage."""
ASKING = ("filter", "import-weights")
"""Commands without a configuration that ask for a world's attributes, and are told which world."""


@dataclass(frozen=True)
class Stage:
    """One stage, without a world.

    A path is a name below the world's root, or starts with ``./`` and lies in the working directory.

    Attributes:
        name: Its name, which is also that of its configuration and of its folder.
        number: Number in the chain of the original work, 0 to 13; several are joined by commas, none is ''.
        about: What it does, in one line.
        korean: The same in Korean.
        command: ``fit``, ``predict`` or ``test`` for a stage with a configuration; for any other the words after
            ``ohlora``, or ``scripts/….py`` of a source tree with its words. ``{name}`` in them stands for a path below
            the world's root.
        inputs: Files and folders it reads.
        outputs: Files and folders it makes.
        options: Further words of the command, written like ``command``.
        config: Name of the configuration, where it is not the stage's own.
    """

    name: str
    number: str
    about: str
    korean: str
    command: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: str
    config: str = ""

    @property
    def configured(self) -> bool:
        """Whether it is run by the entry point, with a configuration."""
        return self.command in VERBS


@dataclass(frozen=True)
class World:
    """Where a world keeps its files, which stages it runs, and what differs in them.

    Attributes:
        given: How it is named on the command line: a name of :data:`SHIPPED`, or the path of its file.
        about: What it is, in one line.
        root: Folder below the artifacts root; '' is the artifacts root itself.
        overlays: Folders of configurations laid over the recipe's, in order; absolute.
        names: Files that no stage of this world makes → where they are: ``shipped:weights/…``, ``./…`` in the working
            directory, an absolute path, or another name of this world.
        hints: Files that no stage makes → how to come by them.
        stages: The stages it runs, in order, by name.
        attributes: The attributes it declares, with those of the world it builds on.
        artifacts: The artifacts root, if it is not the one in use.
    """

    given: str
    about: str
    root: str
    overlays: tuple[Path, ...]
    names: Mapping[str, str]
    hints: Mapping[str, str]
    stages: Mapping[str, Stage]
    attributes: Vocabulary = field(default_factory=Vocabulary)
    artifacts: Path | None = None

    @property
    def name(self) -> str:
        """Its name, which is that of its file."""
        return Path(self.given).stem

    @property
    def folder(self) -> Path:
        """Its root, below the artifacts root."""
        return (self.artifacts or artifacts_root()) / self.root

    def path(self, name: str) -> Path:
        """Where a file or folder is: ``name`` is below the world's root, or ``./…`` in the working directory."""
        if name in self.names:
            return self.path(self.names[name])
        if name.startswith("shipped:"):
            return shipped(name.removeprefix("shipped:"))
        return Path(name) if name.startswith("./") else self.folder / name

    def configs(self, stage: str) -> list[Path]:
        """The configurations that are there for a stage, of this world or not: the recipe's, and each overlay's."""
        name = (stage in self.stages and self.stages[stage].config) or stage
        recipe = Path(f"configs/{name}.yaml")
        recipe = recipe if recipe.is_file() else shipped(recipe.as_posix())
        overlays = [seen_from(Path.cwd(), folder / f"{name}.yaml") for folder in self.overlays]
        return [path for path in (recipe, *overlays) if path.is_file()]

    def stages_of(self, verb: str) -> list[Stage]:
        """The stages that are run by ``fit``, ``test`` or ``predict``; ``validate`` takes those of ``fit``."""
        return [stage for stage in self.stages.values() if stage.command == ("fit" if verb == "validate" else verb)]

    def words(self, text: str) -> list[str]:
        """The words of a command or of options, with paths in place of ``{name}``."""
        return [re.sub(r"\{(\S+?)\}", lambda found: self.path(found[1]).as_posix(), word) for word in shlex.split(text)]

    def command(self, stage: Stage) -> str:
        """The short command that runs a stage of this world, as it is typed in a shell."""
        if stage.configured:
            return typed([stage.command, stage.name, *([] if self.given == DEFAULT else ["--world", self.given])])
        return typed(self.unconfigured(stage))

    def unconfigured(self, stage: Stage) -> list[str]:
        """The words of a stage without a configuration."""
        words = self.words(f"{stage.command} {stage.options}")
        asks = words[0] in ASKING and self.given != DEFAULT
        return [*words, "--world", self.given] if asks else words

    def needs(self, stage: Stage) -> list[Path]:
        """What a stage reads, as paths."""
        return [self.path(name) for name in stage.inputs]

    def makes(self, stage: Stage) -> list[Path]:
        """What a stage makes, as paths."""
        return [self.path(name) for name in stage.outputs]

    def done(self, stage: Stage) -> bool:
        """Whether everything a stage makes is there."""
        return all(path.exists() for path in self.makes(stage))


def typed(words: Sequence[str]) -> str:
    """How a command of ohlora, or a script of the source tree, is typed in a shell."""
    return shlex.join(["python", *([] if _script(words[0]) else ["-m", "ohlora"]), *words])


def _script(command: str) -> bool:
    return command.startswith("scripts/")


def read(given: str, declared: Mapping[str, Stage], above: tuple[Path, ...] = ()) -> World:
    """Reads a world's file: a name of :data:`SHIPPED`, or a path; a ``base`` lies beside the file that names it.

    Args:
        given: The name or path.
        declared: The stages that exist, by name.
        above: The files of the worlds that build on it.

    Raises:
        ConfigError: If there is no such world, or its file says what is not known.
    """
    path = shipped(f"configs/worlds/{given}.yaml") if given in SHIPPED else Path(given)
    if not path.is_file():
        raise ConfigError(f"there is no world {given}; expected {', '.join(SHIPPED)}, or the path of a world's file")
    if path.resolve() in above:
        raise ConfigError(f"{path}: a world cannot build on itself; change the base of {above[-1]}")
    said = _said(path.absolute(), path.read_bytes())
    base = World("", "", "", (), {}, {}, {})
    if "base" in said:
        of = said["base"] if said["base"] in SHIPPED else str(path.parent / said["base"])
        base = read(of, declared, (*above, path.resolve()))
    overlays, stages = base.overlays, base.stages
    if said.get("overlays"):
        # The overlays that ship are found like configurations; one's own lie beside the world's file.
        folder = shipped(said["overlays"]) if given in SHIPPED else path.parent / said["overlays"]
        overlays += (folder.absolute(),)
    if "stages" in said:
        known = {**declared, **base.stages}
        stages = {name: _stage(path, name, differs or {}, known) for name, differs in said["stages"].items()}
        # What developers measure with the scripts of a source tree is no stage of an installed ohlora, which has none.
        there = shipped("scripts").is_dir()
        stages = {name: stage for name, stage in stages.items() if there or not _script(stage.command)}
    # A stage that is listed here makes what the base takes from elsewhere.
    made = {name for stage in stages.values() for name in stage.outputs} if "stages" in said else set()
    inherited = {name: place for name, place in base.names.items() if name not in made}
    names, hints = inherited | (said.get("names") or {}), {**base.hints, **(said.get("hints") or {})}
    attributes = base.attributes
    if "attributes" in said:
        attributes = Vocabulary.read(path, said["attributes"], base.attributes)
    elif "base" not in said:
        attributes = recipe()
    root = said.get("root", "" if given in SHIPPED else path.stem)  # never in that of another world unasked
    return World(given, said.get("about", ""), root, overlays, names, hints, stages, attributes)


@cache
def _said(path: Path, content: bytes) -> dict[str, Any]:
    """What a world's file says; its content makes the cache see that it has changed."""
    said = read_yaml(path)
    keys = ("about", "base", "root", "overlays", "names", "hints", "attributes", "stages")
    if not isinstance(said, dict):
        raise ConfigError(f"{path} holds {type(said).__name__}; expected settings: {', '.join(keys)}")
    _known(path, "setting", said, keys)
    for key in ("about", "base", "root", "overlays"):
        if not isinstance(said.get(key, ""), str):
            raise ConfigError(f"{path}: {key} is {said[key]!r}; expected text")
    for key in ("names", "hints"):
        if not _named(said.get(key) or {}, str):
            raise ConfigError(f"{path}: {key} is {said[key]!r}; expected name: text")
    if not _named(said.get("stages", {}), Mapping | None):
        raise ConfigError(f"{path}: stages is {said['stages']!r}; expected name: what differs")
    return said


def _named(value: Any, kind: Any) -> bool:
    """Whether something is a mapping of names to values of a kind."""
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


def _stage(path: Path, name: str, differs: Mapping[str, Any], declared: Mapping[str, Stage]) -> Stage:
    of = differs.get("of", name)
    _known(path, "stage", [of], tuple(declared))
    _known(path, f"setting of {name}", differs, ("of", "about", "number", "options", "inputs", "outputs"))
    stage = declared[of]
    if of != name:  # the same in a folder of its own
        own = re.compile(rf"(^|{{){of}(?=/|}})")
        outputs = tuple(own.sub(rf"\1{name}", path) for path in stage.outputs)
        command = own.sub(rf"\1{name}", stage.command)
        stage = replace(stage, name=name, command=command, outputs=outputs, config=stage.config or of)
    changed: dict[str, Any] = {}
    for key, value in differs.items():
        many = key in ("inputs", "outputs")
        fits = (
            isinstance(value, list) and all(isinstance(each, str) for each in value) if many else isinstance(value, str)
        )
        if not fits:
            raise ConfigError(f"{path}: {key} of {name} is {value!r}; expected {'a list of names' if many else 'text'}")
        if key != "of":
            changed[key] = tuple(value) if many else value
    stage = replace(stage, **changed)
    if of != name and stage.configured:
        stage = replace(stage, options=f"{stage.options} --trainer.default_root_dir {{{name}}}".strip())
    return stage


def _known(path: Path, what: str, given: Iterable[str], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{path}: there is no {what} {key!r}; expected one of {', '.join(known)}")

"""Stages and worlds as data: what a stage reads and writes, and where a world keeps it.

A stage names files below a world's root (``finetune_v1/generator.safetensors``) and no world. A world says where its
root is, which overlays its configurations get, which stages it runs, and what differs in them. The worlds that ship are
``configs/worlds/*.yaml``; one's own is a file of the same form.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ohlora.errors import ConfigError
from ohlora.utils.files import artifacts_root, seen_from, shipped

SHIPPED = ("toy", "demo", "celeba256")
"""The worlds that come with ohlora, in the order in which they are shown."""
DEFAULT = "celeba256"
"""The world of a command that names none."""
VERBS = ("fit", "validate", "test", "predict")
"""The commands of the entry point that run a stage."""
KEYS = ("name", "about", "base", "root", "overlays", "names", "hints", "stages")
"""What a world's file may say."""
STAGE_KEYS = ("of", "about", "number", "options", "inputs", "outputs")
"""What a world's file may say of a stage."""


@dataclass(frozen=True)
class Stage:
    """One stage, without a world.

    A path is a name below the world's root, or starts with ``./`` and lies in the working directory.

    Attributes:
        name: Its name, which is also that of its configuration and of its folder.
        number: Number in the chain of the original work, 0 to 13; several are joined by commas, none is ''.
        about: What it does, in one line.
        command: ``fit``, ``predict`` or ``test`` for a stage of the entry point; for any other a script with its
            words, in which ``{name}`` stands for a path below the world's root.
        inputs: Files and folders it reads.
        outputs: Files and folders it makes.
        options: Further words of the command, written like ``command``.
        metrics: Outputs that are metrics for DVC.
        plots: Outputs that are plots for DVC.
        config: Name of the configuration, where it is not the stage's own.
        korean: ``about`` in Korean.
    """

    name: str
    number: str
    about: str
    command: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    options: str = ""
    metrics: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    config: str = ""
    korean: str = ""

    @property
    def configured(self) -> bool:
        """Whether it is run by the entry point, with a configuration."""
        return self.command in VERBS

    @property
    def makes(self) -> tuple[str, ...]:
        """Everything it makes: outputs, metrics and plots."""
        return (*self.outputs, *self.metrics, *self.plots)

    def changed(self, by: Mapping[str, Any]) -> Stage:
        """The stage with what a world's file says of it.

        A stage ``of`` another is that stage in a folder of its own.
        """
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in by.items() if key != "of"
        }
        return replace(self, **settings)

    def derived(self, name: str) -> Stage:
        """The same under another name, in a folder of its own."""
        moved = tuple(re.sub(rf"^{re.escape(self.name)}/", f"{name}/", path) for path in self.outputs)
        return replace(self, name=name, outputs=moved, config=self.config or self.name)


@dataclass(frozen=True)
class World:
    """Where a world keeps its files, which stages it runs, and what differs in them.

    Attributes:
        given: How it is named on the command line: a name of :data:`SHIPPED`, or the path of its file.
        name: Its name.
        about: What it is, in one line.
        root: Folder below the artifacts root; '' is the artifacts root itself.
        overlays: Folders of configurations laid over the recipe's, in order; absolute.
        names: Files that no stage of this world makes → where they are: ``shipped:weights/…``, ``./…`` in the working
            directory, an absolute path, or another name of this world.
        hints: Files that no stage makes → how to come by them.
        stages: The stages it runs, in order.
    """

    given: str
    name: str
    about: str
    root: str
    overlays: tuple[Path, ...]
    names: Mapping[str, str]
    hints: Mapping[str, str]
    stages: tuple[Stage, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Stage]:
        """Its stages by name."""
        return {stage.name: stage for stage in self.stages}

    @property
    def folder(self) -> Path:
        """Its root: below the artifacts root in use."""
        return artifacts_root() / self.root

    def path(self, name: str, artifacts: Path | None = None) -> Path:
        """Where a file or folder of this world is.

        Args:
            name: Below the world's root (``finetune_v1/generator.safetensors``), or ``./…`` in the working directory.
            artifacts: The artifacts root, if it is not the one in use.
        """
        found = self.names.get(name, name)
        if found != name and not found.startswith(("shipped:", "./", "/")):
            return self.path(found, artifacts)
        if found.startswith("shipped:"):
            return shipped(found.removeprefix("shipped:"))
        if found.startswith(("./", "/")):
            return Path(found)
        return (artifacts_root() if artifacts is None else artifacts) / self.root / found

    def configs(self, stage: str) -> list[Path]:
        """The configurations of a stage that are there: the recipe's, and each overlay's.

        Args:
            stage: A stage's name, or that of a configuration which no stage of this world names.
        """
        name = self.by_name[stage].config or stage if stage in self.by_name else stage
        recipe = Path(f"configs/{name}.yaml")
        recipe = recipe if recipe.is_file() else shipped(recipe.as_posix())
        overlays = [seen_from(Path.cwd(), folder / f"{name}.yaml") for folder in self.overlays]
        return [path for path in (recipe, *overlays) if path.is_file()]

    def words(self, text: str, artifacts: Path | None = None) -> list[str]:
        """The words of a command or of options, with paths in place of ``{name}``."""
        return [
            re.sub(r"\{(\S+?)\}", lambda found: self.path(found[1], artifacts).as_posix(), word)
            for word in shlex.split(text)
        ]

    def command(self, stage: Stage, artifacts: Path | None = None) -> str:
        """The short command that runs a stage, as it is typed in a shell.

        Args:
            stage: A stage of this world.
            artifacts: The artifacts root, if it is not the one in use.
        """
        if stage.configured:
            words = ["python", "-m", "ohlora", stage.command, stage.name]
            return shlex.join(words if self.given == DEFAULT else [*words, "--world", self.given])
        return script(self.words(f"{stage.command} {stage.options}", artifacts))

    def needs(self, stage: Stage) -> list[Path]:
        """What a stage reads, as paths."""
        return [self.path(name) for name in stage.inputs]

    def makes(self, stage: Stage) -> list[Path]:
        """What a stage makes, as paths."""
        return [self.path(name) for name in stage.makes]

    def done(self, stage: Stage) -> bool:
        """Whether everything a stage makes is there."""
        return all(path.exists() for path in self.makes(stage))

    def next_stage(self) -> Stage | None:
        """The first stage that is not done and has what it needs."""
        return next((s for s in self.stages if not self.done(s) and all(p.exists() for p in self.needs(s))), None)


def script(words: Sequence[str]) -> str:
    """The command that runs a script, as it is typed in a shell.

    Args:
        words: ``scripts/….py`` and its words. In an installed ohlora scripts are modules.
    """
    installed = shipped("configs").is_relative_to(Path(__file__).parent)
    name = ["-m", f"ohlora.scripts.{Path(words[0]).stem}"] if installed else [words[0]]
    return shlex.join(["python", *name, *words[1:]])


def read(given: str, declared: Mapping[str, Stage]) -> World:
    """Reads a world's file.

    Args:
        given: A name of :data:`SHIPPED`, or the path of a file.
        declared: The stages that exist, by name.

    Raises:
        ConfigError: If there is no such world, or its file says what is not known.
    """
    path = shipped(f"configs/worlds/{given}.yaml") if given in SHIPPED else Path(given)
    if not path.is_file():
        raise ConfigError(f"there is no world {given}; expected {', '.join(SHIPPED)}, or the path of a world's file")
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(said, dict):
        raise ConfigError(f"{path} holds {type(said).__name__}; expected settings: {', '.join(KEYS)}")
    _known(path, "setting", said, KEYS)
    base = read(said["base"], declared) if "base" in said else None
    if base is not None:
        declared = {**declared, **base.by_name}
    overlays = said.get("overlays")
    # The overlays that ship are found like configurations; one's own lie beside the world's file.
    folder = overlays and (shipped(overlays) if given in SHIPPED else path.parent / overlays).absolute()
    return World(
        given=given,
        name=said.get("name", path.stem),
        about=said.get("about", ""),
        root=said.get("root", ""),
        overlays=(*(base.overlays if base else ()), *([folder] if folder else ())),
        names={**(base.names if base else {}), **(said.get("names") or {})},
        hints={**(base.hints if base else {}), **(said.get("hints") or {})},
        stages=tuple(_stage(path, name, differs or {}, declared) for name, differs in said["stages"].items())
        if "stages" in said
        else (base.stages if base else ()),
    )


def _stage(path: Path, name: str, differs: Mapping[str, Any], declared: Mapping[str, Stage]) -> Stage:
    of = differs.get("of", name)
    _known(path, "stage", [of], tuple(declared))
    _known(path, f"setting of {name}", differs, STAGE_KEYS)
    stage = declared[of] if of == name else declared[of].derived(name)
    stage = stage.changed(differs)
    if of != name and stage.configured:
        stage = replace(stage, options=f"{stage.options} --trainer.default_root_dir {{{name}}}".strip())
    return stage


def _known(path: Path, what: str, given: Any, known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{path}: there is no {what} {key!r}; expected one of {', '.join(known)}")

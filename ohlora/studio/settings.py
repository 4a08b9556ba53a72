"""Paths and attributes that the studio works with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ohlora import pipeline
from ohlora.attributes import vocabulary
from ohlora.characters.reports import RESULTS
from ohlora.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Paths and attributes that the page works with.

    Attributes:
        root: Folder of the artifacts of one world; files outside it are neither read nor written, except filters that
            ship with ohlora.
        world: Name of the world.
        images: Folder of the images to label.
        annotations: The table of annotations.
        attributes: The attributes to label at first.
        filters: Filter ensembles for the orders ``uncertain`` and ``disputed``.
        test: Folder of the evaluation of edits.
        generator: The generator that was tested.
    """

    root: Path
    world: str
    images: Path
    annotations: Path
    attributes: tuple[str, ...]
    filters: tuple[Path, ...]
    test: Path
    generator: Path

    @classmethod
    def of(cls, given: argparse.Namespace) -> Settings:
        """Completes the command line with the paths at which the stages write.

        Raises:
            ConfigError: If a path lies outside the artifacts, or an attribute is unknown.
        """
        world = pipeline.world(given.world)
        pipeline.use(world)
        root = world.folder
        names = _labelled(given.attributes)
        generated = root / "generate_v1" / "images"
        tested = next((f for f in ("evaluate_v9", "evaluate_v8") if (root / f / RESULTS).is_file()), "evaluate_v9")
        trained = [world.path(f"filter_{of.name}/{of.name}.safetensors") for of in vocabulary() if of.kind == "binary"]
        found = cls(
            root,
            given.world,
            given.images or (generated if generated.is_dir() else root / "generate_original" / "images"),
            given.annotations or root / "labels" / "labels_2k.csv",  # as in the filters' configs
            names,
            tuple([path for path in trained if path.is_file()] if given.filters is None else given.filters),
            given.test or root / tested,
            given.generator or root / "finetune_v8" / "generator.safetensors",
        )
        for path in (found.images, found.annotations, *(given.filters or ()), found.test, found.generator):
            inside(root, path)
        return found


def _labelled(given: Sequence[str] | None) -> tuple[str, ...]:
    """The attributes to label: those given, or the filters of the world in use, or where it has none, all.

    Raises:
        ConfigError: If one is unknown, or there is none.
    """
    known = vocabulary()
    names = known.names("filter") or tuple(of.name for of in known) if given is None else tuple(given)
    if not names:
        raise ConfigError(f"{known.where} declares no attribute to label; declare one")
    return tuple(known[name].name for name in names)


def inside(root: Path, path: Path) -> Path:
    """Returns a path that lies below the artifacts.

    Raises:
        ConfigError: If it lies outside, also by a symbolic link.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{path} lies outside {root}; the studio reads and writes below the artifacts only")
    return path

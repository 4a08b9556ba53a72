"""``ohlora pipeline``: lists the stages of a world, and writes what is generated from their declaration.

``--write`` writes ``dvc.yaml`` and the tables of README and docs that stand between ``<!-- stages: … -->`` and
``<!-- end -->``; for a world of one's own it writes a ``dvc.yaml`` beside the world's file.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from ohlora import pipeline, renamed, worlds
from ohlora.errors import ConfigError, OhloraError
from ohlora.utils.files import replacing
from ohlora.worlds import Stage, World

ARTIFACTS = Path("artifacts")
"""The artifacts root as generated files name it."""
PAGES = ("README.md", "README.ko.md", "docs/architecture.md")
"""Pages with generated tables."""
MARKED = re.compile(r"(<!-- stages: (\w+) -->\n).*?(<!-- end -->)", re.S)
HEADER = """\
# Generated from ohlora/pipeline.py and configs/worlds/ by `ohlora pipeline --write`: change those, not this file.
# The stages as a pipeline for DVC (pip install 'ohlora[pipeline]'):
{lines}
# A stage runs when its inputs or its configurations changed. Files stay where they are; nothing is copied into a cache.
# DVC removes what a stage made before it runs it, so that an interrupted stage starts anew here. To go on with one, run
# its command yourself (a fine-tune with --ckpt_path last), then `dvc commit`. OHLORA_ARTIFACTS must not be set.
"""


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Leaves collections of scalars on one line, and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dvc(chosen: list[World]) -> str:
    """The text of a ``dvc.yaml`` for some worlds, with paths as seen from the working directory."""
    stages: dict[str, Any] = {}
    for world in chosen:
        for stage in world.stages:
            stages[f"{world.name}-{stage.name}"] = _dvc_stage(world, stage)
    lines = "\n".join(f"#   dvc repro --glob '{world.name}-*'   {world.about}" for world in chosen)
    text: str = yaml.dump(
        {"stages": stages}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None
    )
    return HEADER.format(lines=lines) + text


def _dvc_stage(world: World, stage: Stage) -> dict[str, Any]:
    def kept(names: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{_path(world, name): {"cache": False}} for name in names]

    title = f"{stage.number} · {stage.about}" if stage.number else stage.about
    found: dict[str, Any] = {"desc": title, "cmd": world.command(stage, ARTIFACTS)}
    if stage.inputs:
        found["deps"] = [_path(world, name) for name in stage.inputs]
    if stage.configured:
        found["params"] = [{path.as_posix(): None} for path in world.configs(stage.name)]
    for key, names in (("outs", stage.outputs), ("metrics", stage.metrics), ("plots", stage.plots)):
        if names:
            found[key] = kept(names)
    return found


def _path(world: World, name: str) -> str:
    return world.path(name, ARTIFACTS).as_posix()


def stage_table(korean: bool = False) -> str:
    """The stages of all worlds that ship, each with its command in the recipe or in the first world that runs it."""
    of = [pipeline.world(name) for name in (worlds.DEFAULT, *worlds.SHIPPED)]
    rows = ["| # | 단계 | 명령 |" if korean else "| # | stage | command |", "|---|---|---|"]
    for group in _grouped([stage for stage in pipeline.STAGES if stage.number]):
        first = group[0]
        world = next(world for world in of if first.name in world.by_name)
        about = first.korean if korean else first.about
        if len(group) > 1:
            about += ", " + ", ".join(_about(stage, korean).rpartition(", ")[2] for stage in group[1:])
        if world.given != worlds.DEFAULT:
            about += f" ({world.name}만)" if korean else f" ({world.name} only)"
        command = world.command(world.by_name[first.name], ARTIFACTS)
        rows.append(f"| {first.number} | {about} | `{command}`{' …' if len(group) > 1 else ''} |")
    return "\n".join(rows) + "\n"


def _about(stage: Stage, korean: bool) -> str:
    return stage.korean if korean else stage.about


def _grouped(stages: list[Stage]) -> list[list[Stage]]:
    """Stages in order; those that do the same for several attributes are one row."""
    groups: list[list[Stage]] = []
    for stage in stages:
        same = groups and stage.about.rpartition(", ")[0] == groups[-1][0].about.rpartition(", ")[0] != ""
        if same and stage.name.rpartition("_")[0] == groups[-1][0].name.rpartition("_")[0]:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def flow_table() -> str:
    """What every stage reads and makes, below the root of a world."""
    rows = ["| stage | reads | makes |", "|---|---|---|"]
    for stage in pipeline.STAGES:
        reads, makes = (", ".join(f"`{name}`" for name in names) for names in (stage.inputs, stage.makes))
        rows.append(f"| {stage.name} | {reads} | {makes} |")
    return "\n".join(rows) + "\n"


def renamed_table() -> str:
    """What is called otherwise than in earlier versions."""
    rows = [f"| {kind} | `{old}` | `{new}` |" for kind, old, new in renamed.table()]
    return "\n".join(["| what | earlier | now |", "|---|---|---|", *rows]) + "\n"


TABLES = {
    "table": stage_table,
    "korean": lambda: stage_table(korean=True),
    "flow": flow_table,
    "renamed": renamed_table,
}
"""Name in a page's mark → what stands there."""


def with_tables(text: str) -> str:
    """A page with its marked tables anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def everything() -> dict[Path, str]:
    """All generated files of a source tree, which is the working directory, with their text."""
    files = {Path("dvc.yaml"): dvc([pipeline.world(name) for name in worlds.SHIPPED])}
    return files | {Path(page): with_tables(Path(page).read_text(encoding="utf-8")) for page in PAGES}


def _listed(world: World) -> str:
    lines = [f"{world.name}: {world.about}"]
    for stage in world.stages:
        lines += [f"  {stage.number:>4} {stage.name:24} {stage.about}", f"{'':30}{world.command(stage)}"]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="ohlora pipeline", description="Lists the stages of a world, or writes what is generated from them."
    )
    found.add_argument("--world", help=f"{', '.join(worlds.SHIPPED)}, or the path of a world's file (default: all)")
    found.add_argument(
        "--write", action="store_true", help="write dvc.yaml, and in a source tree the tables of README and docs"
    )
    return found


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = parser().parse_args(sys.argv[1:] if args is None else args)
    try:
        if given.write:
            for path in _written(given.world):
                print(f"wrote {path}")
            return 0
        for name in [given.world] if given.world else worlds.SHIPPED:
            print(_listed(pipeline.world(name)))
    except OhloraError as error:
        print(f"ohlora: {error}", file=sys.stderr)
        return 2
    return 0


def _written(given: str | None) -> list[Path]:
    if given is not None and given not in worlds.SHIPPED:
        if Path(given).parent != Path():
            raise ConfigError(f"--write writes dvc.yaml beside {given}: change to {Path(given).parent} first")
        files = {Path("dvc.yaml"): dvc([pipeline.world(given)])}
    elif Path("ohlora/pipeline.py").is_file():
        files = everything()
    else:
        raise ConfigError("--write needs a source tree of ohlora as the working directory, or a --world of your own")
    for path, text in files.items():
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    return list(files)

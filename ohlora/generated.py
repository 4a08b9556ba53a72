"""``ohlora pipeline``: lists the stages of a world, and writes what is generated from their declaration.

``--write`` writes ``dvc.yaml`` and the tables of docs that stand between ``<!-- stages: … -->`` and ``<!-- end -->``;
for a world of one's own it writes a ``dvc.yaml`` beside the world's file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from ohlora import handover, pipeline, renamed, worlds
from ohlora.errors import ConfigError
from ohlora.utils.commands import Parser, command
from ohlora.utils.files import replacing
from ohlora.worlds import Stage, World

PAGES = ("docs/stages.md", "docs/architecture.md", "docs/how_good.md")
"""Pages with generated tables."""
KINDS = {"results": "metrics", "./docs/results": "plots"}
"""Folder of outputs → what they are for DVC; in any other folder they are plain outputs."""
HEADER = """\
# Generated from ohlora/pipeline.py and configs/worlds/ by `ohlora pipeline --write`: change those, not this file.
# The stages as a pipeline for DVC (pip install 'ohlora[pipeline]'):
{lines}
# A stage runs when its inputs or its configurations changed. Files stay where they are; nothing is copied into a cache.
# DVC removes what a stage made before it runs it, so that an interrupted stage starts anew here. To go on with one, run
# its command yourself (a fine-tune with --ckpt_path last), then `dvc commit`. OHLORA_ARTIFACTS must not be set.
"""


def _world(given: str) -> World:
    """A world as generated files name its paths, whichever artifacts root is in use."""
    return replace(pipeline.world(given), artifacts=Path("artifacts"))


def dvc(given: Iterable[str]) -> str:
    """The text of a ``dvc.yaml`` for some worlds, with paths as seen from the working directory."""
    chosen = [_world(name) for name in given]
    stages = {f"{of.name}-{stage.name}": _dvc_stage(of, stage) for of in chosen for stage in of.stages.values()}
    lines = "\n".join(f"#   dvc repro --glob '{of.name}-*'   {of.about}" for of in chosen)
    text = yaml.safe_dump({"stages": stages}, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None)
    return f"{HEADER.format(lines=lines)}{text}"


def _dvc_stage(world: World, stage: Stage) -> dict[str, Any]:
    about = f"{stage.number} · {stage.about}" if stage.number else stage.about
    found: dict[str, Any] = {"desc": about, "cmd": world.command(stage)}
    if stage.inputs:
        found["deps"] = [path.as_posix() for path in world.needs(stage)]
    if stage.configured:
        found["params"] = [{path.as_posix(): None for path in world.configs(stage.name)}]
    for name, path in zip(stage.outputs, world.makes(stage), strict=True):
        kind = KINDS.get(name.rpartition("/")[0], "outs")
        found.setdefault(kind, []).append({path.as_posix(): {"cache": False}})
    return found


def stage_table(korean: bool = False) -> str:
    """The stages of all worlds that ship, each with its command in the recipe or in the first world that runs it.

    Stages that do the same for several attributes are one row.
    """
    of = [_world(name) for name in (worlds.DEFAULT, *worlds.SHIPPED)]

    def about(stage: Stage) -> str:
        return stage.korean if korean else stage.about

    def task(stage: Stage) -> tuple[str, str]:
        return about(stage).rpartition(", ")[0] or stage.name, stage.name.rpartition("_")[0]

    rows = []
    for _, group in groupby((stage for stage in pipeline.STAGES.values() if stage.number), task):
        first, *others = group
        world = next(world for world in of if first.name in world.stages)
        said = ", ".join([about(first), *(about(stage).rpartition(", ")[2] for stage in others)])
        if world.given != worlds.DEFAULT:
            said += f" ({world.name}만)" if korean else f" ({world.name} only)"
        command = world.command(world.stages[first.name])
        rows.append((first.number, said, f"`{command}`{' …' if others else ''}"))
    return _table(("#", "단계", "명령") if korean else ("#", "stage", "command"), rows)


def flow_table() -> str:
    """What every stage reads and makes, below the root of a world."""
    rows = [
        (stage.name, *(", ".join(f"`{name}`" for name in names) for names in (stage.inputs, stage.outputs)))
        for stage in pipeline.STAGES.values()
    ]
    return _table(("stage", "reads", "makes"), rows)


def renamed_table() -> str:
    """What is called otherwise than in earlier versions."""
    rows = [(kind, f"`{old}`", f"`{new}`") for kind, table in renamed.TABLES.items() for old, new in table.items()]
    return _table(("what", "earlier", "now"), rows)


def checks_table() -> str:
    """What is checked where a stage hands over to the next."""
    rows = []
    for check in handover.CHECKS.values():
        of, _, what = check.about.partition(": ")
        rows.append((of, what, f"at {'least' if check.at_least else 'most'} {check.limit:g}", check.then))
    return _table(("product", "what is measured", "limit", "what to do"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    ruled = (header, ["---"] * len(header), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ruled)


TABLES: Mapping[str, Callable[[], str]] = {
    "table": stage_table,
    "korean": partial(stage_table, korean=True),
    "flow": flow_table,
    "renamed": renamed_table,
    "checks": checks_table,
}
"""Name in a page's mark → what stands there."""


def everything() -> dict[Path, str]:
    """All generated files of a source tree, which is the working directory, with their text."""
    from ohlora import schema  # it imports everything

    files = {Path("dvc.yaml"): dvc(worlds.SHIPPED), Path("ohlora/settings.json"): schema.schema()}
    for page in map(Path, PAGES):
        files[page] = re.sub(
            r"(<!-- stages: (\w+) -->\n).*?(<!-- end -->)",
            lambda mark: f"{mark[1]}\n{TABLES[mark[2]]()}\n{mark[3]}",
            page.read_text(encoding="utf-8"),
            flags=re.S,
        )
    return files


@command("ohlora pipeline")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = Parser(
        prog="ohlora pipeline", description="Lists the stages of a world, or writes what is generated from them."
    )
    parser.add_argument("--world", help=f"{', '.join(worlds.SHIPPED)}, or the path of a world's file (default: all)")
    parser.add_argument("--write", action="store_true", help="write dvc.yaml, and in a source tree the tables of docs")
    given = parser.parse_args(args)
    if not given.write:
        for world in map(pipeline.world, [given.world] if given.world else worlds.SHIPPED):
            print(f"{world.name}: {world.about}")
            for stage in world.stages.values():
                print(f"  {stage.number:>4} {stage.name:24} {stage.about}\n{'':30}{world.command(stage)}")
        return
    own = given.world not in (None, *worlds.SHIPPED)
    if own and Path(given.world).parent != Path():
        folder = Path(given.world).parent
        raise ConfigError(f"--write writes dvc.yaml beside {given.world}: change to {folder} first")
    if not own and not Path("ohlora/pipeline.py").is_file():
        raise ConfigError("--write needs a source tree of ohlora as the working directory, or a --world of your own")
    pipe = Path("dvc.yaml")
    if own and pipe.is_file() and not pipe.read_text(encoding="utf-8").startswith(HEADER.partition("\n")[0]):
        raise ConfigError(f"{pipe} was not made by this command; move it away first")
    for path, text in ({pipe: dvc([given.world])} if own else everything()).items():
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
        print(f"wrote {path}")

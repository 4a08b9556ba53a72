"""Starts a world of one's own from images, a table about them and, if there is one, a StyleGAN.

It looks at what there is, writes a page about it, copies of the images at one size, the world's file with its
configurations, and its part of the pipeline. The originals stay as they are.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ohlora import generated, pipeline
from ohlora.errors import ConfigError
from ohlora.utils.commands import Parser, arguments, command
from ohlora.utils.files import artifacts_root
from ohlora.worlds import SHIPPED

if TYPE_CHECKING:
    from ohlora.starting.files import Declared, NewWorld
    from ohlora.starting.prepared import Fit
    from ohlora.starting.sizes import Device
    from ohlora.starting.survey import Column, Survey, Table

STEERED = 4
"""Attributes that are steered where none are named."""
CONDITION = r"\s*(.+?)\s*((?:>=|<=|>|<)\s*\S+)\s*"


def parser() -> Parser:
    """Builds the parser of the command line."""
    found = arguments(
        "new",
        "Starts a world of your own from images and a table about them.",
        "bots --images robots/images --labels robots/labels.csv --steer lamp turn mouth --keep 'visor <= 0.5'",
        "birds --images birds.zip --annotate singing size:4 --size 128 --fit crop",
        "faces --images photos --labels table.csv --generator network.pkl",
    )
    found.add_argument("world", metavar="WORLD", help="its name; the files are WORLD.yaml and WORLD/…")
    found.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images, or a zip archive")
    found.add_argument("--labels", type=Path, metavar="TABLE", help="table about them: CSV, JSON lines or Parquet")
    found.add_argument(
        "--attributes", nargs="+", metavar="COLUMN", help="columns that become attributes (default: all with numbers)"
    )
    found.add_argument(
        "--steer", nargs="+", metavar="COLUMN", help=f"attributes to steer (default: the first {STEERED} scores)"
    )
    found.add_argument(
        "--keep",
        action="append",
        metavar="RULE",
        default=[],
        help="condition of the concept, such as 'visor <= 0.5', in the table's units",
    )
    found.add_argument(
        "--annotate",
        nargs="+",
        metavar="NAME[:LEVELS|:score]",
        help="without a table: attributes to label in the studio first, 0 or 1, levels 0…LEVELS, or a score, by a "
        "slider or by comparisons",
    )
    found.add_argument("--weights", metavar="COLUMN", help="how much each row counts in training (default: the same)")
    found.add_argument("--generator", type=Path, metavar="FILE", help="a StyleGAN to start from, instead of training")
    found.add_argument("--size", type=int, metavar="PX", help="height and width (default: by images and device)")
    found.add_argument("--fit", choices=("crop", "pad"), help="what becomes of images that are not square")
    found.add_argument("--background", metavar="COLOUR", help="colour behind what is transparent, such as white")
    found.add_argument("--device", choices=("cpu", "gpu"), help="what to train on (default: a GPU, if there is one)")
    found.add_argument("--kimg", type=float, metavar="N", help="thousands of images to train the StyleGAN on")
    found.add_argument("--force", action="store_true", help="replace files of an earlier call")
    return found


@command("ohlora new")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    given = parser().parse_args(args)
    words = sys.argv[2:] if args is None else args
    _check(given)
    from ohlora.utils.progress import in_terminal

    with in_terminal():
        start(given, f"ohlora new {shlex.join(words)}")


def start(given: Namespace, made_by: str) -> None:
    """Looks at the data, and writes the world."""
    pipeline.require(given.images, folder=not given.images.is_file())
    for path in (given.labels, given.generator):
        if path is not None:
            pipeline.require(path)
    from ohlora.starting import page, prepared
    from ohlora.starting.files import NewWorld
    from ohlora.starting.sizes import advice, size_for
    from ohlora.starting.survey import survey

    target = artifacts_root() / given.world / "data"
    folder, labels = given.images, given.labels
    if folder.is_file():
        folder, packed = prepared.unpacked(folder, artifacts_root() / given.world / "unpacked")
        labels = labels or packed
    found = survey(folder, labels)
    print("\n".join(found.lines()))
    _insist(given, found)
    weights = _weights(given, found.table)
    attributes = _attributes(given, found.table)
    device = given.device or _device()
    imported, takes_labels, resolution = _imported(given)
    size = size_for(_resolution(given, found, device, resolution), device)
    background, fit = _background(given, found), _fit(given, found)
    named = {attribute.column for attribute in attributes} | {weights}
    every = [] if found.table is None else [*found.table.columns, *found.table.counts]
    columns = [column for column in every if column.column in named]
    made_by = made_by if given.background or not background else f"{made_by} --background {shlex.quote(background)}"
    made_by = made_by if given.fit or not fit else f"{made_by} --fit {fit}"
    table = prepared.prepare(found, target, size.resolution, fit, background, columns)
    labelled = 0 if found.table is None else len({path for _, path in found.table.rows})
    kimg = given.kimg or size.kimg
    world = NewWorld(
        given.world,
        made_by,
        attributes,
        size,
        device,
        kimg,
        len(found.pictures),
        labelled,
        imported,
        takes_labels,
        weights,
    )
    written = world.write()
    print(f"wrote {', '.join(map(str, written))}")
    pipeline.use(pipeline.world(str(world.file)))  # refuses a declaration that cannot be used
    _write_pipeline(world)
    said = [*_costs(world), *advice(len(found.pictures))]
    next_to_do = _next(world, table, target)
    page.write(target / "index.html", found, f"A new world: {given.world}", said, next_to_do)
    print("\n".join([*said, f"look at {target / 'index.html'} first. Then:", *(f"  {line}" for line in next_to_do)]))


def _check(given: Namespace) -> None:
    """Refuses what can be told before anything is looked at."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", given.world) or given.world in SHIPPED:
        raise ConfigError(
            f"WORLD is {given.world!r}; expected a name of letters, digits, _ and -, none of {', '.join(SHIPPED)}"
        )
    if (given.labels is None) == (given.annotate is None) and not given.images.is_file():
        raise ConfigError("expected either --labels TABLE, or --annotate with what you want to label in the studio")
    if given.background is not None:
        from ohlora.utils.images import colour

        colour(given.background, "--background")
    there = [path for path in (Path(f"{given.world}.yaml"), Path(given.world)) if path.exists()]
    if there and not given.force:
        raise ConfigError(
            f"{', '.join(map(str, there))} is there already; choose another name, or replace it by --force"
        )


def _device() -> Device:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def _weights(given: Namespace, table: Table | None) -> str | None:
    """The column of weights."""
    from ohlora.starting.survey import chosen_columns

    if given.weights is None:
        return None
    if table is None:
        raise ConfigError(f"--weights {given.weights} needs a table; give --labels TABLE")
    return chosen_columns(table, [given.weights], "--weights")[0].column


def _in_z_scores(condition: str, column: Column) -> str:
    """A condition on a column's values as one on what a network predicts: z-scores, unless they are 0 and 1.

    Raises:
        ConfigError: If it ends in no number.
    """
    comparison, limit = condition[: 2 if condition[1] == "=" else 1], condition.lstrip("<>= ")
    try:
        value = float(limit)
    except ValueError as error:
        raise ConfigError(f"--keep '{column.name} {condition}': {limit!r} is no number") from error
    if column.kind != "binary":
        value = (value - float(column.values.mean())) / float(column.values.std())
    return f"{comparison} {value:.4g}"


def _attributes(given: Namespace, table: Table | None) -> list[Declared]:
    """The attributes of the world.

    Raises:
        ConfigError: If there are none, or a rule or level cannot be used.
        DataError: If a column is not there.
    """
    from ohlora.starting.files import Declared
    from ohlora.starting.survey import attribute_name, chosen_columns

    if table is None:
        if given.annotate is None:
            raise ConfigError("the archive holds no labels; give --labels TABLE, or --annotate")
        found = {}
        for word in given.annotate:
            column, _, said = word.partition(":")
            if said not in ("", "score") and not re.fullmatch("[2-9]", said):
                raise ConfigError(f"--annotate {word}: expected the highest level after the colon, 2 to 9, or score")
            kind, levels = ("score", 0) if said == "score" else ("ordinal", int(said)) if said else ("binary", 0)
            found[attribute_name(column)] = (column, kind, levels)
    else:
        columns = chosen_columns(table, given.attributes, "--attributes")
        wanted = {column.name for column in [*columns, *chosen_columns(table, given.steer or [], "--steer")]}
        found = {
            c.name: (c.column, c.kind, c.levels if c.kind == "ordinal" else 0)
            for c in table.columns
            if c.name in wanted and given.weights not in (c.column, c.name)
        }
    if not found:
        raise ConfigError(f"{table.path if table else '--annotate'} has no attribute; expected a column with numbers")
    keep: dict[str, list[str]] = {}
    for rule in given.keep:
        match = re.fullmatch(CONDITION, rule)
        name = attribute_name(match[1]) if match else ""
        if match is None or name not in found:
            raise ConfigError(f"--keep {rule!r}: expected for example '{next(iter(found))} <= 0.5', about an attribute")
        column = next((c for c in table.columns if c.name == name), None) if table is not None else None
        if column is None and found[name][1] != "binary":
            raise ConfigError(
                f"--keep {rule!r}: without labels the scale of {name} is not known; add keep to {given.world}.yaml "
                "later, in z-scores"
            )
        keep.setdefault(name, []).append(match[2] if column is None else _in_z_scores(match[2], column))
    scores = [name for name, (_, kind, _) in found.items() if kind != "binary"]
    steered = [attribute_name(name) for name in given.steer] if given.steer else scores[:STEERED]
    if not steered or not set(steered) <= set(scores):
        wrong = ", ".join(name for name in steered if name not in scores)
        raise ConfigError(
            f"{f'{wrong} cannot be' if wrong else 'nothing can be'} steered; expected scores or levels, such as "
            f"{', '.join(scores) or '--annotate size:4'}. What is 0 or 1 can be a condition of the concept (--keep)"
        )
    return [
        Declared(name, column, kind, levels, name in steered, tuple(keep.get(name, ())))  # type: ignore[arg-type]
        for name, (column, kind, levels) in found.items()
    ]


def _imported(given: Namespace) -> tuple[Mapping[str, str], bool, int | None]:
    """Imports a generator: where its networks are, whether it takes labels, and its resolution."""
    if given.generator is None:
        return {}, False, None
    from ohlora.commands.import_weights import main as import_weights
    from ohlora.formats import network_files
    from ohlora.starting.files import START

    target = artifacts_root() / given.world / "original"
    if given.generator.suffix == ".safetensors":
        network_files.load_generator(given.generator)  # refuses what is none
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given.generator, target / "generator.safetensors")
        beside = given.generator.with_name("discriminator.safetensors")
        if beside.is_file():
            shutil.copyfile(beside, target / beside.name)
    elif import_weights([str(given.generator), str(target)]):
        raise ConfigError(f"--generator {given.generator} could not be imported; see above")
    generator = network_files.load_generator(target / "generator.safetensors")
    if not (target / "discriminator.safetensors").is_file() and given.keep:
        raise ConfigError(
            f"{given.generator} has no discriminator, so that it cannot be fine-tuned on a concept; leave --keep out"
        )
    names = {START: "original/generator.safetensors"}
    names[START.replace("generator", "discriminator")] = "original/discriminator.safetensors"
    return names, generator.c_dim > 0, generator.resolution


def _resolution(given: Namespace, found: Survey, device: Device, imported: int | None) -> int:
    from ohlora.starting.sizes import resolution_for

    if imported is not None and given.size not in (None, imported):
        raise ConfigError(f"--size is {given.size}, and the generator makes {imported}×{imported}; leave it out")
    chosen = imported or given.size or resolution_for(found.shorter, device)
    smaller = sum(min(picture.size) < chosen for picture in found.pictures)
    if smaller:
        print(f"{smaller:,} images are smaller than {chosen} pixels, and are enlarged: they look blurred")
    return int(chosen)


def _insist(given: Namespace, found: Survey) -> None:
    """Refuses in one line all that is not said about the images, where there is nobody to ask."""
    missing = []
    if given.background is None and found.transparent:
        missing.append(
            f"{len(found.transparent):,} images are transparent in places; say what lies behind: --background white"
        )
    if given.fit is None and found.oblong:
        missing.append(f"{len(found.oblong):,} images are not square; say what becomes of them: --fit crop or pad")
    if missing and (sys.stdin is None or not sys.stdin.isatty()):
        raise ConfigError("; ".join(missing))


def _background(given: Namespace, found: Survey) -> str | None:
    """The colour behind transparent images, asked for once where it is not given."""
    if given.background is not None or not found.transparent:
        return str(given.background) if given.background is not None else None
    from ohlora.utils.images import colour

    answer = input(f"{len(found.transparent):,} images are transparent in places. Background colour? [white] ").strip()
    colour(answer or "white", "--background")
    return answer or "white"


def _fit(given: Namespace, found: Survey) -> Fit | None:
    """What becomes of images that are not square, asked for once where it is not given."""
    if given.fit is not None or not found.oblong:
        fit: Fit | None = given.fit
        return fit
    answer = input(
        f"{len(found.oblong):,} images are not square. Cut out the middle (crop), or pad them? [crop] "
    ).strip()
    if answer not in ("", "crop", "pad"):
        raise ConfigError(f"the answer is {answer!r}; expected crop or pad")
    return "pad" if answer == "pad" else "crop"


def _write_pipeline(world: NewWorld) -> None:
    """Writes the world's part of the pipeline, where none is in the way."""
    pipe = Path("dvc.yaml")
    text = pipe.read_text(encoding="utf-8") if pipe.is_file() else ""
    if text and f"--glob '{world.name}-*'" not in text:
        print(f"{pipe} is about another world; write this one's by: ohlora pipeline --world {world.file} --write")
        return
    if generated.main(["--world", str(world.file), "--write"]):
        raise ConfigError(f"{pipe} could not be written; see above")


def _costs(world: NewWorld) -> list[str]:
    """What was chosen, and what it costs."""
    size = world.size
    images = f"{size.resolution}×{size.resolution} on a {world.device.upper()}"
    steer = ", ".join(attribute.name for attribute in world.attributes if attribute.steered)
    rules = [(a, rule) for a in world.attributes for rule in a.keep]
    concept = " and ".join(f"{a.name} {rule}" for a, rule in rules) or "all images"
    concept += " (in z-scores)" if any(a.kind != "binary" for a, _ in rules) else ""
    found = [f"{images}; steered: {steer}; concept: {concept}"]
    if world.generator:
        return [*found, "the generator is imported; networks and search take minutes to an hour"]
    hours = size.hours(world.kimg)
    took = f"about {hours:.1f} hours of one CPU core, as measured" if hours else "not measured here; the log tells"
    tuned = f" The fine-tune takes {world.finetune_kimg:g} kimg." if world.has_concept else ""
    channels = f"{min(size.channel_max, size.channel_base // size.resolution)}…{size.channel_max} channels"
    augmented = "with ADA" if world.augments else "without augmentation"
    found.append(
        f"the StyleGAN ({channels}) is trained for {world.kimg:g} kimg in batches of {size.batch_size}, {augmented}: "
        f"{took}.{tuned} Networks and search take minutes to an hour more"
    )
    return found


def _next(world: NewWorld, table: Path | None, target: Path) -> Sequence[str]:
    """Commands to go on with."""
    found = []
    if table is None:
        names = " ".join(attribute.name for attribute in world.attributes)
        where = f"--images {target / 'images'} --annotations {target / 'labels.csv'}"
        found.append(f"ohlora studio --world {world.file} {where} --attributes {names}")
    first = [] if Path(".dvc").is_dir() or Path(".git").is_dir() else ["dvc init --no-scm"]
    return [*found, f"ohlora doctor --world {world.file}", *first, f"dvc repro --glob '{world.name}-*'"]

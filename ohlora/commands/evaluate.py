"""Measures how good a generator is, against real images that it was not trained on.

Writes ``measures.csv`` and ``measures.json`` (each measure with its floor, the same measure between two halves of the
real images), ``spread.csv`` and ``spread.png`` (how much of each attribute's variety is there), and ``fakes.png`` and
``reals.png``, the first 60 images of each, not selected.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ohlora import handover, pipeline
from ohlora.errors import ConfigError, DataError
from ohlora.utils import checks
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import shortened, write_json, write_rows
from ohlora.worlds import DEFAULT, SHIPPED

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ohlora.evaluation.features import Features
    from ohlora.evaluation.generators import Reals
    from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
    from ohlora.networks.generator import Generator

JUDGE = "judge_cnn/judge.safetensors"
"""The world's network for final figures, which took no part in training or search."""
RANDOM = "random"
"""What ``--features`` is for features of a network with random weights."""
SHOWN = 60
"""Images in each of the two grids."""
COLUMNS = 10
TITLES = {
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance (KID)",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "untrained_distance": "untrained distance",
}


def chosen_images(source: Path, count: int, seed: int) -> tuple[list[Path], int]:
    """A random choice of the images of a folder, or of those that a manifest lists.

    Returns:
        At most ``count`` images, in random order, and how many there are.

    Raises:
        MissingArtifactError: If there is no such folder or file.
        DataError: If there are no images, or the manifest cannot be used.
    """
    from ohlora.datamodules.images import check_columns, paths_of
    from ohlora.utils import counted, images
    from ohlora.utils.files import read_rows

    pipeline.require(source, folder=not source.is_file())
    if source.is_dir():
        found, left_out = images.images_in(source)
        if left_out:
            print(f"{source}: found {len(found):,} images, left out {images.left_out_as(left_out, source)}")
    else:
        rows = read_rows(source)
        check_columns(source, rows, ["path"])
        found = paths_of(source, rows)
    if not found:
        raise DataError(f"{source} holds no images; expected a folder of images, or a CSV table with a column path")
    order = counted.permutation(seed, "evaluate/reals", 0, len(found))[:count]
    return [found[k] for k in order], len(found)


def read_batches(paths: list[Path], resolution: int, resize: bool, batch_size: int) -> Iterator[Tensor]:
    """Image files as batches N×3×R×R.

    Raises:
        DataError: Naming an image that cannot be used.
    """
    from ohlora.utils import images
    from ohlora.utils.progress import tracked

    for first in tracked(range(0, len(paths), batch_size), "reading images"):
        part = paths[first : first + batch_size]
        try:
            yield images.to_float(np.stack([images.read_rgb(path, resolution, resize) for path in part]))
        except DataError as error:
            advice = "" if resize else ", or resize those of another size with --resize"
            raise DataError(f"{error}. Take other images{advice}") from error


class Kept:
    """Lets batches of images pass, and keeps the first :data:`SHOWN` images as N×H×W×3 uint8."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    def passing(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches."""
        from ohlora.utils import images

        missing = SHOWN
        for batch in batches:
            if missing > 0:
                self._parts.append(images.to_uint8(batch[:missing]))
                missing -= len(batch)
            yield batch

    def sheet(self) -> np.ndarray:
        """The images as one picture."""
        from ohlora.utils import images

        return images.enlarge(images.grid(np.concatenate(self._parts), COLUMNS), 1024)


def networks(given: Namespace, resolution: int) -> tuple[Features, list[AttributeCNN | AttributeEnsemble], str, str]:
    """The networks that look at the images, with their names: for the features, and for the attributes.

    ``resolution`` is that of the images.
    """
    from ohlora.evaluation.features import Penultimate, RandomFeatures
    from ohlora.formats import network_files
    from ohlora.formats.feature_files import FeatureNetwork

    settings: dict[str, Any] = {"network_class": given.features_class, "resolution": given.features_resolution}
    settings |= {name: value for name in ("mean", "std") if (value := getattr(given, f"features_{name}")) is not None}
    if given.features_args is not None:
        try:
            settings["network_args"] = dict(json.loads(given.features_args))
        except (ValueError, TypeError) as error:
            expected = "expected JSON such as '{\"width\": 64}'"
            raise ConfigError(f"--features-args is {given.features_args!r}; {expected}") from error
    file = given.features or str(pipeline.path(JUDGE))
    features: Features
    if file == RANDOM:
        if any(value is not None for value in settings.values()):
            raise ConfigError("--features random has no settings; leave the other --features-… out")
        features = RandomFeatures(resolution)
    else:
        features = FeatureNetwork(file, **settings).load()
    if given.scores is not None:
        return features, [network_files.load_attributes(given.scores)], file, str(given.scores)
    if isinstance(features, Penultimate):
        return features, [features.network], file, file
    return features, [], file, ""


def report(measures: Mapping[str, float], reals: Reals, rows: list[dict[str, Any]], expressions: set[str]) -> str:
    """The measures as a text."""
    lines = [f"{'':24}{'generator':>10}{'floor':>10}"]
    for name, title in TITLES.items():
        digits = 5 if name == "kernel_distance" else 3
        line = f"{title:24}{measures[name]:10.{digits}f}{reals.floor[name]:10.{digits}f}"
        if name in ("precision", "recall", "coverage") and reals.floor[name] > 0:
            line += f"   {measures[name] / reals.floor[name]:.0%} of the floor's"
        lines.append(line)
    lines.append(
        f"{reals.count:,} images of each; the floor compares two halves of the real ones, {reals.floor_count:,} each"
    )
    if rows:
        lines += ["", f"{'attribute':24}{'spread':>10}{'reached':>10}   (floor: spread, reached)"]
    for row in rows:
        shown = {
            key: "–" if row[key] is None else f"{row[key]:.2f}" for key in row if key.endswith(("spread", "reached"))
        }
        mark = "  expression" if row["attribute"] in expressions else ""
        floors = f"({shown['floor_spread']}, {shown['floor_reached']})"
        lines.append(f"{row['attribute']:24}{shown['spread']:>10}{shown['reached']:>10}   {floors}{mark}")
    if rows:
        lines.append("spread: standard deviation over that of the real images; reached: share of their 5th–95th")
        lines.append("percentile range that lies between those of the generated images")
    return "\n".join(lines)


def finite(value: float) -> float | None:
    """A number as JSON has it: without NaN and infinity, which are null."""
    return value if math.isfinite(value) else None


def device_named(name: str | None) -> torch.device:
    """The device of a name; by default the GPU, if there is one.

    Raises:
        ConfigError: If there is none of that name.
    """
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError and more
        raise ConfigError(f"there is no device {name}; expected cpu, or one that torch can use") from error
    return device


def evaluate(given: Namespace) -> None:
    """Measures, prints a table and writes the files.

    Raises:
        DataError: If there are too few real images.
    """
    from ohlora.attributes import vocabulary
    from ohlora.evaluation.generators import Observer, Reals, spread_picture, spread_summary
    from ohlora.evaluation.manifolds import LEAST
    from ohlora.formats import network_files
    from ohlora.networks.sampling import counted_batches
    from ohlora.utils import images
    from ohlora.utils.progress import in_terminal

    target = given.output or given.generator.parent / "evaluation"
    checks.writable(target)
    generator: Generator = network_files.load_generator(given.generator)
    paths, available = chosen_images(given.data, 2 * given.count, given.seed)
    if len(paths) < 2 * LEAST:
        raise DataError(f"{given.data} holds {len(paths)} images; expected at least {2 * LEAST}, for two halves")
    features, scoring, features_name, scores_name = networks(given, generator.resolution)
    device = device_named(given.device)
    observer = Observer(features, scoring)
    sizes = {features.resolution, *(network.resolution for network in scoring)} - {None, generator.resolution}
    for size in sizes:
        print(f"images of {generator.resolution}×{generator.resolution} are resized to {size}×{size} for a network")
    shown = {"reals": Kept(), "fakes": Kept()}
    with in_terminal():
        real_batches = read_batches(paths, generator.resolution, given.resize, given.batch_size)
        reals = Reals(observer.observe(shown["reals"].passing(real_batches), device), given.count)
        generator.to(device)
        made = counted_batches(generator, given.seed, range(reals.count), given.batch_size, stream="evaluate/")
        seen = observer.observe(shown["fakes"].passing(batch for batch, _ in made), device)
        measures = reals.measures(seen)
    rows = reals.table(seen)
    expressions = set(vocabulary().names("expression"))
    print(report(measures, reals, rows, expressions))
    name = "untrained_distance"
    handover.warn(given.generator, handover.unlike(measures[name], reals.floor[name]), "pictures")
    if len(paths) < 2 * given.count:
        print(f"{given.data} holds {available:,} images; with {2 * given.count:,} both would compare {given.count:,}")
    if not rows:
        print("no attributes were scored; name an attribute CNN with --scores")
    table = [{"measure": name, "value": value, "floor": reals.floor[name]} for name, value in measures.items()]
    content = {
        "generator": str(given.generator),
        "sha256": network_files.fingerprint(given.generator),
        "data": str(given.data),
        "features": features_name,
        "scores": scores_name,
        "count": reals.count,
        "floor_count": reals.floor_count,
        "seed": given.seed,
        "measures": {
            name: {"value": finite(value), "floor": finite(reals.floor[name])} for name, value in measures.items()
        },
        "spread": {row["attribute"]: {k: v for k, v in row.items() if k != "attribute"} for row in rows},
        **spread_summary(reals.spread(seen)),
    }
    write_rows(target / "measures.csv", table)
    for name, kept in shown.items():
        images.save_png(kept.sheet(), target / f"{name}.png")
    if rows:
        write_rows(target / "spread.csv", rows)
        images.save_png(spread_picture(rows), target / "spread.png")
    write_json(target / "measures.json", content)
    written = ["measures.csv", "measures.json", *(["spread.csv", "spread.png"] if rows else []), "fakes.png"]
    print(f"wrote {target}: {shortened([*written, 'reals.png'], ', ')}")


@command("ohlora evaluate")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "evaluate",
        "Measures how good a generator is, against real images that it was not trained on: Fréchet and kernel "
        "distance, precision, recall, density, coverage, and the spread of every attribute.",
        "artifacts/toy/pretrain/generator.safetensors --data artifacts/toy/drawn/images "
        "--features artifacts/toy/judge_cnn/judge.safetensors --world toy",
        "generator.safetensors --data photos --features inception.onnx",
    )
    parser.add_argument("generator", type=Path, metavar="GENERATOR", help="file of the generator")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DATA", help="real images: a folder, or a CSV table with paths"
    )
    parser.add_argument(
        "--features",
        metavar="FILE",
        help="network whose outputs are compared: an attribute CNN, an .onnx file, weights of --features-class, or "
        f"{RANDOM}, a network with random weights (default: the world's judge CNN, {JUDGE})",
    )
    parser.add_argument(
        "--features-class",
        metavar="CLASS",
        help="class of a network of yours, package.module.Class, with FILE's weights",
    )
    parser.add_argument("--features-args", metavar="JSON", help="arguments of the class, as JSON")
    parser.add_argument(
        "--features-resolution", type=int, metavar="PX", help="size to which images are resized for a network of yours"
    )
    for name, what in (("mean", "subtracted from pixel values 0…1"), ("std", "by which they are divided then")):
        parser.add_argument(
            f"--features-{name}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help=f"what a network of yours wants {what} (default: 0.5 0.5 0.5, so that it gets −1…1)",
        )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="network that scores the attributes (default: that of the features, where it is an attribute CNN)",
    )
    parser.add_argument(
        "--count", type=int, metavar="N", default=5000, help="images of each that are compared (default: 5000)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write to (default: evaluation, beside the generator)"
    )
    parser.add_argument("--resize", action="store_true", help="resize square images to the generator's size")
    parser.add_argument("--batch-size", type=int, metavar="N", default=50, help="images at once (default: 50)")
    parser.add_argument("--seed", type=int, metavar="S", default=0, help="seed of latents and choice (default: 0)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, … (default: cuda where there is one)")
    parser.add_argument(
        "--world",
        default=DEFAULT,
        help=f"whose judge and expressions are meant: {', '.join(SHIPPED)}, or a world's file (default: {DEFAULT})",
    )
    given = parser.parse_args(args)
    checks.at_least(1, batch_size=given.batch_size)
    checks.seeds(seed=given.seed)
    pipeline.use(pipeline.world(given.world))
    pipeline.require(given.generator)
    pipeline.require(given.data, folder=not given.data.is_file())
    if given.features != RANDOM:
        pipeline.require(given.features or pipeline.path(JUDGE))
    if given.scores is not None:
        pipeline.require(given.scores)
    from ohlora.evaluation.manifolds import LEAST

    checks.at_least(LEAST, count=given.count)
    evaluate(given)

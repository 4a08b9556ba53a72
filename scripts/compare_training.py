r"""Trains small StyleGANs from random weights by several recipes, for the same processor time each, and compares them.

Usage::

    python -m ohlora draw-faces artifacts/toy/drawn
    python -m ohlora draw-faces artifacts/toy/drawn_test --count 10000 --seed 3
    python scripts/compare_training.py artifacts/training --images artifacts/toy/drawn/images \
        --real artifacts/toy/drawn_test/images --features ohlora/weights/toy/judge.safetensors
    python scripts/compare_training.py artifacts/training_1000 --images thousand_images --real others \
        --world world.yaml --features artifacts/mine/judge_cnn/judge.safetensors \
        --recipes stylegan2-relativistic-1024-ada

A recipe is named family-loss-width; the width is the number of channels times the resolution (``channel_base``), of
which a layer has at most a sixteenth. Behind it may stand, in this order: ``-plain``, which takes batches of 16, a
learning rate of 0.002 and noise, as StyleGAN2 does (otherwise it is 8, 0.005 and none); ``-grown``, which trains at
16×16 and 32×32 first, for a third of the time each; ``-matched``, which adds score matching by the network of
``--scored-by`` from the first step; and ``-diffaugment`` or ``-ada``, which augments. Without names, six are trained:
two families, two losses, and the doubled width.

Each is ``ohlora fit pretrain --world toy`` with other settings on 64×64 images, stopped when its process has used its
processor time on one thread; ``ohlora finish`` writes its average, and ``ohlora evaluate`` measures it. A row per
recipe and seed is added to ``training.csv`` in the folder; those that are there are not trained again, so the script
may be stopped between two recipes and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from omegaconf import OmegaConf

from ohlora.errors import ConfigError
from ohlora.formats.network_files import read_metadata
from ohlora.utils.commands import command
from ohlora.utils.files import read_rows, write_rows

Row = dict[str, Any]

RECIPES = (
    "stylegan-logistic-1024",
    "stylegan-relativistic-1024",
    "stylegan2-logistic-1024",
    "stylegan2-relativistic-1024",
    "stylegan2-logistic-2048",
    "stylegan2-relativistic-2048",
)
"""What is compared unless recipes are named."""
NAME = re.compile(r"(stylegan2?)-(logistic|relativistic)-(\d+)(-plain)?(-grown)?(-matched)?(?:-(diffaugment|ada))?")
"""How a recipe is named."""
RESOLUTION = 64
"""Height and width of the images."""
GROWTH = (16, 32, RESOLUTION)
"""Resolutions at which a recipe that grows trains, for the same time each."""
PENALTIES: dict[str, dict[str, Any]] = {
    "logistic": {"r1_gamma": 4.0, "r2_gamma": 0.0, "r1_interval": 8},
    "relativistic": {"r1_gamma": 1.0, "r2_gamma": 1.0, "r1_interval": 1},
}
"""Loss → the gradient penalties at 64×64; at lower resolutions, they are larger as the images are smaller."""
MATCHING = 2.0
"""Weight of score matching."""
STEPS, PLAIN_STEPS = (8, 0.005), (16, 0.002)
"""Batch size and learning rate."""
AUGMENTATIONS = {"diffaugment": "DiffAugment", "ada": "ADA"}
"""Suffix of a recipe → class in :mod:`ohlora.networks.augmentation`."""


class ProcessorTime(L.Callback):
    """Stops training once the process has used ``seconds`` of processor time since the first step."""

    def __init__(self, seconds: float, checkpoint: str) -> None:
        self.seconds, self.checkpoint = seconds, checkpoint

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the time."""
        self._started = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Ends training when the time is used up."""
        if time.process_time() - self._started >= self.seconds:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves a checkpoint for ``ohlora finish``."""
        trainer.save_checkpoint(self.checkpoint)


class Recipe(NamedTuple):
    """What the name of a recipe says."""

    family: str
    loss: str
    width: int
    plain: bool
    grows: bool
    matched: bool
    augmentation: str | None


def parsed(recipe: str) -> Recipe:
    """Reads the name of a recipe.

    Raises:
        ConfigError: If the name is none of a recipe.
    """
    parts = NAME.fullmatch(recipe)
    if parts is None:
        raise ConfigError(f"{recipe!r} is no recipe; expected a name such as {RECIPES[0]} or {RECIPES[-1]}-grown-ada")
    family, loss, width, plain, grows, matched, augmentation = parts.groups()
    return Recipe(family, loss, int(width), bool(plain), bool(grows), bool(matched), augmentation)


def settings_of(
    recipe: str, folder: Path, resolution: int, start: Path | None, given: argparse.Namespace
) -> dict[str, Any]:
    """The settings of a training at a resolution, laid over those of the toy world's pretrain.

    Args:
        recipe: Name of the recipe.
        folder: Folder of the stage.
        resolution: Height and width of the images.
        start: Folder of the training at the resolution before, whose networks are grown; None starts anew.
        given: What was given on the command line.
    """
    said = parsed(recipe)
    penalties = {
        name: value * RESOLUTION / resolution if name.endswith("gamma") else value
        for name, value in PENALTIES[said.loss].items()
    }
    batch_size, rate = PLAIN_STEPS if said.plain else STEPS
    model: dict[str, Any] = {"kimg": 100_000, "seed": given.seed, "loss": said.loss, **penalties}
    model |= {f"{name}_optimizer": {"init_args": {"lr": rate}} for name in ("generator", "discriminator")}
    model |= {"schedule": None, "use_noise": said.plain}
    if start is None:
        sizes = {"resolution": resolution, "channel_base": said.width, "channel_max": said.width // 16}
        model["architecture"] = {"kind": said.family, **sizes}
    else:
        files = {name: str(start / f"{name}.safetensors") for name in ("generator", "discriminator")}
        model |= {"architecture": None, "grow_to": resolution, **files}
    weight, scored_by = (MATCHING, [str(given.scored_by)]) if said.matched else (0.0, [])
    model |= {"score_matching": weight, "score_matching_start": 0.0, "scored_by": scored_by}
    if said.augmentation:
        model["augmentation"] = {"class_path": f"ohlora.networks.augmentation.{AUGMENTATIONS[said.augmentation]}"}
    stop = {
        "seconds": 60 * given.minutes / (len(GROWTH) if said.grows else 1),
        "checkpoint": str(folder / "runs" / "0001" / "checkpoints" / "last.ckpt"),
    }
    images = {"folder": str(given.images), "resolution": resolution, "resize": True, "batch_size": batch_size}
    return {
        "seed_everything": given.seed,
        "trainer": {
            "default_root_dir": str(folder),
            "logger": False,
            "callbacks": [{"class_path": "scripts.compare_training.ProcessorTime", "init_args": stop}],
        },
        "model": {"init_args": model},
        "data": {"class_path": "ohlora.datamodules.images.Images", "init_args": images},
    }


def run(words: list[str], log: Path) -> None:
    """Runs ohlora on one thread, with its output added to a file; ends this script where it fails."""
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    with log.open("a") as file:
        done = subprocess.run([sys.executable, "-m", "ohlora", *words], env=environment, stdout=file, stderr=file)
    if done.returncode:
        raise ConfigError(f"ohlora {words[0]} ended with exit code {done.returncode}; {log} holds what it said")


def trained(recipe: str, given: argparse.Namespace) -> Row:
    """Trains a recipe and measures what comes of it: the row of the table."""
    start: Path | None = None
    kimg = 0.0
    for resolution in GROWTH if parsed(recipe).grows else (RESOLUTION,):
        folder = given.folder / f"{recipe}-{given.seed}" / str(resolution)
        if folder.exists():  # of a call that was stopped half-way
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        log, settings = folder / "log.txt", folder / "settings.yaml"
        OmegaConf.save(OmegaConf.create(settings_of(recipe, folder, resolution, start, given)), settings)
        run(["fit", "pretrain", "--world", "toy", "--config", str(settings)], log)
        run(["finish", str(folder / "runs" / "0001")], log)
        kimg += read_metadata(folder / "generator.safetensors")["provenance"]["images_seen"] / 1000
        start = folder
    return measured(recipe, given, folder, kimg)


def measured(recipe: str, given: argparse.Namespace, folder: Path, kimg: float) -> Row:
    """Measures the generator in a folder: the row of the table."""
    log = folder / "log.txt"
    measure = ["--features", str(given.features), "--world", given.world, "--count", str(given.count)]
    run(["evaluate", str(folder / "generator.safetensors"), "--data", str(given.real), *measure], log)
    found = json.loads((folder / "evaluation" / "measures.json").read_text())
    row: Row = {"recipe": recipe, "seed": given.seed, "minutes": given.minutes, "kimg": kimg}
    for name, measure in found["measures"].items():
        row |= {name: measure["value"], f"{name}_floor": measure["floor"]}
    return row | {f"spread_{name}": spread["spread"] for name, spread in found["spread"].items()}


@command("compare_training")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Compares recipes of GAN training at equal processor time.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where everything is written")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="RECIPE", help="their names (default: six)")
    parser.add_argument("--minutes", type=float, default=20, help="processor time of each training (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, latents and order (default: 0)")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="images to train on")
    parser.add_argument("--real", type=Path, required=True, metavar="DIR", help="other images, to compare with")
    parser.add_argument("--features", type=Path, required=True, metavar="FILE", help="attribute CNN that measures")
    parser.add_argument("--scored-by", type=Path, metavar="FILE", help="attribute CNN of recipes with -matched")
    parser.add_argument("--count", type=int, default=5000, help="images of each that are compared (default: 5000)")
    parser.add_argument("--world", default="toy", help="world of the attribute CNN (default: toy)")
    given = parser.parse_args(args)
    table = given.folder / "training.csv"
    rows: list[Row] = list(read_rows(table)) if table.exists() else []
    for recipe in given.recipes:
        if parsed(recipe).matched and given.scored_by is None:  # refused before anything is trained
            raise ConfigError(f"{recipe} matches scores; name the network that scores with --scored-by")
    for recipe in given.recipes:
        if any(row["recipe"] == recipe and int(row["seed"]) == given.seed for row in rows):
            print(f"{recipe}, seed {given.seed}: in {table} already")
            continue
        rows.append(trained(recipe, given))
        write_rows(table, rows)
        print(f"{recipe}, seed {given.seed}: recall {float(rows[-1]['recall']):.3f}")


if __name__ == "__main__":
    sys.exit(main())

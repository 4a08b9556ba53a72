"""Two real processes: the same parameters on both, and the same set of images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ohlora import checkpoints
from tests.conftest import CONF

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp_find_unused_parameters_true"]


def run(*words: str) -> None:
    """Runs the entry point in a process of its own, whose second rank Lightning starts."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    command = [sys.executable, "-m", "ohlora", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_training_keeps_two_processes_equal(tmp_path: Path, weights: tuple[Path, Path], image_folder: Path) -> None:
    settings = {
        "model.init_args.generator": weights[0],
        "model.init_args.discriminator": weights[1],
        "model.init_args.trainable_generator": '["*"]',
        "model.init_args.trainable_discriminator": '["*"]',
        "model.init_args.r1_interval": 2,
        "data.init_args.folder": image_folder,
        "trainer.default_root_dir": tmp_path / "two",
        "trainer.callbacks+": "tests.ranks.SaveEachRank",
    }
    words = [w for key, value in settings.items() for w in (f"--{key}", str(value))]
    run("fit", "--config", str(CONF / "finetune.yaml"), *words, *TWO)
    folder = tmp_path / "two" / "runs" / "0001"
    ranks = [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    before = checkpoints.load_generator(weights[0]).state_dict()
    changed = [key for key in before if not torch.equal(before[key], ranks[0][f"generator.{key}"])]
    assert len(changed) > len(before) / 2  # it did train
    different = [key for key in ranks[0] if not torch.equal(ranks[0][key], ranks[1][key])]
    assert not different
    assert int(ranks[0]["images_seen"]) == 32
    assert len(list((tmp_path / "two" / "runs").iterdir())) == 1


def test_generation_is_shared_out(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    for name, words in (("one", []), ("two", TWO)):
        settings = {
            "model.init_args.generator": weights[0],
            "model.init_args.output": tmp_path / name,
            "trainer.default_root_dir": tmp_path / f"{name}-stage",
        }
        options = [w for key, value in settings.items() for w in (f"--{key}", str(value))]
        run("predict", "--config", str(CONF / "generate.yaml"), *options, *words)
    made = [
        np.stack([np.asarray(Image.open(tmp_path / name / "images" / f"{i:06d}.png")).astype(int) for i in range(7)])
        for name in ("one", "two")
    ]
    assert np.abs(made[0] - made[1]).max() <= 1
    assert (tmp_path / "one" / "manifest.csv").read_text() == (tmp_path / "two" / "manifest.csv").read_text()

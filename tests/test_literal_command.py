"""The recipe's own command, typed as the README types it: one step, SIGTERM, and ``--ckpt_path last``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.formats.network_files import save_network
from ohlora.networks.attribute_cnn import PUBLISHED_FILTERS as FILTERS
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble, attribute_cnn
from ohlora.networks.stylegan import Discriminator, Generator
from ohlora.utils import images
from ohlora.utils.files import write_rows
from tests.conftest import NEEDED, ROOT

COMMAND = ["-m", "ohlora", "fit", "--config", "configs/finetune_v8.yaml"]
WAIT = 1800
"""Seconds within which the first measurement must have been made; at full size it takes minutes."""
STEP = 20
"""Seconds after which a run that has measured, or a resumed one, has made a step."""


def thin(name: str) -> AttributeCNN:
    """A network of the same windows and outputs whose convolutions are narrow."""
    network = attribute_cnn(name, "small", 64)
    return AttributeCNN([{**spec, "plan": "8/2 8/2 8/2"} for spec in network.arguments()["branches"]], 256)


def make_inputs(artifacts: Path, full: bool) -> None:
    """Files that the recipe's fine-tune v8 reads: random networks for 256×256 and sixteen images.

    Args:
        artifacts: Where the recipe looks for them.
        full: Whether the networks have the recipe's sizes; narrow ones are a hundred times as fast.
    """
    torch.manual_seed(0)
    sizes: dict[str, Any] = {} if full else {"channel_base": 1024, "channel_max": 8}
    latents: dict[str, Any] = {} if full else {"z_dim": 16, "w_dim": 16, "mapping_layers": 2}
    generator = Generator(256, c_dim=7, labels="normal", **sizes, **latents)
    save_network(generator, artifacts / "finetune_v1/generator.safetensors")
    save_network(Discriminator(256, c_dim=7, **sizes), artifacts / "finetune_v1/discriminator.safetensors")
    for name in FILTERS:
        members = [attribute_cnn(name) if full else thin(name) for _ in range(5 if full else 1)]
        save_network(AttributeEnsemble.of(members), artifacts / f"filter_{name}/{name}.safetensors")
    save_network(attribute_cnn("merged") if full else thin("merged"), artifacts / "merged/merged.safetensors")
    random = np.random.default_rng(0)
    rows = []
    for k in range(16):
        images.save_png(random.integers(0, 256, (256, 256, 3), dtype=np.uint8), artifacts / f"filter_v1/{k}.png")
        rows.append({"index": k, "path": f"{k}.png"})
    write_rows(artifacts / "filter_v1/manifest.csv", rows)


def start(python: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Starts the command in a folder."""
    known = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment = known | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    if python == sys.executable:  # a clone, whose own package is the one in its folder
        environment["PYTHONPATH"] = str(folder)
    return subprocess.Popen(
        [python, *COMMAND, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((folder / "artifacts/finetune_v8/runs/0001/checkpoints").glob("images-*.ckpt"))


def one_step_then_sigterm_then_last(python: str, folder: Path, full: bool) -> None:
    """Starts the recipe, ends it by SIGTERM after a step, and goes on from the checkpoint that it left."""
    make_inputs(folder / "artifacts", full)
    metrics = folder / "artifacts/finetune_v8/runs/0001/metrics.csv"
    seen: list[int] = []
    for words in ((), ("--ckpt_path", "last")):
        run = start(python, folder, *words)
        try:
            deadline = time.monotonic() + WAIT
            # What is measured before the first step is written just before it; a resumed run measures nothing then.
            while not metrics.is_file():
                assert run.poll() is None and time.monotonic() < deadline, run.communicate()[0][-3000:]
                time.sleep(0.1)
            time.sleep(STEP * (3 if full else 1) * (2 if words else 1))  # a resumed run has yet to start
            run.send_signal(signal.SIGTERM)  # handled after the step that is being made
            said = run.communicate(timeout=WAIT)[0]
        finally:
            run.kill()
        assert run.returncode == 143, said[-3000:]
        newest = checkpoints(folder)[-1]
        assert "--ckpt_path last" in said and newest.name in said, said[-3000:]
        seen.append(int(torch.load(newest, weights_only=True, mmap=True)["state_dict"]["images_seen"]))
    assert seen[0] >= 8 and seen[0] % 8 == 0 and seen[1] > seen[0] and seen[1] % 8 == 0
    assert len(list((folder / "artifacts/finetune_v8/runs").iterdir())) == 1


def clone(folder: Path) -> Path:
    """A folder with what a clone has."""
    for name in NEEDED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    return folder


def test_in_a_clone(tmp_path: Path) -> None:
    one_step_then_sigterm_then_last(sys.executable, clone(tmp_path), full=False)


@pytest.mark.slow
def test_from_a_wheel(python_with_wheel: str, tmp_path: Path) -> None:
    one_step_then_sigterm_then_last(python_with_wheel, tmp_path, full=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_at_full_size(tmp_path: Path) -> None:
    one_step_then_sigterm_then_last(sys.executable, clone(tmp_path), full=True)

"""Every stage runs on a second device: the world ``tests/worlds/tiny.yaml``, from its first stage to its last.

The device changes torch for a whole process, so the chain runs once, in a process of its own, which notes how each
stage ended::

    python -m tests.test_stages_on_second_device RECORD.json

Stages read what earlier ones made: of several failures, look at the first.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ohlora import pipeline
from tests import golden
from tests.networks.test_attribute_cnn import original
from tests.second_device import ROOT, SETTINGS

WORLD = Path(__file__).parent / "worlds" / "tiny.yaml"
NO_DEVICE = {
    "measure_attributes": "measures on the CPU, thousands of images",
    "measure_finetuning": "measures on the CPU, thousands of images",
    "measure_directions": "reads tables",
}
"""Stages that are not run here, and why."""
TRAINED = ("filter_gender", "face_parser", "property_cnn", "finetune_v1", "finetune_v1_projection", "finetune_v8")
"""Stages that are also resumed: one of each class and kind of data."""
LONGER = {True: ("--model.init_args.kimg", "0.024"), False: ("--trainer.max_epochs", "2")}
"""Settings of a resumed run: of a GAN, and of any other."""
FURTHER = {
    "pretrain": ("fit", "pretrain"),
    "pretrain, resumed": ("fit", "pretrain", "--ckpt_path", "last", *LONGER[True]),
    "generate_original, continued": ("predict", "generate_original", "--data.init_args.count", "20"),
    "evaluation of labels": (
        *("test", "evaluate_v8", "--model.init_args.directions", "null"),
        *("--model.init_args.labels", "[eyes, mouth]", "--model.init_args.output", "labels"),
    ),
}
"""Commands of the entry point besides the stages."""


def runs() -> Iterator[tuple[str, Callable[[], object]]]:
    """What is run: names and calls, in order."""
    world = pipeline.world(str(WORLD))
    for name, stage in world.stages.items():
        if stage.configured:
            yield name, lambda words=(stage.command, name): entry_point(*words)
        else:
            yield name, lambda words=world.words(f"{stage.command} {stage.options}"): script(*words)
        if name in TRAINED:
            longer = LONGER[name.startswith("finetune")]
            words = (stage.command, name, "--ckpt_path", "last", *longer)
            yield f"{name}, resumed", lambda words=words: entry_point(*words)
    for name, words in FURTHER.items():
        yield name, lambda words=words: entry_point(*words)
    yield "a character on the device", character_on_device


def entry_point(*words: str) -> None:
    """Runs a command of the entry point on the device."""
    from ohlora.__main__ import main

    assert main([*words, "--world", str(WORLD), "--traceback", *SETTINGS]) == 0


def script(path: str, *words: str) -> None:
    """Runs a command that neither trains nor predicts; it uses no device."""
    assert importlib.import_module(f"scripts.{Path(path).stem}").main(list(words)) == 0, "see its output"


def character_on_device() -> None:
    """Reads a character onto the device, shows it, and writes it from there."""
    from ohlora.characters.character import Character

    path = pipeline.world(str(WORLD)).path("characters/mina.safetensors")
    mina = Character.load(path, "second:0")
    assert mina.code.values.device.type == "second"
    shown = mina.sheet(2)
    mina.save("moved.safetensors")
    assert (Character.load("moved.safetensors").sheet(2) == shown).all()


def published() -> None:
    """Writes what stands for the published files into the working directory."""
    networks = {name: golden.stylegan_state("stylegan-64-tiny", name) for name in ("generator", "discriminator")}
    del networks["generator"]["mapping.label_weight"]  # the published networks have no labels
    for name, weight in (("generator", "mapping.dense0.weight"), ("discriminator", "layer10.weight")):
        networks[name][weight] = networks[name][weight][:, :64].clone()
    torch.save(networks, pipeline.PUBLISHED)
    for name in ("gender", "quality"):
        path = original(name, golden.manifest("filter-cnns")[name], Path(f"{name}_model_0.pt"))
        for k in range(1, 5):
            os.link(path, f"{name}_model_{k}.pt")


def main(record: Path) -> None:
    """Runs everything, and writes for each run its error, or '', and its seconds."""
    from tests.second_device import accelerate

    accelerate()
    published()
    ended: dict[str, Any] = {}
    for name, run in runs():
        print(f"\n=== {name}", flush=True)
        started = time.perf_counter()
        try:
            run()
            error = ""
        except Exception:
            error = traceback.format_exc()
            print(error, flush=True)
        ended[name] = {"error": error, "seconds": round(time.perf_counter() - started, 1)}
        record.write_text(json.dumps(ended, indent=2))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """How each run ended, see :func:`main`."""
    folder = tmp_path_factory.mktemp("second")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    words = [sys.executable, "-m", "tests.test_stages_on_second_device", "record.json"]
    subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    found: dict[str, dict[str, Any]] = json.loads((folder / "record.json").read_text())
    return found


NAMES = [name for name, _ in runs()]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_a_second_device(ended: dict[str, dict[str, Any]], name: str) -> None:
    assert ended[name]["error"] == ""


def test_every_declared_stage_is_run() -> None:
    assert {*NAMES} & {*pipeline.STAGES} == {*pipeline.STAGES} - {*NO_DEVICE}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # the device's end would be "terminate called"

"""Every stage runs on a second device: the world ``tests/worlds/tiny.yaml``, from its first stage to its last.

The device changes torch for a whole process, so the chain runs once, in a process of its own, which notes how each
stage ended::

    python -m tests.test_stages_on_second_device RECORD.json

Stages read what earlier ones made: of several failures, look at the first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from ohlora import pipeline
from ohlora.worlds import Stage, World
from tests import second_device  # what uses torch is imported below, when the device is there

WORLD = Path(__file__).parent / "worlds" / "tiny.yaml"
NO_DEVICE = {
    "measure_attributes": "measures on the CPU, thousands of images",
    "measure_finetuning": "measures on the CPU, thousands of images",
    "measure_directions": "reads tables",
    "page": "makes a thousand images and more on the CPU",
}
"""Stages that are not run here, and why."""
SINGLE_STEP = ("vectorfind_v8", "vectorfind_v9")
"""Stages that train and have no checkpoint to go on from."""
LONGER = ("--ckpt_path", "last", "--model.init_args.kimg", "0.024")
"""Settings of a resumed run of a GAN; of any other, :data:`ANOTHER_EPOCH`."""
ANOTHER_EPOCH = ("--ckpt_path", "last", "--trainer.max_epochs", "2")
FEW_GRADIENTS = [
    f"--model.init_args.finder.init_args.{key}={value}"
    for key, value in {"latents": 20, "rounds": 2, "covariance_count": 200}.items()
]
GUIDE = ("--model.init_args.guide", json.dumps({"file": "artifacts/tiny/identity/identity.safetensors"}))
TRAINED = {
    "class_path": "ohlora.directions.trained.Trained",
    "init_args": {
        **{"steps": 2, "batch_size": 4, "edits": 2},
        "start": {
            "class_path": "ohlora.directions.jacobian.Jacobian",
            "init_args": {"latents": 20, "rounds": 1, "covariance_count": 200, "layers": "each"},
        },
    },
}
FURTHER = {
    "pretrain": ("fit", "pretrain"),
    "pretrain, resumed": ("fit", "pretrain", *LONGER),
    "pretrain by relativistic pairing, with ADA": (
        *("fit", "pretrain", "--trainer.default_root_dir", "relativistic"),
        *("--model.init_args.loss", "relativistic", "--model.init_args.r2_gamma", "2"),
        *("--model.init_args.augmentation", "ohlora.networks.augmentation.ADA"),
    ),
    "pretrain a StyleGAN2": (
        *("fit", "pretrain", "--trainer.default_root_dir", "stylegan2"),
        *("--model.init_args.architecture.kind", "stylegan2", "--model.init_args.ema_rampup", "0.05"),
        *("--model.init_args.path_length_weight", "2", "--model.init_args.path_length_interval", "1"),
        *("--model.init_args.augmentation", "ohlora.networks.augmentation.DiffAugment"),
    ),
    "images of an imported StyleGAN3": (
        *("predict", "generate_original", "--trainer.default_root_dir", "generate3"),
        *("--model.init_args.generator", "stylegan3/generator.safetensors", "--model.init_args.output", "generate3"),
    ),
    "generate_original, continued": ("predict", "generate_original", "--data.init_args.count", "20"),
    "validation of face_parser": ("validate", "face_parser", "--ckpt_path", "last"),
    "directions by layer": (
        *("fit", "vectorfind_v9", "--trainer.default_root_dir", "layers", "--model.init_args.output", "layers"),
        *("--model.init_args.finder.class_path", "ohlora.directions.jacobian.Jacobian"),
        *("--model.init_args.finder.init_args.layers", "each"),
        *FEW_GRADIENTS,
    ),
    "evaluation of directions by layer": (
        *("test", "evaluate_v9", "--trainer.default_root_dir", "layers", "--model.init_args.output", "layers"),
        *("--model.init_args.directions", "layers/directions.safetensors"),
    ),
    "trained directions": (
        *("fit", "vectorfind_v9", "--trainer.default_root_dir", "trained", "--model.init_args.output", "trained"),
        *("--model.init_args.finder", json.dumps(TRAINED)),
    ),
    "evaluation of trained directions": (
        *("test", "evaluate_v9", "--trainer.default_root_dir", "trained", "--model.init_args.output", "trained"),
        *("--model.init_args.directions", "trained/directions.safetensors"),
    ),
    "steps of latents' own with a guide": (
        *("fit", "vectorfind_v9", "--trainer.default_root_dir", "local", "--model.init_args.output", "local"),
        *("--model.init_args.finder.class_path", "ohlora.directions.local.Local", *GUIDE),
        *FEW_GRADIENTS,
    ),
    "evaluation of these steps": (
        *("test", "evaluate_v9", "--trainer.default_root_dir", "local", "--model.init_args.output", "local"),
        *("--model.init_args.directions", "local/directions.safetensors", *GUIDE),
    ),
    "evaluation of labels": (
        *("test", "evaluate_v8", "--trainer.default_root_dir", "labels", "--model.init_args.output", "labels"),
        *("--model.init_args.directions", "null", "--model.init_args.labels", "[eyes, mouth, pose]"),
    ),
}
"""Commands of the entry point besides those of the stages."""


def runs() -> Iterator[tuple[str, Callable[[], object]]]:
    """What is run, in order: names and calls."""
    world = pipeline.world(str(WORLD))
    for name, stage in world.stages.items():
        yield name, partial(command, world, stage)
        if stage.command == "fit" and name not in SINGLE_STEP:
            longer = LONGER if name.startswith("finetune") else ANOTHER_EPOCH
            yield f"{name}, resumed", partial(entry_point, "fit", name, *longer)
    for name, words in FURTHER.items():
        yield name, partial(entry_point, *words)
    yield "a character on the device", character_on_device


def command(world: World, stage: Stage) -> None:
    """Runs a stage by its command; one that neither trains nor predicts uses no device."""
    if stage.configured:
        entry_point(stage.command, stage.name)
    else:
        from ohlora.__main__ import main as ohlora

        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = ohlora(world.words(f"{stage.command} {stage.options}"))
        assert code == 0, said.getvalue()
    missing = [name for name in stage.outputs if not (world.folder / name).exists()]
    assert not missing


def entry_point(*words: str) -> None:
    """Runs a command of the entry point on the device."""
    from ohlora.__main__ import main as ohlora

    before = second_device.operators
    assert ohlora([*words, "--world", str(WORLD), "--traceback", *second_device.SETTINGS]) == 0
    assert second_device.operators > before


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
    import torch

    from ohlora.__main__ import main as ohlora
    from tests import golden
    from tests.networks.test_attribute_cnn import original

    assert ohlora(["import-weights", str(golden.GOLDEN / "stylegan3-r-16.pkl"), "stylegan3"]) == 0

    networks = {name: golden.stylegan_state("stylegan-64-tiny", name) for name in ("generator", "discriminator")}
    del networks["generator"]["mapping.label_weight"]  # the published networks have no labels
    for name, weight in (("generator", "mapping.dense0.weight"), ("discriminator", "layer10.weight")):
        networks[name][weight] = networks[name][weight][:, :64].clone()
    torch.save(networks, pipeline.PUBLISHED)
    for name in ("gender", "quality"):
        path = original(name, golden.manifest("filter-cnns")[name], Path(f"{name}_model_0.pt"))
        weights = torch.load(path, weights_only=True)
        for k in range(1, 5):  # an ensemble's members differ
            torch.save({key: value * (1 + k / 100) for key, value in weights.items()}, f"{name}_model_{k}.pt")


def main(record: Path) -> None:
    """Runs everything, and notes for each run its error, or '', and its seconds."""
    second_device.accelerate()
    published()
    ended: dict[str, tuple[str, float]] = {}
    for name, run in runs():
        print(f"=== {name}", flush=True)
        error, started = "", time.perf_counter()
        try:
            run()
        except Exception:
            error = traceback.format_exc()
        ended[name] = error, round(time.perf_counter() - started, 1)
    record.write_text(json.dumps(ended, indent=2))


NAMES = [name for name, _ in runs()]


@pytest.mark.timeout(1200)  # a minute on an idle machine
def test_they_run_on_a_second_device(tmp_path: Path) -> None:
    """One test for all, since the stages need what earlier ones made."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(second_device.ROOT),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "OHLORA_ARTIFACTS": "artifacts",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_stages_on_second_device", "record.json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    record = tmp_path / "record.json"
    assert record.is_file(), done.stdout + done.stderr
    errors: dict[str, str] = {name: error for name, (error, _) in json.loads(record.read_text()).items()}
    failed = {name: error for name, error in errors.items() if error}
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())
    assert list(errors) == NAMES


def test_every_declared_stage_is_run() -> None:
    assert {*pipeline.STAGES} - {*NAMES} == {*NO_DEVICE}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # the device's end would be "terminate called"

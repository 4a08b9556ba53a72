"""SIGTERM and Ctrl-C, wherever a run is: it stops at once, keeps what is whole, and says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.tracking import checkpoints_in
from ohlora.utils.files import read_rows
from tests.conftest import CONF, assert_same, network_state
from tests.toy_tables import brightness_table, options, sample_set, watching

Start = Callable[..., subprocess.Popen[str]]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def started(*given: str) -> subprocess.Popen[str]:
    """The entry point in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ohlora", *given]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stopped(process: subprocess.Popen[str], ready: Callable[[], bool], number: signal.Signals) -> str:
    """Waits until a run is ``ready``, and sends it a signal; it must end soon, with the signal's code.

    Returns:
        The line on how to go on.
    """
    begun = time.monotonic()
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < 120, "the run has not come so far"
        time.sleep(0.02)
    process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == CODES[number], (out, err)
    assert time.monotonic() - sent < 20
    assert "Traceback" not in err
    (line,) = [line for line in out.splitlines() if line.startswith("stopped by")]
    assert line.startswith(f"stopped by {number.name}") and len(line) < 500
    return line


def whole(folder: Path) -> int:
    """How many pictures are there; all of them can be read, and nothing half-written lies beside them."""
    for path in folder.iterdir():
        with Image.open(path) as picture:
            picture.load()
    return len(list(folder.iterdir()))


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    return tmp_path / "merged.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=["SIGTERM", "SIGINT"])
def test_a_training_is_saved_and_goes_on_bit_for_bit(tmp_path: Path, number: signal.Signals) -> None:
    given = ["fit", "--config", str(CONF / "pretrain.yaml"), "--model.init_args.kimg", "0.8"]
    given += ["--checkpoint.every_kimg", "0", "--trainer.default_root_dir"]
    run = tmp_path / "stage" / "runs" / "0001"
    table = run / "metrics.csv"
    line = stopped(started(*given, str(tmp_path / "stage")), table.is_file, number)
    (checkpoint,) = checkpoints_in(run)
    assert f"at {checkpoint}; go on with --ckpt_path last" in line
    assert not list((tmp_path / "stage").glob("*.safetensors"))
    for words in ([str(tmp_path / "stage"), "--ckpt_path", "last"], [str(tmp_path / "whole")]):
        process = started(*given, *words)
        assert process.wait(timeout=120) == 0, process.communicate()
    for name in ("generator", "discriminator"):
        a, b = (network_state(tmp_path / folder / f"{name}.safetensors") for folder in ("stage", "whole"))
        assert_same(a, b)
    one, two = (read_rows(tmp_path / folder / "runs" / "0001" / "metrics.csv") for folder in ("stage", "whole"))
    assert [row["kimg"] for row in one] == [row["kimg"] for row in two]


@pytest.mark.slow
def test_a_training_by_epochs_is_saved(tmp_path: Path) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    given = ["fit", "--config", str(CONF / "properties.yaml"), "--data.init_args.manifests", f"[{manifest}]"]
    given += ["--trainer.max_epochs", "10000", "--model.init_args.patience", "10000", "--checkpoint.every_kimg", "0"]
    run = tmp_path / "stage" / "runs" / "0001"
    process = started(*given, "--trainer.default_root_dir", str(tmp_path / "stage"))
    line = stopped(process, (run / "metrics.csv").is_file, signal.SIGTERM)
    assert "go on with --ckpt_path last" in line and len(checkpoints_in(run)) == 1


def test_a_measurement_before_the_first_step_is_cut(tmp_path: Path) -> None:
    given = ["fit", "--config", str(CONF / "pretrain.yaml"), *options(watching(tmp_path / "watching"))]
    given += ["--trainer.callbacks.count", "400000", "--trainer.default_root_dir", str(tmp_path / "stage")]
    config = tmp_path / "stage" / "runs" / "0001" / "config.yaml"
    process = started(*given)
    asleep = time.monotonic()

    def measuring() -> bool:
        nonlocal asleep
        if not config.is_file():
            asleep = time.monotonic()
        return time.monotonic() - asleep > 4

    line = stopped(process, measuring, signal.SIGTERM)
    assert "before there was anything to keep; start anew" in line


@pytest.mark.parametrize("number", CODES, ids=["SIGTERM", "SIGINT"])
def test_images_stop_and_go_on(tmp_path: Path, weights: tuple[Path, Path], number: signal.Signals) -> None:
    settings = {"model.init_args.generator": weights[0], "model.init_args.output": tmp_path / "made"}
    given = ["predict", "--config", str(CONF / "generate.yaml"), *options(settings), "--data.init_args.count"]
    stage = ["--trainer.default_root_dir", str(tmp_path / "stage")]
    images = tmp_path / "made" / "images"
    process = started(*given, "100000", *stage)
    line = stopped(process, lambda: images.is_dir() and len(list(images.iterdir())) > 9, number)
    made = whole(images)
    assert f"with {made} of 100000 images in {tmp_path / 'made'}; the same command goes on" in line
    assert not (tmp_path / "made" / "manifest.csv").exists()
    process = started(*given, str(made + 3), *stage)
    assert process.wait(timeout=120) == 0, process.communicate()
    assert whole(images) == made + 3 == len(read_rows(tmp_path / "made" / "manifest.csv"))


@pytest.mark.slow
def test_samples_stop_by_the_shard(tmp_path: Path, weights: tuple[Path, Path], scorer: Path) -> None:
    settings = {"generator": weights[0], "network": scorer, "output": tmp_path / "made"}
    given = options({f"model.init_args.{name}": value for name, value in settings.items()})
    given += ["--data.init_args.count", "100000", "--trainer.default_root_dir", str(tmp_path / "stage")]
    shards = tmp_path / "made" / "shards"
    process = started("predict", "--config", str(CONF / "sample.yaml"), *given)
    line = stopped(process, lambda: shards.is_dir() and len(list(shards.iterdir())) > 3, signal.SIGTERM)
    assert "of 100000 samples in" in line and not (tmp_path / "made" / "medians.json").exists()
    assert all(path.name.endswith(".safetensors") and path.name[0] != "." for path in shards.iterdir())


def test_scores_stop_without_a_table(tmp_path: Path, scorer: Path) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    rows = read_rows(manifest)
    manifest.write_text("path\n" + "".join(f"{row['path']}\n" for row in rows))
    settings = {"model.init_args.networks": f"[{scorer}]", "model.init_args.output": tmp_path / "out" / "scores.csv"}
    given = ["predict", "--config", str(CONF / "scores.yaml"), *options(settings), "--data.init_args.manifest"]
    given += [str(manifest), "--trainer.default_root_dir", str(tmp_path / "stage")]
    given += ["--trainer.callbacks", "tests.ranks.Slowly"]
    config = tmp_path / "stage" / "runs" / "0001" / "slowly"
    line = stopped(started(*given), config.is_file, signal.SIGTERM)
    assert "before anything was written; the same command starts anew" in line
    assert not (tmp_path / "out" / "scores.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=["SIGTERM", "SIGINT"])
def test_a_test_and_a_search_stop(
    tmp_path: Path, weights: tuple[Path, Path], scorer: Path, number: signal.Signals
) -> None:
    sample_set(tmp_path / "samples", 60000, 60000)
    search = {"model.init_args.output": tmp_path / "found", "data.init_args.folder": tmp_path / "samples"}
    stage = ["--trainer.default_root_dir", str(tmp_path / "stage")]
    config = tmp_path / "stage" / "runs" / "0001" / "config.yaml"
    process = started("fit", "--config", str(CONF / "directions.yaml"), *options(search), *stage)
    line = stopped(process, config.is_file, number)
    assert "before there was anything to keep; start anew" in line
    assert not (tmp_path / "found" / "directions.safetensors").exists()
    settings: dict[str, object] = {"generator": weights[0], "network": scorer, "judge": scorer}
    settings |= {"output": tmp_path / "tested", "unedited_count": 1000000}
    labelled = options({f"model.init_args.{name}": value for name, value in settings.items()})
    searched = {"model.init_args.output": tmp_path / "found", "data.init_args.folder": tmp_path / "few"}
    sample_set(tmp_path / "few")
    process = started("fit", "--config", str(CONF / "directions.yaml"), *options(searched), *stage)
    assert process.wait(timeout=120) == 0, process.communicate()
    labelled += ["--model.init_args.directions", str(tmp_path / "found" / "directions.safetensors")]
    process = started("test", "--config", str(CONF / "evaluation.yaml"), *labelled, *stage)
    line = stopped(process, (tmp_path / "stage" / "runs" / "0003" / "config.yaml").is_file, number)
    assert "before anything was written; the same command starts anew" in line
    assert not (tmp_path / "tested" / "test_result.csv").exists()


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    given = ["fit", "--config", str(CONF / "pretrain.yaml"), "--trainer.callbacks", "tests.ranks.Slowly"]
    process = started(*given, "--trainer.default_root_dir", str(tmp_path / "stage"))
    begun = time.monotonic()
    while not (tmp_path / "stage" / "runs" / "0001" / "slowly").is_file():
        assert process.poll() is None and time.monotonic() - begun < 120
        time.sleep(0.02)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 143 and "ended by SIGTERM (a second signal)" in err


@pytest.mark.slow
def test_other_commands_stop_too(tmp_path: Path) -> None:
    process = started("draw-faces", str(tmp_path / "faces"), "--count", "100000")
    begun = time.monotonic()
    while not list((tmp_path / "faces").rglob("*.png")):
        assert process.poll() is None and time.monotonic() - begun < 120, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("ohlora draw-faces: stopped by SIGINT")


@pytest.mark.slow
def test_a_run_killed_leaves_no_lock(tmp_path: Path, image_folder: Path, weights: tuple[Path, Path]) -> None:
    """Also where loader processes outlive it for a while."""
    settings = {
        "model.init_args.generator": weights[0],
        "model.init_args.discriminator": weights[1],
        "model.init_args.kimg": 100,
        "data.init_args.folder": image_folder,
        "data.init_args.num_workers": 2,
        "trainer.default_root_dir": tmp_path / "stage",
    }
    given = ["fit", "--config", str(CONF / "finetune.yaml"), *options(settings)]
    run = tmp_path / "stage" / "runs" / "0001"
    process = started(*given)
    begun = time.monotonic()
    while not checkpoints_in(run):
        assert process.poll() is None and time.monotonic() - begun < 120
        time.sleep(0.02)
    second = started(*given, "--ckpt_path", "last")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"{run} is in use by process {process.pid} on " in err.strip().splitlines()[-1]
    process.kill()
    process.communicate()
    third = started(*given[:-2], "--trainer.default_root_dir", str(tmp_path / "stage"), "--ckpt_path", "last")
    begun, rows = time.monotonic(), (run / "metrics.csv").read_text()
    while (run / "metrics.csv").read_text() == rows:
        assert third.poll() is None and time.monotonic() - begun < 120
        time.sleep(0.02)
    third.send_signal(signal.SIGTERM)
    third.communicate(timeout=60)
    assert third.returncode == 143

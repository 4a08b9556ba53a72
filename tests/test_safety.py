"""Runs that end badly: killed, without room on the disk, on bad images. None may cost what was there before."""

from __future__ import annotations

import csv
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.callbacks.checkpoint import read_checkpoint
from ohlora.formats import network_files
from ohlora.tracking import checkpoints_in
from ohlora.utils.files import read_rows
from tests.conftest import CONF, assert_same, network_state
from tests.toy_tables import watching

Run = Callable[..., int]


@pytest.fixture
def manifest(tmp_path: Path, image_folder: Path) -> Path:
    """A manifest of the images with two labels."""
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "path", "eyes_score", "mouth_score"])
        writer.writerows([k, f"images/{k:03d}.png", k / 10, -k / 10] for k in range(12))
    return path


def words(weights: tuple[Path, Path], manifest: Path, stage: str) -> list[str]:
    """A small fine-tune, watched: v1 (labels of the data) or v8 (kept features, labels from N(0, 1))."""
    settings: dict[str, object] = {
        "model.init_args.generator": weights[0],
        "model.init_args.discriminator": weights[1],
        "model.init_args.add_labels": 2,
        "model.init_args.r1_interval": 4,
        "data.init_args.folder": "null",
        "data.init_args.manifest": manifest,
        **watching(manifest.parent / "watching"),
        "trainer.callbacks.every_kimg": 1.6,
    }
    if stage == "v1":
        settings |= {
            "model.init_args.labels": "dataset",
            "model.init_args.label_head": "projection",
            "model.init_args.shuffled_labels": 1.0,
            "model.init_args.style_mixing": 0.9,
            "data.init_args.label_columns": "[eyes_score, mouth_score]",
            "data.init_args.cache": "none",
        }
    else:
        settings |= {"model.init_args.labels": "normal", "data.init_args.cache": "memory"}
    config = ["fit", "--config", str(CONF / "finetune.yaml")]
    return [*config, *(word for key, value in settings.items() for word in (f"--{key}", str(value)))]


def start(*given: str) -> subprocess.Popen[str]:
    """The entry point in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    command = [sys.executable, "-m", "ohlora", *given]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*given: str) -> None:
    """Runs the entry point to its end, which must be a good one."""
    process = start(*given)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["v1", "v8"])
def test_a_killed_run_resumes_bit_for_bit(
    tmp_path: Path, weights: tuple[Path, Path], manifest: Path, stage: str
) -> None:
    given = [*words(weights, manifest, stage), "--model.init_args.kimg", "6.4", "--checkpoint.every_kimg", "0.16"]
    whole, parts = (
        ["--trainer.default_root_dir", str(tmp_path / "w")],
        ["--trainer.default_root_dir", str(tmp_path / "p")],
    )
    run = tmp_path / "p" / "runs" / "0001"
    process = start(*given, *parts)
    while not checkpoints_in(run) and process.poll() is None:
        time.sleep(0.01)
    moment = random.uniform(0.0, 2.0)
    time.sleep(moment)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    seen = int(read_checkpoint(checkpoints_in(run)[-1])["state_dict"]["images_seen"])
    print(f"killed {moment:.3f} s after the first checkpoint, resumed from {seen} images seen")
    finish(*given, *parts, "--ckpt_path", "last", "--data.init_args.num_workers", "2")
    finish(*given, *whole)
    for name in ("generator", "discriminator"):
        file = f"{name}.safetensors"
        assert_same(network_state(tmp_path / "w" / file), network_state(tmp_path / "p" / file))
    tables = [read_rows(tmp_path / d / "runs" / "0001" / "metrics.csv") for d in ("w", "p")]
    watched = [
        [{k: v for k, v in row.items() if k.startswith(("watch/", "kimg"))} for row in t if row["watch/diversity"]]
        for t in tables
    ]
    assert watched[0] == watched[1] and len(watched[0]) == 5


@pytest.mark.slow
def test_a_kill_while_saving_leaves_the_earlier_checkpoint(
    tmp_path: Path, weights: tuple[Path, Path], manifest: Path
) -> None:
    given = [*words(weights, manifest, "v8"), "--trainer.default_root_dir", str(tmp_path / "stage")]
    process = start(*given, "--trainer.callbacks+", "tests.ranks.KillWhileSaving")
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    run = tmp_path / "stage" / "runs" / "0001"
    assert [path.name for path in checkpoints_in(run)] == ["images-0000000016.ckpt"]
    assert len(list((run / "checkpoints").glob(".*.part"))) == 1
    finish(*given, "--ckpt_path", "last")
    assert checkpoints_in(run)[-1].name == "images-0000000032.ckpt"
    assert not list((run / "checkpoints").glob(".*.part"))


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(
    tmp_path: Path, weights: tuple[Path, Path], manifest: Path, capsys: pytest.CaptureFixture[str], ohlora: Run
) -> None:
    given = words(weights, manifest, "v8")[3:]
    assert ohlora("fit", "finetune", *given, "--model.init_args.kimg", "0.016") == 0
    run = tmp_path / "stage" / "runs" / "0001"
    (earlier,) = checkpoints_in(run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (earlier.stat().st_size // 2, before[1]))
    try:
        assert ohlora("fit", "finetune", *given, "--ckpt_path", "last") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("ohlora: ") and "images-0000000032.ckpt cannot be written" in message
    assert "go on with --ckpt_path last" in message
    assert checkpoints_in(run) == [earlier] and not list(earlier.parent.glob(".*.part"))
    assert ohlora("fit", "finetune", *given, "--ckpt_path", "last") == 0


def test_a_network_file_that_cannot_be_written(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    generator = network_files.load_generator(weights[0])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (weights[0].stat().st_size // 2, before[1]))
    try:
        with pytest.raises(OSError, match=r"generator.safetensors cannot be written|File too large"):
            network_files.save_network(generator, tmp_path / "out" / "generator.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_goes_bad_in_mid_epoch_is_one_line(
    tmp_path: Path,
    weights: tuple[Path, Path],
    manifest: Path,
    num_workers: int,
    capsys: pytest.CaptureFixture[str],
    ohlora: Run,
) -> None:
    bad = tmp_path / "images" / "007.png"
    content = bad.read_bytes()
    given = words(weights, manifest, "v1")[3:]
    spoiling = ["--trainer.callbacks+", "tests.ranks.Spoil", "--trainer.callbacks.init_args.path", str(bad)]
    workers = ["--data.init_args.num_workers", str(num_workers), "--model.init_args.kimg", "0.4"]
    assert ohlora("fit", "finetune", *given, *workers, *spoiling) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"ohlora: {bad}: unreadable") and "Traceback" not in message
    bad.write_bytes(content)
    assert ohlora("fit", "finetune", *given, "--model.init_args.kimg", "0.048", "--ckpt_path", "last") == 0


def test_a_value_that_is_no_number_is_one_line_and_leaves_a_checkpoint(
    tmp_path: Path, weights: tuple[Path, Path], manifest: Path, capsys: pytest.CaptureFixture[str], ohlora: Run
) -> None:
    given = words(weights, manifest, "v8")[3:]
    assert ohlora("fit", "finetune", *given, "--model.init_args.kimg", "0.016") == 0
    before = read_checkpoint(tmp_path / "stage/runs/0001/checkpoints/images-0000000016.ckpt")["state_dict"]
    mad = ["--model.init_args.discriminator_optimizer.init_args.lr", "1e30"]
    assert ohlora("fit", "finetune", *given, *mad, "--ckpt_path", "last") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("ohlora: ") and "is not finite in step" in message
    (left,) = checkpoints_in(tmp_path / "stage" / "runs" / "0001")
    after = read_checkpoint(left)["state_dict"]
    assert_same(before, after)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert ohlora("fit", "finetune", *given, "--ckpt_path", "last") == 0
    assert np.isfinite(network_state(tmp_path / "stage" / "generator.safetensors")["w_avg"].numpy()).all()

"""Ordinary mistakes: each is one readable line and exit code 2, before the work where it can be known."""

from __future__ import annotations

import csv
import errno
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import save_file

from ohlora import tracking
from ohlora.__main__ import main
from ohlora.callbacks.checkpoint import read_checkpoint
from ohlora.errors import ConfigError, DataError, FormatError, OhloraError
from ohlora.formats import foreign, network_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.pipeline import require
from ohlora.utils import accounts, checks, mistakes
from ohlora.utils.commands import command
from ohlora.utils.files import read_yaml
from tests.conftest import assert_same, network_state, tiny_networks
from tests.toy_tables import brightness_table

Run = Callable[..., int]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
HTML = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
STOPPING = [
    "--trainer.callbacks+",
    "lightning.pytorch.callbacks.EarlyStopping",
    "--trainer.callbacks.init_args.monitor",
]
TIMER = ["--trainer.callbacks+", "lightning.pytorch.callbacks.Timer", "--trainer.callbacks.init_args.duration"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on standard error, which is a message of ours and short."""
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("ohlora") and len(message) < 500
    return message


def files_in(folder: Path) -> dict[Path, tuple[int, int]]:
    """Files below a folder, with size and time."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


# --- settings


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--data.init_args.batch_size", "7"], "groups of 4 images, and a batch has 7; expected a multiple"),
        (["--model.init_args.mbstd_group_size", "3"], "groups of 3 images, and a batch has 8"),
        (["--data.init_args.batch_size", "0"], "batch_size is 0; expected at least 1"),
        (["--data.init_args.batch_size", "-8"], "batch_size is -8; expected at least 1"),
        (["--model.init_args.mbstd_group_size", "0"], "mbstd_group_size is 0; expected at least 1"),
        (["--model.init_args.architecture.mbstd_group_size", "0"], "mbstd_group_size is 0; expected at least 1"),
        (["--model.init_args.architecture.z_dim", "0"], "z_dim is 0; expected 1 to 2048"),
        (["--model.init_args.architecture.channel_max", "51200"], "channel_max is 51200; expected 1 to 2048"),
        (
            ["--model.init_args.architecture.mapping_layers", "1000000000"],
            "mapping_layers is 1000000000; expected 1 to",
        ),
        (["--model.init_args.architecture.c_dim", "1000000000"], "c_dim is 1000000000; expected 0 to 65536"),
        (["--data.init_args.num_workers", "-1"], "num_workers is -1; expected 0 to 256"),
        (["--data.init_args.num_workers", "1000000"], "num_workers is 1000000; expected 0 to 256"),
        (["--data.init_args.train_size", "0"], "train_size is 0; expected at least 1"),
        (["--model.init_args.seed", "-5"], "seed is -5; expected 0 to"),
        (["--seed_everything", "-5"], "-5 is not in bounds"),
        (["--model.init_args.style_mixing", "2"], "style_mixing is 2.0; expected 0 to 1"),
        (["--model.init_args.r1_gamma", "-1"], "r1_gamma is -1.0; expected at least 0"),
        (["--model.init_args.ema_kimg", "0"], "ema_kimg is 0.0; expected more than 0"),
        (["--model.init_args.w_avg_beta", "3"], "w_avg_beta is 3.0; expected 0 to 1"),
        (
            ["--model.init_args.generator_optimizer.init_args.lr", "-1"],
            "generator_optimizer: ValueError: Invalid learn",
        ),
        (["--model.init_args.discriminator_optimizer", "torch.optim.LBFGS"], "discriminator_optimizer: TypeError"),
        (["--model.init_args.schedule", "torch.optim.lr_scheduler.ReduceLROnPlateau"], "schedule: TypeError"),
        (["--model.init_args.trainable_generator", "[]"], "trainable_generator is []; expected at least one"),
        (["--model.init_args.trainable_discriminator", "[]"], "trainable_discriminator is []; expected at least one"),
        (
            ["--model.init_args.trainable_discriminator", "[from_rgb.*]", "--model.init_args.frozen_blocks", "1"],
            "nothing of the discriminator trains",
        ),
        (["--trainer.gradient_clip_val", "1"], "trainer.gradient_clip_val is 1; GAN takes its own optimizer steps"),
        (["--trainer.accumulate_grad_batches", "2"], "trainer.accumulate_grad_batches is 2; GAN takes its own"),
        (["--trainer.devices", "0"], "devices='0'"),
        (["--trainer.accelerator", "tpu"], "torch_xla"),
        (["--trainer.max_epochs", "-5"], "max_epochs"),
        (["--trainer.limit_train_batches", "-1"], "limit_train_batches"),
        (["--trainer.callbacks+", "lightning.pytorch.callbacks.LearningRateFinder"], "LearningRateFinder, whose trial"),
        (["--trainer.callbacks+", "lightning.pytorch.callbacks.BatchSizeFinder"], "BatchSizeFinder, whose trial"),
        ([*TIMER, "00:00:01:00"], "cannot be saved as YAML: <Interval.step"),
        # Lightning would go on for good beyond the budget.
        (["--trainer.min_epochs", "5"], "trainer.min_epochs is 5; GAN has an end of its own"),
        (["--trainer.min_steps", "9"], "trainer.min_steps is 9; GAN has an end of its own"),
        (["--checkpoint.every_kimg", "-1"], "every_kimg is -1.0; expected at least 0"),
        (["--trainer.callbacks.init_args.rows", "0"], "rows is 0; expected at least 1"),
        ([*STOPPING, "none"], "metric `none` which is not available"),
    ],
)
def test_settings_of_a_gan(words: list[str], part: str, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert ohlora("fit", "pretrain", *words) == 2
    assert part in said(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there(accelerator: str, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert ohlora("fit", "pretrain", "--trainer.accelerator", accelerator) == 2
    assert "No supported gpu" in (message := said(capsys)) or "not available" in message


@pytest.mark.parametrize(
    ("conf", "words", "part"),
    [
        ("filter", ["--data.init_args.batch_size", "0"], "batch_size is 0; expected at least 1"),
        ("filter", ["--data.init_args.num_workers", "-1"], "num_workers is -1; expected 0 to 256"),
        ("filter", ["--model.init_args.optimizer.init_args.lr", "-1"], "optimizer: ValueError: Invalid learning rate"),
        ("filter", ["--model.init_args.threshold", "7"], "threshold is 7.0; expected 0 to 1"),
        ("filter", ["--model.init_args.max_attempts", "0"], "max_attempts is 0; expected at least 1"),
        ("filter", ["--trainer.gradient_clip_val", "1"], "FilterEnsemble takes its own optimizer steps"),
        ("filter", [*STOPPING, "none"], "metric `none` which is not available"),
        ("properties", ["--model.init_args.network", "[]"], "network is an empty list"),
        ("properties", ["--model.init_args.schedule", "torch.optim.lr_scheduler.ReduceLROnPlateau"], "schedule: Type"),
        ("filter", ["--trainer.min_epochs", "5"], "trainer.min_epochs is 5; FilterEnsemble has an end of its own"),
        ("filter", ["--trainer.num_sanity_val_steps", "2"], "num_sanity_val_steps is 2; a validation before the first"),
        ("properties", ["--trainer.num_sanity_val_steps", "2"], "num_sanity_val_steps is 2"),
        ("properties", ["--trainer.accumulate_grad_batches", "0"], "accumulate_grad_batches is 0; expected at least 1"),
        ("properties", ["--trainer.accumulate_grad_batches", "-1"], "accumulate_grad_batches is -1; expected at least"),
        ("properties", ["--trainer.gradient_clip_val", "-1"], "gradient_clip_val is -1; expected at least 0"),
        ("properties", ["--trainer.val_check_interval", "0"], "val_check_interval is 0; expected more than 0"),
        (
            "properties",
            ["--trainer.val_check_interval", "1000"],
            "must be less than or equal to the number of the train",
        ),
        ("properties", ["--trainer.check_val_every_n_epoch", "3"], "check_val_every_n_epoch is 3 and max_epochs 2"),
        ("properties", ["--trainer.callbacks+", "lightning.pytorch.callbacks.LearningRateFinder"], "whose trial"),
        ("properties", [*STOPPING, "none"], "metric `none` which is not available"),
        ("properties", [*STOPPING, "loss/validation"], "as the stage does; leave it out: model.init_args.patience"),
    ],
)
def test_settings_of_other_trainings(
    conf: str, words: list[str], part: str, tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    table = brightness_table(tmp_path / "data", 60)[0]
    data = (
        ["--data.init_args.annotations", str(table)]
        if conf == "filter"
        else ["--data.init_args.manifests", f"[{table}]"]
    )
    assert ohlora("fit", conf, *data, "--trainer.max_epochs", "2", *words) == 2
    assert part in said(capsys)


def test_paths_that_would_be_taken_for_others(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one for the current folder, an input for the output."""
    table = brightness_table(tmp_path / "data", 60)[0]
    monkeypatch.chdir(tmp_path / "data")
    network = tmp_path / "merged.safetensors"
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), network)
    before = files_in(tmp_path)
    good = ["--model.init_args.networks", f"[{network}]", "--data.init_args.manifest", str(table)]
    for words, part in (
        (["--model.init_args.output", "manifest.csv"], "output is manifest.csv, which the data is read from"),
        (["--model.init_args.output", ""], "model.init_args.output is empty"),
        (["--model.init_args.output", "images"], "output is images; expected the name of a table"),
        (["--model.init_args.output", "s.csv", "--data.init_args.manifest", ""], "data.init_args.manifest is empty"),
    ):
        assert ohlora("predict", "scores", *good, *words) == 2
        assert part in said(capsys)
    assert files_in(tmp_path) == before


def test_early_stopping_on_a_metric_that_is_there(tmp_path: Path, ohlora: Run) -> None:
    patience = ["--trainer.callbacks.init_args.patience", "1"]
    # The AUROC of two equal scores is 0.5 throughout the first steps: it gets no better by 9.
    words = [*STOPPING, "auroc/real_fake", *patience, "--trainer.callbacks.init_args.min_delta", "9"]
    assert ohlora("fit", "pretrain", *words, "--model.init_args.kimg", "1") == 0
    seen = int(read_checkpoint(tracking.newest_checkpoint(tmp_path / "stage"))["state_dict"]["images_seen"])
    assert seen == 16, "one step to compare with, and one in vain"
    table = brightness_table(tmp_path / "data", 60)[0]
    words = ["--data.init_args.manifests", f"[{table}]", "--trainer.callbacks.init_args.min_delta", "9"]
    assert ohlora("fit", "properties", *STOPPING, "loss/train", *patience, *words, stage_dir=tmp_path / "two") == 0
    assert read_checkpoint(tracking.newest_checkpoint(tmp_path / "two"))["epoch"] == 2


# --- folders and disks


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none", "x" * 300, "nul\0"])
def test_folders_that_cannot_be_made(
    place: str, tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    folder = tmp_path / place
    if "\0" not in place:
        assert ohlora("fit", "pretrain", stage_dir=folder) == 2
        assert "choose another folder" in said(capsys)
    generate = ["--model.init_args.generator", str(weights[0]), "--model.init_args.output", str(folder)]
    assert ohlora("predict", "generate", *generate) == 2
    assert "choose another folder" in (message := said(capsys)) or "File name too long" in message
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_folders_that_may_not_be_written(tmp_path: Path, weights: tuple[Path, Path], ohlora: Run) -> None:
    """As a user who may write nothing but a home of its own, in a process forked from this one."""
    for folder in (*tmp_path.parents[:-2], tmp_path, weights[0].parent):
        folder.chmod(0o755)
    home, locked = tmp_path / "home", tmp_path / "locked"
    home.mkdir()
    locked.mkdir()
    os.chown(home, 65534, 65534)
    weights[1].chmod(0)
    good = ["--model.init_args.generator", str(weights[0]), "--model.init_args.output"]
    assert ohlora("predict", "generate", *good, str(tmp_path / "warm")) == 0  # everything is imported

    def as_nobody(generator: Path, output: Path, root: Path) -> str:
        log, child = home / "said.txt", os.fork()
        if child == 0:
            code = 99
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                os.chdir(home)
                sys.stderr = log.open("w")
                words = ["--model.init_args.generator", str(generator), "--model.init_args.output", str(output)]
                code = ohlora("predict", "generate", *words, stage_dir=root)
                sys.stderr.flush()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        return log.read_text().strip().splitlines()[-1]

    message = as_nobody(weights[0], locked, home / "stage")
    assert "locked cannot be written: Permission denied; choose another folder" in message
    message = as_nobody(weights[0], home / "out", locked / "stage")
    assert "stage cannot be written: Permission denied; choose another folder" in message
    message = as_nobody(weights[1], home / "out", home / "stage")
    assert "discriminator.safetensors may not be read; look at its owner and permissions" in message
    assert not (home / "out").exists() and not list(locked.iterdir())


def test_a_disk_without_room_for_a_checkpoint(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert ohlora("fit", "pretrain") == 2
    assert "MiB are needed; make room there or choose another folder" in said(capsys)
    assert not list((tmp_path / "stage").rglob("*.ckpt"))


def test_a_full_disk_names_the_file_and_the_way_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a.csv"))
    assert str(mistakes.readable(full)).endswith(
        "a.csv cannot be written: No space left on device. Make room, then run the same command again"
    )
    assert str(mistakes.readable(full, "go on with --ckpt_path last")).endswith("go on with --ckpt_path last")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OhloraError, match=r"out cannot be written: No space left on device; make room there"):
        checks.writable(tmp_path / "out")


# --- other libraries' errors


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b.csv"), "/a/b.csv: Permission denied. Look at owner"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b.csv"), "/a/b.csv: Read-only file system"),
        (OSError(errno.EMFILE, "Too many open files", "/a"), "ulimit -n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "File name too long"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/a"), "/a: Is a directory"),
        (csv.Error("line contains NUL"), "a table cannot be read (line contains NUL)"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not utf-8"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), r"a\xff cannot be written"),
        (UnidentifiedImageError("cannot identify image file 'a.png'"), "an image cannot be read"),
        (Image.DecompressionBombError("too many pixels"), "an image cannot be read (too many pixels)"),
        (SafetensorError("header too large"), "a safetensors file cannot be used (header too large)"),
        (pickle.UnpicklingError("bad"), "a checkpoint or pickle cannot be read (bad)"),
        (zipfile.BadZipFile("bad"), "get it again"),
        (json.JSONDecodeError("bad", "x", 0), "a JSON file cannot be read"),
        (MemoryError(), "memory is not enough (MemoryError). Lower data.init_args.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the GPU's memory is not enough"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            "memory is not",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower data.init_args.num_workers"),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), "a checkpoint of torch cannot be read"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "set TMPDIR to a folder with room"),
        (ModuleNotFoundError("No module named 'gradio'", name="gradio"), "install it"),
    ],
)
def test_errors_of_libraries_are_translated(error: Exception, part: str) -> None:
    text = str(mistakes.readable(error))
    assert part in text and len(text) < 500 and "\n" not in text

    @command("ohlora test")
    def failing(args: list[str] | None = None) -> None:
        raise error

    assert failing([]) == 2


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def one() -> None:
        raise error

    for error in (ValueError("x"), RuntimeError("x"), KeyError("x"), TypeError("x"), AttributeError("x"), OSError("x")):
        assert mistakes.readable(error) is None
        with pytest.raises(type(error)):
            command("ohlora test")(lambda args: one())([])


def test_ctrl_c_ends_a_command_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    @command("ohlora test")
    def stopped(args: list[str] | None = None) -> None:
        raise KeyboardInterrupt

    assert stopped([]) == 130
    assert "stopped by Ctrl-C" in said(capsys)


def test_messages_are_short_and_of_one_line(tmp_path: Path) -> None:
    long = "/" + "/".join(["folder" * 20] * 20) + "/file.pth"
    text = mistakes.line(f"{long} does not exist\n\tand {long} neither; make it with: ohlora fit x\x1b[0m")
    assert len(text) < 490 and text.startswith("/folder") and "ohlora fit x" in text and "\n" not in text
    assert "file.pth" in text and "\x1b" not in text
    assert mistakes.line("short") == "short"
    assert len(mistakes.line("word " * 1000)) < 490


# --- files that are not what they seem


def disguises() -> dict[str, tuple[bytes, str]]:
    """Files that a download may leave in place of weights, and what is to be said of them."""
    return {
        "html": (HTML, "is a web page and not the file itself"),
        "html_bom": (b"\xef\xbb\xbf\r\n" + HTML, "is a web page"),
        "lfs": (LFS, "is a pointer of git-lfs and not the file itself: run git lfs pull"),
        "empty": (b"", "is empty"),
        "gzip": (b"\x1f\x8b" + bytes(100), "is an archive: unpack it"),
    }


@pytest.mark.parametrize("name", disguises())
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "pkl"])
def test_downloads_that_are_something_else(
    name: str, suffix: str, tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = disguises()[name]
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    for load in (network_files.load_network, load_directions, foreign.read_foreign):
        with pytest.raises(FormatError) as found:
            load(path)
        assert expected in str(found.value) and path.name in str(found.value)
    if suffix == "safetensors":
        assert main(["animate", str(path), str(tmp_path / "a.gif")]) == 2
        assert expected in said(capsys)
        assert main(["import-weights", str(path), str(tmp_path / "out")]) == 2
        assert expected in said(capsys)
        assert ohlora("fit", "pretrain", "--ckpt_path", str(path)) == 2
        assert expected in said(capsys)
        assert not (tmp_path / "stage").exists()


def test_weights_within_a_runners_checkpoint_and_wrapped(tmp_path: Path) -> None:
    generator, _ = tiny_networks()
    state = foreign.to_foreign(generator)
    nested = {
        "plain": {"generator_smooth": state},
        "runner": {"models": {"generator_smooth": state, "generator": state}, "iter": 7, "batch_size": 4},
        "ddp": {"models": {"generator_smooth": {f"module.{key}": value for key, value in state.items()}}},
        "compiled": {
            "models": {"generator_smooth": {f"_orig_mod.module.{key}": value for key, value in state.items()}}
        },
    }
    for name, content in nested.items():
        torch.save(content, tmp_path / f"{name}.pth")
        (network,) = foreign.read_foreign(tmp_path / f"{name}.pth").networks.values()
        assert_same(network.state_dict(), generator.state_dict())


def test_a_network_file_that_does_not_fit_itself(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    content = weights[0].read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    arguments = json.loads(header["__metadata__"]["arguments"])
    described: tuple[Any, ...] = (
        arguments | {"resolution": 17},
        arguments | {"resolution": 1024, "channel_max": 2**40},
        arguments | {"colour": "blue"},
        {},
        [],
        arguments | {"z_dim": "many"},
    )
    for broken in described:
        header["__metadata__"]["arguments"] = json.dumps(broken)
        text = json.dumps(header).encode()
        path = tmp_path / "broken.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
        with pytest.raises(FormatError, match=r"broken\.safetensors"):
            network_files.load_network(path)
    header["__metadata__"] = {"format": "ohlora-network"}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(FormatError, match="format_version"):
        network_files.load_network(path)


def test_what_may_not_be_read_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(DataError, match=r"a\.safetensors may not be read; look at its owner and permissions"):
        require(path)
    with pytest.raises(DataError, match="may not be read"):
        require(tmp_path, folder=True)
    with pytest.raises(DataError, match="File name too long"):
        require(tmp_path / ("x" * 300))
    with pytest.raises(OhloraError, match="is a folder; expected a file"):
        require(tmp_path)


# --- checkpoints


@pytest.fixture
def trained(tmp_path: Path, weights: tuple[Path, Path], image_folder: Path, ohlora: Run) -> list[str]:
    """A fine-tune of 32 images in ``stage``; the words that go on with it."""
    settings = {"model.init_args.generator": weights[0], "model.init_args.discriminator": weights[1]}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    words += ["--data.init_args.folder", str(image_folder)]
    assert ohlora("fit", "finetune", *words) == 0
    return [*words, "--model.init_args.kimg", "0.064", "--ckpt_path"]


def test_resuming_with_other_networks_or_optimizers(
    tmp_path: Path, trained: list[str], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(tmp_path / "stage")
    model = "--model.init_args."
    for words, part in (
        (
            [f"{model}trainable_generator", "[mapping.*]"],
            "trainable_generator is ['mapping.*', 'synthesis.block4.*'] in",
        ),
        ([f"{model}trainable_discriminator", "['*']"], "trainable_discriminator is ['epilogue.*'] in the checkpoint"),
        ([f"{model}frozen_blocks", "1"], "frozen_blocks is 0 in the checkpoint and 1 now"),
        ([f"{model}add_labels", "2", f"{model}labels", "normal"], "add_labels is 0 in the checkpoint and 2 now"),
        ([f"{model}path_length_weight", "1"], "path_length is missing"),
        ([f"{model}generator_optimizer", "torch.optim.SGD"], "optimizer was not a SGD of these settings"),
        ([f"{model}generator_optimizer.init_args.amsgrad", "true"], "optimizer was not a Adam of these settings"),
    ):
        assert ohlora("fit", "finetune", *trained, "last", *words) == 2, words
        message = said(capsys)
        assert part in message and "start anew without --ckpt_path" in message, message
    changed = {p for p, v in files_in(tmp_path / "stage").items() if before.get(p) != v}
    assert not {p for p in changed if p.suffix in (".ckpt", ".safetensors")}
    assert ohlora("fit", "finetune", *trained, "last") == 0


def test_a_checkpoint_that_is_something_else(
    tmp_path: Path, trained: list[str], weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tracking.newest_checkpoint(tmp_path / "stage")
    content = whole.read_bytes()
    made: dict[str, Any] = {
        "cut": content[: len(content) // 2],
        "cut_short": content[:200],
        "text": b"hello\n",
        "pickle": pickle.dumps({"a": 1}),
    }
    for name, what in made.items():
        (tmp_path / f"{name}.ckpt").write_bytes(what)
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("a.txt", "b")
    torch.save({"state_dict": {}}, tmp_path / "state.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.ckpt")
    hollow = {**torch.load(whole, weights_only=True), "state_dict": {}, "hyper_parameters": {}}
    torch.save(hollow, tmp_path / "hollow.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    for path in (weights[0], *sorted(tmp_path.glob("*.ckpt"))):
        assert ohlora("fit", "finetune", *trained, str(path), stage_dir=tmp_path / "other") == 2, path
        message = said(capsys)
        assert path.name in message or "other networks" in message
    assert ohlora("fit", "finetune", *trained, str(weights[0])) == 2
    assert "is a safetensors file, which holds networks and no state of training" in said(capsys)
    assert ohlora("fit", "pretrain", "--ckpt_path", str(whole), stage_dir=tmp_path / "pretrain") == 2
    assert "belongs to a run of the stage in" in said(capsys)
    table = brightness_table(tmp_path / "data", 60)[0]
    assert ohlora("fit", "filter", "--data.init_args.annotations", str(table), "--ckpt_path", str(whole)) == 2
    assert "was written by ohlora.modules.gan.GAN" in said(capsys)
    moved = tmp_path / "moved.ckpt"
    shutil.copy(whole, moved)
    assert ohlora("fit", "pretrain", "--ckpt_path", str(moved), stage_dir=tmp_path / "pretrain") == 2


def test_another_filters_checkpoint(tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    table = brightness_table(tmp_path / "data", 60)[0]
    words = ["--data.init_args.annotations", str(table), "--trainer.max_epochs"]
    assert ohlora("fit", "filter", *words, "1") == 0
    other = ["--model.init_args.attribute", "age", "--data.init_args.attribute", "age", "--ckpt_path", "last"]
    rows = table.read_text().replace("gender", "age")
    table.write_text(rows)
    before = network_state(tmp_path / "stage" / "gender.safetensors")
    assert ohlora("fit", "filter", *words, "2", *other) == 2
    assert "attribute is gender in the checkpoint and age now" in said(capsys)
    assert before.keys() == network_state(tmp_path / "stage" / "gender.safetensors").keys()


# --- configurations


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("trainer:\n  max_epochs: 1\ntrainer:\n  devices: 1\n", "line 3: trainer was said on line 1 already"),
        ("model:\n  init_args: {kimg: 1, kimg: 2}\n", "line 2: kimg was said on line 2 already"),
        ("a: [", "is no YAML"),
        ("model:\n\t- x", "is no YAML"),
        ("x: 2020-13-45", "is no YAML"),
        ("? [a]\n: 1", "is no YAML"),
        ("[" * 3000, "is no YAML"),
        ("a: !!python/object:os.system x", "is no YAML"),
        ("model: {init_args: {kimg: ${nope:x}}}", "nope"),
        ("model: {init_args: {kimg: ${a.b}}}", "a.b"),
    ],
)
def test_configurations(text: str, part: str, tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert ohlora("fit", "pretrain", "--config", str(path)) == 2
    message = said(capsys)
    assert part in message and ("own.yaml" in message or "${" in text)


def test_keys_are_not_repeated_in_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text("base: toy\nroot: a\nroot: b\n")
    assert main(["pipeline", "--world", str(tmp_path / "own.yaml")]) == 2
    assert "own.yaml, line 3: root was said on line 2 already" in said(capsys)
    (tmp_path / "merged.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert read_yaml(tmp_path / "merged.yaml")["b"] == {"x": 2}


# --- W&B


@pytest.mark.parametrize("mode", ["Offline", "OFFLINE", " offline ", "dryrun", "Disabled"])
def test_modes_of_wandb_in_any_letters(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    expected = "disabled" if mode == "Disabled" else "offline"
    assert tracking.RunLogger().mode == expected == os.environ["WANDB_MODE"]


def test_a_mode_that_wandb_does_not_have(
    monkeypatch: pytest.MonkeyPatch, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ConfigError, match="WANDB_MODE is 'ofline'; expected online, offline or disabled"):
        tracking.RunLogger()
    assert ohlora("fit", "pretrain") == 2
    assert "WANDB_MODE is 'ofline'" in said(capsys)


def test_without_a_network_wandb_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nothing listens
    assert not accounts.wandb_reachable(1.0)
    words = ["--trainer.logger.init_args.mode", "online", "--model.init_args.kimg", "0.008"]
    assert ohlora("fit", "pretrain", *words) == 0
    out = capsys.readouterr().out
    assert "W&B cannot be reached: this run goes on offline" in out and "wandb sync" in out
    assert (tmp_path / "stage" / "generator.safetensors").is_file()


def test_an_image_sheet_is_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert main(["import-weights", str(tmp_path / "x.npy"), str(tmp_path / "out")]) == 2
    assert "is a NumPy array" in said(capsys)
    assert not (tmp_path / "out").exists()

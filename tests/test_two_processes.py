"""Two real processes: the same parameters on both, and the same set of images."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ohlora.formats import network_files, sample_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.utils.files import Row, read_rows
from tests.conftest import CONF
from tests.modules.test_gan import RECIPES
from tests.networks.test_stylegan2 import tiny as stylegan2_networks
from tests.toy_tables import brightness_table, sample_set, watching

TWO = ["--trainer.devices", "2"]
OTHERS = sorted(RECIPES.keys() - {"logistic"})
"""Recipes of training that are tested with two processes only on request."""


def run(*words: str, code: int | None = 0) -> str:
    """Runs the entry point in a process of its own, whose second rank Lightning starts.

    Args:
        words: The command line.
        code: The exit code that is expected; None expects any but 0.

    Returns:
        What it wrote to standard error.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    command = [sys.executable, "-m", "ohlora", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code if code is not None else done.returncode != 0, done.stderr[-3000:]
    return done.stderr


def options(settings: dict[str, object]) -> list[str]:
    """Settings as words of a command line."""
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


@pytest.fixture
def fine_tune(weights: tuple[Path, Path], image_folder: Path) -> list[str]:
    """A fine-tune in which everything trains, by plain SGD: Adam would blow up rounding of gradients near zero."""
    settings: dict[str, object] = {
        "model.init_args.generator": weights[0],
        "model.init_args.discriminator": weights[1],
        "model.init_args.trainable_generator": '["*"]',
        "model.init_args.trainable_discriminator": '["*"]',
        "model.init_args.generator_optimizer": "torch.optim.SGD",
        "model.init_args.generator_optimizer.init_args.lr": 0.01,
        "model.init_args.discriminator_optimizer": "torch.optim.SGD",
        "model.init_args.discriminator_optimizer.init_args.lr": 0.01,
        "model.init_args.r1_interval": 2,
        "model.init_args.repeat_ratio": 0.0,  # four updates of the generator in each step
        "model.init_args.style_mixing": 0.5,
        "data.init_args.folder": image_folder,
        "trainer.callbacks+": "tests.ranks.SaveEachRank",
    }
    return ["fit", "--config", str(CONF / "finetune.yaml"), *options(settings)]


@pytest.mark.parametrize("recipe", ["logistic", *(pytest.param(r, marks=pytest.mark.slow) for r in OTHERS)])
def test_two_processes_train_as_one(
    tmp_path: Path, weights: tuple[Path, Path], fine_tune: list[str], recipe: str
) -> None:
    fine_tune = [*fine_tune, *RECIPES[recipe], "--model.init_args.kimg", "0.048"]  # ADA's probability rises in between
    run(*fine_tune, *TWO, "--trainer.default_root_dir", str(tmp_path / "two"))
    folder = tmp_path / "two" / "runs" / "0001"
    ranks = [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    before = network_files.load_generator(weights[0]).state_dict()
    changed = [key for key in before if not torch.equal(before[key], ranks[0][f"generator.{key}"])]
    assert len(changed) > len(before) / 2  # it did train
    different = [key for key in ranks[0] if not torch.equal(ranks[0][key], ranks[1][key])]
    assert not different
    assert int(ranks[0]["images_seen"]) == 48
    assert len(list((tmp_path / "two" / "runs").iterdir())) == 1
    run(*fine_tune, "--trainer.default_root_dir", str(tmp_path / "one"))
    alone = torch.load(tmp_path / "one" / "runs" / "0001" / "rank0.pt", weights_only=True)
    for key, value in alone.items():
        torch.testing.assert_close(ranks[0][key], value, atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.slow
def test_two_processes_are_watched_as_one(tmp_path: Path, fine_tune: list[str]) -> None:
    watch = watching(tmp_path) | {"trainer.callbacks.every_kimg": 0.016, "trainer.callbacks.count": 12}
    words = [word.replace("trainer.callbacks", "trainer.callbacks+", 1) for word in options(watch)[:2]]
    words += options(watch)[2:]
    tables = []
    for name, devices in (("two", TWO), ("one", [])):
        run(*fine_tune, *words, *devices, "--trainer.default_root_dir", str(tmp_path / name))
        rows = read_rows(tmp_path / name / "runs" / "0001" / "metrics.csv")
        assert (tmp_path / name / "best_generator.safetensors").is_file()
        tables.append([{k: float(v) for k, v in row.items() if v and k.startswith(("kimg", "watch/"))} for row in rows])
    two, one = ([row for row in table if "watch/diversity" in row] for table in tables)
    assert two[0] == one[0] and len(two) == len(one) == 3  # before the first step, to the last bit
    for of_two, of_one in zip(two, one, strict=True):
        assert of_two == {name: pytest.approx(value, rel=1e-3, abs=1e-3) for name, value in of_one.items()}


@pytest.mark.slow
def test_two_processes_train_stylegan2_as_one(tmp_path: Path, fine_tune: list[str]) -> None:
    """Path lengths are measured on half of the images of all processes, and their running mean is one."""
    settings: dict[str, object] = {}
    for name, network in zip(("generator", "discriminator"), stylegan2_networks(), strict=True):
        settings[f"model.init_args.{name}"] = tmp_path / f"{name}.safetensors"
        network_files.save_network(network, tmp_path / f"{name}.safetensors")
    settings |= {
        "model.init_args.path_length_weight": 2.0,
        "model.init_args.path_length_interval": 2,
        "model.init_args.ema_rampup": 0.05,
        # Path lengths make the gradients of a tiny network large.
        "model.init_args.generator_optimizer.init_args.lr": 0.0001,
    }
    kept = []
    for name, words in (("two", TWO), ("one", [])):
        run(*fine_tune, *options(settings), *words, "--trainer.default_root_dir", str(tmp_path / name))
        kept.append(torch.load(tmp_path / name / "runs" / "0001" / "rank0.pt", weights_only=True))
    assert float(kept[1]["path_length"]) > 0
    for key, value in kept[1].items():
        torch.testing.assert_close(kept[0][key], value, atol=1e-5, rtol=1e-3, msg=key)


@pytest.mark.slow
def test_two_nodes_train_as_one(tmp_path: Path, fine_tune: list[str]) -> None:
    """``torchrun`` on two nodes, both of which are this machine; they find each other over loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stage = ["--trainer.default_root_dir", str(tmp_path / "nodes")]
    nodes = ["--trainer.num_nodes", "2", "--trainer.devices", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "GLOO_SOCKET_IFNAME": "lo"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1"]
    command = [*launch, *rendezvous, "-m", "ohlora", *fine_tune, *stage, *nodes]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(text[-3000:] for text in said)
    folder = tmp_path / "nodes" / "runs" / "0001"
    ranks = [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    assert int(ranks[0]["images_seen"]) == 32
    assert not [key for key in ranks[0] if not torch.equal(ranks[0][key], ranks[1][key])]
    assert len(list((tmp_path / "nodes" / "runs").iterdir())) == 1
    run(*fine_tune, "--trainer.default_root_dir", str(tmp_path / "one"))
    alone = torch.load(tmp_path / "one" / "runs" / "0001" / "rank0.pt", weights_only=True)
    for key, value in alone.items():
        torch.testing.assert_close(ranks[0][key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_groups_of_the_minibatch_deviation_must_fit_a_rank(tmp_path: Path, fine_tune: list[str]) -> None:
    message = run(
        *fine_tune,
        *TWO,
        "--model.init_args.mbstd_group_size",
        "8",
        "--trainer.default_root_dir",
        str(tmp_path),
        code=None,
    )
    assert "groups of 8 images, and each of 2 processes has 4" in message
    assert "Traceback" not in message.split("ohlora: the minibatch")[0]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_ends_the_run(tmp_path: Path, fine_tune: list[str], rank: int) -> None:
    failing = ["--trainer.callbacks+", "tests.ranks.FailOnRank", "--trainer.callbacks.init_args.rank", str(rank)]
    words = [*failing, "--model.init_args.kimg", "100", "--trainer.default_root_dir", str(tmp_path)]
    assert f"rank {rank} was told to fail" in run(*fine_tune, *TWO, *words, code=None)


def test_what_does_not_train_needs_no_strategy(tmp_path: Path, weights: tuple[Path, Path], image_folder: Path) -> None:
    """A fine-tune of a few layers: plain DDP would wait for the others."""
    settings: dict[str, object] = {
        "model.init_args.generator": weights[0],
        "model.init_args.discriminator": weights[1],
        "model.init_args.r1_interval": 2,
        "data.init_args.folder": image_folder,
    }
    run(
        "fit",
        "--config",
        str(CONF / "finetune.yaml"),
        *options(settings),
        *TWO,
        "--trainer.default_root_dir",
        str(tmp_path),
    )
    assert network_files.read_metadata(tmp_path / "generator.safetensors")["provenance"]["images_seen"] == 32


@pytest.mark.slow
def test_one_image_for_two_processes(tmp_path: Path, weights: tuple[Path, Path], image_folder: Path) -> None:
    """One process has nothing to do, and nothing waits for it."""
    for path in sorted(image_folder.iterdir())[1:]:
        path.unlink()
    networks = {"model.init_args.generator": weights[0], "model.init_args.discriminator": weights[1]}
    root = {"trainer.default_root_dir": tmp_path / "stage"}
    words = options({**networks, **root, "data.init_args.folder": image_folder})
    run("fit", "--config", str(CONF / "finetune.yaml"), *words, *TWO)
    made = {
        "model.init_args.generator": weights[0],
        "model.init_args.output": tmp_path / "made",
        "data.init_args.count": 1,
    }
    run("predict", "--config", str(CONF / "generate.yaml"), *options({**made, **root}), *TWO)
    assert len(read_rows(tmp_path / "made" / "manifest.csv")) == 1
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    scored = {
        "model.init_args.networks": f"[{tmp_path / 'merged.safetensors'}]",
        "model.init_args.output": tmp_path / "scores.csv",
        "data.init_args.folder": image_folder,
        "data.init_args.manifest": "null",
    }
    run("predict", "--config", str(CONF / "scores.yaml"), *options({**scored, **root}), *TWO)
    assert len(read_rows(tmp_path / "scores.csv")) == 1


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


def test_a_filter_is_trained_and_reported_over_both(tmp_path: Path) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    settings: dict[str, object] = {
        "data.init_args.annotations": manifest,
        "trainer.default_root_dir": tmp_path / "stage",
    }
    run("fit", "--config", str(CONF / "filter.yaml"), *options(settings), *TWO)
    rows = read_rows(tmp_path / "stage" / "runs" / "0001" / "out_of_fold.csv")
    assert len(rows) == 60 and all(0 < float(row["gender_score"]) < 1 for row in rows)
    figures = read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv")
    assert [row["epoch"] for row in figures[:-1]] == [f"{k}.0" for k in range(1, 7)]
    assert float(figures[-1]["out_of_fold/auroc"]) > 0.9


def trained_by_one_and_two(tmp_path: Path, conf: str, **more: object) -> list[list[Row]]:
    """Trains two epochs by plain SGD with one process, into ``one``, and with two, into ``two``; what each logged."""
    for name, words in (("one", []), ("two", TWO)):
        settings: dict[str, object] = {
            "model.init_args.optimizer": "torch.optim.SGD",
            "model.init_args.optimizer.init_args.lr": 0.01,
            "trainer.max_epochs": 2,
            "trainer.default_root_dir": tmp_path / name,
            **more,
        }
        run("fit", "--config", str(CONF / f"{conf}.yaml"), *options(settings), *words)
    rows = [read_rows(tmp_path / name / "runs" / "0001" / "metrics.csv") for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 2 and rows[0][0].keys() == rows[1][0].keys()
    return rows


@pytest.mark.slow
def test_a_property_network_is_trained_as_by_one(tmp_path: Path) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    rows = trained_by_one_and_two(tmp_path, "properties", **{"data.init_args.manifests": f"[{manifest}]"})
    one, two = (network_files.load_network(tmp_path / name / "hairstyle.safetensors") for name in ("one", "two"))
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, atol=1e-5, rtol=1e-4, msg=key)
    for a, b in zip(*rows, strict=True):
        assert {key: float(value) for key, value in b.items()} == pytest.approx(
            {key: float(value) for key, value in a.items()}, abs=1e-3
        )


@pytest.mark.slow
def test_an_identity_network_is_trained_as_by_one(tmp_path: Path) -> None:
    """Every picture is compared with those of both processes."""
    rows = trained_by_one_and_two(tmp_path, "identity")
    one, two = (network_files.load_identity(tmp_path / name / "identity.safetensors") for name in ("one", "two"))
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, atol=1e-4, rtol=1e-3, msg=key)
    for a, b in zip(*rows, strict=True):
        assert float(b["loss/train"]) == pytest.approx(float(a["loss/train"]), rel=1e-3)
        assert float(b["loss/validation"]) == pytest.approx(float(a["loss/validation"]), abs=1e-3)


@pytest.mark.slow
def test_samples_are_the_same(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    for name, words in (("one", []), ("two", TWO)):
        settings: dict[str, object] = {
            "model.init_args.generator": weights[0],
            "model.init_args.network": tmp_path / "merged.safetensors",
            "model.init_args.output": tmp_path / name,
            "trainer.default_root_dir": tmp_path / f"{name}-stage",
        }
        run("predict", "--config", str(CONF / "sample.yaml"), *options(settings), *words)
    one, two = (sample_files.ranges_in(tmp_path / name) for name in ("one", "two"))
    assert one == two and len(one) == 3
    for part in one:
        a, b = (load_file(sample_files.shard_path(tmp_path / name, part)) for name in ("one", "two"))
        assert all(torch.equal(a[key], b[key]) for key in ("index", "w", "scores"))
    assert (tmp_path / "one" / "medians.json").read_text() == (tmp_path / "two" / "medians.json").read_text()


def evaluate(tmp_path: Path, generator: Path, name: str, words: list[str]) -> None:
    """Evaluates the directions in the folder ``name``, into the same folder."""
    settings: dict[str, object] = {
        "model.init_args.output": tmp_path / name,
        "model.init_args.directions": tmp_path / name / "directions.safetensors",
        "model.init_args.generator": generator,
        "model.init_args.network": tmp_path / "merged.safetensors",
        "model.init_args.judge": tmp_path / "judge.safetensors",
        "model.init_args.calibrate": 1,  # of two processes, one has none
        "trainer.default_root_dir": tmp_path / f"{name}-stage",
    }
    run("test", "--config", str(CONF / "evaluation.yaml"), *options(settings), *words)


def test_directions_and_their_evaluation_are_the_same(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    """Rank zero searches while the other waits; both evaluate."""
    sample_set(tmp_path / "samples")
    torch.manual_seed(0)
    for name in ("merged", "judge"):
        network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / f"{name}.safetensors")
    for name, words in (("one", []), ("two", TWO)):
        settings: dict[str, object] = {
            "model.init_args.output": tmp_path / name,
            "model.init_args.generator": weights[0],
            "model.init_args.network": tmp_path / "merged.safetensors",
            "data.init_args.folder": tmp_path / "samples",
            "trainer.default_root_dir": tmp_path / f"{name}-stage",
        }
        run("fit", "--config", str(CONF / "directions.yaml"), *options(settings), *words)
        evaluate(tmp_path, weights[0], name, words)
    one, two = (load_directions(tmp_path / name / "directions.safetensors") for name in ("one", "two"))
    assert torch.equal(one.vectors, two.vectors) and one.provenance == two.provenance
    units = [load_file(tmp_path / name / "latents.safetensors")["units"] for name in ("one", "two")]
    torch.testing.assert_close(*units, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(units[0], torch.ones(3))
    a, b = (read_rows(tmp_path / name / "test_result.csv") for name in ("one", "two"))
    assert [row["case"] for row in b] == [str(k) for k in range(5)]
    for left, right in zip(a, b, strict=True):
        assert left["group_name"] == right["group_name"]
        for key in ("eyes_corr", "mouth_slope", "pose_monotone", "drift_hair_color"):
            assert float(left[key]) == pytest.approx(float(right[key]), abs=2e-3)


@pytest.mark.slow
def test_local_edits_are_the_same(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    for name in ("merged", "judge"):
        network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / f"{name}.safetensors")
    finder = {"latents": 10, "points": 2, "covariance_count": 500, "group_by": []}
    chosen = json.dumps({"class_path": "ohlora.directions.local.Local", "init_args": finder})
    for name, words in (("one", []), ("two", TWO)):
        settings: dict[str, object] = {
            "model.init_args.output": tmp_path / name,
            "model.init_args.finder": chosen,
            "model.init_args.generator": weights[0],
            "model.init_args.network": tmp_path / "merged.safetensors",
            "trainer.default_root_dir": tmp_path / f"{name}-stage",
        }
        run("fit", "--config", str(CONF / "directions.yaml"), *options(settings), *words)
        evaluate(tmp_path, weights[0], name, words)
    one, two = (load_directions(tmp_path / name / "directions.safetensors") for name in ("one", "two"))
    assert (one.vectors - two.vectors).abs().max() < 1e-5 and one.provenance == two.provenance
    a, b = (load_file(tmp_path / name / "latents.safetensors") for name in ("one", "two"))
    assert torch.equal(a["case"], b["case"])
    torch.testing.assert_close(a["steps"], b["steps"], rtol=1e-2, atol=1e-2 * float(a["steps"].abs().max()))


@pytest.mark.slow
def test_a_search_that_fails_ends_both_processes(tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "model.init_args.output": tmp_path / "found",
        "data.init_args.folder": tmp_path / "none",
        "trainer.default_root_dir": tmp_path / "stage",
    }
    said = run("fit", "--config", str(CONF / "directions.yaml"), *options(settings), *TWO, code=2)
    assert "none/shards does not exist" in said and "rank zero has failed" in said

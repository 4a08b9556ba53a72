"""Whole, partial and idle runs: what outlasts a run hangs on its stage having been completed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ohlora.__main__ import main
from ohlora.callbacks.checkpoint import read_checkpoint
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.formats import network_files, sample_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.tracking import checkpoints_in
from ohlora.utils.files import content_stamp, read_rows
from ohlora.utils.locks import Lock
from tests.conftest import assert_same, network_state, tiny_networks
from tests.toy_tables import brightness_table, options, report_of_latents, sample_set, watching

Run = Callable[..., int]
PARTIAL = [
    ("--trainer.fast_dev_run", "true"),
    ("--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1"),
    ("--trainer.max_steps", "4"),
    ("--trainer.max_time", "00:00:00:00"),
]


def kept(folder: Path) -> dict[str, tuple[int, str | None]]:
    """What every file below a folder is: when it was written, and its digest; runs of their own apart."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, content_stamp(p)) for p in files}


def outside_runs(folder: Path) -> dict[str, tuple[int, str | None]]:
    return {name: about for name, about in kept(folder).items() if not name.startswith("runs/")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which nothing may be left."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("words", PARTIAL, ids=" ".join)
def test_a_partial_training_leaves_the_product(
    tmp_path: Path, here: Path, ohlora: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ohlora("fit", "pretrain", *words) == 0
    assert f"{tmp_path / 'stage' / 'generator.safetensors'} was not written" in capsys.readouterr().out
    assert outside_runs(tmp_path / "stage") == {}
    assert ohlora("fit", "pretrain") == 0
    before = outside_runs(tmp_path / "stage")
    assert len(before) == 2
    capsys.readouterr()
    assert ohlora("fit", "pretrain", *words) == 0
    said = capsys.readouterr().out.strip().splitlines()
    run = tmp_path / "stage" / "runs" / "0003"
    assert outside_runs(tmp_path / "stage") == before
    (line,) = [line for line in said if line.startswith("partial run")]
    assert "generator.safetensors stands as it was" in line and f"ohlora finish {run}" in line and len(line) < 500
    assert (run / "config.yaml").is_file()
    if "--trainer.max_time" not in words:  # which is over before the first step
        assert (run / "metrics.csv").is_file() and checkpoints_in(run) and list((run / "pictures").iterdir())
    assert not (run / "generator.safetensors").exists()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.init_args.kimg", "0"], "kimg is 0.0; expected"),
        (["--model.init_args.kimg", "-1"], "kimg is -1.0; expected"),
        (["--model.init_args.kimg", ".nan"], "kimg is nan; expected"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs is 0; expected at least 1"),
        (["--trainer.max_steps", "0"], "trainer.max_steps is 0; expected at least 1"),
    ],
)
def test_a_training_of_nothing_is_a_mistake(
    tmp_path: Path, ohlora: Run, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ohlora("fit", "pretrain", *words) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "stage").exists()


def test_finish_makes_the_product_of_a_partial_run(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, run = tmp_path / "stage", tmp_path / "stage" / "runs" / "0001"
    assert ohlora("fit", "pretrain", "--trainer.max_steps", "6") == 0
    told = (run / "metrics.csv").read_text(), (run / "config.yaml").read_text()
    assert main(["finish", str(run)]) == 0
    assert ((run / "metrics.csv").read_text(), (run / "config.yaml").read_text()) == told
    about = network_files.read_metadata(stage / "generator.safetensors")["provenance"]
    seen = about["images_seen"]
    assert 0 < seen < 48 and about["stage"] == "stage"
    assert about["partial"] == f"made by ohlora finish of a run stopped after {seen} images"
    state = read_checkpoint(checkpoints_in(run)[-1])["state_dict"]
    for name, value in network_files.load_network(stage / "generator.safetensors").state_dict().items():
        assert torch.equal(value, state[f"G_ema.{name}"])
    assert ohlora("fit", "pretrain", "--ckpt_path", "last") == 0, "the run goes on"
    assert "partial" not in network_files.read_metadata(stage / "generator.safetensors")["provenance"]
    before = kept(stage)
    assert main(["finish", str(run)]) == 0
    assert kept(stage) == before and "nothing to do" in capsys.readouterr().out
    for other, near in (
        (stage, f"there is {run}"),
        (run.with_name("0007"), f"there is {run}"),
        (tmp_path / "finetune_v8" / "runs" / "0001", f"there is {run}"),
        (run / "checkpoints", f"there is none below {run / 'checkpoints'}"),
    ):
        assert main(["finish", str(other)]) == 2
        said = capsys.readouterr().err
        assert f"{other}/config.yaml does not exist; expected the folder of a run, and {near}\n" in said


def test_finish_takes_the_best_epoch(tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    table = ["--data.init_args.manifests", f"[{manifest}]"]
    words = [*table, "--trainer.limit_train_batches", "3", "--trainer.max_epochs", "2"]
    assert ohlora("fit", "properties", *words) == 0
    assert not (tmp_path / "stage" / "hairstyle.safetensors").exists()
    assert main(["finish", str(tmp_path / "stage" / "runs" / "0001")]) == 0
    about = network_files.read_metadata(tmp_path / "stage" / "hairstyle.safetensors")["provenance"]
    assert "partial" in about and about["epoch"] in (1, 2)
    capsys.readouterr()
    assert ohlora("fit", "properties", *table, "--trainer.max_epochs", "2", "--ckpt_path", "last") == 0
    assert "stands as it was" in capsys.readouterr().out, "its epochs stay shorter than the configuration's"


def test_finish_does_not_train_on(tmp_path: Path, ohlora: Run) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    words = ["--data.init_args.manifests", f"[{manifest}]", "--trainer.max_epochs", "4", "--trainer.min_epochs", "4"]
    assert ohlora("fit", "properties", *words, "--trainer.max_steps", "8") == 0
    run = tmp_path / "stage" / "runs" / "0001"
    seen = int(read_checkpoint(checkpoints_in(run)[-1])["state_dict"]["images_seen"])
    assert main(["finish", str(run)]) == 0
    about = network_files.read_metadata(tmp_path / "stage" / "hairstyle.safetensors")["provenance"]
    assert seen < 240 and about["partial"].endswith(f"stopped after {seen} images")


@pytest.mark.parametrize("conf", ["properties", "filter"])
def test_a_training_stopped_by_max_steps_goes_on_bit_for_bit(tmp_path: Path, ohlora: Run, conf: str) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    given = {"properties": f"manifests=[{manifest}]", "filter": f"annotations={manifest}"}[conf]
    table = [f"--data.init_args.{given}", "--trainer.max_epochs", "3"]
    steps = {"properties": "8", "filter": "24"}[conf]
    assert ohlora("fit", conf, *table, "--trainer.max_steps", steps) == 0
    assert outside_runs(tmp_path / "stage") == {}
    assert ohlora("fit", conf, *table, "--ckpt_path", "last") == 0
    assert ohlora("fit", conf, *table, stage_dir=tmp_path / "whole") == 0
    (product,) = outside_runs(tmp_path / "stage")
    assert_same(network_state(tmp_path / "stage" / product), network_state(tmp_path / "whole" / product))


@pytest.mark.parametrize(
    "words",
    [
        ("--trainer.fast_dev_run", "true"),
        ("--trainer.limit_val_batches", "1", "--data.init_args.batch_size", "4"),
        ("--trainer.limit_train_batches", "0.5"),
        ("--trainer.max_steps", "9"),
        ("--trainer.overfit_batches", "2"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("conf", ["properties", "filter"])
def test_a_partial_training_by_epochs_leaves_the_product(
    tmp_path: Path, ohlora: Run, conf: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    given = {"properties": f"manifests=[{manifest}]", "filter": f"annotations={manifest}"}[conf]
    table = [f"--data.init_args.{given}", "--trainer.max_epochs", "2"]
    assert ohlora("fit", conf, *table) == 0
    before = outside_runs(tmp_path / "stage")
    assert len(before) == 1
    assert ohlora("fit", conf, *table, *words) == 0
    assert "stands as it was" in capsys.readouterr().out
    assert outside_runs(tmp_path / "stage") == before


def test_the_best_generator_waits_for_the_end(tmp_path: Path, ohlora: Run) -> None:
    watch = [*options(watching(tmp_path / "watching")), "--trainer.callbacks.every_kimg", "0.016"]
    assert ohlora("fit", "pretrain", *watch, "--trainer.max_steps", "6") == 0
    run = tmp_path / "stage" / "runs" / "0001"
    assert (run / "best_generator.safetensors").is_file() and outside_runs(tmp_path / "stage") == {}
    assert ohlora("fit", "pretrain", *watch, "--ckpt_path", "last") == 0
    best = tmp_path / "stage" / "best_generator.safetensors"
    assert content_stamp(best) == content_stamp(run / "best_generator.safetensors")


def test_partial_scores_leave_the_table(tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    output = tmp_path / "out" / "scores.csv"
    settings = {
        "model.init_args.networks": f"[{tmp_path / 'merged.safetensors'}]",
        "model.init_args.output": output,
        "data.init_args.manifest": manifest,
    }
    assert ohlora("predict", "scores", *options(settings)) == 0
    before = content_stamp(output)
    assert len(read_rows(output)) == 60
    for words in (["--trainer.fast_dev_run", "true"], ["--trainer.limit_predict_batches", "2"]):
        assert ohlora("predict", "scores", *options(settings), *words) == 0
        assert f"{output} stands as it was" in capsys.readouterr().out
        assert content_stamp(output) == before
    assert len(read_rows(tmp_path / "stage" / "runs" / "0003" / "scores.csv")) == 16
    assert ohlora("predict", "scores", *options(settings), "--trainer.limit_predict_batches", "100") == 0
    assert content_stamp(output) == before and "60 images scored" in capsys.readouterr().out


def evaluation(tmp_path: Path, weights: tuple[Path, Path]) -> list[str]:
    sample_set(tmp_path / "samples")
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    settings = {
        "generator": weights[0],
        "network": tmp_path / "merged.safetensors",
        "judge": tmp_path / "merged.safetensors",
        "directions": tmp_path / "found" / "directions.safetensors",
        "output": tmp_path / "found",
    }
    return options({f"model.init_args.{name}": value for name, value in settings.items()})


def test_a_partial_search_or_test_leaves_the_results(
    tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = evaluation(tmp_path, weights)
    settings = {"output": tmp_path / "found", "generator": weights[0], "network": tmp_path / "merged.safetensors"}
    search = options({f"model.init_args.{name}": value for name, value in settings.items()})
    search += ["--data.init_args.folder", str(tmp_path / "samples")]
    assert ohlora("fit", "directions", *search) == 0
    assert ohlora("test", "evaluation", *words) == 0
    before = kept(tmp_path / "found")
    assert len(read_rows(tmp_path / "found" / "test_result.csv")) == 5
    capsys.readouterr()
    dev = ["--trainer.fast_dev_run", "true"]
    assert ohlora("fit", "directions", *search, *dev, "--model.init_args.finder.init_args.fraction", "0.1") == 0
    assert ohlora("test", "evaluation", *words, "--trainer.limit_test_batches", "1") == 0
    assert capsys.readouterr().out.count("stands as it was") == 2
    after = kept(tmp_path / "found")
    assert {k: v for k, v in after.items() if k != ".lock"} == {k: v for k, v in before.items() if k != ".lock"}
    assert (tmp_path / "stage" / "runs" / "0003" / "directions.safetensors").is_file()
    assert len(read_rows(tmp_path / "stage" / "runs" / "0004" / "test_result.csv")) == 2


# --- idle


@pytest.mark.parametrize("conf", ["pretrain", "properties", "filter"])
def test_a_finished_run_resumed_writes_nothing(
    tmp_path: Path, ohlora: Run, conf: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table: list[str] = []
    if conf != "pretrain":
        manifest, _ = brightness_table(tmp_path / "data", 60)
        given = {"properties": f"manifests=[{manifest}]", "filter": f"annotations={manifest}"}[conf]
        table = [f"--data.init_args.{given}"]
    assert ohlora("fit", conf, *table) == 0
    before = kept(tmp_path / "stage")
    assert ohlora("fit", conf, *table, "--ckpt_path", "last") == 0
    assert capsys.readouterr().out.strip().endswith("nothing to do")
    assert kept(tmp_path / "stage") == before
    product = next(path for path in (tmp_path / "stage").glob("*.safetensors") if path.name != "discriminator")
    fingerprint = network_files.fingerprint(product)
    for path in (tmp_path / "stage").glob("*.safetensors"):  # as if the run had been killed before its product
        path.unlink()
    assert ohlora("fit", conf, *table, "--ckpt_path", "last") == 0
    assert network_files.fingerprint(product) == fingerprint


def test_a_finished_set_asked_for_again_writes_nothing(
    tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options({"model.init_args.generator": weights[0], "model.init_args.output": tmp_path / "made"})
    assert ohlora("predict", "generate", *words) == 0
    before = kept(tmp_path)
    assert ohlora("predict", "generate", *words) == 0
    assert kept(tmp_path) == before and "nothing to do" in capsys.readouterr().out


# --- identity


def shuffled(path: Path) -> None:
    """Writes a file's metadata in another order, as the library does from time to time."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(reversed(about.items()))
    if "provenance" in about:
        header["__metadata__"]["provenance"] = json.dumps({"somewhere": "else"})
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def test_identity_is_the_content(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    g, _ = tiny_networks()
    network_files.save_network(g, tmp_path / "a.safetensors", {"from": "here"})
    first, stamp = network_files.fingerprint(tmp_path / "a.safetensors"), content_stamp(tmp_path / "a.safetensors")
    for _ in range(3):
        network_files.save_network(g, tmp_path / "a.safetensors", {"from": "here"})
        assert content_stamp(tmp_path / "a.safetensors") == stamp, "the same content makes the same bytes"
    shuffled(tmp_path / "a.safetensors")
    assert content_stamp(tmp_path / "a.safetensors") != stamp
    assert network_files.fingerprint(tmp_path / "a.safetensors") == first
    torch.nn.init.normal_(g.w_avg)
    network_files.save_network(g, tmp_path / "a.safetensors", {"from": "here"})
    assert network_files.fingerprint(tmp_path / "a.safetensors") != first


def test_what_was_tested_is_known_by_its_content(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    folder = report_of_latents(tmp_path / "report", weights[0])
    report = Report.load(folder)
    report.write_choices({int(report.rows[0]["case"]): "keep"})
    for path in (weights[0], folder / "directions.safetensors", folder / "latents.safetensors"):
        shuffled(path)
    assert len(Report.load(folder).choices()) == 1
    assert Report.load(folder).character(0).attributes == ("eyes", "mouth", "pose")


def test_names_by_bytes_of_earlier_versions_still_hold(
    tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options({"model.init_args.generator": weights[0], "model.init_args.output": tmp_path / "made"})
    assert ohlora("predict", "generate", *words, "--trainer.limit_predict_batches", "0.34") == 0
    path = tmp_path / "made" / "settings.json"
    earlier = json.loads(path.read_text()) | {"generator": str(content_stamp(weights[0]))[:16]}
    del earlier["precision"]
    path.write_text(json.dumps(earlier))
    assert ohlora("predict", "generate", *words) == 0
    assert len(read_rows(tmp_path / "made" / "manifest.csv")) == 7


def test_precision_belongs_to_a_set(
    tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    for conf, more in (("generate", {}), ("sample", {"model.init_args.network": tmp_path / "merged.safetensors"})):
        settings = {"model.init_args.generator": weights[0], "model.init_args.output": tmp_path / conf, **more}
        words = options(settings)
        some = ["--trainer.limit_predict_batches", "0.5", "--trainer.precision", "bf16-mixed"]
        assert ohlora("predict", conf, *words, *some) == 0
        before = kept(tmp_path / conf)
        assert json.loads((tmp_path / conf / "settings.json").read_text())["precision"] == "bf16-mixed"
        assert ohlora("predict", conf, *words) == 2
        assert "precision 'bf16-mixed' there, '32-true' now" in capsys.readouterr().err
        assert {k: v for k, v in kept(tmp_path / conf).items() if k != ".lock"} == {
            k: v for k, v in before.items() if k != ".lock"
        }
        assert ohlora("predict", conf, *words, "--trainer.precision", "bf16-mixed") == 0


# --- the run's folder, and who holds it


@pytest.mark.parametrize(
    "logger",
    [
        "false",
        "true",
        '{"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "own"}}',
        '[{"class_path": "ohlora.tracking.RunLogger", "init_args": {"mode": "disabled"}},'
        ' {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "own"}}]',
    ],
    ids=["none", "default", "csv", "both"],
)
def test_the_run_folder_does_not_depend_on_the_logger(tmp_path: Path, here: Path, ohlora: Run, logger: str) -> None:
    assert ohlora("fit", "pretrain", "--trainer.logger", logger, "--model.init_args.kimg", "0.032") == 0
    run = tmp_path / "stage" / "runs" / "0001"
    assert len(read_rows(run / "metrics.csv")) == 4 and (run / "config.yaml").is_file()
    assert list((run / "pictures").iterdir()) and (run / "generator.safetensors").is_file()
    assert ohlora("fit", "pretrain", "--trainer.logger", logger, "--ckpt_path", "last") == 0
    assert len(read_rows(run / "metrics.csv")) == 6 and not (tmp_path / "stage" / "runs" / "0002").exists()
    assert [path.name for path in here.iterdir()] == (["own"] if "own" in logger else [])


def test_a_run_folder_and_an_output_are_held_by_one_run(
    tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.016") == 0
    run, out = tmp_path / "stage" / "runs" / "0001", tmp_path / "made"
    words = options({"model.init_args.generator": weights[0], "model.init_args.output": out})
    locks = [Lock(run), Lock(out)]
    before = kept(tmp_path / "stage")
    for command, place in ((["fit", "pretrain", "--ckpt_path", "last"], run), (["predict", "generate", *words], out)):
        assert ohlora(*command) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{place} is in use by process {os.getpid()} on " in said and " since 20" in said
    assert kept(tmp_path / "stage") == before
    for lock in locks:
        lock.release()
    assert ohlora("fit", "pretrain", "--ckpt_path", "last") == 0
    assert ohlora("predict", "generate", *words) == 0


def test_a_file_has_a_lock_of_its_own(tmp_path: Path) -> None:
    one = Lock(tmp_path / "a.csv")
    two = Lock(tmp_path / "b.csv")
    with pytest.raises(ConfigError, match=r"a\.csv is in use by process"):
        Lock(tmp_path / "a.csv")
    one.release()
    two.release()
    Lock(tmp_path / "a.csv").release()


# --- nothing that is not finite


def spoiled(path: Path, target: Path, name: str, value: float = float("nan")) -> Path:
    """A copy of a file of ours with one value that is not finite."""
    tensors = load_file(path)
    tensors[name].view(-1)[0] = value
    with safe_open(path, framework="pt") as file:
        save_file(tensors, target, file.metadata())
    return target


def test_networks_that_are_not_finite_are_refused(
    tmp_path: Path, weights: tuple[Path, Path], ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    g, _ = tiny_networks()
    name = "synthesis.to_rgb.weight"
    bad = spoiled(weights[0], tmp_path / "bad.safetensors", name)
    words = options({"model.init_args.generator": bad, "model.init_args.output": tmp_path / "made"})
    assert ohlora("predict", "generate", *words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "bad.safetensors cannot be used" in said and f"its tensor {name} holds values that are not finite" in said
    assert not (tmp_path / "made").exists()
    g.get_parameter(name).data.view(-1)[0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"to_rgb\.weight holds values that are not finite"):
        network_files.save_network(g, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_characters_directions_and_samples_that_are_not_finite_are_refused(
    tmp_path: Path, weights: tuple[Path, Path]
) -> None:
    folder = report_of_latents(tmp_path / "report", weights[0])
    Report.load(folder).character(0).save(tmp_path / "mina.safetensors")
    for name in ("code", "steps", "generator.synthesis.to_rgb.weight"):
        with pytest.raises(NonFiniteError, match=f"{name} holds"):
            Character.load(spoiled(tmp_path / "mina.safetensors", tmp_path / "bad.safetensors", name))
    for name in ("vectors", "units"):
        with pytest.raises(NonFiniteError, match=f"{name} holds"):
            load_directions(spoiled(folder / "directions.safetensors", tmp_path / "bad.safetensors", name))
    sample_set(tmp_path / "samples", 20, 20)
    shard = sample_files.shard_path(tmp_path / "samples", range(20))
    spoiled(shard, shard, "w", float("inf"))
    with pytest.raises(NonFiniteError, match="w holds"):
        sample_files.read_samples(tmp_path / "samples")


def test_a_network_without_correlations_is_not_saved(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 60)
    table = [f"--data.init_args.manifests=[{manifest}]", "--trainer.max_epochs", "1"]
    huge = ["--model.init_args.optimizer", "torch.optim.SGD", "--model.init_args.optimizer.init_args.lr", "0.0"]
    from ohlora.modules import properties

    whole = attribute_cnn

    def dead(*given: Any) -> torch.nn.Module:
        network = whole(*given)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        return network

    monkeypatch.setattr(properties, "attribute_cnn", dead)
    assert ohlora("fit", "properties", *table, *huge) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the correlation of hairstyle is not finite: the network predicts the same for every" in said
    assert outside_runs(tmp_path / "stage") == {}


def test_one_validation_image_has_no_correlation_but_costs_nothing(tmp_path: Path, ohlora: Run) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 9)
    table = [f"--data.init_args.manifests=[{manifest}]", "--data.init_args.val_share", "0.1"]
    assert ohlora("fit", "properties", *table, "--trainer.max_epochs", "1") == 0
    about = network_files.read_metadata(tmp_path / "stage" / "hairstyle.safetensors")["provenance"]
    assert "mse/hairstyle" in about and "pearson/hairstyle" not in about
    assert "NaN" not in (tmp_path / "stage" / "hairstyle.safetensors").read_bytes()[:20000].decode("latin1")


def test_one_training_image_has_no_distance_but_costs_nothing(
    tmp_path: Path, weights: tuple[Path, Path], image_folder: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(image_folder.iterdir())[1:]:
        path.unlink()
    settings = {
        "model.init_args.generator": weights[0],
        "model.init_args.discriminator": weights[1],
        "data.init_args.folder": image_folder,
        **watching(tmp_path / "watching"),
    }
    assert ohlora("fit", "finetune", *options(settings)) == 0
    assert "too few images to compare a generator with (1; expected at least 6)" in capsys.readouterr().out
    assert (tmp_path / "stage" / "generator.safetensors").is_file()


def test_a_measure_that_fails_does_not_cost_the_product(
    tmp_path: Path, ohlora: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ohlora.callbacks import watch

    def fail(*given: Any) -> None:
        raise ConfigError("cannot be shown")

    monkeypatch.setattr(watch, "spread_picture", fail)
    assert ohlora("fit", "pretrain", *options(watching(tmp_path / "watching"))) == 2
    assert "cannot be shown" in capsys.readouterr().err
    assert network_files.is_whole(tmp_path / "stage" / "generator.safetensors")


def test_a_checkpoint_that_is_not_finite_is_not_saved(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mad = ["--model.init_args.generator_optimizer.init_args.lr", "3e38", "--model.init_args.kimg", "0.008"]
    assert ohlora("fit", "pretrain", *mad, "--trainer.callbacks", "null") == 2
    assert "is not finite" in capsys.readouterr().err
    assert not checkpoints_in(tmp_path / "stage" / "runs" / "0001")
    assert outside_runs(tmp_path / "stage") == {}

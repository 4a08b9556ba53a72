"""The entry point: fast answers, readable errors, run folders, resuming."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml

from ohlora import tracking
from ohlora.__main__ import main
from ohlora.callbacks.checkpoint import read_checkpoint
from tests.conftest import CONF
from tests.toy_tables import brightness_table

Run = Callable[..., int]


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_answer_without_torch(word: str) -> None:
    program = f"""
import sys
from ohlora.__main__ import main
assert main([{word!r}]) == 0
slow = [name for name in ("torch", "lightning", "wandb", "numpy") if name in sys.modules]
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ohlora" in done.stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--model.init_args.architecture.resolution", "63"], ["resolution is 63; expected a power of two"]),
        (["--model.init_args.trainable_generator", "[maping.*]"], ["'maping.*' fits no parameter"]),
        (["--data.init_args.rates.genderr", "1"], ["unknown rate 'genderr'"]),
        (["--data.init_args.resolution", "32"], ["the images have resolution 32, the generator 16"]),
        (["--trainer.accelerator", "abacus"], ["invalid accelerator name", "abacus"]),
        (["--ckpt_path", "last"], ["no checkpoint below", "start the stage without --ckpt_path"]),
        (["--ckpt_path", "gone.ckpt"], ["--ckpt_path gone.ckpt: no such file"]),
    ],
)
def test_mistakes_are_one_readable_line(
    ohlora: Run, capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]
) -> None:
    assert ohlora("fit", "pretrain", *words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("ohlora: ")
    for part in parts:
        assert part in message
    assert "Traceback" not in message and "Subtypes" not in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "generate_10k"], "generate_10k is now called generate_original"),
        (["predict", "--config", "configs/toy/generate_10k.yaml"], "generate_10k is now called generate_original"),
        (["test", "vectorfind_v9"], "ohlora test vectorfind_v9 is now: ohlora test evaluate_v9"),
        (["test", "--config", "configs/vectorfind_v9.yaml"], "is now: ohlora test evaluate_v9"),
        (["fit", "generate_v1", "--world", "toy"], "run by: python -m ohlora predict generate_v1 --world toy"),
        (["fit", "merged", "--world", "toy"], "it is run by: python -m ohlora merge artifacts/toy/property_cnn"),
        (
            ["fit", "finetune_v9", "--world", "toy"],
            "the world toy has no stage finetune_v9; did you mean finetune_v8? fit",
        ),
        (
            ["predict", "xyzzy"],
            "the world celeba256 has no stage xyzzy; predict runs generate_original, score_original",
        ),
        (["fit", "--world", "toy"], "fit needs a stage, or --config FILE; fit runs filter_gender, "),
        (["test"], "test needs a stage, or --config FILE; test runs evaluate_v8, evaluate_v9"),
        (["fit", "finetune_v8", "--world", "toys"], "there is no world toys; expected toy, demo, celeba256, stylegan2"),
    ],
)
def test_stages_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.init_args.average_half_life", "3"], "average_half_life is now called ema_kimg"),
        (["--model.init_args.made_by", "x"], "the setting made_by is gone; leave it out"),
        (["--model.init_args.architecture.z_size", "3"], "the setting z_size is now called z_dim"),
        (["--data", "ohlora.datamodules.labels.LabelledImages"], "ohlora.datamodules.annotations.AnnotatedImages"),
    ],
)
def test_an_earlier_name_is_refused_with_the_present_one(
    words: list[str], message: str, ohlora: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ohlora("fit", "pretrain", *words) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    section, _, key = words[0].removeprefix("--").partition(".init_args.")
    value: dict[str, Any] = {"init_args": {}} if key else {"class_path": words[1]}
    if key:
        place = value["init_args"]
        *outer, last = key.split(".")
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = words[1]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({section: value}))
    assert ohlora("fit", "pretrain", "--config", str(tmp_path / "own.yaml")) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_what_stage_and_data_share_is_said_once(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.init_args.annotations", str(tmp_path / "none.csv")]
    assert ohlora("fit", "filter", *words, "--data.init_args.resolution", "32") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "data.init_args.resolution is 32, and model.init_args.resolution is 16; expected the same" in message
    assert ohlora("fit", "filter", *words, "--model.init_args.attribute", "age") == 2
    assert "data.init_args.attribute is gender, and model.init_args.attribute is age" in capsys.readouterr().err
    assert ohlora("fit", "filter", *words) == 2, "the same, said twice, is no contradiction"
    assert "none.csv does not exist" in capsys.readouterr().err


def test_what_the_data_takes_from_the_stage_is_in_the_saved_configuration(tmp_path: Path, ohlora: Run) -> None:
    settings = yaml.safe_load((CONF / "filter.yaml").read_text())
    for name in ("resolution", "attribute", "folds"):
        settings["data"]["init_args"].pop(name, None)
    settings["data"]["init_args"]["annotations"] = str(brightness_table(tmp_path / "data", 60)[0])
    settings["trainer"]["default_root_dir"] = str(tmp_path / "stage")
    (tmp_path / "once.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tmp_path / "once.yaml")]) == 0
    saved = tmp_path / "stage" / "runs" / "0001" / "config.yaml"
    told = yaml.safe_load(saved.read_text())["data"]["init_args"]
    assert (told["resolution"], told["attribute"], told["folds"]) == (16, "gender", 3)
    again = ["--trainer.logger.init_args.run_dir", "null"]
    assert main(["fit", "--config", str(saved), *again]) == 0, "a saved configuration runs again"


def test_a_checkpoint_with_unknown_settings_is_refused(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.008") == 0
    path = tracking.newest_checkpoint(tmp_path / "stage")
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= {"average_half_life": 1.0, "colour": "blue"}
    torch.save(content, path)
    assert ohlora("fit", "pretrain", "--ckpt_path", "last") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "does not know: the setting average_half_life is now called ema_kimg; colour" in message


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    assert "there is no command fitt; did you mean fit? The commands are fit, " in capsys.readouterr().err
    assert main(["--versio"]) == 2
    assert capsys.readouterr().err == "ohlora: there is no option --versio; did you mean --version?\n"
    assert main(["--", "fitt"]) == 2
    assert capsys.readouterr().err == "ohlora: there is no option --; see ohlora --help\n"


def test_traceback_shows_where_an_error_comes_from(ohlora: Run) -> None:
    with pytest.raises(ValueError, match="resolution is 63"):
        ohlora("fit", "pretrain", "--model.init_args.architecture.resolution", "63", "--traceback")


def test_missing_weights_name_the_command_that_makes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/finetune_v8.yaml"]) == 2
    message = capsys.readouterr().err
    assert "gender.safetensors does not exist; it is made by: python -m ohlora fit filter_gender" in message
    assert main(["fit", "--config", "configs/finetune_v8.yaml", "--trainer.callbacks", "null"]) == 2
    message = capsys.readouterr().err
    assert "generator.safetensors does not exist; it is made by: python -m ohlora fit finetune_v1" in message
    assert main(["predict", "generate_original"]) == 2
    assert "original/generator.safetensors does not exist; it is made by" in capsys.readouterr().err


def test_each_run_has_its_folder_with_what_it_was_told(tmp_path: Path, ohlora: Run) -> None:
    for kimg in ("0.008", "0.016"):
        assert ohlora("fit", "pretrain", "--model.init_args.kimg", kimg) == 0
    runs = tmp_path / "stage" / "runs"
    told = [yaml.safe_load((runs / n / "config.yaml").read_text()) for n in ("0001", "0002")]
    assert [t["model"]["init_args"]["kimg"] for t in told] == [0.008, 0.016]
    # The saved configuration is enough to run again.
    assert (
        main(["fit", "--config", str(runs / "0001" / "config.yaml"), "--trainer.logger.init_args.run_dir", "null"]) == 0
    )
    assert (runs / "0003" / "checkpoints" / "images-0000000008.ckpt").is_file()


def test_last_is_the_newest_checkpoint_of_the_newest_run(tmp_path: Path, ohlora: Run) -> None:
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.048") == 0
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.008") == 0
    stage = tmp_path / "stage"
    assert tracking.newest_checkpoint(stage) == stage / "runs" / "0002" / "checkpoints" / "images-0000000008.ckpt"
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.016", "--ckpt_path", "last") == 0
    assert (stage / "runs" / "0002" / "checkpoints" / "images-0000000016.ckpt").is_file()
    (stage / "runs" / "0009").mkdir()  # a run that died before its first checkpoint
    assert tracking.newest_checkpoint(stage).parent.parent.name == "0002"


def test_what_is_typed_on_resume_wins_and_the_rest_comes_from_the_checkpoint(tmp_path: Path, ohlora: Run) -> None:
    words = ["--model.init_args.kimg", "0.016", "--model.init_args.w_avg_beta", "0.5"]
    assert ohlora("fit", "pretrain", *words) == 0
    # tests/conf/pretrain.yaml says kimg, so that wins over the checkpoint; nobody says w_avg_beta now.
    resumed = ["--ckpt_path", "last", "--model.init_args.log_every", "0.016"]
    assert ohlora("fit", "pretrain", *resumed) == 0
    told = yaml.safe_load((tmp_path / "stage" / "runs" / "0001" / "config.yaml").read_text())["model"]["init_args"]
    assert (told["kimg"], told["w_avg_beta"], told["log_every"]) == (0.048, 0.5, 0.016)
    typed = ["--model.init_args.kimg", "0.056", "--model.init_args.w_avg_beta", "0.9", "--ckpt_path", "last"]
    assert ohlora("fit", "pretrain", *typed) == 0
    told = yaml.safe_load((tmp_path / "stage" / "runs" / "0001" / "config.yaml").read_text())["model"]["init_args"]
    assert (told["kimg"], told["w_avg_beta"]) == (0.056, 0.9)


def test_the_optimizer_follows_what_is_typed_on_resume(tmp_path: Path, ohlora: Run) -> None:
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.016") == 0
    rate = "--model.init_args.generator_optimizer.init_args.lr"
    assert ohlora("fit", "pretrain", "--model.init_args.kimg", "0.024", rate, "0.0", "--ckpt_path", "last") == 0
    path = tracking.newest_checkpoint(tmp_path / "stage")
    assert read_checkpoint(path)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0
    after = torch.load(path, weights_only=True)["state_dict"]
    previous = torch.load(path.with_name("images-0000000016.ckpt"), weights_only=True)["state_dict"]
    key = "generator.synthesis.to_rgb.weight"
    assert torch.equal(after[key], previous[key])


def test_wandb_is_offline_without_a_key_and_goes_on_in_the_same_run(
    tmp_path: Path, ohlora: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    mode = ["--trainer.logger.init_args.mode", "auto"]
    assert ohlora("fit", "pretrain", *mode, "--model.init_args.kimg", "0.016") == 0
    assert "to upload this run: wandb sync" in capsys.readouterr().out
    assert ohlora("fit", "pretrain", *mode, "--model.init_args.kimg", "0.024", "--ckpt_path", "last") == 0
    folder = tmp_path / "stage" / "runs" / "0001" / "wandb"
    ids = {p.name.split("-")[-1] for p in folder.glob("offline-run-*")}
    assert len(ids) == 1 and len(list(folder.glob("offline-run-*"))) >= 1
    assert ids == {str(read_checkpoint(tracking.newest_checkpoint(tmp_path / "stage"))["wandb_run_id"])}
    history, media = wandb_history(folder)
    assert any("loss/generator" in row and "kimg" in row for row in history)
    assert media >= 2


@pytest.mark.parametrize("given", [("finetune",), ("finetune", "--ckpt_path", "last"), ("generate",)], ids=" ".join)
def test_a_run_warns_of_nothing(
    tmp_path: Path, weights: tuple[Path, Path], image_folder: Path, ohlora: Run, given: tuple[str, ...]
) -> None:
    schedule = ["--model.init_args.schedule", "torch.optim.lr_scheduler.LinearLR"]
    of_conf = {
        "finetune": [f"--model.init_args.discriminator={weights[1]}", f"--data.init_args.folder={image_folder}"],
        "generate": [f"--model.init_args.output={tmp_path / 'made'}"],
    }
    words = [f"--model.init_args.generator={weights[0]}", *of_conf[given[0]]]
    command = "predict" if given[0] == "generate" else "fit"
    if command == "fit":
        words += [*schedule, "--model.init_args.kimg", "1.008"]  # the schedule steps once
    if len(given) > 1:
        assert ohlora(command, given[0], *words, "--model.init_args.kimg", "0.016") == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ohlora(command, *given, *words) == 0
    assert [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)] == []


def test_the_summary_tells_the_extremes_of_what_is_watched(tmp_path: Path) -> None:
    logger = tracking.RunLogger(mode="offline", run_dir=str(tmp_path))
    seen = 0
    logger.connect(lambda: seen)
    for seen, value in enumerate((2.0, 5.0, 3.0)):  # noqa: B007
        logger.log_metrics({"watch/spread/eyes": value, "watch/recall": -value, "loss/generator": value})
    summary = logger.experiment.summary
    assert dict(summary["watch/spread/eyes"]) == {"min": 2, "max": 5, "last": 3}
    assert dict(summary["watch/recall"]) == {"min": -5, "max": -2, "last": -3}
    assert summary["loss/generator"] == 3
    logger.finalize("success")
    wandb.teardown()  # its process writes the file in its own time
    defined = {record.metric.name: record.metric for record in wandb_records(tmp_path / "wandb") if record.metric.name}
    about = defined["watch/recall"]
    assert about.step_metric == "kimg" and about.summary.min and about.summary.max and about.summary.last


def wandb_records(folder: Path) -> Iterator[Any]:
    """What offline runs have written, in order."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for data in log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            yield record


def wandb_history(folder: Path) -> tuple[list[set[str]], int]:
    """The keys of each history row, and the number of rows with pictures, read back from offline runs."""
    rows: list[set[str]] = []
    for record in wandb_records(folder):
        if record.HasField("history"):
            rows.append({item.key or "/".join(item.nested_key) for item in record.history.item})
    return rows, sum(1 for row in rows if any(key.split("/")[0] in ("fakes", "reals") for key in row))


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of a LevelDB log, which W&B's offline files are after a header of 7 bytes."""
    block, header, position, parts = 32768, 7, 7, b""
    while position + header <= len(content):
        if block - position % block < header:  # the rest of a block is padding
            position += block - position % block
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]  # 1 whole, 2 first, 3 middle, 4 last
        parts += content[position + header : position + header + length]
        position += header + length
        if kind in (1, 4):
            yield parts
            parts = b""

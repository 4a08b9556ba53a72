"""What Weights & Biases is told, read back from offline runs."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml

from ohlora import commandline, settings, tracking
from ohlora.errors import ConfigError
from ohlora.evaluation.scores import pearson
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.utils.files import read_rows
from tests.conftest import CONF, ROOT
from tests.test_cli import wandb_records
from tests.toy_tables import brightness_table, options, watching

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of no sweep, group or name that the environment gives them."""
    for name in ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()


def told(run_dir: Path) -> list[Any]:
    """What the offline runs of a run's folder have written, in order."""
    wandb.teardown()  # W&B's process writes in its own time
    return list(wandb_records(run_dir / "wandb"))


def values(items: Any) -> dict[str, Any]:
    """Keys and values of a record's items, such as those of configuration, history or summary."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def history(records: list[Any]) -> list[dict[str, Any]]:
    return [values(record.history.item) for record in records if record.HasField("history")]


OFFLINE = ("--trainer.logger.init_args.mode", "offline")


def test_a_run_says_what_it_is_and_tells_its_story(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = ["--trainer.logger.init_args.tags", "[tried]", "--trainer.callbacks.every_kimg", "null"]
    assert ohlora("fit", "pretrain", *OFFLINE, *own, "--model.init_args.kimg", "0.032", "--world", "toy") == 0
    assert ohlora("fit", "pretrain", *OFFLINE, *own, "--world", "toy", "--ckpt_path", "last") == 0
    commands = [line for line in capsys.readouterr().out.splitlines() if "wandb sync" in line]
    folders = [shlex.split(line.partition("wandb sync ")[2]) for line in commands]
    run_dir = tmp_path / "stage" / "runs" / "0001"
    parts = sorted((run_dir / "wandb").glob("offline-run-*"))
    assert [len(named) for named in folders] == [1, len(parts)] and len(parts) == 2
    assert [Path(name).resolve() for name in folders[1]] == parts, "both parts of the run, to upload them together"

    records = told(run_dir)
    begun = [record.run for record in records if record.HasField("run")]
    assert {(run.display_name, run.run_group, run.job_type) for run in begun} == {("stage/0001", "toy", "stage")}
    assert {tuple(run.tags) for run in begun} == {("toy", "fit", "tried")} and len({run.run_id for run in begun}) == 1
    config: dict[str, Any] = {}
    for record in records:
        config |= values(record.run.config.update) | values(record.config.update)
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert {key: config[key] for key in saved} == saved, "the whole configuration"
    assert "kimg" not in config, "its settings are not told twice"

    captions = [row["fakes/caption"] for row in history(records) if "fakes/caption" in row]
    assert captions == ["0 kimg", *(f"{0.008 * step:.6g} kimg" for step in range(1, 7))], "a picture in every step"


def test_the_summary_of_a_resumed_run_tells_the_best_of_all_of_it(tmp_path: Path) -> None:
    courses = ((3.0, 1.0, 2.0), (4.0, 5.0))
    run_dir = tmp_path / "stage" / "runs" / "0001"
    run_dir.mkdir(parents=True)
    run_id = None
    for course in courses:
        logger = tracking.RunLogger(mode="offline", run_dir=str(run_dir), run_id=run_id)
        run_id = logger.run_id
        logger.connect(lambda: 0)
        for value in course:
            logger.log_metrics({"loss/validation": value, "loss/train": value})
        logger.finalize("success")
    summary: dict[str, Any] = {}
    for record in told(run_dir):
        summary |= values(record.summary.update)
    assert summary["loss/validation"] == {"min": 1.0, "max": 5.0, "last": 5.0}
    assert float(read_rows(run_dir / "metrics.csv")[1]["loss/validation"]) == 1.0


def pictures(records: list[Any]) -> set[str]:
    return {key.partition("/")[0] for row in history(records) for key, kind in row.items() if kind == "image-file"}


def columns(run_dir: Path, name: str) -> list[str]:
    """Columns of a table, from the file that W&B keeps of it."""
    (file,) = (run_dir / "wandb").glob(f"offline-run-*/files/media/table/tables/{name}_*.table.json")
    return [str(column) for column in json.loads(file.read_text())["columns"]]


@pytest.fixture
def networks(tmp_path: Path) -> dict[str, Path]:
    """Random attribute networks: a filter, a search CNN and a judge."""
    torch.manual_seed(0)
    made = {
        "gender": AttributeEnsemble.of([attribute_cnn("gender", "small", 16).eval() for _ in range(2)]),
        "merged": attribute_cnn("merged", "small", 16).eval(),
        "judge": attribute_cnn("merged", "small", 16).eval(),
    }
    for name, network in made.items():
        network_files.save_network(network, tmp_path / f"{name}.safetensors")
    return {name: tmp_path / f"{name}.safetensors" for name in made}


def test_scoring_shows_histograms_pass_counts_and_extremes(
    tmp_path: Path, ohlora: Run, networks: dict[str, Path]
) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 24)
    output = tmp_path / "scores.csv"
    given = {
        "model.init_args.networks": f"[{networks['gender']}, {networks['merged']}]",
        "model.init_args.output": output,
        "data.init_args.manifest": manifest,
    }
    assert ohlora("predict", "scores", *options(given), *OFFLINE) == 0
    run_dir = tmp_path / "stage" / "runs" / "0001"
    assert pictures(told(run_dir)) == {"score_histograms", "score_correlations", "best_and_worst"}
    (measured,), scores = read_rows(run_dir / "metrics.csv"), read_rows(output)
    passing = sum(float(row["gender_score"]) >= 0.5 for row in scores)
    assert float(measured["passed/gender"]) == float(measured["passed"]) == passing
    assert float(measured["mean/mouth"]) == pytest.approx(
        np.mean([float(row["mouth_score"]) for row in scores]), abs=1e-5
    )
    rows = read_rows(run_dir / "score_correlations.csv")
    eyes, mouth = (np.array([float(row[f"{name}_score"]) for row in scores]) for name in ("eyes", "mouth"))
    (of_eyes,) = (row for row in rows if row["attribute"] == "eyes")
    assert float(of_eyes["mouth"]) == pytest.approx(np.corrcoef(eyes, mouth)[0, 1], abs=1e-2)


def test_search_and_evaluation_show_what_goes_together(
    tmp_path: Path, ohlora: Run, networks: dict[str, Path], weights: tuple[Path, Path]
) -> None:
    found = {"latents": 10, "rounds": 1, "covariance_count": 50, "group_by": "[]"}
    given = {"generator": weights[0], "network": networks["merged"], "output": tmp_path / "found"}
    words = options({f"model.init_args.{key}": value for key, value in given.items()})
    finder = ["--model.init_args.finder", "ohlora.directions.local.Local"]
    finder += options({f"model.init_args.finder.init_args.{key}": value for key, value in found.items()})
    assert ohlora("fit", "directions", *words, *finder, *OFFLINE, stage_dir=tmp_path / "search") == 0
    given |= {"judge": networks["judge"], "output": tmp_path / "tested"}
    given["directions"] = tmp_path / "found" / "directions.safetensors"
    words = options({f"model.init_args.{key}": value for key, value in given.items()})
    small = ["--data.init_args.count", "3", "--model.init_args.unedited_count", "12"]
    assert ohlora("test", "evaluation", *words, *small, *OFFLINE, stage_dir=tmp_path / "test") == 0
    search, test = (tmp_path / name / "runs" / "0001" for name in ("search", "test"))
    assert {"score_correlations", "layers_of_attributes"} <= pictures(told(search))
    records = told(test)
    assert {"score_correlations", "edit_correlations", "edit_slopes", "correlations"} <= pictures(records)
    kinds: dict[str, set[str]] = {}
    for key, kind in (item for row in history(records) for item in row.items() if item[0].endswith("/_type")):
        kinds.setdefault(key, set()).add(kind)
    assert all(len(found) == 1 for found in kinds.values()), "a panel shows a name's pictures or tables, not both"
    assert columns(test, "edits") == [
        "sheet", "which", "case", "group", "passed", "good", "eyes_corr", "mouth_corr", "pose_corr",
    ]  # fmt: skip
    r = {row["edit"]: row for row in read_rows(test / "edit_correlations.csv")}
    (statistics,) = read_rows(tmp_path / "tested" / "test_statistics.csv")
    slopes = {row["edit"]: row for row in read_rows(test / "edit_slopes.csv")}
    for name in ("eyes", "mouth", "pose"):
        assert float(r[name][name]) == pytest.approx(float(statistics[f"{name}_corr_mean"]), abs=1e-3)
        assert float(slopes[name]["hair_color"]) == pytest.approx(
            float(statistics[f"slope_{name}_hair_color_mean"]), abs=1e-3
        )


def test_correlations_of_what_does_not_vary() -> None:
    values = np.array([[0.1, 1.0, 3.0], [0.1, 2.0, 2.0], [0.1, 4.0, 0.0]])
    table = pearson(values, values)
    assert np.isnan(table[0]).all() and np.isnan(table[:, 0]).all()
    assert table[1:, 1:] == pytest.approx(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    random = np.random.default_rng(0).standard_normal((50, 3))
    assert pearson(random, random[:, :2]) == pytest.approx(np.asarray(np.corrcoef(random.T))[:, :2])


def test_models_are_kept_with_what_they_were_made_from_on_request(
    tmp_path: Path, ohlora: Run, weights: tuple[Path, Path], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    given = {"generator": weights[0], "discriminator": weights[1], "kimg": 0.008}
    words = options({f"model.init_args.{key}": value for key, value in given.items()})
    words += ["--data.init_args.folder", str(image_folder), *OFFLINE]
    assert ohlora("fit", "finetune", *words) == 0
    assert not [record for record in told(tmp_path / "stage" / "runs" / "0001") if record.HasField("artifact")]

    kept = ["--trainer.logger.init_args.log_model", "true"]
    assert ohlora("fit", "finetune", *words, *kept) == 0
    records = told(tmp_path / "stage" / "runs" / "0002")
    made = {record.artifact.name: record.artifact for record in records if record.HasField("artifact")}
    assert set(made) == {"stage-generator", "stage-discriminator"}
    assert {artifact.type for artifact in made.values()} == {"model"}
    about = json.loads(made["stage-generator"].metadata)
    assert about["kind"] == "stylegan_generator" and about["provenance"]["images_seen"] == 8
    config: dict[str, Any] = {}
    for record in records:
        config |= values(record.config.update)
    assert set(config["made_from"]) == {"weights-generator", "weights-discriminator"}

    # What was made is what the next run is made from. W&B takes inputs of online runs only.
    used: list[wandb.Artifact] = []
    monkeypatch.setattr(wandb.Run, "use_artifact", lambda _, artifact: used.append(artifact))
    monkeypatch.setattr(tracking, "wandb_reachable", lambda: True)
    begin = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: begin(**settings | {"mode": "offline"}))
    stage = tmp_path / "stage"
    words += options(
        {
            "model.init_args.generator": stage / "generator.safetensors",
            "model.init_args.discriminator": stage / "discriminator.safetensors",
        }
    )
    words += ["--trainer.logger.init_args.mode", "online"]
    assert ohlora("fit", "finetune", *words, *kept, stage_dir=tmp_path / "next") == 0
    assert {artifact.name: artifact.digest for artifact in used} == {
        name: artifact.digest for name, artifact in made.items()
    }


def test_the_console_is_kept(tmp_path: Path) -> None:
    words = ["fit", "--config", str(CONF / "pretrain.yaml"), "--trainer.default_root_dir", str(tmp_path / "stage")]
    words += ["--model.init_args.kimg", "0.008", *OFFLINE]
    done = subprocess.run([sys.executable, "-m", "ohlora", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = told(tmp_path / "stage" / "runs" / "0001")
    printed = "".join(record.output_raw.line for record in records if record.HasField("output_raw"))
    (last,) = (line for line in done.stdout.splitlines() if line.startswith("wrote "))
    assert last in printed


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_a_sweep_tries_are_settings(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    before, after = sweep["command"][:4], sweep["command"][4:]
    assert before == ["${env}", "python", "-m", "ohlora"] and after[-1] == "${args}"
    parameters: dict[str, Any] = sweep["parameters"]
    for end in (0, -1):
        tried = [
            f"--{name}={(how['values'] if 'values' in how else (how['min'], how['max']))[end]}"
            for name, how in parameters.items()
        ]
        words, world = commandline.expanded([*after[:-1], *tried])
        assert world.name == "toy"
        said = settings.check(words)
        assert said["model"]["init_args"]["r1_gamma"] is not None
    with pytest.raises(ConfigError, match="no such setting"):
        settings.check([*words, "--model.init_args.r1_gama=3"])


@pytest.fixture
def watched(
    tmp_path: Path, ohlora: Run, weights: tuple[Path, Path], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Any]:
    """What a fine-tune has told whose diversity is below its floor from the first look to the last."""
    torch.manual_seed(0)
    given = {"generator": weights[0], "discriminator": weights[1]}
    words = options({f"model.init_args.{key}": value for key, value in given.items()})
    watch = {name.rpartition(".")[2]: value for name, value in watching(tmp_path / "watching").items()}
    watch |= {"every_kimg": 0.016, "diversity_floor": 1.5, "properties": str(watch["properties"])}
    about = {
        "class_path": watch.pop("callbacks"),
        "init_args": watch | {"filters": yaml.safe_load(str(watch["filters"]))},
    }
    grids = {"class_path": "ohlora.callbacks.grids.SampleGrid", "init_args": {"rows": 1, "columns": 2}}
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [grids, about]}}))
    words += ["--config", str(tmp_path / "watch.yaml")]
    assert ohlora("fit", "finetune", *words, "--data.init_args.folder", str(image_folder), *OFFLINE) == 0
    return told(tmp_path / "stage" / "runs" / "0001")


def test_a_watched_training(watched: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alert,) = (record.alert for record in watched if record.HasField("alert"))
    assert "the diversity is 1.00 of the start's, below diversity_floor 1.5" in alert.text and alert.level == "WARN"
    looks = [row for row in history(watched) if "watch/diversity" in row]
    assert len(looks) == 3 and sum("score_correlations/path" in row for row in history(watched)) == 3
    for row in looks:
        left = [v for name, v in row.items() if name == "watch/diversity" or name.startswith("watch/spread_kept/")]
        assert row["concept_and_spread"] == pytest.approx(row["watch/concept_rate"] * min([1.0, *left]))
    for sweep in (ROOT / "configs" / "sweeps").glob("*.yaml"):
        name = yaml.safe_load(sweep.read_text())["metric"]["name"]
        assert all(isinstance(row[name], float | int) for row in looks), "a sweep takes a single number"
    captions = [row["fakes/caption"] for row in history(watched) if "fakes/caption" in row]
    for caption, row in zip((captions[0], captions[-1]), (looks[0], looks[-1]), strict=True):
        measured = ", ".join(
            f"{name.replace('_', ' ')} {row[f'watch/{name}']:.3g}"
            for name in ("concept_rate", "diversity", "spread_mean", "spread_min")
            if f"watch/{name}" in row
        )
        assert caption == f"{row['kimg']:.6g} kimg: {measured}"

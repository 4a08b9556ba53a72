"""What Weights & Biases is told, read back from offline runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from ohlora import tracking
from ohlora.utils.files import read_rows
from tests.test_cli import wandb_records

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
    run_id, first = None, 0
    for course in courses:
        logger = tracking.RunLogger(mode="offline", run_dir=str(run_dir), run_id=run_id)
        run_id, now = logger.run_id, first
        logger.connect(lambda: now)
        for now, value in enumerate(course, first):  # noqa: B007
            logger.log_metrics({"loss/validation": value, "loss/train": value})
        logger.finalize("success")
        first += len(course)
    summary: dict[str, Any] = {}
    for record in told(run_dir):
        summary |= values(record.summary.update)
    assert summary["loss/validation"] == {"min": 1.0, "max": 5.0, "last": 5.0}
    assert float(read_rows(run_dir / "metrics.csv")[1]["loss/validation"]) == 1.0

"""The tutorials and the pipeline, command by command, at the size of the demo, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ohlora import pipeline
from ohlora.characters.character import Character
from ohlora.formats import network_files
from ohlora.formats.direction_files import load_directions
from ohlora.utils.files import read_rows
from tests.documented import ROOT, blocks, of_block, titled

SMALL = {
    "filter_": ["--trainer.max_epochs", "1"],
    "generate_": ["--data.init_args.count", "300"],
    "face_parser": ["--trainer.max_epochs", "1"],
    "_cnn": ["--trainer.max_epochs", "1"],
    "finetune_": ["--model.init_args.kimg", "0.5"],
    "vectorfind_v9 toy": ["--model.init_args.finder.init_args.steps", "20"],
    "vectorfind_": [
        *("--model.init_args.finder.init_args.latents", "20"),
        *("--model.init_args.finder.init_args.covariance_count", "1000"),
    ],
    "evaluate_": ["--data.init_args.count", "12"],
    "identity": ["--trainer.max_epochs", "1", "--data.init_args.people", "40"],
    "judge_": ["--trainer.max_epochs", "1"],
}
"""Settings that make a stage short, by a part of its name and its world's."""
PRODUCTS = {
    "face_parser/parser": "parser",
    "merged/merged": "merged",
    "judge_cnn/judge": "judge",
    "identity/identity": "identity",
    "judge_identity/identity": "judge_identity",
    "second_cnn/property": "merged",
    "third_cnn/property": "merged",
    **{f"filter_{name}/{name}": name for name in ("gender", "quality", "age", "glass")},
    **{f"judge_{name}/{name}": f"judge_{name}" for name in ("gender", "quality", "age", "glass")},
}
"""What the stages of the toy world make → what ships, which takes its place: networks of seconds tell nothing."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the commands need."""
    for name in ("ohlora", "configs", "scripts", ".dvc"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache"))
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def shell(command: str, project: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "WANDB_MODE": "offline",
    }
    environment.pop("OHLORA_ARTIFACTS", None)
    done = subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def shortened(command: str) -> str:
    """A command of the docs, at the size of the demo."""
    stage = re.search(r"ohlora \w+ (\w+) --world (\S+)", command)
    words = next((words for part, words in SMALL.items() if stage and part in " ".join(stage.groups())), [])
    if "draw-faces" in command or "draw_robots" in command:
        words = ["--count", "300"]
    return " ".join([command, *words])


def run_page(page: str, project: Path, skip: str) -> None:
    """Runs the commands of a page in order."""
    for _, text in blocks(ROOT / "docs" / page, "sh"):
        for command in of_block(page, text):
            if not re.match(skip, command.text):
                shell(shortened(command.text), project)
                for product, name in PRODUCTS.items():
                    path = project / "artifacts" / "toy" / f"{product}.safetensors"
                    if path.is_file():
                        shutil.copy(ROOT / "ohlora" / "weights" / "toy" / f"{name}.safetensors", path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_character(project: Path) -> None:
    run_page("first_character.md", project, r"make |\. |pip |dvc ")
    toy = project / "artifacts" / "toy"
    face = Character.load(toy / "characters" / "mina.safetensors")
    assert face.render(mouth=0.5).size == (64, 64) and (toy / "characters" / "mina.webp").is_file()
    said = shell("python -m ohlora doctor --world toy", project)
    assert re.search(r"^ +[✓x] character ", said, re.M) and re.search(r"^ +[✓x] finetune_v8 ", said, re.M)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_world_is_started_and_an_attribute_added(project: Path) -> None:
    page = ROOT / "docs" / "your_own_world.md"
    for name, text in titled(page):
        (project / name).write_text(text)
    run_page(page.name, project, r"dvc |ohlora (studio|new flock)")
    declared = pipeline.world(str(project / "bots.yaml")).attributes
    assert declared.names("expression") == ("lamp", "turn", "mouth") and declared.concept == ("visor <= 0.5",)
    assert (project / "artifacts" / "bots" / "data" / "index.html").is_file()
    mine = project / "artifacts" / "mine"
    assert (
        network_files.read_metadata(mine / "filter_laughing" / "laughing.safetensors")["kind"] == "attribute_ensemble"
    )
    (scores,) = {len(read_rows(mine / "score_laughing" / "scores.csv"))}
    assert 0 < len(read_rows(mine / "laughing" / "manifest.csv")) < scores == 300
    found = load_directions(mine / "vectorfind_v9" / "directions.safetensors")
    assert found.attributes == ("brightness", "hair_length")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_pipeline_runs_once(project: Path) -> None:
    """The pipeline at the size of the demo; a second run does nothing, and after a change only what it touches."""
    shell("git init -q .", project)
    shell("dvc repro --glob 'demo-*'", project)
    assert (project / "artifacts" / "demo" / "characters" / "mina.webp").is_file()
    before = {path: path.stat().st_mtime_ns for path in (project / "artifacts").rglob("*.safetensors")}
    said = shell("dvc repro --glob 'demo-*'", project)
    assert "Running stage" not in said and "didn't change, skipping" in said
    assert before == {path: path.stat().st_mtime_ns for path in (project / "artifacts").rglob("*.safetensors")}
    overlay = project / "configs" / "toy" / "demo" / "evaluate_v9.yaml"
    overlay.write_text(overlay.read_text().replace("count: 24", "count: 12"))
    said = shell("dvc repro --glob 'demo-*'", project)
    assert "Running stage 'demo-evaluate_v9'" in said and "Running stage 'demo-finetune_v8'" not in said
    assert len(read_rows(project / "artifacts" / "demo" / "evaluate_v9" / "test_result.csv")) == 12

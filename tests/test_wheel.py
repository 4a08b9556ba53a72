"""The wheel, in an environment that holds nothing else of ohlora, from an empty folder."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

from ohlora.commands import COMMANDS
from ohlora.utils.files import read_rows
from tests.commands.test_commands import answers_without_torch
from tests.conftest import ROOT, ran


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "ohlora").rglob("__init__.py")}
    assert {name for name in settings["packages"] if name not in settings["package-dir"]} >= there
    shipped = {".".join(("ohlora", *p.parent.relative_to(ROOT).parts)) for p in (ROOT / "configs").rglob("*.yaml")}
    assert shipped <= set(settings["packages"])
    for path in (p for ending in ("html", "js", "css") for p in (ROOT / "ohlora").rglob(f"*.{ending}")):
        patterns = settings["package-data"][".".join(path.parent.relative_to(ROOT).parts)]
        assert any(path.match(pattern) for pattern in patterns), f"the wheel leaves {path} out"


def test_an_installed_ohlora_runs_the_toy_recipe_from_an_empty_folder(python_with_wheel: str, tmp_path: Path) -> None:
    where = ran([python_with_wheel, "-c", "import ohlora; print(ohlora.__file__)"], tmp_path).strip()
    assert where.startswith(str(Path(python_with_wheel).parents[1])), "the source tree must not be what is tried"
    said = ran([python_with_wheel, "-m", "ohlora", "doctor", "--world", "toy"], tmp_path)
    assert "next:\n      python -m ohlora draw-faces artifacts/toy/drawn\n" in said
    words = ["--config", "configs/generate_original.yaml", "--config=configs/toy/generate_original.yaml"]
    short = ran(
        [python_with_wheel, "-m", "ohlora", "predict", "generate_original", "--world", "toy", "--print_config"],
        tmp_path,
    )
    assert ran([python_with_wheel, "-m", "ohlora", "predict", *words, "--print_config"], tmp_path).endswith(short)
    settings = ["--data.init_args.count", "3", "--trainer.logger.init_args.mode", "disabled"]
    said = ran([python_with_wheel, "-m", "ohlora", "predict", *words, *settings], tmp_path)
    assert said.count("the copy that ships with ohlora") == 2
    assert len(list((tmp_path / "artifacts" / "toy" / "generate_original" / "images").iterdir())) == 3
    ran([python_with_wheel, "-m", "ohlora", "draw-faces", "drawn", "--count", "2"], tmp_path)
    assert len(list((tmp_path / "drawn" / "images").iterdir())) == 2


def test_an_installed_ohlora_has_every_command(python_with_wheel: str, tmp_path: Path) -> None:
    run = [python_with_wheel, "-m", "ohlora"]
    console = ran([str(Path(python_with_wheel).with_name("ohlora")), "--help"], tmp_path)
    assert console == ran([*run, "--help"], tmp_path) and all(f"  {name} " in console for name in COMMANDS)
    answers_without_torch(python_with_wheel, tmp_path)
    (tmp_path / "scores.csv").write_text("index,gender_score\n0,0.2\n1,0.8\n")
    ran([*run, "filter", "scores.csv", "kept.csv", "--keep", "gender >= 0.5"], tmp_path)
    assert read_rows(tmp_path / "kept.csv") == [{"index": "1", "gender_score": "0.8"}]
    listed = ran([*run, "pipeline", "--world", "toy"], tmp_path)
    assert "python -m ohlora merge artifacts/toy/" in listed and "scripts" not in listed, "of a source tree only"


def test_a_configuration_at_hand_wins_over_the_one_that_ships(python_with_wheel: str, tmp_path: Path) -> None:
    own = tmp_path / "configs" / "generate_original.yaml"
    own.parent.mkdir()
    own.write_text("seed_everything: 7\n")
    done = subprocess.run(
        [python_with_wheel, "-m", "ohlora", "predict", "--config", "configs/generate_original.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "ships with ohlora" not in done.stdout

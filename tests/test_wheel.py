"""The wheel, in an environment that holds nothing else of ohlora, from an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("ohlora", "configs", "scripts", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


def ran(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a new environment: the wheel is installed there, its dependencies are borrowed from here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    ran([*wheel, str(source)], folder)
    ran([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    python = str(folder / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", *map(str, folder.glob("*.whl"))]
    ran(install, folder)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "ohlora").rglob("__init__.py")}
    assert {name for name in settings["packages"] if name not in settings["package-dir"]} >= there
    shipped = {".".join(("ohlora", *p.parent.relative_to(ROOT).parts)) for p in (ROOT / "configs").rglob("*.yaml")}
    assert shipped <= set(settings["packages"])


def test_an_installed_ohlora_runs_the_toy_recipe_from_an_empty_folder(python: str, tmp_path: Path) -> None:
    where = ran([python, "-c", "import ohlora; print(ohlora.__file__)"], tmp_path).strip()
    assert where.startswith(str(Path(python).parents[1])), "the source tree must not be what is tried"
    said = ran([python, "-m", "ohlora", "doctor", "--world", "toy"], tmp_path)
    assert "next:\n      python -m ohlora.scripts.draw_faces artifacts/toy/drawn\n" in said
    words = ["--config", "configs/generate_original.yaml", "--config=configs/toy/generate_original.yaml"]
    short = ran([python, "-m", "ohlora", "predict", "generate_original", "--world", "toy", "--print_config"], tmp_path)
    assert ran([python, "-m", "ohlora", "predict", *words, "--print_config"], tmp_path).endswith(short)
    settings = ["--data.init_args.count", "3", "--trainer.logger.init_args.mode", "disabled"]
    said = ran([python, "-m", "ohlora", "predict", *words, *settings], tmp_path)
    assert said.count("the copy that ships with ohlora") == 2
    assert len(list((tmp_path / "artifacts" / "toy" / "generate_original" / "images").iterdir())) == 3
    ran([python, "-m", "ohlora.scripts.draw_faces", "drawn", "--count", "2"], tmp_path)
    assert len(list((tmp_path / "drawn" / "images").iterdir())) == 2
    ran([python, "-c", "import ohlora.scripts.demo, ohlora.scripts.compare_directions"], tmp_path)


def test_a_configuration_at_hand_wins_over_the_one_that_ships(python: str, tmp_path: Path) -> None:
    own = tmp_path / "configs" / "generate_original.yaml"
    own.parent.mkdir()
    own.write_text("seed_everything: 7\n")
    done = subprocess.run(
        [python, "-m", "ohlora", "predict", "--config", "configs/generate_original.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "ships with ohlora" not in done.stdout

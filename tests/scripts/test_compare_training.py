"""Recipes of GAN training, compared by scripts/compare_training.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohlora.commands.draw_faces import main as draw_faces
from ohlora.formats.network_files import load_generator
from ohlora.utils.files import read_rows, shipped
from scripts.compare_training import RECIPES, main


@pytest.mark.slow
def test_each_recipe_is_trained_for_its_time_measured_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_faces([str(tmp_path / "drawn"), "--count", "60", "--seed", "3"])
    words = [str(tmp_path / "out"), "--minutes", "0.03", "--count", "30"]
    words += ["--images", str(tmp_path / "drawn" / "images")]
    words += ["--real", str(tmp_path / "drawn" / "images"), "--features", str(shipped("weights/toy/judge.safetensors"))]
    words += ["--scored-by", str(shipped("weights/toy/merged.safetensors"))]
    names = ["stylegan2-relativistic-512-grown-matched-ada", "stylegan-logistic-256"]
    assert not main([*words, "--recipes", *names])
    rows = read_rows(tmp_path / "out" / "training.csv")
    assert [row["recipe"] for row in rows] == names
    assert all(0 < float(row["kimg"]) < 10 and float(row["spread_eyes"]) > 0 for row in rows)
    assert load_generator(tmp_path / "out" / f"{names[0]}-0" / "32" / "generator.safetensors").resolution == 32
    config = tmp_path / "out" / f"{names[0]}-0" / "32" / "runs" / "0001" / "config.yaml"
    assert "score_matching_start: 0.0" in config.read_text()  # such a training ends before that of the toy world
    capsys.readouterr()
    assert not main([*words, "--seed", "0", "--recipes", *names])
    assert capsys.readouterr().out.count("already") == 2
    assert read_rows(tmp_path / "out" / "training.csv") == rows


def test_a_name_that_is_no_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--images", str(tmp_path), "--real", str(tmp_path), "--features", str(tmp_path / "judge.safetensors")]
    assert main([str(tmp_path), *folders, "--recipes", RECIPES[0], "stylegan4-logistic-64"]) == 2
    assert "'stylegan4-logistic-64' is no recipe" in capsys.readouterr().err
    assert main([str(tmp_path), *folders, "--recipes", f"{RECIPES[0]}-matched"]) == 2
    assert "name the network that scores with --scored-by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""The comparison of ways to find directions, at its smallest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import attribute_cnn
from scripts import compare_directions
from tests.conftest import CONF


@pytest.mark.slow
def test_every_cell_is_measured_once(
    tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")
    networks = {name: str(tmp_path / "merged.safetensors") for name in ("network", "judge")}
    OmegaConf.save(
        OmegaConf.create({"model": {"init_args": {"generator": str(weights[0]), "network": "none"}}}),
        tmp_path / "search.yaml",
    )
    OmegaConf.save(
        OmegaConf.create({"model": {"init_args": {"generator": str(weights[0]), **networks, "network": "none"}}}),
        tmp_path / "evaluation.yaml",
    )
    sampling = {"model": {"init_args": {"generator": str(weights[0]), "network": "none"}}}
    OmegaConf.save(OmegaConf.create(sampling), tmp_path / "sampling.yaml")
    config = {
        "root": str(tmp_path / "compared"),
        "recipe": [str(CONF / "directions.yaml"), str(tmp_path / "search.yaml")],
        "evaluation": [str(CONF / "evaluation.yaml"), str(tmp_path / "evaluation.yaml")],
        "sampling": [str(CONF / "sample.yaml"), str(tmp_path / "sampling.yaml")],
        "network": networks["network"],
        "latents": 12,
        "calibrate": 2,
        "seeds": [0, 1],
        "samples": [30],
        "gradients": [4, 8],
        "parser": None,
        "discriminator": str(weights[1]),
        "closer_count": 12,
        "methods": {
            "ridge": {
                "budget": "samples",
                "finder": {"class_path": "ohlora.directions.ridge.Ridge", "init_args": {"group_by": []}},
            },
            "jacobian": {
                "budget": "gradients",
                "finder": {
                    "class_path": "ohlora.directions.jacobian.Jacobian",
                    "init_args": {"covariance_count": 50, "group_by": []},
                },
            },
        },
    }
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    words = ["--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "table.csv")]
    words += ["--figure", str(tmp_path / "figure.png")]
    assert compare_directions.main([*words, "--part", "1/2"]) == 0
    assert "3 of 6 cells are done" in capsys.readouterr().out and not (tmp_path / "table.csv").exists()
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "compared" / "cells").iterdir()}
    assert compare_directions.main(words) == 0
    assert {p: p.stat().st_mtime_ns for p in done} == done
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "other.safetensors")
    assert compare_directions.main([*words, f"network={tmp_path / 'other.safetensors'}"]) == 2
    assert "was measured with another network" in capsys.readouterr().err
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["budget"], row["seed"]) for row in rows] == [
        (method, budget, seed)
        for seed in "01"
        for method, budget in (("ridge", "30"), ("jacobian", "4"), ("jacobian", "8"))
    ]
    assert all(
        np.isfinite(float(row[key])) for row in rows for key in ("r_eyes", "slope_pose", "drift", "realism_change")
    )
    assert [row["images"] for row in rows[:3]] == ["270", "12", "24"]  # 240 of them scale the steps
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1000
    assert compare_directions.main([*words, "--part", "3/2"]) == 2
    assert "expected K/N" in capsys.readouterr().err

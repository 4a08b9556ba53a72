"""A world of one's own: what it declares is what every stage works with, and mistakes in it are one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from ohlora import attributes, pipeline
from ohlora.__main__ import main
from ohlora.attributes import Vocabulary
from ohlora.characters.character import Character
from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.utils.files import read_rows, write_rows

WORLDS = Path(__file__).parent / "worlds"


def draw(folder: Path, count: int) -> None:
    """Discs of random sizes and colours on dark or light grounds, some with rings, and a table of what can be seen."""
    rows = []
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for k in range(count):
        dark, rings, radius, red = k % 2, k % 4, random.uniform(1, 7), int(random.integers(0, 256))
        picture = Image.new("RGB", (64, 64), (60, 60, 60) if dark else (200, 200, 200))
        pen = ImageDraw.Draw(picture)
        for ring in range(rings):
            pen.rectangle([ring * 6, ring * 6, 63 - ring * 6, 63 - ring * 6], outline="black", width=2)
        pen.ellipse([32 - 4 * radius, 32 - 4 * radius, 32 + 4 * radius, 32 + 4 * radius], fill=(red, 40, 255 - red))
        picture.resize((16, 16), Image.Resampling.BOX).save(folder / "images" / f"{k:03d}.png")
        rows.append({"index": k, "path": f"images/{k:03d}.png", "is_dark": dark, "rings": rings})
    write_rows(folder / "manifest.csv", rows)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the world of discs and its images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WORLDS, tmp_path, dirs_exist_ok=True)
    draw(tmp_path / "artifacts" / "discs" / "drawn", 120)
    return tmp_path / "artifacts" / "discs"


def ran(*words: str) -> None:
    assert main([*words, "--world", "discs.yaml"]) == 0


def test_a_world_of_discs_from_images_to_a_character(project: Path) -> None:
    ran("predict", "score_properties")
    table = read_rows(project / "score_properties" / "scores.csv")
    assert list(table[0]) == ["index", "path", "size_score", "redness_score"]
    assert np.std([float(row["size_score"]) for row in table]) == pytest.approx(1, abs=0.01)

    ran("fit", "property_cnn")
    ran("fit", "judge_cnn", "--model.init_args.network", "property")
    network = network_files.load_attributes(project / "property_cnn" / "property.safetensors")
    assert network.outputs == ("size", "redness")
    measured = read_rows(project / "property_cnn" / "runs" / "0001" / "correlations.csv")
    assert all(float(row["pearson"]) > 0.8 for row in measured)

    ran("fit", "filter_dark")
    assert network_files.load_attributes(project / "filter_dark" / "dark.safetensors").outputs == ("dark",)

    ran("fit", "pretrain")  # watched without filters: there is no concept to be best at
    watched = read_rows(project / "pretrain" / "runs" / "0001" / "metrics.csv")
    assert any(row.get("final/diversity") for row in watched) and "final/concept_rate" not in watched[-1]
    assert not (project / "pretrain" / "best_generator.safetensors").exists()
    ran("fit", "finetune_v1")
    assert network_files.load_generator(project / "finetune_v1" / "generator.safetensors").c_dim == 2
    watched = read_rows(project / "finetune_v1" / "runs" / "0001" / "metrics.csv")
    assert {"final/concept_rate", "final/dark", "final/label_correlation/redness"} <= watched[-1].keys()

    ran("predict", "generate_v1")
    ran("predict", "score_v1")
    words = pipeline.world("discs.yaml").unconfigured(pipeline.world("discs.yaml").stages["filter_v1"])
    assert main(words) == 0  # the concept's own rule
    kept = read_rows(project / "filter_v1" / "manifest.csv")
    assert kept and all(float(row["dark_score"]) <= 0.5 for row in kept)

    ran("fit", "vectorfind_v9")
    ran("test", "evaluate_v9")
    (row,) = read_rows(project / "evaluate_v9" / "test_statistics.csv")
    assert float(row["size_corr_mean"]) > 0.5 and float(row["redness_corr_mean"]) > 0.5
    assert len(list((project / "evaluate_v9" / "sheets").glob("*.png"))) == 6

    world = pipeline.world("discs.yaml")
    attributes.use(None)  # from here on nothing needs the world
    for stage in ("candidates", "character", "animation"):
        assert main(world.unconfigured(world.stages[stage])) == 0
    disc = Character.load(project / "characters" / "mina.safetensors")
    assert disc.attributes == ("size", "redness") and disc.meanings["size"] == "larger disc"
    assert disc.motions["size"].blinks and "redness" not in disc.motions
    moving = disc.idle(400)
    assert moving[:, 0].std() > 0 and not moving[:, 1].any()
    assert disc.sheet().shape[2] == 3 and disc.render(redness=0.1).size == (16, 16)

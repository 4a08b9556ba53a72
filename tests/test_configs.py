"""The configurations that ship: overlays hold only what differs, and the recipes are the original's.

That each resolves, in every world, is part of tests/test_pipeline.py.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ohlora.directions
from ohlora import pipeline, worlds
from ohlora.__main__ import main
from ohlora.directions.finder import Finder

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = [
    (world.name, path.stem)
    for world in map(pipeline.world, worlds.SHIPPED)
    if world.overlays
    for path in sorted(world.overlays[-1].glob("*.yaml"))
    if path.stem != "compare_directions"  # of a script
]


def settings(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a configuration with its key; a list is one setting."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from settings(part, f"{key}.{name}" if key else name)
    else:
        yield key, value


@pytest.mark.parametrize(("world", "name"), OVERLAYS)
def test_an_overlay_holds_only_what_differs(world: str, name: str) -> None:
    *lower, overlay = pipeline.world(world).configs(name)
    known: dict[str, Any] = {}
    for path in lower:
        known |= dict(settings(yaml.safe_load(path.read_text())))
    said = dict(settings(yaml.safe_load(overlay.read_text())))
    assert said.pop("world") == world
    repeated = [key for key, value in said.items() if key in known and known[key] == value]
    assert not repeated
    for key in ("model.class_path", "data.class_path"):
        assert key not in said or not lower, "a stage stays the one of the recipe"


def test_the_toy_stylegan_can_be_trained_anew(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["fit", "pretrain", "--world", "toy", "--print_config"])
    assert done.value.code == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["trainer"]["default_root_dir"].endswith("toy/pretrain")


@pytest.mark.parametrize("name", ["finetune_v1", "finetune_v1_projection"])
def test_fine_tune_v1_is_the_recipe(name: str) -> None:
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    model, data = settings["model"]["init_args"], settings["data"]["init_args"]
    assert data["label_columns"] == "label"
    assert data["batch_size"] == 16 and model["labels"] == "dataset"
    assert model["trainable_discriminator"] == ["epilogue.*"] and "mapping.*" in model["trainable_generator"]
    assert abs(model["kimg"] * 1000 - 39 * 4703) < 1000


def test_the_projection_differs_where_it_says_so() -> None:
    """Settings of the two recipes of fine-tune v1, but for lines marked as different."""
    lines = [
        [
            line
            for line in (CONFIGS / f"finetune_v1{name}.yaml").read_text().splitlines()
            if not line.strip().startswith("#")
        ]
        for name in ("", "_projection")
    ]
    changed = [line for line in lines[1] if line.split(" #")[0] not in {other.split(" #")[0] for other in lines[0]}]
    unmarked = [line for line in changed if "# differs" not in line]
    assert [line.split(":")[0].strip() for line in unmarked] == ["default_root_dir"]


def test_the_fine_tune_is_the_recipe() -> None:
    settings = yaml.safe_load((CONFIGS / "finetune_v8.yaml").read_text())
    model = settings["model"]["init_args"]
    assert model["trainable_generator"] == ["mapping.*", "synthesis.block4.*"]
    assert model["trainable_discriminator"] == ["epilogue.*"]
    assert (model["r1_gamma"], model["max_generator_updates"], model["repeat_ratio"]) == (10.0, 4, 2.0)
    assert model["generator_optimizer"]["init_args"]["lr"] == 1e-4
    assert settings["data"]["init_args"]["batch_size"] == 8
    assert abs(model["kimg"] * 1000 - 72 * 4930) < 1000


def test_the_search_is_the_recipe() -> None:
    sampling = yaml.safe_load((CONFIGS / "sample_v8.yaml").read_text())
    assert sampling["data"]["init_args"]["count"] == 240_000
    assert "median_count" not in sampling["model"]["init_args"] and "noise" not in sampling["model"]["init_args"]
    settings = yaml.safe_load((CONFIGS / "vectorfind_v8.yaml").read_text())
    finder = settings["model"]["init_args"]["finder"]
    assert finder["class_path"] == "ohlora.directions.svm.SVM"
    assert [finder["init_args"][name] for name in ("fraction", "training_share", "c")] == [0.2, 0.8, 1.0]
    settings = yaml.safe_load((CONFIGS / "evaluate_v8.yaml").read_text())
    model = settings["model"]["init_args"]
    assert settings["data"]["init_args"]["count"] == 2000 and "grid" not in model and "limits" not in model


def finders_of(module: str) -> list[type[Finder]]:
    """The finders that a module defines and that can be used."""
    found = vars(importlib.import_module(module)).values()
    own = [c for c in found if isinstance(c, type) and c.__module__ == module and issubclass(c, Finder)]
    return [c for c in own if not inspect.isabstract(c)]


def test_the_comparison_s_searches_exist() -> None:
    config = yaml.safe_load((CONFIGS / "toy" / "compare_directions.yaml").read_text())
    assert {*config["sampling"], *config["recipe"], *config["evaluation"]} <= {
        f"configs/{path.relative_to(CONFIGS).as_posix()}" for path in CONFIGS.rglob("*.yaml")
    }
    found = {name for _, name, _ in pkgutil.iter_modules(ohlora.directions.__path__, "ohlora.directions.")}
    finders = {cls.__module__ + "." + cls.__name__ for name in found for cls in finders_of(name)}
    compared = {method["finder"]["class_path"] for method in config["methods"].values() if "finder" in method}
    assert compared == finders
    assert {method["budget"] for method in config["methods"].values()} == {"samples", "gradients", "steps", None}

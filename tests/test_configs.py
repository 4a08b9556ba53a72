"""Every configuration that ships resolves, with its overlays, through the real parser."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest
import yaml

from ohlora.__main__ import main
from ohlora.directions.finder import Finder

CONFIGS = Path(__file__).parents[1] / "configs"
STANDALONE = {"toy/pretrain.yaml", "toy/score_drawn.yaml"}
OF_SCRIPTS = {"toy/compare_directions.yaml"}


def chains() -> list[tuple[str, ...]]:
    """Each file behind those it is laid over."""
    found = []
    for path in sorted(CONFIGS.rglob("*.yaml")):
        name = path.relative_to(CONFIGS).as_posix()
        if name in OF_SCRIPTS:
            continue
        layers = [path.name, f"toy/{path.name}", f"toy/demo/{path.name}"]
        found.append((name,) if name in STANDALONE else tuple(layers[: layers.index(name) + 1]))
    return found


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain[-1])
def test_a_config_resolves(chain: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = "predict" if Path(chain[0]).name.startswith(("generate", "sample", "score")) else "fit"
    words = [word for name in chain for word in ("--config", str(CONFIGS / name))]
    with pytest.raises(SystemExit) as done:
        main([command, *words, "--print_config"])
    assert done.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    # An overlay may only say what differs: the stage stays the one of the recipe.
    recipe = yaml.safe_load((CONFIGS / chain[0]).read_text())
    assert resolved["model"]["class_path"] == recipe["model"]["class_path"]
    top = yaml.safe_load((CONFIGS / chain[-1]).read_text())
    for section in ("model", "data"):
        for key, value in top.get(section, {}).get("init_args", {}).items():
            if isinstance(value, (int, float, str)) and "${" not in str(value):
                assert resolved[section]["init_args"][key] == value, f"{section}.init_args.{key}"


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
    model = settings["model"]["init_args"]
    finder = model["finder"]["init_args"]
    assert model["finder"]["class_path"] == "ohlora.directions.svm.SVM" and "grid" not in model
    assert (finder["fraction"], finder["training_share"], finder["c"]) == (0.2, 0.8, 1.0)
    evaluation = yaml.safe_load((CONFIGS / "evaluate_v8.yaml").read_text())
    assert evaluation["data"]["init_args"]["count"] == 2000
    assert not {"grid", "limits"} & evaluation["model"]["init_args"].keys()


def test_the_comparison_s_searches_exist() -> None:
    config = yaml.safe_load((CONFIGS / "toy" / "compare_directions.yaml").read_text())
    assert set(config["sampling"]) | set(config["recipe"]) | set(config["evaluation"]) <= {
        f"configs/{path.relative_to(CONFIGS).as_posix()}" for path in CONFIGS.rglob("*.yaml")
    }
    finders = [method["finder"]["class_path"] for method in config["methods"].values() if "finder" in method]
    assert all(issubclass(pkgutil.resolve_name(path), Finder) for path in finders) and len(set(finders)) == 6
    assert {method["budget"] for method in config["methods"].values()} == {"samples", "gradients", None}


@pytest.mark.parametrize("chain", [c for c in chains() if c[-1].startswith("toy/")], ids=lambda chain: chain[-1])
def test_the_toy_world_s_hints_stay_in_it(chain: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What makes a missing file is a command of the same world, not one inherited from the recipe at 256×256."""
    command = "predict" if Path(chain[0]).name.startswith(("generate", "sample", "score")) else "fit"
    with pytest.raises(SystemExit):
        main([command, *[word for name in chain for word in ("--config", str(CONFIGS / name))], "--print_config"])
    resolved = yaml.safe_load(capsys.readouterr().out)
    sections = [resolved["model"]["init_args"], resolved["data"]["init_args"]]
    sections += [c["init_args"] for c in resolved["trainer"].get("callbacks") or [] if "init_args" in c]
    for section in sections:
        hint = section.get("made_by") or ""
        assert not hint or re.search(r"toy/|with its overlay|make demo|docs/", hint), hint

"""A world of one's own: what it declares is what every stage works with, and mistakes in it are one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw

from ohlora import attributes, pipeline
from ohlora.__main__ import main
from ohlora.attributes import Crop, Vocabulary
from ohlora.characters.character import Character
from ohlora.datamodules.scores import ScoredImages
from ohlora.directions.edits import Directions, Steps
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError, DataError
from ohlora.faces.measuring import Scores
from ohlora.formats import network_files, tensor_files
from ohlora.formats.direction_files import save_directions
from ohlora.networks.attribute_cnn import PUBLISHED_FILTERS, attribute_cnn, built, published
from ohlora.networks.codes import Codes, Space
from ohlora.toy import drawing
from ohlora.utils.files import read_rows, write_rows
from tests.conftest import tiny_networks

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
    assert watched[-1]["watch/spread/redness"] and "watch/concept_rate" not in watched[-1]
    best = network_files.read_metadata(project / "pretrain" / "best_generator.safetensors")["provenance"]
    distances = [float(row["watch/frechet_distance"]) for row in watched if row.get("watch/frechet_distance")]
    assert best["best_by"] == "frechet_distance" and best["frechet_distance"] == pytest.approx(min(distances), abs=1e-3)
    ran("fit", "finetune_v1")
    assert network_files.load_generator(project / "finetune_v1" / "generator.safetensors").c_dim == 2
    watched = read_rows(project / "finetune_v1" / "runs" / "0001" / "metrics.csv")
    assert {"watch/concept_rate", "watch/dark", "watch/label_correlation/redness"} <= watched[-1].keys()

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
    assert len(list((project / "evaluate_v9" / "sheets").glob("*.png"))) == 9
    ran("test", "touch_up")
    assert len(read_rows(project / "touch_up" / "test_result.csv")) == 2

    world = pipeline.world("discs.yaml")
    attributes.use(None)  # from here on nothing needs the world
    for stage in ("candidates", "character", "animation"):
        assert main(world.unconfigured(world.stages[stage])) == 0
    disc = Character.load(project / "characters" / "mina.safetensors")
    assert disc.attributes == ("size", "redness") and disc.meanings["size"] == "larger disc"
    assert disc.motions["size"].blinks and "redness" not in disc.motions
    moving = disc.idle(np.arange(400) / 20)
    assert moving[:, 0].std() > 0 and not moving[:, 1].any()
    assert disc.sheet().shape[2] == 3 and disc.render(redness=0.1).size == (16, 16)


def test_ordinals_are_learned_from_whole_numbers(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ("--data.init_args.manifests", f"[{project / 'drawn' / 'manifest.csv'}]")
    own = ("--model.init_args.network", "rings", "--trainer.default_root_dir", str(project / "rings_cnn"))
    ran("fit", "property_cnn", *table, *own)
    product = project / "rings_cnn" / "rings.safetensors"
    told = network_files.read_metadata(product)["provenance"]
    assert told["spearman/rings"] > 0.7 and told["scale/rings"] == [1.5, pytest.approx(1.118, abs=1e-3)]
    rows = read_rows(project / "drawn" / "manifest.csv")
    for wrong, said in (("1.5", "row 4: rings is 1.5; expected 0 to 3"), ("4", "row 4: rings is 4; expected 0 to 3")):
        rows[2]["rings"] = wrong
        write_rows(project / "drawn" / "manifest.csv", rows)
        assert main(["fit", "property_cnn", "--world", "discs.yaml", *table, *own]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 6])
def test_any_number_of_expressions(project: Path, count: int) -> None:
    """And no label, no filter and no grouping; on random weights."""
    said = yaml.safe_load(Path("discs.yaml").read_text())
    said["attributes"] = {f"size{k}": said["attributes"]["size"] | {"roles": ["expression"]} for k in range(count)}
    Path("discs.yaml").write_text(yaml.safe_dump(said))
    names = tuple(said["attributes"])
    network = built(tuple(pipeline.world("discs.yaml").attributes), "small", 16).eval()
    network_files.save_network(tiny_networks()[0], project / "finetune_v1" / "generator.safetensors")
    for name in ("property_cnn/property", "judge_cnn/judge"):
        network_files.save_network(network, project / f"{name}.safetensors")
    ran("fit", "vectorfind_v9")
    ran("test", "evaluate_v9", "--model.init_args.output", str(project / "tested"))
    (row,) = read_rows(project / "tested" / "test_statistics.csv")
    assert all(f"{name}_corr_mean" in row for name in names) and (
        count > 1 or row["size0_leakage_mean"] in ("0.0", "nan")
    )
    (sheet, *_) = (project / "tested" / "sheets").glob("best*.png")
    assert Image.open(sheet).height > 80 * count
    about = tensor_files.read_metadata(project / "tested" / "latents.safetensors", "ohlora-latents", 2, "latents")
    assert list(about["levels"]) == list(about["motion_shares"]) == list(names)
    steps = Steps(Codes(torch.zeros(1, count, 8), Space.W))
    ranges = dict.fromkeys(names, (-1.0, 1.0))
    many = Character(tiny_networks()[0], Codes(torch.zeros(1, 8), Space.W), names, steps, ranges)
    assert many.shown(None, 10, 0.5, 1).shape == (5 * count + 10, count) and many.sheet(5).shape[0] > 100 * count
    assert main(["fit", "property_cnn", "--world", "discs.yaml"]) == 2  # it declares no label
    ran("predict", "score_properties")
    ran("fit", "property_cnn", "--model.init_args.network", "merged", "--trainer.max_epochs", "1")
    assert network_files.load_attributes(project / "property_cnn" / "merged.safetensors").outputs == names


def test_numbers_of_results_have_names_of_their_own(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The slope of x by y_z, and that of x_y by z."""
    said = yaml.safe_load(Path("discs.yaml").read_text())
    size = said["attributes"]["size"] | {"roles": ["expression"]}
    said["attributes"] = dict.fromkeys(("x", "x_y", "y_z", "z"), size)
    Path("discs.yaml").write_text(yaml.safe_dump(said))
    names = tuple(said["attributes"])
    network = built(tuple(pipeline.world("discs.yaml").attributes), "small", 16).eval()
    network_files.save_network(tiny_networks()[0], project / "finetune_v1" / "generator.safetensors")
    for name in ("property_cnn/property", "judge_cnn/judge"):
        network_files.save_network(network, project / f"{name}.safetensors")
    found = Directions(names, torch.ones(1, 4, 8) / 8**0.5, torch.ones(1, 4), Groups(), "random")
    save_directions(found, project / "vectorfind_v9" / "directions.safetensors")
    assert main(["test", "evaluate_v9", "--world", "discs.yaml"]) == 2
    assert "two numbers of the results would be called slope_x_y_z; rename an attribute" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("fit", "filter_dark", "--model.init_args.attribute", "glass"),
            "unknown attribute 'glass'; discs.yaml declares",
        ),
        (("fit", "filter_dark", "--model.init_args.attribute", "size"), "size is no attribute of 0 and 1"),
        (("fit", "property_cnn", "--model.init_args.network", "[size, pose]"), "unknown attribute 'pose'"),
        (("fit", "property_cnn", "--data.init_args.attributes", "[eyes]"), "unknown attribute 'eyes'"),
        (("fit", "vectorfind_v9", "--model.init_args.finder.init_args.targets", "[eyes]"), "unknown attribute 'eyes'"),
        (("fit", "vectorfind_v9", "--model.init_args.finder.init_args.group_by", "[age]"), "unknown attribute 'age'"),
        (("test", "evaluate_v9", "--model.init_args.limits", "{pose: 1}"), "unknown attribute 'pose'"),
        (("test", "evaluate_v9", "--model.init_args.grid", "{pose: [0, 1]}"), "unknown attribute 'pose'"),
        (("fit", "pretrain", "--data.init_args.label_columns", "[eyes_score]"), "unknown attribute 'eyes'"),
        (("predict", "score_properties", "--model.init_args.variants", "{eyes: v1}"), "there is no score of eyes"),
        (("filter", "a.csv", "b.csv", "--keep", "age >= 0.5"), "--keep: unknown attribute 'age'; discs.yaml declares"),
        (("studio", "--attributes", "eyes"), "unknown attribute 'eyes'"),
    ],
)
def test_an_unknown_attribute_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    (project / "property_cnn").mkdir()
    network = built(tuple(pipeline.world("discs.yaml").attributes)[1:3], "small", 16).eval()
    network_files.save_network(network, project / "property_cnn" / "property.safetensors")
    assert main([*words, "--world", "discs.yaml"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ohlora")]
    assert said in line


WHOLE = {"meaning": "more", "kind": "score"}
STEERED = WHOLE | {"roles": ["expression"], "grid": [-1, 1], "limit": 0.5}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ([], "attributes holds list; expected name: declaration"),
        ({"a b": WHOLE}, "attribute a b: this cannot be its name"),
        ({"eyes_score": WHOLE}, "this cannot be its name"),
        ({"merged": WHOLE}, "this cannot be its name"),
        ({"self": WHOLE}, "this cannot be its name"),
        ({"class": WHOLE}, "this cannot be its name"),
        ({"a": "more"}, "attribute a: it holds 'more'; expected settings: meaning, kind"),
        ({"a": None}, "attribute a: there is none to leave out"),
        ({"a": WHOLE | {"rols": []}}, "attribute a: there is no key 'rols'; expected some of meaning, kind"),
        ({"a": {"kind": "score"}}, "attribute a: meaning is missing; expected what a larger value means"),
        ({"a": {"meaning": "more"}}, "attribute a: kind is missing; expected one of binary, score, ordinal"),
        ({"a": WHOLE | {"kind": "number"}}, "attribute a: kind is 'number'; expected one of"),
        ({"a": WHOLE | {"roles": ["expresion"]}}, "roles is ['expresion']; expected a list of filter, label"),
        ({"a": WHOLE | {"column": "b", "parsing": "c"}}, "it has column and parsing; expected one source"),
        ({"a": WHOLE | {"parsing": 3}}, "parsing is 3; expected a name"),
        ({"a": WHOLE | {"function": "size"}}, "function is 'size'; expected package.module.function"),
        ({"a": WHOLE | {"variant": "v2"}}, "variant is 'v2'; expected the name of an algorithm, together with parsing"),
        ({"a": WHOLE | {"windows": [[0, 1, 0]]}}, "windows is [[0, 1, 0]]; expected a list of [top, bottom"),
        ({"a": WHOLE | {"windows": [["1/2", "1/4", 0, 1]]}}, "windows is [['1/2', '1/4', 0, 1]]; expected"),
        ({"a": WHOLE | {"windows": []}}, "windows is []; expected"),
        ({"a": WHOLE | {"mirror": "b"}}, "mirror is 'b'; expected negates, or an attribute whose mirror is a"),
        (
            {"a": WHOLE | {"kind": "binary", "mirror": "negates"}},
            "mirror is 'negates'; expected negates (not for 0 and",
        ),
        (
            {"a": WHOLE | {"mirror": "b"}, "b": WHOLE | {"kind": "binary", "mirror": "a"}},
            "attribute a: it is a score and its mirror b a binary; expected the same kind",
        ),
        (
            {"a": WHOLE | {"kind": "ordinal", "mirror": "negates", "levels": 4}},
            "mirror is 'negates'; expected the levels to be left out, since those of mirror images are below 0",
        ),
        ({"a": WHOLE | {"keep": [">= 0.5", "1"]}}, "keep is ['>= 0.5', '1']; expected a comparison such as '>= 0.5'"),
        ({"a": WHOLE | {"roles": ["filter"], "keep": "= 1"}}, "keep is '= 1'; expected a comparison"),
        ({"a": WHOLE | {"roles": ["expression"]}}, "grid is missing; expected two or more strengths, rising"),
        ({"a": STEERED | {"grid": [1, -1]}}, "grid is [1, -1]; expected two or more strengths, rising"),
        ({"a": STEERED | {"grid": [-2, -1]}}, "grid is [-2, -1]; expected a highest strength above 0"),
        ({"a": STEERED | {"limit": "high"}}, "limit is 'high'; expected a correlation, -1…1"),
        (
            {"a": STEERED | {"reach": {"low": 1, "high": 0}}},
            "'low': 1}; expected numbers low and high, the first less",
        ),
        ({"a": STEERED | {"reach": [0, 1]}}, "reach is [0, 1]; expected numbers low and high"),
        (
            {"a": WHOLE | {"reach": {"low": 0, "high": 1}}},
            "expected numbers low and high, the first less, together with",
        ),
        ({"a": STEERED | {"rest": "open"}}, "rest is 'open'; expected a number, together with a grid"),
        ({"a": WHOLE | {"rest": 0}}, "rest is 0; expected a number, together with a grid"),
        ({"a": WHOLE | {"physical": "cm"}}, "physical is 'cm'; expected column and unit, a few words each"),
        ({"a": WHOLE | {"physical": {"column": "b"}}}, "physical is {'column': 'b'}; expected column and unit"),
        (
            {"a": WHOLE | {"kind": "binary", "physical": {"column": "b", "unit": "cm"}}},
            "expected it to be left out, since the attribute is 0 or 1",
        ),
        ({"a": STEERED | {"motion": {"base": 1}}}, "motion is {'base': 1}; expected some of breath, drift, speaks"),
        ({"a": STEERED | {"motion": {"drift": 1.5}}}, "motion is {'drift': 1.5}; expected some of breath, drift"),
        ({"a": STEERED | {"motion": {}}}, "motion is {}; expected some of breath, drift, speaks (shares of"),
        ({"a": WHOLE | {"motion": {"breath": 0.1}}}, "and blinks: true or not, together with a grid"),
        ({"a": WHOLE | {"kind": "ordinal", "levels": 12}}, "levels is 12; expected the highest level"),
        ({"a": WHOLE | {"levels": 3}}, "levels is 3; expected the highest level, a whole number from 1 to 9, of an"),
    ],
)
def test_a_broken_declaration_is_one_line(
    declared: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"root": "mine", "attributes": declared}))
    assert main(["pipeline", "--world", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ohlora pipeline: {path}") and said in line


def test_attributes_are_inherited(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    smile = STEERED | {"function": "mine.smile", "windows": [["5/8", 1, 0.25, 0.75]]}
    said = {"base": "toy", "root": "mine", "attributes": {"smile": smile, "glass": None, "age": WHOLE}}
    path.write_text(yaml.safe_dump(said))
    toy, mine = pipeline.world("toy").attributes, pipeline.world(str(path)).attributes
    assert mine.names("expression") == ("eyes", "mouth", "pose", "smile")
    assert mine.names("filter") == ("gender", "quality")
    assert mine["smile"].windows == (Crop(0.625, 1, 0.25, 0.75),) and mine["eyes"] == toy["eyes"]
    assert mine.concept == ("gender >= 0.5", "quality >= 0.5") and mine["age"].kind == "score"
    for name, about, expected in (("other", {"base": "toy"}, toy), ("third", {}, attributes.recipe())):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(about | {"root": name}))
        assert pipeline.world(str(path)).attributes == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"function": "nowhere.size"}, "function is 'nowhere.size'; there is no module nowhere"),
        ({"function": "math.size"}, "function is 'math.size'; math has no function size"),
        ({"function": "math.isqrt"}, ""),
        ({"parsing": "ears"}, "attribute size: unknown score 'ears'; expected one of eyes"),
        ({"parsing": "eyes"}, "size is read off parsing maps; set model.init_args.parser"),
    ],
)
def test_scores_that_cannot_be_had(source: dict[str, str], said: str) -> None:
    declared = Vocabulary.read(Path("mine.yaml"), {"size": WHOLE | source})
    attributes.use(declared)
    if said:
        with pytest.raises(ConfigError, match=re.escape(said)):
            Scores(declared.scored, parsed=False)
        return
    with pytest.raises(TypeError):  # the function's own fault is shown as it is
        Scores(declared.scored, parsed=False)(np.zeros((4, 4, 3), np.uint8), None)


def test_a_function_returns_a_finite_number(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = Vocabulary.read(Path("mine.yaml"), {"size": WHOLE | {"function": "numpy.size"}})
    monkeypatch.setattr(np, "size", lambda image, classes: float("nan"))
    with pytest.raises(DataError, match="the function of size returned nan; expected a finite number"):
        Scores(declared.scored, parsed=False)(np.zeros((4, 4, 3), np.uint8), None)


def test_networks_and_characters_of_another_world_load_and_render(tmp_path: Path) -> None:
    size, redness = (pipeline.world(str(WORLDS / "discs.yaml")).attributes[name] for name in ("size", "redness"))
    network = built([size, redness], "small", 16).eval()
    network_files.save_network(network, tmp_path / "property.safetensors")
    assert "size" not in attributes.vocabulary()
    loaded = network_files.load_attributes(tmp_path / "property.safetensors")
    picture = torch.zeros(1, 3, 16, 16)
    assert loaded.outputs == ("size", "redness") and torch.equal(loaded(picture), network(picture))


def test_networks_group_what_shares_windows() -> None:
    whole, half = {"windows": [[0, 1, 0, 1]]}, {"windows": [[0, 0.5, 0, 1]]}
    said = {"a": WHOLE | whole, "b": WHOLE | half, "c": WHOLE, "d": WHOLE | {"kind": "binary"}}
    network = built(tuple(Vocabulary.read(Path("mine.yaml"), said)), "small", 32).eval()
    assert [spec.outputs for spec in network.specs] == [("a", "c"), ("b",), ("d",)]
    assert [spec.probability for spec in network.specs] == [False, False, True]
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert built(tuple(Vocabulary.read(Path("mine.yaml"), said)), "original", 256).outputs == network.outputs


def test_the_drawn_world_declares_what_is_drawn() -> None:
    toy, recipe = pipeline.world("toy").attributes, attributes.recipe()
    assert tuple(toy.declared) == drawing.DRAWN and toy.measured == drawing.MEASURED
    assert toy.names("label") == (*recipe.names("label"), "smile"), "the original's order of labels, then our own"
    assert {a.name: a.physical.column for a in toy if a.physical is not None} == {
        name: about.name for name, about in drawing.EXPRESSIONS.items()
    }
    for attribute in toy:
        if attribute.reach is not None:
            drawn = drawing.EXPRESSIONS[attribute.name]
            assert drawn.low < attribute.reach.low < attribute.reach.high < drawn.high
    for name in (*PUBLISHED_FILTERS, "property", "hairstyle", "merged"):
        assert attribute_cnn(name).specs == published(name).specs


def test_mirrored_scores_change_sign_or_places(tmp_path: Path) -> None:
    left = WHOLE | {"mirror": "right"}
    said = {"left": left, "right": WHOLE | {"mirror": "left"}, "turn": WHOLE | {"mirror": "negates"}}
    attributes.use(Vocabulary.read(Path("mine.yaml"), said | {"tilt": said["turn"] | {"kind": "ordinal"}}))
    draw(tmp_path, 4)
    drawn = read_rows(tmp_path / "manifest.csv")
    rows = [row | {"left": k, "right": 10 * k, "turn": k / 2, "tilt": k - 1} for k, row in enumerate(drawn)]
    write_rows(tmp_path / "manifest.csv", rows)
    scale = {"left": {"mean": 1, "std": 2}, "right": {"mean": 0, "std": 4}, "turn": {"mean": 1, "std": 1}}
    (tmp_path / "normalization.json").write_text(json.dumps(scale))
    names = ["left", "right", "turn", "tilt"]
    data = ScoredImages(16, [str(tmp_path / "manifest.csv")], names, flip=True, val_share=0.25)
    data.setup("fit")
    number = np.array([int(path.stem) for path in data.train_set.paths])
    plain, mirrored = data.train_set.arrays["label"], data.train_set.arrays["mirrored_label"]
    np.testing.assert_allclose(mirrored[:, 0], (10 * number * 4 - 1) / 2)  # the raw score of the other
    np.testing.assert_allclose(mirrored[:, 1], (number * 2 + 1) / 4)
    np.testing.assert_allclose(mirrored[:, 2], -(number / 2 + 1) - 1)
    mean, std = data.scale["tilt"]
    np.testing.assert_allclose(plain[:, 3], (number - 1 - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(mirrored[:, 3], (1 - number - mean) / std, rtol=1e-6)
    with pytest.raises(ConfigError, match="also needs right, which the network does not predict"):
        ScoredImages(16, [str(tmp_path / "manifest.csv")], ["left"], flip=True).setup("fit")

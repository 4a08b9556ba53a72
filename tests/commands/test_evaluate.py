"""ohlora evaluate: how good a generator is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ohlora.__main__ import main
from ohlora.evaluation.features import Penultimate, RandomFeatures
from ohlora.evaluation.generators import MEASURES, Observer, Reals
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.networks.sampling import counted_batches, joined
from ohlora.utils import counted, images
from ohlora.utils.files import read_json, read_rows, write_rows
from tests.conftest import tiny_networks

OUTPUTS = ("eyes", "mouth")
Evaluate = Callable[..., int]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    assert main(["draw-faces", str(tmp_path / "drawn"), "--count", "70", "--resolution", "16"]) == 0
    return tmp_path / "drawn"


@pytest.fixture
def evaluate(tmp_path: Path, drawn: Path) -> Evaluate:
    """Evaluates a tiny generator with a tiny judge."""
    torch.manual_seed(0)
    network_files.save_network(tiny_networks()[0], tmp_path / "g.safetensors")
    network_files.save_network(attribute_cnn(OUTPUTS, "small", 16).eval(), tmp_path / "judge.safetensors")

    def run(*words: str, data: str = "images", features: str | None = str(tmp_path / "judge.safetensors")) -> int:
        given = ["--features", features] if features is not None else []
        return main(["evaluate", str(tmp_path / "g.safetensors"), "--data", str(drawn / data), *given, *words])

    return run


def test_a_generator_is_measured(
    evaluate: Evaluate, tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--count", "30", "--batch-size", "16", "--world", "toy") == 0
    said = capsys.readouterr().out
    folder = tmp_path / "evaluation"
    found = read_json(folder / "measures.json")
    assert (found["count"], found["floor_count"], found["seed"]) == (30, 30, 0)

    generator = network_files.load_generator(tmp_path / "g.safetensors")
    judge = network_files.load_attribute_cnn(tmp_path / "judge.safetensors")
    paths = sorted((drawn / "images").iterdir())
    chosen = [paths[k] for k in counted.permutation(0, "evaluate/reals", 0, 70)[:60]]
    observer = Observer(Penultimate(judge), [judge])
    pictures = images.to_float(np.stack([images.read_rgb(path, 16) for path in chosen]))
    reals = Reals(observer.observe(torch.split(pictures, 16), torch.device("cpu")), 30)
    made, _ = joined(counted_batches(generator, 0, range(30), 16, stream="evaluate/"))
    seen = observer.observe(torch.split(made, 16), torch.device("cpu"))
    for name, value in reals.measures(seen).items():
        assert found["measures"][name] == {"value": pytest.approx(value), "floor": pytest.approx(reals.floor[name])}
    assert {row["measure"]: float(row["value"]) for row in read_rows(folder / "measures.csv")} == {
        name: pytest.approx(both["value"]) for name, both in found["measures"].items()
    }
    rows = read_rows(folder / "spread.csv")
    assert [row["attribute"] for row in rows] == list(OUTPUTS)
    spread = reals.spread(seen)["eyes"]
    assert float(rows[0]["spread"]) == pytest.approx(spread.spread, abs=1e-3)
    assert float(rows[0]["reached"]) == pytest.approx(spread.reached, abs=1e-3)
    assert float(rows[0]["floor_spread"]) == pytest.approx(reals.floor_spread["eyes"].spread, abs=1e-3)
    assert float(rows[0]["generated_std"]) == pytest.approx(float(seen.scores["eyes"].std()), abs=1e-3)
    assert 0 <= found["spread_min"] <= found["spread_mean"] <= 1
    assert (folder / "spread.png").is_file()
    with Image.open(folder / "fakes.png") as grid:
        factor = grid.width // (10 * 18 + 2)
        assert grid.size == (factor * (10 * 18 + 2), factor * (3 * 18 + 2))  # 30 images of 16×16 in rows of ten
        first = np.asarray(grid)[2 * factor : 18 * factor : factor, 2 * factor : 18 * factor : factor]
        assert (first == images.to_uint8(made[:1])[0]).all()
    assert "30 images of each; the floor compares two halves of the real ones, 30 each" in said
    far = found["measures"]["untrained_distance"]
    excess = far["value"] - far["floor"]
    assert f"its images: their untrained distance, above its floor, is {excess:.3g}; expected at most 0.25" in said
    assert "expression" in said and "coverage" in said and f"wrote {folder}" in said


def test_a_table_names_the_images_and_the_floor_is_what_they_allow(
    evaluate: Evaluate, tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"path": f"images/{k:06d}.png"} for k in range(20)]
    write_rows(drawn / "some.csv", rows)
    assert evaluate("--output", str(tmp_path / "out"), data="some.csv") == 0
    found = read_json(tmp_path / "out" / "measures.json")
    assert (found["count"], found["floor_count"]) == (20, 10)
    assert "holds 20 images; with 10,000 both would compare 5,000" in capsys.readouterr().out


def test_features_of_other_networks(evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    few = ["--count", "20", "--output", str(out)]
    assert evaluate(*few, features="random") == 0
    assert "no attributes were scored; name an attribute CNN with --scores" in capsys.readouterr().out
    assert not (out / "spread.csv").exists()
    found = read_json(out / "measures.json")["measures"]["precision"]["value"]
    generator = network_files.load_generator(tmp_path / "g.safetensors")
    made, _ = joined(counted_batches(generator, 0, range(20), 50, stream="evaluate/"))
    assert RandomFeatures(16)(made).shape == (20, 256) and 0 <= found <= 1

    save_file({"weight": torch.ones(3)}, tmp_path / "means.safetensors")
    ensemble = AttributeEnsemble.of([attribute_cnn("gender", "small", 32) for _ in range(2)])
    network_files.save_network(ensemble.eval(), tmp_path / "gender.safetensors")
    own = ["--features-class", "tests.evaluation.networks.Means", "--features-args", json.dumps({"channels": 3})]
    own += ["--features-resolution", "8", "--features-mean", "0", "0", "0", "--features-std", "1", "1", "1"]
    scores = ["--scores", str(tmp_path / "gender.safetensors")]
    assert evaluate(*few, *own, *scores, features=str(tmp_path / "means.safetensors")) == 0
    said = capsys.readouterr().out
    assert "images of 16×16 are resized to 8×8" in said and "images of 16×16 are resized to 32×32" in said
    assert [row["attribute"] for row in read_rows(out / "spread.csv")] == ["gender"]
    assert read_json(out / "measures.json")["features"] == str(tmp_path / "means.safetensors")


def test_the_judge_of_the_world_is_the_default(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--world", "toy", features=None) == 2
    assert "judge_cnn/judge.safetensors does not exist; it is made by: python -m ohlora fit judge_cnn --world toy" in (
        capsys.readouterr().err
    )


def test_images_of_another_size(evaluate: Evaluate, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw-faces", str(drawn), "--count", "12", "--resolution", "32"]) == 0
    assert evaluate("--count", "50") == 2
    assert (
        "size 32×32; expected 16×16. Take other images, or resize those of another size with --resize"
        in capsys.readouterr().err
    )
    assert evaluate("--count", "50", "--resize") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "5"], "count is 5; expected at least 6"),
        (["--batch-size", "0"], "batch_size is 0; expected at least 1"),
        (["--features-args", "3"], "--features-args is '3'; expected JSON"),
        (["--features", "random", "--features-resolution", "8"], "--features random has no settings"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--device", "nowhere"], "there is no device nowhere"),
        (["--scores", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
    ],
)
def test_what_cannot_be_measured(
    evaluate: Evaluate, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list((tmp_path / "evaluation").glob("*"))


def test_what_has_no_value_is_null(evaluate: Evaluate, drawn: Path, tmp_path: Path) -> None:
    paths = sorted((drawn / "images").iterdir())
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())  # all real images are equal

    def refused(name: str) -> float:
        raise AssertionError(f"measures.json holds {name}")

    assert evaluate("--count", "30") == 0
    text = (tmp_path / "evaluation" / "measures.json").read_text()
    found = json.loads(text, parse_constant=refused)["measures"]
    assert found["untrained_distance"] == {"value": None, "floor": None} and found["frechet_distance"]["value"] > 0


def test_too_few_images(evaluate: Evaluate, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((drawn / "images").iterdir())[11:]:
        path.unlink()
    (drawn / "images" / "notes.txt").write_text("no image")
    assert evaluate() == 2
    said = capsys.readouterr()
    assert "holds 11 images; expected at least 12, for two halves" in said.err
    assert "found 11 images, left out 1 (another suffix than" in said.out


def test_all_measures_have_a_title() -> None:
    from ohlora.commands.evaluate import TITLES

    assert list(TITLES) == list(MEASURES)

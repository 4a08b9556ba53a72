"""The search of directions and the image generation test, through the entry point."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.directions import svm_direction
from ohlora.directions.covariance import covariance_solved, ridge_gradients
from ohlora.directions.edits import Directions, Grid
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError
from ohlora.evaluation.edits import correlations
from ohlora.faces.classes import CLASSES
from ohlora.formats import network_files, sample_files
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.networks.codes import Codes, Space
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.sampling import score_gradients
from ohlora.utils import counted, images
from ohlora.utils.files import read_rows
from tests.conftest import tiny_networks
from tests.toy_tables import sample_set

Run = Callable[..., int]
JUDGED = {"network": "merged", "judge": "judge"}
NAMES = attribute_cnn("merged", "small", 16).outputs


def options(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


@pytest.fixture
def search(ohlora: Run, tmp_path: Path) -> Callable[..., int]:
    """Runs a command of the stage on the set ``samples`` below the test's folder."""

    def run(command: str = "fit", *words: str, output: str = "found", data: str = "samples") -> int:
        settings = {"model.init_args.output": tmp_path / output, "data.init_args.folder": tmp_path / data}
        return ohlora(command, "directions", *options(settings), *words, stage_dir=tmp_path / f"{output}-stage")

    return run


def test_the_search_finds_what_each_group_shows(tmp_path: Path, search: Run) -> None:
    w, scores = sample_set(tmp_path / "samples")
    assert search() == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.attributes == ("eyes", "mouth", "pose") and found.method == "svm"
    assert found.groups.names == ("hh", "hl", "lh", "ll")
    assert found.vectors.norm(dim=-1).allclose(torch.ones(4, 3))
    group = found.groups.assign(NAMES, scores.numpy())
    counts = np.bincount(group)
    for g in range(4):
        for p, name in enumerate(found.attributes):
            of_group = group == g
            own = scores[of_group][:, NAMES.index(name)].numpy()
            # All of both classes trains here, four fifths there.
            plain = svm_direction(w[of_group].numpy(), own)
            assert float(found.vectors[g, p].double() @ torch.from_numpy(plain)) > 0.99
            along = w @ found.vectors[g, p]
            assert float(found.units[g, p]) == pytest.approx(float(along.std(correction=0)), rel=1e-4)
    run = tmp_path / "found-stage" / "runs" / "0001"
    rows = read_rows(run / "search.csv")
    assert len(rows) == 12 and {row["samples"] for row in rows} == {str(c) for c in counts}
    row = rows[0]
    size = int(0.2 * counts[0])
    assert int(row["training_count"]) == 2 * int(0.8 * size)
    assert int(row["validation_count"]) == 2 * (size - int(0.8 * size))
    assert float(row["validation_accuracy"]) > 0.9
    assert {p.stem.split("-")[0] for p in (run / "pictures").iterdir()} == {
        "accuracy",
        "cosines_of_attributes",
        *(f"cosines_of_groups_{name}" for name in found.attributes),
    }
    assert len(read_rows(run / "cosines_of_groups_eyes.csv")) == 4
    assert len(read_rows(run / "cosines_of_attributes.csv")) == 12


def test_batches_and_shards_do_not_matter(tmp_path: Path, search: Run) -> None:
    w, scores = sample_set(tmp_path / "samples")
    sample_set(tmp_path / "other", shard=123)
    assert search() == 0
    assert search("fit", "--data.init_args.batch_size", "77", output="again", data="other") == 0
    one, two = (load_directions(tmp_path / name / "directions.safetensors") for name in ("found", "again"))
    assert (one.vectors - two.vectors).abs().max() < 1e-6 and (one.units - two.units).abs().max() < 1e-6
    del w, scores


@pytest.mark.parametrize("batches", [7, 16])
def test_a_stopped_search_goes_on(tmp_path: Path, search: Run, batches: int) -> None:
    """Stopped within a pass of eight batches, and at the end of one."""
    sample_set(tmp_path / "samples")
    assert search(output="whole") == 0
    stop = ["--trainer.callbacks", "tests.ranks.StopAfter", "--trainer.callbacks.init_args.batches", str(batches)]
    assert search("fit", *stop) == 2
    assert not (tmp_path / "found").exists()
    assert search("fit", "--ckpt_path", "last") == 0
    one, two = (load_directions(tmp_path / name / "directions.safetensors") for name in ("whole", "found"))
    assert torch.equal(one.vectors, two.vectors) and torch.equal(one.units, two.units)
    assert one.provenance == two.provenance


def test_small_groups_take_the_direction_of_all(
    tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    w, scores = sample_set(tmp_path / "samples")
    medians = json.loads((tmp_path / "samples" / "medians.json").read_text())
    high = float(np.sort(scores[:, NAMES.index("hair_color")].numpy())[-12])
    medians["median"]["hair_color"] = high  # twelve samples are above: six or so in each of two groups
    (tmp_path / "medians.json").write_text(json.dumps(medians))
    words = ["--model.init_args.medians", str(tmp_path / "medians.json")]
    assert search("fit", *words) == 0
    assert "too few samples in" in capsys.readouterr().out
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.provenance["ungrouped"] and "ll" not in found.provenance["ungrouped"]
    plain = torch.from_numpy(svm_direction(w.numpy(), scores[:, NAMES.index("eyes")].numpy()))
    place = found.groups.names.index(found.provenance["ungrouped"][0])
    assert float(found.vectors[place, 0].double() @ plain) > 0.99
    assert search("fit", *words, "--model.init_args.small_groups", "raise") == 2
    assert "take more samples" in capsys.readouterr().err


def test_ungrouped(tmp_path: Path, search: Run) -> None:
    sample_set(tmp_path / "samples")
    assert search("fit", "--model.init_args.group_by", "[]", "--model.init_args.targets", "[mouth]") == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.vectors.shape == (1, 1, 8) and found.groups.names == ("all",)


def test_samples_that_cannot_be_searched(tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "samples"
    assert search() == 2
    assert f"{folder / 'shards'} does not exist" in capsys.readouterr().err
    sample_set(folder)
    assert search("fit", "--model.init_args.targets", "[roll]") == 2
    assert "there is no score for roll; there are eyes, hair_color" in capsys.readouterr().err
    assert search("fit", "--data.init_args.count", "2000") == 2
    assert "holds 1600 samples; expected 2000" in capsys.readouterr().err
    second = folder / "shards" / "000000500-000000999.safetensors"
    content = second.read_bytes()
    second.unlink()
    assert search() == 2
    assert "the shard that holds sample 500 is missing" in capsys.readouterr().err
    second.write_bytes(content)
    tensors = load_file(second)
    for value, message in ((torch.nan, "sample 507 has a score that is no number"), (0.5, "throughout group")):
        changed = tensors["scores"].clone()
        changed[7:8, 0] = value
        if value == 0.5:
            for part in sample_files.ranges_in(folder):
                path = sample_files.shard_path(folder, part)
                scores = load_file(path)
                scores["scores"][:, 0] = value
                sample_files.write_shard(folder, part.start, scores["w"], scores["scores"], {"outputs": list(NAMES)})
        else:
            sample_files.write_shard(folder, 500, tensors["w"], changed, {"outputs": list(NAMES)})
        assert search() == 2
        assert message in capsys.readouterr().err
    sample_files.write_shard(folder, 500, tensors["w"], tensors["scores"], {"outputs": list(NAMES), "seed": 1})
    assert search() == 2
    assert "shards of different origin" in capsys.readouterr().err
    save_file({"x": torch.zeros(1)}, second)
    assert search() == 2
    assert "not a shard of samples written by ohlora" in capsys.readouterr().err


@pytest.fixture
def tested(tmp_path: Path, weights: tuple[Path, Path], search: Run) -> Callable[..., int]:
    """Runs the image generation test with random networks and directions."""
    torch.manual_seed(0)
    for name in ("merged", "judge"):
        network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / f"{name}.safetensors")
    vectors = torch.nn.functional.normalize(torch.randn(4, 3, 8), dim=-1)
    groups = Groups(("hair_color", "hair_length"), (0.0, 0.0))
    found = Directions(("eyes", "mouth", "pose"), vectors, torch.rand(4, 3) + 0.5, groups, "svm")
    save_directions(found, tmp_path / "found" / "directions.safetensors")
    paths = {
        "generator": weights[0],
        "network": tmp_path / "merged.safetensors",
        "judge": tmp_path / "judge.safetensors",
    }
    given = options({f"model.init_args.{key}": value for key, value in paths.items()})
    return lambda *words, output="found": search("test", *given, *words, output=output)


def test_the_image_generation_test(tmp_path: Path, weights: tuple[Path, Path], tested: Run) -> None:
    assert tested() == 0
    folder = tmp_path / "found"
    rows = read_rows(folder / "test_result.csv")
    assert list(rows[0])[:8] == [
        "case", "vector_no", "passed", "group_name", "eyes_corr", "mouth_corr", "pose_corr", "sum_abs_corr",
    ]  # fmt: skip
    assert [row["case"] for row in rows] == [str(k) for k in range(5)]
    found = load_directions(folder / "directions.safetensors")
    g = network_files.load_generator(weights[0])
    search_cnn, judge = (network_files.load_attributes(tmp_path / f"{n}.safetensors") for n in ("merged", "judge"))

    def see(network: torch.nn.Module, w: torch.Tensor) -> torch.Tensor:
        return network(images.to_float(images.to_uint8(g.synthesize(Codes(w, Space.W)))))  # type: ignore[no-any-return]

    with torch.inference_mode():
        scale = see(judge, g.map(counted.normal(0, "scale/z", range(40), 8)).values).std(dim=0, correction=0)
        w = g.map(counted.normal(0, "test/z", [3], 8)).values
        group = found.groups.assign(search_cnn.outputs, see(search_cnn, w).numpy())
        strengths = Grid.of(found.attributes).strengths(found.attributes)
        codes = w + torch.einsum("ep,pd->ed", strengths, found.steps[group[0]])
        scores = see(judge, codes) / scale
    r = correlations(strengths.double(), scores[None].double())[0]
    row = rows[3]
    assert row["group_name"] == found.groups.names[group[0]]
    for p, name in enumerate(found.attributes):
        assert float(row[f"{name}_corr"]) == pytest.approx(float(r[p, judge.outputs.index(name)]), abs=2e-3)
    slope = np.polyfit(strengths[:, 1], scores[:, judge.outputs.index("mouth")], 1)[0]
    assert float(row["mouth_slope"]) == pytest.approx(slope, abs=2e-3)
    (statistics,) = read_rows(folder / "test_statistics.csv")
    mean = np.mean([float(row["pose_corr"]) for row in rows])
    assert float(statistics["pose_corr_mean"]) == pytest.approx(mean, abs=1e-4)
    assert statistics["passed"] == str(sum(row["passed"] == "O" for row in rows))
    latents = load_file(folder / "latents.safetensors")
    assert torch.allclose(latents["w"][3:4], w, atol=1e-6) and latents["group"][3] == group[0]
    sheets = sorted((folder / "sheets").iterdir())
    assert [path.name.split("_")[0] for path in sheets] == ["best", "middle", "worst"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 2 * 5 * 16 * 4
    assert len(read_rows(tmp_path / "found-stage" / "runs" / "0001" / "sheets.csv")) == 3


def test_batches_of_the_test_do_not_matter(tmp_path: Path, tested: Run) -> None:
    assert tested() == 0
    first = read_rows(tmp_path / "found" / "test_result.csv")
    where = ["--model.init_args.directions", str(tmp_path / "found" / "directions.safetensors")]
    assert tested("--data.init_args.test_batch_size", "3", *where, output="again") == 0
    second = read_rows(tmp_path / "again" / "test_result.csv")
    for a, b in zip(first, second, strict=True):
        assert float(a["eyes_corr"]) == pytest.approx(float(b["eyes_corr"]), abs=2e-3)
        assert a["group_name"] == b["group_name"]


def test_a_test_that_cannot_be_run(
    tmp_path: Path, search: Run, tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search("test") == 2
    assert "this needs generator, network, judge" in capsys.readouterr().err
    assert tested("--model.init_args.directions", str(tmp_path / "none")) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert tested("--model.init_args.grid", "{eyes: [-1, 1], mouth: [0], pose: [0, 1]}") == 2
    assert "fewer than two strengths for mouth" in capsys.readouterr().err
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("hairstyle", "small", 16).eval(), tmp_path / "judge.safetensors")
    assert tested() == 2
    assert "the judge has no output eyes, mouth, pose" in capsys.readouterr().err


# --- other methods


@pytest.mark.parametrize("method", ["mean_difference", "ridge", "random"])
def test_other_searches_over_samples(tmp_path: Path, search: Run, method: str) -> None:
    w, scores = sample_set(tmp_path / "samples")
    words = ["--model.init_args.method", method, "--model.init_args.group_by", "[]"]
    assert search("fit", *words) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.method == method and found.provenance["passes"] == 1
    along = w @ found.vectors[0].T
    r = np.corrcoef(along[:, 1], scores[:, NAMES.index("mouth")])[0, 1]
    if method == "ridge":
        joint = torch.cov(torch.cat([w, scores], dim=1).T.double(), correction=0)
        deviations = joint.diagonal()[8:].sqrt()
        gradients = ridge_gradients(joint[:8, :8], joint[:8, 8:], deviations, 1e-3)
        targets = [NAMES.index(name) for name in found.attributes]
        expected = covariance_solved(gradients, joint[:8, :8], targets)
        torch.testing.assert_close(found.steps[0].double(), expected, rtol=1e-4, atol=1e-5)
    else:
        assert r > 0.6 if method == "mean_difference" else abs(r) < 0.99
        assert float(found.units[0, 1]) == pytest.approx(float(along[:, 1].std(correction=0)), rel=1e-4)


def test_holding_fewer_attributes(tmp_path: Path, search: Run) -> None:
    sample_set(tmp_path / "samples")
    words = ["--model.init_args.method", "ridge", "--model.init_args.group_by", "[]"]
    assert search("fit", *words) == 0
    assert search("fit", *words, "--model.init_args.hold", "[hairstyle]", output="few") == 0
    all_held, few = (load_directions(tmp_path / name / "directions.safetensors") for name in ("found", "few"))
    assert not torch.allclose(all_held.vectors, few.vectors)
    assert (few.units < all_held.units).all()  # what need not be held need not be paid for


@pytest.fixture
def by_gradients(tmp_path: Path, weights: tuple[Path, Path], search: Run) -> Callable[..., int]:
    """Runs a command of the stage with random networks and no samples."""
    torch.manual_seed(0)
    for name in ("merged", "judge"):
        network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / f"{name}.safetensors")
    paths = {
        "generator": weights[0],
        "network": tmp_path / "merged.safetensors",
        "judge": tmp_path / "judge.safetensors",
    }
    given = options({f"model.init_args.{key}": value for key, value in paths.items()})
    small = {"latents": 10, "rounds": 1, "covariance_count": 50, "points": 2, "group_by": "[]", "sweep_count": 3}
    given += options({f"model.init_args.{key}": value for key, value in small.items()})
    given += ["--data.init_args.latent_batch_size", "4"]

    def run(command: str, method: str, *words: str, output: str = "found") -> int:
        return search(command, *given, "--model.init_args.method", method, *words, output=output)

    return run


def test_the_jacobian_is_a_mean_of_gradients(tmp_path: Path, weights: tuple[Path, Path], by_gradients: Run) -> None:
    assert by_gradients("fit", "jacobian") == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.vectors.shape == (1, 3, 8) and found.provenance["images"] == 10
    g = network_files.load_generator(weights[0]).requires_grad_(False)
    network = network_files.load_attributes(tmp_path / "merged.safetensors").requires_grad_(False)
    w = g.map(counted.normal(0, "search/z", range(10), 8))
    scores, gradients = score_gradients(g, network, w, range(8))
    spread = g.map(counted.normal(0, "covariance/z", range(50), 8)).values.double()
    mean = gradients.double().mean(dim=0) / scores.double().std(dim=0, correction=0)[:, None]
    targets = [NAMES.index(name) for name in found.attributes]
    expected = covariance_solved(mean, torch.cov(spread.T, correction=0), targets)
    cosines = torch.nn.functional.cosine_similarity(found.steps[0].double(), expected)
    assert (cosines > 0.9999).all()
    torch.testing.assert_close(found.steps[0].double(), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


def test_batches_and_stops_do_not_matter_to_gradients(tmp_path: Path, by_gradients: Run) -> None:
    twice = ["--model.init_args.rounds", "3", "--model.init_args.layers", "each"]
    assert by_gradients("fit", "jacobian", *twice, output="whole") == 0
    stop = ["--trainer.callbacks", "tests.ranks.StopAfter", "--trainer.callbacks.init_args.batches", "4"]
    assert by_gradients("fit", "jacobian", *twice, *stop) == 2  # in the second of three passes
    assert by_gradients("fit", "jacobian", *twice, "--ckpt_path", "last") == 0
    other = ["--data.init_args.latent_batch_size", "7", "--model.init_args.image_batch_size", "3"]
    assert by_gradients("fit", "jacobian", *twice, *other, output="other") == 0
    whole, resumed, cut = (
        load_directions(tmp_path / name / "directions.safetensors") for name in ("whole", "found", "other")
    )
    assert whole.vectors.shape == (1, 3, 6, 8) and whole.provenance == resumed.provenance
    assert torch.equal(whole.vectors, resumed.vectors)
    assert (whole.vectors - cut.vectors).abs().max() < 1e-3  # single precision, in other batches


@pytest.mark.parametrize("layers", ["[1, 3]", "sweep", "auto"])
def test_directions_on_some_layers(tmp_path: Path, by_gradients: Run, layers: str) -> None:
    assert by_gradients("fit", "jacobian", "--model.init_args.layers", layers) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    chosen = found.provenance["layers"]
    if layers == "sweep":
        assert chosen == "all" and found.vectors.shape == (1, 3, 8)
    else:
        assert found.vectors.shape == (1, 3, 6, 8)
        for p, name in enumerate(found.attributes):
            first, last = chosen[name]
            acts = found.vectors[0, p].abs().sum(dim=-1) > 0
            assert acts.tolist() == [first <= layer <= last for layer in range(6)]
    if layers != "[1, 3]":
        rows = read_rows(tmp_path / "found-stage" / "runs" / "0001" / "layers.csv")
        assert len(rows) == 3 * 21 and list(rows[0]) == [
            "attribute", "first", "last", "r", "slope", "leakage", "drift",
        ]  # fmt: skip
    assert by_gradients("test", "jacobian") == 0  # codes by layer go through the test as well


def test_layers_of_a_search_over_samples(
    tmp_path: Path, weights: tuple[Path, Path], search: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_set(tmp_path / "samples")
    words = ["--model.init_args.generator", str(weights[0]), "--model.init_args.layers"]
    assert search("fit", *words, "[4, 5]") == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.vectors.shape == (4, 3, 6, 8) and not found.vectors[:, :, :4].any()
    assert search("fit", *words, "[4, 6]") == 2
    assert "layers reach to 6; the generator has 6, 0 to 5" in capsys.readouterr().err
    assert search("fit", *words, "each") == 2
    assert "samples do not tell layers apart" in capsys.readouterr().err


def test_local_edits_become_a_character(tmp_path: Path, weights: tuple[Path, Path], by_gradients: Run) -> None:
    assert by_gradients("fit", "local") == 0
    # Two random networks agree on nothing; one that judges itself sees what it asked for.
    judged = ["--model.init_args.judge", str(tmp_path / "merged.safetensors"), "--data.init_args.test_count", "20"]
    assert by_gradients("test", "local", *judged) == 0
    folder = tmp_path / "found"
    latents = load_file(folder / "latents.safetensors")
    assert latents["steps"].shape == (20, 3, 6, 8)
    report = Report.load(folder, weights[0])
    rising = [k for k, row in enumerate(report.rows) if all(float(row[f"{n}_slope"]) > 0 for n in report.attributes)]
    place = rising[0]
    character = report.character(place)
    slope = float(report.rows[place]["mouth_slope"])
    torch.testing.assert_close(character.steps.values[1], latents["steps"][place, 1] / slope)
    character.save(tmp_path / "mina.safetensors")
    mina = Character.load(tmp_path / "mina.safetensors")
    assert mina.render(mouth=slope).size == (16, 16)
    with torch.inference_mode():
        codes = latents["w"][place] + latents["steps"][place, 1]
        expected = images.to_uint8(mina.generator.synthesize(Codes(codes[None], Space.W_BY_LAYER)))[0]
    assert np.abs(np.asarray(mina.render(mouth=slope)).astype(int) - expected).max() <= 1


def test_labels_as_edits(
    tmp_path: Path, weights: tuple[Path, Path], by_gradients: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_gradients("fit", "label") == 2
    assert "needs no search" in capsys.readouterr().err
    assert by_gradients("test", "label") == 2
    assert "the generator has no label for eyes, mouth, pose" in capsys.readouterr().err
    g, _ = tiny_networks(c_dim=7)
    network_files.save_network(g, weights[0])
    assert by_gradients("test", "label") == 0
    assert len(read_rows(tmp_path / "found" / "test_result.csv")) == 5
    with pytest.raises(ConfigError, match="label edits"):
        Report.load(tmp_path / "found", weights[0])


def test_calibrated_strengths_have_slope_one(tmp_path: Path, by_gradients: Run) -> None:
    assert by_gradients("fit", "jacobian", "--model.init_args.targets", "[eyes, mouth]") == 0
    path = tmp_path / "found" / "directions.safetensors"
    found = load_directions(path)
    save_directions(dataclasses.replace(found, units=3 * found.units), path)  # as another method's units might be
    words = ["--model.init_args.judge", str(tmp_path / "merged.safetensors"), "--data.init_args.test_count", "40"]
    words += ["--model.init_args.grid", "{mouth: [-0.03, 0, 0.03], eyes: [-0.03, 0.03]}"]
    slopes = []
    for count in ("0", "40"):
        assert by_gradients("test", "jacobian", *words, "--model.init_args.calibrate", count) == 0
        (statistics,) = read_rows(tmp_path / "found" / "test_statistics.csv")
        slopes.append([float(statistics[f"{name}_slope_mean"]) for name in ("eyes", "mouth")])
    assert min(slopes[0]) > 2 and slopes[1] == pytest.approx([1, 1], abs=0.3)
    units = load_file(tmp_path / "found" / "latents.safetensors")["units"]
    assert units.shape == (2,) and (units < 0.5).all()


def test_gradients_that_cannot_be_taken(tmp_path: Path, by_gradients: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_gradients("fit", "jacobian", "--model.init_args.group_by", "[hair_color]") == 2
    assert "set model.init_args.medians" in capsys.readouterr().err
    assert by_gradients("fit", "jacobian", "--model.init_args.hold", "[roll]") == 2
    assert "there is no score for roll" in capsys.readouterr().err
    assert by_gradients("fit", "local", "--model.init_args.layers", "auto") == 2
    assert "take each layer by itself" in capsys.readouterr().err
    network = network_files.load_attributes(tmp_path / "merged.safetensors")
    torch.nn.init.zeros_(network.get_parameter("branches.hairstyle.score.weight"))
    network_files.save_network(network, tmp_path / "merged.safetensors")
    assert by_gradients("fit", "jacobian") == 2
    assert "the same for all latents" in capsys.readouterr().err


def test_grouped_gradients(tmp_path: Path, by_gradients: Run) -> None:
    network = network_files.load_attributes(tmp_path / "merged.safetensors")
    g = network_files.load_generator(tmp_path / "weights" / "generator.safetensors")
    with torch.inference_mode():
        scores = network(g.synthesize(g.map(counted.normal(0, "search/z", range(10), 8))).clamp(-1, 1))
    (tmp_path / "medians.json").write_text(json.dumps(sample_files.statistics(NAMES, scores.numpy())))
    words = ["--model.init_args.group_by", "[hair_color]", "--model.init_args.medians", str(tmp_path / "medians.json")]
    assert by_gradients("fit", "jacobian", "--model.init_args.rounds", "2", *words) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.groups.names == ("h", "l") and not torch.allclose(found.vectors[0], found.vectors[1])


def test_a_closer_look(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parser and discriminator look at the first latents too."""
    torch.manual_seed(0)
    parser = FaceParserNetwork(CLASSES, (8, 16))
    network_files.save_network(parser.eval(), tmp_path / "parser.safetensors")
    closer = options(
        {
            "model.init_args.parser": tmp_path / "parser.safetensors",
            "model.init_args.discriminator": weights[1],
            "model.init_args.closer_count": 4,
        }
    )
    assert tested(*closer, "--data.init_args.test_batch_size", "2") == 0
    (found,) = read_rows(tmp_path / "found" / "test_statistics.csv")
    assert np.isfinite(float(found["realism_change"])) and "mouth_parsed_corr_mean" in found
    assert tested(*closer, "--data.init_args.test_batch_size", "5") == 2
    assert "in groups of 4, and test_batch_size is 5" in capsys.readouterr().err

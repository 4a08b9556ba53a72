"""The evaluation of edits, through the entry point."""

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
from safetensors.torch import load_file

from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.datamodules.latents import RankedLatents
from ohlora.directions.edits import Directions, Grid, LocalBasis, PathBasis
from ohlora.directions.finder import Notes, Source
from ohlora.directions.groups import Groups
from ohlora.directions.jacobian import Jacobian
from ohlora.errors import ConfigError
from ohlora.evaluation.edits import correlations
from ohlora.evaluation.scales import DataScale, PhysicalMap
from ohlora.evaluation.sliders import Limits, Slider
from ohlora.faces.classes import CLASSES
from ohlora.formats import network_files
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.networks.codes import Codes, Space
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.identity import Calibration, IdentityNetwork
from ohlora.networks.sampling import counted_batches
from ohlora.rules import concept
from ohlora.utils import counted, images
from ohlora.utils.files import read_rows
from tests.conftest import tiny_networks
from tests.networks.test_identity import tiny as tiny_identity
from tests.onnx_files import write_network
from tests.toy_tables import lively_cnn, options

Run = Callable[..., int]
EDITED = ("eyes", "mouth", "pose")


@pytest.fixture
def tested(tmp_path: Path, weights: tuple[Path, Path], ohlora: Run) -> Callable[..., int]:
    """Evaluates directions of random networks; settings of the stage are keywords, None is null.

    The identity network takes everyone for the same person.
    """
    network_files.save_network(recogniser(0.0, 9.0), tmp_path / "identity.safetensors")
    for seed, name in enumerate(("merged", "judge")):
        network_files.save_network(lively_cnn(weights[0], seed), tmp_path / f"{name}.safetensors")
    vectors = torch.nn.functional.normalize(torch.randn(4, 3, 8), dim=-1)
    groups = Groups(("hair_color", "hair_length"), (0.0, 0.0))
    save_directions(Directions(EDITED, vectors, torch.rand(4, 3) + 0.5, groups, "svm"), tmp_path / "d.safetensors")
    paths: dict[str, Any] = {
        "generator": weights[0],
        "network": tmp_path / "merged.safetensors",
        "judge": tmp_path / "judge.safetensors",
        "directions": tmp_path / "d.safetensors",
        "identity": json.dumps({"file": str(tmp_path / "identity.safetensors")}),
    }

    def run(*words: str, output: str = "found", **settings: Any) -> int:
        given = {**paths, **settings, "output": tmp_path / output}
        said = options({f"model.init_args.{k}": "null" if v is None else v for k, v in given.items()})
        return ohlora("test", "evaluation", *said, *words, stage_dir=tmp_path / f"{output}-stage")

    return run


def recogniser(scale: float, bias: float) -> IdentityNetwork:
    """A random identity network of 16×16 images with a calibration."""
    network = tiny_identity()
    network.calibration.load_state_dict(Calibration(scale, bias).state_dict())
    return network


def test_the_evaluation_of_edits(tmp_path: Path, weights: tuple[Path, Path], tested: Run) -> None:
    assert tested() == 0
    folder = tmp_path / "found"
    rows = read_rows(folder / "test_result.csv")
    assert list(rows[0])[:8] == [
        "case", "vector_no", "passed", "group_name", "eyes_corr", "mouth_corr", "pose_corr", "sum_abs_corr",
    ]  # fmt: skip
    assert [row["case"] for row in rows] == [str(k) for k in range(5)]
    found = load_directions(tmp_path / "d.safetensors")
    g = network_files.load_generator(weights[0])
    search_cnn, judge = (network_files.load_attributes(tmp_path / f"{n}.safetensors") for n in ("merged", "judge"))

    def see(network: torch.nn.Module, w: torch.Tensor) -> torch.Tensor:
        return network(images.to_float(images.to_uint8(g.synthesize(Codes(w, Space.W)))))  # type: ignore[no-any-return]

    with torch.inference_mode():
        w = g.map(counted.normal(0, "test/z", [3], 8)).values
        group = found.groups.assign(search_cnn.outputs, see(search_cnn, w).numpy())
        strengths = Grid.of(found.attributes).strengths(found.attributes)
        codes = w + torch.einsum("ep,pd->ed", strengths, found.steps.values[group[0]])
        scores = see(judge, codes)
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
    assert statistics["passed"] == str(sum(row["passed"] == "true" for row in rows))
    latents = load_file(folder / "latents.safetensors")
    assert torch.allclose(latents["codes"][3:4], w, atol=1e-6) and latents["group"][3] == group[0]
    assert {row["passed"] for row in rows} <= {"true", "false"}
    # What characters are calibrated from is not rounded.
    for what in ("corr", "slope", "leakage"):
        assert latents[what].dtype == torch.float64 and latents[what].shape == (5, 3)
        table = np.array([[float(row[f"{name}_{what}"]) for name in EDITED] for row in rows])
        assert np.abs(latents[what].numpy() - table).max() <= 5.1e-5 and (latents[what].numpy() != table).any()
    sheets = sorted((folder / "sheets").iterdir())
    assert [path.name.split("_")[0] for path in sheets] == ["best", "middle", "worst"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 2 * 5 * 16 * 4
    assert len(read_rows(tmp_path / "found-stage" / "runs" / "0001" / "edits.csv")) == 3


def test_batches_do_not_matter(tmp_path: Path, tested: Run) -> None:
    assert tested() == 0 and tested("--data.init_args.batch_size", "3", output="again") == 0
    first, second = (read_rows(tmp_path / name / "test_result.csv") for name in ("found", "again"))
    for a, b in zip(first, second, strict=True):
        assert float(a["eyes_corr"]) == pytest.approx(float(b["eyes_corr"]), abs=2e-3)
        assert a["group_name"] == b["group_name"]


def test_what_cannot_be_evaluated(tmp_path: Path, tested: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert tested(directions=tmp_path / "none") == 2
    assert "none does not exist" in capsys.readouterr().err
    assert tested(directions=None) == 2
    assert "expected one of them" in capsys.readouterr().err
    assert tested(grid="{eyes: [-1, 1], mouth: [0], pose: [0, 1]}") == 2
    assert "fewer than two strengths for mouth" in capsys.readouterr().err
    other = Directions(EDITED, torch.ones(1, 3, 5), torch.ones(1, 3), Groups(), "svm")
    save_directions(other, tmp_path / "other.safetensors")
    assert tested(directions=tmp_path / "other.safetensors") == 2
    assert "other.safetensors is for another generator: codes in w have shape (3, 5)" in capsys.readouterr().err
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("hairstyle", "small", 16).eval(), tmp_path / "judge.safetensors")
    assert tested() == 2
    assert "the judge has no output eyes, mouth, pose" in capsys.readouterr().err


@pytest.mark.parametrize("space", [Space.W_BY_LAYER, Space.S])
def test_other_spaces_become_characters_too(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, space: Space
) -> None:
    g = network_files.load_generator(weights[0])
    shape = (g.num_ws, g.w_dim) if space is Space.W_BY_LAYER else (sum(g.style_sizes),)
    torch.manual_seed(1)
    steps = Codes(torch.randn(1, 3, *shape) / 10, space)
    save_directions(Directions.of_steps(EDITED, steps, Groups(), "made"), tmp_path / "d.safetensors")
    assert tested("--data.init_args.count", "24", leakage_limit=99) == 0
    report = Report.load(tmp_path / "found")  # which remembers generator and directions
    moving = (report.measured["slope"] > 0).all(dim=1) & (report.ranges[..., 0] < report.ranges[..., 1]).all(dim=1)
    rising = moving.nonzero().flatten().tolist()
    character = widened(report.character(rising[0]))
    assert character.steps.shifts.space is space
    with torch.inference_mode():
        start = g.in_space(g.map(counted.normal(0, "test/z", [rising[0]], 8)), space).values
        expected = images.to_uint8(g.synthesize(Codes(start + steps.values[0, 1], space)))[0]
    mouth = float(report.measured["slope"][rising[0], 1])
    assert np.abs(np.asarray(character.render(mouth=mouth)).astype(int) - expected).max() <= 1


def widened(character: Character) -> Character:
    """A face of a random network hardly moves within its range: without one, so that strengths are not clamped."""
    return dataclasses.replace(character, ranges=dict.fromkeys(EDITED, (-9.0, 9.0)))


def basis(layers: int) -> LocalBasis:
    """A start for local edits of the tiny generator."""
    torch.manual_seed(3)
    names = (*EDITED, "hairstyle")
    low, high = torch.tensor([-1.2, -1.8, -0.6]), torch.tensor([1.2, 1.8, 1.8])
    gradients, covariance = torch.randn(4, layers, 8, dtype=torch.double), torch.eye(8, dtype=torch.double)
    return LocalBasis(names, gradients, covariance, torch.ones(4, dtype=torch.double), 2, 2, 0.8, low, high, 0)


def test_local_edits_become_a_character(tmp_path: Path, weights: tuple[Path, Path], tested: Run) -> None:
    found = load_directions(tmp_path / "d.safetensors")
    one = Directions(EDITED, found.vectors[:1], found.units[:1], Groups(), "local", basis=basis(6))
    save_directions(one, tmp_path / "d.safetensors")
    # Two random networks agree on nothing; one that judges itself sees what it asked for.
    settings = {"judge": tmp_path / "merged.safetensors", "leakage_limit": 99}
    assert tested("--data.init_args.count", "20", **settings) == 0
    folder = tmp_path / "found"
    latents = load_file(folder / "latents.safetensors")
    assert latents["steps"].shape == (20, 3, 6, 8)
    report = Report.load(folder)
    moving = (report.measured["slope"] > 0).all(dim=1) & (report.ranges[..., 0] < report.ranges[..., 1]).all(dim=1)
    place = int(moving.nonzero()[0])
    character = report.character(place)
    exact = latents["ranges"][place] * report.measured["slope"][place][:, None]
    assert [list(ends) for ends in character.ranges.values()] == exact.tolist()
    character = widened(character)
    slope = float(latents["slope"][place, 1])
    torch.testing.assert_close(character.steps.shifts.values[0, 1], latents["steps"][place, 1] / slope)
    character.save(tmp_path / "mina.safetensors")
    mina = Character.load(tmp_path / "mina.safetensors")
    assert mina.render(mouth=slope).size == (16, 16)
    with torch.inference_mode():
        codes = latents["codes"][place] + latents["steps"][place, 1]
        expected = images.to_uint8(mina.generator.synthesize(Codes(codes[None], Space.W_BY_LAYER)))[0]
    assert np.abs(np.asarray(mina.render(mouth=slope)).astype(int) - expected).max() <= 1


def test_paths_become_a_character(tmp_path: Path, weights: tuple[Path, Path], tested: Run) -> None:
    found = load_directions(tmp_path / "d.safetensors")
    low, high = torch.full((3,), -0.1), torch.full((3,), 0.1)  # a random network's scores hardly vary
    mean, covariance = torch.zeros(4, 6, 8), torch.eye(8, dtype=torch.double)
    start = PathBasis((*EDITED, "hairstyle"), mean, covariance, low, high, 3, 0.1, 0.05, 0.5, 1.0, 1.0, 0)
    one = Directions(EDITED, found.vectors[:1], found.units[:1], Groups(), "paths", basis=start)
    save_directions(one, tmp_path / "d.safetensors")
    settings = {"judge": tmp_path / "merged.safetensors", "leakage_limit": 99}
    assert tested("--data.init_args.count", "12", **settings) == 0
    latents = load_file(tmp_path / "found" / "latents.safetensors")
    assert latents["steps"].shape == (12, 3, 7, 6, 8) and latents["nodes"].shape == (12, 3, 7)
    assert bool((latents["nodes"].diff(dim=2) > 0).all()) and not latents["nodes"][:, :, 3].any()
    report = Report.load(tmp_path / "found")
    moving = (report.measured["slope"] > 0).all(dim=1) & (report.ranges[..., 0] < report.ranges[..., 1]).all(dim=1)
    place = int(moving.nonzero()[0])
    mina = widened(report.character(place))
    assert mina.steps.nodes is not None
    slopes = latents["slope"][place][:, None]
    torch.testing.assert_close(mina.steps.nodes[0], latents["nodes"][place] * slopes)
    mina.save(tmp_path / "mina.safetensors")
    mina = Character.load(tmp_path / "mina.safetensors")
    assert mina.steps.nodes is not None
    with torch.inference_mode():
        for node in (0, 5):
            codes = latents["codes"][place] + latents["steps"][place, 1, node]
            expected = images.to_uint8(mina.generator.synthesize(Codes(codes[None], Space.W_BY_LAYER)))[0]
            seen = np.asarray(mina.render(mouth=float(mina.steps.nodes[0, 1, node]))).astype(int)
            assert np.abs(seen - expected).max() <= 1


def test_labels_as_edits(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"directions": None, "labels": "[eyes, mouth, pose]"}
    assert tested(**labels) == 2
    assert "the generator has no label for eyes, mouth, pose" in capsys.readouterr().err
    network_files.save_network(tiny_networks(c_dim=3)[0], weights[0])
    assert tested(**labels) == 2
    assert "the generator takes 3 label values, and " in capsys.readouterr().err
    g, _ = tiny_networks(c_dim=7)
    network_files.save_network(g, weights[0])
    assert tested(**labels) == 0
    assert len(read_rows(tmp_path / "found" / "test_result.csv")) == 5
    with pytest.raises(ConfigError, match="label edits"):
        Report.load(tmp_path / "found", weights[0])


def test_calibrated_strengths_have_slope_one(tmp_path: Path, weights: tuple[Path, Path], tested: Run) -> None:
    g = network_files.load_generator(weights[0]).requires_grad_(False)
    network = network_files.load_attributes(tmp_path / "merged.safetensors").requires_grad_(False)
    finder = Jacobian(latents=10, rounds=1, covariance_count=50, targets=["eyes", "mouth"])
    found = finder.find(Source(generator=g, network=network), Notes())
    save_directions(dataclasses.replace(found, units=3 * found.units), tmp_path / "d.safetensors")
    words = ["--data.init_args.count", "40"]
    settings = {"judge": tmp_path / "merged.safetensors", "grid": "{mouth: [-0.03, 0, 0.03], eyes: [-0.03, 0.03]}"}
    slopes = []
    for count in (0, 40):
        assert tested(*words, **settings, calibrate=count) == 0
        (statistics,) = read_rows(tmp_path / "found" / "test_statistics.csv")
        slopes.append([float(statistics[f"{name}_slope_mean"]) for name in ("eyes", "mouth")])
    assert min(slopes[0]) > 2 and slopes[1] == pytest.approx([1, 1], abs=0.3)
    units = load_file(tmp_path / "found" / "latents.safetensors")["units"]
    assert units.shape == (2,) and (units < 0.5).all()


def test_latents_outside_the_concept_are_told_apart(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of five are, by a filter that the judge knows nothing of; ``test_conditions`` has what follows from it."""
    g = network_files.load_generator(weights[0])
    gender = AttributeEnsemble.of([attribute_cnn("gender", "small", 16).eval() for _ in range(2)])
    with torch.no_grad():
        w = g.map(counted.normal(0, "test/z", range(5), 8))
        pictures = images.to_float(images.to_uint8(g.synthesize(w)))
        for member in gender.members:
            member.get_parameter("branches.gender.score.weight").mul_(1e3)
        order = gender.logits(pictures)[:, 0].sort().values
        for member in gender.members:  # the rule's limit between the second and the third
            member.get_parameter("branches.gender.score.bias").sub_((order[1] + order[2]) / 2)
    network_files.save_network(gender, tmp_path / "gender.safetensors")
    rules = {rule.attribute: rule for rule in concept()}
    expected = rules["gender"].holds(gender(pictures)[:, 0].detach().numpy())
    assert 0 < expected.sum() < 5
    settings = {"concept": f"[{tmp_path / 'gender.safetensors'}]"}
    assert tested(**settings) == 0
    rows = read_rows(tmp_path / "found" / "test_result.csv")
    assert [row["in_concept"] == "true" for row in rows] == expected.tolist()
    (statistics,) = read_rows(tmp_path / "found" / "test_statistics.csv")
    assert float(statistics["in_concept_ratio"]) == expected.mean()
    for wrong, said in (("merged", "which is not what the concept asks for"), ("gender", "and so does")):
        twice = f"[{tmp_path / 'gender.safetensors'}, {tmp_path / wrong}.safetensors]"
        assert tested(**settings | {"concept": twice}) == 2
        assert said in capsys.readouterr().err


def test_a_closer_look(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parser and discriminator look at the first latents too."""
    torch.manual_seed(0)
    parser = FaceParserNetwork(CLASSES, (8, 16))
    network_files.save_network(parser.eval(), tmp_path / "parser.safetensors")
    closer = {"parser": tmp_path / "parser.safetensors", "discriminator": weights[1], "closer_count": 4}
    assert tested(**closer) == 0
    (found,) = read_rows(tmp_path / "found" / "test_statistics.csv")
    assert np.isfinite(float(found["realism_change"])) and "mouth_parsed_corr_mean" in found
    assert tested("--data.init_args.batch_size", "5", **closer) == 2
    assert "in groups of 4, and data.init_args.batch_size is 5" in capsys.readouterr().err


# --- sliders


WORLD = """
base: celeba256
attributes:
  eyes:
    meaning: eyes opened wider
    kind: score
    roles: [label, expression]
    parsing: eyes
    windows: [[3/8, 9/16, 1/4, 3/4]]
    grid: [-1.2, 1.2]
    limit: 0.92
    physical: {column: eye_opening, unit: 0 closed … 1 wide}
    reach: {low: 0.1, high: 0.9}
  pose:
    meaning: head turned to the image's right
    kind: score
    roles: [label, expression]
    parsing: pose
    windows: [[7/16, 5/8, 11/32, 21/32]]
    grid: [-0.6, 0, 0.6, 1.2, 1.8]
    limit: 0.88
    reach: {low: 0, high: 0.001}
"""
SCALES = {
    "eyes": DataScale(-2, 2, PhysicalMap("eye_opening", "0 closed … 1 wide", (-2.0, 2.0), (0.0, 1.0))),
    "pose": DataScale(-1, 1),
}


@pytest.fixture
def with_scales(tmp_path: Path, tested: Run) -> Callable[..., int]:
    """Evaluates in a world that asks sliders to reach something, with a judge that knows its data."""
    (tmp_path / "mine.yaml").write_text(WORLD)
    judge = network_files.load_attributes(tmp_path / "judge.safetensors")
    told = {"data": {name: scale.described() for name, scale in SCALES.items()}}
    network_files.save_network(judge, tmp_path / "judge.safetensors", told)
    return lambda *words, **settings: tested("--world", str(tmp_path / "mine.yaml"), *words, **settings)


def test_sliders_say_how_far_edits_go(tmp_path: Path, weights: tuple[Path, Path], with_scales: Run) -> None:
    settings = {"slider": 2.0, "slider_frames": 4, "joint_count": 5, "leakage_limit": 9, "growth_limit": 0}
    assert with_scales("--data.init_args.count", "12", **settings) == 0
    folder = tmp_path / "found"
    rows, (statistics,) = read_rows(folder / "test_result.csv"), read_rows(folder / "test_statistics.csv")
    assert list(rows[0])[8:13] == ["good", "eyes_reached", "pose_reached", "same_person", "eyes_slope"]
    latents = load_file(folder / "latents.safetensors")
    found = load_directions(tmp_path / "d.safetensors")
    g = network_files.load_generator(weights[0])
    judge = network_files.load_attributes(tmp_path / "judge.safetensors")
    levels = np.linspace(-2, 2, 9)
    own = judge.outputs.index("eyes")

    def curve(case: int) -> np.ndarray:
        step = found.steps.values[latents["group"][case], 0]
        with torch.inference_mode():
            codes = latents["codes"][case] + torch.from_numpy(levels)[:, None].float() * step
            made = images.rounded(g.synthesize(Codes(codes, Space.W)))
            return judge(made).double().numpy()  # type: ignore[no-any-return]

    for case, row in enumerate(rows):
        scores = curve(case)
        slider = Slider(levels, scores, own, None, np.zeros(8))
        low, high = slider.tested_range(Limits(0, 9), float(latents["slope"][case, 0]))
        assert latents["ranges"][case, 0].tolist() == [levels[low], levels[high]]
        assert [float(row[f"eyes_range_{end}"]) for end in ("low", "high")] == [levels[low], levels[high]]
        measured = slider.measures(low, high)
        for what in ("lowest", "highest", "saturation", "jump"):
            assert float(row[f"eyes_{what}"]) == pytest.approx(measured[what], abs=2e-3)
        covered = SCALES["eyes"].covered(measured["lowest"], measured["highest"])
        assert float(row["eyes_reach"]) == pytest.approx(covered, abs=1e-3)
        opening = [np.clip((measured[what] + 2) / 4, 0, 1) for what in ("lowest", "highest")]
        assert [float(row[f"eye_opening_{what}"]) for what in ("lowest", "highest")] == pytest.approx(opening, abs=1e-3)
        assert row["eyes_reached"] == str(opening[0] <= 0.1 and opening[1] >= 0.9).lower()
        pose = [float(row[f"pose_{what}"]) for what in ("lowest", "highest")]
        assert row["pose_reached"] == str(pose[0] <= 0 and pose[1] >= 0.001).lower()  # in z-scores
        assert row["good"] == str(row["passed"] == row["eyes_reached"] == row["pose_reached"] == "true").lower()
        assert -1 <= float(row["mouth_joint_corr"]) <= 1 and float(row["mouth_joint_error"]) >= 0
    assert "mouth_reach" not in rows[0] and "eyes_density" not in rows[0]
    reached = [row["pose_reached"] == "true" for row in rows]
    assert (
        float(statistics["pose_reached_ratio"]) == pytest.approx(np.mean(reached), abs=1e-4) and 0 < sum(reached) < 12
    )
    assert float(statistics["eyes_reach_mean"]) == pytest.approx(
        np.mean([float(r["eyes_reach"]) for r in rows]), abs=1e-4
    )
    run = tmp_path / "found-stage" / "runs" / "0001"
    table = read_rows(run / "sliders.csv")
    assert len(table) == 3 * 9 and list(table[0])[:5] == ["attribute", "strength", "p10", "mean", "p90"]
    eyes = np.array([curve(case)[:, own] for case in range(12)])
    assert [float(row["mean"]) for row in table[:9]] == pytest.approx(eyes.mean(axis=0), abs=2e-3)
    assert [path.stem.split("-")[0] for path in (run / "pictures").glob("sliders*")] == ["sliders"]


def test_batches_do_not_matter_to_sliders(tmp_path: Path, with_scales: Run) -> None:
    assert with_scales() == 0
    assert with_scales("--data.init_args.batch_size", "3", output="again", image_batch_size=11) == 0
    first, second = (load_file(tmp_path / name / "latents.safetensors")["ranges"] for name in ("found", "again"))
    assert (first == second).double().mean() > 0.8  # images may differ by a grey level
    rows = [read_rows(tmp_path / name / "test_result.csv") for name in ("found", "again")]
    errors = [abs(float(a["eyes_joint_error"]) - float(b["eyes_joint_error"])) for a, b in zip(*rows, strict=True)]
    assert np.median(errors) < 1e-2


def test_the_pass_rate_is_the_original_s_whatever_sliders_do(tmp_path: Path, with_scales: Run) -> None:
    assert with_scales() == 0 and with_scales(slider=0.5, slider_frames=2, output="short") == 0
    one, other = (read_rows(tmp_path / name / "test_result.csv") for name in ("found", "short"))
    same = ("passed", "eyes_corr", "mouth_slope", "pose_leakage", "drift_hairstyle")
    assert [[row[key] for key in same] for row in one] == [[row[key] for key in same] for row in other]


def test_what_a_judge_does_not_tell_is_said(
    tmp_path: Path, with_scales: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = tmp_path / "judge.safetensors"
    network_files.save_network(network_files.load_attributes(judge), judge)
    limits = "{eyes: -1, mouth: -1, pose: -1}"
    assert with_scales("--data.init_args.count", "12", limits=limits, leakage_limit=9, growth_limit=0) == 0
    said = capsys.readouterr().out
    assert f"{judge} does not tell the range of its data: the share that eyes, mouth, pose reach is left out" in said
    assert f"{judge} was trained on no table with eye_opening: physical values of eyes are left out" in said
    assert "realism is not measured, since model.init_args.reals names no real images" in said
    assert "eyes_reached cannot be known, so that no latent is known to be good; train the judge anew" in said
    rows, (statistics,) = (read_rows(tmp_path / "found" / f"test_{name}.csv") for name in ("result", "statistics"))
    assert {row["eyes_reached"] for row in rows} == {""} and {row["passed"] for row in rows} == {"true"}
    assert {(row["pose_reached"], row["good"]) for row in rows} == {("true", ""), ("false", "false")}
    assert "good_ratio" not in statistics and "eyes_reached_ratio" not in statistics
    assert 0 < float(statistics["pose_reached_ratio"]) < 1


def test_realism_is_that_of_real_images(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the real images are the generator's own, so that unedited ones are as real as any."""
    g = network_files.load_generator(weights[0])
    made = torch.cat([image for image, _ in counted_batches(g, 7, range(160), 40, noise_mode="const")])
    for k, picture in enumerate(images.to_uint8(made)):
        images.save_png(picture, tmp_path / "real" / f"{k}.png")
    data = {"class_path": "ohlora.datamodules.images.Images"}
    settings = {"resolution": 16, "folder": str(tmp_path / "real")}
    reals = {"reals": json.dumps(data | {"init_args": settings}), "real_count": 80, "unedited_count": 160}
    assert tested(**reals) == 0
    rows, (statistics,) = (read_rows(tmp_path / "found" / f"test_{name}.csv") for name in ("result", "statistics"))
    assert float(statistics["real_density"]) == pytest.approx(1, abs=0.4)
    assert float(statistics["unedited_density"]) == pytest.approx(1, abs=0.4)
    for row in rows:
        assert row["realistic"] == str(min(float(row[f"{name}_density"]) for name in EDITED) >= 0.5).lower()
        assert row["good"] == str(row["passed"] == row["realistic"] == "true").lower()
    assert float(statistics["joint_density_mean"]) == pytest.approx(
        np.mean([float(row["joint_density"]) for row in rows]), abs=1e-4
    )
    ratio = np.mean([row["realistic"] == "true" for row in rows])
    assert float(statistics["realistic_ratio"]) == pytest.approx(ratio)
    capsys.readouterr()
    other = {"class_path": "ohlora.datamodules.drawn_faces.DrawnFaces", "init_args": {"resolution": 32}}
    assert tested(**reals | {"reals": json.dumps(other), "real_count": 10}) == 2
    assert "the real images have 32×32 pixels, and the generator makes 16×16" in capsys.readouterr().err
    assert tested(**reals | {"real_count": 5}) == 2
    assert "real_count is 5; expected at least 6" in capsys.readouterr().err


def test_latents_are_brought_to_rest(
    tmp_path: Path, weights: tuple[Path, Path], with_scales: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is tested, touched up and made a character starts from there."""
    world = WORLD.replace("reach: {low: 0.1, high: 0.9}", "rest: 0.6").replace(
        "reach: {low: 0,", "rest: 0.2\n    reach: {low: 0,"
    )
    (tmp_path / "mine.yaml").write_text(world)
    searching = network_files.load_attributes(tmp_path / "merged.safetensors")
    rest = {"rest": "{hold: 0, likely: 0, damping: 0.01}", "leakage_limit": 99}
    rest |= {"limits": "{eyes: -1, mouth: -1, pose: -1}", "growth_limit": 0}
    assert with_scales(**rest) == 2
    assert "merged.safetensors was trained on no table with eye_opening" in capsys.readouterr().err
    told = {"data": {name: scale.described() for name, scale in SCALES.items()}}
    network_files.save_network(searching, tmp_path / "merged.safetensors", told)
    local = Directions(EDITED, torch.randn(1, 3, 8), torch.ones(1, 3), Groups(), "local", basis=basis(6))
    save_directions(local, tmp_path / "d.safetensors")
    rest["judge"] = tmp_path / "merged.safetensors"
    some = ("--data.init_args.count", "20")
    assert with_scales(*some, **rest) == 0 and with_scales(*some, output="chance", **rest | {"rest": None}) == 0
    generator = network_files.load_generator(weights[0])
    own = [searching.outputs.index(name) for name in ("eyes", "pose")]
    errors = {}
    for name in ("found", "chance"):
        latents = load_file(tmp_path / name / "latents.safetensors")
        with torch.inference_mode():
            seen = searching(generator.synthesize(Codes(latents["codes"], Space.W)).clamp(-1, 1))[:, own]
        errors[name] = (seen - torch.tensor([0.4, 0.2])).abs().mean()  # 0.6 open is a z-score of 0.4
    assert errors["found"] < 0.3 * errors["chance"]
    assert with_scales("--data.init_args.count", "6", "--data.init_args.batch_size", "5", output="five", **rest) == 0
    by_size = [load_file(tmp_path / name / "latents.safetensors")["codes"] for name in ("found", "five")]
    assert torch.equal(by_size[0][:6], by_size[1]), "the size of a batch must not show"
    report, chance = (Report.load(tmp_path / name) for name in ("found", "chance"))
    assert torch.equal(report.z, chance.z)
    with torch.inference_mode():
        start = searching(images.rounded(generator.synthesize(report.codes)))[:, own[1]].tolist()
    for row, score in zip(report.rows, start, strict=True):  # below and above what is there at rest
        below = SCALES["pose"].covered(float(row["pose_lowest"]), score)
        assert float(row["pose_reach_below"]) == pytest.approx(below, abs=2e-3)
        assert float(row["pose_start"]) == pytest.approx(score, abs=2e-3)
        assert float(row["eye_opening_start"]) == pytest.approx(
            float(np.clip(float(row["eyes_start"]) / 4 + 0.5, 0, 1)), abs=1e-3
        )
    capsys.readouterr()
    assert with_scales(output="still", **rest | {"rest": "{steps: 1, longest: 0.001}"}) == 0
    judged = [
        {name: float(row[f"{name}_start"]) for name in SCALES}
        for row in read_rows(tmp_path / "still" / "test_result.csv")
    ]
    away = sum(abs(of["eyes"] - 0.4) > 0.6 or abs(of["pose"] - 0.2) > 0.6 for of in judged)
    assert (
        away
        and f"{away} of 5 latents did not come to rest: the judge's score of eyes, pose is" in capsys.readouterr().out
    )
    again = ("--data.class_path", "RankedLatents", "--data.init_args.report", str(tmp_path / "found"))
    assert with_scales(*again, output="again", **rest) == 2
    assert "start as they did there; set model.init_args.rest to null" in capsys.readouterr().err
    touched = ("--model.init_args.touch_up", "{steps: 3, edits: 2, nodes: 2}")
    assert with_scales(*again, *touched, output="again", **rest | {"rest": None}) == 0
    ranked = report.ranked()
    tested_again = Report.load(tmp_path / "again")
    for place, row in enumerate(tested_again.rows):
        assert torch.equal(tested_again.codes.values[place], report.codes.values[report.place_of(int(row["case"]))])
    assert [int(row["case"]) for row in tested_again.rows] == sorted(int(report.rows[k]["case"]) for k in ranked[:5])
    mina = tested_again.character(0)
    assert torch.equal(mina.code.values[0], tested_again.codes.values[0])
    other, _ = tiny_networks(seed=5)
    network_files.save_network(other, tmp_path / "other.safetensors")
    settings = rest | {"rest": None, "generator": tmp_path / "other.safetensors"}
    assert with_scales(*again, output="again", **settings) == 2
    assert "is not the generator that" in capsys.readouterr().err
    assert with_scales(output="labels", **rest | {"directions": None, "labels": "[eyes]"}) == 2
    assert "rest moves codes, which are made anew for every label" in capsys.readouterr().err


def test_the_best_are_touched_up_and_tested_again(tmp_path: Path, tested: Run, capsys: Any) -> None:
    found = load_directions(tmp_path / "d.safetensors")
    local = Directions(EDITED, found.vectors[:1], found.units[:1], Groups(), "local", basis=basis(6))
    save_directions(local, tmp_path / "d.safetensors")
    limits = "{eyes: 0.1, mouth: 0.1, pose: 0.1}"
    settings = {"judge": tmp_path / "merged.safetensors", "leakage_limit": 99, "limits": limits}  # as above
    assert tested("--data.init_args.count", "20", **settings) == 0
    first = Report.load(tmp_path / "found")
    ranked = [int(first.rows[place]["case"]) for place in first.ranked()]
    assert len(ranked) > 1
    again = ("--data.class_path", "RankedLatents", "--data.init_args.report", str(tmp_path / "found"))
    some = ("--data.init_args.count", "2", *(f"--model.init_args.touch_up.{k}={v}" for k, v in
            {"steps": 4, "edits": 2, "nodes": 2, "rate": 0.5}.items()))  # fmt: skip
    assert tested(*again, *some, output="again", **settings) == 0
    report = Report.load(tmp_path / "again")
    assert [int(row["case"]) for row in report.rows] == sorted(ranked[:2])
    tensors = load_file(tmp_path / "again" / "latents.safetensors")
    assert tensors["nodes"].shape == (2, 3, 5) and not tensors["steps"][:, :, 2].any()
    straight = first.steps.part(first.place_of(ranked[0]))
    place = report.place_of(ranked[0])
    assert torch.allclose(report.codes.values[place], first.codes.values[first.place_of(ranked[0])])
    reached = straight.at(torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64))
    assert not torch.allclose(report.steps.part(place).at(torch.tensor([[[1.0, 0.0, 0.0]]])), reached, atol=1e-3)
    assert len(list((tmp_path / "again" / "sheets").iterdir())) == 3
    assert tested(*again, *some, output="scaled", calibrate=6, **settings) == 0
    scaled = load_file(tmp_path / "scaled" / "latents.safetensors")
    assert torch.equal(scaled["steps"], tensors["steps"]) and not torch.allclose(scaled["units"], torch.ones(3))
    data = RankedLatents(str(tmp_path / "found"), count=2)
    untested = [case for case in range(20) if case not in ranked[:2]]
    assert data.others(6) == untested[:6] and data.others(99) == untested
    loose = settings | {"limits": "{eyes: -1, mouth: -1, pose: -1}", "calibrate": 1}
    assert tested("--data.init_args.count", "1", output="few", **loose) == 0
    few = (*again[:-1], str(tmp_path / "few"))
    assert tested(*few, *some, output="again_few", **loose) == 2
    assert "none is left to scale strengths on" in capsys.readouterr().err
    assert tested(*again, *some, output="other", seed=1, **settings) == 2
    assert "ranks other latents" in capsys.readouterr().err
    assert tested(*some, output="labels", directions=None, labels="[eyes]") == 2
    assert "touch_up trains what directions add" in capsys.readouterr().err


# --- identity


def test_identity_is_judged(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    network = recogniser(100.0, -95.0)
    network_files.save_network(network, tmp_path / "identity.safetensors")
    settings: dict[str, Any] = {"slider": 2.0, "slider_frames": 4, "joint_count": 5, "leakage_limit": 9}
    settings |= {"growth_limit": 0}
    settings |= {"limits": "{eyes: -1, mouth: -1, pose: -1}"}
    assert tested("--data.init_args.count", "12", **settings) == 0
    folder = tmp_path / "found"
    rows, (statistics,) = (read_rows(folder / f"test_{name}.csv") for name in ("result", "statistics"))
    latents, found = load_file(folder / "latents.safetensors"), load_directions(tmp_path / "d.safetensors")
    g, levels = network_files.load_generator(weights[0]), torch.linspace(-2, 2, 9)
    ended = 0
    for case, row in enumerate(rows):
        low, high = latents["ranges"][case, 1].tolist()
        with torch.inference_mode():
            codes = latents["codes"][case] + levels[:, None] * found.steps.values[latents["group"][case], 1]
            made = images.rounded(g.synthesize(Codes(codes, Space.W)))
            kept = network.same_person(made[[4] * 9], made)
        within = (levels >= low) & (levels <= high)
        assert float(kept[within].min()) >= 0.9 and float(row["mouth_range_low"]) == low
        ended += low > -2 and float(kept[int((levels == low).nonzero()) - 1]) < 0.9
        assert float(row["mouth_identity_min"]) == pytest.approx(float(kept[within].min()), abs=2e-3)
        assert float(row["mouth_identity"]) == pytest.approx(float(kept[within].mean()), abs=2e-3)
        assert row["same_person"] == row["good"] == "true"
        assert 0 < float(row["joint_identity_min"]) <= float(row["joint_identity"]) <= 1
    assert 0 < ended < 12, "the limit ends some sliders"
    assert float(statistics["same_person_ratio"]) == float(statistics["good_ratio"]) == 1
    assert float(statistics["mouth_identity_min_mean"]) >= 0.9
    run = tmp_path / "found-stage" / "runs" / "0001"
    pictures = {path.stem.split("-")[0] for path in (run / "pictures").iterdir()}
    assert {"sliders", "identity", "change_and_identity"} <= pictures
    change = read_rows(run / "change_and_identity.csv")
    assert [*change[0]] == ["identity_lost", *EDITED] and float(change[0]["mouth"]) <= float(change[-1]["mouth"])
    table = np.array([float(row["mouth"]) for row in change])
    area = np.mean((table[1:] + table[:-1]) / 2)
    assert float(statistics["mouth_change_area_mean"]) == pytest.approx(area, abs=2e-3)
    assert "mouth_identity_min" in read_rows(run / "edits.csv")[0]
    # Sliders may also go on where identity is lost.
    assert tested("--data.init_args.count", "12", output="on", identity_ends_sliders=False, **settings) == 0
    on = read_rows(tmp_path / "on" / "test_result.csv")
    assert any(float(a["mouth_range_low"]) < float(b["mouth_range_low"]) for a, b in zip(on, rows, strict=True))
    assert all(
        (min(float(row[f"{n}_identity_min"]) for n in EDITED) >= 0.9) == (row["same_person"] == "true") for row in on
    )
    assert "false" in {row["same_person"] for row in on}
    # One that is not fit for use is told of, and ends nothing.
    capsys.readouterr()
    network_files.save_network(network, tmp_path / "identity.safetensors", {"unfit": "its equal error rate is 50%"})
    assert tested("--data.init_args.count", "12", output="unfit", **settings) == 0
    said = capsys.readouterr().out
    assert "identity.safetensors is not fit for use: its equal error rate is 50%; what it says of identity is" in said
    unfit = read_rows(tmp_path / "unfit" / "test_result.csv")
    wider = [float(a["mouth_range_low"]) < float(b["mouth_range_low"]) for a, b in zip(unfit, rows, strict=True)]
    assert any(wider) and "false" in {row["same_person"] for row in unfit}
    assert all(min(float(row[f"{n}_identity_min"]) for n in EDITED) < 0.9 for row in unfit if row["good"] == "false")


def test_without_an_identity_network_nothing_is_known_to_be_good(
    tmp_path: Path, tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tested(identity=None, limits="{eyes: -1, mouth: -1, pose: -1}") == 0
    assert "identity was not judged, since model.init_args.identity names no network" in capsys.readouterr().out
    rows, (statistics,) = (read_rows(tmp_path / "found" / f"test_{name}.csv") for name in ("result", "statistics"))
    assert {(row["passed"], row["same_person"], row["good"]) for row in rows} == {("true", "", "")}
    assert "good_ratio" not in statistics and not [name for name in statistics if "identity" in name]


def test_a_network_of_the_users_judges_identity(
    tmp_path: Path, tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its measure is the cosine similarity, whose limit is its own; or a probability, if it is told how."""
    pytest.importorskip("onnxruntime")
    file = str(write_network(tmp_path / "pooling.onnx", ("N", 3, 16, 16)))
    assert tested(identity=json.dumps({"file": file})) == 2
    assert f"{file} has no calibration, so that its measure is the cosine similarity" in capsys.readouterr().err
    assert tested(identity=json.dumps({"file": file}), identity_limit=0.999) == 0
    rows = read_rows(tmp_path / "found" / "test_result.csv")
    assert all(0.999 <= float(row[f"{name}_identity_min"]) <= 1 for row in rows for name in EDITED)
    assert {row["same_person"] for row in rows} == {"true"}
    vague = {"file": file, "threshold": 0.9, "scale": 10}
    assert tested(identity=json.dumps(vague)) == 2
    assert "identity_limit is 0.9, and by the calibration of " in (said := capsys.readouterr().err)
    assert "shows the same person as itself with a probability of 0.731" in said
    assert tested(identity=json.dumps(vague), identity_limit=2) == 2
    assert "identity_limit is 2.0; expected -1 to 1" in capsys.readouterr().err


def test_a_guide_holds_the_person_and_cannot_judge(
    tmp_path: Path, tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file, judging = tmp_path / "guide.safetensors", tmp_path / "identity.safetensors"
    some = [f"--model.init_args.touch_up.{k}={v}" for k, v in {"steps": 3, "edits": 2, "nodes": 1, "rate": 0.5}.items()]
    given = ["--data.init_args.count", "2", *some]
    file.write_bytes(judging.read_bytes())
    assert tested(*given, guide=json.dumps({"file": str(file)})) == 2
    assert "which are the same network; what guides cannot judge" in capsys.readouterr().err
    network_files.save_network(recogniser(100.0, -95.0), file, {"unfit": "its equal error rate is 7%"})
    assert tested("--data.init_args.count", "2", guide=json.dumps({"file": str(file)})) == 0
    assert f"guide {file} was not used: these edits do not ask for one" in capsys.readouterr().out
    assert tested(*given, guide=json.dumps({"file": str(file)})) == 0
    assert f"guide {file} is not fit to judge: its equal error rate is 7%; it guides none the less" in (
        capsys.readouterr().out
    )
    assert tested(*given, output="free") == 0
    held, free = (load_file(tmp_path / name / "latents.safetensors")["steps"] for name in ("found", "free"))
    assert not torch.allclose(held, free, atol=1e-4)
    pytest.importorskip("onnxruntime")
    onnx = str(write_network(tmp_path / "pooling.onnx", ("N", 3, 16, 16)))
    assert tested(*given, guide=json.dumps({"file": onnx})) == 2
    assert f"guide is {onnx}, an ONNX file, which has no gradients" in capsys.readouterr().err


def test_what_guided_a_training_cannot_judge(
    tmp_path: Path, weights: tuple[Path, Path], tested: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    judging = tmp_path / "identity.safetensors"
    taught = {"guide": network_files.fingerprint(judging)}
    network_files.save_network(network_files.load_generator(weights[0]), weights[0], taught)
    assert tested("--data.init_args.count", "2") == 2
    assert f"{judging}, which is to judge whether it is the same person, guided the training of {weights[0]}; set" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("kind", ["local.Local", "paths.Paths"])
def test_directions_that_hold_the_person_ask_for_their_guide(
    kind: str, tmp_path: Path, weights: tuple[Path, Path], tested: Run, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "guide.safetensors", tmp_path / "other.safetensors"
    for path, scale in ((file, 100.0), (other, 50.0)):
        network_files.save_network(recogniser(scale, 9 - scale), path)
    some = {"latents": 10, "rounds": 1, "covariance_count": 50, "identity_axes": 4, "targets": EDITED, "group_by": []}
    settings = {"output": tmp_path / "search", "generator": weights[0], "network": tmp_path / "merged.safetensors"}

    def search(guide: Path, path: str = kind) -> int:
        finder = {"class_path": f"ohlora.directions.{path}", "init_args": some if path == kind else {}}
        given = settings | {"finder": json.dumps(finder), "guide": json.dumps({"file": str(guide)})}
        said = options({f"model.init_args.{key}": value for key, value in given.items()})
        return ohlora("fit", "directions", *said, stage_dir=tmp_path / "stage")

    assert search(file, "ridge.Ridge") == 2
    assert "Ridge cannot hold the person; leave model.init_args.guide out" in (capsys.readouterr().err)
    assert search(tmp_path / "none.safetensors") == 2
    assert "none.safetensors" in capsys.readouterr().err
    assert search(file) == 0
    directions = tmp_path / "search" / "directions.safetensors"
    found = load_directions(directions)
    assert found.basis is not None and found.basis.axes is not None and found.basis.axes.shape[1] == 4
    assert found.basis.outputs[-4:] == tuple(f"identity axis {k}" for k in range(1, 5))
    count = ("--data.init_args.count", "2")
    assert tested(*count, directions=directions) == 2
    assert "holds the person, as a network sees it; set model.init_args.guide to the one of its search" in (
        capsys.readouterr().err
    )
    assert tested(*count, directions=directions, guide=json.dumps({"file": str(other)})) == 2
    assert f"holds the person as another network than {other} sees it" in capsys.readouterr().err
    judging = {"identity": json.dumps({"file": str(file)}), "guide": json.dumps({"file": str(other)})}
    assert tested(*count, directions=directions, **judging) == 2
    assert f"{file}, which is to judge whether it is the same person, guided the search of" in capsys.readouterr().err
    assert tested(*count, directions=directions, guide=json.dumps({"file": str(file)})) == 0
    assert "was not used" not in capsys.readouterr().out
    assert "steps" in load_file(tmp_path / "found" / "latents.safetensors")


def test_touched_up_style_channels_are_kept_as_such(tmp_path: Path, weights: tuple[Path, Path], tested: Run) -> None:
    """What is stored of them is read in their own space, by the sheets and by the report."""
    size = sum(network_files.load_generator(weights[0]).style_sizes)
    vectors = torch.nn.functional.normalize(torch.randn(1, 3, size), dim=-1)
    found = Directions(EDITED, vectors, torch.ones(1, 3), Groups(), "channels", space=Space.S)
    save_directions(found, tmp_path / "d.safetensors")
    some = [f"--model.init_args.touch_up.{k}={v}" for k, v in {"steps": 2, "edits": 2, "nodes": 2}.items()]
    assert tested("--data.init_args.count", "3", *some) == 0
    steps = Report.load(tmp_path / "found").steps
    assert steps.shifts.space is Space.S and steps.shifts.values.shape == (3, 3, 5, size)
    assert len(list((tmp_path / "found" / "sheets").iterdir())) == 3

"""The search of directions, through the entry point."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ohlora.directions import svm_direction
from ohlora.directions.covariance import covariance_solved, ridge_gradients
from ohlora.directions.random import Random
from ohlora.errors import ConfigError
from ohlora.evaluation.edits import slopes
from ohlora.formats import network_files, sample_files
from ohlora.formats.direction_files import load_directions
from ohlora.modules.directions import DirectionSearch
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import score_gradients, scores_of_codes
from ohlora.utils import counted
from ohlora.utils.files import read_rows
from tests.toy_tables import lively_cnn, options, sample_set

Run = Callable[..., int]
NAMES = attribute_cnn("merged", "small", 16).outputs
FINDER = "--model.init_args.finder"


def finder(path: str, **settings: Any) -> list[str]:
    """Words that choose another finder."""
    return [FINDER, json.dumps({"class_path": f"ohlora.directions.{path}", "init_args": settings})]


def svm(**settings: Any) -> list[str]:
    """Words that change settings of the configured finder."""
    return [word for key, value in settings.items() for word in (f"{FINDER}.init_args.{key}", str(value))]


@pytest.fixture
def search(ohlora: Run, tmp_path: Path, weights: tuple[Path, Path]) -> Callable[..., int]:
    """Runs the search on the set ``samples`` below the test's folder, with random networks."""
    network_files.save_network(lively_cnn(weights[0]), tmp_path / "merged.safetensors")

    def run(*words: str, output: str = "found", data: str = "samples") -> int:
        settings = {"model.init_args.output": tmp_path / output, "data.init_args.folder": tmp_path / data}
        settings |= {
            "model.init_args.generator": weights[0],
            "model.init_args.network": tmp_path / "merged.safetensors",
        }
        return ohlora("fit", "directions", *options(settings), *words, stage_dir=tmp_path / f"{output}-stage")

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
    # The samples know nothing of the networks, so that about half of the directions move their attribute downwards.
    unscaled = [f"{name} of group {group}" for group in found.groups.names for name in found.attributes]
    unscaled = [name for name in unscaled if name in found.provenance["unscaled"]]
    assert 0 < len(unscaled) == len(found.provenance["unscaled"]) < 12
    for g, p in np.ndindex(4, 3):
        along = w @ found.vectors[g, p]
        kept = f"{found.attributes[p]} of group {found.groups.names[g]}" in unscaled
        assert (float(found.units[g, p]) == pytest.approx(float(along.std(correction=0)), rel=1e-4)) == kept
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
        "score_correlations",
        "cosines_of_attributes",
        *(f"cosines_of_groups_{name}" for name in found.attributes),
    }
    assert len(read_rows(run / "cosines_of_groups_eyes.csv")) == 4
    assert len(read_rows(run / "cosines_of_attributes.csv")) == 12


def test_shards_do_not_matter(tmp_path: Path, search: Run) -> None:
    sample_set(tmp_path / "samples")
    sample_set(tmp_path / "other", shard=123)
    assert search() == 0 and search(output="again", data="other") == 0
    one, two = (load_directions(tmp_path / name / "directions.safetensors") for name in ("found", "again"))
    assert torch.equal(one.vectors, two.vectors) and torch.equal(one.units, two.units)


def test_more_samples_than_the_limit(tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]) -> None:
    w, scores = sample_set(tmp_path / "samples")
    words = ["--data.init_args.limit", "900", *svm(group_by=[])]
    assert search(*words) == 0
    assert f"{tmp_path / 'samples'} holds 1600 samples; 900 of them" in capsys.readouterr().out
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.provenance["samples"] == 900
    kept = np.sort(counted.permutation(0, "samples", 0, 1600)[:900])
    expected = sample_files.read_samples(tmp_path / "samples", limit=900)
    assert torch.equal(expected.codes.values, w[kept]) and (expected.scores == scores.numpy()[kept]).all()
    plain = torch.from_numpy(svm_direction(w[kept].numpy(), scores[kept, NAMES.index("eyes")].numpy()))
    assert float(found.vectors[0, 0].double() @ plain) > 0.99


def test_a_search_has_no_checkpoint(tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sample_set(tmp_path / "samples")
    assert search() == 0
    assert not list(tmp_path.rglob("*.ckpt"))
    assert search("--ckpt_path", "last") == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ohlora:")]
    assert "DirectionSearch has no checkpoint" in said


def test_sigterm_before_there_is_a_checkpoint(tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sample_set(tmp_path / "samples")
    assert search("--trainer.callbacks", "tests.ranks.Terminate") == 143
    assert "stopped by SIGTERM before there was anything to keep" in capsys.readouterr().out


def test_a_solver_that_gives_up_ends_the_search(
    tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_set(tmp_path / "samples")
    assert search(*svm(max_iterations=1)) == 2
    assert "group hh: an SVM has not converged after 1 iterations" in capsys.readouterr().err
    assert not (tmp_path / "found").exists()


def test_small_groups_take_the_direction_of_all(
    tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    w, scores = sample_set(tmp_path / "samples")
    medians = json.loads((tmp_path / "samples" / "medians.json").read_text())
    high = float(np.sort(scores[:, NAMES.index("hair_color")].numpy())[-12])
    medians["median"]["hair_color"] = high  # twelve samples are above: six or so in each of two groups
    (tmp_path / "medians.json").write_text(json.dumps(medians))
    words = ["--model.init_args.medians", str(tmp_path / "medians.json")]
    assert search(*words) == 0
    assert "too few samples in" in capsys.readouterr().out
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.provenance["ungrouped"] and "ll" not in found.provenance["ungrouped"]
    plain = torch.from_numpy(svm_direction(w.numpy(), scores[:, NAMES.index("eyes")].numpy()))
    place = found.groups.names.index(found.provenance["ungrouped"][0])
    assert float(found.vectors[place, 0].double() @ plain) > 0.99
    assert search(*words, *svm(small_groups="raise")) == 2
    assert "take more samples" in capsys.readouterr().err


def test_ungrouped(tmp_path: Path, search: Run) -> None:
    sample_set(tmp_path / "samples")
    assert search(*svm(group_by=[], targets=["mouth"])) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.vectors.shape == (1, 1, 8) and found.groups.names == ("all",)


def test_samples_that_cannot_be_searched(tmp_path: Path, search: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "samples"
    assert search() == 2
    assert f"{folder / 'shards'} does not exist" in capsys.readouterr().err
    sample_set(folder)
    assert search(*svm(targets=["roll"])) == 2
    assert "there is no score for roll; there are eyes, hair_color" in capsys.readouterr().err
    assert search("--data.init_args.count", "2000") == 2
    assert "holds 1600 samples; expected 2000" in capsys.readouterr().err
    second = folder / "shards" / "000000500-000000999.safetensors"
    content = second.read_bytes()
    second.unlink()
    assert search() == 2
    assert "the shard that holds sample 500 is missing" in capsys.readouterr().err
    second.write_bytes(content)
    tensors = load_file(second)
    for value, message in ((torch.nan, "sample 507 has a score that is no number"), (0.5, "eyes, throughout group")):
        changed = tensors["scores"].clone()
        changed[7:8, 0] = value
        if value == 0.5:
            for part in sample_files.ranges_in(folder):
                path = sample_files.shard_path(folder, part)
                scores = load_file(path)
                scores["scores"][:, 0] = value
                sample_files.write_shard(folder, part.start, scores["w"], scores["scores"], {"outputs": list(NAMES)})
        else:
            with safe_open(second, "pt") as shard:
                save_file({**tensors, "scores": changed}, second, shard.metadata())
        assert search() == 2
        assert message in capsys.readouterr().err
    sample_files.write_shard(folder, 500, tensors["w"], tensors["scores"], {"outputs": list(NAMES), "seed": 1})
    assert search() == 2
    assert "shards of different origin" in capsys.readouterr().err
    save_file({"x": torch.zeros(1)}, second)
    assert search() == 2
    assert "not a shard of samples written by ohlora" in capsys.readouterr().err


# --- other finders


@pytest.mark.parametrize("path", ["mean_difference.MeanDifference", "ridge.Ridge", "random.Random"])
def test_other_searches_over_samples(tmp_path: Path, search: Run, path: str) -> None:
    method = path.partition(".")[0]
    w, scores = sample_set(tmp_path / "samples")
    words = finder(path, group_by=[])
    assert search(*words) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.method == method and found.provenance["samples"] == 1600
    along = w @ found.vectors[0].T
    r = np.corrcoef(along[:, 1], scores[:, NAMES.index("mouth")])[0, 1]
    if method == "ridge":
        joint = torch.cov(torch.cat([w, scores], dim=1).T.double(), correction=0)
        gradients = ridge_gradients(joint[:8, :8], joint[:8, 8:], 1e-3)
        targets = [NAMES.index(name) for name in found.attributes]
        expected = torch.nn.functional.normalize(covariance_solved(gradients, joint[:8, :8], targets), dim=1)
        torch.testing.assert_close(found.vectors[0].double(), expected, rtol=1e-4, atol=1e-5)
    else:
        assert r > 0.6 if method == "mean_difference" else abs(r) < 0.99


def test_holding_fewer_attributes(tmp_path: Path, search: Run) -> None:
    sample_set(tmp_path / "samples")
    assert search(*finder("ridge.Ridge", group_by=[])) == 0
    assert search(*finder("ridge.Ridge", group_by=[], hold=["hairstyle"]), output="few") == 0
    all_held, few = (load_directions(tmp_path / name / "directions.safetensors") for name in ("found", "few"))
    assert not torch.allclose(all_held.vectors, few.vectors)
    assert (few.units < all_held.units).all()  # what need not be held need not be paid for


@pytest.fixture
def by_gradients(tmp_path: Path, weights: tuple[Path, Path], ohlora: Run) -> Callable[..., int]:
    """Searches with random networks and no samples: finder, then its settings as keywords."""
    network_files.save_network(lively_cnn(weights[0]), tmp_path / "merged.safetensors")
    paths = {"generator": weights[0], "network": tmp_path / "merged.safetensors"}
    given = options({f"model.init_args.{key}": value for key, value in paths.items()})
    small: dict[str, Any] = {"latents": 10, "rounds": 1, "covariance_count": 50, "group_by": [], "sweep_count": 3}

    def run(path: str, *words: str, output: str = "found", **settings: Any) -> int:
        chosen = finder(path, **{key: value for key, value in (small | settings).items() if value is not None})
        where = ["--model.init_args.output", str(tmp_path / output)]
        return ohlora("fit", "directions", *given, *chosen, *where, *words, stage_dir=tmp_path / f"{output}-stage")

    return run


def test_the_jacobian_is_a_mean_of_gradients(tmp_path: Path, weights: tuple[Path, Path], by_gradients: Run) -> None:
    assert by_gradients("jacobian.Jacobian") == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.vectors.shape == (1, 3, 8) and found.provenance["images"] == 10
    g = network_files.load_generator(weights[0]).requires_grad_(False)
    network = network_files.load_attributes(tmp_path / "merged.safetensors").requires_grad_(False)
    w = g.map(counted.normal(0, "search/z", range(10), 8))
    _, gradients = score_gradients(g, network, w, range(8))
    spread = g.map(counted.normal(0, "covariance/z", range(50), 8)).values.double()
    mean = gradients.double().mean(dim=0)
    targets = [NAMES.index(name) for name in found.attributes]
    expected = covariance_solved(mean, torch.cov(spread.T, correction=0), targets)
    cosines = torch.nn.functional.cosine_similarity(found.steps.values[0].double(), expected)
    assert (cosines > 0.9999).all()
    torch.testing.assert_close(
        found.steps.values[0].double(), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())
    )


def test_batches_do_not_matter_to_gradients(tmp_path: Path, by_gradients: Run) -> None:
    for output, size in (("whole", "100"), ("cut", "3")):
        words = ["--model.init_args.image_batch_size", size]
        assert by_gradients("jacobian.Jacobian", *words, output=output, rounds=3, layers="each") == 0
    whole, cut = (load_directions(tmp_path / name / "directions.safetensors") for name in ("whole", "cut"))
    assert whole.space is Space.W_BY_LAYER and whole.vectors.shape == (1, 3, 6, 8)
    assert whole.provenance == cut.provenance and whole.provenance["images"] == 30
    assert (whole.vectors - cut.vectors).abs().max() < 1e-3  # single precision, in other batches


@pytest.mark.parametrize("layers", [[1, 3], "sweep", "auto"])
def test_directions_on_some_layers(tmp_path: Path, by_gradients: Run, layers: str | list[int]) -> None:
    assert by_gradients("jacobian.Jacobian", layers=layers) == 0
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
    if isinstance(layers, str):
        rows = read_rows(tmp_path / "found-stage" / "runs" / "0001" / "layers.csv")
        assert len(rows) == 3 * 21 and list(rows[0]) == [
            "attribute", "first", "last", "r", "slope", "leakage", "drift",
        ]  # fmt: skip


def test_layers_of_a_search_over_samples(
    tmp_path: Path, weights: tuple[Path, Path], search: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_set(tmp_path / "samples")
    words = ["--model.init_args.generator", str(weights[0])]
    assert search(*words, *svm(layers=[4, 5])) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.vectors.shape == (4, 3, 6, 8) and not found.vectors[:, :, :4].any()
    assert search(*words, *svm(layers=[4, 6])) == 2
    assert "layers reach to 6; the generator has 6, 0 to 5" in capsys.readouterr().err
    assert search(*words, *svm(layers="each")) == 2
    assert "samples do not tell layers apart" in capsys.readouterr().err


def test_gradients_that_cannot_be_taken(tmp_path: Path, by_gradients: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_gradients("jacobian.Jacobian", group_by=["hair_color"]) == 2
    assert "set model.init_args.medians" in capsys.readouterr().err
    assert by_gradients("jacobian.Jacobian", hold=["roll"]) == 2
    assert "there is no score for roll" in capsys.readouterr().err
    assert by_gradients("local.Local", layers="auto") == 2
    assert "take each layer by itself" in capsys.readouterr().err
    network = network_files.load_attributes(tmp_path / "merged.safetensors")
    torch.nn.init.zeros_(network.get_parameter("branches.hairstyle.score.weight"))
    network_files.save_network(network, tmp_path / "merged.safetensors")
    assert by_gradients("jacobian.Jacobian") == 2
    assert "the same for all latents" in capsys.readouterr().err


def test_grouped_gradients(tmp_path: Path, by_gradients: Run) -> None:
    network = network_files.load_attributes(tmp_path / "merged.safetensors")
    g = network_files.load_generator(tmp_path / "weights" / "generator.safetensors")
    with torch.inference_mode():
        scores = network(g.synthesize(g.map(counted.normal(0, "search/z", range(10), 8))).clamp(-1, 1))
    (tmp_path / "medians.json").write_text(json.dumps(sample_files.statistics(NAMES, scores.numpy())))
    words = ["--model.init_args.medians", str(tmp_path / "medians.json")]
    assert by_gradients("jacobian.Jacobian", *words, rounds=2, group_by=["hair_color"]) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.groups.names == ("h", "l") and not torch.allclose(found.vectors[0], found.vectors[1])


# --- StyleSpace


def styles_of(generator: Path, stream: str, count: int) -> torch.Tensor:
    """Style channels of counted latents, N×C."""
    g = network_files.load_generator(generator)
    with torch.no_grad():
        return g.styles(g.map(counted.normal(0, f"{stream}/z", range(count), 8))).values


def test_channels_are_solved_from_gradients(tmp_path: Path, weights: tuple[Path, Path], by_gradients: Run) -> None:
    assert by_gradients("channels.Channels") == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    styles, spread = (styles_of(weights[0], stream, n) for stream, n in (("search", 10), ("covariance", 50)))
    assert found.space is Space.S and found.vectors.shape == (1, 3, styles.shape[1])
    g = network_files.load_generator(weights[0]).requires_grad_(False)
    network = network_files.load_attributes(tmp_path / "merged.safetensors").requires_grad_(False)
    _, gradients = score_gradients(g, network, Codes(styles, Space.S), range(8))
    b = gradients.double().mean(dim=0)
    patterns = b * spread.double().var(dim=0, correction=0)
    expected = torch.linalg.solve(patterns @ b.T, patterns)[[NAMES.index(name) for name in found.attributes]]
    cosines = torch.nn.functional.cosine_similarity(found.steps.values[0].double(), expected)
    assert (cosines > 0.9999).all()
    assert by_gradients("channels.Channels", output="rounds", rounds=3) == 0
    rounds = load_directions(tmp_path / "rounds" / "directions.safetensors")
    assert rounds.provenance["images"] == 30 and not torch.allclose(rounds.vectors, found.vectors)


@pytest.mark.parametrize("rank", ["difference", "gradient"])
def test_a_single_channel_moves_its_attribute(
    rank: str, tmp_path: Path, weights: tuple[Path, Path], by_gradients: Run
) -> None:
    g = network_files.load_generator(weights[0]).requires_grad_(False)
    torch.manual_seed(0)
    w = g.map(torch.randn(400, 8))
    styles = g.styles(w).values
    scores = torch.randn(400, len(NAMES))
    places = [NAMES.index(name) for name in ("eyes", "mouth", "pose")]
    scores[:, places] = styles[:, [20, 40, 60]] * torch.tensor([1.0, -1.0, 1.0])
    sample_files.write_shard(tmp_path / "samples", 0, w.values, scores, {"outputs": list(NAMES)})
    words = ["--data.init_args.folder", str(tmp_path / "samples")]
    settings = {"rounds": None, "rank": rank, "candidates": 3, "verified": 4}
    assert by_gradients("single_channel.SingleChannel", *words, **settings) == 0
    found = load_directions(tmp_path / "found" / "directions.safetensors")
    assert found.space is Space.S and ((found.vectors != 0).sum(dim=-1) == 1).all()
    rows = read_rows(tmp_path / "found-stage" / "runs" / "0001" / "channels.csv")
    assert len(rows) == 9 and [row["chosen"] for row in rows].count("True") == 3
    first = [row for row in rows if row["rank"] == "0"]
    if rank == "difference":
        spread, mean = torch.std_mean(styles_of(weights[0], "covariance", 50).double(), dim=0, correction=0)
        for row, k in zip(first, places, strict=True):
            exemplars = styles[scores[:, k].argsort(stable=True)[-8:]].double()
            normalised = (exemplars - mean) / spread
            relevance = normalised.mean(dim=0) / normalised.std(dim=0, correction=0)
            place = g.style_offsets[int(row["layer"])] + int(row["channel"])
            assert place == int(relevance.abs().argmax())
            assert float(row["relevance"]) == pytest.approx(float(relevance[place]), rel=1e-3)
    # Over the range that was verified, a unit of strength moves the score by one.
    network = network_files.load_attributes(tmp_path / "merged.safetensors")
    start = styles_of(weights[0], "verify", 4)
    for p, (row, k) in enumerate(zip([row for row in rows if row["chosen"] == "True"], places, strict=True)):
        strengths = torch.linspace(-3, 3, 5).double() * float(row["slope"])
        moved = start[:, None] + (strengths[:, None] * found.steps.values[0, p]).float()
        (seen,) = scores_of_codes(g, [network], Codes(moved, Space.S).flat(), 100)
        measured = slopes(strengths[:, None], seen.double().reshape(4, 5, -1))
        assert float(measured[:, 0, k].mean()) == pytest.approx(1, rel=1e-2)


def test_settings_that_do_not_fit_style_channels(by_gradients: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, said in (
        ({"layers": [0, 1]}, "a style channel is in one layer already"),
        ({"group_by": ["hair_color"]}, "set group_by to []"),
        ({"latents": 1}, "latents is 1 and rounds 1; expected at least 2 and 1"),
    ):
        assert by_gradients("channels.Channels", **settings) == 2
        assert said in capsys.readouterr().err


def test_networks_are_compared_before_the_search_and_marks_are_kept(
    tmp_path: Path, weights: tuple[Path, Path], search: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_set(tmp_path / "samples")
    judge = tmp_path / "judge.safetensors"
    network_files.save_network(lively_cnn(weights[0], 1), judge)
    assert search("--model.init_args.judge", str(judge)) == 0
    said = capsys.readouterr().out
    assert f"WARNING: what {tmp_path}/found/directions.safetensors is made of is not fit for use" in said
    assert "eyes: r of search CNN and judge on generated images is" in said
    mark = load_directions(tmp_path / "found" / "directions.safetensors").provenance["unfit"]
    assert mark.startswith("eyes: r of search CNN and judge") and "mouth: r of" in mark
    # The search CNN agrees with itself, but what it is made of may be marked.
    search_cnn = tmp_path / "merged.safetensors"
    network_files.save_network(lively_cnn(weights[0]), search_cnn, {"unfit": "eyes: r on held-out images is 0.1"})
    assert search("--model.init_args.judge", str(search_cnn)) == 0
    mark = load_directions(tmp_path / "found" / "directions.safetensors").provenance["unfit"]
    assert mark == "network: eyes: r on held-out images is 0.1"
    network_files.save_network(lively_cnn(weights[0]), search_cnn)
    assert search("--model.init_args.judge", str(search_cnn)) == 0
    assert "unfit" not in load_directions(tmp_path / "found" / "directions.safetensors").provenance
    alone = DirectionSearch(str(tmp_path), Random(), network=str(search_cnn), judge=str(judge))
    with pytest.raises(ConfigError, match=r"needs a generator; set model.init_args.generator"):
        alone.setup("fit")

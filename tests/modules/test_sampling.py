"""Generating images: counted, resumable, the same however it is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from ohlora.errors import DataError
from ohlora.formats import network_files, sample_files, tensor_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.utils import counted
from ohlora.utils.files import read_rows
from ohlora.utils.images import to_float, to_uint8
from tests.conftest import tiny_networks

Run = Callable[..., int]


@pytest.fixture
def generate(ohlora: Run, weights: tuple[Path, Path], tmp_path: Path) -> Callable[..., int]:
    """Runs predict into a folder below the test's."""

    def run(output: str, *words: str) -> int:
        settings = {"generator": weights[0], "output": tmp_path / output}
        options = [w for key, value in settings.items() for w in (f"--model.init_args.{key}", str(value))]
        return ohlora("predict", "generate", *options, *words, stage_dir=tmp_path / f"{output}-stage")

    return run


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(p)) for p in sorted((folder / "images").iterdir())]).astype(int)


def test_images_manifest_and_latents(tmp_path: Path, generate: Run, weights: tuple[Path, Path]) -> None:
    assert generate("a") == 0
    rows = read_rows(tmp_path / "a" / "manifest.csv")
    assert [row["path"] for row in rows] == [f"images/{i:06d}.png" for i in range(7)]
    latents = load_file(tmp_path / "a" / "latents.safetensors")
    assert latents["z"].shape == (7, 8)
    g = network_files.load_generator(weights[0])
    noise = counted.generators(0, "noise", [5])
    image = g(torch.from_numpy(latents["z"][5:6]), noise_mode="random", noise=noise)
    levels = ((image[0].permute(1, 2, 0) + 1) * 127.5 + 0.5).clamp(0, 255).floor().detach().numpy()
    with Image.open(tmp_path / "a" / "images" / "000005.png") as picture:
        assert picture.mode == "RGB" and np.abs(np.asarray(picture) - levels).max() <= 1
    assert list((tmp_path / "a-stage" / "runs" / "0001" / "pictures").glob("generated-*.png"))


def test_batch_size_does_not_matter(tmp_path: Path, generate: Run) -> None:
    assert generate("a") == 0
    assert generate("b", "--data.init_args.batch_size", "7") == 0
    assert np.abs(pixels(tmp_path / "a") - pixels(tmp_path / "b")).max() <= 1


def test_an_interrupted_run_goes_on_and_a_finished_one_does_nothing(tmp_path: Path, generate: Run) -> None:
    assert generate("a", "--trainer.limit_predict_batches", "0.34") == 0  # one of three; 1 may be read as 1.0, all
    folder = tmp_path / "a"
    assert len(list((folder / "images").iterdir())) == 3 and not (folder / "manifest.csv").exists()
    first = (folder / "images" / "000000.png").stat().st_mtime_ns
    assert generate("a") == 0
    assert generate("whole") == 0
    # What is promised; equal bits in two runs are usual, but were missed once on a loaded machine.
    assert np.abs(pixels(folder) - pixels(tmp_path / "whole")).max() <= 1
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")}
    assert before[folder / "images" / "000000.png"] == first
    assert generate("a") == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")} == before
    (folder / "manifest.csv").unlink()  # as if it had been stopped between the last image and the manifest
    assert generate("a") == 0
    assert len(read_rows(folder / "manifest.csv")) == 7
    assert generate("a", "--data.init_args.count", "9") == 0  # more of the same is fine
    assert len(read_rows(folder / "manifest.csv")) == 9


def test_a_folder_of_other_images_is_refused(tmp_path: Path, generate: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate("a") == 0
    assert generate("a", "--model.init_args.seed", "1") == 2
    assert "holds images of other settings (seed 0 there, 1 now)" in capsys.readouterr().err
    (tmp_path / "a" / "settings.json").unlink()
    assert generate("a") == 2
    assert "files of unknown origin" in capsys.readouterr().err


def test_sets_of_the_first_version_are_gone_on_with(
    tmp_path: Path, generate: Run, sample: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose settings had other names: they are compared under the present ones."""
    assert generate("a") == 0
    path = tmp_path / "a" / "settings.json"
    found = json.loads(path.read_text())
    assert found["noise_mode"] == "random" and "noise" not in found
    earlier = {"generator": found["generator"], "seed": 0, "noise": "random", "psi": 1.0, "psi_layers": 0}
    path.write_text(json.dumps(earlier))
    assert generate("a") == 0
    path.write_text(json.dumps(earlier | {"noise": "fixed"}))
    assert generate("a") == 2
    assert "noise_mode 'const' there, 'random' now" in capsys.readouterr().err

    assert sample("s") == 0
    path = tmp_path / "s" / "settings.json"
    found = json.loads(path.read_text())
    earlier = {("noise" if key == "noise_mode" else key): value for key, value in found.items()} | {"noise": "fixed"}
    path.write_text(json.dumps(earlier))
    first, second = sorted((tmp_path / "s" / "shards").iterdir())[:2]
    tensors = tensor_files.read_tensors(first)
    sample_files.write_shard(tmp_path / "s", 0, tensors["w"], tensors["scores"], earlier)
    second.unlink()
    assert sample("s") == 0
    origin = sample_files.origin_of(tmp_path / "s", sample_files.shards_of(tmp_path / "s"))
    assert origin["outputs"] == found["outputs"]


def test_labels_are_drawn_as_in_training(tmp_path: Path, generate: Run, weights: tuple[Path, Path]) -> None:
    g, _ = tiny_networks(c_dim=2)
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    g.set_labels("dataset", table)
    network_files.save_network(g, weights[0])
    assert generate("a") == 0
    label = load_file(tmp_path / "a" / "latents.safetensors")["label"]
    assert label.shape == (7, 2) and {tuple(row) for row in label} == {(1.0, 2.0), (3.0, 4.0)}
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["generator"] == network_files.fingerprint(
        weights[0]
    )


@pytest.fixture
def sample(ohlora: Run, weights: tuple[Path, Path], tmp_path: Path) -> Callable[..., int]:
    """Samples into a folder below the test's."""
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "merged.safetensors")

    def run(output: str, *words: str) -> int:
        settings = {"generator": weights[0], "network": tmp_path / "merged.safetensors", "output": tmp_path / output}
        options = [w for key, value in settings.items() for w in (f"--model.init_args.{key}", str(value))]
        return ohlora("predict", "sample", *options, *words, stage_dir=tmp_path / f"{output}-stage")

    return run


def shards(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {path.name: load_file(path) for path in sorted((folder / "shards").iterdir())}


def test_samples_are_codes_and_scores(tmp_path: Path, sample: Run, weights: tuple[Path, Path]) -> None:
    assert sample("a") == 0
    found = shards(tmp_path / "a")
    names = ["000000000-000000007", "000000008-000000015", "000000016-000000019"]
    assert list(found) == [f"{name}.safetensors" for name in names]
    assert np.concatenate([f["index"] for f in found.values()]).tolist() == list(range(20))
    g, network = (
        network_files.load_generator(weights[0]),
        network_files.load_attributes(tmp_path / "merged.safetensors"),
    )
    with torch.inference_mode():
        w = g.map(counted.normal(0, "z", [13], 8))
        made = to_float(to_uint8(g.synthesize(w)))  # as from a file
        scores = network(made)
    last = found["000000008-000000015.safetensors"]
    assert last["w"].dtype == np.float32 and np.allclose(last["w"][5], w.values[0], atol=1e-6)
    assert np.allclose(last["scores"][5], scores[0], atol=1e-4)
    medians = json.loads((tmp_path / "a" / "medians.json").read_text())
    first = np.concatenate([f["scores"] for f in found.values()])[:12]
    assert medians["count"] == 12 and list(medians["median"]) == list(network.outputs)
    assert list(medians["median"].values()) == pytest.approx(np.median(first, axis=0).tolist(), rel=1e-5)
    pictures = {p.name.split("-")[0] for p in (tmp_path / "a-stage" / "runs" / "0001" / "pictures").iterdir()}
    assert pictures == {"samples", "score_correlations"}


def test_predictions_do_not_pile_up(generate: Run, sample: Run) -> None:
    """All images of a run together would not fit into memory."""
    counting = ["--trainer.callbacks+", "tests.ranks.CountPredictions"]
    assert generate("a", *counting) == 0 and sample("b", *counting) == 0


def test_an_interrupted_sampling_goes_on_by_the_shard(tmp_path: Path, sample: Run) -> None:
    assert sample("a", "--trainer.limit_predict_batches", "0.63") == 0  # five of eight: two into the second shard
    folder = tmp_path / "a"
    assert len(shards(folder)) == 1 and not (folder / "medians.json").exists()
    first = next((folder / "shards").iterdir()).stat().st_mtime_ns
    assert sample("a") == 0 and sample("whole") == 0
    a, whole = shards(folder), shards(tmp_path / "whole")
    assert a.keys() == whole.keys()
    for name in a:
        for key in ("index", "w", "scores"):
            np.testing.assert_array_equal(a[name][key], whole[name][key], name)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")}
    assert before[folder / "shards" / "000000000-000000007.safetensors"] == first
    assert sample("a") == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")} == before
    assert sample("a", "--data.init_args.count", "27") == 0  # more of the same: the short shard is replaced
    assert [name[:9] for name in shards(folder)] == ["000000000", "000000008", "000000016", "000000024"]
    assert sample_files.shards_of(folder, 27)[-1] == range(24, 27)
    # Its last sample was alone in its batch before, which matters in the last bit.
    np.testing.assert_allclose(
        sample_files.read_scores(folder)[:20], sample_files.read_scores(tmp_path / "whole"), atol=1e-4
    )


def test_samples_of_other_settings_or_with_gaps_are_refused(
    tmp_path: Path, sample: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample("a") == 0
    assert sample("a", "--model.init_args.shard_size", "4") == 2
    assert "holds shards of other settings (shard_size 8 there, 4 now)" in capsys.readouterr().err
    (tmp_path / "a" / "shards" / "000000008-000000015.safetensors").unlink()
    with pytest.raises(DataError, match="the shard that holds sample 8 is missing"):
        sample_files.shards_of(tmp_path / "a")
    torch.manual_seed(1)
    network_files.save_network(attribute_cnn("merged", "small", 32).eval(), tmp_path / "merged.safetensors")
    assert sample("b") == 2
    assert "is for resolution 32, the generator makes 16" in capsys.readouterr().err


def test_a_score_that_is_no_number_ends_the_run(
    tmp_path: Path, sample: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    network = network_files.load_attributes(tmp_path / "merged.safetensors")
    torch.nn.init.constant_(network.get_parameter("branches.mouth.score.weight"), 3e38)  # finite; its scores are not
    network_files.save_network(network, tmp_path / "merged.safetensors")
    assert sample("a") == 2
    assert "sample 0 has a score that is not finite" in capsys.readouterr().err
    assert not (tmp_path / "a" / "shards").exists()

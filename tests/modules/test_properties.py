"""Regression of scores through the real entry point."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import DataError, MissingArtifactError
from ohlora.formats import network_files
from ohlora.utils.files import read_rows
from tests.conftest import assert_same, network_state
from tests.toy_tables import brightness_table

Run = Callable[..., int]


@pytest.fixture
def fit(ohlora: Run, tmp_path: Path) -> Run:
    manifest, _ = brightness_table(tmp_path / "data", 60)

    def run(*words: str, stage: str = "stage") -> int:
        table = ["--data.init_args.manifests", f"[{manifest}]"]
        return ohlora("fit", "properties", *table, *words, stage_dir=tmp_path / stage)

    return run


def test_a_network_learns_and_reports_its_best_pass(fit: Run, tmp_path: Path) -> None:
    assert fit() == 0
    run = tmp_path / "stage" / "runs" / "0001"
    (row,) = read_rows(run / "correlations.csv")
    assert row["attribute"] == "hairstyle" and float(row["pearson"]) > 0.9 and float(row["spearman"]) > 0.8
    passes = read_rows(run / "metrics.csv")
    losses = [float(p["loss/validation"]) for p in passes if p["loss/validation"]]
    assert len(losses) == 6 and float(row["mse"]) == pytest.approx(min(losses), rel=1e-4)
    assert list((run / "pictures").glob("scatter-*.png"))
    assert network_files.load_attributes(tmp_path / "stage" / "hairstyle.safetensors").outputs == ("hairstyle",)


def test_the_product_takes_the_name_it_is_given(fit: Run, tmp_path: Path) -> None:
    """The judge is a merged network, and whoever looks for it looks for judge.safetensors."""
    assert fit("--model.init_args.save_as", "judge", "--model.init_args.passes", "1") == 0
    assert network_files.load_attributes(tmp_path / "stage" / "judge.safetensors").outputs == ("hairstyle",)
    assert not (tmp_path / "stage" / "hairstyle.safetensors").exists()


def test_what_was_stopped_and_resumed_is_bit_identical(fit: Run, tmp_path: Path) -> None:
    assert fit(stage="whole") == 0
    assert fit("--model.init_args.passes", "2.4", stage="parts") == 0
    torch.manual_seed(99)
    assert fit("--ckpt_path", "last", stage="parts") == 0
    whole, parts = (network_state(tmp_path / d / "hairstyle.safetensors") for d in ("whole", "parts"))
    assert_same(whole, parts)
    tables = [read_rows(tmp_path / d / "runs" / "0001" / "correlations.csv") for d in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_a_checkpoint_at_the_end_of_a_pass_holds_its_validation(fit: Run, tmp_path: Path) -> None:
    """A pass is 6 steps of 8 images, and a checkpoint is due in each."""
    every = ["--checkpoint.every_kimg", "0.008", "--checkpoint.keep", "99"]
    assert fit(*every, stage="whole") == 0
    assert fit(*every, "--model.init_args.passes", "3", stage="parts") == 0
    folder = tmp_path / "parts" / "runs" / "0001" / "checkpoints"
    for path in folder.glob("images-*.ckpt"):
        if int(path.stem.split("-")[1]) > 96:  # killed just after the end of the second pass
            path.unlink()
    assert fit(*every, "--ckpt_path", "last", stage="parts") == 0
    tables = [read_rows(tmp_path / d / "runs" / "0001" / "metrics.csv") for d in ("whole", "parts")]
    losses = [[row["loss/validation"] for row in table if row["loss/validation"]] for table in tables]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    whole, parts = (network_state(tmp_path / d / "hairstyle.safetensors") for d in ("whole", "parts"))
    assert_same(whole, parts)


def test_another_batch_size_on_resume_is_validated_as_well(fit: Run, tmp_path: Path) -> None:
    assert fit("--model.init_args.passes", "1") == 0
    assert fit("--ckpt_path", "last", "--data.init_args.batch_size", "7") == 0
    rows = read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv")
    assert len([row for row in rows if row["loss/validation"]]) >= 5
    assert float(rows[-1]["best_pass"]) > 1


def test_the_optimizer_follows_what_is_typed_on_resume(fit: Run, tmp_path: Path) -> None:
    constant = ["--model.init_args.schedule", "null"]
    assert fit("--model.init_args.passes", "1", *constant) == 0
    path = tmp_path / "stage" / "runs" / "0001" / "checkpoints"
    before = torch.load(sorted(path.iterdir())[-1], weights_only=True)["state_dict"]
    rate = ["--model.init_args.optimizer.init_args.lr", "0"]
    assert fit("--model.init_args.passes", "2", *constant, *rate, "--ckpt_path", "last") == 0
    after = torch.load(sorted(path.iterdir())[-1], weights_only=True)["state_dict"]
    assert int(after["images_seen"]) == 96
    key = "networks.0.branches.hairstyle.score.weight"
    assert torch.equal(before[key], after[key])


def test_another_seed_is_another_split_and_start(fit: Run, tmp_path: Path) -> None:
    assert fit("--model.init_args.passes", "1", stage="search") == 0
    other = ["--model.init_args.seed", "1000", "--data.init_args.seed", "1000"]
    assert fit("--model.init_args.passes", "1", *other, stage="judge") == 0
    a, b = (network_state(tmp_path / d / "hairstyle.safetensors") for d in ("search", "judge"))
    assert not any(torch.equal(a[key], b[key]) for key in a)
    sets = []
    for seed in (0, 1000):
        data = ScoredImages(16, [str(tmp_path / "data" / "manifest.csv")], ["hairstyle"], 0.2, seed=seed)
        data.setup("fit")
        assert not set(data.val_set.paths) & set(data.train_set.paths)
        assert (len(data.train_set), len(data.val_set)) == (48, 12)
        sets.append(data.val_set.paths)
    assert sets[0] != sets[1]


def test_mirroring_negates_the_raw_score_of_what_turns(tmp_path: Path) -> None:
    manifest, levels = brightness_table(tmp_path / "data", 20)
    with pytest.raises(MissingArtifactError, match=r"normalization.json does not exist; .*flip to false"):
        ScoredImages(16, [str(manifest)], ["pose"], flip=True).setup("fit")
    scale = {name: {"mean": 0.25, "std": 0.5} for name in ("pose", "hairstyle")}
    (tmp_path / "data" / "normalization.json").write_text(json.dumps(scale))
    data = ScoredImages(16, [str(manifest)], ["pose", "hairstyle"], flip=True)
    data.setup("fit")
    places = [int(path.stem) for path in data.train_set.paths]
    raw = levels[places] * 0.5 + 0.25
    expected = (-raw - 0.25) / 0.5
    batch = {
        "label": torch.from_numpy(data.train_set.labels),
        "mirrored_label": torch.from_numpy(data.train_set.mirrored),
    }
    flipped = torch.arange(len(places)) % 2 == 0
    turned = data.flipped_targets(batch, flipped)["label"].numpy()
    np.testing.assert_allclose(turned[::2, 0], expected[::2], atol=1e-3)
    np.testing.assert_allclose(turned[1::2, 0], levels[places][1::2], atol=1e-3)
    np.testing.assert_allclose(turned[:, 1], levels[places], atol=1e-3)


def test_mirrored_images_reach_the_training(fit: Run, tmp_path: Path) -> None:
    assert fit("--data.init_args.flip", "true") == 2  # no normalisation beside the table yet
    scale = {"hairstyle": {"mean": 0.0, "std": 1.0}}
    (tmp_path / "data" / "normalization.json").write_text(json.dumps(scale))
    assert fit("--data.init_args.flip", "true", stage="flipped") == 0
    assert fit(stage="plain") == 0
    a, b = (network_state(tmp_path / d / "hairstyle.safetensors") for d in ("flipped", "plain"))
    assert not torch.equal(a["branches.hairstyle.score.weight"], b["branches.hairstyle.score.weight"])


def test_tables_that_do_not_fit(tmp_path: Path, fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, _ = brightness_table(tmp_path / "data", 6)
    with pytest.raises(DataError, match="no column for eyes; the header has index, path, gender"):
        ScoredImages(16, [str(manifest)], ["eyes"]).setup("fit")
    manifest.write_text("path,hairstyle\nimages/000.png,curly\nimages/001.png,0.1\n")
    with pytest.raises(DataError, match="row 2: hairstyle is 'curly'"):
        ScoredImages(16, [str(manifest)], ["hairstyle"]).setup("fit")
    assert fit("--model.init_args.network", "property", "--data.init_args.attributes", "[hairstyle]") == 2
    assert "hairstyle is 'curly'" in capsys.readouterr().err
    brightness_table(tmp_path / "data", 6)
    assert fit("--model.init_args.network", "property", "--data.init_args.attributes", "[hairstyle]") == 2
    assert "the data has hairstyle, the network predicts eyes" in capsys.readouterr().err

"""Regression of scores through the real entry point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora import attributes, handover
from ohlora.__main__ import main
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import DataError, MissingArtifactError
from ohlora.evaluation.scales import scales_in
from ohlora.formats import network_files
from ohlora.utils import counted
from ohlora.utils.files import read_rows, write_rows
from tests.conftest import CONF, assert_same, network_state
from tests.toy_tables import brightness_table

Run = Callable[..., int]
HUGE_STEPS = ["--model.init_args.optimizer", "torch.optim.SGD", "--model.init_args.optimizer.init_args.lr", "1e38"]


@pytest.fixture
def fit(ohlora: Run, tmp_path: Path) -> Run:
    manifest, _ = brightness_table(tmp_path / "data", 60)

    def run(*words: str, stage: str = "stage") -> int:
        table = ["--data.init_args.manifests", f"[{manifest}]"]
        return ohlora("fit", "properties", *table, *words, stage_dir=tmp_path / stage)

    return run


def test_a_network_learns_and_reports_its_best_epoch(fit: Run, tmp_path: Path) -> None:
    assert fit() == 0
    run = tmp_path / "stage" / "runs" / "0001"
    (row,) = read_rows(run / "correlations.csv")
    assert row["attribute"] == "hairstyle" and float(row["pearson"]) > 0.9 and float(row["spearman"]) > 0.8
    epochs = read_rows(run / "metrics.csv")
    losses = [float(epoch["loss/validation"]) for epoch in epochs]
    assert [float(epoch["epoch"]) for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert float(row["mse"]) == pytest.approx(min(losses), rel=1e-4)
    best = losses.index(min(losses)) + 1
    assert [path.name for path in (run / "pictures").glob("scatter-*.png")] == [f"scatter-{best * 48:09d}.png"]
    product = tmp_path / "stage" / "hairstyle.safetensors"
    assert network_files.load_attributes(product).outputs == ("hairstyle",)
    told = network_files.read_metadata(product)["provenance"]
    assert (told["stage"], told["epoch"], told["images_seen"]) == ("stage", best, best * 48)
    assert told["spearman/hairstyle"] == pytest.approx(float(row["spearman"]), abs=1e-4)
    assert_same(network_state(product), network_state(run / "hairstyle.safetensors"))


def test_the_product_takes_the_name_it_is_given(fit: Run, tmp_path: Path) -> None:
    """The judge is a merged network, and whoever looks for it looks for judge.safetensors."""
    assert fit("--model.init_args.save_as", "judge", "--trainer.max_epochs", "1") == 0
    assert network_files.load_attributes(tmp_path / "stage" / "judge.safetensors").outputs == ("hairstyle",)
    assert not (tmp_path / "stage" / "hairstyle.safetensors").exists()


def test_training_stops_without_improvement_and_keeps_the_best_weights(fit: Run, tmp_path: Path) -> None:
    rate = ["--model.init_args.optimizer.init_args.lr", "0", "--model.init_args.patience", "2"]
    assert fit(*rate) == 0
    rows = read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv")
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    assert network_files.read_metadata(tmp_path / "stage" / "hairstyle.safetensors")["provenance"]["epoch"] == 1
    (tmp_path / "stage" / "hairstyle.safetensors").unlink()
    assert fit(*rate, "--ckpt_path", "last") == 0  # killed after the last checkpoint, before the product was written
    assert read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv") == rows
    assert (tmp_path / "stage" / "hairstyle.safetensors").exists()
    assert fit(*rate, "--ckpt_path", "last", "--model.init_args.patience", "3") == 0  # what is typed wins
    assert len(read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv")) == 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with a checkpoint after each of its 36 steps (6 epochs of 6), and worker processes."""
    folder = tmp_path_factory.mktemp("whole")
    manifest, _ = brightness_table(folder / "data", 60)
    words = ["--data.init_args.manifests", f"[{manifest}]", "--trainer.default_root_dir", str(folder / "stage")]
    words += ["--checkpoint.every_kimg", "0.008", "--checkpoint.keep", "99"]
    assert main(["fit", "--config", str(CONF / "properties.yaml"), *words, "--data.init_args.num_workers", "2"]) == 0
    return folder


@pytest.mark.parametrize("step", [1, 14, 17, 18, 23, 36])
def test_what_was_killed_and_resumed_is_bit_identical(whole: Path, tmp_path: Path, step: int) -> None:
    """Killed at any later time: of the run all stays but the checkpoints after ``step`` and the product."""
    shutil.copytree(whole / "stage", tmp_path / "stage")
    run = tmp_path / "stage" / "runs" / "0001"
    for path in (run / "checkpoints").glob("images-*.ckpt"):
        if int(path.stem.split("-")[1]) > step * 8:
            path.unlink()
    for name in ("hairstyle.safetensors", "runs/0001/hairstyle.safetensors", "runs/0001/correlations.csv"):
        (tmp_path / "stage" / name).unlink()
    torch.manual_seed(99)
    words = ["--data.init_args.manifests", f"[{whole / 'data' / 'manifest.csv'}]", "--ckpt_path", "last"]
    words += ["--checkpoint.every_kimg", "0.008", "--checkpoint.keep", "99"]
    words += ["--trainer.default_root_dir", str(tmp_path / "stage")]
    assert main(["fit", "--config", str(CONF / "properties.yaml"), *words]) == 0
    runs = [folder / "stage" / "runs" / "0001" for folder in (whole, tmp_path)]
    assert_same(*(network_state(folder.parents[1] / "hairstyle.safetensors") for folder in runs))
    tables = [[row["loss/validation"] for row in read_rows(folder / "metrics.csv")] for folder in runs]
    assert tables[0] == tables[1] and len(tables[0]) == 6
    assert len({(folder / "correlations.csv").read_text() for folder in runs}) == 1
    last = [torch.load(sorted((folder / "checkpoints").iterdir())[-1], weights_only=True) for folder in runs]
    assert_same(last[0]["state_dict"], last[1]["state_dict"])
    assert int(last[0]["state_dict"]["images_seen"]) == 36 * 8


def test_a_checkpoint_elsewhere_brings_its_best_weights(whole: Path, tmp_path: Path, fit: Run) -> None:
    (tmp_path / "elsewhere").mkdir()
    source = whole / "stage" / "runs" / "0001" / "checkpoints"
    taken = shutil.copy(source / f"images-{36 * 8:010d}.ckpt", tmp_path / "elsewhere")
    words = ["--ckpt_path", str(taken), "--trainer.max_epochs", "7", "--model.init_args.optimizer.init_args.lr", "0"]
    assert fit(*words, "--model.init_args.schedule", "null") == 0
    assert_same(*(network_state(d / "stage" / "hairstyle.safetensors") for d in (whole, tmp_path)))


@pytest.mark.parametrize("size", [7, 16])
def test_another_batch_size_on_resume_is_validated_as_well(fit: Run, tmp_path: Path, size: int) -> None:
    assert fit("--trainer.max_epochs", "1") == 0
    assert fit("--ckpt_path", "last", "--data.init_args.batch_size", str(size)) == 0
    rows = read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv")
    length = -(-48 // size) * size / 1000
    assert [float(row["kimg"]) for row in rows] == pytest.approx([0.048 + k * length for k in range(6)])
    assert all(row["loss/validation"] for row in rows)


def test_another_batch_size_within_an_epoch(
    whole: Path, tmp_path: Path, fit: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 9 is the third of the second epoch."""
    shutil.copytree(
        whole / "stage" / "runs" / "0001" / "checkpoints", tmp_path / "stage" / "runs" / "0001" / "checkpoints"
    )
    words = ["--ckpt_path", str(tmp_path / "stage" / "runs" / "0001" / "checkpoints" / f"images-{9 * 8:010d}.ckpt")]
    assert fit(*words, "--data.init_args.batch_size", "16") == 2
    assert "stands within an epoch, which would be over with batch_size 16" in capsys.readouterr().err
    assert fit(*words, "--data.init_args.batch_size", "12") == 0  # four steps: one is left
    rows = read_rows(tmp_path / "stage" / "runs" / "0001" / "metrics.csv")
    assert [float(row["kimg"]) for row in rows] == pytest.approx([0.084 + k * 0.048 for k in range(5)])


def test_the_optimizer_follows_what_is_typed_on_resume(fit: Run, tmp_path: Path) -> None:
    constant = ["--model.init_args.schedule", "null"]
    assert fit("--trainer.max_epochs", "1", *constant) == 0
    path = tmp_path / "stage" / "runs" / "0001" / "checkpoints"
    before = torch.load(sorted(path.iterdir())[-1], weights_only=True)["state_dict"]
    rate = ["--model.init_args.optimizer.init_args.lr", "0"]
    assert fit("--trainer.max_epochs", "2", *constant, *rate, "--ckpt_path", "last") == 0
    after = torch.load(sorted(path.iterdir())[-1], weights_only=True)["state_dict"]
    assert int(after["images_seen"]) == 96
    key = "network.branches.hairstyle.score.weight"
    assert torch.equal(before[key], after[key])


def test_weights_that_break_in_the_last_step_of_an_epoch(
    fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the validation can tell."""
    words = ["--data.init_args.batch_size", "48", *HUGE_STEPS]
    assert fit(*words) == 2
    assert "a prediction on validation data is not finite: the network has diverged" in capsys.readouterr().err
    assert not (tmp_path / "stage" / "hairstyle.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_the_run(fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(*HUGE_STEPS) == 2
    told = capsys.readouterr().err
    assert "the loss of hairstyle.safetensors is not finite in the step that ends at 16 images" in told


def test_another_seed_is_another_split_and_start(fit: Run, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "1", stage="search") == 0
    other = ["--model.init_args.seed", "1000", "--data.init_args.seed", "1000"]
    assert fit("--trainer.max_epochs", "1", *other, stage="judge") == 0
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
    batch = {name: torch.from_numpy(values) for name, values in data.train_set.arrays.items()}
    flipped = torch.arange(len(places)) % 2 == 0
    turned = data.flipped_targets(batch, flipped)["label"].numpy()
    np.testing.assert_allclose(turned[::2, 0], expected[::2], atol=1e-3)
    np.testing.assert_allclose(turned[1::2, 0], levels[places][1::2], atol=1e-3)
    np.testing.assert_allclose(turned[:, 1], levels[places], atol=1e-3)


def test_mirrored_images_reach_the_training(fit: Run, tmp_path: Path) -> None:
    assert fit("--data.init_args.flip", "true", stage="flipped") == 0  # no score changes, so that no scale is needed
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


# --- what z-scores are in the data


CURLY = """
base: celeba256
attributes:
  hairstyle: {meaning: curlier hair, kind: score, roles: [grouping], physical: {column: curls, unit: curls per cm}}
"""


def with_curls(folder: Path, fit: Run, sign: float = 1.0, table: str = "manifest.csv") -> Run:
    """Trains in a world where hair has a physical value, which a table tells: three curls more per z-score."""
    (folder / "curly.yaml").write_text(CURLY)
    path = folder / "data" / table
    rows = read_rows(path)
    write_rows(path, [{**row, "curls": 5 + sign * 3 * float(row["hairstyle"])} for row in rows])
    return lambda *words, **given: fit("--world", str(folder / "curly.yaml"), *words, **given)


def test_a_network_tells_what_its_scores_are_in_the_data(fit: Run, tmp_path: Path) -> None:
    assert with_curls(tmp_path, fit)("--trainer.max_epochs", "1") == 0
    found = scales_in(network_files.read_metadata(tmp_path / "stage" / "hairstyle.safetensors")["provenance"])
    scores = np.array([float(row["hairstyle"]) for row in read_rows(tmp_path / "data" / "manifest.csv")])
    trains = np.sort(counted.permutation(0, "split", 0, 60)[12:])
    assert list(found) == ["hairstyle"]
    assert [found["hairstyle"].low, found["hairstyle"].high] == pytest.approx(
        np.percentile(scores[trains], [2.5, 97.5])
    )
    physical = found["hairstyle"].physical
    assert physical is not None and (physical.column, physical.unit) == ("curls", "curls per cm")
    for score in (scores.min(), -1.0, 0.3, scores.max()):
        assert physical(score) == pytest.approx(5 + 3 * score, abs=0.01)
    # A merged network tells of all its parts.
    merged = tmp_path / "merged.safetensors"
    assert main(["merge", str(tmp_path / "stage" / "hairstyle.safetensors"), str(merged)]) == 0
    assert scales_in(network_files.read_metadata(merged)["provenance"]) == found


def test_tables_need_not_have_physical_values(fit: Run, tmp_path: Path) -> None:
    train = with_curls(tmp_path, fit)
    other, _ = brightness_table(tmp_path / "more", 20, seed=1)
    both = f"[{tmp_path / 'data' / 'manifest.csv'}, {other}]"
    assert train("--data.init_args.manifests", both, "--trainer.max_epochs", "1") == 0
    found = scales_in(network_files.read_metadata(tmp_path / "stage" / "hairstyle.safetensors")["provenance"])
    assert found["hairstyle"].physical is not None
    assert train("--data.init_args.manifests", f"[{other}]", "--trainer.max_epochs", "1", stage="without") == 0
    found = scales_in(network_files.read_metadata(tmp_path / "without" / "hairstyle.safetensors")["provenance"])
    assert found["hairstyle"].physical is None


def test_physical_values_must_rise_with_their_attribute(
    fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before training, and not after it."""
    assert with_curls(tmp_path, fit, sign=-1.0)() == 2
    assert "hairstyle: curls does not rise with it, as its physical value must; look at the tables" in (
        capsys.readouterr().err
    )
    assert not list(tmp_path.rglob("*.ckpt"))


OWN: dict[str, dict[str, object]] = {
    "light": {"meaning": "brighter", "kind": "score", "column": "Luminosity"},
    "level": {"meaning": "brighter, in steps", "kind": "ordinal", "levels": 4},
    "bright": {"meaning": "bright", "kind": "binary"},
    "luck": {"meaning": "nothing one can see", "kind": "score"},
}


@pytest.fixture
def own_table(tmp_path: Path) -> Path:
    """A table of one's own: raw values, some missing; a weight; two annotators of some images."""
    _, levels = brightness_table(tmp_path / "data", 120)
    random = np.random.default_rng(1)
    lines = ["path;annotator;Luminosity;level;bright;luck;sure"]
    for k, z in enumerate(levels):
        for person in ("kim", "lee") if k < 30 else ("kim",):
            noise = random.normal(0, 0.1)
            light = "" if k % 3 == 0 else f"{100 + 20 * (z + noise):.3f}"
            level = "NA" if k % 4 == 0 else str(int(np.clip(np.round(2 + z + noise), 0, 4)))
            lines.append(f"{k:03d}.png;{person};{light};{level};{int(z > 0)};{random.normal():.3f};{1 + k % 2}")
    lines.append("119.png;lee;;;;;1")
    (tmp_path / "data" / "own.csv").write_text("\n".join(lines) + "\n", "utf-8-sig")
    attributes.use(attributes.Vocabulary.read(Path("mine.yaml"), OWN))
    return tmp_path / "data" / "own.csv"


def own_data(table: Path, **settings: object) -> ScoredImages:
    given = {"folder": str(table.parent / "images"), "raw": True, "val_share": 0.25} | settings
    data = ScoredImages(16, [str(table)], list(OWN), **given)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_a_table_of_ones_own_is_read(own_table: Path) -> None:
    data = own_data(own_table, weights="sure")
    assert len(data.train_set) + len(data.val_set) == 120
    mean, std = data.scale["light"]
    assert mean == pytest.approx(100, abs=4) and std == pytest.approx(20, abs=3) and "level" in data.scale
    labels = np.concatenate([part.arrays["label"] for part in (data.train_set, data.val_set)])
    assert np.isnan(labels).sum(axis=0).tolist() == [40, 30, 0, 0]
    assert np.nanmean(labels[:, 0]) == pytest.approx(0, abs=1e-5) and np.nanstd(labels[:, 0]) == pytest.approx(1)
    assert data.agreement["bright"] == pytest.approx(1) and data.agreement["light"] > 0.9
    assert abs(data.agreement["luck"]) < 0.6
    weight = data.train_set.arrays["weight"]
    assert weight.mean() == pytest.approx(1) and weight.max() == pytest.approx(2 * weight.min())
    reflected = OWN | {"light": OWN["light"] | {"mirror": "negates"}}
    attributes.use(attributes.Vocabulary.read(Path("mine.yaml"), reflected))
    turned = own_data(own_table, flip=True)  # raw values need no stored scale
    plain, mirrored = (turned.train_set.arrays[name][:, 0] for name in ("label", "mirrored_label"))
    np.testing.assert_allclose(mirrored * std + mean, -(plain * std + mean), rtol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("001.png;lee", "001.png;kim", "row 5: 'kim' annotates 001.png twice"),
        ("000.png;kim;;NA;", "000.png;kim;;NA;2", "bright is 2"),
        ("000.png;lee;;", "000.png;lee;0,5;", "with a point before its decimals: 0.5, not 0,5"),
        (";1\n001.png;kim", ";-1\n001.png;kim", "row 3: sure is -1; expected a weight of 0 or more"),
        (";1\n001.png;kim", ";NA\n001.png;kim", "row 3: sure is 'NA', and the row has values to learn; expected a we"),
    ],
)
def test_a_mistake_in_a_table_of_ones_own_is_named(own_table: Path, old: str, new: str, said: str) -> None:
    text = own_table.read_text("utf-8-sig")
    assert old in text
    own_table.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        own_data(own_table, weights="sure")
    assert said in str(caught.value)


def test_what_cannot_be_learned_is_said_and_marked(
    own_table: Path, tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_table.parent / "images"
    words = ["--data.init_args.manifests", f"[{own_table}]", "--data.init_args.folder", str(folder)]
    words += ["--data.init_args.raw", "true", "--data.init_args.val_share", "0.3", "--trainer.max_epochs", "20"]
    words += ["--data.init_args.weights", "sure", "--model.init_args.save_as", "property"]
    (tmp_path / "mine.yaml").write_text(json.dumps({"root": "mine", "attributes": OWN}))
    words += ["--world", str(tmp_path / "mine.yaml")]
    assert ohlora("fit", "properties", "--model.init_args.network", f"[{', '.join(OWN)}]", *words) == 0
    said = capsys.readouterr().out
    rows = {row["attribute"]: row for row in read_rows(tmp_path / "stage" / "runs" / "0001" / "correlations.csv")}
    assert float(rows["light"]["pearson"]) > 0.8 and float(rows["level"]["pearson"]) > 0.8
    assert float(rows["bright"]["auroc"]) > 0.95 and not rows["light"]["auroc"]
    assert float(rows["light"]["mae"]) < 0.7 * float(rows["light"]["mae_of_mean"])
    assert int(rows["light"]["held_out"]) < int(rows["bright"]["held_out"]) == 36
    assert float(rows["bright"]["agreement"]) == pytest.approx(1)
    cannot = "this attribute cannot be learned from these labels"
    assert [name for name, row in rows.items() if row["verdict"] == cannot] == ["luck"]
    assert "WARNING: property.safetensors is not fit for use:\n  luck: r on held-out images is" in said
    told = network_files.read_metadata(tmp_path / "stage" / "property.safetensors")["provenance"]
    assert told["unfit"].startswith("luck: r on held-out images is") and told["unfit"].endswith(cannot)
    assert told["scale/light"][0] == pytest.approx(100, abs=4) and handover.marks({"merged_from": {"a": told}})

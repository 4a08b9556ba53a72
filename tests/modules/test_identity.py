"""Training an identity network, through the real entry point."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.__main__ import main
from ohlora.datamodules.people import People, PeopleDataset
from ohlora.datamodules.sampler import CountedSampler
from ohlora.errors import ConfigError
from ohlora.evaluation.identity import OTHERS, SAME, measures
from ohlora.formats import network_files
from ohlora.modules import identity
from ohlora.toy import drawing, people
from ohlora.utils import images
from ohlora.utils.files import read_rows
from tests.conftest import CONF, assert_same, network_state

Run = Callable[..., int]
PRODUCT = "identity.safetensors"
HUGE_STEPS = ["--model.init_args.optimizer", "torch.optim.SGD", "--model.init_args.optimizer.init_args.lr", "1e38"]


@pytest.fixture
def fit(ohlora: Run, tmp_path: Path) -> Run:
    def run(*words: str, stage: str = "stage") -> int:
        return ohlora("fit", "identity", *words, stage_dir=tmp_path / stage)

    return run


# --- data


def test_pictures_of_people_and_their_look_alikes_stand_side_by_side() -> None:
    data = PeopleDataset(first=10, count=4, pictures=3, resolution=32, seed=2)
    assert len(data) == 12
    samples = [data[k] for k in reversed(range(12))][::-1]
    assert [int(sample["person"]) for sample in samples] == [10] * 3 + [11] * 3 + [12] * 3 + [13] * 3
    for k, sample in enumerate(samples):
        truth = people.portrait(2, 10 + k // 3, k % 3)
        assert sample["index"] == k and (sample["image"] == drawing.draw(truth, 32).image).all()
        assert (sample["properties"] == people.properties(truth)).all()
    again = PeopleDataset(first=12, count=2, pictures=3, resolution=32, seed=2)
    assert (again[4]["image"] == samples[10]["image"]).all(), "whatever the number of people"


def test_pairs_show_what_they_are_called() -> None:
    data = PeopleDataset(first=40, count=12, pictures=4, resolution=64, seed=1)
    pairs = data.pairs(range(1, 6))
    kinds = np.array(pairs.kinds)
    assert (kinds == SAME).sum() == 5 * 12 and (kinds == OTHERS).sum() == 5 * 6
    alike = kinds[(kinds != SAME) & (kinds != OTHERS)]
    assert 0 < len(alike) <= 5 * 6 and {*alike} <= {*people.OF_LOOK_ALIKES}
    told = zip(pairs.first, pairs.second, pairs.kinds, strict=True)
    for a, b, kind in told:
        one, other = (int(data[k]["person"]) for k in (a, b))
        assert (one == other) == (kind == SAME) and (a != b)
        assert 42 <= one < 52 and 42 <= other < 52, "of their part only"
        if kind == OTHERS:
            assert one // 2 != other // 2
        elif kind != SAME:
            assert one // 2 == other // 2 and kind == people.difference(1, one) and a % 4 != b % 4
            assert all(data[k]["seen"] for k in (a, b))
    assert pairs == data.pairs(range(1, 6)) and pairs != data.pairs(range(5))


def test_a_difference_that_no_pixel_shows_makes_no_pair() -> None:
    """Irises in closed eyes."""
    seed, first = 0, next(n for n in range(0, 1000, 2) if people.difference(0, n) == "iris")
    shut = [k for k in range(60) if drawing.physical(people.portrait(seed, first, k))["eye_opening"] == 0]
    data = PeopleDataset(first, 2, 60, 64, seed)
    wide = [k for k in range(60) if drawing.physical(people.portrait(seed, first, k))["eye_opening"] > 0.6]
    assert shut and not any(data[k]["seen"] for k in shut)
    assert wide and all(data[k]["seen"] for k in wide)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"people": 7}, "people is 7; expected a multiple of 2, for every person has a look-alike"),
        ({"val_people": 10}, "val_people is 10; expected a multiple of 4"),
        ({"val_people": 4}, "val_people is 4; expected at least 8"),
        ({"pictures": 1}, "pictures is 1; expected at least 2"),
        ({"flip": True}, "a mirrored person is another one"),
        ({"resolution": 8}, "resolution is 8; expected at least 16"),
        ({"rates": {"age": 2.0}}, "age is 2.0; expected 0 to 1"),
    ],
)
def test_settings_of_the_data_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        People(**settings)  # type: ignore[arg-type]


def test_unknown_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown rate 'beard'"):
        People(rates={"beard": 0.5})


def test_samples_that_stay_together_do_on_every_rank() -> None:
    """Two ranks together see what one sees, in batches of two groups."""
    one = list(_order(CountedSampler(12, 3, lambda: 6, together=3), 24))
    two = [list(_order(CountedSampler(12, 3, lambda: 6, rank, 2, 3), 12)) for rank in (0, 1)]
    groups = [one[k : k + 3] for k in range(0, 24, 3)]
    assert all(group == list(range(group[0], group[0] + 3)) and group[0] % 3 == 0 for group in groups)
    assert [two[k % 2][k // 2 * 3 : k // 2 * 3 + 3] for k in range(8)] == groups
    whole = list(_order(CountedSampler(12, 3, lambda: 0, together=3), 30))
    assert whole[6:] == one, "it goes on where the clock stands"


def _order(sampler: CountedSampler, count: int) -> list[int]:
    return [number for number, _ in zip(sampler, range(count), strict=False)]


# --- training


def test_a_network_learns_and_reports_its_best_epoch(
    fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--trainer.max_epochs", "6", "--data.init_args.people", "48") == 0
    said = capsys.readouterr().out
    run = tmp_path / "stage" / "runs" / "0001"
    epochs = read_rows(run / "metrics.csv")
    losses = [float(epoch["loss/validation"]) for epoch in epochs]
    assert len(epochs) == 6 and min(losses) < losses[0]
    best = min(epochs, key=lambda row: float(row["loss/validation"]))
    table = {row["compared_with"]: row for row in read_rows(run / "recognition.csv")}
    for name in ("all", "look_alikes", "others"):
        assert float(best[f"eer/{name}"]) == pytest.approx(float(table[name]["eer"]), abs=1e-4)
        assert float(best[f"auroc/{name}"]) == pytest.approx(float(table[name]["auroc"]), abs=1e-4)
    assert 0 <= float(best["calibration_error"]) <= 1
    assert {*table} - {"all", "look_alikes", "others"} <= {*people.OF_LOOK_ALIKES} and len(table) > 3
    told = network_files.read_metadata(tmp_path / "stage" / PRODUCT)["provenance"]
    assert told["eer/all"] == pytest.approx(float(best["eer/all"]), abs=1e-4) and told["epoch"] == float(best["epoch"])
    pictures = {path.name.split("-")[0] for path in (run / "pictures").iterdir()}
    assert pictures == {"roc", "look_alikes", "worst_mistakes"}
    lines = said.splitlines()
    assert next(line for line in lines if line.startswith("compared with")).split()[-2:] == ["EER", "AUROC"]
    assert f"all {int(table['all']['pairs']):>20}" in said and "expected calibration error" in said
    (wrote,) = (line for line in lines if line.startswith("wrote"))
    assert f"equal error rate {float(best['eer/all']):.2%} (look-alikes" in wrote
    assert_same(network_state(tmp_path / "stage" / PRODUCT), network_state(run / PRODUCT))


def test_a_network_that_is_not_fit_says_so_loudly(
    fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit("--trainer.max_epochs", "1") == 0
    told = network_files.read_metadata(tmp_path / "stage" / PRODUCT)["provenance"]
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("identity.safetensors IS NOT FIT FOR USE: its equal error rate is ")
    assert told["unfit"] in last and told["unfit"].endswith("expected at most 3%")
    monkeypatch.setattr(identity, "LIMIT", 1.0)
    assert fit("--trainer.max_epochs", "1", stage="other") == 0
    assert "NOT FIT" not in capsys.readouterr().out
    assert "unfit" not in network_files.read_metadata(tmp_path / "other" / PRODUCT)["provenance"]


def test_the_calibration_of_the_file_is_that_of_held_out_people(fit: Run, tmp_path: Path) -> None:
    """Logistic regression leaves a mean probability of one half, where both answers weigh as much."""
    assert fit() == 0
    network = network_files.load_identity(tmp_path / "stage" / PRODUCT)
    data = People(32, people=24, pictures=2, val_people=16, val_pictures=3)
    data.setup("fit")
    deciding = data.val_set.pairs(range(4))
    shown = images.to_float(np.stack([data.val_set[k]["image"] for k in range(len(data.val_set))]))
    with torch.no_grad():
        embedded = network(shown)
        probability = network.same_person(shown[deciding.first], shown[deciding.second]).numpy()
    same = np.array(deciding.kinds) == SAME
    assert (probability[same].mean() + probability[~same].mean()) / 2 == pytest.approx(0.5, abs=1e-3)
    assert probability[same].mean() > probability[~same].mean()
    told = network_files.read_metadata(tmp_path / "stage" / PRODUCT)["provenance"]
    rest = data.val_set.pairs(range(4, 8))
    assert not {*deciding.first, *deciding.second} & {*rest.first, *rest.second}
    similarity = (embedded[rest.first] * embedded[rest.second]).sum(dim=1).numpy()
    assert measures(similarity, np.array(rest.kinds))["all"]["eer"] == pytest.approx(told["eer/all"], abs=1e-4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with a checkpoint after each of its 12 steps (4 epochs of 3)."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["--trainer.default_root_dir", str(folder / "stage"), "--checkpoint.every_kimg", "0.016"]
    assert main(["fit", "--config", str(CONF / "identity.yaml"), *words, "--checkpoint.keep", "99"]) == 0
    return folder / "stage"


@pytest.mark.parametrize("step", [1, 6, 8, 12])
def test_what_was_killed_and_resumed_is_bit_identical(whole: Path, tmp_path: Path, step: int) -> None:
    shutil.copytree(whole, tmp_path / "stage")
    run = tmp_path / "stage" / "runs" / "0001"
    for path in (run / "checkpoints").glob("images-*.ckpt"):
        if int(path.stem.split("-")[1]) > step * 16:
            path.unlink()
    for name in (PRODUCT, f"runs/0001/{PRODUCT}", "runs/0001/recognition.csv"):
        (tmp_path / "stage" / name).unlink()
    torch.manual_seed(99)
    words = ["--trainer.default_root_dir", str(tmp_path / "stage"), "--checkpoint.every_kimg", "0.016"]
    words += ["--checkpoint.keep", "99", "--ckpt_path", "last", "--data.init_args.num_workers", "1"]
    assert main(["fit", "--config", str(CONF / "identity.yaml"), *words]) == 0
    runs = [folder / "runs" / "0001" for folder in (whole, tmp_path / "stage")]
    assert_same(*(network_state(folder.parents[1] / PRODUCT) for folder in runs))
    tables = [read_rows(folder / "metrics.csv") for folder in runs]
    measured = [[(row["loss/validation"], row["eer/all"]) for row in table] for table in tables]
    assert measured[0] == measured[1] and len(measured[0]) == 4
    assert len({(folder / "recognition.csv").read_text() for folder in runs}) == 1
    last = [torch.load(sorted((folder / "checkpoints").iterdir())[-1], weights_only=True) for folder in runs]
    assert_same(last[0]["state_dict"], last[1]["state_dict"])


def test_another_seed_other_data_and_layers_make_another_network(fit: Run, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "1") == 0
    other = ["--model.init_args.seed", "1000", "--data.init_args.seed", "1000", "--model.init_args.widths", "[8, 8, 8]"]
    other += ["--model.init_args.strides", "[2, 1, 2]", "--model.init_args.save_as", "judge"]
    assert fit("--trainer.max_epochs", "1", *other, stage="judge") == 0
    search = network_files.load_identity(tmp_path / "stage" / PRODUCT)
    judge = network_files.load_identity(tmp_path / "judge" / "judge.safetensors")
    assert search.arguments() != judge.arguments()
    first = [PeopleDataset(0, 2, 2, 32, seed)[0]["image"] for seed in (0, 1000)]
    assert (first[0] != first[1]).any()


def test_the_properties_are_learnt_beside(fit: Run, tmp_path: Path) -> None:
    """They are part of the loss, and their layer is no part of the product."""
    assert fit("--trainer.max_epochs", "1") == 0
    assert fit("--trainer.max_epochs", "1", "--model.init_args.properties", "0", stage="contrast") == 0
    a, b = (network_state(tmp_path / stage / PRODUCT) for stage in ("stage", "contrast"))
    assert a.keys() == b.keys() and not any("head" in key for key in a)
    assert not torch.equal(a["dense.weight"], b["dense.weight"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.init_args.batch_size", "10"], "and 4 images stay together; expected a multiple of 4"),
        (["--model.init_args.temperature", "0"], "temperature is 0.0; expected more than 0"),
        (["--model.init_args.widths", "[8, 12]"], "widths are [8, 12]; expected one or more multiples of 8"),
        (["--model.init_args.patch", "5"], "patch is 5; expected a divisor of the resolution 32"),
        (["--model.init_args.strides", "[2]"], "expected 1 or 2 for each of 2 widths"),
        (["--data.init_args.people", "9"], "people is 9; expected a multiple of 2"),
        (["--data.class_path", "ohlora.datamodules.drawn_faces.DrawnFaces"], "PersonRecognition works on People"),
        (HUGE_STEPS, "is not finite"),
    ],
)
def test_what_a_user_can_mend(
    fit: Run, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "stage" / PRODUCT).exists()


def test_another_size_on_resume_is_refused(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_epochs", "1") == 0
    assert fit("--ckpt_path", "last", "--model.init_args.size", "6") == 2
    assert "size is 8 in the checkpoint and 6 now" in capsys.readouterr().err


def test_without_pairs_to_calibrate_by(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """One batch of validation shows the first pictures only."""
    assert fit("--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1") == 0
    assert "partial run (trainer.limit_val_batches leaves part of it out)" in capsys.readouterr().out
    few = ["--data.init_args.batch_size", "4", "--trainer.limit_val_batches", "1"]
    assert fit(*few, "--data.init_args.val_pictures", "4", stage="few") == 2
    assert "hold no pairs to calibrate by; leave trainer.limit_val_batches out" in capsys.readouterr().err


def test_a_collapsed_network_is_not_saved(
    fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "calibrated", lambda similarity, same: (0.0, 0.0))
    assert fit("--trainer.max_epochs", "1") == 2
    assert "no more alike to identity.safetensors than those of two, and it was not saved" in capsys.readouterr().err
    assert not (tmp_path / "stage" / PRODUCT).exists()

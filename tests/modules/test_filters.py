"""Filter ensembles and scoring, through the real entry point."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFont

from ohlora.datamodules.annotations import INNER, OUTER, TRAIN, AnnotatedImages, fold_roles
from ohlora.errors import ConfigError, DataError
from ohlora.formats import network_files
from ohlora.modules.filters import FilterEnsemble
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.utils import figures as drawn
from ohlora.utils.files import read_rows
from tests.conftest import assert_same, network_state
from tests.toy_tables import brightness_table

Run = Callable[..., int]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return brightness_table(tmp_path / "data", 60)[0]


@pytest.fixture
def fit(ohlora: Run, labels: Path, tmp_path: Path) -> Run:
    def run(*words: str, stage: str = "stage") -> int:
        return ohlora("fit", "filter", "--data.init_args.annotations", str(labels), *words, stage_dir=tmp_path / stage)

    return run


def test_roles_divide_the_samples_and_keep_the_shares() -> None:
    labels = np.array([1.0] * 30 + [0.0] * 70)
    roles = fold_roles(labels, 5, 0.25, seed=3)
    assert ((roles == OUTER).sum(axis=1) == 1).all()
    for k in range(5):
        parts = [roles[:, k] == role for role in (TRAIN, INNER, OUTER)]
        assert [int(part.sum()) for part in parts] == [60, 20, 20]
        assert [round(float(labels[part].mean()), 2) for part in parts] == [0.3, 0.3, 0.3]
    assert (fold_roles(labels, 5, 0.25, seed=3) == roles).all() and (fold_roles(labels, 5, 0.25, 4) != roles).any()
    with pytest.raises(ConfigError, match="2 are labelled 1"):
        fold_roles(np.array([1.0, 1.0] + [0.0] * 50), 5, 0.25, seed=0)


def test_an_ensemble_learns_and_reports_out_of_fold(
    fit: Run, tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []
    plain = drawn.captioned

    def captioned(picture: np.ndarray, lines: list[str]) -> np.ndarray:
        captions.extend(lines)
        return plain(picture, lines)

    monkeypatch.setattr(drawn, "captioned", captioned)
    assert fit() == 0
    font = ImageFont.load_default(14)
    unknown = bytes(font.getmask("\uffff"))
    assert captions and not [c for c in set("".join(captions)) if bytes(font.getmask(c)) == unknown]
    run = tmp_path / "stage" / "runs" / "0001"
    ensemble = network_files.load_attributes(tmp_path / "stage" / "gender.safetensors")
    assert isinstance(ensemble, AttributeEnsemble) and len(ensemble.members) == 3
    rows = read_rows(run / "out_of_fold.csv")
    truth = {row["index"]: row["gender"] for row in read_rows(labels)}
    assert {row["index"]: row["gender"] for row in rows} == truth
    assert all(0 < float(row["gender_score"]) < 1 for row in rows)
    figures = read_rows(run / "metrics.csv")[-1]
    epochs = read_rows(run / "metrics.csv")[:-1]
    assert [float(row["epoch"]) for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert float(epochs[-1]["loss/train"]) < float(epochs[0]["loss/train"]) < 1  # the mean over samples
    assert float(figures["out_of_fold/auroc"]) > 0.9
    assert {"out_of_fold/accuracy", "out_of_fold/f1", "out_of_fold/bce", "out_of_fold/calibration_error"} <= set(
        figures
    )
    assert [row["member"] for row in read_rows(run / "members.csv")] == ["0", "1", "2"]
    pictures = {path.name.rsplit("-", 1)[0] for path in (run / "pictures").iterdir()}
    assert pictures == {"roc", "worst_mistakes"}
    told = network_files.read_metadata(tmp_path / "stage" / "gender.safetensors")["provenance"]
    assert told["out_of_fold"]["out_of_fold/auroc"] == pytest.approx(float(figures["out_of_fold/auroc"]), abs=1e-4)


def test_a_member_never_learns_from_its_fold_or_its_inner_split(labels: Path) -> None:
    module = FilterEnsemble("gender", optimizer=torch.optim.SGD, plan="small", folds=3, resolution=16)
    data = AnnotatedImages(16, str(labels), "gender", folds=3)
    data.setup("fit")
    samples = [data.train_set[k] for k in range(60)]
    image = torch.stack([torch.from_numpy(s["image"].copy()).permute(2, 0, 1) / 127.5 - 1 for s in samples])
    image.requires_grad_()
    roles = torch.stack([torch.from_numpy(s["roles"]) for s in samples])
    label = torch.stack([torch.from_numpy(s["label"]) for s in samples])
    losses = module.losses({"image": image, "roles": roles, "label": label})
    assert list(losses) == [0, 1, 2]
    for k, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, image)
        learned_from = gradient.flatten(1).abs().sum(dim=1) > 0
        assert torch.equal(learned_from, roles[:, k] == TRAIN)
    module.stale[1] = module.patience
    assert list(module.losses({"image": image, "roles": roles, "label": label})) == [0, 2]


def test_what_was_stopped_and_resumed_is_bit_identical(fit: Run, tmp_path: Path) -> None:
    """An epoch is 8 steps; the second member stops after three epochs, the third begins again."""
    words = ["--checkpoint.every_kimg", "0.008", "--checkpoint.keep", "99", "--model.init_args.patience", "2"]
    words += ["--model.init_args.retry_limit", "0.01", "--model.init_args.max_attempts", "2"]
    words += ["--model.init_args.optimizer.init_args.lr", "0.02"]
    with pytest.warns(UserWarning, match="above retry_limit"):
        assert fit(*words, stage="whole") == 0
    run = tmp_path / "whole" / "runs" / "0001"
    attempts = {row["attempts"] for row in read_rows(run / "members.csv")}
    assert "2" in attempts  # a member had begun again
    steps = len(list((run / "checkpoints").iterdir()))
    for step in (12, steps - 8, steps):  # within an epoch, at the end of one, and at the end of training
        parts = tmp_path / f"parts-{step}"
        shutil.copytree(tmp_path / "whole", parts)
        for path in sorted((parts / "runs" / "0001" / "checkpoints").iterdir())[step:]:
            path.unlink()
        (parts / "gender.safetensors").unlink()
        (parts / "runs" / "0001" / "out_of_fold.csv").unlink()
        torch.manual_seed(1234)
        with pytest.warns(UserWarning, match="above retry_limit"):
            assert fit(*words, "--ckpt_path", "last", stage=parts.name) == 0
        assert_same(*(network_state(d / "gender.safetensors") for d in (tmp_path / "whole", parts)))
        for name in ("out_of_fold.csv", "members.csv"):
            assert (run / name).read_text() == (parts / "runs" / "0001" / name).read_text()


def test_a_rank_without_a_sample_of_its_own_takes_part_with_nothing(labels: Path) -> None:
    module = FilterEnsemble("gender", optimizer=torch.optim.SGD, plan="small", folds=2, resolution=16)
    batch = {"image": torch.zeros(3, 3, 16, 16), "label": torch.ones(3, 1), "roles": torch.full((3, 2), OUTER)}
    losses = module.losses(batch)
    assert len(losses) == 2
    for loss in losses.values():
        assert float(loss.detach()) == 0
        loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and not p.grad.any() for p in module.members.parameters())


def test_resized_images_without_a_cache(labels: Path) -> None:
    data = AnnotatedImages(8, str(labels), "gender", resize=True, cache="none")
    data.setup("fit")
    assert data.train_set[3]["image"].shape == (8, 8, 3)


def test_a_member_above_the_limit_begins_again(fit: Run, tmp_path: Path) -> None:
    words = ["--model.init_args.patience", "1", "--trainer.max_epochs", "12", "--model.init_args.max_attempts", "2"]
    with pytest.warns(UserWarning, match="above retry_limit 1e-09; its best weights are kept"):
        # A rate of 0 never improves, so that every attempt ends after its second epoch.
        rate = ["--model.init_args.optimizer.init_args.lr", "0", "--model.init_args.retry_limit", "1e-9"]
        assert fit(*words, *rate) == 0
    rows = read_rows(tmp_path / "stage" / "runs" / "0001" / "members.csv")
    assert [row["attempts"] for row in rows] == ["2", "2", "2"]
    assert all(math.isfinite(float(row["inner_bce"])) for row in rows)


def test_members_start_from_given_weights(fit: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(7)
    start = attribute_cnn("gender", "small", 16)
    network_files.save_network(start, tmp_path / "start.safetensors")
    words = ["--model.init_args.initial", str(tmp_path / "start.safetensors")]
    assert fit(*words, "--model.init_args.optimizer.init_args.lr", "0", "--trainer.max_epochs", "1") == 0
    ensemble = network_files.load_attributes(tmp_path / "stage" / "gender.safetensors")
    assert isinstance(ensemble, AttributeEnsemble)
    for member in ensemble.members:
        assert_same(member.state_dict(), start.state_dict())
    network_files.save_network(attribute_cnn("age", "small", 16), tmp_path / "start.safetensors")
    assert fit(*words) == 2
    assert "predicts age with other layers" in capsys.readouterr().err


def test_labels_in_the_originals_format(tmp_path: Path) -> None:
    manifest, levels = brightness_table(tmp_path / "data", 40)
    folder = manifest.parent / "images"
    lines = ["idx,gender,quality", *(f"{k},{int(level > 0)},1" for k, level in enumerate(levels))]
    csv = tmp_path / "labels.csv"
    csv.write_text("\n".join(lines))
    data = AnnotatedImages(16, str(csv), "gender", folder=str(folder), folds=2)
    data.setup("fit")
    assert data.train_set.numbers == list(range(40)) and data.train_set.paths[7].name == "007.png"
    assert data.train_set.labels is not None and (data.train_set.labels[:, 0] == (levels > 0)).all()
    lines[3], lines[5], lines[8] = "2,7,1", "999,1,1", "6,1,1"
    lines.append("3,1,1")
    csv.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        AnnotatedImages(16, str(csv), "gender", folder=str(folder), folds=2).setup("fit")
    for part in (
        "row 4: gender is '7', expected 0 or 1",
        "row 6: there is no image 999",
        "row 9: image 6 is labelled twice",
        "row 42: image 3 is labelled twice",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="expected a column age"):
        AnnotatedImages(16, str(csv), "age", folder=str(folder)).setup("fit")
    with pytest.raises(DataError, match="name the folder they are in"):
        AnnotatedImages(16, str(csv), "gender").setup("fit")


def test_scores_of_a_manifest(ohlora: Run, tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    gender = AttributeEnsemble.of([attribute_cnn("gender", "small", 16).eval() for _ in range(2)])
    merged = attribute_cnn("merged", "small", 16).eval()
    files = [str(tmp_path / f"{name}.safetensors") for name in ("gender", "merged")]
    network_files.save_network(gender, files[0])
    network_files.save_network(merged, files[1])
    output = tmp_path / "scores" / "scores.csv"
    words = ["--data.init_args.manifest", str(labels), "--model.init_args.output", str(output)]
    assert ohlora("predict", "scores", *words, "--model.init_args.networks", f"[{', '.join(files)}]") == 0
    rows = read_rows(output)
    assert [row["index"] for row in rows] == [str(k) for k in range(60)]
    assert rows[3]["path"] == "../data/images/003.png" and (output.parent / rows[3]["path"]).is_file()
    data = AnnotatedImages(16, str(labels), "gender")
    data.setup("fit")
    image = torch.from_numpy(data.train_set[3]["image"].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    assert float(rows[3]["gender_score"]) == pytest.approx(float(gender(image)), abs=1e-5)
    place = merged.outputs.index("mouth")
    assert float(rows[3]["mouth_score"]) == pytest.approx(float(merged(image)[0, place]), abs=1e-5)
    assert ohlora("predict", "scores", *words, "--model.init_args.networks", f"[{files[0]}, {files[0]}]") == 2
    assert "expected each attribute once" in capsys.readouterr().err

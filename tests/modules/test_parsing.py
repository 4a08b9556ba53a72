"""Training a parser and scoring a manifest with it, through the real entry point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora.attributes import recipe
from ohlora.commands.draw_faces import draw
from ohlora.faces import scoring
from ohlora.faces.classes import CLASSES
from ohlora.faces.parsing import load_parser
from ohlora.formats import network_files
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.toy.drawing import DEFAULT_RATES
from ohlora.utils.files import read_rows
from tests.conftest import assert_same, network_state
from tests.test_two_processes import TWO
from tests.test_two_processes import run as run_apart

MEASURED = recipe().measured

Run = Callable[..., int]


@pytest.fixture
def fit(ohlora: Run, tmp_path: Path) -> Run:
    """Trains on 16 drawn faces of 16×16."""
    draw(tmp_path / "small", 16, 16, 0, 0, dict(DEFAULT_RATES))
    source = ["--data.init_args.manifest", str(tmp_path / "small" / "manifest.csv")]

    def run(*words: str, stage: str = "stage") -> int:
        return ohlora("fit", "face_parser", *source, *words, stage_dir=tmp_path / stage)

    return run


@pytest.fixture
def parser(tmp_path: Path) -> Path:
    """A random parser whose maps hold every class in small patches, so that every score varies."""
    torch.manual_seed(1)
    network = FaceParserNetwork(CLASSES, (8, 8))
    torch.nn.init.normal_(network.head.weight)
    network_files.save_network(network, tmp_path / "parser.safetensors")
    return tmp_path / "parser.safetensors"


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """The manifest of seven drawn faces, 32×32."""
    draw(tmp_path / "faces", 7, 32, 0, 40, dict(DEFAULT_RATES))
    return tmp_path / "faces" / "manifest.csv"


def scoring_words(parser: Path, faces: Path, output: Path, *words: str) -> list[str]:
    settings = {"model.init_args.parser": parser, "model.init_args.output": output, "data.init_args.manifest": faces}
    return [*(word for key, value in settings.items() for word in (f"--{key}", str(value))), *words]


@pytest.fixture
def predict(ohlora: Run, parser: Path, faces: Path, tmp_path: Path) -> Run:
    def run(output: str, *words: str) -> int:
        given = scoring_words(parser, faces, tmp_path / output, *words)
        return ohlora("predict", "score_properties", *given, stage_dir=tmp_path / f"{output}-stage")

    return run


def scores_of(path: Path) -> dict[str, dict[str, float]]:
    return {row["index"]: {name: float(row[f"{name}_score"]) for name in MEASURED} for row in read_rows(path)}


def test_a_parser_learns_and_reports_per_class(fit: Run, tmp_path: Path) -> None:
    assert fit() == 0
    run = tmp_path / "stage" / "runs" / "0001"
    rows = read_rows(run / "metrics.csv")
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["loss/validation"]) < float(rows[0]["loss/validation"])
    per_class = [float(rows[-1][f"iou/{name}"]) for name in CLASSES]
    assert float(rows[-1]["iou/mean"]) == pytest.approx(np.mean(per_class))
    assert float(rows[-1]["iou/worst"]) == min(per_class)
    assert len(list((run / "pictures").glob("parsing-*.png"))) == 4
    best = min(rows, key=lambda row: float(row["loss/validation"]))
    told = network_files.read_metadata(tmp_path / "stage" / "parser.safetensors")["provenance"]
    assert told["iou/mean"] == pytest.approx(float(best["iou/mean"]), abs=1e-4)
    ious = {row["class"]: float(row["iou"]) for row in read_rows(run / "iou.csv")}
    assert ious == pytest.approx({name: float(best[f"iou/{name}"]) for name in CLASSES}, abs=1e-4)


def test_what_was_stopped_and_resumed_is_bit_identical(fit: Run, tmp_path: Path) -> None:
    """An epoch is 3 steps; step 7 is the first of the third."""
    assert fit("--checkpoint.every_kimg", "0.004", "--checkpoint.keep", "99", stage="whole") == 0
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    shutil.copytree(whole, parts)
    for path in sorted((parts / "runs/0001/checkpoints").glob("images-*.ckpt"))[7:]:
        path.unlink()
    (parts / "parser.safetensors").unlink()
    torch.manual_seed(1234)
    assert fit("--ckpt_path", "last", stage="parts") == 0
    assert_same(network_state(whole / "parser.safetensors"), network_state(parts / "parser.safetensors"))
    last = [sorted((d / "runs/0001/checkpoints").iterdir())[-1] for d in (whole, parts)]
    states = [torch.load(path, weights_only=True) for path in last]
    assert last[0].name == last[1].name
    assert_same(states[0]["state_dict"], states[1]["state_dict"])
    tables = [read_rows(d / "runs/0001/metrics.csv") for d in (whole, parts)]
    ious = [[row["iou/mean"] for row in table] for table in tables]
    assert ious[0] == ious[1] and len(ious[0]) == 4


def test_a_network_that_diverges_at_the_end_of_an_epoch(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights are finite in the last step of the epoch, and only the validation can tell."""
    huge = ["--model.init_args.optimizer", "torch.optim.SGD", "--model.init_args.optimizer.init_args.lr", "1e38"]
    assert fit(*huge, "--data.init_args.batch_size", "12") == 2
    assert "the validation loss is not finite: the network has diverged" in capsys.readouterr().err


def test_data_that_does_not_fit_is_refused(fit: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--model.init_args.widths", "[8, 8, 8, 8, 8, 8]") == 2
    assert "the images have resolution 16; expected a multiple of 32" in capsys.readouterr().err


def test_a_manifest_is_scored(predict: Run, parser: Path, faces: Path, tmp_path: Path) -> None:
    assert predict("out", "--model.init_args.keep_maps", "true") == 0
    out = tmp_path / "out"
    rows = read_rows(out / "scores.csv")
    assert list(rows[0]) == ["index", "path", *(f"{name}_score" for name in MEASURED)]
    assert [row["index"] for row in rows] == [str(k) for k in range(40, 47)]
    assert all((out / row["path"]).resolve().is_file() and ".." in row["path"] for row in rows)
    raw = scores_of(out / "raw_scores.csv")
    for index, path in ((row["index"], faces.parent / row["path"]) for row in read_rows(faces)):
        pixels, mask = np.asarray(Image.open(path)), np.asarray(Image.open(out / "masks" / f"{int(index):06d}.png"))
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        assert (load_parser(parser)(tensor)[0].numpy() == mask).all()
        expected = scoring.score(pixels, mask)
        assert raw[index] == pytest.approx({name: expected[name] for name in MEASURED}, abs=1e-6)
    z = np.array([list(row.values()) for row in scores_of(out / "scores.csv").values()])
    assert np.abs(z.mean(axis=0)).max() < 1e-4 and np.abs(z.std(axis=0, ddof=1) - 1).max() < 1e-4


def test_a_stored_scale_is_used_and_copied(predict: Run, tmp_path: Path) -> None:
    scale = {name: {"mean": 1.0, "std": 2.0} for name in MEASURED}
    stored = tmp_path / "scale.json"
    stored.write_text(json.dumps(scale))
    assert predict("out", "--model.init_args.normalization", str(stored)) == 0
    raw, z = (scores_of(tmp_path / "out" / name) for name in ("raw_scores.csv", "scores.csv"))
    for index, row in raw.items():
        assert z[index] == pytest.approx({name: (value - 1) / 2 for name, value in row.items()}, abs=1e-5)
    assert json.loads((tmp_path / "out" / "normalization.json").read_text()) == scale
    assert not (tmp_path / "out" / "masks").exists()


def test_variants(predict: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("ours") == 0
    assert predict("v1", "--model.init_args.variants", '{"mouth": "v1"}') == 0
    ours, v1 = (scores_of(tmp_path / name / "raw_scores.csv") for name in ("ours", "v1"))
    differing = {name for index in ours for name in MEASURED if ours[index][name] != v1[index][name]}
    assert differing == {"mouth"}
    assert predict("v9", "--model.init_args.variants", '{"mouth": "v9"}') == 2
    assert "score 'mouth' has no variant 'v9'; expected one of ohlora, height, v1, v2" in capsys.readouterr().err


def test_what_a_user_can_mend(predict: Run, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("out", "--model.init_args.normalization", str(tmp_path / "gone.json")) == 2
    assert "gone.json does not exist" in capsys.readouterr().err
    (tmp_path / "scale.json").write_text('{"eyes": {"mean": 0, "std": 1}}')
    assert predict("out", "--model.init_args.normalization", str(tmp_path / "scale.json")) == 2
    assert "has no scale of hair_color" in capsys.readouterr().err
    (tmp_path / "scale.json").write_text("[1]")
    assert predict("out", "--model.init_args.normalization", str(tmp_path / "scale.json")) == 2
    assert "is not a normalisation" in capsys.readouterr().err
    lines = faces.read_text().splitlines()
    faces.write_text("\n".join([lines[0], lines[1], lines[1]]) + "\n")
    assert predict("out") == 2
    assert "2 images have no scale of their own" in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.csv").exists()
    faces.write_text("\n".join(lines[:2]) + "\n")
    assert predict("out") == 2
    assert "expected at least 2, or a stored one" in capsys.readouterr().err


def test_two_processes_share_the_images(predict: Run, parser: Path, faces: Path, tmp_path: Path) -> None:
    assert predict("one") == 0
    words = scoring_words(parser, faces, tmp_path / "two", "--trainer.default_root_dir", str(tmp_path / "two-stage"))
    config = str(Path(__file__).parents[1] / "conf" / "score_properties.yaml")
    run_apart("predict", "--config", config, *words, "--data.init_args.batch_size", "6", *TWO)
    for name in ("raw_scores.csv", "scores.csv", "normalization.json"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()

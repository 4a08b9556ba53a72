"""``ohlora rank``: from a table of comparisons to a table that property networks are trained from."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from ohlora import pipeline
from ohlora.__main__ import main as ohlora
from ohlora.datamodules.annotations import AnnotatedImages
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import DataError
from ohlora.utils import images
from ohlora.utils.files import read_rows, write_rows

COUNT = 30


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """Thirty images of rising brightness, compared in pose by it, with some luck: the brighter one rather wins."""
    for k in range(COUNT):
        images.save_png(np.full((16, 16, 3), 8 * k, np.uint8), tmp_path / "images" / f"{k:03d}.png")
    random = np.random.default_rng(0)
    rows = []
    for _ in range(600):
        a, b = (int(k) for k in random.choice(COUNT, 2, replace=False))
        answer = "a" if random.random() < 1 / (1 + math.exp((b - a) / 4)) else "b"
        rows.append(comparison(a, b, answer))
    write_rows(tmp_path / "comparisons.csv", rows)
    return tmp_path / "comparisons.csv"


def comparison(a: int, b: int, answer: str, attribute: str = "pose", **more: str) -> dict[str, str]:
    named = {"path_a": f"images/{a:03d}.png", "path_b": f"images/{b:03d}.png"}
    return {**named, "attribute": attribute, "answer": answer, **more}


def rank(compared: Path, *words: str) -> int:
    return ohlora(["rank", str(compared), str(compared.with_name("labels.csv")), "--world", "toy", *words])


def test_networks_learn_from_the_scores(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank(compared) == 0
    said = capsys.readouterr().out
    assert "pose: 30 images by 600 comparisons" in said and "% of 600 held-out comparisons with a winner" in said
    table = compared.with_name("labels.csv")
    rows = read_rows(table)
    assert list(rows[0]) == ["idx", "path", "pose", "pose_comparisons"] and len(rows) == COUNT
    assert sum(int(row["pose_comparisons"]) for row in rows) == 1200
    scores = np.array([float(row["pose"]) for row in rows])
    assert scores.mean() == pytest.approx(0, abs=1e-5) and scores.std() == pytest.approx(1, abs=1e-5)
    assert spearmanr(scores, range(COUNT)).statistic >= 0.95
    pipeline.use(pipeline.world("toy"))
    for raw in (False, True):
        data = ScoredImages(
            16, [str(table)], ["pose"], val_share=0.2, raw=raw, flip=False, weights="pose_comparisons", batch_size=4
        )
        data.setup("fit")
        assert len(data.train_set) + len(data.val_set) == COUNT
        assert data.train_set.labels is not None and np.isfinite(data.train_set.labels).all()
    # Once more: the same scores.
    before = table.read_bytes()
    assert rank(compared) == 0 and table.read_bytes() == before


def test_what_was_not_compared_stays_without_a_value(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = compared.with_name("labels.csv")
    write_rows(table, [{"path": f"images/{k:03d}.png", "gender": k % 2} for k in range(COUNT)])
    write_rows(compared, [comparison(0, 1, "a"), comparison(1, 2, "equal"), comparison(7, 8, "a")])
    assert rank(compared) == 0
    said = capsys.readouterr().out
    assert "100% of the 1 comparisons with a winner are reproduced; from 50 on" in said
    assert "a score is known to ±" in said and "nan" not in said
    assert "2 more images, in groups of 2, are not connected with these by any comparison" in said
    rows = read_rows(table)
    assert [row["pose"] != "" for row in rows] == [k < 3 for k in range(COUNT)]
    assert [row["gender"] for row in rows] == [str(k % 2) for k in range(COUNT)]
    assert [row["pose_comparisons"] for row in rows[:4]] == ["1", "2", "1", ""]
    pipeline.use(pipeline.world("toy"))
    data = ScoredImages(16, [str(table)], ["gender", "pose"], val_share=0.5, flip=False, batch_size=2, seed=1)
    data.setup("fit")
    known = [np.isfinite(part.arrays["label"]).sum(axis=0) for part in (data.train_set, data.val_set)]
    assert sum(known).tolist() == [COUNT, 3]


@pytest.mark.parametrize("annotator", ["", "kim"])
def test_images_without_a_score_need_no_weight(compared: Path, annotator: str) -> None:
    table = compared.with_name("labels.csv")
    labelled = [{"path": f"images/{k:03d}.png", "gender": k % 2} for k in range(COUNT)]
    write_rows(table, [row | ({"annotator": annotator} if annotator else {}) for row in labelled])
    write_rows(compared, [comparison(k, k + 1, "b") for k in range(10)])
    assert rank(compared) == 0
    pipeline.use(pipeline.world("toy"))
    data = ScoredImages(
        16, [str(table)], ["pose"], val_share=0.2, flip=False, weights="pose_comparisons", batch_size=2, seed=1
    )
    data.setup("fit")
    found = np.concatenate([part.arrays["weight"] for part in (data.train_set, data.val_set)])
    assert len(found) == 11 and found.max() == pytest.approx(2 * found.min())
    with pytest.raises(DataError, match=r"row .*: pose_comparisons is '', and the row has values to learn; expected"):
        data = ScoredImages(16, [str(table)], ["gender"], flip=False, weights="pose_comparisons", batch_size=2)
        data.setup("fit")


@pytest.mark.parametrize("annotator", ["", "kim"])
def test_filters_learn_from_a_table_that_scores_were_written_into(compared: Path, annotator: str) -> None:
    table = compared.with_name("labels.csv")
    labelled = [{"path": f"images/{k:03d}.png", "gender": k % 2} for k in range(8)]
    write_rows(table, [row | ({"annotator": annotator} if annotator else {}) for row in labelled])
    assert rank(compared) == 0 and len(read_rows(table)) == (COUNT + 8 if annotator else COUNT)
    pipeline.use(pipeline.world("toy"))
    data = AnnotatedImages(16, str(table), "gender", folds=2, inner_share=0.5)
    data.setup("fit")
    assert data.train_set.numbers == [*range(8)] and len(data.train_set.left_out) == COUNT - 8


def test_scores_of_another_origin_are_not_replaced_by_themselves(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = compared.with_name("labels.csv")
    write_rows(table, [{"path": "images/000.png", "pose": 12.5}, {"path": "images/001.png", "pose": ""}])
    before = table.read_bytes()
    assert rank(compared) == 2
    assert "has 1 values of pose that were not made of comparisons" in capsys.readouterr().err
    assert table.read_bytes() == before
    assert rank(compared, "--replace") == 0
    assert len(read_rows(table)) == COUNT and "12.5" not in table.read_text()


def test_other_rows_of_the_table_stay(compared: Path) -> None:
    table = compared.with_name("labels.csv")
    write_rows(table, [{"path": f"images/{k:03d}.png"} for k in range(3)])
    write_rows(compared, [comparison(0, 1, "a")])
    assert rank(compared) == 0
    assert [(row["path"], row["pose"] != "") for row in read_rows(table)] == [
        (f"images/{k:03d}.png", k < 2) for k in range(3)
    ]
    # A row that held a score only goes with it.
    write_rows(compared, [comparison(0, 5, "a")])
    assert rank(compared) == 0
    assert [row["path"][-5:-4] for row in read_rows(table)] == ["0", "2", "5"]


def test_all_attributes_are_written_or_none(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = compared.with_name("labels.csv")
    write_rows(table, [{"path": "images/000.png", "eyes": 1.5}])
    write_rows(compared, [comparison(0, 1, "a"), comparison(0, 1, "a", "eyes")])
    before = table.read_bytes()
    assert rank(compared) == 2
    said = capsys.readouterr()
    assert "has 1 values of eyes that were not made of comparisons" in said.err and "pose" not in said.out
    assert table.read_bytes() == before
    assert rank(compared, "--replace") == 0
    assert list(read_rows(table)[0]) == ["path", "eyes", "eyes_comparisons", "pose", "pose_comparisons"]


def test_images_that_are_not_there_are_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(compared, [comparison(0, 1, "a"), comparison(0, 99, "a")])
    assert rank(compared) == 2
    assert (
        f"comparisons.csv, row 3: there is no image images/099.png; looked in {compared.parent}: name the folder of "
        "the images with --images"
    ) in capsys.readouterr().err
    other = compared.parent / "elsewhere"
    (other / "images").mkdir(parents=True)
    assert rank(compared, "--images", str(other)) == 2
    assert f"looked in {compared.parent} and {other}: name" in capsys.readouterr().err
    assert not compared.with_name("labels.csv").exists()
    shutil.copy(compared.parent / "images" / "001.png", other / "images" / "099.png")
    assert rank(compared, "--images", str(other)) == 0


def test_annotators_are_pooled_and_told_apart(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [comparison(k, k + 1, "b", annotator="kim") for k in range(10)]
    rows += [comparison(k + 1, k, "a" if k < 8 else "equal", annotator="lee") for k in range(10)]  # the other way round
    rows += [comparison(0, 1, "a", "hair_color", annotator="lee")]
    write_rows(compared, rows)
    assert rank(compared) == 0
    said = capsys.readouterr().out
    assert "kim and lee answered 80% of 10 pairs alike" in said
    assert "pose: 11 images by 20 comparisons, 2 to 4 each" in said and "z-scores of pose, hair_color" in said
    found = read_rows(compared.with_name("labels.csv"))
    scores = [float(row["pose"]) for row in found]
    assert scores == sorted(scores) and [row["hair_color"] for row in found][2:] == [""] * 9
    assert rank(compared, "--attributes", "hair_color") == 0
    assert [row["pose"] for row in read_rows(compared.with_name("labels.csv"))] == [row["pose"] for row in found]


def test_a_smaller_prior_draws_to_the_middle(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(compared, [comparison(0, 1, "a"), comparison(1, 2, "a"), comparison(1, 2, "b"), comparison(1, 2, "b")])

    def ratio(prior: str) -> float:
        assert rank(compared, "--prior", prior) == 0
        a, b, c = (float(row["pose"]) for row in read_rows(compared.with_name("labels.csv")))
        return (a - b) / (c - b)

    assert ratio("30") > 2 * ratio("1")


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([comparison(0, 1, "left")], [], "row 2: answer is 'left'; expected a, b, equal"),
        ([comparison(0, 0, "a")], [], "row 2: images/000.png is compared with itself; expected two images"),
        ([comparison(0, 1, "a", "gender")], [], "gender is a binary attribute; expected a score to compare by: eyes"),
        ([comparison(0, 1, "a", "charm")], [], "unknown attribute 'charm'"),
        ([comparison(0, 1, "a") | {"path_b": ""}], [], "row 2: path_b is empty; expected an image"),
        ([{"path_a": "a", "path_b": "b"}], [], "missing columns attribute, answer"),
        ([comparison(0, 1, "equal")], [], "have no winner, or cancel each other: all 2 images are equal"),
        ([comparison(0, 1, "a")], ["--attributes", "eyes"], "nothing was compared in eyes yet"),
        ([comparison(0, 1, "a")], ["--prior", "0"], "--prior is 0.0; expected more than 0"),
        ([], [], "holds no comparison; expected some to make scores from"),
    ],
)
def test_what_cannot_be_ranked(
    rows: list[dict[str, str]], words: list[str], message: str, compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(compared, rows)
    assert rank(compared, *words) == 2
    assert message in capsys.readouterr().err and not compared.with_name("labels.csv").exists()


def test_tables_that_are_not_there_or_name_no_images(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = compared.with_name("labels.csv")
    write_rows(table, [{"idx": 3, "gender": 1}])
    assert rank(compared) == 2
    assert "labels.csv has no column path; expected one that names the images" in capsys.readouterr().err
    assert rank(compared.with_name("none.csv")) == 2
    assert "none.csv does not exist" in capsys.readouterr().err

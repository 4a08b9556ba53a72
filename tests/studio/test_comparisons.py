"""Labelling by comparison without a browser: the table, the pair that comes next, undo, and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from ohlora import pipeline
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import ConfigError, DataError
from ohlora.studio.annotations import AnnotationFile
from ohlora.studio.compare import comparison_session
from ohlora.studio.comparisons import ENOUGH, START, ComparisonFile, ComparisonSession, next_pair, table_of
from ohlora.studio.settings import Settings
from ohlora.utils import images
from ohlora.utils.files import read_rows, write_rows

COUNT = 12


@pytest.fixture(autouse=True)
def toy() -> None:
    pipeline.use(pipeline.world("toy"))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    for k in range(COUNT):
        images.save_png(np.full((16, 16, 3), 20 * k, np.uint8), folder / f"{k:06d}.png")
    return images.images_in(folder)[0]


def comparing(pictures: list[Path], table: Path, annotator: str = "", attribute: str = "pose") -> ComparisonSession:
    return ComparisonSession(ComparisonFile(table_of(table), pictures, pictures[0].parent), attribute, annotator)


def by_brightness(tab: ComparisonSession, count: int) -> None:
    """Answers by the numbers of the images: a larger one has more."""
    for _ in range(count):
        assert tab.pair is not None
        tab.answer("a" if tab.pair[0] > tab.pair[1] else "b")


def test_comparisons_are_saved_at_once_and_resumed(pictures: list[Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels" / "labels.csv"
    tab = comparing(pictures, labels)
    assert tab.pair is not None and not labels.parent.exists()
    shown = tab.pair
    left, right = (f"../images/{pictures[k].name}" for k in shown)
    tab.answer("equal")
    table = labels.parent / "labels_comparisons.csv"
    assert read_rows(table) == [{"path_a": left, "path_b": right, "attribute": "pose", "answer": "equal"}]
    by_brightness(tab, 3)
    assert len(read_rows(table)) == 4
    again = comparing(pictures, labels)
    assert again.pair == tab.pair and again.file.comparisons == tab.file.comparisons
    other = comparing(pictures, labels, attribute="eyes")
    assert other.mine == 0 and other.pair == shown, "each attribute has comparisons of its own"
    with pytest.raises(ConfigError, match="nothing to undo in this tab"):
        again.undo()
    for _ in range(4):
        tab.undo()
    assert tab.pair == shown and not table.exists()
    with pytest.raises(ConfigError, match="nothing to undo in this tab"):
        tab.undo()


def test_two_tabs_do_not_overwrite_each_other(pictures: list[Path], tmp_path: Path) -> None:
    first, second = comparing(pictures, tmp_path / "l.csv"), comparing(pictures, tmp_path / "l.csv")
    by_brightness(first, 2)
    before = table_of(tmp_path / "l.csv").read_bytes()
    assert second.file.changed and not first.file.changed
    with pytest.raises(ConfigError, match=r"l_comparisons.csv was changed by another tab .*answer was not saved"):
        second.answer("a")
    assert table_of(tmp_path / "l.csv").read_bytes() == before
    second.reload()
    by_brightness(second, 1)
    assert len(read_rows(table_of(tmp_path / "l.csv"))) == 3
    with pytest.raises(ConfigError, match="was changed by another"):
        first.undo()
    first.reload()
    first.undo()
    assert len(read_rows(table_of(tmp_path / "l.csv"))) == 2 and second.file.changed


def test_every_image_is_compared_with_those_near_it(pictures: list[Path], tmp_path: Path) -> None:
    tab = comparing(pictures, tmp_path / "l.csv")
    seen: list[tuple[int, ...]] = []
    for number in range(40):
        assert tab.pair is not None
        seen.append(tuple(sorted(tab.pair)))
        by_brightness(tab, 1)
        counts = np.bincount(np.ravel(seen), minlength=COUNT)
        if number == COUNT // 2 - 1:
            assert set(counts.tolist()) == {1}, "everybody once, before anybody twice"
        if number == COUNT - 1:
            assert tab.apart == 1, "after two comparisons of each, all are connected"
    assert len(set(seen)) == len(seen) and np.ptp(counts) <= 3
    distances = np.abs(np.diff(seen, axis=1))[:, 0]
    assert distances[20:].mean() < distances[:20].mean()
    sides = [one.a > one.b for one in tab.file.comparisons]
    assert 10 <= sum(sides) <= 30, "neither side has an advantage"


def test_new_images_come_in_when_the_first_have_enough() -> None:
    true, pairs = np.random.default_rng(5).permutation(60), np.zeros((0, 2), int)
    outcomes = np.zeros(0)
    for number in range(150):
        pair = next_pair(60, pairs, outcomes, np.ones(len(pairs), bool))
        assert pair is not None and pair == next_pair(60, pairs, outcomes, np.ones(len(pairs), bool))
        pairs, outcomes = np.vstack([pairs, [pair]]), np.append(outcomes, float(true[pair[0]] > true[pair[1]]))
        counts = np.bincount(pairs.ravel(), minlength=60)
        if (counts > 0).sum() > START:
            first = np.unique(pairs[:START])
            assert (counts[first] >= ENOUGH).all() and number >= START * ENOUGH / 2
            break
    else:
        pytest.fail("no more images came in")


def test_three_images_are_compared_to_the_end(pictures: list[Path], tmp_path: Path) -> None:
    tab = comparing(pictures[:3], tmp_path / "l.csv")
    by_brightness(tab, 3)
    assert tab.pair is None and tab.pictures() == []
    with pytest.raises(ConfigError, match="no pair left"):
        tab.answer("a")
    tab.undo()
    assert tab.pair is not None


def test_annotators_have_pairs_of_their_own_and_some_in_common(pictures: list[Path], tmp_path: Path) -> None:
    kim = comparing(pictures, tmp_path / "l.csv", "kim")
    by_brightness(kim, 12)
    kim.file.reload()
    lee = comparing(pictures, tmp_path / "l.csv", "lee")
    assert lee.mine == 0
    by_brightness(lee, 20)
    rows = read_rows(table_of(tmp_path / "l.csv"))
    assert [row["annotator"] for row in rows] == ["kim"] * 12 + ["lee"] * 20
    common = {frozenset((row["path_a"], row["path_b"])) for row in rows[:12]} & {
        frozenset((row["path_a"], row["path_b"])) for row in rows[12:]
    }
    assert len(common) >= 2, "every tenth pair is one that kim compared"
    found = lee.scores_into(tmp_path / "l.csv")
    assert found.agreements[0].people == ("kim", "lee") and found.agreements[0].share == 1
    with pytest.raises(ConfigError, match="says who compared what; say who labels now"):
        comparing(pictures, tmp_path / "l.csv").answer("a")
    lee.compares_as("kim")
    assert lee.mine == 12
    with pytest.raises(ConfigError, match="nothing to undo"):
        lee.undo()


def test_scores_join_the_annotations(pictures: list[Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    file = AnnotationFile(labels, pictures, ["gender", "pose"], annotator="kim")
    for k in range(0, COUNT, 2):
        file.write(k, {"gender": k % 4 // 2})
    tab = comparing(pictures, labels, "kim")
    by_brightness(tab, 40)
    found = tab.scores_into(labels)
    assert len(found.paths) == COUNT and int(found.counts.sum()) == 80
    rows = read_rows(labels)
    assert list(rows[0]) == ["idx", "path", "annotator", "gender", "pose", "pose_comparisons"]
    # Kim's own rows stay, and the scores, which are everybody's, have rows of their own.
    assert [row["gender"] for row in rows if row["annotator"] == "kim"] == ["0", "1"] * 3
    assert all(row["pose"] == "" for row in rows if row["annotator"] == "kim")
    pooled = [row for row in rows if not row["annotator"]]
    assert len(pooled) == COUNT and spearmanr([float(row["pose"]) for row in pooled], range(COUNT)).statistic > 0.97
    data = ScoredImages(16, [str(labels)], ["pose"], val_share=0.25, raw=True, flip=False, batch_size=2)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == COUNT
    # After more comparisons the scores are made anew; a score by hand would be lost, so it is not.
    by_brightness(tab, 5)
    tab.scores_into(labels)
    assert len(read_rows(labels)) == len(rows)
    hand = AnnotationFile(labels, pictures, ["gender", "pose"], annotator="kim")
    hand.write(0, {"gender": 0, "pose": 3.5})
    with pytest.raises(ConfigError, match="has 1 values of pose that were not made of comparisons"):
        tab.scores_into(labels)
    assert any(row["pose"] == "3.5" for row in read_rows(labels))


def test_a_score_by_hand_is_no_longer_one_of_comparisons(pictures: list[Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    tab = comparing(pictures, labels)
    by_brightness(tab, 12)
    tab.scores_into(labels)
    hand = AnnotationFile(labels, pictures, ["gender", "pose"])
    hand.write(0, {**hand.annotations[0], "gender": 1})
    assert all(row["pose_comparisons"] for row in read_rows(labels)), "the score of image 0 is as it was"
    hand.write(3, {"pose": 0.75})
    hand.write(5, {**hand.annotations[5], "gender": 1})
    rows = read_rows(labels)
    assert [k for k, row in enumerate(rows) if not row["pose_comparisons"]] == [3] and rows[3]["pose"] == "0.75"
    with pytest.raises(ConfigError, match="has 1 values of pose that were not made of comparisons"):
        tab.scores_into(labels)
    assert read_rows(labels) == rows


def test_images_that_are_compared_no_more_lose_their_scores(pictures: list[Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    tab = comparing(pictures, labels)
    by_brightness(tab, 12)
    tab.scores_into(labels)
    assert len(read_rows(labels)) == COUNT
    for _ in range(11):
        tab.undo()
    found = tab.scores_into(labels)
    assert len(found.paths) == 2 and len(read_rows(labels)) == 2
    tab.undo()
    with pytest.raises(DataError, match="nothing was compared in pose yet"):
        tab.scores_into(labels)


def test_an_image_that_cannot_be_read_is_left_out(pictures: list[Path], tmp_path: Path) -> None:
    broken = comparing(pictures, tmp_path / "l.csv").pair
    assert broken is not None
    pictures[broken[0]].write_bytes(b"no image")
    tab = comparing(pictures, tmp_path / "l.csv")
    assert tab.pair is not None and broken[0] not in tab.pair and "unreadable" in tab.note
    by_brightness(tab, 30)
    assert not any(pictures[broken[0]].resolve() in (one.a, one.b) for one in tab.file.comparisons)
    for picture in pictures[1:]:
        picture.write_bytes(b"no image")
    with pytest.raises(DataError, match="images can be read; expected two to compare"):
        comparing(pictures, tmp_path / "other.csv")


def test_a_table_that_cannot_hold_scores_is_told_of_at_the_start(pictures: list[Path], tmp_path: Path) -> None:
    labels, nothing = tmp_path / "labels.csv", tmp_path / "nothing"
    settings = Settings(tmp_path, "toy", pictures[0].parent, labels, (), (), nothing, nothing)
    assert comparison_session(settings, "pose").note == ""
    labels.write_text("idx,gender,quality\n3,1,0\n")  # as the original's tables
    tab = comparison_session(settings, "pose")
    said = "the header has idx, gender, quality; expected pose and a column that names the image"
    assert said in tab.note and "no scores can be made" in tab.note and tab.pair is not None
    by_brightness(tab, 3)
    with pytest.raises(DataError, match=said):
        tab.scores_into(labels)
    assert labels.read_text() == "idx,gender,quality\n3,1,0\n"
    (pictures[0].parent / "notes.txt").touch()
    assert "left out 1 (another suffix" in comparison_session(settings, "pose").note


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path_b": "images/none.png"}, "row 2: there is no image images/none.png among those to compare"),
        ({"answer": "A"}, "row 2: answer is 'A'; expected a, b, equal"),
        ({"attribute": "gender"}, "row 2: gender is a binary attribute; expected a score"),
    ],
)
def test_tables_that_do_not_fit(row: dict[str, str], message: str, pictures: list[Path], tmp_path: Path) -> None:
    good = {"path_a": "images/000000.png", "path_b": "images/000001.png", "attribute": "pose", "answer": "a"}
    write_rows(tmp_path / "l_comparisons.csv", [good | row])
    with pytest.raises(DataError, match=message):
        comparing(pictures, tmp_path / "l.csv")


def test_only_scores_are_compared(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gender is a binary attribute; expected a score to compare by: eyes"):
        comparing(pictures, tmp_path / "l.csv", attribute="gender")

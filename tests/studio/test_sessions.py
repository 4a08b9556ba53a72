"""The sessions behind the studio's tabs, without a browser."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora import attributes
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.datamodules.annotations import AnnotatedImages
from ohlora.datamodules.scores import ScoredImages
from ohlora.directions.edits import Directions
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError, DataError
from ohlora.formats import network_files
from ohlora.formats.direction_files import save_directions
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.studio.annotations import AnnotationFile, AnnotationSession
from ohlora.studio.choices import STILLS, ChoiceSession
from ohlora.studio.label import ensemble_scores, keys_of
from ohlora.studio.settings import Settings
from ohlora.studio.steering import SteeringSession
from ohlora.utils import images
from ohlora.utils.files import read_rows, write_rows
from tests.toy_tables import report_of_latents

NAMES = ("gender", "glass")
FITS = {"gender": 1, "glass": 0}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    for k in range(12):
        images.save_png(np.full((16, 16, 3), 20 * k, np.uint8), folder / f"{k:06d}.png")
    return images.images_in(folder)[0]


def annotating(pictures: list[Path], table: Path, **settings: object) -> AnnotationSession:
    return AnnotationSession(AnnotationFile(table, pictures, NAMES), FITS, **settings)  # type: ignore[arg-type]


def test_annotations_are_saved_at_once_and_read_by_the_filters(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "labels" / "labels.csv"
    tab = annotating(pictures, table)
    assert not table.exists() and tab.index == 0 and tab.annotation == FITS
    tab.answer("glass", 1)
    assert read_rows(table) == [{"idx": "0", "path": "../images/000000.png", "gender": "", "glass": "1"}]
    tab.confirm()
    assert read_rows(table) == [{"idx": "0", "path": "../images/000000.png", "gender": "1", "glass": "1"}]
    assert tab.index == 1 and len(tab.file.annotations) == 1
    for k in range(11):
        if k % 2:
            tab.answer("gender", 0)
        tab.confirm()
    assert len(read_rows(table)) == 12
    data = AnnotatedImages(16, str(table), "gender", folds=2, inner_share=0.5, batch_size=4)
    data.setup("fit")
    assert data.train_set.labels is not None
    assert data.train_set.labels[:, 0].tolist() == [1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    # A tab that is opened later reads them.
    again = annotating(pictures, table)
    assert again.file.annotations == tab.file.annotations


def test_undo_jump_and_steps(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    tab = annotating(pictures, table)
    with pytest.raises(ConfigError, match="nothing to undo"):
        tab.undo()
    tab.step(-1)
    assert tab.index == 0
    tab.confirm()
    tab.answer("gender", 0)
    tab.undo()
    assert tab.index == 1 and list(tab.file.annotations) == [0]
    tab.undo()
    assert tab.index == 0 and not tab.file.annotations and not table.exists()
    for place in (0, 1, 3):
        tab.position = place
        tab.confirm()
    tab.position = 0
    tab.jump()
    assert tab.index == 2
    tab.step(99)
    assert tab.index == 11
    tab.confirm()
    assert tab.index == 11  # the last image stays
    tab.jump()
    assert tab.index == 2
    assert tab.pace() is not None and tab.pace() > 0  # type: ignore[operator]


def test_two_tabs_do_not_overwrite_each_other(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    first, second = annotating(pictures, table), annotating(pictures, table)
    first.confirm()
    with pytest.raises(ConfigError, match=r"labels.csv was changed by another tab or program; this answer was not"):
        second.answer("glass", 1)
    assert [row["glass"] for row in read_rows(table)] == ["0"] and second.annotation == FITS
    second.file.reload()
    second.step(1)
    second.confirm()
    assert [row["idx"] for row in read_rows(table)] == ["0", "1"]
    with pytest.raises(ConfigError, match="was changed by another"):
        first.undo()
    first.file.reload()
    assert len(first.file.annotations) == 2


def test_of_tabs_that_save_at_the_same_time_one_succeeds(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    tabs = [annotating(pictures, table) for _ in range(8)]
    told: list[str] = []

    def annotate(k: int) -> None:
        tabs[k].position = k
        try:
            tabs[k].confirm()
        except ConfigError as error:
            told.append(str(error))

    threads = [threading.Thread(target=annotate, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_rows(table)) == 1 and len(told) == 7


def test_orders_by_what_the_ensembles_say(pictures: list[Path], tmp_path: Path) -> None:
    tab = annotating(pictures, tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match="no filter ensembles yet"):
        tab.arrange("uncertain")
    scores = np.full((12, 2), np.nan)
    scores[:, 0] = np.linspace(0, 1, 12)
    tab = annotating(pictures, tmp_path / "labels.csv", scores=scores)
    with pytest.raises(ConfigError, match="contradict none"):
        tab.arrange("disputed")
    tab.arrange("uncertain")
    assert set(tab.order[:2]) == {5, 6} and set(tab.order[-2:]) == {0, 11}
    tab.confirm()
    assert tab.predictions() == {"gender": pytest.approx(scores[tab.index, 0])}
    for place in (0, 3, 11):  # the proposed gender is 1 for all three
        tab.arrange("file")
        tab.position = place
        tab.confirm()
    tab.arrange("disputed")
    assert tab.order[:2] == [0, 3] and 11 not in tab.order


def test_ensembles_score_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for k in range(3):
        images.save_png(np.full((64, 64, 3), 80 * k, np.uint8), folder / f"{k}.png")
    pictures = images.images_in(folder)[0]
    torch.manual_seed(0)
    ensemble = AttributeEnsemble.of([attribute_cnn("glass", "small", 64) for _ in range(2)]).eval()
    network_files.save_network(ensemble, tmp_path / "glass.safetensors")
    settings = Settings(
        tmp_path, "toy", folder, tmp_path / "l.csv", NAMES, (tmp_path / "glass.safetensors",), tmp_path, tmp_path
    )
    told: list[float] = []
    found = ensemble_scores(settings, pictures, lambda share, _: told.append(share))
    with torch.inference_mode():
        expected = ensemble(torch.stack([torch.full((3, 64, 64), 160 * k / 255 - 1) for k in range(3)]))[:, 0]
    assert np.isnan(found[:, 0]).all() and found[:, 1] == pytest.approx(expected.numpy(), abs=1e-5) and told == [0.0]
    with pytest.raises(ConfigError, match="the ensembles predict glass; expected some of gender"):
        ensemble_scores(replace(settings, attributes=("gender",)), pictures, lambda *_: None)
    with pytest.raises(ConfigError, match="no filter ensembles yet"):
        ensemble_scores(replace(settings, filters=()), pictures, lambda *_: None)


def test_a_table_of_the_original_is_continued(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    write_rows(table, [{"idx": 3, "gender": 0, "quality": 1, "glass": 1}])
    tab = annotating(pictures, table)
    assert tab.file.annotations == {3: {"gender": 0, "glass": 1}} and tab.index == 0
    tab.confirm()
    assert read_rows(table) == [
        {"idx": "0", "gender": "1", "quality": "", "glass": "0"},
        {"idx": "3", "gender": "0", "quality": "1", "glass": "1"},
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"idx": 99, "gender": 1, "glass": 0}, "row 2: there is no image 99"),
        ({"idx": 1, "gender": 2, "glass": 0}, "row 2: gender is '2'; expected 0 or 1, or nothing"),
        ({"idx": 1, "gender": 1}, "expected gender, glass and a column"),
    ],
)
def test_tables_that_do_not_fit(row: dict[str, int], message: str, pictures: list[Path], tmp_path: Path) -> None:
    write_rows(tmp_path / "labels.csv", [row])
    with pytest.raises(DataError, match=message):
        AnnotationFile(tmp_path / "labels.csv", pictures, NAMES)


def test_choices_are_saved_at_once(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    report = Report.load(report_of_latents(tmp_path / "tested", weights[0]), weights[0])
    tab, other = ChoiceSession(report), ChoiceSession(report)
    assert tab.cases == [11, 13, 10] and tab.picture(11).ndim == 3
    tab.choose([11], "star")
    assert [(row["case"], row["choice"]) for row in read_rows(tab.path)] == [("11", "star")]
    tab.choose([13, 10], "reject")
    assert tab.choices == {11: "star", 13: "reject", 10: "reject"} and tab.report.chosen() == [11]
    tab.undo()
    assert [(row["case"], row["choice"]) for row in read_rows(tab.path)] == [("11", "star")]
    tab.choose([11], None)
    assert tab.choices == {} and read_rows(tab.path) == []
    tab.undo()
    assert other.changed and not tab.changed and not tab.retested
    with pytest.raises(ConfigError, match=r"choices.csv was changed by another tab"):
        other.choose([13], "keep")
    other.reload()
    with pytest.raises(ConfigError, match="nothing to undo"):
        other.undo()
    other.choose([10], "keep")
    assert [row["case"] for row in read_rows(tab.path)] == ["10", "11"]
    with pytest.raises(ConfigError, match="case 12 did not pass"):
        tab.choose([12], "keep")


def test_figures_and_films_of_candidates(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    folder = report_of_latents(tmp_path / "tested", weights[0])
    tab = ChoiceSession(Report.load(folder, weights[0]))
    assert [(row["case"], row["mouth_corr"], row["pose_leakage"]) for row in tab.table()] == [
        (11, 0.97, 0.3),
        (13, 0.93, 0.05),
        (10, 0.93, 0.1),
    ]
    assert "passed" not in tab.columns() and "group_name" not in tab.columns()
    assert tab.told()[:3] == ["eyes_corr", "eyes_slope", "eyes_leakage"]
    character = tab.report.character(tab.place(13))
    assert np.array_equal(tab.still(13), np.asarray(character.render()))
    film = tab.film(13)
    assert film.shape == (3 * STILLS, 16, 16, 3)
    low, high = character.ranges["mouth"]
    for frame, mouth in ((STILLS, low), (2 * STILLS - 1, high)):
        assert np.array_equal(film[frame], np.asarray(character.render(mouth=mouth)))
    tab.choose([13], "keep")
    assert [path.name for path in tab.export(tmp_path / "characters")] == ["0013.safetensors"]
    assert np.array_equal(
        np.asarray(Character.load(tmp_path / "characters" / "0013.safetensors").render()), tab.still(13)
    )
    rows = read_rows(folder / "test_result.csv")
    write_rows(folder / "test_result.csv", rows[:3])
    assert tab.retested


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": "0123456789abcdef"}, "chosen from another test"),
        ({"choice": "maybe"}, "row 2: 11, maybe; expected a case of the test and one of keep, star, reject"),
        ({"case": 99}, "row 2: 99, keep; expected a case"),
    ],
)
def test_a_list_that_cannot_be_used_is_not_overwritten(
    change: dict[str, object], message: str, tmp_path: Path, weights: tuple[Path, Path]
) -> None:
    report = Report.load(report_of_latents(tmp_path / "tested", weights[0]), weights[0])
    tab = ChoiceSession(report)
    write_rows(tab.path, [{"case": 11, "choice": "keep", "latents": report.fingerprint} | change])
    before = tab.path.read_bytes()
    with pytest.raises(DataError, match=message):
        tab.reload()
    with pytest.raises(ConfigError, match="was changed by another tab"):
        tab.choose([11], "keep")
    assert tab.path.read_bytes() == before
    with pytest.raises(DataError, match=message):
        report.chosen()


def test_a_table_that_cannot_be_used_is_not_overwritten(pictures: list[Path], tmp_path: Path) -> None:
    """After a failed reload, an annotation must not overwrite the rows that were not read."""
    table = tmp_path / "labels.csv"
    tab = annotating(pictures, table)
    tab.confirm()
    rows = [{"idx": k, "gender": 1, "glass": 0} for k in (0, 1, 1)]
    write_rows(table, rows)
    before = table.read_bytes()
    with pytest.raises(DataError, match="row 4: image 1 is labelled twice"):
        tab.file.reload()
    with pytest.raises(ConfigError, match="was changed by another tab"):
        tab.confirm()
    assert table.read_bytes() == before and list(tab.file.annotations) == [0]


def test_an_image_that_cannot_be_read_is_not_annotated(pictures: list[Path], tmp_path: Path) -> None:
    pictures[0].write_bytes(b"no picture")
    tab = annotating(pictures, tmp_path / "labels.csv")
    with pytest.raises(DataError, match="unreadable"):
        tab.confirm()
    assert tab.index == 0 and not (tmp_path / "labels.csv").exists()


def test_a_character_is_steered_compared_and_saved(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    folder = report_of_latents(tmp_path / "tested", weights[0])
    report = Report.load(folder, weights[0])
    report.character(0).save(tmp_path / "mina.safetensors")
    session = SteeringSession(Character.load(tmp_path / "mina.safetensors"))
    low, high = session.character.ranges["mouth"]
    (pictures,), taken = session.pictures([[0.0, mouth, 0.0] for mouth in (low, high)])
    assert len(pictures) == 2 and (pictures[0] != pictures[1]).any() and taken > 0
    # A file of directions without the latent's group is refused; one with it is shown beside the character.
    with pytest.raises(ConfigError, match="the character's group is"):
        session.character.card["group"] = "x"  # type: ignore[index]
        session.compare(folder / "directions.safetensors")
    session.character.card["group"] = "l"  # type: ignore[index]
    session.compare(folder / "directions.safetensors")
    asked = [session.character.ranges["eyes"][1] / 2, 0.0, 0.0]
    own, other = session.pictures([asked])[0]
    assert (own != other).any() and session.captions == ["other directions"]
    eyes_only = Directions(("eyes",), torch.eye(8)[None, :1], torch.ones(1, 1), Groups((), ()), "svm")
    save_directions(eyes_only, tmp_path / "eyes.safetensors")
    with pytest.raises(
        ConfigError, match="has directions for eyes; expected those of the character: eyes, mouth, pose"
    ):
        session.compare(tmp_path / "eyes.safetensors")
    session.compare(None)
    assert len(session.pictures([asked])[0]) == 1 and session.captions == []

    # Idle motion follows the clock, whenever a frame is asked for, and is added to the sliders.
    times = [0.0]
    session = SteeringSession(session.character, clock=lambda: times[-1])
    rows = []
    for step in np.random.default_rng(0).uniform(0.02, 0.08, 200):
        times.append(times[-1] + step)
        rows.append(session.strengths(asked, idle=True))
    moments = np.array(rows)
    assert np.allclose(moments, session.character.idle(times[1:], asked))
    low, high = session.character.ranges["eyes"]
    assert moments[:, 0].min() == pytest.approx(low, abs=1e-6) and np.median(moments[:, 0]) > asked[0] / 2
    assert session.strengths([0.1, 0.2, 0.3], idle=False) == [0.1, 0.2, 0.3]

    saved = [session.save(kind, asked, tmp_path / "out") for kind in ("png", "png", "gif", "sheet")]
    assert [path.name for path in saved] == ["png-0001.png", "png-0002.png", "gif-0001.gif", "sheet-0001.png"]
    with Image.open(saved[2]) as film:
        assert getattr(film, "n_frames", 1) > 100
    assert network_files.fingerprint(saved[0]) == network_files.fingerprint(saved[1])
    saved[0].unlink()
    assert session.save("png", asked, tmp_path / "out").name == "png-0003.png"  # numbers are not used again


MINE = {
    "curl": {"meaning": "curlier", "kind": "ordinal", "levels": 3},
    "happy": {"meaning": "happier", "kind": "binary"},
    "bright": {"meaning": "brighter", "kind": "score"},
}


@pytest.fixture
def mine() -> None:
    attributes.use(attributes.Vocabulary.read(Path("mine.yaml"), MINE))


@pytest.mark.usefixtures("mine")
def test_levels_of_an_ordinal(pictures: list[Path], tmp_path: Path) -> None:
    tab = AnnotationSession(AnnotationFile(tmp_path / "t.csv", pictures, ("curl",)), {})
    with pytest.raises(ConfigError, match="not answered yet: curl"):
        tab.confirm()
    tab.answer("curl", 3)
    assert read_rows(tmp_path / "t.csv") == [{"idx": "0", "path": "images/000000.png", "curl": "3"}]
    write_rows(tmp_path / "t.csv", [{"idx": "0", "path": "images/000000.png", "curl": "4"}])
    with pytest.raises(DataError, match="row 2: curl is '4'; expected 0 to 3, or nothing"):
        tab.file.reload()
    assert keys_of(("curl",)) == {"curl": {0: "0", 1: "1", 2: "2", 3: "3"}}
    assert keys_of(("happy", "bright", "curl")) == {
        "happy": {1: "1", 0: "2"},
        "curl": {0: "3", 1: "4", 2: "5", 3: "6"},
    }


@pytest.mark.usefixtures("mine")
def test_scores_of_any_kind_in_one_table(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    tab = AnnotationSession(AnnotationFile(table, pictures, ("happy", "bright")), {"happy": 0})
    assert tab.file.scale("bright") == (0, 100, 1)
    for value in (12, 30, 41):  # a slider that is dragged
        tab.answer("bright", value)
    assert read_rows(table)[0] == {"idx": "0", "path": "images/000000.png", "happy": "", "bright": "41"}
    tab.confirm()
    assert read_rows(table)[0]["happy"] == "0" and tab.index == 1
    tab.answer("bright", 90)
    tab.undo()
    tab.undo()
    assert tab.file.annotations == {0: {"bright": 41}}
    tab.undo()
    assert not tab.file.annotations
    # A slider covers the column; whole numbers within 0 … 100 may be those that the studio wrote.
    for values, scale in (((-2.25, 1.75), (-2.25, 1.75, 0.04)), ((40, 60), (0, 100, 1)), ((-40, 60), (-40, 60, 1))):
        write_rows(table, [{"path": f"images/00000{k}.png", "bright": value} for k, value in enumerate(values)])
        assert AnnotationFile(table, pictures, ("bright", "curl")).scale("bright") == scale
    write_rows(table, [{"path": "images/000000.png", "bright": "0,5"}])
    with pytest.raises(DataError, match="bright is '0,5'; expected a number, or nothing"):
        AnnotationFile(table, pictures, ("bright",))


def test_a_blind_session_shows_nothing_from_before(pictures: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    for _ in range(2):
        annotating(pictures, table).confirm()
    scores = np.full((12, 2), 0.9)
    tab = annotating(pictures, table, scores=scores, blind=True)
    assert tab.index == 0 and tab.annotation == {} and tab.predictions() == {}
    before = table.read_bytes()
    with pytest.raises(ConfigError, match="not answered yet: gender, glass"):
        tab.confirm()
    assert tab.index == 0 and table.read_bytes() == before
    tab.answer("gender", 0)
    with pytest.raises(ConfigError, match="not answered yet: glass"):
        tab.confirm()
    tab.answer("glass", 0)
    assert tab.annotation == {"gender": 0, "glass": 0} and tab.done(0)
    tab.confirm()
    assert tab.index == 1 and tab.annotation == {} and not tab.done(1)
    tab.undo()
    tab.undo()
    assert tab.annotation == {} and read_rows(table)[0]["gender"] == "1"
    tab.blind = False
    assert tab.annotation == FITS and tab.predictions() == {"gender": 0.9, "glass": 0.9}


def test_several_annotators_have_a_row_each(pictures: list[Path], tmp_path: Path) -> None:
    """The table is what property networks read: their values are averaged, and their agreement is told."""
    table = tmp_path / "labels.csv"
    tab = annotating(pictures, table)
    tab.confirm()
    assert "annotator" not in read_rows(table)[0]
    for name, answers in (("kim", (1, 0, 1, 1, 0)), ("lee", (1, 0, 1, 0, 0))):
        tab.labels_as(name)
        assert tab.file.annotations == {} and tab.index == 0
        with pytest.raises(ConfigError, match="nothing to undo"):
            tab.undo()
        for answer in answers:
            tab.answer("gender", answer)
            tab.confirm()
    rows = read_rows(table)
    assert list(rows[0]) == ["idx", "path", "annotator", "gender", "glass"] and len(rows) == 11
    assert [row["annotator"] for row in rows if row["idx"] == "0"] == ["", "kim", "lee"]
    tab.undo()
    assert len(read_rows(table)) == 11 and "annotator" in tab.file.columns
    data = ScoredImages(16, [str(table)], ["gender", "glass"], 0.4)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 5 and data.agreement["gender"] == pytest.approx(0.667, abs=0.01)
    again = annotating(pictures, table)
    assert again.file.annotations == {0: FITS}  # what nobody's name belongs to
    with pytest.raises(ConfigError, match=r"labels.csv says who labelled what; say who labels now"):
        again.answer("gender", 0)
    again.labels_as("lee")
    again.answer("gender", 0)
    write_rows(table, [{**rows[1], "annotator": "kim"}, {**rows[1], "annotator": "kim"}])
    with pytest.raises(DataError, match=r"row 3: image images/000000.png is labelled twice by kim"):
        again.file.reload()

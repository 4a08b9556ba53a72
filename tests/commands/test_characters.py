"""From a test's report, or the original's files, to a character, its contact sheet and its animations."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ohlora import attributes
from ohlora.__main__ import main as ohlora
from ohlora.attributes import Motion
from ohlora.characters import speech
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError, DataError
from ohlora.faces.parsing import BACKGROUND, UNetParser, load_parser
from ohlora.formats import network_files, tensor_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes, Space
from ohlora.networks.stylegan import Generator
from ohlora.utils import images
from ohlora.utils.animations import ENDINGS
from ohlora.utils.files import read_rows, shipped, write_rows
from tests.characters.test_speech import save, tone
from tests.conftest import tiny_networks
from tests.films import Film, decoded, opacity
from tests.toy_tables import report_of_latents

PUBLISHED = Path(__file__).parents[1] / "data" / "reference"
NAMES = ("eyes", "mouth", "pose")


@pytest.fixture
def report(tmp_path: Path, weights: tuple[Path, Path]) -> Path:
    """See :func:`tests.toy_tables.report_of_latents`."""
    return report_of_latents(tmp_path / "tested", weights[0])


def test_candidates_are_ranked_and_shown(
    report: Path, tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(report), str(tmp_path / "chosen"), "--count", "2"]  # the report remembers the rest
    assert ohlora(["select", *words]) == 0
    assert "3 of 4 latents pass" in capsys.readouterr().out
    rows = read_rows(tmp_path / "chosen" / "candidates.csv")
    assert [(row["rank"], row["case"]) for row in rows] == [("1", "11"), ("2", "13"), ("3", "10")]
    with Image.open(tmp_path / "chosen" / "candidates.png") as sheet:
        assert sheet.width > 7 * 128 and sheet.height > 2 * 128
    other, _ = tiny_networks(seed=5)
    network_files.save_network(other, tmp_path / "other.safetensors")
    assert ohlora(["select", *words, "--generator", str(tmp_path / "other.safetensors")]) == 2
    assert "is not the generator that" in capsys.readouterr().err
    table = (report / "test_result.csv").read_text().replace(",true,", ",false,")
    (report / "test_result.csv").write_text(table)
    assert ohlora(["select", *words]) == 0
    assert "none of 4 latents passes; ranked are " in capsys.readouterr().out
    file = report / "latents.safetensors"
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    tensors["slope"] = -tensors["slope"].abs()
    save_file(tensors, file, about)
    assert ohlora(["select", *words]) == 2
    assert "none has sliders that all move and rise" in capsys.readouterr().err


def test_what_was_chosen_by_eye_is_exported(
    report: Path, tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chosen", str(report), str(tmp_path / "characters"), "--generator", str(weights[0])]
    assert ohlora(["export-character", *words]) == 2
    assert "choices.csv does not exist; it is made by: ohlora studio" in capsys.readouterr().err
    Report.load(report, weights[0]).write_choices({10: "star", 11: "reject"})
    assert ohlora(["export-character", *words]) == 0
    assert [path.name for path in (tmp_path / "characters").iterdir()] == ["0010.safetensors"]
    best = ["tested", str(report), "best", str(tmp_path / "best.safetensors"), "--generator", str(weights[0])]
    assert ohlora(["export-character", *best]) == 0
    assert Character.load(tmp_path / "best.safetensors").card["case"] == 11


def test_a_table_of_another_test_is_noticed(report: Path, weights: tuple[Path, Path]) -> None:
    """The three files of a report are written one after the other."""
    table = report / "test_result.csv"
    table.write_text(table.read_text().replace("13,", "14,", 1))
    with pytest.raises(DataError, match=r"test_result.csv and latents.safetensors are of different tests"):
        Report.load(report, weights[0])


def test_a_tested_latent_is_calibrated(
    report: Path, tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mina.safetensors"
    words = ["tested", str(report), "11", str(out), "--generator", str(weights[0])]
    assert ohlora(["export-character", *words]) == 0
    said = capsys.readouterr().out
    assert "eyes -1.00 … +0.50, mouth -3.00 … +3.00, pose +0.00 … +2.25 (a unit: one z-score of the attribute" in said
    mina, found = Character.load(out), load_directions(report / "directions.safetensors")
    # One unit was half a z-score for the eyes: a whole one takes two units.
    torch.testing.assert_close(mina.steps.shifts.values[0, 0], 2 * found.units[1, 0] * found.vectors[1, 0])
    assert mina.card["case"] == 11 and mina.card["test"]["mouth"]["corr"] == 0.97 and mina.card["unit"] == "data"
    assert ohlora(["export-character", "tested", str(report), "12", *words[3:]]) == 2
    assert "case 12: pose does not rise with its strength" in capsys.readouterr().err
    assert ohlora(["export-character", "tested", str(report), "99", *words[3:]]) == 2
    assert "has no case 99" in capsys.readouterr().err


def test_candidates_are_ranked_by_what_an_eye_judges(report: Path) -> None:
    """Worst reach from rest, then identity, then leakage, as far as they were measured; the third fails."""
    table = read_rows(report / "test_result.csv")

    def ranked(**columns: list[float]) -> list[int]:
        more = [{name: values[k] for name, values in columns.items()} for k in range(4)]
        write_rows(report / "test_result.csv", [row | told for row, told in zip(table, more, strict=True)])
        return Report.load(report).ranked()

    wide, kept = [1.0, 1.0, 1.0, 1.0], [0.86, 0.99, 0.99, 0.72]
    reach = {"eyes_reach": [0.9, 0.5, 1.0, 0.91], "mouth_reach": wide, "pose_reach": wide}  # 0.01 is not seen
    identity = {"eyes_identity": wide, "mouth_identity": kept, "pose_identity": wide}
    assert ranked() == [1, 3, 0]
    assert ranked(**reach) == [3, 0, 1] and ranked(**reach, **identity) == [0, 3, 1]
    assert ranked(**reach | {"pose_reach": [0.2, 0.4, 1.0, 0.27]}, **identity) == [1, 3, 0]
    assert ranked(eyes_reach=reach["eyes_reach"]) == [1, 3, 0], "what was not measured of all does not count"
    assert ranked(**identity) == [1, 0, 3]
    # The first is turned away, the second sleeps, the last has its mouth open: what each cannot do does not count.
    sides = {"eyes_reach_below": [0.5, 0.1, 1, 0.6], "eyes_reach_above": [0.4, 0.9, 1, 0.0]}
    sides |= {"mouth_reach_below": [0.0, 0.0, 1, 0.7], "mouth_reach_above": [1.0, 1.0, 1, 0.3]}
    sides |= {"pose_reach_below": [0.05, 0.5, 1, 0.5], "pose_reach_above": [0.95, 0.5, 1, 0.5]}
    all_wide = {f"{name}_reach": wide for name in NAMES}
    assert ranked(**all_wide) == [3, 0, 1] and ranked(**all_wide, **sides) == [3, 1, 0]


def test_a_candidate_is_shown_with_what_was_measured(report: Path) -> None:
    assert Report.load(report).picture(1).shape == (22 + 4 * (132 + 22), 652, 3)


def test_characters_are_calibrated_by_what_is_not_rounded(report: Path) -> None:
    path = report / "latents.safetensors"
    about, tensors = tensor_files.read_metadata(path, "ohlora-latents", 2, "tested latents"), load_file(path)
    tensors["slope"][1, 0] = 0.500049  # 0.5 in the table
    del about["format_version"]
    tensor_files.write(path, "ohlora-latents", 2, tensors, **about)
    mina = Report.load(report).character(1)
    found = load_directions(report / "directions.safetensors")
    expected = found.steps.values[1, 0] / 0.500049
    torch.testing.assert_close(mina.steps.shifts.values[0, 0], expected, rtol=1e-6, atol=0)
    assert mina.ranges["eyes"] == pytest.approx((-2 * 0.500049, 0.500049))
    tensors["ranges"][1, 2] = 0.0
    tensor_files.write(path, "ohlora-latents", 2, tensors, **about)
    with pytest.raises(ConfigError, match="case 11: the slider of pose goes nowhere within its limits; take another"):
        Report.load(report).character(1)


def test_a_report_of_version_1_is_read_from_its_table(report: Path, weights: tuple[Path, Path]) -> None:
    now = Report.load(report)
    path = report / "latents.safetensors"
    about, tensors = tensor_files.read_metadata(path, "ohlora-latents", 2, "tested latents"), load_file(path)
    first = {"case": tensors["case"], "w": tensors["codes"], "group": tensors["group"], "units": tensors["units"]}
    said = {key: about[key] for key in ("generator", "directions", "levels")}
    tensor_files.write(path, "ohlora-latents", 1, first, **said)
    table = (report / "test_result.csv").read_text().replace(",true,", ",O,").replace(",false,", ",X,")
    (report / "test_result.csv").write_text(table)
    with pytest.raises(ConfigError, match="does not say which generator was tested; name it with --generator"):
        Report.load(report)
    then = Report.load(report, weights[0])
    assert then.passed == now.passed == [True, True, False, True] and then.ranked() == now.ranked()
    assert torch.equal(then.character(1).steps.shifts.values, now.character(1).steps.shifts.values)
    assert then.character(1).card["unit"] == "samples"  # by which the judge measured then
    assert then.character(1).ranges["pose"] == pytest.approx((-0.9, 2.7))  # the ends of the grid


# --- animations

FILMS = pytest.mark.parametrize("ending", ENDINGS)


@pytest.fixture
def mina(tmp_path: Path) -> Path:
    """A character whose eyes blink and whose mouth speaks, and that does not move besides."""
    g, _ = tiny_networks()
    code, steps = Codes(torch.zeros(1, 8), Space.W), Steps(Codes(2 * torch.eye(8)[None, :2], Space.W))
    ranges = {"eyes": (-3.0, 1.0), "mouth": (-1.0, 4.0)}
    motions = {"eyes": Motion(blinks=True), "mouth": Motion(speaks=1.0)}
    Character(g, code, ("eyes", "mouth"), steps, ranges, motions=motions).save(tmp_path / "mina.safetensors")
    return tmp_path / "mina.safetensors"


def nearness(film: Film, mina: Path, **strengths: float) -> np.ndarray:
    """How near each frame is to an image of the character, 0 (as far as one at rest) … 1 (equal)."""
    character = Character.load(mina)
    rows = [[0.0, 0.0], [strengths.get(name, 0.0) for name in character.attributes]]
    rest, wanted = character.frames(rows).astype(int)
    scale = film.frames.shape[1] // len(wanted)
    small = film.frames[:, scale // 2 :: scale, scale // 2 :: scale]
    return np.asarray(1 - np.abs(small - wanted).mean((1, 2, 3)) / np.abs(rest - wanted).mean())


def runs(inside: np.ndarray) -> int:
    """How many runs of true values there are."""
    return int(np.count_nonzero(np.diff(inside.astype(int), prepend=0) == 1))


@FILMS
def test_a_character_blinks_in_the_file(ending: str, mina: Path, tmp_path: Path) -> None:
    path = tmp_path / f"mina{ending}"
    assert ohlora(["animate", str(mina), str(path), "--sweep", "0", "--idle", "20", "--scale", "4"]) == 0
    film = decoded(path)
    assert film.seconds == pytest.approx(20, abs=0.01) and film.frames.shape[1:] == (64, 64, 3)
    closed = nearness(film, mina, eyes=-3.0) > 0.7
    assert runs(closed) == 5 and film.times[closed][0] < 3
    starts = film.times[np.flatnonzero(np.diff(closed.astype(int)) == 1) + 1]
    assert np.diff(starts).min() > 1.9 and np.diff(starts).max() < 6.1
    assert closed.mean() < 0.5


@FILMS
def test_an_animation_sweeps_and_rests(
    ending: str, mina: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"mina{ending}"
    words = ["animate", str(mina), str(path), "--sweep", "0.8", "--idle", "1", "--fps", "15", "--scale", "4"]
    assert ohlora(words) == 0
    assert "39 frames, 2.6 s: sweeps of eyes, mouth, then at rest" in capsys.readouterr().out
    film = decoded(path)
    assert film.seconds == pytest.approx(2.6, abs=0.01) and film.frames.shape[1:] == (64, 64, 3)
    for name, low, high in (("eyes", -3.0, 1.0), ("mouth", -1.0, 4.0)):
        seen = [nearness(film, mina, **{name: end}) for end in (low, high)]
        first, last = (film.times[near.argmax()] for near in seen)
        assert min(near.max() for near in seen) > 0.5 and first < last < (0.8 if name == "eyes" else 1.6)
        assert first >= (0 if name == "eyes" else 0.8)


@FILMS
def test_a_text_is_spoken_on_top_of_blinks(
    ending: str, mina: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"mina{ending}"
    words = ["animate", str(mina), str(path), "--speech-text", "Mama, papa!", "--rate", "4", "--at", "mouth=4"]
    words += ["--scale", "4"]
    assert ohlora(words) == 0
    assert f"{path}: 65 frames, 3.2 s: speech without sound" in capsys.readouterr().out
    film = decoded(path)
    shut = nearness(film, mina, mouth=-1.0) > 0.8
    assert runs(shut & (film.times > 0.3)) == 4  # the second m, the pause with the p after it, the last p, the end
    assert nearness(film, mina, mouth=4.0)[-1] > 0.8  # back at its slider
    character = Character.load(mina)
    rows = character.idle(film.times, [0.0, 4.0], speech=speech.of_text("Mama, papa!", 4))
    assert rows[:, 0].min() < -2.9  # it blinks meanwhile
    assert np.abs(film.frames[:, 2::4, 2::4] - character.frames(rows).astype(int)).mean() < 8


@pytest.mark.parametrize("ending", [".gif", ".mp4", ".webm"])
def test_a_recording_is_spoken_and_heard(
    ending: str, mina: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = save(tmp_path / "said.wav", tone(16000), 16000)  # half a second each: silent, loud, quiet, silent
    path = tmp_path / f"mina{ending}"
    words = ["animate", str(mina), str(path), "--speech-wav", str(recording), "--sweep", "0.5", "--seed", "1"]
    assert ohlora([*words, "--at", "mouth=-1", "--scale", "4"]) == 0
    heard = "without sound" if ending == ".gif" else "with its sound"
    assert f"70 frames, 3.5 s: sweeps of eyes, mouth, then speech {heard}" in capsys.readouterr().out
    film = decoded(path)
    open_ = nearness(film, mina, mouth=4.0)
    at = np.searchsorted(film.times, [1.25, 1.75, 2.25, 2.9], side="right") - 1
    assert open_[at[1]] > 0.7 and open_[at[1]] > open_[at[2]] > open_[at[0]] and open_[at[3]] < 0.3
    if ending != ".gif":
        loud = [np.sqrt(np.square(film.sound[:, int(second * 48000) :][:, :9600]).mean()) for second in (1.15, 1.65)]
        assert loud == pytest.approx([0, 0.5 / 2**0.5], abs=0.02) and film.seconds == pytest.approx(3.5, abs=0.03)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.avi"], "a.avi: its ending is .avi; expected one of .gif .webp .mp4 .webm"),
        (["a.gif", "--fps", "0"], "0 frames per second; expected 1 to 50 for .gif"),
        (["a.gif", "--sweep", "-1"], "--sweep is -1.0; expected at least 0"),
        (["a.gif", "--idle", "nan"], "--idle is nan; expected at least 0"),
        (["a.gif", "--scale", "0"], "--scale is 0; expected at least 1"),
        (["a.gif", "--seed", "-1"], "--seed is -1; expected 0 to"),
        (["a.gif", "--idle", "1e9"], "expected 2 to 36,000: change --sweep, --idle or --fps"),
        (["a.gif", "--idle", "0", "--sweep", "0"], "0 seconds at 20 frames per second are 0 frames"),
        (["a.gif", "--at", "roll=1"], "--at is 'roll=1'; expected NAME=STRENGTH with one of the sliders eyes, mouth"),
        (["a.gif", "--at", "eyes=2"], "--at is 'eyes=2'; expected a strength from -3.00 to 1.00 for eyes"),
        (["a.gif", "--at", "eyes"], "expected a strength from -3.00"),
        (["a.gif", "--rate", "12"], "--rate is 12, which is for --speech-text"),
        (["a.gif", "--rate", "12", "--speech-wav", "a.wav"], "a recording has its own rate"),
        (["a.gif", "--rate", "0", "--speech-text", "hello"], "rate is 0"),
        (["a.gif", "--speech-wav", "a.wav"], "a.wav: no such file"),
        (["a.gif", "--speech-text", "Да"], "expected Latin letters or Hangul"),
        (["a.gif", "--speech-text", "hello hello", "--idle", "0.5"], "--idle is 0.5; the speech takes 0.8 s"),
        (["a.gif", "--background", "transparent"], ".gif has no transparency with soft edges; choose .webp or .webm"),
        (["a.mp4", "--background", "transparent"], ".mp4 has no transparency with soft edges; choose .webp or .webm"),
        (["a.gif", "--background", "whit"], "--background is 'whit'; expected a colour such as white or '#8090a0'"),
        (["a.webp", "--background", "transparent"], "face_parser/parser.safetensors does not exist; it is made by: "),
        (["a.webp", "--background", "white", "--world", "none"], "there is no world none"),
        (["a.webp", "--world", "demo"], "--world is demo, which is for --background; give a background, or leave"),
    ],
)
def test_animations_that_are_refused(
    words: list[str], said: str, mina: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mina.parent)
    assert ohlora(["animate", str(mina), *words]) == 2
    assert said in capsys.readouterr().err and [path.name for path in mina.parent.iterdir()] == [mina.name]


@pytest.mark.parametrize("ending", [".webp", ".webm"])
def test_the_background_is_cut_out(ending: str, drawn_mina: Path, tmp_path: Path) -> None:
    words = ["animate", str(drawn_mina), str(tmp_path / f"mina{ending}"), "--sweep", "1", "--idle", "0", "--scale", "4"]
    assert ohlora([*words, "--background", "transparent", "--world", "demo"]) == 0
    alpha = opacity(tmp_path / f"mina{ending}")
    assert alpha.shape == (20, 256, 256)
    assert alpha[:, :16, :16].max() < 5 and alpha[:, :16, -16:].max() < 5, "corners are transparent"
    assert alpha[:, 96:160, 96:160].min() > 250, "the face is opaque"
    assert ((alpha > 20) & (alpha < 235)).any(axis=(1, 2)).all(), "edges are soft"
    # No pixel comes and goes from frame to frame.
    flicker = np.abs(alpha[2:].astype(int) - 2 * alpha[1:-1].astype(int) + alpha[:-2])
    assert (flicker > 200).mean() < 0.001
    frames, character = decoded(tmp_path / f"mina{ending}").frames, Character.load(drawn_mina)
    rows = character.shown(None, 20, 1, 0)
    face = np.abs(frames[:, 98:160:4, 98:160:4].astype(int) - character.frames(rows)[:, 24:40, 24:40])
    assert face.mean() < 6


@pytest.mark.parametrize("background", ["transparent", "white"])
def test_a_film_without_a_face_is_refused(
    background: str, drawn_mina: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn_mina.parent)
    parser = load_parser(shipped("weights/toy/parser.safetensors"))
    assert isinstance(parser, UNetParser)
    with torch.no_grad():
        bias = parser.network.head.bias
        assert bias is not None
        bias[BACKGROUND] += 1000  # to this parser, everything is background
    network_files.save_network(parser.network, "artifacts/blind/face_parser/parser.safetensors")
    Path("blind.yaml").write_text("base: toy\nroot: blind\n")
    words = ["animate", str(drawn_mina), "mina.webp", "--sweep", "1", "--idle", "0", "--world", "blind.yaml"]
    assert ohlora([*words, "--background", background]) == 2
    said = capsys.readouterr().err
    assert (
        "artifacts/blind/face_parser/parser.safetensors: to this face parser the whole first picture is background"
        in said
    )
    assert not Path("mina.webp").exists()


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_a_face_is_laid_on_a_colour(ending: str, drawn_mina: Path, tmp_path: Path) -> None:
    words = ["animate", str(drawn_mina), str(tmp_path / f"mina{ending}"), "--sweep", "0.5", "--idle", "0"]
    assert ohlora([*words, "--background", "#2040c0", "--world", "demo"]) == 0
    frames = decoded(tmp_path / f"mina{ending}").frames.astype(int)
    for corner in (frames[:, :16, :16], frames[:, :16, -16:]):
        assert np.abs(corner - (0x20, 0x40, 0xC0)).max() < 16
    assert np.abs(frames[:, 96:160, 96:160] - (0x20, 0x40, 0xC0)).mean() > 30


def test_what_does_not_move_by_itself_only_sweeps(
    mina: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(Character.load(mina), motions={}).save(mina)
    words = ["animate", str(mina), str(tmp_path / "still.gif"), "--sweep", "0.2", "--idle", "0.2"]
    assert ohlora(words) == 0
    assert "sweeps of eyes, mouth, then no attribute moves at rest" in capsys.readouterr().out
    assert ohlora([*words, "--speech-text", "Hello"]) == 2
    assert "none of its sliders (eyes, mouth) is moved by speech; expected one whose" in capsys.readouterr().err


def test_a_character_of_a_report_is_animated(report: Path, tmp_path: Path, weights: tuple[Path, Path]) -> None:
    out = tmp_path / "mina.safetensors"
    assert ohlora(["export-character", "tested", str(report), "11", str(out), "--generator", str(weights[0])]) == 0
    assert ohlora(["animate", str(out), str(tmp_path / "mina.gif"), "--sweep", "0.3", "--idle", "0.3"]) == 0
    assert decoded(tmp_path / "mina.gif").seconds == pytest.approx(1.2)


# --- the original's files


def labelled_generator(path: Path) -> Generator:
    """A generator that takes the original's latents, small beyond the mapping."""
    torch.manual_seed(4)
    g = Generator(resolution=16, channel_base=128, channel_max=8, c_dim=7, labels="normal", mapping_layers=2)
    torch.nn.init.normal_(g.get_parameter("synthesis.block4.layer0.constant"))
    network_files.save_network(g, path)
    return g.eval()


@pytest.fixture
def original_directions(tmp_path: Path) -> Path:
    words = [str(PUBLISHED / "directions"), str(tmp_path / "v8.safetensors")]
    assert ohlora(["import-directions", *words, "--medians", str(PUBLISHED / "medians.csv")]) == 0
    return tmp_path / "v8.safetensors"


def published(attribute: str, group: str) -> np.ndarray:
    with (PUBLISHED / "directions" / f"{attribute}_change_w_vector_{group}.csv").open() as file:
        return np.array(list(csv.reader(file))[1][1:], dtype=np.float64)


def test_importing_the_published_directions(original_directions: Path) -> None:
    found = load_directions(original_directions)
    assert found.attributes == ("eyes", "mouth", "roll") and found.vectors.shape == (16, 3, 512)
    assert found.groups.attributes == ("hair_color", "hair_length", "background_mean", "hairstyle")
    assert found.groups.medians == (-0.4574, 0.5734, 0.7618, -0.0167) and found.unit == "vector"
    assert found.units.allclose(torch.ones(16, 3))
    place = found.groups.names.index("hlhh")
    assert np.allclose(found.vectors[place, 2], -published("pose", "hlhh"), atol=1e-6)
    # The geometry that was published with them.
    eyes_mouth = (found.vectors[:, 0] * found.vectors[:, 1]).sum(dim=-1)
    assert float(eyes_mouth.mean()) == pytest.approx(-0.25, abs=0.005)
    for p, mean in enumerate((0.485, 0.727, 0.472)):
        cosines = found.vectors[:, p] @ found.vectors[:, p].T
        assert float((cosines.sum() - 16) / 240) == pytest.approx(mean, abs=0.001)


@pytest.mark.parametrize("case", [83, 1996])
def test_an_original_latent_moves_as_published(case: int, original_directions: Path, tmp_path: Path) -> None:
    """Against the original's arithmetic: w + Σ strength · downward direction, with all target strengths negated."""
    g = labelled_generator(tmp_path / "g.safetensors")
    tables = [str(PUBLISHED / "ohlora_z_vectors.csv"), str(PUBLISHED / "ohlora_w_group_names.csv")]
    words = ["--generator", str(tmp_path / "g.safetensors"), "--directions", str(original_directions)]
    eyes = {"meaning": "eyes", "kind": "score", "grid": [-3, 9]}
    attributes.use(attributes.Vocabulary.read(Path("mine.yaml"), {"eyes": eyes}))  # as an earlier command may leave it
    assert ohlora(["export-character", "original", *tables, str(case), str(tmp_path / "c.safetensors"), *words]) == 0
    character = Character.load(tmp_path / "c.safetensors")
    assert character.ranges == {
        "eyes": (-1.2, 1.2),
        "mouth": (-1.8, 1.8),
        "roll": (pytest.approx(-0.6), pytest.approx(1.8)),
    }
    assert character.card["unit"] == "vector" and character.unit == "one unit of length of the code"
    groups = read_rows(Path(tables[1]))
    place = next(k for k, row in enumerate(groups) if row["case"] == str(case))
    vector = np.loadtxt(tables[0], delimiter=",", skiprows=1)[place]
    z, label = (torch.from_numpy(part[None]).float() for part in (vector[:512], vector[512:]))
    target = {"eyes": 0.8, "mouth": 1.4, "pose": -0.6}
    group = groups[place]["group_name"]
    shift = sum(-strength * published(name, group) for name, strength in target.items())
    with torch.inference_mode():
        w = g.map(z, label).values + torch.from_numpy(np.asarray(shift)[None]).float()
        expected = images.to_uint8(g.synthesize(Codes(w, Space.W)))[0]
    face = character.render(eyes=0.8, mouth=1.4, roll=-0.6, strict=True)
    assert np.abs(np.asarray(face).astype(int) - expected).max() <= 1


def test_original_files_that_do_not_fit(
    original_directions: Path, tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [str(PUBLISHED / "ohlora_z_vectors.csv"), str(PUBLISHED / "ohlora_w_group_names.csv")]
    words = ["--directions", str(original_directions), "--generator"]
    out = str(tmp_path / "c.safetensors")
    assert ohlora(["export-character", "original", *tables, "83", out, *words, str(weights[0])]) == 2
    assert "has 519 columns" in capsys.readouterr().err
    labelled_generator(tmp_path / "g.safetensors")
    assert ohlora(["export-character", "original", *tables, "84", out, *words, str(tmp_path / "g.safetensors")]) == 2
    assert "has no case 84; it has 83, 143" in capsys.readouterr().err
    folder = tmp_path / "csv"
    folder.mkdir()
    assert ohlora(["import-directions", str(folder), out]) == 2
    assert "holds no file such as" in capsys.readouterr().err
    header = ",0,1\n"
    for name in ("eyes", "mouth"):
        for group in ("hh", "hl", "lh", "ll"):
            (folder / f"{name}_change_w_vector_{group}.csv").write_text(f"{header}0,0.6,0.8\n")
    assert ohlora(["import-directions", str(folder), out]) == 0
    assert "cannot find the group" in capsys.readouterr().out
    two = load_directions(out)
    assert two.groups.attributes == ("hair_color", "hair_length") and two.vectors[0, 0].tolist() == pytest.approx(
        [-0.6, -0.8]
    )
    odd = folder / "eyes_change_w_vector_hl.csv"
    for text, message in (
        (f"{header}0,0.6,much\n", "could not convert"),
        (f"{header}0,0,0\n", "other than zero"),
        (f"{header}0,1,2\n1,1,2\n", "one row"),
        (",0\n0,1\n", "lengths"),
    ):
        odd.write_text(text)
        assert ohlora(["import-directions", str(folder), out]) == 2
        assert message in capsys.readouterr().err
    odd.unlink()
    assert ohlora(["import-directions", str(folder), out]) == 2
    assert "eyes_change_w_vector_hl.csv missing" in capsys.readouterr().err
    (folder / "eyes_change_w_vector_h.csv").write_text(f"{header}0,1,2\n")
    assert ohlora(["import-directions", str(folder), out]) == 2
    assert "letters" in capsys.readouterr().err

"""Tests of the renderer of drawn faces."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from ohlora import pipeline
from ohlora.attributes import Crop
from ohlora.faces.classes import CLASSES
from ohlora.toy import drawing
from ohlora.toy.drawing import (
    DEFAULT_RATES,
    DRAWN,
    EXPRESSIONS,
    MEASURED,
    MIN_RESOLUTION,
    NUISANCES,
    DrawnFace,
    Truth,
    draw,
    physical,
    sample_truth,
)

SIZE = 128
GOOD = {"quality": 1.0, "glass": 0.0, "age": 0.0}
TOY = pipeline.world("toy").attributes
FILTERS = TOY.names("filter")


@pytest.fixture(scope="module")
def small_faces() -> list[tuple[Truth, DrawnFace]]:
    """Faces at the toy world's resolution."""
    truths = [sample_truth(11, i) for i in range(300)]
    return [(truth, draw(truth, 64)) for truth in truths]


def changed(before: DrawnFace, after: DrawnFace) -> npt.NDArray[np.bool_]:
    """Mask of the pixels in which two images differ."""
    return np.asarray((before.image != after.image).any(axis=2))


def grown(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask and its neighbouring pixels, since a pixel on an edge belongs partly to both sides."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.any(shifted, axis=0))


def inside(crop: Crop, size: int = SIZE) -> npt.NDArray[np.bool_]:
    """A mask of a window of the frame."""
    mask = np.zeros((size, size), np.bool_)
    top, bottom, left, right = (round(edge * size) for edge in crop)
    mask[top:bottom, left:right] = True
    return mask


# --- truth ------------------------------------------------------------------------------------------------------------


def test_truth_is_a_function_of_seed_and_index() -> None:
    backwards = [sample_truth(3, i) for i in reversed(range(20))][::-1]
    assert backwards == [sample_truth(3, i) for i in range(20)]
    assert len({tuple(truth.attributes.values()) for truth in backwards}) == 20
    assert sample_truth(4, 0) != sample_truth(3, 0)


def test_truth_names_everything() -> None:
    truth = sample_truth(0, 0)
    assert tuple(truth.attributes) == tuple(TOY.declared)
    assert tuple(truth.nuisances) == NUISANCES
    assert pickle.loads(pickle.dumps(truth)) == truth


def test_a_rate_changes_its_own_attribute_only() -> None:
    for i in range(40):
        plain, dense = sample_truth(5, i), sample_truth(5, i, {"glass": 0.9})
        assert plain.nuisances == dense.nuisances
        assert {k: v for k, v in plain.attributes.items() if k != "glass"} == {
            k: v for k, v in dense.attributes.items() if k != "glass"
        }
        assert plain.attributes["glass"] <= dense.attributes["glass"]


def test_a_further_attribute_changes_no_other_value(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [sample_truth(5, i) for i in range(10)]
    for name, names in (("DRAWN", DRAWN), ("MEASURED", MEASURED), ("NUISANCES", NUISANCES)):
        monkeypatch.setattr(drawing, name, ("first" if names is not NUISANCES else "freckles", *names))
    for i, truth in enumerate(before):
        after = sample_truth(5, i)
        assert {name: after.attributes[name] for name in DRAWN} == truth.attributes
        assert {name: after.nuisances[name] for name in NUISANCES} == truth.nuisances
        assert len({*after.attributes.values(), *after.nuisances.values()}) > len(NUISANCES) + len(MEASURED)


def test_physical_values_rise_with_z_scores_and_keep_their_ranges() -> None:
    truth = sample_truth(0, 0)
    for name, about in EXPRESSIONS.items():
        values = [physical(truth.replace(**{name: z}))[about.name] for z in np.linspace(-3, 3, 61)]
        assert values[0] == about.low and values[-1] == about.high
        assert (np.diff(values) >= 0).all() and (np.diff(values) > 0).sum() > 25
        others = physical(truth.replace(**{name: 3.0}))
        assert {k: v for k, v in others.items() if k != about.name} == {
            k: v for k, v in physical(truth).items() if k != about.name
        }
    assert physical(truth.replace(pose=0.0))["yaw_degrees"] == pytest.approx(0, abs=1e-9)
    assert physical(truth.replace(smile=0.0))["mouth_corners"] == pytest.approx(0, abs=1e-9)


def test_extremes_are_common_enough_to_be_learnt() -> None:
    found = [physical(sample_truth(1, i)) for i in range(4000)]
    values = {name: np.array([one[name] for one in found]) for name in found[0]}
    for name in ("eye_opening", "mouth_opening"):
        assert (values[name] == 0).mean() == pytest.approx(0.1, abs=0.02)
        assert (values[name] >= 0.9).mean() == pytest.approx(0.1, abs=0.02)
    assert (np.abs(values["yaw_degrees"]) >= 25).mean() == pytest.approx(0.2, abs=0.03)
    assert (np.abs(values["mouth_corners"]) >= 0.9).mean() == pytest.approx(0.2, abs=0.03)


def test_distribution_of_truths() -> None:
    truths = [sample_truth(1, i) for i in range(4000)]
    for name in MEASURED:
        values = np.array([truth.attributes[name] for truth in truths])
        assert abs(values.mean()) < 0.06
        assert abs(values.std() - 1) < 0.06
    for name in FILTERS:
        assert abs(np.mean([truth.attributes[name] for truth in truths]) - DEFAULT_RATES[name]) < 0.03


def test_rates_of_zero_and_one_are_exact() -> None:
    rates = {"gender": 1.0, "age": 0.0}
    truths = [sample_truth(1, i, rates) for i in range(50)]
    assert all(truth.attributes["gender"] == 1 and truth.attributes["age"] == 0 for truth in truths)


def test_replace() -> None:
    truth = sample_truth(0, 0)
    other = truth.replace(eyes=1.5, skin=0.25)
    assert (other.attributes["eyes"], other.nuisances["skin"]) == (1.5, 0.25)
    assert other.replace(eyes=truth.attributes["eyes"], skin=truth.nuisances["skin"]) == truth
    with pytest.raises(ValueError, match="unknown name 'eye'; expected one of gender"):
        truth.replace(eye=1.0)
    with pytest.raises(ValueError, match="'glass' is 2; expected 0 or 1"):
        truth.replace(glass=2)
    with pytest.raises(ValueError, match="'pose' is nan; expected a finite number"):
        truth.replace(pose=float("nan"))
    with pytest.raises(ValueError, match="'skin' is -1; expected a number from 0 to 1"):
        truth.replace(skin=-1)


def test_bad_truths() -> None:
    truth = sample_truth(0, 0)
    with pytest.raises(ValueError, match=r"missing: eyes; unknown: eye$"):
        Truth({("eye" if k == "eyes" else k): v for k, v in truth.attributes.items()}, truth.nuisances)
    with pytest.raises(ValueError, match="seed and index are 0 and -1"):
        sample_truth(0, -1)
    with pytest.raises(ValueError, match="unknown rate 'eyes'; expected one of gender"):
        sample_truth(0, 0, {"eyes": 0.5})
    with pytest.raises(ValueError, match=r"rate of 'age' is 1\.5"):
        sample_truth(0, 0, {"age": 1.5})


# --- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [MIN_RESOLUTION, 33, 64, 256])
def test_shapes(resolution: int) -> None:
    face = draw(sample_truth(0, 0), resolution)
    assert face.image.shape == (resolution, resolution, 3)
    assert face.parsing.shape == (resolution, resolution)
    assert face.image.dtype == face.parsing.dtype == np.uint8
    assert face.parsing.max() < len(CLASSES)


def test_too_small() -> None:
    with pytest.raises(ValueError, match="the resolution is 15; expected at least 16"):
        draw(sample_truth(0, 0), 15)


def test_drawing_is_repeatable() -> None:
    first, second = draw(sample_truth(2, 7), 64), draw(sample_truth(2, 7), 64)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.parsing, second.parsing)


@pytest.mark.parametrize("index", range(6))
def test_resolutions_agree(index: int) -> None:
    truth = sample_truth(9, index)
    small, large = draw(truth, 64), draw(truth, 256)
    averaged = large.image.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(averaged - small.image).mean() < 3
    assert (large.parsing[2::4, 2::4] == small.parsing).mean() > 0.97


def test_every_class_but_that_of_closed_mouths_survives_at_64(small_faces: list[tuple[Truth, DrawnFace]]) -> None:
    for truth, face in small_faces:
        found, opening = set(np.unique(face.parsing)), physical(truth)["mouth_opening"]
        assert found | {8} == set(range(len(CLASSES)))
        assert 8 in found or opening < 0.1
        assert 8 not in found or opening > 0


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("value", [-3.5, 3.5])
def test_extremes_keep_every_class(name: str, value: float) -> None:
    face = draw(sample_truth(0, 1).replace(**{"mouth": 0.0, name: value}), 64)
    closed = {8} if (name, value) == ("mouth", -3.5) else set()
    assert set(np.unique(face.parsing)) == set(range(len(CLASSES))) - closed


@pytest.mark.parametrize(
    ("classes", "window", "share"),
    [
        ((4, 5), TOY["eyes"].windows[0], 0.999),
        ((4, 5, 6), TOY["pose"].windows[0], 0.999),
        ((7, 8, 9), TOY["mouth"].windows[0], 0.999),
        ((7, 8, 9), TOY["smile"].windows[0], 0.999),
        ((4, 5), TOY["glass"].windows[0], 0.999),
    ],
)
def test_parts_lie_in_the_windows_of_the_networks(
    small_faces: list[tuple[Truth, DrawnFace]], classes: tuple[int, ...], window: Crop, share: float
) -> None:
    masks = [np.isin(face.parsing, classes) for _, face in small_faces]
    hits = sum(int((mask & inside(window, 64)).sum()) for mask in masks)
    assert hits / sum(int(mask.sum()) for mask in masks) > share


def test_background_shows_in_the_top_half(small_faces: list[tuple[Truth, DrawnFace]]) -> None:
    assert min((face.parsing[:32] == 0).mean() for _, face in small_faces) > 0.2


def test_left_and_right_are_those_of_the_image(small_faces: list[tuple[Truth, DrawnFace]]) -> None:
    for _, face in small_faces:
        columns = [np.nonzero(face.parsing == number)[1].mean() for number in (2, 3, 4, 5)]
        assert columns[0] < columns[1]
        assert columns[2] < columns[3]


def test_clothes_are_background_only_below_the_middle() -> None:
    truth = sample_truth(0, 1)
    red, green = draw(truth.replace(clothes_hue=0), SIZE), draw(truth.replace(clothes_hue=0.4), SIZE)
    difference = changed(red, green)
    assert difference.any()
    assert not difference[: SIZE * 3 // 4].any()
    assert np.array_equal(red.parsing, green.parsing)


# --- expressions ------------------------------------------------------------------------------------------------------


def test_closed_eyes_are_a_dark_line_without_white_or_iris() -> None:
    for index in range(6):
        truth = sample_truth(30, index).replace(**GOOD, eyes=-3.0, roll=0.0)
        face = draw(truth, SIZE)
        for number in (4, 5):
            mask = face.parsing == number
            heights = mask.sum(axis=0)[mask.any(axis=0)]
            assert 2 <= np.median(heights) <= 0.04 * SIZE
            assert face.image[mask].mean() < 110
            assert face.image[mask].min(axis=1).max() < 200  # no white


def test_wide_eyes_show_white_above_and_below_the_iris() -> None:
    face = draw(sample_truth(30, 0).replace(**GOOD, eyes=3.0, roll=0.0, pose=0.0), SIZE)
    for number in (4, 5):
        mask = face.parsing == number
        columns = np.flatnonzero(mask.any(axis=0))
        assert 0.2 < len(columns) / SIZE < 0.26
        middle = columns[len(columns) // 2] + 4  # beside the glint
        rows = np.flatnonzero(mask[:, middle])
        assert 0.17 < len(rows) / SIZE < 0.25
        white = face.image[rows, middle].min(axis=1) > 180
        runs = white[np.flatnonzero(np.diff(white, prepend=~white[:1]))]
        assert runs.tolist()[:4] == [False, True, False, True]  # lid's line, white, iris, white
        assert white.sum() > 0.04 * SIZE


def test_a_closed_mouth_has_no_inside_and_a_wide_one_shows_teeth_and_tongue() -> None:
    truth = sample_truth(30, 1).replace(**GOOD, pose=0.0, roll=0.0)
    closed, wide = (draw(truth.replace(mouth=value), SIZE) for value in (-3.0, 3.0))
    assert not (closed.parsing == 8).any()
    inside_mouth = wide.parsing == 8
    rows = np.flatnonzero(inside_mouth.any(axis=1))
    assert len(rows) / SIZE > 0.17
    red, green, _ = wide.image[inside_mouth].astype(int).T
    for what in (green > 220, (red > 190) & (green < 140), red < 130):  # teeth, tongue, dark
        assert what.mean() > 0.1


def test_a_turned_head_shows_its_near_ear_and_narrows_its_far_eye() -> None:
    truth = sample_truth(30, 2).replace(**GOOD, roll=0.0, eyes=0.5)
    front, right = (draw(truth.replace(pose=value), SIZE).parsing for value in (0.0, 3.0))
    widths = [[np.ptp(np.nonzero(parsing == number)[1]) for number in (4, 5)] for parsing in (front, right)]
    assert abs(widths[0][0] - widths[0][1]) <= 2
    assert widths[1][1] < 0.7 * widths[1][0]
    rows = slice(round(0.49 * SIZE), round(0.57 * SIZE))
    # Beside the eyes, skin reaches further out at the near side and less far at the far side.
    left, far = ([np.flatnonzero(row == 1) for row in parsing[rows]] for parsing in (front, right))
    assert np.mean([row[0] for row in far]) > np.mean([row[0] for row in left])
    assert np.mean([row[-1] for row in far]) < np.mean([row[-1] for row in left])
    shifts = [np.nonzero(right == k)[1].mean() - np.nonzero(front == k)[1].mean() for k in (6, 10)]
    assert shifts[0] > 0.12 * SIZE and shifts[1] < 0.03 * SIZE  # the nose, the hair


@pytest.mark.parametrize("name", [*EXPRESSIONS, "roll", "hairstyle", "hair_length", "hair_color"])
@pytest.mark.parametrize("index", range(2))
def test_pictures_change_gradually(name: str, index: int) -> None:
    truth = sample_truth(31, index).replace(quality=1)
    pictures = [draw(truth.replace(**{name: z}), 64).image.astype(float) for z in np.linspace(-2, 2, 101)]
    steps = np.array([np.abs(after - before).mean() for before, after in pairwise(pictures)])
    assert steps.max() < 3.5 * np.median(steps[steps > 0])


# --- each attribute moves its own part --------------------------------------------------------------------------------

WINDOWS = {
    "eyes": Crop(0.25, 0.57, 0.15, 0.85),
    "mouth": Crop(0.46, 1.0, 0.12, 0.88),  # the jaw drops
    "smile": Crop(0.45, 0.90, 0.12, 0.88),  # with the blush of the cheeks
    "pose": Crop(0.0, 1.0, 0.02, 0.98),
    "roll": Crop(0.0, 1.0, 0.02, 0.98),
    "hair_length": Crop(0.55, 1.0, 0.0, 1.0),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("index", range(4))
def test_change_stays_in_its_window(name: str, index: int) -> None:
    truth = sample_truth(21, index).replace(**GOOD)
    difference = changed(
        draw(truth.replace(**{name: -2.0}), SIZE),
        draw(truth.replace(**{name: 2.0}), SIZE),
    )
    assert difference.any()
    assert not (difference & ~inside(WINDOWS[name])).any()


@pytest.mark.parametrize("name", ["background_mean", "background_std"])
def test_background_changes_nothing_in_front_of_it(name: str) -> None:
    truth = sample_truth(21, 0).replace(**GOOD)
    low, high = draw(truth.replace(**{name: -2.0}), SIZE), draw(truth.replace(**{name: 2.0}), SIZE)
    assert np.array_equal(low.parsing, high.parsing)
    assert not changed(low, high)[~grown(low.parsing == 0)].any()
    assert changed(low, high)[: SIZE // 2][low.parsing[: SIZE // 2] == 0].mean() > 0.8


def test_hair_colour_changes_hair_and_brows_only() -> None:
    truth = sample_truth(21, 1).replace(**GOOD)
    low, high = draw(truth.replace(hair_color=-2.0), SIZE), draw(truth.replace(hair_color=2.0), SIZE)
    assert np.array_equal(low.parsing, high.parsing)
    assert not changed(low, high)[~grown(grown(np.isin(low.parsing, (2, 3, 10))))].any()
    assert changed(low, high)[low.parsing == 10].all()


def test_waves_leave_the_middle_of_the_face_unchanged() -> None:
    truth = sample_truth(21, 2).replace(**GOOD)
    difference = changed(draw(truth.replace(hairstyle=-2.0), SIZE), draw(truth.replace(hairstyle=2.0), SIZE))
    assert difference.any()
    assert not (difference & inside(Crop(0.42, 0.68, 0.32, 0.68))).any()


@pytest.mark.parametrize(
    ("name", "window", "share"),
    [
        ("gender", Crop(0.0, 1.0, 0.0, 1.0), 0.05),
        ("quality", TOY["quality"].windows[0], 0.5),
        ("age", TOY["age"].windows[0], 0.2),
        ("glass", TOY["glass"].windows[0], 0.15),
    ],
)
@pytest.mark.parametrize("index", range(4))
def test_filter_attributes_are_visible_in_the_windows_of_their_networks(
    name: str, window: Crop, share: float, index: int
) -> None:
    truth = sample_truth(22, index).replace(**GOOD)
    off, on = (draw(truth.replace(**{name: value}), 64).image.astype(int) for value in (0.0, 1.0))
    clear = (np.abs(on - off).max(axis=2) > 8) & inside(window, 64)
    assert clear.sum() / inside(window, 64).sum() > share


@pytest.mark.parametrize("name", ["quality", "age", "glass"])
def test_map_ignores_quality_age_and_glasses(name: str) -> None:
    for index in range(4):
        truth = sample_truth(23, index)
        low, high = draw(truth.replace(**{name: 0.0}), 64), draw(truth.replace(**{name: 1.0}), 64)
        assert np.array_equal(low.parsing, high.parsing)
        assert changed(low, high).any()


def test_bad_quality_leaves_the_lower_part_unchanged() -> None:
    truth = sample_truth(23, 0)
    difference = changed(draw(truth.replace(quality=0), SIZE), draw(truth.replace(quality=1), SIZE))
    assert not difference[SIZE * 3 // 8 :].any()


def test_tint_has_no_brightness() -> None:
    truth = sample_truth(24, 0).replace(**GOOD, background_mean=0.0, background_std=0.0)
    faces = [draw(truth.replace(tint_hue=hue), 64) for hue in (0.1, 0.6)]
    first, second = (face.image[face.parsing == 0][:500].astype(float) for face in faces)
    assert np.abs(first - second).mean() > 15
    assert np.abs(first.mean(axis=1) - second.mean(axis=1)).max() < 1

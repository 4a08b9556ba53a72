"""Tests of the scores: on drawn faces, on hand-made maps, and against slow copies of the original's algorithms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from ohlora.faces.scoring import DEFAULT_VARIANT, SCORERS, SIZE, Normalization, prepare, score
from ohlora.toy.drawing import EXPRESSIONS, MEASURED, Truth, draw, sample_truth

Bytes = npt.NDArray[np.uint8]
FACES = 500


@dataclass(frozen=True)
class Population:
    """Faces and their scores: true values, and raw scores for each resolution, all FACES × len(MEASURED)."""

    truths: npt.NDArray[np.float64]
    scores: dict[int, npt.NDArray[np.float64]]

    def correlation(self, name: str, resolution: int) -> float:
        """Spearman correlation of true values and scores."""
        column = MEASURED.index(name)
        return float(spearmanr(self.truths[:, column], self.scores[resolution][:, column])[0])


def measure(truth: Truth, resolution: int) -> dict[str, float]:
    face = draw(truth, resolution)
    return score(face.image, face.parsing)


@pytest.fixture(scope="module")
def population() -> Population:
    truths = [sample_truth(7, i) for i in range(FACES)]
    return Population(
        np.array([[truth.attributes[name] for name in MEASURED] for truth in truths]),
        {size: np.array([list(measure(truth, size).values()) for truth in truths]) for size in (64, 128)},
    )


# --- scores of drawn faces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("resolution", [64, 128])
def test_scores_follow_the_truth(population: Population, name: str, resolution: int) -> None:
    assert population.correlation(name, resolution) > 0.97


@pytest.mark.parametrize("resolution", [64, 128])
def test_closed_eyes_and_mouths_have_the_lowest_scores(population: Population, resolution: int) -> None:
    for name in ("eyes", "mouth"):
        true, read = population.truths[:, MEASURED.index(name)], population.scores[resolution][:, MEASURED.index(name)]
        closed = np.array([EXPRESSIONS[name].value(z) == 0 for z in true])
        opened = np.array([EXPRESSIONS[name].value(z) > 0.15 for z in true])
        assert closed.sum() > 20
        assert read[closed].max() < read[opened].min()
        assert np.ptp(read[closed]) < 0.08 * np.ptp(read)


def test_scores_have_many_levels(population: Population) -> None:
    for name in MEASURED:
        read = population.scores[128][:, MEASURED.index(name)]
        values, counts = np.unique(read[read != 0], return_counts=True)  # a closed mouth scores 0
        assert len(values) > 50, name
        assert counts.max() < 0.05 * FACES, name


@pytest.mark.parametrize("resolution", [64, 128])
def test_hairstyle_is_rarely_undefined(population: Population, resolution: int) -> None:
    values = population.scores[resolution][:, MEASURED.index("hairstyle")]
    assert (values == 0.45).mean() < 0.01


# An attribute may change other scores by at most 0.15 standard deviations, and by more where two attributes share a
# part of the face: the length of the hair decides in which rows its style is measured, and a turned or tilted head
# shows other strands.
SLACK = {
    ("hair_length", "hairstyle"): 0.6,
    ("hair_color", "hairstyle"): 0.4,
    ("pose", "hairstyle"): 0.9,
    ("roll", "hairstyle"): 0.6,
    ("roll", "hair_length"): 0.5,
    ("background_std", "background_mean"): 0.25,
    ("eyes", "smile"): 0.2,
}


@pytest.mark.parametrize("name", MEASURED)
def test_an_attribute_moves_its_own_score_only(population: Population, name: str) -> None:
    spread = population.scores[128].std(axis=0)
    end = 1.2 if name in EXPRESSIONS else 2.0  # beyond, an expression is at its extreme
    ranges = []
    for index in range(3):
        truth = sample_truth(8, index).replace(quality=1)
        rows = [list(measure(truth.replace(**{name: z}), 128).values()) for z in np.linspace(-end, end, 5).tolist()]
        table = np.array(rows) / spread
        assert (np.diff(table[:, MEASURED.index(name)]) > 0.2).all()
        ranges.append(np.ptp(table, axis=0))
    for other, change in zip(MEASURED, np.mean(ranges, axis=0), strict=True):
        if other != name:
            assert change < SLACK.get((name, other), 0.15), other


@pytest.mark.parametrize("name", ["roll", "hair_color", "background_mean"])
def test_extremes_do_not_saturate(name: str) -> None:
    truth = sample_truth(8, 4).replace(quality=1)
    values = [measure(truth.replace(**{name: value}), 256)[name] for value in (-3.0, -2.5, -2.0, 2.0, 2.5, 3.0)]
    assert values == sorted(set(values))


def test_a_smile_is_read_from_turned_tilted_open_mouths() -> None:
    truth = sample_truth(8, 4).replace(quality=1, pose=0.0, roll=0.0, mouth=0.0)
    plain = {smile: measure(truth.replace(smile=smile), 256)["smile"] for smile in (-1.2, 0.0, 1.2)}
    assert plain[-1.2] < plain[0.0] < plain[1.2]
    for change in ({"pose": 1.5}, {"pose": -1.5}, {"roll": 2.0}, {"mouth": 2.0}, {"mouth": -2.0}, {"eyes": -2.0}):
        for smile, score_at_rest in plain.items():
            other = measure(truth.replace(smile=smile, **change), 256)["smile"]
            assert abs(other - score_at_rest) < 0.15 * (plain[1.2] - plain[-1.2]), change


def test_roll_and_pose_point_right() -> None:
    truth = sample_truth(8, 5).replace(roll=0.0, pose=0.0)
    assert measure(truth.replace(pose=2.0), 256)["pose"] > 0.05 > measure(truth, 256)["pose"]
    assert measure(truth.replace(roll=2.0), 256)["roll"] > 0.05 > measure(truth, 256)["roll"]


# --- hand-made maps ---------------------------------------------------------------------------------------------------


def blank() -> tuple[Bytes, Bytes]:
    """A grey image and an empty map."""
    return np.full((SIZE, SIZE, 3), 100, np.uint8), np.zeros((SIZE, SIZE), np.uint8)


def measured(image: Bytes, parsing: Bytes, name: str, variant: str = DEFAULT_VARIANT) -> float:
    return score(image, parsing, {name: variant})[name]


def test_empty_regions() -> None:
    image, parsing = blank()
    parsing[:] = 1
    expected = dict.fromkeys(MEASURED, 0.0) | {"hair_color": 127.5, "hairstyle": 0.45, "background_mean": 192.0}
    assert score(image, parsing) == expected
    for name, variants in SCORERS.items():
        for variant in variants:
            assert measured(image, parsing, name, variant) == expected[name]


def test_one_pixel_of_everything() -> None:
    image, parsing = blank()
    parsing[:] = 1
    for number in range(11):
        parsing[100, 60 + 5 * number] = number
    image[100, 60] = (10, 20, 60)
    for name, variants in SCORERS.items():
        for variant in variants:
            assert math.isfinite(measured(image, parsing, name, variant))
    assert measured(image, parsing, "background_mean") == 30
    assert measured(image, parsing, "background_std") == 0
    assert measured(image, parsing, "mouth") == pytest.approx(1 / 3)


def test_eyes_of_rectangles() -> None:
    image, parsing = blank()
    parsing[100:110, 60:80] = 4
    parsing[100:114, 140:160] = 5
    assert measured(image, parsing, "eyes") == pytest.approx((10 + 14) / 2 * 80 / math.hypot(80, 2))
    # The two points that are farthest apart are opposite corners.
    left, right = 19 / math.hypot(19, 9), 19 / math.hypot(19, 13)
    assert measured(image, parsing, "eyes", "v1") == (9 + 13) / 2
    assert measured(image, parsing, "eyes", "v2") == pytest.approx(max(9 * left, 13 * right))
    parsing[parsing == 5] = 0
    assert measured(image, parsing, "eyes") == 10
    parsing[:] = 1
    assert measured(image, parsing, "eyes") == 0  # both closed without a line


def test_eyes_of_a_turned_head_are_as_high_as_from_the_front() -> None:
    image, parsing = blank()
    parsing[90:110, 60:90], parsing[90:110, 130:136] = 4, 5  # the far eye is higher than it is wide
    assert measured(image, parsing, "eyes") == 20


def test_pose_and_roll_of_points() -> None:
    image, parsing = blank()
    parsing[100, 60], parsing[100, 160], parsing[130, 120] = 4, 5, 6
    assert measured(image, parsing, "pose") == pytest.approx(0.1)
    assert measured(image, parsing, "roll") == 0
    # Turned about the left eye: pose is measured along the line through the eyes, and roll is the slope of that line.
    parsing[:] = 0
    parsing[130, 60], parsing[160, 140], parsing[130 + 18 + 24, 60 + 48 - 9] = 4, 5, 6
    assert measured(image, parsing, "roll") == pytest.approx(30 / 80)
    assert measured(image, parsing, "pose", "v2") == pytest.approx(30 / 80)
    dx, dy = 80.0, 30.0
    along = ((99 - 100) * dx + (172 - 145) * dy) / (dx * dx + dy * dy)
    assert measured(image, parsing, "pose") == pytest.approx(along)


def test_pose_v1_of_a_slanted_nose() -> None:
    image, parsing = blank()
    for step in range(10):
        parsing[100 + step, 120 - step] = 6
    assert measured(image, parsing, "pose", "v1") == pytest.approx(1)
    parsing[:] = 0
    parsing[100:110, 100] = 6  # vertical: the correlation is undefined
    assert measured(image, parsing, "pose", "v1") == 0


def test_mouth_of_bars() -> None:
    image, parsing = blank()
    parsing[150:154, 100:120], parsing[154:160, 100:120], parsing[160:164, 100:120] = 7, 8, 9
    assert measured(image, parsing, "mouth") == pytest.approx(6 / 14)
    assert measured(image, parsing, "mouth", "v1") == 13 + 5
    parsing[parsing == 8] = 0
    assert measured(image, parsing, "mouth") == 0


def test_mouth_height_of_bars() -> None:
    image, parsing = blank()
    parsing[90:94, 60:80], parsing[90:94, 140:160] = 4, 5
    assert measured(image, parsing, "mouth", "height") == 0
    parsing[154:160, 100:120] = 8
    assert measured(image, parsing, "mouth", "height") == 6
    parsing[94:104, 140:160], parsing[90:94, 140:160] = 5, 0  # the line through the eyes falls by 7 in 80
    assert measured(image, parsing, "mouth", "height") == pytest.approx(6 * math.cos(math.atan(7 / 80)))


@pytest.mark.parametrize("angle", [0.0, 0.2, -0.2])
@pytest.mark.parametrize("bend", [-12.0, 0.0, 9.0])
def test_smile_of_a_bent_band(angle: float, bend: float) -> None:
    """Corners ``bend`` pixels above the middle of a mouth that lies 60 pixels below the lower lids."""
    image, parsing = blank()
    along, down = np.meshgrid(np.linspace(-1, 1, 400), np.linspace(0, 1, 60))
    cos, sin = math.cos(angle), math.sin(angle)

    def place(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], number: int) -> None:
        rows, columns = 90 + x * sin + y * cos, 112 + x * cos - y * sin
        parsing[np.rint(rows).astype(int), np.rint(columns).astype(int)] = number

    for side, number in ((-1, 4), (1, 5)):
        place(side * 40 + 12 * along, 8 * down - 8, number)
    place(40 * along, 60 - bend * along**2 + (2 + 12 * (1 - along**2)) * down, 7)
    assert measured(image, parsing, "smile") == pytest.approx(bend / 60, abs=0.025)
    place(32 * along, 60 - bend * (0.8 * along) ** 2 + 10 + 20 * down * (1 - along**2), 8)  # opens downwards
    assert measured(image, parsing, "smile") == pytest.approx(bend / 60, abs=0.025)
    columns = np.flatnonzero((parsing == 4).any(axis=0))
    middle = parsing[:, columns[5] : columns[-5]]
    middle[middle == 4] = 0  # an eye in two parts
    assert measured(image, parsing, "smile") == pytest.approx(bend / 60, abs=0.05)


def test_smile_where_it_is_undefined() -> None:
    image, parsing = blank()
    parsing[150:154, 100:120] = 7
    assert measured(image, parsing, "smile") == 0  # no eyes
    parsing[90:94, 60:80], parsing[90:94, 140:160] = 4, 5
    assert measured(image, parsing, "smile") == pytest.approx(0, abs=1e-9)
    parsing[parsing == 7] = 0
    parsing[150:154, 100:102] = 7
    assert measured(image, parsing, "smile") == 0  # too narrow
    parsing[parsing == 7] = 0
    parsing[50:54, 100:120] = 7
    assert measured(image, parsing, "smile") == 0  # above the eyes


def test_hair_colour_is_trimmed() -> None:
    image, parsing = blank()
    parsing[10, :20] = 10
    image[10, :20] = np.arange(20)[:, None]
    image[10, 19] = 255
    assert measured(image, parsing, "hair_color") == pytest.approx(np.arange(2, 18).mean())
    assert measured(image, parsing, "hair_color", "v1") == 9.5


def test_hair_length_of_blocks() -> None:
    image, parsing = blank()
    parsing[40:100, 10:40] = 10
    parsing[100:150, 10:29] = 10  # one pixel short of the threshold
    assert measured(image, parsing, "hair_length") == 100 - 56
    assert measured(image, parsing, "hair_length", "v1") == 149
    parsing[150:, 10:40] = 10
    parsing[-1, 200:218] = 10
    assert measured(image, parsing, "hair_length") == (100 - 56) + (SIZE - 150) + (30 - 10) / 2 + (18 - 10) / 2
    assert measured(image, parsing, "hair_length", "v1") == SIZE - 1 + (30 + 18) / 2


def test_background_is_trimmed_and_from_the_top_half() -> None:
    image, parsing = blank()
    parsing[:] = 1
    parsing[0, :100] = 0
    parsing[SIZE // 2 :] = 0
    image[0, :100] = np.arange(100)[:, None]
    image[SIZE // 2 :] = 255
    kept = np.arange(5, 95)
    assert measured(image, parsing, "background_mean") == pytest.approx(kept.mean())
    assert measured(image, parsing, "background_std") == pytest.approx(kept.std())


def test_hairstyle_tells_stripes_apart() -> None:
    image, parsing = blank()
    parsing[:, :80] = 10
    stripes = np.where(np.arange(SIZE) // 8 % 2 == 0, 90, 130).astype(np.uint8)
    image[:] = stripes[None, :, None]
    assert measured(image, parsing, "hairstyle") == 0
    image[:] = stripes[:, None, None]
    level = measured(image, parsing, "hairstyle")
    blocks = np.array([stripes[y : y + 4].mean() for y in range(SIZE - 3)])
    rows = np.arange(112, 213)
    assert level == pytest.approx(np.abs(blocks[rows] - blocks[rows + 8]).mean() / 5)


def test_hairstyle_looks_at_whole_blocks() -> None:
    image, parsing = blank()
    parsing[120:132, 50:70] = 10  # exactly one anchor fits
    image[120:124, 58:62] = 150
    assert measured(image, parsing, "hairstyle") == pytest.approx(50 / 55)
    parsing[121, 59] = 1  # inside the block, but not at a corner
    assert measured(image, parsing, "hairstyle") == 0.45


def test_sizes_are_brought_to_224() -> None:
    face = draw(sample_truth(3, 0), 112)
    doubled = score(face.image.repeat(2, 0).repeat(2, 1), face.parsing.repeat(2, 0).repeat(2, 1))
    assert score(face.image, face.parsing) == pytest.approx(doubled, rel=0.06, abs=0.02)
    large = draw(sample_truth(3, 0), 256)
    frame = prepare(large.image, face.parsing)
    assert frame.brightness.shape == frame.parsing.shape == (SIZE, SIZE)


# --- the original's algorithms, as slow loops -------------------------------------------------------------------------


def slow_farthest(points: list[tuple[int, int]]) -> float:
    best, factor = -1, 1.0
    for a in range(len(points)):
        for b in range(a + 1, len(points)):
            dy, dx = points[a][0] - points[b][0], points[a][1] - points[b][1]
            if dy * dy + dx * dx > best:
                best = dy * dy + dx * dx
                factor = abs(dx) / math.sqrt(best)
    return factor


def slow_windows(parsing: Bytes) -> list[list[tuple[int, int]]]:
    windows = ((4, range(168)), (5, range(56, 224)))
    return [[(y, x) for y in range(56, 168) for x in columns if parsing[y, x] == number] for number, columns in windows]


def slow_eyes_v1(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    heights = []
    for points in slow_windows(parsing):
        rows = [y for y, _ in points if y < 140]
        heights.append(max(rows) - min(rows) if rows else 0)
    return sum(heights) / 2


def slow_eyes_v2(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    scores = []
    for points in slow_windows(parsing):
        height = 0
        for column in {x for _, x in points}:
            rows = [y for y, x in points if x == column]
            height = max(height, max(rows) - min(rows))
        scores.append(height * slow_farthest(points))
    return max(scores)


def slow_pose_v2(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    left, right = (np.array(points) for points in slow_windows(parsing))
    return float((right[:, 0].mean() - left[:, 0].mean()) / (right[:, 1].mean() - left[:, 1].mean()))


def slow_pose_v1(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    points = [(y, x) for y in range(SIZE) for x in range(SIZE) if parsing[y, x] == 6]
    ys, xs = [float(y) for y, _ in points], [float(x) for _, x in points]
    my, mx = sum(ys) / len(ys), sum(xs) / len(xs)
    cross = sum((y - my) * (x - mx) for y, x in zip(ys, xs, strict=True))
    return -cross / math.sqrt(sum((y - my) ** 2 for y in ys) * sum((x - mx) ** 2 for x in xs))


def slow_hair_color_v2(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    values = sorted(grey[y, x] for y in range(SIZE) for x in range(SIZE) if parsing[y, x] == 10)
    kept = values[math.floor(0.1 * len(values)) : math.floor(0.9 * len(values))]
    return float(sum(kept) / len(kept))


def slow_hair_length_v2(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    length = sum(1.0 for y in range(56, 224) if sum(p == 10 for p in parsing[y]) >= 20)
    if sum(p == 10 for p in parsing[223]) >= 20:
        for half in (parsing[223, :112], parsing[223, 112:]):
            length += max(sum(p == 10 for p in half) - 10, 0) / 2
    return length


def slow_mouth_v1(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    lips = [y for y in range(SIZE) if 7 in parsing[y] or 9 in parsing[y]]
    inner = [y for y in range(SIZE) if 8 in parsing[y]]
    return float(max(lips) - min(lips) + max(inner) - min(inner))


def slow_background(grey: npt.NDArray[np.float64], parsing: Bytes) -> list[float]:
    values = sorted(float(grey[y, x]) for y in range(112) for x in range(SIZE) if parsing[y, x] == 0)
    return values[math.floor(0.05 * len(values)) : math.floor(0.95 * len(values))]


def slow_background_mean(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    return float(np.mean(slow_background(grey, parsing)))


def slow_background_std(grey: npt.NDArray[np.float64], parsing: Bytes) -> float:
    return float(np.std(slow_background(grey, parsing)))


def slow_hairstyle(grey: npt.NDArray[np.float64], parsing: Bytes, original: bool) -> float:
    hair = (parsing == 10).tolist()
    corners = [(0, 0), (8, 0), (0, -8), (0, 8), (3, 3), (11, 3), (3, -11), (3, 11)]
    blocks = [(0, 0), (8, 0), (0, -8), (0, 8)]
    whole = [(dy + a, dx + b) for dy, dx in blocks for a in range(4) for b in range(4)]
    ratios = []
    for x in range(8, 213):
        for y in range(112, 213):
            if all(hair[y + dy][x + dx] for dy, dx in (corners if original else whole)):
                here, down, left, right = (grey[y + dy : y + dy + 4, x + dx : x + dx + 4].mean() for dy, dx in blocks)
                ratios.append(abs(here - down) / (max(abs(here - left), abs(here - right)) + 5.0))
    return float(np.mean(ratios)) if ratios else 0.45


Slow = Callable[[npt.NDArray[np.float64], Bytes], float]
REFERENCES: list[tuple[str, str, Slow]] = [
    ("eyes", "v1", slow_eyes_v1),
    ("eyes", "v2", slow_eyes_v2),
    ("pose", "v1", slow_pose_v1),
    ("pose", "v2", slow_pose_v2),
    ("roll", DEFAULT_VARIANT, slow_pose_v2),
    ("hair_color", "v2", slow_hair_color_v2),
    ("hair_length", "v2", slow_hair_length_v2),
    ("mouth", "v1", slow_mouth_v1),
    ("background_mean", "v2", slow_background_mean),
    ("background_std", "v2", slow_background_std),
    ("hairstyle", "original", lambda grey, parsing: slow_hairstyle(grey, parsing, original=True)),
    ("hairstyle", DEFAULT_VARIANT, lambda grey, parsing: slow_hairstyle(grey, parsing, original=False)),
]


@pytest.mark.parametrize(("name", "variant", "slow"), REFERENCES, ids=[f"{n}-{v}" for n, v, _ in REFERENCES])
@pytest.mark.parametrize("index", [0, 2])
def test_scores_match_the_original(name: str, variant: str, slow: Slow, index: int) -> None:
    face = draw(sample_truth(31, index).replace(hair_length=3.0 * index), SIZE)
    expected = slow(face.image.astype(np.float64).mean(axis=2), face.parsing)
    assert measured(face.image, face.parsing, name, variant) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_original_hairstyle_wraps_around() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    parsing = np.zeros((SIZE, SIZE), np.uint8)
    parsing[112:, :30] = 10
    parsing[112:, 221:] = 10
    expected = slow_hairstyle(image.astype(np.float64).mean(axis=2), parsing, original=True)
    assert measured(image, parsing, "hairstyle", "original") == pytest.approx(expected, rel=1e-5)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_every_measured_attribute_has_a_default() -> None:
    assert tuple(SCORERS) == MEASURED
    assert all(DEFAULT_VARIANT in variants for variants in SCORERS.values())
    assert tuple(score(*blank())) == MEASURED


def test_bad_arguments() -> None:
    image, parsing = blank()
    with pytest.raises(TypeError, match="image is of type float64; expected an array of uint8"):
        score(image / 255, parsing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parsing is of type list"):
        score(image, parsing.tolist())
    with pytest.raises(ValueError, match=r"image has shape \(3, 224, 224\); expected height × width × 3"):
        score(image.transpose(2, 0, 1), parsing)
    with pytest.raises(ValueError, match=r"parsing has shape \(1, 224, 224\)"):
        score(image, parsing[None])
    parsing[3, 3] = 11
    with pytest.raises(ValueError, match="parsing holds class 11; expected class ids from 0 to 10"):
        score(image, parsing)


def test_bad_variants() -> None:
    with pytest.raises(ValueError, match="unknown score 'gender'; expected one of eyes"):
        score(*blank(), {"gender": "v1"})
    with pytest.raises(ValueError, match="score 'eyes' has no variant 'v3'; expected one of ohlora, v1, v2"):
        score(*blank(), {"eyes": "v3"})


# --- normalisation ----------------------------------------------------------------------------------------------------


def test_normalization() -> None:
    rows = [{"eyes": 1.0, "mouth": 5.0}, {"eyes": 2.0, "mouth": 7.0}, {"eyes": 6.0, "mouth": 0.0}]
    normalization = Normalization.fit(rows)
    assert normalization.mean == {"eyes": 3.0, "mouth": 4.0}
    assert normalization.std["eyes"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    table = np.array([list(normalization.apply(row).values()) for row in rows])
    assert table.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert table.std(axis=0, ddof=1) == pytest.approx(1)
    assert list(normalization.apply({"mouth": 4.0})) == ["mouth"]


def test_normalization_survives_json() -> None:
    normalization = Normalization({"eyes": 0.1}, {"eyes": 1 / 3})
    assert Normalization.from_dict(json.loads(json.dumps(normalization.to_dict()))) == normalization


def test_bad_normalizations() -> None:
    with pytest.raises(ValueError, match="1 faces were given; expected at least 2"):
        Normalization.fit([{"eyes": 1.0}])
    with pytest.raises(ValueError, match=r"'eyes' has mean 1\.0 and std 0\.0"):
        Normalization.fit([{"eyes": 1.0}, {"eyes": 1.0}])
    with pytest.raises(ValueError, match="face 1 has scores mouth; expected eyes"):
        Normalization.fit([{"eyes": 1.0}, {"mouth": 1.0}])
    with pytest.raises(ValueError, match="no normalisation for 'mouth'; expected some of eyes"):
        Normalization({"eyes": 0.0}, {"eyes": 1.0}).apply({"mouth": 0.0})
    with pytest.raises(ValueError, match="entry 'eyes' holds mean; expected mean and std"):
        Normalization.from_dict({"eyes": {"mean": 0.0}})
    with pytest.raises(ValueError, match="mean is of eyes, but std of mouth"):
        Normalization({"eyes": 0.0}, {"mouth": 1.0})

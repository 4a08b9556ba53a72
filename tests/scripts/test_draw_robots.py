"""Drawn robots: their files, their random streams, and what each steered attribute changes in the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ohlora.datamodules.images import paths_of
from ohlora.utils.files import read_rows
from ohlora.utils.images import read_rgb
from scripts import draw_robots
from scripts.draw_robots import STEERED, Robot, draw, sample

SIZE = 64
LOW, HIGH = -1.3, 1.3
"""z-scores at which every physical value has reached its lowest and its highest."""


@pytest.fixture(params=range(3))
def robot(request: pytest.FixtureRequest) -> Robot:
    """Some robots."""
    return sample(5, request.param)


def changed(robot: Robot, **steered: float) -> Robot:
    """The same robot with other z-scores."""
    return replace(robot, steered={**robot.steered, **steered})


def picture(robot: Robot, **steered: float) -> npt.NDArray[np.float64]:
    """A robot, drawn with other z-scores."""
    return draw(changed(robot, **steered), SIZE).astype(np.float64)


def sweep(robot: Robot, name: str, count: int) -> npt.NDArray[np.float64]:
    """A robot over the whole range of an attribute."""
    return np.stack([picture(robot, **{name: z}) for z in np.linspace(LOW, HIGH, count)])


def test_writes_images_and_a_table_that_our_reader_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_robots.main([str(tmp_path / "robots"), "--count", "5", "--size", "32", "--seed", "3"]) == 0
    assert "5 robots in" in capsys.readouterr().out
    table = tmp_path / "robots/labels.csv"
    rows = read_rows(table)
    physical = [column for column, _, _ in STEERED.values()]
    assert list(rows[0]) == ["path", *STEERED, "visor", "body_hue", "brightness", *physical]
    paths = paths_of(table, rows)
    assert [path.is_relative_to(table.parent) for path in paths] == [True] * 5
    for index, (row, path) in enumerate(zip(rows, paths, strict=True)):
        robot = sample(3, index)
        assert not Path(row["path"]).is_absolute()
        assert {name: float(row[name]) for name in row if name != "path"} == robot.row()
        assert np.array_equal(read_rgb(path, 32), draw(robot, 32))


def test_the_same_seed_draws_the_same_files(tmp_path: Path) -> None:
    for name, count, seed in (("one", 3, 0), ("longer", 5, 0), ("other", 3, 1)):
        assert draw_robots.main([str(tmp_path / name), "--count", str(count), "--seed", str(seed)]) == 0

    def files(name: str) -> list[bytes]:
        return [(tmp_path / name / f"images/{index:05d}.png").read_bytes() for index in range(3)]

    assert files("one") == files("longer")
    assert not set(files("one")) & set(files("other"))


def test_another_property_changes_no_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sample(0, 7)
    monkeypatch.setattr(draw_robots, "NUISANCES", ("added", *draw_robots.NUISANCES))
    after = sample(0, 7)
    assert (after.steered, after.visor) == (before.steered, before.visor)
    assert {name: value for name, value in after.looks.items() if name != "added"} == before.looks


def test_attributes_are_normal_and_independent_with_a_tenth_at_each_end() -> None:
    robots = [sample(2, index) for index in range(1000)]
    values = np.array([[*robot.steered.values(), robot.visor, robot.looks["body_hue"]] for robot in robots])
    assert np.abs(values[:, :3].mean(axis=0)).max() < 0.1 and np.abs(values[:, :3].std(axis=0) - 1).max() < 0.1
    assert np.abs(np.corrcoef(values.T) - np.eye(5)).max() < 0.12
    for name, (_, low, high) in STEERED.items():
        physical = np.array([robot.physical(name) for robot in robots])
        assert 0.07 < (physical == low).mean() < 0.13 and 0.07 < (physical == high).mean() < 0.13
        order = np.argsort([robot.steered[name] for robot in robots])
        assert (np.diff(physical[order]) >= 0).all()


def test_the_lamp_goes_out_and_lights_at_most_three_percent(robot: Robot) -> None:
    off, *lit = sweep(robot, "lamp", 9)
    assert changed(robot, lamp=LOW).physical("lamp") == 0
    assert np.array_equal(off, picture(robot, lamp=-4))
    light = [float((image - off).sum()) for image in lit]
    assert light[0] > 0 and (np.diff(light) > 0).all()
    share = (lit[-1] != off).any(axis=2).mean()
    assert 0.01 < share <= 0.03


def test_the_mouth_closes_and_opens(robot: Robot) -> None:
    shut, *open_ = sweep(robot, "mouth", 9)
    assert np.array_equal(shut, picture(robot, mouth=-4))
    area = [(np.abs(image - shut) > 20).any(axis=2).sum() for image in open_]
    assert area[0] > 0 and (np.diff(area) >= 0).all() and area[-1] > 2 * area[0]


def test_a_turn_moves_the_outline_and_near_parts_further_than_far_ones(robot: Robot) -> None:
    def middle(turn: float, part: str) -> float:
        """Where a part is, from left to right, in pixels: that of its greatest change."""
        change = np.abs(picture(robot, turn=turn, **{part: HIGH}) - picture(robot, turn=turn, **{part: LOW}))
        return float((change.sum(axis=(0, 2)) * np.arange(SIZE)).sum() / change.sum())

    turns = np.linspace(LOW, HIGH, 7)
    lamp, mouth = ([middle(turn, part) for turn in turns] for part in ("lamp", "mouth"))
    assert (np.diff(lamp) > 0).all() and (np.diff(mouth) > 0).all()
    assert mouth[-1] - mouth[0] > 2 * (lamp[-1] - lamp[0])

    def outline(turn: float) -> npt.NDArray[np.float64]:
        return draw_robots._Head(changed(robot, turn=turn)).outline() * SIZE

    left, right = outline(LOW), outline(HIGH)
    assert right[:, 0].min() - left[:, 0].min() > 2 and right[:, 0].max() - left[:, 0].max() > 2
    frames = sweep(robot, "turn", 3)
    assert (np.abs(frames[2] - frames[0]) > 20).any(axis=2).mean() > 0.2


def test_parts_that_change_their_order_as_the_head_turns_do_not_pop(robot: Robot) -> None:
    frames = sweep(robot, "turn", 121)
    steps = np.abs(np.diff(frames, axis=0))
    assert steps.max() < 110
    assert steps.mean(axis=(1, 2, 3)).max() < 4


def test_a_visor_changes_the_head_alone(robot: Robot) -> None:
    bare, worn = (draw(replace(robot, visor=visor), SIZE).astype(int) for visor in (False, True))
    rows = np.flatnonzero((bare != worn).any(axis=(1, 2)))
    assert (bare != worn).any(axis=2).mean() > 0.05
    assert rows.min() > 0.25 * SIZE and rows.max() < 0.75 * SIZE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "count is 0; expected at least 1"),
        (["--size", "8"], "size is 8; expected at least 16"),
        (["--seed", "-1"], "seed is -1; expected 0 to"),
    ],
)
def test_wrong_numbers_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw_robots.main([str(tmp_path / "robots"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "robots").exists()

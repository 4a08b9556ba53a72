"""Animations as files: formats by their ending, frames, times, colours, and sound."""

from __future__ import annotations

import sys
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from ohlora.errors import ConfigError
from ohlora.utils import animations
from tests.films import decoded, opacity

ALL = pytest.mark.parametrize("ending", animations.ENDINGS)


def moving(count: int, size: int = 16) -> np.ndarray:
    """A bright square that moves over a grey slope, N×H×W×3."""
    slope = np.linspace(40, 160, size).astype(np.uint8)
    frames = np.tile(slope[None, :, None, None], (count, 1, size, 3))
    for number, frame in enumerate(frames):
        at = number % (size - 3)
        frame[4:8, at : at + 4] = (250, 220, 30)
    return frames


@ALL
@pytest.mark.parametrize("rate", [7, 20, 24, 30])
def test_frames_times_and_colours(ending: str, rate: int, tmp_path: Path) -> None:
    frames = moving(3 * rate)
    path = tmp_path / f"film{ending.upper()}"
    animations.save(iter(frames), path, rate, scale=5)
    film = decoded(path)
    assert film.frames.shape == (3 * rate, 80, 80, 3)
    assert film.seconds == pytest.approx(3, abs=0.002)
    unit = {".gif": 0.01, ".webp": 0.001, ".mp4": 1e-4, ".webm": 0.001}[ending]
    assert np.abs(film.times - np.arange(3 * rate) / rate).max() <= unit / 2 + 1e-9  # no error adds up
    # Chroma has half the resolution in films, and 5 is odd, so that colours mix at edges.
    inner = film.frames[:, 2::5, 2::5].astype(int) - frames
    assert np.abs(inner).mean() < 2.5 and np.abs(inner).max() < 40
    assert list(tmp_path.iterdir()) == [path]


@ALL
def test_frames_are_enlarged_to_256_pixels(ending: str, tmp_path: Path) -> None:
    animations.save(moving(3, 24), tmp_path / f"a{ending}", 10)
    assert decoded(tmp_path / f"a{ending}").frames.shape[1:3] == (240, 240)
    animations.save(moving(3, 24), tmp_path / f"b{ending}", 10, scale=1)
    assert decoded(tmp_path / f"b{ending}").frames.shape[1:3] == (24, 24)


def test_a_gif_repeats_and_keeps_the_colours_of_what_stands_still(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = np.tile(random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), (40, 1, 1, 1))
    for number, frame in enumerate(frames):
        frame[:8] = 6 * number
    path = tmp_path / "still.gif"
    animations.save(frames, path, 25)
    with Image.open(path) as film:
        assert film.info["loop"] == 0
    shown = decoded(path).frames
    assert len(shown) > 20  # neighbouring greys may have become one
    assert (shown[:, 8 * 4 :] == shown[:1, 8 * 4 :]).all()
    assert np.ptp(shown[:, 0, 0, 0].astype(int)) > 200
    animations.save(frames, tmp_path / "still.webp", 25)
    with Image.open(tmp_path / "still.webp") as film:
        assert film.info["loop"] == 0


def test_a_frame_that_stays_is_shown_as_long(tmp_path: Path) -> None:
    frames = moving(30)
    frames[10:20] = frames[10]
    for ending in (".gif", ".webp"):
        path = tmp_path / f"a{ending}"
        animations.save(frames, path, 30)
        with Image.open(path) as film:
            lengths = []
            for shown in ImageSequence.Iterator(film):
                shown.load()
                lengths.append(shown.info["duration"])
        assert sum(lengths) == 1000 and max(lengths) >= 300
        assert all(abs(end * 30 / 1000 - round(end * 30 / 1000)) < 0.2 for end in accumulate(lengths))


@pytest.mark.parametrize(("ending", "coding"), [(".mp4", "aac"), (".webm", "opus")])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_films_carry_sound(ending: str, coding: str, rate: int, channels: int, tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)
    sound = animations.Sound(np.stack([tone] * channels, axis=1).astype(np.float32), rate)
    path = tmp_path / f"a{ending}"
    animations.save(moving(60), path, 20, sound=sound.after(1))
    film = decoded(path)
    assert film.coding == coding and film.sound_rate == 48000 and film.sound.shape[0] == channels
    assert len(film.frames) == 60 and film.seconds == pytest.approx(3, abs=0.03)
    assert film.sound.shape[1] / 48000 == pytest.approx(2, abs=0.06)
    loud = [np.sqrt(np.square(film.sound[:, int(at * 48000) :][:, :19200]).mean()) for at in (0.3, 1.3)]
    assert loud == pytest.approx([0, 0.5 / 2**0.5], abs=0.02)
    animations.save(moving(30), path, 20, sound=sound.after(1))  # 1.5 s: the rest of the sound is left out
    assert decoded(path).seconds == pytest.approx(1.5, abs=0.06)


@pytest.mark.parametrize(
    ("name", "rate", "said"),
    [
        ("a.avi", 20, "its ending is .avi; expected one of .gif .webp .mp4 .webm"),
        ("a", 20, "its ending is missing; expected one of"),
        ("gif", 20, "its ending is missing"),
        ("a.gif", 60, "60 frames per second; expected 1 to 50 for .gif"),
        ("a.webp", 0.5, "0.5 frames per second; expected 1 to 100 for .webp"),
        ("a.mp4", float("nan"), "nan frames per second"),
    ],
)
def test_what_cannot_be_written_is_refused(name: str, rate: float, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        animations.save(moving(3), tmp_path / name, rate)
    assert said in str(found.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", animations.TRANSPARENT)
def test_transparent_frames_keep_their_opacity(ending: str, tmp_path: Path) -> None:
    frames = np.concatenate([moving(12), np.zeros((12, 16, 16, 1), np.uint8)], axis=3)
    for number, frame in enumerate(frames):
        frame[2:14, 2:14, 3] = 255
        frame[6:10, 6:10, 3] = 20 * number
    animations.save(iter(frames), tmp_path / f"a{ending}", 12, scale=5)
    found = opacity(tmp_path / f"a{ending}")
    assert found.shape == (12, 80, 80)
    assert np.abs(found[:, 2::5, 2::5].astype(int) - frames[..., 3]).max() < 12
    shown = decoded(tmp_path / f"a{ending}").frames[:, 2::5, 2::5].astype(int)
    solid = frames[..., 3] == 255
    assert np.abs(shown - frames[..., :3])[solid].mean() < 4


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_other_formats_refuse_transparent_frames(ending: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"\{ending} has no transparency with soft edges; choose .webp or .webm"):
        animations.save(np.zeros((3, 16, 16, 4), np.uint8), tmp_path / f"a{ending}", 20)
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for ending in (".mp4", ".webm"):
        with pytest.raises(ConfigError, match=r"needs PyAV, .*pip install 'ohlora\[video\]', or choose \.gif"):
            animations.save(moving(3), tmp_path / f"a{ending}", 20)
    animations.save(moving(3), tmp_path / "a.gif", 20)

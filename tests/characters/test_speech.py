"""Mouth tracks: of recordings by their loudness, of texts by their letters."""

from __future__ import annotations

import struct
import unicodedata
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ohlora.characters import speech
from ohlora.errors import ConfigError, DataError

LEVELS = {0.25: 0.0, 0.75: 0.5, 1.25: 0.125, 1.75: 0.0}
"""Amplitude of the tone of each half second, by its middle."""


def tone(rate: int, channels: int = 1) -> np.ndarray:
    """Two seconds, as :data:`LEVELS` says: N×C in [−1, 1]. A second channel has the tone upside down."""
    times = np.arange(2 * rate) / rate
    loud = np.repeat(list(LEVELS.values()), rate // 2)
    left = loud * np.sin(2 * np.pi * 220 * times)
    return np.stack([left, -left][:channels], axis=1)


def save(path: Path, samples: np.ndarray, rate: int, width: int = 2) -> Path:
    """Writes samples in [−1, 1] as PCM of ``width`` bytes."""
    whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        content = (whole + 128).astype(np.uint8).tobytes()
    else:
        content = whole.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44100), (1, 11026)])
def test_loudness_opens_the_mouth(width: int, channels: int, rate: int, tmp_path: Path) -> None:
    samples = tone(rate, channels)
    said = speech.of_wav(save(tmp_path / "said.wav", samples, rate, width))
    assert said.sound is not None and said.sound.rate == rate and said.sound.samples.dtype == np.float32
    assert np.abs(said.sound.samples - samples).max() < 1.5 / 2 ** (8 * width - 1) + 1e-6
    assert said.seconds == pytest.approx(2, abs=0.011) and said.sound.seconds == pytest.approx(2)
    found = said.opening(np.array(list(LEVELS)))
    floor = 0.01**0.6
    assert found == pytest.approx([0, 1, (0.25**0.6 - floor) / (1 - floor), 0], abs=0.02)
    assert (said.begins, said.ends) == pytest.approx((0.5, 1.5), abs=0.03)
    times = np.linspace(-1, 4, 501)
    assert said.opening(times).min() >= 0 and said.opening(times).max() <= 1
    assert not said.opening(times[(times < 0.4) | (times > 1.6)]).any()
    assert np.abs(np.diff(said.opening(times))).max() < 0.2  # no flutter


def test_a_quiet_recording_opens_the_mouth_as_far(tmp_path: Path) -> None:
    """And one that is off zero, as cheap sound cards make them, is not taken for sound all through."""
    loud = speech.of_wav(save(tmp_path / "loud.wav", tone(16000), 16000))
    quiet = speech.of_wav(save(tmp_path / "quiet.wav", 0.05 * tone(16000) + 0.02, 16000))
    times = np.linspace(0, 2, 101)
    assert np.abs(loud.opening(times) - quiet.opening(times)).max() < 0.03


def other_coding(number: int) -> Callable[[Path], None]:
    """Writes a WAV file whose samples are coded in another way."""

    def write(path: Path) -> None:
        form = struct.pack("<HHIIHH", number, 1, 8000, 32000, 4, 32)
        if number == 65534:
            form += struct.pack("<HHI16s", 22, 32, 4, b"\3" + b"\0" * 15)  # floating point, in Python 3.12 too
        parts = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 400) + b"\0" * 400
        path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts)

    return write


def cut_off(path: Path) -> None:
    save(path, tone(8000), 8000)
    path.write_bytes(path.read_bytes()[:-1001])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "a folder; expected a file"),
        (lambda path: path.write_bytes(b""), "cut off; expected a WAV file of 8, 16, 24 or 32 bits PCM"),
        (lambda path: path.write_bytes(b"ID3" + b"x" * 99), "file does not start with RIFF id; expected a WAV file"),
        (other_coding(3), "its coding is floating point; expected a WAV file of 8, 16, 24 or 32 bits PCM, mono or"),
        (other_coding(6), "its coding is A-law; expected"),
        (other_coding(1234), "its coding is number 1234; expected"),
        (other_coding(65534), "expected a WAV file of 8, 16, 24 or 32 bits PCM, mono or stereo: convert it"),
        (lambda path: save(path, np.zeros((99, 3)), 8000), "16 bits and 3 channels; expected"),
        (lambda path: save(path, np.zeros((0, 1)), 8000), "0 samples at 8000 Hz; expected"),
        (lambda path: save(path, np.zeros((99, 1)), 50), "99 samples at 50 Hz; expected"),
        (lambda path: save(path, np.zeros((800, 1)), 8000), "silent; expected speech of at least"),
        (cut_off, "cut off, 15,499 of 16,000 samples are there"),
    ],
)
def test_other_recordings_are_refused(write: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    write(tmp_path / "said.wav")
    with pytest.raises(DataError) as found:
        speech.of_wav(tmp_path / "said.wav")
    assert str(found.value).startswith(f"{tmp_path}/said.wav: ") and said in str(found.value)


def openings(said: speech.Speech, rate: float = 10) -> list[float]:
    """The opening in the middle of each letter's time."""
    count = round(said.seconds * rate)
    return [round(float(value), 3) for value in said.opening((np.arange(count) + 0.5) / rate)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mama", [0, 1, 0, 1]),
        ("Böp!", [0, 0.7, 0]),  # accents take no time, nor what follows the last letter
        ("  oh, I …", [0.7, 0.2, 0, 0, 0, 0.4]),
        ("a?! b", [1, 0, 0, 0, 0, 0, 0, 0]),  # one pause
        ("a b", [1, 0]),
        ("7", [0.2, 0.6, 0.2]),
        ("마음", [0, 1, 0.4, 0]),
        ("엄마.", [0.8, 0, 0, 1]),
        ("ㅏ", [1]),
    ],
)
def test_letters_open_the_mouth(text: str, expected: list[float]) -> None:
    said = speech.of_text(text, rate=10)
    assert openings(said) == expected and said.seconds == pytest.approx(len(expected) / 10)
    assert said.sound is None and (said.begins, said.ends) == (0, said.seconds)
    assert openings(speech.of_text(text, rate=25), 25) == expected
    assert openings(speech.of_text(unicodedata.normalize("NFD", text), rate=10)) == expected
    assert not said.opening(np.array([said.seconds, said.seconds + 1])).any()


def test_closed_lips_are_seen_at_twenty_frames_per_second() -> None:
    said = speech.of_text("amabapamaba")
    for shift in np.linspace(0, 0.05, 9, endpoint=False):
        times = np.arange(0, said.seconds, 0.05) + shift
        closed = said.opening(times) == 0
        assert np.count_nonzero(closed[1:] & ~closed[:-1]) >= 5


@pytest.mark.parametrize(
    ("text", "rate", "said"),
    [
        ("", 12, "the text '' has no letter"),
        (" … !", 12, "has no letter; expected words in Latin letters or Hangul"),
        ("Да", 12, "the text has the letter 'д' (CYRILLIC SMALL LETTER DE); expected Latin letters or Hangul"),
        ("日", 12, "CJK UNIFIED IDEOGRAPH"),
        ("hello", 0, "rate is 0; expected 0.1 to 100"),
        ("hello", float("nan"), "rate is nan"),
    ],
)
def test_other_texts_are_refused(text: str, rate: float, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        speech.of_text(text, rate)
    assert said in str(found.value)

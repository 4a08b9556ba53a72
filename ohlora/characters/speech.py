"""What a mouth does while something is said: its opening as a function of time, from a recording or from a text.

No network is involved. A recording opens the mouth by its loudness; a text opens it for vowels and closes it for m, b
and p.
"""

from __future__ import annotations

import re
import unicodedata
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ohlora.errors import ConfigError, DataError
from ohlora.utils import checks
from ohlora.utils.animations import Sound
from ohlora.utils.files import printable, readable_file

LETTERS_PER_SECOND = 12.0
"""Of English at 150 words a minute."""
FADE = 0.1
"""Seconds in which the mouth goes from its slider to speech, and back."""

MEASURED = 100
"""How often per second the loudness of a recording is measured."""
WINDOW = 0.025
"""Seconds over which it is measured."""
SMOOTHED = 0.1
"""Seconds over which it is smoothed; lips are no faster."""
EXPONENT = 0.6
"""Loudness is sound pressure to this power (Stevens, 1955)."""
SILENT = 0.01
"""Sound pressure, against that of the loud parts, below which the mouth is closed: −40 dB."""
SLOWEST = 1000
"""Lowest sampling rate, in Hz; no speech is left in less."""
FAINTEST = 1e-4
"""Lowest level of the loud parts that is taken for speech, against full scale: −80 dB."""

VOWELS = {
    **{"a": 1.0, "æ": 0.8, "o": 0.7, "e": 0.6, "œ": 0.6, "ø": 0.5, "i": 0.4, "ı": 0.4, "y": 0.4, "u": 0.4},
    **{"ᅡ": 1.0, "ᅣ": 1.0, "ᅢ": 0.8, "ᅤ": 0.8, "ᅥ": 0.8, "ᅧ": 0.8, "ᅪ": 0.9, "ᅫ": 0.7, "ᅯ": 0.7, "ᅦ": 0.6, "ᅨ": 0.6},
    **{"ᅬ": 0.6, "ᅰ": 0.6, "ᅩ": 0.6, "ᅭ": 0.6, "ᅮ": 0.4, "ᅲ": 0.4, "ᅱ": 0.4, "ᅳ": 0.4, "ᅴ": 0.4, "ᅵ": 0.4},
}
"""Letter → opening, of Latin letters without accents and of the vowels of Hangul."""
LIPS = frozenset("mbpᄆᄇᄈᄑᆷᆸᆱᆲᆵᆹᇁ")
"""Letters of closed lips."""
CONSONANT = 0.2
"""Opening of the other consonants."""
UNSPOKEN = "ᄋ"
"""The letter with which a syllable of Hangul begins that begins with its vowel."""
DIGIT = (CONSONANT, 0.6, CONSONANT)
"""Openings of a digit, which is a word of about a syllable."""
SHORT, LONG = 3, 6
"""Letters that a pause takes, for each sign of a run of signs; the longest counts."""
PAUSES = {**dict.fromkeys(",;:–—、", SHORT), **dict.fromkeys(".!?\n。", LONG)}
HELD = 0.6
"""Part of a letter's time in which the mouth keeps its opening; in the rest it moves on."""


@dataclass(frozen=True)
class Speech:
    """A mouth track.

    Attributes:
        moments: When the openings are reached, in seconds from the start, rising: K.
        openings: 0 (closed) … 1 (widest), K; between them the mouth moves evenly.
        begins: When the first sound is heard, in seconds.
        ends: When the last one is over.
        sound: What is heard, of a recording.
    """

    moments: np.ndarray
    openings: np.ndarray
    begins: float
    ends: float
    sound: Sound | None = None

    @property
    def seconds(self) -> float:
        """How long it takes, with the silence before and after."""
        return float(self.moments[-1])

    def opening(self, times: np.ndarray) -> np.ndarray:
        """How far the mouth is open at N times in seconds, 0 … 1; closed before and after: (N,)."""
        opening: np.ndarray = np.interp(times, self.moments, self.openings, left=0, right=0)
        return opening

    def presence(self, times: np.ndarray) -> np.ndarray:
        """How far the mouth belongs to the speech at N times in seconds, 0 … 1: 1 from begin to end, pauses included.

        It fades in after the begin, and out after the end.
        """
        part: np.ndarray = np.minimum(times - self.begins, self.ends + FADE - times) / FADE
        return part.clip(0, 1)


def of_text(text: str, rate: float = LETTERS_PER_SECOND) -> Speech:
    """The mouth track of a text, read letter by letter.

    Every letter takes the same time. Vowels open the mouth (a widest, then o, e, i and u), m, b and p close it, other
    consonants open it a little. A comma, semicolon, colon or dash closes it for three letters' time, a full stop,
    question mark, exclamation mark or new line for six. A digit counts as three letters. Accents, spaces and other
    signs take no time. Syllables of Hangul are read as their letters.

    Args:
        text: Words in Latin letters or Hangul.
        rate: Letters per second, 0.1 to 100.

    Raises:
        ConfigError: If the rate is another, nothing is to be spoken, or a letter is of another script.
    """
    checks.between(0.1, 100, rate=rate)
    moments, openings, at = [0.0], [0.0], 0.0
    for length, opening in _parts(text):
        still = (length - (1 - HELD)) / 2
        moments += [at + length / 2 - still, at + length / 2 + still]
        openings += [opening, opening]
        at += length
    if not at:
        raise ConfigError(f"the text {text!r} has no letter; expected words in Latin letters or Hangul")
    seconds = np.array([*moments, at]) / rate
    return Speech(seconds, np.array([*openings, 0.0]), 0.0, float(seconds[-1]))


def of_wav(path: str | Path) -> Speech:
    """The mouth track of a recording, with its sound.

    The root mean square of the sound pressure over 25 ms is turned into loudness (a power of it; Stevens, 1955),
    against the 95th percentile of the parts that are not silent, for which the mouth is widest; 40 dB below, it is
    closed.

    Args:
        path: A WAV file of 8, 16, 24 or 32 bits PCM, mono or stereo, of any sampling rate.

    Raises:
        DataError: If there is none, or it is another kind of file, empty, cut off or silent.
    """
    sound = read_wav(path)
    samples = sound.samples - sound.samples.mean(axis=0)  # recordings of 8 bits are often off zero
    powers = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64).mean(axis=1))])
    moments = np.arange(int(sound.seconds * MEASURED) + 1) / MEASURED
    first = np.clip((moments - WINDOW / 2) * sound.rate, 0, len(samples) - 1).astype(int)
    last = np.clip(np.ceil((moments + WINDOW / 2) * sound.rate), first + 1, len(samples)).astype(int)
    levels = np.sqrt(np.maximum(powers[last] - powers[first], 0) / (last - first))
    loud = float(np.percentile(levels[levels >= SILENT * levels.max()], 95))
    if loud < FAINTEST:
        raise DataError(f"{printable(path)}: silent; expected speech of at least −80 dB against full scale")
    heard = np.flatnonzero(levels > SILENT * loud)
    floor = SILENT**EXPONENT
    openings = np.clip(((levels / loud) ** EXPONENT - floor) / (1 - floor), 0, 1)
    window = np.hanning(round(SMOOTHED * MEASURED) + 3)[1:-1]  # without the zeros at its ends
    openings = np.convolve(np.pad(openings, len(window) // 2), window / window.sum(), "valid")
    return Speech(moments, openings, float(moments[heard[0]]), float(moments[heard[-1]]), sound)


def read_wav(path: str | Path) -> Sound:
    """The sound of a WAV file; arguments and errors as in :func:`of_wav`."""
    name, expected = printable(path), "expected a WAV file of 8, 16, 24 or 32 bits PCM, mono or stereo"
    readable_file(path)
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, count, *_ = file.getparams()
            content = file.readframes(count)
    except (wave.Error, EOFError) as error:
        coded = re.match(r"unknown format: (\d+)", str(error))
        what = f"its coding is {CODINGS.get(int(coded[1]), f'number {coded[1]}')}" if coded else str(error) or "cut off"
        again = "convert it, as with ffmpeg -i IN -c:a pcm_s16le OUT.wav"
        raise DataError(f"{name}: {what}; {expected}: {again}") from error
    if channels not in (1, 2) or width not in (1, 2, 3, 4):
        raise DataError(f"{name}: {8 * width} bits and {channels} channels; {expected}")
    if not count or rate < SLOWEST:
        raise DataError(f"{name}: {count} samples at {rate} Hz; {expected}, with sound at {SLOWEST:,} Hz or more")
    if len(content) != count * channels * width:
        there = len(content) // (channels * width)
        raise DataError(f"{name}: cut off, {there:,} of {count:,} samples are there; get it again, or convert it anew")
    if width == 1:
        samples = np.frombuffer(content, np.uint8).astype(np.float32) / 128 - 1
    elif width == 3:
        wide = np.zeros((count * channels, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        samples = (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    else:
        samples = (np.frombuffer(content, f"<i{width}") / 2.0 ** (8 * width - 1)).astype(np.float32)
    return Sound(samples.reshape(-1, channels), rate)


CODINGS = {
    **{2: "Microsoft's ADPCM", 3: "floating point", 6: "A-law", 7: "µ-law", 17: "IMA ADPCM", 85: "MP3"},
    65534: "WAVE_FORMAT_EXTENSIBLE, which Python reads from 3.12 on",
}
"""Number in a WAV file → the coding of its samples."""


def _parts(text: str) -> Iterator[tuple[float, float]]:
    """Length in letters and opening of each letter, and of each pause between two letters."""
    pause, begun = 0, False
    for sign in unicodedata.normalize("NFKD", text.lower()):
        openings = _openings(sign)
        if openings and pause and begun:
            yield pause, 0.0
        for opening in openings:
            yield 1, opening
        begun = begun or bool(openings)
        pause = 0 if openings else max(pause, PAUSES.get(sign, 0))


def _openings(sign: str) -> tuple[float, ...]:
    """The openings of a letter or digit; none of anything else."""
    if sign.isdigit():
        return DIGIT
    if not sign.isalpha() or sign == UNSPOKEN:
        return ()
    script = unicodedata.name(sign, "a letter without a name")
    if not script.startswith(("LATIN", "HANGUL")):
        raise ConfigError(f"the text has the letter {sign!r} ({script}); expected Latin letters or Hangul")
    return (VOWELS.get(sign, 0.0 if sign in LIPS else CONSONANT),)

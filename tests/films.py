"""Animations of any format, decoded for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence


@dataclass
class Film:
    """What an animation shows.

    Attributes:
        frames: N×H×W×3 uint8.
        times: When each is shown first, in seconds: N.
        seconds: How long all of them are shown.
        coding: That of the sound, where there is one.
        sound: C×N.
        sound_rate: Samples per second.
    """

    frames: np.ndarray
    times: np.ndarray
    seconds: float
    coding: str = ""
    sound: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    sound_rate: int = 0


def decoded(path: Path) -> Film:
    """Decodes a file; a test of a film is skipped where PyAV is missing."""
    if path.suffix.lower() in (".gif", ".webp"):
        frames, lengths = [], []
        with Image.open(path) as file:
            assert file.format == path.suffix[1:].upper()
            for shown in ImageSequence.Iterator(file):
                frames.append(np.asarray(shown.convert("RGB")))
                lengths.append(shown.info["duration"] / 1000)
        ends = np.cumsum(lengths)
        return Film(np.stack(frames), np.array([0, *ends[:-1]]), float(ends[-1]))
    av = pytest.importorskip("av")
    with av.open(str(path)) as file:
        assert path.suffix[1:].lower() in file.format.name.replace("matroska,", "")
        pictures = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in file.decode(video=0)]
        film = Film(
            np.stack([p for p, _ in pictures]), np.array([t for _, t in pictures]), file.duration / av.time_base
        )
    with av.open(str(path)) as file:
        if file.streams.audio:
            film.coding, film.sound_rate = file.streams.audio[0].codec_context.name, file.streams.audio[0].rate
            film.sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
    return film


def opacity(path: Path) -> np.ndarray:
    """How opaque the pixels of a WebP or WebM are, N×H×W uint8; a test of a film is skipped where PyAV is missing."""
    if path.suffix == ".webp":
        with Image.open(path) as file:
            return np.stack([np.asarray(shown.convert("RGBA"))[..., 3] for shown in ImageSequence.Iterator(file)])
    av = pytest.importorskip("av")
    found = []
    with av.open(str(path)) as file:
        assert file.streams.video[0].metadata["alpha_mode"] == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own decoder leaves the opacity out
        for packet in file.demux(video=0):
            found += [frame.to_ndarray(format="rgba")[..., 3] for frame in decoder.decode(packet)]
    return np.stack(found)

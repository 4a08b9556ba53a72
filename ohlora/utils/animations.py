"""Animations as files: GIF, animated WebP, MP4 (H.264, AAC) and WebM (VP9, Opus), chosen by the file's ending.

GIF and WebP repeat forever and are silent. MP4 and WebM are written by PyAV, the extra ``video``. WebP and WebM can be
transparent.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from ohlora.errors import ConfigError
from ohlora.utils.files import replacing

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio import AudioStream
    from av.video import VideoStream

SIDE = 256
"""Height and width, in pixels, to which frames are enlarged at most where nothing else is asked for."""
PALETTE_FRAMES, PALETTE_SIDE = 32, 64
"""From how many frames the colours of a GIF are chosen, and from about how many of their rows and columns."""
GIF_COLOURS = 255
"""One of the 256 is left for what does not change from frame to frame."""
SHORTEST_GIF_DELAY = 2
"""In 1/100 s: browsers show frames with a shorter delay for 10/100 s."""
WEBP_QUALITY = 90
"""Of 100; the colours are nearer than those of a GIF, in a ninth of its size."""
SOUND_RATE = 48000
"""In Hz; both AAC and Opus have it."""
CODECS = {
    ".mp4": ("libx264", {"crf": "16", "preset": "medium"}, "aac"),
    ".webm": ("libvpx-vp9", {"crf": "20", "b": "0", "cpu-used": "4", "row-mt": "1"}, "libopus"),
}
"""Ending → coding of the pictures with its options, and of the sound."""
PIXELS = {3: ("rgb24", "yuv420p"), 4: ("rgba", "yuva420p")}
"""Channels → how a frame's pixels are called, and those of a film; ``yuv420p`` is the one that all players know."""
BT709 = 1
"""Number of BT.709, by which players turn H.264 and VP9 into colours, in the standards of these codings."""
ENDINGS = (".gif", ".webp", *CODECS)
TRANSPARENT = (".webp", ".webm")
"""Formats whose pixels may be transparent in part."""


@dataclass(frozen=True)
class Sound:
    """Recorded sound.

    Attributes:
        samples: N×C float32 in [−1, 1]; C is 1 or 2.
        rate: Samples per second.
    """

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    def after(self, seconds: float) -> Sound:
        """The sound after some silence."""
        silence = np.zeros((round(seconds * self.rate), self.samples.shape[1]), np.float32)
        return Sound(np.concatenate([silence, self.samples]), self.rate)


def check(path: str | Path, frames_per_second: float, transparent: bool = False) -> None:
    """Insists, before any work, on a file that can be written.

    Args:
        path: The file.
        frames_per_second: 1 to 50 for a GIF, 1 to 100 for the others.
        transparent: Whether pixels are transparent.

    Raises:
        ConfigError: If the ending stands for no known format, or one that cannot be transparent, the frame rate is not
            possible, or PyAV is missing.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{path}: its ending is {ending or 'missing'}; expected one of {' '.join(ENDINGS)}")
    if transparent and ending not in TRANSPARENT:
        raise ConfigError(
            f"{path}: {ending} has no transparency with soft edges; choose {' or '.join(TRANSPARENT)}, or a "
            "background that is not transparent"
        )
    highest = 100 / SHORTEST_GIF_DELAY if ending == ".gif" else 100
    if not 1 <= frames_per_second <= highest:
        raise ConfigError(f"{path}: {frames_per_second:g} frames per second; expected 1 to {highest:g} for {ending}")
    if ending in CODECS and importlib.util.find_spec("av") is None:
        raise ConfigError(
            f"{path}: {ending} needs PyAV, which is not installed; install the extra: pip install 'ohlora[video]', or "
            "choose .gif or .webp"
        )


def save(
    frames: Iterable[np.ndarray],
    path: str | Path,
    frames_per_second: float,
    scale: int | None = None,
    sound: Sound | None = None,
) -> None:
    """Writes an animation, atomically.

    Args:
        frames: H×W×3 uint8 each, or H×W×4 with the opacity, all of one size, of even height and width; at least one.
            GIF and WebP need all of them in memory.
        path: The file; its ending chooses the format.
        frames_per_second: See :func:`check`.
        scale: How many times each pixel is repeated in both directions; by default as often as fits into 256 pixels.
        sound: What is heard from the start on, until the last frame, in MP4 and WebM; GIF and WebP leave it out.

    Raises:
        ConfigError: See :func:`check`.
    """
    from ohlora.utils import images  # torch is not needed for checks

    frames = iter(frames)
    first = next(frames)
    frames = chain([first], frames)
    check(path, frames_per_second, first.shape[2] == 4)
    ending = Path(path).suffix.lower()
    large = (images.enlarge(frame, SIDE if scale is None else scale * min(frame.shape[:2])) for frame in frames)
    with replacing(path) as part:
        if ending == ".gif":
            _save_gif(list(large), part, frames_per_second)
        elif ending == ".webp":
            _save_webp(list(large), part, frames_per_second)
        else:
            _save_video(large, part, ending, frames_per_second, sound)


def delays(count: int, frames_per_second: float, unit: int) -> list[int]:
    """How long each of ``count`` frames is shown, in 1/``unit`` s.

    The ends of frames are rounded, not their lengths, so that no error adds up.
    """
    ends = [round(number * unit / frames_per_second) for number in range(count + 1)]
    return [after - before for before, after in pairwise(ends)]


def _save_gif(frames: Sequence[np.ndarray], path: Path, frames_per_second: float) -> None:
    """All frames share one palette, so that what stands still keeps its colours."""
    step = max(1, min(frames[0].shape[:2]) // PALETTE_SIDE)
    some = [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, PALETTE_FRAMES).astype(int))]
    colours = np.concatenate([frame[::step, ::step] for frame in some])
    palette = Image.fromarray(colours).quantize(GIF_COLOURS, kmeans=3)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    shown = [10 * hundredths for hundredths in delays(len(frames), frames_per_second, 100)]
    rest = {"append_images": pictures[1:], "duration": shown, "loop": 0}
    pictures[0].save(path, "GIF", save_all=True, optimize=False, **rest)


def _save_webp(frames: Sequence[np.ndarray], path: Path, frames_per_second: float) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    rest = {"append_images": pictures[1:], "duration": delays(len(frames), frames_per_second, 1000), "loop": 0}
    pictures[0].save(path, "WEBP", save_all=True, quality=WEBP_QUALITY, **rest)


def _save_video(
    frames: Iterable[np.ndarray], path: Path, ending: str, frames_per_second: float, sound: Sound | None
) -> None:
    import av

    coding, options, spoken = CODECS[ending]
    rate = Fraction(frames_per_second).limit_denominator(1001)
    # The index of an MP4 goes to its beginning, so that browsers play it while it is loaded.
    told = {"movflags": "+faststart"} if ending == ".mp4" else {}
    with av.open(str(path), "w", format=ending.removeprefix("."), options=told) as file:
        film = cast("VideoStream", file.add_stream(coding, rate=rate, options=dict(options)))
        context = film.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = av.video.reformatter.ColorRange.MPEG
        voice: AudioStream | None = None
        parts: Iterator[AudioFrame] = iter(())
        if sound is not None:
            voice = cast("AudioStream", file.add_stream(spoken, rate=SOUND_RATE))
            voice.layout = "stereo" if sound.samples.shape[1] == 2 else "mono"
            parts = _audio_frames(sound, rate)
        for number, frame in enumerate(frames):
            if not number:
                film.height, film.width = frame.shape[:2]
                form, film.pix_fmt = PIXELS[frame.shape[2]]
            picture = av.VideoFrame.from_ndarray(frame, form).reformat(format=film.pix_fmt, dst_colorspace="itu709")
            picture.pts, picture.time_base = number, 1 / rate
            file.mux(film.encode(picture))
            if voice is not None and (heard := next(parts, None)) is not None:  # what is heard with this frame
                file.mux(voice.encode(heard))
        file.mux(film.encode())
        if voice is not None:
            file.mux(voice.encode())


def _audio_frames(sound: Sound, rate: Fraction) -> Iterator[AudioFrame]:
    """The sound, in a part for each frame of an animation."""
    from av import AudioFrame

    count, channels = sound.samples.shape
    ends = [round(number * sound.rate / rate) for number in range(int(sound.seconds * rate) + 2)]
    for start, end in pairwise(ends):
        if start < count:
            packed = np.ascontiguousarray(sound.samples[start:end]).reshape(1, -1)
            part = AudioFrame.from_ndarray(packed, "flt", "stereo" if channels == 2 else "mono")
            part.sample_rate, part.pts, part.time_base = sound.rate, start, Fraction(1, sound.rate)
            yield part

"""Steering a character: its images, its motion, a comparison with other directions, presets, and saving."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from ohlora.characters import motion, speech
from ohlora.characters.character import Character
from ohlora.characters.speech import Speech
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError, DataError
from ohlora.faces import cutting
from ohlora.faces.parsing import FaceParser
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes
from ohlora.utils import animations, images
from ohlora.utils.files import locked, read_json, write_json

SIZE = 384
"""Height and width, in pixels, to which saved images are enlarged at most."""
SETTINGS = "ohlora"
"""Key of the text in a saved PNG that says what it shows."""

SHORTEST, LONGEST = 0.1, 120.0
"""Seconds of a recording at least and at most."""
BATCH = 16
"""Frames of a recording that are drawn at once."""

Kind = Literal["png", "gif", "sheet"]
"""What is saved: an image, an animation, or a sheet of all edits."""
Film = Literal["mp4", "webm", "webp"]
"""The form of a recording."""


@dataclass
class SteeringSession:
    """The state of one browser tab.

    Attributes:
        character: The character that is steered.
        other: The same latent with other directions, for comparison, or None.
        beside: Other characters by their names, which follow the same sliders as far as they have them.
        clock: Tells the time in seconds.
        speech: What is being said, or None.
        parser: Cuts the background out of everything that is drawn; None keeps it.
    """

    character: Character
    other: Character | None = None
    beside: Mapping[str, Character] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    speech: Speech | None = None
    parser: FaceParser | None = None

    def __post_init__(self) -> None:
        self._opened = self.clock()

    def compare(self, path: Path | None) -> None:
        """Compares the character's directions with those of a file.

        Args:
            path: The file of directions, or None to end the comparison.

        Raises:
            ConfigError: If the directions are for other attributes or another generator, cannot move the character's
                code, or have none for the group of this latent.
        """
        if path is None:
            self.other = None
            return
        own, found = self.character, load_directions(path)
        if found.attributes != own.attributes:
            raise ConfigError(
                f"{path.name} has directions for {', '.join(found.attributes)}; expected those of the character: "
                f"{', '.join(own.attributes)}"
            )
        names = found.groups.names
        group = str(own.card.get("group", ""))
        if len(names) > 1 and group not in names:
            raise ConfigError(
                f"{path.name} has directions for the groups {', '.join(names)}; the character's group is "
                f"{group or 'unknown'}"
            )
        index = names.index(group) if group in names else 0
        try:
            self.other = replace(own, steps=Steps(Codes(found.steps.values[[index]], found.space)))
        except ValueError as error:
            raise ConfigError(f"{path.name} does not fit the character ({error})") from error

    def say(self, text: str) -> None:
        """Says a text, from now on.

        Raises:
            ConfigError: If no attribute of the character speaks, or the text cannot be read
                (:func:`ohlora.characters.speech.of_text`).
        """
        if not any(own.speaks for own in self.character.motions.values()):
            raise ConfigError("no attribute of this character speaks; a world declares it by motion: {speaks: …}")
        self.speech = speech.of_text(text)
        self._opened = self.clock()

    def strengths(self, values: Sequence[float], idle: bool) -> list[float]:
        """The strengths to show: those of the sliders, one per attribute, and the motion of this moment on top.

        The motion is a function of the time since the session or the speech began, so that late frames do not slow it
        down. A character that speaks moves, too.
        """
        passed = self.clock() - self._opened
        if self.speech is not None and passed > self.speech.ends + speech.FADE:
            self.speech = None
        if idle or self.speech is not None:
            values = self.character.idle([passed], values, speech=self.speech)[0]
        return [float(value) for value in values]

    @property
    def captions(self) -> list[str]:
        """What stands below the pictures after the first."""
        return [*([] if self.other is None else ["other directions"]), *self.beside]

    def pictures(self, strengths: np.ndarray | Sequence[Sequence[float]]) -> tuple[list[np.ndarray], float]:
        """Draws the character, and whatever is compared with it.

        Args:
            strengths: N×P, a column per attribute, in the unit of the character.

        Returns:
            N×H×W×3 uint8 each, or N×H×W×4 where the background is cut out: the character, the same with other
            directions where there are some, and the characters beside it, in the size of the first; and the
            milliseconds that the first took.
        """
        rows = np.asarray(strengths, dtype=float)
        started = time.perf_counter()
        own = self.character.frames(rows)
        taken = 1000 * (time.perf_counter() - started)
        shown = [own] if self.other is None else [own, self.other.frames(rows)]
        places = {name: k for k, name in enumerate(self.character.attributes)}
        for character in self.beside.values():
            same = np.zeros((len(rows), len(character.attributes)))
            for k, name in enumerate(character.attributes):
                same[:, k] = np.clip(rows[:, places[name]] if name in places else 0.0, *character.ranges[name])
            shown.append(_sized(character.frames(same), own.shape[1], own.shape[2]))
        return [self._cut(pictures) for pictures in shown], taken

    def _cut(self, pictures: np.ndarray) -> np.ndarray:
        return pictures if self.parser is None else cutting.cut(self.parser, pictures)

    def save(self, kind: Kind, strengths: Sequence[float], folder: Path, name: str = "") -> Path:
        """Saves an image at given strengths (PNG), the character in motion (GIF), or a sheet of all its edits (PNG).

        An image is transparent where the background is cut out; a sheet keeps it.

        Args:
            kind: What is saved.
            strengths: One number per attribute: what an image shows, and what is moved from in a GIF.
            folder: Folder of the file; it is created where it does not exist.
            name: What the character is called; an image remembers it with its settings (:func:`settings_of`).

        Returns:
            The path of the file. Files are numbered, and none is overwritten.

        Raises:
            ConfigError: If the kind is unknown, or a GIF is wanted while the background is cut out.
        """
        if kind not in get_args(Kind):
            raise ConfigError(f"{kind!r} cannot be saved; expected {', '.join(get_args(Kind))}")
        if kind == "gif":
            animations.check("GIF.gif", motion.FRAMES_PER_SECOND, self.parser is not None)
        path = _reserved(folder, kind, "gif" if kind == "gif" else "png")
        if kind == "gif":
            animations.save(self.character.frames(self.character.shown(strengths)), path, motion.FRAMES_PER_SECOND)
        elif kind == "sheet":
            images.save_png(self.character.sheet(), path)
        else:
            settings = dict(zip(self.character.attributes, map(float, strengths), strict=True))
            picture = images.enlarge(self._cut(self.character.frames([strengths]))[0], SIZE)
            images.save_png(picture, path, {SETTINGS: json.dumps({"character": name, "strengths": settings})})
        return path

    def record(self, moments: Sequence[tuple[float, Sequence[float]]], form: Film, folder: Path) -> Path:
        """Saves moves as a film: the character, and what is compared with it, side by side.

        Args:
            moments: Time in seconds, rising, and the strengths that were shown, of each; in between, strengths go
                straight from one to the next.
            form: The form of the film, by its file's ending.
            folder: Folder of the file; it is created where it does not exist. Files are numbered.

        Raises:
            ConfigError: If the moves take no time or too much, or the form is unknown, cannot be transparent while the
                background is cut out, or needs PyAV, which is missing.
        """
        if form not in get_args(Film):
            raise ConfigError(f"a recording as {form!r} is not known; expected {', '.join(get_args(Film))}")
        frames_per_second = motion.FRAMES_PER_SECOND
        animations.check(f"film.{form}", frames_per_second, self.parser is not None)
        times = np.array([moment for moment, _ in moments])
        seconds = float(times[-1] - times[0]) if len(times) else 0.0
        if not SHORTEST <= seconds <= LONGEST:
            raise ConfigError(f"the moves take {seconds:.2f} s; expected {SHORTEST:g} to {LONGEST:g} s. Record again")
        shown = times[0] + np.arange(round(seconds * frames_per_second)) / frames_per_second
        moves = np.array([strengths for _, strengths in moments], dtype=float)
        rows = np.stack([np.interp(shown, times, column) for column in moves.T], axis=1)
        path = _reserved(folder, "film", form)
        try:
            frames = self._drawn(rows)
            animations.save(
                frames if self.parser is None else cutting.steadied(frames),
                path,
                frames_per_second,
            )
        except BaseException:
            path.unlink()
            raise
        return path

    def _drawn(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The frames of a film; few are held in memory."""
        for start in range(0, len(rows), BATCH):
            yield from np.concatenate(self.pictures(rows[start : start + BATCH])[0], axis=2)


def _sized(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pictures in a size that may be theirs already."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    return np.stack([np.asarray(Image.fromarray(picture).resize((width, height))) for picture in pictures])


def _reserved(folder: Path, stem: str, suffix: str) -> Path:
    """An empty file with the next number, which no other tab or server can take any more."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{stem}-{'[0-9]' * 4}.{suffix}")]
    for number in count(max(taken, default=0) + 1):
        path = folder / f"{stem}-{number:04d}.{suffix}"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            break
    return path


def settings_of(picture: bytes) -> tuple[str, dict[str, float]]:
    """What a PNG shows that :meth:`SteeringSession.save` wrote: the character's name, and its strengths.

    Raises:
        DataError: If it is something else.
    """
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as opened:
            opened.load()
            said = json.loads(getattr(opened, "text", {})[SETTINGS])
        return str(said["character"]), {str(name): float(value) for name, value in said["strengths"].items()}
    except Exception as error:  # whatever is wrong with a file from anywhere
        raise DataError("this is no PNG that the studio saved; drop one that Save PNG wrote") from error


@dataclass(frozen=True)
class Presets:
    """Settings that were kept under names, per character, in a JSON file.

    Attributes:
        path: The file, which need not exist.
    """

    path: Path

    def of(self, character: str) -> dict[str, dict[str, float]]:
        """The presets of a character: name → attribute → strength.

        Raises:
            FormatError: If the file cannot be read.
        """
        return dict(self._all().get(character, {}))

    def keep(self, character: str, name: str, settings: Mapping[str, float] | None) -> dict[str, dict[str, float]]:
        """Keeps settings under a name, or forgets it (None), and returns the presets that there are now.

        Raises:
            FormatError: If the file cannot be read; nothing is written then.
        """
        with locked(self.path):
            every = self._all()
            own = every.setdefault(character, {})
            if settings is None:
                own.pop(name, None)
            else:
                own[name] = dict(settings)
            write_json(self.path, every)
        return dict(own)

    def _all(self) -> dict[str, dict[str, dict[str, float]]]:
        return read_json(self.path) if self.path.is_file() else {}

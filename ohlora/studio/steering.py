"""Steering a character: its images, its idle motion, a comparison with other directions, and saving."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from ohlora.characters import motion
from ohlora.characters.character import Character
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes
from ohlora.utils import animations, images

FRAMES_PER_SECOND = 12.0
"""Frames per second of the idle motion in the browser."""
SIZE = 384
"""Height and width, in pixels, to which images are enlarged at most."""

Kind = Literal["png", "gif", "sheet"]
"""What is saved: an image, an animation, or a sheet of all edits."""


@dataclass
class SteeringSession:
    """The state of one browser tab.

    Attributes:
        character: The character that is steered.
        other: The same latent with other directions, for comparison, or None.
        clock: Tells the time in seconds.
    """

    character: Character
    other: Character | None = None
    clock: Callable[[], float] = time.monotonic

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

    def strengths(self, values: Sequence[float], idle: bool) -> list[float]:
        """The strengths to show: those of the sliders, one per attribute, and the idle motion of this moment on top.

        The motion is a function of the time since the session began, so that late frames do not slow it down.
        """
        if idle:
            values = self.character.idle([self.clock() - self._opened], values)[0]
        return [float(value) for value in values]

    def image(self, strengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Draws the character.

        Args:
            strengths: One number per attribute, in the unit of the character.

        Returns:
            The character's image (H×W×3 uint8), the image with the other directions or None, and the milliseconds that
            the first image took.
        """
        started = time.perf_counter()
        picture = self._of(self.character, strengths)
        taken = 1000 * (time.perf_counter() - started)
        return picture, None if self.other is None else self._of(self.other, strengths), taken

    def save(self, kind: Kind, strengths: Sequence[float], folder: Path) -> Path:
        """Saves an image at given strengths (PNG), the character in motion (GIF), or a sheet of all its edits (PNG).

        Args:
            kind: What is saved.
            strengths: One number per attribute: what an image shows, and what is moved from in a GIF.
            folder: Folder of the file; it is created where it does not exist.

        Returns:
            The path of the file. Files are numbered, and none is overwritten.
        """
        suffix = "gif" if kind == "gif" else "png"
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{kind}-{'[0-9]' * 4}.{suffix}")]
        for number in count(max(taken, default=0) + 1):
            path = folder / f"{kind}-{number:04d}.{suffix}"
            with suppress(FileExistsError):
                path.touch(exist_ok=False)  # reserves the name against other tabs and servers
                break
        if kind == "gif":
            animations.save(self.character.frames(self.character.shown(strengths)), path, motion.FRAMES_PER_SECOND)
        else:
            images.save_png(self.character.sheet() if kind == "sheet" else self._of(self.character, strengths), path)
        return path

    @staticmethod
    def _of(character: Character, strengths: Sequence[float]) -> np.ndarray:
        return images.enlarge(character.frames([strengths])[0], SIZE)

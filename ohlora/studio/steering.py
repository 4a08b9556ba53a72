"""Steering a character: images for strengths, the idle motion, other directions on the same latent, and files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ohlora.characters import motion
from ohlora.characters.character import Character
from ohlora.errors import ConfigError
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes
from ohlora.utils import images

FRAMES_PER_SECOND = 12.0
"""Of the idle motion in the browser."""
IDLE_FRAMES = 600
"""After which the idle motion starts again."""
SIZE = 384
"""Images are enlarged to about this many pixels a side."""

Kind = Literal["png", "gif", "sheet"]


@dataclass
class Stage:
    """What one browser tab steers.

    Attributes:
        character: The character.
        other: The same latent with other directions, or None.
        frame: Where the idle motion is.
    """

    character: Character
    other: Character | None = None
    frame: int = 0

    def __post_init__(self) -> None:
        # Once, not at every tick.
        self._idle = motion.idle(self.character.attributes, self.character.ranges, IDLE_FRAMES, FRAMES_PER_SECOND)

    @classmethod
    def load(cls, path: Path) -> Stage:
        """A character from its file."""
        return cls(Character.load(path))

    def compare(self, path: Path | None) -> None:
        """Puts other directions beside the character's own; None takes them away.

        Raises:
            ConfigError: If they do not move the same attributes, have no group for this latent, or are for another
                generator.
        """
        if path is None:
            self.other = None
            return
        own, found = self.character, load_directions(path)
        if found.attributes != own.attributes:
            raise ConfigError(
                f"{path.name} moves {', '.join(found.attributes)}; the character {', '.join(own.attributes)}"
            )
        names = found.groups.names
        group = str(own.card.get("group", ""))
        if len(names) > 1 and group not in names:
            raise ConfigError(
                f"{path.name} has directions for the groups {', '.join(names)}; the character's is {group or 'unknown'}"
            )
        place = names.index(group) if group in names else 0
        try:
            self.other = replace(own, steps=Codes(found.steps.values[place], found.space))
        except ValueError as error:
            raise ConfigError(f"{path.name} is for another generator ({error})") from error

    def strengths(self, values: Sequence[float], idle: bool) -> list[float]:
        """What is shown: the sliders' values, or the next moment of the idle motion."""
        if not idle:
            return [float(value) for value in values]
        self.frame = (self.frame + 1) % len(self._idle)
        return [float(value) for value in self._idle[self.frame]]

    def image(self, strengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray | None, float]:
        """The character, the same with other directions (or None), and the milliseconds that the first took."""
        started = time.perf_counter()
        picture = self._of(self.character, strengths)
        taken = 1000 * (time.perf_counter() - started)
        return picture, None if self.other is None else self._of(self.other, strengths), taken

    def save(self, kind: Kind, strengths: Sequence[float], folder: Path) -> Path:
        """Writes a picture of this moment, the character in motion, or a sheet of all its edits.

        Returns:
            The file, whose name tells its place in the folder: nothing is overwritten.
        """
        suffix = "gif" if kind == "gif" else "png"
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{kind}-{'[0-9]' * 4}.{suffix}")]
        number = max(taken, default=0) + 1
        while True:
            path = folder / f"{kind}-{number:04d}.{suffix}"
            try:
                path.touch(exist_ok=False)  # reserves the name among all tabs and servers
                break
            except FileExistsError:
                number += 1
        if kind == "gif":
            character = self.character
            rows = motion.shown(character.attributes, character.ranges)
            images.save_gif(images.enlarge_each(character.frames(rows), 256), path, 20.0)
        else:
            images.save_png(self.character.sheet() if kind == "sheet" else self._of(self.character, strengths), path)
        return path

    @staticmethod
    def _of(character: Character, strengths: Sequence[float]) -> np.ndarray:
        return images.enlarge(character.frames([strengths])[0], SIZE)

"""Choosing among the latents that passed the evaluation of edits: figures, films, the list of choices, and undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.characters import motion
from ohlora.characters.reports import CHOICES, MEASURED, RESULTS, TOLD_OF_SLIDERS, Choice, Report
from ohlora.errors import ConfigError
from ohlora.utils.files import content_stamp, rewriting

STILLS = 5
"""Images of each slider in a film, from its lowest to its highest strength."""


@dataclass
class ChoiceSession:
    """The state of one browser tab.

    Attributes:
        report: The report of the evaluation.
        ranked: Indices of the rows to choose from, best first; see its ``ranked``.
        choices: Number of a latent (its case) → choice; latents without a choice are left out.
    """

    report: Report
    ranked: list[int] = field(default_factory=list)
    choices: dict[int, Choice] = field(default_factory=dict)
    _undo: list[dict[int, Choice]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ranked = self.report.ranked()
        self._results = content_stamp(self.report.folder / RESULTS)
        self.reload()

    @property
    def path(self) -> Path:
        """The CSV file of the choices, in the folder of the evaluation."""
        return self.report.folder / CHOICES

    @property
    def kind(self) -> str:
        """Which latents are ranked, in words."""
        return "that passed" if self.report.passed[self.ranked[0]] else "that can be steered; none passed"

    @property
    def cases(self) -> list[int]:
        """The numbers of the latents to choose from, best first."""
        return [int(self.report.rows[index]["case"]) for index in self.ranked]

    @property
    def retested(self) -> bool:
        """Whether the evaluation was run again since its report was read."""
        return content_stamp(self.report.folder / RESULTS) != self._results

    @property
    def changed(self) -> bool:
        """Whether another tab or program has written the list since it was read."""
        return content_stamp(self.path) != self.seen

    def reload(self) -> None:
        """Reads the list of choices again.

        A list that cannot be used leaves this object as it was. Since the list has changed, it is not overwritten
        either, until it could be read.

        Raises:
            DataError: If the list cannot be used, or belongs to another test.
        """
        seen = content_stamp(self.path)
        self.choices = self.report.choices()
        self.seen = seen
        self._undo = []

    def choose(self, cases: Sequence[int], choice: Choice | None) -> None:
        """Sets the choice for some latents, or takes it back (None), and writes the list.

        Raises:
            ConfigError: If one of them is not to choose from, or the list has changed since it was read; nothing is
                written then.
        """
        for case in cases:
            self.place(case)
        chosen = {case: known for case, known in self.choices.items() if case not in cases}
        if choice is not None:
            chosen |= dict.fromkeys(cases, choice)
        before = self.choices
        self._write(chosen)
        self._undo.append(before)

    def undo(self) -> None:
        """Takes back the last change that was made in this tab.

        Raises:
            ConfigError: If there is none, or the list has changed since it was read.
        """
        if not self._undo:
            raise ConfigError("there is nothing to undo in this tab")
        self._write(self._undo[-1])
        self._undo.pop()

    def place(self, case: int) -> int:
        """Where the latent with a number is in the report.

        Raises:
            ConfigError: If it is not to choose from.
        """
        if case not in self.cases:
            raise ConfigError(f"case {case} did not pass")
        return self.ranked[self.cases.index(case)]

    def picture(self, case: int) -> np.ndarray:
        """The sheet of a latent and of its edits: H×W×3 uint8."""
        return self.report.picture(self.place(case))

    def still(self, case: int) -> np.ndarray:
        """A latent as it is: H×W×3 uint8."""
        character = self.report.character(self.place(case))
        (picture,) = character.frames(np.zeros((1, len(character.attributes))))
        return np.asarray(picture)

    def film(self, case: int) -> np.ndarray:
        """A latent's :data:`STILLS` of each slider, one after the other: N×H×W×3 uint8."""
        character = self.report.character(self.place(case))
        return character.frames(motion.sweep(character.attributes, character.ranges, STILLS))

    def columns(self) -> list[str]:
        """The figures of the results' table, in its order."""
        rows = [self.report.rows[index] for index in self.ranked]
        return [name for name in rows[0] if name != "case" and any(_number(row[name]) is not None for row in rows)]

    def told(self) -> list[str]:
        """The figures that are shown where nobody asks for others: those of the sliders."""
        known = self.columns()
        wanted = dict.fromkeys((*TOLD_OF_SLIDERS.values(), *MEASURED))
        return [f"{name}_{what}" for name in self.report.attributes for what in wanted if f"{name}_{what}" in known]

    def table(self) -> list[Mapping[str, Any]]:
        """One row per latent, best first: its number as ``case``, and its figures; None for what was not measured."""
        names = self.columns()
        rows = [self.report.rows[index] for index in self.ranked]
        return [{"case": int(row["case"]), **{name: _number(row[name]) for name in names}} for row in rows]

    def export(self, folder: Path) -> list[Path]:
        """Writes a character for each latent that is kept or starred; returns the files.

        Raises:
            MissingArtifactError: If nothing was chosen yet.
            ConfigError: If everything was rejected, or one makes no character.
        """
        found = self.report.characters(folder)
        for path, character in found.items():
            character.save(path)
        return list(found)

    def _write(self, choices: dict[int, Choice]) -> None:
        with rewriting(self.path, self.seen):
            self.report.write_choices(choices)
            self.choices, self.seen = choices, content_stamp(self.path)


def _number(text: str) -> float | None:
    """A figure of a table; None for what is none, and for what JSON has no number for."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None

"""Choosing among the latents that passed: one browser tab's way through them, and the list it writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.characters.reports import CHOICES, Choice, Report
from ohlora.errors import ConfigError
from ohlora.utils.files import content_stamp, rewriting


@dataclass
class ChoiceSession:
    """One browser tab.

    Attributes:
        report: The test.
        places: Its passing latents, best first.
        choices: Case → choice; a case that is not there was not looked at.
        at: Which of ``places`` is shown.
    """

    report: Report
    places: list[int] = field(default_factory=list)
    choices: dict[int, Choice] = field(default_factory=dict)
    at: int = 0

    def __post_init__(self) -> None:
        self.places = self.report.ranked()
        self.reload()

    @property
    def path(self) -> Path:
        """The list, in the folder of the test."""
        return self.report.folder / CHOICES

    @property
    def case(self) -> int:
        """The number of the latent that is shown."""
        return int(self.report.rows[self.places[self.at]]["case"])

    def reload(self) -> None:
        """Takes what the list says now; a list that cannot be taken changes nothing here, and is not written over.

        Raises:
            DataError: If the list cannot be used, or was made of another test.
        """
        seen = content_stamp(self.path)
        self.choices = self.report.choices()
        self.seen = seen

    def choose(self, choice: Choice) -> None:
        """Notes a choice for the latent that is shown, writes the list, and goes on to the next.

        Raises:
            ConfigError: If somebody else has written the list since it was read; nothing is written then.
        """
        with rewriting(self.path, self.seen):
            choices = {**self.choices, self.case: choice}
            self.report.write_choices(choices)
            self.choices, self.seen = choices, content_stamp(self.path)
        self.step(1)

    def step(self, by: int) -> None:
        """Goes to another latent."""
        self.at = int(np.clip(self.at + by, 0, len(self.places) - 1))

    def show(self, case: int) -> None:
        """Goes to a latent by its number."""
        cases = [int(self.report.rows[place]["case"]) for place in self.places]
        if case not in cases:
            raise ConfigError(f"case {case} did not pass")
        self.at = cases.index(case)

    def picture(self) -> np.ndarray:
        """The latent that is shown, and its edits."""
        return self.report.picture(self.places[self.at])

    def kept(self) -> int:
        """How many are kept or starred."""
        return sum(choice != "reject" for choice in self.choices.values())

    def header(self) -> list[str]:
        """The columns of :meth:`table`."""
        figures = [f"{what} {name}" for name in self.report.attributes for what in ("r", "slope", "leakage")]
        return ["case", "choice", *figures]

    def table(self) -> list[list[Any]]:
        """A row per passing latent, best first."""
        rows = []
        for place in self.places:
            row = self.report.rows[place]
            figures = [
                round(float(row[f"{name}_{column}"]), 3)
                for name in self.report.attributes
                for column in ("corr", "slope", "leakage")
            ]
            rows.append([int(row["case"]), self.choices.get(int(row["case"]), ""), *figures])
        return rows

"""Choosing among the latents that passed the test: the list of choices, and the state of one browser tab."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.characters.reports import CHOICES, MEASURED, Choice, Report
from ohlora.errors import ConfigError
from ohlora.utils.files import content_stamp, rewriting


@dataclass
class ChoiceSession:
    """The state of one browser tab.

    Attributes:
        report: The report of the test.
        ranked: Indices of the rows to choose from, best first; see its ``ranked``.
        choices: Number of a latent (its case) → choice; latents without a choice are left out.
        position: Position in ``ranked`` of the latent that is shown.
    """

    report: Report
    ranked: list[int] = field(default_factory=list)
    choices: dict[int, Choice] = field(default_factory=dict)
    position: int = 0

    def __post_init__(self) -> None:
        self.ranked = self.report.ranked()
        self.reload()

    @property
    def path(self) -> Path:
        """The CSV file of the choices, in the folder of the test."""
        return self.report.folder / CHOICES

    @property
    def kind(self) -> str:
        """Which latents are ranked, in words."""
        return "that passed" if self.report.passed[self.ranked[0]] else "that can be steered; none passed"

    @property
    def case(self) -> int:
        """The number of the latent that is shown."""
        return int(self.report.rows[self.ranked[self.position]]["case"])

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

    def choose(self, choice: Choice) -> None:
        """Sets the choice for the latent that is shown, writes the list, and moves to the next latent.

        Raises:
            ConfigError: If the list has changed since it was read; nothing is written then.
        """
        with rewriting(self.path, self.seen):
            choices = {**self.choices, self.case: choice}
            self.report.write_choices(choices)
            self.choices, self.seen = choices, content_stamp(self.path)
        self.step(1)

    def step(self, by: int) -> None:
        """Moves ``by`` latents ahead (or back, where negative), as far as there are latents."""
        self.position = int(np.clip(self.position + by, 0, len(self.ranked) - 1))

    def show(self, case: int) -> None:
        """Moves to the latent with a number.

        Raises:
            ConfigError: If no latent that passed has this number.
        """
        cases = [int(self.report.rows[index]["case"]) for index in self.ranked]
        if case not in cases:
            raise ConfigError(f"case {case} did not pass")
        self.position = cases.index(case)

    def picture(self) -> np.ndarray:
        """Returns the sheet of the latent that is shown and of its edits: H×W×3 uint8."""
        return self.report.picture(self.ranked[self.position])

    def kept(self) -> int:
        """Returns how many latents are kept or starred."""
        return sum(choice != "reject" for choice in self.choices.values())

    def header(self) -> list[str]:
        """Returns the column headings of :meth:`table`."""
        metrics = [f"{metric} {name}" for name in self.report.attributes for metric in ("r", "slope", "leakage")]
        return ["case", "choice", *metrics]

    def table(self) -> list[list[Any]]:
        """Returns one row per latent that passed, best first: its number, choice and metrics."""
        rows = []
        for index in self.ranked:
            row = self.report.rows[index]
            columns = [f"{name}_{column}" for name in self.report.attributes for column in MEASURED]
            metrics = [round(float(row[column]), 3) for column in columns]
            rows.append([int(row["case"]), self.choices.get(int(row["case"]), ""), *metrics])
        return rows

"""What the evaluation of edits leaves in a folder, and characters made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from ohlora import handover
from ohlora.attributes import Motion, recipe
from ohlora.characters import motion
from ohlora.characters.character import Character
from ohlora.directions.edits import Steps, Unit
from ohlora.errors import ConfigError, DataError, MissingArtifactError
from ohlora.evaluation.conditions import IN_CONCEPT
from ohlora.evaluation.sliders import random_settings
from ohlora.formats import network_files, tensor_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.pipeline import require
from ohlora.utils import counted, figures, images
from ohlora.utils.files import content_stamp, read_rows, write_rows

DIRECTIONS = "directions.safetensors"
RESULTS = "test_result.csv"
STATISTICS = "test_statistics.csv"
LATENTS = "latents.safetensors"
CHOICES = "choices.csv"
"""What was kept, starred or rejected by eye: ``case``, ``choice``, and the fingerprint of the tested ``latents``."""
Choice = Literal["keep", "star", "reject"]
FORMAT = "ohlora-latents"
FORMAT_VERSION = 2
MEASURED = ("corr", "slope", "leakage")
"""What is kept exactly of each latent and attribute, besides rounded in the table."""
REACH_STEP, IDENTITY_STEP = 0.1, 0.05
"""Differences of reach and identity below which candidates look as good."""
TOLD_OF_SLIDERS = {
    "r": "corr",
    "reach": "reach",
    "below": "reach_below",
    "above": "reach_above",
    "identity": "identity",
}
"""What is told of a candidate's sliders → its column."""
SHOWN = 5
"""Images of each slider, and of combined expressions, that are shown of a candidate."""


def write_report(
    folder: Path,
    results: list[dict[str, Any]],
    statistics: dict[str, Any],
    latents: Mapping[str, Tensor],
    generator: str | Path,
    directions: str | Path | None,
    **about: Any,
) -> None:
    """Writes the table of an evaluation, its statistics, and the tested latents with what they were made from.

    Args:
        folder: Where to.
        results: The table, a row per latent; booleans are written as true and false.
        statistics: Over all latents.
        latents: ``case``, ``z``, ``codes``, ``group``, ``units``, :data:`MEASURED`, N×P float64 each, and the tested
            ``ranges``, N×P×2 strengths; ``label``, and the latents' own ``steps`` and their ``nodes``, where there are
            any.
        generator: The generator's file, of which fingerprint and path are kept.
        directions: The directions' likewise; None for label edits.
        about: What else to keep: ``space`` of the codes, ``attributes``, ``group_names``, ``levels``, ``seed``,
            ``unit`` of the slopes, and ``meanings`` and ``motion_shares`` of the attributes.
    """
    for what, path in (("generator", generator), ("directions", directions)):
        about[what] = network_files.fingerprint(path) if path else ""
        about[f"{what}_path"] = Path(os.path.relpath(path, folder)).as_posix() if path else ""
    tensor_files.write(folder / LATENTS, FORMAT, FORMAT_VERSION, latents, MEASURED, **about)
    write_rows(folder / STATISTICS, [statistics])
    rows = [{k: str(v).lower() if isinstance(v, bool) else v for k, v in row.items()} for row in results]
    write_rows(folder / RESULTS, rows)


@dataclass(frozen=True)
class Report:
    """The results of an evaluation, with what they were made with.

    Attributes:
        folder: Where it was read from.
        rows: The table, a row per latent, rounded; for people.
        passed: Whether each latent passes, N booleans.
        measured: What :data:`MEASURED` names, N×P float64 each.
        codes: The latents' N codes.
        z: The latents they come from, N×Z; N×0 where a report does not hold them.
        attributes: What was edited.
        steps: One unit of strength as tested, per latent: N×P.
        method: How the edits were found.
        generator: The generator.
        ranges: Lowest and highest strength that was tested, N×P×2; of earlier reports, the ends of the grid.
        meanings: See :class:`ohlora.characters.character.Character`.
        motions: Likewise.
        unit: What slopes count by: strength 1 of a character moves its attribute by one of it.
        unfit: Why what is made of it is not fit for use, if it is not; see :mod:`ohlora.handover`.
    """

    folder: Path
    rows: Sequence[Mapping[str, str]]
    passed: list[bool]
    measured: Mapping[str, Tensor]
    codes: Codes
    z: Tensor
    attributes: tuple[str, ...]
    steps: Steps
    method: str
    generator: Generator
    ranges: Tensor
    meanings: Mapping[str, str]
    motions: Mapping[str, Motion]
    unit: Unit
    unfit: Sequence[str] = ()

    @classmethod
    def load(
        cls, folder: str | Path, generator: str | Path | None = None, directions: str | Path | None = None
    ) -> Report:
        """Reads a report.

        Args:
            folder: Folder of the evaluation.
            generator: The generator it was made with; by default the file that it remembers.
            directions: The directions likewise.

        Raises:
            MissingArtifactError: If a file is missing.
            ConfigError: If label edits were tested, or the report is too old to remember its generator.
            DataError: If generator or directions are others than the tested ones.
        """
        folder = Path(folder)
        require(folder / RESULTS)
        about = tensor_files.read_metadata(folder / LATENTS, FORMAT, FORMAT_VERSION, "a file of tested latents")
        tensors = tensor_files.read_tensors(folder / LATENTS, may_be_nan=MEASURED)
        if not about["directions"]:
            raise ConfigError(f"{folder} tested label edits, which are no steps in W; characters need directions")
        paths = {"generator": generator, "directions": directions}
        for what, given in paths.items():
            # Reports of format version 1 lie beside their directions, and do not name their generator.
            kept = about.get(f"{what}_path", DIRECTIONS if what == "directions" else "")
            if given is None and not kept:
                raise ConfigError(f"{folder} does not say which {what} was tested; name it with --{what}")
            path = paths[what] = Path(given) if given is not None else Path(os.path.normpath(folder / kept))
            require(path)
            if not network_files.is_fingerprint(about[what], path):
                raise DataError(f"{path} is not the {what} that {folder} was tested with; name that one")
        rows = read_rows(folder / RESULTS)
        if [row.get("case") for row in rows] != [str(case) for case in tensors["case"].tolist()]:
            raise DataError(f"{folder / RESULTS} and {LATENTS} are of different tests; test anew")
        found = load_directions(str(paths["directions"]))
        names = found.attributes
        if about["format_version"] == 1:  # only the table holds what was measured
            table = {what: [[float(row[f"{name}_{what}"]) for name in names] for row in rows] for what in MEASURED}
            tensors |= {what: torch.tensor(values, dtype=torch.float64) for what, values in table.items()}
        ends = [[min(about["levels"][name]), max(about["levels"][name])] for name in names]
        ranges = tensors.get("ranges", torch.tensor(ends, dtype=torch.float64).expand(len(rows), -1, -1))
        if "steps" in tensors:
            steps = Steps.of_latents(tensors, found.space)
        else:
            steps = Steps(Codes(found.steps.values[tensors["group"]], found.space))
        return cls(
            folder,
            rows,
            [row["passed"] in ("true", "O") for row in rows],  # O and X in format version 1
            {what: tensors[what] for what in MEASURED},
            Codes(tensors["codes" if "codes" in tensors else "w"], Space(about.get("space", Space.W))),
            tensors.get("z", torch.empty(len(rows), 0)),
            names,
            steps.per(tensors["units"].expand(len(rows), -1)),
            found.method,
            network_files.load_generator(str(paths["generator"])),
            ranges,
            *recipe().described_in(about, names),
            about.get("unit", "samples"),
            handover.marks(about),
        )

    def ranked(self) -> list[int]:
        """Places of the passing latents, first what an eye likes best.

        That is the one whose worst slider is seen to go farthest, in steps of :data:`REACH_STEP`; then the one whose
        worst slider keeps identity best on average, in steps of :data:`IDENTITY_STEP`; then the one of least mean
        leakage. A slider is seen to go as far as it reaches, but at most twice as far as it reaches from the unedited
        image to the side to which it moves: down for what blinks, up for what speaks, since a mouth is closed where
        nothing is said, and otherwise the shorter side. (A face that sleeps cannot blink.) What was not measured does
        not count; where reach was not, as in earlier reports, the worst correlation stands in its place.

        One with a slider that goes nowhere within its limits, or does not rise, is left out, since it makes no
        character; so is one outside the concept, where others fit it. Where none passes, those are ranked that can be
        steered at all.

        Raises:
            ConfigError: If there is none.
        """
        worst, leakage = self.measured["corr"].amin(dim=1), self.measured["leakage"].mean(dim=1)
        moving = (self.ranges[..., 0] < self.ranges[..., 1]).all(dim=1).tolist()
        rising = (self.measured["slope"] > 0).all(dim=1).tolist()
        steered = [place for place in range(len(self.rows)) if moving[place] and rising[place]]
        fitting = [place for place in steered if self.rows[place].get(IN_CONCEPT) != "false"] or steered
        found = [place for place in fitting if self.passed[place]] or fitting
        if not found:
            raise ConfigError(
                f"none of {len(self.rows)} latents in {self.folder / RESULTS} passes, and none has sliders that all "
                "move and rise; test more latents, or look at the generator and the directions"
            )
        if (reach := self._table("reach")) is not None:
            worst = (self._seen(reach).amin(dim=1) / REACH_STEP).round()
        kept = self._table("identity")
        identity = torch.zeros_like(worst) if kept is None else (kept.amin(dim=1) / IDENTITY_STEP).round()
        order = list(zip((-worst).tolist(), (-identity).tolist(), leakage.tolist(), strict=True))
        return sorted(found, key=order.__getitem__)

    def _seen(self, reach: Tensor) -> Tensor:
        """How far sliders are seen to go, N×P, of what they reach, N×P; the same where their sides are not known."""
        below, above = self._table("reach_below"), self._table("reach_above")
        if below is None or above is None:
            return reach
        sides = torch.minimum(below, above)
        for p, name in enumerate(self.attributes):
            moving = self.motions.get(name)
            if moving is not None and (moving.blinks or moving.speaks):
                sides[:, p] = (below if moving.blinks else above)[:, p]
        return torch.minimum(reach, 2 * sides)

    def _table(self, what: str) -> Tensor | None:
        """A number of each attribute, N×P, by the table; None where it was not measured of all."""
        columns = [f"{name}_{what}" for name in self.attributes]
        if not all(row.get(column) for row in self.rows for column in columns):
            return None
        return torch.tensor([[float(row[column]) for column in columns] for row in self.rows], dtype=torch.float64)

    def chosen(self) -> list[int]:
        """Cases that were kept or starred by eye.

        Raises:
            MissingArtifactError: If nothing was chosen yet.
            ConfigError: If everything was rejected.
        """
        if not (self.folder / CHOICES).is_file():
            raise MissingArtifactError(
                f"{self.folder / CHOICES} does not exist; it is made by: ohlora studio, in its tab Choose"
            )
        cases = [case for case, choice in self.choices().items() if choice != "reject"]
        if not cases:
            raise ConfigError(f"{self.folder / CHOICES} keeps none; keep some in the tab Choose of ohlora studio")
        return cases

    def characters(self, folder: Path) -> dict[Path, Character]:
        """What was :meth:`chosen`, as characters, by the files in a folder that they belong into.

        Raises:
            MissingArtifactError: If nothing was chosen yet.
            ConfigError: If everything was rejected, or one makes no character.
        """
        return {folder / f"{case:04d}.safetensors": self.character(self.place_of(case)) for case in self.chosen()}

    def choices(self) -> dict[int, Choice]:
        """What was chosen by eye: case → choice; empty where nothing was yet.

        Raises:
            DataError: If the list cannot be used, or was made of another test.
        """
        path = self.folder / CHOICES
        if not path.is_file():
            return {}
        found: dict[int, Choice] = {}
        cases = {row["case"] for row in self.rows}
        for row in read_rows(path):
            if row.get("latents") not in self.fingerprints:
                raise DataError(f"{path} was chosen from another test than the one there; remove it, and choose anew")
            if row.get("case") not in cases or row.get("choice") not in get_args(Choice):
                raise DataError(
                    f"{path}, {row}: {row.get('case')}, {row.get('choice')}; expected a case of the test and one "
                    f"of {', '.join(get_args(Choice))}"
                )
            found[int(row["case"])] = cast(Choice, row["choice"])
        return found

    def write_choices(self, choices: Mapping[int, Choice]) -> None:
        """Writes the list, whole or not at all."""
        rows = [{"case": c, "choice": choices[c], "latents": self.fingerprint} for c in sorted(choices)]
        write_rows(self.folder / CHOICES, rows)

    @cached_property
    def fingerprint(self) -> str:
        """Tells the tested latents from those of another test; the file is read once, it can be large."""
        return network_files.fingerprint(self.folder / LATENTS)

    @cached_property
    def fingerprints(self) -> tuple[str, str]:
        """The fingerprint, and the one of the first versions."""
        return self.fingerprint, str(content_stamp(self.folder / LATENTS))[:16]

    def place_of(self, case: int | str) -> int:
        """Where a case, given by its number or as ``best`` (the first of :meth:`ranked`), is in the table.

        Raises:
            ConfigError: If there is no such case.
        """
        if case == "best":
            return self.ranked()[0]
        cases = [int(row["case"]) for row in self.rows]
        if case not in cases:
            raise ConfigError(f"{self.folder / RESULTS} has no case {case}; it has {len(cases)} cases")
        return cases.index(int(case))

    def picture(self, place: int) -> np.ndarray:
        """A latent as it is and along each slider, from its lowest to its highest strength; then expressions combined.

        Combined are random strengths within the tested ranges, a function of the case. Above each row stands what was
        measured of it.
        """
        character, row = self.character(place), self.rows[place]
        names = character.attributes
        ranges = np.array([character.ranges[name] for name in names])
        alone = motion.sweep(names, character.ranges, SHOWN)
        random = counted.generator(0, "combined", int(row["case"]))
        together = random_settings(ranges, SHOWN - 1, random)
        strengths = np.concatenate([alone, np.zeros((1, len(names))), together])
        pictures = np.split(images.enlarge(character.frames(strengths), 128), len(names) + 1)
        captions = []
        for name in names:
            told = {what: row.get(f"{name}_{column}") for what, column in TOLD_OF_SLIDERS.items()}
            low, high = character.ranges[name]
            numbers = ", ".join(f"{what} {float(value):.2f}" for what, value in told.items() if value)
            captions.append(f"{name} {low:+.2f} … {high:+.2f}: {numbers}")
        least = row.get("joint_identity_min")
        captions.append(
            "as it is, and all at random" + (f"; least identity in the test {float(least):.2f}" if least else "")
        )
        sheet = figures.strips(dict(zip(captions, pictures, strict=True)))
        leakage = float(self.measured["leakage"][place].mean())
        return figures.captioned(sheet, [f"case {row['case']}, group {row['group_name']}, leakage {leakage:.2f}"])

    def character(self, place: int) -> Character:
        """A latent as a character whose steps move an attribute by one unit of the report each.

        Raises:
            ConfigError: If an attribute does not rise with its strength, so that there is nothing to calibrate, or its
                slider goes nowhere within its limits.
        """
        row = self.rows[place]
        tested = {
            name: {what: float(self.measured[what][place, p]) for what in MEASURED}
            for p, name in enumerate(self.attributes)
        }
        slopes = {name: tested[name]["slope"] for name in self.attributes}
        if falling := [name for name, slope in slopes.items() if slope <= 0]:
            raise ConfigError(f"case {row['case']}: {', '.join(falling)} does not rise with its strength; take another")
        per_unit = torch.tensor([*slopes.values()], dtype=torch.float64)
        steps = self.steps.part(place).per(1 / per_unit[None])
        ends = dict(zip(self.attributes, self.ranges[place].tolist(), strict=True))
        if still := [name for name, (low, high) in ends.items() if low == high]:
            raise ConfigError(
                f"case {row['case']}: the slider of {', '.join(still)} goes nowhere within its limits; take another"
            )
        ranges = {name: (low * slopes[name], high * slopes[name]) for name, (low, high) in ends.items()}
        card: dict[str, Any] = {
            "case": int(row["case"]),
            "group": row["group_name"],
            "method": self.method,
            "passed": self.passed[place],
            "test": tested,
            "unit": self.unit,
            "subject": "a synthetic face; it shows no real person",
        }
        card |= handover.marked(self.unfit)
        code = Codes(self.codes.values[place : place + 1], self.codes.space)
        told = (ranges, card, self.meanings, self.motions)
        return Character(self.generator, code, self.attributes, steps, *told)

"""Writes latents of the evaluation of edits, or one of the original's, as character files.

python scripts/export_character.py tested artifacts/evaluate_v8 best artifacts/characters/mina.safetensors
python scripts/export_character.py chosen artifacts/evaluate_v9 artifacts/characters
python scripts/export_character.py original ohlora_z_vectors.csv ohlora_w_group_names.csv 83 mina.safetensors \
    --generator artifacts/original_v8/generator.safetensors --directions artifacts/original_v8/directions.safetensors

A tested latent is calibrated: strength 1 moves an attribute by one standard deviation, as its test measured it. An
original one keeps the original's units (1 is one unit vector), turned upwards.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.datamodules.images import check_columns, numbers_in
from ohlora.directions.edits import Grid
from ohlora.errors import ConfigError, DataError
from ohlora.formats import network_files
from ohlora.formats.direction_files import load_directions
from ohlora.networks.codes import Codes, Space
from ohlora.pipeline import require
from ohlora.utils.commands import command
from ohlora.utils.files import read_rows, shortened


def original(latents: Path, group_names: Path, case: int, generator: Path, directions: Path) -> Character:
    """One of the original's latents with the directions of its group.

    Raises:
        DataError: If the tables do not fit each other, the generator or the directions.
        ConfigError: If there is no such case.
    """
    for path in (latents, group_names):
        require(path)
    groups = read_rows(group_names)
    check_columns(group_names, groups, ["case", "group_name"])
    vectors = read_rows(latents)
    if len(groups) != len(vectors):
        raise DataError(f"{latents} has {len(vectors)} rows and {group_names} {len(groups)}; expected as many")
    places = [k for k, row in enumerate(groups) if row["case"] == str(case)]
    if not places:
        cases = shortened((row["case"] for row in groups), ", ")
        raise ConfigError(f"{group_names} has no case {case}; it has {cases}")
    if len(places) > 1:
        double = " and ".join(str(groups[k]) for k in places)
        raise DataError(f"{group_names} has case {case} on {double}; expected it once")
    network, found = network_files.load_generator(generator), load_directions(directions)
    if len(vectors[0]) != network.z_dim + network.c_dim:
        raise DataError(f"{latents} has {len(vectors[0])} columns; {generator} takes {network.z_dim} + {network.c_dim}")
    name = groups[places[0]]["group_name"]
    if name not in found.groups.names:
        raise DataError(f"{directions} has no group {name}; it has {', '.join(found.groups.names)}")
    vector = torch.from_numpy(numbers_in(latents, [vectors[places[0]]], list(vectors[0])))
    label = vector[:, network.z_dim :] if network.c_dim else None
    with torch.inference_mode():
        w = network.map(vector[:, : network.z_dim], label).values
    levels = Grid.of(found.attributes).levels
    ranges = {a: (min(levels[a]), max(levels[a])) for a in found.attributes}
    card = {
        "case": case,
        "group": name,
        "method": found.method,
        "unit": "one unit vector in W, as in the original, turned upwards",
        "subject": "a synthetic face; it shows no real person",
    }
    steps = Codes(found.steps.values[found.groups.names.index(name)], found.space)
    return Character(network, Codes(w.clone(), Space.W), found.attributes, steps, ranges, card)


def case(word: str) -> int | str:
    """A latent's number, or ``best``."""
    return word if word == "best" else int(word)


@command("export_character")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes a latent as a character file.")
    commands = parser.add_subparsers(dest="command", required=True)
    tested = argparse.ArgumentParser(add_help=False)
    tested.add_argument("report", type=Path, metavar="TEST_DIR", help="folder of the evaluation")
    for name in ("generator", "directions"):
        tested.add_argument(f"--{name}", type=Path, help=f"the {name} that was tested (default: as the report says)")
    command = commands.add_parser("tested", parents=[tested], help="a latent of the evaluation of edits")
    command.add_argument("case", type=case, metavar="CASE", help="number of the latent, or best")
    command.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    command = commands.add_parser("chosen", parents=[tested], help="all that were kept in the studio (choices.csv)")
    command.add_argument("target", type=Path, metavar="OUT_DIR", help="folder to write to, a file per character")
    command = commands.add_parser("original", help="one of the original's latents")
    command.add_argument("latents", type=Path, metavar="Z_CSV", help="ohlora_z_vectors.csv")
    command.add_argument("groups", type=Path, metavar="GROUPS_CSV", help="ohlora_w_group_names.csv")
    command.add_argument("case", type=int, metavar="CASE", help="number of the latent")
    command.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    for name in ("generator", "directions"):
        command.add_argument(f"--{name}", type=Path, required=True, help=f"the imported {name}")
    given = parser.parse_args(args)
    if given.command == "original":
        found = {given.target: original(given.latents, given.groups, given.case, given.generator, given.directions)}
    else:
        report = Report.load(given.report, given.generator, given.directions)
        if given.command == "tested":
            found = {given.target: report.character(report.place_of(given.case))}
        else:
            cases = report.chosen()
            found = {given.target / f"{c:04d}.safetensors": report.character(report.place_of(c)) for c in cases}
    for path, character in found.items():
        character.save(path)
    for path, character in found.items():
        said = ", ".join(f"{name} {low:+.2f} … {high:+.2f}" for name, (low, high) in character.ranges.items())
        print(f"{path}: {said} ({character.card['unit']})")


if __name__ == "__main__":
    sys.exit(main())

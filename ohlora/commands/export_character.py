"""Writes latents of the evaluation of edits, or one of the original's, as character files or web pages.

A tested latent is calibrated: strength 1 moves an attribute by one z-score of the data, as its test measured it. An
original one keeps the original's units (1 is one unit vector), turned upwards. A file that ends in ``.html`` is a page
on which the character is steered (:mod:`ohlora.characters.page`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ohlora import handover
from ohlora.errors import ConfigError, DataError
from ohlora.pipeline import require
from ohlora.utils.commands import Parser, arguments, command
from ohlora.utils.files import read_rows, shortened

if TYPE_CHECKING:
    from ohlora.characters.character import Character


def original(latents: Path, group_names: Path, case: int, generator: Path, directions: Path) -> Character:
    """One of the original's latents with the directions of its group.

    Raises:
        DataError: If the tables do not fit each other, the generator or the directions.
        ConfigError: If there is no such case.
    """
    import torch

    from ohlora.attributes import recipe
    from ohlora.characters.character import Character
    from ohlora.datamodules.images import check_columns, numbers_in
    from ohlora.directions.edits import Grid, Steps
    from ohlora.formats import network_files
    from ohlora.formats.direction_files import load_directions
    from ohlora.networks.codes import Codes, Space

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
    levels = Grid.of(found.attributes, recipe().grid).levels
    ranges = {a: (min(levels[a]), max(levels[a])) for a in found.attributes}
    card = {
        "case": case,
        "group": name,
        "method": found.method,
        "unit": found.unit,
        "subject": "a synthetic face; it shows no real person",
    } | handover.marked(handover.marks(found.provenance))
    steps = Steps(Codes(found.steps.values[[found.groups.names.index(name)]], found.space))
    told = (ranges, card, *recipe().described(found.attributes))
    return Character(network, Codes(w.clone(), Space.W), found.attributes, steps, *told)


def check_sliders(names: list[str] | None, target: Path, attributes: tuple[str, ...] = ()) -> None:
    """Insists on sliders that a page can have.

    Args:
        names: Those that were asked for.
        target: The file to write.
        attributes: Those of the character, once it is known.

    Raises:
        ConfigError: If it is no page, there are too many, one is named twice, or the character does not have one.
    """
    if names is None:
        return
    from ohlora.characters.page import ENDING, SLIDERS

    if target.suffix.lower() != ENDING:
        raise ConfigError(f"--sliders is for a page, and {target} is none; end its name in {ENDING}")
    if not 1 <= len(set(names)) == len(names) <= SLIDERS:
        raise ConfigError(f"--sliders is {' '.join(names)}; expected one to {SLIDERS} attributes, each once")
    if attributes and (unknown := [name for name in names if name not in attributes]):
        raise ConfigError(f"--sliders names {', '.join(unknown)}; the character has {', '.join(attributes)}")


def case(word: str) -> int | str:
    """A latent's number, or ``best``."""
    return word if word == "best" else int(word)


@command("ohlora export-character")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "export-character",
        "Writes latents as character files, or as web pages that need no server: of the evaluation of edits, or the "
        "original's.",
        "tested artifacts/evaluate_v9 best artifacts/characters/mina.safetensors",
        "saved artifacts/characters/mina.safetensors mina.html",
        "chosen artifacts/evaluate_v9 artifacts/characters",
        "original ohlora_z_vectors.csv ohlora_w_group_names.csv 83 mina.safetensors "
        "--generator generator.safetensors --directions directions.safetensors",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    tested = Parser(add_help=False)
    tested.add_argument("report", type=Path, metavar="TEST_DIR", help="folder of the evaluation")
    for name in ("generator", "directions"):
        tested.add_argument(
            f"--{name}",
            type=Path,
            metavar="FILE",
            help=f"{name} that the evaluation used (default: as the report says)",
        )
    kind = kinds.add_parser("tested", parents=[tested], help="a latent of the evaluation of edits")
    kind.add_argument("case", type=case, metavar="CASE", help="number of the latent, or best")
    single = [kind]
    kind = kinds.add_parser("chosen", parents=[tested], help="all that were kept in the studio (choices.csv)")
    kind.add_argument("target", type=Path, metavar="OUT_DIR", help="folder to write to, a file per character")
    kind = kinds.add_parser("saved", help="a character file")
    kind.add_argument("character", type=Path, metavar="CHARACTER", help="the character's file")
    single.append(kind)
    kind = kinds.add_parser("original", help="one of the original's latents")
    kind.add_argument("latents", type=Path, metavar="Z_CSV", help="ohlora_z_vectors.csv")
    kind.add_argument("groups", type=Path, metavar="GROUPS_CSV", help="ohlora_w_group_names.csv")
    kind.add_argument("case", type=int, metavar="CASE", help="number of the latent")
    single.append(kind)
    for name in ("generator", "directions"):
        kind.add_argument(f"--{name}", type=Path, required=True, metavar="FILE", help=f"the imported {name}")
    for kind in single:
        kind.add_argument("target", type=Path, metavar="OUT", help="the file to write; .html makes it a web page")
        kind.add_argument(
            "--sliders", nargs="+", metavar="NAME", help="what a page steers, four at most (default: the first four)"
        )
    given = parser.parse_args(args)
    sliders = given.sliders if "sliders" in given else None
    check_sliders(sliders, given.target)
    if given.kind == "saved":
        require(given.character)
        from ohlora.characters.character import Character

        found = {given.target: Character.load(given.character)}
    elif given.kind == "original":
        found = {given.target: original(given.latents, given.groups, given.case, given.generator, given.directions)}
    else:
        require(given.report, folder=True)
        from ohlora.characters.reports import Report

        report = Report.load(given.report, given.generator, given.directions)
        handover.warn("a character of this evaluation", report.unfit)
        if given.kind == "tested":
            found = {given.target: report.character(report.place_of(given.case))}
        else:
            found = report.characters(given.target)
    from ohlora.characters import page

    for path, character in found.items():
        if path.suffix.lower() == page.ENDING:
            check_sliders(sliders, path, character.attributes)
            print(f"{path}: {page.write(path, character, sliders or ())}")
        else:
            character.save(path)
            said = ", ".join(f"{name} {low:+.2f} … {high:+.2f}" for name, (low, high) in character.ranges.items())
            print(f"{path}: {said} (a unit: {character.unit})")

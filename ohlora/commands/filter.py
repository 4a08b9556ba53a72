"""Keeps the images whose scores pass every rule, and says what each rule costs.

The table has a header, a column that numbers the images (index or img_no), and a column per attribute, named by it with
or without ``_score``. The result has the same columns, one row per kept image, paths relative to itself.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ohlora import pipeline
from ohlora.errors import ConfigError, DataError
from ohlora.pipeline import require
from ohlora.rules import Rule, concept
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import Row, located, read_rows, shortened, write_rows
from ohlora.worlds import DEFAULT, SHIPPED


def passing(source: Path, rows: list[Row], rules: list[Rule]) -> np.ndarray:
    """Which rows pass which rules: rows × rules, boolean.

    Raises:
        DataError: If the table lacks a rule's column, or a value is not a number.
    """
    from ohlora.datamodules.images import attribute_column, numbers_in

    columns = [attribute_column(source, rows[0], rule.attribute) for rule in rules]
    missing = [rule.attribute for rule, found in zip(rules, columns, strict=True) if found is None]
    if missing:
        raise DataError(f"{source} has no column for {', '.join(missing)}; the header has {shortened(rows[0], ', ')}")
    # In double precision, since limits such as 0.01 are compared with printed decimals.
    values = numbers_in(source, rows, [c for c in columns if c is not None], np.float64)
    return np.stack([rule.holds(values[:, k]) for k, rule in enumerate(rules)], axis=1)


def filter_images(source: Path, target: Path, rules: list[Rule], from_index: int) -> None:
    """Writes the rows that pass, and prints what each rule costs."""
    require(source)
    from ohlora.datamodules.images import image_numbers, paths_of

    rows = read_rows(source)
    numbers = image_numbers(source, rows)
    if numbers is None:
        raise DataError(f"{source} has no column that numbers the images; expected index or img_no")
    if "path" in rows[0]:
        paths_of(source, rows)
    considered = [row for row, number in zip(rows, numbers, strict=True) if number >= from_index]
    if not considered:
        raise DataError(f"{source}: none of {len(rows)} images has an index of {from_index} or more")
    passes = passing(source, considered, rules)
    kept = np.asarray(passes.all(axis=1))
    print(f"{len(considered)} of {len(rows)} images considered")
    for k, rule in enumerate(rules):
        without = np.delete(passes, k, axis=1).all(axis=1)
        print(f"  {rule!s:20} passed by {passes[:, k].sum()}; {int((without & ~kept).sum())} fail it alone")
    result = [moved(considered[k], source.parent, target.parent) for k in np.flatnonzero(kept)]
    if not result:
        raise DataError(f"no image of {source} passes all rules; loosen one of those above")
    write_rows(target, result)
    print(f"{len(result)} images kept: {target}")


def moved(row: Row, source: Path, target: Path) -> dict[str, str]:
    """A row whose paths are relative to another folder."""
    if "path" not in row:
        return row
    return row | {"path": Path(os.path.relpath(located(row["path"], [source]), target)).as_posix()}


@command("ohlora filter")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "filter",
        "Keeps the images whose scores pass every rule, and says what each rule costs.",
        "artifacts/score_v1/scores.csv artifacts/filter_v1/manifest.csv "
        "--keep 'gender >= 0.92' --keep 'age <= 0.008' --from-index 2000",
    )
    parser.add_argument("scores", type=Path, metavar="SCORES.csv", help="table of scores")
    parser.add_argument("output", type=Path, metavar="OUT.csv", help="manifest to write")
    parser.add_argument(
        "--keep",
        action="append",
        metavar="RULE",
        help="for example 'gender >= 0.92' (default: the rules of the world's concept)",
    )
    parser.add_argument(
        "--world",
        default=DEFAULT,
        help=f"whose attributes are meant: {', '.join(SHIPPED)}, or the path of a world's file (default: {DEFAULT})",
    )
    parser.add_argument("--from-index", type=int, default=0, metavar="I", help="leave out images numbered below I")
    given = parser.parse_args(args)
    world = pipeline.world(given.world)
    pipeline.use(world)
    try:
        rules = list(map(Rule.parse, given.keep)) if given.keep else concept()
    except ConfigError as error:
        raise ConfigError(f"--keep: {error}") from error
    if not rules:
        raise ConfigError(f"{world.attributes.where} declares no concept; name rules with --keep")
    filter_images(given.scores, given.output, rules, given.from_index)

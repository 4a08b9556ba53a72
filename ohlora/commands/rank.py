"""Makes scores of images from comparisons of two: which has more of an attribute.

The table of comparisons is that of the studio: path_a, path_b, attribute, answer (a, b or equal), and perhaps
annotator. Scores are the strengths of the Bradley–Terry model as z-scores, and go into the attribute's column of a
table that property networks are trained from; a second column says how often each image was compared.
"""

from __future__ import annotations

from pathlib import Path

from ohlora import pipeline
from ohlora.errors import DataError
from ohlora.pipeline import require
from ohlora.utils import checks
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import located, read_rows
from ohlora.worlds import DEFAULT, SHIPPED


def pictures_of(table: Path, folder: Path | None) -> list[Path]:
    """The images that a table names, in order; none where it does not exist yet.

    Raises:
        DataError: If it has no column ``path``.
    """
    rows = read_rows(table) if table.exists() else []
    if rows and "path" not in rows[0]:
        raise DataError(f"{table} has no column path; expected one that names the images, as networks need it")
    return [located(row["path"], [table.parent, *([] if folder is None else [folder])]).resolve() for row in rows]


@command("ohlora rank")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "rank",
        "Makes scores from comparisons of two images, by the Bradley-Terry model.",
        "artifacts/toy/labels/labels_2k_comparisons.csv artifacts/toy/labels/ranked.csv --world toy",
        "comparisons.csv labels.csv --world mine.yaml --attributes smile --images photos --replace",
    )
    parser.add_argument("comparisons", type=Path, metavar="COMPARISONS.csv", help="comparisons, as the studio writes")
    parser.add_argument(
        "table", type=Path, metavar="TABLE.csv", help="table of labels to write the scores into, or a new one"
    )
    parser.add_argument(
        "--attributes", nargs="+", metavar="NAME", help="attributes to rank by (default: all that were compared)"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="folder to which paths may be relative, too")
    parser.add_argument(
        "--prior",
        type=float,
        metavar="S",
        default=3.0,
        help="standard deviation of the strengths' prior, in the logarithm of odds; smaller values draw images of few "
        "comparisons to the middle (default: 3)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace values of the attribute that were not made of comparisons"
    )
    parser.add_argument(
        "--world",
        default=DEFAULT,
        help=f"whose attributes are meant: {', '.join(SHIPPED)}, or the path of a world's file (default: {DEFAULT})",
    )
    given = parser.parse_args(args)
    checks.above(0, **{"--prior": given.prior})
    require(given.comparisons)
    pipeline.use(pipeline.world(given.world))
    from ohlora.datamodules.comparisons import comparable, ranking, read_comparisons
    from ohlora.studio.comparisons import write_rankings

    for name in given.attributes or ():
        comparable(name, "--attributes: ")
    compared = read_comparisons(given.comparisons, given.images)
    names = given.attributes or list(dict.fromkeys(one.attribute for one in compared))
    if not names:
        raise DataError(f"{given.comparisons} holds no comparison; expected some to make scores from")
    rankings = [ranking(compared, name, given.prior) for name in names]
    folders = [] if given.images is None else [given.images]
    compared_images = (path for found in rankings for path in found.paths)
    pictures = list(dict.fromkeys([*pictures_of(given.table, given.images), *compared_images]))
    write_rankings(rankings, given.table, pictures, folders, given.replace)
    for found in rankings:
        print("\n  ".join(found.lines))
    print(f"{given.table}: z-scores of {', '.join(names)}")

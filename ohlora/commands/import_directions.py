"""Reads the original's directions, a folder of CSV files, and writes them as one file, turned upwards."""

from __future__ import annotations

from pathlib import Path

from ohlora.utils.commands import arguments, command


@command("ohlora import-directions")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "import-directions",
        "Reads the original's directions, a folder of CSV files, and writes them as one file, turned upwards.",
        "property_score_vectors artifacts/original_v8/directions.safetensors --medians all_scores_v2_cnn_medians.csv",
    )
    parser.add_argument("source", type=Path, metavar="SRC_DIR", help="folder of eyes_change_w_vector_hhhh.csv …")
    parser.add_argument("target", type=Path, metavar="DEST", help="the file to write")
    parser.add_argument(
        "--medians", type=Path, metavar="CSV", help="the group medians (columns value_type, hair_color, …)"
    )
    given = parser.parse_args(args)
    from ohlora.formats.direction_files import read_original, save_directions

    directions = read_original(given.source, given.medians)
    save_directions(directions, given.target)
    count = len(directions.groups.names)
    print(f"{given.target}: {', '.join(directions.attributes)} in {count} groups, turned upwards")
    if not given.medians:
        print("without --medians these directions cannot find the group of a new latent")

"""Reads directions of others: the original's, a folder of CSV files, and InterFaceGAN's boundaries, .npy files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ohlora.errors import ConfigError
from ohlora.pipeline import require
from ohlora.utils.commands import arguments, command

if TYPE_CHECKING:
    from ohlora.formats.boundaries import LatentSpace


def import_original(source: Path, target: Path, medians: Path | None) -> None:
    """Reads the original's folder and turns its directions upwards."""
    from ohlora.formats.direction_files import read_original, save_directions

    directions = read_original(source, medians)
    save_directions(directions, target)
    count = len(directions.groups.names)
    print(f"{target}: {', '.join(directions.attributes)} in {count} groups, turned upwards")
    if not medians:
        print("without --medians these directions cannot find the group of a new latent")


def import_boundaries(
    sources: Sequence[Path], target: Path, generator: Path, space: LatentSpace, attributes: Sequence[str] | None
) -> None:
    """Reads InterFaceGAN's boundaries for one generator."""
    from ohlora.formats import network_files
    from ohlora.formats.boundaries import LATENTS, attribute_of, read_boundaries
    from ohlora.formats.direction_files import save_directions

    names = list(attributes) if attributes else [attribute_of(source) for source in sources]
    directions, cosines = read_boundaries(sources, names, network_files.load_generator(generator), space)
    origin = {**directions.provenance, "generator": network_files.fingerprint(generator)}
    save_directions(replace(directions, provenance=origin), target)
    print(f"{target}: {', '.join(names)}, upwards; a unit of strength is one unit of length in {space.upper()}")
    for name, cosine in cosines.items():
        print(
            f"{name}: one direction in W stands for the one in Z; with it, the changes of {LATENTS:,} latents have a "
            f"mean cosine of {cosine:.2f}"
        )


@command("ohlora import-directions")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "import-directions",
        "Reads directions of others: the original's, a folder of CSV files, which it turns upwards, or InterFaceGAN's "
        "boundaries, .npy files.",
        "property_score_vectors artifacts/original_v8/directions.safetensors --medians all_scores_v2_cnn_medians.csv",
        "stylegan_ffhq_age_w_boundary.npy directions.safetensors --space w --generator generator.safetensors",
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="SRC", help="the folder, or boundaries")
    parser.add_argument("target", type=Path, metavar="DEST", help="the file to write")
    parser.add_argument(
        "--medians", type=Path, metavar="CSV", help="folder: the group medians (columns value_type, hair_color, …)"
    )
    parser.add_argument("--generator", type=Path, metavar="G", help="boundaries: the generator they are directions of")
    parser.add_argument("--space", choices=("w", "z"), help="boundaries: where they live, as whoever made them says")
    parser.add_argument(
        "--attributes", nargs="+", metavar="A", help="boundaries: their attributes (default: by the names of the files)"
    )
    given = parser.parse_args(args)
    for source in given.sources:
        require(source, folder=not source.is_file())
    of_boundaries = (given.generator, given.space, given.attributes)
    if not given.sources[0].is_file():
        if len(given.sources) > 1 or any(of_boundaries):
            raise ConfigError("a folder of the original's is imported alone, with no option but --medians")
        import_original(given.sources[0], given.target, given.medians)
    elif given.generator is None or given.space is None or given.medians is not None:
        raise ConfigError(
            f"{given.sources[0]} is a file and taken for a boundary, which needs --generator and --space (those with "
            "_w_ in their name live in w, InterFaceGAN's others in z) and no --medians"
        )
    else:
        import_boundaries(given.sources, given.target, given.generator, given.space, given.attributes)

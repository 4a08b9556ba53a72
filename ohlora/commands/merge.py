"""Joins attribute networks into one, without retraining: property and hairstyle CNN into the search CNN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ohlora.errors import ConfigError
from ohlora.pipeline import require
from ohlora.utils.commands import arguments, command

if TYPE_CHECKING:
    from ohlora.networks.attribute_cnn import AttributeCNN


def merge_files(sources: list[Path], target: Path) -> AttributeCNN:
    """Reads networks, and writes one with the branches of all.

    Raises:
        ConfigError: If a file holds no attribute CNN, or two predict the same attribute.
    """
    for source in sources:
        require(source)
    from ohlora.formats import network_files
    from ohlora.networks.attribute_cnn import AttributeCNN, merge

    networks = []
    for source in sources:
        network = network_files.load_attributes(source)
        if not isinstance(network, AttributeCNN):
            raise ConfigError(f"{source} holds an ensemble; expected a single attribute CNN")
        networks.append(network)
    try:
        merged = merge(networks)
    except ValueError as error:
        raise ConfigError(f"{', '.join(str(source) for source in sources)}: {error}") from error
    origins = {source.name: network_files.read_metadata(source)["provenance"] for source in sources}
    network_files.save_network(merged, target, {"merged_from": origins})
    return merged


@command("ohlora merge")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "merge",
        "Joins attribute networks into one, without retraining.",
        "artifacts/property_cnn/property.safetensors artifacts/hairstyle_cnn/hairstyle.safetensors "
        "artifacts/merged/merged.safetensors",
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="NETWORK", help="attribute CNNs to join")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    given = parser.parse_args(args)
    merged = merge_files(given.sources, given.target)
    print(f"{given.target}: {', '.join(merged.outputs)}")

"""Joins attribute networks into one, without retraining: of different attributes, or several that judge together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ohlora.errors import ConfigError
from ohlora.pipeline import require
from ohlora.utils.commands import arguments, command

if TYPE_CHECKING:
    from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble


def merge_files(sources: list[Path], target: Path) -> AttributeCNN | AttributeEnsemble:
    """Reads attribute CNNs, and writes them as one network.

    Where they predict different attributes, it has the branches of all. Where all predict the same ones, it is an
    ensemble.

    Raises:
        ConfigError: If a file holds an ensemble, or they cannot be joined.
    """
    for source in sources:
        require(source)
    from ohlora.formats import network_files
    from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble, merge

    networks = []
    for source in sources:
        network = network_files.load_attributes(source)
        if not isinstance(network, AttributeCNN):
            raise ConfigError(f"{source} holds an ensemble; expected a single attribute CNN")
        networks.append(network)
    if len({network_files.fingerprint(source) for source in sources}) < len(sources):
        raise ConfigError(f"{', '.join(map(str, sources))}: the same network is there more than once; leave one out")
    together = len(networks) > 1 and len({frozenset(network.outputs) for network in networks}) == 1
    try:
        merged = AttributeEnsemble.of(networks) if together else merge(networks)
    except ValueError as error:
        raise ConfigError(f"{', '.join(str(source) for source in sources)}: {error}") from error
    named = Counter(source.name for source in sources)
    origins = {
        f"{place} {source.name}" if named[source.name] > 1 else source.name: network_files.provenance(source)
        for place, source in enumerate(sources, 1)
    }
    network_files.save_network(merged, target, {"merged_from": origins})
    return merged


@command("ohlora merge")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "merge",
        "Joins attribute networks into one, without retraining. Those of different attributes become one CNN; several "
        "of the same attributes become an ensemble, which is harder to deceive than one of them.",
        "artifacts/property_cnn/property.safetensors artifacts/hairstyle_cnn/hairstyle.safetensors "
        "artifacts/merged/merged.safetensors",
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="NETWORK", help="attribute CNNs to join")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    given = parser.parse_args(args)
    merged = merge_files(given.sources, given.target)
    about = f"{len(given.sources)} CNNs that judge together: " if hasattr(merged, "members") else ""
    print(f"{given.target}: {about}{', '.join(merged.outputs)}")

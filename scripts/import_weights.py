"""Converts a GenForce or original Oh-LoRA checkpoint into ohlora's network files.

python scripts/import_weights.py stylegan_celeba_partial256x256.pth artifacts/original
python scripts/import_weights.py stylegan_celeba_partial256x256.pth artifacts/original_labelled --add-labels 7
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from ohlora import checkpoints
from ohlora.errors import ConfigError, OhloraError
from ohlora.networks.stylegan import Generator, add_labels


def convert(source: Path, destination: Path, raw: bool, labels: int, seed: int) -> list[Path]:
    """Reads all of a foreign checkpoint, then writes its networks.

    Returns:
        The files written.
    """
    foreign = checkpoints.read_foreign(source, raw)
    networks = foreign.networks
    provenance = {"source": source.name, "sha256": checkpoints.fingerprint(source), "averaged": foreign.averaged}
    if labels:
        try:
            torch.manual_seed(seed)
            networks = {name: add_labels(network, labels) for name, network in networks.items()}
        except ValueError as error:
            raise ConfigError(f"--add-labels {labels}: {error}") from error
        provenance["labels_added"] = labels
    written = []
    for name, network in networks.items():
        path = destination / f"{name}.safetensors"
        checkpoints.save_network(network, path, provenance)
        sizes = f"{network.resolution}×{network.resolution}, {network.label_size} label values"
        kind = "averaged weights" if isinstance(network, Generator) and foreign.averaged else "weights"
        print(f"{path}: {name}, {sizes}, {kind} of {source.name}")
        written.append(path)
    return written


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Converts a GenForce or Oh-LoRA checkpoint into ohlora's files.")
    parser.add_argument("source", type=Path, metavar="SRC", help="the .pth or .pt file")
    parser.add_argument("destination", type=Path, metavar="DEST_DIR", help="folder for generator and discriminator")
    parser.add_argument("--raw", action="store_true", help="take 'generator' even where 'generator_smooth' is present")
    parser.add_argument("--add-labels", type=int, default=0, metavar="K", help="add K label inputs to both networks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the new label embedding (default: 0)")
    given = parser.parse_args(args)
    try:
        convert(given.source, given.destination, given.raw, given.add_labels, given.seed)
    except OhloraError as error:
        print(f"import_weights: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes ohlora's network files in the layout of GenForce's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ohlora.utils.commands import arguments, command
from ohlora.utils.files import replacing

if TYPE_CHECKING:
    from torch import Tensor


def export(generator: Path, discriminator: Path | None, destination: Path) -> dict[str, dict[str, Tensor]]:
    """Writes one checkpoint, whole or not at all.

    The generator is written twice, as ``generator`` and as the averaged ``generator_smooth``, which is what GenForce
    samples from; ohlora's products are averaged already.

    Returns:
        What was written: entry → state dict.
    """
    import torch

    from ohlora.formats import foreign, network_files

    network = network_files.load_generator(generator)
    if len(network.label_table):
        count = len(network.label_table)
        print(f"{generator}: its {count} training labels have no place in the layout and stay behind")
    state = foreign.to_foreign(network)
    entries = {"generator": state, "generator_smooth": state}
    if discriminator is not None:
        entries["discriminator"] = foreign.to_foreign(network_files.load_discriminator(discriminator))
    with replacing(destination) as part:
        torch.save(entries, part)
    return entries


@command("ohlora export-weights")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "export-weights",
        "Writes network files in the layout of GenForce's checkpoints.",
        "artifacts/finetune_v8/generator.safetensors artifacts/finetune_v8/discriminator.safetensors stylegan.pth",
    )
    parser.add_argument("generator", type=Path, metavar="GENERATOR", help="a generator's .safetensors")
    parser.add_argument("discriminator", type=Path, nargs="?", metavar="DISCRIMINATOR", help="a discriminator's, too")
    parser.add_argument("destination", type=Path, metavar="OUT.pth", help="the file to write")
    given = parser.parse_args(args)
    entries = export(given.generator, given.discriminator, given.destination)
    print(f"{given.destination}: {', '.join(entries)}")

"""Writes ohlora's network files in the layouts of others: GenForce's for StyleGAN, rosinality's for StyleGAN2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ohlora.errors import ConfigError
from ohlora.pipeline import require
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import replacing

if TYPE_CHECKING:
    from ohlora.networks import generator as networks


def export(generator: Path, discriminator: Path | None, destination: Path) -> list[str]:
    """Writes one checkpoint, whole or not at all.

    The generator is written twice, as the one of training and as the averaged one, which is what others sample from;
    ohlora's products are averaged already.

    Returns:
        The names of the entries written.

    Raises:
        ConfigError: If generator and discriminator are of different families.
    """
    for source in (generator, discriminator):
        if source is not None:
            require(source)
    import torch

    from ohlora.formats import network_files
    from ohlora.networks import stylegan2

    network = network_files.load_generator(generator)
    other = None if discriminator is None else network_files.load_discriminator(discriminator)
    if other is not None and other.kind != network.kind:
        raise ConfigError(f"{generator} is of kind {network.kind}, {discriminator} of {other.kind}; expected the same")
    if len(network.label_table):
        count = len(network.label_table)
        print(f"{generator}: its {count} training labels have no place in the layout and stay behind")
    entries = _rosinality(network, other) if isinstance(network, stylegan2.Generator) else _genforce(network, other)
    with replacing(destination) as part:
        torch.save(entries, part)
    return list(entries)


def _genforce(generator: networks.Generator, discriminator: networks.Discriminator | None) -> dict[str, object]:
    from ohlora.formats import foreign

    state = foreign.to_foreign(generator)
    entries: dict[str, object] = {"generator": state, "generator_smooth": state}
    return entries if discriminator is None else entries | {"discriminator": foreign.to_foreign(discriminator)}


def _rosinality(generator: networks.Generator, discriminator: networks.Discriminator | None) -> dict[str, object]:
    from ohlora.formats.rosinality_networks import to_rosinality, what_differs
    from ohlora.networks import stylegan2

    assert isinstance(generator, stylegan2.Generator)
    state = to_rosinality(generator)
    entries: dict[str, object] = {"g": state, "g_ema": state, "latent_avg": generator.w_avg.clone()}
    said = what_differs(generator)
    if isinstance(discriminator, stylegan2.Discriminator):
        entries["d"] = to_rosinality(discriminator)
        said += what_differs(discriminator)
    for sentence in dict.fromkeys(said):
        print(f"rosinality's stylegan2-pytorch: {sentence}")
    return entries


@command("ohlora export-weights")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "export-weights",
        "Writes networks as others read them: StyleGAN as a checkpoint of GenForce, StyleGAN2 as one of rosinality's "
        "stylegan2-pytorch.",
        "artifacts/finetune_v8/generator.safetensors artifacts/finetune_v8/discriminator.safetensors stylegan.pth",
    )
    parser.add_argument("generator", type=Path, metavar="GENERATOR", help="a generator's .safetensors")
    parser.add_argument("discriminator", type=Path, nargs="?", metavar="DISCRIMINATOR", help="a discriminator's, too")
    parser.add_argument("destination", type=Path, metavar="OUT", help="the .pth or .pt file to write")
    given = parser.parse_args(args)
    entries = export(given.generator, given.discriminator, given.destination)
    print(f"{given.destination}: {', '.join(entries)}")

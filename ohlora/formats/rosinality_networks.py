"""StyleGAN2 networks in the layout of rosinality's stylegan2-pytorch, read and written.

Kernels are stored at unit scale in both; rosinality divides them by √fan_in before demodulation, which takes that out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ohlora.errors import FormatError
from ohlora.formats.layouts import FIR, Layout, Shapes, channel_plan, check_colours, filled, numbers, sizes
from ohlora.networks.sampling import counted_latents
from ohlora.networks.stylegan import block_resolutions, channels
from ohlora.networks.stylegan2 import Discriminator, Generator

MBSTD_GROUP_SIZE = 4
"""What rosinality's code has built in."""
MEAN_LATENTS = 10_000
"""Latents for the mean style where a file has none."""


def generator_of(state: Mapping[str, Tensor], latent_avg: Tensor | None, where: str) -> Generator:
    """The generator of a state dict.

    Args:
        state: The state dict.
        latent_avg: The mean style; without it, the mean of those of 10,000 latents takes its place.
        where: Where it comes from, for messages.

    Raises:
        FormatError: If its size is not supported, or it is damaged.
    """
    convolutions = numbers(state, r"convs\.(\d+)\.conv\.weight")
    dense = numbers(state, r"style\.(\d+)\.weight")
    if not convolutions or not dense:
        raise FormatError(f"{where}: no convolutions or no style layers found; expected rosinality's generator")
    check_colours(sizes(state, "to_rgb1.conv.weight", 5, where)[1], f"{where} makes")
    start = sizes(state, "input.input", 4, where)
    if start[2:] != (4, 4):
        raise FormatError(f"{where} begins at {start[2]}×{start[3]} pixels; expected 4×4, as for square images")
    count = {4: sizes(state, "conv1.conv.weight", 5, where)[1]}
    for k in range(1, len(convolutions), 2):
        count[8 << (k // 2)] = sizes(state, f"convs.{k}.conv.weight", 5, where)[1]
    base, maximum = channel_plan(count, where)
    w_dim, z_dim = sizes(state, "style.1.weight", 2, where)
    if latent_avg is not None and tuple(latent_avg.shape) != (w_dim,):
        raise FormatError(f"{where}: its latent_avg has shape {tuple(latent_avg.shape)}; expected ({w_dim},)")
    build = partial(
        Generator,
        resolution=max(count),
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=len(dense),
        channel_base=base,
        channel_max=maximum,
        conv_clamp=None,
    )
    average = torch.zeros(w_dim) if latent_avg is None else latent_avg
    generator = filled(build, generator_layout, state, where, {"w_avg": average})
    if latent_avg is None:
        with torch.no_grad():
            generator.w_avg.copy_(generator.map(*counted_latents(generator, 0, range(MEAN_LATENTS))).values.mean(dim=0))
    return generator


def discriminator_of(state: Mapping[str, Tensor], where: str) -> Discriminator:
    """The discriminator of a state dict.

    Raises:
        FormatError: If its size is not supported, or it is damaged.
    """
    blocks = numbers(state, r"convs\.([1-9]\d*)\.conv1\.0\.weight")
    if not blocks:
        raise FormatError(f"{where}: no residual blocks found; expected rosinality's discriminator")
    check_colours(sizes(state, "convs.0.0.weight", 4, where)[1], f"{where} takes")
    resolution = 4 << len(blocks)
    count = {resolution >> (k - 1): sizes(state, f"convs.{k}.conv1.0.weight", 4, where)[0] for k in blocks}
    count[4] = sizes(state, "final_conv.0.weight", 4, where)[0]
    base, maximum = channel_plan(count, where)
    build = partial(
        Discriminator,
        resolution=resolution,
        channel_base=base,
        channel_max=maximum,
        mbstd_group_size=MBSTD_GROUP_SIZE,
        conv_clamp=None,
    )
    return filled(build, discriminator_layout, state, where)


def generator_layout(generator: Generator) -> Layout:
    """Rosinality's layout of a generator, whose mean style is kept apart from it."""
    keys: dict[str, str] = {}
    reshaped: Shapes = {}
    ours = {key: tuple(value.shape) for key, value in generator.state_dict().items()}
    constants: dict[str, Tensor] = {}

    def add(foreign: str, here: str, *shape: int) -> None:
        """An entry; its shape is ours if none is given."""
        keys[foreign] = here
        if shape:
            reshaped[foreign] = shape

    def add_convolution(foreign: str, here: str) -> None:
        add(f"{foreign}.conv.weight", f"{here}.weight", 1, *ours[f"{here}.weight"])
        for part in ("weight", "bias"):
            add(f"{foreign}.conv.modulation.{part}", f"{here}.affine.{part}")

    for k in range(generator.mapping_layers):
        for part in ("weight", "bias"):
            add(f"style.{k + 1}.{part}", f"mapping.layers.dense{k}.{part}")
    add("input.input", "synthesis.constant", 1, *ours["synthesis.constant"])
    index = 0
    for b, r in enumerate(block_resolutions(generator.resolution)):
        for layer in (0, 1) if r > 4 else (1,):
            foreign, here = f"convs.{index - 1}" if index else "conv1", f"synthesis.block{r}.layer{layer}"
            add_convolution(foreign, here)
            add(f"{foreign}.noise.weight", f"{here}.noise_strength", 1)
            add(f"{foreign}.activate.bias", f"{here}.bias")
            add(f"noises.noise_{index}", f"{here}.noise")
            if r > 4 and layer == 0:
                constants[f"{foreign}.conv.blur.kernel"] = FIR * 4
            index += 1
        foreign, here = f"to_rgbs.{b - 1}" if b else "to_rgb1", f"synthesis.block{r}.to_rgb"
        add_convolution(foreign, here)
        add(f"{foreign}.bias", f"{here}.bias", 1, 3, 1, 1)
        if b:
            constants[f"{foreign}.upsample.kernel"] = FIR * 4
    return Layout(keys, reshaped=reshaped, constants=constants)


def discriminator_layout(discriminator: Discriminator) -> Layout:
    """Rosinality's layout of a discriminator."""
    keys = {"convs.0.0.weight": "from_rgb.weight", "convs.0.1.bias": "from_rgb.bias"}
    constants: dict[str, Tensor] = {}
    for k, r in enumerate(reversed(block_resolutions(discriminator.resolution)[1:]), start=1):
        foreign, here = f"convs.{k}", f"blocks.block{r}"
        keys |= {
            f"{foreign}.conv1.0.weight": f"{here}.layer0.weight",
            f"{foreign}.conv1.1.bias": f"{here}.layer0.bias",
            f"{foreign}.conv2.1.weight": f"{here}.layer1.weight",
            f"{foreign}.conv2.2.bias": f"{here}.layer1.bias",
            f"{foreign}.skip.1.weight": f"{here}.skip",
        }
        constants |= {f"{foreign}.conv2.0.kernel": FIR, f"{foreign}.skip.0.kernel": FIR}
    keys |= {
        "final_conv.0.weight": "epilogue.conv.weight",
        "final_conv.1.bias": "epilogue.conv.bias",
        "final_linear.0.weight": "epilogue.dense.weight",
        "final_linear.0.bias": "epilogue.dense.bias",
        "final_linear.1.weight": "epilogue.score.weight",
        "final_linear.1.bias": "epilogue.score.bias",
    }
    return Layout(keys, constants=constants)


def to_rosinality(network: Generator | Discriminator) -> dict[str, Tensor]:
    """A network's state dict in rosinality's layout; a generator's mean style and label table are not in it.

    Raises:
        FormatError: If the network takes labels, for which the layout has no place.
    """
    if network.c_dim:
        raise FormatError(
            f"the network takes {network.c_dim} label values, for which rosinality's layout has no place; expected one "
            "without labels"
        )
    layout = generator_layout(network) if isinstance(network, Generator) else discriminator_layout(network)
    state, shapes = network.state_dict(), layout.shapes(network)
    exported = {key: state[here].cpu().reshape(shapes[key]).clone() for key, here in layout.keys.items()}
    return exported | {key: value.clone() for key, value in layout.constants.items()}


def what_differs(network: Generator | Discriminator) -> list[str]:
    """What rosinality's code does otherwise with an exported network, a sentence each."""
    said: list[str] = []
    if network.conv_clamp is not None:
        said.append(f"layers are not clamped to ±{network.conv_clamp:g} there, which matters if they reach it")
    count = {r: channels(r, network.channel_base, network.channel_max) for r in block_resolutions(network.resolution)}
    multiplier = count[network.resolution] * network.resolution // 16384 or 1
    if any(c != (512 if r <= 32 else 16384 // r * multiplier) for r, c in count.items()):
        said.append(
            f"its feature maps are min({network.channel_base} / resolution, {network.channel_max}), for "
            "which the table of channels in model.py has to be changed"
        )
    if isinstance(network, Generator) and network.z_dim != network.w_dim:
        said.append(f"latents have {network.z_dim} values and styles {network.w_dim}, which are one number there")
    if isinstance(network, Discriminator) and network.mbstd_group_size != MBSTD_GROUP_SIZE:
        said.append(f"groups of the minibatch standard deviation have {MBSTD_GROUP_SIZE} images there")
    return said

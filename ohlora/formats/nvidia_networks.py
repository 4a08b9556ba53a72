"""Networks of NVIDIA's pickles: StyleGAN2 generators and discriminators, StyleGAN3 generators.

They are checked key by key and shape by shape, and converted; their key names occur here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ohlora.errors import FormatError
from ohlora.formats.foreign_files import Layer, NvidiaNetwork
from ohlora.formats.layouts import FIR, Layout, Shapes, channel_plan, check_colours, filled, numbers, sizes
from ohlora.networks import stylegan2, stylegan3
from ohlora.networks.stylegan import MAPPING_LR_MULTIPLIER, block_resolutions

Layers = Mapping[str, Layer]
MAX_INPUT_SIZE = 4096
"""Largest height and width of a StyleGAN3's input; those of 1024×1024 have 36."""
MAX_LAYER_SIZE = 8192
"""Largest height and width of what a StyleGAN3's layer makes."""
MAX_GROUP = 65536
MAX_FACTOR = 8
MAX_PADDING = 1024
MAX_CLASSES = 4096
"""Largest number of label values; ImageNet has 1000 classes. Generators keep a one-hot label for each."""


def generator_of(network: NvidiaNetwork, where: str) -> stylegan2.Generator | stylegan3.Generator:
    """The generator that a file describes.

    Raises:
        FormatError: If it is of another family, has a size or setting that is not supported, or is damaged.
    """
    if "synthesis.input.freqs" in network.state:
        return _stylegan3(network, where)
    if "synthesis.b4.const" in network.state:
        return _stylegan2_generator(network, where)
    raise FormatError(
        f"{where} is a {network.class_name} whose layers are neither StyleGAN2's nor StyleGAN3's; expected one of them"
    )


def discriminator_of(network: NvidiaNetwork, where: str) -> stylegan2.Discriminator:
    """The discriminator that a file describes; StyleGAN3's is StyleGAN2's.

    Raises:
        FormatError: If it is of another family, has a size or setting that is not supported, or is damaged.
    """
    state, layers = network.state, network.layers
    if "b4.out.weight" not in state:
        raise FormatError(f"{where} is a {network.class_name} and no discriminator of StyleGAN2; expected one")
    resolutions = _resolutions(state, r"b(\d+)\..*", where)
    top = f"b{resolutions[-1]}"
    colours = sizes(state, f"{top}.fromrgb.weight", 4, where)[1]
    check_colours(colours, f"{where} takes")
    # A block's first convolution keeps its number of feature maps; the last block has one of its own.
    count = {r: sizes(state, f"b{r}.conv0.weight", 4, where)[0] for r in resolutions[1:]}
    count[4] = sizes(state, "b4.conv.weight", 4, where)[0]
    c_dim = sizes(state, "mapping.embed.weight", 2, where)[1] if "mapping.embed.weight" in state else 0
    group = _attribute(layers, "b4.mbstd", "group_size", 4)
    if not _is_count(group, 1, MAX_GROUP):
        raise FormatError(f"{where}: groups of the minibatch standard deviation have {group} images; expected a number")
    _check_attribute(layers, [f"b{r}" for r in resolutions], "architecture", "resnet", where)
    convolutions = [f"b{r}.{name}" for r in resolutions for name in ("fromrgb", "conv0", "conv1", "conv")]
    _check_attribute(layers, [*convolutions, "b4.fc"], "activation", "lrelu", where)
    _check_attribute(layers, ["mapping.fc0"], "bias_gain", MAPPING_LR_MULTIPLIER, where)
    base, maximum = channel_plan(count, where)
    build = partial(
        stylegan2.Discriminator,
        resolution=resolutions[-1],
        c_dim=c_dim,
        channel_base=base,
        channel_max=maximum,
        mbstd_group_size=group,
        conv_clamp=_clamp(layers, convolutions, where),
        label_head="projection" if c_dim else "linear",
    )
    return filled(build, _discriminator_layout, state, where)


def _stylegan2_generator(network: NvidiaNetwork, where: str) -> stylegan2.Generator:
    state, layers = network.state, network.layers
    resolutions = _resolutions(state, r"synthesis\.b(\d+)\..*", where)
    start = sizes(state, "synthesis.b4.const", 3, where)
    if start[1:] != (4, 4):
        raise FormatError(f"{where} begins at {start[1]}×{start[2]} pixels; expected 4×4, as for square images")
    check_colours(sizes(state, "synthesis.b4.torgb.weight", 4, where)[0], f"{where} makes")
    blocks = [f"synthesis.b{r}" for r in resolutions]
    convolutions = [f"{block}.{name}" for block in blocks for name in ("conv0", "conv1")]
    _check_attribute(layers, blocks, "architecture", "skip", where)
    _check_attribute(layers, convolutions, "activation", "lrelu", where)
    _check_attribute(layers, convolutions, "use_noise", True, where)
    clamp = _clamp(layers, [*convolutions, *(f"{block}.torgb" for block in blocks)], where)
    count = {r: sizes(state, f"synthesis.b{r}.conv1.weight", 4, where)[0] for r in resolutions}
    base, maximum = channel_plan(count, where)
    build = partial(
        stylegan2.Generator,
        resolution=resolutions[-1],
        **_mapping_sizes(network, where),
        channel_base=base,
        channel_max=maximum,
        conv_clamp=clamp,
    )
    return filled(build, _stylegan2_layout, state, where, _classes(network))


def _stylegan3(network: NvidiaNetwork, where: str) -> stylegan3.Generator:
    state, layers = network.state, network.layers
    names = sorted(
        (name.removeprefix("synthesis.") for name in layers if name.startswith("synthesis.L") and name.count(".") == 1),
        key=lambda name: int(number) if (number := name[1:].partition("_")[0]).isdecimal() else -1,
    )
    if not names:
        raise FormatError(f"{where}: no layers found; expected StyleGAN3's")
    whole = layers["synthesis"].attributes if "synthesis" in layers else {}
    resolution, scale = whole.get("img_resolution"), whole.get("output_scale", 0.25)
    if not _is_count(resolution, 1, MAX_INPUT_SIZE):
        raise FormatError(f"{where} makes images of {resolution} pixels; expected a size up to {MAX_INPUT_SIZE}")
    specs = [_layer_spec(state, layers, name, where) for name in names]
    check_colours(specs[-1]["outputs"], f"{where} makes")
    flags = [_attribute(layers, f"synthesis.{name}", "is_torgb", None) for name in names]
    if flags != [False] * (len(names) - 1) + [True]:
        raise FormatError(f"{where}: its last layer and no other is expected to make RGB")
    build = partial(
        stylegan3.Generator,
        resolution=resolution,
        **_mapping_sizes(network, where),
        input=_input_spec(state, layers, where),
        layers=specs,
        conv_clamp=_clamp(layers, [f"synthesis.{name}" for name in names], where),
        output_scale=_number(scale, f"{where}: output_scale"),
    )
    generator = filled(build, lambda network: _stylegan3_layout(network, names), state, where, _classes(network))
    _check_stylegan3_sizes(build, where)
    return generator


def _check_stylegan3_sizes(build: Callable[[], stylegan3.Generator], where: str) -> None:
    """Lets a network compute without memory: each layer's settings fit the next one's, and all make the image."""
    with torch.device("meta"), torch.no_grad():
        network = build()
        try:
            x = network.input_layer(torch.ones(1, network.style_sizes[0]))
            for layer, size in zip(network.synthesis, network.style_sizes[1:], strict=True):
                x = layer(x, torch.ones(1, size))
                if max(x.shape[2:]) > MAX_LAYER_SIZE:
                    raise ValueError(f"a layer makes {x.shape[2]}×{x.shape[3]} pixels, over {MAX_LAYER_SIZE}")
        except (ValueError, ArithmeticError, RuntimeError) as error:
            raise FormatError(f"{where}: its layers do not fit each other ({error}); get the file again") from error
    if x.shape[1:] != (3, network.resolution, network.resolution):
        made = "×".join(map(str, x.shape[2:]))
        raise FormatError(f"{where}: its layers make {made} pixels; expected its img_resolution, {network.resolution}")


def _input_spec(state: Mapping[str, Tensor], layers: Layers, where: str) -> dict[str, Any]:
    attribute = partial(_attribute, layers, "synthesis.input")
    size, rate, bandwidth = attribute("size", None), attribute("sampling_rate", None), attribute("bandwidth", None)
    if not isinstance(size, list) or len(size) != 2 or size[0] != size[1]:
        raise FormatError(f"{where}: its input has size {size}; expected a square")
    if not _is_count(size[0], 1, MAX_INPUT_SIZE):
        raise FormatError(f"{where}: its input has size {size}; expected up to {MAX_INPUT_SIZE}")
    rate, bandwidth = (_number(value, f"{where}: sampling rate or bandwidth") for value in (rate, bandwidth))
    if not rate / 2 > bandwidth:
        raise FormatError(
            f"{where}: its input has sampling rate {rate}; expected over twice the bandwidth, {bandwidth}"
        )
    channels = sizes(state, "synthesis.input.weight", 2, where)[0]
    return {"channels": channels, "size": size[0], "sampling_rate": rate, "bandwidth": bandwidth}


def _layer_spec(state: Mapping[str, Tensor], layers: Layers, name: str, where: str) -> dict[str, Any]:
    path = f"synthesis.{name}"
    outputs, inputs, kernel, _ = sizes(state, f"{path}.weight", 4, where)
    attribute = partial(_attribute, layers, path)
    factors = [attribute("up_factor", 1), attribute("down_factor", 1)]
    padding = attribute("padding", [0, 0, 0, 0])
    if not all(_is_count(factor, 1, MAX_FACTOR) for factor in factors):
        raise FormatError(f"{where}: {name} resamples by {factors}; expected factors up to {MAX_FACTOR}")
    if (
        not isinstance(padding, list)
        or len(padding) != 4
        or not all(_is_count(side, -MAX_PADDING, MAX_PADDING) for side in padding)
    ):
        raise FormatError(f"{where}: {name} has padding {padding}; expected four numbers up to {MAX_PADDING}")
    # A layer that does not resample has no filter, in which case there is none in the file.
    up, down = (state.get(f"{path}.{which}_filter") for which in ("up", "down"))
    if (up is None and factors[0] > 1) or (down is None and factors[1] > 1):
        raise FormatError(f"{where}: {name} resamples by {factors}, and its filters are missing")
    return {
        "inputs": inputs,
        "outputs": outputs,
        "kernel": kernel,
        "up": factors[0],
        "down": factors[1],
        "up_taps": 0 if up is None else len(up),
        "down_taps": 0 if down is None else len(down),
        "radial": down is not None and down.ndim == 2,
        "padding": padding,
    }


def _mapping_sizes(network: NvidiaNetwork, where: str) -> dict[str, Any]:
    """Sizes of the latent, the code and the label, and the number of layers."""
    state = network.state
    dense = numbers(state, r"mapping\.fc(\d+)\.weight")
    if not dense:
        raise FormatError(f"{where}: no mapping layers found")
    (w_dim,) = sizes(state, "mapping.w_avg", 1, where)
    inputs, c_dim = sizes(state, "mapping.fc0.weight", 2, where)[1], 0
    if "mapping.embed.weight" in state:
        embedded, c_dim = sizes(state, "mapping.embed.weight", 2, where)
        inputs -= embedded
        if c_dim > MAX_CLASSES:
            raise FormatError(f"{where} takes {c_dim} label values; expected at most {MAX_CLASSES}")
    if inputs < 1:
        raise FormatError(f"{where} takes a label and no latent; expected a latent")
    _check_attribute(network.layers, [f"mapping.fc{k}" for k in dense], "activation", "lrelu", where)
    rate = MAPPING_LR_MULTIPLIER
    _check_attribute(network.layers, [f"mapping.fc{k}" for k in dense], "bias_gain", rate, where)
    return {
        "z_dim": inputs,
        "w_dim": w_dim,
        "c_dim": c_dim,
        "mapping_layers": len(dense),
        "labels": "dataset" if c_dim else "none",
        "label_rows": c_dim,
    }


def _classes(network: NvidiaNetwork) -> dict[str, Tensor]:
    """The labels of a generator's classes, one of each.

    NVIDIA's training makes a one-hot vector of an image's class. How often each class is, the files do not say.
    """
    embedding = network.state.get("mapping.embed.weight")
    return {} if embedding is None else {"label_table": torch.eye(embedding.shape[1])}


def _resolutions(state: Mapping[str, Tensor], pattern: str, where: str) -> list[int]:
    found = numbers(state, pattern)
    try:
        expected = block_resolutions(found[-1])
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error
    if found != expected:
        raise FormatError(f"{where} has blocks of {found} pixels; expected {expected}")
    return found


def _attribute(layers: Layers, path: str, name: str, default: Any) -> Any:
    return layers[path].attributes.get(name, default) if path in layers else default


def _check_attribute(layers: Layers, paths: Iterable[str], name: str, expected: Any, where: str) -> None:
    for path in paths:
        found = _attribute(layers, path, name, expected)
        same = math.isclose(found, expected, rel_tol=1e-6) if _is_number(found, expected) else found == expected
        if not same:
            raise FormatError(
                f"{where}: {path} has {name} {found!r}; expected {expected!r}, as in the published networks"
            )


def _is_number(*values: Any) -> bool:
    """Whether all are numbers, integers of any length left out."""
    return all(isinstance(value, float) or _is_count(value, -(2**53), 2**53) for value in values)


def _is_count(value: Any, low: int, high: int) -> TypeGuard[int]:
    return type(value) is int and low <= value <= high


def _number(value: Any, what: str) -> float:
    if not _is_number(value) or not math.isfinite(value) or value <= 0:
        raise FormatError(f"{what} is {value}; expected a positive number")
    return float(value)


def _clamp(layers: Layers, paths: Iterable[str], where: str) -> float | None:
    """The limit that all these layers share; those that are not there do not count."""
    given = (_attribute(layers, path, "conv_clamp", None) for path in paths if path in layers)
    found = {None if value is None else _number(value, f"{where}: conv_clamp") for value in given}
    if len(found) > 1:
        limits = sorted("none" if limit is None else f"{limit:g}" for limit in found)
        raise FormatError(f"{where} clamps its layers to {limits}; expected one limit for all")
    return found.pop() if found else None


def _parts(foreign: str, here: str, *names: str) -> dict[str, str]:
    return {f"{foreign}.{name}": f"{here}.{name}" for name in names}


def _mapping_keys(layers: int, labelled: bool) -> dict[str, str]:
    keys: dict[str, str] = {}
    for k in range(layers):
        keys |= _parts(f"mapping.fc{k}", f"mapping.layers.dense{k}", "weight", "bias")
    return keys | (_parts("mapping.embed", "mapping.embedding", "weight", "bias") if labelled else {})


AFFINE = ("affine.weight", "affine.bias")


def _stylegan2_layout(network: stylegan2.Generator) -> Layout:
    keys = {"mapping.w_avg": "w_avg", "synthesis.b4.const": "synthesis.constant"}
    keys |= _mapping_keys(network.mapping_layers, network.c_dim > 0)
    reshaped: Shapes = {}
    filters: list[str] = []
    for r in block_resolutions(network.resolution):
        foreign, here = f"synthesis.b{r}", f"synthesis.block{r}"
        filters.append(f"{foreign}.resample_filter")
        for position in (0, 1) if r > 4 else (1,):
            layer = f"{foreign}.conv{position}"
            keys |= _parts(layer, f"{here}.layer{position}", "weight", "bias", "noise_strength", *AFFINE)
            keys[f"{layer}.noise_const"] = f"{here}.layer{position}.noise"
            reshaped[f"{layer}.noise_const"] = (r, r)
            filters.append(f"{layer}.resample_filter")
        keys |= _parts(f"{foreign}.torgb", f"{here}.to_rgb", "weight", "bias", *AFFINE)
    return Layout(keys, reshaped=reshaped, constants=dict.fromkeys(filters, FIR))


def _discriminator_layout(network: stylegan2.Discriminator) -> Layout:
    top = f"b{network.resolution}.fromrgb"
    keys = _parts(top, "from_rgb", "weight", "bias")
    filters = [f"{top}.resample_filter", "b4.conv.resample_filter"]
    for r in block_resolutions(network.resolution)[1:]:
        foreign, here = f"b{r}", f"blocks.block{r}"
        for position in (0, 1):
            keys |= _parts(f"{foreign}.conv{position}", f"{here}.layer{position}", "weight", "bias")
        keys[f"{foreign}.skip.weight"] = f"{here}.skip"
        filters += [f"{foreign}.{part}resample_filter" for part in ("", "conv0.", "conv1.", "skip.")]
    for foreign, here in (("conv", "conv"), ("fc", "dense"), ("out", "score")):
        keys |= _parts(f"b4.{foreign}", f"epilogue.{here}", "weight", "bias")
    if network.label_head == "projection":
        keys |= _mapping_keys(stylegan2.LABEL_LAYERS, labelled=True)
    return Layout(keys, constants=dict.fromkeys(filters, FIR))


def _stylegan3_layout(network: stylegan3.Generator, names: list[str]) -> Layout:
    ours = network.state_dict()
    keys = {"mapping.w_avg": "w_avg"} | _mapping_keys(network.mapping_layers, network.c_dim > 0)
    keys |= _parts("synthesis.input", "input_layer", "weight", "phases", "transform", *AFFINE)
    keys["synthesis.input.freqs"] = "input_layer.frequencies"
    for k, name in enumerate(names):
        foreign, here = f"synthesis.{name}", f"synthesis.{k}"
        keys |= _parts(foreign, here, "weight", "bias", *AFFINE)
        keys[f"{foreign}.magnitude_ema"] = f"{here}.magnitude"
        keys |= {f"{foreign}.{f}": f"{here}.{f}" for f in ("up_filter", "down_filter") if f"{here}.{f}" in ours}
    return Layout(keys)

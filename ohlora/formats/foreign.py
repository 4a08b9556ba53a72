"""Networks in files of others, by the content of the file; GenForce's and the original Oh-LoRA's layouts.

They are checked key by key and shape by shape, and converted; GenForce's and the original's key names occur here and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ohlora.errors import FormatError
from ohlora.formats import network_files, nvidia_networks, rosinality_networks
from ohlora.formats.foreign_files import ForeignFile, Kind, read_nvidia, read_rosinality, read_states, recognize
from ohlora.formats.layouts import Layout, Shapes, channel_plan, filled, need, numbers, sizes
from ohlora.networks import generator
from ohlora.networks.attribute_cnn import PUBLISHED_FILTERS, AttributeCNN, published
from ohlora.networks.stylegan import LABEL_EMBEDDING, Discriminator, Generator, block_resolutions, channels

ForeignNetwork = generator.Generator | generator.Discriminator | AttributeCNN


def genforce_generator_layout(generator: Generator) -> Layout:
    """The GenForce layout of a generator."""
    keys = {"truncation.w_avg": "w_avg"}
    if generator.c_dim:
        keys["mapping.label_weight"] = "mapping.label_embedding"
    for k in range(generator.mapping_layers):
        for part in ("weight", "bias"):
            keys[f"mapping.dense{k}.{part}"] = f"mapping.layers.dense{k}.{part}"
    unused: Shapes = {"synthesis.lod": ()}
    resolutions = block_resolutions(generator.resolution)
    for b, r in enumerate(resolutions):
        count = channels(r, generator.channel_base, generator.channel_max)
        for position in (0, 1):
            foreign, here = f"synthesis.layer{2 * b + position}", f"synthesis.block{r}.layer{position}"
            if r == 4 and position == 0:
                keys |= {f"{foreign}.const": f"{here}.constant", f"{foreign}.bias": f"{here}.bias"}
            else:
                keys |= {f"{foreign}.weight": f"{here}.conv.weight", f"{foreign}.bias": f"{here}.conv.bias"}
            keys |= {
                f"{foreign}.apply_noise.weight": f"{here}.noise_weight",
                f"{foreign}.apply_noise.noise": f"{here}.noise",
                f"{foreign}.style.weight": f"{here}.affine.weight",
                f"{foreign}.style.bias": f"{here}.affine.bias",
            }
        if r > 4:
            unused[f"synthesis.layer{2 * b}.blur.kernel"] = (count, 1, 3, 3)
        if r == generator.resolution:
            keys |= {f"synthesis.output{b}.{part}": f"synthesis.to_rgb.{part}" for part in ("weight", "bias")}
        else:
            unused |= {f"synthesis.output{b}.weight": (3, count, 1, 1), f"synthesis.output{b}.bias": (3,)}
    return Layout(keys, unused)


def genforce_discriminator_layout(discriminator: Discriminator) -> Layout:
    """The GenForce layout of a discriminator."""
    keys: dict[str, str] = {}
    unused: Shapes = {"lod": ()}
    resolutions = block_resolutions(discriminator.resolution)[::-1]
    names = [f"blocks.block{r}.layer{position}" for r in resolutions[:-1] for position in (0, 1)]
    names += ["epilogue.conv", "epilogue.dense", "epilogue.score"]
    for part in ("weight", "bias"):
        keys |= {f"input0.{part}": f"from_rgb.{part}"}
        keys |= {f"layer{k}.{part}": f"{name}.{part}" for k, name in enumerate(names)}
    for b, r in enumerate(resolutions):
        count = channels(r, discriminator.channel_base, discriminator.channel_max)
        if b:
            unused |= {f"input{b}.weight": (count, 3, 1, 1), f"input{b}.bias": (count,)}
        if r > 4:
            unused[f"layer{2 * b + 1}.blur.kernel"] = (count, 1, 3, 3)
    return Layout(keys, unused)


def original_cnn_layout(network: AttributeCNN) -> Layout:
    """The original's layout of a filter, property, hairstyle or merged CNN."""
    keys: dict[str, str] = {}
    for name, branch in network.branches.items():
        here, prefix = f"branches.{name}.", ""
        if len(network.branches) > 1:
            # What the original calls pose is the tilt of the eye line.
            called = {"background_mean": "background", "roll": "pose"}.get(name, name)
            prefix = f"{called}_score_cnn."
        windows: Any = branch.windows
        parts = [""] if len(windows) == 1 else ["bottom_left_cnn.", "bottom_right_cnn."]
        spec: Any = branch.branch
        names = {f"{here}dense": "fc1.0", f"{here}score": "fc_final.0" if spec.probability else "fc_final"}
        for k, (part, window) in enumerate(zip(parts, windows, strict=True)):
            names |= {f"{here}windows.{k}.{c}": f"{part}{c}.0" for c in dict(window.named_children()) if "conv" in c}
        for ours, theirs in names.items():
            keys |= {f"{prefix}{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
    return Layout(keys, {})


@dataclass(frozen=True)
class ForeignCheckpoint:
    """What a file of weights holds.

    Attributes:
        networks: The networks, in evaluation mode, under ``generator`` and ``discriminator``, or an attribute CNN under
            its name (see :func:`ohlora.networks.attribute_cnn.published`).
        averaged: Whether the generator is the running average of training, where the file says so.
        source: What the file is.
        entries: Network → the file's entry in which it was, where the file has several.
        notes: What else the user should know, a sentence each.
    """

    networks: dict[str, ForeignNetwork]
    averaged: bool
    source: str
    entries: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_foreign(path: str | Path, raw: bool = False) -> ForeignCheckpoint:
    """Reads the networks of a file of weights, whatever it is called; nothing in it is run.

    The original's property and merged CNNs have an output "pose" that measures the tilt of the eye line; it is called
    ``roll`` here.

    Args:
        path: A pickle of NVIDIA's stylegan2-ada-pytorch or stylegan3 repositories, a checkpoint of rosinality's
            stylegan2-pytorch or of GenForce, a network file of ohlora, or the original Oh-LoRA's state dict of one
            network: generator, discriminator, a filter CNN, the property, hairstyle or merged CNN.
        raw: Takes the generator of training even where its running average is there.

    Returns:
        The networks found.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If the file is damaged, not finite, or holds something else; the message lists every key that is
            missing, unexpected or misshapen.
    """
    file = recognize(path)
    readers: Mapping[Kind, Callable[[ForeignFile, bool], ForeignCheckpoint]] = {
        Kind.OHLORA: _ours,
        Kind.NVIDIA: _nvidia,
        Kind.ROSINALITY: _rosinality,
        Kind.GENFORCE: _genforce,
        Kind.ORIGINAL: _original,
    }
    return readers[file.kind](file, raw)


def _ours(file: ForeignFile, raw: bool) -> ForeignCheckpoint:
    network = network_files.load_network(file.path)
    if isinstance(network, generator.Generator):
        return ForeignCheckpoint({"generator": network}, False, "ohlora")
    if isinstance(network, generator.Discriminator):
        return ForeignCheckpoint({"discriminator": network}, False, "ohlora")
    raise FormatError(f"{file.path} is a file of ohlora; of those, only generators and discriminators are imported")


def _nvidia(file: ForeignFile, raw: bool) -> ForeignCheckpoint:
    entry = _entry(file, ("G",) if raw else ("G_ema", "G"))
    entries = tuple(name for name in (entry, "D") if name is not None)
    found = read_nvidia(file, entries)
    if entry in found.refused:
        raise FormatError(f"{file.path}: {found.refused[entry]}")
    networks: dict[str, ForeignNetwork] = {}
    if entry is not None:
        networks["generator"] = nvidia_networks.generator_of(found.networks[entry], f"{entry} in {file.path}")

    def discriminator() -> ForeignNetwork:
        if "D" in found.refused:
            raise FormatError(found.refused["D"])
        return nvidia_networks.discriminator_of(found.networks["D"], f"D in {file.path}")

    has_discriminator = "D" in found.networks or "D" in found.refused
    notes = _with_discriminator(networks, discriminator if has_discriminator else None)
    made = networks.get("generator")
    if isinstance(made, generator.Generator) and made.c_dim:
        notes += (f"its {made.c_dim} label values are taken for classes, drawn equally often (--classes chooses some)",)
    return ForeignCheckpoint(networks, entry == "G_ema", "NVIDIA", _entries(entry, "D"), notes)


def _rosinality(file: ForeignFile, raw: bool) -> ForeignCheckpoint:
    entry = _entry(file, ("g",) if raw else ("g_ema", "g"))
    found = read_rosinality(file, tuple(name for name in (entry, "d") if name is not None))
    networks: dict[str, ForeignNetwork] = {}
    notes: tuple[str, ...] = ()
    if entry is not None:
        where = f"{entry} in {file.path}"
        networks["generator"] = rosinality_networks.generator_of(found.networks[entry], found.latent_avg, where)
        if found.latent_avg is None:
            count = rosinality_networks.MEAN_LATENTS
            notes = (f"the file has no latent_avg: w_avg is the mean of {count:,} latents",)
    state = found.networks.get("d")
    make = None if state is None else partial(rosinality_networks.discriminator_of, state, f"d in {file.path}")
    notes += _with_discriminator(networks, make)
    return ForeignCheckpoint(networks, entry == "g_ema", "rosinality", _entries(entry, "d"), notes)


def _entry(file: ForeignFile, names: tuple[str, ...]) -> str | None:
    """The first of a file's entries that is there; None where it has no generator at all."""
    assert file.content is not None
    there = [name for name, value in file.content.root.items() if value is not None and isinstance(name, str)]
    found = next((name for name in names if name in there), None)
    if found is None and not {"D", "d"} & set(there):
        raise FormatError(f"{file.path} has no {names[0]}; it has {', '.join(map(str, there[:8]))}. Leave --raw out")
    return found


def _entries(entry: str | None, discriminator: str) -> dict[str, str]:
    """The entries of both networks in the file; the generator's is None where it has none."""
    return {"discriminator": discriminator} | ({} if entry is None else {"generator": entry})


def _with_discriminator(
    networks: dict[str, ForeignNetwork], make: Callable[[], ForeignNetwork] | None
) -> tuple[str, ...]:
    """Adds the discriminator, and says so if there is none; one that does not fit does not bar the generator."""
    if make is None:
        return ("there is no discriminator in the file: fine-tuning needs one",)
    try:
        networks["discriminator"] = make()
    except FormatError as error:
        if not networks:
            raise
        return (f"the discriminator is left out: {error}",)
    return ()


def _genforce(file: ForeignFile, raw: bool) -> ForeignCheckpoint:
    states = read_states(file)
    averaged = "generator_smooth" in states and not raw
    sources = {"generator": "generator_smooth" if averaged else "generator", "discriminator": "discriminator"}
    networks: dict[str, ForeignNetwork] = {}
    for name, entry in sources.items():
        if entry in states:
            where = f"{name} in {file.path}"
            # GenForce trains with groups of 4.
            networks[name] = (
                _generator(states[entry], where) if name == "generator" else _discriminator(states[entry], 4, where)
            )
    if not networks:
        raise FormatError(f"{file.path} has no generator; it has {', '.join(states)}. Leave --raw out")
    return ForeignCheckpoint(networks, averaged, "GenForce", sources)


def _original(file: ForeignFile, raw: bool) -> ForeignCheckpoint:
    (state,) = read_states(file).values()
    where = str(file.path)
    if any("fc_final." in key for key in state):
        name, cnn = _cnn_like(state, where)
        network = filled(lambda: AttributeCNN(cnn.specs), original_cnn_layout, state, f"{name} CNN in {where}")
        return ForeignCheckpoint({name: network}, False, "Oh-LoRA")
    if any(key.startswith("synthesis.") for key in state):
        return ForeignCheckpoint({"generator": _generator(state, f"generator in {where}")}, False, "Oh-LoRA")
    # Oh-LoRA trains with groups of 16.
    return ForeignCheckpoint(
        {"discriminator": _discriminator(state, 16, f"discriminator in {where}")}, False, "Oh-LoRA"
    )


def foreign_layout(network: Generator | Discriminator | AttributeCNN) -> Layout:
    """The layout of a network's foreign files: GenForce's, or the original's for attribute CNNs."""
    if isinstance(network, Generator):
        return genforce_generator_layout(network)
    if isinstance(network, Discriminator):
        return genforce_discriminator_layout(network)
    return original_cnn_layout(network)


def to_foreign(network: nn.Module) -> dict[str, Tensor]:
    """A network's state dict in GenForce's layout.

    Layers that GenForce's networks carry and do not use when fully grown (to- and from-RGB of other levels) are zero.
    The layout has no place for a generator's label table, nor for a discriminator's ``mbstd_group_size``.

    Raises:
        FormatError: If the network is no StyleGAN, or has a projection head.
    """
    if not isinstance(network, (Generator, Discriminator)):
        raise FormatError(
            f"the network is a {network_files.description(network)['kind']}; expected a {Generator.kind} generator or "
            "discriminator, for which GenForce's layout is made, or one of stylegan2, for rosinality's"
        )
    if isinstance(network, Discriminator) and network.label_head == "projection":
        raise FormatError(
            "the discriminator has a projection head, for which GenForce's layout has no place; expected a linear one. "
            "Export the generator alone"
        )
    layout, state = foreign_layout(network), network.state_dict()
    exported = {key: state[ours].detach().cpu().clone() for key, ours in layout.keys.items()}
    unused = {key: torch.zeros(shape) for key, shape in layout.unused.items()}
    tap = torch.tensor([0.25, 0.5, 0.25])
    for key, value in unused.items():
        if key.endswith("blur.kernel"):
            value.copy_(tap[:, None] * tap)
    return exported | unused


def _cnn_like(state: Mapping[str, Any], where: str) -> tuple[str, AttributeCNN]:
    """The original's CNN that a state dict belongs to, by its keys and, among the filters, by its shapes."""
    if any("_score_cnn." in key for key in state):
        name = "merged" if any(key.startswith("hairstyle_") for key in state) else "property"
        specs = published(name).specs
        outputs = [tuple("roll" if output == "pose" else output for output in spec.outputs) for spec in specs]
        return name, AttributeCNN([replace(spec, outputs=o) for spec, o in zip(specs, outputs, strict=True)])
    if any(key.startswith("bottom_left_cnn.") for key in state):
        return "hairstyle", published("hairstyle")
    dense = "fc1.0.weight"
    found = tuple(state[dense].shape) if dense in state else None
    known: Shapes = {}
    for name in PUBLISHED_FILTERS:
        network = published(name)
        shapes = original_cnn_layout(network).shapes(network)
        known[name] = shapes[dense]
        if found == known[name] and not any(key.startswith("conv") for key in state.keys() ^ shapes.keys()):
            return name, network
    raise FormatError(f"{where}: no filter CNN has these layers (fc1 {found}); expected fc1 of one of {known}")


def _generator(state: Mapping[str, Tensor], where: str) -> Generator:
    """GenForce's generator, of the size that a state dict's shapes tell."""
    layers = numbers(state, r"synthesis\.layer(\d+)\.style\.weight")
    dense = numbers(state, r"mapping\.dense(\d+)\.weight")
    need(state, ("mapping.dense0.weight", "mapping.dense0.bias", "synthesis.layer0.const"), where)
    if not layers:
        raise FormatError(f"{where}: no style layers found; expected GenForce's StyleGAN generator")
    c_dim = sizes(state, "mapping.label_weight", 2, where)[0] if "mapping.label_weight" in state else 0
    count = {4 << k // 2: sizes(state, f"synthesis.layer{k}.style.weight", 2, where)[0] // 2 for k in layers}
    base, maximum = channel_plan(count, where)
    _check_lod(state, "synthesis.lod", where)
    build = partial(
        Generator,
        resolution=max(count),
        z_dim=sizes(state, "mapping.dense0.weight", 2, where)[1] - (LABEL_EMBEDDING if c_dim else 0),
        w_dim=sizes(state, "mapping.dense0.bias", 1, where)[0],
        c_dim=c_dim,
        mapping_layers=len(dense),
        channel_base=base,
        channel_max=maximum,
        labels="normal" if c_dim else "none",
    )
    return filled(build, genforce_generator_layout, state, where)


def _discriminator(state: Mapping[str, Tensor], mbstd_group_size: int, where: str) -> Discriminator:
    """GenForce's discriminator, of the size that a state dict's shapes tell."""
    levels = numbers(state, r"input(\d+)\.weight")
    layers = numbers(state, r"layer(\d+)\.weight")
    if not layers or layers[-1] < 4:
        raise FormatError(f"{where}: expected GenForce's StyleGAN generator or discriminator; found neither's keys")
    need(state, ("input0.weight",), where)
    resolution = 2 << layers[-1] // 2
    base, maximum = channel_plan(
        {resolution >> b: sizes(state, f"input{b}.weight", 4, where)[0] for b in levels}, where
    )
    features = sizes(state, f"layer{layers[-1] - 1}.weight", 2, where)[0]
    _check_lod(state, "lod", where)
    build = partial(
        Discriminator,
        resolution=resolution,
        c_dim=sizes(state, f"layer{layers[-1]}.weight", 2, where)[1] - features,
        channel_base=base,
        channel_max=maximum,
        mbstd_group_size=mbstd_group_size,
    )
    return filled(build, genforce_discriminator_layout, state, where)


def _check_lod(state: Mapping[str, Tensor], key: str, where: str) -> None:
    if key in state and state[key].any():
        value = state[key].flatten()[0]
        raise FormatError(f"{where}: {key} is {float(value)}; expected 0, since only fully grown networks are read")

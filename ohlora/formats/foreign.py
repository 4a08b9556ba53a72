"""Foreign checkpoints: GenForce's and the original Oh-LoRA's, read without running code.

They are checked key by key and shape by shape, and converted; their key names occur here and nowhere else.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ohlora.attributes import FILTERS
from ohlora.errors import FormatError, MissingArtifactError
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import AttributeCNN, attribute_cnn
from ohlora.networks.stylegan import LABEL_EMBEDDING, Discriminator, Generator, block_resolutions, channels

ForeignNetwork = Generator | Discriminator | AttributeCNN


Shapes = dict[str, tuple[int, ...]]


class Layout(NamedTuple):
    """A foreign state dict: its keys → ours; and the shapes of what has no use here, by key.

    Those are blur kernels, the level of detail, and to- and from-RGB layers of other levels.
    """

    keys: dict[str, str]
    unused: Shapes

    def shapes(self, network: ForeignNetwork) -> Shapes:
        """The shapes that a network's foreign state dict has."""
        ours = network.state_dict()
        return self.unused | {foreign: tuple(ours[key].shape) for foreign, key in self.keys.items()}


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
        names = {f"{here}dense": "fc1.0", f"{here}score": "fc_final.0" if name in FILTERS else "fc_final"}
        for k, (part, window) in enumerate(zip(parts, windows, strict=True)):
            names |= {f"{here}windows.{k}.{c}": f"{part}{c}.0" for c in dict(window.named_children()) if "conv" in c}
        for ours, theirs in names.items():
            keys |= {f"{prefix}{theirs}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}
    return Layout(keys, {})


class ForeignCheckpoint(NamedTuple):
    """What a foreign checkpoint holds: networks, and whether the generator is GenForce's average ``generator_smooth``.

    The networks are in evaluation mode, under ``generator`` and ``discriminator``, or an attribute CNN under its name
    (see :func:`ohlora.networks.attribute_cnn.attribute_cnn`).
    """

    networks: dict[str, ForeignNetwork]
    averaged: bool


def read_foreign(path: str | Path, raw: bool = False) -> ForeignCheckpoint:
    """Reads a GenForce or original Oh-LoRA checkpoint.

    The original's property and merged CNNs have an output "pose" that measures the tilt of the eye line; it is called
    ``roll`` here.

    Args:
        path: GenForce's ``.pth`` with the entries ``generator``, ``discriminator`` and perhaps ``generator_smooth``, or
            Oh-LoRA's ``.pth`` or ``.pt`` with the state dict of one network: generator, discriminator, a filter CNN,
            the property, hairstyle or merged CNN.
        raw: Takes ``generator`` even where the averaged ``generator_smooth`` is present.

    Returns:
        The networks found.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If the file is truncated, needs code to be read, or holds something else; the message lists every
            key that is missing, unexpected or misshapen.
    """
    path = Path(path)
    content = _unpickle(path)
    if any("fc_final." in key for key in content):
        name, cnn = _cnn_like(content, str(path))
        _fill(cnn, content, f"{name} CNN in {path}")
        return ForeignCheckpoint({name: cnn.eval()}, averaged=False)
    if "generator" in content or "discriminator" in content or "generator_smooth" in content:
        averaged = "generator_smooth" in content and not raw
        sources = {
            "generator": "generator_smooth" if averaged else "generator",
            "discriminator": "discriminator",
        }
        entries = {name: content[entry] for name, entry in sources.items() if entry in content}
        mbstd_group_size = 4  # what GenForce trains with
    else:
        averaged = False
        entries = {"generator" if any(key.startswith("synthesis.") for key in content) else "discriminator": content}
        mbstd_group_size = 16  # what Oh-LoRA trains with
    networks: dict[str, ForeignNetwork] = {}
    for name, state in entries.items():
        where = f"{name} in {path}"
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise FormatError(f"{where}: expected a state dict of tensors, found {type(state).__name__}")
        network: ForeignNetwork
        try:
            if name == "generator":
                network = Generator(**_generator_sizes(state, where))
            else:
                network = Discriminator(**_discriminator_sizes(state, where), mbstd_group_size=mbstd_group_size)
        except ValueError as error:
            raise FormatError(f"{where}: {error}") from error
        _fill(network, state, where)
        networks[name] = network.eval()
    return ForeignCheckpoint(networks, averaged)


def foreign_layout(network: ForeignNetwork) -> Layout:
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
            "discriminator, for which GenForce's layout is made"
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


def _fill(network: ForeignNetwork, state: Mapping[str, Tensor], where: str) -> None:
    layout = foreign_layout(network)
    network_files.check_state(state, layout.shapes(network), frozenset(layout.unused), where)
    for key in layout.unused.keys() & state.keys():
        if key.endswith("lod") and float(state[key]) != 0:
            raise FormatError(
                f"{where}: {key} is {float(state[key])}; expected 0, since only fully grown networks are read"
            )
    converted = {ours: state[foreign].float() for foreign, ours in layout.keys.items()}
    rest = {key: value for key, value in network.state_dict().items() if key == "label_table"}
    network.load_state_dict(converted | rest)


def _cnn_like(state: Mapping[str, Any], where: str) -> tuple[str, AttributeCNN]:
    """The original's CNN that a state dict belongs to, by its keys and, among the filters, by its shapes."""
    if any("_score_cnn." in key for key in state):
        name = "merged" if any(key.startswith("hairstyle_") for key in state) else "property"
        specs = attribute_cnn(name).specs
        outputs = [tuple("roll" if output == "pose" else output for output in spec.outputs) for spec in specs]
        return name, AttributeCNN([replace(spec, outputs=o) for spec, o in zip(specs, outputs, strict=True)])
    if any(key.startswith("bottom_left_cnn.") for key in state):
        return "hairstyle", attribute_cnn("hairstyle")
    dense = "fc1.0.weight"
    found = tuple(state[dense].shape) if dense in state else None
    known: Shapes = {}
    for name in FILTERS:
        network = attribute_cnn(name)
        shapes = original_cnn_layout(network).shapes(network)
        known[name] = shapes[dense]
        if found == known[name] and not any(key.startswith("conv") for key in state.keys() ^ shapes.keys()):
            return name, network
    raise FormatError(f"{where}: no filter CNN has these layers (fc1 {found}); expected fc1 of one of {known}")


def _generator_sizes(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The constructor's arguments, as a foreign state dict's shapes tell them."""
    layers = _numbers(state, r"synthesis\.layer(\d+)\.style\.weight")
    dense = _numbers(state, r"mapping\.dense(\d+)\.weight")
    if not layers or 0 not in dense:
        raise FormatError(
            f"{where}: expected GenForce's StyleGAN generator; found style layers {layers}, mapping {dense}"
        )
    label, first = state.get("mapping.label_weight"), state["mapping.dense0.weight"]
    counts = {4 * 2 ** (k // 2): state[f"synthesis.layer{k}.style.weight"].shape[0] // 2 for k in layers}
    return {
        "resolution": max(counts),
        "z_dim": first.shape[1] - (0 if label is None else LABEL_EMBEDDING),
        "w_dim": first.shape[0],
        "c_dim": 0 if label is None else label.shape[0],
        "mapping_layers": max(dense) + 1,
        **_channel_plan(counts),
        "labels": "none" if label is None else "normal",
    }


def _discriminator_sizes(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The constructor's arguments but ``mbstd_group_size``, likewise."""
    levels, layers = _numbers(state, r"input(\d+)\.weight"), _numbers(state, r"layer(\d+)\.weight")
    last = max(layers, default=0)
    if not levels or last < 4 or last - 1 not in layers:
        raise FormatError(
            f"{where}: expected GenForce's StyleGAN generator or discriminator; found inputs {levels}, layers {layers}"
        )
    resolution = 4 * 2 ** ((last - 2) // 2)
    return {
        "resolution": resolution,
        "c_dim": state[f"layer{last}.weight"].shape[1] - state[f"layer{last - 1}.weight"].shape[0],
        **_channel_plan({resolution >> b: state[f"input{b}.weight"].shape[0] for b in levels}),
    }


def _channel_plan(count: Mapping[int, int]) -> dict[str, int]:
    """Base and maximum with count[r] = min(base / r, maximum), from the feature maps found at each resolution."""
    maximum = max(count.values())
    base = max(r * c for r, c in count.items() if c < maximum or r == max(count))
    return {"channel_base": base, "channel_max": maximum}


def _numbers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted(int(match[1]) for key in state if (match := re.fullmatch(pattern, key)))


def _unpickle(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; expected a GenForce or Oh-LoRA checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path} is not a plain file of tensors: reading it would run code, which ohlora refuses. Expected a state "
            "dict saved by torch (StyleGAN2/3 pickles are not supported)"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        raise FormatError(f"{path} is truncated or not a torch file ({str(error).splitlines()[0]})") from error
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise FormatError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors")
    return content

"""Foreign checkpoints: GenForce's and the original Oh-LoRA's, read without running code.

They are checked key by key and shape by shape, and converted; their key names occur here and nowhere else.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ohlora.errors import FormatError, MissingArtifactError
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import PUBLISHED_FILTERS, AttributeCNN, published
from ohlora.networks.stylegan import LABEL_EMBEDDING, Discriminator, Generator, block_resolutions, channels

ForeignNetwork = Generator | Discriminator | AttributeCNN


@dataclass(frozen=True)
class Layout:
    """A foreign state dict: what each of its keys is called here, and the shapes it must have.

    Attributes:
        keys: Foreign key → our key.
        shapes: Foreign key → shape, for the keys above and for those dropped on import.
    """

    keys: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def dropped(self) -> frozenset[str]:
        """Foreign keys that have no use here: blur kernels, level of detail, to-/from-RGB layers of other levels."""
        return frozenset(self.shapes) - frozenset(self.keys)


def genforce_generator_layout(generator: Generator) -> Layout:
    """The GenForce layout of a generator."""
    ours = {key: tuple(value.shape) for key, value in generator.state_dict().items()}
    keys = {"truncation.w_avg": "w_avg"}
    if generator.c_dim:
        keys["mapping.label_weight"] = "mapping.label_embedding"
    for k in range(generator.mapping_layers):
        for part in ("weight", "bias"):
            keys[f"mapping.dense{k}.{part}"] = f"mapping.layers.dense{k}.{part}"
    shapes: dict[str, tuple[int, ...]] = {"synthesis.lod": ()}
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
            shapes[f"synthesis.layer{2 * b}.blur.kernel"] = (count, 1, 3, 3)
        if r == generator.resolution:
            keys |= {f"synthesis.output{b}.{part}": f"synthesis.to_rgb.{part}" for part in ("weight", "bias")}
        else:
            shapes |= {f"synthesis.output{b}.weight": (3, count, 1, 1), f"synthesis.output{b}.bias": (3,)}
    return Layout(keys, shapes | {foreign: ours[here] for foreign, here in keys.items()})


def genforce_discriminator_layout(discriminator: Discriminator) -> Layout:
    """The GenForce layout of a discriminator."""
    ours = {key: tuple(value.shape) for key, value in discriminator.state_dict().items()}
    keys: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {"lod": ()}
    resolutions = block_resolutions(discriminator.resolution)[::-1]
    names = [f"blocks.block{r}.layer{position}" for r in resolutions[:-1] for position in (0, 1)]
    names += ["epilogue.conv", "epilogue.dense", "epilogue.score"]
    for part in ("weight", "bias"):
        keys |= {f"input0.{part}": f"from_rgb.{part}"}
        keys |= {f"layer{k}.{part}": f"{name}.{part}" for k, name in enumerate(names)}
    for b, r in enumerate(resolutions):
        count = channels(r, discriminator.channel_base, discriminator.channel_max)
        if b:
            shapes |= {f"input{b}.weight": (count, 3, 1, 1), f"input{b}.bias": (count,)}
        if r > 4:
            shapes[f"layer{2 * b + 1}.blur.kernel"] = (count, 1, 3, 3)
    return Layout(keys, shapes | {foreign: ours[here] for foreign, here in keys.items()})


def original_cnn_layout(network: AttributeCNN) -> Layout:
    """The original's layout of a filter, property, hairstyle or merged CNN."""
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    keys: dict[str, str] = {}
    for name, branch in network.branches.items():
        here = f"branches.{name}."
        if len(network.branches) > 1:
            # What the original calls pose is the tilt of the eye line.
            called = {"background_mean": "background", "roll": "pose"}.get(name, name)
            prefix = f"{called}_score_cnn."
        else:
            prefix = ""
        windows = len(branch.windows)  # type: ignore[arg-type]
        parts = [""] if windows == 1 else ["bottom_left_cnn.", "bottom_right_cnn."]
        last = "fc_final.0" if branch.branch.probability else "fc_final"  # type: ignore[union-attr]
        names = {f"{here}dense": f"{prefix}fc1.0", f"{here}score": f"{prefix}{last}"}
        for key in ours:
            if match := re.fullmatch(rf"{re.escape(here)}windows\.(\d+)\.(conv\d+)\.weight", key):
                names[f"{here}windows.{match[1]}.{match[2]}"] = f"{prefix}{parts[int(match[1])]}{match[2]}.0"
        keys |= {f"{theirs}.{part}": f"{mine}.{part}" for mine, theirs in names.items() for part in ("weight", "bias")}
    return Layout(keys, {foreign: ours[here] for foreign, here in keys.items()})


@dataclass(frozen=True)
class ForeignCheckpoint:
    """What a foreign checkpoint holds.

    Attributes:
        networks: The networks, in evaluation mode, under ``generator`` and ``discriminator``, or an attribute CNN under
            its name (see :func:`ohlora.networks.attribute_cnn.published`).
        averaged: Whether the generator is GenForce's running average (``generator_smooth``).
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
        network = (
            _generator_like(state, where)
            if name == "generator"
            else _discriminator_like(state, mbstd_group_size, where)
        )
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
    unused = {key: torch.zeros(layout.shapes[key]) for key in sorted(layout.dropped)}
    tap = torch.tensor([0.25, 0.5, 0.25])
    for key, value in unused.items():
        if key.endswith("blur.kernel"):
            value.copy_(tap[:, None] * tap)
    return exported | unused


def _fill(network: ForeignNetwork, state: Mapping[str, Tensor], where: str) -> None:
    layout = foreign_layout(network)
    network_files.check_state(state, layout.shapes, layout.dropped, where)
    for key in layout.dropped & state.keys():
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
        specs = published(name).specs
        outputs = [tuple("roll" if output == "pose" else output for output in spec.outputs) for spec in specs]
        return name, AttributeCNN([replace(spec, outputs=o) for spec, o in zip(specs, outputs, strict=True)])
    if any(key.startswith("bottom_left_cnn.") for key in state):
        return "hairstyle", published("hairstyle")
    candidates = {name: published(name) for name in PUBLISHED_FILTERS}
    found = tuple(state["fc1.0.weight"].shape) if "fc1.0.weight" in state else None
    for name, network in candidates.items():
        layout = original_cnn_layout(network)
        convolutions = {key for key in state if key.startswith("conv")}
        if found == layout.shapes["fc1.0.weight"] and convolutions == {k for k in layout.keys if k.startswith("conv")}:
            return name, network
    known = {name: original_cnn_layout(n).shapes["fc1.0.weight"] for name, n in candidates.items()}
    raise FormatError(f"{where}: no filter CNN has these layers (fc1 {found}); expected fc1 of one of {known}")


def _generator_like(state: Mapping[str, Tensor], where: str) -> Generator:
    """A generator of the size that a foreign state dict's shapes tell."""
    layers = _numbers(state, r"synthesis\.layer(\d+)\.style\.weight")
    dense = _numbers(state, r"mapping\.dense(\d+)\.weight")
    needed = ("mapping.dense0.weight", "mapping.dense0.bias", "synthesis.layer0.const")
    _need(state, needed, where)
    if not layers or not dense:
        raise FormatError(f"{where}: no style or mapping layers found; expected GenForce's StyleGAN generator")
    label = state.get("mapping.label_weight")
    c_dim = 0 if label is None else label.shape[0]
    resolution = 4 * 2 ** (max(layers) // 2)
    base, maximum = _channel_plan(
        {
            4 * 2 ** (k // 2): state[f"synthesis.layer{k}.style.weight"].shape[0] // 2
            for k in layers
            if f"synthesis.layer{k}.style.weight" in state
        }
    )
    inputs = state["mapping.dense0.weight"].shape[1]
    try:
        return Generator(
            resolution=resolution,
            z_dim=inputs - (LABEL_EMBEDDING if c_dim else 0),
            w_dim=state["mapping.dense0.bias"].shape[0],
            c_dim=c_dim,
            mapping_layers=max(dense) + 1,
            channel_base=base,
            channel_max=maximum,
            labels="normal" if c_dim else "none",
        )
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error


def _discriminator_like(state: Mapping[str, Tensor], mbstd_group_size: int, where: str) -> Discriminator:
    """A discriminator of the size that a foreign state dict's shapes tell."""
    levels = _numbers(state, r"input(\d+)\.weight")
    layers = _numbers(state, r"layer(\d+)\.weight")
    if not layers or max(layers) < 4:
        raise FormatError(f"{where}: expected GenForce's StyleGAN generator or discriminator; found neither's keys")
    blocks = (max(layers) - 2) // 2
    _need(state, ("input0.weight", f"layer{max(layers)}.weight", f"layer{max(layers) - 1}.weight"), where)
    resolution = 4 * 2**blocks
    base, maximum = _channel_plan({resolution >> b: state[f"input{b}.weight"].shape[0] for b in levels})
    features = state[f"layer{max(layers) - 1}.weight"].shape[0]
    try:
        return Discriminator(
            resolution=resolution,
            c_dim=state[f"layer{max(layers)}.weight"].shape[1] - features,
            channel_base=base,
            channel_max=maximum,
            mbstd_group_size=mbstd_group_size,
        )
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error


def _channel_plan(count: Mapping[int, int]) -> tuple[int, int]:
    """(base, maximum) with count[r] = min(base / r, maximum), from the feature maps found at each resolution."""
    maximum = max(count.values())
    return max(r * c for r, c in count.items() if c < maximum or r == max(count)), maximum


def _numbers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted(int(match[1]) for key in state if (match := re.fullmatch(pattern, key)))


def _need(state: Mapping[str, Tensor], keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if key not in state]
    if missing:
        raise FormatError(f"{where}: missing {', '.join(missing)}")


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

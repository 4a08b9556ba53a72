"""Network files: our safetensors in and out, and foreign checkpoints in.

One of our files is enough to rebuild its network: the metadata holds kind, format version, constructor arguments and
provenance. Foreign files (GenForce, original Oh-LoRA) are read without running code, checked key by key and shape by
shape, and converted; their key names occur here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ohlora.errors import FormatError
from ohlora.formats import tensor_files
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.stylegan import Discriminator, Generator

FORMAT = "ohlora-network"
FORMAT_VERSION = 2
VERSION_1_ARGUMENTS = {"z_size": "z_dim", "w_size": "w_dim", "label_size": "c_dim", "std_group": "mbstd_group_size"}
"""What constructor arguments were called in version 1 of the format."""
Network = Generator | Discriminator | AttributeCNN | AttributeEnsemble | FaceParserNetwork
KINDS: dict[str, type[Network]] = {
    "generator": Generator,
    "discriminator": Discriminator,
    "attribute_cnn": AttributeCNN,
    "attribute_ensemble": AttributeEnsemble,
    "face_parser": FaceParserNetwork,
}


def save_network(network: nn.Module, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Writes a network as one safetensors file, whole or not at all.

    Args:
        network: One of :data:`KINDS`.
        path: Where to; an existing file is replaced.
        provenance: Where the weights come from; anything JSON can hold.
    """
    if not isinstance(network, Network):
        raise TypeError(f"cannot save a {type(network).__name__}; expected one of {', '.join(KINDS)}")
    kind = next(kind for kind, cls in KINDS.items() if isinstance(network, cls))
    about = {"kind": kind, "arguments": network.arguments(), "provenance": dict(provenance or {})}
    tensor_files.write(path, FORMAT, FORMAT_VERSION, network.state_dict(), **about)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of one of our network files: ``kind``, ``format_version``, ``arguments`` and ``provenance``.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If the file is truncated or not one of ours, or was written by a newer ohlora.
    """
    metadata = tensor_files.read_metadata(path, FORMAT, FORMAT_VERSION, "a network")
    if metadata.get("kind") not in KINDS:
        raise FormatError(f"{path} holds a network of kind {metadata.get('kind')!r}; expected {', '.join(KINDS)}")
    metadata["arguments"] = renamed_arguments(metadata["arguments"], metadata["format_version"])
    return metadata


def renamed_arguments(arguments: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Constructor arguments of a file of some format version under their present names."""
    names = VERSION_1_ARGUMENTS if version == 1 else {}
    return {names.get(key, key): value for key, value in arguments.items()}


def load_network(path: str | Path, kind: str | None = None) -> nn.Module:
    """Rebuilds a network from one of our files, in evaluation mode on the CPU.

    Args:
        path: A file written by :func:`save_network`.
        kind: One of :data:`KINDS` to insist on it; None takes any.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is not a network file, or one of another kind.
    """
    metadata = read_metadata(path)
    if kind is not None and metadata["kind"] != kind:
        raise FormatError(f"{path} holds a {metadata['kind']}; expected a {kind}")
    network = KINDS[metadata["kind"]](**metadata["arguments"])
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    state = tensor_files.read_tensors(path)
    check_state(state, expected, frozenset(), str(path))
    network.load_state_dict(state)
    return network.eval()


def fingerprint(path: str | Path) -> str:
    """A short name for a file's content: 16 hexadecimal digits of its SHA-256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def load_generator(path: str | Path) -> Generator:
    """:func:`load_network` for a generator."""
    network = load_network(path, "generator")
    assert isinstance(network, Generator)
    return network


def load_discriminator(path: str | Path) -> Discriminator:
    """:func:`load_network` for a discriminator."""
    network = load_network(path, "discriminator")
    assert isinstance(network, Discriminator)
    return network


def load_attributes(path: str | Path) -> AttributeCNN | AttributeEnsemble:
    """:func:`load_network` for a network or ensemble that predicts attributes.

    Raises:
        FormatError: If the file holds another kind of network.
    """
    network = load_network(path)
    if not isinstance(network, (AttributeCNN, AttributeEnsemble)):
        raise FormatError(f"{path} holds a {read_metadata(path)['kind']}; expected a network that predicts attributes")
    return network


def check_state(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], optional: frozenset[str], where: str
) -> None:
    """Compares a state dict with the expected shapes and reports every difference at once."""
    missing = [key for key in shapes if key not in state and key not in optional]
    unexpected = [key for key in state if key not in shapes]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {shape}"
        for key, shape in shapes.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    problems = [
        f"{label} {', '.join(items)}"
        for label, items in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if items
    ]
    if problems:
        raise FormatError(f"{where} does not fit: {'; '.join(problems)}. Nothing was written")

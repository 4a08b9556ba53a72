"""Network files: our safetensors in and out.

One of our files is enough to rebuild its network: the metadata holds kind, format version, constructor arguments and
provenance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ohlora import handover
from ohlora.errors import FormatError
from ohlora.formats import tensor_files
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.generator import Discriminator, Generator
from ohlora.networks.identity import IdentityNetwork
from ohlora.networks.registry import DISCRIMINATORS, GENERATORS
from ohlora.utils.files import content_stamp

FORMAT = "ohlora-network"
FORMAT_VERSION = 2
VERSION_1_KINDS = {"generator": "stylegan_generator", "discriminator": "stylegan_discriminator"}
"""What kinds were called in version 1 of the format, which knew one family of generators."""
VERSION_1_ARGUMENTS = {"z_size": "z_dim", "w_size": "w_dim", "label_size": "c_dim", "std_group": "mbstd_group_size"}
"""What constructor arguments were called in version 1 of the format."""
PARTS_PER_TENSOR = 6
"""A network has fewer modules and parameters than so many for each of its tensors, and :data:`PARTS_WITHOUT` more."""
PARTS_WITHOUT = 100
Network = Generator | Discriminator | AttributeCNN | AttributeEnsemble | FaceParserNetwork | IdentityNetwork
KINDS: Mapping[str, Callable[..., Network]] = {
    **{f"{family}_generator": cls for family, cls in GENERATORS.items()},
    **{f"{family}_discriminator": cls for family, cls in DISCRIMINATORS.items()},
    "attribute_cnn": AttributeCNN,
    "attribute_ensemble": AttributeEnsemble,
    "face_parser": FaceParserNetwork,
    "identity": IdentityNetwork,
}


def save_network(network: nn.Module, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Writes a network as one safetensors file, whole or not at all.

    Args:
        network: One of :data:`KINDS`.
        path: Where to; an existing file is replaced.
        provenance: Where the weights come from; anything JSON can hold.
    """
    about = {**description(network), "provenance": dict(provenance or {})}
    tensor_files.write(path, FORMAT, FORMAT_VERSION, network.state_dict(), **about)


def description(network: nn.Module) -> dict[str, Any]:
    """What rebuilds a network besides its tensors: ``kind`` and ``arguments``; see :func:`rebuilt`.

    Raises:
        TypeError: If the network is of none of :data:`KINDS`.
    """
    kind = next((kind for kind, cls in KINDS.items() if type(network) is cls), None)
    if kind is None or not isinstance(network, Network):
        raise TypeError(f"cannot save a {type(network).__name__}; expected one of {', '.join(KINDS)}")
    return {"kind": kind, "arguments": network.arguments()}


def renamed(about: Mapping[str, Any]) -> dict[str, Any]:
    """A file's ``kind`` and ``arguments`` under their present names, whatever version of the format it has."""
    if about["format_version"] > 1:
        return dict(about)
    arguments = {VERSION_1_ARGUMENTS.get(key, key): value for key, value in dict(about.get("arguments", {})).items()}
    kind = about.get("kind")
    return {**about, "kind": VERSION_1_KINDS.get(str(kind), kind), "arguments": arguments}


def rebuilt(about: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> Network:
    """A network from its description and tensors, in evaluation mode on the CPU.

    Args:
        about: ``kind``, ``arguments`` and ``format_version``, as :func:`renamed` gives them.
        state: The tensors under the names of that version.
        where: Where they come from, for messages.

    Raises:
        FormatError: If the tensors do not fit the description.
    """
    if about["format_version"] == 1 and about["kind"] == "stylegan_generator":
        state = {re.sub(r"\.style\.(weight|bias)$", r".affine.\1", key): value for key, value in state.items()}
    try:
        # Without memory, of which sizes in a damaged file may ask any amount, and without random numbers.
        with torch.device("meta"), _limited(PARTS_PER_TENSOR * len(state) + PARTS_WITHOUT):
            network = KINDS[about["kind"]](**about["arguments"])
        own = network.state_dict()
        check_state(state, {key: tuple(value.shape) for key, value in own.items()}, frozenset(), where)
        # Copies, since the file's tensors are pages of the file.
        network.load_state_dict({key: state[key].to(value.dtype, copy=True) for key, value in own.items()}, assign=True)
    except FormatError:
        raise
    except Exception as error:  # whatever constructors make of sizes in a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"{where}: its tensors do not fit its own description ({reason}); get it again") from error
    return network.eval()


@contextmanager
def _limited(count: int) -> Iterator[None]:
    """Lets this thread make so many modules and parameters at most; a ValueError ends what would take for ever."""
    left, thread = count, get_ident()

    def registered(*_: Any) -> None:
        nonlocal left
        left -= get_ident() == thread
        if left < 0:
            raise ValueError(f"a network of more than {count} modules and parameters")

    hooks = (
        register_module_module_registration_hook(registered),
        register_module_parameter_registration_hook(registered),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of one of our network files: ``kind``, ``format_version``, ``arguments`` and ``provenance``.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If the file is truncated or not one of ours, or was written by a newer ohlora.
    """
    metadata = renamed(tensor_files.read_metadata(path, FORMAT, FORMAT_VERSION, "a network"))
    if not isinstance(metadata.get("arguments"), dict):
        raise FormatError(f"{path} does not describe its network; get it or make it again")
    if str(metadata.get("kind")) not in KINDS:
        raise FormatError(f"{path} holds a network of kind {metadata.get('kind')!r}; expected {', '.join(KINDS)}")
    return metadata


def provenance(path: str | Path) -> dict[str, Any]:
    """Where the weights of a file come from, as its metadata tell; empty where they tell nothing.

    Raises:
        MissingArtifactError: If the file does not exist.
        FormatError: If it cannot be read.
    """
    found: dict[str, Any] = read_metadata(path).get("provenance", {})
    return found


def marks(path: str | Path) -> list[str]:
    """Why the network in a file is not fit for use; see :mod:`ohlora.handover`."""
    return handover.marks(provenance(path))


def fingerprint(path: str | Path) -> str:
    """A short name for what a file holds: 16 hexadecimal digits.

    Of a file of ours it is made of tensors and description (:func:`tensor_files.content_stamp`), of any other of its
    bytes.
    """
    try:
        return tensor_files.content_stamp(path)[:16]
    except FormatError:
        return str(content_stamp(path))[:16]


def is_fingerprint(name: Any, path: str | Path) -> bool:
    """Whether a name is the file's fingerprint, or what the first versions took: the digest of the file's bytes."""
    return name in (fingerprint(path), str(content_stamp(path))[:16])


def is_whole(path: str | Path) -> bool:
    """Whether a file is there and is the product of a completed stage, as against one made by ``ohlora finish``."""
    return Path(path).is_file() and "partial" not in provenance(path)


def load_network(path: str | Path) -> Network:
    """Rebuilds a network from one of our files, in evaluation mode on the CPU.

    The functions below do so for one sort of network each, and refuse any other.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is not a network file, or damaged.
    """
    return rebuilt(read_metadata(path), tensor_files.read_tensors(path), str(path))


def load_generator(path: str | Path) -> Generator:
    """:func:`load_network` for a generator of any family."""
    network = load_network(path)
    return network if isinstance(network, Generator) else _refuse(path, network, "a generator")


def load_discriminator(path: str | Path) -> Discriminator:
    """:func:`load_network` for a discriminator of any family."""
    network = load_network(path)
    return network if isinstance(network, Discriminator) else _refuse(path, network, "a discriminator")


def load_face_parser(path: str | Path) -> FaceParserNetwork:
    """:func:`load_network` for a face parser."""
    network = load_network(path)
    return network if isinstance(network, FaceParserNetwork) else _refuse(path, network, "a face parser")


def load_attributes(path: str | Path) -> AttributeCNN | AttributeEnsemble:
    """:func:`load_network` for a network or ensemble that predicts attributes."""
    network = load_network(path)
    if not isinstance(network, (AttributeCNN, AttributeEnsemble)):
        _refuse(path, network, "a network that predicts attributes")
    return network


def load_attribute_cnn(path: str | Path) -> AttributeCNN:
    """:func:`load_network` for a single network that predicts attributes."""
    network = load_network(path)
    return network if isinstance(network, AttributeCNN) else _refuse(path, network, "a single attribute CNN")


def load_identity(path: str | Path) -> IdentityNetwork:
    """:func:`load_network` for a network that recognises people."""
    network = load_network(path)
    return network if isinstance(network, IdentityNetwork) else _refuse(path, network, "an identity network")


def load_features(path: str | Path) -> AttributeCNN | IdentityNetwork:
    """:func:`load_network` for a network of which features of images can be taken."""
    network = load_network(path)
    if not isinstance(network, (AttributeCNN, IdentityNetwork)):
        _refuse(path, network, "a single attribute CNN or an identity network")
    return network


def _refuse(path: str | Path, network: Network, expected: str) -> NoReturn:
    raise FormatError(f"{path} holds a {description(network)['kind']}; expected {expected}")


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
        raise FormatError(f"{where} does not fit: {'; '.join(problems)}")

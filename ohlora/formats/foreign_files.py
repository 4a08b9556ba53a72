"""Files that others wrote: what they are, by content and not by name, and the networks in them, as plain tensors.

Nothing in a file is run or imported (see :mod:`ohlora.formats.pickles`). What cannot be read is refused with what it is
and how to convert it or where to get it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ohlora.errors import FormatError
from ohlora.formats.pickles import (
    MODULE_LOADER,
    NAMESPACE,
    PickleFile,
    Placeholder,
    StoredArray,
    StoredTensor,
    described,
    one_line,
    plain,
    read_pickle,
)
from ohlora.pipeline import require

MAX_MODULES = 10_000
"""Modules that one network may have; StyleGANs have up to 150."""
MAX_MODULE_DEPTH = 64
MAX_ENTRIES = 200_000
"""Attributes, parameters, buffers and modules of all modules of one network; StyleGANs have up to 20,000."""
MAX_ATTRIBUTE_VALUES = 64
"""Values of a list that is kept as an attribute of a layer."""
NVIDIA_ENTRIES = ("G_ema", "G", "D")
ROSINALITY_ENTRIES = ("g_ema", "g", "d")
GENFORCE_ENTRIES = ("generator_smooth", "generator", "discriminator")
NESTS = ("models", "model", "state_dict", "networks")
"""Entries under which runners of others keep their networks, such as GenForce's ``models``."""


class Kind(StrEnum):
    """The kinds of files that are read."""

    OHLORA = "ohlora"
    """A safetensors file, as ohlora writes for networks, directions, characters and samples; its metadata say which."""
    NVIDIA = "nvidia"
    """A pickle of NVIDIA's stylegan2-ada-pytorch or stylegan3 repositories, or of what reuses their form."""
    ROSINALITY = "rosinality"
    """A checkpoint of rosinality's stylegan2-pytorch: ``g_ema``, ``g`` or ``d``."""
    GENFORCE = "genforce"
    """A checkpoint of GenForce: ``generator_smooth``, ``generator`` or ``discriminator``."""
    ORIGINAL = "original"
    """A state dict of the original Oh-LoRA."""


@dataclass(frozen=True)
class ForeignFile:
    """A file whose kind is known.

    Attributes:
        path: Where it is.
        kind: What it is.
        content: What it holds; None for ohlora's own files.
    """

    path: Path
    kind: Kind
    content: PickleFile | None


@dataclass(frozen=True)
class Layer:
    """A module of a NVIDIA network, as the file describes it.

    Attributes:
        class_name: Name of its class.
        attributes: Its public attributes that are numbers, text, None, or lists of them, such as ``padding`` or
            ``up_factor``. Others are left out.
    """

    class_name: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class NvidiaNetwork:
    """A network of a NVIDIA pickle.

    Attributes:
        class_name: Name of its class, such as ``Generator``.
        init_args: Positional arguments it was made with.
        init_kwargs: Keyword arguments it was made with, as plain values; objects of unknown kinds are
            :class:`ohlora.formats.pickles.Unread`.
        state: Its state dict: parameters and buffers by dotted name, as torch orders them, without ``module.`` and
            ``_orig_mod.``. A frozen layer's weights are buffers in such files and stand here like any other. Floating
            point is float32, whatever the file has.
        layers: Its modules by dotted name, itself under "".
    """

    class_name: str
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]
    state: dict[str, Tensor]
    layers: dict[str, Layer]


@dataclass(frozen=True)
class NvidiaFile:
    """The networks of a NVIDIA pickle.

    Attributes:
        networks: Those that could be read, under ``G_ema`` (the running average), ``G`` and ``D``.
        refused: The others that are there, with what is wrong with them.
        unknown: Names that the file refers to and that were not imported.
    """

    networks: dict[str, NvidiaNetwork]
    refused: dict[str, str]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class RosinalityFile:
    """The networks of a checkpoint of rosinality's stylegan2-pytorch.

    Attributes:
        networks: State dicts under ``g_ema`` (the running average), ``g`` and ``d``, as many as there are, without
            ``module.`` and ``_orig_mod.``; floating point is float32.
        latent_avg: The mean style, with as many values as a style has, where the file has one.
        args: The training's settings (``size``, ``latent``, ``n_mlp``, ``channel_multiplier`` …); empty where the file
            has none.
        unknown: Names that the file refers to and that were not imported.
    """

    networks: dict[str, dict[str, Tensor]]
    latent_avg: Tensor | None
    args: dict[str, Any]
    unknown: tuple[str, ...]


def recognize(path: str | Path) -> ForeignFile:
    """Tells by its content what a file is.

    Args:
        path: A file of weights of any name.

    Returns:
        Its kind, and its content as plain data.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it cannot be read; the message says what it is, and how to convert it or to get it.
    """
    path = Path(path)
    require(path)
    head = _head(path)
    if refusal := _no_weights(path, head):
        raise FormatError(f"{path} {refusal}")
    if _is_safetensors(head, path.stat().st_size):
        return ForeignFile(path, Kind.OHLORA, None)
    if head[8:9] == b"{":
        raise FormatError(f"{path} is a truncated safetensors file; get it again")
    content = read_pickle(path)
    kind = _kind(content)
    root = content.root
    if kind is None and isinstance(root, dict):
        for nested in (replace(content, root=root[name]) for name in NESTS if isinstance(root.get(name), dict)):
            if (kind := _kind(nested)) is not None:
                content = nested
                break
    if kind is None:
        raise FormatError(f"{path} {_refusal(content)}")
    return ForeignFile(path, kind, content)


def described_file(path: str | Path) -> str:
    """What a file is that is no whole safetensors file, for a message that begins with its path."""
    try:
        kind = recognize(path).kind
    except FormatError as error:
        return str(error).removeprefix(str(path)).strip(" :;")
    if kind is Kind.OHLORA:
        return "is a damaged safetensors file: get it or make it again"
    return f"is a checkpoint of another project (of kind {kind}), which is read by: ohlora import-weights"


def no_checkpoint(path: str | Path) -> str | None:
    """What a file is that cannot be a checkpoint of a run, by its first bytes; None for what may be one."""
    require(path)
    head = _head(path := Path(path))
    if head[8:9] == b"{":
        return "is a safetensors file, which holds networks and no state of training"
    return _no_weights(path, head)


def no_array(path: str | Path) -> str | None:
    """What a file is that cannot be a NumPy array: a failed download; None for any other."""
    head = _head(path := Path(path))
    return None if head.startswith(b"\x93NUMPY") or head[:2] == b"PK" else _no_weights(path, head)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _no_weights(path: Path, head: bytes) -> str | None:
    """What is wrong with a file that is no pickle, by its first bytes."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "is empty: the download failed; get it again"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a pointer of git-lfs and not the file itself: run git lfs pull in its repository"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return (
            "is a web page and not the file itself: the server asked for a confirmation or refused the download; open "
            "its address in a browser and save the file from there"
        )
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.partition("/")[2] for name in archive.namelist()]
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            return "is a truncated or damaged zip archive or checkpoint of torch: get it again"
        if "constants.pkl" in names:
            return "is a TorchScript program, which would have to be run: get the checkpoint it was made from"
        if "data.pkl" not in names:
            return "is a zip archive without a checkpoint of torch: unpack it and give the file in it"
    archives = (b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\x00")
    if head.startswith(archives) or head[257:262] == b"ustar":
        return "is an archive: unpack it and give the file in it"
    if head.startswith(b"\x93NUMPY"):
        return "is a NumPy array and no network: a direction, such as InterFaceGAN's boundaries, is imported as one"
    if head.startswith(b"\x89HDF"):
        return "is an HDF5 file of Keras or TensorFlow, which is not read; expected a checkpoint of torch"
    return None


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _kind(content: PickleFile) -> Kind | None:
    root = content.root
    if not isinstance(root, dict):
        return None
    if any(_module(root.get(name)) for name in NVIDIA_ENTRIES):
        return Kind.NVIDIA
    if any(_has(root.get(name), "input.input", "final_linear.0.weight") for name in ROSINALITY_ENTRIES):
        return Kind.ROSINALITY
    if any(_has(root.get(name), "synthesis.layer0.const", "input0.weight") for name in GENFORCE_ENTRIES):
        return Kind.GENFORCE
    if _has(root, "synthesis.layer0.const", "input0.weight") or any("fc_final." in key for key in _tensor_names(root)):
        return Kind.ORIGINAL
    return None


def _tensor_names(state: Any) -> set[str]:
    if not isinstance(state, dict):
        return set()
    return {
        _unprefixed(key) for key, value in state.items() if isinstance(key, str) and isinstance(value, StoredTensor)
    }


def _has(state: Any, *names: str) -> bool:
    """Whether a value is a state dict with one of these tensors."""
    return not _tensor_names(state).isdisjoint(names)


def _refusal(content: PickleFile) -> str:
    """What a pickle is that is not read, and what to do about it."""
    root = content.root
    names = {key for key in root if isinstance(key, str)} if isinstance(root, dict) else set()
    if any(name.startswith(("dnnlib.tflib.", "tfutil.")) for name in content.unknown):
        return (
            "is a TensorFlow pickle of NVIDIA's: convert it with legacy.py of NVIDIA's stylegan3 repository "
            "(python legacy.py --source IN.pkl --dest OUT.pkl), on a machine where its code may run, and import OUT.pkl"
        )
    if "GAN" in names and any(name.startswith(("G.", "S.")) for name in _tensor_names(root["GAN"])):
        return (
            "is a checkpoint of lucidrains' stylegan2-pytorch, whose layers differ from StyleGAN2's, so that no "
            "conversion exists: generate images with it (stylegan2_pytorch --generate) and fine-tune on them from a "
            ".pkl of NVIDIA's or a .pt of rosinality's"
        )
    if "pytorch-lightning_version" in names:
        return (
            "is a checkpoint of Lightning, for resuming a run only: give the network file that the run wrote "
            "(.safetensors)"
        )
    if isinstance(root, dict):
        shown = ", ".join(one_line(name, 40) for name in sorted(names)[:8]) or "no named entries"
        found = f"holds a dictionary with {shown}{' …' if len(names) > 8 else ''}"
    else:
        found = f"holds {described(root)}"
    foreign = f"; it names {', '.join(one_line(name, 60) for name in content.unknown[:4])}" if content.unknown else ""
    return (
        f"{found}{foreign}. Expected G_ema, G or D (NVIDIA), g_ema, g or d (rosinality), generator_smooth, generator "
        "or discriminator (GenForce), or a state dict of the original Oh-LoRA"
    )


def read_nvidia(path: str | Path | ForeignFile, entries: tuple[str, ...] = NVIDIA_ENTRIES) -> NvidiaFile:
    """Reads the networks of a pickle of NVIDIA's stylegan2-ada-pytorch or stylegan3 repositories.

    Args:
        path: The file, or what :func:`recognize` returned for it.
        entries: Which networks to read, of ``G_ema``, ``G`` and ``D``; those that are not there are left out.

    Returns:
        The networks as plain tensors. One that cannot be read does not bar the others.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is another file, or none of the networks can be read; the message names what was refused.
    """
    file, content = _of_kind(path, Kind.NVIDIA)
    networks: dict[str, NvidiaNetwork] = {}
    refused: dict[str, str] = {}
    for name in entries:
        value = content.root.get(name)
        if value is None:
            continue
        try:
            networks[name] = _nvidia_network(value, name, content.size)
        except FormatError as error:
            refused[name] = str(error)
    if not networks:
        reasons = "; ".join(refused.values()) or f"none of {', '.join(entries)} is there"
        raise FormatError(f"{file.path} holds no network that can be read: {reasons}")
    return NvidiaFile(networks, refused, content.unknown)


def read_rosinality(path: str | Path | ForeignFile, entries: tuple[str, ...] = ROSINALITY_ENTRIES) -> RosinalityFile:
    """Reads the networks of a checkpoint of rosinality's stylegan2-pytorch.

    Args:
        path: The file, or what :func:`recognize` returned for it.
        entries: Which networks to read, of ``g_ema``, ``g`` and ``d``; those that are not there are left out.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is another file, or an entry holds something else than tensors.
    """
    file, content = _of_kind(path, Kind.ROSINALITY)
    root = content.root
    where = str(file.path)
    networks = {
        name: _materialised(_state_dict(root[name], f"{name} in {where}"), content.size, f"{name} in {where}")
        for name in entries
        if root.get(name) is not None
    }
    latent_avg = root.get("latent_avg")
    if latent_avg is not None:
        if not isinstance(latent_avg, StoredTensor):
            raise FormatError(f"latent_avg in {where} is {described(latent_avg)}; expected a tensor")
        latent_avg = _materialised({"latent_avg": latent_avg}, content.size, where)["latent_avg"].flatten()
    args = root.get("args")
    if isinstance(args, Placeholder) and args.name == NAMESPACE:
        args = args.state
    settings = plain(args, f"args in {where}") if isinstance(args, dict) else {}
    return RosinalityFile(networks, latent_avg, settings, content.unknown)


def read_states(file: ForeignFile) -> dict[str, dict[str, Tensor]]:
    """The state dicts of a GenForce checkpoint by entry, or that of an original's file under "".

    Tensors' names are without ``module.`` and ``_orig_mod.``; floating point is float32.

    Raises:
        FormatError: If it is another file, or an entry holds something else than tensors.
    """
    assert file.content is not None
    root, size = file.content.root, file.content.size
    if file.kind is Kind.ORIGINAL:
        return {"": _materialised(_state_dict(root, str(file.path)), size, str(file.path))}
    states: dict[str, dict[str, Tensor]] = {}
    for name in GENFORCE_ENTRIES:
        if root.get(name) is not None:
            where = f"{name} in {file.path}"
            states[name] = _materialised(_state_dict(root[name], where), size, where)
    return states


def _of_kind(path: str | Path | ForeignFile, kind: Kind) -> tuple[ForeignFile, PickleFile]:
    file = path if isinstance(path, ForeignFile) else recognize(path)
    if file.kind is not kind or file.content is None:
        raise FormatError(f"{file.path} is a file of kind {file.kind}; expected {kind}")
    return file, file.content


def _module(value: Any) -> tuple[str, dict[str, Any]] | None:
    """(class name, state) of a module: a persistent one of NVIDIA's, or any of torch's."""
    match value:
        case Placeholder(name=name, arguments=({"class_name": str(class_name), "state": dict(state)},)) if (
            name == MODULE_LOADER
        ):
            return class_name, state
        case Placeholder(name=name, state={"_parameters": dict(), "_modules": dict()} as state):
            return name.rpartition(".")[2], state
    return None


def _nvidia_network(value: Any, where: str, size: int) -> NvidiaNetwork:
    found = _module(value)
    for _ in range(MAX_MODULE_DEPTH):
        # Wrappers of DistributedDataParallel and torch.compile have the network as their only module.
        match found:
            case (_, {"_modules": {"module": inside, **others} | {"_orig_mod": inside, **others}}) if not others:
                found = _module(inside)
            case _:
                break
    if found is None:
        raise FormatError(f"{where} is {described(value)}; expected a network")
    class_name, state = found
    tensors: dict[str, StoredTensor] = {}
    layers: dict[str, Layer] = {}
    for path, layer_class, content in _walk(class_name, state, where):
        if _unprefixed(path) in layers and not path.endswith("_orig_mod"):  # which stands in its wrapper's place
            raise FormatError(f"{where} has two modules {_unprefixed(path)!r}")
        layers[_unprefixed(path)] = Layer(one_line(layer_class, 80), _attributes(content))
        for name, tensor in _own_tensors(content, where, path):
            if name in tensors:
                raise FormatError(f"{where} has two tensors {name}")
            tensors[name] = tensor
    arguments = state.get("_init_args", ())
    keywords = state.get("_init_kwargs", {})
    if not isinstance(arguments, tuple) or not isinstance(keywords, dict):
        raise FormatError(f"{where} was made with {described(arguments)} and {described(keywords)}; expected arguments")
    return NvidiaNetwork(
        one_line(class_name, 80),
        plain(arguments, f"the arguments of {where}"),
        plain(keywords, f"the arguments of {where}"),
        _materialised(tensors, size, where),
        layers,
    )


def _walk(class_name: str, state: dict[str, Any], where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(dotted name, class name, state) of a module and all below it, in torch's order."""
    waiting = [("", class_name, state)]
    count = entries = 0
    while waiting:
        path, name, content = waiting.pop()
        parts = [content.get(part, {}) for part in ("_parameters", "_buffers", "_modules")]
        if not all(isinstance(part, dict) for part in parts):
            raise FormatError(f"{where}: {_joined(path, name)} is not in the form of a module of torch")
        count += 1
        entries += len(content) + sum(map(len, parts))
        # A module may be in the file once and in the network a million times.
        if count > MAX_MODULES or path.count(".") > MAX_MODULE_DEPTH or entries > MAX_ENTRIES:
            raise FormatError(
                f"{where} has more than {MAX_MODULES:,} modules, {MAX_MODULE_DEPTH} levels or {MAX_ENTRIES:,} entries"
            )
        yield path, name, content
        children = parts[-1]
        below = []
        for key, child in children.items():
            if child is None:
                continue
            found = _module(child)
            if found is None or not isinstance(key, str) or len(key) > 100:
                raise FormatError(f"{where}: {_joined(path, key)} is {described(child)}; expected a module")
            below.append((f"{path}.{key}" if path else key, *found))
        waiting.extend(reversed(below))


def _joined(path: str, key: Any) -> str:
    """A dotted name for messages."""
    return one_line(f"{path}.{key}" if path else str(key), 120) if isinstance(key, str) else f"an entry of {path!r}"


def _own_tensors(state: dict[str, Any], where: str, path: str) -> Iterator[tuple[str, StoredTensor]]:
    """The parameters and persistent buffers of one module, without those below it."""
    passing = state.get("_non_persistent_buffers_set")
    passing = {name for name in passing if isinstance(name, str)} if isinstance(passing, list) else set()
    for part in ("_parameters", "_buffers"):
        for key, value in state.get(part, {}).items():
            if value is None or (part == "_buffers" and isinstance(key, str) and key in passing):
                continue
            if not isinstance(key, str) or not isinstance(value, StoredTensor):
                raise FormatError(f"{where}: {_joined(path, key)} is {described(value)}; expected a tensor")
            yield _unprefixed(f"{path}.{key}" if path else key), value


def _attributes(state: dict[str, Any]) -> dict[str, Any]:
    def simple(value: Any) -> bool:
        return value is None or isinstance(value, (bool, int, float, str))

    kept: dict[str, Any] = {}
    for name, value in state.items():
        if not isinstance(name, str) or name.startswith("_"):
            continue
        if isinstance(value, StoredArray) and value.content is not None and value.content.size <= MAX_ATTRIBUTE_VALUES:
            kept[name] = value.content.tolist()
        elif simple(value):
            kept[name] = value
        elif isinstance(value, (list, tuple)) and len(value) <= MAX_ATTRIBUTE_VALUES and all(map(simple, value)):
            kept[name] = list(value)
    return kept


def _unprefixed(name: str) -> str:
    """A tensor's or module's name without what DistributedDataParallel and torch.compile put around it."""
    parts = (part for part in name.split(".") if part != "_orig_mod")
    return ".".join(dropwhile(lambda part: part == "module", parts))


def _state_dict(value: Any, where: str) -> dict[str, StoredTensor]:
    """A state dict of a checkpoint, its names without prefixes."""
    if not isinstance(value, dict):
        raise FormatError(f"{where} is {described(value)}; expected a state dict")
    state: dict[str, StoredTensor] = {}
    for key, tensor in value.items():
        if not isinstance(key, str) or not isinstance(tensor, StoredTensor):
            raise FormatError(f"{where}: {_joined('', key)} is {described(tensor)}; expected a tensor")
        if _unprefixed(key) in state:
            raise FormatError(f"{where} has two tensors {one_line(_unprefixed(key))}")
        state[_unprefixed(key)] = tensor
    return state


def _materialised(tensors: Mapping[str, StoredTensor], size: int, where: str) -> dict[str, Tensor]:
    """The tensors themselves, floating point as float32."""
    if (claimed := sum(tensor.nbytes for tensor in tensors.values())) > size:
        raise FormatError(f"{where} claims {claimed:,} bytes of tensors; the whole file has {size:,}")
    made: dict[str, Tensor] = {}
    for name, stored in tensors.items():
        try:
            tensor = stored.tensor()
        except FormatError as error:
            raise FormatError(f"{where}: {one_line(name)}: {error}") from error
        made[name] = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
    return made

"""Our safetensors files: tensors, and metadata that say what they are and in which version of the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ohlora.errors import FormatError, NonFiniteError, StorageError
from ohlora.formats import foreign_files
from ohlora.pipeline import require
from ohlora.utils.files import replacing


def write(
    path: str | Path,
    format: str,  # noqa: A002
    version: int,
    tensors: Mapping[str, Tensor],
    may_be_nan: Collection[str] = (),
    **about: Any,
) -> None:
    """Writes a file, whole or not at all.

    Args:
        path: Where to; an existing file is replaced.
        format: What the file is, such as ``ohlora-network``.
        version: Version of that format.
        tensors: Name → tensor.
        may_be_nan: Tensors whose values need not be finite.
        about: What else the file says of itself; anything JSON can hold.

    The same content makes the same bytes.

    Raises:
        StorageError: If it cannot be written.
        NonFiniteError: Naming the first tensor that holds NaN or an infinity, unless ``may_be_nan`` names it.
    """
    metadata = {"format": format, "format_version": str(version)}
    for key, value in about.items():
        # Plain words stay as they are, so that other readers of the format see no quotes; "12" would become a number.
        metadata[key] = value if isinstance(value, str) and _decoded(value) == value else json.dumps(value)
    state = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    check_finite({key: value for key, value in state.items() if key not in may_be_nan}, f"{path} was not written")
    with replacing(path) as part:
        try:
            save_file(state, part, metadata)
            _sort_header(part)
        except SafetensorError as error:  # safetensors' own I/O errors are no OSError
            raise StorageError(f"{path} cannot be written ({error}); make room or mend the disk, then go on") from error


def _sort_header(path: Path) -> None:
    """Orders the metadata by name: the library writes them in another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # readers allow for blanks at the end
            file.seek(8)
            file.write(text.ljust(size))


def not_finite(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The names of the tensors that hold NaN or infinite values."""
    return (key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all())


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Insists on finite values.

    Raises:
        NonFiniteError: Naming the first tensor that holds NaN or an infinity; ``what`` says what that means.
    """
    for name in not_finite(tensors):
        raise NonFiniteError(f"{what}: its tensor {name} holds values that are not finite")


def content_stamp(path: str | Path) -> str:
    """The SHA-256 digest of a file's tensors and of what the file says of itself, in a fixed order.

    Where it comes from (``provenance``, paths) and the version of the format do not count.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is not a readable safetensors file.
    """
    require(path)
    digest = hashlib.sha256()
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for key in sorted(metadata):
                if key not in ("format_version", "provenance") and not key.endswith("_path"):
                    told = json.dumps(_decoded(metadata[key]), sort_keys=True)
                    digest.update(f"{key}={told}\n".encode())
            for key in sorted(file.keys()):
                value = file.get_tensor(key)
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is not a readable safetensors file ({error})") from error
    return digest.hexdigest()


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or longer numbers or deeper lists than ours have
        return text


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def described(path: str | Path) -> dict[str, Any]:
    """What a safetensors file of any format says of its making: its ``provenance`` or ``card``, and the rest of it.

    Raises:
        FormatError: If it is no readable safetensors file.
    """
    try:
        rest = {key: _decoded(value) for key, value in _metadata(Path(path)).items()}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is not a readable safetensors file ({error})") from error
    inner = [rest.get(key) for key in ("provenance", "card")]
    return rest | {key: value for part in inner if isinstance(part, dict) for key, value in part.items()}


def read_metadata(path: str | Path, format: str, version: int, what: str) -> dict[str, Any]:  # noqa: A002
    """What a file says of itself, without ``format``.

    Args:
        path: The file.
        format: What it must be.
        version: The newest version that can be read.
        what: That in words, for messages: "a network".

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If the file is truncated or something else, or was written by a newer ohlora.
    """
    path = Path(path)
    require(path)
    try:
        metadata = _metadata(path)
    except (SafetensorError, OSError) as error:
        said = foreign_files.described_file(path)
        raise FormatError(f"{path} is not a readable safetensors file: it {said}; expected {what}") from error
    if metadata.get("format") != format:
        raise FormatError(
            f"{path} is a safetensors file, but not {what} written by ohlora (format {metadata.get('format')!r}); "
            f"expected format {format!r}"
        )
    try:
        found = int(metadata["format_version"])
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path} does not say its format_version; get it or make it again") from error
    if found > version:
        raise FormatError(f"{path} has format version {found}; this ohlora reads up to {version}: update it")
    rest = {key: _decoded(value) for key, value in metadata.items() if key not in ("format", "format_version")}
    return {"format_version": found, **rest}


def files_of(folder: str | Path, format: str) -> tuple[list[Path], list[Path]]:  # noqa: A002
    """The files of one format below a folder, sorted; those of single runs and shards of samples are left out.

    Returns:
        The files, and those that cannot be read at all.
    """
    found: list[Path] = []
    damaged: list[Path] = []
    for path in sorted(Path(folder).rglob("*.safetensors")):
        if {"runs", "shards"} & set(path.relative_to(folder).parts) or path.name.startswith("."):
            continue
        try:
            if _metadata(path).get("format") == format:
                found.append(path)
        except (SafetensorError, OSError):
            damaged.append(path)
    return found, damaged


def read_tensors(
    path: str | Path, names: Iterable[str] | None = None, may_be_nan: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of a file whose metadata were read; ``names`` limits them, so that no others are loaded.

    Raises:
        NonFiniteError: Naming the first tensor that holds NaN or an infinity, unless ``may_be_nan`` names it.
        FormatError: If the file lacks a tensor or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in (file.keys() if names is None else names)}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} lacks a tensor or is damaged ({error}); get it or make it again") from error
    check_finite({key: value for key, value in found.items() if key not in may_be_nan}, f"{path} cannot be used")
    return found

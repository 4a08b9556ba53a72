"""Pickles as plain data: what a file holds, without importing, calling or building anything that it names.

Python's own unpickler executes a file: it imports the modules that the file names and calls what it finds there. The
reader here is another machine for the same opcodes. It has no way to import or to call: names stay text
(:class:`Placeholder`), and a call becomes data only if its name is in :data:`KNOWN`, whose functions make dictionaries,
lists, numbers and descriptions of arrays. Everything else is kept as a placeholder that records what it was called
with, so that one foreign object does not bar the rest of a file.

Tensors are described by their storage, shape and strides, and made only when asked for
(:meth:`StoredTensor.tensor`). Every size that a file claims is compared with the bytes it has before memory is taken.
Storages are not read by :func:`torch.load`, which allocates what a storage claims to be before it looks for its bytes.
"""

from __future__ import annotations

import io
import mmap
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohlora.errors import FormatError
from ohlora.pipeline import require

MAX_OPCODES = 2_000_000
"""Opcodes that one file may have; files of StyleGANs have 15,000 to 200,000."""
MAX_INTEGER_BITS = 1024
"""Length of the longest integer; the states of random generators have 128 bits, or some words of 32."""
MAX_DIMENSIONS = 16
"""Dimensions of a tensor; networks have up to five."""
MAX_SETTINGS = 10_000
"""Values that a network's settings may have."""
MAX_SETTINGS_DEPTH = 16

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in a file that torch wrote before it wrote zip archives, and in pickled storages until today."""
LEGACY_PROTOCOL = 1001

STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(eq=False, repr=False)
class Placeholder:
    """Something that a file names and that was neither imported nor called.

    Attributes:
        name: Its dotted name.
        arguments: What the file calls it with; None where it is only named.
        state: The state that the file gives it.
        items: What the file puts into it: values, or pairs of key and value.
    """

    name: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None
    items: list[Any] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The name, fit for a message of one line."""
        return one_line(self.name, 80)


@dataclass(eq=False, repr=False)
class Storage:
    """The memory of one or more tensors.

    Attributes:
        dtype: Type of its values.
        numel: Their number.
        data: Their bytes, in the file's own memory.
        checksum: CRC-32 of the bytes, where the file states one.
    """

    dtype: torch.dtype
    numel: int
    data: memoryview | None = None
    checksum: int | None = None

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.numel * self.dtype.itemsize

    @cached_property
    def intact(self) -> bool:
        """Whether the bytes are there and match their checksum."""
        return self.data is not None and self.checksum in (None, zlib.crc32(self.data))


@dataclass(frozen=True, eq=False, repr=False)
class StoredTensor:
    """A tensor that lies in a file.

    Attributes:
        storage: Where its values are.
        offset: Index of its first value there.
        shape: Its shape.
        stride: Distance of neighbours along each dimension, in values.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.stride) or len(self.shape) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {len(self.shape)} sizes and {len(self.stride)} strides")
        if not all(type(n) is int and 0 <= n < 2**62 for n in (self.offset, *self.shape, *self.stride)):
            raise ValueError("a tensor's shape, stride or offset are not counts")
        if prod(max(n, 1) for n in self.shape) >= 2**62:
            raise ValueError("a tensor's shape has more places than can be counted")
        # A stride of 0 would make a large tensor of a small storage.
        if self.span and max(self.offset + self.span, prod(self.shape)) > self.storage.numel:
            raise ValueError(f"a tensor of shape {self.shape} claims more than its {self.storage.numel} stored values")

    @property
    def span(self) -> int:
        """Values of the storage from its first to its last, those between that are not its own included."""
        if 0 in self.shape:
            return 0
        return sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) + 1

    @property
    def nbytes(self) -> int:
        """Bytes that making it takes: overlapping values, as by a stride of 0, are copied apart."""
        return max(self.span, prod(self.shape)) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            FormatError: If the bytes do not match their checksum.
        """
        dtype = self.storage.dtype
        if not self.span:
            return torch.empty(self.shape, dtype=dtype)
        if self.storage.data is None or not self.storage.intact:
            raise FormatError("the bytes of a tensor do not match their checksum: the file is damaged, get it again")
        data = self.storage.data[self.offset * dtype.itemsize : (self.offset + self.span) * dtype.itemsize]
        return torch.frombuffer(bytearray(data), dtype=dtype).as_strided(self.shape, self.stride).contiguous()


@dataclass(eq=False, repr=False)
class _ArrayType:
    """What :class:`numpy.dtype` was called with: numbers and truth values only."""

    code: str
    order: str = "="

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


@dataclass(eq=False, repr=False)
class StoredArray:
    """A NumPy array of numbers that lies in a file; its content comes after it was named."""

    content: NDArray[Any] | None = None


class _Reading:
    """What is left to a file while it is read, the storages inside it included, and the unknown names it has.

    Args:
        size: Bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.opcodes = MAX_OPCODES
        self.copies = 4 * size + 65536
        self.inside_storage = False
        self.unknown: set[str] = set()

    def opcode(self) -> None:
        """Counts an opcode."""
        self.opcodes -= 1
        if self.opcodes < 0:
            raise ValueError(f"more than {MAX_OPCODES:,} instructions")

    def copy(self, nbytes: int) -> None:
        """Counts bytes that are made from what was read; a file could ask for the same copy a million times."""
        self.copies -= nbytes
        if self.copies < 0:
            raise ValueError("it asks for many times the memory that it has")

    def claim(self, nbytes: int, what: str) -> None:
        """Compares a claimed size with the file's."""
        if not 0 <= nbytes <= self.size:
            raise ValueError(f"{what} claims {nbytes:,} bytes; the file has {self.size:,}")


@dataclass(frozen=True)
class PickleFile:
    """A pickle, or a checkpoint of torch, as plain data.

    Attributes:
        root: The object in it: dictionaries, lists (sets are lists too), tuples, numbers, strings, bytes,
            :class:`StoredTensor`, :class:`StoredArray` and :class:`Placeholder`. It may contain itself, and the same
            object may occur in it many times.
        unknown: Names outside :data:`KNOWN` that the file refers to, none of which was imported, sorted.
        size: Bytes of the file.
    """

    root: Any
    unknown: tuple[str, ...]
    size: int


# What the known names make. Each returns None where the arguments are not as expected; the call stays a placeholder.


def _dictionary(reading: _Reading, *arguments: Any) -> dict[Any, Any] | None:
    match arguments:
        case ():
            return {}
        case (dict() as content,):
            reading.copy(64 * len(content))
            return dict(content)
        case (list() as pairs,):
            reading.copy(64 * len(pairs))
            if all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
                return {_key(key): value for key, value in pairs}
    return None


def _set(reading: _Reading, *arguments: Any) -> list[Any] | None:
    match arguments:
        case ():
            return []
        case (list() as content,):
            return content
    return None


def _reconstructed(reading: _Reading, *arguments: Any) -> Any:
    """Objects of pickle protocols 0 and 1."""
    match arguments:
        case (Placeholder(name=name, arguments=None), Placeholder(arguments=None), content):
            return _call(name, () if content is None else (content,), reading)
    return None


def _encode(reading: _Reading, *arguments: Any) -> bytes | None:
    """Bytes in pickle protocols 0 to 2."""
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            reading.copy(len(text))
            return text.encode("latin-1")
    return None


def _empty_bytes(reading: _Reading, *arguments: Any) -> bytes | None:
    return b"" if not arguments else None


def _shape(reading: _Reading, *arguments: Any) -> tuple[Any, ...] | None:
    match arguments:
        case (tuple() as shape,):
            return shape
    return None


def _array_type(reading: _Reading, *arguments: Any) -> _ArrayType | None:
    match arguments:
        case (str() as code, *_) if re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            return _ArrayType(code)
    return None


def _array(reading: _Reading, *arguments: Any) -> StoredArray | None:
    match arguments:
        case (Placeholder(name="numpy.ndarray", arguments=None), (0,), _):
            return StoredArray()
    return None


def _array_from_buffer(reading: _Reading, *arguments: Any) -> StoredArray | None:
    match arguments:
        case (bytes() | bytearray() as data, _ArrayType() as kind, tuple() as shape, "C" | "F" as order):
            return StoredArray(_numbers(data, kind, shape, order == "F"))
    return None


def _number(reading: _Reading, *arguments: Any) -> bool | int | float | None:
    match arguments:
        case (_ArrayType() as kind, bytes() | bytearray() as data):
            return _numbers(data, kind, (), False).item()  # type: ignore[no-any-return]
    return None


def _numbers(data: bytes | bytearray, kind: _ArrayType, shape: tuple[Any, ...], fortran: bool) -> NDArray[Any]:
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array's shape is not a list of counts")
    if prod(shape) * kind.dtype.itemsize != len(data):
        raise ValueError(f"an array of {prod(shape):,} numbers comes with {len(data):,} bytes")
    return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _tensor(reading: _Reading, *arguments: Any) -> StoredTensor | None:
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
            return StoredTensor(storage, offset, shape, stride)
    return None


def _parameter(reading: _Reading, *arguments: Any) -> StoredTensor | None:
    match arguments:
        case (StoredTensor() as tensor, *_):
            return tensor
    return None


def _storage(reading: _Reading, *arguments: Any) -> Storage | None:
    match arguments:
        case (bytes() | bytearray() as data,):
            if reading.inside_storage:
                raise ValueError("a storage within a storage")
            reading.copy(len(data) if isinstance(data, bytearray) else 0)
            reading.inside_storage = True
            storage = _read_legacy(bytes(data), reading)
            reading.inside_storage = False
            if isinstance(storage, Storage):
                return storage
    return None


STORAGE_LOADER = "torch.storage._load_from_bytes"
MODULE_LOADER = "torch_utils.persistence._reconstruct_persistent_obj"
"""What a NVIDIA pickle says of each module; called with its class name and its state, it stays a placeholder."""
NAMESPACE = "argparse.Namespace"
KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "dnnlib.util.EasyDict": _dictionary,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "__builtin__.set": _set,
    "__builtin__.frozenset": _set,
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
    "_codecs.encode": _encode,
    "builtins.bytes": _empty_bytes,
    "__builtin__.bytes": _empty_bytes,
    "numpy.dtype": _array_type,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
    "numpy._core.numeric._frombuffer": _array_from_buffer,
    "torch.Size": _shape,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    STORAGE_LOADER: _storage,
}
"""The names that become data, and the functions here that make it. Nothing is imported or called by these names."""
BASES = frozenset(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("object", "dict", "list"))
NAMED = frozenset({*KNOWN, *STORAGES, *BASES, MODULE_LOADER, NAMESPACE, "numpy.ndarray"})
"""The names that files of StyleGANs are expected to have."""


def _call(name: str, arguments: tuple[Any, ...], reading: _Reading) -> Any:
    made = KNOWN[name](reading, *arguments) if name in KNOWN else None
    return Placeholder(name, arguments) if made is None else made


def _key(key: Any) -> Any:
    """A dictionary's key. A tuple may nest so that its hash takes for ever: as a key it is put into a placeholder."""
    plain = (
        key is None
        or isinstance(key, (str, bytes, float, Placeholder))
        or (isinstance(key, int) and key.bit_length() < 64)
    )
    return key if plain else Placeholder(f"a key of type {type(key).__name__}", (key,))


_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
"""The opcodes that push their argument."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Machine:
    """Runs the opcodes of one pickle on a stack of plain data.

    Args:
        stream: Where to read from: a file in memory, at the pickle's first byte.
        reading: What is left to the file.
        storages: Takes the storages that the pickle refers to, by their keys; None where it is no checkpoint of torch.
    """

    def __init__(
        self, stream: io.BytesIO | mmap.mmap, reading: _Reading, storages: dict[str, Storage] | None = None
    ) -> None:
        self.stream, self.reading, self.storages = stream, reading, storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes; the stream is left behind its last byte."""
        # genops only splits the bytes into opcodes and their arguments; files in memory give no more than they have.
        for opcode, argument, _ in pickletools.genops(self.stream):  # type: ignore[arg-type]
            self.reading.opcode()
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("it ends early")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
                raise ValueError(f"an integer of {argument.bit_length():,} bits")
            stack.append(argument)
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
            return
        match name:
            case "PROTO":
                if argument > 5:
                    raise ValueError(f"pickle protocol {argument}; expected up to 5")
            case "FRAME":
                pass
            # Stack and memo
            case "POP" if not stack:
                self._marked()
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError("it refers to an object that it does not hold")
                stack.append(self.memo[argument])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                if not 0 <= argument < 2**32:
                    raise ValueError("a reference that is no count")
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            # Containers
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                self._push(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._push(tuple(self._pop(int(name[-1]))))
            case "LIST" | "FROZENSET":
                self._push(self._marked())
            case "DICT":
                content: dict[Any, Any] = {}
                _put_pairs(content, self._marked())
                self._push(content)
            case "APPEND":
                _put(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                _put(self._under_mark(), self._marked())
            case "SETITEM":
                _put_pairs(stack[-3], self._pop(2))
            case "SETITEMS":
                _put_pairs(self._under_mark(), self._marked())
            # Names and calls
            case "GLOBAL":
                self._push(self._named(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                module, attribute = self._pop(2)
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise ValueError("a name that is not text")
                self._push(self._named(f"{module}.{attribute}"))
            case "EXT1" | "EXT2" | "EXT4":
                self._push(self._named(f"extension {argument}"))
            case "REDUCE" | "NEWOBJ":
                self._push(self._called(*self._pop(2)))
            case "NEWOBJ_EX":
                target, arguments, keywords = self._pop(3)
                self._push(self._called(target, (arguments, keywords) if keywords else arguments))
            case "INST":
                self._push(self._called(self._named(argument.replace(" ", ".")), tuple(self._marked())))
            case "OBJ":
                target, *arguments = self._marked()
                self._push(self._called(target, tuple(arguments)))
            case "BUILD":
                _set_state(stack[-2], stack.pop())
            case "PERSID" | "BINPERSID":
                self._push(self._persistent(argument if name == "PERSID" else stack.pop()))
            case _:
                raise ValueError(f"the opcode {name}, which such files do not have")

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("an instruction without its operands")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _marked(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def _under_mark(self) -> Any:
        return self.below[-1][-1]

    def _named(self, name: str) -> Placeholder:
        if len(name) > 1000:
            raise ValueError(f"a name of {len(name):,} letters")
        self.reading.copy(len(name) // 10)
        # What reuses NVIDIA's form keeps these two modules, often inside a package of its own.
        name = re.sub(r"^.*\.(torch_utils\.persistence|dnnlib\.util)\.", r"\1.", name)
        if name not in NAMED:
            self.reading.unknown.add(name)
        return Placeholder(name)

    def _called(self, target: Any, arguments: Any) -> Any:
        if not isinstance(target, Placeholder) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of a {type(target).__name__}")
        if target.arguments is not None:
            return Placeholder(f"{one_line(target.name, 200)}()", arguments)
        return _call(target.name, arguments, self.reading)

    def _persistent(self, reference: Any) -> Any:
        match reference:
            case ("storage", Placeholder(name=name, arguments=None), str(key), _, int(numel), *view) if (
                self.storages is not None and name in STORAGES and not any(view)
            ):
                storage = Storage(STORAGES[name], numel)
                self.reading.claim(storage.nbytes, "a storage")
                known = self.storages.setdefault(key, storage)
                if (known.dtype, known.numel) != (storage.dtype, storage.numel):
                    raise ValueError("a storage that is described twice and differently")
                return known
            case ("module", kept, *_) if self.storages is not None:
                return kept  # a class with its source code beside it, as torch wrote it until 1.6
        self.reading.unknown.add("a persistent id")
        return Placeholder("a persistent id", (reference,))


def _put(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, Placeholder):
        target.items.extend(values)
    else:
        raise ValueError(f"items for a {type(target).__name__}")


def _put_pairs(target: Any, values: list[Any]) -> None:
    if len(values) % 2:
        raise ValueError("a key without a value")
    pairs = zip(values[::2], values[1::2], strict=True)
    if isinstance(target, dict):
        target.update((_key(key), value) for key, value in pairs)
    elif isinstance(target, Placeholder):
        target.items.extend(pairs)
    else:
        raise ValueError(f"entries for a {type(target).__name__}")


def _set_state(target: Any, state: Any) -> None:
    match target, state:
        case (Placeholder(), _):
            target.state = state
        case (_ArrayType(), (_, "<" | ">" | "=" | "|" as order, *_)):
            target.order = order
        case (StoredArray(), (_, tuple() as shape, _ArrayType() as kind, fortran, bytes() | bytearray() as data)):
            target.content = _numbers(data, kind, shape, bool(fortran))
        case (StoredArray(), _):
            target.content = None  # an array of objects
        case (dict(), _):
            pass  # attributes of a dictionary, such as the _metadata of a state dict: no weights
        case _:
            raise ValueError(f"a state for a {type(target).__name__}")


# Checkpoints of torch


def _read_legacy(buffer: bytes | mmap.mmap, reading: _Reading) -> Any:
    """Torch's older format: five pickles in a row, then the bytes of the storages."""
    stream = io.BytesIO(buffer) if isinstance(buffer, bytes) else buffer
    storages: dict[str, Storage] = {}

    def following() -> Any:
        return _Machine(stream, reading, storages).run()

    if following() != LEGACY_MAGIC or following() != LEGACY_PROTOCOL:
        raise ValueError("a storage in a form that torch does not write")
    system = following()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("tensors that are not in little-endian byte order")
    root, keys = following(), following()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("storages that are described and not there")
    view, position = memoryview(buffer), stream.tell()
    for key in keys:
        storage = storages[key]
        (numel,) = struct.unpack_from("<q", view, position)
        start, position = position + 8, position + 8 + storage.nbytes
        if numel != storage.numel or position > len(view):
            raise ValueError(f"a storage claims {storage.nbytes:,} bytes; {max(len(view) - start, 0):,} are there")
        storage.data = view[start:position]
    return root


def _read_zip(path: Path, buffer: mmap.mmap, reading: _Reading) -> Any:
    """Torch's zip archives: data.pkl and one entry for each storage, none of them compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("compressed entries, which torch does not write")
    if sum(entry.file_size for entry in entries.values()) > reading.size:
        raise ValueError("entries that claim more than the file has")
    view = memoryview(buffer)

    def content(entry: zipfile.ZipInfo) -> memoryview:
        names = struct.unpack_from("<HH", view, entry.header_offset + 26)
        start = entry.header_offset + 30 + sum(names)
        part = view[max(start, 0) : max(start, 0) + entry.file_size]
        if len(part) != entry.file_size:
            raise ValueError("an entry that ends behind the file")
        return part

    pickled = next((entry for name, entry in entries.items() if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
    if pickled is None:
        raise ValueError("a zip archive without the data.pkl of a checkpoint")
    folder = pickled.filename.removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and bytes(content(order)) != b"little":
        raise ValueError("tensors that are not in little-endian byte order")
    storages: dict[str, Storage] = {}
    root = _Machine(io.BytesIO(content(pickled)), reading, storages).run()
    for key, storage in storages.items():
        entry = entries.get(f"{folder}data/{key}")
        if entry is None or entry.file_size != storage.nbytes:
            found = "none" if entry is None else f"{entry.file_size:,}"
            raise ValueError(f"a storage claims {storage.nbytes:,} bytes; {found} are there")
        storage.data, storage.checksum = content(entry), entry.CRC
    return root


def read_pickle(path: str | Path) -> PickleFile:
    """Reads a pickle, or a checkpoint that torch wrote as a zip archive or in its older form, and runs nothing.

    Args:
        path: The file.

    Returns:
        Its content as plain data. Its tensors lie in the file until they are asked for.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is no such file, is truncated, or claims more than it holds.
    """
    path = Path(path)
    require(path)
    size = path.stat().st_size
    if not size:
        raise FormatError(f"{path} is empty; get it again")
    reading = _Reading(size)
    with path.open("rb") as file:
        # The tensors refer to the map, which closes with the last of them.
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        if buffer[:4] == b"PK\x03\x04":
            root = _read_zip(path, buffer, reading)
        elif is_legacy(buffer[:32]):
            root = _read_legacy(buffer, reading)
        else:
            root = _Machine(buffer, reading).run()
    except (IndexError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path} is damaged or no pickle: an instruction has no operands that fit it; download it again"
        ) from error
    except (ArithmeticError, EOFError, LookupError, ValueError, struct.error, DeprecationWarning) as error:
        # The warning is Python's about odd escapes in old text, where a process has made warnings errors.
        raise FormatError(f"{path} is damaged or no pickle: {one_line(str(error))}; download it again") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise FormatError(f"{path} is a damaged checkpoint of torch: {one_line(str(error))}; get it again") from error
    return PickleFile(root, tuple(sorted(reading.unknown)), size)


def is_legacy(head: bytes) -> bool:
    """Whether a file's first bytes are those of torch's older format."""
    try:
        return any(argument == LEGACY_MAGIC for _, argument, _ in pickletools.genops(head))
    except ValueError:
        return False


def one_line(text: str, length: int = 160) -> str:
    """A text that a file contains, fit for a message: on one line, without control characters, not too long."""
    shown = text[:length].encode("unicode_escape").decode("ascii")
    return f"{shown}…" if len(text) > length else shown


def described(value: Any) -> str:
    """What a value is, in words for a message."""
    if isinstance(value, Placeholder):
        return f"{value.shown}, which is not run" if value.arguments is not None else f"the name {value.shown}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@dataclass(frozen=True)
class Unread:
    """A setting that is an object of an unknown kind: only its name was read.

    Attributes:
        name: What the file calls it.
    """

    name: str


def plain(value: Any, where: str) -> Any:
    """Settings as Python's own values: dictionaries with keys of text, lists, tuples, numbers, text; arrays as lists.

    Args:
        value: A value of :class:`PickleFile`.
        where: What it is, for messages.

    Returns:
        A copy. What the file only names, or would have to be called, is an :class:`Unread`.

    Raises:
        FormatError: If it is larger or deeper than settings are, as one that contains itself, or holds what no setting
            is.
    """
    left = MAX_SETTINGS

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        if isinstance(value, StoredArray) and value.content is not None:
            left -= value.content.size
        left -= len(value) if isinstance(value, (list, tuple, dict)) else 1
        if left < 0 or depth > MAX_SETTINGS_DEPTH:
            raise FormatError(
                f"{where} has more than {MAX_SETTINGS:,} values or {MAX_SETTINGS_DEPTH} levels; expected settings"
            )
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return type(value)(copied(item, depth + 1) for item in value)
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: copied(item, depth + 1) for key, item in value.items()}
        if isinstance(value, StoredArray) and value.content is not None:
            return value.content.tolist()
        return Unread(value.shown if isinstance(value, Placeholder) else type(value).__name__)

    return copied(value, 0)

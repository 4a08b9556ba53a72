"""Writes files in ONNX format, whose protobuf messages are few enough to be put together by hand."""

from __future__ import annotations

from pathlib import Path

FLOAT, DOUBLE = 1, 11


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field of a message: a number, or a text or message with its length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _value(name: str, kind: int, sizes: tuple[int | str, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in sizes)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def write_network(
    path: Path, sizes: tuple[int | str, ...], kind: int = FLOAT, operator: str = "GlobalAveragePool"
) -> Path:
    """A network of one operator, by default the average of each channel.

    Args:
        path: Where to.
        sizes: Sizes of its input; names stand for any size.
        kind: The type of its values.
        operator: What it does.
    """
    node = _field(1, "images") + _field(2, "means") + _field(4, operator)
    inputs, outputs = _value("images", kind, sizes), _value("means", kind, (sizes[0], sizes[1], 1, 1))
    graph = _field(1, node) + _field(2, "pooling") + _field(11, inputs) + _field(12, outputs)
    model = _field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph)
    path.write_bytes(model)
    return path

"""What a file says of itself comes back as it was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ohlora.errors import FormatError
from ohlora.formats import tensor_files


def test_metadata_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    # Fingerprints are hexadecimal, and some of those look like numbers.
    said: dict[str, Any] = {
        "word": "svm",
        "digits": "1234567890123456",
        "power": "12e4567890123456",
        "none": "",
        "null": "null",
    }
    more: dict[str, Any] = {"number": 3, "list": [1.5, "x"], "table": {"a": None}, "quoted": '"x"'}
    tensor_files.write(path, "test", 2, {"x": torch.arange(6.0).reshape(3, 2)}, **said, **more)
    assert tensor_files.read_metadata(path, "test", 2, "a test file") == {"format_version": 2, **said, **more}
    assert tensor_files.read_tensors(path, ["x"])["x"].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    with pytest.raises(FormatError, match="has format version 2; this ohlora reads up to 1"):
        tensor_files.read_metadata(path, "test", 1, "a test file")
    with pytest.raises(FormatError, match="not a character written by ohlora"):
        tensor_files.read_metadata(path, "other", 1, "a character")

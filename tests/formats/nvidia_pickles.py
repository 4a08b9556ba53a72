"""Pickles in NVIDIA's form, made without NVIDIA's code: the names they refer to exist only while they are written."""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Persistent:
    """Stands for a module; is pickled as NVIDIA's persistence writes it."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextmanager
def named() -> Iterator[type]:
    """Makes NVIDIA's two names importable, and takes them away again; gives the class EasyDict."""
    modules = {
        name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    modules["dnnlib.util"].EasyDict = easy  # type: ignore[attr-defined]

    def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Persistent:
        return Persistent(meta)

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield easy
    finally:
        for name in modules:
            del sys.modules[name]


def rewritten(data: bytes, protocol: int) -> bytes:
    """One of the golden pickles in another protocol, by Python's own pickler."""
    with named():
        content = pickle.loads(data)
        return pickle.dumps(content, protocol=protocol)


def module(
    class_name: str = "Generator",
    parameters: dict[str, Any] | None = None,
    modules: dict[str, Any] | None = None,
    **more: Any,
) -> Persistent:
    """A persistent module; inside :func:`named` only."""
    easy = sys.modules["dnnlib.util"].EasyDict
    state = {
        "training": False,
        "_parameters": {
            key: torch.nn.Parameter(value, requires_grad=False) if isinstance(value, Tensor) else value
            for key, value in (parameters or {}).items()
        },
        "_buffers": {},
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": collections.OrderedDict(),
        "_modules": modules or {},
        "_init_args": (),
        "_init_kwargs": easy(img_resolution=16),
        **more,
    }
    source = "raise RuntimeError('the source of a pickle was run')"
    return Persistent(easy(type="class", version=6, module_src=source, class_name=class_name, state=state))


def small(protocol: int = 3, **entries: Any) -> bytes:
    """A pickle with G_ema of one small layer, and other entries; inside :func:`named` only."""
    ema = module(
        parameters={"bias": torch.arange(3.0)},
        modules={"mapping": module("MappingNetwork", {"weight": torch.ones(2, 2)})},
    )
    content = {"training_set_kwargs": None, "G": None, "D": None, "G_ema": ema, "augment_pipe": None, **entries}
    stream = io.BytesIO()
    pickle.dump(content, stream, protocol=protocol)
    return stream.getvalue()

"""A second device made in Python: finds on a CPU what would fail on a GPU.

Its tensors keep their data on the CPU, say that they are on ``second:0``, and refuse to meet CPU tensors in one
operation, as CUDA tensors do. What CUDA allows is allowed here, too: 0-dimensional CPU tensors, and CPU tensors that
index a tensor of the device. Not covered: pinned memory, streams, autocast, ``torch.compile``, speed.

It changes torch for the whole process, which ends with a harmless "terminate called", so it runs in one of its own::

    python -m tests.second_device fit --config …

runs the entry point with the device as accelerator; :func:`run_on_second_device` does that from a test.
"""

# The methods of a wrapper tensor replace torch's, whose types are narrower than what is passed on here.
# mypy: disable-error-code="override, no-untyped-call, misc, assignment, arg-type, unused-ignore"

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SETTINGS = (
    *("--trainer.accelerator", "second"),
    *("--trainer.strategy", "lightning.pytorch.strategies.SingleDeviceStrategy"),
    *("--trainer.strategy.init_args.device", "second:0"),
    *("--trainer.inference_mode", "false"),
)
"""Settings of the entry point that choose the device."""
operators = 0
"""How many operators have run on the device."""


def run_on_second_device(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the entry point in a process of its own, on the second device.

    Args:
        *words: The command line after ``ohlora``.

    Returns:
        The finished process with its output; ``args[-1]`` of an error is its last line.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    return subprocess.run(
        [sys.executable, "-m", "tests.second_device", *words, *SETTINGS],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def register() -> Any:
    """Makes the device and returns ``torch.device("second:0")``; changes torch for the whole process."""
    import numpy as np
    import torch
    from torch.utils import _pytree as pytree  # the public tree functions do not take arguments of operators
    from torch.utils.backend_registration import (
        _setup_privateuseone_for_python_backend,  # there is no public way to a device made in Python
    )

    _setup_privateuseone_for_python_backend("second")
    torch.get_device_module("second").get_amp_supported_dtype = lambda: [torch.bfloat16]  # also to turn autocast off
    device = torch.device("second:0")

    class SecondTensor(torch.Tensor):
        """A tensor of the device; ``raw`` is its data, on the CPU."""

        raw: torch.Tensor

        @staticmethod
        def __new__(cls: Any, raw: torch.Tensor) -> Any:
            about = {"dtype": raw.dtype, "device": second}
            # torch's documented way to a wrapper, though underscored.
            tensor = torch.Tensor._make_wrapper_subclass(
                cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), **about
            )
            tensor.raw = raw
            return tensor

        def __init__(self, raw: torch.Tensor) -> None:
            pass

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return run(func, args, kwargs or {})

        def __reduce_ex__(self, protocol: Any) -> Any:
            return self.raw.__reduce_ex__(protocol)  # in files it is a CPU tensor

        def __format__(self, spec: str) -> str:
            return format(self.raw, spec)

        # What C++ would make from Python data without asking the dispatcher:
        def tolist(self) -> Any:
            return self.raw.tolist()

        def new_tensor(self, data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
            return torch.tensor(data, dtype=dtype or self.dtype).to(device or second)

        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(moved(index))

        def __setitem__(self, index: Any, value: Any) -> None:
            super().__setitem__(moved(index), value)

    def moved(index: Any) -> Any:
        """An index whose lists are tensors of the device."""
        if isinstance(index, tuple):
            return tuple(map(moved, index))
        index = list(index) if isinstance(index, range) else index
        return torch.as_tensor(index).to(second) if isinstance(index, (list, np.ndarray)) else index

    second = device

    def is_foreign(value: Any) -> bool:
        """Whether a value is a CPU tensor that may not meet tensors of the device."""
        return isinstance(value, torch.Tensor) and not isinstance(value, SecondTensor) and value.dim() > 0

    def refuse(name: str, what: str) -> None:
        raise RuntimeError(f"{name}: {what}, of which one is on second:0 and one on the CPU")

    def check(name: str, args: Any, kwargs: Any, flat: list[Any]) -> None:
        """Refuses what CUDA refuses."""
        ours = any(isinstance(a, SecondTensor) for a in flat)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != "second" and ours:
            refuse(name, "a tensor and a torch.Generator")
        if name in ("aten::copy_", "aten::_to_copy"):
            return
        if name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
            indexed, indices = args[0], [i for i in args[1] if i is not None]
            if not isinstance(indexed, SecondTensor) and any(isinstance(i, SecondTensor) for i in indices):
                refuse(name, "a tensor and its indices")
            if name != "aten::index" and isinstance(indexed, SecondTensor) and is_foreign(args[2]):
                refuse(name, "a tensor and the values put into it")
            if name != "aten::index" and not isinstance(indexed, SecondTensor) and isinstance(args[2], SecondTensor):
                refuse(name, "a tensor and the values put into it")
            return
        if ours and any(is_foreign(a) for a in flat):
            shapes = [tuple(a.shape) for a in flat if isinstance(a, torch.Tensor)]
            refuse(name, f"tensors of shapes {', '.join(map(str, shapes))}")

    def run(func: Any, args: Any, kwargs: Any) -> Any:
        """Runs an operator on the raw data, and wraps what it gives."""
        name = func._schema.name  # the dispatcher tells an operator's name nowhere else
        flat, spec = pytree.tree_flatten((args, kwargs))
        check(name, args, kwargs, flat)
        wanted = kwargs.get("device")
        ours = any(isinstance(a, SecondTensor) for a in flat)
        global operators
        operators += ours
        on_second = ours if wanted is None else torch.device(wanted).type == "second"
        if name == "aten::copy_":
            on_second = isinstance(args[0], SecondTensor)
        plain = [
            a.raw
            if isinstance(a, SecondTensor)
            else torch.device("cpu")
            if isinstance(a, torch.device) and a.type == "second"
            else a
            for a in flat
        ]
        plain_args, plain_kwargs = pytree.tree_unflatten(plain, spec)
        result = func(*plain_args, **plain_kwargs)
        if name == "aten::_local_scalar_dense":
            return result
        if func._schema.is_mutable and isinstance(result, torch.Tensor) and name.endswith("_"):
            return args[0]

        def wrapped(value: Any) -> Any:
            is_plain = isinstance(value, torch.Tensor) and not isinstance(value, SecondTensor)
            return SecondTensor(value) if on_second and is_plain else value

        return pytree.tree_map(wrapped, result)

    global _library  # an operator's fallback lives as long as its library
    _library = torch.library.Library("_", "IMPL")  # type: ignore[no-untyped-call]
    _library.fallback(lambda func, *args, **kwargs: run(func, args, kwargs), "PrivateUse1")
    for full in torch._C._dispatch_get_all_op_names():  # an operator needs its Python side before C++ may call it
        if full.startswith("aten::"):
            base, _, overload = full[6:].partition(".")
            packet = getattr(torch.ops.aten, base, None)
            if packet is not None and (overload or "default") in packet.overloads():
                getattr(packet, overload or "default")

    def to_second(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Any:
            if device is None:
                return make(data, *args, **kwargs)
            if torch.device(device).type == "second":
                return make(data, *args, **kwargs).to(second)
            return make(data, *args, device=device, **kwargs)

        return made

    torch.tensor, torch.as_tensor = to_second(torch.tensor), to_second(torch.as_tensor)

    def inference_mode(mode: Any = True) -> Any:
        return torch.no_grad()(mode) if callable(mode) else torch.no_grad()

    torch.inference_mode = inference_mode  # type: ignore[assignment, misc]
    torch.__future__.set_swap_module_params_on_conversion(True)
    return device


_library: Any = None


def accelerate() -> None:
    """Tells Lightning of the device as the accelerator ``second``."""
    from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry

    device = register()

    class Second(Accelerator):
        def setup_device(self, device: Any) -> None:
            pass

        def teardown(self) -> None:
            pass

        def get_device_stats(self, device: Any) -> dict[str, Any]:
            return {}

        @staticmethod
        def parse_devices(devices: Any) -> int:
            return 1

        @staticmethod
        def get_parallel_devices(devices: Any) -> list[Any]:
            return [device]

        @staticmethod
        def auto_device_count() -> int:
            return 1

        @staticmethod
        def is_available() -> bool:
            return True

        @staticmethod
        def name() -> str:
            return "second"

    AcceleratorRegistry.register("second", Second, description="")


def main(words: Sequence[str]) -> int:
    """Runs the entry point on the device; returns its exit code."""
    accelerate()
    from ohlora.__main__ import main as ohlora

    return ohlora(list(words))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the device's end would be "terminate called"

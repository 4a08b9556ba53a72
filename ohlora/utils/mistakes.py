"""Errors of libraries and of the system whose cause is the user's input or machine, as one readable line.

This is the only place that knows the errors of others, by their names: nothing is imported for it. What is not here is
taken for a fault of ohlora, and keeps its traceback.
"""

from __future__ import annotations

import csv
import errno
import json
import re
import sys
import traceback
from collections.abc import Iterator

from ohlora.errors import OhloraError
from ohlora.utils.files import printable

LONGEST = 480
"""Characters of a message."""
AGAIN = "run the same command again"
"""How to go on with commands that have no checkpoints."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
NAMED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY)
MACHINE = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EBUSY, errno.ETXTBSY)
MEMORY = ("can't allocate memory", "out of memory", "Cannot allocate memory", "std::bad_alloc")
CHECKED_BY_LIGHTNING = (
    "callbacks",
    "trainer.connectors",
    "trainer.configuration_validator",
    "loops.fit_loop",
    "tuner",
    "plugins",
    "utilities.seed",
)
"""Modules of Lightning that check or follow settings of the trainer."""
NETWORK = ("DistNetworkError", "DistStoreError", "DistBackendError")


def line(text: object) -> str:
    """A message on one line of at most :data:`LONGEST` characters: long words, then the middle, are shortened."""
    said = printable(" ".join(re.sub(r"[\x00-\x1f\x7f]", " ", str(text)).split()))
    if len(said) > LONGEST:
        said = re.sub(r"\S{120,}", lambda word: f"{word[0][:50]}…{word[0][-60:]}", said)
    return said if len(said) <= LONGEST else f"{said[: LONGEST // 2]} … {said[-(LONGEST // 2 - 3) :]}"


def report(name: str, text: object) -> None:
    """Writes a message of a command to standard error."""
    print(f"{name}: {line(text)}", file=sys.stderr)


def answer(name: str, text: str | None, traceback: bool) -> int:
    """Ends a command with the error that is being handled.

    Args:
        name: The command.
        text: What to say of the error; None for a fault of ohlora, which is raised again.
        traceback: Whether it is raised in any case.

    Returns:
        The exit code, 2.
    """
    if traceback or text is None:
        raise  # the error that the caller handles
    report(name, text)
    return 2


def readable(error: BaseException, again: str = AGAIN) -> str | None:
    """What to say of an error that the user can mend; None for a fault of ohlora.

    Args:
        error: Any error.
        again: How the command goes on once its cause is gone.
    """
    if isinstance(error, OhloraError):
        text = str(error)
        if "Original Traceback" in text:  # of a loader process: the message is its last line
            text = text.strip().splitlines()[-1].partition(": ")[2]
        return line(text)
    for found in (_of_system(error, again), _of_memory(error), _of_library(error, again)):
        if found is not None:
            return line(found)
    return None


def _names(error: BaseException) -> Iterator[tuple[str, str]]:
    """Module and name of each class of an error."""
    return ((cls.__module__, cls.__name__) for cls in type(error).__mro__)


def _said(error: BaseException) -> str:
    """An error's message; of one from a loader process the last line, without the traceback."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def _of_system(error: BaseException, again: str) -> str | None:
    if isinstance(error, BrokenPipeError):
        return "the program that reads the output has ended; " + again
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return f"there is no room for temporary files: {_said(error)}. Make room, or set TMPDIR to a folder with room"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = f"{error.filename}: " if error.filename else ""
    why = error.strerror or _said(error)
    if error.errno in FULL:
        where = f"{error.filename} cannot be written: " if error.filename else ""
        return f"{where}{why}. Make room, then {again}"
    if error.errno in REFUSED and where:
        return f"{where}{why}. Look at owner and permissions of the file and of its folder, then {again}"
    if error.errno == errno.EMFILE:
        return f"{where}{why}. Raise the limit (ulimit -n), or lower data.init_args.num_workers, then {again}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}{why}: another run uses this port. Set MASTER_PORT, or --port, to another one"
    if error.errno in NAMED and where:
        return f"{where}{why}. Look at the path, then {again}"
    if error.errno in MACHINE:
        return f"{where}{why}. Look at the disk, then {again}"
    return None


def _of_memory(error: BaseException) -> str | None:
    text = str(error)
    of_torch = isinstance(error, RuntimeError) and any(words in text for words in MEMORY)
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (isinstance(error, MemoryError) or of_torch or of_system):
        return None
    what = "the GPU's memory" if "CUDA" in text or "HIP" in text or "MPS" in text else "memory"
    return (
        f"{what} is not enough ({_said(error)[:160]}). Lower data.init_args.batch_size (or image_batch_size), end "
        "other programs, or choose smaller networks"
    )


def _of_library(error: BaseException, again: str) -> str | None:
    text = _said(error)
    for module, name in _names(error):
        library = module.partition(".")[0]
        match library, name:
            case "lightning" | "lightning_fabric", "MisconfigurationException":
                return text
            case "wandb", _:
                return f"W&B: {text}. WANDB_MODE=offline goes on without it"
            case "safetensors", "SafetensorError":
                return f"a safetensors file cannot be used ({text})"
            case (("pickle" | "_pickle"), "UnpicklingError"):
                return f"a checkpoint or pickle cannot be read ({text}): it is damaged or something else; get it again"
            case "zipfile", "BadZipFile":
                return f"a zip archive or checkpoint cannot be read ({text}); get it again"
            case "PIL", ("UnidentifiedImageError" | "DecompressionBombError"):
                return f"an image cannot be read ({text})"
            case "yaml", "RepresenterError":
                return f"a value of the configuration cannot be saved as YAML: {error.args[-1]!r}; leave it out"
            case "yaml", "YAMLError":
                return f"a YAML file cannot be read: {text}"
            case "omegaconf", "OmegaConfBaseException":
                return f"a value of the configuration cannot be resolved: {text}"
            case "torch", _ if name in NETWORK:
                return f"the processes cannot reach each other ({text}). Look at MASTER_ADDR and MASTER_PORT; {again}"
    if isinstance(error, csv.Error):
        return f"a table cannot be read ({text}); look at its quotes"
    if isinstance(error, json.JSONDecodeError):
        return f"a JSON file cannot be read ({text})"
    if isinstance(error, UnicodeEncodeError):
        return f"{printable(error.object)} cannot be written as {error.encoding}; rename it"
    if isinstance(error, UnicodeDecodeError):
        return f"a file is not {error.encoding}: {text}; save it as UTF-8"
    if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] != "ohlora":
        return f"{text}. It is needed for what was asked; install it"
    if isinstance(error, RuntimeError):
        return _of_torch(text, again) or _of_lightning(error, text)
    return (
        _of_lightning(error, text) if isinstance(error, (ValueError, TypeError, AttributeError, ImportError)) else None
    )


def _of_torch(text: str, again: str) -> str | None:
    """Torch raises RuntimeErrors for everything; what it says is all there is."""
    if "PytorchStreamWriter" in text:
        return f"a checkpoint cannot be written ({text[:160]}). Make room, then {again}"
    if "PytorchStreamReader" in text:
        return f"a checkpoint of torch cannot be read ({text[:160]}): it is damaged or something else"
    if "shared memory" in text or "shm" in text:
        return f"shared memory is not enough ({text[:160]}). Lower data.init_args.num_workers, or enlarge /dev/shm"
    if re.match(r"DataLoader worker .*(killed|exited)", text):
        return f"{text[:200]}. Memory may not have been enough: lower data.init_args.num_workers, then {again}"
    if re.search(r"No CUDA GPUs|NVIDIA driver|CUDA error: (no kernel|invalid device|device-side|unknown)", text):
        return f"the GPU cannot be used ({text[:200]}). Look at nvidia-smi, or use --trainer.accelerator cpu"
    return None


def _of_lightning(error: BaseException, text: str) -> str | None:
    """What Lightning refuses where it checks settings: by where it was raised, since its classes are Python's own."""
    frames = traceback.extract_tb(error.__traceback__)
    path = frames[-1].filename.replace("\\", "/") if frames else ""
    _, found, place = path.rpartition("/lightning/pytorch/")
    if not found:
        _, found, place = path.rpartition("/lightning/fabric/")
    return text if found and place.replace("/", ".").startswith((*CHECKED_BY_LIGHTNING, "accelerators")) else None

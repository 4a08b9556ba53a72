"""What configurations name by its path in Python."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ohlora.errors import ConfigError


def named(kind: str, path: str, said: str, folder: Path, where: str) -> Any:
    """The function or class that a path such as ``package.module.name`` leads to; modules may lie in a folder.

    Args:
        kind: What it is, ``function`` or ``class``, for messages.
        path: The path.
        said: How messages begin, such as "the setting x is package.module.name".
        folder: The folder.
        where: What messages call it, such as "beside the world's file".

    Raises:
        ConfigError: If there is no such module, or no such thing in it.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ConfigError(f"{said}; expected package.module.name")
    sys.path.append(str(folder.absolute()))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a library that the module itself needs
        raise ConfigError(f"{said}; there is no module {error.name}, installed or {where}") from error
    finally:
        sys.path.remove(str(folder.absolute()))
    if not callable(of := getattr(found, name, None)):
        raise ConfigError(f"{said}; {module} has no {kind} {name}")
    return of

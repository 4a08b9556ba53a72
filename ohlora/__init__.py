"""ohlora: from a StyleGAN and a few thousand labelled images to a virtual character."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ohlora.characters.character import Character
    from ohlora.formats.network_files import load_network

__all__ = ["Character", "__version__", "load_network"]

try:
    __version__ = version("ohlora")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # Lazy, so that `ohlora --help` does not wait for torch.
    if name == "load_network":
        from ohlora.formats.network_files import load_network

        return load_network
    if name == "Character":
        from ohlora.characters.character import Character

        return Character
    raise AttributeError(f"module 'ohlora' has no attribute {name!r}")

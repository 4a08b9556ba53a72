"""The stages and what they read and write, declared once."""

from __future__ import annotations

from pathlib import Path

from ohlora.errors import MissingArtifactError


def hint(path: str | Path) -> str | None:
    """The command that makes a file or folder, or None where no stage does."""
    return None


def require(path: str | Path, folder: bool = False) -> None:
    """Insists on a file or folder.

    Args:
        path: Where it should be.
        folder: Whether a folder is wanted.

    Raises:
        MissingArtifactError: Naming the path and the command that makes it.
    """
    path = Path(path)
    if not (path.is_dir() if folder else path.is_file()):
        command = hint(path)
        raise MissingArtifactError(f"{path} does not exist" + (f"; it is made by: {command}" if command else ""))

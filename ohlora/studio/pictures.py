"""What both ways of labelling have in common: the images, and how events are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ohlora import pipeline
from ohlora.errors import MissingArtifactError
from ohlora.pipeline import require
from ohlora.studio.settings import Settings, inside
from ohlora.utils import images

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Settings of events that show no progress and have no public API."""


def pictures_to_label(settings: Settings) -> tuple[list[Path], str]:
    """The images to label, and a note about what was left out of their folder; empty where nothing was.

    Raises:
        MissingArtifactError: If there are no images.
        ConfigError: If one lies outside the artifacts.
    """
    require(settings.images, folder=True)
    found, left_out = images.images_in(settings.images)
    pictures = [inside(settings.root, path) for path in found]
    without = images.left_out_as(left_out, settings.images)
    if not pictures:
        reason = f"left out: {without}" if without else pipeline.hint(settings.images)
        raise MissingArtifactError(f"{settings.images} holds no images; {reason}")
    return pictures, f"{settings.images}: took {len(pictures):,} images, left out {without}" if without else ""

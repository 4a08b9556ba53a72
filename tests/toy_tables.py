"""Small labelled sets whose truth can be seen: brighter images have larger values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ohlora import images
from ohlora.files import write_rows


def brightness_table(folder: Path, count: int, seed: int = 0) -> tuple[Path, np.ndarray]:
    """Noisy 16×16 images with a table of their brightness.

    Returns:
        ``manifest.csv`` with the columns index, path, gender (1 for the brighter half) and hairstyle, pose (the
        brightness as a z-score), and that brightness.
    """
    rng = np.random.default_rng(seed)
    levels = rng.standard_normal(count)
    rows: list[dict[str, Any]] = []
    for k, level in enumerate(levels):
        noise = rng.normal(0, 10, (16, 16, 3))
        picture = np.clip(128 + 45 * level + noise, 0, 255).astype(np.uint8)
        images.save_png(picture, folder / "images" / f"{k:03d}.png")
        row = {"index": k, "path": f"images/{k:03d}.png", "gender": int(level > 0)}
        rows.append(row | {"hairstyle": round(float(level), 4), "pose_score": round(float(level), 4)})
    write_rows(folder / "manifest.csv", rows)
    return folder / "manifest.csv", levels

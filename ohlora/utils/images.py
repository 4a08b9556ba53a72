"""Image tensors, image files and contact sheets.

Networks take and return float tensors N×3×H×W in [−1, 1]; files and plots are uint8 arrays N×H×W×3.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ohlora.errors import DataError
from ohlora.utils.files import replacing


def to_uint8(images: Tensor) -> np.ndarray:
    """Converts N×3×H×W in [−1, 1] (clipped) to N×H×W×3 uint8, rounded to the nearest grey level."""
    levels = ((images.detach().float() + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def rounded(images: Tensor) -> Tensor:
    """Clips N×3×H×W to [−1, 1] and rounds to the nearest grey level, as saving to a file would; the device stays."""
    return ((images.detach().float() + 1) * 127.5 + 0.5).clamp(0, 255).floor_().div_(127.5).sub_(1)


def to_float(images: np.ndarray) -> Tensor:
    """Converts N×H×W×3 uint8 to N×3×H×W float32 in [−1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def save_png(image: np.ndarray, path: str | Path) -> None:
    """Writes an H×W×3 or H×W uint8 array as PNG, atomically."""
    with replacing(path) as part:
        Image.fromarray(image).save(part, format="PNG")


def save_gif(frames: np.ndarray, path: str | Path, frames_per_second: float) -> None:
    """Writes N×H×W×3 uint8 as a GIF that loops forever, atomically; each frame has its own palette of 256 colours."""
    pictures = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as part:
        duration = round(1000 / frames_per_second)
        pictures[0].save(part, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)


def decode(path: str | Path) -> Image.Image:
    """Decodes an image file of any mode and size.

    Raises:
        DataError: If the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: unreadable ({error})") from error
    return image


def read_rgb(path: str | Path, resolution: int, resize: bool = False) -> np.ndarray:
    """Reads a square RGB image of a given size.

    Args:
        path: The file.
        resolution: Height and width in pixels.
        resize: Whether square images of another size are resized (bilinearly, with averaging when they shrink).

    Returns:
        H×W×3 uint8.

    Raises:
        DataError: If the file is missing or cannot be decoded, or has another mode or another size (with ``resize``: is
            not square).
    """
    image = decode(path)
    if image.mode != "RGB":
        raise DataError(f"{path}: mode {image.mode}; expected RGB")
    if resize and image.size[0] == image.size[1]:
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    if image.size != (resolution, resolution):
        raise DataError(f"{path}: size {image.size[0]}×{image.size[1]}; expected {resolution}×{resolution}")
    return np.asarray(image)


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Tiles N×H×W×3 uint8 images row by row, with white gaps and margins of ``gap`` pixels: H'×W'×3 uint8."""
    n, h, w, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 255, dtype=np.uint8)
    for k, image in enumerate(images):
        top, left = gap + k // columns * (h + gap), gap + k % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def enlarge(pictures: np.ndarray, shortest: int = 512) -> np.ndarray:
    """Enlarges one picture (H×W×3) or several (N×H×W×3) by repeating pixels.

    The factor is the largest integer that keeps the shorter side within ``shortest`` pixels, and at least 1.
    """
    factor = max(1, shortest // min(pictures.shape[-3:-1]))
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def paths_in(folder: str | Path, suffixes: Sequence[str] = (".png", ".jpg", ".jpeg")) -> list[Path]:
    """Lists the image files of a folder and its subfolders, sorted by relative path; hidden files are left out."""
    root = Path(folder)
    found = (p for p in root.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())

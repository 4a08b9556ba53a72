"""Image tensors, image files and contact sheets.

Networks take and return float tensors N×3×H×W in [−1, 1]; files and plots are uint8 arrays N×H×W×3.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageColor, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from ohlora.errors import ConfigError, DataError, SizeError, TransparencyError
from ohlora.utils.files import printable, readable_file, replacing, shortened

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of image files, in lower case; files may have them in capitals."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""What is decoded, in PIL's names, whatever the suffix."""
HIDDEN = (".", "@eaDir", "__MACOSX")
"""How names begin that programs give to previews and notes of their own."""


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


def resized(images: Tensor, height: int, width: int | None = None) -> Tensor:
    """Resizes N×3×H×W, bilinearly, with averaging when they shrink; images of that size stay as they are.

    They become square where there is no ``width``.
    """
    size = height, height if width is None else width
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


def save_png(image: np.ndarray, path: str | Path, texts: Mapping[str, str] | None = None) -> None:
    """Writes an H×W×3, H×W×4 (with the opacity) or H×W uint8 array as PNG, atomically, with texts by keyword."""
    about = PngImagePlugin.PngInfo()
    for key, text in (texts or {}).items():
        about.add_itxt(key, text)
    with replacing(path) as part:
        Image.fromarray(image).save(part, format="PNG", pnginfo=about)


def decode(path: str | Path) -> Image.Image:
    """Decodes an image file of any size, turned upright as its EXIF orientation says.

    Raises:
        DataError: If the file is missing, cannot be decoded, or holds several pictures (an animation, pages).
    """
    readable_file(path)
    name = printable(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            # An MPO is a JPEG of a camera, with a preview or a second view as well.
            count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError as error:
        what = "no known format" if Path(path).stat().st_size else "empty"
        raise DataError(f"{name}: unreadable ({what})") from error
    except Exception as error:  # decoders raise RuntimeError, SyntaxError, struct.error and more on damaged files
        reason = str(error).replace(str(path), "the file") or type(error).__name__
        raise DataError(f"{name}: unreadable ({shortened([' '.join(reason.split())])})") from error
    if count > 1:
        raise DataError(f"{name}: holds {count} pictures; expected one")
    return image


def colour(text: str, setting: str = "background") -> tuple[int, ...]:
    """A colour by name (``white``) or as ``#rrggbb``: three levels 0…255.

    Raises:
        ConfigError: If there is no such colour; names the setting.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise ConfigError(f"{setting} is {text!r}; expected a colour such as white or '#8090a0'") from error


def transparent(image: Image.Image) -> bool:
    """Whether any pixel of an image is not opaque."""
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(lowest < 255)  # type: ignore[operator]  # of one band


def as_rgb(image: Image.Image, background: str | None = None) -> Image.Image:
    """An image of any mode as RGB.

    16 bits per channel become 8, and numbers with a fraction count from 0 (black) to 1 (white).

    Args:
        image: The image.
        background: The colour on which it lies where it is transparent.

    Raises:
        TransparencyError: If it is transparent somewhere and there is no background.
        DataError: If a level is out of range.
        ConfigError: If there is no such colour.
    """
    if image.mode.startswith(("I", "F")):
        highest = 1.0 if image.mode == "F" else 65535.0
        levels = np.asarray(image).astype(np.float64)
        if not (levels.min() >= 0 and levels.max() <= highest):
            raise DataError(f"mode {image.mode}, levels {levels.min():g} … {levels.max():g}; expected 0 … {highest:g}")
        image = Image.fromarray(np.rint(levels * (255 / highest)).astype(np.uint8))
    elif image.mode == "LAB":
        return ImageCms.profileToProfile(  # type: ignore[return-value]  # it is None only where it works in place
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    if transparent(image):
        if background is None:
            raise TransparencyError("transparent in places; expected a background colour to lay it on")
        ground = Image.new("RGBA", image.size, (*colour(background), 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")


def read_rgb(path: str | Path, resolution: int, resize: bool = False, background: str | None = None) -> np.ndarray:
    """Reads a square image of a given size.

    Args:
        path: The file.
        resolution: Height and width in pixels.
        resize: Whether square images of another size are resized (bilinearly, with averaging when they shrink).
        background: See :func:`as_rgb`.

    Returns:
        H×W×3 uint8.

    Raises:
        DataError: If the file is missing or cannot be decoded, or cannot be made RGB.
        SizeError: If it has another size (with ``resize``: is not square).
    """
    image = decode(path)
    try:
        image = as_rgb(image, background)
    except DataError as error:
        raise type(error)(f"{path}: {error}") from error
    if resize and image.size[0] == image.size[1]:
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
    if image.size != (resolution, resolution):
        raise SizeError(f"{path}: size {image.size[0]}×{image.size[1]}; expected {resolution}×{resolution}")
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
    """Enlarges one picture (H×W×C) or several (N×H×W×C) by repeating pixels.

    The factor is the largest integer that keeps the shorter side within ``shortest`` pixels, and at least 1.
    """
    factor = max(1, shortest // min(pictures.shape[-3:-1]))
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def shrink(pictures: np.ndarray, longest: int) -> np.ndarray:
    """Shrinks pictures, N×H×W×3 uint8, by averaging pixels.

    The factor is the smallest integer by which no side is longer than ``longest`` pixels.
    """
    factor = -(-max(pictures.shape[1:3]) // longest)
    return np.stack([np.asarray(Image.fromarray(picture).reduce(factor)) for picture in pictures])


def images_in(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> tuple[list[Path], dict[Path, str]]:
    """Lists the image files of a folder and its subfolders, links to folders included.

    Returns:
        What is named like an image, sorted by relative path; and what is left out, with the reason: hidden files and
        folders, other suffixes, broken links, and a link to a folder that is listed anyway.

    Raises:
        DataError: If a folder cannot be read, or names are not UTF-8, which tables could not hold.
    """
    root = Path(folder)
    found: list[Path] = []
    left_out: dict[Path, str] = {}
    foreign: list[str] = []
    listed: set[Path] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        place = (folders or links).pop(0)  # links last: what is there itself keeps its own name
        real = place.resolve()
        if real in listed:
            left_out[place] = "a link to a folder that is listed anyway"
            continue
        if place != root and place.parent.resolve().is_relative_to(real):
            left_out[place] = "a link to a folder in which it lies"
            continue
        listed.add(real)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{printable(place)}: the folder cannot be read ({error.strerror})") from error
        for entry in entries:
            path = place / entry.name
            if entry.name != printable(entry.name):
                foreign.append(printable(path))
            elif entry.name.startswith(HIDDEN):
                left_out[path] = "hidden"
            elif path.suffix.lower() in suffixes:
                found.append(path)
            elif entry.is_symlink() and not os.access(path, os.F_OK):
                left_out[path] = "a link that leads nowhere"
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            else:
                left_out[path] = f"another suffix than {' '.join(suffixes)}"
    if foreign:
        raise DataError(f"{len(foreign):,} names are not UTF-8: {shortened(sorted(foreign))}; rename them")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix()), dict(sorted(left_out.items()))


def by_number(paths: Sequence[Path]) -> dict[str, Path]:
    """The images whose names are numbers, by number without leading zeros.

    Raises:
        DataError: If two have the same number.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem.isdecimal():
            number = str(int(path.stem))
            if found.setdefault(number, path) is not path:
                raise DataError(f"{found[number]} and {path} have the same number; remove or rename one of them")
    return found


def left_out_as(left_out: Mapping[Path, str], folder: Path) -> str:
    """What was left out, for a message: per reason the number and the first names."""
    names: dict[str, list[str]] = {}
    for path, reason in left_out.items():
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        names.setdefault(reason, []).append(name)
    return shortened([f"{len(some):,} ({reason}): {shortened(some, ', ')}" for reason, some in names.items()])

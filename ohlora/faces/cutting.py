"""Cutting the background out of pictures of faces: how opaque a pixel is, a face parser says.

What is background is what the parser's classes call so: skin and hair stay, clothes and hats go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ohlora.errors import MissingArtifactError
from ohlora.faces.parsing import BATCH, FaceParser
from ohlora.pipeline import require
from ohlora.utils.images import to_float
from ohlora.worlds import World

PARSER = "face_parser/parser.safetensors"
"""What worlds call their face parser."""
SOLID = 0.95
"""A pixel that is at least so opaque has a colour of its own; others mix it with the background's."""
SPECK, HOLE = 1 / 64, 1 / 200
"""Width of what is thin enough to be a mistake, in widths of the picture; area of a hole that is, in its area."""
WEIGHTS = (0.25, 0.5, 0.25)
"""Weights of the frame before, of a frame and of the one after it, by which edges are steadied."""


def require_parser(world: World) -> Path:
    """Where the face parser of a world is: a file, or the folder of a checkpoint.

    Raises:
        MissingArtifactError: If there is none; says how to come by it, or how a world names another.
        DataError: If it may not be read.
    """
    path = world.path(PARSER)
    try:
        require(path, folder=os.path.isdir(path))  # noqa: PTH112  # Path.is_dir raises an OSError
    except MissingArtifactError as error:
        raise MissingArtifactError(
            f"the background is found by a face parser, and {error}; or name another in the world's file (names: "
            f"{{{PARSER}: FILE}})"
        ) from error
    return path


@torch.inference_mode()
def opacity(parser: FaceParser, pictures: np.ndarray) -> np.ndarray:
    """One minus the parser's probability of background, on the parser's device.

    Args:
        parser: The parser.
        pictures: N×H×W×3 uint8.

    Returns:
        N×H×W float32, 0 (background) … 1.
    """
    device = next(parser.parameters()).device
    parts = [to_float(pictures[first : first + BATCH]).to(device) for first in range(0, len(pictures), BATCH)]
    return 1 - np.concatenate([parser.background(part).float().cpu().numpy() for part in parts])


def cleaned(alpha: np.ndarray) -> np.ndarray:
    """Opacity without specks and holes, H×W float32.

    Only the largest connected part stays, with its soft edge; what hangs on to it by a thread does not count. Small
    holes are filled, as a parser leaves them in dark hair.
    """
    width = max(1, round(SPECK * alpha.shape[1]))
    solid = alpha > 0.5
    # Outside the picture the face goes on.
    core = ndimage.binary_opening(np.pad(solid, 2 * width, "edge"), iterations=width)
    core = core[2 * width : -2 * width, 2 * width : -2 * width]
    parts, count = ndimage.label(core)
    if not count:
        return np.zeros_like(alpha)
    sizes = np.bincount(parts.ravel())
    largest = parts == int(sizes[1:].argmax()) + 1
    kept = np.where(ndimage.binary_dilation(largest, np.ones((3, 3)), iterations=2 * width), alpha, 0)
    holes, count = ndimage.label(kept <= 0.5)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    small = sizes < HOLE * alpha.size
    small[0] = False
    inside = small[holes] & ~_at_border(holes)
    return np.where(inside | _deep(kept, width), 1, kept).astype(np.float32)


def _at_border(parts: np.ndarray) -> np.ndarray:
    """Which pixels belong to parts that touch the picture's border."""
    edges = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, edges)


def _deep(alpha: np.ndarray, width: int) -> np.ndarray:
    """Which pixels lie far from the edge: what the parser is a little unsure of there is opaque all the same."""
    solid = np.pad(alpha > 0.5, 4 * width, "edge")
    deep = ndimage.binary_erosion(ndimage.binary_fill_holes(solid), iterations=3 * width)
    inner: np.ndarray = deep[4 * width : -4 * width, 4 * width : -4 * width]
    return inner & (alpha > 0.5)


def cut(parser: FaceParser, pictures: np.ndarray) -> np.ndarray:
    """Cuts the background out.

    Args:
        parser: The parser.
        pictures: N×H×W×3 uint8.

    Returns:
        N×H×W×4 uint8, not multiplied by the opacity. A pixel at the edge has less of the background's colour, and one
        of the background has the colour of the nearest pixel of the face, so that no trace of the background is left.
    """
    shown = np.empty((*pictures.shape[:3], 4), np.uint8)
    for place, (picture, alpha) in enumerate(zip(pictures, opacity(parser, pictures), strict=True)):
        alpha = cleaned(alpha)
        shown[place, ..., :3] = _own_colours(picture, alpha)
        shown[place, ..., 3] = np.rint(255 * alpha)
    return shown


def cut_each(parser: FaceParser, frames: Iterable[np.ndarray], batch_size: int = 16) -> Iterator[np.ndarray]:
    """Cuts the background out of frame after frame, H×W×3 uint8 each; few are held in memory. See :func:`cut`."""
    waiting = iter(frames)
    while some := list(islice(waiting, batch_size)):
        yield from cut(parser, np.stack(some))


def _own_colours(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours of the face; that of a pixel which is partly background comes in this part from the nearest one."""
    solid = alpha >= SOLID
    if not solid.any():
        return np.zeros_like(picture)
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    own = np.where(solid, 1, alpha)[..., None]
    mixed = np.rint(own * picture + (1 - own) * picture[tuple(nearest)])
    return np.asarray(mixed, np.uint8)


def steadied(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames whose edges do not flicker: the opacity of each is averaged with that of its neighbours.

    Args:
        frames: H×W×4 uint8 each, see :func:`cut`; few are held in memory.
    """
    around: list[np.ndarray] = []
    for frame in frames:
        around = [*around, frame] if around else [frame, frame]
        if len(around) == 3:
            yield _steady(around)
            around = around[1:]
    if around:
        yield _steady([*around, around[-1]])


def _steady(around: list[np.ndarray]) -> np.ndarray:
    steady = around[1].copy()
    mixed = sum(weight * frame[..., 3].astype(float) for weight, frame in zip(WEIGHTS, around, strict=True))
    steady[..., 3] = np.rint(mixed)
    return steady


def laid(frames: Iterable[np.ndarray], colour: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Frames on a colour, H×W×3 uint8 each.

    Args:
        frames: H×W×4 uint8 each, see :func:`cut`.
        colour: Three levels 0…255.
    """
    for frame in frames:
        alpha = frame[..., 3:] / 255
        yield np.rint(alpha * frame[..., :3] + (1 - alpha) * np.array(colour)).astype(np.uint8)

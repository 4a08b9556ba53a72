"""Images and their parsing maps, for training a face parser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.epochs import EpochImages
from ohlora.datamodules.images import ImageFileDataset, check_columns, paths_of
from ohlora.errors import DataError
from ohlora.faces.classes import CELEBAMASK_CLASSES, CLASSES, MIRRORED
from ohlora.faces.parsing import sides_by_place
from ohlora.pipeline import require
from ohlora.utils import images
from ohlora.utils.files import located, read_rows, shortened

MaskFiles = Path | list[tuple[Path, int]]
"""The files that tell the classes of one image's pixels: a picture whose grey levels or palette indices are class ids,
or black and white pictures in the order in which they are painted, each with its class id."""


def read_mask(files: MaskFiles, resolution: int) -> np.ndarray:
    """Reads a parsing map: resolution×resolution uint8, resized to the nearest pixel.

    Raises:
        DataError: If a file is missing, unreadable, not square or holds something else than it should.
    """
    if isinstance(files, Path):
        return _square(_class_ids(files), files, resolution)
    mask = np.zeros((resolution, resolution), np.uint8)
    for path, number in files:
        image = images.decode(path)
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{path}: mode {image.mode}; expected 8 bits per channel")
        grey = np.asarray(image.convert("L"))  # the published files are grey RGB
        if 0 < grey.max() <= 127:
            raise DataError(f"{path}: no grey level is above {grey.max()}; expected black (0) and white (255)")
        part = grey > 127
        mask[_square(part.astype(np.uint8), path, resolution) > 0] = number
    return sides_by_place(torch.from_numpy(mask)[None])[0].numpy()


def _class_ids(path: Path) -> np.ndarray:
    image = images.decode(path)
    if image.mode not in ("L", "P"):
        raise DataError(f"{path}: mode {image.mode}; expected grey levels (L) or a palette (P) that are class ids")
    mask = np.asarray(image)
    if mask.max() >= len(CLASSES):
        raise DataError(f"{path}: holds class {mask.max()}; expected ids from 0 to {len(CLASSES) - 1}")
    return mask


def _square(mask: np.ndarray, path: Path, resolution: int) -> np.ndarray:
    if mask.shape[0] != mask.shape[1]:
        raise DataError(f"{path}: size {mask.shape[1]}×{mask.shape[0]}; expected a square")
    return np.asarray(Image.fromarray(mask).resize((resolution, resolution), Image.Resampling.NEAREST))


@dataclass(eq=False)
class MaskedDataset(ImageFileDataset):
    """Image files with their parsing maps; a sample has ``mask``, H×W uint8, beside ``image`` and ``index``."""

    masks: list[MaskFiles] = field(default_factory=list)

    def read(self, index: int) -> dict[str, np.ndarray]:
        """Decodes ``image`` and ``mask``; see :class:`ohlora.datamodules.images.ImageFileDataset`."""
        return {**super().read(index), "mask": read_mask(self.masks[index], self.resolution)}

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Self:
        """Some of the images, by place."""
        return replace(super().subset(chosen), masks=[self.masks[k] for k in chosen])


class MaskedImages(EpochImages):
    """Images and parsing maps of the 11 classes, divided at random into training and validation.

    The source is a ``manifest``, a ``folder`` with ``masks``, or a ``folder`` with ``parts``.

    Args:
        resolution: Height and width of the images, in pixels; masks are resized to it (nearest pixel).
        manifest: CSV with the columns ``path`` and ``mask``, both relative to it (drawn faces).
        folder: Folder of images, which needs one of the following two.
        masks: Folder of masks that hold class ids; files of the same stem belong together.
        parts: Folder of masks in the layout of CelebAMask-HQ (Lee et al., 2020): images ``0.jpg``, … and masks
            ``0/00000_skin.png``, …, one black and white picture per part, which becomes a class as
            :data:`ohlora.faces.classes.CELEBAMASK_CLASSES` says.
        val_share: Share of the images kept for validation.
        **settings: See :class:`ohlora.datamodules.images.ImageFiles`. Bad masks are treated like bad images. With
            ``flip``, left and right change places in the mask of a mirrored image.
    """

    def __init__(
        self,
        resolution: int,
        manifest: str | None = None,
        folder: str | None = None,
        masks: str | None = None,
        parts: str | None = None,
        val_share: float = 0.05,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, **settings)
        given = {"manifest": manifest, "folder": folder, "masks": masks, "parts": parts}
        self.sources = {name: Path(value) for name, value in given.items() if value is not None}
        if self.sources.keys() not in ({"manifest"}, {"folder", "masks"}, {"folder", "parts"}):
            raise DataError(
                f"given were {', '.join(self.sources) or 'no sources'}; expected 'manifest', or 'folder' with "
                "'masks', or 'folder' with 'parts'"
            )
        if not 0 < val_share < 1:
            raise DataError(f"val_share is {val_share}; expected a share between 0 and 1")
        self.val_share = val_share

    def setup(self, stage: str) -> None:
        """Finds, checks and loads images and masks, and divides them.

        Raises:
            MissingArtifactError: If a source is not there.
            DataError: If an image, mask or row cannot be used.
        """
        self.divide(self.load(self._listed()), self.val_share)

    def flipped_targets(self, batch: ImageBatch, flipped: Tensor) -> dict[str, Tensor]:
        """Mirrors the masks of mirrored images, and lets left and right change places."""
        swapped = torch.tensor(MIRRORED, dtype=torch.uint8, device=batch["mask"].device)[batch["mask"].flip(2).long()]
        return {"mask": torch.where(flipped[:, None, None], swapped, batch["mask"])}

    def _listed(self) -> MaskedDataset:
        if "manifest" in self.sources:
            source = self.sources["manifest"]
            require(source)
            rows = read_rows(source)
            check_columns(source, rows, ["path", "mask"])
            paths, left_out = paths_of(source, rows), dict[Path, str]()
            masks: list[MaskFiles] = [located(row["mask"], [source.parent]) for row in rows]
        else:
            for folder in self.sources.values():
                require(folder, folder=True)
            source, where = self.sources["folder"], self.sources.get("masks") or self.sources["parts"]
            paths, left_out = images.images_in(source)
            files, others = images.images_in(where, (".png",))
            if "masks" in self.sources:
                found: Mapping[str, MaskFiles] = _by_stem(files)
                names = list(_by_stem(paths))
            else:
                numbered = {path: number for number, path in images.by_number(paths).items()}
                names = [numbered.get(path, path.stem) for path in paths]
                found = part_masks(where, files)
            without = [f"{path} has no mask" for path, name in zip(paths, names, strict=True) if name not in found]
            if without:
                raise DataError(f"{len(without)} of {len(paths)} images have no mask in {where}: {shortened(without)}")
            masks = [found[name] for name in names]
            alone = [found[name] for name in found if name not in set(names)]
            loose = [path for mask in alone for path in ([mask] if isinstance(mask, Path) else [p for p, _ in mask])]
            left_out |= dict.fromkeys(loose, f"no image in {source}") | others
        numbers = list(range(len(paths)))
        return MaskedDataset(source, paths, self.resolution, self.resize, numbers, left_out=left_out, masks=masks)


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without suffix; raises a DataError naming two with the same."""
    found: dict[str, Path] = {}
    for path in paths:
        if found.setdefault(path.stem, path) is not path:
            raise DataError(f"{found[path.stem]} and {path} have the same name; images and masks belong together by it")
    return found


def part_masks(folder: Path, files: Sequence[Path]) -> Mapping[str, MaskFiles]:
    """The part masks of a folder in CelebAMask-HQ's layout, by the image's number.

    Raises:
        DataError: Naming files of other layouts, or parts of which there are two files.
    """
    order = {part: rank for rank, part in enumerate(CELEBAMASK_CLASSES)}
    found: dict[str, list[tuple[int, Path, int]]] = {}
    first: dict[tuple[int, str], Path] = {}
    bad = []
    for path in files:
        number, _, part = path.stem.partition("_")
        if not number.isdecimal() or part not in order:
            bad.append(str(path))
            continue
        if first.setdefault((int(number), part), path) is not path:
            raise DataError(f"{first[int(number), part]} and {path} are the same part of the same image; remove one")
        class_id = CLASSES.index(CELEBAMASK_CLASSES[part])
        found.setdefault(str(int(number)), []).append((order[part], path, class_id))
    if bad:
        raise DataError(
            f"{len(bad)} files of {folder} are not named like 00000_l_eye.png: {shortened(bad)}; expected a part of "
            f"{', '.join(order)}"
        )
    return {name: [(path, class_id) for _, path, class_id in sorted(parts)] for name, parts in found.items()}

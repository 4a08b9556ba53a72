"""Image files as training data, checked before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ohlora import images
from ohlora.datamodules.base import ImageDataModule, Sample
from ohlora.errors import DataError
from ohlora.files import read_rows, require, write_rows

CACHE_LIMIT = 4 * 2**30
"""Bytes of decoded images that ``cache: auto`` keeps at most."""
LISTED = 10
"""Bad images named in a message; the rest are counted."""


class ImageFileDataset:
    """Image files with optional labels.

    Args:
        paths: The files.
        resolution: Height and width that every file must have.
        labels: N×K float32, or None.
        cached: The decoded images, N×H×W×3 uint8, or None to decode at each use.
    """

    def __init__(
        self,
        paths: list[Path],
        resolution: int,
        labels: np.ndarray | None = None,
        cached: np.ndarray | None = None,
    ) -> None:
        self.paths, self.resolution, self.labels, self.cached = paths, resolution, labels, cached

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        cached = self.cached
        image = images.read_rgb(self.paths[index], self.resolution) if cached is None else cached[index]
        sample: Sample = {"index": index, "image": image}
        if self.labels is not None:
            sample["label"] = self.labels[index]
        return sample


class Images(ImageDataModule):
    """Images of a folder, or those a manifest lists.

    Args:
        resolution: Height and width that every image must have, in pixels.
        folder: Folder of images (PNG or JPEG, subfolders too); or
        manifest: CSV with a header and a column ``path``, relative to the manifest.
        label_columns: Columns of the manifest that hold the labels, in the generator's order.
        batch_size: Images per step over all processes together.
        seed: Seed of the order.
        num_workers: Loader processes per rank.
        cache: ``memory`` keeps decoded images (uint8), ``none`` decodes at each use, ``auto`` keeps them up to 4 GiB.
        on_bad_image: ``raise`` lists images that are unreadable, of another size or not RGB, and stops; ``skip`` leaves
            them out, says how many, and writes ``skipped.csv`` into the run folder.
        made_by: Command that makes the input, named when it is missing.
    """

    def __init__(
        self,
        resolution: int,
        folder: str | None = None,
        manifest: str | None = None,
        label_columns: list[str] | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
        cache: Literal["auto", "memory", "none"] = "auto",
        on_bad_image: Literal["raise", "skip"] = "raise",
        made_by: str | None = None,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if (folder is None) == (manifest is None):
            raise DataError(f"expected either 'folder' or 'manifest'; given folder={folder}, manifest={manifest}")
        if label_columns and manifest is None:
            raise DataError("'label_columns' needs a 'manifest' that has them")
        self.resolution, self.folder, self.manifest = resolution, folder, manifest
        self.label_columns, self.cache, self.on_bad_image = label_columns, cache, on_bad_image
        self.made_by = made_by

    def setup(self, stage: str) -> None:
        """Finds the images, checks every one of them, and keeps them where they fit.

        Raises:
            MissingArtifactError: If folder or manifest is not there.
            DataError: If there are no images, or bad ones with ``on_bad_image: raise``, or a bad row.
        """
        paths, labels = self._listed()
        if not paths:
            raise DataError(f"{self.manifest or self.folder} holds no images")
        size = len(paths) * self.resolution**2 * 3
        keep = self.cache == "memory" or (self.cache == "auto" and size <= CACHE_LIMIT)
        decoded = np.empty((len(paths) if keep else 0, self.resolution, self.resolution, 3), dtype=np.uint8)
        good: list[int] = []
        bad: list[tuple[Path, str]] = []
        for k, path in enumerate(paths):
            try:
                image = images.read_rgb(path, self.resolution)
            except DataError as error:
                bad.append((path, str(error)))
                continue
            if keep:
                decoded[len(good)] = image
            good.append(k)
        if bad:
            self._report(bad, len(paths))
        if not good:
            raise DataError(f"{self.manifest or self.folder}: none of {len(paths)} images is usable")
        self.train_set = ImageFileDataset(
            [paths[k] for k in good],
            self.resolution,
            None if labels is None else labels[good],
            decoded[: len(good)] if keep else None,
        )

    def _listed(self) -> tuple[list[Path], np.ndarray | None]:
        source = Path(self.manifest or self.folder or "")
        require(source, self.made_by, folder=not self.manifest)
        if not self.manifest:
            return images.paths_in(source), None
        rows = read_rows(source)
        columns = ["path", *(self.label_columns or [])]
        missing = [c for c in columns if rows and c not in rows[0]]
        if missing:
            raise DataError(f"{source}: missing columns {', '.join(missing)}; the header has {', '.join(rows[0])}")
        paths = [source.parent / row["path"] for row in rows]
        if not self.label_columns:
            return paths, None
        labels = np.empty((len(rows), len(self.label_columns)), dtype=np.float32)
        for k, row in enumerate(rows):
            for j, column in enumerate(self.label_columns):
                try:
                    labels[k, j] = float(row[column])
                except ValueError:
                    labels[k, j] = np.nan
                if not np.isfinite(labels[k, j]):
                    raise DataError(f"{source}, row {k + 2}: {column} is {row[column]!r}; expected a finite number")
        return paths, labels

    def _report(self, bad: list[tuple[Path, str]], total: int) -> None:
        named = "; ".join(reason for _, reason in bad[:LISTED])
        more = f"; and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        if self.on_bad_image == "raise":
            raise DataError(
                f"{len(bad)} of {total} images cannot be used: {named}{more}. Mend or remove them, or set "
                "data.init_args.on_bad_image to skip"
            )
        rank_zero_info(f"skipping {len(bad)} of {total} images: {named}{more}")
        assert self.trainer is not None
        folder = self.trainer.log_dir
        if self.trainer.is_global_zero and folder is not None:
            rows = [{"path": path.as_posix(), "reason": reason} for path, reason in bad]
            write_rows(Path(folder) / "skipped.csv", rows)

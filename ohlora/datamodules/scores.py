"""Images with continuous scores, for regression."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import attribute
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.epochs import EpochImages
from ohlora.datamodules.images import ImageFileDataset, attribute_column, image_numbers, numbers_in, paths_of
from ohlora.errors import ConfigError, DataError, FormatError, MissingArtifactError
from ohlora.faces.scoring import Normalization
from ohlora.pipeline import require
from ohlora.utils.clock import Clock
from ohlora.utils.files import read_rows, shortened

NORMALIZATION = "normalization.json"
"""Name of the file that holds a table's scale; it lies beside the table."""


class ScoredImages(EpochImages):
    """Images and their scores from one or more tables, divided at random into training and validation.

    A table has the columns ``path`` (relative to itself) and, per attribute, ``<attribute>_score`` or ``<attribute>``:
    z-scores, whose scale lies beside it in ``normalization.json``. A sample also tells the scores of its mirror image,
    ``mirrored_label`` (K float32).

    Args:
        resolution: Height and width that every image must have, in pixels.
        manifests: The tables.
        attributes: Which attributes; None takes those that the stage's network predicts.
        val_share: Share of the images kept for validation.
        **settings: See :class:`ohlora.datamodules.images.ImageFiles`. With ``flip``, raw pose and roll of a mirrored
            image change sign, as the normalisation tells.
    """

    def __init__(
        self,
        resolution: int,
        manifests: list[str],
        attributes: list[str] | None = None,
        val_share: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, **settings)
        if not manifests or not 0 < val_share < 1:
            raise DataError(
                f"{len(manifests)} manifests and val_share {val_share} were given; expected at least one manifest and "
                "a share between 0 and 1"
            )
        self.manifests, self.val_share = [Path(m) for m in manifests], val_share
        self.attributes = attributes or []

    def connect(self, clock: Clock, outputs: Sequence[str] = ()) -> None:
        """Takes over the stage's clock and, where no attributes were given, the outputs of its network."""
        super().connect(clock)
        self.attributes = self.attributes or list(outputs)

    def setup(self, stage: str) -> None:
        """Reads the tables, checks every image, and divides them.

        Raises:
            ConfigError: If no attributes are known.
            MissingArtifactError: If a table, or the normalisation that flipping needs, is not there.
            DataError: If a table lacks an attribute, or a row or image cannot be used.
        """
        if not self.attributes:
            raise ConfigError("the attributes to learn are not known; set data.init_args.attributes")
        parts = [self._listed(manifest) for manifest in self.manifests]
        times = Counter(os.path.normpath(path) for part in parts for path in part.paths)
        double = [path for path, count in times.items() if count > 1]
        if double:
            raise DataError(f"{len(double):,} images are in several manifests: {shortened(double)}; expected each once")
        listed = self.files(
            self.manifests[0],
            [path for part in parts for path in part.paths],
            [number for part in parts for number in part.numbers],
            **{name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays},
        )
        self.divide(self.load(listed), self.val_share)

    def flipped_targets(self, batch: ImageBatch, flipped: Tensor) -> dict[str, Tensor]:
        """Gives mirrored images the scores of the mirror image."""
        return {"label": torch.where(flipped[:, None], batch["mirrored_label"], batch["label"])}

    def _listed(self, manifest: Path) -> ImageFileDataset:
        require(manifest)
        rows = read_rows(manifest)
        if not rows or "path" not in rows[0]:
            raise DataError(f"{manifest} has no rows or no column 'path'; expected a table of scores")
        columns = [attribute_column(manifest, rows[0], attribute(name).name) for name in self.attributes]
        missing = [name for name, found in zip(self.attributes, columns, strict=True) if found is None]
        if missing:
            raise DataError(
                f"{manifest} has no column for {', '.join(missing)}; the header has {shortened(rows[0], ', ')}"
            )
        labels = numbers_in(manifest, rows, [c for c in columns if c is not None])
        paths = paths_of(manifest, rows)
        mirrored = self._mirror(manifest, labels) if self.flip else labels
        return self.files(manifest, paths, image_numbers(manifest, rows), label=labels, mirrored_label=mirrored)

    def _mirror(self, manifest: Path, labels: np.ndarray) -> np.ndarray:
        """z-scores after the raw scores of what mirrors changed sign: −raw = −(z·std + mean)."""
        path = manifest.parent / NORMALIZATION
        turning = [name for name in self.attributes if attribute(name).mirrors]
        if turning and not path.is_file():
            raise MissingArtifactError(
                f"{path} does not exist; mirroring needs the scale of {', '.join(turning)}. Run the command that made "
                f"{manifest.name} again, or set data.init_args.flip to false"
            )
        scale = read_normalization(path, turning)
        mirrored = labels.copy()
        for name in turning:
            k = self.attributes.index(name)
            mirrored[:, k] = -labels[:, k] - 2 * scale.mean[name] / scale.std[name]
        return mirrored


def read_normalization(path: Path, names: Iterable[str]) -> Normalization:
    """A stored scale; raises a FormatError if the file is something else, or lacks an attribute."""
    require(path)
    try:
        scale = Normalization.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} is not a normalisation ({error}); expected attribute → mean and std") from error
    missing = [name for name in names if name not in scale.mean]
    if missing:
        raise FormatError(f"{path} has no scale of {', '.join(missing)}; expected one of each of {', '.join(names)}")
    return scale

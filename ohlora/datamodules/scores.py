"""Images with continuous scores, for regression."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import NEGATES, Physical, vocabulary
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.epochs import EpochImages
from ohlora.datamodules.images import ImageFileDataset, attribute_column, image_numbers, numbers_in, paths_of
from ohlora.errors import ConfigError, DataError, FormatError, MissingArtifactError
from ohlora.faces.scoring import Normalization
from ohlora.pipeline import require
from ohlora.utils.clock import Clock
from ohlora.utils.files import read_json, read_rows, shortened

NORMALIZATION = "normalization.json"
"""Name of the file that holds a table's scale; it lies beside the table."""


class ScoredImages(EpochImages):
    """Images and their scores from one or more tables, divided at random into training and validation.

    A table has the columns ``path`` (relative to itself) and, per attribute, ``<attribute>_score`` or ``<attribute>``:
    z-scores, whose scale lies beside it in ``normalization.json``; of 0/1 attributes 0…1; and of ordinals whole
    numbers, which become z-scores over all tables. A sample also tells the scores of its mirror image,
    ``mirrored_label`` (K float32).

    Args:
        resolution: Height and width that every image must have, in pixels.
        manifests: The tables.
        attributes: Which attributes; None takes those that the stage's network predicts.
        val_share: Share of the images kept for validation.
        **settings: See :class:`ohlora.datamodules.images.ImageFiles`. With ``flip``, raw scores of a mirrored image
            change sign or places where the world declares so, as the normalisation tells.

    Attributes:
        scale: Ordinal → mean and standard deviation of its levels; there after ``setup``.
        physical: Attribute → how the world declares its physical value, its scores, and the physical values that tables
            have of them; of those that have some. Likewise.
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
        self.attributes = [vocabulary()[name].name for name in attributes or []]
        self.scale: dict[str, tuple[float, float]] = {}
        self.physical: dict[str, tuple[Physical, np.ndarray, np.ndarray]] = {}

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
        self._standardize([part.arrays for part in parts])
        self._take_physical(parts)
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
        columns = [attribute_column(manifest, rows[0], name) for name in self.attributes]
        missing = [name for name, found in zip(self.attributes, columns, strict=True) if found is None]
        if missing:
            raise DataError(
                f"{manifest} has no column for {', '.join(missing)}; the header has {shortened(rows[0], ', ')}"
            )
        labels = numbers_in(manifest, rows, [c for c in columns if c is not None])
        for k, name in enumerate(self.attributes):
            self._check_levels(manifest, name, labels[:, k])
        paths = paths_of(manifest, rows)
        mirrored = self._mirror(manifest, labels) if self.flip else labels
        return self.files(manifest, paths, image_numbers(manifest, rows), label=labels, mirrored_label=mirrored)

    def _take_physical(self, parts: Sequence[ImageFileDataset]) -> None:
        """Reads the physical values of the tables that have them; a DataError if one is no finite number."""
        for k, name in enumerate(self.attributes):
            about = vocabulary()[name].physical
            if about is None:
                continue
            scores: list[np.ndarray] = []
            values: list[np.ndarray] = []
            for part in parts:
                rows = read_rows(part.source)
                if about.column in rows[0]:
                    scores.append(part.arrays["label"][:, k])
                    values.append(numbers_in(part.source, rows, [about.column])[:, 0])
            if values:
                self.physical[name] = about, np.concatenate(scores), np.concatenate(values)

    def _check_levels(self, manifest: Path, name: str, values: np.ndarray) -> None:
        """Insists on whole numbers of an ordinal, up to its highest level where that is declared."""
        of = vocabulary()[name]
        if of.kind != "ordinal":
            return
        bad = (values != np.round(values)) | (of.levels > 0) & ((values < 0) | (values > of.levels))
        if bad.any():
            expected = f"0 to {of.levels}" if of.levels else "whole numbers"
            row = int(np.argmax(bad))
            raise DataError(f"{manifest}, row {row + 2}: {name} is {values[row]:g}; expected {expected}")

    def _standardize(self, parts: Sequence[dict[str, np.ndarray]]) -> None:
        """Makes z-scores of ordinals, over all tables."""
        for k, name in enumerate(self.attributes):
            if vocabulary()[name].kind != "ordinal":
                continue
            levels = np.concatenate([part["label"][:, k] for part in parts]).astype(np.float64)
            mean, std = float(levels.mean()), float(levels.std())
            if std == 0:
                raise DataError(f"{name} is {levels[0]:g} in every row of the tables: nothing can be learned from it")
            self.scale[name] = mean, std
            for part in parts:
                part["mirrored_label"] = part["mirrored_label"].copy()  # it may be the same array
                for key in ("label", "mirrored_label"):
                    part[key][:, k] = (part[key][:, k] - mean) / std

    def _mirror(self, manifest: Path, labels: np.ndarray) -> np.ndarray:
        """Scores of the mirror images: raw scores change sign or places, z-scores follow by their scales."""
        path = manifest.parent / NORMALIZATION
        known = vocabulary()
        mirrors = {name: known[name].mirror for name in self.attributes if known[name].mirror}
        absent = [other for other in mirrors.values() if other not in (NEGATES, *self.attributes)]
        if absent:
            raise ConfigError(
                f"mirrored, an image also needs {', '.join(absent)}, which the network does not predict; set "
                "data.init_args.flip to false"
            )
        turning = [name for name in mirrors if known[name].kind == "score"]
        if turning and not path.is_file():
            raise MissingArtifactError(
                f"{path} does not exist; mirroring needs the scale of {', '.join(turning)}. Run the command that made "
                f"{manifest.name} again, or set data.init_args.flip to false"
            )
        scale = read_normalization(path, turning) if turning else Normalization({}, {})
        mean, std = {**dict.fromkeys(mirrors, 0.0), **scale.mean}, {**dict.fromkeys(mirrors, 1.0), **scale.std}
        mirrored = labels.copy()
        for name, other in mirrors.items():
            k, source = self.attributes.index(name), name if other == NEGATES else other
            raw = labels[:, self.attributes.index(source)].astype(np.float64) * std[source] + mean[source]
            mirrored[:, k] = ((-raw if other == NEGATES else raw) - mean[name]) / std[name]
        return mirrored


def read_normalization(path: Path, names: Iterable[str]) -> Normalization:
    """A stored scale; raises a FormatError if the file is something else, or lacks an attribute."""
    require(path)
    try:
        scale = Normalization.from_dict(read_json(path))
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} is not a normalisation ({error}); expected attribute → mean and std") from error
    missing = [name for name in names if name not in scale.mean]
    if missing:
        raise FormatError(f"{path} has no scale of {', '.join(missing)}; expected one of each of {', '.join(names)}")
    return scale

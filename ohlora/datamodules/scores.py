"""Images with continuous scores, for regression."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import NEGATES, Physical, vocabulary
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.epochs import EpochImages
from ohlora.datamodules.images import (
    ImageFileDataset,
    attribute_column,
    check_columns,
    image_numbers,
    numbers_in,
    paths_of,
)
from ohlora.errors import ConfigError, DataError, FormatError, MissingArtifactError
from ohlora.faces.scoring import Normalization
from ohlora.pipeline import require
from ohlora.utils.clock import Clock
from ohlora.utils.files import Row, read_json, read_rows, shortened

NORMALIZATION = "normalization.json"
"""Name of the file that holds a table's scale; it lies beside the table."""
ANNOTATOR = "annotator"
"""Column that says who annotated; with it, a table may name an image in several rows."""
COMPARISONS = "_comparisons"
"""Ends the name of the column that says in how many comparisons an image was from which its score was made."""


class ScoredImages(EpochImages):
    """Images and their scores from one or more tables, divided at random into training and validation.

    A table has the columns ``path`` (relative to itself, or to ``folder``) and, per attribute, ``<attribute>_score`` or
    ``<attribute>``: z-scores, whose scale lies beside it in ``normalization.json``, or with ``raw`` any numbers; of 0/1
    attributes 0…1; and of ordinals whole numbers, which become z-scores over all tables. Values may be missing
    (:data:`ohlora.datamodules.images.MISSING`); an image without any is left out. A table with a column ``annotator``
    may name an image in several rows: their values are averaged, and ``agreement`` tells how well they agree.

    A sample also tells the scores of its mirror image, ``mirrored_label`` (K float32, NaN where missing like ``label``)
    and, with ``weights``, its ``weight`` (float32, mean 1).

    Args:
        resolution: Height and width that every image must have, in pixels.
        manifests: The tables.
        attributes: Which attributes; None takes those that the stage's network predicts.
        val_share: Share of the images kept for validation.
        folder: Another folder to which the tables' paths may be relative: that of the images.
        raw: Whether scores are raw values, which become z-scores over all tables; the network keeps by what.
        weights: Column of the tables that says how much an image counts in training, ≥ 0. Rows without any value need
            none.
        **settings: See :class:`ohlora.datamodules.images.ImageFiles`. With ``flip``, raw scores of a mirrored image
            change sign or places where the world declares so, as the normalisation tells.

    Attributes:
        scale: Ordinal, or with ``raw`` score → mean and standard deviation of its values; there after ``setup``.
        agreement: Attribute → how well annotators agree: the mean correlation of two of them over the images that both
            annotated; of those where that is known. Likewise.
        physical: Attribute → how the world declares its physical value, its scores, and the physical values that tables
            have of them; of those that have some. Likewise.
    """

    def __init__(
        self,
        resolution: int,
        manifests: list[str],
        attributes: list[str] | None = None,
        val_share: float = 0.1,
        folder: str | None = None,
        raw: bool = False,
        weights: str | None = None,
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
        self.folder, self.raw, self.weights = folder, raw, weights
        self.scale: dict[str, tuple[float, float]] = {}
        self.agreement: dict[str, float] = {}
        self._agreements: dict[str, list[float]] = {}
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
        self._agreements = {}
        read = [self._listed(manifest) for manifest in self.manifests]
        self.agreement = {name: float(np.mean(found)) for name, found in self._agreements.items()}
        parts = [part for part, _ in read]
        times = Counter(os.path.normpath(path) for part in parts for path in part.paths)
        double = [path for path, count in times.items() if count > 1]
        if double:
            raise DataError(f"{len(double):,} images are in several manifests: {shortened(double)}; expected each once")
        self._standardize([part.arrays for part in parts])
        self._take_physical(read)
        listed = self.files(
            self.manifests[0],
            [path for part in parts for path in part.paths],
            [number for part in parts for number in part.numbers],
            {path: reason for part in parts for path, reason in part.left_out.items()},
            **{name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays},
        )
        self.divide(self.load(listed), self.val_share)
        self._check_values()

    def flipped_targets(self, batch: ImageBatch, flipped: Tensor) -> dict[str, Tensor]:
        """Gives mirrored images the scores of the mirror image."""
        return {"label": torch.where(flipped[:, None], batch["mirrored_label"], batch["label"])}

    def _listed(self, manifest: Path) -> tuple[ImageFileDataset, list[Row]]:
        """What a table lists, and its rows; of several about one image, the first."""
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
        labels = numbers_in(manifest, rows, [c for c in columns if c is not None], missing=True)
        for k, name in enumerate(self.attributes):
            self._check_levels(manifest, rows, name, labels[:, k])
        weights = self._weights_in(manifest, rows, np.isfinite(labels).any(axis=1))
        annotated = ANNOTATOR in rows[0]
        paths = paths_of(manifest, rows, once=not annotated, folder=self.folder)
        if annotated:
            people = [row[ANNOTATOR] for row in rows]
            groups = _by_image(manifest, rows, paths)
            for k, name in enumerate(self.attributes):
                if (r := agreement(labels[:, k], people, groups)) is not None:
                    self._agreements.setdefault(name, []).append(r)
            first = [places[0] for places in groups]
            labels = np.stack([_mean_known(labels[places]) for places in groups])
            weights = np.array([_mean_known(weights[places, None])[0] for places in groups], np.float32)
            rows, paths = [rows[k] for k in first], [paths[k] for k in first]
        known = np.flatnonzero(np.isfinite(labels).any(axis=1))
        left_out = {paths[k]: "no value of any attribute" for k in range(len(rows)) if k not in set(known.tolist())}
        rows, paths, labels = [rows[k] for k in known], [paths[k] for k in known], labels[known]
        mirrored = self._mirror(manifest, labels) if self.flip else labels
        arrays = {"label": labels, "mirrored_label": mirrored}
        if self.weights is not None:
            arrays["weight"] = weights[known]
        return self.files(manifest, paths, image_numbers(manifest, rows), left_out, **arrays), rows

    def _weights_in(self, manifest: Path, rows: Sequence[Row], valued: np.ndarray) -> np.ndarray:
        """How much each row counts, N float32; NaN where it has neither weight nor value (``valued``, N bool)."""
        if self.weights is None:
            return np.ones(len(rows), np.float32)
        check_columns(manifest, rows, [self.weights])
        found = numbers_in(manifest, rows, [self.weights], missing=True)[:, 0]
        if (lacking := valued & np.isnan(found)).any():
            bad = rows[int(np.argmax(lacking))]
            raise DataError(
                f"{manifest}, {bad}: {self.weights} is {bad[self.weights]!r}, and the row has values to learn; "
                "expected a weight of 0 or more"
            )
        if (found < 0).any():
            bad = rows[int(np.argmax(found < 0))]
            raise DataError(f"{manifest}, {bad}: {self.weights} is {bad[self.weights]}; expected a weight of 0 or more")
        return found

    def _check_values(self) -> None:
        """Insists on some values of each attribute to learn from and to validate on, and on weights."""
        for part, of in (("training", self.train_set), ("validation", self.val_set)):
            counts = np.isfinite(of.arrays["label"]).sum(axis=0).tolist()
            few = [name for name, count in zip(self.attributes, counts, strict=True) if not count]
            if few:
                raise DataError(
                    f"the tables have no value of {', '.join(few)} for any of the {len(of):,} {part} images; label "
                    "more of them, or leave the attribute out"
                )
        if "weight" in self.train_set.arrays:
            mean = float(self.train_set.arrays["weight"].mean())
            if mean == 0:
                raise DataError(f"{self.weights} is 0 for every training image; expected some above 0")
            for of in (self.train_set, self.val_set):
                of.arrays["weight"] = of.arrays["weight"] / np.float32(mean)

    def _take_physical(self, parts: Sequence[tuple[ImageFileDataset, list[Row]]]) -> None:
        """Reads the physical values of the tables that have them; a DataError if one is no finite number."""
        for k, name in enumerate(self.attributes):
            about = vocabulary()[name].physical
            if about is None:
                continue
            scores: list[np.ndarray] = []
            values: list[np.ndarray] = []
            for part, rows in parts:
                if rows and about.column in rows[0]:
                    found = numbers_in(part.source, rows, [about.column], missing=True)[:, 0]
                    known = np.isfinite(found) & np.isfinite(part.arrays["label"][:, k])
                    scores.append(part.arrays["label"][known, k])
                    values.append(found[known])
            if any(map(len, values)):
                self.physical[name] = about, np.concatenate(scores), np.concatenate(values)

    def _check_levels(self, manifest: Path, rows: Sequence[Row], name: str, values: np.ndarray) -> None:
        """Insists on whole numbers of an ordinal, up to its highest level where that is declared, and on 0…1 of 0/1."""
        of = vocabulary()[name]
        if of.kind == "score":
            return
        if of.kind == "binary":
            bad, expected = (values < 0) | (values > 1), "0 to 1"
        else:
            bad = np.isfinite(values) & (values != np.round(values))
            bad |= (of.levels > 0) & ((values < 0) | (values > of.levels))
            expected = f"0 to {of.levels}" if of.levels else "whole numbers"
        if bad.any():
            place = int(np.argmax(bad))
            raise DataError(f"{manifest}, {rows[place]}: {name} is {values[place]:g}; expected {expected}")

    def _standardize(self, parts: Sequence[dict[str, np.ndarray]]) -> None:
        """Makes z-scores of ordinals, and with ``raw`` of scores, over all tables."""
        standardized = ("ordinal", "score") if self.raw else ("ordinal",)
        for k, name in enumerate(self.attributes):
            if vocabulary()[name].kind not in standardized:
                continue
            levels = np.concatenate([part["label"][:, k] for part in parts]).astype(np.float64)
            levels = levels[np.isfinite(levels)]
            if not len(levels):
                raise DataError(f"the tables have no value of {name}; expected some to learn from")
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
        turning = [name for name in mirrors if known[name].kind == "score" and not self.raw]
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


def _by_image(source: Path, rows: Sequence[Row], paths: Sequence[Path]) -> list[list[int]]:
    """The places of each image's rows; a DataError if an annotator names an image twice."""
    groups: dict[str, list[int]] = {}
    for place, path in enumerate(paths):
        groups.setdefault(os.path.normpath(path), []).append(place)
    for places in groups.values():
        people = [rows[place][ANNOTATOR] for place in places]
        if len(set(people)) < len(people):
            double = rows[places[-1]]
            raise DataError(f"{source}, {double}: {double[ANNOTATOR]!r} annotates {double['path']} twice")
    return list(groups.values())


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Means of the columns of M×K values over what is not NaN: K float32, NaN where there is nothing."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    counts = known.sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan).astype(np.float32)


def agreement(values: np.ndarray, people: Sequence[str], groups: Sequence[Sequence[int]]) -> float | None:
    """How well annotators agree about an attribute.

    Args:
        values: N annotations, NaN where missing.
        people: Who made each.
        groups: The places of each image's annotations.

    Returns:
        The mean over pairs of annotators of their correlation on the images that both annotated; None where no pair has
        three of these that differ.
    """
    names = sorted(set(people))
    table = np.full((len(groups), len(names)), np.nan)
    for image, places in enumerate(groups):
        for place in places:
            table[image, names.index(people[place])] = values[place]
    found = []
    for a, b in combinations(range(len(names)), 2):
        both = table[np.isfinite(table[:, [a, b]]).all(axis=1)][:, [a, b]]
        if len(both) >= 3 and both.std(axis=0).min() > 0:
            found.append(float(np.corrcoef(both.T)[0, 1]))
    return float(np.mean(found)) if found else None


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

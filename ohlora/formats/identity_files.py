"""Networks that tell whether two images show the same person, as files: ohlora's own, any network of torch, or ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ohlora.errors import ConfigError, DataError
from ohlora.evaluation.features import NetworkFeatures
from ohlora.evaluation.identity import Identity, calibrated
from ohlora.formats import network_files
from ohlora.formats.feature_files import FeatureNetwork
from ohlora.networks.identity import Calibration, IdentityNetwork
from ohlora.pipeline import require
from ohlora.utils import checks, images
from ohlora.utils.files import Row, located, read_rows, shortened

PAIRS = ("path", "other", "same")
"""Columns of a table of pairs."""


@dataclass
class IdentityFile(FeatureNetwork):
    """A file with a network that embeds faces; see :class:`ohlora.formats.feature_files.FeatureNetwork`.

    An identity network of ohlora has its calibration. For another network it is given, by ``threshold`` and ``scale``
    or by ``pairs``; without any, cosine similarities are measured in place of probabilities.

    Attributes:
        threshold: Cosine similarity at which the probability of the same person is one half, −1…1.
        scale: Four times the slope there, above 0: the probability is sigmoid(scale · (similarity − threshold)).
        pairs: CSV to fit both by, with the columns ``path`` and ``other``, two square images, relative to it, and
            ``same``, 1 for one person and 0 for two.
    """

    threshold: float | None = None
    scale: float | None = None
    pairs: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.threshold is None) != (self.scale is None):
            raise ConfigError(f"threshold is {self.threshold} and scale {self.scale}; expected both, or neither")
        if self.pairs is not None and self.threshold is not None:
            raise ConfigError("there are pairs as well as threshold and scale; expected one of them")
        checks.between(-1, 1, threshold=self.threshold)
        checks.above(0, scale=self.scale)

    def identity(self) -> Identity:
        """Reads the file.

        Raises:
            MissingArtifactError: If it, or the table of pairs, does not exist.
            ConfigError: If a setting does not go with the file, or the class cannot be used.
            FormatError: If the file cannot be used.
            DataError: If the table cannot be used, or tells nothing.
        """
        features = self.load()
        own = features.network if isinstance(features, NetworkFeatures) else None
        if isinstance(own, IdentityNetwork):
            if self.threshold is not None or self.pairs is not None:
                raise ConfigError(f"{self.file} has its own calibration; leave threshold, scale and pairs out")
            told = network_files.provenance(self.file)
            return Identity(features, own.calibration, told.get("unfit"))
        if own is None:
            raise ConfigError(f"{self.file} holds a network that predicts attributes; expected one that embeds faces")
        found = Identity(features)
        if self.pairs is not None:
            return Identity(features, Calibration(*_fitted(found, Path(self.pairs))))
        if self.threshold is None or self.scale is None:
            return found
        return Identity(features, Calibration(self.scale, -self.scale * self.threshold))


def guide_of(file: IdentityFile) -> Identity:
    """A network that holds the person in a search, frozen.

    Raises:
        ConfigError: If it has no gradients; also as :meth:`IdentityFile.identity`.
    """
    guide = file.identity().requires_grad_(False)
    if not guide.differentiable:
        raise ConfigError(
            f"guide is {file.file}, an ONNX file, which has no gradients; give a torch network with its class, or "
            "leave guide out"
        )
    return guide


def tell_unfit(file: IdentityFile, guide: Identity) -> None:
    """Says so where the training of a guide found it unfit."""
    if guide.unfit is not None:
        print(f"guide {file.file} is not fit to judge: {guide.unfit}; it guides none the less")


def _fitted(identity: Identity, source: Path) -> tuple[float, float]:
    """Scale and bias by a table of pairs."""
    require(source)
    rows = read_rows(source)
    missing = [name for name in PAIRS if rows and name not in rows[0]]
    if missing or not rows:
        raise DataError(
            f"{source} has {'no ' + ', '.join(missing) if rows else 'no rows'}; expected {', '.join(PAIRS)}"
        )
    bad = [f"{row}: same is {row['same']!r}" for row in rows if row["same"] not in ("0", "1")]
    if bad:
        raise DataError(f"{source}, {shortened(bad)}; expected 1 for one person, 0 for two")
    same = np.array([row["same"] == "1" for row in rows])
    if same.all() or not same.any():
        raise DataError(f"{source}: same is {rows[0]['same']} in all {len(rows)} rows; expected some of 0 and 1 each")
    with torch.no_grad():
        found = [identity.similarity(*(_image(source, row, key) for key in PAIRS[:2])) for row in rows]
    scale, bias = calibrated(torch.cat(found).cpu().numpy(), same)
    if scale <= 0:
        raise DataError(
            f"{source}: pairs of the same person are not more alike than others; look at the column same, and at what "
            "the network was trained for"
        )
    return scale, bias


def _image(source: Path, row: Row, column: str) -> Tensor:
    path = located(row[column], [source.parent])
    pixels = np.asarray(images.as_rgb(images.decode(path), "white"))
    if pixels.shape[0] != pixels.shape[1]:
        raise DataError(f"{source}, {row}: {path} has size {pixels.shape[1]}×{pixels.shape[0]}; expected a square")
    return images.to_float(np.stack([pixels]))

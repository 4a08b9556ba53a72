"""Scoring images with attribute networks: a manifest in, a table of scores out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.images import ImageFileDataset, Images
from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.pipeline import require
from ohlora.utils.files import write_rows
from ohlora.utils.ranks import gathered


def write_scores(path: Path, data: ImageFileDataset, scores: dict[int, dict[str, float]]) -> None:
    """Writes a table of scores: ``index``, ``path`` (relative to the table), then ``<attribute>_score``.

    Args:
        path: The table.
        data: The images.
        scores: Place in ``data`` → scores by attribute.
    """
    rows: list[dict[str, Any]] = []
    for place in sorted(scores):
        where = os.path.relpath(data.paths[place], path.parent)
        row: dict[str, Any] = {"index": data.numbers[place], "path": Path(where).as_posix()}
        rows.append(row | {f"{name}_score": round(value, 6) for name, value in scores[place].items()})
    write_rows(path, rows)


class AttributeScores(L.LightningModule):
    """Scores images with attribute networks or ensembles, all of them in one pass.

    Args:
        networks: Files of attribute CNNs or ensembles; together they predict each attribute once.
        output: The table to write (CSV).
    """

    def __init__(self, networks: list[str], output: str) -> None:
        super().__init__()
        self.output = Path(output)
        for path in networks:
            require(path)
        self.networks = nn.ModuleList(network_files.load_attributes(path) for path in networks)
        self.outputs = [name for network in self.networks for name in network.outputs]  # type: ignore[union-attr]
        resolutions = {int(network.resolution) for network in self.networks}  # type: ignore[arg-type]
        if len(set(self.outputs)) < len(self.outputs) or len(resolutions) != 1:
            raise ConfigError(
                f"the networks predict {', '.join(self.outputs)} at {sorted(resolutions)}; expected each attribute "
                "once and one resolution"
            )
        self.resolution = resolutions.pop()
        self._rows: list[tuple[int, dict[str, float]]] = []

    def setup(self, stage: str) -> None:
        """Checks that images and networks fit."""
        found = self._images.resolution
        if found != self.resolution:
            raise ConfigError(f"the images have resolution {found}, the networks {self.resolution}; expected the same")

    @property
    def _images(self) -> ImageFileDataset:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, Images)
        return data.train_set

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Scores a batch."""
        scores = torch.cat([network(batch["image"]) for network in self.networks], dim=1).float()
        for place, row in zip(batch["index"], scores.tolist(), strict=True):
            self._rows.append((place, dict(zip(self.outputs, row, strict=True))))

    def on_predict_end(self) -> None:
        """Rank zero writes the table of all ranks."""
        scores = dict(gathered(self._rows))
        if self.trainer.is_global_zero:
            write_scores(self.output, self._images, scores)
            print(f"{len(scores)} images scored for {', '.join(self.outputs)}: {self.output}")

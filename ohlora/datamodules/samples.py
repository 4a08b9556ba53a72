"""Samples for the search of directions, and counted latents for their test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ohlora import samples, tensorfiles
from ohlora.datamodules.latents import pieces
from ohlora.errors import ConfigError

SampleBatch = dict[str, Tensor]
"""``index`` (N,) and ``w`` (N×D)."""


class _Stream(IterableDataset[SampleBatch]):
    """Batches of a process; without a length, so that a resumed pass begins anew."""

    def __init__(self, folder: Path, parts: list[tuple[range, range] | None]) -> None:
        self.folder, self.parts = folder, parts

    def __iter__(self) -> Iterator[SampleBatch]:
        for part in self.parts:
            shard, chosen = part if part is not None else (range(0), range(0))
            if not chosen:  # this process has one batch less than another, and must not be missed
                yield {"index": torch.zeros(0, dtype=torch.long), "w": torch.zeros(0, 1)}
                continue
            place = slice(chosen.start - shard.start, chosen.stop - shard.start)
            yield tensorfiles.read_rows(samples.shard_path(self.folder, shard), ["index", "w"], place)


class Samples(L.LightningDataModule):
    """Streams a set of samples to the search, and hands counted latents to the image generation test.

    Codes are read from disk pass by pass; scores are small and held in memory.

    Args:
        folder: Folder of the set (``artifacts/sample_240k``).
        count: Uses the first so many samples; None uses all.
        batch_size: Samples per batch and process; the result does not depend on it.
        test_count: Latents of the test.
        test_batch_size: Latents per batch of the test and process; each is edited fifty times.
        made_by: Command that makes the set.

    Attributes:
        outputs: Names of the scores.
        scores: All scores, N×K float32.
        w_size: Length of a style code.
    """

    outputs: tuple[str, ...]
    w_size: int
    scores: np.ndarray

    def __init__(
        self,
        folder: str,
        count: int | None = None,
        batch_size: int = 5000,
        test_count: int = 2000,
        test_batch_size: int = 2,
        made_by: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or test_batch_size < 1 or test_count < 1 or (count is not None and count < 1):
            raise ConfigError(
                f"count is {count}, batch_size {batch_size}, test_count {test_count}, test_batch_size "
                f"{test_batch_size}; expected at least 1"
            )
        self.folder, self.count, self.batch_size, self.made_by = Path(folder), count, batch_size, made_by
        self.test_count, self.test_batch_size = test_count, test_batch_size

    def setup(self, stage: str) -> None:
        """Checks the set before the first pass.

        Raises:
            MissingArtifactError: If it is not there.
            DataError: If a shard is missing or a score is no number.
        """
        if stage != "fit":
            return
        self._shards = samples.shards_of(self.folder, self.count, self.made_by)
        self.outputs = samples.outputs_of(self.folder, self._shards)
        self.scores = samples.read_scores(self.folder, self.count)
        first = tensorfiles.read_rows(samples.shard_path(self.folder, self._shards[0]), ["w"], slice(0, 1))
        self.w_size = first["w"].shape[1]

    def train_dataloader(self) -> DataLoader[SampleBatch]:
        """One pass over the samples, shared out between processes; all have equally many batches."""
        trainer = self.trainer
        assert trainer is not None
        end = len(self.scores)
        parts = [
            (shard, part)
            for shard in self._shards
            for part in pieces(range(shard.start, min(shard.stop, end)), self.batch_size)
        ]
        rounds = zip_longest(*(parts[rank :: trainer.world_size] for rank in range(trainer.world_size)))
        mine = [one_each[trainer.global_rank] for one_each in rounds]
        return DataLoader(_Stream(self.folder, mine), batch_size=None)

    def test_dataloader(self) -> DataLoader[list[int]]:
        """Batches of the tested latents' numbers, shared out between processes."""
        trainer = self.trainer
        assert trainer is not None
        mine = range(trainer.global_rank, self.test_count, trainer.world_size)
        batches: Any = pieces(mine, self.test_batch_size)  # a list is a dataset
        return DataLoader(batches, batch_size=None, collate_fn=list)

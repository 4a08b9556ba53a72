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

from ohlora.datamodules.latents import pieces
from ohlora.errors import ConfigError
from ohlora.formats import sample_files, tensor_files

SampleBatch = dict[str, Tensor]
"""``index`` (N,) and, of samples, ``w`` (N×D)."""


Part = tuple[Path | None, range]
"""Rows of a shard; without one, numbers of latents."""


class _Stream(IterableDataset[SampleBatch]):
    """Batches of a process; without a length, so that a resumed pass begins anew.

    Args:
        parts: What each batch holds; None where this process has one less than another and must not be missed.
    """

    def __init__(self, parts: list[Part | None]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[SampleBatch]:
        for part in self.parts:
            path, rows = part if part is not None else (None, range(0))
            if path is None:
                yield {"index": torch.arange(rows.start, rows.stop)}
            else:
                yield tensor_files.read_rows(path, ["index", "w"], slice(rows.start, rows.stop))


class Samples(L.LightningDataModule):
    """Streams a set of samples to the search, and hands counted latents to searches by gradients and to the test.

    Codes are read from disk pass by pass; scores are small and held in memory.

    Args:
        folder: Folder of the set (``artifacts/sample_v8``); searches by gradients need none.
        count: Uses the first so many samples; None uses all.
        batch_size: Samples per batch and process; the result does not depend on it.
        latent_batch_size: Latents per batch and process in a search by gradients.
        test_count: Latents of the test.
        test_batch_size: Latents per batch of the test and process; each is edited fifty times.

    Attributes:
        outputs: Names of the scores.
        scores: All scores, N×K float32.
        w_dim: Length of a style code.
    """

    outputs: tuple[str, ...]
    w_dim: int
    scores: np.ndarray
    _uses_samples: bool = True
    _latent_count: int = 0

    def __init__(
        self,
        folder: str | None = None,
        count: int | None = None,
        batch_size: int = 5000,
        latent_batch_size: int = 50,
        test_count: int = 2000,
        test_batch_size: int = 2,
    ) -> None:
        super().__init__()
        given = {"count": count, "batch_size": batch_size, "latent_batch_size": latent_batch_size}
        given |= {"test_count": test_count, "test_batch_size": test_batch_size}
        if any(value is not None and value < 1 for value in given.values()):
            raise ConfigError(f"{', '.join(f'{key} {value}' for key, value in given.items())}; expected at least 1")
        self.folder, self.count = Path(folder) if folder else None, count
        self.batch_size, self.latent_batch_size = batch_size, latent_batch_size
        self.test_count, self.test_batch_size = test_count, test_batch_size

    def connect(self, uses_samples: bool, latent_count: int) -> None:
        """Takes over what the search works on.

        Args:
            uses_samples: Whether it takes samples, and not latents.
            latent_count: Number of latents of a search by gradients.
        """
        self._uses_samples, self._latent_count = uses_samples, latent_count

    @property
    def existing_folder(self) -> Path:
        """The folder of the set.

        Raises:
            ConfigError: If none was named.
        """
        if self.folder is None:
            raise ConfigError("this method searches samples; set data.init_args.folder")
        return self.folder

    def setup(self, stage: str) -> None:
        """Checks the set before the first pass.

        Raises:
            MissingArtifactError: If it is not there.
            DataError: If a shard is missing or a score is no number.
        """
        if stage != "fit" or not self._uses_samples:
            return
        folder = self.existing_folder
        self._shards = sample_files.shards_of(folder, self.count)
        self.outputs = sample_files.outputs_of(folder, self._shards)
        self.scores = sample_files.read_scores(folder, self.count)
        first = tensor_files.read_rows(sample_files.shard_path(folder, self._shards[0]), ["w"], slice(0, 1))
        self.w_dim = first["w"].shape[1]

    def train_dataloader(self) -> DataLoader[SampleBatch]:
        """One pass over samples or latents, shared out between processes; all have equally many batches."""
        trainer = self.trainer
        assert trainer is not None
        if not self._uses_samples:
            latents = range(self._latent_count)
            parts: list[Part] = [(None, part) for part in pieces(latents, self.latent_batch_size)]
        else:
            end = len(self.scores)
            parts = [
                (
                    sample_files.shard_path(self.existing_folder, shard),
                    range(part.start - shard.start, part.stop - shard.start),
                )
                for shard in self._shards
                for part in pieces(range(shard.start, min(shard.stop, end)), self.batch_size)
            ]
        rounds = zip_longest(*(parts[rank :: trainer.world_size] for rank in range(trainer.world_size)))
        mine = [one_each[trainer.global_rank] for one_each in rounds]
        return DataLoader(_Stream(mine), batch_size=None)

    def test_dataloader(self) -> DataLoader[list[int]]:
        """Batches of the tested latents' numbers, shared out between processes."""
        trainer = self.trainer
        assert trainer is not None
        mine = range(trainer.global_rank, self.test_count, trainer.world_size)
        batches: Any = pieces(mine, self.test_batch_size)  # a list is a dataset
        return DataLoader(batches, batch_size=None, collate_fn=list)

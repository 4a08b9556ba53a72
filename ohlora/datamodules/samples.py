"""Scored samples for the search of directions."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from torch.utils.data import DataLoader

from ohlora.directions.finder import SampleSet
from ohlora.errors import ConfigError
from ohlora.formats import sample_files
from ohlora.utils import checks


class Samples(L.LightningDataModule):
    """A set of samples, held in memory: 500,000 codes of length 512 are a gigabyte.

    Args:
        folder: Folder of the set (``artifacts/sample_v8``); finders that take gradients need none.
        count: Uses the first so many samples; None uses all.
        limit: Most samples that are held in memory; of more, so many are chosen by ``seed``, and that is said.
        seed: Seed of that choice.
    """

    def __init__(
        self, folder: str | None = None, count: int | None = None, limit: int = 500_000, seed: int = 0
    ) -> None:
        super().__init__()
        if limit < 1 or (count is not None and count < 1):
            raise ConfigError(f"count is {count} and limit {limit}; expected at least 1")
        checks.seeds(seed=seed)
        self.folder, self.count, self.limit, self.seed = Path(folder) if folder else None, count, limit, seed

    @property
    def medians(self) -> Path | None:
        """The medians that sampling wrote, or None without a set."""
        return self.folder / sample_files.MEDIANS if self.folder else None

    def read(self) -> SampleSet:
        """Reads the set into memory.

        Raises:
            ConfigError: If no folder was named.
            MissingArtifactError: If it is not there.
            DataError: If a shard is missing or a score is no number.
        """
        if self.folder is None:
            raise ConfigError("this finder searches samples; set data.init_args.folder")
        found = sample_files.read_samples(self.folder, self.count, self.limit, self.seed)
        total = self.count or sample_files.ranges_in(self.folder)[-1].stop
        if len(found.scores) < total:
            print(
                f"{self.folder} holds {total} samples; {self.limit} of them, chosen by seed {self.seed}, are searched "
                "(data.init_args.limit)"
            )
        return found

    def train_dataloader(self) -> DataLoader[int]:
        """One batch: a search is a single step, which reads what it needs."""
        return DataLoader([0])  # type: ignore[arg-type]  # a list is a dataset

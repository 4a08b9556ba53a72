"""Counted latents as prediction data."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from ohlora.errors import ConfigError


class Latents(L.LightningDataModule):
    """Indices 0 … count − 1; what belongs to an index is a function of the stage's seed and the index alone.

    Args:
        count: Number of latents.
        batch_size: Latents per batch and process.
    """

    def __init__(self, count: int, batch_size: int = 16) -> None:
        super().__init__()
        if count < 1 or batch_size < 1:
            raise ConfigError(f"count is {count} and batch_size {batch_size}; expected at least 1")
        self.count, self.batch_size = count, batch_size

    def predict_dataloader(self) -> DataLoader[list[int]]:
        """Batches of the indices that the stage still has to do, shared out in turn between processes."""
        trainer = self.trainer
        assert trainer is not None
        todo: list[int] = trainer.lightning_module.indices_to_do(self.count)  # type: ignore[operator]
        mine = todo[trainer.global_rank :: trainer.world_size]
        dataset: Any = mine  # a list is a dataset
        return DataLoader(dataset, batch_size=self.batch_size, collate_fn=list)

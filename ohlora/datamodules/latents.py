"""Counted latents as data to predict or test with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import lightning as L
from torch.utils.data import DataLoader

from ohlora.errors import ConfigError

AnySequence = TypeVar("AnySequence", bound=Sequence[int])


def pieces(indices: AnySequence, size: int) -> list[AnySequence]:
    """Cuts a sequence into pieces of a size; the last may be shorter."""
    return [indices[first : first + size] for first in range(0, len(indices), size)]  # type: ignore[misc]


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
        """Batches of the indices that the stage still has to do.

        The stage says what one process does together; processes take that in turn, and no batch reaches beyond it.
        """
        trainer = self.trainer
        assert trainer is not None
        shares: list[Sequence[int]] = trainer.lightning_module.shares_to_do(self.count, self.batch_size)  # type: ignore[operator]
        mine = shares[trainer.global_rank :: trainer.world_size]
        batches: Any = [batch for share in mine for batch in pieces(share, self.batch_size)]  # a list is a dataset
        return DataLoader(batches, batch_size=None, collate_fn=list)

    def test_dataloader(self) -> DataLoader[list[int]]:
        """Batches of all indices; processes take indices in turn."""
        trainer = self.trainer
        assert trainer is not None
        mine = range(trainer.global_rank, self.count, trainer.world_size)
        batches: Any = pieces(mine, self.batch_size)  # a list is a dataset
        return DataLoader(batches, batch_size=None, collate_fn=list)

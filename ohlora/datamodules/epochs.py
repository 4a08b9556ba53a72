"""What the data of supervised training has in common: epochs of whole batches, and images for validation."""

from __future__ import annotations

import math

import numpy as np
from torch.utils.data import DataLoader

from ohlora.datamodules.base import ImageDataModule, ImageDataset, Sample
from ohlora.datamodules.images import ImageFileDataset, ImageFiles
from ohlora.datamodules.sampler import CountedSampler
from ohlora.errors import ConfigError, DataError
from ohlora.utils import counted


class EpochData(ImageDataModule):
    """Base of the datamodules that are trained on by epochs, with validation after each.

    An epoch is as many whole batches as it takes to see the training set. Resumed within one, training goes on with
    what is left of it.
    """

    val_set: ImageDataset
    """The validation images; there after ``setup``."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.train_set) / self.batch_size)

    def train_dataloader(self) -> DataLoader[Sample]:
        """The batches of an epoch, or what is left of it; a ConfigError if batches are so large that nothing is."""
        loader = super().train_dataloader()
        if self._done() >= self.steps_per_epoch * self.batch_size:
            raise ConfigError(
                f"the checkpoint stands within an epoch, which would be over with batch_size {self.batch_size}; resume "
                "with the batch_size it was made with, or from the end of an epoch"
            )
        assert isinstance(loader.sampler, CountedSampler)
        loader.sampler.epoch, loader.sampler.done = self.steps_per_epoch * self.batch_size, self._done
        return loader

    def val_dataloader(self) -> DataLoader[Sample]:
        """Validation images in order, shared out in turn between processes."""
        return self.in_order(self.val_set)

    def _done(self) -> int:
        """Images of the current epoch that training has seen."""
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return 0 if progress.is_last_batch else progress.current.ready * self.batch_size


class EpochImages(EpochData, ImageFiles):
    """Base of those that read image files."""

    val_set: ImageFileDataset

    def divide(self, loaded: ImageFileDataset, val_share: float) -> None:
        """Divides images at random into training and validation; a DataError if there are less than two."""
        count = len(loaded)
        order, held_out = counted.permutation(self.seed, "split", 0, count), max(1, round(val_share * count))
        if held_out >= count:
            raise DataError(f"{loaded.source}: {count} images leave none to learn from; expected at least 2")
        self.train_set, self.val_set = (
            loaded.subset(np.sort(places)) for places in (order[held_out:], order[:held_out])
        )

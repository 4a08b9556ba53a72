"""What all training data has in common: counted order, batches of whole size, one loader factory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ohlora.datamodules.sampler import CountedLoader, CountedSampler
from ohlora.errors import ConfigError
from ohlora.utils import checks, counted, images
from ohlora.utils.clock import Clock
from ohlora.utils.progress import tracked

Sample = dict[str, Any]
"""``image`` (H×W×3 uint8), ``index`` (place in the data set) and, where there are labels, ``label`` (K float32); kinds
of data may add arrays of their own."""


class ImageDataset(Protocol):
    """Map-style dataset of images of one resolution."""

    resolution: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    @property
    def labels(self) -> np.ndarray | None:
        """All labels, N×K float32, or None."""
        ...


MOST_WORKERS = 256
"""More loader processes per rank are taken for a slip: they fill a machine's memory before the first step."""

ImageBatch = dict[str, Any]
"""``image`` N×3×H×W in [−1, 1], ``index`` (N ints), where images are mirrored at random ``flipped`` (N bools), and as
tensors what else samples hold, such as ``label`` N×K.

Indices and flips stay lists: they are looked up on the host, and a tensor would be fetched back from the device."""


def collate(samples: list[Sample]) -> ImageBatch:
    """Samples → a batch."""
    batch: ImageBatch = {"image": images.to_float(np.stack([sample["image"] for sample in samples]))}
    batch["index"] = [sample["index"] for sample in samples]
    for key in samples[0].keys() - {"image", "index"}:
        batch[key] = torch.from_numpy(np.stack([sample[key] for sample in samples]))
    return batch


def random_batches(dataset: ImageDataset, count: int, seed: int, stream: str, size: int) -> Iterator[Tensor]:
    """At most ``count`` images of a data set, a random choice that belongs to seed and stream.

    Batches of ``size`` images, N×3×H×W in [−1, 1], so that memory holds one batch only.
    """
    chosen = counted.permutation(seed, stream, 0, len(dataset))[:count]
    for first in tracked(range(0, len(chosen), size), "looking at real images"):
        yield images.to_float(np.stack([dataset[int(k)]["image"] for k in chosen[first : first + size]]))


class ImageDataModule(L.LightningDataModule):
    """Base of the datamodules that feed images to training.

    Args:
        batch_size: Images per step over all processes together; the result of a run depends on it, not on the number
            of processes.
        seed: Seed of the order of the data.
        num_workers: Loader processes per rank, at most :data:`MOST_WORKERS`.
        flip: Mirrors half of the training images, chosen by their place in the order.

    Attributes:
        train_set: The training images; there after ``setup``.
        held_out: Images of the same kind that are not trained on, to compare a generator with; likewise. None where
            there are none.
        label_names: The attributes that the labels are values of, in order; none by default.
        together: How many successive training images stay together in the order.
    """

    train_set: ImageDataset
    held_out: ImageDataset | None = None
    label_names: tuple[str, ...] = ()
    together: int = 1
    _clock: Clock | None = None

    def __init__(self, batch_size: int = 16, seed: int = 0, num_workers: int = 0, flip: bool = False) -> None:
        super().__init__()
        checks.at_least(1, batch_size=batch_size)
        checks.between(0, MOST_WORKERS, num_workers=num_workers)
        checks.seeds(seed=seed)
        self.batch_size, self.seed, self.num_workers, self.flip = batch_size, seed, num_workers, flip

    def connect(self, clock: Clock) -> None:
        """Takes over the stage's clock, by which order and mirroring go."""
        self._clock = clock

    @property
    def clock(self) -> Clock:
        """The stage's clock; raises a ConfigError if the data has not been connected."""
        if self._clock is None:
            raise ConfigError(f"{type(self).__name__} has no clock; call stage.connect(data) before trainer.fit")
        return self._clock

    def training_images(self, count: int, seed: int, stream: str) -> np.ndarray:
        """At most ``count`` training images, N×H×W×3 uint8, a random choice that belongs to seed and stream."""
        chosen = counted.permutation(seed, stream, 0, len(self.train_set))[:count]
        return np.stack([self.train_set[int(k)]["image"] for k in chosen])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mirrors training images; which ones is a function of (seed, position), and noted as ``flipped``."""
        trainer = self.trainer
        if not self.flip or trainer is None or not trainer.training:
            return batch
        first = self.clock() + trainer.global_rank
        positions = [first + k * trainer.world_size for k in range(len(batch["image"]))]
        chosen = [bool(counted.generator(self.seed, "flip", p).integers(2)) for p in positions]
        flipped = torch.tensor(chosen, device=batch["image"].device)
        image = torch.where(flipped[:, None, None, None], batch["image"].flip(3), batch["image"])
        return {**batch, "image": image, "flipped": chosen, **self.flipped_targets(batch, flipped)}

    def flipped_targets(self, batch: ImageBatch, flipped: Tensor) -> dict[str, Tensor]:
        """What changes in a batch besides the images where they are mirrored (N booleans); by itself, nothing."""
        return {}

    def train_dataloader(self) -> DataLoader[Sample]:
        """Endless batches that go on where the stage's clock stands."""
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size % (trainer.world_size * self.together):
            groups = f", and {self.together} images stay together" if self.together > 1 else ""
            raise ConfigError(
                f"batch_size is {self.batch_size} for {trainer.world_size} processes{groups}; expected a multiple of "
                f"{trainer.world_size * self.together}"
            )
        ranks = trainer.global_rank, trainer.world_size
        sampler = CountedSampler(len(self.train_set), self.seed, self.clock, *ranks, self.together)
        return self._loader(self.train_set, sampler, self.batch_size // trainer.world_size, drop_last=True)

    def in_order(self, dataset: ImageDataset) -> DataLoader[Sample]:
        """Every sample once, in order; ranks take them in turn.

        A rank beyond the number of samples repeats the first: Lightning calls no hook of a rank without batches, and
        the others would wait for it.
        """
        trainer = self.trainer
        assert trainer is not None
        mine = range(trainer.global_rank, len(dataset), trainer.world_size) or range(min(1, len(dataset)))
        return self._loader(dataset, mine, max(1, self.batch_size // trainer.world_size), drop_last=False)

    def _loader(
        self, dataset: ImageDataset, sampler: Iterable[int], batch_size: int, drop_last: bool
    ) -> DataLoader[Sample]:
        return CountedLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

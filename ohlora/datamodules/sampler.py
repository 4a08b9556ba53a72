"""Counted order of data: which sample stands at which position is a function of (seed, position) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Sampler

from ohlora.utils import counted

T = TypeVar("T")


class CountedSampler(Sampler[int]):
    """Shuffled order, starting anywhere; endless, or up to the end of an epoch.

    Position p lies in round p // size over the data; each round has its own permutation. Ranks take positions in turn,
    so that all ranks together see the order of a single process with their total batch. An epoch may be a few positions
    longer than a round, so that it consists of whole batches.

    With ``together``, so many successive samples stay side by side: they take successive positions on one rank.

    Args:
        size: Number of samples, ≥ 1; a multiple of ``together``.
        seed: Seed of the order.
        start: Gives the first position when iteration begins; on resume, the images seen so far.
        rank: This process.
        world_size: Number of processes.
        together: How many samples stay together, ≥ 1.

    Attributes:
        epoch: Positions in an epoch, by all ranks together; None is endless.
        done: Gives the positions of the epoch that are done when iteration begins.
    """

    def __init__(
        self, size: int, seed: int, start: Callable[[], int], rank: int = 0, world_size: int = 1, together: int = 1
    ) -> None:
        self.size, self.seed, self.start, self.rank, self.world_size = size, seed, start, rank, world_size
        self.together = together
        self.epoch: int | None = None
        self.done: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        """Positions that a rank takes in a whole epoch; raises a TypeError if the order is endless."""
        if self.epoch is None:
            raise TypeError("an endless order has no length")
        return self.epoch // self.world_size

    def __iter__(self) -> Iterator[int]:
        left = None if self.epoch is None else (self.epoch - self.done()) // (self.world_size * self.together)
        current, order = -1, None
        groups = self.size // self.together
        for position in islice(count(self.start() // self.together + self.rank, self.world_size), left):
            number, offset = divmod(position, groups)
            if order is None or number != current:
                current, order = number, counted.permutation(self.seed, "order", number, groups)
            first = int(order[offset]) * self.together
            yield from range(first, first + self.together)


class CountedLoader(DataLoader[T]):
    """A loader whose place is told by the clock of its :class:`CountedSampler`, so that it needs no state of its own.

    Lightning warns of resuming within an epoch unless a loader has these two methods.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the clock is saved with the stage."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is to be done: the clock is restored with the stage."""

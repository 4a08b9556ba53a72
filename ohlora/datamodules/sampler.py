"""Counted order of data: which sample stands at which position is a function of (seed, position) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler

from ohlora.utils import counted


class CountedSampler(Sampler[int]):
    """Endless shuffled order, starting anywhere.

    Position p lies in pass p // size over the data; each pass has its own permutation. Ranks take positions in turn, so
    that all ranks together see the order of a single process with their total batch.

    Args:
        size: Number of samples, ≥ 1.
        seed: Seed of the order.
        start: Gives the first position when iteration begins; on resume, the images seen so far.
        rank: Index of this process.
        world_size: Number of processes.
    """

    def __init__(self, size: int, seed: int, start: Callable[[], int], rank: int = 0, world_size: int = 1) -> None:
        self.size, self.seed, self.start, self.rank, self.world_size = size, seed, start, rank, world_size

    def __iter__(self) -> Iterator[int]:
        position = self.start() + self.rank
        current, order = -1, None
        while True:
            epoch, offset = divmod(position, self.size)
            if order is None or epoch != current:
                current, order = epoch, counted.permutation(self.seed, "order", epoch, self.size)
            yield int(order[offset])
            position += self.world_size

"""Counted randomness: random number i of a stream is a function of (seed, stream, i) alone.

No random number depends on those drawn before it, so results depend neither on the batch size, nor on the number of
workers or ranks, nor on interruptions. Built on NumPy's Philox, a counter-based generator (Salmon et al., 2011): seed
and stream are its key, i is its counter.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """Creates the random generator of one index.

    Args:
        seed: Seed of the run, ≥ 0.
        stream: Name of what is drawn, for example ``"z"``; different streams are independent of one another.
        index: Number within the stream, ≥ 0.
    """
    key = np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def integer(seed: int, stream: str, index: int) -> int:
    """Draws the integer in 0…2⁶³ − 1 that belongs to one index, for libraries that are seeded by an integer."""
    return int(generator(seed, stream, index).integers(2**63))


def generators(seed: int, stream: str, indices: Iterable[int]) -> list[np.random.Generator]:
    """Creates one random generator per index; see :func:`generator`."""
    return [generator(seed, stream, i) for i in indices]


def normal(seed: int, stream: str, indices: Iterable[int], size: int) -> Tensor:
    """Draws one row of standard normal numbers per index: N×size, float32, on the CPU."""
    import torch  # commands that only draw do not wait for it

    rows = [g.standard_normal(size, dtype=np.float32) for g in generators(seed, stream, indices)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, size)


def permutation(seed: int, stream: str, index: int, size: int) -> np.ndarray:
    """Draws the permutation of 0…size−1 that belongs to one index (for example to an epoch); int64."""
    return generator(seed, stream, index).permutation(size)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global generator on the CPU for a block, such as one that makes a network; then it is as before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

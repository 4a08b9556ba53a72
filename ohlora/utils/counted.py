"""Counted randomness: number i of a stream is a function of (seed, stream, i) alone.

Nothing that matters is drawn in sequence, so results do not depend on batch size, number of workers or ranks, nor on
interruptions. Built on NumPy's Philox, a counter-based generator: the seed and stream are its key, i its counter.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """The random generator of one index.

    Args:
        seed: Seed of the run, ≥ 0.
        stream: What is drawn (for example ``"z"``); different streams are independent.
        index: Number within the stream, ≥ 0.
    """
    key = np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def integer(seed: int, stream: str, index: int) -> int:
    """A whole number from 0 to 2⁶³ − 1 that belongs to one index, for libraries that want a seed."""
    return int(generator(seed, stream, index).integers(2**63))


def generators(seed: int, stream: str, indices: Iterable[int]) -> list[np.random.Generator]:
    """One random generator per index."""
    return [generator(seed, stream, i) for i in indices]


def normal(seed: int, stream: str, indices: Iterable[int], size: int) -> Tensor:
    """Standard normal rows, one per index: N×size, float32, on the CPU."""
    rows = [g.standard_normal(size, dtype=np.float32) for g in generators(seed, stream, indices)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, size)


def permutation(seed: int, stream: str, index: int, size: int) -> np.ndarray:
    """A permutation of 0…size−1 that belongs to one index (for example an epoch)."""
    return generator(seed, stream, index).permutation(size)

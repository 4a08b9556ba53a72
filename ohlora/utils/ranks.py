"""What several processes have to agree on or bring together."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed

T = TypeVar("T")


def gathered(items: list[T]) -> list[T]:
    """The items of all ranks, on every rank, rank by rank; collective."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    parts: list[list[T]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]

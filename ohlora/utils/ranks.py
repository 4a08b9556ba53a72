"""Communication between the processes (ranks) of a distributed run."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed

T = TypeVar("T")


def gathered(items: list[T]) -> list[T]:
    """Gathers the items of all ranks on every rank, in the order of the ranks.

    This is a collective operation: every rank must call it. Items must be picklable. Without a process group, the items
    are returned as they are.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    parts: list[list[T]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]

"""What several processes have to agree on or bring together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed

from ohlora.errors import OhloraError

T = TypeVar("T")


def gathered(items: list[T]) -> list[T]:
    """The items of all ranks, on every rank, rank by rank; collective."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    parts: list[list[T]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def by_rank_zero(work: Callable[[], None]) -> None:
    """Lets rank zero work while the other ranks wait, however long it takes; collective.

    Raises:
        OhloraError: On the other ranks, if the work failed on rank zero, which raises its own error.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        work()
        return
    # A group of its own, since the default one gives up waiting after ten to thirty minutes.
    patient = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))
    error: Exception | None = None
    if torch.distributed.get_rank() == 0:
        try:
            work()
        except Exception as raised:
            error = raised
    outcome = [None if error is None else str(error)]
    torch.distributed.broadcast_object_list(outcome, src=0, group=patient)
    if error is not None:
        raise error
    if outcome[0] is not None:
        raise OhloraError(f"rank zero has failed: {outcome[0]}")

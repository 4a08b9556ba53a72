"""How far loops are, for whoever shows it: the arithmetic knows no progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Show = Callable[[str, int, int], None]
"""Is told what is done, how many items of it are done, and of how many."""
_shows: list[Show] = []


def tracked(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, one after the other; tells how many have been worked on."""
    for number, item in enumerate(items):
        for show in _shows:
            show(what, number, len(items))
        yield item
    for show in _shows:
        show(what, len(items), len(items))


@contextmanager
def shown(show: Show) -> Iterator[None]:
    """Has ``show`` told of all loops while the block runs."""
    _shows.append(show)
    try:
        yield
    finally:
        _shows.remove(show)

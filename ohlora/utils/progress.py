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


@contextmanager
def in_terminal() -> Iterator[None]:
    """Shows the loops of the block as one line at the foot of the terminal; nothing where the output is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    if not console.is_terminal:
        yield
        return
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(12), TimeRemainingColumn(compact=True)
    with Progress(*columns, TextColumn("left"), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            if done == 0:
                bar.reset(task)  # time is counted from here
            bar.update(task, description=what, completed=done, total=total)

        with shown(show):
            yield

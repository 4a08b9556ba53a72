"""The clock of training: thousands of images seen (kimg).

Steps differ between batch sizes and numbers of ranks; images seen do not. Schedules, logs, grids and checkpoints all go
by it.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], int]
"""Tells the images seen so far."""


def images_seen(module: object) -> int:
    """The reading of a stage's clock; 0 for a module that has none."""
    return int(getattr(module, "images_seen", 0))


def crossed(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of ``every_kimg`` thousand images lies in (before, after]; never for 0 or less."""
    if every_kimg <= 0:
        return False
    every = every_kimg * 1000
    return int(after / every + 1e-9) > int(before / every + 1e-9)

"""The training clock: thousands of real images shown to the networks so far (kimg).

The number of steps depends on the batch size and on the number of ranks; the number of images seen does not. Schedules,
logs, image grids and checkpoints are therefore all timed in kimg.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], int]
"""Tells the images seen so far."""


def images_seen(module: object) -> int:
    """Returns how many images a module has been trained on; 0 for a module that does not count them."""
    return int(getattr(module, "images_seen", 0))


def crossed(before: int, after: int, every_kimg: float) -> bool:
    """Checks whether a multiple of an interval lies in (``before``, ``after``].

    Args:
        before: Images seen before a step.
        after: Images seen after it.
        every_kimg: The interval in thousands of images; with 0 or less the answer is always False.
    """
    if every_kimg <= 0:
        return False
    every = every_kimg * 1000
    return int(after / every + 1e-9) > int(before / every + 1e-9)

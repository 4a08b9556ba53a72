"""With how many threads torch computes on the CPU: measured, where nobody has said.

Threads wait for each other after every operation. On a machine that does other work as well, one that is kept waiting
keeps all of them waiting, and two can be slower than one by far.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F

VARIABLE = "OMP_NUM_THREADS"
"""Environment variable by which users say how many; nothing is measured where it is set."""
GAIN = 1.1
"""How many times as fast all threads must be to be preferred to one."""
ROUNDS = 7
"""How often each number is tried."""


def measured(rounds: int = ROUNDS) -> dict[int, float]:
    """Median seconds of a convolution and its gradients, with one thread and with as many as torch uses now.

    The numbers take turns, so that whatever else the machine does meets both. torch uses as many as before afterwards.

    Args:
        rounds: How often each is tried.
    """
    given = torch.get_num_threads()
    images = torch.ones(16, 32, 32, 32)
    weights = torch.ones(32, 32, 3, 3, requires_grad=True)
    seconds: dict[int, list[float]] = {1: [], given: []}
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for number in range(-1, rounds):  # the first round warms up
                for threads, found in seconds.items():
                    torch.set_num_threads(threads)
                    start = perf_counter()
                    torch.autograd.grad(F.conv2d(images, weights, padding=1).sum(), weights)
                    if number >= 0:
                        found.append(perf_counter() - start)
    finally:
        torch.set_num_threads(given)
    return {threads: median(found) for threads, found in seconds.items()}


def best(seconds: Mapping[int, float]) -> int:
    """The number of threads to use: the larger one only where it is faster by :data:`GAIN`."""
    many = max(seconds)
    return many if seconds[1] >= GAIN * seconds[many] else 1


def described(seconds: Mapping[int, float]) -> str:
    """What was measured, as a line."""
    many = max(seconds)
    return (
        f"{best(seconds)} of {many} threads: {many} are {seconds[1] / seconds[many]:.1f} times as fast as one here and "
        f"now; {VARIABLE} sets another number"
    )


def chosen() -> bool:
    """Whether the user has said how many, or there is no choice."""
    return VARIABLE in os.environ or torch.get_num_threads() == 1


@cache
def choose() -> str | None:
    """Lets torch use the number that is fastest now, once in a process.

    Threads add in another order, so that a run is only repeated bit for bit with the same number: checkpoints keep it.

    Returns:
        What was measured, as a line; None where there was nothing to choose.
    """
    if chosen():
        return None
    seconds = measured()
    torch.set_num_threads(best(seconds))
    return described(seconds)


def restore(number: int | None) -> None:
    """Uses the number of a checkpoint, if it is known and the user has not said another."""
    if number is not None and VARIABLE not in os.environ and number <= (os.cpu_count() or 1):
        torch.set_num_threads(number)

"""Optimizer settings across a resume: what is configured now wins over what a checkpoint remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

Settings = list[dict[str, Any]]
"""Per parameter group, everything but the parameters."""


def settings_of(optimizer: Optimizer) -> Settings:
    """An optimizer's settings as they were configured."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def apply_settings(optimizers: Sequence[Optimizer], configured: Sequence[Settings], scheduled: bool) -> None:
    """Puts configured settings back after a checkpoint was loaded.

    Args:
        optimizers: The optimizers.
        configured: Their settings, from :func:`settings_of`.
        scheduled: Whether a schedule has the learning rate, whose own state goes on.
    """
    kept = ("lr", "initial_lr") if scheduled else ()
    for optimizer, groups in zip(optimizers, configured, strict=True):
        for group, settings in zip(optimizer.param_groups, groups, strict=True):
            group.update({key: value for key, value in settings.items() if key not in kept})

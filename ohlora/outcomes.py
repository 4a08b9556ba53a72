"""What a run comes to: whole, partial or idle. Products, tables and sets hang on it.

A run is *whole* if its stage was completed as configured: all images of the budget, all epochs or early stopping, all
batches. It is *partial* if a setting of the trainer leaves part of that out, or if it was stopped. It is *idle* if
there was nothing to do; then it writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

from ohlora.errors import ConfigError

LOADERS = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}
"""Command → what the data is asked for."""


class NothingToDo(Exception):  # noqa: N818
    """Ends an idle run before it writes anything; the message says why."""


def left_out(trainer: L.Trainer) -> str | None:
    """Which setting of the trainer leaves part of the work out, such as ``trainer.fast_dev_run``; None if none does."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return "trainer.fast_dev_run"
    fitting = trainer.state.fn == "fit"
    if fitting and trainer.overfit_batches:  # type: ignore[attr-defined]
        return "trainer.overfit_batches"
    assert trainer.state.fn is not None
    for name in LOADERS[trainer.state.fn.value]:
        loaders: Any = getattr(trainer, "train_dataloader" if name == "train" else f"{name}_dataloaders")
        taken: Any = getattr(trainer, "num_training_batches" if name == "train" else f"num_{name}_batches")
        limit: Any = getattr(trainer, f"limit_{name}_batches")
        if isinstance(limit, float) and limit == 1.0:
            continue
        if limit == 0 or loaders is None or _some(taken) < _length(loaders):
            return f"trainer.limit_{name}_batches"
    return None


def _some(batches: Any) -> float:
    return sum(batches) if isinstance(batches, Sequence) else float(batches)


def _length(loaders: Any) -> float:
    try:
        return sum(map(len, loaders)) if isinstance(loaders, (list, tuple)) else len(loaders)
    except TypeError:  # endless
        return float("inf")


def refuse_nothing(trainer: L.Trainer) -> None:
    """Refuses a training that could not take a step.

    Raises:
        ConfigError: Naming the setting.
    """
    for name in ("max_epochs", "max_steps"):
        if getattr(trainer, name) == 0:
            raise ConfigError(f"trainer.{name} is 0; expected at least 1, or -1 for no limit")


def stopped_early(trainer: L.Trainer) -> bool:
    """Whether early stopping, the stage's or a callback of the configuration, has ended training."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(c, EarlyStopping) and c.wait_count >= c.patience for c in callbacks)


def epochs_begun(trainer: L.Trainer) -> int:
    """Epochs that training has gone through, the last perhaps not to its end."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def epochs_done(trainer: L.Trainer) -> bool:
    """Whether all epochs are done, the last to its end."""
    loop = trainer.fit_loop
    limit = trainer.max_epochs if trainer.max_epochs is not None else -1
    return 0 <= limit <= epochs_begun(trainer) and loop.epoch_loop.batch_progress.is_last_batch


def epochs_done_in(checkpoint: Mapping[str, Any], max_epochs: int | None) -> bool:
    """The same of a checkpoint."""
    loop = checkpoint["loops"]["fit_loop"]
    processed, whole = (
        loop["epoch_progress"]["current"]["processed"],
        loop["epoch_loop.batch_progress"]["is_last_batch"],
    )
    return max_epochs is not None and 0 <= max_epochs <= processed and bool(whole)


def stopped_early_in(checkpoint: Mapping[str, Any], patience: int) -> bool:
    """Whether the checkpoint's early stopping has waited for so many epochs."""
    states = {key: state for key, state in checkpoint["callbacks"].items() if key.startswith("EarlyStopping")}
    return any(state["wait_count"] >= patience for state in states.values())

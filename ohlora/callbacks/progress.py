"""One line of progress in a terminal: what is done, how much of it, the time left, the clock and the losses."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from ohlora.utils.clock import images_seen
from ohlora.utils.progress import shown


class _Lines(Console):
    """A console that leaves it to the terminal to wrap what is said above the line of progress, such as long paths."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*objects, **{"soft_wrap": True, **how})


class Progress(ProgressBar):
    """A line at the foot of the terminal, which goes when the work is done; nothing where the output is no terminal.

    Where a step itself is long, such as a search, or the trainer pauses for a validation or a measurement, the line
    tells of that meanwhile (see :mod:`ohlora.utils.progress`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._stack = ExitStack()
        self._bar: Bar | None = None

    def disable(self) -> None:
        """Shows nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Takes :meth:`disable` back."""
        self._enabled = True

    # --- the line

    def _start(self, what: str, total: float) -> None:
        """Shows the line; ``total`` is infinite where no end is known, 0 where the work has not begun."""
        console = _Lines()
        if not self._enabled or not console.is_terminal:
            return
        rest = TextColumn("{task.fields[rest]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        self._bar = Bar(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(12),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            rest,
            console=console,
            expand=True,
            transient=True,
            speed_estimate_period=300,
            refresh_per_second=2,  # W&B keeps what is written to the terminal
        )
        self._begun = total > 0
        self._main: TaskID = self._bar.add_task(what, total=_known(total), rest="", visible=self._begun)
        self._inner: TaskID = self._bar.add_task("", rest="", visible=False)
        self._stack.enter_context(self._bar)
        self._stack.enter_context(shown(self._show_inner))

    def _advance(self, done: int, what: str | None = None, total: float = math.inf, rest: str = "") -> None:
        if self._bar is not None:
            self._begun = True
            self._bar.update(self._main, completed=done, description=what, total=_known(total), rest=rest, visible=True)

    def _show_inner(self, what: str, done: int, total: int) -> None:
        """Shows what happens within a step, in place of the steps; predictions and tests have short steps."""
        if self._bar is None or (self.trainer.state.fn != "fit" and self._begun):
            return
        inside = done < total
        self._bar.update(self._main if inside else self._inner, visible=False)  # never both: it is one line
        if done == 0:
            self._bar.reset(self._inner)  # time is counted from here
        self._bar.update(self._inner, description=what, completed=done, total=total, visible=inside)
        if not inside:
            self._bar.update(self._main, visible=self._begun)

    def _stop(self) -> None:
        self._stack.close()
        self._bar = None

    # --- training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows all steps of this run: the stage knows how many are left, or epochs are limited."""
        left: int | None = getattr(pl_module, "steps_left", None)
        per_epoch = self.total_train_batches
        epochs = trainer.max_epochs or 0
        self._of_epoch = int(per_epoch) if left is None and math.isfinite(per_epoch) else 0
        self._first: int | None = 0 if left is None else None
        # Without a limit of epochs an epoch is all that is known; a search is a single step.
        total = max(1, left) if left is not None else per_epoch * max(1, epochs)
        self._start("training", total)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advances by one step; of a resumed run only the steps left are counted."""
        if self._first is None:
            self._first = batch_idx
        epochs = trainer.max_epochs or 0
        before = trainer.current_epoch * self._of_epoch if epochs > 0 else 0
        what = f"epoch {trainer.current_epoch + 1}/{epochs}" if self._of_epoch and epochs > 0 else "training"
        metrics = self.get_metrics(trainer, pl_module).items()
        rest = "  ".join(f"{name} {v if isinstance(v, str) else format(v, '.3g')}" for name, v in metrics)
        self._advance(before + batch_idx + 1 - self._first, what, rest=rest)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the line away."""
        self._stop()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The clock, and what the stage logs with ``prog_bar=True``."""
        found = super().get_metrics(trainer, pl_module)
        found.pop("v_num", None)  # the W&B run's id
        metrics = {name.removeprefix("loss/"): value for name, value in found.items()}
        return {"kimg": f"{images_seen(pl_module) / 1000:.2f}"} | metrics

    # --- validation, test, prediction

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows a validation of its own."""
        if trainer.state.fn == "validate":
            self._start("validating", 0)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows the line, at first for what the stage prepares."""
        self._start("testing", 0)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows the line."""
        self._start("predicting", 0)

    def on_validation_batch_start(self, trainer: L.Trainer, *about: Any, dataloader_idx: int = 0) -> None:
        """Notes which data it is."""
        self.has_dataloader_changed(dataloader_idx)

    def on_test_batch_start(self, trainer: L.Trainer, *about: Any, dataloader_idx: int = 0) -> None:
        """Shows that the test has begun."""
        if self.has_dataloader_changed(dataloader_idx):
            self._advance(0, "testing", self.total_test_batches_current_dataloader)

    def on_predict_batch_start(self, trainer: L.Trainer, *about: Any, dataloader_idx: int = 0) -> None:
        """Shows that the prediction has begun."""
        if self.has_dataloader_changed(dataloader_idx):
            self._advance(0, "predicting", self.total_predict_batches_current_dataloader)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *about: Any
    ) -> None:
        """Advances; within a training, the validation takes the place of the steps."""
        total = self.total_val_batches_current_dataloader
        if trainer.state.fn == "validate":
            self._advance(batch_idx + 1, "validating", total)
        elif math.isfinite(total):
            self._show_inner("validating", batch_idx + 1, int(total))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *about: Any
    ) -> None:
        """Advances."""
        self._advance(batch_idx + 1)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *about: Any
    ) -> None:
        """Advances."""
        self._advance(batch_idx + 1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the line of a validation of its own away."""
        if trainer.state.fn == "validate":
            self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Takes the line away."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Takes the line away, so that the error stands below what was said before."""
        self._stop()


def _known(total: float) -> float | None:
    return total if math.isfinite(total) else None

"""Rich progress on the kimg clock."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from ohlora.utils.clock import images_seen


class Progress(RichProgressBar):
    """Lightning's Rich progress bar, with the end of training known although the data is endless."""

    _first: int | None = None

    @property
    def total_train_batches(self) -> int | float:
        """Steps left in this run, where the stage knows better than the length of its data."""
        left: int | None = getattr(self.trainer.lightning_module, "steps_left", None)
        return super().total_train_batches if left is None else max(1, left)

    def _get_train_description(self, current_epoch: int) -> str:
        # Nothing public names the bar, and "Epoch 0/-2" is what endless data would be called.
        return "Training"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the bar."""
        self._first = None
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advances by one step; where the bar shows the steps left, batches before a resume do not count."""
        if self._first is None:
            self._first = batch_idx if hasattr(pl_module, "steps_left") else 0
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx - self._first)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The clock, and what the stage logs with ``prog_bar=True``."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the W&B run's id
        metrics = {name.removeprefix("loss/"): value for name, value in shown.items()}
        return {"kimg": f"{images_seen(pl_module) / 1000:.2f}"} | metrics

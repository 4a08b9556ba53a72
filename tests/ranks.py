"""A callback for tests of several processes."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch


class SaveEachRank(L.Callback):
    """Saves every rank's own state at the end of training."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes ``rank0.pt``, ``rank1.pt``, … into the run folder."""
        folder = Path(str(trainer.log_dir))  # collective
        torch.save(pl_module.state_dict(), folder / f"rank{trainer.global_rank}.pt")

"""Callbacks for tests of several processes and of runs that end badly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ohlora.callbacks.checkpoint import ImagesSeenCheckpoint
from ohlora.errors import OhloraError


class Terminate(L.Callback):
    """Sends SIGTERM to its own process after the first step."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sends it."""
        os.kill(os.getpid(), signal.SIGTERM)


class SaveEachRank(L.Callback):
    """Saves every rank's own state at the end of training."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes ``rank0.pt``, ``rank1.pt``, … into the run folder."""
        folder = Path(str(trainer.log_dir))  # collective
        torch.save(pl_module.state_dict(), folder / f"rank{trainer.global_rank}.pt")


class FailOnRank(L.Callback):
    """Raises on one rank after its second step, while the others go on.

    Args:
        rank: Which.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raises when its time has come."""
        if trainer.global_rank == self.rank and batch_idx == 1:
            raise RuntimeError(f"rank {self.rank} was told to fail")


class HalfWritten(TorchCheckpointIO):
    """Kills the process when half of its second checkpoint has been written."""

    saved = 0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Saves, or saves half and kills."""
        super().save_checkpoint(checkpoint, path, storage_options)
        self.saved += 1
        if self.saved == 2:
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)


class KillWhileSaving(L.Callback):
    """Kills the process when half of its second checkpoint has been written."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts itself between Lightning and the disk."""
        assert any(isinstance(callback, ImagesSeenCheckpoint) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        trainer.strategy.checkpoint_io = HalfWritten()


class CountPredictions(L.Callback):
    """Refuses predictions that pile up in memory."""

    def on_predict_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Looks at what Lightning has kept."""
        assert not any(trainer.predict_loop.predictions), "predictions are kept"


class Spoil(L.Callback):
    """Overwrites a file after the first checkpoint.

    Args:
        path: Which file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Spoils the file when its time has come."""
        if batch_idx == 2:
            Path(self.path).write_bytes(b"no image")


class StopAfter(L.Callback):
    """Stops training after a number of batches, saving a checkpoint there as an interrupted run would have.

    Args:
        batches: How many.
    """

    def __init__(self, batches: int) -> None:
        self.batches, self._seen = batches, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and leaves when its time has come."""
        self._seen += 1
        if self._seen == self.batches:
            trainer.save_checkpoint(Path(str(trainer.log_dir)) / "checkpoints" / "images-0000000001.ckpt")
            raise OhloraError("told to stop")


class Slowly(L.Callback):
    """Takes half a minute for each batch, in small pieces; says in the run's folder that it has begun."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Waits."""
        (Path(str(trainer.log_dir)) / "slowly").touch()
        for _piece in range(300):
            time.sleep(0.1)

    def on_predict_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Waits."""
        self.on_train_batch_start(trainer)

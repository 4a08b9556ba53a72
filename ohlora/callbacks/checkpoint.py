"""Resumable checkpoints on the kimg clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ohlora.errors import FormatError, NonFiniteError, StorageError
from ohlora.formats import foreign_files
from ohlora.formats.tensor_files import not_finite
from ohlora.tracking import checkpoint_folder, checkpoints_in, run_loggers
from ohlora.utils import checks
from ohlora.utils.clock import crossed, images_seen

PARTS = frozenset({"state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "epoch", "global_step"})
"""What a checkpoint holds that training can go on from."""


class ImagesSeenCheckpoint(Checkpoint):
    """Saves everything a run needs to continue, every so many kimg and at the end of training.

    Files appear whole or not at all; older ones are removed after the new one is there.

    Args:
        every_kimg: Interval in thousands of images; 0 saves at the end only.
        keep: How many of the newest checkpoints of a run stay, ≥ 1.
    """

    def __init__(self, every_kimg: float = 5.0, keep: int = 2) -> None:
        super().__init__()
        checks.at_least(1, keep=keep)
        checks.at_least(0, every_kimg=every_kimg)
        self.every_kimg, self.keep = every_kimg, keep
        self._before = 0
        self._due = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the clock's reading, so that a resumed run keeps the rhythm, and removes what a killed run left."""
        self._folder = checkpoint_folder(trainer.log_dir or trainer.default_root_dir)
        self._before = self._saved = images_seen(pl_module)
        if trainer.is_global_zero:
            for half_written in self._folder.glob(".images-*.part"):
                half_written.unlink()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Saves when a multiple of the interval has been passed."""
        now = images_seen(pl_module)
        self._due = self._due or crossed(self._before, now, self.every_kimg)
        self._before = now
        # Where training ends within an epoch: later Lightning takes the epoch for done.
        ends = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        # At the end of an epoch the checkpoint waits for the validation and what it decides.
        if (self._due or ends) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves what waited for the end of the epoch."""
        if self._due:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the end of training."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Saves what a run has reached when a signal stops it, which is between two steps."""
        if isinstance(exception, SIGTERMException) and trainer.training:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the W&B run, so that a resumed run draws on in the same curves."""
        for logger in run_loggers(trainer):
            checkpoint["wandb_run_id"] = logger.run_id

    def _save(self, trainer: L.Trainer) -> None:
        """Saves, unless this moment has been saved."""
        now = images_seen(trainer.lightning_module)
        if now == self._saved:
            return
        for name in not_finite(dict(trainer.lightning_module.named_parameters())):
            raise NonFiniteError(
                f"{name} is not finite after {now} images: it was not saved, and earlier checkpoints are untouched. "
                "Lower the learning rate and go on with --ckpt_path last"
            )
        self._saved, self._due = now, False
        path = self._folder / f"images-{now:010d}.ckpt"
        part = path.with_name(f".{path.name}.part")
        try:
            trainer.save_checkpoint(part)  # collective: every rank calls it, rank zero writes
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StorageError(
                f"{path} cannot be written ({error}); earlier checkpoints are untouched. Make room and go on with "
                "--ckpt_path last"
            ) from error
        if trainer.is_global_zero:
            part.replace(path)
            for old in checkpoints_in(self._folder.parent)[: -self.keep]:
                old.unlink()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content without copying its tensors into memory.

    Raises:
        FormatError: If the file is damaged or something else; the message says what.
    """
    expected = "expected a checkpoint of a run (runs/…/checkpoints/images-….ckpt)"
    if what := foreign_files.no_checkpoint(path):
        raise FormatError(f"{path} {what}; {expected}")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # torch has many ways to say so
        raise FormatError(f"{path} is a truncated or damaged checkpoint, or none at all; {expected}") from error
    if not isinstance(content, dict) or not content.keys() >= PARTS:
        raise FormatError(f"{path} is no checkpoint of Lightning's trainer; {expected}")
    if not all(isinstance(content[name], dict) for name in ("state_dict", "loops", "callbacks")):
        raise FormatError(f"{path} is a damaged checkpoint; {expected}")
    return content

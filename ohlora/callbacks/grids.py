"""Sample grids: the same latents through the averaged generator, again and again."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch

from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_latents
from ohlora.tracking import run_loggers
from ohlora.utils import counted, images
from ohlora.utils.clock import crossed, images_seen


class SampleGrid(L.Callback):
    """Pictures of fixed latents before the first step, every so many kimg and at the end, beside a grid of reals.

    Args:
        every_kimg: Interval in thousands of images; 0 draws at start and end only.
        rows: Rows of the grid.
        columns: Columns of the grid.
        seed: Seed of the fixed latents and labels.
        batch_size: Images made at once.
    """

    def __init__(
        self, every_kimg: float = 10.0, rows: int = 6, columns: int = 10, seed: int = 0, batch_size: int = 16
    ) -> None:
        self.every_kimg, self.rows, self.columns = every_kimg, rows, columns
        self.seed, self.batch_size = seed, batch_size
        self._before = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the reals and, from untouched weights, the first fakes."""
        self._before = self._drawn = images_seen(pl_module)
        if trainer.is_global_zero and self._before == 0:
            dataset = trainer.datamodule.train_set  # type: ignore[attr-defined]
            chosen = counted.permutation(self.seed, "reals", 0, len(dataset))[: self.rows * self.columns]
            self._record(trainer, 0, "reals", np.stack([dataset[int(k)]["image"] for k in chosen]))
            self._draw(trainer, pl_module, 0)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Draws when a multiple of the interval has been passed."""
        now = images_seen(pl_module)
        if trainer.is_global_zero and crossed(self._before, now, self.every_kimg):
            self._draw(trainer, pl_module, now)
        self._before = now

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the end of training."""
        now = images_seen(pl_module)
        if trainer.is_global_zero and now != self._drawn:
            self._draw(trainer, pl_module, now)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, now: int) -> None:
        self._drawn = now
        averaged = pl_module.averaged
        if not isinstance(averaged, Generator):
            raise TypeError(f"{type(pl_module).__name__} has no averaged generator; expected a GAN stage")
        fakes = render(averaged, self.seed, range(self.rows * self.columns), self.batch_size)
        self._record(trainer, now, "fakes", fakes)

    def _record(self, trainer: L.Trainer, now: int, name: str, pictures: np.ndarray) -> None:
        sheet = images.enlarge(images.grid(pictures, self.columns))
        for logger in run_loggers(trainer):
            logger.record(now / 1000, {}, {name: sheet})


@torch.inference_mode()
def render(generator: Generator, seed: int, indices: range, batch_size: int) -> np.ndarray:
    """Images of counted latents and labels with fixed noise: N×R×R×3 uint8."""
    made = []
    for first in range(0, len(indices), batch_size):
        part = indices[first : first + batch_size]
        made.append(images.to_uint8(generator(*counted_latents(generator, seed, part))))
    return np.concatenate(made)

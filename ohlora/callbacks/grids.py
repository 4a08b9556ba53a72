"""Sample grids: the same latents through the averaged generator, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

import lightning as L
import numpy as np

from ohlora.datamodules.base import ImageDataModule
from ohlora.errors import ConfigError
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_batches, joined
from ohlora.tracking import CLOCK, RunLogger, run_loggers
from ohlora.utils import checks, images, signals
from ohlora.utils.clock import crossed, images_seen


@runtime_checkable
class Averaging(Protocol):
    """A stage that trains a generator, as callbacks see it.

    Attributes:
        data: The training images.
        G_ema: The averaged generator.
        headlines: What the stage says at the end, filled in by a callback.
        kimg: Length of the training, in thousands of images.
    """

    data: ImageDataModule
    G_ema: Generator
    headlines: Sequence[str]
    kimg: float

    @property
    def from_scratch(self) -> bool:
        """Whether the networks started from random weights."""
        ...


class LooksAtGenerator(L.Callback):
    """Base of callbacks that look at the averaged generator: before the first step, every so many kimg, at the end.

    Args:
        every_kimg: Interval in thousands of images; 0 looks at start and end only.
    """

    def __init__(self, every_kimg: float) -> None:
        checks.at_least(0, every_kimg=every_kimg)
        self.every_kimg = every_kimg
        self._owed = False
        self.looked = 0
        """Images seen when it last looked, or when this run began."""

    def look(self, trainer: L.Trainer, stage: Averaging, now: int, final: bool) -> None:
        """Looks at the generator after ``now`` images; on rank zero. ``final`` says that training has ended."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks at untouched weights."""
        self._before = self.looked = images_seen(pl_module)
        if self._before == 0 or self._owed:
            self._look(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Looks when a multiple of the interval has been passed."""
        now = images_seen(pl_module)
        if crossed(self._before, now, self.every_kimg):
            self._look(trainer, pl_module)
        self._before = now

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks at the end of a whole training, when the product is safe."""
        if getattr(pl_module, "whole", True) and not getattr(pl_module, "finishing", False):
            self._look(trainer, pl_module, final=True)

    def state_dict(self) -> dict[str, Any]:
        """Whether a look was cut short, which a resumed run makes up for."""
        return {"owed": self._owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` kept."""
        self._owed = bool(state_dict.get("owed"))

    def _look(self, trainer: L.Trainer, stage: L.LightningModule, final: bool = False) -> None:
        if not isinstance(stage, Averaging):
            raise ConfigError(f"{type(stage).__name__} has no averaged generator; this callback goes with a GAN stage")
        if not trainer.is_global_zero:
            return
        # Of several processes, the others wait for this one at the end of the step.
        may_be_cut = signals.at_once() if trainer.world_size == 1 else nullcontext()
        self._owed = True
        try:
            with may_be_cut:
                self.look(trainer, stage, images_seen(stage), final)
        except signals.Stopped:
            if final or not trainer.training or images_seen(stage) == 0:
                raise
            return  # the step is whole, and training stops after it
        self._owed = False
        self.looked = images_seen(stage)


PICTURES = 16
"""Pictures of a training after the first, if it is not so long that they would be too far apart."""
FARTHEST = 50.0
"""Largest interval between pictures in thousands of images, where none is given."""
CAPTIONED = ("concept_rate", "diversity", "spread_mean", "spread_min")
"""What a caption tells of what a watch has measured."""


class SampleGrid(LooksAtGenerator):
    """Pictures of fixed latents before the first step, every so many kimg and at the end, beside a grid of reals.

    On W&B each has a caption: the moment, and what a watch has measured last. The command line lets grids look after
    all other callbacks, so that this is of the same moment where both look.

    Args:
        every_kimg: Interval in thousands of images; 0 draws at start and end only, None takes a sixteenth of the
            training, and at most 50.
        rows: Rows of the grid.
        columns: Columns of the grid.
        seed: Seed of the fixed latents and labels.
        batch_size: Images made at once.
    """

    def __init__(
        self, every_kimg: float | None = None, rows: int = 6, columns: int = 10, seed: int = 0, batch_size: int = 16
    ) -> None:
        super().__init__(every_kimg or 0.0)
        self.by_length = every_kimg is None
        checks.at_least(1, rows=rows, columns=columns, batch_size=batch_size)
        checks.seeds(seed=seed)
        self.rows, self.columns, self.seed, self.batch_size = rows, columns, seed, batch_size

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fits the interval to the length of the training, then looks at untouched weights."""
        if self.by_length and isinstance(pl_module, Averaging):
            self.every_kimg = min(pl_module.kimg / PICTURES, FARTHEST)
        super().on_train_start(trainer, pl_module)

    def look(self, trainer: L.Trainer, stage: Averaging, now: int, final: bool) -> None:
        """Draws the fakes and, before the first step, the reals."""
        if final and now == self.looked:
            return
        count = self.rows * self.columns
        if now == 0:
            self._record(trainer, "reals", stage.data.training_images(count, self.seed, "reals"))
        made, _ = joined(counted_batches(stage.G_ema, self.seed, range(count), self.batch_size, "const", stream=""))
        self._record(trainer, "fakes", images.to_uint8(made))

    def _record(self, trainer: L.Trainer, name: str, pictures: np.ndarray) -> None:
        sheet = images.enlarge(images.grid(pictures, self.columns))
        for logger in run_loggers(trainer):
            logger.record({name: sheet}, captions={name: caption(logger)})


def caption(logger: RunLogger) -> str:
    """The moment, and what a watch has measured last, with its own moment where that is another."""
    told = f"{logger.kimg:.6g} kimg"
    rows = logger.history("watch/diversity")
    if not rows:
        return told
    found = ((name, rows[-1].get(f"watch/{name}")) for name in CAPTIONED)
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found if value is not None)
    when = rows[-1][CLOCK]
    return f"{told}: {measured}" if when == logger.kimg else f"{told}; at {when:.6g} kimg: {measured}"

"""Training by epochs: the base of all stages that do, and supervised training of one network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
import torchmetrics
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from ohlora import outcomes
from ohlora.callbacks.writers import save_product
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.epochs import EpochData
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.modules.base import Stage, check_finite, try_optimizer
from ohlora.utils import checks, counted
from ohlora.utils.ranks import gathered

MONITOR = "loss/validation"
"""The metric by which training stops and the best weights are chosen."""
DIVERGED = "the network has diverged. Lower the learning rate and resume from the last checkpoint"

Data = TypeVar("Data", bound=EpochData)


Rows = list[tuple[Tensor, Tensor]]
"""Predictions by the batch, on the CPU: places in the data (N,), and values (N, K)."""


def collected(rows: Rows, count: int) -> Tensor:
    """All predictions on ``count`` images in their order, of all ranks: ``count``×K, NaN where there are none.

    Empties ``rows``. Collective.

    Raises:
        NonFiniteError: If a value is not finite.
    """
    places, values = (torch.cat(parts) for parts in zip(*gathered(rows), strict=True))
    rows.clear()
    if not torch.isfinite(values).all():
        raise NonFiniteError(f"a prediction on validation data is not finite: {DIVERGED}")
    table = torch.full((count, values.shape[1]), torch.nan)
    table[places] = values
    return table


class Epochs(Stage[Data]):
    """Base of the stages that train by epochs, each followed by validation.

    ``trainer.max_epochs`` limits the length. Everything random is counted by the clock, so that a resumed run continues
    bit for bit on the CPU.

    Args:
        optimizer: Optimizer.
        schedule: Learning-rate schedule, stepped once per epoch; None keeps the rate constant.
        patience: Epochs without a lower validation loss after which training, or a member of an ensemble, stops; ≥ 1.
        seed: Seed of weights and dropout.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = EpochData
    closure: ClassVar[bool] = True
    """Whether Lightning takes the optimizer's steps, with a closure."""

    def __init__(
        self,
        optimizer: OptimizerCallable,
        schedule: LRSchedulerCallable | None = None,
        patience: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        checks.at_least(1, patience=patience)
        checks.seeds(seed=seed)
        self.patience, self.seed = patience, seed
        self._optimizer, self._schedule = optimizer, schedule
        try_optimizer("optimizer", optimizer, schedule, closure=self.closure)
        self._train_loss = torchmetrics.MeanMetric(nan_strategy="disable")

    @property
    def completed(self) -> bool:
        """Whether all epochs are done, or early stopping has ended training, and no epoch was cut short."""
        whole = self.clock() >= outcomes.epochs_begun(self.trainer) * len(self.data.train_set)
        return whole and (outcomes.epochs_done(self.trainer) or self.stopped)

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended training."""
        return outcomes.stopped_early(self.trainer)

    def nothing_to_do(self, trainer: L.Trainer, checkpoint: Mapping[str, Any] | None) -> str | None:
        """Whether the checkpoint has done all epochs, or had stopped."""
        if not checkpoint:
            return None
        if outcomes.epochs_done_in(checkpoint, trainer.max_epochs):
            return f"all epochs are done, and trainer.max_epochs is {trainer.max_epochs}"
        if self.had_stopped(checkpoint):
            return f"training had stopped early, and model.init_args.patience is {self.patience}"
        return None

    def had_stopped(self, checkpoint: Mapping[str, Any]) -> bool:
        """Whether early stopping had ended the checkpoint's training, by the present patience."""
        return outcomes.stopped_early_in(checkpoint, self.patience)

    def on_fit_start(self) -> None:
        """Lets Lightning know that epochs may be short: everything is logged once per epoch.

        Raises:
            ConfigError: If the epochs end before the first validation, which chooses the weights.
        """
        epochs, every = self.trainer.max_epochs, self.trainer.check_val_every_n_epoch
        if epochs is not None and every is not None and 0 < epochs < every:
            raise ConfigError(
                f"trainer.check_val_every_n_epoch is {every} and max_epochs {epochs}; no epoch would be validated, and "
                "so no weights chosen. Expected at most as many"
            )
        self.trainer.log_every_n_steps = 1  # type: ignore[attr-defined]

    @contextmanager
    def counted_dropout(self) -> Iterator[None]:
        """Makes dropout a function of the seed and the number of the batch's first image."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(counted.integer(self.seed, "dropout", self.clock() + self.global_rank))
            yield

    def check_step(self, network: nn.Module, loss: Tensor, name: str) -> None:
        """Insists on a finite loss and gradient; see :func:`ohlora.modules.base.check_finite`."""
        when = f"in the step that ends at {self.clock()} images"
        check_finite({f"the loss of {name}": loss}, network.parameters(), name, when)

    def log_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Logs metrics of an epoch, with training loss and learning rate where it trained; returns all of them."""
        measured = {"epoch": self.current_epoch + 1, **metrics}
        if self._train_loss.update_called:
            measured["loss/train"] = float(self._train_loss.compute())
            measured["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
            self._train_loss.reset()
        self.log_dict(measured, sync_dist=True)
        return measured


class Supervised(Epochs[Data]):
    """Trains one network, and saves the weights with the lowest validation loss; see :class:`Epochs`.

    Lightning's early stopping ends training when ``patience`` epochs went by without a lower validation loss. The best
    weights so far are part of every checkpoint.

    A stage provides :meth:`loss`, ``validation_step``, :meth:`validation_metrics` and, if it likes, :meth:`report`.

    Args:
        network: The network to train.
        product: Name of the file to save it in.
        **settings: See :class:`Epochs`.
    """

    def __init__(self, network: nn.Module, product: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.network, self.product = network, product
        self.products = [product]
        self._best: dict[str, Any] = {}  # of the epoch with the lowest loss: what was "measured", and the "state"

    # --- what a stage provides

    def loss(self, batch: ImageBatch) -> Tensor:
        """The training loss on a batch: a scalar, the mean over its images."""
        raise NotImplementedError

    def validation_metrics(self) -> dict[str, float]:
        """Metrics over the validation set, with :data:`MONITOR` among them. Collective."""
        raise NotImplementedError

    def check_result(self, measured: Mapping[str, float]) -> None:
        """Refuses best weights, which have been loaded, that are of no use; by itself, none."""

    def report(self, measured: Mapping[str, float]) -> None:
        """Shows what the best weights do, which have been loaded, and what was measured with them; on rank zero."""

    def reached(self, measured: Mapping[str, float]) -> str:
        """What was measured with the best weights, for the last line that is printed; the validation loss by itself."""
        return f"validation loss {measured[MONITOR]:.4g}"

    # --- training

    def configure_callbacks(self) -> list[L.Callback]:
        """Early stopping, beside that of the configuration, which Lightning would replace by what is returned here."""
        self._stopping = EarlyStopping(MONITOR, patience=self.patience, check_on_train_epoch_end=False)
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        others = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
        if any(other.state_key == self._stopping.state_key for other in others):
            raise ConfigError(
                f"trainer.callbacks stops on {MONITOR}, as the stage does; leave it out: model.init_args.patience is it"
            )
        return [self._stopping, *others]

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule by epochs."""
        return self.scheduled([self._optimizer(self.network.parameters())], self._schedule)

    def on_train_start(self) -> None:
        """Applies the settings of this run to what a checkpoint brought, and ends a run that had stopped."""
        super().on_train_start()
        self._stopping.patience = self.patience
        if self._stopping.wait_count >= self.patience:
            self.trainer.should_stop = True

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The loss on a batch."""
        with self.counted_dropout():
            loss = self.loss(batch)
        self._loss = loss.detach()
        self._train_loss.update(self._loss)
        self.images_seen += len(batch["image"]) * self.trainer.world_size
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Insists on a finite loss and gradient."""
        self.check_step(self.network, self._loss, self.product)

    def on_validation_epoch_end(self) -> None:
        """Logs the epoch, and keeps its weights if they are the best so far.

        Raises:
            NonFiniteError: If the validation loss is not finite.
        """
        metrics = self.validation_metrics()
        if not math.isfinite(metrics[MONITOR]):
            raise NonFiniteError(f"the validation loss is not finite: {DIVERGED}")
        measured = self.log_epoch(metrics)
        if not self._best or metrics[MONITOR] < self._best["measured"][MONITOR]:
            self._best = {"measured": measured, "state": copy.deepcopy(self.state_dict())}

    # --- the product

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the best weights so far, and what was measured with them."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["best"] = self._best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over what :meth:`on_save_checkpoint` added."""
        super().on_load_checkpoint(checkpoint)
        self._best = checkpoint["best"]

    def told(self) -> dict[str, Any]:
        """What else the product says of itself."""
        return {}

    def make_products(self, about: Mapping[str, Any]) -> None:
        """Saves the best weights as the product, with what was measured with them.

        Raises:
            ConfigError: If no epoch was validated.
            NonFiniteError: If the weights are of no use.
        """
        if not self._best:
            raise ConfigError(
                "no epoch was completed and validated, so that there are no weights to keep; train longer"
            )
        self.load_state_dict(self._best["state"])
        measured: dict[str, float] = self._best["measured"]
        self.check_result(measured)
        rounded = {name: round(value, 4) for name, value in measured.items()}
        self._written = save_product(
            self.trainer, self.product, self.network, {"images_seen": self.clock(), **rounded, **self.told(), **about}
        )

    def on_fit_end(self) -> None:
        """Reports on the best weights."""
        super().on_fit_end()
        if not self.trainer.is_global_zero or not self._best:
            return
        measured: dict[str, float] = self._best["measured"]
        self.load_state_dict(self._best["state"])
        if not self.finishing:
            self.report(measured)
        if self.whole or self.finishing:
            print(f"wrote {self._written}: {self.reached(measured)} after epoch {measured['epoch']}")

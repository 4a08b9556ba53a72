"""What the stages that learn from labelled images have in common."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
import torchmetrics
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from ohlora.datamodules.base import ImageBatch, ImageDataModule
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.formats import network_files
from ohlora.modules.base import Stage
from ohlora.modules.optimizers import apply_settings, settings_of
from ohlora.tracking import run_loggers
from ohlora.utils import counted


class Gathered(nn.Module):
    """Collects rows of predictions by their place in the data, over batches and ranks.

    Args:
        width: Values K per row.
    """

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.width = width
        # NaN is kept, so that places and values stay together.
        self.places, self.values = (torchmetrics.CatMetric(nan_strategy="disable") for _ in range(2))

    def update(self, places: Tensor, values: Tensor) -> None:
        """Adds rows: places (N,), values (N, K)."""
        device = self.values.device
        self.places.update(places.to(device, torch.double))
        self.values.update(values.detach().to(device, torch.double).flatten())

    def collect(self, count: int) -> Tensor:
        """All rows so far, ``count``×K on the CPU, NaN where there was none; starts anew. Collective.

        Raises:
            NonFiniteError: If a value is not finite.
        """
        table = torch.full((count, self.width), torch.nan)
        values = self.values.compute().view(-1, self.width).float().cpu()
        if not torch.isfinite(values).all():
            raise NonFiniteError(
                "a prediction on validation data is not finite: the network has diverged. Lower the learning rate and "
                "resume from the last checkpoint"
            )
        table[self.places.compute().long().cpu()] = values
        self.places.reset()
        self.values.reset()
        return table


class Supervised(Stage[ImageDataModule]):
    """Trains one or several networks side by side, validates after every pass, and keeps each one's best weights.

    The clock is images seen; a *pass* is as many whole batches as it takes to see the training set. Everything random
    is counted by it, so a resumed run continues bit for bit on the CPU. A network stops when ``patience`` passes went
    by without a lower validation loss, and the run stops when all of them have.

    A stage provides :meth:`losses` (one per network), :meth:`validate_pass` (one validation loss per network, and
    figures) and :meth:`product` (what to save).

    Args:
        networks: The networks to train.
        passes: Upper limit of the length, in passes.
        patience: Passes without improvement after which a network stops.
        optimizer: Optimizer of each network.
        schedule: Learning-rate schedule, stepped once per pass; None keeps the rate constant.
        seed: Seed of initial weights and dropout.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = ImageDataModule
    best_loss: Tensor
    best_pass: Tensor
    kept_loss: Tensor
    stale: Tensor
    validated_at: Tensor
    update_totals: Tensor
    loss_is_sum = False
    """Whether :meth:`losses` are sums over the batch, for the figures."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        passes: float,
        patience: int,
        optimizer: OptimizerCallable,
        schedule: LRSchedulerCallable | None,
        seed: int,
    ) -> None:
        super().__init__()
        if passes < 1 or patience < 1:
            raise ConfigError(f"passes is {passes} and patience {patience}; expected at least 1 of both")
        self.automatic_optimization = False
        self.passes, self.patience, self.seed = passes, patience, seed
        self._optimizer, self._schedule = optimizer, schedule
        self.networks = nn.ModuleList(networks)
        self.best = copy.deepcopy(self.networks).requires_grad_(False)
        count = len(self.networks)
        self.register_buffer("best_loss", torch.full((count,), math.inf))
        self.register_buffer("best_pass", torch.zeros(count))
        self.register_buffer("kept_loss", torch.full((count,), math.inf))
        self.register_buffer("stale", torch.zeros(count, dtype=torch.long))  # validations since the lowest loss
        self.register_buffer("validated_at", torch.zeros((), dtype=torch.long))  # images seen then
        self.register_buffer("update_totals", torch.zeros(2, count), persistent=False)  # losses, updates
        self._seconds = 0.0

    # --- what a stage provides

    def losses(self, batch: ImageBatch, active: Sequence[bool]) -> list[Tensor | None]:
        """The training loss of each network on a batch; None for one that is not active, the same on all ranks."""
        raise NotImplementedError

    def validate_pass(self) -> tuple[list[float], dict[str, float]]:
        """Validation loss of each network over the data of :meth:`validation_step`, and figures to log."""
        raise NotImplementedError

    def improved(self, network: int) -> None:
        """Called when a network's validation loss is its lowest so far, after its weights were kept."""

    def done(self, network: int) -> None:
        """Called when a network has finished; may start it anew (see :meth:`start_anew`)."""

    def start_anew(self, network: int, fresh: nn.Module) -> None:
        """Lets a network begin again with other weights; its best ones stay until they are beaten."""
        self.networks[network].load_state_dict(fresh.state_dict())
        optimizer = self.trainer.optimizers[network]
        optimizer.state.clear()
        if self._schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
            self.trainer.lr_scheduler_configs[network].scheduler = self._schedule(optimizer)
        self.best_loss[network], self.stale[network] = math.inf, 0

    def finished(self, network: int) -> bool:
        """Whether a network is done."""
        return int(self.stale[network]) >= self.patience

    def product(self) -> Mapping[str, nn.Module]:
        """Files to save below the stage's folder: name → network."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """What is noted in the product's files."""
        return {"stage": Path(self.trainer.default_root_dir).name, "images_seen": int(self.images_seen)}

    # --- training

    @property
    def validation_due(self) -> bool:
        """Whether a pass has ended that was not validated yet; a checkpoint waits for that."""
        return int(self.images_seen) // self.images_per_pass > int(self.validated_at) // self.images_per_pass

    def hand_over(self, data: ImageDataModule) -> None:
        """The clock, by which the data is ordered."""
        data.connect(self.clock)

    @property
    def steps_per_pass(self) -> int:
        """Batches in a pass."""
        return math.ceil(len(self.data.train_set) / self.data.batch_size)

    @property
    def images_per_pass(self) -> int:
        """Images in a pass."""
        return self.steps_per_pass * self.data.batch_size

    @property
    def pass_number(self) -> float:
        """Passes done so far."""
        return int(self.images_seen) / self.images_per_pass

    @property
    def kimg(self) -> float:
        """Upper limit of the length, in thousands of images."""
        return self.passes * self.images_per_pass / 1000

    def configure_optimizers(self) -> Any:
        """One optimizer per network; schedules step once per pass."""
        optimizers = [self._optimizer(network.parameters()) for network in self.networks]
        self._configured = [settings_of(optimizer) for optimizer in optimizers]
        if self._schedule is None:
            return optimizers
        return optimizers, [self._schedule(optimizer) for optimizer in optimizers]

    def on_fit_start(self) -> None:
        """Sets validation to once per pass."""
        self.trainer.check_val_every_n_epoch = None
        self.trainer.val_check_interval = self.steps_per_pass

    def on_train_start(self) -> None:
        """Drops figures that are about to be measured again, and ends at once when there is nothing left to do."""
        for logger in run_loggers(self.trainer):
            logger.rewind()
        self._started_at = int(self.images_seen)
        apply_settings(self.trainer.optimizers, self._configured, scheduled=self._schedule is not None)
        self._stop_when_done()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """One update of every network that is not done."""
        started = time.perf_counter()
        first, world = int(self.images_seen), self.trainer.world_size
        active = [not self.finished(k) for k in range(len(self.networks))]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout is counted, too
            torch.manual_seed(counted.integer(self.seed, "dropout", first + self.global_rank))
            losses = self.losses(batch, active)
        optimizers: Any = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        present = [loss for loss in losses if loss is not None]
        for optimizer in optimizers:
            optimizer.zero_grad()
        if present:
            self.manual_backward(torch.stack(present).sum())
        for k, (optimizer, loss) in enumerate(zip(optimizers, losses, strict=True)):
            if loss is None:
                continue
            self._check_finite(k, loss)
            optimizer.step()
            share = loss.detach() / len(batch["image"]) if self.loss_is_sum else loss.detach()
            self.update_totals[:, k] += torch.stack([share, torch.ones_like(share)])
        self.images_seen += len(batch["image"]) * world
        self._seconds += time.perf_counter() - started
        self._advance_schedules(first)
        self._stop_when_done()

    def on_validation_epoch_end(self) -> None:
        """Keeps the best weights, logs the figures, stops what is done."""
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING:
            return
        values, figures = self.validate_pass()
        if not self.validation_due:
            return  # a run that is stopped within a pass validates once more, which must not change what it keeps
        self.validated_at.copy_(self.images_seen)
        for k, value in enumerate(values):
            if self.finished(k):
                continue
            self.stale[k] += 1
            if value < float(self.best_loss[k]):
                self.best_loss[k], self.stale[k] = value, 0
            if value < float(self.kept_loss[k]):
                self.kept_loss[k], self.best_pass[k] = value, self.pass_number
                self.best[k].load_state_dict(self.networks[k].state_dict())
                self.improved(k)
            if self.finished(k):
                self.done(k)
        self._report(figures)
        self._stop_when_done()

    def on_train_end(self) -> None:
        """Saves the product to the run folder and to the stage's."""
        folder = self.trainer.log_dir
        if self.trainer.is_global_zero:
            targets = dict.fromkeys(Path(f) for f in (folder, self.trainer.default_root_dir) if f)
            for name, network in self.product().items():
                for target in targets:
                    network_files.save_network(network, target / name, self.provenance())
                print(f"wrote {Path(self.trainer.default_root_dir) / name}")

    # --- helpers

    def record(
        self,
        figures: Mapping[str, float],
        pictures: Mapping[str, np.ndarray] | None = None,
        tables: Mapping[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        """Notes figures, pictures and tables of this moment in the run folder and on W&B."""
        if figures:
            for logger in self.trainer.loggers:
                logger.log_metrics(dict(figures))
        self.show(pictures, tables)

    def _report(self, figures: Mapping[str, float]) -> None:
        optimizers: Any = self.trainer.optimizers
        totals: Any = self.trainer.strategy.reduce(self.update_totals, reduce_op="mean")
        means = totals[0] / totals[1]
        training = {"loss/train": float(means[torch.isfinite(means)].mean())}
        speed = (int(self.images_seen) - self._started_at) / max(self._seconds, 1e-9)
        self.record(
            {
                "pass": self.pass_number,
                **training,
                **figures,
                "learning_rate": optimizers[0].param_groups[0]["lr"],
                "images_per_second": speed,
            }
        )
        self.update_totals.zero_()
        self._seconds, self._started_at = 0.0, int(self.images_seen)

    def _stop_when_done(self) -> None:
        done = all(self.finished(k) for k in range(len(self.networks)))
        if done or self.pass_number >= self.passes - 1e-9:
            self.trainer.should_stop = True

    def _advance_schedules(self, before: int) -> None:
        if self._schedule is None:
            return
        schedulers: Any = self.lr_schedulers()
        for _ in range(int(self.images_seen) // self.images_per_pass - before // self.images_per_pass):
            for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
                scheduler.step()

    def _check_finite(self, network: int, loss: Tensor) -> None:
        gradients = [p.grad for p in self.networks[network].parameters() if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
        if torch.isfinite(loss) and torch.isfinite(norms.sum()):
            return
        what = "the gradient" if torch.isfinite(loss) else "the loss"
        raise NonFiniteError(
            f"{what} of network {network} is not finite after {int(self.images_seen)} images: nothing was updated with "
            "it and the last checkpoint is untouched. Lower the learning rate, or look at the images of this step"
        )

"""Supervised training of one network by epochs, and what it shares with the filter ensembles."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
import torchmetrics
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from ohlora.callbacks.checkpoint import read_checkpoint
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.epochs import EpochImages
from ohlora.errors import ConfigError, MissingArtifactError, NonFiniteError
from ohlora.formats import network_files
from ohlora.modules.base import Stage
from ohlora.modules.optimizers import apply_settings, settings_of
from ohlora.tracking import checkpoint_folder, run_loggers
from ohlora.utils import counted
from ohlora.utils.files import replacing

MONITOR = "loss/validation"
"""The metric by which training stops and the best weights are chosen."""
DIVERGED = "the network has diverged. Lower the learning rate and resume from the last checkpoint"

Data = TypeVar("Data", bound=EpochImages)


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
            raise NonFiniteError(f"a prediction on validation data is not finite: {DIVERGED}")
        table[self.places.compute().long().cpu()] = values
        self.places.reset()
        self.values.reset()
        return table


@contextmanager
def counted_dropout(stage: L.LightningModule, seed: int, first: int) -> Iterator[None]:
    """Makes dropout a function of the seed and the number of the batch's first image."""
    with torch.random.fork_rng(devices=[stage.device] if stage.device.type == "cuda" else []):
        torch.manual_seed(counted.integer(seed, "dropout", first + stage.global_rank))
        yield


def check_finite(network: nn.Module, loss: Tensor, name: str, images: int) -> None:
    """Insists on a finite loss and gradient before an update is made with them.

    Args:
        network: The network, whose parameters have their gradients.
        loss: The loss.
        name: What the network is called in the message.
        images: Images seen, this step's included.

    Raises:
        NonFiniteError: If one of them is not.
    """
    term = "loss"
    try:
        if torch.isfinite(loss):
            term = "gradient"
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            nn.utils.get_total_norm(gradients, error_if_nonfinite=True)
            return
    except RuntimeError as error:
        if "non-finite" not in str(error):
            raise
    raise NonFiniteError(
        f"the {term} of {name} is not finite in the step that ends at {images} images: nothing was updated with it and "
        "the last checkpoint is untouched. Lower the learning rate, or look at the images of this step"
    )


def save_product(stage: Stage[Any], file: str, network: nn.Module, provenance: Mapping[str, Any]) -> None:
    """Saves a network into the run folder and into the stage's; for rank zero.

    Args:
        stage: The stage that made it.
        file: Name of the file.
        network: The network.
        provenance: What is noted in the file besides the stage's name.
    """
    folder = Path(stage.trainer.default_root_dir)
    # The run's folder by the loggers: trainer.log_dir is collective, and only rank zero is here.
    for target in dict.fromkeys([*(Path(logger.run_dir or folder) for logger in run_loggers(stage.trainer)), folder]):
        network_files.save_network(network, target / file, {"stage": folder.name, **provenance})
    print(f"wrote {folder / file}")


class BestWeights(ModelCheckpoint):
    """Keeps the weights with the lowest validation loss as ``best.ckpt`` among the run's checkpoints.

    It belongs to the resumable checkpoints beside it. A run that goes on from a checkpoint of another folder takes the
    ``best.ckpt`` of that folder.
    """

    def __init__(self) -> None:
        super().__init__(
            filename="best",
            monitor=MONITOR,
            save_weights_only=True,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    @property
    def path(self) -> Path:
        """The file."""
        return Path(str(self.dirpath)) / "best.ckpt"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds the run's folder."""
        self.dirpath = str(checkpoint_folder(str(trainer.log_dir)))  # collective
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")  # on resume it never is
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the lowest loss so far; its file may have been moved along with the run's folder."""
        path = str(self.path)
        moved: dict[str, Any] = {"dirpath": self.dirpath}
        if state_dict["best_model_path"]:
            scores = {path: state_dict["best_model_score"]}
            moved |= {"best_model_path": path, "kth_best_model_path": path, "best_k_models": scores}
        super().load_state_dict(state_dict | moved)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fetches the file from beside the checkpoint that the run goes on from, where that is another folder.

        Raises:
            MissingArtifactError: If the checkpoint knows of best weights, and they are not there.
        """
        if trainer.ckpt_path is None or not trainer.is_global_zero or not self.best_model_path:
            return
        beside = Path(trainer.ckpt_path).with_name(self.path.name)
        if not beside.is_file():
            raise MissingArtifactError(
                f"{beside} does not exist: it holds the best weights before the checkpoint beside it. Put it there, or "
                "start the stage without --ckpt_path"
            )
        if beside.resolve() != self.path.resolve():
            with replacing(self.path) as part:
                shutil.copyfile(beside, part)


class Supervised(Stage[Data]):
    """Trains one network by epochs, validates after each, and saves the weights with the lowest validation loss.

    ``trainer.max_epochs`` limits the length, and Lightning's early stopping ends it when ``patience`` epochs went by
    without a lower validation loss. Everything random is counted by the clock, so that a resumed run continues bit for
    bit on the CPU.

    A stage provides :meth:`loss`, ``validation_step``, :meth:`validation_metrics` and, if it likes, :meth:`report`.

    Args:
        network: The network to train.
        product: Name of the file to save it in.
        optimizer: Optimizer.
        schedule: Learning-rate schedule, stepped once per epoch; None keeps the rate constant.
        patience: Epochs without a lower validation loss after which training stops.
        seed: Seed of dropout.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = EpochImages

    def __init__(
        self,
        network: nn.Module,
        product: str,
        optimizer: OptimizerCallable,
        schedule: LRSchedulerCallable | None,
        patience: int,
        seed: int,
    ) -> None:
        super().__init__()
        if patience < 1:
            raise ConfigError(f"patience is {patience}; expected at least 1")
        self.network, self.product = network, product
        self.patience, self.seed = patience, seed
        self._optimizer, self._schedule = optimizer, schedule
        self._train_loss = torchmetrics.MeanMetric(nan_strategy="disable")
        self._measured: dict[str, float] = {}

    # --- what a stage provides

    def loss(self, batch: ImageBatch) -> Tensor:
        """The training loss on a batch: a scalar, the mean over its images."""
        raise NotImplementedError

    def validation_metrics(self) -> dict[str, float]:
        """Metrics over the validation set, with :data:`MONITOR` among them. Collective."""
        raise NotImplementedError

    def report(self, measured: Mapping[str, float]) -> None:
        """Shows what the best weights do, on rank zero, at the end.

        Args:
            measured: The metrics of their epoch; the weights themselves have been loaded.
        """

    # --- training

    def hand_over(self, data: Data) -> None:
        """Hands over the clock."""
        data.connect(self.clock)

    def configure_callbacks(self) -> list[L.Callback]:
        """Early stopping, and the best weights."""
        self._stopping = EarlyStopping(MONITOR, patience=self.patience, check_on_train_epoch_end=False)
        self._best = BestWeights()
        return [self._stopping, self._best]

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule by epochs."""
        optimizer = self._optimizer(self.network.parameters())
        self._configured = settings_of(optimizer)
        return optimizer if self._schedule is None else ([optimizer], [self._schedule(optimizer)])

    def on_fit_start(self) -> None:
        """Lets Lightning know that epochs may be short: everything is logged once per epoch."""
        self.trainer.log_every_n_steps = 1  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Applies the settings of this run to what a checkpoint brought, and ends a run that had stopped."""
        for logger in run_loggers(self.trainer):
            logger.rewind()
        apply_settings(self.trainer.optimizers, [self._configured], scheduled=self._schedule is not None)
        self._stopping.patience = self.patience
        if self._stopping.wait_count >= self.patience:
            self.trainer.should_stop = True

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The loss on a batch."""
        with counted_dropout(self, self.seed, self.clock()):
            loss = self.loss(batch)
        self._loss = loss.detach()
        self._train_loss.update(self._loss)
        self.images_seen += len(batch["image"]) * self.trainer.world_size
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Insists on a finite loss and gradient."""
        check_finite(self.network, self._loss, self.product, self.clock())

    def on_validation_epoch_end(self) -> None:
        """Logs the epoch.

        Raises:
            NonFiniteError: If the validation loss is not finite.
        """
        metrics = self.validation_metrics()
        if not math.isfinite(metrics[MONITOR]):
            raise NonFiniteError(f"the validation loss is not finite: {DIVERGED}")
        if self._train_loss.update_called:
            metrics |= {"loss/train": float(self._train_loss.compute())}
            metrics |= {"learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"]}
            self._train_loss.reset()
        self._measured = {"epoch": self.current_epoch + 1, **metrics}
        self.log_dict(self._measured, sync_dist=True)

    # --- the product

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what was measured with the weights."""
        checkpoint["measured"] = self._measured

    def on_fit_end(self) -> None:
        """Saves the best weights as the product, with what was measured with them, and reports on them."""
        if not self.trainer.is_global_zero:
            return
        if not self._best.path.is_file():
            raise ConfigError("no epoch was completed; expected trainer.max_epochs of at least 1")
        best = read_checkpoint(self._best.path)
        self.load_state_dict(best["state_dict"])
        measured: dict[str, float] = best["measured"]
        rounded = {name: round(value, 4) for name, value in measured.items()}
        save_product(self, self.product, self.network, {"images_seen": self.clock(), **rounded})
        self.report(measured)

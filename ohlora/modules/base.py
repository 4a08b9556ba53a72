"""What every stage has in common, and what keeps training safe: settings across a resume, finite updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from ohlora.datamodules.base import ImageDataModule
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.tracking import RunLogger, run_loggers

Data = TypeVar("Data", bound=L.LightningDataModule)


class Stage(L.LightningModule, Generic[Data]):
    """Base of the stages: the data they work on, the images-seen clock, and writing to the loggers.

    A stage is connected to its data once, before training or prediction starts; the command line does that. From
    Python::

        stage.connect(data, trainer.loggers)
        trainer.fit(stage, datamodule=data)

    Settings go from the stage to the data in :meth:`hand_over` only; no datamodule looks at the stage. Scalars go
    through ``self.log`` or, where Lightning does not allow that (prediction, start and end of training), through
    ``log_metrics`` of the loggers; pictures and tables through :meth:`show`.

    Attributes:
        data_type: The kind of datamodule that the stage works on.
        images_seen: The clock: images seen in training so far, by all processes together; a scalar, int64.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = L.LightningDataModule
    images_seen: Tensor
    _data: Data | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.long))
        self._configured: list[list[dict[str, Any]]] = []

    def clock(self) -> int:
        """Images seen so far."""
        return int(self.images_seen)

    def connect(self, data: L.LightningDataModule, loggers: Iterable[Logger] = ()) -> None:
        """Takes the trainer's data and loggers, and hands over what these need to know: loggers get the clock.

        Raises:
            ConfigError: If the data is of another kind than the stage works on.
        """
        if not isinstance(data, self.data_type):
            raise ConfigError(
                f"the data is {type(data).__name__}; {type(self).__name__} works on {self.data_type.__name__}. Set "
                "data.class_path"
            )
        self._data = data  # type: ignore[assignment]  # data_type says which kind
        self.hand_over(self.data)
        for logger in loggers:
            if isinstance(logger, RunLogger):
                logger.connect(self.clock)

    def hand_over(self, data: Data) -> None:
        """Hands the data what it takes from the stage, by ``data.connect(...)``: for images, the clock."""
        if isinstance(data, ImageDataModule):
            data.connect(self.clock)

    @property
    def data(self) -> Data:
        """The datamodule of the run; raises a ConfigError if the stage has not been connected."""
        if self._data is None:
            raise ConfigError(f"{type(self).__name__} has no data; call connect(data) before the trainer starts")
        return self._data

    def show(
        self, pictures: Mapping[str, np.ndarray] | None = None, tables: Mapping[str, list[dict[str, Any]]] | None = None
    ) -> None:
        """Writes pictures (H×W×3 uint8) and tables of this moment to the run folder and W&B."""
        for logger in run_loggers(self.trainer):
            logger.record(pictures, tables)

    def scheduled(self, optimizers: list[Optimizer], schedule: LRSchedulerCallable | None) -> Any:
        """What ``configure_optimizers`` returns: optimizers, whose settings are noted, and a schedule for each."""
        self._configured = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in optimizers
        ]
        return (optimizers, [schedule(optimizer) for optimizer in optimizers]) if schedule else optimizers

    def on_train_start(self) -> None:
        """Drops logged rows that a resumed run measures again, and lets configured settings win over a checkpoint's.

        Only the learning rate goes on where a schedule has it.
        """
        for logger in run_loggers(self.trainer):
            logger.rewind()
        kept = ("lr", "initial_lr") if self.trainer.lr_scheduler_configs else ()
        for optimizer, groups in zip(self.trainer.optimizers, self._configured, strict=True):
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.update({key: value for key, value in settings.items() if key not in kept})


def check_finite(terms: Mapping[str, Tensor], parameters: Iterable[Tensor], network: str, when: str) -> None:
    """Insists on finite loss terms and gradients before an update is made with them.

    Raises:
        NonFiniteError: Naming the terms that are not finite, or the network that the parameters belong to, and ``when``
            that was, such as ``in step 7``.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    try:
        nn.utils.get_total_norm([*terms.values(), *gradients], error_if_nonfinite=True)
    except RuntimeError as error:
        if "non-finite" not in str(error):
            raise
        bad = [name for name, value in terms.items() if not torch.isfinite(value)] or [f"the gradient of {network}"]
        raise NonFiniteError(
            f"{', '.join(bad)} is not finite {when}: nothing was updated with it and the last checkpoint is untouched. "
            "Lower the learning rate, or look at the images of this step"
        ) from error

"""What every stage has in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from ohlora.errors import ConfigError
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

    def clock(self) -> int:
        """Images seen so far."""
        return int(self.images_seen)

    def connect(self, data: L.LightningDataModule, loggers: Iterable[Logger] = ()) -> None:
        """Takes the data to work on, and hands over what data and loggers need to know.

        Args:
            data: The datamodule that is given to the trainer, too.
            loggers: The trainer's loggers; those that write to the run folder get the clock as their axis.

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
        """Hands the data the settings that it takes from the stage, by ``data.connect(...)``; by itself, none."""

    @property
    def data(self) -> Data:
        """The datamodule of the run.

        Raises:
            ConfigError: If the stage has not been connected.
        """
        if self._data is None:
            raise ConfigError(f"{type(self).__name__} has no data; call connect(data) before the trainer starts")
        return self._data

    def show(
        self,
        pictures: Mapping[str, np.ndarray] | None = None,
        tables: Mapping[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        """Writes pictures (H×W×3 uint8) and tables of this moment to the run folder and W&B."""
        for logger in run_loggers(self.trainer):
            logger.record(pictures, tables)

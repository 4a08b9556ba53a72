"""What every stage has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ohlora.errors import ConfigError
from ohlora.tracking import run_loggers


class Stage(L.LightningModule):
    """Base of the stages: the data they work on, the images-seen clock, and writing to the loggers.

    Attributes:
        data_type: The datamodule that the stage works on.
        images_seen: The clock: images seen in training so far.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = L.LightningDataModule
    images_seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.long))

    @property
    def data(self) -> Any:
        """The datamodule of the run.

        Raises:
            ConfigError: If it is of another kind than the stage works on.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, self.data_type):
            raise ConfigError(
                f"the data is {type(data).__name__}; {type(self).__name__} works on {self.data_type.__name__}"
            )
        return data

    def show(
        self,
        pictures: Mapping[str, np.ndarray] | None = None,
        tables: Mapping[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        """Writes pictures (H×W×3 uint8) and tables of this moment to the run folder and W&B."""
        for logger in run_loggers(self.trainer):
            logger.record(int(self.images_seen) / 1000, {}, pictures, tables)

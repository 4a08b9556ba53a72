"""Regression of continuous scores: property, hairstyle, merged and judge CNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics.functional as measures
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.scores import ScoredDataset, ScoredImages
from ohlora.errors import ConfigError
from ohlora.modules.supervised import Gathered, Supervised
from ohlora.networks.attribute_cnn import AttributeCNN, Plan, attribute_cnn
from ohlora.utils import counted, figures


class PropertyRegression(Supervised):
    """Trains an attribute CNN on scores; mean squared error over all outputs.

    Args:
        optimizer: Optimizer.
        network: ``property`` (the seven labels), ``hairstyle``, or ``merged`` (both).
        schedule: Learning-rate schedule, stepped once per pass.
        plan: ``original`` (256×256) or ``small`` (64×64).
        resolution: Height and width of the images.
        stop_without: Outputs left out of the validation loss by which training stops and the best pass is chosen.
        passes: Upper limit of the length, in passes over the data.
        patience: Passes without improvement after which training stops.
        seed: Seed of weights and dropout.
        save_as: Name of the product, a safetensors file; by default that of the network.
    """

    predicted: Tensor
    shared = ("resolution",)
    """Settings that the data takes from the stage."""

    def __init__(
        self,
        optimizer: OptimizerCallable,
        network: Literal["property", "hairstyle", "merged"] = "property",
        schedule: LRSchedulerCallable | None = None,
        plan: Plan = "original",
        resolution: int = 256,
        stop_without: Sequence[str] = (),
        passes: float = 200,
        patience: int = 20,
        seed: int = 0,
        save_as: str | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(counted.integer(seed, "network", 0))
            cnn = attribute_cnn(network, plan, resolution)
        unknown = [name for name in stop_without if name not in cnn.outputs]
        if unknown or len(stop_without) == len(cnn.outputs):
            raise ConfigError(f"stop_without is {list(stop_without)}; expected some, not all, of {list(cnn.outputs)}")
        super().__init__([cnn], passes, patience, optimizer, schedule, seed)
        self.save_hyperparameters()
        self.name, self.outputs, self.resolution = save_as or network, cnn.outputs, resolution
        self.deciding = [k for k, name in enumerate(cnn.outputs) if name not in stop_without]
        self.predictions = Gathered(len(cnn.outputs))

    @property
    def _validation(self) -> ScoredDataset:
        data = self.data
        if not isinstance(data, ScoredImages):
            raise ConfigError(f"the data is {type(data).__name__}; expected ScoredImages")
        return data.val_set

    def setup(self, stage: str) -> None:
        """Checks that data and network fit, and makes room for the best pass's predictions."""
        data = self._validation
        attributes = self.trainer.datamodule.attributes  # type: ignore[attr-defined]
        if tuple(attributes) != self.outputs:
            raise ConfigError(
                f"the data has {', '.join(attributes)}, the network predicts {', '.join(self.outputs)}; expected the "
                "same, in this order"
            )
        self.register_buffer("predicted", torch.full((len(data), len(self.outputs)), torch.nan))

    def losses(self, batch: ImageBatch, active: Sequence[bool]) -> list[Tensor | None]:
        """Mean squared error over batch and outputs."""
        return [F.mse_loss(self.networks[0](batch["image"]), batch["label"])] if active[0] else [None]

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Predictions of a batch, in evaluation mode."""
        self.predictions.update(torch.tensor(batch["index"]), self.networks[0](batch["image"]))

    def validate_pass(self) -> tuple[list[float], dict[str, float]]:
        """Mean squared error of the deciding outputs, and all figures per output."""
        self._latest = self.predictions.collect(len(self._validation))
        table = self._measured(self._latest)
        shown = {
            f"{figure}/{row['attribute']}": row[figure] for row in table for figure in row if figure != "attribute"
        }
        loss = float(np.mean([table[k]["mse"] for k in self.deciding]))
        return [loss], {"loss/validation": loss, **shown}

    def improved(self, network: int) -> None:
        """Keeps the predictions of the best pass."""
        self.predicted.copy_(self._latest)

    def on_train_end(self) -> None:
        """Saves the network and reports the best pass: a table, and a scatter plot per output."""
        table, best = self._measured(self.predicted.cpu()), self.predicted.cpu().numpy()
        notes = [f"r = {row['pearson']:.3f}" for row in table]
        picture = figures.scatter(self.outputs, self._expected().numpy(), best, notes)
        self.record({"best_pass": float(self.best_pass[0])}, {"scatter": picture}, {"correlations": table})
        super().on_train_end()

    def product(self) -> Mapping[str, nn.Module]:
        """The weights of the best pass."""
        best = self.best[0]
        assert isinstance(best, AttributeCNN)
        return {f"{self.name}.safetensors": best}

    def _expected(self) -> Tensor:
        labels = self._validation.labels
        assert labels is not None
        return torch.from_numpy(labels)

    def _measured(self, predicted: Tensor) -> list[dict[str, Any]]:
        """One row per output: mean squared and absolute error, Pearson and Spearman correlation."""
        expected = self._expected()
        return [
            {
                "attribute": name,
                "mse": float(F.mse_loss(predicted[:, k], expected[:, k])),
                "mae": float(F.l1_loss(predicted[:, k], expected[:, k])),
                "pearson": float(measures.pearson_corrcoef(predicted[:, k], expected[:, k])),
                "spearman": float(measures.spearman_corrcoef(predicted[:, k], expected[:, k])),
            }
            for k, name in enumerate(self.outputs)
        ]

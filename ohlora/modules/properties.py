"""Regression of continuous scores: property, hairstyle, merged and judge CNN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchmetrics.functional as measures
from torch import Tensor

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import ConfigError, DataError, NonFiniteError
from ohlora.evaluation.scales import DATA, DataScale, PhysicalMap
from ohlora.modules.supervised import MONITOR, Rows, Supervised, collected
from ohlora.networks.attribute_cnn import Plan, attribute_cnn
from ohlora.utils import checks, counted, figures


class PropertyRegression(Supervised[ScoredImages]):
    """Trains an attribute CNN on scores; mean squared error over all outputs.

    Args:
        network: ``property`` (the world's labels), ``merged`` (labels, expressions and grouping attributes), the name
            of an attribute, or a list of them.
        plan: ``original`` (256×256) or ``small`` (64×64).
        resolution: Height and width of the images.
        stop_without: Outputs left out of the validation loss by which training stops and the best epoch is chosen.
        save_as: Name of the product, a safetensors file; by default that of the network, ``property`` for a list.
        seed: Seed of weights and dropout.
        **settings: See :class:`ohlora.modules.supervised.Epochs`.
    """

    data_type = ScoredImages
    fixed = ("network", "plan", "resolution")
    predicted: Tensor
    shared = ("resolution",)
    """Settings that the data takes from the stage."""

    def __init__(
        self,
        network: list[str] | str = "property",
        plan: Plan = "original",
        resolution: int = 256,
        stop_without: Sequence[str] = (),
        save_as: str | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        checks.seeds(seed=seed)
        checks.at_least(1, resolution=resolution)
        if not network:
            raise ConfigError("network is an empty list; expected at least one attribute")
        with counted.seeded(counted.integer(seed, "network", 0)):
            cnn = attribute_cnn(network, plan, resolution)
        unknown = [name for name in stop_without if name not in cnn.outputs]
        if unknown or len(stop_without) == len(cnn.outputs):
            raise ConfigError(f"stop_without is {list(stop_without)}; expected some, not all, of {list(cnn.outputs)}")
        product = f"{save_as or (network if isinstance(network, str) else 'property')}.safetensors"
        super().__init__(cnn, product, seed=seed, **settings)
        self.save_hyperparameters()
        self.outputs, self.resolution = cnn.outputs, resolution
        self._deciding = [k for k, name in enumerate(cnn.outputs) if name not in stop_without]
        self._predictions: Rows = []

    def hand_over(self, data: ScoredImages) -> None:
        """Hands over the clock and what the network predicts."""
        data.connect(self.clock, self.outputs)

    def setup(self, stage: str) -> None:
        """Checks that data and network predict the same, and makes room for the predictions.

        Raises:
            ConfigError: If they do not.
            DataError: If physical values do not rise with their attribute.
        """
        data = self.data
        if tuple(data.attributes) != self.outputs:
            raise ConfigError(
                f"the data has {', '.join(data.attributes)}, the network predicts {', '.join(self.outputs)}; expected "
                "the same, in this order"
            )
        scores = data.train_set.arrays["label"]
        self._scales = {name: DataScale.of(scores[:, k], self._physical(name)) for k, name in enumerate(self.outputs)}
        # In the state, so that the predictions of the best weights are kept with them.
        self.register_buffer("predicted", torch.full((len(data.val_set), len(self.outputs)), torch.nan))

    def loss(self, batch: ImageBatch) -> Tensor:
        """Mean squared error over batch and outputs."""
        return F.mse_loss(self.network(batch["image"]), batch["label"])

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Predictions of a batch, in evaluation mode."""
        self._predictions.append((torch.tensor(batch["index"]), self.network(batch["image"]).float().cpu()))

    def validation_metrics(self) -> dict[str, float]:
        """Mean squared error of the deciding outputs, and all metrics per output."""
        self.predicted.copy_(collected(self._predictions, len(self.predicted)))
        metrics = self._metrics()
        loss = float(metrics["mse"][self._deciding].mean())
        named = {
            f"{metric}/{name}": float(v[k]) for metric, v in metrics.items() for k, name in enumerate(self.outputs)
        }
        return {MONITOR: loss, **named}

    def told(self) -> dict[str, Any]:
        """By what levels of ordinals became z-scores; and what z-scores are in the training data."""
        levels = {f"scale/{name}": [round(value, 6) for value in scale] for name, scale in self.data.scale.items()}
        return levels | {DATA: {name: scale.described() for name, scale in self._scales.items()}}

    def _physical(self, name: str) -> PhysicalMap | None:
        """The map from an attribute's z-scores to its physical values, where the data have some."""
        if name not in self.data.physical:
            return None
        try:
            return PhysicalMap.fit(*self.data.physical[name])
        except ValueError as error:
            raise DataError(
                f"{name}: {error}, as its physical value must; look at the tables, or leave physical out of the "
                "attribute's declaration"
            ) from error

    def check_result(self, measured: Mapping[str, float]) -> None:
        """Refuses a network that predicts the same for every image, and has no correlations.

        Raises:
            NonFiniteError: Naming the outputs.
        """
        expected = torch.from_numpy(self.data.val_set.arrays["label"])[self._seen]
        varying = (expected != expected[:1]).any(dim=0).tolist()
        dead = [
            name
            for name, varies in zip(self.outputs, varying, strict=True)
            if varies and not math.isfinite(measured[f"pearson/{name}"])
        ]
        if dead:
            raise NonFiniteError(
                f"the correlation of {', '.join(dead)} is not finite: the network predicts the same for every "
                "validation image, and was not saved. Lower the learning rate, or look at the scores"
            )

    def report(self, measured: Mapping[str, float]) -> None:
        """A table of the metrics, and a scatter plot per output."""
        metrics = self._metrics()
        table: list[dict[str, Any]] = [
            {"attribute": name, **{metric: float(values[k]) for metric, values in metrics.items()}}
            for k, name in enumerate(self.outputs)
        ]
        notes = [f"r = {row['pearson']:.3f}" for row in table]
        expected, predicted = self.data.val_set.arrays["label"], self.predicted.cpu()
        seen = self._seen.numpy()
        picture = figures.scatter(self.outputs, expected[seen], predicted[self._seen].numpy(), notes)
        self.show({"scatter": picture}, {"correlations": table})

    @property
    def _seen(self) -> Tensor:
        """Which validation images have been predicted: all, unless trainer.limit_val_batches says otherwise."""
        return ~self.predicted.cpu().isnan().any(dim=1)

    def _metrics(self) -> dict[str, Tensor]:
        """Mean squared and absolute error, Pearson and Spearman correlation, each of all K outputs."""
        predicted, expected = self.predicted.cpu(), torch.from_numpy(self.data.val_set.arrays["label"])
        predicted, expected = predicted[self._seen], expected[self._seen]
        count = len(self.outputs)
        if len(expected) < 2:  # one image has errors, but no correlation
            squared, absolute = (predicted - expected).square().mean(dim=0), (predicted - expected).abs().mean(dim=0)
            nothing = torch.full((count,), torch.nan)
            return {"mse": squared, "mae": absolute, "pearson": nothing, "spearman": nothing}
        metrics = {
            "mse": measures.mean_squared_error(predicted, expected, num_outputs=count),
            "mae": measures.mean_absolute_error(predicted, expected, num_outputs=count),
            "pearson": measures.pearson_corrcoef(predicted, expected),
            "spearman": measures.spearman_corrcoef(predicted, expected),
        }
        return {name: value.reshape(count) for name, value in metrics.items()}

"""Regression of continuous scores: property, hairstyle, merged and judge CNN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics.functional as measures
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from ohlora import handover
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import ConfigError, DataError, NonFiniteError
from ohlora.evaluation.scales import DATA, DataScale, PhysicalMap
from ohlora.modules.supervised import MONITOR, Rows, Supervised, collected
from ohlora.networks.attribute_cnn import Plan, attribute_cnn
from ohlora.utils import checks, counted, figures

METRICS = ("mse", "mae", "pearson", "spearman", "cross_entropy", "auroc")
OF_BINARY = ("cross_entropy", "auroc")
"""Those of :data:`METRICS` that only attributes of 0 and 1 have."""
LEAST = 8
"""Fewer held-out values of an attribute than this say nothing of whether it can be learned."""
CANNOT = "this attribute cannot be learned from these labels"


class PropertyRegression(Supervised[ScoredImages]):
    """Trains an attribute CNN on scores: squared error of scores and ordinals, cross-entropy of attributes of 0 and 1.

    A missing value adds nothing to the loss; what is there of an attribute counts the more, so that each attribute
    counts the same. The report says how well each is predicted on held-out images. An attribute that is not
    (:data:`ohlora.handover.CHECKS`) cannot be learned from these labels; the network is saved with the word ``unfit``.

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
        self._binary = torch.tensor([spec.probability for spec in cnn.specs for _ in spec.outputs])
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
        known = np.isfinite(scores)
        self._scales = {
            name: DataScale.of(scores[known[:, k], k], self._physical(name)) for k, name in enumerate(self.outputs)
        }
        # A mean over what is there would be another one for each process.
        self._balance = torch.from_numpy((1 / known.mean(axis=0)).astype(np.float32))
        # In the state, so that the predictions of the best weights are kept with them.
        self.register_buffer("predicted", torch.full((len(data.val_set), len(self.outputs)), torch.nan))

    def loss(self, batch: ImageBatch) -> Tensor:
        """Mean error over batch and outputs, weighted where the data says so."""
        label = batch["label"]
        known = ~label.isnan()
        errors = self._errors(self.network.logits(batch["image"]), label.nan_to_num(0))  # type: ignore[operator]
        weight = known * self._balance.to(errors)
        if "weight" in batch:
            weight = weight * batch["weight"][:, None]
        loss: Tensor = (errors * weight).mean()
        return loss

    def _errors(self, logits: Tensor, label: Tensor) -> Tensor:
        """Squared errors of N×K predictions, or cross-entropies where they are logits of probabilities."""
        squared = F.mse_loss(logits, label, reduction="none")
        if not self._binary.any():
            return squared
        entropy = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
        return torch.where(self._binary.to(logits.device), entropy, squared)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Predictions of a batch, in evaluation mode."""
        self._predictions.append((torch.tensor(batch["index"]), self.network(batch["image"]).float().cpu()))

    def validation_metrics(self) -> dict[str, float]:
        """Mean error of the deciding outputs, and all metrics per output."""
        self.predicted.copy_(collected(self._predictions, len(self.predicted)))
        metrics = self._metrics()
        errors = torch.where(self._binary, metrics["cross_entropy"], metrics["mse"])
        loss = float(errors[self._deciding].mean())
        named = {
            f"{metric}/{name}": float(v[k])
            for metric, v in metrics.items()
            for k, name in enumerate(self.outputs)
            if metric not in OF_BINARY or bool(self._binary[k])
        }
        return {MONITOR: loss, **named}

    def told(self) -> dict[str, Any]:
        """By what values became z-scores; what z-scores are in the training data; and what cannot be relied on."""
        levels = {f"scale/{name}": [round(value, 6) for value in scale] for name, scale in self.data.scale.items()}
        agreed = {f"agreement/{name}": round(value, 4) for name, value in self.data.agreement.items()}
        scales = {DATA: {name: scale.described() for name, scale in self._scales.items()}}
        return levels | agreed | scales | handover.marked(self.unfit())

    def unfit(self) -> list[str]:
        """Why the best weights are not fit for use, which have been loaded; empty if they are."""
        metrics = self._metrics()
        found = []
        for check, metric, what, binary in (
            ("learned", "pearson", "r on held-out images", False),
            ("learned_binary", "auroc", "AUROC on held-out images", True),
        ):
            measured = {
                name: float(metrics[metric][k])
                for k, name in enumerate(self.outputs)
                if bool(self._binary[k]) == binary and int(self._known[:, k].sum()) >= LEAST
            }
            found += [f"{reason}: {CANNOT}" for reason in handover.failing(check, measured, what)]
        return found

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
        expected, known = self.data.val_set.arrays["label"], self._known
        varying = [len(np.unique(expected[known[:, k], k])) > 1 for k in range(len(self.outputs))]
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
        """A table of the metrics, which is also printed, and a scatter plot per output."""
        metrics = self._metrics()
        unfit = self.unfit()
        table: list[dict[str, Any]] = []
        for k, name in enumerate(self.outputs):
            row: dict[str, Any] = {"attribute": name, "held_out": int(self._known[:, k].sum())}
            row |= {
                metric: float(values[k])
                for metric, values in metrics.items()
                if metric not in OF_BINARY or bool(self._binary[k])
            }
            row["mae_of_mean"] = self._mae_of_mean(k)
            if name in self.data.agreement:
                row["agreement"] = self.data.agreement[name]
            row["verdict"] = CANNOT if any(reason.startswith(f"{name}: ") for reason in unfit) else ""
            table.append(row)
        notes = [f"r = {row['pearson']:.3f}" for row in table]
        expected, predicted = self.data.val_set.arrays["label"], self.predicted.cpu()
        seen = self._seen.numpy()
        picture = figures.scatter(self.outputs, expected[seen], predicted[self._seen].numpy(), notes)
        self.show({"scatter": picture}, {"correlations": table})
        print(_readable(table))
        handover.warn(self.product, unfit, *(["learned"] if unfit else []))

    def _mae_of_mean(self, k: int) -> float:
        """Mean absolute error, on held-out images, of a prediction that is the mean of the training data."""
        learned = self.data.train_set.arrays["label"][:, k]
        held_out = self.data.val_set.arrays["label"][self._known[:, k], k]
        return float(np.abs(held_out - np.nanmean(learned)).mean()) if len(held_out) else math.nan

    @property
    def _known(self) -> np.ndarray:
        """Which values of validation images are known and have been predicted, N×K."""
        known: np.ndarray = np.isfinite(self.data.val_set.arrays["label"]) & self._seen.numpy()[:, None]
        return known

    @property
    def _seen(self) -> Tensor:
        """Which validation images have been predicted: all, unless trainer.limit_val_batches says otherwise."""
        return ~self.predicted.cpu().isnan().any(dim=1)

    def _metrics(self) -> dict[str, Tensor]:
        """Errors and correlations of each of all K outputs on the values that are known; NaN where there are too few.

        Those of :data:`OF_BINARY` mean nothing for other attributes.
        """
        predicted, expected = self.predicted.cpu(), torch.from_numpy(self.data.val_set.arrays["label"])
        rows = [self._metrics_of(predicted[known, k], expected[known, k]) for k, known in enumerate(self._known.T)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _metrics_of(self, predicted: Tensor, expected: Tensor) -> dict[str, Tensor]:
        nothing = torch.tensor(torch.nan)
        if not len(expected):
            return dict.fromkeys(METRICS, nothing)
        found = dict.fromkeys(METRICS, nothing)
        found["mse"] = measures.mean_squared_error(predicted, expected)
        found["mae"] = measures.mean_absolute_error(predicted, expected)
        if len(expected) > 1:  # one image has errors, but no correlation
            found["pearson"] = measures.pearson_corrcoef(predicted, expected)
            found["spearman"] = measures.spearman_corrcoef(predicted, expected)
        if float(expected.min()) >= 0 and float(expected.max()) <= 1 and float(predicted.min()) >= 0:
            found["cross_entropy"] = F.binary_cross_entropy(predicted.clamp(max=1), expected)
            decided = expected != 0.5  # annotators may be divided
            answers = (expected[decided] > 0.5).long()
            if 0 < int(answers.sum()) < len(answers):
                found["auroc"] = binary_auroc(predicted[decided], answers)
        return found


def _readable(table: Sequence[Mapping[str, Any]]) -> str:
    """What was reached on held-out images, as a text."""
    lines = [f"{'on held-out images':24}{'images':>8}{'r':>8}{'MAE':>8}{'AUROC':>8}{'agreement':>11}"]
    for row in table:
        values = "".join(
            f"{row[name]:{width}.3f}" if name in row and math.isfinite(row[name]) else f"{'–':>{width}}"
            for name, width in (("pearson", 8), ("mae", 8), ("auroc", 8), ("agreement", 11))
        )
        lines.append(f"{row['attribute']:24}{row['held_out']:8,}{values}  {row['verdict']}".rstrip())
    return "\n".join(lines)

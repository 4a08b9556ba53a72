"""Training the face parser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.masks import MaskedImages
from ohlora.errors import ConfigError
from ohlora.faces.classes import CLASSES
from ohlora.faces.parsing import coloured
from ohlora.modules.supervised import MONITOR, Supervised
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.losses import dice_loss
from ohlora.utils import counted, images

SHOWN = 12
"""Validation images in the picture of an epoch."""


class FaceParsing(Supervised[MaskedImages]):
    """Trains the U-Net that parses faces; the weights with the lowest validation loss are the product.

    Args:
        widths: Feature maps per level; see :class:`ohlora.networks.face_parser.FaceParserNetwork`.
        dice: Weight of the Dice loss beside the cross-entropy; it lifts classes of few pixels. 0 leaves it out. With
            several processes it runs over the images of each.
        seed: Seed of weights and dropout.
        **settings: See :class:`ohlora.modules.supervised.Epochs`.
    """

    data_type = MaskedImages

    def __init__(
        self, widths: Sequence[int] = (32, 64, 128, 256), dice: float = 1.0, seed: int = 0, **settings: Any
    ) -> None:
        with counted.seeded(counted.integer(seed, "parser", 0)):
            network = FaceParserNetwork(CLASSES, widths)
        super().__init__(network, "parser.safetensors", seed=seed, **settings)
        self.save_hyperparameters()
        self.step, self.dice = network.step, dice
        self._mean_loss = torchmetrics.MeanMetric(nan_strategy="disable")
        self._iou = torchmetrics.JaccardIndex(task="multiclass", num_classes=len(CLASSES), average="none")

    def setup(self, stage: str) -> None:
        """Checks that the images can be halved often enough."""
        if self.data.resolution % self.step:
            found, expected = self.data.resolution, self.step
            raise ConfigError(f"the images have resolution {found}; expected a multiple of {expected}, or fewer widths")

    def loss(self, batch: ImageBatch) -> Tensor:
        """Cross-entropy per pixel, plus the Dice loss."""
        return self._loss_of(self.network(batch["image"]), batch["mask"].long())

    def _loss_of(self, scores: Tensor, target: Tensor) -> Tensor:
        loss = F.cross_entropy(scores, target)
        return loss + self.dice * dice_loss(scores, target) if self.dice else loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Adds a batch to the metrics."""
        if self.global_rank >= len(self.data.val_set):
            return  # a repeated image
        scores, target = self.network(batch["image"]), batch["mask"].long()
        self._mean_loss.update(self._loss_of(scores, target), len(target))
        self._iou.update(scores.argmax(dim=1), target)

    def validation_metrics(self) -> dict[str, float]:
        """Mean loss, and intersection over union (IoU) per class, over all validation pixels together."""
        loss, ious = float(self._mean_loss.compute()), self._iou.compute().tolist()
        self._mean_loss.reset()
        self._iou.reset()
        self.show({"parsing": self._picture()})
        per_class = {f"iou/{name}": value for name, value in zip(CLASSES, ious, strict=True)}
        return {MONITOR: loss, "iou/mean": float(np.mean(ious)), "iou/worst": min(ious), **per_class}

    def report(self, measured: Mapping[str, float]) -> None:
        """A table of the IoU per class."""
        self.show(tables={"iou": [{"class": name, "iou": measured[f"iou/{name}"]} for name in CLASSES]})

    @torch.no_grad()
    def _picture(self) -> np.ndarray:
        """Validation images above their true and their predicted maps."""
        batch = [self.data.val_set[k] for k in range(min(SHOWN, len(self.data.val_set)))]
        shown = np.stack([sample["image"] for sample in batch])
        truth = np.stack([sample["mask"] for sample in batch])
        predicted = self.network(images.to_float(shown).to(self.device)).argmax(dim=1).cpu().numpy()
        return images.enlarge(images.grid(np.concatenate([shown, coloured(truth), coloured(predicted)]), len(batch)))

"""Training the face parser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.masks import MaskedImages
from ohlora.errors import ConfigError
from ohlora.faces.classes import CLASSES
from ohlora.faces.parsing import coloured
from ohlora.modules.supervised import Supervised
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.losses import dice_loss
from ohlora.utils import counted, images

SHOWN = 12
"""Validation images in the picture of a pass."""


class FaceParsing(Supervised):
    """Trains the U-Net that parses faces; the weights with the lowest validation loss are the product.

    Args:
        optimizer: Optimizer of the network.
        schedule: Learning-rate schedule, stepped once per pass; None keeps the rate constant.
        widths: Feature maps per level; see :class:`ohlora.networks.face_parser.FaceParserNetwork`.
        dice: Weight of the Dice loss beside the cross-entropy; it lifts classes of few pixels. 0 leaves it out. With
            several processes it runs over the images of each.
        passes: Upper limit of the length, in passes over the data.
        patience: Passes without improvement after which training stops.
        seed: Seed of the initial weights.
    """

    data_type = MaskedImages

    def __init__(
        self,
        optimizer: OptimizerCallable,
        schedule: LRSchedulerCallable | None = None,
        widths: Sequence[int] = (32, 64, 128, 256),
        dice: float = 1.0,
        passes: float = 20,
        patience: int = 5,
        seed: int = 0,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(counted.integer(seed, "parser", 0))
            network = FaceParserNetwork(CLASSES, widths)
        super().__init__([network], passes, patience, optimizer, schedule, seed)
        self.save_hyperparameters()
        self.dice = dice
        self.mean_loss = torchmetrics.MeanMetric()
        self.iou = torchmetrics.JaccardIndex(task="multiclass", num_classes=len(CLASSES), average="none")
        self._latest: dict[str, float] = {}
        self._kept: dict[str, float] = {}

    @property
    def _masked(self) -> MaskedImages:
        assert isinstance(self.data, MaskedImages)
        return self.data

    def setup(self, stage: str) -> None:
        """Checks that the images can be halved often enough."""
        network, resolution = self.networks[0], self._masked.resolution
        assert isinstance(network, FaceParserNetwork)
        if resolution % network.step:
            raise ConfigError(
                f"the images have resolution {resolution}; expected a multiple of {network.step} for "
                f"{len(network.widths)} widths"
            )

    def losses(self, batch: ImageBatch, active: Sequence[bool]) -> list[Tensor | None]:
        """Cross-entropy per pixel, plus the Dice loss."""
        return [self._loss(self.networks[0](batch["image"]), batch["mask"].long())]

    def _loss(self, scores: Tensor, target: Tensor) -> Tensor:
        loss = F.cross_entropy(scores, target)
        return loss + self.dice * dice_loss(scores, target) if self.dice else loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Adds a batch to the figures."""
        scores, target = self.networks[0](batch["image"]), batch["mask"].long()
        self.mean_loss.update(self._loss(scores, target), len(target))
        self.iou.update(scores.argmax(dim=1), target)

    def validate_pass(self) -> tuple[list[float], dict[str, float]]:
        """Mean loss, and intersection over union (IoU) per class, over all validation pixels together."""
        loss, ious = float(self.mean_loss.compute()), self.iou.compute().tolist()
        self.mean_loss.reset()
        self.iou.reset()
        self._latest = {"iou/mean": float(np.mean(ious)), "iou/worst": min(ious)}
        self.record({}, {"parsing": self._picture()})
        per_class = {f"iou/{name}": value for name, value in zip(CLASSES, ious, strict=True)}
        return [loss], {"loss/validation": loss, **self._latest, **per_class}

    @torch.no_grad()
    def _picture(self) -> np.ndarray:
        """Validation images above their true and their predicted maps."""
        batch = [self._masked.val_set[k] for k in range(min(SHOWN, len(self._masked.val_set)))]
        shown = np.stack([sample["image"] for sample in batch])
        truth = np.stack([sample["mask"] for sample in batch])
        predicted = self.networks[0](images.to_float(shown).to(self.device)).argmax(dim=1).cpu().numpy()
        return images.enlarge(images.grid(np.concatenate([shown, coloured(truth), coloured(predicted)]), len(batch)))

    def improved(self, network: int) -> None:
        """Keeps the figures that go with the weights."""
        self._kept = self._latest

    def product(self) -> Mapping[str, nn.Module]:
        """The network with the lowest validation loss."""
        return {"parser.safetensors": self.best[0]}

    def provenance(self) -> dict[str, Any]:
        """Adds the validation figures of the weights."""
        return {**super().provenance(), **{name: round(value, 4) for name, value in self._kept.items()}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the best weights' figures, which a resumed run may end with."""
        checkpoint["kept_figures"] = self._kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The opposite."""
        self._kept = checkpoint["kept_figures"]

"""Face parsing: training the parser, and scoring what a manifest's images show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from ohlora.attributes import MEASURED
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.images import ImageFileDataset, Images
from ohlora.datamodules.masks import MaskedImages
from ohlora.datamodules.scores import NORMALIZATION, read_normalization
from ohlora.errors import ConfigError, DataError
from ohlora.faces import scoring
from ohlora.faces.classes import CLASSES
from ohlora.faces.parsing import coloured, load_parser
from ohlora.faces.scoring import Normalization
from ohlora.modules.scores import write_scores
from ohlora.modules.supervised import MONITOR, Supervised
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.losses import dice_loss
from ohlora.utils import counted, images
from ohlora.utils.files import replacing
from ohlora.utils.ranks import gathered

SHOWN = 12
"""Validation images in the picture of an epoch."""


class FaceParsing(Supervised[MaskedImages]):
    """Trains the U-Net that parses faces; the weights with the lowest validation loss are the product.

    Args:
        optimizer: Optimizer of the network.
        schedule: Learning-rate schedule, stepped once per epoch; None keeps the rate constant.
        widths: Feature maps per level; see :class:`ohlora.networks.face_parser.FaceParserNetwork`.
        dice: Weight of the Dice loss beside the cross-entropy; it lifts classes of few pixels. 0 leaves it out. With
            several processes it runs over the images of each.
        patience: Epochs without a lower validation loss after which training stops.
        seed: Seed of the initial weights.
    """

    data_type = MaskedImages

    def __init__(
        self,
        optimizer: OptimizerCallable,
        schedule: LRSchedulerCallable | None = None,
        widths: Sequence[int] = (32, 64, 128, 256),
        dice: float = 1.0,
        patience: int = 5,
        seed: int = 0,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(counted.integer(seed, "parser", 0))
            network = FaceParserNetwork(CLASSES, widths)
        super().__init__(network, "parser.safetensors", optimizer, schedule, patience, seed)
        self.save_hyperparameters()
        self.step, self.dice = network.step, dice
        self._mean_loss = torchmetrics.MeanMetric(nan_strategy="disable")
        self._iou = torchmetrics.JaccardIndex(task="multiclass", num_classes=len(CLASSES), average="none")

    def setup(self, stage: str) -> None:
        """Checks that the images can be halved often enough."""
        if self.data.resolution % self.step:
            raise ConfigError(
                f"the images have resolution {self.data.resolution}; expected a multiple of {self.step}, or fewer widths"
            )

    def loss(self, batch: ImageBatch) -> Tensor:
        """Cross-entropy per pixel, plus the Dice loss."""
        return self._loss_of(self.network(batch["image"]), batch["mask"].long())

    def _loss_of(self, scores: Tensor, target: Tensor) -> Tensor:
        loss = F.cross_entropy(scores, target)
        return loss + self.dice * dice_loss(scores, target) if self.dice else loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Adds a batch to the metrics."""
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


class ScoreProperties(L.LightningModule):
    """Parses the images of a manifest or folder and scores what they show, in one pass.

    Writes into ``output``: ``raw_scores.csv`` and ``scores.csv`` (z-scores), both with the columns ``index``, ``path``
    (relative to the table) and ``<attribute>_score`` for every attribute of :data:`ohlora.attributes.MEASURED`; and
    ``normalization.json``, the scale that turned the one into the other.

    Args:
        parser: The parser: a file of our U-Net, or the folder of a Hugging Face semantic-segmentation checkpoint.
        output: Folder to fill.
        classes: Label, or id, of a Hugging Face checkpoint → our class; by default those of CelebAMask-HQ.
        variants: Which algorithm to use, by attribute; by default ``ohlora``. See
            :data:`ohlora.faces.scoring.SCORERS`.
        normalization: Stored scale to use; None takes mean and deviation of the images at hand.
        keep_maps: Whether to keep the maps as ``masks/<index>.png``, whose grey levels are class ids.
    """

    def __init__(
        self,
        parser: str,
        output: str,
        classes: dict[str, str] | None = None,
        variants: dict[str, str] | None = None,
        normalization: str | None = None,
        keep_maps: bool = False,
    ) -> None:
        super().__init__()
        self.parser = load_parser(parser, classes)
        self.output, self.variants, self.keep_maps = Path(output), variants, keep_maps
        scoring.check_variants(variants or {})
        self.stored = Path(normalization) if normalization is not None else None
        self._scale = read_normalization(self.stored, MEASURED) if self.stored is not None else None
        self._raw: list[tuple[int, dict[str, float]]] = []

    @property
    def _images(self) -> ImageFileDataset:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, Images):
            raise ConfigError(f"the data is {type(data).__name__}; expected Images")
        return data.train_set

    def setup(self, stage: str) -> None:
        """Checks that there is a population where one is needed."""
        if self._scale is None and len(self._images) < 2:
            raise DataError(
                f"{len(self._images)} images have no scale of their own; expected at least 2, or a stored one in "
                "model.init_args.normalization"
            )

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Parses and scores a batch."""
        maps, pixels = self.parser(batch["image"]).cpu().numpy(), images.to_uint8(batch["image"])
        for place, image, parsing in zip(batch["index"], pixels, maps, strict=True):
            self._raw.append((place, scoring.score(image, parsing, self.variants)))
            if self.keep_maps:
                images.save_png(parsing, self.output / "masks" / f"{self._images.numbers[place]:06d}.png")

    def on_predict_end(self) -> None:
        """Rank zero writes the tables of all ranks; the z-scores last, which say that all is there."""
        raw = dict(sorted(gathered(self._raw)))
        if not self.trainer.is_global_zero:
            return
        scale = self._scale or fit_normalization(list(raw.values()))
        self._write_scale(scale)
        write_scores(self.output / "raw_scores.csv", self._images, raw)
        scores = {place: scale.apply(row) for place, row in raw.items()}
        write_scores(self.output / "scores.csv", self._images, scores)
        print(f"{len(raw)} images scored for {', '.join(MEASURED)}: {self.output / 'scores.csv'}")

    def _write_scale(self, scale: Normalization) -> None:
        with replacing(self.output / NORMALIZATION) as part:
            if self.stored is not None:
                shutil.copyfile(self.stored, part)
            else:
                part.write_text(json.dumps(scale.to_dict(), indent=2) + "\n", encoding="utf-8")


def fit_normalization(raw: Sequence[Mapping[str, float]]) -> Normalization:
    """The scale of a population.

    Raises:
        DataError: If an attribute has the same score everywhere.
    """
    try:
        return Normalization.fit(raw)
    except ValueError as error:
        raise DataError(
            f"{len(raw)} images have no scale of their own ({error}); look at their maps (model.init_args.keep_maps), "
            "or give a stored scale in model.init_args.normalization"
        ) from error

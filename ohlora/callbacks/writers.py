"""Writers of predictions, and of the networks that a run produces."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn

from ohlora import handover
from ohlora.errors import NonFiniteError
from ohlora.formats import network_files
from ohlora.tracking import run_folder, run_loggers
from ohlora.utils import images
from ohlora.utils.files import replacing
from ohlora.utils.ranks import gathered

Scores = dict[str, float]
"""The scores of an image by attribute."""


class ImageWriter(BasePredictionWriter):
    """Writes every image to ``path_of`` its index; predictions are N×H×W×3 uint8, batches their N indices."""

    def __init__(self, path_of: Callable[[int], Path]) -> None:
        super().__init__("batch")
        self.path_of = path_of

    def write_on_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: np.ndarray, *about: Any
    ) -> None:
        """Writes the images of a batch."""
        _, batch, *_ = about
        for index, image in zip(batch, prediction, strict=True):
            images.save_png(image, self.path_of(index))


class ShardWriter(BasePredictionWriter):
    """Joins batches into shards, and writes a shard while the next is made.

    Predictions are pairs of style codes (N×D) and scores (N×K), which stay on the device until their shard is whole;
    batches are N successive indices within a shard. Memory holds two shards.

    Args:
        shard_size: Samples per shard; the last may be shorter.
        count: Samples altogether.
        write: Writes a shard: first index, codes and scores on the CPU.
    """

    def __init__(self, shard_size: int, count: int, write: Callable[[int, Tensor, Tensor], None]) -> None:
        super().__init__("batch")
        self.shard_size, self.count, self.write = shard_size, count, write
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def write_on_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: tuple[Tensor, Tensor], *about: Any
    ) -> None:
        """Adds a batch to its shard, and hands the shard over once it is whole.

        Raises:
            NonFiniteError: Naming the first sample whose score is not finite.
        """
        _, batch, *_ = about
        first = batch[0] // self.shard_size * self.shard_size
        self._parts.append(prediction)
        if batch[-1] + 1 < min(first + self.shard_size, self.count):
            return
        w, scores = (torch.cat(parts).cpu() for parts in zip(*self._parts, strict=True))
        self._parts = []
        bad = (~torch.isfinite(scores).all(dim=1)).nonzero()
        if len(bad):
            raise NonFiniteError(
                f"sample {first + int(bad[0])} has a score that is not finite; look at the network that scores and at "
                "the generator, or at trainer.precision"
            )
        self._wait()
        self._written = self._thread.submit(self.write, first, w, scores)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Waits for the last shard."""
        self._wait()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _wait(self) -> None:
        """An error in writing shows here."""
        if self._written is not None:
            self._written.result()


class TableWriter(BasePredictionWriter):
    """Lets rank zero ``write`` the scores of all processes, sorted; predictions are place in the data → scores."""

    def __init__(self, write: Callable[[dict[int, Scores]], None]) -> None:
        super().__init__("epoch")
        self.write = write

    def write_on_epoch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Writes the table."""
        rows = [item for prediction in predictions for item in prediction.items()]
        scores = dict(sorted(gathered(rows)))
        if trainer.is_global_zero:
            self.write(scores)


def save_product(trainer: L.Trainer, file: str, network: nn.Module, provenance: Mapping[str, Any]) -> Path:
    """Saves a network into the stage's folder, then into the run's, noting stage and provenance; for rank zero.

    What was measured and is no finite number is left out of the provenance. A product in the run's folder says that the
    one of the stage was written.

    Returns:
        Where it is in the stage's folder.
    """
    stage = Path(trainer.default_root_dir)
    for folder in dict.fromkeys([stage, run_folder(trainer)]):
        save_in_run(trainer, file, network, provenance, folder)
    keep_model(trainer, stage / file, network_files.read_metadata(stage / file))
    return stage / file


def save_in_run(
    trainer: L.Trainer, file: str, network: nn.Module, provenance: Mapping[str, Any], folder: Path | None = None
) -> None:
    """Saves a network into the run's folder only (or into ``folder``), as :func:`save_product` does."""
    about = {"stage": Path(trainer.default_root_dir).name, **provenance}
    network_files.save_network(network, (folder or run_folder(trainer)) / file, _measured(about))


def mark(trainer: L.Trainer, file: str, reasons: Sequence[str]) -> None:
    """Notes in a network of the stage's folder and the run's, where it is there, why it is not fit for use."""
    for folder in dict.fromkeys([Path(trainer.default_root_dir), run_folder(trainer)]):
        path = folder / file
        if reasons and path.is_file():
            provenance = network_files.provenance(path)
            network_files.save_network(network_files.load_network(path), path, provenance | handover.marked(reasons))


def promoted(trainer: L.Trainer, file: str) -> None:
    """Puts a network of the run's folder, if it is there, into the stage's."""
    source, target = run_folder(trainer) / file, Path(trainer.default_root_dir) / file
    if source.is_file() and source != target:
        with replacing(target) as part:
            shutil.copyfile(source, part)
        keep_model(trainer, target, network_files.read_metadata(target))


def keep_model(trainer: L.Trainer, path: Path, about: Mapping[str, Any]) -> None:
    """Keeps a product on W&B, with what is known of it, where that is asked for."""
    for logger in run_loggers(trainer):
        logger.keep_model(path, about)


def _measured(about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _measured(value) if isinstance(value, Mapping) else value
        for key, value in about.items()
        if not (isinstance(value, float) and not math.isfinite(value))
    }

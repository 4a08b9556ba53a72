"""Filter ensembles: K networks per 0/1 attribute, trained on K folds at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics.functional.classification as measures
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ohlora.datamodules.annotations import INNER, OUTER, TRAIN, AnnotatedImages, FoldedDataset
from ohlora.datamodules.base import ImageBatch
from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.modules.supervised import Gathered, Supervised
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble, Plan, attribute_cnn
from ohlora.pipeline import require
from ohlora.utils import counted, figures, images

MISTAKES = 24
"""Images in the grid of the worst mistakes."""


class FilterEnsemble(Supervised):
    """Trains the K members of a filter at once: a batch is decoded once, and each member learns from its own samples.

    A member learns from samples outside its fold, stops on an inner split of those, and is reported on its fold, which
    it never learned from or stopped on. The best weights by the inner split are kept. The product is one ensemble file.

    Args:
        attribute: Which attribute: ``gender``, ``quality``, ``age`` or ``glass``.
        optimizer: Optimizer of each member.
        schedule: Learning-rate schedule, stepped once per pass.
        plan: ``original`` (256×256) or ``small`` (64×64).
        folds: Number K of members; the data must be divided into as many folds.
        resolution: Height and width of the images.
        initial: Attribute CNN that every member starts from; None starts from random weights.
        passes: Upper limit of the length, in passes over the data.
        patience: Passes without improvement after which a member stops.
        retry_limit: A member whose lowest inner loss (mean binary cross-entropy) is above this begins again from new
            random weights; None never does.
        max_attempts: Attempts per member in all. When they are used up, the best is kept and a warning says so.
        threshold: Probability from which a sample counts as positive in accuracy and F1.
        seed: Seed of weights and dropout.
    """

    out_of_fold: Tensor
    attempts: Tensor
    loss_is_sum = True
    shared = ("attribute", "folds", "resolution")
    """Settings that the data takes from the stage."""

    def __init__(
        self,
        attribute: str,
        optimizer: OptimizerCallable,
        schedule: LRSchedulerCallable | None = None,
        plan: Plan = "original",
        folds: int = 5,
        resolution: int = 256,
        initial: str | None = None,
        passes: float = 200,
        patience: int = 20,
        retry_limit: float | None = None,
        max_attempts: int = 3,
        threshold: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.attribute, self.plan, self.resolution = attribute, plan, resolution
        members = [self._fresh(seed, k) for k in range(folds)]
        if initial is not None:
            require(initial)
            start = network_files.load_attributes(initial)
            if start.arguments() != members[0].arguments():
                raise ConfigError(
                    f"{initial} predicts {', '.join(start.outputs)} with other layers than the {plan} plan of "
                    f"{attribute} at {resolution}×{resolution}; expected the same network"
                )
            for member in members:
                member.load_state_dict(start.state_dict())
        super().__init__(members, passes, patience, optimizer, schedule, seed)
        self.save_hyperparameters()
        self.retry_limit, self.max_attempts, self.threshold = retry_limit, max_attempts, threshold
        self.register_buffer("attempts", torch.ones(folds, dtype=torch.long))
        self.predictions = nn.ModuleList(Gathered() for _ in range(folds))

    def _fresh(self, seed: int, number: int) -> AttributeCNN:
        """Random weights, a function of (seed, number) alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(counted.integer(seed, "member", number))
            return attribute_cnn(self.attribute, self.plan, self.resolution)

    @property
    def _folded(self) -> FoldedDataset:
        data = self.data
        if not isinstance(data, AnnotatedImages) or data.folds != len(self.networks):
            found = f"{data.folds} folds" if isinstance(data, AnnotatedImages) else type(data).__name__
            raise ConfigError(f"the data is {found}; expected AnnotatedImages with {len(self.networks)} folds")
        return data.train_set

    def setup(self, stage: str) -> None:
        """Makes room for the out-of-fold predictions."""
        self.register_buffer("out_of_fold", torch.full((len(self._folded),), torch.nan))

    # --- training

    def losses(self, batch: ImageBatch, active: Sequence[bool]) -> list[Tensor | None]:
        """Binary cross-entropy of each member, summed over the samples it may learn from."""
        losses: list[Tensor | None] = []
        for k, network in enumerate(self.networks):
            if not active[k]:
                losses.append(None)
                continue
            mine = batch["roles"][:, k] == TRAIN
            # Without a sample of its own a rank still takes part, with a loss of 0: the other ranks wait for it.
            logits = network.logits(batch["image"][mine])  # type: ignore[operator]
            loss = F.binary_cross_entropy_with_logits(logits, batch["label"][mine], reduction="sum")
            losses.append(loss * self.trainer.world_size)  # ranks are averaged, the sum goes over all of them
        return losses

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Each member's probabilities of the samples it stops on or is reported on."""
        for k, network in enumerate(self.networks):
            if self.finished(k):
                continue
            mine = batch["roles"][:, k] != TRAIN
            if mine.any():
                places = torch.tensor(batch["index"])[mine.cpu()]
                self.predictions[k].update(places, network(batch["image"][mine]))  # type: ignore[operator]

    def validate_pass(self) -> tuple[list[float], dict[str, float]]:
        """Mean binary cross-entropy of each member's inner split."""
        data = self._folded
        labels, roles = self._labels(), torch.from_numpy(data.roles)
        losses: list[float] = []
        self._latest = torch.full((len(self.networks), len(data)), torch.nan)
        for k in range(len(self.networks)):
            if self.finished(k):
                losses.append(float("inf"))
                continue
            self._latest[k] = self.predictions[k].collect(len(data))[:, 0]  # type: ignore[operator]
            inner = roles[:, k] == INNER
            losses.append(float(F.binary_cross_entropy(self._latest[k, inner], labels[inner])))
        shown = {f"loss/inner_{k}": value for k, value in enumerate(losses) if np.isfinite(value)}
        return losses, shown

    def improved(self, network: int) -> None:
        """Keeps the member's predictions of its own fold."""
        outer = torch.from_numpy(self._folded.roles[:, network] == OUTER)
        self.out_of_fold[outer.to(self.device)] = self._latest[network, outer].to(self.device)

    def done(self, network: int) -> None:
        """The retry rule."""
        attempt = int(self.attempts[network])
        if self._above_limit(network) and attempt < self.max_attempts:
            self.start_anew(network, self._fresh(self.seed, network + attempt * len(self.networks)))
            self.attempts[network] += 1

    def _above_limit(self, network: int) -> bool:
        return self.retry_limit is not None and float(self.kept_loss[network]) > self.retry_limit

    # --- what it found

    def on_train_end(self) -> None:
        """Saves the ensemble and reports every member on its own fold, and all folds pooled."""
        self._warn_of_members_above_the_limit()
        self.record(self.pooled(), self._pictures(), {"members": self._members(), "out_of_fold": self._rows()})
        super().on_train_end()

    def _warn_of_members_above_the_limit(self) -> None:
        for k, loss in enumerate(self.kept_loss.tolist()):
            if self._above_limit(k):
                rank_zero_warn(
                    f"member {k} of {self.attribute} reached an inner loss of {loss:.4f} in {int(self.attempts[k])} "
                    f"attempts, above retry_limit {self.retry_limit}; its best weights are kept. Look at its labels, "
                    "or raise max_attempts or passes"
                )

    def product(self) -> Mapping[str, nn.Module]:
        """The ensemble of the best members."""
        members = [member for member in self.best if isinstance(member, AttributeCNN)]
        return {f"{self.attribute}.safetensors": AttributeEnsemble.of(members)}

    def provenance(self) -> dict[str, Any]:
        """Adds what the ensemble reached out of fold."""
        return {**super().provenance(), "out_of_fold": {k: round(v, 4) for k, v in self.pooled().items()}}

    def pooled(self) -> dict[str, float]:
        """Figures of all out-of-fold predictions together."""
        return self._figures(self.out_of_fold.cpu(), self._labels(), "out_of_fold/")

    def _labels(self) -> Tensor:
        labels = self._folded.labels
        assert labels is not None
        return torch.from_numpy(labels[:, 0])

    def _figures(self, probabilities: Tensor, labels: Tensor, prefix: str = "") -> dict[str, float]:
        target = labels.long()
        values = {
            "auroc": measures.binary_auroc(probabilities, target),
            "accuracy": measures.binary_accuracy(probabilities, target, threshold=self.threshold),
            "f1": measures.binary_f1_score(probabilities, target, threshold=self.threshold),
            "bce": F.binary_cross_entropy(probabilities, labels),
            "calibration_error": measures.binary_calibration_error(probabilities, target),
        }
        return {f"{prefix}{name}": float(value) for name, value in values.items()}

    def _members(self) -> list[dict[str, Any]]:
        labels, rows = self._labels(), []
        for k in range(len(self.networks)):
            outer = torch.from_numpy(self._folded.roles[:, k] == OUTER)
            row = {"member": k, "attempts": int(self.attempts[k]), "best_pass": round(float(self.best_pass[k]), 2)}
            row |= {"inner_bce": float(self.kept_loss[k])}
            rows.append(row | self._figures(self.out_of_fold.cpu()[outer], labels[outer]))
        return rows

    def _rows(self) -> list[dict[str, Any]]:
        data = self._folded
        fold = (data.roles == OUTER).argmax(axis=1)
        scores, labels = self.out_of_fold.tolist(), self._labels().long().tolist()
        return [
            {"index": n, "file": p.name, self.attribute: y, "fold": int(k), f"{self.attribute}_score": round(s, 4)}
            for n, p, y, k, s in zip(data.numbers, data.paths, labels, fold, scores, strict=True)
        ]

    def _pictures(self) -> dict[str, np.ndarray]:
        data, labels, scores = self._folded, self._labels(), self.out_of_fold.cpu()
        curves = {}
        for name, chosen in [(f"fold {k}", data.roles[:, k] == OUTER) for k in range(len(self.networks))]:
            place = torch.from_numpy(chosen)
            false, true, _ = measures.binary_roc(scores[place], labels[place].long())
            curves[name] = false.numpy(), true.numpy()
        worst = torch.argsort((scores - labels).abs(), descending=True)[:MISTAKES]
        sheet = images.grid(np.stack([data[int(k)]["image"] for k in worst]), columns=6)
        return {
            "roc": figures.roc_curve(curves, f"{self.attribute}, out of fold"),
            "worst_mistakes": images.enlarge(sheet, 768),
        }

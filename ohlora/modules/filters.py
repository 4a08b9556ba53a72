"""Filter ensembles: K networks per 0/1 attribute, trained on K folds at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics.functional.classification as measures
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ohlora.callbacks.writers import save_product
from ohlora.datamodules.annotations import INNER, OUTER, TRAIN, AnnotatedImages
from ohlora.datamodules.base import ImageBatch
from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.modules.supervised import Epochs, Rows, collected
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble, Plan, attribute_cnn
from ohlora.utils import checks, counted, figures, images

MISTAKES = 24
"""Images in the grid of the worst mistakes."""
COLUMNS = 6
"""Those of a row of it."""


class FilterEnsemble(Epochs[AnnotatedImages]):
    """Trains the K members of a filter at once: a batch is decoded once, and each member learns from its own samples.

    A member learns from samples outside its fold, stops on an inner split of those, and is reported on its fold, which
    it never learned from or stopped on. The best weights by the inner split are kept. The product is one ensemble file.

    Training ends before ``trainer.max_epochs`` when all members have stopped; see also
    :class:`ohlora.modules.supervised.Epochs`.

    Args:
        attribute: Which attribute, one of 0 and 1.
        plan: ``original`` (256×256) or ``small`` (64×64).
        folds: Number K of members; the data must be divided into as many folds.
        resolution: Height and width of the images.
        initial: Attribute CNN that every member starts from; None starts from random weights.
        retry_limit: A member whose lowest inner loss (mean binary cross-entropy) is above this begins again from new
            random weights; None never does.
        max_attempts: Attempts per member in all. When they are used up, the best is kept and a warning says so.
        threshold: Probability from which a sample counts as positive in accuracy and F1.
        **settings: See :class:`ohlora.modules.supervised.Epochs`; members are judged by their inner loss.
    """

    data_type = AnnotatedImages
    closure = False
    fixed = ("attribute", "plan", "folds", "resolution")
    attempts: Tensor
    stale: Tensor
    best_loss: Tensor
    kept_loss: Tensor
    kept_epoch: Tensor
    out_of_fold: Tensor
    shared = ("attribute", "folds", "resolution")
    """Settings that the data takes from the stage."""

    def __init__(
        self,
        attribute: str,
        plan: Plan = "original",
        folds: int = 5,
        resolution: int = 256,
        initial: str | None = None,
        retry_limit: float | None = None,
        max_attempts: int = 3,
        threshold: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        checks.at_least(2, folds=folds)
        checks.at_least(1, max_attempts=max_attempts, resolution=resolution)
        checks.at_least(0, retry_limit=retry_limit)
        checks.between(0, 1, threshold=threshold)
        self.save_hyperparameters()
        self.automatic_optimization = False  # K optimizers, of which some have stopped
        self.attribute, self.plan, self.resolution = attribute, plan, resolution
        self.products = [f"{attribute}.safetensors"]
        self.retry_limit, self.max_attempts, self.threshold = retry_limit, max_attempts, threshold
        members = [self._fresh(k) for k in range(folds)]
        if initial is not None:
            start = network_files.load_attributes(initial)
            if start.arguments() != members[0].arguments():
                raise ConfigError(
                    f"{initial} predicts {', '.join(start.outputs)} with other layers than the {plan} plan of "
                    f"{attribute} at {resolution}×{resolution}; expected the same network"
                )
            for member in members:
                member.load_state_dict(start.state_dict())
        self.members = nn.ModuleList(members)
        self.best = copy.deepcopy(self.members).requires_grad_(False)
        self.register_buffer("attempts", torch.ones(folds, dtype=torch.long))
        self.register_buffer("stale", torch.zeros(folds, dtype=torch.long))  # epochs since the attempt's lowest loss
        self.register_buffer("best_loss", torch.full((folds,), torch.inf))  # of the attempt
        self.register_buffer("kept_loss", torch.full((folds,), torch.inf))  # of all attempts
        self.register_buffer("kept_epoch", torch.zeros(folds, dtype=torch.long))
        self._predictions: list[Rows] = [[] for _ in range(folds)]

    def _fresh(self, number: int) -> AttributeCNN:
        """Random weights, a function of (seed, number) alone."""
        with counted.seeded(counted.integer(self.seed, "member", number)):
            return attribute_cnn(self.attribute, self.plan, self.resolution)

    def setup(self, stage: str) -> None:
        """Makes room for the out-of-fold predictions."""
        self.register_buffer("out_of_fold", torch.full((len(self.data.train_set),), torch.nan))

    # --- training

    def configure_optimizers(self) -> Any:
        """One optimizer per member, and one schedule."""
        return self.scheduled([self._optimizer(member.parameters()) for member in self.members], self._schedule)

    @property
    def running(self) -> list[int]:
        """The members that have not stopped."""
        return [k for k, stale in enumerate(self.stale.tolist()) if stale < self.patience]

    def on_train_start(self) -> None:
        """Applies the settings of this run to what a checkpoint brought, and ends a run that had stopped."""
        super().on_train_start()
        self.trainer.should_stop = self.trainer.should_stop or not self.running

    def losses(self, batch: ImageBatch) -> dict[int, Tensor]:
        """Binary cross-entropy of each running member, summed over the samples it may learn from."""
        losses = {}
        for k in self.running:
            mine = batch["roles"][:, k] == TRAIN
            # Without a sample of its own a rank still takes part, with a loss of 0: the other ranks wait for it.
            logits = self.members[k].logits(batch["image"][mine])  # type: ignore[operator]
            losses[k] = F.binary_cross_entropy_with_logits(logits, batch["label"][mine], reduction="sum")
        return losses

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """One update of every running member."""
        with self.counted_dropout():
            losses = self.losses(batch)
        self.images_seen += len(batch["image"]) * self.trainer.world_size
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        # Ranks are averaged, and the sum goes over the samples of all of them.
        self.manual_backward(torch.stack(list(losses.values())).sum() * self.trainer.world_size)
        for k, loss in losses.items():
            self.check_step(self.members[k], loss, f"member {k}")
            optimizers[k].step()
            count = (batch["roles"][:, k] == TRAIN).sum()
            self._train_loss.update(loss.detach() / count.clamp(min=1), count)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Each running member's probabilities of the samples it stops on or is reported on."""
        for k in self.running:
            mine = batch["roles"][:, k] != TRAIN
            if mine.any():
                places = torch.tensor(batch["index"])[mine.cpu()]
                self._predictions[k].append((places, self.members[k](batch["image"][mine]).float().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Ends the epoch: keeps the best weights, stops members or lets them begin again, and logs the losses."""
        self.log_epoch({f"loss/inner_{k}": self._judge(k) for k in self.running})
        self.trainer.should_stop = self.trainer.should_stop or not self.running

    def _judge(self, k: int) -> float:
        """Mean binary cross-entropy of a member on its inner split, after which it goes on, stops or begins again."""
        predicted = collected(self._predictions[k], len(self.out_of_fold))[:, 0]
        inner, outer = self._in_role(k, INNER), self._in_role(k, OUTER)
        inner &= ~predicted.isnan()  # trainer.limit_val_batches may leave some out
        loss = float(F.binary_cross_entropy(predicted[inner], self._answers()[inner])) if inner.any() else math.nan
        if self.trainer.state.fn != TrainerFn.FITTING:
            return loss
        if self._schedule is not None:
            schedule: Any = self.trainer.lr_scheduler_configs[k].scheduler
            schedule.step()
        self.stale[k] += 1
        if loss < float(self.best_loss[k]):
            self.best_loss[k], self.stale[k] = loss, 0
        if loss < float(self.kept_loss[k]):
            self.kept_loss[k], self.kept_epoch[k] = loss, self.current_epoch + 1
            self.best[k].load_state_dict(self.members[k].state_dict())
            self.out_of_fold[outer.to(self.device)] = predicted[outer].to(self.device)
        if k not in self.running and self._above_limit(k) and int(self.attempts[k]) < self.max_attempts:
            self._begin_again(k)
        return loss

    def _begin_again(self, k: int) -> None:
        """Gives a member new random weights; its best ones stay until they are beaten."""
        self.members[k].load_state_dict(self._fresh(k + int(self.attempts[k]) * len(self.members)).state_dict())
        optimizer = self.trainer.optimizers[k]
        optimizer.state.clear()
        if self._schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
            self.trainer.lr_scheduler_configs[k].scheduler = self._schedule(optimizer)
        self.attempts[k] += 1
        self.best_loss[k], self.stale[k] = torch.inf, 0

    def _above_limit(self, k: int) -> bool:
        return self.retry_limit is not None and float(self.kept_loss[k]) > self.retry_limit

    # --- what it found

    @property
    def stopped(self) -> bool:
        """Whether all members have stopped."""
        return super().stopped or not self.running

    def had_stopped(self, checkpoint: Mapping[str, Any]) -> bool:
        """Whether all members had stopped."""
        return bool((checkpoint["state_dict"]["stale"] >= self.patience).all())

    def make_products(self, about: Mapping[str, Any]) -> None:
        """Saves the ensemble.

        Raises:
            ConfigError: If no epoch was validated.
        """
        if not torch.isfinite(self.kept_loss).all():
            raise ConfigError(
                "no epoch was completed and validated, so that there are no weights to keep; train longer"
            )
        ensemble = AttributeEnsemble.of([member for member in self.best if isinstance(member, AttributeCNN)])
        self._pooled = {f"out_of_fold/{name}": value for name, value in self._metrics().items()}
        rounded = {name: round(value, 4) for name, value in self._pooled.items()}
        told: dict[str, Any] = {"images_seen": self.clock(), "out_of_fold": rounded, **about}
        self._written = save_product(self.trainer, self.products[0], ensemble, told)

    def on_fit_end(self) -> None:
        """Reports every member on its own fold and all folds pooled."""
        super().on_fit_end()
        if not self.trainer.is_global_zero or not (self.whole or self.finishing):
            return
        for k, loss in enumerate(self.kept_loss.tolist()):
            if self._above_limit(k):
                rank_zero_warn(
                    f"member {k} of {self.attribute} reached an inner loss of {loss:.4f} in {int(self.attempts[k])} "
                    f"attempts, above retry_limit {self.retry_limit}; its best weights are kept. Look at its "
                    "labels, or raise max_attempts or trainer.max_epochs"
                )
        pooled = self._pooled
        if not self.finishing:
            for logger in self.trainer.loggers:
                logger.log_metrics(pooled)
            self.show(self._pictures(), {"members": self._members(), "out_of_fold": self._rows()})
        print(
            f"wrote {self._written}: out of fold, AUROC {pooled['out_of_fold/auroc']:.3f}, accuracy "
            f"{pooled['out_of_fold/accuracy']:.3f}"
        )

    def _answers(self) -> Tensor:
        return torch.from_numpy(self.data.train_set.arrays["label"][:, 0])

    def _in_role(self, k: int, role: int) -> Tensor:
        """Which samples have a role for a member, N booleans."""
        return torch.from_numpy(self.data.train_set.arrays["roles"][:, k] == role)

    def _metrics(self, chosen: Tensor | None = None) -> dict[str, float]:
        """Metrics of the out-of-fold predictions on some samples (N booleans), by default on all that there are."""
        if chosen is None:
            chosen = ~self.out_of_fold.cpu().isnan()
        probabilities, answers = self.out_of_fold.cpu()[chosen], self._answers()[chosen]
        target = answers.long()
        values = {
            "auroc": measures.binary_auroc(probabilities, target),
            "accuracy": measures.binary_accuracy(probabilities, target, threshold=self.threshold),
            "f1": measures.binary_f1_score(probabilities, target, threshold=self.threshold),
            "bce": F.binary_cross_entropy(probabilities, answers),
            "calibration_error": measures.binary_calibration_error(probabilities, target),
        }
        return {name: float(value) for name, value in values.items()}

    def _members(self) -> list[dict[str, Any]]:
        told = zip(self.attempts.tolist(), self.kept_epoch.tolist(), self.kept_loss.tolist(), strict=True)
        return [
            {"member": k, "attempts": attempts, "best_epoch": epoch, "inner_bce": loss}
            | self._metrics(self._in_role(k, OUTER))
            for k, (attempts, epoch, loss) in enumerate(told)
        ]

    def _rows(self) -> list[dict[str, Any]]:
        data = self.data.train_set
        fold = (data.arrays["roles"] == OUTER).argmax(axis=1)
        scores, answers = self.out_of_fold.tolist(), self._answers().long().tolist()
        return [
            {"index": n, "file": p.name, self.attribute: y, "fold": int(k), f"{self.attribute}_score": round(s, 4)}
            for n, p, y, k, s in zip(data.numbers, data.paths, answers, fold, scores, strict=True)
        ]

    def _pictures(self) -> dict[str, np.ndarray]:
        data, answers, scores = self.data.train_set, self._answers(), self.out_of_fold.cpu()
        curves = {}
        for k in range(len(self.members)):
            outer = self._in_role(k, OUTER)
            false, true, _ = measures.binary_roc(scores[outer], answers[outer].long())
            curves[f"fold {k}"] = false.numpy(), true.numpy()
        worst = torch.argsort((scores - answers).abs(), descending=True)[:MISTAKES].tolist()
        rows = {}
        for chosen in (worst[first : first + COLUMNS] for first in range(0, len(worst), COLUMNS)):
            told = ", ".join(f"{int(answers[k])}: {scores[k]:.3f}" for k in chosen)
            rows[f"annotation: prediction  {told}"] = images.enlarge(np.stack([data[k]["image"] for k in chosen]), 128)
        return {
            "roc": figures.roc_curve(curves, f"{self.attribute}, out of fold"),
            "worst_mistakes": figures.strips(rows),
        }

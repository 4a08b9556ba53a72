"""Training a network that recognises people across expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_curve
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_calibration_error

from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.people import Pairs, People
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.evaluation.identity import ALL, LOOK_ALIKES, OTHERS, SAME, calibrated, measures
from ohlora.modules.supervised import MONITOR, Rows, Supervised, collected
from ohlora.networks.identity import Calibration, IdentityNetwork
from ohlora.networks.losses import supervised_contrastive_loss
from ohlora.toy.people import OF_PERSON, difference
from ohlora.tracking import run_loggers
from ohlora.utils import checks, counted, figures, images

LIMIT = 0.03
"""Equal error rate up to which a network is fit for use, look-alikes among the pairs."""
SHOWN = 8
"""Look-alikes, and pairs of each sort of mistake, in a picture."""
ENLARGED = 128
"""Height and width of a picture in a sheet, in pixels."""


class PersonRecognition(Supervised[People]):
    """Trains an identity network on drawn people by the supervised contrastive loss, with look-alikes in every batch.

    Look-alikes do not repel each other in pictures that do not show their difference, such as that of irises in closed
    eyes.

    A linear layer on the hidden features also predicts the person's properties, which are known; the sum of their
    squared errors is added to the loss. It makes the network see small features that contrast alone takes long to find,
    and is no part of the product.

    After each epoch, held-out people are compared. One half of them fits the calibration (logistic regression on the
    cosine similarity; as many pairs of one person as of two, half of these look-alikes) and decides by its log loss on
    the best epoch; the other half is only measured: equal error rate, AUROC and expected calibration error.

    Args:
        widths: Feature maps of each convolution; see :class:`ohlora.networks.identity.IdentityNetwork`.
        strides: Strides of each.
        hidden: Width of the dense layer.
        size: Size of the embedding.
        resolution: Height and width of the images.
        patch: Height and width of squares whose pixels become channels first; 1 for none.
        temperature: Temperature of the contrastive loss, above 0.
        properties: Weight of the squared error of the properties, ≥ 0.
        save_as: Name of the product, a safetensors file.
        seed: Seed of the weights.
        **settings: See :class:`ohlora.modules.supervised.Epochs`.
    """

    data_type = People
    fixed = ("widths", "strides", "hidden", "size", "resolution", "patch")
    shared = ("resolution",)
    """Settings that the data takes from the stage."""
    embedded: Tensor

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 96),
        strides: Sequence[int] = (2, 2, 2, 2),
        hidden: int = 96,
        size: int = 64,
        resolution: int = 64,
        patch: int = 1,
        temperature: float = 0.1,
        properties: float = 1.0,
        save_as: str = "identity",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        checks.seeds(seed=seed)
        checks.at_least(1, resolution=resolution, hidden=hidden, size=size)
        checks.above(0, temperature=temperature)
        checks.at_least(0, properties=properties)
        with counted.seeded(counted.integer(seed, "identity", 0)):
            network = IdentityNetwork(widths, strides, hidden, size, resolution, patch)
            head = nn.Linear(hidden, len(OF_PERSON))
        super().__init__(network, f"{save_as}.safetensors", seed=seed, **settings)
        self.save_hyperparameters()
        self.network: IdentityNetwork
        self.head = head
        self.temperature, self.weight = temperature, properties
        self._embeddings: Rows = []

    def setup(self, stage: str) -> None:
        """Makes room for the embeddings, and chooses the pairs."""
        # In the state, so that the embeddings of the best weights are kept with them.
        self.register_buffer("embedded", torch.full((len(self.data.val_set), self.network.size), torch.nan))
        quarter = self.data.val_people // 4
        self._deciding = self.data.val_set.pairs(range(quarter))
        self._measured = self.data.val_set.pairs(range(quarter, 2 * quarter))

    def configure_optimizers(self) -> Any:
        """The optimizer of network and linear layer, and its schedule by epochs."""
        parameters = chain(self.network.parameters(), self.head.parameters())
        return self.scheduled([self._optimizer(parameters)], self._schedule)

    def loss(self, batch: ImageBatch) -> Tensor:
        """Contrastive loss over the pictures of all ranks, plus the squared error of the properties."""
        features = self.network.features(batch["image"])
        embeddings, person, seen = map(self._of_all, (self.network.embedded(features), batch["person"], batch["seen"]))
        pairs = person // 2  # a person and its look-alike
        unseen = (pairs[:, None] == pairs) & (person[:, None] != person) & ~(seen[:, None] & seen)
        with torch.autocast(self.device.type, enabled=False):  # similarities over a temperature need the precision
            contrast = supervised_contrastive_loss(embeddings, person, self.temperature, unseen)
            error: Tensor = (self.head(features.float()) - batch["properties"]).square().sum(dim=1).mean()
        return contrast + self.weight * error

    def _of_all(self, values: Tensor) -> Tensor:
        """Values of all ranks, N×…, with gradients, which are summed over the ranks, and averaged later."""
        if self.trainer.world_size == 1:
            return values
        gathered: Any = self.all_gather(values, sync_grads=values.requires_grad)
        return gathered.flatten(0, 1)  # type: ignore[no-any-return]

    # --- validation

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Embeddings of a batch."""
        self._embeddings.append((torch.tensor(batch["index"]), self.network(batch["image"]).float().cpu()))

    def validation_metrics(self) -> dict[str, float]:
        """Fits the calibration on one half of the people, and measures the other."""
        self.embedded.copy_(collected(self._embeddings, len(self.embedded)))
        similarity, kinds, _ = self._compared(self._deciding)
        same = kinds == SAME
        if same.all() or not same.any():
            raise ConfigError(
                "the validated pictures hold no pairs to calibrate by; leave trainer.limit_val_batches out, or set "
                "data.init_args.val_people higher"
            )
        self.network.calibration.load_state_dict(Calibration(*calibrated(similarity, same)).state_dict())
        log_loss = F.binary_cross_entropy(self._probability(similarity), torch.from_numpy(same).float())
        metrics = {MONITOR: float(log_loss)}
        similarity, kinds, _ = self._compared(self._measured)
        found = measures(similarity, kinds)
        metrics |= {f"{rate}/{of}": found[of][rate] for rate in ("eer", "auroc") for of in (ALL, LOOK_ALIKES, OTHERS)}
        answers = torch.from_numpy(kinds == SAME).long()
        metrics["calibration_error"] = float(binary_calibration_error(self._probability(similarity), answers))
        return metrics

    def _compared(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cosine similarities (N,), kinds (N,) and places (N×2) of the pairs whose pictures have been embedded."""
        embedded, places = self.embedded.cpu().numpy(), np.array([pairs.first, pairs.second]).T
        similarity = (embedded[places[:, 0]] * embedded[places[:, 1]]).sum(axis=1)
        there = ~np.isnan(similarity)
        return similarity[there], np.array(pairs.kinds)[there], places[there]

    def _probability(self, similarity: np.ndarray) -> Tensor:
        return self.network.calibration(torch.from_numpy(similarity).to(self.device)).cpu()  # type: ignore[no-any-return]

    # --- what it found

    def told(self) -> dict[str, Any]:
        """Why the network is not fit for use, if it is not."""
        return {"unfit": reason} if (reason := _unfit(self._best["measured"])) else {}

    def check_result(self, measured: Mapping[str, float]) -> None:
        """Refuses a network to which pictures of one person are no more alike than those of two.

        Raises:
            NonFiniteError: If it is one.
        """
        if self.network.calibration.scale <= 0:
            raise NonFiniteError(
                f"pictures of one person are no more alike to {self.product} than those of two, and it was not saved. "
                "Lower the learning rate, or train longer"
            )

    def report(self, measured: Mapping[str, float]) -> None:
        """Rates by kind of pair, ROC curves, people with their look-alikes, and the worst mistakes."""
        similarity, kinds, places = self._compared(self._measured)
        table = [{"compared_with": of, **rates} for of, rates in measures(similarity, kinds).items()]
        pictures = {"look_alikes": self._people(), **self._mistakes(similarity, kinds, places)}
        curves = {}
        for name, two in ((LOOK_ALIKES, kinds != OTHERS), (OTHERS, np.isin(kinds, (SAME, OTHERS))), (ALL, kinds != "")):
            if (kinds[two] == SAME).any() and (kinds[two] != SAME).any():
                false, true, _ = roc_curve(kinds[two] == SAME, similarity[two])
                curves[name] = false, true
        if curves:
            pictures["roc"] = figures.roc_curve(curves, "the same person")
        self.show(pictures, {"recognition": table})
        print(_readable(table, measured["calibration_error"]))

    def reached(self, measured: Mapping[str, float]) -> str:
        """The equal error rates."""
        rates = {of: measured[f"eer/{of}"] for of in (ALL, LOOK_ALIKES, OTHERS)}
        return f"equal error rate {rates[ALL]:.2%} (look-alikes {rates[LOOK_ALIKES]:.2%}, others {rates[OTHERS]:.2%})"

    def on_fit_end(self) -> None:
        """Reports on the best weights, and says aloud if they are not fit for use."""
        super().on_fit_end()
        if not self.trainer.is_global_zero or not self._best or not (self.whole or self.finishing):
            return
        if reason := _unfit(self._best["measured"]):
            text = f"{self.product} IS NOT FIT FOR USE: {reason}. Train longer, on more people, or a larger network"
            print(text)
            for logger in run_loggers(self.trainer):
                logger.alert("an identity network is not fit", text)

    def _people(self) -> np.ndarray:
        """Measured people, each followed by its look-alike."""
        data, quarter = self.data.val_set, self.data.val_people // 4
        rows = {}
        for pair in range(quarter, min(quarter + SHOWN, 2 * quarter)):
            first, number = 2 * pair * data.pictures, data.first + 2 * pair
            shown = np.stack([data[first + k]["image"] for k in range(2 * data.pictures)])
            caption = f"persons {number} and {number + 1} differ in {difference(data.seed, number)}"
            rows[caption] = images.enlarge(shown, ENLARGED)
        return figures.strips(rows)

    def _mistakes(self, similarity: np.ndarray, kinds: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
        """Pairs of one person that look least alike, and pairs of two that look most alike, side by side."""
        rows = {}
        for what, chosen, sign in (("one person", kinds == SAME, 1), ("two people", kinds != SAME, -1)):
            found = np.flatnonzero(chosen)
            worst = found[np.argsort(sign * similarity[found], kind="stable")[:SHOWN]]
            if not len(worst):
                continue
            shown = np.stack([self.data.val_set[int(k)]["image"] for k in places[worst].ravel()])
            told = self._probability(similarity[worst]).tolist()
            differ = "" if sign > 0 else ": " + ", ".join(kinds[worst].tolist())
            caption = f"{what}, probability of the same {', '.join(f'{value:.2f}' for value in told)}{differ}"
            rows[caption] = images.enlarge(shown, ENLARGED)
        return {"worst_mistakes": figures.strips(rows)} if rows else {}


def _unfit(measured: Mapping[str, float]) -> str | None:
    """Why a network is not fit for use; None if it is."""
    rate = measured[f"eer/{ALL}"]
    if rate <= LIMIT:
        return None
    return f"its equal error rate is {rate:.2%}, with look-alikes; expected at most {LIMIT:.0%}"


def _readable(table: Sequence[Mapping[str, Any]], calibration_error: float) -> str:
    """The rates as a text."""
    lines = [f"{'compared with':16}{'pairs':>8}{'EER':>9}{'AUROC':>9}"]
    lines += [f"{row['compared_with']:16}{row['pairs']:8,}{row['eer']:9.2%}{row['auroc']:9.4f}" for row in table]
    return "\n".join([*lines, f"expected calibration error {calibration_error:.2%}"])

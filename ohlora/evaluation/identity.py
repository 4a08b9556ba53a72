"""Whether two images show the same person: measures of recognition, and the seam to any network that recognises.

Two images of one person are what biometrics calls a mated comparison, those of two people a non-mated one.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from ohlora.errors import ConfigError
from ohlora.evaluation.features import Features
from ohlora.networks.identity import Calibration

SAME, OTHERS, LOOK_ALIKES, ALL = "same", "others", "look_alikes", "all"
"""Pairs of one person, of two unlike people, of two that look alike; and all of them."""
LEAST_DOUBT = 0.01
"""A network is not taken to doubt a person at a cosine similarity nearer to 1 than this."""


def equal_error_rate(similarity: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Where the share of pairs of the same person that are refused equals that of other pairs that are accepted.

    Between two points of the receiver operating characteristic it is interpolated.

    Args:
        similarity: N numbers, larger for what looks more alike.
        same: N booleans, both of which occur.

    Returns:
        The rate, 0…1, and the similarity from which on a pair counts as the same.
    """
    from sklearn.metrics import roc_curve

    accepted, found, thresholds = roc_curve(same, similarity)
    refused = 1 - found
    after = int(np.argmax(accepted >= refused))  # there is one: all are accepted in the end
    if after == 0:
        return float(refused[0]), float(similarity.max())
    before = after - 1
    thresholds[0] = similarity.max()
    gaps = refused[before] - accepted[before], accepted[after] - refused[after]
    share = gaps[0] / (gaps[0] + gaps[1])
    rate = accepted[before] + share * (accepted[after] - accepted[before])
    return float(rate), float(thresholds[before] + share * (thresholds[after] - thresholds[before]))


def calibrated(similarity: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Fits a calibration by logistic regression; both answers weigh as much, however many there are of each.

    Args:
        similarity: N cosine similarities.
        same: N booleans, both of which occur.

    Returns:
        Scale and bias, see :class:`ohlora.networks.identity.Calibration`. The scale is 0 or less where pairs of the
        same person are not more alike than others.
    """
    from sklearn.linear_model import LogisticRegression

    # So weak a prior matters only where the two are told apart without a mistake.
    fitted = LogisticRegression(C=1e4, class_weight="balanced").fit(similarity[:, None], same)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def measures(similarity: np.ndarray, kinds: np.ndarray) -> dict[str, dict[str, float]]:
    """How well people are recognised, by what they are compared with.

    Args:
        similarity: N numbers, larger for what looks more alike.
        kinds: N words: :data:`SAME` for pairs of one person, :data:`OTHERS` for pairs of unlike ones, and for pairs of
            look-alikes what they differ in.

    Returns:
        :data:`ALL`, :data:`LOOK_ALIKES`, :data:`OTHERS` and each difference → ``pairs`` (how many of two people, beside
        which stand all of one), ``eer`` and ``auroc``, both 0…1; NaN where there are no pairs.
    """
    same = kinds == SAME
    chosen = {ALL: ~same, LOOK_ALIKES: ~same & (kinds != OTHERS), OTHERS: kinds == OTHERS}
    chosen |= {str(kind): kinds == kind for kind in np.unique(kinds) if kind not in (SAME, OTHERS)}
    found: dict[str, dict[str, float]] = {}
    for name, two in chosen.items():
        taken = same | two
        rates = {"eer": np.nan, "auroc": np.nan}
        if same.any() and two.any():
            scores, answers = torch.from_numpy(similarity[taken]), torch.from_numpy(same[taken])
            rate, _ = equal_error_rate(similarity[taken], same[taken])
            rates = {"eer": rate, "auroc": float(binary_auroc(scores, answers.long()))}
        found[name] = {"pairs": int(two.sum()), **rates}
    return found


class Identity(nn.Module):
    """Compares images by a network that embeds faces.

    Args:
        features: Embeds images, N×3×H×H in [−1, 1], which are resized to what it takes; its whole output counts,
            without projection.
        calibration: Turns similarities into probabilities; by default that of one of our own networks. Without one,
            cosine similarities are all there is.
        unfit: Why the network is not fit for use, if that is known of it.

    Attributes:
        measure: What a comparison gives: ``same_person`` (a probability) or ``cosine_similarity``.
        differentiable: Whether gradients reach the images. If not, as with ONNX, it can judge, and guide no search.
    """

    def __init__(self, features: Features, calibration: Calibration | None = None, unfit: str | None = None) -> None:
        super().__init__()
        self.features, self.calibration, self.unfit = features, calibration, unfit
        self.measure = "cosine_similarity" if calibration is None else "same_person"
        self.differentiable = features.differentiable

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors of N images: N×D.

        Raises:
            ConfigError: If a gradient is asked of a network that has none.
        """
        if images.requires_grad and not self.differentiable:
            raise ConfigError(
                "an identity network in ONNX format has no gradients: it can judge edits and not guide their search. "
                "Give weights of a torch network with its network_class to search with"
            )
        return F.normalize(self.features.outputs(images), dim=1)

    def compared(self, reference: Tensor, edited: Tensor) -> Tensor:
        """What :attr:`measure` says of embedded images, (N,).

        Args:
            reference: Unit vectors that :meth:`embed` made, N×D, or 1×D for all.
            edited: Likewise, N×D.
        """
        similarity = (reference * edited).sum(dim=1)
        return similarity if self.calibration is None else self.calibration(similarity)

    def lost(self, reference: Tensor, edited: Tensor) -> Tensor:
        """How much of the person is lost, for a loss, (N,): arguments as for :meth:`compared`.

        It is one minus the cosine similarity; with a calibration, in parts of what that is where the probability is one
        half (but for a network that doubts even equal images). The probability itself will not do: it is next to 1 long
        before another network is in doubt, and then has no gradient.
        """
        lost = 1 - (reference * edited).sum(dim=1)
        if self.calibration is None:
            return lost
        doubt = 1 + self.calibration.bias / self.calibration.scale
        return lost / torch.where(doubt > 0, doubt.clamp_min(LEAST_DOUBT), 1.0)

    def similarity(self, reference: Tensor, edited: Tensor) -> Tensor:
        """Cosine similarities, (N,), −1…1.

        Args:
            reference: Images N×3×H×H, or 1×3×H×H for all.
            edited: Images N×3×H×H.
        """
        return (self.embed(reference) * self.embed(edited)).sum(dim=1)

    def probability(self, reference: Tensor, edited: Tensor) -> Tensor:
        """Probabilities of the same person, (N,), 0…1; arguments as for :meth:`similarity`.

        Raises:
            ConfigError: If there is no calibration.
        """
        if self.calibration is None:
            raise ConfigError(
                "this identity network has no calibration, so that there are cosine similarities and no probabilities; "
                "give its threshold and scale, or a table of pairs"
            )
        return self.calibration(self.similarity(reference, edited))  # type: ignore[no-any-return]

    def forward(self, reference: Tensor, edited: Tensor) -> Tensor:
        """What :attr:`measure` says, (N,)."""
        return self.compared(self.embed(reference), self.embed(edited))

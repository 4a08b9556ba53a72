"""Directions from gradients: each changes its attribute, holds the others, and stays as near to the data as it can.

With Σ the covariance of w and B (D×K) the gradients of K attributes, in z-scores per unit of w,

    D = Σ B (Bᵀ Σ B)⁻¹

has in column k the step that changes attribute k by one z-score and the others by nothing, to first order:
Bᵀ D is the identity. Of all such steps it is the one with the smallest Mahalanobis length, so the likeliest under the
data. Haufe et al. (2014, "On the interpretation of weight vectors of linear models in multivariate neuroimaging")
explain why the weights B by themselves are no directions in which data vary: those are the patterns Σ B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ohlora.errors import ConfigError


def covariance_of(rows: Tensor, chunk: int = 10_000) -> Tensor:
    """Covariance of rows (divided by their number), D×D float64 from N×D of any precision.

    Rows are turned to float64 in chunks, so that large sets are never copied whole.
    """
    mean = torch.stack([part.double().sum(dim=0) for part in torch.split(rows, chunk)]).sum(dim=0) / len(rows)
    products = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, chunk):
        centred = part.double() - mean
        products += centred.T @ centred
    return products / len(rows)


def covariance_root(covariance: Tensor) -> Tensor:
    """The lower triangular root of a covariance, D×D, also of one in which some directions do not vary."""
    root: Tensor = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(len(covariance)).to(covariance))
    return root


def covariance_solved(gradients: Tensor, covariance: Tensor, targets: Sequence[int]) -> Tensor:
    """Steps that change one attribute each by one z-score and hold all others.

    Args:
        gradients: …×K×D, in z-scores per unit of w.
        covariance: D×D; or variances, (D,), of what varies independently.
        targets: Which P of the K attributes to move; the others are only held.

    Returns:
        …×P×D, in the order of ``targets``.

    Raises:
        ConfigError: If the gradients are not independent, so that an attribute cannot be moved by itself.
    """
    patterns = gradients * covariance if covariance.ndim == 1 else gradients @ covariance
    gram = patterns @ gradients.mT
    scale = torch.linalg.diagonal(gram).clamp(min=1e-300).sqrt()
    correlation = gram / scale[..., None] / scale[..., None, :]
    if bool((torch.linalg.eigvalsh(correlation)[..., 0] < 1e-9).any()):
        raise ConfigError(
            "the attributes' gradients depend on each other; set the finder's hold to fewer attributes, or, "
            "with a guide, identity_axes to fewer"
        )
    steps: Tensor = torch.linalg.solve(gram, patterns)
    return steps[..., list(targets), :]


def covariance_solved_by_layer(gradients: Tensor, covariance: Tensor, targets: Sequence[int]) -> Tensor:
    """:func:`covariance_solved` where each style layer takes a step of its own, as if layers varied independently.

    A layer's step is the larger, the more the layer changes the attribute; Yang et al. (2021, "Semantic hierarchy
    emerges in deep generative representations for scene synthesis") found that layers do different things.

    Args:
        gradients: …×K×L×D.
        covariance: D×D.
        targets: Which P of the K attributes to move.

    Returns:
        …×P×L×D.
    """
    by_layer = torch.kron(torch.eye(gradients.shape[-2]).to(covariance), covariance)
    steps = covariance_solved(gradients.flatten(-2), by_layer, targets)
    return steps.reshape(*steps.shape[:-1], *gradients.shape[-2:])


def ridge_gradients(covariance: Tensor, cross: Tensor, penalty: float) -> Tensor:
    """Gradients of linear predictions of scores from w (ridge regression; Hoerl & Kennard, 1970).

    Args:
        covariance: Of w, D×D.
        cross: Covariance of w with the scores, D×K.
        penalty: Weight of the squared coefficients, as a share of the mean variance of w.

    Returns:
        K×D, in the scores' unit per unit of w.
    """
    size = len(covariance)
    penalised = covariance + penalty * torch.trace(covariance) / size * torch.eye(size).to(covariance)
    weights: Tensor = torch.linalg.solve(penalised, cross)
    return weights.mT

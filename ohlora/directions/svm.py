"""Linear SVMs between the samples that score highest and lowest, many at once, from streamed sums.

The boundary between faces that show an attribute and faces that do not is a hyperplane in latent space, and its normal
the direction that changes the attribute (Shen et al., 2020, "Interpreting the Latent Space of GANs for Semantic Face
Editing"). The objective is scikit-learn's LinearSVC: with x = (w, 1), so that the intercept is penalised, and labels
y = ±1,

    ½‖θ‖² + C Σ max(0, 1 − y θᵀx)²

It is piecewise quadratic, so Newton's method ends after a handful of steps (Keerthi & DeCoste, 2005). Each step needs
the sums of one pass over the samples; no sample is kept.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ohlora.utils import counted

TRAINING, VALIDATION = 1, 2
"""Size of a class label: its sign is the class, 0 is in neither."""
STEPS = tuple(0.5**k for k in range(12))
"""Step lengths that the line search tries, longest first."""
ARMIJO = 1e-4
ROUNDING = 1e-13
"""Relative error of a loss; the search must not stop for less."""
TOLERANCE = 1e-10
"""A problem is solved when its gradient is below this share of the gradient at the start."""
PASSES = 100


def class_size(count: int, fraction: float) -> int:
    """Samples in each of the two classes, of ``count`` samples: max(⌊fraction · count⌋, 1)."""
    return max(int(fraction * count + 1e-9), 1)


def training_size(size: int, share: float) -> int:
    """Samples of a class of ``size`` that train; the others validate."""
    return int(share * size + 1e-9)


def classes(
    scores: np.ndarray, group: np.ndarray, count: int, fraction: float, training_share: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Who is in which class: per group and attribute, the share that scores highest and the share that scores lowest.

    Equal scores are ordered by index. Which members of a class validate is a function of (seed, group, attribute).

    Args:
        scores: N×P.
        group: N indices of groups; a negative one belongs to none.
        count: Number of groups.
        fraction: Share of a group in each class, 0…0.5.
        training_share: Share of a class that trains.
        seed: Seed of the split.

    Returns:
        N×P int8: ±1 trains, ±2 validates, 0 is in neither class; positive is the class that scores highest.

    Raises:
        ValueError: If a score is the same throughout a group, or a group is too small for two classes.
    """
    label = np.zeros(scores.shape, dtype=np.int8)
    for g in range(count):
        members = np.flatnonzero(group == g)
        size = class_size(len(members), fraction)
        if len(members) < 2 * size:
            raise ValueError(f"group {g} has {len(members)} samples; expected at least {2 * size} for two classes")
        for p in range(scores.shape[1]):
            values = scores[members, p]
            if values.min() == values.max():
                raise ValueError(f"column {p} is {values[0]} throughout group {g}: nothing can be learned from it")
            order = members[np.argsort(values, kind="stable")]
            for sign, chosen in ((1, order[::-1][:size]), (-1, order[:size])):
                shuffled = chosen[counted.permutation(seed, f"split/{g}/{p}/{sign}", 0, size)]
                train = training_size(size, training_share)
                label[shuffled[:train], p] = sign * TRAINING
                label[shuffled[train:], p] = sign * VALIDATION
    return label


class SVMs:
    """G×P linear SVMs, solved together.

    Each pass gives :meth:`update` all samples, in any order and any parts; then the tensors of :attr:`sums` are added
    up over processes, and :meth:`finish_pass` takes one step. Sums are float64.

    Args:
        groups: Number of groups G.
        properties: Number of attributes P.
        size: Length D of w.
        c: Weight C of the losses.
        device: Where the sums are.

    Attributes:
        weights: θ of each problem, G×P×(D+1); the last entry is the intercept.
        passes: Passes done.
        correct: Samples on the right side of ``weights``' plane at the last pass, G×P×2 (training, validation).
        total: Samples in the classes, G×P×2.
    """

    def __init__(
        self, groups: int, properties: int, size: int, c: float = 1.0, device: torch.device | str = "cpu"
    ) -> None:
        shape = (groups, properties)
        self.c, self.passes = c, 0
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self.weights = zeros(*shape, size + 1)
        self._step = torch.zeros_like(self.weights)
        self._known_loss = torch.full_like(zeros(shape), torch.inf)
        self._slope, self._scale = zeros(shape), zeros(shape)
        self._solved = zeros(shape).bool()
        self._losses = zeros(len(STEPS), *shape)
        self._gradient = torch.zeros_like(self.weights)
        self._hessian = zeros(*shape, size + 1, size + 1)
        self._hits = zeros(*shape, 2, 2)
        self.correct, self.total = zeros(*shape, 2), zeros(*shape, 2)

    @property
    def sums(self) -> list[Tensor]:
        """What a pass adds up; to be reduced over processes before :meth:`finish_pass`."""
        return [self._losses, self._gradient, self._hessian, self._hits]

    def state(self) -> dict[str, Tensor]:
        """Where it stands between passes."""
        return {
            "weights": self.weights,
            "step": self._step,
            "known_loss": self._known_loss,
            "slope": self._slope,
            "scale": self._scale,
            "solved": self._solved,
            "passes": torch.tensor(self.passes),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes back to where :meth:`state` was taken."""
        self.passes = int(state["passes"])
        for name, tensor in self.state().items():
            if name != "passes":
                tensor.copy_(state[name])

    def update(self, w: Tensor, group: Tensor, label: Tensor) -> None:
        """Adds samples to the sums.

        Args:
            w: N×D.
            group: N indices of groups.
            label: N×P from :func:`classes`.
        """
        x = torch.cat([w.double(), w.new_ones(len(w), 1, dtype=torch.float64)], dim=1)
        for g in range(len(self.weights)):
            members = group == g
            if not members.any():
                continue
            x_g, label_g = x[members], label[members]
            at, along = x_g @ self.weights[g].T, x_g @ self._step[g].T
            y = label_g.sign().double()
            for p in range(label.shape[1]):
                chosen = label_g[:, p].abs() == TRAINING
                x_p, y_p = x_g[chosen], y[chosen, p]
                before, change = y_p * at[chosen, p], y_p * along[chosen, p]
                for k, step in enumerate(STEPS):
                    self._losses[k, g, p] += (1 - before - step * change).clamp(min=0).square().sum()
                gap = (1 - before - change).clamp(min=0)
                active = gap > 0
                x_a = x_p[active]
                self._gradient[g, p] -= 2 * self.c * (x_a.T @ (y_p * gap)[active])
                self._hessian[g, p] += 2 * self.c * (x_a.T @ x_a)
            right = (y * (at + along) > 0).double()
            for k, part in enumerate((TRAINING, VALIDATION)):
                inside = (label_g.abs() == part).double()
                self._hits[g, :, k, 0] += (right * inside).sum(dim=0)
                self._hits[g, :, k, 1] += inside.sum(dim=0)

    def finish_pass(self) -> bool:
        """Takes one Newton step per problem from the sums of a pass.

        Returns:
            Whether all are solved.

        Raises:
            ArithmeticError: If they are not after a hundred passes.
        """
        self.passes += 1
        lengths = self.weights.new_tensor(STEPS)[:, None, None]
        points = self.weights + lengths[..., None] * self._step
        losses = points.square().sum(dim=-1) / 2 + self.c * self._losses
        # The first length whose loss falls enough. None does only where rounding is all that is left to gain.
        slack = ROUNDING * torch.nan_to_num(self._known_loss, posinf=0.0)
        enough = losses <= self._known_loss + ARMIJO * lengths * self._slope + slack
        first = enough.double().argmax(dim=0)
        moved = enough.any(dim=0)
        whole = (first == 0) & moved
        length = torch.where(moved, lengths[:, 0, 0][first], 0.0)
        self.weights += length[..., None] * self._step
        # Gradient and Hessian were summed for the whole step; where it was shortened, the next pass sums them anew.
        self._known_loss = torch.where(whole, losses[0], torch.inf)
        gradient = self.weights + self._gradient
        hessian = self._hessian + torch.eye(self._hessian.shape[-1]).to(self._hessian)
        if self.passes == 1:
            self._scale = gradient.norm(dim=-1).clamp(min=1e-300)
        self._solved |= (whole & (gradient.norm(dim=-1) <= TOLERANCE * self._scale)) | ~moved
        direction = -torch.linalg.solve(hessian, gradient)
        go = whole & ~self._solved
        # A restored step is contiguous; a solver's is not, and products of the two layouts can differ in the last bit.
        self._step = torch.where(go[..., None], direction, 0.0).contiguous()
        self._slope = torch.where(go, (gradient * direction).sum(dim=-1), 0.0)
        self.correct, self.total = self._hits[..., 0].clone(), self._hits[..., 1].clone()
        for tensor in self.sums:
            tensor.zero_()
        if bool(self._solved.all()):
            return True
        if self.passes >= PASSES:
            raise ArithmeticError(f"{int((~self._solved).sum())} SVMs are not solved after {PASSES} passes")
        return False

    def directions(self) -> Tensor:
        """Unit normals of the planes, pointing upwards: G×P×D float64."""
        return torch.nn.functional.normalize(self.weights[..., :-1], dim=-1)


def svm_direction(w: np.ndarray, scores: np.ndarray, fraction: float = 0.2, c: float = 1.0) -> np.ndarray:
    """The direction along which a score rises, as the normal of a linear SVM between its highest and lowest samples.

    All of both classes trains; see the module for objective and source.

    Args:
        w: Style codes, N×D.
        scores: N scores; equal ones are ordered by index.
        fraction: Share of the samples in each class, 0…0.5.
        c: Weight of the losses against the norm.

    Returns:
        Unit vector (D,), float64, pointing upwards.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or the scores are all equal.
    """
    w, scores = np.asarray(w), np.asarray(scores)
    if w.ndim != 2 or scores.shape != (len(w),):
        raise ValueError(f"w has shape {w.shape} and scores {scores.shape}; expected (N, D) and (N,)")
    if not (np.isfinite(w).all() and np.isfinite(scores).all()):
        raise ValueError("w or scores hold values that are not finite; leave those samples out")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction is {fraction}; expected above 0 and at most 0.5")
    group = np.zeros(len(w), dtype=np.int64)
    label = torch.from_numpy(classes(scores[:, None], group, 1, fraction))
    solver = SVMs(1, 1, w.shape[1], c)
    samples = torch.from_numpy(w.astype(np.float64))
    while True:
        solver.update(samples, torch.from_numpy(group), label)
        if solver.finish_pass():
            return solver.directions()[0, 0].numpy()

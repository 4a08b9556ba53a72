"""How :class:`ohlora.modules.directions.DirectionSearch` searches: over scored samples, or by gradients."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import EXPRESSIONS, GROUPING
from ohlora.datamodules.samples import Samples
from ohlora.directions.covariance import covariance_solved, covariance_solved_by_layer
from ohlora.directions.edits import Grid, added
from ohlora.directions.groups import UNGROUPED, Groups
from ohlora.directions.local import LocalBasis
from ohlora.directions.moments import Moments
from ohlora.directions.sampled import MeanDifferences, Ridges
from ohlora.directions.svm import SVMs, class_size, classes, training_size
from ohlora.errors import ConfigError, DataError
from ohlora.formats import sample_files
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_latents, score_gradients
from ohlora.pipeline import require
from ohlora.utils import counted, figures

Method = Literal["svm", "mean_difference", "random", "ridge", "jacobian", "local", "label"]
GRADIENT_METHODS = ("jacobian", "local")
Shown = tuple[dict[str, float], dict[str, np.ndarray], dict[str, list[dict[str, Any]]]]


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; see :class:`ohlora.modules.directions.DirectionSearch`."""

    method: Method
    targets: tuple[str, ...]
    hold: tuple[str, ...] | None
    group_by: tuple[str, ...]
    medians: str | None
    fraction: float
    training_share: float
    c: float
    penalty: float
    small_groups: Literal["ungrouped", "raise"]
    latents: int
    rounds: int
    covariance_count: int
    points: int
    local_rounds: int
    share: float
    seed: int

    def held(self, outputs: Sequence[str]) -> list[str]:
        """Which measured attributes enter the solution: targets first, then what must not change.

        Raises:
            ConfigError: If one is not measured.
        """
        wanted = [*self.targets, *(outputs if self.hold is None else self.hold)]
        unknown = [name for name in wanted if name not in outputs]
        if unknown:
            raise ConfigError(f"there is no score for {', '.join(unknown)}; there are {', '.join(outputs)}")
        return list(dict.fromkeys(wanted))


def group_rule(group_by: Sequence[str], path: Path) -> Groups:
    """The grouping rule, from the medians that sampling wrote.

    Raises:
        MissingArtifactError: If there are none.
        ConfigError: If one is missing.
    """
    if not group_by:
        return Groups()
    require(path)
    known = json.loads(path.read_text(encoding="utf-8"))["median"]
    missing = [name for name in group_by if name not in known]
    if missing:
        raise ConfigError(f"{path} has no median of {', '.join(missing)}; it has {', '.join(known)}")
    return Groups(tuple(group_by), tuple(known[name] for name in group_by))


class Search(ABC):
    """A search, pass by pass.

    Attributes:
        passes: Passes done.
        seen: Samples or latents in a pass.
    """

    passes: int
    seen: int
    groups: Groups

    @property
    @abstractmethod
    def sums(self) -> list[Tensor]:
        """What a pass adds up; to be reduced over processes before :meth:`finish_pass`."""

    @abstractmethod
    def add(self, batch: dict[str, Tensor]) -> None:
        """Adds a batch to the sums."""

    @abstractmethod
    def finish_pass(self) -> bool:
        """Goes one step on from the sums; whether that was the last."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Where it stands between passes."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where :meth:`state` was taken."""

    @abstractmethod
    def steps(self, layers: tuple[int, int] | None) -> Tensor:
        """Steps found, G×P×D, for a range of style layers (first and last) or for all."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """From what."""

    def basis(self) -> LocalBasis | None:
        """What edits at single latents start from, where the method makes them."""
        return None

    def shown(self) -> Shown:
        """Figures, pictures and tables of the search itself."""
        return {}, {}, {}


class SampleSearch(Search):
    """Streams scored samples: ``svm``, ``mean_difference``, ``ridge`` and ``random``."""

    def __init__(self, settings: SearchSettings, data: Samples, device: torch.device) -> None:
        self.settings, self.data = settings, data
        self.seen = len(data.scores)
        self.held = settings.held(data.outputs)
        self.groups = group_rule(
            settings.group_by, Path(settings.medians or data.existing_folder / sample_files.MEDIANS)
        )
        try:
            group = self.groups.assign(data.outputs, data.scores)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.sizes = np.bincount(group, minlength=len(self.groups.names))
        self.fallback = [g for g, size in enumerate(self.sizes) if not self._large_enough(size, data.w_dim)]
        self._say_small()
        self._assignments: list[tuple[Tensor, Tensor]] = []
        count = len(self.groups.names)
        self._assign(np.where(np.isin(group, self.fallback), -1, group))
        if self.fallback:
            self._assign(np.full(len(group), count))
        problems, targets = count + bool(self.fallback), len(settings.targets)
        self.moments = Moments(data.w_dim, device=device)
        scores = torch.from_numpy(data.scores[:, self._columns(self.held)]).double()
        self._deviations = scores.std(dim=0, correction=0).to(device)
        self.solver: SVMs | MeanDifferences | Ridges | None = None
        if settings.method == "svm":
            self.solver = SVMs(problems, targets, data.w_dim, settings.c, device)
        elif settings.method == "mean_difference":
            self.solver = MeanDifferences(problems, targets, data.w_dim, device)
        elif settings.method == "ridge":
            self.solver = Ridges(problems, data.w_dim, len(self.held), device)
        self.passes = 0

    def _columns(self, names: Sequence[str]) -> list[int]:
        return [self.data.outputs.index(name) for name in names]

    def _large_enough(self, size: int, w_dim: int) -> bool:
        method = self.settings.method
        if method == "random":
            return True
        if method == "ridge":
            return size > w_dim + len(self.held)
        of_class = class_size(size, self.settings.fraction)
        train = training_size(of_class, self._training_share)
        return size >= 2 * of_class and train >= 1 and (method != "svm" or train < of_class)

    @property
    def _training_share(self) -> float:
        return self.settings.training_share if self.settings.method == "svm" else 1.0

    def _say_small(self) -> None:
        if not self.fallback:
            return
        names = self.groups.names
        small = ", ".join(f"{names[g]} ({self.sizes[g]})" for g in self.fallback)
        said = f"too few samples in {len(self.fallback)} of {len(names)} groups: {small}"
        if self.settings.small_groups == "raise" or len(self.fallback) == len(names) == 1:
            raise DataError(f"{said}; take more samples, fewer grouping attributes or a larger fraction")
        if self.data.trainer is not None and self.data.trainer.is_global_zero:
            print(f"{said}; they get the direction of all samples")

    def _assign(self, group: np.ndarray) -> None:
        """Adds a way of sorting all samples into problems, with what the solver takes for each sample."""
        if self.settings.method in ("ridge", "random"):
            target = torch.from_numpy(self.data.scores[:, self._columns(self.held)])
        else:
            present = np.unique(group[group >= 0])
            place = {int(g): k for k, g in enumerate(present)}
            compact = np.array([place.get(int(g), -1) for g in group])
            scores = self.data.scores[:, self._columns(self.settings.targets)]
            fraction, seed = self.settings.fraction, self.settings.seed
            try:
                label = classes(scores, compact, len(present), fraction, self._training_share, seed)
            except ValueError as error:
                names = (*self.groups.names, UNGROUPED)
                listed = ", ".join(f"{k} {names[g]}" for k, g in enumerate(present))
                raise DataError(f"{error} (attributes {', '.join(self.settings.targets)}; groups {listed})") from error
            target = torch.from_numpy(label)
        self._assignments.append((torch.from_numpy(group), target))

    @property
    def sums(self) -> list[Tensor]:
        """Those of the solver and, in the first pass, of the covariance."""
        of_solver = self.solver.sums if self.solver is not None else []
        return [*of_solver, *(self.moments.sums if self.passes == 0 else [])]

    def add(self, batch: dict[str, Tensor]) -> None:
        """Adds ``index`` and ``w``."""
        w, index = batch["w"], batch["index"].cpu()
        if self.passes == 0:
            self.moments.update(w)
        if self.solver is not None:
            for group, target in self._assignments:
                self.solver.update(w, group[index].to(w.device), target[index].to(w.device))

    def finish_pass(self) -> bool:
        """One step of the solver."""
        if self.passes == 0 and self.moments.count != self.seen:
            raise DataError(f"{self.moments.count} of {self.seen} samples were seen in a pass; start anew")
        self.passes += 1
        try:
            return self.solver is None or self.solver.finish_pass()
        except ArithmeticError as error:
            raise DataError(f"{error}; look at the scores of {self.data.folder}") from error

    def state(self) -> dict[str, Any]:
        """Only SVMs take more than one pass."""
        solver = self.solver.state() if isinstance(self.solver, SVMs) else {}
        return {"passes": self.passes, "solver": solver, "moments": self.moments.sums}

    def restore(self, state: dict[str, Any]) -> None:
        """Before the first pass has ended there is nothing to restore."""
        self.passes = int(state["passes"])
        if self.passes and isinstance(self.solver, SVMs):
            self.solver.restore(state["solver"])
            for tensor, known in zip(self.moments.sums, state["moments"], strict=True):
                tensor.copy_(known)

    @property
    def chosen(self) -> list[int]:
        """The problem whose direction each group takes."""
        count = len(self.groups.names)
        return [count if g in self.fallback else g for g in range(count)]

    def steps(self, layers: tuple[int, int] | None) -> Tensor:
        """The same for any layers: samples do not tell them apart."""
        settings = self.settings
        if isinstance(self.solver, Ridges):
            targets = [self.held.index(name) for name in settings.targets]
            try:
                steps = self.solver.steps(self.moments.covariance, self._deviations, targets, settings.penalty)
            except ValueError as error:
                raise ConfigError(f"{error}: set model.init_args.hold") from error
            return steps[self.chosen]
        if self.solver is None:
            shape = (len(self.groups.names), len(settings.targets), self.data.w_dim)
            drawn = counted.generator(settings.seed, "random directions", 0).standard_normal(shape)
            vectors = torch.nn.functional.normalize(torch.from_numpy(drawn), dim=-1).to(self.moments.mean)
        else:
            vectors = self.solver.directions()[self.chosen]
        variances = torch.einsum("gpd,de,gpe->gp", vectors, self.moments.covariance, vectors)
        return vectors * variances.clamp(min=0).sqrt()[..., None]

    def provenance(self) -> dict[str, Any]:
        """Samples, passes, settings, and the groups without a direction of their own."""
        said: dict[str, Any] = {"samples": self.seen, "passes": self.passes, "seed": self.settings.seed}
        if self.settings.method in ("svm", "mean_difference"):
            said |= {"fraction": self.settings.fraction}
        return {**said, "ungrouped": [self.groups.names[g] for g in self.fallback]}

    def shown(self) -> Shown:
        """Accuracies of the SVMs by group and attribute."""
        metrics: dict[str, float] = {"passes": self.passes, "groups_without_own_direction": len(self.fallback)}
        if not isinstance(self.solver, SVMs):
            return metrics, {}, {}
        names = self.groups.names
        right, total = self.solver.correct[self.chosen].cpu(), self.solver.total[self.chosen].cpu()
        rows: list[dict[str, Any]] = []
        own = [g for g in range(len(names)) if g not in self.fallback] or [*range(len(names))]
        for p, name in enumerate(self.settings.targets):
            for g, group in enumerate(names):
                row = {"group": group, "attribute": name, "samples": int(self.sizes[g])}
                row |= {"own_direction": int(g not in self.fallback)}
                for k, part in enumerate(("training", "validation")):
                    share = float(right[g, p, k] / total[g, p, k])
                    row |= {f"{part}_count": int(total[g, p, k]), f"{part}_accuracy": round(share, 4)}
                rows.append(row)
            for k, part in enumerate(("training", "validation")):
                metrics[f"{part}_accuracy/{name}"] = float(right[own, p, k].sum() / total[own, p, k].sum())
        accuracy = np.array([[row["validation_accuracy"] for row in rows if row["group"] == g] for g in names])
        heat = figures.heat_map(accuracy, names, self.settings.targets, "validation accuracy", (0, 1))
        return metrics, {"accuracy": heat}, {"search": rows}


class GradientSearch(Search):
    """Averages the gradients of the search CNN through the generator: ``jacobian``, and what ``local`` starts from.

    The first pass takes them at the latents themselves; later passes at latents edited with the steps found so far, by
    random strengths of the grid, since that is where the steps must hold. The steps come from the mean of all passes
    but the first. It costs latents × passes images, with a backward pass per attribute.
    """

    def __init__(
        self,
        settings: SearchSettings,
        generator: Generator,
        network: AttributeCNN | AttributeEnsemble,
        grid: Grid,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.settings, self.generator, self.network, self.batch_size = settings, generator, network, batch_size
        self.seen, self.passes, self.device = settings.latents, 0, device
        self.held = settings.held(network.outputs)
        if settings.group_by and not settings.medians:
            raise ConfigError("group_by needs the samples' medians; set model.init_args.medians, or group_by to []")
        self.groups = group_rule(settings.group_by, Path(settings.medians or ""))
        levels = [grid.levels[name] for name in settings.targets]
        self.low, self.high = (torch.tensor([end(v) for v in levels]) for end in (min, max))
        shape = (len(self.groups.names), len(self.held), generator.num_ws, generator.w_dim)
        self._gradients = torch.zeros(shape, dtype=torch.float64, device=device)
        self._counts = torch.zeros(shape[0], dtype=torch.float64, device=device)
        self._scores = Moments(len(self.held), device=device)
        self._total = torch.zeros_like(self._gradients)
        self._deviations: Tensor = torch.ones(shape[1], dtype=torch.float64, device=device)
        self._group_of: dict[int, int] = {}
        self.covariance = self._covariance()

    def _codes(self, stream: str, indices: Sequence[int]) -> Tensor:
        with torch.no_grad():
            latents = counted_latents(self.generator, self.settings.seed, indices, f"{stream}/")
            return self.generator.map(*latents).values

    def _covariance(self) -> Tensor:
        """Of w over latents of their own; no image is made."""
        moments = Moments(self.generator.w_dim, device=self.device)
        count = self.settings.covariance_count
        for first in range(0, count, 1000):
            moments.update(self._codes("covariance", range(first, min(first + 1000, count))))
        return moments.covariance

    @property
    def sums(self) -> list[Tensor]:
        """Gradients, latents per group and, in the first pass, scores."""
        return [self._gradients, self._counts, *(self._scores.sums if self.passes == 0 else [])]

    def add(self, batch: dict[str, Tensor]) -> None:
        """Adds ``index``, numbers of latents."""
        indices = batch["index"].tolist()
        w = self._codes("search", indices)
        codes = w[:, None].expand(-1, self.generator.num_ws, -1)
        if self.passes:
            random = counted.generators(self.settings.seed, f"search/strengths/{self.passes}", indices)
            uniform = torch.from_numpy(np.stack([r.random(len(self.settings.targets)) for r in random]))
            strengths = torch.lerp(self.low.double(), self.high.double(), uniform).to(w)
            group = torch.tensor([self._group(index) for index in indices], device=self.device)
            codes = added(w, strengths[:, None], self.steps_by_layer()[group])[:, 0]
        places = [self.network.outputs.index(name) for name in self.held]
        scores, gradients = score_gradients(
            self.generator, self.network, Codes(codes, Space.W_BY_LAYER), places, self.batch_size
        )
        if not self.passes:
            self._scores.update(scores[:, places])
            found = self.groups.assign(self.network.outputs, scores.cpu().numpy())
            self._group_of |= dict(zip(indices, found.tolist(), strict=True))
        group = torch.tensor([self._group(index) for index in indices], device=self.device)
        self._gradients.index_add_(0, group, gradients.double())
        self._counts.index_add_(0, group, torch.ones_like(group, dtype=torch.double))

    def _group(self, index: int) -> int:
        """The group of a latent: of its unedited image, which a resumed run looks at again."""
        if index not in self._group_of:
            with torch.no_grad():
                code = Codes(self._codes("search", [index]), Space.W)
                scores = self.network(self.generator.synthesize(code).clamp(-1, 1))
            self._group_of[index] = int(self.groups.assign(self.network.outputs, scores.cpu().numpy())[0])
        return self._group_of[index]

    def finish_pass(self) -> bool:
        """Takes the means; the end after all rounds."""
        empty = [name for name, count in zip(self.groups.names, self._counts.tolist(), strict=True) if not count]
        if empty:
            raise DataError(
                f"no latent of {self.seen} is in group {', '.join(empty)}; take more latents or fewer groups"
            )
        mean = self._gradients / self._counts[:, None, None, None]
        if self.passes == 0:
            self._deviations = torch.linalg.diagonal(self._scores.covariance).sqrt()
            if not bool((self._deviations > 0).all()):
                raise DataError("a score of the search CNN is the same for all latents: nothing can be learned from it")
        self._total = mean if self.passes <= 1 else self._total + mean
        self.passes += 1
        for tensor in (self._gradients, self._counts):
            tensor.zero_()
        return self.passes >= self.settings.rounds

    @property
    def gradients(self) -> Tensor:
        """Mean gradients in standard deviations, G×K×L×D."""
        deviations = self._deviations[:, None, None] * max(1, self.passes - 1)
        return self._total / deviations

    @property
    def _targets(self) -> list[int]:
        return [self.held.index(name) for name in self.settings.targets]

    def steps(self, layers: tuple[int, int] | None) -> Tensor:
        """Steps for a range of layers, which hold what else these layers would move."""
        first, last = layers or (0, self.generator.num_ws - 1)
        together = self.gradients[:, :, first : last + 1].sum(dim=2)
        try:
            return covariance_solved(together, self.covariance, self._targets)
        except ValueError as error:
            raise ConfigError(f"{error}: set model.init_args.hold") from error

    def steps_by_layer(self) -> Tensor:
        """Steps in which each layer has a part of its own: G×P×L×D."""
        try:
            return covariance_solved_by_layer(self.gradients, self.covariance, self._targets)
        except ValueError as error:
            raise ConfigError(f"{error}: set model.init_args.hold") from error

    def state(self) -> dict[str, Any]:
        """Gradients so far, and the scores' sums."""
        return {"passes": self.passes, "total": self._total, "scores": self._scores.sums}

    def restore(self, state: dict[str, Any]) -> None:
        """Before the first pass has ended there is nothing to restore."""
        self.passes = int(state["passes"])
        if self.passes:
            self._total.copy_(state["total"])
            for tensor, known in zip(self._scores.sums, state["scores"], strict=True):
                tensor.copy_(known)
            self._deviations = torch.linalg.diagonal(self._scores.covariance).sqrt()

    def provenance(self) -> dict[str, Any]:
        """Latents, passes and seed."""
        return {
            "latents": self.seen,
            "passes": self.passes,
            "images": self.seen * self.passes,
            "held": self.held,
            "seed": self.settings.seed,
        }

    def basis(self) -> LocalBasis | None:
        """For ``local``: the mean gradients, and how to take a latent's own."""
        if self.settings.method != "local":
            return None
        if len(self.groups.names) > 1:
            raise ConfigError("local edits are a latent's own and need no groups; set group_by to []")
        return LocalBasis(
            tuple(self.held),
            self.gradients[0].cpu(),
            self.covariance.cpu(),
            self._deviations.cpu(),
            self.settings.points,
            self.settings.local_rounds,
            self.settings.share,
            self.low,
            self.high,
            self.settings.seed,
        )

    def shown(self) -> Shown:
        """How strongly each layer moves each attribute."""
        along = torch.einsum("gkld,de,gkle->gkl", self.gradients, self.covariance, self.gradients)
        reach = along.mean(dim=0).clamp(min=0).sqrt().cpu().numpy()
        names = [f"{layer}" for layer in range(reach.shape[1])]
        title = "change by one standard deviation of w in a layer"
        heat = figures.heat_map(reach, self.held, names, title, (-1, 1))
        rows = [
            {"attribute": name, **{f"layer_{k}": round(float(v), 4) for k, v in enumerate(row)}}
            for name, row in zip(self.held, reach, strict=True)
        ]
        return {"passes": self.passes}, {"layers_of_attributes": heat}, {"layers_of_attributes": rows}


def defaults(attributes: Sequence[str] | None, group_by: Sequence[str] | None, method: Method) -> tuple[Any, Any]:
    """What is edited and by what samples are grouped, where nothing is said: gradient methods do not group."""
    usual = () if method in GRADIENT_METHODS else GROUPING
    return tuple(EXPRESSIONS if attributes is None else attributes), tuple(usual if group_by is None else group_by)

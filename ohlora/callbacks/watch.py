"""Watching a generator in training: how good is it, does it fit the concept, and is it still varied?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ohlora import handover
from ohlora.attributes import vocabulary
from ohlora.callbacks.grids import Averaging, LooksAtGenerator
from ohlora.callbacks.writers import mark, promoted, save_in_run
from ohlora.datamodules.base import ImageDataModule, random_batches
from ohlora.errors import ConfigError
from ohlora.evaluation.features import Features, Penultimate, RandomFeatures, mean_pairwise_distance
from ohlora.evaluation.generators import MEASURES, Observed, Observer, Reals, spread_picture, spread_summary
from ohlora.evaluation.manifolds import LEAST
from ohlora.evaluation.scores import pearson, score_correlations
from ohlora.formats import network_files
from ohlora.formats.feature_files import FeatureNetwork
from ohlora.networks.sampling import counted_batches
from ohlora.rules import Rule, all_hold, concept
from ohlora.tracking import run_folder, run_loggers
from ohlora.utils import checks, figures

BEST = "best_generator.safetensors"
GENERATOR = "generator.safetensors"
"""Name of a stage's product."""
BestBy = Literal[
    "concept_rate",
    "frechet_distance",
    "kernel_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "untrained_distance",
    "spread_mean",
    "spread_min",
]
MOMENTS = 20
"""Moments in a picture of the course, at most."""


@dataclass
class Look:
    """What was measured at a moment.

    Attributes:
        now: Images seen in training by then.
        shown: Metric → value, as logged below ``watch/``.
        spread: A row per attribute, see :meth:`ohlora.evaluation.generators.Reals.table`.
        pictures: How attributes, and labels and attributes, go together: heat maps.
        tables: The same as tables.
    """

    now: int
    shown: dict[str, float]
    spread: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Watch(LooksAtGenerator):
    """Measures the averaged generator before the first step, every so many kimg, and at the end.

    The same latents and the same real images are taken each time, so that the figures of a run can be compared. The
    real images are those that the data holds out; where there are none, training images.

    Metrics, logged as ``watch/…``: Fréchet and kernel distance, precision, recall, density and coverage on the features
    of a network, and ``untrained_distance``, which no generator can deceive, with their floors (``floor/…``; see
    :mod:`ohlora.evaluation.generators`). Where ``properties`` are given, per attribute ``spread/…`` and ``reached/…``,
    and ``spread_mean`` and ``spread_min``. **Diversity**, the mean pairwise distance of the features, relative to the
    start, or in training from scratch to the real images. For a fine-tune ``spread_kept/…``, the standard deviation of
    each expression relative to the start. Where ``filters`` are given, or the world's concept has conditions on what
    ``properties`` predict, their mean scores and the **concept rate**, the share of images that pass all rules (those
    of the concept, as the world declares them, and the recipe's). For a generator with labels that are attributes, the
    correlation of each label with the measured attribute and its leakage, the mean absolute correlation with the
    others. Heat maps show how all measured attributes go together, and labels and attributes.

    ``concept_and_spread`` is the concept rate times the least share that is left of diversity and of the spread of an
    expression, at most 1: a single number, by which trainings can be compared.

    Where a fine-tune falls below a floor, an alert is sent and printed, once until it is above all floors again.

    The best generator is kept as ``best_generator.safetensors`` in the run's folder, and put beside the last when
    training is completed. Of a fine-tune, one below a floor is not the best.

    Args:
        filters: Files of the filter ensembles; the concept is judged by what they predict.
        properties: File of the property (or merged) CNN, which scores attributes.
        features: Network whose outputs are the features; None takes the hidden layers of ``properties``, or where that
            is None, too, a network with random weights.
        every_kimg: Interval in thousands of images; 0 measures at start and end only.
        recipe: The recipe's rules.
        count: Images that are generated, and as many real ones; the floor needs twice as many real ones.
        best: By which metric the best generator is chosen; None takes the concept rate where it is measured, and
            otherwise the Fréchet distance.
        diversity_floor: Least diversity of a fine-tune's best generator, as a share of the start's.
        spread_floor: Least spread of each expression of a fine-tune's best generator, as a share of the start's.
        seed: Seed of the latents and of the choice of real images.
        batch_size: Images made at once.
    """

    def __init__(
        self,
        filters: list[str] | None = None,
        properties: str | None = None,
        features: FeatureNetwork | None = None,
        every_kimg: float = 10.0,
        recipe: list[str] | None = None,
        count: int = 1000,
        best: BestBy | None = None,
        diversity_floor: float = 0.85,
        spread_floor: float = 0.85,
        seed: int = 0,
        batch_size: int = 50,
    ) -> None:
        super().__init__(every_kimg)
        checks.at_least(1, batch_size=batch_size)
        checks.at_least(2, count=count)
        checks.at_least(0, diversity_floor=diversity_floor, spread_floor=spread_floor)
        checks.seeds(seed=seed)
        self.filters = [network_files.load_attributes(path) for path in filters or []]
        filtered = [name for network in self.filters for name in network.outputs]
        known = vocabulary().names("filter")
        if len(set(filtered)) < len(filtered) or not set(filtered) <= set(known):
            expected = f"expected some of {', '.join(known) or 'none'}, each once"
            raise ConfigError(f"the filters predict {', '.join(filtered)}; {expected}")
        self.properties = [network_files.load_attribute_cnn(properties)] if properties is not None else []
        if properties is not None:
            handover.warn(properties, network_files.marks(properties))
        scored = [name for network in self.properties for name in network.outputs]
        ruled = {rule.attribute for rule in concept()} - {*filtered}
        self.concept = [*filtered, *(name for name in scored if name in ruled)]
        self.expressions = [name for name in vocabulary().names("expression") if name in scored]
        self.features: Features | None = None
        if features is not None:
            self.features = features.load()
        elif self.properties:
            self.features = Penultimate(self.properties[0])
        given = list(map(Rule.parse, recipe or []))
        declared = [rule for rule in concept() if rule.attribute in self.concept]
        rules = {"concept_rate": declared or given, "concept_rate_recipe": given or declared}
        self.rules = {name: self._applicable(found) for name, found in rules.items()} if self.concept else {}
        self.best: BestBy = best or ("concept_rate" if self.concept else "frechet_distance")
        needed: dict[str, Sequence[object]] = dict.fromkeys(("spread_mean", "spread_min"), self.properties)
        needed["concept_rate"] = self.concept
        if self.best in needed and not needed[self.best]:
            what = "filters, or properties with a keep" if self.best == "concept_rate" else "properties"
            raise ConfigError(f"best is {self.best}, which needs {what}")
        self.count, self.seed, self.batch_size = count, seed, batch_size
        self.diversity_floor, self.spread_floor = diversity_floor, spread_floor
        self.reals: Reals | None = None
        self._start: dict[str, float] | None = None
        self._best: tuple[str, float] | None = None
        self._latest: Look | None = None
        self._warned = False

    def _applicable(self, rules: Iterable[Rule]) -> list[Rule]:
        """The rules whose attribute is measured; insists on one at least."""
        found = [rule for rule in rules if rule.attribute in self.concept]
        if not found:
            said = ", ".join(map(str, rules)) or "none"
            raise ConfigError(
                f"no rule of {said} is about {', '.join(self.concept)}; expected at least one, in recipe or as keep in "
                f"{vocabulary().where}"
            )
        return found

    def state_dict(self) -> dict[str, Any]:
        """What was at the start, and the best so far, which a resumed run goes on comparing with."""
        return super().state_dict() | {"start": self._start, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` kept; a best by another metric is none."""
        super().load_state_dict(state_dict)
        self._start, best = state_dict["start"], state_dict["best"]
        self._best = tuple(best) if best is not None and best[0] == self.best else None

    # --- hooks

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks at untouched weights; the best of another run folder does not count where it is not at hand."""
        if not (run_folder(trainer) / BEST).is_file():
            self._best = None
        super().on_train_start(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the end, and puts the best generator beside the last, if training was completed."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero and getattr(pl_module, "whole", True):
            self._hand_over(trainer, getattr(pl_module, "from_scratch", False))
            promoted(trainer, BEST)

    def _hand_over(self, trainer: L.Trainer, from_scratch: bool) -> None:
        """Checks what the next stage gets, marks what is not fit, and says so."""
        rows = {row["attribute"]: row for row in self._latest.spread} if self._latest is not None else {}
        reasons: list[str] = []
        for check, what in (("spread", "its spread"), ("reached", "the share of the real range that is covered")):
            values = {name: rows[name][check] for name in self.expressions if name in rows}
            known = {name: value for name, value in values.items() if value is not None}
            reasons += handover.failing(check, known, what)
        failing = ["spread"] if reasons else []
        shown = self._latest.shown if self._latest is not None else {}
        floor = shown.get("floor/untrained_distance")
        if floor is not None and (unlike := handover.unlike(shown["untrained_distance"], floor)):
            reasons, failing = [*reasons, *unlike], [*failing, "pictures"]
        mark(trainer, GENERATOR, reasons)
        best = run_folder(trainer) / BEST
        seen = network_files.read_metadata(best)["provenance"]["images_seen"] / 1000 if best.is_file() else math.inf
        start = [] if from_scratch else handover.failing("trained", {BEST: seen}, "kimg seen")
        mark(trainer, BEST, [*reasons, *start])
        handover.warn(GENERATOR, reasons, *failing)
        handover.warn(BEST, start, *(["trained"] if start else []))

    def look(self, trainer: L.Trainer, stage: Averaging, now: int, final: bool) -> None:
        """Measures; at the end also shows what was found, with pictures of the course."""
        latest = self._latest
        if not final or latest is None or latest.now != now:
            latest = self._latest = self._measured(stage, now)
            self._keep_if_best(trainer, stage, latest)
            # Not self.log: Lightning refuses it at the start and at the end of training, and in between repeats the
            # last value in every row until there is another.
            for trainers_logger in trainer.loggers:
                watched = {f"watch/{name}": value for name, value in latest.shown.items()}
                trainers_logger.log_metrics(watched | _concept_and_spread(latest.shown))
            for logger in run_loggers(trainer):
                logger.record(latest.pictures)
            self._warn_below_floors(trainer, stage, latest)
        if final:
            self._conclude(trainer, stage, latest)

    # --- one look

    def _measured(self, stage: Averaging, now: int) -> Look:
        device = stage.G_ema.device
        features = self.features = self.features or RandomFeatures(stage.G_ema.resolution)
        if self.reals is None:
            observer = Observer(features, self.properties)
            self.reals = Reals(observer.observe(self._real_batches(stage.data), device), self.count)
            if not self.reals.enough:
                print(
                    f"too few images to compare a generator with ({len(self.reals.seen)}; expected at least {LEAST}): "
                    "distances, precision, recall, density, coverage and spread are left out"
                )
        labels: list[Tensor] = []

        def made() -> Iterator[Tensor]:
            for batch, label in counted_batches(stage.G_ema, self.seed, range(self.count), self.batch_size):
                labels.extend([] if label is None else [label.cpu()])
                yield batch

        seen = Observer(features, [*self.filters, *self.properties]).observe(made(), device)
        scores = dict(seen.scores)
        shown = {name: float(scores[name].mean()) for name in self.concept}
        shown |= {name: float(all_hold(rules, scores).mean()) for name, rules in self.rules.items()}
        shown |= self._compared_with_start(stage, seen)
        found = Look(now, shown)
        if self.reals.enough:
            found.spread = self.reals.table(seen)
            spreads = self.reals.spread(seen)
            shown |= self.reals.measures(seen)
            shown |= {f"floor/{name}": value for name, value in self.reals.floor.items()}
            shown |= {f"spread/{name}": value.spread for name, value in spreads.items()}
            shown |= {f"reached/{name}": value.reached for name, value in spreads.items()}
            shown |= spread_summary(spreads)
        if scores:
            found.pictures, found.tables = score_correlations(scores)
        if labels:
            shown |= self._conditioning(stage.data.label_names, torch.cat(labels), scores, found)
        return found

    def _real_batches(self, data: ImageDataModule) -> Iterator[Tensor]:
        """Real images to compare with, a random choice that is the same every time."""
        source = data.held_out
        if source is None:
            print("no images are held out: the generator is compared with images that it is trained on")
            source = data.train_set
        return random_batches(source, 2 * self.count, self.seed, "watch/reals", self.batch_size)

    def _compared_with_start(self, stage: Averaging, seen: Observed) -> dict[str, float]:
        """Diversity, and of a fine-tune the spread of the expressions, relative to the start.

        Random weights are no start to compare with: from scratch, the real images take its place.
        """
        assert self.reals is not None
        if self._start is None:
            self._start = self._variety(self.reals.seen if stage.from_scratch and self.reals.enough else seen)
        return {
            name: value / self._start[name]
            for name, value in self._variety(seen).items()
            if self._start.get(name, 0.0) > 0 and not (stage.from_scratch and name.startswith("spread_kept"))
        }

    def _variety(self, seen: Observed) -> dict[str, float]:
        """Mean pairwise distance of the features, and standard deviation of each expression."""
        deviations = {f"spread_kept/{name}": float(seen.scores[name].std()) for name in self.expressions}
        return {"diversity": mean_pairwise_distance(seen.features), **deviations}

    def _conditioning(
        self, names: Sequence[str], labels: Tensor, scores: Mapping[str, np.ndarray], found: Look
    ) -> dict[str, float]:
        """How each label moves the attribute it stands for, and how much it moves the other labels' attributes."""
        seen = [k for k, name in enumerate(names) if name in scores]
        if len(names) != labels.shape[1] or not seen:
            return {}
        names = [names[k] for k in seen]
        attributes = [*names, *(name for name in scores if name not in names)]
        table = pearson(labels[:, seen].numpy(), np.stack([scores[name] for name in attributes], axis=1))
        title = f"correlation of label and score, {len(labels):,} images"
        found.pictures["label_correlations"] = figures.heat_map(table, names, attributes, title)
        found.tables["label_correlations"] = figures.named_rows(table, names, attributes, "label")
        shown = {}
        for k, name in enumerate(names):
            shown[f"label_correlation/{name}"] = float(table[k, k])
            others = np.delete(table[k, : len(names)], k)
            shown[f"label_leakage/{name}"] = float(np.abs(others).mean()) if len(others) else 0.0
        return shown

    # --- the best

    def _keep_if_best(self, trainer: L.Trainer, stage: Averaging, look: Look) -> None:
        """Saves the generator if it is the best so far and above the floors; says so if only a floor is in the way."""
        value = look.shown.get(self.best, math.nan)
        rank = value if MEASURES.get(self.best, True) else -value  # more is better
        if math.isnan(rank) or (self._best is not None and rank <= self._best[1]):
            return
        if below := [] if stage.from_scratch else self._below_floors(look.shown):
            said = f"{look.now / 1000:.6g} kimg: {_words(self.best)} {value:.3g} is the best so far"
            print(f"{said}, but {', '.join(below)}: not kept as {BEST}")
            return
        self._best = self.best, rank
        provenance: dict[str, Any] = {"images_seen": look.now, "best_by": self.best}
        noted = [name for name in ("concept_rate", "diversity", self.best) if name in look.shown]
        provenance |= {name: round(look.shown[name], 4) for name in noted}
        save_in_run(trainer, BEST, stage.G_ema, provenance)

    def _below_floors(self, shown: Mapping[str, float]) -> list[str]:
        """What of a fine-tune's variety has been lost, in words."""
        floors = [("diversity", "the diversity", "diversity_floor", self.diversity_floor)]
        for name in self.expressions:
            floors.append((f"spread_kept/{name}", f"the spread of {name}", "spread_floor", self.spread_floor))
        return [
            f"{words} is {shown[name]:.2f} of the start's, below {setting} {floor:g}"
            for name, words, setting, floor in floors
            if shown.get(name, math.inf) < floor
        ]

    def _warn_below_floors(self, trainer: L.Trainer, stage: Averaging, look: Look) -> None:
        """Warns where variety has been lost since the last look."""
        below = [] if stage.from_scratch else self._below_floors(look.shown)
        if below and not self._warned:
            text = f"{look.now / 1000:.6g} kimg: {', '.join(below)}"
            print(text)
            for logger in run_loggers(trainer):
                logger.alert("the generator has lost variety", text)
        self._warned = bool(below)

    # --- the end

    def _conclude(self, trainer: L.Trainer, stage: Averaging, look: Look) -> None:
        headlines = ("concept_rate", "diversity") if self.concept else ("frechet_distance", "coverage", "spread_min")
        stage.headlines = [f"{_words(name)} {look.shown[name]:.3g}" for name in headlines if name in look.shown]
        tables = {"spread": look.spread, **look.tables}
        for logger in run_loggers(trainer):
            pictures = self._course(logger.history("watch/diversity"))
            if look.spread:
                pictures["spread"] = spread_picture(look.spread)
            logger.record(pictures, {name: rows for name, rows in tables.items() if rows})

    def _course(self, rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
        """The run's course as pictures, from the table in its folder."""
        if not rows:
            return {}
        rates = ["concept_rate"] if self.concept else []
        wanted = [*rates, "diversity", *self.concept, "recall", "coverage", "spread_min"]
        names = [f"watch/{name}" for name in wanted if all(f"watch/{name}" in row for row in rows)]
        pictures = {"watch": figures.curves(rows, names)}
        spreads = [name for name in rows[0] if name.startswith("watch/spread/") and all(name in row for row in rows)]
        if spreads:
            some = [rows[k] for k in np.unique(np.linspace(0, len(rows) - 1, MOMENTS).round().astype(int))]
            pictures["spread_course"] = figures.heat_map(
                np.array([[row[name] for row in some] for name in spreads]),
                [name.removeprefix("watch/spread/") for name in spreads],
                [f"{row['kimg']:.6g}" for row in some],
                "spread by kimg; 1: as varied as the real images",
                (0, 2),
            )
        return pictures


def _concept_and_spread(shown: Mapping[str, float]) -> dict[str, float]:
    """The single number; W&B's sweeps take none whose summary has several values, as that of ``watch/…`` has."""
    left = [value for name, value in shown.items() if name == "diversity" or name.startswith("spread_kept/")]
    return {"concept_and_spread": shown["concept_rate"] * min([1.0, *left])} if "concept_rate" in shown else {}


def _words(name: str) -> str:
    return name.replace("_", " ").replace("frechet", "Fréchet")

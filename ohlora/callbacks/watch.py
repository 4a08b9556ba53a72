"""Watching a fine-tuning: does what the generator makes fit the concept, and is it still varied?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from ohlora.attributes import FILTERS
from ohlora.errors import ConfigError
from ohlora.evaluation.features import Penultimate, label_correlations, mean_pairwise_distance, set_distances
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import AttributeEnsemble
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import batched, counted_images, scored
from ohlora.pipeline import require
from ohlora.rules import AT_HALF, Rule, all_hold
from ohlora.tracking import run_loggers
from ohlora.utils import counted, figures, images
from ohlora.utils.clock import crossed, images_seen


class Watch(L.Callback):
    """Measures the averaged generator before the first step, every so many kimg, and thoroughly at the end.

    Figures: the filters' mean scores; the **concept rate**, the share of images that pass all rules (at 0.5 and at the
    recipe's limits); **diversity**, the mean pairwise distance in the property network's hidden features, relative to
    the start; for a generator with labels that are attributes, the correlation of each label with the measured
    attribute and its leakage, the mean absolute correlation with the others. At the end also Fréchet and kernel
    distance to the training images on those features.

    The generator with the highest concept rate whose diversity is above the floor is kept as
    ``best_generator.safetensors``, beside the last.

    Args:
        filters: Files of the filter ensembles; the concept is judged by what they predict.
        properties: File of the property (or merged) CNN.
        every_kimg: Interval in thousands of images; 0 measures at start and end only.
        recipe: The recipe's rules.
        fixed: Latents that are the same every time.
        fresh: Latents that are new every time.
        final: Latents measured at the end.
        diversity_floor: Least diversity of the best generator, as a share of the start's.
        seed: Seed of the latents.
        batch_size: Images made at once.
    """

    def __init__(
        self,
        filters: list[str],
        properties: str,
        every_kimg: float = 10.0,
        recipe: list[str] | None = None,
        fixed: int = 100,
        fresh: int = 500,
        final: int = 2000,
        diversity_floor: float = 0.85,
        seed: int = 0,
        batch_size: int = 50,
    ) -> None:
        for path in (*filters, properties):
            require(path)
        self.filters = [network_files.load_attributes(path) for path in filters]
        self.concept = [name for network in self.filters for name in network.outputs]
        if not self.concept or len(set(self.concept)) < len(self.concept) or not set(self.concept) <= set(FILTERS):
            expected = ", ".join(FILTERS)
            raise ConfigError(f"the filters predict {', '.join(self.concept)}; expected some of {expected}, each once")
        network = network_files.load_attributes(properties)
        if isinstance(network, AttributeEnsemble):
            raise ConfigError(f"{properties} holds an ensemble; expected a property or merged CNN")
        self.properties, self.features = network, Penultimate(network)
        self.rules = {
            "concept_rate": self._applicable(AT_HALF),
            "concept_rate_recipe": self._applicable(recipe or AT_HALF),
        }
        self.every_kimg, self.fixed, self.fresh, self.final = every_kimg, fixed, fresh, final
        self.diversity_floor, self.seed, self.batch_size = diversity_floor, seed, batch_size
        self._before = 0
        self._start_distance: float | None = None
        self._best_rate = -1.0

    def _applicable(self, rules: Iterable[str]) -> list[Rule]:
        """The rules whose attribute is measured.

        Raises:
            ConfigError: If there is none.
        """
        found = [rule for rule in map(Rule.parse, rules) if rule.attribute in self.concept]
        if not found:
            raise ConfigError(
                f"no rule of {', '.join(rules)} is about {', '.join(self.concept)}; expected at least one"
            )
        return found

    # --- moments

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the start, which diversity is relative to."""
        self._before = images_seen(pl_module)
        if self._before == 0:
            self._measure(trainer, pl_module, self.fixed + self.fresh)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Measures when a multiple of the interval has been passed."""
        now = images_seen(pl_module)
        if crossed(self._before, now, self.every_kimg):
            self._measure(trainer, pl_module, self.fixed + self.fresh)
        self._before = now

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures thoroughly, with distances to the training images and a picture of the run's course."""
        self._measure(trainer, pl_module, self.final, thorough=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run compares with."""
        return {"start_distance": self._start_distance, "best_rate": self._best_rate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite."""
        self._start_distance, self._best_rate = state_dict["start_distance"], state_dict["best_rate"]

    # --- measuring

    def _measure(self, trainer: L.Trainer, module: L.LightningModule, count: int, thorough: bool = False) -> None:
        """Measures the averaged generator on ``count`` latents; rank zero only."""
        if not trainer.is_global_zero:
            return
        generator = module.averaged
        if not isinstance(generator, Generator):
            raise ConfigError(f"{type(module).__name__} has no averaged generator; expected a GAN stage")
        for network in (*self.filters, self.features):
            network.to(generator.device)
        indices = self._indices(count, images_seen(module))
        made, labels = counted_images(generator, self.seed, indices, self.batch_size)
        named = {name: values for ensemble in self.filters for name, values in scored(ensemble, made).items()}
        device = generator.device
        hidden = batched(self.properties.features, made, device)
        features = self.features.projected(hidden)
        named |= dict(
            zip(self.properties.outputs, batched(self.properties.read, hidden, device).numpy().T, strict=True)
        )
        prefix = "final/" if thorough else "watch/"
        shown = {name: float(named[name].mean()) for name in self.concept}
        shown |= {name: float(all_hold(rules, named).mean()) for name, rules in self.rules.items()}
        distance = mean_pairwise_distance(features)
        if self._start_distance is None:
            self._start_distance = distance
        shown["diversity"] = distance / self._start_distance
        tables: dict[str, list[dict[str, Any]]] = {}
        if labels is not None:
            conditioning, table = self._conditioning(trainer, labels, named)
            shown |= conditioning
            tables = {"label_correlations": table} if table else {}
        pictures = {}
        if thorough:
            shown |= set_distances(self._features_of_training(trainer), features)
            pictures = self._curves(trainer)
        self._keep_best(trainer, generator, shown)
        for logger in run_loggers(trainer):
            moment = {f"{prefix}{name}": value for name, value in shown.items()}
            logger.record(images_seen(module) / 1000, moment, pictures, tables if thorough else None)

    def _indices(self, count: int, now: int) -> list[int]:
        """The fixed latents, then fresh ones, which belong to this moment."""
        first_fresh = 1_000_000 + now * 10
        return [*range(self.fixed), *range(first_fresh, first_fresh + count - self.fixed)]

    def _features_of_training(self, trainer: L.Trainer) -> Tensor:
        data = trainer.datamodule.train_set  # type: ignore[attr-defined]
        chosen = counted.permutation(self.seed, "watch/reals", 0, len(data))[: self.final]
        reals = images.to_float(np.stack([data[int(k)]["image"] for k in chosen]))
        return batched(self.features, reals, next(self.properties.parameters()).device)

    def _conditioning(
        self, trainer: L.Trainer, labels: Tensor, scores: dict[str, np.ndarray]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """How each label moves the attribute it stands for, and how much it moves the others."""
        columns = getattr(trainer.datamodule, "label_columns", None) or []  # type: ignore[attr-defined]
        names = [column.removesuffix("_score") for column in columns]
        seen = [k for k, name in enumerate(names) if name in scores]
        if len(names) != labels.shape[1] or not seen:
            return {}, []
        names = [names[k] for k in seen]
        both = label_correlations(labels[:, seen], np.stack([scores[name] for name in names], axis=1))
        rows = zip(names, both.tolist(), strict=True)
        table: list[dict[str, Any]] = [{"label": name, **dict(zip(names, row, strict=True))} for name, row in rows]
        shown = {}
        for k, name in enumerate(names):
            shown[f"label_correlation/{name}"] = float(both[k, k])
            others = np.delete(both[k], k)
            shown[f"label_leakage/{name}"] = float(np.abs(others).mean()) if len(others) else 0.0
        return shown, table

    # --- keeping and showing

    def _keep_best(self, trainer: L.Trainer, generator: Generator, shown: dict[str, float]) -> None:
        if shown["concept_rate"] <= self._best_rate or shown["diversity"] < self.diversity_floor:
            return
        self._best_rate = shown["concept_rate"]
        seen = images_seen(trainer.lightning_module)
        provenance = {"images_seen": seen, **{name: round(shown[name], 4) for name in ("concept_rate", "diversity")}}
        # The run's folder by the loggers: trainer.log_dir is collective, and only rank zero is here.
        folders = [logger.run_dir for logger in run_loggers(trainer)]
        for target in dict.fromkeys(Path(f) for f in (*folders, trainer.default_root_dir) if f):
            network_files.save_network(generator, target / "best_generator.safetensors", provenance)

    def _curves(self, trainer: L.Trainer) -> dict[str, np.ndarray]:
        """The run's course as a picture, from the table in its folder."""
        for logger in run_loggers(trainer):
            rows = logger.history("watch/concept_rate")
            if rows:
                names = ["watch/concept_rate", "watch/diversity", *(f"watch/{name}" for name in self.concept)]
                return {"watch": figures.curves(rows, names)}
        return {}

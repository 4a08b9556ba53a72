"""Watching a fine-tuning: does what the generator makes fit the concept, and is it still varied?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from ohlora.attributes import vocabulary
from ohlora.callbacks.grids import Averaging, LooksAtGenerator
from ohlora.callbacks.writers import promoted, save_in_run
from ohlora.errors import ConfigError
from ohlora.evaluation.features import Penultimate, label_correlations, mean_pairwise_distance, set_distances
from ohlora.formats import network_files
from ohlora.networks.sampling import batched, counted_images, scored
from ohlora.rules import Rule, all_hold, concept
from ohlora.tracking import run_folder, run_loggers
from ohlora.utils import checks, figures, images

BEST = "best_generator.safetensors"


class Watch(LooksAtGenerator):
    """Measures the averaged generator before the first step, every so many kimg, and thoroughly at the end.

    Metrics: the filters' mean scores; the **concept rate**, the share of images that pass all rules (those of the
    concept, as the world declares them, and the recipe's); **diversity**, the mean pairwise distance in the property
    network's hidden features, relative to the start; for a generator with labels that are attributes, the correlation
    of each label with the measured attribute and its leakage, the mean absolute correlation with the others. At the end
    also Fréchet and kernel distance to the training images on those features.

    The generator with the highest concept rate whose diversity is above the floor is kept as
    ``best_generator.safetensors`` in the run's folder, and put beside the last when training is completed. Without
    filters there is no concept, and none is kept.

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
        super().__init__(every_kimg)
        checks.at_least(1, batch_size=batch_size, fixed=fixed, fresh=fresh, final=final)
        checks.seeds(seed=seed)
        self.filters = [network_files.load_attributes(path) for path in filters]
        self.concept = [name for network in self.filters for name in network.outputs]
        known = vocabulary().names("filter")
        if len(set(self.concept)) < len(self.concept) or not set(self.concept) <= set(known):
            expected = f"expected some of {', '.join(known) or 'none'}, each once"
            raise ConfigError(f"the filters predict {', '.join(self.concept)}; {expected}")
        self.properties = network_files.load_attribute_cnn(properties)
        self.features = Penultimate(self.properties)
        given = list(map(Rule.parse, recipe or []))
        declared = [rule for rule in concept() if rule.attribute in self.concept]
        rules = {"concept_rate": declared or given, "concept_rate_recipe": given or declared}
        self.rules = {name: self._applicable(found) for name, found in rules.items()} if self.concept else {}
        self.fixed, self.fresh, self.final = fixed, fresh, final
        self.diversity_floor, self.seed, self.batch_size = diversity_floor, seed, batch_size
        self._start_distance: float | None = None
        self._best_rate = -1.0

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
        """Diversity at the start and highest concept rate so far, which a resumed run goes on comparing with."""
        return super().state_dict() | {"start_distance": self._start_distance, "best_rate": self._best_rate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` kept."""
        super().load_state_dict(state_dict)
        self._start_distance, self._best_rate = state_dict["start_distance"], state_dict["best_rate"]

    def look(self, trainer: L.Trainer, stage: Averaging, now: int, final: bool) -> None:
        """Measures; at the end more thoroughly, with distances to the training images and a picture of the course."""
        generator = stage.G_ema
        device = generator.device
        for network in (*self.filters, self.features):
            network.to(device)
        # The fixed latents, then fresh ones, which belong to this moment.
        fresh, first_fresh = self.final - self.fixed if final else self.fresh, 1_000_000 + now * 10
        indices = [*range(self.fixed), *range(first_fresh, first_fresh + fresh)]
        made, labels = counted_images(generator, self.seed, indices, self.batch_size)
        named = {name: values for ensemble in self.filters for name, values in scored(ensemble, made).items()}
        hidden = batched(self.properties.features, made, device)
        features = self.features.projected(hidden)
        seen = batched(self.properties.read, hidden, device).numpy().T
        named |= dict(zip(self.properties.outputs, seen, strict=True))
        shown = {name: float(named[name].mean()) for name in self.concept}
        shown |= {name: float(all_hold(rules, named).mean()) for name, rules in self.rules.items()}
        distance = mean_pairwise_distance(features)
        if self._start_distance is None:
            self._start_distance = distance
        shown["diversity"] = distance / self._start_distance
        table: list[dict[str, Any]] = []
        if labels is not None:
            conditioning, table = self._conditioning(stage.data.label_names, labels, named)
            shown |= conditioning
        if final:
            reals = images.to_float(stage.data.training_images(self.final, self.seed, "watch/reals"))
            if len(reals) > 1:
                shown |= set_distances(batched(self.features, reals, device), features)
            else:
                print("one training image has no distribution; the distances to the training images are left out")
            headlines = ("concept_rate", "diversity") if self.concept else ("diversity",)
            stage.headlines = [f"{name.replace('_', ' ')} {shown[name]:.3g}" for name in headlines]
            pictures = self._curves(trainer)
            for logger in run_loggers(trainer):
                logger.record(pictures, {"label_correlations": table} if table else {})
        if shown.get("concept_rate", -1.0) > self._best_rate and shown["diversity"] >= self.diversity_floor:
            self._best_rate = shown["concept_rate"]
            provenance = {name: round(shown[name], 4) for name in ("concept_rate", "diversity")}
            save_in_run(trainer, BEST, generator, {"images_seen": now, **provenance})
        # Not self.log: Lightning refuses it at the start and at the end of training, and in between repeats the last
        # value in every row until there is another.
        prefix = "final/" if final else "watch/"
        for trainers_logger in trainer.loggers:
            trainers_logger.log_metrics({f"{prefix}{name}": value for name, value in shown.items()})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks at untouched weights; the best of another run folder does not count where it is not at hand."""
        if not (run_folder(trainer) / BEST).is_file():
            self._best_rate = -1.0
        super().on_train_start(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures thoroughly, and puts the best generator beside the last, if training was completed."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero and getattr(pl_module, "whole", True):
            promoted(trainer, BEST)

    def _conditioning(
        self, names: Sequence[str], labels: Tensor, scores: dict[str, np.ndarray]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """How each label moves the attribute it stands for, and how much it moves the others."""
        seen = [k for k, name in enumerate(names) if name in scores]
        if len(names) != labels.shape[1] or not seen:
            return {}, []
        names = [names[k] for k in seen]
        both = label_correlations(labels[:, seen], np.stack([scores[name] for name in names], axis=1))
        shown = {}
        for k, name in enumerate(names):
            shown[f"label_correlation/{name}"] = float(both[k, k])
            others = np.delete(both[k], k)
            shown[f"label_leakage/{name}"] = float(np.abs(others).mean()) if len(others) else 0.0
        return shown, figures.named_rows(both, names, names, "label")

    def _curves(self, trainer: L.Trainer) -> dict[str, np.ndarray]:
        """The run's course as a picture, from the table in its folder."""
        for logger in run_loggers(trainer):
            rows = logger.history("watch/diversity")
            if rows:
                rates = ["watch/concept_rate"] if self.concept else []
                names = [*rates, "watch/diversity", *(f"watch/{name}" for name in self.concept)]
                return {"watch": figures.curves(rows, names)}
        return {}

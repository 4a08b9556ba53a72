"""Directions in W: their search (fit), and the image generation test of what was found (test)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from ohlora.characters.reports import DIRECTIONS
from ohlora.datamodules.samples import Samples
from ohlora.directions.edits import Directions
from ohlora.errors import ConfigError
from ohlora.evaluation.edits import correlations, slopes
from ohlora.formats import direction_files
from ohlora.modules.edit_evaluation import ImageGenerationTest, in_w
from ohlora.modules.searches import (
    GRADIENT_METHODS,
    GradientSearch,
    Method,
    SampleSearch,
    Search,
    SearchSettings,
    defaults,
)
from ohlora.networks.sampling import scores_of_codes
from ohlora.utils import figures

Layers = Literal["all", "each", "sweep", "auto"]


class DirectionSearch(ImageGenerationTest):
    """Finds the directions in W that move one attribute each, and tests them on fresh latents.

    ``fit`` writes ``directions.safetensors``. Whatever the batch size, the order of shards or the number of processes,
    what it finds is the same to 1e-6. ``test`` is the image generation test, see
    :class:`ohlora.modules.edit_evaluation.ImageGenerationTest`.

    Methods, their objectives and what they cost:

    * ``svm`` – the recipe: a linear SVM between the samples that score highest and lowest (Shen et al., 2020, see
      :mod:`ohlora.directions.svm`). An image per sample, a dozen passes over them.
    * ``mean_difference`` – mean of the highest minus mean of the lowest. An image per sample, one pass.
    * ``random`` – the floor.
    * ``ridge`` – all scores regressed on w at once (Hoerl & Kennard, 1970), then covariance-solved
      (:mod:`ohlora.directions.covariance`). An image per sample, one pass.
    * ``jacobian`` – mean gradients of the search CNN through the generator, covariance-solved. A few hundred latents
      times the rounds, with a backward pass per attribute; no samples.
    * ``local`` – the same as a start, then each latent's own (:class:`ohlora.directions.local.LocalEdits`).
    * ``label`` – moves the label inputs of a conditional generator; needs no search, so there is only ``test``.

    Args:
        output: Folder of the results.
        method: How to search.
        targets: What the directions move; by default eyes, mouth and pose.
        hold: What they must not change, for the covariance-solved methods; by default all that is measured.
        group_by: By which attributes latents are grouped; none finds one direction for all. By default the recipe's
            four for samples, none for gradients.
        medians: The medians that group, as sampling wrote them; by default those beside the samples.
        layers: Where directions act: ``all`` style layers alike; ``each`` layer by a part of its own (gradient
            methods); ``sweep`` is ``all``, with a table of every range of layers; ``auto`` takes, for each attribute,
            the range of that table that leaks least; or first and last layer.
        fraction: Share of a group in each of the two classes.
        training_share: Share of a class that trains; the others validate.
        c: Weight of the SVM's losses against the norm.
        penalty: Weight of ridge's squared coefficients, as a share of the mean variance of w.
        small_groups: What becomes of a group too small for a search: ``ungrouped`` takes the direction of all samples
            for it, ``raise`` ends the run.
        latents: Latents whose gradients are taken.
        rounds: Passes over them: the first unedited, the others edited by what was found.
        covariance_count: Latents for the covariance of w; no images.
        points: Gradients per latent and local round.
        local_rounds: Local rounds.
        share: Weight of a latent's own gradients against the mean.
        sweep_count: Latents of the sweep over layers.
        seed: Seed of the search: splits and latents.
        generator: Generator weights, for the test and for gradients.
        network: The search CNN, likewise.
        judge: The judge CNN, for the test.
        directions: The directions to test; by default those in ``output``.
        grid: Strengths to test, attribute → levels, the first changing slowest; by default the recipe's.
        limits: Attribute → correlation from which on a latent passes; by default the recipe's.
        test_seed: Seed of the test's latents.
        calibrate: Latents on which strengths are first scaled so that a unit moves an attribute by one of the judge's
            standard deviations on average; 0 leaves the units.
        scale_count: Samples over which the judge's standard deviations are taken.
        parser: A face parser; the test then also reads scores off parsed maps.
        discriminator: Discriminator weights; the test then also compares its scores of edited and unedited images.
        closer_count: How many latents parser and discriminator look at.
        sheets: Latents shown of the best, the middle and the worst each.
        image_batch_size: Images made and judged at once.
    """

    def __init__(
        self,
        output: str,
        method: Method = "svm",
        targets: Sequence[str] | None = None,
        hold: Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        medians: str | None = None,
        layers: Layers | Sequence[int] = "all",
        fraction: float = 0.2,
        training_share: float = 0.8,
        c: float = 1.0,
        penalty: float = 1e-3,
        small_groups: Literal["ungrouped", "raise"] = "ungrouped",
        latents: int = 300,
        rounds: int = 3,
        covariance_count: int = 20000,
        points: int = 8,
        local_rounds: int = 2,
        share: float = 0.8,
        sweep_count: int = 20,
        seed: int = 0,
        generator: str | None = None,
        network: str | None = None,
        judge: str | None = None,
        directions: str | None = None,
        grid: dict[str, list[float]] | None = None,
        limits: dict[str, float] | None = None,
        test_seed: int = 0,
        calibrate: int = 0,
        scale_count: int = 2000,
        parser: str | None = None,
        closer_count: int = 60,
        discriminator: str | None = None,
        sheets: int = 3,
        image_batch_size: int = 100,
    ) -> None:
        edited, grouped = defaults(targets, group_by, method)
        super().__init__(
            output=output,
            generator=generator,
            network=network,
            judge=judge,
            directions=directions,
            label_edits=edited if method == "label" else None,
            grid=grid,
            limits=limits,
            calibrate=calibrate,
            scale_count=scale_count,
            parser=parser,
            closer_count=closer_count,
            discriminator=discriminator,
            sheets=sheets,
            image_batch_size=image_batch_size,
            test_seed=test_seed,
        )
        if not 0 < fraction <= 0.5 or not 0 < training_share < 1 or not 0 <= share <= 1 or penalty < 0:
            raise ConfigError(
                f"fraction is {fraction}, training_share {training_share}, share {share} and penalty {penalty}; "
                "expected 0 < fraction <= 0.5, 0 < training_share < 1, 0 <= share <= 1 and penalty >= 0"
            )
        counts = {"latents": latents, "rounds": rounds, "points": points, "local_rounds": local_rounds}
        if min(counts.values()) < 1 or covariance_count < 2:
            raise ConfigError(f"{counts} and covariance_count {covariance_count}; expected at least 1 each, and 2")
        if layers == "each" and method not in GRADIENT_METHODS:
            raise ConfigError(f"layers is 'each' with method {method}; samples do not tell layers apart, gradients do")
        if method == "local" and layers not in ("all", "each"):
            raise ConfigError(f"layers is {layers!r} with method local, whose edits take each layer by itself")
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.layers, self.sweep_count = layers, sweep_count
        self.settings = SearchSettings(
            method=method,
            targets=edited,
            hold=None if hold is None else tuple(hold),
            group_by=grouped,
            medians=medians,
            fraction=fraction,
            training_share=training_share,
            c=c,
            penalty=penalty,
            small_groups=small_groups,
            latents=latents,
            rounds=rounds,
            covariance_count=covariance_count,
            points=points,
            local_rounds=local_rounds,
            share=share,
            seed=seed,
        )
        # Strategies for several processes insist on a parameter.
        self.unused = nn.Parameter(torch.zeros(1))
        self._restored: dict[str, Any] | None = None

    @property
    def uses_samples(self) -> bool:
        """Whether the search takes samples, and not latents."""
        return self.settings.method not in (*GRADIENT_METHODS, "label")

    @property
    def latent_count(self) -> int:
        """Latents of a search by gradients."""
        return self.settings.latents

    def hand_over(self, data: Samples) -> None:
        """What the search works on."""
        data.connect(self.uses_samples, self.latent_count)

    def configure_optimizers(self) -> None:
        """None: a search takes its own steps."""

    def setup(self, stage: str) -> None:
        """Loads the networks that are needed."""
        if stage == "fit" and self.settings.method == "label":
            raise ConfigError("method label needs no search; run test")
        if stage == "fit" and (not self.uses_samples or self.layers in ("sweep", "auto")):
            self.load_networks("generator", "network")
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Begins the search, or goes on with one."""
        self.images_seen.zero_()  # whole passes only: a checkpoint within a pass goes back to its beginning
        if self.uses_samples:
            self.search: Search = SampleSearch(self.settings, self.data, self.device)
        else:
            self.search = GradientSearch(
                self.settings,
                self.generator,
                self.network,
                self.grid_of(self.settings.targets),
                self.image_batch_size,
                self.device,
            )
        if self._restored is not None:
            self.search.restore(self._restored["search"])
            self.images_seen.fill_(self._restored["images_seen"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds a batch to the sums of this pass; one that only keeps step with other processes is empty."""
        if len(batch["index"]):
            self.search.add(batch)

    def on_train_epoch_end(self) -> None:
        """One step from the sums of all processes; the end, once the search is."""
        for tensor in self.search.sums:
            tensor.copy_(cast(Tensor, self.trainer.strategy.reduce(tensor, reduce_op="sum")))
        done = self.search.finish_pass()
        self.images_seen += self.search.seen
        if done:
            self._finish()
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps where the search stood at the beginning of this pass."""
        checkpoint["search"] = {"search": self.search.state(), "images_seen": self.clock()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers where to go on."""
        self._restored = checkpoint["search"]

    # --- what was found

    def _finish(self) -> None:
        """Writes and shows the directions."""
        if not self.trainer.is_global_zero:
            return
        metrics, pictures, tables = self.search.shown()
        rows = self._sweep() if self.layers in ("sweep", "auto") else []
        if rows:
            tables = {**tables, "layers": rows}
        groups, method = self.search.groups, self.settings.method
        provenance = {**self.search.provenance(), "layers": self._chosen_layers(rows)}
        found = Directions.of_steps(self.settings.targets, self._steps(rows).cpu(), groups, method, provenance)
        direction_files.save_directions(found, self.output / DIRECTIONS, self.search.basis())
        cosine_pictures, cosine_tables = cosines(found)
        self.record(metrics, {**pictures, **cosine_pictures}, {**tables, **cosine_tables})
        print(f"{method}: {len(groups.names)} groups × {', '.join(found.attributes)}: {self.output / DIRECTIONS}")

    def _steps(self, rows: list[dict[str, Any]]) -> Tensor:
        if isinstance(self.search, GradientSearch) and (self.layers == "each" or self.settings.method == "local"):
            return self.search.steps_by_layer()
        chosen = self._chosen_layers(rows)
        if not isinstance(chosen, dict):
            return self.search.steps(None)
        parts = []
        for p, name in enumerate(self.settings.targets):
            first, last = chosen[name]
            step = self.search.steps((first, last))[:, p]
            by_layer = step.new_zeros(len(step), self._layer_count(last), step.shape[-1])
            by_layer[:, first : last + 1] = step[:, None]
            parts.append(by_layer)
        return torch.stack(parts, dim=1)

    def _layer_count(self, last: int) -> int:
        """Style layers of the generator."""
        if not hasattr(self, "generator"):
            self.load_networks("generator")
        count = int(self.generator.num_ws)
        if last >= count:
            raise ConfigError(f"layers reach to {last}; the generator has {count}, 0 to {count - 1}")
        return count

    def _chosen_layers(self, rows: list[dict[str, Any]]) -> str | dict[str, tuple[int, int]]:
        """A range per attribute, or how layers share a step."""
        if self.layers == "auto":
            best = {}
            for name in self.settings.targets:
                own = [row for row in rows if row["attribute"] == name]
                # Of the ranges that follow nearly as well as the best one does, the one that leaks least.
                good = [row for row in own if row["r"] >= max(other["r"] for other in own) - 0.02]
                least = min(good, key=lambda row: row["leakage"])
                best[name] = (int(least["first"]), int(least["last"]))
            return best
        if isinstance(self.layers, str):
            return "each" if self.settings.method == "local" else "all" if self.layers == "sweep" else self.layers
        if len(self.layers) != 2 or not 0 <= self.layers[0] <= self.layers[1]:
            raise ConfigError(f"layers is {list(self.layers)}; expected first and last, counted from 0")
        return dict.fromkeys(self.settings.targets, (self.layers[0], self.layers[1]))

    @torch.no_grad()
    def _sweep(self) -> list[dict[str, Any]]:
        """Every contiguous range of layers for every attribute, on latents of their own, by the search CNN."""
        indices = range(self.sweep_count)
        latents = self.latents("layers", indices)
        (unedited,) = scores_of_codes(self.generator, [self.network], in_w(latents.w), self.image_batch_size)
        (reference,) = scores_of_codes(
            self.generator, [self.network], in_w(self.latents("layers/scale", range(500)).w), self.image_batch_size
        )
        deviation = reference.double().std(dim=0)
        group = torch.from_numpy(self.search.groups.assign(self.network.outputs, unedited.cpu().numpy()))
        outputs, count = self.network.outputs, self.generator.num_ws
        staying = [k for k, name in enumerate(outputs) if name not in self.settings.targets]
        grid = self.grid_of(self.settings.targets)
        rows: list[dict[str, Any]] = []
        for first in range(count):
            for last in range(first, count):
                steps = self.search.steps((first, last)).float()[group.to(self.device)]
                for p, name in enumerate(self.settings.targets):
                    levels = grid.levels[name]
                    strengths = torch.linspace(min(levels), max(levels), 5, device=self.device)
                    codes = latents.w[:, None, None].repeat(1, 5, count, 1)
                    codes[:, :, first : last + 1] += (strengths[:, None] * steps[:, p, None])[:, :, None]
                    (scores,) = scores_of_codes(
                        self.generator, [self.network], in_w(codes.flatten(0, 1)), self.image_batch_size
                    )
                    judged = (scores.double() / deviation).reshape(len(indices), 5, -1)
                    alone, own = strengths[:, None].double(), outputs.index(name)
                    slope = slopes(alone, judged)[:, 0]
                    apart = (slope.abs().sum(dim=1) - slope[:, own].abs()) / (len(outputs) - 1)
                    drift = (judged - (unedited.double() / deviation)[:, None]).abs().mean(dim=1)[:, staying]
                    row = {"attribute": name, "first": first, "last": last}
                    measured = {
                        "r": float(correlations(alone, judged)[:, 0, own].mean()),
                        "slope": float(slope[:, own].mean()),
                        "leakage": float(apart.mean() / slope[:, own].abs().mean()),
                        "drift": float(drift.mean()),
                    }
                    rows.append(row | {key: round(value, 4) for key, value in measured.items()})
        return rows


def cosines(found: Directions) -> tuple[dict[str, np.ndarray], dict[str, list[dict[str, Any]]]]:
    """Cosines between attributes and between groups, as heat maps and tables."""
    names, edited = found.groups.names, found.attributes
    vectors = found.vectors.flatten(2)
    by_group = vectors @ vectors.mT
    title = "cosine" if len(names) == 1 else "cosine, mean of groups"
    pictures = {"cosines_of_attributes": figures.heat_map(by_group.mean(dim=0).numpy(), edited, edited, title)}
    tables: dict[str, list[dict[str, Any]]] = {
        "cosines_of_attributes": [
            {"group": g, "attribute": a, **dict(zip(edited, row, strict=True))}
            for g, of_group in zip(names, by_group.numpy().round(4).tolist(), strict=True)
            for a, row in zip(edited, of_group, strict=True)
        ]
    }
    for p, name in enumerate(edited if len(names) > 1 else ()):
        between = (vectors[:, p] @ vectors[:, p].T).numpy()
        pictures[f"cosines_of_groups_{name}"] = figures.heat_map(between, names, names, f"{name}: cosine")
        tables[f"cosines_of_groups_{name}"] = [
            {"group": g, **dict(zip(names, row, strict=True))}
            for g, row in zip(names, between.round(4).tolist(), strict=True)
        ]
    return pictures, tables

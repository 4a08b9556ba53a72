"""Directions in W: their search over samples (fit), and the image generation test of what was found (test)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from ohlora import checkpoints, counted, direction_files, figures, images, samples
from ohlora.attributes import EXPRESSIONS, GROUPING
from ohlora.datamodules.latents import pieces
from ohlora.datamodules.samples import SampleBatch, Samples
from ohlora.directions.edits import GRID, LIMITS, Directions, Grid, tested_as
from ohlora.directions.groups import UNGROUPED, Groups
from ohlora.directions.measures import EditReport, passes, summary
from ohlora.directions.moments import Moments
from ohlora.directions.svm import SVMs, class_size, classes, training_size
from ohlora.errors import ConfigError, DataError
from ohlora.files import require
from ohlora.measures import scores_of_codes
from ohlora.ranks import gathered
from ohlora.reports import DIRECTIONS, RESULTS, write_report
from ohlora.tracking import run_loggers


class DirectionSearch(L.LightningModule):
    """Finds the directions in W that move one attribute each, and tests them on fresh latents.

    ``fit`` streams samples, group by group between their highest and lowest scores, and writes
    ``directions.safetensors``. Whatever the batch size, the order of shards or the number of processes, the directions
    are the same to 1e-6.

    ``test`` is the image generation test: every latent is edited on a grid of strengths with the directions of its
    group, which the search CNN finds; another CNN, the judge, scores the edits, in its standard deviations over
    samples. A latent passes where each attribute follows its strength with at least the limit's correlation, sign
    included. It writes ``test_result.csv``, ``test_statistics.csv``, ``latents.safetensors`` and ``sheets/``.

    Args:
        output: Folder of the results.
        method: How to search; ``svm``: linear SVMs, see :mod:`ohlora.directions.svm`.
        attributes: What the directions move; by default eyes, mouth and pose.
        group_by: By which attributes samples are grouped; none finds one direction for all.
        medians: The medians that group, as sampling wrote them.
        fraction: Share of a group in each of the two classes.
        training_share: Share of a class that trains; the others validate.
        c: Weight of the SVM's losses against the norm.
        small_groups: What becomes of a group too small for training and validation: ``ungrouped`` takes the direction
            of all samples for it, ``raise`` ends the run.
        seed: Seed of the split and of the test's latents.
        generator: Generator weights, for the test.
        network: The search CNN, for the test.
        judge: The judge CNN, for the test.
        directions: The directions to test; by default those in ``output``.
        grid: Strengths to test, attribute → levels, the first changing slowest; by default the recipe's.
        limits: Attribute → correlation from which on a latent passes; by default the recipe's.
        scale_count: Samples over which the judge's standard deviations are taken.
        sheets: Latents shown of the best, the middle and the worst each.
        image_batch_size: Images made and judged at once.
        made_by: Command that makes a missing file.
    """

    def __init__(
        self,
        output: str,
        method: Literal["svm"] = "svm",
        attributes: Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        medians: str | None = None,
        fraction: float = 0.2,
        training_share: float = 0.8,
        c: float = 1.0,
        small_groups: Literal["ungrouped", "raise"] = "ungrouped",
        seed: int = 0,
        generator: str | None = None,
        network: str | None = None,
        judge: str | None = None,
        directions: str | None = None,
        grid: dict[str, list[float]] | None = None,
        limits: dict[str, float] | None = None,
        scale_count: int = 2000,
        sheets: int = 3,
        image_batch_size: int = 100,
        made_by: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < fraction <= 0.5 or not 0 < training_share < 1:
            raise ConfigError(
                f"fraction is {fraction} and training_share {training_share}; expected 0 < fraction <= 0.5 and "
                "0 < training_share < 1"
            )
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.output, self.method, self.seed, self.made_by = Path(output), method, seed, made_by
        self.edited = tuple(EXPRESSIONS if attributes is None else attributes)
        self.group_by = tuple(GROUPING if group_by is None else group_by)
        self.medians = medians
        self.fraction, self.training_share, self.c, self.small_groups = fraction, training_share, c, small_groups
        self.paths = {"generator": generator, "network": network, "judge": judge}
        self.directions_path = Path(directions) if directions else self.output / DIRECTIONS
        self.levels: Mapping[str, Sequence[float]] = grid or GRID
        self.limits_given = limits
        self.scale_count, self.sheets, self.image_batch_size = scale_count, sheets, image_batch_size
        self.images_seen = 0  # whole passes only: a checkpoint within a pass goes back to its beginning
        # Strategies for several processes insist on a parameter.
        self.normals = nn.Parameter(torch.zeros(1))
        self._restored: dict[str, Any] | None = None

    # --- search

    @property
    def data(self) -> Samples:
        """The datamodule of the run."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, Samples)
        return data

    def configure_optimizers(self) -> None:
        """None: the solver takes its own steps."""

    def on_fit_start(self) -> None:
        """Sorts all samples into groups and classes."""
        data = self.data
        unknown = [name for name in self.edited if name not in data.outputs]
        if unknown:
            raise ConfigError(f"{data.folder} has no score for {', '.join(unknown)}; it has {', '.join(data.outputs)}")
        self.groups = self._group_rule()
        try:
            group = self.groups.assign(data.outputs, data.scores)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.group_sizes = np.bincount(group, minlength=len(self.groups.names))
        self.fallback = [g for g, size in enumerate(self.group_sizes) if not self._large_enough(size)]
        scores = data.scores[:, [data.outputs.index(name) for name in self.edited]]
        self._classes: list[tuple[Tensor, Tensor]] = []
        self._add_classes(scores, np.where(np.isin(group, self.fallback), -1, group), self.groups.names)
        if self.fallback:
            self._add_classes(scores, np.full(len(group), len(self.groups.names)), (UNGROUPED,))
        problems = len(self.groups.names) + bool(self.fallback)
        self.solver = SVMs(problems, len(self.edited), data.w_size, self.c, self.device)
        self.moments = Moments(data.w_size, device=self.device)
        if self._restored is not None:
            self.solver.restore(self._restored["solver"])
            self.images_seen = self._restored["images_seen"]
            if self.solver.passes:
                for tensor, known in zip(self.moments.sums, self._restored["moments"], strict=True):
                    tensor.copy_(known)

    def _group_rule(self) -> Groups:
        if not self.group_by:
            return Groups()
        path = Path(self.medians) if self.medians else self.data.folder / samples.MEDIANS
        require(path, self.data.made_by)
        known = json.loads(path.read_text(encoding="utf-8"))["median"]
        missing = [name for name in self.group_by if name not in known]
        if missing:
            raise ConfigError(f"{path} has no median of {', '.join(missing)}; it has {', '.join(known)}")
        return Groups(self.group_by, tuple(known[name] for name in self.group_by))

    def _large_enough(self, size: int) -> bool:
        of_class = class_size(size, self.fraction)
        train = training_size(of_class, self.training_share)
        return size >= 2 * of_class and 1 <= train < of_class

    def _add_classes(self, scores: np.ndarray, group: np.ndarray, names: Sequence[str]) -> None:
        if self.fallback and names != (UNGROUPED,):
            small = ", ".join(f"{names[g]} ({self.group_sizes[g]})" for g in self.fallback)
            said = (
                f"too few samples for training and validation in {len(self.fallback)} of {len(names)} groups: {small}"
            )
            if self.small_groups == "raise" or len(self.fallback) == len(names):
                raise DataError(f"{said}; take more samples, fewer grouping attributes or a larger fraction")
            if self.trainer.is_global_zero:
                print(f"{said}; they get the direction of all samples")
        present = np.unique(group[group >= 0])
        place = {int(g): k for k, g in enumerate(present)}
        compact = np.array([place.get(int(g), -1) for g in group])
        try:
            label = classes(scores, compact, len(present), self.fraction, self.training_share, self.seed)
        except ValueError as error:
            listed = ", ".join(f"{k} {names[k] if k < len(names) else UNGROUPED}" for k in present)
            raise DataError(f"{error} (attributes {', '.join(self.edited)}; groups {listed})") from error
        self._classes.append((torch.from_numpy(group), torch.from_numpy(label)))

    def training_step(self, batch: SampleBatch, batch_idx: int) -> None:
        """Adds a batch to the sums of this pass."""
        w, index = batch["w"], batch["index"].cpu()
        if not len(w):
            return
        if self.solver.passes == 0:
            self.moments.update(w)
        for group, label in self._classes:
            self.solver.update(w, group[index].to(self.device), label[index].to(self.device))

    def on_train_epoch_end(self) -> None:
        """One step from the sums of all processes; the end, once everything is solved."""
        first = self.solver.passes == 0
        for tensor in (*self.solver.sums, *(self.moments.sums if first else ())):
            tensor.copy_(self._added_up(tensor))
        if first and self.moments.count != len(self.data.scores):
            raise DataError(f"{self.moments.count} of {len(self.data.scores)} samples were seen in a pass; start anew")
        try:
            done = self.solver.finish_pass()
        except ArithmeticError as error:
            raise DataError(f"{error}; look at the scores of {self.data.folder}") from error
        self.images_seen += len(self.data.scores)
        if done:
            self._finish()
            self.trainer.should_stop = True

    def _added_up(self, tensor: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(tensor, reduce_op="sum"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps where the search stood at the beginning of this pass."""
        checkpoint["search"] = {
            "solver": self.solver.state(),
            "moments": self.moments.sums,
            "images_seen": self.images_seen,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers where to go on."""
        self._restored = checkpoint["search"]

    def _finish(self) -> None:
        """Writes and shows the directions."""
        vectors = self.solver.directions()
        chosen = [len(self.groups.names) if g in self.fallback else g for g in range(len(self.groups.names))]
        covariance = self.moments.covariance
        units = torch.einsum("gpd,de,gpe->gp", vectors, covariance, vectors).clamp(min=0).sqrt()
        found = Directions(
            self.edited,
            vectors[chosen].cpu(),
            units[chosen].cpu(),
            self.groups,
            self.method,
            {
                "samples": len(self.data.scores),
                "passes": self.solver.passes,
                "fraction": self.fraction,
                "seed": self.seed,
                "ungrouped": [self.groups.names[g] for g in self.fallback],
            },
        )
        if not self.trainer.is_global_zero:
            return
        direction_files.save_directions(found, self.output / DIRECTIONS)
        self._show(found, chosen)
        print(f"{len(self.groups.names)} groups × {', '.join(self.edited)}: {self.output / DIRECTIONS}")

    def _show(self, found: Directions, chosen: Sequence[int]) -> None:
        names = self.groups.names
        right, total = self.solver.correct[chosen].cpu(), self.solver.total[chosen].cpu()
        rows: list[dict[str, Any]] = []
        metrics: dict[str, float] = {"passes": self.solver.passes, "groups_without_own_direction": len(self.fallback)}
        for p, name in enumerate(self.edited):
            for g, group in enumerate(names):
                row = {"group": group, "attribute": name, "samples": int(self.group_sizes[g])}
                row |= {"own_direction": int(g not in self.fallback)}
                for k, part in enumerate(("training", "validation")):
                    share = float(right[g, p, k] / total[g, p, k])
                    row |= {f"{part}_count": int(total[g, p, k]), f"{part}_accuracy": round(share, 4)}
                rows.append(row)
            own = [g for g in range(len(names)) if g not in self.fallback]
            for k, part in enumerate(("training", "validation")):
                metrics[f"{part}_accuracy/{name}"] = float(right[own, p, k].sum() / total[own, p, k].sum())
        vectors = found.vectors
        between = torch.einsum("gpd,gqd->pq", vectors, vectors) / len(names)
        accuracy = np.array([[row["validation_accuracy"] for row in rows if row["group"] == g] for g in names])
        pictures = {
            "cosines_of_attributes": figures.heat_map(
                between.numpy(), self.edited, self.edited, "cosine, mean of groups"
            ),
            "accuracy": figures.heat_map(accuracy, names, self.edited, "validation accuracy", (0, 1)),
        }
        tables: dict[str, list[dict[str, Any]]] = {"search": rows}
        tables["cosines_of_attributes"] = [
            {"group": g, "attribute": a, **dict(zip(self.edited, row, strict=True))}
            for g, of_group in zip(names, (vectors @ vectors.mT).numpy().round(4).tolist(), strict=True)
            for a, row in zip(self.edited, of_group, strict=True)
        ]
        for p, name in enumerate(self.edited):
            cosines = (vectors[:, p] @ vectors[:, p].T).numpy()
            pictures[f"cosines_of_groups_{name}"] = figures.heat_map(cosines, names, names, f"{name}: cosine")
            tables[f"cosines_of_groups_{name}"] = [
                {"group": g, **dict(zip(names, row, strict=True))}
                for g, row in zip(names, cosines.round(4).tolist(), strict=True)
            ]
        self._record(metrics, pictures, tables)

    def _record(self, metrics: dict[str, float], pictures: dict[str, np.ndarray], tables: dict[str, Any]) -> None:
        for logger in run_loggers(self.trainer):
            logger.record(self.images_seen / 1000, metrics, pictures, tables)

    # --- image generation test

    def setup(self, stage: str) -> None:
        """Loads what the test needs, and checks that it fits together."""
        if stage != "test":
            return
        unset = [name for name, path in self.paths.items() if path is None]
        if unset:
            raise ConfigError(f"the test needs {', '.join(unset)}; set model.init_args.{unset[0]}")
        for path in self.paths.values():
            require(str(path), self.made_by)
        self.generator = checkpoints.load_generator(str(self.paths["generator"])).to(self.device)
        self.network = checkpoints.load_attributes(str(self.paths["network"])).to(self.device)
        self.judge = checkpoints.load_attributes(str(self.paths["judge"])).to(self.device)
        self.found = direction_files.load_directions(self.directions_path, self.made_by)
        edited, outputs = self.found.attributes, self.judge.outputs
        unseen = [name for name in edited if name not in outputs]
        if unseen:
            raise ConfigError(f"the judge has no output {', '.join(unseen)}; it has {', '.join(outputs)}")
        if self.found.vectors.shape[-1] != self.generator.w_size:
            raise ConfigError(
                f"{self.directions_path} is for codes of length {self.found.vectors.shape[-1]}, the generator's have "
                f"{self.generator.w_size}"
            )
        try:
            self.grid = Grid.of(edited, self.levels)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        limits = LIMITS if self.limits_given is None else self.limits_given
        self.limits = {name: limits.get(name, limits.get(tested_as(name), 0.0)) for name in edited}
        self.strengths = self.grid.strengths(edited)
        axes = [list(self.grid.levels).index(name) for name in edited]
        self.report = EditReport(edited, outputs, self.grid.shape, axes).to(self.device)

    def on_test_start(self) -> None:
        """Measures the judge's mean and standard deviation over samples of their own."""
        mine = range(self.global_rank, self.scale_count, self.trainer.world_size)
        seen = [self._scores(self._codes("scale", part)[2])[1].cpu() for part in pieces(mine, self.image_batch_size)]
        scores = torch.cat(gathered(seen)).double()
        self.scale = (scores.mean(dim=0).to(self.device), scores.std(dim=0, correction=0).to(self.device))

    def _codes(self, stream: str, indices: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Counted z, labels and w of the test's own streams."""
        z = counted.normal(self.seed, f"{stream}/z", indices, self.generator.z_size).to(self.device)
        label = self.generator.draw_labels(counted.generators(self.seed, f"{stream}/label", indices))
        return z, label, self.generator.map(z, label)

    def _scores(self, codes: Tensor) -> list[Tensor]:
        """What search CNN and judge see in the images of codes."""
        return scores_of_codes(self.generator, [self.network, self.judge], codes, self.image_batch_size)

    def _in_deviations(self, scores: Tensor) -> Tensor:
        mean, deviation = self.scale
        return (scores.double() - mean) / deviation

    def test_step(self, batch: list[int], batch_idx: int) -> None:
        """Edits the latents of a batch, and judges the edits."""
        w = self._codes("test", batch)[2]
        seen, unedited = self._scores(w)
        group = torch.from_numpy(self.found.groups.assign(self.network.outputs, seen.cpu().numpy())).to(self.device)
        codes = self.found.edit(w, group, self.strengths).flatten(0, 1)
        (scores,) = scores_of_codes(self.generator, [self.judge], codes, self.image_batch_size)
        judged = self._in_deviations(scores).reshape(len(w), self.grid.size, -1)
        index = torch.tensor(batch, device=self.device)
        self.report.update(index, group, self.strengths, judged, self._in_deviations(unedited))

    def on_test_epoch_end(self) -> None:
        """Rank zero writes and shows the results."""
        rows = self.report.compute()
        if self.trainer.is_global_zero:
            self._report(rows)

    def _report(self, rows: list[dict[str, float]]) -> None:
        edited, names = self.found.attributes, self.found.groups.names
        statistics = summary(rows, edited, self.judge.outputs, self.limits)
        results = []
        for row in rows:
            r = [row[f"{name}_corr"] for name in edited]
            result: dict[str, Any] = {"case": int(row["index"]), "vector_no": 0}
            result |= {"passed": "O" if passes(row, self.limits) else "X", "group_name": names[int(row["group"])]}
            result |= {f"{name}_corr": round(value, 4) for name, value in zip(edited, r, strict=True)}
            result["sum_abs_corr"] = round(sum(abs(value) for value in r), 4)
            own = {k: round(v, 4) for k, v in row.items() if k not in ("index", "group") and k not in result}
            results.append(result | own)
        rounded = {key: round(value, 4) for key, value in statistics.items()}
        rounded["sum_abs_corr_mean"] = round(sum(row["sum_abs_corr"] for row in results) / len(results), 4)
        cases = [result["case"] for result in results]
        z, label, w = self._codes("test", cases)
        group = torch.tensor([int(row["group"]) for row in rows])
        tensors = {"case": torch.tensor(cases), "z": z, "w": w, "group": group}
        if label is not None:
            tensors["label"] = label
        write_report(
            self.output,
            results,
            rounded,
            tensors,
            generator=checkpoints.fingerprint(str(self.paths["generator"])),
            directions=checkpoints.fingerprint(self.directions_path),
            levels=dict(self.grid.levels),
            seed=self.seed,
        )
        by_name = {name: np.array([row[f"{name}_corr"] for row in rows]) for name in edited}
        pictures = {"correlations": figures.histograms(by_name, self.limits, "correlation of strength and score")}
        tables: dict[str, Any] = {"test_result": results}
        if len(edited) == 3:
            tables["sheets"] = self._sheets(results, w, group)
        metrics = {f"test/{key}": float(value) for key, value in rounded.items()}
        self._record(metrics, pictures, tables)
        shown = ", ".join(f"{name} {statistics[f'{name}_corr_mean']:.3f}" for name in edited)
        print(
            f"{statistics['passed']} of {len(rows)} latents pass ({statistics['passed_ratio']:.1%}); mean r {shown}: "
            f"{self.output / RESULTS}"
        )

    def _sheets(self, results: list[dict[str, Any]], w: Tensor, group: Tensor) -> list[dict[str, Any]]:
        """Sheets of the best, middle and worst latents, by the worst of a latent's correlations."""
        edited = self.found.attributes
        order = sorted(range(len(results)), key=lambda k: -min(results[k][f"{name}_corr"] for name in edited))
        count = min(self.sheets, max(1, len(order) // 3))
        middle = (len(order) - count) // 2
        shown: list[dict[str, Any]] = []
        for old in (self.output / "sheets").glob("*_case_*.png"):  # of an earlier test
            old.unlink()
        for what, places in (
            ("best", order[:count]),
            ("middle", order[middle : middle + count]),
            ("worst", order[-count:]),
        ):
            for k in dict.fromkeys(places):
                codes = self.found.edit(w[k : k + 1], group[k : k + 1], self.strengths)[0]
                with torch.inference_mode():
                    made = [
                        images.to_uint8(self.generator.synthesize(part))
                        for part in torch.split(codes, self.image_batch_size)
                    ]
                row = results[k]
                figures_of = [f"{n}: r {row[f'{n}_corr']:.3f}, slope {row[f'{n}_slope']:.2f}" for n in edited]
                title = f"case {row['case']}, group {row['group_name']}, {'pass' if row['passed'] == 'O' else 'fail'}"
                sheet = figures.edit_sheet(np.concatenate(made), self.grid.levels, [title, "   ".join(figures_of)])
                images.save_png(sheet, self.output / "sheets" / f"{what}_case_{row['case']:04d}.png")
                shown.append({"which": what, "sheet": sheet, **row})
        return shown

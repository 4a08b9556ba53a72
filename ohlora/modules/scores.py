"""Scoring images: a manifest in, a table of scores out, by attribute networks or from what a face parser sees."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from ohlora import pipeline
from ohlora.attributes import vocabulary
from ohlora.callbacks.writers import Scores, TableWriter
from ohlora.datamodules.base import ImageBatch
from ohlora.datamodules.images import ImageFileDataset, Images
from ohlora.datamodules.scores import NORMALIZATION, read_normalization
from ohlora.errors import ConfigError, DataError, NonFiniteError
from ohlora.evaluation.scores import score_correlations
from ohlora.faces.measuring import Scores as Measured
from ohlora.faces.parsing import load_parser
from ohlora.faces.scoring import Normalization
from ohlora.formats import network_files
from ohlora.modules.base import Stage
from ohlora.rules import Rule, all_hold, concept
from ohlora.tracking import run_folder
from ohlora.utils import figures, images
from ohlora.utils.files import write_json, write_rows

EXTREMES = 10
"""Images shown with the highest, and with the lowest score of an attribute."""
THUMBNAIL = 96
"""Longest side of one of them, in pixels."""


def write_scores(path: Path, data: ImageFileDataset, scores: dict[int, Scores]) -> None:
    """Writes a table of scores, given by place: ``index``, ``path`` (relative to the table), ``<attribute>_score``."""
    rows: list[dict[str, Any]] = []
    for place, values in scores.items():
        where = Path(os.path.relpath(data.paths[place], path.parent)).as_posix()
        rounded = {f"{name}_score": round(value, 6) for name, value in values.items()}
        rows.append({"index": data.numbers[place], "path": where, **rounded})
    write_rows(path, rows)


class ImageScores(Stage[Images]):
    """Base of the stages that score every image of a manifest or folder."""

    data_type = Images
    output: Path

    def configure_callbacks(self) -> list[L.Callback]:
        """Writes the scores once all images have some."""
        return [TableWriter(self.conclude_with)]

    def conclude_with(self, scores: dict[int, Scores]) -> None:
        """Writes the scores to the output, or those of a partial run to its folder; on rank zero."""
        if (reason := self.partial()) is None:
            self.write(scores, self.output)
        else:
            folder = run_folder(self.trainer)
            self.write(scores, folder / self.output.name if self.output.suffix else folder)
            self.say_partial(reason)
        self.show_scores(scores)

    def show_scores(self, scores: dict[int, Scores]) -> None:
        """Shows what was measured, as it was measured, by place in the data: how it is spread, and extreme images.

        Where the world declares a concept, also how many images pass.
        """
        places = list(scores)
        named = {name: np.array([row[name] for row in scores.values()]) for name in scores[places[0]]}
        rules = [rule for rule in concept() if rule.attribute in named]
        metrics: dict[str, float] = {"images": len(places)}
        for name, values in named.items():
            metrics |= {f"mean/{name}": float(values.mean()), f"std/{name}": float(values.std())}
        of = {name: [rule for rule in rules if rule.attribute == name] for name in named}
        passing = {name: int(all_hold(some, named).sum()) for name, some in of.items() if some}
        metrics |= {f"passed/{name}": count for name, count in passing.items()}
        if rules:
            metrics["passed"] = int(all_hold(rules, named).sum())
            metrics["passed_ratio"] = metrics["passed"] / len(places)
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics)
        pictures, tables = score_correlations(named)
        limits = {rule.attribute: rule.limit for rule in rules}
        shares = {
            name: f"{count} of {len(places)} {', '.join(rule.condition for rule in of[name])}"
            for name, count in passing.items()
        }
        pictures["score_histograms"] = figures.histograms(named, limits, shares, "score")
        pictures["best_and_worst"] = self._best_and_worst(places, named, rules)
        self.show(pictures, tables)

    def _best_and_worst(self, places: list[int], named: dict[str, np.ndarray], rules: list[Rule]) -> np.ndarray:
        """The images with the highest and the lowest scores, the best of a rule first: two rows per attribute."""
        falling = {rule.attribute for rule in rules if rule.comparison.startswith("<")}
        ruled = {rule.attribute for rule in rules}
        shown: dict[str, np.ndarray] = {}
        for name, values in named.items():
            order = np.argsort(-values, kind="stable")[:: -1 if name in falling else 1]
            words = ("best", "worst") if name in ruled else ("highest", "lowest")
            for word, chosen in zip(words, (order[:EXTREMES], order[::-1][:EXTREMES]), strict=True):
                made = np.stack([self.data.train_set[places[k]]["image"] for k in chosen])
                told = f"{name}, {word}: {values[chosen[0]]:.3g} … {values[chosen[-1]]:.3g}"
                shown[told] = images.enlarge(images.shrink(made, THUMBNAIL), THUMBNAIL)
        return figures.strips(shown)

    def write(self, scores: dict[int, Scores], output: Path) -> None:
        """Writes the scores of images, by place in the data, to a table or folder."""
        raise NotImplementedError


class AttributeScores(ImageScores):
    """Scores images with attribute networks or ensembles.

    Args:
        output: The table to write (CSV).
        networks: Files of attribute CNNs or ensembles; together they predict each attribute once. None takes those that
            the world names as sources of its attributes.
    """

    def __init__(self, output: str, networks: list[str] | None = None) -> None:
        super().__init__()
        self.output = Path(output)
        if self.output.suffix != ".csv":
            raise ConfigError(f"output is {output}; expected the name of a table to write, such as scores.csv")
        if networks is None:
            named = dict.fromkeys(a.source.name for a in vocabulary() if a.source.kind == "network")
            networks = [str(pipeline.path(name)) for name in named]
        if not networks:
            raise ConfigError("there is nothing to score with; set model.init_args.networks")
        self.networks = nn.ModuleList(network_files.load_attributes(path) for path in networks)
        self.outputs = [name for network in self.networks for name in network.outputs]  # type: ignore[union-attr]
        resolutions = {int(network.resolution) for network in self.networks}  # type: ignore[arg-type]
        if len(set(self.outputs)) < len(self.outputs) or len(resolutions) != 1:
            raise ConfigError(
                f"the networks predict {', '.join(self.outputs)} at {sorted(resolutions)}; expected each attribute "
                "once and one resolution"
            )
        self.resolution = resolutions.pop()

    def setup(self, stage: str) -> None:
        """Checks that images and networks fit."""
        found = self.data.resolution
        if found != self.resolution:
            raise ConfigError(f"the images have resolution {found}, the networks {self.resolution}; expected the same")

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[int, Scores]:
        """The scores of a batch, by place in the data."""
        scores = torch.cat([network(batch["image"]) for network in self.networks], dim=1).float()
        rows = [dict(zip(self.outputs, row, strict=True)) for row in scores.tolist()]
        return dict(zip(batch["index"], rows, strict=True))

    def write(self, scores: dict[int, Scores], output: Path) -> None:
        """Writes the table.

        Raises:
            NonFiniteError: If a score is not finite.
        """
        for place, row in scores.items():
            if bad := [name for name, value in row.items() if not math.isfinite(value)]:
                raise NonFiniteError(
                    f"{self.data.train_set.paths[place]}: the score of {', '.join(bad)} is not finite; look at the "
                    "network that scores, or at trainer.precision"
                )
        write_scores(output, self.data.train_set, scores)
        print(f"{len(scores)} images scored for {', '.join(self.outputs)}: {output}")


class ScoreProperties(ImageScores):
    """Scores images for every attribute of the world that is read off parsing maps or computed by a function.

    Writes into ``output``: ``raw_scores.csv`` and ``scores.csv`` (z-scores; of 0/1 attributes the same values), both
    with the columns ``index``, ``path`` (relative to the table) and ``<attribute>_score``; and ``normalization.json``,
    the scale that turned the one into the other.

    Args:
        output: Folder to fill.
        parser: The parser: a file of our U-Net, or the folder of a Hugging Face semantic-segmentation checkpoint. None
            where all scores are functions that need no maps.
        classes: Label, or id, of a Hugging Face checkpoint → our class; by default those of CelebAMask-HQ.
        variants: Which algorithm to use, by attribute, in place of the declared one. See
            :data:`ohlora.faces.scoring.SCORERS`.
        normalization: Stored scale to use; None takes mean and deviation of the images at hand.
        keep_maps: Whether to keep the maps as ``masks/<index>.png``, whose grey levels are class ids.
    """

    def __init__(
        self,
        output: str,
        parser: str | None = None,
        classes: dict[str, str] | None = None,
        variants: dict[str, str] | None = None,
        normalization: str | None = None,
        keep_maps: bool = False,
    ) -> None:
        super().__init__()
        self.parser = load_parser(parser, classes) if parser is not None else None
        self.output, self.keep_maps = Path(output), keep_maps
        known = vocabulary()
        self.scores = Measured(known.scored, variants, parsed=parser is not None)
        self.continuous = [name for name in self.scores.names if known[name].kind != "binary"]
        if not self.scores.names:
            raise ConfigError(f"{known.where} declares no attribute with a parsing or function to score")
        if keep_maps and parser is None:
            raise ConfigError("keep_maps needs a parser")
        self._scale = read_normalization(Path(normalization), self.continuous) if normalization is not None else None

    def setup(self, stage: str) -> None:
        """Checks that there is a population where one is needed."""
        count = len(self.data.train_set)
        if self._scale is None and count < 2:
            raise DataError(
                f"{count} images have no scale of their own; expected at least 2, or a stored one in "
                "model.init_args.normalization"
            )

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> dict[int, Scores]:
        """Parses a batch, and returns the raw scores by place in the data."""
        pixels = images.to_uint8(batch["image"])
        maps = [None] * len(pixels) if self.parser is None else self.parser(batch["image"]).cpu().numpy()
        raw = {}
        folder = self.output if self.partial() is None else run_folder(self.trainer)
        for place, image, parsing in zip(batch["index"], pixels, maps, strict=True):
            raw[place] = self.scores(image, parsing)
            if self.keep_maps:  # at once: maps of all images would not fit into memory
                images.save_png(parsing, folder / "masks" / f"{self.data.train_set.numbers[place]:06d}.png")
        return raw

    def write(self, scores: dict[int, Scores], output: Path) -> None:
        """Writes scale and tables; the z-scores last, which say that all is there."""
        try:
            continuous = [{name: row[name] for name in self.continuous} for row in scores.values()]
            scale = self._scale or Normalization.fit(continuous)
        except ValueError as error:
            raise DataError(
                f"{len(scores)} images have no scale of their own ({error}); look at their maps "
                "(model.init_args.keep_maps), or give a stored scale in model.init_args.normalization"
            ) from error
        write_json(output / NORMALIZATION, scale.to_dict())
        write_scores(output / "raw_scores.csv", self.data.train_set, scores)
        normalized = {
            place: row | scale.apply({name: row[name] for name in self.continuous}) for place, row in scores.items()
        }
        write_scores(output / "scores.csv", self.data.train_set, normalized)
        print(f"{len(scores)} images scored for {', '.join(self.scores.names)}: {output / 'scores.csv'}")

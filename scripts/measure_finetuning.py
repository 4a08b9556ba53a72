"""Measures the toy world's fine-tunes, and writes docs/results/finetuning.csv.

Usage::

    python scripts/measure_finetuning.py

The judges are filter ensembles and a network that were not used while fine-tuning (docs/attributes.md says how to train
them).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from torch import Tensor

from ohlora import pipeline
from ohlora.errors import FormatError
from ohlora.evaluation.features import Penultimate, mean_pairwise_distance
from ohlora.evaluation.scores import pearson
from ohlora.formats import network_files
from ohlora.networks.sampling import BATCH, batched, counted_batches, joined, scored
from ohlora.pipeline import require
from ohlora.rules import Rule, all_hold
from ohlora.utils.commands import Row, measuring
from ohlora.utils.files import shipped

TOY = pipeline.world("toy").attributes
"""What the toy world declares."""
COUNT = 2000
"""Number of images of each generator."""
SEED = 4242
"""Seed of their latents."""

HEADLINES = {
    "concept_v1": "concept rate (all four at 0.5), v1",
    "concept_v8": "concept rate (all four at 0.5), v8",
    "spread_v8": "least spread of an expression over the original's, v8",
    "diversity": "diversity of v8 against the original",
    "label_r": "v1 with projection head",
}
"""Metrics of the summary, see :func:`ohlora.utils.commands.measuring`."""


class Judge:
    """The networks that measure generated images: filter ensembles and an attribute CNN, below the stages' folder.

    Raises:
        MissingArtifactError: If a network does not exist.
        FormatError: If a network cannot be used.
    """

    def __init__(self, runs: Path) -> None:
        paths = [runs / f"judge_{name}" / f"{name}.safetensors" for name in TOY.names("filter")]
        self.filters = [network_files.load_attributes(path) for path in paths]
        self.network = network_files.load_attribute_cnn(runs / "judge_cnn" / "judge.safetensors")
        self.features = Penultimate(self.network)

    def concept(self, pictures: Tensor) -> tuple[dict[str, np.ndarray], float]:
        """Scores images with the filters: attribute → N scores, and the share of images that fit the concept."""
        scores = {name: values for ensemble in self.filters for name, values in scored(ensemble, pictures).items()}
        return scores, float(all_hold([Rule.parse(rule) for rule in TOY.concept], scores).mean())

    def deviations(self, pictures: Tensor) -> dict[str, float]:
        """Expression → standard deviation of its scores over images."""
        scores = scored(self.network, pictures)
        return {name: float(scores[name].std()) for name in TOY.names("expression")}

    def diversity(self, pictures: Tensor) -> float:
        """Computes the mean pairwise distance of the hidden features of images N×3×R×R."""
        return mean_pairwise_distance(batched(self.features, pictures, pictures.device))


def images_of(path: Path) -> tuple[Tensor, Tensor | None]:
    """A generator's images of counted latents, N×3×R×R in [−1, 1], and their labels, N×K, or None if it has none.

    Raises:
        MissingArtifactError: If the file of the generator does not exist.
    """
    require(path)
    return joined(counted_batches(network_files.load_generator(path), SEED, range(COUNT), BATCH))


def conditioning_row(judge: Judge, pictures: Tensor, labels: Tensor | None, what: str, target: str) -> Row:
    """Correlates the labels of the expressions with the scores of the images, and takes the mean.

    Raises:
        FormatError: If the generator has no labels.
    """
    if labels is None:
        raise FormatError(
            f"{what}: the generator has no labels; expected one that is conditioned on {', '.join(TOY.names('label'))}"
        )
    scores = scored(judge.network, pictures)
    names = TOY.names("label")
    table = pearson(labels.numpy(), np.stack([scores[name] for name in names], axis=1))
    mean = float(np.mean([table[names.index(name), names.index(name)] for name in TOY.names("expression")]))
    return f"{what}: label-to-property correlation, mean of {', '.join(TOY.names('expression'))}", target, mean


def measure(runs: Path) -> list[Row]:
    """Measures all rows of the table from the folder of the stages."""
    judge = Judge(runs)
    sets: dict[str, tuple[Tensor, Tensor | None]] = {
        "original": images_of(shipped("weights/toy/generator.safetensors")),
        "v1": images_of(runs / "finetune_v1" / "generator.safetensors"),
        "v8": images_of(runs / "finetune_v8" / "generator.safetensors"),
        "projection v1": images_of(runs / "finetune_v1_projection" / "generator.safetensors"),
    }
    rows: list[Row] = []
    means: dict[str, dict[str, float]] = {}
    targets = {"original": "about 0.43", "v1": ">= 0.72", "projection v1": ">= 0.72", "v8": ">= 0.95"}
    for name, target in targets.items():
        scores, rate = judge.concept(sets[name][0])
        means[name] = {attribute: float(values.mean()) for attribute, values in scores.items()}
        rows.append((f"concept rate (all four at 0.5), {name}", target, rate))
    rows += [(f"mean {name} of v8's images", "<= 0.02", means["v8"][name]) for name in ("age", "glass")]
    deviations = {name: judge.deviations(pictures) for name, (pictures, _) in sets.items()}
    for name in ("v1", "projection v1", "v8"):
        spreads = {a: value / deviations["original"][a] for a, value in deviations[name].items()}
        target = ">= 0.9" if name == "v8" else ""
        rows += [(f"spread of {a} over the original's, {name}", target, value) for a, value in spreads.items()]
        rows.append((f"least spread of an expression over the original's, {name}", target, min(spreads.values())))
    diversity = judge.diversity(sets["v8"][0]) / judge.diversity(sets["original"][0])
    rows.append(("diversity of v8 against the original", ">= 0.85", diversity))
    rows.append(conditioning_row(judge, *sets["projection v1"], "v1 with projection head", ">= 0.7"))
    rows.append(conditioning_row(judge, *sets["v8"], "v8", ">= 0.7"))
    rows.append(conditioning_row(judge, *sets["v1"], "v1 with linear head", "none expected"))
    return rows


main = measuring("finetuning", "Measures the toy world's fine-tunes.", measure, HEADLINES)

if __name__ == "__main__":
    sys.exit(main())

"""Measures the toy world's fine-tunes, and writes docs/results/finetuning.csv.

python scripts/measure_finetuning.py

The judges are filter ensembles and a network that no fine-tune was watched with (docs/attributes.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ohlora.attributes import EXPRESSIONS, LABELS
from ohlora.errors import FormatError, OhloraError
from ohlora.evaluation.features import Penultimate, label_correlations, mean_pairwise_distance
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.networks.sampling import BATCH, batched, counted_images, scored
from ohlora.pipeline import require
from ohlora.rules import AT_HALF, CONCEPT, Rule, all_hold
from ohlora.utils.files import artifacts_root, shipped, write_results

COUNT = 2000
SEED = 4242

HEADLINES = {
    "concept_v1": "concept rate (all four at 0.5), v1",
    "concept_v8": "concept rate (all four at 0.5), v8",
    "diversity": "diversity of v8 against v1",
    "label_r": "v1 with projection head",
}
"""For ``dvc metrics show``."""

Row = dict[str, Any]


class Judge:
    """What measures: filter ensembles and an attribute CNN.

    Args:
        runs: Folder of the stages.
    """

    def __init__(self, runs: Path) -> None:
        paths = [runs / f"judge_{name}" / f"{name}.safetensors" for name in CONCEPT]
        self.filters = [network_files.load_attributes(path) for path in paths]
        path = runs / "judge_cnn" / "judge.safetensors"
        network = network_files.load_attributes(path)
        if not isinstance(network, AttributeCNN):
            raise FormatError(f"{path} holds an ensemble; expected an attribute CNN")
        self.network, self.features = network, Penultimate(network)

    def concept(self, pictures: Tensor) -> tuple[dict[str, np.ndarray], float]:
        """Filter scores by attribute, and the share of images that pass all rules at 0.5."""
        scores = {name: values for ensemble in self.filters for name, values in scored(ensemble, pictures).items()}
        return scores, float(all_hold([Rule.parse(rule) for rule in AT_HALF], scores).mean())

    def diversity(self, pictures: Tensor) -> float:
        """Mean pairwise distance of the network's hidden features."""
        return mean_pairwise_distance(batched(self.features, pictures, pictures.device))


def images_of(path: Path, stage: str) -> tuple[Tensor, Tensor | None]:
    """Images and labels of counted latents of a stage's generator."""
    require(path)
    return counted_images(network_files.load_generator(path), SEED, range(COUNT), BATCH)


def conditioning_row(judge: Judge, pictures: Tensor, labels: Tensor | None, what: str, target: str) -> Row:
    """Correlation of the labels of eyes, mouth and pose with what is seen, mean of the three."""
    if labels is None:
        raise FormatError(f"{what}: the generator has no labels")
    seen = scored(judge.network, pictures)
    both = label_correlations(labels, np.stack([seen[name] for name in LABELS], axis=1))
    mean = float(np.mean([both[LABELS.index(name), LABELS.index(name)] for name in EXPRESSIONS]))
    return {
        "what": f"{what}: label-to-property correlation, mean of eyes, mouth, pose",
        "target": target,
        "measured": mean,
    }


def measure(runs: Path) -> list[Row]:
    """All rows of the table."""
    judge = Judge(runs)
    sets: dict[str, tuple[Tensor, Tensor | None]] = {
        "original": images_of(shipped("weights/toy/generator.safetensors"), "toy/pretrain"),
        "v1": images_of(runs / "finetune_v1" / "generator.safetensors", "finetune_v1"),
        "v8": images_of(runs / "finetune_v8" / "generator.safetensors", "finetune_v8"),
        "v1 projection": images_of(runs / "finetune_v1_projection" / "generator.safetensors", "finetune_v1_projection"),
    }
    rows: list[Row] = []
    means: dict[str, dict[str, float]] = {}
    for name, target in (("original", "about 0.43"), ("v1", ">= 0.72"), ("v8", ">= 0.95")):
        scores, rate = judge.concept(sets[name][0])
        means[name] = {attribute: float(values.mean()) for attribute, values in scores.items()}
        rows.append({"what": f"concept rate (all four at 0.5), {name}", "target": target, "measured": rate})
    for name in ("age", "glass"):
        rows.append({"what": f"mean {name} of v8's images", "target": "<= 0.02", "measured": means["v8"][name]})
    diversity = judge.diversity(sets["v8"][0]) / judge.diversity(sets["v1"][0])
    rows.append({"what": "diversity of v8 against v1", "target": ">= 0.85", "measured": diversity})
    rows.append(conditioning_row(judge, *sets["v1 projection"], "v1 with projection head", ">= 0.7"))
    rows.append(conditioning_row(judge, *sets["v1"], "v1 with linear head", "none expected"))
    return rows


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Measures the toy world's fine-tunes.")
    runs = artifacts_root() / "toy"
    parser.add_argument("--runs", type=Path, default=runs, help=f"folder of the stages (default: {runs})")
    parser.add_argument("--output", type=Path, default=Path("docs/results/finetuning.csv"), help="table to write")
    given = parser.parse_args(args)
    try:
        rows = measure(given.runs)
    except OhloraError as error:
        print(f"measure_finetuning: {error}", file=sys.stderr)
        return 2
    write_results(given.output, rows, given.runs / "results" / "finetuning.json", HEADLINES)
    return 0


if __name__ == "__main__":
    sys.exit(main())

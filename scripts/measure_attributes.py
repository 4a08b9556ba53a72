"""Measures what the toy world's attribute networks see, and writes docs/results/attributes.csv.

python scripts/measure_attributes.py

Held-out drawn faces are made on the spot; generated images come from the toy StyleGAN. The judges are ensembles and a
network trained with other seeds, splits and drawn faces (docs/attributes.md makes them).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ohlora.attributes import MEASURED
from ohlora.errors import OhloraError
from ohlora.faces.parsing import FaceParser, load_parser, parsed
from ohlora.formats import network_files
from ohlora.networks.sampling import counted_images, scored
from ohlora.rules import CONCEPT
from ohlora.toy import drawing
from ohlora.toy.accuracy import correlations, intersections_over_unions
from ohlora.utils import images
from ohlora.utils.files import artifacts_root, shipped, write_results

HELD_OUT = 2000
GENERATED = 2000
BATCH = 100

HEADLINES = {
    "filters_auroc": "filter, pooled out-of-fold AUROC",
    "parser_iou": "parser, mean IoU",
    "search_r": ": Pearson with the truth",
}
"""For ``dvc metrics show``."""

Row = dict[str, Any]


def held_out_faces() -> tuple[np.ndarray, np.ndarray, list[drawing.Truth]]:
    """Drawn faces of a seed that no network has seen: images N×H×W×3 uint8, true maps, truths."""
    truths = [drawing.sample_truth(99, index) for index in range(HELD_OUT)]
    faces = [drawing.draw(truth, 64) for truth in truths]
    return np.stack([face.image for face in faces]), np.stack([face.parsing for face in faces]), truths


def filter_rows(runs: Path, generated: Tensor) -> list[Row]:
    """Out-of-fold AUROC of the filters, and their agreement with independently trained ones on generated images."""
    rows: list[Row] = []
    agreements: list[Row] = []
    for name in CONCEPT:
        path = runs / f"filter_{name}" / f"{name}.safetensors"
        pooled = network_files.read_metadata(path)["provenance"]["out_of_fold"]["out_of_fold/auroc"]
        rows.append({"what": f"{name} filter, pooled out-of-fold AUROC", "target": 0.99, "measured": pooled})
        ours = scored(network_files.load_attributes(path), generated)[name]
        judge = scored(network_files.load_attributes(runs / f"judge_{name}" / f"{name}.safetensors"), generated)
        agreement = float(((ours >= 0.5) == (judge[name] >= 0.5)).mean())
        what = f"{name} filter, generated images: agreement at 0.5 with an independently trained ensemble"
        agreements.append({"what": what, "target": 0.97, "measured": agreement})
    return rows + agreements


def parser_rows(parser: FaceParser, pictures: np.ndarray, masks: np.ndarray, truths: list[drawing.Truth]) -> list[Row]:
    """Intersection over union of the parser, and scores read off its maps against the truth."""
    maps = parsed(parser, pictures)
    unions = intersections_over_unions(masks, maps)
    worst = min(unions, key=lambda name: unions[name])
    rows: list[Row] = [
        {"what": "parser, mean IoU", "target": 0.92, "measured": float(np.mean([*unions.values()]))},
        {"what": f"parser, worst class IoU ({worst})", "target": 0.75, "measured": unions[worst]},
    ]
    for name, value in correlations(truths, pictures, maps).items():
        what = f"{name} score on parsed maps, Spearman with the truth"
        rows.append({"what": what, "target": 0.93, "measured": value})
    return rows


def correlation_rows(
    names: Iterable[str], a: dict[str, np.ndarray], b: dict[str, np.ndarray], what: str, targets: tuple[float, float]
) -> list[Row]:
    """Pearson correlations; the harder attributes, hairstyle and background_std, have the second target."""
    return [
        {
            "what": what.format(name=name),
            "target": targets[int(name in ("hairstyle", "background_std"))],
            "measured": float(np.corrcoef(a[name], b[name])[0, 1]),
        }
        for name in names
    ]


def measure(runs: Path) -> list[Row]:
    """All rows of the table."""
    drawn, masks, truths = held_out_faces()
    generator = network_files.load_generator(shipped("weights/toy/generator.safetensors"))
    generated, _ = counted_images(generator, 99, range(GENERATED), BATCH)
    rows = filter_rows(runs, generated)
    rows += parser_rows(load_parser(str(runs / "face_parser" / "parser.safetensors")), drawn, masks, truths)
    pictures = images.to_float(drawn)
    truth = {name: np.array([t.attributes[name] for t in truths]) for name in MEASURED}
    search = network_files.load_attributes(runs / "merged" / "merged.safetensors")
    judge = network_files.load_attributes(runs / "judge_cnn" / "judge.safetensors")
    for called, network in (("search CNN", search), ("judge CNN", judge)):
        found = scored(network, pictures)
        rows += correlation_rows(
            search.outputs, found, truth, f"{called}, {{name}}: Pearson with the truth", (0.97, 0.9)
        )
    searched, judged = scored(search, generated), scored(judge, generated)
    what = "search against judge CNN on generated images, {name}: Pearson"
    return rows + correlation_rows(search.outputs, searched, judged, what, (0.97, 0.92))


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Measures the toy world's attribute networks.")
    runs = artifacts_root() / "toy"
    parser.add_argument("--runs", type=Path, default=runs, help=f"folder of the stages (default: {runs})")
    parser.add_argument("--output", type=Path, default=Path("docs/results/attributes.csv"), help="table to write")
    given = parser.parse_args(args)
    try:
        rows = measure(given.runs)
    except OhloraError as error:
        print(f"measure_attributes: {error}", file=sys.stderr)
        return 2
    write_results(given.output, rows, given.runs / "results" / "attributes.json", HEADLINES)
    return 0


if __name__ == "__main__":
    sys.exit(main())

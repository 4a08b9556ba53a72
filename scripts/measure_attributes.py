"""Measures the accuracy of the toy world's attribute networks, and writes docs/results/attributes.csv.

Usage::

    python scripts/measure_attributes.py

The networks are measured on newly drawn faces, whose true values are known, and on images of the toy StyleGAN, where
they are compared with judges, ensembles and a network that were trained with other seeds, splits and drawn faces
(docs/attributes.md says how to train them), and with the scores of parsed maps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ohlora import pipeline
from ohlora.faces.measuring import Scores
from ohlora.faces.parsing import FaceParser, load_parser, parsed
from ohlora.formats import network_files
from ohlora.networks.identity import IdentityNetwork
from ohlora.networks.sampling import counted_batches, joined, scored
from ohlora.toy import drawing
from ohlora.toy.accuracy import correlations, intersections_over_unions
from ohlora.toy.drawing import MEASURED
from ohlora.utils import images
from ohlora.utils.commands import Row, measuring
from ohlora.utils.files import shipped

HELD_OUT = 2000
"""Number of newly drawn faces."""
GENERATED = 2000
"""Number of generated images."""
BATCH = 100
"""Number of images generated at once."""
PEOPLE = 200
"""Number of people who are drawn along each expression."""

HEADLINES = {
    "filters_auroc": "filter, pooled out-of-fold AUROC",
    "parser_iou": "parser, mean IoU",
    "search_r": ": Pearson with the truth",
}
"""Metrics of the summary, see :func:`ohlora.utils.commands.measuring`."""


def held_out_faces() -> tuple[np.ndarray, np.ndarray, list[drawing.Truth]]:
    """Draws faces that no network was trained on: images N×H×W×3 uint8, true maps N×H×W uint8, and true values."""
    truths = [drawing.sample_truth(99, index) for index in range(HELD_OUT)]
    faces = [drawing.draw(truth, 64) for truth in truths]
    return np.stack([face.image for face in faces]), np.stack([face.parsing for face in faces]), truths


def filter_rows(runs: Path, generated: Tensor) -> list[Row]:
    """Measures the filters: AUROC out of fold, and agreement with independently trained ones on generated images."""
    rows: list[Row] = []
    agreements: list[Row] = []
    for name in pipeline.world("toy").attributes.names("filter"):
        path = runs / f"filter_{name}" / f"{name}.safetensors"
        pooled = network_files.read_metadata(path)["provenance"]["out_of_fold"]["out_of_fold/auroc"]
        rows.append((f"{name} filter, pooled out-of-fold AUROC", 0.99, pooled))
        ours = scored(network_files.load_attributes(path), generated)[name]
        judge = scored(network_files.load_attributes(runs / f"judge_{name}" / f"{name}.safetensors"), generated)
        agreement = float(((ours >= 0.5) == (judge[name] >= 0.5)).mean())
        what = f"{name} filter, generated images: agreement at 0.5 with an independently trained ensemble"
        agreements.append((what, 0.97, agreement))
    return rows + agreements


def parser_rows(parser: FaceParser, pictures: np.ndarray, masks: np.ndarray, truths: list[drawing.Truth]) -> list[Row]:
    """Measures the parser: intersection over union, and correlation of scores on its maps with the true values."""
    maps = parsed(parser, pictures)
    unions = intersections_over_unions(masks, maps)
    worst = min(unions, key=lambda name: unions[name])
    rows: list[Row] = [
        ("parser, mean IoU", 0.92, float(np.mean([*unions.values()]))),
        (f"parser, worst class IoU ({worst})", 0.75, unions[worst]),
    ]
    found = correlations(truths, pictures, maps, pipeline.world("toy").attributes.scored)
    return rows + [(f"{name} score on parsed maps, Spearman with the truth", 0.93, r) for name, r in found.items()]


def correlation_rows(
    names: Iterable[str], a: dict[str, np.ndarray], b: dict[str, np.ndarray], what: str, targets: tuple[float, float]
) -> list[Row]:
    """Pearson correlations between two sets of scores, attribute → N scores.

    Args:
        names: The attributes.
        a: One set.
        b: The other.
        what: Text of a row, with ``{name}`` in place of the attribute.
        targets: Target value, and that of the attributes that are harder to predict: hairstyle and background_std.
    """
    hard = ("hairstyle", "background_std")
    found = {name: float(np.corrcoef(a[name], b[name])[0, 1]) for name in names}
    return [(what.format(name=name), targets[int(name in hard)], r) for name, r in found.items()]


def measured_scores(parser: FaceParser, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Scores images N×H×W×3 uint8 by measuring their parsing maps: attribute → N raw scores."""
    scores = Scores(pipeline.world("toy").attributes.scored)
    rows = [scores(picture, parsing) for picture, parsing in zip(pictures, parsed(parser, pictures), strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in scores.names}


def identity_rows(network: IdentityNetwork) -> list[Row]:
    """Measures how often a judge of identity takes perfect edits for the same person.

    Faces that fit the concept are drawn along each expression, from end to end of what drawings show, with all else as
    it is. This is the most that edits of a generator can be expected to reach.
    """
    names, least = pipeline.world("toy").attributes.names("expression"), []
    for index in range(PEOPLE):
        truth = drawing.sample_truth(77, index, {"gender": 1.0, "quality": 1.0, "age": 0.0, "glass": 0.0})
        moved = [truth.replace(**{name: value}) for name in names for value in np.linspace(-1.96, 1.96, 9)]
        embedded = network(images.to_float(np.stack([drawing.draw(of, 64).image for of in (truth, *moved)])))
        least.append(network.calibration(embedded[1:] @ embedded[0]).reshape(len(names), -1).amin(dim=1))
    kept = torch.stack(least) >= 0.9
    shares = [*kept.double().mean(dim=0).tolist(), float(kept.all(dim=1).double().mean())]
    what = "judge of identity, drawings of a person along {}: share whose least probability is 0.9 or more"
    return [(what.format(name), 0.9, share) for name, share in zip((*names, "all expressions"), shares, strict=True)]


def measure(runs: Path) -> list[Row]:
    """Measures all rows of the table from the folder of the stages."""
    drawn, masks, truths = held_out_faces()
    toy = network_files.load_generator(shipped("weights/toy/generator.safetensors"))
    generated, _ = joined(counted_batches(toy, 99, range(GENERATED), BATCH))
    rows = filter_rows(runs, generated)
    parser = load_parser(str(runs / "face_parser" / "parser.safetensors"))
    rows += parser_rows(parser, drawn, masks, truths)
    pictures = images.to_float(drawn)
    truth = {name: np.array([t.attributes[name] for t in truths]) for name in MEASURED}
    search = network_files.load_attributes(runs / "merged" / "merged.safetensors")
    judge = network_files.load_attributes(runs / "judge_cnn" / "judge.safetensors")
    for title, network in (("search CNN", search), ("judge CNN", judge)):
        found = scored(network, pictures)
        rows += correlation_rows(
            search.outputs, found, truth, f"{title}, {{name}}: Pearson with the truth", (0.97, 0.9)
        )
    searched, judged = scored(search, generated), scored(judge, generated)
    what = "search against judge CNN on generated images, {name}: Pearson"
    rows += correlation_rows(search.outputs, searched, judged, what, (0.97, 0.92))
    measured = measured_scores(parser, images.to_uint8(generated))
    what = "judge CNN against scores of parsed maps on generated images, {name}: Pearson"
    rows += correlation_rows(search.outputs, judged, measured, what, (0.9, 0.9))
    with torch.inference_mode():
        return rows + identity_rows(network_files.load_identity(runs / "judge_identity" / "identity.safetensors"))


main = measuring("attributes", "Measures the accuracy of the toy world's attribute networks.", measure, HEADLINES)

if __name__ == "__main__":
    sys.exit(main())

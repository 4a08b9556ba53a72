"""Small labelled sets whose truth can be seen (brighter images have larger values), and networks that watch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.characters.reports import MEASURED, write_report
from ohlora.directions.edits import Directions, Grid
from ohlora.directions.groups import Groups
from ohlora.formats import network_files, sample_files
from ohlora.formats.direction_files import save_directions
from ohlora.networks.attribute_cnn import PUBLISHED_FILTERS as FILTERS
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble, attribute_cnn
from ohlora.networks.sampling import counted_batches
from ohlora.utils import images
from ohlora.utils.files import write_rows


def options(settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def brightness_table(folder: Path, count: int, seed: int = 0) -> tuple[Path, np.ndarray]:
    """Noisy 16×16 images with a table of their brightness.

    Returns:
        ``manifest.csv`` with the columns index, path, gender (1 for the brighter half) and hairstyle, pose (the
        brightness as a z-score), and that brightness.
    """
    rng = np.random.default_rng(seed)
    levels = rng.standard_normal(count)
    rows: list[dict[str, Any]] = []
    for k, level in enumerate(levels):
        noise = rng.normal(0, 10, (16, 16, 3))
        picture = np.clip(128 + 45 * level + noise, 0, 255).astype(np.uint8)
        images.save_png(picture, folder / "images" / f"{k:03d}.png")
        row = {"index": k, "path": f"images/{k:03d}.png", "gender": int(level > 0)}
        rows.append(row | {"hairstyle": round(float(level), 4), "pose_score": round(float(level), 4)})
    write_rows(folder / "manifest.csv", rows)
    return folder / "manifest.csv", levels


def watching(folder: Path) -> dict[str, object]:
    """Settings of a Watch callback with random networks for 16×16, which are written into a folder."""
    torch.manual_seed(0)
    for name in FILTERS:
        members = [attribute_cnn(name, "small", 16).eval() for _ in range(2)]
        network_files.save_network(AttributeEnsemble.of(members), folder / f"{name}.safetensors")
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), folder / "merged.safetensors")
    return {
        "trainer.callbacks": "ohlora.callbacks.watch.Watch",
        "trainer.callbacks.filters": f"[{', '.join(str(folder / f'{name}.safetensors') for name in FILTERS)}]",
        "trainer.callbacks.properties": folder / "merged.safetensors",
        "trainer.callbacks.count": 24,
    }


def lively_cnn(generator: Path, seed: int = 0) -> AttributeCNN:
    """A random search CNN of 16×16 images; over a generator's images, its scores have mean 0 and deviation 1."""
    torch.manual_seed(seed)
    network = attribute_cnn("merged", "small", 16).eval()
    g = network_files.load_generator(generator)
    with torch.inference_mode():
        made = torch.cat([image for image, _ in counted_batches(g, 0, range(200), 50)])
        scores = network(made)
    for spec in network.specs:
        columns = [network.outputs.index(name) for name in spec.outputs]
        mean, deviation = scores[:, columns].mean(dim=0), scores[:, columns].std(dim=0)
        last = network.get_submodule(f"branches.{spec.outputs[0]}.score")
        last.get_parameter("weight").data /= deviation[:, None]
        bias = last.get_parameter("bias")
        bias.data = (bias.data - mean) / deviation
    return network


def sample_set(folder: Path, count: int = 1600, shard: int = 500, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A set of samples whose scores are noisy linear functions of w, with its medians.

    Returns:
        w, N×8, and the scores, N×8 (the merged CNN's outputs).
    """
    random = torch.Generator().manual_seed(seed)
    w = torch.randn(count, 8, generator=random)
    scores = w @ torch.randn(8, 8, generator=random) + 0.3 * torch.randn(count, 8, generator=random)
    names = attribute_cnn("merged", "small", 16).outputs
    for first in range(0, count, shard):
        part = slice(first, first + shard)
        sample_files.write_shard(folder, first, w[part], scores[part], {"outputs": list(names)})
    statistics = sample_files.statistics(names, scores.numpy())
    (folder / sample_files.MEDIANS).write_text(json.dumps(statistics))
    return w, scores


def report_of_latents(folder: Path, generator: Path) -> Path:
    """A test's report of four latents: the second best by correlation, the third fails."""
    names = ("eyes", "mouth", "pose")
    torch.manual_seed(2)
    vectors = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    found = Directions(names, vectors, torch.rand(2, 3) + 0.5, Groups(("hair_color",), (0.0,)), "svm")
    save_directions(found, folder / "directions.safetensors")
    rows: list[dict[str, Any]] = []
    for k, (r, leakage) in enumerate([(0.93, 0.1), (0.97, 0.3), (0.5, 0.1), (0.93, 0.05)]):
        row: dict[str, Any] = {"case": 10 + k, "vector_no": 0, "passed": r >= 0.9, "group_name": "l"}
        for p, name in enumerate(names):
            row |= {f"{name}_corr": r, f"{name}_slope": 0.5 * (p + 1), f"{name}_leakage": leakage}
        rows.append(row)
    rows[2]["pose_slope"] = -0.1
    latents = {"case": torch.arange(10, 14), "codes": torch.randn(4, 8), "group": torch.ones(4, dtype=torch.long)}
    latents["units"] = torch.ones(3)
    latents["ranges"] = torch.tensor([[-2.0, 1.0], [-3.0, 3.0], [0.0, 1.5]], dtype=torch.float64).repeat(4, 1, 1)
    for what in MEASURED:
        exact = [[row[f"{name}_{what}"] for name in names] for row in rows]
        latents[what] = torch.tensor(exact, dtype=torch.float64)
    levels = dict(Grid.of(names).levels)
    directions = folder / "directions.safetensors"
    write_report(folder, rows, {"latents": 4}, latents, generator, directions, space="w", levels=levels, unit="data")
    return folder

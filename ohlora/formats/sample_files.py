"""Samples on disk: shards of style codes with the scores of their images, and the scores' medians.

A shard ``shards/000005000-000009999.safetensors`` holds, for the samples its name tells, ``index`` (N,), ``w`` (N×D)
and ``scores`` (N×K); its metadata name the K scores and what the samples were made from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.directions.finder import SampleSet
from ohlora.errors import DataError, FormatError
from ohlora.formats import tensor_files
from ohlora.networks.codes import Codes, Space
from ohlora.pipeline import hint, require
from ohlora.utils import counted
from ohlora.utils.files import read_json

FORMAT = "ohlora-samples"
FORMAT_VERSION = 1
MEDIANS = "medians.json"
EARLIER_SETTINGS = {"noise": "noise_mode", "psi": "truncation_psi", "psi_layers": "truncation_cutoff"}
"""What settings were called in the sets of the first release; a fixed noise was called ``fixed``."""


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a set of images or samples under their present names."""
    present = {EARLIER_SETTINGS.get(key, key): value for key, value in settings.items()}
    return present | ({"noise_mode": "const"} if settings.get("noise") == "fixed" else {})


def shard_path(folder: Path, indices: range) -> Path:
    """Where a shard is."""
    return folder / "shards" / f"{indices.start:09d}-{indices.stop - 1:09d}.safetensors"


def ranges_in(folder: Path) -> list[range]:
    """The index ranges of the shards in a folder, in order."""
    found = [re.fullmatch(r"(\d+)-(\d+)\.safetensors", path.name) for path in (folder / "shards").glob("[0-9]*")]
    return sorted((range(int(m[1]), int(m[2]) + 1) for m in found if m is not None), key=lambda r: (r.start, r.stop))


def write_shard(folder: Path, first: int, w: Tensor, scores: Tensor, about: Mapping[str, Any]) -> None:
    """Writes a shard, whole or not at all, in place of a shorter one that begins alike.

    Args:
        folder: Folder of the set.
        first: Index of the first sample.
        w: Style codes, N×D float32.
        scores: N×K float32.
        about: What the samples were made from; ``outputs`` names the scores.
    """
    end = first + len(w)
    tensors = {"index": torch.arange(first, end), "w": w, "scores": scores}
    tensor_files.write(shard_path(folder, range(first, end)), FORMAT, FORMAT_VERSION, tensors, **about)
    for other in ranges_in(folder):
        if other.start == first and other.stop < end:
            shard_path(folder, other).unlink()


def shards_of(folder: Path, count: int | None = None) -> list[range]:
    """The shards of a set, checked to hold samples 0, 1, 2, … without a gap.

    Args:
        folder: Folder of the set.
        count: How many samples are wanted at least; None takes what is there.

    Raises:
        MissingArtifactError: If there is no set.
        DataError: Naming the first sample that is missing.
    """
    require(folder / "shards", folder=True)
    found, end = ranges_in(folder), 0
    again = f"; {hint(folder) or 'sample again'} makes what is missing"
    for shard in found:
        if shard.start != end:
            first = min(end, shard.start)
            raise DataError(f"{folder}: the shard that holds sample {first} is missing or double{again}")
        end = shard.stop
    if end < (count or 1):
        raise DataError(f"{folder} holds {end} samples; expected {count or 'at least one'}{again}")
    return found


def origin_of(folder: Path, shards: Sequence[range]) -> dict[str, Any]:
    """What the shards say of their origin, the same in all: ``outputs`` names the scores.

    Raises:
        DataError: If shards come from different runs.
    """
    seen: list[tuple[Path, dict[str, Any]]] = []  # one of each origin
    for path in (shard_path(folder, shard) for shard in shards):
        about = renamed(tensor_files.read_metadata(path, FORMAT, FORMAT_VERSION, "a shard of samples"))
        if about not in [other for _, other in seen]:
            seen.append((path, about))
    if len(seen) > 1:
        paths = ", ".join(str(path) for path, _ in seen)
        raise DataError(f"shards of different origin lie side by side: {paths}; sample into an empty folder")
    return seen[0][1]


def read_samples(folder: Path, count: int | None = None, limit: int | None = None, seed: int = 0) -> SampleSet:
    """Samples of a set, in memory.

    Args:
        folder: Folder of the set.
        count: Takes the first so many; None takes all.
        limit: Where there are more, takes so many of them; which ones is a function of (seed, their number).
        seed: Seed of that choice.

    Raises:
        MissingArtifactError: If there is no set.
        DataError: If a shard is missing or foreign, or a score is no number, naming the sample.
    """
    shards = shards_of(folder, count)
    origin = origin_of(folder, shards)
    total = count or shards[-1].stop
    kept = np.arange(total)
    if limit is not None and limit < total:
        kept = np.sort(counted.permutation(seed, "samples", 0, total)[:limit])
    parts: list[tuple[Tensor, Tensor]] = []
    for shard in shards:
        mine = torch.from_numpy(kept[(kept >= shard.start) & (kept < shard.stop)] - shard.start)
        if len(mine):
            tensors = _read(folder, shard, "w", "scores")
            parts.append((tensors["w"][mine], tensors["scores"][mine]))
    w, scores = map(torch.cat, zip(*parts, strict=True))
    outputs, made_with = tuple(origin["outputs"]), str(origin.get("generator", ""))
    return SampleSet(outputs, Codes(w, Space.W), scores.numpy(), made_with)


def read_scores(folder: Path, count: int | None = None) -> np.ndarray:
    """The scores of the first ``count`` samples, or of all: N×K float32.

    Raises:
        DataError: If one is not a number, naming the sample.
    """
    shards = [shard for shard in shards_of(folder, count) if count is None or shard.start < count]
    return torch.cat([_read(folder, shard, "scores")["scores"] for shard in shards]).numpy()[:count]


def _read(folder: Path, shard: range, *names: str) -> dict[str, Tensor]:
    path = shard_path(folder, shard)
    tensors = tensor_files.read_tensors(path, names, may_be_nan=["scores"])
    bad = (~torch.isfinite(tensors["scores"]).all(dim=1)).nonzero()
    if len(bad):
        raise DataError(f"{path}: sample {shard.start + int(bad[0])} has a score that is no number")
    return tensors


def medians_of(path: Path) -> dict[str, float]:
    """The median of each score, as sampling wrote them.

    Raises:
        MissingArtifactError: If there is no such file.
    """
    require(path)
    found = read_json(path).get("median")
    if not isinstance(found, dict) or not all(isinstance(value, (int, float)) for value in found.values()):
        raise FormatError(f"{path} holds no medians; expected a number for each score, as sampling writes them")
    return found


def statistics(names: Sequence[str], scores: np.ndarray) -> dict[str, Any]:
    """``count``, and ``median``, ``mean`` and ``std`` of N×K scores by name."""
    values = scores.astype(np.float64)
    numbers = {"median": np.median(values, axis=0), "mean": values.mean(axis=0), "std": values.std(axis=0)}
    by_name = {what: dict(zip(names, row.tolist(), strict=True)) for what, row in numbers.items()}
    return {"count": len(values), **by_name}

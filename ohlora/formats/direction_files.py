"""Direction files: ours, and the original's CSV folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.directions.edits import Directions, LocalBasis, PathBasis
from ohlora.directions.groups import Groups
from ohlora.errors import DataError, FormatError, MissingArtifactError
from ohlora.formats import tensor_files
from ohlora.networks.codes import Space
from ohlora.pipeline import require
from ohlora.utils.files import read_rows

FORMAT = "ohlora-directions"
FORMAT_VERSION = 2
BASES: Mapping[str, type[LocalBasis] | type[PathBasis]] = {"local": LocalBasis, "paths": PathBasis}
"""What the parts of a file are called that hold a basis."""
ORIGINAL_NAMES = {"pose": "roll"}
"""What the original calls pose is the tilt of the eye line."""
ORIGINAL_GROUPING = ("hair_color", "hair_length", "background_mean", "hairstyle")
"""What the letters of the original's group names stand for."""


def save_directions(directions: Directions, path: str | Path) -> None:
    """Writes everything needed to use directions, whole or not at all; with the basis of each latent's own."""
    tensors = {"vectors": directions.vectors.float(), "units": directions.units.float()}
    about: dict[str, Any] = {
        "attributes": list(directions.attributes),
        "space": str(directions.space),
        "group_by": list(directions.groups.attributes),
        "medians": list(directions.groups.medians),
        "method": directions.method,
        "unit": directions.unit,
        "provenance": dict(directions.provenance),
    }
    for name, kind in BASES.items():
        if isinstance(directions.basis, kind):
            values = vars(directions.basis)
            tensors |= {f"{name}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
            about[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
    tensor_files.write(path, FORMAT, FORMAT_VERSION, tensors, **about)


def load_directions(path: str | Path) -> Directions:
    """Reads a file of :func:`save_directions`, also one of format version 1, which names neither space nor unit.

    Files without a unit count in standard deviations over samples.

    Raises:
        MissingArtifactError: If there is none.
        FormatError: If it is something else.
    """
    require(path)
    about = tensor_files.read_metadata(path, FORMAT, FORMAT_VERSION, "a file of directions")
    tensors = tensor_files.read_tensors(path)
    try:
        vectors = tensors["vectors"]
        space = about.get("space", Space.W if vectors.ndim == 3 else Space.W_BY_LAYER)
        basis: LocalBasis | PathBasis | None = None
        if "local.deviations" in tensors:  # as files without a unit call it
            tensors["local.scales"] = tensors.pop("local.deviations")
        for name, kind in BASES.items():
            if name in about:
                own = {key.removeprefix(f"{name}."): tensors[key] for key in tensors if key.startswith(f"{name}.")}
                basis = kind(**(about[name] | own | {"outputs": tuple(about[name]["outputs"])}))
        return Directions(
            tuple(about["attributes"]),
            vectors,
            tensors["units"],
            Groups(tuple(about["group_by"]), tuple(about["medians"])),
            about["method"],
            about["provenance"],
            Space(space),
            basis,
            about.get("unit", "samples"),
        )
    except Exception as error:  # whatever a damaged description leads to
        raise FormatError(f"{path}: its parts do not fit its own description ({error})") from error


def read_original(folder: str | Path, medians: str | Path | None = None) -> Directions:
    """Reads the original's CSV folder, ``eyes_change_w_vector_hhhh.csv`` …, and turns its vectors upwards.

    Args:
        folder: The folder; groups may have any number of letters up to four.
        medians: The original's table of group medians; without it a sample's group must be known by name.

    Returns:
        Directions whose unit of strength is one unit vector, as in the original; its ``pose`` is ``roll``.

    Raises:
        MissingArtifactError: If the folder is missing or holds no such file.
        DataError: Listing the files that are missing, or naming one that does not fit.
    """
    folder = Path(folder)
    require(folder, folder=True)
    found: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for path in sorted(folder.glob("*_change_w_vector_*.csv")):
        match = re.fullmatch(r"(\w+)_change_w_vector_([hl]+)\.csv", path.name)
        if match is None:
            raise DataError(f"{path}: expected a group of the letters h and l at the end of the name, such as hhlh")
        found[match[1]][match[2]] = _vector(path)
    if not found:
        raise MissingArtifactError(f"{folder} holds no file such as eyes_change_w_vector_hhhh.csv")
    letters = {len(name) for by_group in found.values() for name in by_group}
    if len(letters) != 1 or max(letters) > len(ORIGINAL_GROUPING):
        raise DataError(f"{folder}: group names have {sorted(letters)} letters; expected one number, up to four")
    group_by = ORIGINAL_GROUPING[: letters.pop()]
    groups = Groups(group_by, _medians(medians, group_by) if medians else (float("nan"),) * len(group_by))
    absent = [f"{a}_change_w_vector_{g}.csv" for a in found for g in groups.names if g not in found[a]]
    if absent:
        raise DataError(f"{folder}: {', '.join(absent)} missing")
    sizes = {len(vector) for by_group in found.values() for vector in by_group.values()}
    if len(sizes) != 1:
        raise DataError(f"{folder}: vectors have lengths {sorted(sizes)}; expected one length")
    # The original's point from large to small scores.
    vectors = -torch.from_numpy(np.stack([[by_group[g] for by_group in found.values()] for g in groups.names]))
    norms = vectors.norm(dim=-1)
    attributes = tuple(ORIGINAL_NAMES.get(name, name) for name in found)
    provenance = {"imported_from": folder.name}
    return Directions(attributes, vectors / norms[..., None], norms, groups, "svm", provenance, unit="vector")


def _vector(path: Path) -> np.ndarray:
    rows = read_rows(path)
    if len(rows) != 1 or next(iter(rows[0])):
        raise DataError(f"{path}: expected a header with an empty first name, and one row (one SVM) of the same length")
    try:
        vector = np.array([*rows[0].values()][1:], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if not np.isfinite(vector).all() or not vector.any():
        raise DataError(f"{path}: a vector of finite numbers other than zero is expected")
    return vector


def _medians(path: str | Path, group_by: tuple[str, ...]) -> tuple[float, ...]:
    require(path)
    rows: list[Mapping[str, str]] = [row for row in read_rows(path) if row.get("value_type") == "median"]
    if len(rows) != 1:
        raise DataError(f"{path}: expected one row of value_type median")
    row = {{"background_score": "background_mean"}.get(name, name): value for name, value in rows[0].items()}
    missing = [name for name in group_by if name not in row]
    if missing:
        raise DataError(f"{path} has no column for {', '.join(missing)}")
    try:
        medians = tuple(float(row[name]) for name in group_by)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if not np.isfinite(medians).all():
        raise DataError(f"{path}: the medians are {medians}; expected finite numbers")
    return medians

"""Files of directions, of both versions of their format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ohlora.directions.edits import Directions, LocalBasis
from ohlora.directions.groups import Groups
from ohlora.errors import FormatError
from ohlora.formats import tensor_files
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks.codes import Codes, Space

SHAPES = {Space.W: (8,), Space.W_BY_LAYER: (6, 8), Space.S: (21,)}


@pytest.mark.parametrize("space", Space)
def test_directions_come_back_in_their_space(tmp_path: Path, space: Space) -> None:
    groups = Groups(("hair_color",), (0.25,))
    steps = Codes(torch.randn(2, 3, *SHAPES[space]), space)
    names = ("outputs", "gradients", "covariance", "scales", "points", "rounds", "share", "low", "high", "seed")
    values = (("eyes", "mouth"), *(torch.randn(2) for _ in range(3)), 8, 2, 0.8, torch.zeros(3), torch.ones(3), 4)
    basis = LocalBasis(**dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
    found = Directions.of_steps(("eyes", "mouth", "pose"), steps, groups, "made", {"seed": 1}, basis)
    save_directions(found, tmp_path / "d.safetensors")
    read = load_directions(tmp_path / "d.safetensors")
    assert (read.space, read.attributes, read.groups, read.method) == (space, found.attributes, groups, "made")
    assert torch.equal(read.vectors, found.vectors) and torch.equal(read.units, found.units)
    assert read.provenance == {"seed": 1} and isinstance(read.basis, LocalBasis)
    assert read.basis.outputs == ("eyes", "mouth") and torch.equal(read.basis.gradients, basis.gradients)
    assert torch.equal(read.basis.scales, basis.scales) and read.unit == found.unit == "data"
    with pytest.raises(ValueError, match="the unit of strength is 'metres'; expected one of data, samples, vector"):
        replace(found, unit="metres")  # type: ignore[arg-type]


@pytest.mark.parametrize("space", [Space.W, Space.W_BY_LAYER])
def test_version_1_tells_the_space_by_the_shape(tmp_path: Path, space: Space) -> None:
    path = tmp_path / "d.safetensors"
    tensors = {"vectors": torch.randn(1, 2, *SHAPES[space]), "units": torch.ones(1, 2)}
    about = {"attributes": ["eyes", "mouth"], "group_by": [], "medians": [], "method": "svm", "provenance": {}}
    tensor_files.write(path, "ohlora-directions", 1, tensors, **about)
    read = load_directions(path)
    assert read.space is space and torch.equal(read.vectors, tensors["vectors"]) and read.basis is None
    assert read.unit == "samples"
    tensor_files.write(path, "ohlora-directions", 2, tensors, **about, space="s")
    if space is Space.W_BY_LAYER:
        with pytest.raises(FormatError, match="do not fit its own description"):
            load_directions(path)


def test_local_edits_of_files_without_a_unit_count_in_deviations(tmp_path: Path) -> None:
    """They keep the standard deviations by which the gradients of each latent are divided."""
    path = tmp_path / "d.safetensors"
    tensors = {"vectors": torch.randn(1, 2, 6, 8), "units": torch.ones(1, 2)}
    tensors |= {f"local.{name}": torch.ones(2) for name in ("gradients", "covariance", "low", "high")}
    tensors["local.deviations"] = torch.tensor([0.5, 0.25])
    about: dict[str, Any] = {"attributes": ["eyes", "mouth"], "group_by": [], "medians": [], "method": "local"}
    about["local"] = {"outputs": ["eyes", "mouth"], "points": 8, "rounds": 2, "share": 0.8, "seed": 0}
    tensor_files.write(path, "ohlora-directions", 1, tensors, **about, provenance={})
    read = load_directions(path)
    assert read.unit == "samples" and isinstance(read.basis, LocalBasis) and read.basis.scales.tolist() == [0.5, 0.25]

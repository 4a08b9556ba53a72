"""Files of directions, of both versions of their format."""

from __future__ import annotations

from pathlib import Path

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
    names = ("outputs", "gradients", "covariance", "deviations", "points", "rounds", "share", "low", "high", "seed")
    values = (("eyes", "mouth"), *(torch.randn(2) for _ in range(3)), 8, 2, 0.8, torch.zeros(3), torch.ones(3), 4)
    basis = LocalBasis(**dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
    found = Directions.of_steps(("eyes", "mouth", "pose"), steps, groups, "made", {"seed": 1}, basis)
    save_directions(found, tmp_path / "d.safetensors")
    read = load_directions(tmp_path / "d.safetensors")
    assert (read.space, read.attributes, read.groups, read.method) == (space, found.attributes, groups, "made")
    assert torch.equal(read.vectors, found.vectors) and torch.equal(read.units, found.units)
    assert read.provenance == {"seed": 1} and read.basis is not None
    assert read.basis.outputs == ("eyes", "mouth") and torch.equal(read.basis.gradients, basis.gradients)


@pytest.mark.parametrize("space", [Space.W, Space.W_BY_LAYER])
def test_version_1_tells_the_space_by_the_shape(tmp_path: Path, space: Space) -> None:
    path = tmp_path / "d.safetensors"
    tensors = {"vectors": torch.randn(1, 2, *SHAPES[space]), "units": torch.ones(1, 2)}
    about = {"attributes": ["eyes", "mouth"], "group_by": [], "medians": [], "method": "svm", "provenance": {}}
    tensor_files.write(path, "ohlora-directions", 1, tensors, **about)
    read = load_directions(path)
    assert read.space is space and torch.equal(read.vectors, tensors["vectors"]) and read.basis is None
    tensor_files.write(path, "ohlora-directions", 2, tensors, **about, space="s")
    if space is Space.W_BY_LAYER:
        with pytest.raises(FormatError, match="do not fit its own description"):
            load_directions(path)

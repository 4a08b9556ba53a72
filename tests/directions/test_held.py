"""Edits that hold the person: what a guide says of an image stays, whatever the finder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ohlora.directions.channels import Channels
from ohlora.directions.edits import LocalBasis, PathBasis, moved
from ohlora.directions.finder import Notes, Source
from ohlora.directions.held import ScoresAndIdentity, seen
from ohlora.directions.jacobian import Jacobian
from ohlora.directions.local import Local, LocalEdits
from ohlora.directions.paths import PathEdits, Paths
from ohlora.errors import ConfigError
from ohlora.evaluation.features import NetworkFeatures
from ohlora.evaluation.identity import Identity
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks.codes import Codes, Space
from tests.directions.linear import GREY, Pixels, Reader

NAMES = ("eyes", "mouth")
WEIGHTS = torch.tensor([[1.0, 0.0, 0.5, 0.8], [0.0, 1.0, 0.0, 0.6]])
GRID = dict.fromkeys(NAMES, (-0.5, 0.5))


class LastPixel(nn.Module):
    """Knows people by their last pixel."""

    def forward(self, images: Tensor) -> Tensor:
        last = images[:, 0, 1, 1] / GREY
        return torch.stack([torch.ones_like(last), last], dim=1)


def source(guided: bool) -> Source:
    guide = Identity(NetworkFeatures(LastPixel(), resolution=2)) if guided else None
    return Source(None, Pixels(), Reader(NAMES, WEIGHTS), grid=GRID, guide=guide)  # type: ignore[arg-type]


FINDERS: Mapping[type, dict[str, Any]] = {
    Jacobian: {"covariance_count": 500, "layers": "each"},
    Local: {"covariance_count": 500, "points": 2},
    Paths: {"covariance_count": 500, "nodes": 3, "damping": 0.0, "jitter": 0.0},
    Channels: {},
}


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("kind", FINDERS)
def test_the_person_stays_where_a_guide_is_asked(kind: type, guided: bool, tmp_path: Path) -> None:
    given = source(guided)
    generator, network = given.networks
    found = kind(targets=NAMES, latents=20, identity_axes=1, **FINDERS[kind]).find(given, Notes())
    save_directions(found, tmp_path / "d.safetensors")
    found = load_directions(tmp_path / "d.safetensors")
    assert found.provenance["held"] == [*NAMES, *(["identity axis 1"] if guided else [])]
    start, strengths = Codes(torch.tensor([[0.2, 0.1, -0.3, 0.4]]), Space.W), torch.tensor([[0.4, 0.0], [0.0, -0.4]])
    if isinstance(found.basis, LocalBasis | PathBasis):
        assert (found.basis.axes is not None) == guided
        watched = network
        if found.basis.axes is not None:
            assert given.guide is not None
            watched = ScoresAndIdentity(network, given.guide, found.basis.axes)  # type: ignore[assignment]
        edits = LocalEdits if isinstance(found.basis, LocalBasis) else PathEdits
        steps = edits(NAMES, found.basis, generator, watched).own(start)  # type: ignore[arg-type]
        codes = moved(start, strengths, steps)
    else:
        values = start.values[:, None] + (strengths @ found.steps.values[0].reshape(2, 4).float())
        codes = Codes(values, Space.W)
    images = generator.synthesize(codes.flat()).detach()
    change = network(images) - network(generator.synthesize(start))
    torch.testing.assert_close(change, strengths, atol=2e-3, rtol=0)
    last = (images - generator.synthesize(start))[:, 0, 1, 1] / GREY
    assert (float(last.abs().max()) < 2e-3) == guided


def test_axes_are_those_along_which_people_differ_most() -> None:
    class Embedding(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            flat = images[:, 0].flatten(1) / GREY
            return torch.stack([10 + 0 * flat[:, 0], flat[:, 0], 0.1 * flat[:, 1], 0.01 * flat[:, 2]], dim=1)

    given = source(True)
    guide = Identity(NetworkFeatures(Embedding(), resolution=2))
    given = Source(None, given.generator, given.network, guide=guide)
    torch.manual_seed(0)
    both = seen(given, Codes(torch.randn(200, 4), Space.W), 2)
    assert isinstance(both, ScoresAndIdentity) and both.outputs == (*NAMES, "identity axis 1", "identity axis 2")
    assert float(both.axes[1, 0].abs()) > 0.99 and float(both.axes[2, 1].abs()) > 0.99
    assert both(torch.zeros(3, 3, 2, 2)).shape == (3, 4)


def test_more_axes_than_there_are() -> None:
    with pytest.raises(
        ConfigError, match="identity_axes is 3, and embeddings of 20 images with 2 numbers each differ along 2"
    ):
        Jacobian(targets=NAMES, latents=20, identity_axes=3, covariance_count=50).find(source(True), Notes())
    with pytest.raises(ConfigError, match="identity_axes is 0"):
        Channels(targets=NAMES, identity_axes=0)

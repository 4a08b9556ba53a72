"""The seam for further families: one that shares nothing with StyleGAN goes through files, characters and training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ohlora.characters.character import Character
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError, FormatError
from ohlora.formats import foreign, network_files
from ohlora.modules.gan import GAN
from ohlora.networks import registry
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Discriminator, Generator, Labels
from ohlora.networks.registry import Architecture
from tests.conftest import trained

SIZES = Architecture("flat", resolution=16, z_dim=6, w_dim=5, mapping_layers=1, channel_base=3, channel_max=4)


class FlatGenerator(Generator):
    """A picture that is linear in its style channels; two style layers of 3 and 4 channels take one code each."""

    kind = "flat"

    def __init__(
        self,
        resolution: int,
        z_dim: int,
        w_dim: int,
        c_dim: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        labels: Labels = "none",
        label_rows: int = 0,
    ) -> None:
        super().__init__(resolution, z_dim, w_dim, c_dim, labels, label_rows)
        self.mapping_layers, self.num_ws, self.style_sizes = mapping_layers, 2, (channel_base, channel_max)
        self.z_to_w = nn.Linear(z_dim, w_dim)
        self.affines = nn.ModuleList([nn.Linear(w_dim, size) for size in self.style_sizes])
        self.picture = nn.Linear(sum(self.style_sizes), 3 * resolution**2)

    def arguments(self) -> dict[str, int | str]:
        sizes = {key: getattr(self, key) for key in ("resolution", "z_dim", "w_dim", "c_dim", "mapping_layers")}
        return sizes | {"channel_base": self.style_sizes[0], "channel_max": self.style_sizes[1], "labels": self.labels}

    def compute_w(self, z: Tensor, label: Tensor | None) -> Tensor:
        return self.z_to_w(z)  # type: ignore[no-any-return]

    def compute_styles(self, w: Tensor) -> Tensor:
        return torch.cat([affine(w[:, k]) for k, affine in enumerate(self.affines)], dim=1)

    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        assert not noise
        return self.picture(styles).reshape(-1, 3, self.resolution, self.resolution)  # type: ignore[no-any-return]

    def noise_buffers(self) -> list[Tensor]:
        return []


class FlatDiscriminator(Discriminator):
    """Scores that are linear in the mean colours."""

    kind = "flat"
    head_modules = ("score",)
    label_head = "linear"
    feature_shape = (2,)

    def __init__(
        self, resolution: int, c_dim: int, channel_base: int, channel_max: int, mbstd_group_size: int = 4
    ) -> None:
        super().__init__()
        self.resolution, self.c_dim, self.mbstd_group_size = resolution, c_dim, mbstd_group_size
        self.trunk, self.score = nn.Linear(3, 2), nn.Linear(2, 1)

    def arguments(self) -> dict[str, int | str]:
        return {"resolution": self.resolution, "c_dim": self.c_dim, "channel_base": 3, "channel_max": 4}

    def features(self, images: Tensor) -> Tensor:
        return self.trunk(images.mean(dim=(2, 3))).square()  # type: ignore[no-any-return]

    def head(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        return self.score(features)[:, 0]  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def flat_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.GENERATORS, "flat", FlatGenerator)
    monkeypatch.setitem(registry.DISCRIMINATORS, "flat", FlatDiscriminator)
    monkeypatch.setitem(network_files.KINDS, "flat_generator", FlatGenerator)
    monkeypatch.setitem(network_files.KINDS, "flat_discriminator", FlatDiscriminator)


def test_another_family_trains_and_is_written(tmp_path: Path) -> None:
    sgd = partial(torch.optim.SGD, lr=0.1)
    settings = {"trainable_discriminator": ["score.*"], "style_mixing": 0.9, "architecture": SIZES}
    module = GAN(0.016, sgd, sgd, **settings)  # type: ignore[arg-type]
    assert module.trunk_frozen
    before = module.generator.get_parameter("picture.weight").detach().clone()
    trained(module, tmp_path)
    assert not torch.equal(module.generator.get_parameter("picture.weight"), before)
    assert module.kept_features is not None and len(module.kept_features) > 0
    loaded = network_files.load_generator(tmp_path / "generator.safetensors")
    assert isinstance(loaded, FlatGenerator)
    told = network_files.read_metadata(tmp_path / "discriminator.safetensors")
    assert told["kind"] == "flat_discriminator"
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("generator", "discriminator")}
    again = GAN(0.016, sgd, sgd, **paths)  # type: ignore[arg-type]
    assert torch.equal(again.generator.get_parameter("picture.weight"), loaded.get_parameter("picture.weight"))
    with pytest.raises(ConfigError, match="cannot add label values to a flat network; expected stylegan"):
        GAN(0.016, sgd, sgd, architecture=SIZES, add_labels=2, labels="normal")
    with pytest.raises(FormatError, match="the network is a flat_generator; expected a stylegan generator"):
        foreign.to_foreign(loaded)


def test_a_character_of_another_family(tmp_path: Path) -> None:
    g = FlatGenerator(16, 6, 5, 0, 1, 3, 4).eval()
    code, steps = g.map(torch.randn(1, 6)), Steps(Codes(torch.randn(1, 1, 7), Space.S))
    Character(g, code, ("eyes",), steps, {"eyes": (-1.0, 1.0)}).save(tmp_path / "flat.safetensors")
    loaded = Character.load(tmp_path / "flat.safetensors")
    assert isinstance(loaded.generator, FlatGenerator) and loaded.generator.style_offsets == (0, 3)
    moved = np.asarray(loaded.render(eyes=1.0)).astype(int)
    assert moved.shape == (16, 16, 3) and (moved != np.asarray(loaded.render())).any()

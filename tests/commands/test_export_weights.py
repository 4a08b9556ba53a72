"""Export, against import."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ohlora.__main__ import main as ohlora
from ohlora.formats import foreign, network_files
from ohlora.networks.stylegan import Discriminator, Generator
from ohlora.networks.surgery import with_projection
from tests import golden
from tests.conftest import assert_same, network_state, tiny_networks


def imported(source: Path, folder: Path) -> tuple[Path, Path]:
    assert ohlora(["import-weights", str(source), str(folder)]) == 0
    return folder / "generator.safetensors", folder / "discriminator.safetensors"


def test_what_was_exported_is_imported_bit_for_bit(tmp_path: Path) -> None:
    source = tmp_path / "source.pth"
    states = {name: golden.stylegan_state("stylegan-64-tiny", name) for name in ("generator", "discriminator")}
    torch.save(states, source)
    first = imported(source, tmp_path / "first")
    exported = tmp_path / "exported.pth"
    assert ohlora(["export-weights", *map(str, first), str(exported)]) == 0
    second = imported(exported, tmp_path / "second")
    for before, after in zip(first, second, strict=True):
        assert_same(network_state(before), network_state(after))
    # Every key that the source has is there, in its shape; layers in use have its values.
    content = torch.load(exported, weights_only=True)
    assert content.keys() == {"generator", "generator_smooth", "discriminator"}
    for name, path in zip(states, first, strict=True):
        network = network_files.load_network(path)
        assert isinstance(network, (Generator, Discriminator))
        used = foreign.foreign_layout(network).keys
        assert content[name].keys() == states[name].keys()
        assert all(content[name][key].shape == value.shape for key, value in states[name].items())
        assert all(torch.equal(content[name][key], states[name][key]) for key in used)


def test_a_generator_can_go_alone(tmp_path: Path, weights: tuple[Path, Path]) -> None:
    assert ohlora(["export-weights", str(weights[0]), str(tmp_path / "out.pth")]) == 0
    assert torch.load(tmp_path / "out.pth", weights_only=True).keys() == {"generator", "generator_smooth"}


def test_what_has_no_place_in_the_layout_is_refused(
    tmp_path: Path, weights: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "projecting.safetensors"
    network_files.save_network(with_projection(tiny_networks(c_dim=2)[1]), path)
    assert ohlora(["export-weights", str(weights[0]), str(path), str(tmp_path / "out.pth")]) == 2
    assert "projection head, for which GenForce's layout has no place" in capsys.readouterr().err
    assert ohlora(["export-weights", str(weights[1]), str(tmp_path / "out.pth")]) == 2
    assert "holds a stylegan_discriminator; expected a generator" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()

"""Shapes, gradients, codes, files and errors of StyleGAN2 and StyleGAN3; what they compute is in the golden tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.characters.character import Character
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError
from ohlora.formats import foreign, network_files
from ohlora.modules.gan import GAN
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator as AnyGenerator
from ohlora.networks.operations import clamped_leaky_relu, convolution, fir, fir_down, fir_up
from ohlora.networks.registry import Architecture, random_networks
from ohlora.networks.stylegan2 import Discriminator, Generator
from ohlora.networks.surgery import add_labels, grown, with_projection
from ohlora.utils import counted
from tests.conftest import TINY, assert_same
from tests.golden import GOLDEN


def tiny(c_dim: int = 0, clamp: float | None = 256.0, head: Any = "linear") -> tuple[Generator, Discriminator]:
    """Random networks whose biases and noise strengths are not zero, so that a lost tensor shows."""
    torch.manual_seed(0)
    g = Generator(
        **TINY, z_dim=8, w_dim=8, mapping_layers=2, c_dim=c_dim, conv_clamp=clamp, labels="normal" if c_dim else "none"
    )
    d = Discriminator(**TINY, c_dim=c_dim, conv_clamp=clamp, label_head=head)
    for network in (g, d):
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.data += 0.1 * torch.randn_like(parameter)
    torch.nn.init.normal_(g.w_avg, std=0.1)
    return g.eval(), d.eval()


@pytest.fixture(scope="module")
def stylegan3() -> AnyGenerator:
    network = foreign.read_foreign(GOLDEN / "stylegan3-r-16.pkl").networks["generator"]
    assert isinstance(network, AnyGenerator)
    return network


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize(("c_dim", "head"), [(0, "linear"), (3, "linear"), (3, "projection")])
def test_shapes(resolution: int, c_dim: int, head: Any) -> None:
    sizes: dict[str, Any] = {"resolution": resolution, "c_dim": c_dim, "channel_base": 128, "channel_max": 8}
    g = Generator(**sizes, z_dim=6, w_dim=10, mapping_layers=3, labels="normal" if c_dim else "none")
    d = Discriminator(**sizes, label_head=head)
    z, label = torch.randn(4, 6), torch.randn(4, c_dim) if c_dim else None
    assert g.num_ws == {8: 4, 32: 8}[resolution] and len(g.style_sizes) == {8: 5, 32: 11}[resolution]
    images = g(z, label)
    assert images.shape == (4, 3, resolution, resolution) and d(images, label).shape == (4,)
    features = torch.cat([d.features(images[k : k + 1]) for k in range(4)])
    assert features.shape == (4, *d.feature_shape)
    torch.testing.assert_close(d.head(features, label), d(images, label), atol=1e-5, rtol=1e-5)
    trunk = {id(p) for p in d.trunk_parameters()}
    d.features(images.detach()).sum().backward()  # type: ignore[no-untyped-call]
    assert trunk == {id(p) for p in d.parameters() if p.grad is not None}


def test_a_labels_projection_needs_labels() -> None:
    with pytest.raises(ValueError, match="label_head is 'projection' with c_dim 0"):
        Discriminator(**TINY, label_head="projection")


def test_filters_are_what_plain_operations_make() -> None:
    x = torch.randn(2, 3, 6, 6)
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (tap[:, None] * tap).expand(3, 1, 4, 4)
    torch.testing.assert_close(fir(x, 2), F.conv2d(x, kernel, padding=2, groups=3))
    torch.testing.assert_close(fir_down(x), F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, groups=3)[:, :, ::2, ::2])
    spread = torch.zeros(2, 3, 12, 12)
    spread[:, :, ::2, ::2] = x
    torch.testing.assert_close(fir_up(x, 4.0), F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel * 4, groups=3))
    inside = fir_up(torch.ones(1, 1, 8, 8), 4.0)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_written_out_gradients_are_exact_once_and_twice() -> None:
    """Against finite differences, in float64; also where a limit is reached."""
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    functions: list[Any] = [
        partial(fir, padding=1, gain=4.0),
        partial(fir, padding=2),
        fir_down,
        partial(fir_up, gain=4.0),
    ]
    functions.append(lambda x: clamped_leaky_relu(x * 1.0, 0.5))
    assert bool((x.abs() > 0.5).any())
    for function in functions:
        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))
    small = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    for stride, padding, transposed in ((1, 1, False), (2, 0, False), (2, 0, True)):
        convolved = partial(convolution, stride=stride, padding=padding, transposed=transposed)
        plain = partial(F.conv_transpose2d if transposed else F.conv2d, stride=stride, padding=padding)
        torch.testing.assert_close(convolved(small, kernel, bias), plain(small, kernel, bias))
        assert torch.autograd.gradcheck(convolved, (small, kernel, bias))
        assert torch.autograd.gradgradcheck(convolved, (small, kernel, bias))


@pytest.mark.parametrize("clamp", [None, 0.5])
def test_r1_and_path_lengths_are_differentiable_and_right(clamp: float | None) -> None:
    """The gradient of a squared gradient, against finite differences along one parameter."""
    g, d = tiny(clamp=clamp)
    g.double()
    d.double()
    images, z = torch.randn(2, 3, 16, 16).double(), torch.randn(2, 8).double()

    def r1() -> Tensor:
        inputs = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(d(inputs).sum(), inputs, create_graph=True)
        return slope.square().sum()

    def path_length() -> Tensor:
        w = g.map(z).values.detach().requires_grad_()
        out = g.synthesize(Codes(w, Space.W))
        (slope,) = torch.autograd.grad((out * images).sum(), w, create_graph=True)
        return slope.square().sum()

    for penalty, weight in (
        (r1, d.get_parameter("blocks.block16.layer1.weight")),
        (path_length, g.get_parameter("synthesis.block8.layer0.weight")),
    ):
        (slope,) = torch.autograd.grad(penalty(), weight)
        step = torch.zeros_like(weight)
        step[0, 0, 1, 1] = 1e-5
        weight.data.add_(step)
        above = penalty()
        weight.data.sub_(2 * step)
        below = penalty()
        torch.testing.assert_close(slope[0, 0, 1, 1], (above - below) / 2e-5, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", [2, 3])
def test_codes_in_every_space_make_the_same_image_and_carry_its_gradient(family: int, stylegan3: AnyGenerator) -> None:
    g = tiny()[0] if family == 2 else stylegan3
    values = g.map(torch.randn(2, g.z_dim)).values.detach().requires_grad_()
    w = Codes(values, Space.W)
    images, styles = g.synthesize(w), g.styles(w)
    assert styles.values.shape == (2, sum(g.style_sizes))
    layered = g.in_space(w, Space.W_BY_LAYER)
    assert torch.equal(g.synthesize(layered), images) and torch.equal(g.synthesize(styles), images)
    weights = torch.randn_like(images)
    (expected,) = torch.autograd.grad((images * weights).sum(), values)
    leaf = styles.values.detach().requires_grad_()
    (of_styles,) = torch.autograd.grad((g.synthesize(Codes(leaf, Space.S)) * weights).sum(), leaf)
    (through,) = torch.autograd.grad(styles.values, values, of_styles)
    torch.testing.assert_close(through, expected)
    assert float(expected.abs().max()) > 0
    # Every style channel changes the image; an image does not depend on the others of its batch.
    assert bool((of_styles != 0).any(dim=0).all())
    torch.testing.assert_close(g.synthesize(Codes(values[1:], Space.W)), images[1:], atol=1e-5, rtol=1e-5)


def test_to_rgb_shares_the_code_of_the_next_convolution() -> None:
    g, _ = tiny()
    layered = g.in_space(g.map(torch.randn(1, 8)), Space.W_BY_LAYER).values.clone()
    before = g.styles(Codes(layered, Space.W_BY_LAYER)).values
    changed = []
    for k in range(g.num_ws):
        other = layered.clone()
        other[:, k] += 1
        moved = torch.split(g.styles(Codes(other, Space.W_BY_LAYER)).values != before, list(g.style_sizes), dim=1)
        changed.append([place for place, part in enumerate(moved) if part.any()])
    # block4: layer1, to_rgb; block8: layer0, layer1, to_rgb; block16 likewise.
    assert changed == [[0], [1, 2], [3], [4, 5], [6], [7]]


@pytest.mark.parametrize("family", [2, 3])
def test_jacobians_can_be_vectorised(family: int, stylegan3: AnyGenerator) -> None:
    g = tiny(clamp=0.8)[0] if family == 2 else stylegan3
    w = g.map(torch.randn(1, g.z_dim)).values[0].detach()

    def corner(w: Tensor) -> Tensor:
        return g.synthesize(Codes(w[None], Space.W))[0, :, 0, 0]

    expected = torch.autograd.functional.jacobian(corner, w)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(torch.func.jacrev(corner)(w), expected, atol=1e-5, rtol=1e-3)


def test_noise_is_counted_and_can_be_left_out(stylegan3: AnyGenerator) -> None:
    g, _ = tiny()
    w = Codes(torch.randn(3, 8), Space.W)
    together = g.synthesize(w, "random", counted.generators(0, "noise", range(3)))
    alone = torch.cat(
        [g.synthesize(p, "random", counted.generators(0, "noise", [i])) for i, p in enumerate(w.split(1))]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together, g.synthesize(w), atol=1e-3)
    without = g.synthesize(w, "none")
    assert not torch.allclose(without, g.synthesize(w), atol=1e-3)
    w = stylegan3.map(torch.randn(2, stylegan3.z_dim))
    noise = counted.generators(0, "noise", range(2))
    assert torch.equal(stylegan3.synthesize(w, "random", noise), stylegan3.synthesize(w))


def test_labels_and_limits_matter() -> None:
    g, d = tiny(c_dim=3, head="projection")
    z, label = torch.randn(2, 8), torch.randn(2, 3)
    images = g(z, label)
    assert not torch.allclose(g(z, label.flip(0)), images, atol=1e-3)
    assert not torch.allclose(d(images, label.flip(0)), d(images, label), atol=1e-3)
    limited, _ = tiny(c_dim=3, clamp=0.1)
    assert float(limited(z, label).abs().max()) < float(images.abs().max())


@pytest.mark.parametrize("family", [2, 3])
def test_files_and_characters(family: int, stylegan3: AnyGenerator, tmp_path: Path) -> None:
    g = tiny(c_dim=2)[0] if family == 2 else stylegan3
    if family == 2:
        g.set_labels("dataset", torch.randn(5, 2))
        d = tiny(c_dim=2, clamp=None, head="projection")[1]
        network_files.save_network(d, tmp_path / "d.safetensors")
        loaded = network_files.load_discriminator(tmp_path / "d.safetensors")
        assert loaded.arguments() == d.arguments()
        assert_same(loaded.state_dict(), d.state_dict())
    path = tmp_path / "g.safetensors"
    network_files.save_network(g, path)
    again = network_files.load_generator(path)
    assert type(again) is type(g) and again.arguments() == g.arguments()
    assert_same(again.state_dict(), g.state_dict())
    z = torch.randn(1, g.z_dim)
    code = g.map(z, g.draw_labels(counted.generators(0, "label", range(1))))
    assert torch.equal(again.synthesize(code), g.synthesize(code))
    for space in Space:
        size = g.in_space(code, space).values.shape[1:]
        character = Character(
            g,
            Codes(code.values.detach(), Space.W),
            ("eyes",),
            Steps(Codes(torch.randn(1, 1, *size), space)),
            {"eyes": (-1.0, 1.0)},
        )
        character.save(tmp_path / "c.safetensors")
        loaded_character = Character.load(tmp_path / "c.safetensors")
        moved = np.asarray(loaded_character.render(eyes=1.0)).astype(int)
        assert (moved != np.asarray(loaded_character.render())).any()


def test_added_labels_change_nothing_at_first() -> None:
    # In float64, where rounding hides no mistake.
    g, d = tiny()
    g.double()
    d.double()
    labelled_g, labelled_d = add_labels(g, 7), add_labels(d, 7)
    z, label = torch.randn(4, 8).double(), torch.randn(4, 7).double()
    images = g(z)
    # Mapping layers multiply their weights by 1 / √fan_in in single precision.
    torch.testing.assert_close(labelled_g(z, label), images, atol=1e-6, rtol=1e-6)
    projecting = with_projection(labelled_d)
    assert projecting.arguments() == labelled_d.arguments() | {"label_head": "projection"}
    for discriminator in (labelled_d, projecting):
        torch.testing.assert_close(discriminator(images, label), d(images), atol=1e-6, rtol=1e-6)
    labelled_g.get_parameter("mapping.layers.dense0.weight").data += 1
    assert not torch.allclose(labelled_g(z, label), labelled_g(z, label.flip(0)), atol=1e-3)
    # Nothing keeps the mapping's values from parting ways.
    score = projecting(images, label).square().sum()
    (slope,) = torch.autograd.grad(score, projecting.get_parameter("mapping.layers.dense7.weight"))
    assert float(slope.std(dim=0).min()) > 0
    labelled_d.get_parameter("epilogue.score.weight").data += 1
    with pytest.raises(ConfigError, match="has learned labels with a linear head"):
        with_projection(labelled_d)


def test_stylegan3_is_not_trained(stylegan3: AnyGenerator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is 'stylegan3', which is not trained here; expected stylegan, "):
        random_networks(Architecture("stylegan3"), 0)
    with pytest.raises(ConfigError, match="cannot add label values to a stylegan3 network"):
        add_labels(stylegan3, 2)
    paths: Any = {"generator": str(tmp_path / "g.safetensors"), "discriminator": str(tmp_path / "d.safetensors")}
    network_files.save_network(stylegan3, paths["generator"])
    network_files.save_network(Discriminator(**TINY), paths["discriminator"])
    sgd: Any = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ConfigError, match="stylegan3 generator, which is not trained here"):
        GAN(0.016, sgd, sgd, **paths)


def test_random_networks_begin_with_images_of_about_unit_size() -> None:
    g, d = random_networks(Architecture("stylegan2", resolution=32, channel_base=512, channel_max=64), 0)
    again, _ = random_networks(Architecture("stylegan2", resolution=32, channel_base=512, channel_max=64), 0)
    assert_same(g.state_dict(), again.state_dict())
    images = g(torch.randn(8, 512))
    assert 0.1 < float(images.std()) < 4 and float(d(images).abs().max()) < 10


def test_grown_networks_compute_the_same_at_first() -> None:
    # In float64, where rounding hides no mistake.
    sizes: dict[str, Any] = {"resolution": 8, "c_dim": 2, "channel_base": 256, "channel_max": 16}
    torch.manual_seed(0)
    small_g = Generator(**sizes, z_dim=6, w_dim=10, mapping_layers=2, labels="normal").double()
    small_d = Discriminator(**sizes).double()
    for parameter in (*small_g.parameters(), *small_d.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.nn.init.normal_(small_g.w_avg, std=0.1)
    g, d = grown(small_g, 32), grown(small_d, 32)
    assert (g.resolution, g.num_ws, d.resolution) == (32, 8, 32) and g.training and g.z_dim == 6
    z, label, images = torch.randn(4, 6).double(), torch.randn(4, 2).double(), torch.randn(4, 3, 32, 32).double()
    doubled = fir_up(fir_up(small_g(z, label), gain=4.0), gain=4.0)
    torch.testing.assert_close(g(z, label), doubled, atol=1e-12, rtol=1e-12)
    halved = fir_down(fir_down(images))
    torch.testing.assert_close(d(images, label), small_d(halved, label), atol=1e-12, rtol=1e-12)
    # What was added is there to be trained: every layer of the new blocks has a gradient, or feeds one that has.
    (g(z, label) * images).mean().backward()
    d(images, label).sum().backward()
    for weight in (
        g.get_parameter("synthesis.block32.to_rgb.weight"),
        d.get_parameter("blocks.block32.skip"),
        d.get_parameter("blocks.block32.layer1.weight"),
    ):
        assert weight.grad is not None and float(weight.grad.abs().amax(dim=(0, 2, 3)).min()) > 0


def test_networks_that_cannot_grow(stylegan3: AnyGenerator) -> None:
    g, d = tiny()
    with pytest.raises(ConfigError, match=r"cannot grow a network of 16×16 to 16×16; expected a higher resolution"):
        grown(g, 16)
    with pytest.raises(ConfigError, match=r"resolution is 48; expected a power of two"):
        grown(g, 48)
    with pytest.raises(ConfigError, match=r"block of 32×32 would have 4 channels; expected at least 6"):
        grown(d, 32)
    with pytest.raises(ConfigError, match="cannot grow a stylegan3 network; expected stylegan2"):
        grown(stylegan3, 32)

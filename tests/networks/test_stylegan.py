"""Shapes, noise, labels and errors of the StyleGAN networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ohlora.networks.codes import Codes, Space
from ohlora.networks.operations import blur, convolution, downsample_conv, modulated_instance_norm, upsample_conv
from ohlora.networks.stylegan import Discriminator, Generator
from ohlora.networks.surgery import add_labels, with_projection
from ohlora.utils import counted
from tests.conftest import TINY, tiny_networks


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("c_dim", [0, 3])
def test_shapes(resolution: int, c_dim: int) -> None:
    sizes: dict[str, Any] = {"resolution": resolution, "c_dim": c_dim, "channel_base": 128, "channel_max": 8}
    g = Generator(**sizes, z_dim=6, w_dim=10, mapping_layers=3, labels="normal" if c_dim else "none")
    d = Discriminator(**sizes)
    z, label = torch.randn(4, 6), torch.randn(4, c_dim) if c_dim else None
    images = g(z, label)
    assert images.shape == (4, 3, resolution, resolution)
    w = g.map(z, label)
    assert w.values.shape == (4, 10) and w.space is Space.W
    assert d(images, label).shape == (4,)


def test_both_convolution_shortcuts_are_exact() -> None:
    x, w, b = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3), torch.randn(5)
    up = F.conv2d(F.interpolate(x, scale_factor=2), w, padding=1)
    torch.testing.assert_close(upsample_conv(x, w, mirrored=False), up, atol=1e-5, rtol=1e-5)
    down = F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2)
    torch.testing.assert_close(downsample_conv(x, w, b), down, atol=1e-5, rtol=1e-5)


def test_shortcuts_of_differentiation_are_exact_once_and_twice() -> None:
    """The written-out gradients against finite differences, in float64."""
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    scale, shift = (torch.randn(2, 3, 1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    functions: list[tuple[Any, tuple[torch.Tensor, ...]]] = [
        (blur, (x,)),
        (partial(convolution, weight=weight, bias=bias, stride=2, padding=1), (x,)),
        (modulated_instance_norm, (x, scale, shift)),
    ]
    for function, inputs in functions:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_jacobians_can_be_vectorised() -> None:
    g, _ = tiny_networks()
    w = torch.randn(8)

    def corner(w: torch.Tensor) -> torch.Tensor:
        return g.synthesize(Codes(w[None], Space.W))[0, :, 0, 0]

    expected = torch.autograd.functional.jacobian(corner, w)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(torch.func.jacrev(corner)(w), expected, atol=1e-5, rtol=1e-4)


def test_the_trunk_sees_every_image_by_itself() -> None:
    _, d = tiny_networks(c_dim=2)
    images, label = torch.randn(4, 3, 16, 16), torch.randn(4, 2)
    features = torch.cat([d.features(images[k : k + 1]) for k in range(4)])
    assert features.shape == (4, *d.feature_shape)
    torch.testing.assert_close(d.head(features, label), d(images, label), atol=1e-5, rtol=1e-5)


def test_trunk_parameters_are_those_that_features_depend_on() -> None:
    _, d = tiny_networks()
    d.features(torch.randn(2, 3, 16, 16)).sum().backward()  # type: ignore[no-untyped-call]
    used = {name for name, p in d.named_parameters() if p.grad is not None}
    trunk = {id(p) for p in d.trunk_parameters()}
    assert used and used == {name for name, p in d.named_parameters() if id(p) in trunk}


def test_one_code_per_layer_equals_one_for_all_and_layers_can_differ() -> None:
    g, _ = tiny_networks()
    w = Codes(torch.randn(2, 8), Space.W)
    same = Codes(w.values[:, None].repeat(1, g.num_ws, 1), Space.W_BY_LAYER)
    assert torch.equal(g.synthesize(w), g.synthesize(same))
    other = Codes(same.values.clone(), Space.W_BY_LAYER)
    other.values[:, -1] += 1
    assert not torch.equal(g.synthesize(other), g.synthesize(same))


def test_images_are_the_same_with_and_without_gradient() -> None:
    g, _ = tiny_networks()
    w = Codes(torch.randn(3, 8), Space.W)
    with torch.no_grad():
        plain = g.synthesize(w)
    torch.testing.assert_close(g.synthesize(w).detach(), plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_style_channels_make_the_same_image_and_carry_its_gradient() -> None:
    g, _ = tiny_networks()
    assert g.style_sizes == (16, 16, 16, 16, 16, 16) and g.style_offsets == (0, 16, 32, 48, 64, 80)
    values = torch.randn(2, 8, requires_grad=True)
    w = Codes(values, Space.W)
    styles = g.styles(w)
    assert styles.space is Space.S and styles.values.shape == (2, sum(g.style_sizes))
    images = g.synthesize(w)
    assert torch.equal(g.synthesize(styles), images)
    layered = g.in_space(w, Space.W_BY_LAYER)
    assert torch.equal(g.styles(layered).values, styles.values) and g.styles(styles) is styles
    weights = torch.randn_like(images)
    (expected,) = torch.autograd.grad((images * weights).sum(), values)
    leaf = styles.values.detach().requires_grad_()
    (of_styles,) = torch.autograd.grad((g.synthesize(Codes(leaf, Space.S)) * weights).sum(), leaf)
    (through,) = torch.autograd.grad(styles.values, values, of_styles)
    torch.testing.assert_close(through, expected)
    assert float(expected.abs().max()) > 0
    # A layer's own channels change that layer's codes and nothing before it.
    changed = layered.values.detach().clone()
    changed[:, 2] += 1
    moved = (g.styles(Codes(changed, Space.W_BY_LAYER)).values != styles.values).any(dim=0).nonzero().flatten()
    assert int(moved.min()) >= 32 and int(moved.max()) < 48
    with pytest.raises(ValueError, match="codes in s cannot be written in w"):
        g.in_space(styles, Space.W)


def test_truncation_touches_the_first_layers_only() -> None:
    g, _ = tiny_networks()
    z = torch.randn(2, 8)
    w = g.map(z).values[:, None].repeat(1, g.num_ws, 1)
    w[:, :2] = g.w_avg + 0.5 * (w[:, :2] - g.w_avg)
    expected = g.synthesize(Codes(w, Space.W_BY_LAYER))
    torch.testing.assert_close(g(z, truncation_psi=0.5, truncation_cutoff=2), expected)
    torch.testing.assert_close(g(z, truncation_psi=0.5, truncation_cutoff=0), g(z))


def test_counted_noise_belongs_to_the_image_not_to_the_batch() -> None:
    g, _ = tiny_networks()
    w = Codes(torch.randn(3, 8), Space.W)
    together = g.synthesize(w, "random", counted.generators(0, "noise", range(3)))
    parts = enumerate(w.split(1))
    alone = torch.cat([g.synthesize(part, "random", counted.generators(0, "noise", [i])) for i, part in parts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together, g.synthesize(w), atol=1e-3)
    assert not torch.equal(g.synthesize(w, "random"), g.synthesize(w, "random"))
    without = g.synthesize(w, "none")
    assert not torch.allclose(without, g.synthesize(w), atol=1e-3)
    for buffer in g.noise_buffers():
        buffer.zero_()
    assert torch.equal(g.synthesize(w), without)


def test_labels_are_drawn_as_declared() -> None:
    g, _ = tiny_networks(c_dim=3)
    streams = counted.generators(0, "label", range(200))
    drawn = g.draw_labels(streams)
    assert drawn is not None and drawn.shape == (200, 3) and abs(float(drawn.std()) - 1) < 0.1
    g.set_labels("zeros")
    zeros = g.draw_labels(counted.generators(0, "label", range(5)))
    assert zeros is not None and not zeros.any()
    table = torch.arange(12.0).view(4, 3)
    g.set_labels("dataset", table)
    rows = g.draw_labels(counted.generators(0, "label", range(50)))
    assert rows is not None and {tuple(r.tolist()) for r in rows} == {tuple(r.tolist()) for r in table}
    assert tiny_networks()[0].draw_labels(streams) is None


@pytest.mark.parametrize("resolution", [12, 4, 2048])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"resolution is {resolution}; expected a power of two"):
        Generator(resolution=resolution)


def test_wrong_shapes_say_what_was_expected() -> None:
    g, d = tiny_networks(c_dim=3)
    with pytest.raises(ValueError, match=r"z has shape \(2, 9\); expected \(N, 8\)"):
        g.map(torch.zeros(2, 9), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"label has shape None; expected \(2, 3\)"):
        g.map(torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"codes in w_by_layer have shape \(2, 5, 8\); expected \(N, 6, 8\)"):
        g.synthesize(Codes(torch.zeros(2, 5, 8), Space.W_BY_LAYER))
    with pytest.raises(ValueError, match=r"codes in s have shape \(2, 95\); expected \(N, 96\)"):
        g.synthesize(Codes(torch.zeros(2, 95), Space.S))
    with pytest.raises(ValueError, match=r"expected \(N, 3, 16, 16\)"):
        d(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="2 random generators were given for 1 images"):
        g.synthesize(Codes(torch.zeros(1, 8), Space.W), "random", counted.generators(0, "noise", range(2)))
    with pytest.raises(ValueError, match="noise_mode 'const'; expected one per image and 'random'"):
        g.synthesize(Codes(torch.zeros(1, 8), Space.W), noise=counted.generators(0, "noise", range(1)))
    with pytest.raises(ValueError, match="batch of 6 does not divide into groups of 4"):
        Discriminator(**TINY)(torch.zeros(6, 3, 16, 16))


def test_added_labels_of_zero_change_nothing() -> None:
    # In float64, where rounding hides no mistake.
    g, d = tiny_networks()
    g.double()
    d.double()
    labelled_g, labelled_d = add_labels(g, 7), add_labels(d, 7)
    z, zero = torch.randn(4, 8).double(), torch.zeros(4, 7).double()
    images = g(z)
    torch.testing.assert_close(labelled_g(z, zero), images, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(labelled_d(images, zero), d(images), atol=1e-6, rtol=1e-6)
    dense = "mapping.layers.dense0.weight"
    known, new = torch.split(labelled_g.get_parameter(dense), [8, 16], dim=1)
    assert torch.equal(known, g.get_parameter(dense)) and not new.any()
    bias = "epilogue.score.bias"
    assert torch.equal(labelled_d.get_parameter(bias), d.get_parameter(bias))
    assert not torch.allclose(labelled_g(z, torch.randn(4, 7).double()), images, atol=1e-3)


def test_labels_are_not_added_twice() -> None:
    g, _ = tiny_networks(c_dim=3)
    with pytest.raises(ValueError, match="network of label size 3"):
        add_labels(g, 7)


def test_a_new_projection_head_scores_as_the_linear_one_did() -> None:
    _, d = tiny_networks(c_dim=3)
    projecting = with_projection(d)
    images, label = torch.randn(4, 3, 16, 16), torch.randn(4, 3)
    assert projecting.arguments() == d.arguments() | {"label_head": "projection"}
    assert torch.equal(projecting(images, label), d(images, label))
    # Once it is trained, image and label interact: what a label adds differs between images.
    torch.nn.init.normal_(projecting.get_parameter("epilogue.embedding.weight"))
    added = projecting(images, label) - projecting(images, torch.zeros(4, 3))
    linear = d(images, label) - d(images, torch.zeros(4, 3))
    same = label[:1].expand(4, 3)
    assert float((projecting(images, same) - d(images, same)).std()) > 1e-3
    assert not torch.allclose(added, linear, atol=1e-3)


def test_a_projection_head_needs_labels() -> None:
    with pytest.raises(ValueError, match="label_head is 'projection' with c_dim 0"):
        Discriminator(**TINY, label_head="projection")

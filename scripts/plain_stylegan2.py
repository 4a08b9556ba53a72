"""StyleGAN2 as its authors published it, as formulas: the reference that ours is measured against and compared with.

Modulated convolutions make images by one grouped convolution with a kernel for each image, and are trained by
modulating and demodulating activations instead; the FIR filter is a depthwise ``conv2d`` of inserted zeros; everything
is differentiated by autograd. Weights, style codes and noise are those of our networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.networks.operations import EPSILON, GAIN, LEAK, minibatch_std
from ohlora.networks.stylegan2 import Block, Discriminator, Generator, Layer, StyleLayer

TAPS = (1.0, 3.0, 3.0, 1.0)


def upfirdn(x: Tensor, padding: Sequence[int], up: int = 1, down: int = 1, gain: float = 1.0) -> Tensor:
    """Inserts zeros (``up``), pads, filters, and keeps every ``down``-th value of N×C×H×W."""
    n, c, h, w = x.shape
    taps = x.new_tensor(TAPS) / sum(TAPS)
    kernel = (taps[:, None] * taps * gain).expand(c, 1, -1, -1)
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    return F.conv2d(F.pad(x, list(padding)), kernel, groups=c)[:, :, ::down, ::down]


def activated(x: Tensor, bias: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    """Bias, leaky ReLU, gain, clamp."""
    x = F.leaky_relu(x + bias.to(x.dtype)[None, :, None, None], LEAK) * (GAIN * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool, fused: bool) -> Tensor:
    """A modulated convolution, by a kernel for each image (``fused``) or by scaled activations."""
    n, inputs, h, w = x.shape
    outputs, _, size, _ = weight.shape
    kernels = weight[None] * style[:, None, :, None, None]
    factors = torch.rsqrt(kernels.square().sum(dim=(2, 3, 4)) + EPSILON)
    if fused:
        kernels = kernels * factors[:, :, None, None, None] if demodulate else kernels
        joined = x.reshape(1, n * inputs, h, w)
        if up:
            per_input = kernels.transpose(1, 2).reshape(n * inputs, outputs, size, size)
            x = F.conv_transpose2d(joined, per_input, stride=2, groups=n)
        else:
            x = F.conv2d(joined, kernels.reshape(n * outputs, inputs, size, size), padding=size // 2, groups=n)
        x = x.reshape(n, outputs, *x.shape[2:])
    else:
        x = x * style.to(x.dtype)[:, :, None, None]
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2) if up else F.conv2d(x, weight, padding=size // 2)
        x = x * factors.to(x.dtype)[:, :, None, None] if demodulate else x
    return upfirdn(x, (1, 1, 1, 1), gain=4.0) if up else x


def images(g: Generator, codes: Tensor, noise: Sequence[Tensor], fused: bool) -> Tensor:
    """Codes by layer, N×L×D, and one noise image per buffer → N×3×R×R."""
    x = g.synthesis.constant.expand(len(codes), -1, -1, -1)
    rgb: Tensor | None = None
    remaining = iter(noise)
    for layer, k in zip(g.synthesis.layers(), g.codes_of_layers, strict=True):
        style = layer.affine(codes[:, k])
        if isinstance(layer, StyleLayer):
            x = modulated(x, layer.weight, style, True, layer.up, fused)
            x = activated(x + (next(remaining) * layer.noise_strength).to(x.dtype), layer.bias, layer.clamp)
        else:
            y = modulated(x, layer.weight, style / math.sqrt(x.shape[1]), False, False, fused)
            y = y.to(layer.bias.dtype) + layer.bias[None, :, None, None]
            y = y if layer.clamp is None else y.clamp(-layer.clamp, layer.clamp)
            rgb = y if rgb is None else upfirdn(rgb, (2, 1, 2, 1), up=2, gain=4.0) + y
    assert rgb is not None
    return rgb


def convolved(layer: Layer, x: Tensor, clamp: float | None, down: bool = False, gain: float = 1.0) -> Tensor:
    """A layer of the discriminator; ``down`` filters first and halves the resolution."""
    weight = layer.weight / math.sqrt(layer.weight[0].numel())
    if down:
        x = F.conv2d(upfirdn(x, (2, 2, 2, 2)), weight, stride=2)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return activated(x, layer.bias, clamp, gain)


def scores(d: Discriminator, pictures: Tensor) -> Tensor:
    """Images N×3×R×R → scores (N,) of a discriminator without labels."""
    clamp, half = d.conv_clamp, math.sqrt(0.5)
    x = convolved(d.from_rgb, pictures, clamp)
    for block in d.blocks.values():
        assert isinstance(block, Block)
        beside = upfirdn(x, (1, 1, 1, 1), down=2)
        y = F.conv2d(beside, block.skip / math.sqrt(block.skip.shape[1])) * half
        x = convolved(block.layer1, convolved(block.layer0, x, clamp), clamp, down=True, gain=half) + y
    x = x.to(d.from_rgb.weight.dtype)
    last = d.epilogue["conv"]
    assert isinstance(last, Layer)
    x = convolved(last, torch.cat([x, minibatch_std(x, d.mbstd_group_size)], dim=1), clamp)
    x = F.leaky_relu(d.epilogue["dense"](x.flatten(1)), LEAK) * GAIN
    score: Tensor = d.epilogue["score"](x)[:, 0]
    return score


def r1(real_scores: Tensor, pictures: Tensor) -> Tensor:
    """R1 as published."""
    (gradient,) = torch.autograd.grad(real_scores.sum(), pictures, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(made: Tensor, codes: Tensor, drawn: Tensor) -> Tensor:
    """Path lengths as published, (N,)."""
    pixels = made.shape[2] * made.shape[3]
    (gradient,) = torch.autograd.grad((made * drawn).sum() / math.sqrt(pixels), codes, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()

"""Operations of the networks: convolutions, norms and equalised layers, some with gradients in closed form.

What autograd would make of R1 through these operations is correct and slow: with the gradients written out, a step with
R1 at 256×256 takes 3.8 s instead of 19 s.

Shapes: N images, C channels, H×W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
"""Slope of the leaky ReLU below zero."""
GAIN = math.sqrt(2.0)
"""Gain of a layer followed by a leaky ReLU (He et al., 2015)."""
EPSILON = 1e-8


def check_images(images: Tensor, resolution: int) -> None:
    """Checks the shape of images.

    Raises:
        ValueError: If it is not N×3×R×R.
    """
    if images.ndim != 4 or images.shape[1:] != (3, resolution, resolution):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, 3, {resolution}, {resolution})")


def pixel_norm(x: Tensor) -> Tensor:
    """Divides each row of an N×D tensor by its root mean square."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def instance_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean per image and channel of an N×C×H×W tensor, what is left without it, and 1 / its standard deviation."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    centred = x - mean
    return mean, centred, torch.rsqrt(centred.square().mean(dim=(2, 3), keepdim=True) + EPSILON)


class _ModulatedNorm(torch.autograd.Function):
    """:func:`modulated_instance_norm` with its gradient in closed form: half the passes over memory of autograd's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, centred, deviation = instance_moments(x)
        # Centred first: mean and factor can be large where a channel hardly varies, as in a fresh network's constant.
        return torch.addcmul(shift, centred, scale * deviation), mean, deviation

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, scale, _ = inputs
        _, mean, deviation = output
        ctx.mark_non_differentiable(mean, deviation)
        ctx.save_for_backward(x, scale, mean, deviation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, mean, deviation = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient is to be differentiated in its turn
            centred, deviation = instance_moments(x)[1:]
        else:
            centred = x - mean
        of_shift = gradient.sum(dim=(2, 3), keepdim=True)
        of_scale = (centred * gradient).sum(dim=(2, 3), keepdim=True) * deviation
        pixels = x.shape[2] * x.shape[3]
        gain = scale * deviation
        slope = gain * deviation * of_scale / pixels
        of_x = torch.addcmul(torch.addcmul(-gain * of_shift / pixels, centred, -slope), gradient, gain)
        return of_x, of_scale, of_shift


def modulated_instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Instance norm (Ulyanov et al., 2016) of N×C×H×W, then a factor and an offset N×C×1×1."""
    y: Tensor = _ModulatedNorm.apply(x, scale, shift)[0]  # type: ignore[no-untyped-call]
    return y


def modulated_instance_norm_(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """:func:`modulated_instance_norm` in place, without gradient: synthesis on a CPU takes a seventh less time."""
    x.sub_(x.mean(dim=(2, 3), keepdim=True))
    # On a CPU image by image: the square then fits into memory that was used before.
    parts = [x] if x.is_cuda else torch.split(x, 1)
    variance = torch.cat([part.square().mean(dim=(2, 3), keepdim=True) for part in parts])
    return x.mul_(scale * torch.rsqrt(variance + EPSILON)).add_(shift)


class _Blur(torch.autograd.Function):
    """:func:`blur`. The filter is symmetric, so its gradient is the same filter.

    Left to itself, autograd would differentiate R1's gradient of a depth-wise convolution one channel at a time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        tap = x.new_tensor([0.25, 0.5, 0.25])
        count = x.shape[1]
        kernel = (tap[:, None] * tap[None, :]).expand(count, 1, 3, 3)
        return F.conv2d(x, kernel, padding=1, groups=count)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return blur(gradient)


def blur(x: Tensor) -> Tensor:
    """Depth-wise 3×3 binomial filter, zero padding; N×C×H×W."""
    y: Tensor = _Blur.apply(x)  # type: ignore[no-untyped-call]
    return y


def _spread(kernel: Tensor) -> Tensor:
    """The sum of a 3×3 kernel's four copies inside a 4×4 window."""
    k = F.pad(kernel, (1, 1, 1, 1))
    return k[:, :, 1:, 1:] + k[:, :, :-1, 1:] + k[:, :, 1:, :-1] + k[:, :, :-1, :-1]


def upsample_conv(x: Tensor, weight: Tensor, mirrored: bool) -> Tensor:
    """Nearest ×2 upsampling followed by a 3×3 convolution, as one transposed 4×4 convolution.

    Args:
        x: N×C×H×W → N×C'×2H×2W.
        weight: C'×C×3×3.
        mirrored: Applies the kernel mirrored in both directions, as GenForce's "fused" layers do.
    """
    kernel = weight if mirrored else weight.flip(2, 3)
    return F.conv_transpose2d(x, _spread(kernel).transpose(0, 1), stride=2, padding=1)


def downsample_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3×3 convolution followed by 2×2 average pooling, as one 4×4 convolution of stride 2."""
    return convolution(x, _spread(weight) / 4, bias, stride=2, padding=1)


_inputs_only = False


@contextmanager
def gradients_of_inputs_only() -> Iterator[None]:
    """Leaves out the gradients of :func:`convolution` by kernel and bias.

    For :func:`torch.autograd.grad` by images or codes: a function written out here cannot see that they are not asked
    for. Gradients of the gradients are complete.
    """
    global _inputs_only
    before, _inputs_only = _inputs_only, True
    try:
        yield
    finally:
        _inputs_only = before


class _Convolution(torch.autograd.Function):
    """:func:`convolution`, whose gradients are convolutions, too, however often it is differentiated.

    Autograd's own second derivative takes a kernel's gradient as a convolution with a kernel as large as the image. As
    in StyleGAN2-ADA (Karras et al., 2020), the gradient by x is the transposed convolution here, and the gradient by
    the kernel an operation of its own.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, transposed: bool) -> Tensor:
        function = F.conv_transpose2d if transposed else F.conv2d
        return function(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *ctx.settings = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, transposed = ctx.settings
        needed = [ctx.needs_input_grad[0], *(needs and not _inputs_only for needs in ctx.needs_input_grad[1:3])]
        if not torch.is_grad_enabled():  # this gradient is not to be differentiated: all of it at once is faster
            biases = [weight.shape[1 if transposed else 0]]
            settings = [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1
            found = torch.ops.aten.convolution_backward(gradient, x, weight, biases, *settings, needed)
            return *found, None, None, None
        of_x = of_weight = of_bias = None
        if needed[0]:
            of_x = _Convolution.apply(gradient, weight, None, stride, padding, not transposed)  # type: ignore[no-untyped-call]
        if needed[1]:
            of_weight = _KernelGradient.apply(gradient, x, weight.shape, stride, padding, transposed)  # type: ignore[no-untyped-call]
        if needed[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None


class _KernelGradient(torch.autograd.Function):
    """The gradient of :func:`convolution` by its kernel, linear in the output's gradient and in x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, x: Tensor, shape: torch.Size, stride: int, padding: int, transposed: bool) -> Tensor:
        weight = x.new_empty(shape)  # of which nothing is used but its shape
        # On a CPU, small images of many channels take up to twice as long channels-last, and all others half as long.
        if x.device.type == "cpu" and shape[2] > 1 and gradient[0, 0].numel() <= 2 * shape[0]:
            gradient, x = gradient.contiguous(), x.contiguous()
        of_weight: Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, [False, True, False]
        )[1]
        return of_weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gradient, x, _, *ctx.settings = inputs
        ctx.save_for_backward(gradient, x)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor | None, ...]:
        gradient, x = ctx.saved_tensors
        stride, padding, transposed = ctx.settings
        of_gradient = of_x = None
        if ctx.needs_input_grad[0]:
            of_gradient = _Convolution.apply(x, of_output, None, stride, padding, transposed)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            of_x = _Convolution.apply(gradient, of_output, None, stride, padding, not transposed)  # type: ignore[no-untyped-call]
        return of_gradient, of_x, None, None, None, None


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    transposed: bool = False,
) -> Tensor:
    """A convolution of N×C×H×W with C'×C×k×k, or a transposed one with C×C'×k×k, that is cheap to differentiate twice.

    Stride and padding must fit H and W without a rest.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    y: Tensor = _Convolution.apply(x, weight, bias, stride, padding, transposed)  # type: ignore[no-untyped-call]
    return y


class _Fir(torch.autograd.Function):
    """:func:`fir`. The filter is symmetric, so its gradient is the same filter with the other padding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, padding: int, gain: float) -> Tensor:
        return F.conv2d(x, _fir_kernel(x, gain), padding=padding, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, float], output: Tensor) -> None:
        _, ctx.padding, ctx.gain = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return fir(gradient, 3 - ctx.padding, ctx.gain), None, None


class _FirResampled(torch.autograd.Function):
    """:func:`fir_up` or :func:`fir_down`, of which each is the gradient of the other."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gain: float, up: bool) -> Tensor:
        resample = F.conv_transpose2d if up else F.conv2d
        return resample(x, _fir_kernel(x, gain), stride=2, padding=1, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, bool], output: Tensor) -> None:
        _, ctx.gain, ctx.up = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (fir_down if ctx.up else fir_up)(gradient, ctx.gain), None, None


def _fir_kernel(x: Tensor, gain: float) -> Tensor:
    tap = x.new_tensor([0.125, 0.375, 0.375, 0.125])
    return (tap[:, None] * tap[None, :] * gain).expand(x.shape[1], 1, 4, 4)


def fir(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Depth-wise 4×4 filter [1, 3, 3, 1]ᵀ [1, 3, 3, 1] / 64, with P = ``padding`` zeros (0 to 3) around N×C×H×W.

    The result has H + 2P − 3 rows and W + 2P − 3 columns.
    """
    y: Tensor = _Fir.apply(x, padding, gain)  # type: ignore[no-untyped-call]
    return y


def fir_down(x: Tensor, gain: float = 1.0) -> Tensor:
    """:func:`fir`, of which every second value is kept: N×C×2H×2W → N×C×H×W."""
    y: Tensor = _FirResampled.apply(x, gain, False)  # type: ignore[no-untyped-call]
    return y


def fir_up(x: Tensor, gain: float = 1.0) -> Tensor:
    """:func:`fir` of values with zeros between them: N×C×H×W → N×C×2H×2W; with gain 4 their mean stays the same."""
    y: Tensor = _FirResampled.apply(x, gain, True)  # type: ignore[no-untyped-call]
    return y


INTERPOLATIONS = {"bilinear": 0, "nearest": 1, "bicubic": 2}
"""Torch's numbers of the interpolations of :func:`resample`."""
BORDERS = {"zeros": 0, "border": 1, "reflection": 2}
"""Likewise of what is beyond an image's borders."""


class _Resampling(torch.autograd.Function):
    """``grid_sample`` of places that take no gradient; its gradient, unlike torch's, can be differentiated."""

    @staticmethod
    def forward(x: Tensor, places: Tensor, interpolation: str, border: str) -> Tensor:
        return F.grid_sample(x, places, interpolation, border, align_corners=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str, str], output: Tensor) -> None:
        x, places, *ctx.settings = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (places,) = ctx.saved_tensors
        return _ResamplingGradient.apply(gradient, places, ctx.shape, *ctx.settings), None, None, None  # type: ignore[no-untyped-call]


class _ResamplingGradient(torch.autograd.Function):
    """The gradient of :class:`_Resampling`, which is linear: its own gradient is the resampling."""

    @staticmethod
    def forward(gradient: Tensor, places: Tensor, shape: torch.Size, interpolation: str, border: str) -> Tensor:
        x = gradient.new_empty(shape)  # of which nothing is used but its shape
        settings = INTERPOLATIONS[interpolation], BORDERS[border], False, [True, False]
        of_x: Tensor = torch.ops.aten.grid_sampler_2d_backward(gradient, x, places, *settings)[0]
        return of_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, places, _, *ctx.settings = inputs
        ctx.save_for_backward(places)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        (places,) = ctx.saved_tensors
        return _Resampling.apply(of_output, places, *ctx.settings), None, None, None, None  # type: ignore[no-untyped-call]


def resample(x: Tensor, maps: Tensor, interpolation: str, border: str) -> Tensor:
    """Takes each pixel's value from another place, differentiably twice by N×C×H×W.

    Args:
        x: The images.
        maps: Affine maps N×3×3 from places in the result to places in ``x``: (x, y, 1) in −1…1 from left to right and
            from top to bottom, where −1 and 1 are the outer edges of the outermost pixels. Without gradient.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        border: What is beyond an image's borders: ``zeros``, ``border`` (the outermost pixels) or ``reflection``.
    """
    across, down = ((2 * torch.arange(n, device=x.device).to(maps) + 1) / n - 1 for n in (x.shape[3], x.shape[2]))
    # Not by a product of matrices, which a GPU may compute with fewer digits.
    columns = maps[:, None, None, :2]
    places = columns[..., 0] * across[:, None] + columns[..., 1] * down[:, None, None] + columns[..., 2]
    y: Tensor = _Resampling.apply(x, places, interpolation, border)  # type: ignore[no-untyped-call]
    return y


class _ClampedLeakyReLU(torch.autograd.Function):
    """:func:`clamped_leaky_relu`, which keeps its output alone for the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, limit: float | None) -> Tensor:
        y = F.leaky_relu(x, LEAK)
        return y if limit is None else y.clamp_(-limit, limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | None], output: Tensor) -> None:
        ctx.limit = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        y = ctx.saved_tensors[0].detach()  # pieces are straight: autograd would add up zeros
        if ctx.limit is not None:
            gradient = torch.ops.aten.hardtanh_backward(gradient, y, -ctx.limit, ctx.limit)
        return torch.ops.aten.leaky_relu_backward(gradient, y, LEAK, True), None


def clamped_leaky_relu(x: Tensor, limit: float | None) -> Tensor:
    """Leaky ReLU, then a clamp to ±limit, if any. ``x`` must not be used afterwards: it may be overwritten."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        y = F.leaky_relu_(x, LEAK)
        return y if limit is None else y.clamp_(-limit, limit)
    activated: Tensor = _ClampedLeakyReLU.apply(x, limit)  # type: ignore[no-untyped-call]
    return activated


def minibatch_std(x: Tensor, group: int) -> Tensor:
    """Standard deviation over groups of images, averaged over channels and pixels, as one channel N×1×H×W.

    Raises:
        ValueError: If the batch cannot be divided into groups of ``min(group, N)``.
    """
    n, c, h, w = x.shape
    group = min(group, n)
    if n % group:
        raise ValueError(
            f"a batch of {n} does not divide into groups of {group}; choose another batch or mbstd_group_size"
        )
    y = x.reshape(group, -1, c, h, w)
    std = (y - y.mean(dim=0)).square().mean(dim=0).add(EPSILON).sqrt()
    return std.mean(dim=(1, 2, 3), keepdim=True).repeat(group, 1, h, w)


class Equalized(nn.Module):
    """A weight stored at unit scale and multiplied at run time by gain / √fan_in (equalised learning rate).

    Source: Karras et al., 2018, section 4.1.

    Args:
        shape: Of the weight; outputs first.
        gain: Standard deviation of the outputs for inputs of variance 1.
        lr_multiplier: Learning rate of weight and bias relative to that of other layers.
    """

    def __init__(self, shape: tuple[int, ...], gain: float = GAIN, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.scale = gain / math.sqrt(math.prod(shape[1:])) * lr_multiplier
        self.lr_multiplier = lr_multiplier
        self.weight = nn.Parameter(torch.randn(shape) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(shape[0]))

    def scaled_weight(self) -> Tensor:
        """The weight that is applied."""
        return self.weight * self.scale


class EqualizedLinear(Equalized):
    """Equalised linear layer: N×C → N×C'."""

    def __init__(self, inputs: int, outputs: int, gain: float = GAIN, lr_multiplier: float = 1.0) -> None:
        super().__init__((outputs, inputs), gain, lr_multiplier)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scaled_weight(), self.bias * self.lr_multiplier)


class EqualizedConv2d(Equalized):
    """Equalised convolution with bias, N×C×H×W → N×C'×H×W; ``down`` halves height and width after blurring."""

    def __init__(self, inputs: int, outputs: int, size: int, gain: float = GAIN, down: bool = False) -> None:
        super().__init__((outputs, inputs, size, size), gain)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return downsample_conv(blur(x), self.scaled_weight(), self.bias)
        return convolution(x, self.scaled_weight(), self.bias, padding=self.weight.shape[-1] // 2)

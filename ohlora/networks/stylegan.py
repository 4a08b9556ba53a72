"""StyleGAN (Karras et al., 2019) in the layout of GenForce's "StyleGAN Ours", with a label input.

Read from top to bottom: equalised layers, the generator's two halves (mapping and synthesis), the generator, the
discriminator. There is no progressive growing. Modules are named after role and resolution, so that a pattern such as
``synthesis.block4.*`` or ``epilogue.*`` (the discriminator's end) means the same at every resolution.

Shapes: N images, D = ``w_dim``, L style layers (two per resolution), R = resolution, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Labels = Literal["none", "zeros", "normal", "dataset"]
LabelHead = Literal["linear", "projection"]
Noise = Literal["fixed", "random"] | Sequence[np.random.Generator]

LABEL_EMBEDDING = 16
"""Width of the label embedding that is concatenated to z."""
LEAK = 0.2
GAIN = math.sqrt(2.0)
EPSILON = 1e-8
MAPPING_LR_MULTIPLIER = 0.01
FUSED_FROM = 128
"""From this resolution on, the published generators were trained with the up-convolution's kernel mirrored."""


def channels(resolution: int, base: int, maximum: int) -> int:
    """Feature maps at a resolution: min(base / resolution, maximum)."""
    return min(base // resolution, maximum)


def block_resolutions(resolution: int) -> list[int]:
    """The resolutions of a network's blocks: 4, 8, … up to ``resolution``.

    Raises:
        ValueError: If ``resolution`` is not a power of two between 8 and 1024.
    """
    if resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"resolution is {resolution}; expected a power of two from 8 to 1024")
    return [2**k for k in range(2, int(math.log2(resolution)) + 1)]


def pixel_norm(x: Tensor) -> Tensor:
    """Divides each row of an N×D tensor by its root mean square."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def instance_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal standard deviation per image and channel of an N×C×H×W tensor, each N×C×1×1."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    # The difference is squared in place: on a CPU a fresh tensor costs ten times as much as the arithmetic.
    variance = (x - mean).square_().mean(dim=(2, 3), keepdim=True)
    return mean, torch.rsqrt(variance + EPSILON)


class _ModulatedNorm(torch.autograd.Function):
    """:func:`modulated_instance_norm` with its gradient in closed form: half the passes over memory of autograd's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, deviation = instance_moments(x)
        # Centred first: mean and factor can be large where a channel hardly varies, as in a fresh network's constant.
        return torch.addcmul(shift, x - mean, scale * deviation), mean, deviation

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
            mean, deviation = instance_moments(x)
        of_shift = gradient.sum(dim=(2, 3), keepdim=True)
        centred = x - mean
        of_scale = (centred * gradient).sum(dim=(2, 3), keepdim=True) * deviation
        pixels = x.shape[2] * x.shape[3]
        gain = scale * deviation
        slope = gain * deviation * of_scale / pixels
        of_x = torch.addcmul(torch.addcmul(-gain * of_shift / pixels, centred, -slope), gradient, gain)
        return of_x, of_scale, of_shift


def modulated_instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Instance norm (Ulyanov et al., 2016), then a factor and an offset per image and channel.

    Args:
        x: N×C×H×W; gets zero mean and unit variance per image and channel.
        scale: N×C×1×1.
        shift: N×C×1×1.

    Returns:
        N×C×H×W.
    """
    y: Tensor = _ModulatedNorm.apply(x, scale, shift)[0]  # type: ignore[no-untyped-call]
    return y


def modulated_instance_norm_(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """:func:`modulated_instance_norm` in place, without a gradient: on a CPU fresh tensors are most of its cost."""
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
        x: N×C×H×W.
        weight: C'×C×3×3.
        mirrored: Applies the kernel mirrored in both directions, as GenForce's "fused" layers do.

    Returns:
        N×C'×2H×2W.
    """
    kernel = weight if mirrored else weight.flip(2, 3)
    return F.conv_transpose2d(x, _spread(kernel).transpose(0, 1), stride=2, padding=1)


def downsample_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3×3 convolution followed by 2×2 average pooling, as one 4×4 convolution of stride 2."""
    return conv2d(x, _spread(weight) / 4, bias, stride=2, padding=1)


class _FrozenConv(torch.autograd.Function):
    """A convolution whose kernel and bias take no gradient, cheap to differentiate twice.

    Its gradient by x is written as a transposed convolution, as in StyleGAN2-ADA (Karras et al., 2020): differentiated
    by autograd, a convolution's gradient would also bring the kernel's.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, int], output: Tensor) -> None:
        _, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        # Under autocast the gradient is of lower precision than the kernel.
        of_x = F.conv_transpose2d(gradient, weight.to(gradient.dtype), stride=ctx.stride, padding=ctx.padding)
        return of_x, None, None, None, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """A convolution; where the kernel is frozen, one that is cheap under R1.

    Args:
        x: N×C×H×W; stride and padding must fit H and W without a rest.
        weight: C'×C×k×k.
        bias: C'.
        stride: Step in pixels.
        padding: Zeros added on each side, in pixels.

    Returns:
        N×C'×H'×W'.
    """
    if weight.requires_grad or bias.requires_grad:
        return F.conv2d(x, weight, bias, stride, padding)
    y: Tensor = _FrozenConv.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return y


class _Equalized(nn.Module):
    """A weight stored at unit scale and multiplied at run time by gain / √fan_in (equalised learning rate)."""

    def __init__(
        self, shape: tuple[int, ...], gain: float = GAIN, bias: int | None = None, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = gain / math.sqrt(math.prod(shape[1:])) * lr_multiplier
        self.lr_multiplier = lr_multiplier
        self.weight = nn.Parameter(torch.randn(shape) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(shape[0] if bias is None else bias))

    def scaled_weight(self) -> Tensor:
        return self.weight * self.scale

    def scaled_bias(self) -> Tensor:
        return self.bias * self.lr_multiplier


class Dense(_Equalized):
    """Equalised linear layer: N×C → N×C'."""

    def __init__(self, inputs: int, outputs: int, gain: float = GAIN, lr_multiplier: float = 1.0) -> None:
        super().__init__((outputs, inputs), gain, lr_multiplier=lr_multiplier)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scaled_weight(), self.scaled_bias())


class Conv(_Equalized):
    """Equalised convolution with bias; ``down`` halves the resolution after blurring."""

    def __init__(self, inputs: int, outputs: int, size: int, gain: float = GAIN, down: bool = False) -> None:
        super().__init__((outputs, inputs, size, size), gain)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return downsample_conv(blur(x), self.scaled_weight(), self.bias)
        return conv2d(x, self.scaled_weight(), self.bias, padding=self.weight.shape[-1] // 2)


class Mapping(nn.Module):
    """z and label → w: embedding, pixel norm, then dense layers with leaky ReLU."""

    def __init__(self, z_dim: int, w_dim: int, c_dim: int, layers: int) -> None:
        super().__init__()
        self.label_embedding = nn.Parameter(torch.randn(c_dim, LABEL_EMBEDDING)) if c_dim else None
        inputs = z_dim + (LABEL_EMBEDDING if c_dim else 0)
        self.layers = nn.ModuleDict(
            {
                f"dense{k}": Dense(inputs if k == 0 else w_dim, w_dim, lr_multiplier=MAPPING_LR_MULTIPLIER)
                for k in range(layers)
            }
        )

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        if self.label_embedding is not None and label is not None:
            z = torch.cat([z, label @ self.label_embedding], dim=1)
        x = pixel_norm(z)
        for layer in self.layers.values():
            x = F.leaky_relu(layer(x), LEAK)
        return x


class StyleLayer(nn.Module):
    """Convolution (or the learned constant), noise, bias, leaky ReLU, instance norm, style modulation."""

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, resolution: int, w_dim: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.resolution = resolution
        if kind == "constant":
            self.constant = nn.Parameter(torch.ones(1, outputs, resolution, resolution))
            self.bias = nn.Parameter(torch.zeros(outputs))
        else:
            self.conv = _Equalized((outputs, inputs, 3, 3))
        self.noise_weight = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.style = Dense(w_dim, 2 * outputs, gain=1.0)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        if self.kind == "constant":
            # Channels-last from here on: two to ten times faster on CPUs, and what tensor cores want.
            x = self.constant.expand(w.shape[0], -1, -1, -1).clone(memory_format=torch.channels_last)
            bias = self.bias
        elif self.kind == "up":
            weight = self.conv.scaled_weight()
            x, bias = blur(upsample_conv(x, weight, mirrored=self.resolution >= FUSED_FROM)), self.conv.bias
        else:
            x, bias = F.conv2d(x, self.conv.scaled_weight(), padding=1), self.conv.bias
        # In place, since x was made just above; in full precision, which the norm needs, also under autocast.
        x = x.to(self.noise_weight.dtype).addcmul_(noise, self.noise_weight[:, None, None]).add_(bias[:, None, None])
        x = F.leaky_relu_(x, LEAK)
        style: Tensor = self.style(w)
        scale, shift = style.to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        norm = modulated_instance_norm if torch.is_grad_enabled() else modulated_instance_norm_
        return norm(x, scale + 1, shift)


class Synthesis(nn.Module):
    """Style codes N×L×D → images N×3×R×R."""

    def __init__(self, resolution: int, w_dim: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        inputs = 0
        for r in block_resolutions(resolution):
            outputs = channels(r, channel_base, channel_max)
            first = StyleLayer(inputs, outputs, r, w_dim, "constant" if r == 4 else "up")
            second = StyleLayer(outputs, outputs, r, w_dim, "conv")
            self.add_module(f"block{r}", nn.ModuleDict({"layer0": first, "layer1": second}))
            inputs = outputs
        self.to_rgb = Conv(inputs, 3, 1, gain=1.0)

    def style_layers(self) -> list[StyleLayer]:
        """The L style layers, from coarse to fine."""
        return [m for m in self.modules() if isinstance(m, StyleLayer)]

    def forward(self, w: Tensor, noise: list[Tensor]) -> Tensor:
        x = w
        for k, layer in enumerate(self.style_layers()):
            x = layer(x, w[:, k], noise[k])
        return self.to_rgb(x)  # type: ignore[no-any-return]


class Generator(nn.Module):
    """StyleGAN generator.

    Args:
        resolution: Height and width of the images, a power of two from 8 to 1024.
        z_dim: Size of the latent z.
        w_dim: Size D of the style code w.
        c_dim: Number K of label values; 0 for none.
        mapping_layers: Dense layers of the mapping network.
        channel_base: Feature maps are min(channel_base / resolution, channel_max).
        channel_max: See ``channel_base``.
        labels: How labels were drawn in training, so that sampling draws them the same way: ``none`` (exactly when
            ``c_dim`` is 0), ``zeros``, ``normal`` (N(0, 1)) or ``dataset`` (rows of ``label_table``).
        label_rows: Rows M of ``label_table``, for ``dataset``.

    Attributes:
        w_avg: Running mean of w, shape (D,).
        label_table: The training set's labels, M×K; empty unless ``labels`` is ``dataset``.
    """

    w_avg: Tensor
    label_table: Tensor

    def __init__(
        self,
        resolution: int = 256,
        z_dim: int = 512,
        w_dim: int = 512,
        c_dim: int = 0,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        labels: Labels = "none",
        label_rows: int = 0,
    ) -> None:
        super().__init__()
        if (c_dim == 0) != (labels == "none"):
            raise ValueError(f"labels is {labels!r} with c_dim {c_dim}; 'none' goes with 0 and only with 0")
        self.resolution, self.z_dim, self.w_dim, self.c_dim = resolution, z_dim, w_dim, c_dim
        self.mapping_layers, self.channel_base, self.channel_max = mapping_layers, channel_base, channel_max
        self.labels = labels
        self.mapping = Mapping(z_dim, w_dim, c_dim, mapping_layers)
        self.synthesis = Synthesis(resolution, w_dim, channel_base, channel_max)
        self.num_ws = len(self.synthesis.style_layers())
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.register_buffer("label_table", torch.zeros(label_rows, c_dim))

    def arguments(self) -> dict[str, int | str]:
        """The constructor arguments that rebuild this generator."""
        return {
            "resolution": self.resolution,
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "c_dim": self.c_dim,
            "mapping_layers": self.mapping_layers,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "labels": self.labels,
            "label_rows": self.label_table.shape[0],
        }

    def set_labels(self, labels: Labels, table: Tensor | None = None) -> None:
        """Declares how labels are drawn; ``table`` (M×K) is required for ``dataset`` and refused otherwise."""
        if (self.c_dim == 0) != (labels == "none"):
            raise ValueError(
                f"labels is {labels!r} for a generator of label size {self.c_dim}; "
                "'none' goes with size 0 and only with size 0"
            )
        if (labels == "dataset") != (table is not None):
            raise ValueError(f"labels is {labels!r}: a label table is needed for 'dataset' and for nothing else")
        if table is not None and (table.ndim != 2 or table.shape[1] != self.c_dim or not len(table)):
            raise ValueError(f"label table has shape {tuple(table.shape)}; expected (M ≥ 1, {self.c_dim})")
        self.labels = labels
        self.label_table = self.w_avg.new_zeros(0, self.c_dim) if table is None else table.to(self.w_avg)

    def draw_labels(self, generators: Sequence[np.random.Generator]) -> Tensor | None:
        """One label per random generator, as training drew them.

        Returns:
            N×K on the network's device, or None for a generator without labels.
        """
        if self.labels == "none":
            return None
        size = (len(generators), self.c_dim)
        if self.labels == "zeros":
            return self.w_avg.new_zeros(size)
        if self.labels == "normal":
            drawn = np.stack([g.standard_normal(self.c_dim, dtype=np.float32) for g in generators])
            return torch.from_numpy(drawn).to(self.w_avg)
        rows = [int(g.integers(len(self.label_table))) for g in generators]
        return self.label_table[rows]

    def map(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents to style codes.

        Args:
            z: N×``z_dim``.
            label: N×K; required exactly when the generator has labels.

        Returns:
            w, N×D.

        Raises:
            ValueError: If a shape does not fit.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected (N, {self.z_dim})")
        _check_label(label, len(z), self.c_dim)
        return self.mapping(z, label)  # type: ignore[no-any-return]

    def synthesize(self, w: Tensor, noise: Noise = "fixed") -> Tensor:
        """Style codes to images.

        Args:
            w: N×D (one code for all layers) or N×L×D (one per layer).
            noise: ``fixed`` uses the stored noise images, ``random`` draws from torch's global generator, and a
                sequence of N random generators draws image i's noise from the i-th alone (counted noise).

        Returns:
            Images N×3×R×R, nominally in [−1, 1], not clipped.
        """
        if w.ndim == 2:
            w = w[:, None].expand(-1, self.num_ws, -1)
        if w.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(
                f"w has shape {tuple(w.shape)}; expected (N, {self.w_dim}) or (N, {self.num_ws}, {self.w_dim})"
            )
        return self.synthesis(w, self._noise(noise, len(w)))  # type: ignore[no-any-return]

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int = 0,
        noise: Noise = "fixed",
    ) -> Tensor:
        """Latents to images; the first ``truncation_cutoff`` codes are pulled to ``w_avg`` by ``truncation_psi``."""
        w = self.map(z, label)[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi != 1.0:
            w[:, :truncation_cutoff] = torch.lerp(self.w_avg, w[:, :truncation_cutoff], truncation_psi)
        return self.synthesize(w, noise)

    @torch.no_grad()
    def update_w_avg(self, w_mean: Tensor, decay: float = 0.995) -> None:
        """Moves ``w_avg`` towards a batch mean of w, shape (D,); keeps no graph."""
        self.w_avg.lerp_(w_mean.detach().to(self.w_avg), 1 - decay)

    def _noise(self, noise: Noise, count: int) -> list[Tensor]:
        layers = self.synthesis.style_layers()
        if isinstance(noise, str):
            if noise == "fixed":
                return [layer.noise for layer in layers]
            if noise == "random":
                return [layer.noise.new_empty(count, *layer.noise.shape[1:]).normal_() for layer in layers]
            raise ValueError(f"noise is {noise!r}; expected 'fixed', 'random' or one random generator per image")
        if len(noise) != count:
            raise ValueError(f"{len(noise)} random generators were given for {count} images; expected one per image")
        sizes = [layer.noise.numel() for layer in layers]
        drawn = torch.from_numpy(np.stack([g.standard_normal(sum(sizes), dtype=np.float32) for g in noise]))
        parts = torch.split(drawn.to(self.w_avg), sizes, dim=1)
        return [part.view(count, *layer.noise.shape[1:]) for part, layer in zip(parts, layers, strict=True)]


class Discriminator(nn.Module):
    """StyleGAN discriminator: images N×3×R×R and labels N×K → scores (N,).

    It is a trunk (:meth:`features`), which treats every image by itself, and an end (:meth:`head`, the parameters
    ``epilogue.*``), which sees the batch. The label enters after all features h: as a linear term of the score, or in
    the projection head (Miyato & Koyama, 2018) also as ⟨embedding(label), h⟩, so that image and label interact.

    Args:
        resolution: Height and width of the images, a power of two from 8 to 1024.
        c_dim: Number K of label values; 0 for none.
        channel_base: Feature maps are min(channel_base / resolution, channel_max).
        channel_max: See ``channel_base``.
        mbstd_group_size: Largest group of the minibatch standard deviation.
        label_head: ``linear`` or ``projection``; the latter needs labels.
    """

    def __init__(
        self,
        resolution: int = 256,
        c_dim: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        mbstd_group_size: int = 4,
        label_head: LabelHead = "linear",
    ) -> None:
        super().__init__()
        if label_head == "projection" and not c_dim:
            raise ValueError("label_head is 'projection' with c_dim 0; a projection needs labels")
        self.resolution, self.c_dim, self.label_head = resolution, c_dim, label_head
        self.channel_base, self.channel_max, self.mbstd_group_size = channel_base, channel_max, mbstd_group_size
        count = {r: channels(r, channel_base, channel_max) for r in block_resolutions(resolution)}
        self.from_rgb = Conv(3, count[resolution], 1)
        self.blocks = nn.ModuleDict()
        for r in reversed(block_resolutions(resolution)[1:]):
            first, second = Conv(count[r], count[r], 3), Conv(count[r], count[r // 2], 3, down=True)
            self.blocks[f"block{r}"] = nn.ModuleDict({"layer0": first, "layer1": second})
        self.epilogue = nn.ModuleDict(
            {
                "conv": Conv(count[4] + 1, count[4], 3),
                "dense": Dense(count[4] * 16, count[4]),
                "score": Dense(count[4] + c_dim, 1, gain=1.0),
            }
        )
        if label_head == "projection":
            self.epilogue["embedding"] = Dense(c_dim, count[4], gain=1.0)

    def arguments(self) -> dict[str, int | str]:
        """The constructor arguments that rebuild this discriminator."""
        return {
            "resolution": self.resolution,
            "c_dim": self.c_dim,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "mbstd_group_size": self.mbstd_group_size,
            "label_head": self.label_head,
        }

    def features(self, images: Tensor) -> Tensor:
        """The trunk: what the discriminator sees in each image, before it compares images with one another.

        Args:
            images: N×3×R×R.

        Returns:
            N×C×4×4.

        Raises:
            ValueError: If the images have the wrong shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, self.resolution, self.resolution):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (N, 3, {self.resolution}, {self.resolution})"
            )
        images = images.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu_(self.from_rgb(images), LEAK)
        for block in self.blocks.values():
            for layer in block.values():  # type: ignore[operator]
                x = F.leaky_relu_(layer(x), LEAK)
        return x

    def head(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """The end: minibatch standard deviation, then the score.

        Args:
            features: N×C×4×4, from :meth:`features`.
            label: N×K; required exactly when the discriminator has labels.

        Returns:
            Scores (N,); larger means more real.

        Raises:
            ValueError: If the labels have the wrong shape, or N does not divide into groups.
        """
        _check_label(label, len(features), self.c_dim)
        x = torch.cat([features, minibatch_std(features, self.mbstd_group_size)], dim=1)
        x = F.leaky_relu(self.epilogue["conv"](x), LEAK)
        x = F.leaky_relu(self.epilogue["dense"](x.flatten(1)), LEAK)
        if label is None:
            return self.epilogue["score"](x)[:, 0]  # type: ignore[no-any-return]
        score: Tensor = self.epilogue["score"](torch.cat([x, label], dim=1))[:, 0]
        if self.label_head == "projection":
            score = score + (self.epilogue["embedding"](label) * x).sum(dim=1) / math.sqrt(x.shape[1])
        return score

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        """Scores images; larger means more real.

        Raises:
            ValueError: If images or labels have the wrong shape.
        """
        return self.head(self.features(images), label)


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


def _check_label(label: Tensor | None, count: int, size: int) -> None:
    given = None if label is None else tuple(label.shape)
    expected = (count, size) if size else None
    if given != expected:
        raise ValueError(f"label has shape {given}; expected {expected} for a network of label size {size}")


AnyNetwork = TypeVar("AnyNetwork", bound="Generator | Discriminator")


def add_labels(network: AnyNetwork, size: int) -> AnyNetwork:
    """A copy of a network without labels that takes ``size`` label values and, for a zero label, computes the same.

    The generator keeps the known columns of its first dense layer and gets zero columns for the label embedding, which
    is drawn from N(0, 1). The pixel norm over the longer vector and the larger fan-in cancel, so the columns stay as
    they are. The discriminator's known score weights are scaled to make up for the larger fan-in, the label's weights
    start at zero, and the bias stays. A label drawn from N(0, 1) does change the generator's output from the first
    step on, since its embedding takes its share of the pixel norm: z (512 values) arrives at the first layer about 9 %
    smaller (8.9 %, mean over 20 embeddings of 7 values).

    Args:
        network: A generator or discriminator of label size 0.
        size: Number of label values, ≥ 1.

    Raises:
        ValueError: If the network has labels already or ``size`` is below 1.
    """
    if network.c_dim or size < 1:
        raise ValueError(
            f"cannot add {size} label values to a network of label size {network.c_dim}; "
            "expected at least 1 and a network without labels"
        )
    state = network.state_dict()
    arguments = network.arguments() | {"c_dim": size}
    if isinstance(network, Generator):
        labelled: Generator | Discriminator = Generator(**(arguments | {"labels": "normal"}))  # type: ignore[arg-type]
        key = "mapping.layers.dense0.weight"
        state["mapping.label_embedding"] = labelled.state_dict()["mapping.label_embedding"]
        state["label_table"] = labelled.state_dict()["label_table"]
        state[key] = F.pad(state[key], (0, LABEL_EMBEDDING))
    else:
        labelled = Discriminator(**arguments)  # type: ignore[arg-type]
        key = "epilogue.score.weight"
        known = state[key].shape[1]
        state[key] = F.pad(state[key] * math.sqrt((known + size) / known), (0, size))
    labelled.to(next(network.parameters()).dtype).load_state_dict(state)
    return cast(AnyNetwork, labelled.train(network.training))


def with_projection(discriminator: Discriminator) -> Discriminator:
    """A copy of a discriminator whose label also enters by projection and which at first gives the same scores.

    The linear head stays as a part of the projection head; the new embedding starts at zero.

    Raises:
        ValueError: If the discriminator has no labels.
    """
    arguments = discriminator.arguments() | {"label_head": "projection"}
    projecting = Discriminator(**arguments).to(next(discriminator.parameters()).dtype)  # type: ignore[arg-type]
    for parameter in projecting.epilogue["embedding"].parameters():
        nn.init.zeros_(parameter)
    state = projecting.state_dict() | discriminator.state_dict()
    projecting.load_state_dict(state)
    return projecting.train(discriminator.training)

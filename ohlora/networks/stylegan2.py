"""StyleGAN2 (Karras et al., 2020): skip generator, residual discriminator, as in NVIDIA's and rosinality's files.

Modules are named after role and resolution, as in :mod:`ohlora.networks.stylegan`. The first block has no ``layer0``:
it begins with the learned constant.

Shapes: N images, D = ``w_dim``, L = ``num_ws``, R = resolution, C channels, K = ``c_dim``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohlora.networks import generator
from ohlora.networks.generator import LabelHead, Labels, check_label, check_label_head
from ohlora.networks.operations import (
    EPSILON,
    GAIN,
    LEAK,
    Equalized,
    EqualizedLinear,
    check_images,
    clamped_leaky_relu,
    convolution,
    fir,
    fir_down,
    fir_up,
    minibatch_std,
    pixel_norm,
)
from ohlora.networks.stylegan import MAPPING_LR_MULTIPLIER, block_resolutions, channels

LABEL_LAYERS = 8
"""Linear layers of a discriminator's label mapping."""


class MappingNetwork(nn.Module):
    """z (N×Z), label (N×K), or both → N×D: z and the embedded label, normalised each, then linear layers."""

    def __init__(self, z_dim: int, w_dim: int, c_dim: int, layers: int) -> None:
        super().__init__()
        self.embedding = EqualizedLinear(c_dim, w_dim, gain=1.0) if c_dim else None
        inputs = z_dim + (w_dim if c_dim else 0)
        self.layers = nn.ModuleDict(
            {
                f"dense{k}": EqualizedLinear(inputs if k == 0 else w_dim, w_dim, 1.0, MAPPING_LR_MULTIPLIER)
                for k in range(layers)
            }
        )

    def forward(self, z: Tensor | None, label: Tensor | None) -> Tensor:
        parts = [] if z is None else [pixel_norm(z)]
        if self.embedding is not None and label is not None:
            parts.append(pixel_norm(self.embedding(label)))
        x = torch.cat(parts, dim=1)
        for layer in self.layers.values():
            x = F.leaky_relu(layer(x), LEAK) * GAIN
        return x


def affine(w_dim: int, outputs: int) -> EqualizedLinear:
    """The layer that makes style channels of w; they begin around 1."""
    layer = EqualizedLinear(w_dim, outputs, gain=1.0)
    nn.init.ones_(layer.bias)
    return layer


class StyleLayer(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU, clamp; ``up`` doubles the resolution.

    The input is modulated and the output demodulated, which makes the same of one kernel for the whole batch as a
    kernel for each image would.
    """

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, resolution: int, w_dim: int, clamp: float | None, up: bool) -> None:
        super().__init__()
        self.clamp, self.up = clamp, up
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.affine = affine(w_dim, inputs)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """N×C×H×W, style channels N×C and noise (N or 1)×1×H'×W' → N×C'×H'×W'."""
        weight: Tensor = self.weight
        style = style.to(weight.dtype)
        energy = style.square() @ weight.square().sum(dim=(2, 3)).T
        # The activation's gain is taken into all that is added up before it.
        demodulation = torch.rsqrt(energy + EPSILON) * GAIN
        # A single image, as in steering, may have a kernel of its own, which is smaller than large images.
        of_kernel = len(x) == 1 and weight.numel() < x.numel()
        if of_kernel:
            weight = weight * style[:, :, None, None] * demodulation[0, :, None, None, None]
        else:
            x = x * style.to(x.dtype)[:, :, None, None]
        if self.up:
            x = fir(convolution(x, weight.transpose(0, 1), stride=2, transposed=True), padding=1, gain=4.0)
        else:
            x = convolution(x, weight, padding=1)
        if not of_kernel:
            x = x * demodulation.to(x.dtype)[:, :, None, None]
        x = x.add_((noise * (self.noise_strength * GAIN)).to(x.dtype)).add_(
            (self.bias * GAIN).to(x.dtype)[:, None, None]
        )
        return clamped_leaky_relu(x, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution without demodulation, and bias."""

    def __init__(self, inputs: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.affine = affine(w_dim, inputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """N×C×H×W and style channels N×C → N×3×H×W."""
        # With three outputs, modulating the kernel is cheaper than modulating the input.
        kernel = self.weight[:, :, 0, 0] * style.to(self.weight.dtype)[:, None] / math.sqrt(x.shape[1])
        rgb = torch.einsum("nchw,noc->nohw", x, kernel.to(x.dtype)).to(kernel.dtype) + self.bias[:, None, None]
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class SynthesisNetwork(nn.Module):
    """Style channels by layer and one noise image per convolution → images N×3×R×R."""

    def __init__(self, resolution: int, w_dim: int, base: int, maximum: int, clamp: float | None) -> None:
        super().__init__()
        inputs = channels(4, base, maximum)
        self.constant = nn.Parameter(torch.randn(inputs, 4, 4))
        for r in block_resolutions(resolution):
            outputs = channels(r, base, maximum)
            block = nn.ModuleDict()
            if r > 4:
                block["layer0"] = StyleLayer(inputs, outputs, r, w_dim, clamp, up=True)
            block["layer1"] = StyleLayer(outputs, outputs, r, w_dim, clamp, up=False)
            block["to_rgb"] = ToRGB(outputs, w_dim, clamp)
            self.add_module(f"block{r}", block)
            inputs = outputs

    def layers(self) -> list[StyleLayer | ToRGB]:
        """The layers that take style channels, from coarse to fine."""
        return [m for m in self.modules() if isinstance(m, (StyleLayer, ToRGB))]

    def forward(self, styles: Sequence[Tensor], noise: Sequence[Tensor]) -> Tensor:
        # Channels-last from here on: much faster on CPUs, and what tensor cores want.
        x = self.constant.expand(len(styles[0]), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        rgb: Tensor | None = None
        remaining = iter(noise)
        for layer, style in zip(self.layers(), styles, strict=True):
            if isinstance(layer, StyleLayer):
                x = layer(x, style, next(remaining))
            else:
                new = layer(x, style)
                with torch.autocast(x.device.type, enabled=False):  # the image is added up in full precision
                    rgb = new if rgb is None else fir_up(rgb, gain=4.0) + new
        assert rgb is not None
        return rgb


class Generator(generator.Generator):
    """StyleGAN2 generator with a skip of RGB images.

    A layer's style channels are its input's factors. A block's to-RGB layer takes the same style code as the first
    convolution of the next block.

    Args:
        resolution: Height and width of the images, a power of two from 8 to 1024.
        z_dim: Size of the latent z.
        w_dim: Size D of the style code w.
        c_dim: Number K of label values; 0 for none.
        mapping_layers: Linear layers of the mapping network.
        channel_base: Feature maps are min(channel_base / resolution, channel_max).
        channel_max: See ``channel_base``.
        conv_clamp: Largest absolute value of a layer's output; None for no limit.
        labels: See :class:`ohlora.networks.generator.Generator`.
        label_rows: Likewise.
    """

    kind = "stylegan2"

    def __init__(
        self,
        resolution: int = 256,
        z_dim: int = 512,
        w_dim: int = 512,
        c_dim: int = 0,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
        labels: Labels = "none",
        label_rows: int = 0,
    ) -> None:
        super().__init__(resolution, z_dim, w_dim, c_dim, labels, label_rows)
        self.mapping_layers, self.channel_base, self.channel_max = mapping_layers, channel_base, channel_max
        self.conv_clamp = conv_clamp
        self.mapping = MappingNetwork(z_dim, w_dim, c_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(resolution, w_dim, channel_base, channel_max, conv_clamp)
        layers = self.synthesis.layers()
        self.num_ws = 2 * len(block_resolutions(resolution))
        self.style_sizes = tuple(layer.affine.weight.shape[0] for layer in layers)
        self.codes_of_layers: list[int] = []
        """Which of the L style codes each layer takes."""
        convolutions = 0
        for layer in layers:
            self.codes_of_layers.append(convolutions)
            convolutions += isinstance(layer, StyleLayer)

    def noise_buffers(self) -> list[Tensor]:
        return [layer.noise for layer in self._noisy_layers()]

    def noise_strengths(self) -> list[nn.Parameter]:
        return [layer.noise_strength for layer in self._noisy_layers()]

    def _noisy_layers(self) -> list[StyleLayer]:
        return [layer for layer in self.synthesis.layers() if isinstance(layer, StyleLayer)]

    def compute_styles(self, w: Tensor) -> Tensor:
        layers = self.synthesis.layers()
        codes = w.unbind(1)
        return torch.cat([x.affine(codes[k]) for x, k in zip(layers, self.codes_of_layers, strict=True)], dim=1)

    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return self.synthesis(torch.split(styles, list(self.style_sizes), dim=1), noise)  # type: ignore[no-any-return]


class Layer(Equalized):
    """Convolution, bias, leaky ReLU, clamp; ``down`` filters first and halves the resolution.

    The gains of the activation and of what follows (``gain``) are taken into weight, bias and clamp.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, clamp: float | None, down: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__((outputs, inputs, size, size), GAIN * gain)
        self.bias_scale, self.down = GAIN * gain, down
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.scaled_weight(), self.bias * self.bias_scale
        if self.down:
            return clamped_leaky_relu(convolution(fir(x, padding=2), weight, bias, stride=2), self.clamp)
        return clamped_leaky_relu(convolution(x, weight, bias, padding=weight.shape[-1] // 2), self.clamp)


class Block(nn.Module):
    """Residual block: half the resolution by two convolutions, and by a filter and a 1×1 convolution beside them."""

    def __init__(self, inputs: int, outputs: int, clamp: float | None) -> None:
        super().__init__()
        self.layer0 = Layer(inputs, inputs, 3, clamp)
        self.layer1 = Layer(inputs, outputs, 3, clamp, down=True, gain=math.sqrt(0.5))
        self.skip = nn.Parameter(torch.randn(outputs, inputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip * math.sqrt(0.5 / self.skip.shape[1])
        beside = convolution(fir_down(x), skip)
        return self.layer1(self.layer0(x)) + beside  # type: ignore[no-any-return]


class Discriminator(generator.Discriminator):
    """StyleGAN2 residual discriminator, whose head is ``epilogue`` and ``mapping``.

    In the projection head (Miyato & Koyama, 2018) the score is ⟨mapping(label), h⟩ / √C of the features h; in the
    linear head the label is a linear term of the score.

    Args:
        resolution: Height and width of the images, a power of two from 8 to 1024.
        c_dim: Number K of label values; 0 for none.
        channel_base: Feature maps are min(channel_base / resolution, channel_max).
        channel_max: See ``channel_base``.
        mbstd_group_size: Largest group of the minibatch standard deviation.
        conv_clamp: Largest absolute value of a convolution's output; None for no limit.
        label_head: ``linear`` or ``projection``; the latter needs labels.
    """

    kind = "stylegan2"
    head_modules = ("epilogue", "mapping")
    label_module = "mapping"

    def __init__(
        self,
        resolution: int = 256,
        c_dim: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        mbstd_group_size: int = 4,
        conv_clamp: float | None = 256.0,
        label_head: LabelHead = "linear",
    ) -> None:
        super().__init__()
        check_label_head(label_head, c_dim)
        self.resolution, self.c_dim, self.label_head, self.conv_clamp = resolution, c_dim, label_head, conv_clamp
        self.channel_base, self.channel_max, self.mbstd_group_size = channel_base, channel_max, mbstd_group_size
        count = {r: channels(r, channel_base, channel_max) for r in block_resolutions(resolution)}
        last = count[4]
        self.feature_shape = (last, 4, 4)
        self.from_rgb = Layer(3, count[resolution], 1, conv_clamp)
        self.blocks = nn.ModuleDict(
            {
                f"block{r}": Block(count[r], count[r // 2], conv_clamp)
                for r in reversed(block_resolutions(resolution)[1:])
            }
        )
        projects = label_head == "projection"
        score = EqualizedLinear(last, last, 1.0) if projects else EqualizedLinear(last + c_dim, 1, 1.0)
        nn.init.zeros_(score.weight.detach()[:, last:])  # a label says nothing before it has been learned
        self.epilogue = nn.ModuleDict(
            {
                "conv": Layer(last + 1, last, 3, conv_clamp),
                "dense": EqualizedLinear(last * 16, last, 1.0),
                "score": score,
            }
        )
        self.mapping = MappingNetwork(0, last, c_dim, LABEL_LAYERS) if projects else None

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.resolution)
        x = self.from_rgb(images.contiguous(memory_format=torch.channels_last))
        for block in self.blocks.values():
            x = block(x)
        return x  # type: ignore[no-any-return]

    def head(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        check_label(label, len(features), self.c_dim)
        features = features.to(self.from_rgb.weight.dtype)
        x = self.epilogue["conv"](torch.cat([features, minibatch_std(features, self.mbstd_group_size)], dim=1))
        x = F.leaky_relu(self.epilogue["dense"](x.flatten(1)), LEAK) * GAIN
        if self.mapping is not None:
            score: Tensor = (self.epilogue["score"](x) * self.mapping(None, label)).sum(dim=1) / math.sqrt(x.shape[1])
            return score
        return self.epilogue["score"](x if label is None else torch.cat([x, label], dim=1))[:, 0]  # type: ignore[no-any-return]

"""StyleGAN (Karras et al., 2019) in the layout of GenForce's "StyleGAN Ours", with a label input.

There is no progressive growing. Modules are named after role and resolution, so that a pattern such as
``synthesis.block4.*`` or ``epilogue.*`` (the discriminator's end) means the same at every resolution.

Shapes: N images, D = ``w_dim``, L = ``num_ws`` style layers (two per resolution), R = resolution, C channels.
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
    LEAK,
    EqualizedConv2d,
    EqualizedLinear,
    blur,
    check_images,
    minibatch_std,
    modulated_instance_norm,
    modulated_instance_norm_,
    pixel_norm,
    upsample_conv,
)

LABEL_EMBEDDING = 16
"""Width of the label embedding that is concatenated to z."""
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


class MappingNetwork(nn.Module):
    """z (N×Z) and label (N×K) → w (N×D): embedding, pixel norm, then linear layers with leaky ReLU."""

    def __init__(self, z_dim: int, w_dim: int, c_dim: int, layers: int) -> None:
        super().__init__()
        self.label_embedding = nn.Parameter(torch.randn(c_dim, LABEL_EMBEDDING)) if c_dim else None
        inputs = z_dim + (LABEL_EMBEDDING if c_dim else 0)
        self.layers = nn.ModuleDict(
            {
                f"dense{k}": EqualizedLinear(inputs if k == 0 else w_dim, w_dim, lr_multiplier=MAPPING_LR_MULTIPLIER)
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
    """Convolution (or the learned constant), noise, bias, leaky ReLU, instance norm, style modulation.

    Args:
        inputs: Input channels; 0 for the first layer, whose input is a learned constant.
        outputs: Output channels.
        resolution: Height and width of the output.
        w_dim: Size of the style code.
        up: Doubles the resolution.
    """

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, resolution: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.resolution, self.up = resolution, up
        if inputs:
            self.conv = EqualizedConv2d(inputs, outputs, 3)
        else:
            self.constant = nn.Parameter(torch.ones(1, outputs, resolution, resolution))
            self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_weight = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.affine = EqualizedLinear(w_dim, 2 * outputs, gain=1.0)

    def forward(self, x: Tensor | None, style: Tensor, noise: Tensor) -> Tensor:
        """N×C×H×W (None for the constant), style channels N×2C' and noise (N or 1)×1×H'×W' → N×C'×H'×W'."""
        if x is None:
            # Channels-last from here on: two to ten times faster on CPUs, and what tensor cores want.
            x = self.constant.expand(len(style), -1, -1, -1).clone(memory_format=torch.channels_last)
            bias = self.bias
        elif self.up:
            weight = self.conv.scaled_weight()
            x, bias = blur(upsample_conv(x, weight, mirrored=self.resolution >= FUSED_FROM)), self.conv.bias
        else:
            x, bias = F.conv2d(x, self.conv.scaled_weight(), padding=1), self.conv.bias
        # In place, since x was made just above; in full precision, which the norm needs, also under autocast.
        x = x.to(self.noise_weight.dtype).addcmul_(noise, self.noise_weight[:, None, None]).add_(bias[:, None, None])
        x = F.leaky_relu_(x, LEAK)
        scale, shift = style.to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        norm = modulated_instance_norm if torch.is_grad_enabled() else modulated_instance_norm_
        return norm(x, scale + 1, shift)


class SynthesisNetwork(nn.Module):
    """One N×2C tensor of style channels and one noise image per layer → images N×3×R×R."""

    def __init__(self, resolution: int, w_dim: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        inputs = 0
        for r in block_resolutions(resolution):
            outputs = channels(r, channel_base, channel_max)
            first = StyleLayer(inputs, outputs, r, w_dim, up=r > 4)
            second = StyleLayer(outputs, outputs, r, w_dim)
            self.add_module(f"block{r}", nn.ModuleDict({"layer0": first, "layer1": second}))
            inputs = outputs
        self.to_rgb = EqualizedConv2d(inputs, 3, 1, gain=1.0)

    def style_layers(self) -> list[StyleLayer]:
        """The L style layers, from coarse to fine."""
        return [m for m in self.modules() if isinstance(m, StyleLayer)]

    def forward(self, styles: Sequence[Tensor], noise: Sequence[Tensor]) -> Tensor:
        x = None
        for layer, style, of_layer in zip(self.style_layers(), styles, noise, strict=True):
            x = layer(x, style, of_layer)
        return self.to_rgb(x)  # type: ignore[no-any-return]


class Generator(generator.Generator):
    """StyleGAN generator.

    Args:
        resolution: A power of two from 8 to 1024; for this and what is not listed here, see
            :class:`ohlora.networks.generator.Generator`.
        mapping_layers: Linear layers of the mapping network.
        channel_base: Feature maps are min(channel_base / resolution, channel_max).
        channel_max: See ``channel_base``.
    """

    kind = "stylegan"

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
        super().__init__(resolution, z_dim, w_dim, c_dim, labels, label_rows)
        self.mapping_layers, self.channel_base, self.channel_max = mapping_layers, channel_base, channel_max
        self.mapping = MappingNetwork(z_dim, w_dim, c_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(resolution, w_dim, channel_base, channel_max)
        layers = self.synthesis.style_layers()
        self.num_ws = len(layers)
        self.style_sizes = tuple(layer.affine.weight.shape[0] for layer in layers)

    def noise_buffers(self) -> list[Tensor]:
        return [layer.noise for layer in self.synthesis.style_layers()]

    def noise_strengths(self) -> list[nn.Parameter]:
        return [layer.noise_weight for layer in self.synthesis.style_layers()]

    def compute_styles(self, w: Tensor) -> Tensor:
        layers = self.synthesis.style_layers()
        return torch.cat([layer.affine(of_layer) for layer, of_layer in zip(layers, w.unbind(1), strict=True)], dim=1)

    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return self.synthesis(torch.split(styles, list(self.style_sizes), dim=1), noise)  # type: ignore[no-any-return]


class Discriminator(generator.Discriminator):
    """StyleGAN discriminator, whose head is ``epilogue``.

    The label enters after all features h: as a linear term of the score, or in the projection head (Miyato & Koyama,
    2018) also as ⟨embedding(label), h⟩, so that image and label interact.

    Args:
        resolution: Height and width of the images, a power of two from 8 to 1024.
        c_dim: Number K of label values; 0 for none.
        channel_base: Feature maps are min(channel_base / resolution, channel_max).
        channel_max: See ``channel_base``.
        mbstd_group_size: Largest group of the minibatch standard deviation.
        label_head: ``linear`` or ``projection``; the latter needs labels.
    """

    kind = "stylegan"
    head_modules = ("epilogue",)
    label_module = "epilogue.embedding"

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
        check_label_head(label_head, c_dim)
        self.resolution, self.c_dim, self.label_head = resolution, c_dim, label_head
        self.channel_base, self.channel_max, self.mbstd_group_size = channel_base, channel_max, mbstd_group_size
        count = {r: channels(r, channel_base, channel_max) for r in block_resolutions(resolution)}
        self.feature_shape = (count[4], 4, 4)
        self.from_rgb = EqualizedConv2d(3, count[resolution], 1)
        self.blocks = nn.ModuleDict()
        for r in reversed(block_resolutions(resolution)[1:]):
            first = EqualizedConv2d(count[r], count[r], 3)
            second = EqualizedConv2d(count[r], count[r // 2], 3, down=True)
            self.blocks[f"block{r}"] = nn.ModuleDict({"layer0": first, "layer1": second})
        self.epilogue = nn.ModuleDict(
            {
                "conv": EqualizedConv2d(count[4] + 1, count[4], 3),
                "dense": EqualizedLinear(count[4] * 16, count[4]),
                "score": EqualizedLinear(count[4] + c_dim, 1, gain=1.0),
            }
        )
        if label_head == "projection":
            self.epilogue["embedding"] = EqualizedLinear(c_dim, count[4], gain=1.0)

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.resolution)
        images = images.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu_(self.from_rgb(images), LEAK)
        for block in self.blocks.values():
            for layer in block.values():  # type: ignore[operator]
                x = F.leaky_relu_(layer(x), LEAK)
        return x

    def head(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        check_label(label, len(features), self.c_dim)
        x = torch.cat([features, minibatch_std(features, self.mbstd_group_size)], dim=1)
        x = F.leaky_relu(self.epilogue["conv"](x), LEAK)
        x = F.leaky_relu(self.epilogue["dense"](x.flatten(1)), LEAK)
        if label is None:
            return self.epilogue["score"](x)[:, 0]  # type: ignore[no-any-return]
        score: Tensor = self.epilogue["score"](torch.cat([x, label], dim=1))[:, 0]
        if self.label_head == "projection":
            score = score + (self.epilogue["embedding"](label) * x).sum(dim=1) / math.sqrt(x.shape[1])
        return score

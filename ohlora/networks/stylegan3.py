"""StyleGAN3 (Karras et al., 2021), configurations T and R: the generator, to sample, score, search and steer.

It is not trained here. What the layers do between their sampling rates (filters, paddings, factors) comes from the file
that it was imported from and is not designed anew.

Shapes: N images, D = ``w_dim``, L = ``num_ws`` (the input and every layer), R = resolution, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohlora.networks import generator
from ohlora.networks.generator import Labels
from ohlora.networks.operations import EPSILON, GAIN, LEAK
from ohlora.networks.stylegan2 import MappingNetwork, affine


@dataclass(frozen=True)
class InputSpec:
    """The Fourier features that the synthesis begins with.

    Attributes:
        channels: Their number.
        size: Height and width at which they are sampled, with margins.
        sampling_rate: Samples per unit of length; the image's side is one unit.
        bandwidth: Frequency up to which they have full amplitude.
    """

    channels: int
    size: int
    sampling_rate: float
    bandwidth: float


@dataclass(frozen=True)
class LayerSpec:
    """One layer.

    Attributes:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Height and width of the convolution's kernel.
        up: Factor of upsampling before the leaky ReLU.
        down: Factor of downsampling after it.
        up_taps: Length of the filter for upsampling; 0 for none.
        down_taps: Likewise for downsampling.
        radial: Whether the latter is a square filter; otherwise it is applied along each axis.
        padding: Values added at the left, right, top and bottom before filtering up; negative ones are cut off.
    """

    inputs: int
    outputs: int
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool
    padding: tuple[int, int, int, int]


class FourierInput(nn.Module):
    """(cos, sin, x, y) of a rotation and a shift, N×4 → Fourier features N×C×H×W, so turned and shifted."""

    frequencies: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, spec: InputSpec, w_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.randn(spec.channels, spec.channels))
        self.affine = affine(w_dim, 4)
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("frequencies", torch.zeros(spec.channels, 2))
        self.register_buffer("phases", torch.zeros(spec.channels))

    def forward(self, style: Tensor) -> Tensor:
        spec, style = self.spec, style.to(self.weight.dtype)
        cos, sin, x, y = (style / style[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).view(-1, 3, 3)
        motion = rotation @ shift @ self.transform
        phases = self.phases + (self.frequencies @ motion[:, :2, 2:])[:, :, 0]
        frequencies = self.frequencies @ motion[:, :2, :2]
        # Frequencies that the sampling rate cannot carry fade out.
        fading = (frequencies.norm(dim=2) - spec.bandwidth) / (spec.sampling_rate / 2 - spec.bandwidth)
        amplitudes = (1 - fading).clamp(0, 1)
        place = (
            torch.arange(spec.size, device=style.device, dtype=style.dtype) + 0.5 - spec.size / 2
        ) / spec.sampling_rate
        across, along = frequencies.unbind(2)
        angle = (
            place[None, None, :, None] * along[:, :, None, None]
            + place[None, None, None, :] * across[:, :, None, None]
            + phases[:, :, None, None]
        )
        waves = torch.sin(angle * (2 * math.pi)) * amplitudes[:, :, None, None]
        return torch.einsum("nchw,oc->nohw", waves, self.weight / math.sqrt(spec.channels))


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, and a leaky ReLU between filters that keep it free of aliasing."""

    magnitude: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, spec: LayerSpec, w_dim: int, clamp: float | None, to_rgb: bool) -> None:
        super().__init__()
        self.spec, self.clamp, self.to_rgb = spec, clamp, to_rgb
        self.weight = nn.Parameter(torch.randn(spec.outputs, spec.inputs, spec.kernel, spec.kernel))
        self.bias = nn.Parameter(torch.zeros(spec.outputs))
        self.affine = affine(w_dim, spec.inputs)
        self.register_buffer("magnitude", torch.ones(()))
        down = torch.ones((spec.down_taps,) * (2 if spec.radial else 1)) if spec.down_taps else None
        self.register_buffer("up_filter", torch.ones(spec.up_taps) if spec.up_taps else None)
        self.register_buffer("down_filter", down)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        spec, style = self.spec, style.to(self.weight.dtype)
        weight: Tensor = self.weight
        if self.to_rgb:
            factor = style / math.sqrt(spec.inputs * spec.kernel**2)
            after = self.magnitude.rsqrt().expand(len(x), spec.outputs)
        else:
            # Demodulation takes out any factor; these two only keep its epsilon small beside the rest.
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            factor = style * style.square().mean(dim=1, keepdim=True).rsqrt()
            energy = factor.square() @ weight.square().sum(dim=(2, 3)).T
            after = torch.rsqrt(energy + EPSILON) * self.magnitude.rsqrt()
        x = F.conv2d(x * factor[:, :, None, None], weight, padding=spec.kernel - 1)
        x = x * after[:, :, None, None] + self.bias[:, None, None]
        x = _filtered_up(x, self.up_filter, spec.up, spec.padding)
        if not self.to_rgb:
            x = F.leaky_relu(x * GAIN, LEAK)
        if self.clamp is not None:
            x = x.clamp(-self.clamp, self.clamp)
        return _filtered_down(x, self.down_filter, spec.down)


def _filtered_up(x: Tensor, taps: Tensor | None, factor: int, padding: Sequence[int]) -> Tensor:
    """Zeros between the values, ``padding`` around them, and a filter along each axis that keeps their mean."""
    if taps is None:
        return F.pad(x, list(padding))
    count, channels = len(taps), x.shape[1]
    left, right, top, bottom = padding
    height, width = (
        size * factor + before + after - count + 1
        for size, before, after in ((x.shape[2], top, bottom), (x.shape[3], left, right))
    )
    kernel = (taps * factor).to(x.dtype).expand(channels, 1, 1, count)
    x = F.conv_transpose2d(x, kernel, stride=(1, factor), groups=channels)
    x = F.conv_transpose2d(x, kernel.transpose(2, 3), stride=(factor, 1), groups=channels)
    first_x, first_y = left - count + 1, top - count + 1
    return F.pad(x, (first_x, width - first_x - x.shape[3], first_y, height - first_y - x.shape[2]))


def _filtered_down(x: Tensor, taps: Tensor | None, factor: int) -> Tensor:
    """A filter, square or along each axis, and every ``factor``-th value."""
    if taps is None:
        return x
    channels, taps = x.shape[1], taps.to(x.dtype)
    if taps.ndim == 2:
        return F.conv2d(x, taps.flip(0, 1).expand(channels, 1, *taps.shape), stride=factor, groups=channels)
    kernel = taps.flip(0).expand(channels, 1, 1, len(taps))
    x = F.conv2d(x, kernel, stride=(1, factor), groups=channels)
    return F.conv2d(x, kernel.transpose(2, 3), stride=(factor, 1), groups=channels)


class Generator(generator.Generator):
    """StyleGAN3 generator.

    The first four style channels are (cos, sin, x, y), which turn and shift the input; a layer's are its input's
    factors.

    Args:
        resolution: Height and width of the images.
        z_dim: Size of the latent z.
        w_dim: Size D of the style code w.
        c_dim: Number K of label values; 0 for none.
        mapping_layers: Linear layers of the mapping network.
        input: Settings of an :class:`InputSpec`.
        layers: Settings of a :class:`LayerSpec` each, from coarse to fine; the last one makes RGB.
        conv_clamp: Largest absolute value of a layer's output; None for no limit.
        output_scale: Factor of the images.
        labels: See :class:`ohlora.networks.generator.Generator`.
        label_rows: Likewise.
    """

    kind = "stylegan3"
    trains = False

    def __init__(
        self,
        resolution: int,
        z_dim: int,
        w_dim: int,
        c_dim: int,
        mapping_layers: int,
        input: Mapping[str, Any],  # noqa: A002
        layers: Sequence[Mapping[str, Any]],
        conv_clamp: float | None = 256.0,
        output_scale: float = 0.25,
        labels: Labels = "none",
        label_rows: int = 0,
    ) -> None:
        super().__init__(resolution, z_dim, w_dim, c_dim, labels, label_rows)
        self.mapping_layers, self.conv_clamp, self.output_scale = mapping_layers, conv_clamp, output_scale
        self.mapping = MappingNetwork(z_dim, w_dim, c_dim, mapping_layers)
        self.input_layer = FourierInput(InputSpec(**input), w_dim)
        specs = [LayerSpec(**{**layer, "padding": tuple(layer["padding"])}) for layer in layers]
        self.synthesis = nn.ModuleList(
            [SynthesisLayer(spec, w_dim, conv_clamp, to_rgb=k + 1 == len(specs)) for k, spec in enumerate(specs)]
        )
        self.style_sizes = (4, *(spec.inputs for spec in specs))
        self.num_ws = len(self.style_sizes)

    def arguments(self) -> dict[str, Any]:
        named = ("resolution", "z_dim", "w_dim", "c_dim", "mapping_layers", "conv_clamp", "output_scale")
        layers = [asdict(layer.spec) for layer in self._layers()]
        return {
            **{name: getattr(self, name) for name in named},
            "input": asdict(self.input_layer.spec),
            "layers": [{**layer, "padding": list(layer["padding"])} for layer in layers],
            "labels": self.labels,
            "label_rows": self.label_rows,
        }

    def _layers(self) -> list[SynthesisLayer]:
        return [layer for layer in self.synthesis if isinstance(layer, SynthesisLayer)]

    def noise_buffers(self) -> list[Tensor]:
        return []

    def compute_styles(self, w: Tensor) -> Tensor:
        affines = [self.input_layer.affine, *(layer.affine for layer in self._layers())]
        with torch.autocast(w.device.type, enabled=False):  # what turns, shifts and filters needs full precision
            codes = w.to(self.w_avg.dtype).unbind(1)
            return torch.cat([layer(code) for layer, code in zip(affines, codes, strict=True)], dim=1)

    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        of_input, *rest = torch.split(styles, list(self.style_sizes), dim=1)
        with torch.autocast(styles.device.type, enabled=False):
            x = self.input_layer(of_input)
            for layer, style in zip(self._layers(), rest, strict=True):
                x = layer(x, style)
            return x * self.output_scale  # type: ignore[no-any-return]

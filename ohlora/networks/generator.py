"""What generators and discriminators of every family offer, and what they share.

A family (StyleGAN, …) subclasses both and is entered in :mod:`ohlora.networks.registry`. Everything outside the
networks and their importers uses what is here and knows no family's parts.

Shapes: N images, Z = ``z_dim``, D = ``w_dim``, K = ``c_dim``, L = ``num_ws``, C style channels, R = resolution.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ohlora.networks.codes import Codes, Space

Labels = Literal["none", "zeros", "normal", "dataset"]
LabelHead = Literal["linear", "projection"]
NoiseMode = Literal["const", "random", "none"]
MAX_LABELS = 65536
"""Most label values that a network is made for; a slip of some digits would fill the memory."""


class Generator(nn.Module, ABC):
    """A style-based generator: latents and labels → codes in W → style channels → images.

    Args:
        resolution: Height and width of the images.
        z_dim: Size Z of the latent z.
        w_dim: Size D of the style code w.
        c_dim: Number K of label values; 0 for none.
        labels: How labels were drawn in training, so that sampling draws them the same way: ``none`` (exactly when
            ``c_dim`` is 0), ``zeros``, ``normal`` (N(0, 1)) or ``dataset`` (rows of ``label_table``).
        label_rows: Rows M of ``label_table``, for ``dataset``.

    Attributes:
        kind: The family's name in the registry.
        trains: Whether the family is trained here.
        num_ws: Number L of style codes that the synthesis takes; set by the family.
        style_sizes: Number of style channels of each style layer, from coarse to fine; likewise. Their sum is C.
        w_avg: Running mean of w, shape (D,).
        label_table: The training set's labels, M×K; empty unless ``labels`` is ``dataset``.
    """

    kind: ClassVar[str]
    trains: ClassVar[bool] = True
    num_ws: int
    style_sizes: tuple[int, ...]
    w_avg: Tensor
    label_table: Tensor

    def __init__(self, resolution: int, z_dim: int, w_dim: int, c_dim: int, labels: Labels, label_rows: int) -> None:
        super().__init__()
        _check_kind_of_labels(labels, c_dim)
        self.resolution, self.z_dim, self.w_dim, self.c_dim, self.labels = resolution, z_dim, w_dim, c_dim, labels
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.register_buffer("label_table", torch.zeros(label_rows, c_dim))

    # --- what a family defines

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that rebuild this generator; by default, its attributes of their names."""
        return _arguments(self)

    def compute_w(self, z: Tensor, label: Tensor | None) -> Tensor:
        """The mapping: z (N×Z) and label (N×K, or None) → w, N×D; shapes have been checked. By default, ``mapping``."""
        return self.mapping(z, label)  # type: ignore[no-any-return, operator]

    @abstractmethod
    def compute_styles(self, w: Tensor) -> Tensor:
        """The affine layers: codes by layer, N×L×D → style channels, N×C; shapes have been checked."""

    @abstractmethod
    def compute_images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """The synthesis: style channels, N×C, and one noise image per buffer of :meth:`noise_buffers` → N×3×R×R."""

    @abstractmethod
    def noise_buffers(self) -> list[Tensor]:
        """The stored noise images, each 1×1×H×W, in the order of the layers; empty for a family without noise."""

    def noise_strengths(self) -> list[nn.Parameter]:
        """What the noise images are multiplied by, in their order: a number each, or one per feature map."""
        return []

    def leave_out_noise(self) -> None:
        """Sets the strengths of the noise to 0, and keeps them from training."""
        with torch.no_grad():
            for _, strength in zip(self.noise_buffers(), self.noise_strengths(), strict=True):
                strength.zero_().requires_grad_(False)

    # --- codes

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.w_avg.device

    @property
    def label_rows(self) -> int:
        """Rows M of ``label_table``."""
        return len(self.label_table)

    @property
    def style_offsets(self) -> tuple[int, ...]:
        """Where each style layer's channels begin in a code in S."""
        return (0, *accumulate(self.style_sizes[:-1]))

    def map(self, z: Tensor, label: Tensor | None = None) -> Codes:
        """Latents z (N×Z) and labels (N×K, required exactly when the generator has labels) to N codes in W.

        Raises:
            ValueError: If a shape does not fit.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected (N, {self.z_dim})")
        check_label(label, len(z), self.c_dim)
        return Codes(self.compute_w(z, label), Space.W)

    def truncate(self, codes: Codes, psi: float, cutoff: int) -> Codes:
        """Pulls the codes of the first ``cutoff`` layers to ``w_avg`` by the factor ``psi``; 1 leaves them."""
        w = codes.in_space(Space.W_BY_LAYER, self.num_ws).values.clone()
        w[:, :cutoff] = torch.lerp(self.w_avg, w[:, :cutoff], psi)
        return Codes(w, Space.W_BY_LAYER)

    def in_space(self, codes: Codes, space: Space) -> Codes:
        """The same codes of N images in another space, differentiably: from W to W by layer, and from both to S.

        Raises:
            ValueError: If the codes do not fit this generator, or do not exist in that space.
        """
        shape = {Space.W: (self.w_dim,), Space.W_BY_LAYER: (self.num_ws, self.w_dim), Space.S: (sum(self.style_sizes),)}
        expected = shape[codes.space]
        if len(codes.batch) != 1 or codes.values.shape[1:] != expected:
            raise ValueError(
                f"codes in {codes.space} have shape {tuple(codes.values.shape)}; expected (N, "
                f"{', '.join(map(str, expected))})"
            )
        if space is Space.S and codes.space is not Space.S:
            return Codes(self.compute_styles(codes.in_space(Space.W_BY_LAYER, self.num_ws).values), Space.S)
        return codes.in_space(space, self.num_ws)

    def styles(self, w: Codes) -> Codes:
        """N codes in any space → N codes in S: their style channels; see :meth:`in_space`."""
        return self.in_space(w, Space.S)

    # --- images

    def synthesize(
        self, codes: Codes, noise_mode: NoiseMode = "const", noise: Sequence[np.random.Generator] | None = None
    ) -> Tensor:
        """Codes to images, differentiably.

        Args:
            codes: N codes in any space.
            noise_mode: ``const`` uses the stored noise images, ``random`` draws new ones and ``none`` leaves noise out.
            noise: One random generator per image, for ``random``: image i's noise is drawn from the i-th alone (counted
                noise). None draws from torch's global generator.

        Returns:
            Images N×3×R×R, nominally in [−1, 1], not clipped.

        Raises:
            ValueError: If the codes do not fit this generator, or the noise does not fit the mode or their number.
        """
        styles = self.styles(codes).values
        return self.compute_images(styles, self.draw_noise(noise_mode, noise, len(styles)))

    def forward(
        self,
        z: Tensor,
        label: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int = 0,
        noise_mode: NoiseMode = "const",
        noise: Sequence[np.random.Generator] | None = None,
    ) -> Tensor:
        """Latents to images; see :meth:`map`, :meth:`truncate` and :meth:`synthesize`."""
        codes = self.map(z, label)
        if truncation_psi != 1.0:
            codes = self.truncate(codes, truncation_psi, truncation_cutoff)
        return self.synthesize(codes, noise_mode, noise)

    def draw_noise(self, mode: NoiseMode, noise: Sequence[np.random.Generator] | None, count: int) -> list[Tensor]:
        """Noise images for ``count`` images, each ``count`` or 1 × 1×H×W; see :meth:`synthesize`."""
        buffers = self.noise_buffers()
        if noise is not None and (mode != "random" or len(noise) != count):
            raise ValueError(
                f"{len(noise)} random generators were given for {count} images and noise_mode {mode!r}; expected one "
                "per image and 'random'"
            )
        if mode == "const":
            return buffers
        if mode == "none":
            return [torch.zeros_like(buffer) for buffer in buffers]
        if mode != "random":
            raise ValueError(f"noise_mode is {mode!r}; expected 'const', 'random' or 'none'")
        if noise is None:
            return [buffer.new_empty(count, *buffer.shape[1:]).normal_() for buffer in buffers]
        sizes = [buffer.numel() for buffer in buffers]
        drawn = torch.from_numpy(np.stack([g.standard_normal(sum(sizes), dtype=np.float32) for g in noise]))
        parts = torch.split(drawn.to(self.w_avg), sizes, dim=1)
        return [part.view(count, *buffer.shape[1:]) for part, buffer in zip(parts, buffers, strict=True)]

    # --- what training keeps

    def set_labels(self, labels: Labels, table: Tensor | None = None) -> None:
        """Declares how labels are drawn; ``table`` (M×K) is required for ``dataset`` and refused otherwise."""
        _check_kind_of_labels(labels, self.c_dim)
        if (labels == "dataset") != (table is not None):
            raise ValueError(f"labels is {labels!r}: a label table is needed for 'dataset' and for nothing else")
        if table is not None and (table.ndim != 2 or table.shape[1] != self.c_dim or not len(table)):
            raise ValueError(f"label table has shape {tuple(table.shape)}; expected (M ≥ 1, {self.c_dim})")
        self.labels = labels
        self.label_table = self.w_avg.new_zeros(0, self.c_dim) if table is None else table.to(self.w_avg)

    def draw_labels(self, generators: Sequence[np.random.Generator]) -> Tensor | None:
        """One label per random generator, as training drew them: N×K, or None for a generator without labels."""
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

    @torch.no_grad()
    def update_w_avg(self, w_mean: Tensor, beta: float = 0.995) -> None:
        """Moves ``w_avg`` towards a batch mean of w, shape (D,), by 1 − ``beta``; keeps no graph."""
        self.w_avg.lerp_(w_mean.detach().to(self.w_avg), 1 - beta)


class Discriminator(nn.Module, ABC):
    """A discriminator: images N×3×R×R and labels N×K → scores (N,); larger means more real.

    It is a trunk (:meth:`features`), which treats every image by itself, and a head (:meth:`head`), which sees the
    batch and the labels.

    Attributes:
        kind: The family's name in the registry.
        head_modules: Names of the modules that :meth:`head` uses; all others are the trunk.
        label_module: Name of the module through which labels enter the projection head.
        resolution: Height and width R of the images.
        c_dim: Number K of label values; 0 for none.
        mbstd_group_size: Largest group of the minibatch standard deviation.
        label_head: How the label enters: ``linear`` or ``projection``.
        feature_shape: Shape of one image's features.
    """

    kind: ClassVar[str]
    head_modules: ClassVar[tuple[str, ...]]
    label_module: ClassVar[str]
    resolution: int
    c_dim: int
    mbstd_group_size: int
    label_head: LabelHead
    feature_shape: tuple[int, ...]

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that rebuild this discriminator; by default, its attributes of their names."""
        return _arguments(self)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """The trunk: what is seen in each image by itself, N×3×R×R → N × ``feature_shape``.

        Raises:
            ValueError: If the images have the wrong shape.
        """

    @abstractmethod
    def head(self, features: Tensor, label: Tensor | None = None) -> Tensor:
        """The end: minibatch standard deviation, then the scores (N,) of what :meth:`features` made.

        Labels N×K are required exactly when the discriminator has labels.

        Raises:
            ValueError: If the labels have the wrong shape, or N does not divide into groups.
        """

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that :meth:`features` depends on."""
        return (p for name, p in self.named_parameters() if name.split(".")[0] not in self.head_modules)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        return self.head(self.features(images), label)


def _arguments(network: nn.Module) -> dict[str, Any]:
    return {name: getattr(network, name) for name in inspect.signature(type(network)).parameters}


def _check_kind_of_labels(labels: Labels, c_dim: int) -> None:
    if (c_dim == 0) != (labels == "none"):
        raise ValueError(f"labels is {labels!r} with c_dim {c_dim}; 'none' goes with 0 and only with 0")


def check_label_head(head: LabelHead, c_dim: int) -> None:
    """Insists on labels for a projection head, by a ValueError."""
    if head == "projection" and not c_dim:
        raise ValueError("label_head is 'projection' with c_dim 0; a projection needs labels")


def check_label(label: Tensor | None, count: int, size: int) -> None:
    """Insists on labels of ``size`` values for ``count`` images, or on none for size 0, by a ValueError."""
    given = None if label is None else tuple(label.shape)
    expected = (count, size) if size else None
    if given != expected:
        raise ValueError(f"label has shape {given}; expected {expected} for a network of label size {size}")

"""What GAN training does to networks, style codes and optimizers besides computing losses."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ohlora.errors import ConfigError
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Discriminator, Generator


def select_trainable(network: nn.Module, patterns: Iterable[str], argument: str) -> None:
    """Lets exactly the parameters train whose name fits one of the shell-style patterns.

    Raises:
        ConfigError: If a pattern fits no parameter; ``argument`` says where the patterns come from.
    """
    names = [name for name, _ in network.named_parameters()]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            parts = sorted({name.split(".")[0] for name in names})
            raise ConfigError(f"{argument}: pattern {pattern!r} fits no parameter; names begin with {', '.join(parts)}")
        chosen.update(fitting)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)


def freeze_blocks(discriminator: Discriminator, count: int) -> None:
    """Freezes the first parts of a discriminator's trunk, from the image on (FreezeD, Mo et al., 2020).

    From-RGB is one part, and each block is one.

    Raises:
        ConfigError: If the trunk has fewer parts.
    """
    trunk = {id(p) for p in discriminator.trunk_parameters()}
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in discriminator.named_parameters():
        if id(parameter) in trunk:
            words = name.split(".")[:-1]
            parts.setdefault(".".join(words[:2]), []).append(parameter)
    if not 0 <= count <= len(parts):
        raise ConfigError(f"frozen_blocks is {count}; the trunk has {len(parts)} parts: {', '.join(parts)}")
    for parameters in list(parts.values())[:count]:
        for parameter in parameters:
            parameter.requires_grad_(False)


def correct_for_lazy_regularization(optimizer: Optimizer, interval: int) -> None:
    """Makes interval + 1 optimizer steps amount to ``interval`` ones: rate and betas as in StyleGAN2, appendix B."""
    ratio = interval / (interval + 1)
    for group in optimizer.param_groups:
        group["lr"] *= ratio
        if "betas" in group:
            group["betas"] = tuple(beta**ratio for beta in group["betas"])


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves an averaged copy towards a network: parameters by ``1 − decay``, buffers at once."""
    targets, sources = [[p.detach() for p in n.parameters()] for n in (average, network)]
    get_ema_multi_avg_fn(decay)(targets, sources, 0)  # type: ignore[no-untyped-call]
    for target, source in zip(average.buffers(), network.buffers(), strict=True):
        target.copy_(source)


def mix_styles(
    generator: Generator, w: Codes, label: Tensor | None, probability: float, draws: Sequence[np.random.Generator]
) -> Codes:
    """Style mixing (Karras et al., 2019): from a random layer on, some images' codes come from a second latent.

    Args:
        generator: Maps the second latents.
        w: N codes in W.
        label: The images' labels, N×K, if any.
        probability: Of an image's being mixed.
        draws: N random generators, from which everything about an image is drawn.

    Returns:
        N codes in W by layer.
    """
    layers = generator.num_ws
    cuts = [int(r.integers(1, layers)) if r.random() < probability else layers for r in draws]
    z = np.stack([r.standard_normal(generator.z_dim, dtype=np.float32) for r in draws])
    second = generator.map(torch.from_numpy(z).to(w.values), label)
    keep = torch.arange(layers)[None] < torch.tensor(cuts)[:, None]
    mixed = torch.where(keep[:, :, None].to(w.values.device), w.values[:, None], second.values[:, None])
    return Codes(mixed, Space.W_BY_LAYER)

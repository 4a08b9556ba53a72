"""The families of generators and discriminators, by kind: one entry here makes a family known everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from ohlora.errors import ConfigError
from ohlora.networks import stylegan, stylegan2, stylegan3
from ohlora.networks.generator import MAX_LABELS, Discriminator, Generator
from ohlora.utils import checks, counted

GENERATORS: Mapping[str, Callable[..., Generator]] = {
    cls.kind: cls for cls in (stylegan.Generator, stylegan2.Generator, stylegan3.Generator)
}
"""Kind → class; to be called with the family's constructor arguments."""
DISCRIMINATORS: Mapping[str, Callable[..., Discriminator]] = {
    cls.kind: cls for cls in (stylegan.Discriminator, stylegan2.Discriminator)
}
"""Likewise for discriminators; a family that is not trained here has none."""

MAX_WIDTH = 2048
"""Largest latent, style code and number of feature maps of networks that start from random weights."""
MAX_MAPPING_LAYERS = 64


@dataclass
class Architecture:
    """Kind and size of networks that start from random weights.

    The sizes are what the networks' constructors call them, such as :class:`ohlora.networks.stylegan.Generator`.
    ``z_dim``, ``w_dim`` and ``channel_max`` are at most 2048, ``mapping_layers`` at most 64, ``c_dim`` at most 65536.
    """

    kind: str = "stylegan"
    resolution: int = 256
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    channel_base: int = 16384
    channel_max: int = 512
    mbstd_group_size: int = 4


def random_networks(architecture: Architecture, seed: int) -> tuple[Generator, Discriminator]:
    """A generator and a discriminator whose random weights are a function of the seed.

    Raises:
        ConfigError: If the kind is unknown, or not trained here.
    """
    sizes = asdict(architecture)
    kind = sizes.pop("kind")
    if kind not in DISCRIMINATORS:
        why = ", which is not trained here" if kind in GENERATORS else ""
        raise ConfigError(f"architecture.kind is {kind!r}{why}; expected {', '.join(DISCRIMINATORS)}")
    # Slips of some digits would fill the memory before anything else is noticed.
    checks.between(0, MAX_LABELS, c_dim=architecture.c_dim)
    checks.between(1, MAX_WIDTH, **{key: sizes[key] for key in ("z_dim", "w_dim", "channel_max")})
    checks.between(1, MAX_MAPPING_LAYERS, mapping_layers=architecture.mapping_layers)
    checks.at_least(1, **{key: sizes[key] for key in ("resolution", "channel_base", "mbstd_group_size")})
    of_generator = {key: sizes.pop(key) for key in ("z_dim", "w_dim", "mapping_layers")}
    of_discriminator = {"mbstd_group_size": sizes.pop("mbstd_group_size")}
    with counted.seeded(seed):
        generator = GENERATORS[kind](**sizes, **of_generator, labels="normal" if architecture.c_dim else "none")
        return generator, DISCRIMINATORS[kind](**sizes, **of_discriminator)

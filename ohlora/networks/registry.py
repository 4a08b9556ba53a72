"""The families of generators and discriminators, by kind: one entry here makes a family known everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ohlora.networks import stylegan
from ohlora.networks.generator import Discriminator, Generator

GENERATORS: Mapping[str, Callable[..., Generator]] = {cls.kind: cls for cls in (stylegan.Generator,)}
"""Kind → class; to be called with the family's constructor arguments."""
DISCRIMINATORS: Mapping[str, Callable[..., Discriminator]] = {cls.kind: cls for cls in (stylegan.Discriminator,)}
"""Likewise."""

"""Layouts: what the tensors of a foreign network are called there and here, and how a network is filled from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from ohlora.errors import FormatError
from ohlora.formats.network_files import check_state
from ohlora.formats.tensor_files import not_finite
from ohlora.networks.stylegan import block_resolutions

AnyModule = TypeVar("AnyModule", bound=nn.Module)
FIR = torch.tensor([1.0, 3.0, 3.0, 1.0])[:, None] * torch.tensor([1.0, 3.0, 3.0, 1.0]) / 64
"""The resampling filter of StyleGAN2."""
MAX_DIGITS = 4
"""Longest number in a key that counts something; a longer one is left to be reported as unexpected."""


Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A foreign state dict.

    Attributes:
        keys: Its keys → ours. Both tensors have the same values in the same order.
        unused: The shapes of what has no use here, by key: blur kernels, the level of detail, and to- and from-RGB
            layers of other levels.
        reshaped: The shapes of tensors that have another one there than here, by foreign key.
        constants: What has no use here since our networks have it built in, by key. Where it is there, it must be the
            same, but for rounding.
    """

    keys: dict[str, str]
    unused: Shapes = field(default_factory=dict)
    reshaped: Shapes = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)

    @property
    def optional(self) -> frozenset[str]:
        """Keys that need not be there."""
        return frozenset(self.unused) | frozenset(self.constants)

    def shapes(self, network: nn.Module) -> Shapes:
        """The shapes that a network's foreign state dict has."""
        ours = network.state_dict()
        used = {foreign: tuple(ours[key].shape) for foreign, key in self.keys.items()} | self.reshaped
        return used | self.unused | {key: tuple(value.shape) for key, value in self.constants.items()}


def filled(
    build: Callable[[], AnyModule],
    layout_of: Callable[[AnyModule], Layout],
    state: Mapping[str, Tensor],
    where: str,
    more: Mapping[str, Tensor] | None = None,
) -> AnyModule:
    """A network with a foreign state dict's values, in evaluation mode.

    Args:
        build: Makes the network. It is called where tensors take no memory, since a file's sizes are not to be trusted
            before its tensors have been compared with them.
        layout_of: The network's layout.
        state: The foreign state dict.
        where: Where it comes from, for messages.
        more: Our key → tensor of the right shape, for what a file may not have.

    Raises:
        FormatError: If the sizes are impossible, the tensors do not fit the network, or a value is not finite.
    """
    try:
        with torch.device("meta"):
            network = build()
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # sizes of zero and less
        raise FormatError(f"{where}: no such network can be made ({error})") from error
    layout = layout_of(network)
    check_state(state, layout.shapes(network), layout.optional, where)
    check_finite(state, where)
    for key, value in layout.constants.items():
        if key in state and not torch.allclose(state[key].float(), value, rtol=1e-3, atol=1e-6):
            raise FormatError(
                f"{where}: {key} is another filter than that of the published networks, which is built in"
            )
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    converted = {key: state[theirs].float().reshape(ours[key]).clone() for theirs, key in layout.keys.items()}
    converted |= {key: torch.zeros(ours[key]) for key in ours if key == "label_table"} | dict(more or {})
    network.load_state_dict(converted, assign=True)
    return network.eval()


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Insists on finite numbers.

    Raises:
        FormatError: Naming the tensors that have others.
    """
    bad = list(not_finite(state))
    if bad:
        shown = ", ".join(bad[:4]) + (" …" if len(bad) > 4 else "")
        raise FormatError(f"{where}: not all values are finite in {shown}: its training failed; take an earlier file")


def channel_plan(count: Mapping[int, int], where: str) -> tuple[int, int]:
    """(base, maximum) with count[r] = min(base / r, maximum), from the feature maps found at each resolution.

    Both are the smallest such numbers.

    Raises:
        FormatError: If there are no such numbers.
    """
    if not count.keys() <= set(block_resolutions(1024)):
        raise FormatError(
            f"{where} has layers for images of impossible sizes; expected 4×4, 8×8 and so on to 1024×1024"
        )
    maximum = max(count.values())
    base = max(r * c for r, c in count.items())
    if any(c != min(base // r, maximum) or c < 1 for r, c in count.items()):
        found = ", ".join(f"{c} at {r}×{r}" for r, c in sorted(count.items()))
        raise FormatError(f"{where} has feature maps {found}; expected min(base / resolution, maximum) for two numbers")
    return base, maximum


def numbers(state: Iterable[str], pattern: str) -> list[int]:
    """The numbers that a pattern's group finds in the keys, sorted, each once."""
    found = (re.fullmatch(pattern, key) for key in state)
    return sorted({int(match[1]) for match in found if match is not None and len(match[1]) <= MAX_DIGITS})


def need(state: Mapping[str, Tensor], keys: Iterable[str], where: str) -> None:
    """Insists on tensors of some names.

    Raises:
        FormatError: Naming those that are missing.
    """
    missing = [key for key in keys if key not in state]
    if missing:
        raise FormatError(f"{where}: missing {', '.join(missing)}")


def sizes(state: Mapping[str, Tensor], key: str, ndim: int, where: str) -> tuple[int, ...]:
    """The shape of a tensor that the size of a network is told by.

    Raises:
        FormatError: If there is none of this name, or of another number of dimensions.
    """
    need(state, (key,), where)
    if state[key].ndim != ndim:
        raise FormatError(f"{where}: {key} has shape {tuple(state[key].shape)}; expected {ndim} dimensions")
    return tuple(state[key].shape)


def check_colours(count: int, what: str) -> None:
    """Insists on RGB.

    Raises:
        FormatError: If there is another number of channels.
    """
    if count != 3:
        raise FormatError(
            f"{what} images of {count} channels; expected 3 (RGB), which is what scores, parsing and characters work on"
        )

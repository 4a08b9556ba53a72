"""Checks where one stage hands its product over to the next: what is measured, how much is enough, what to do.

A product that fails a check is not withheld: it is marked, and whoever makes or uses it is told so. The mark is what
its description calls ``unfit``, the reasons as one text. ``ohlora doctor`` shows the table, and the marks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

UNFIT = "unfit"
"""What a product's description calls the reasons why it is not fit for use."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        about: What is measured.
        limit: How much is enough.
        at_least: Whether more is better; otherwise less is.
        then: What to do where it fails.
    """

    about: str
    limit: float
    at_least: bool
    then: str

    def fails(self, value: float) -> bool:
        """Whether a value is on the wrong side of the limit; what is not known (NaN) fails."""
        return math.isnan(value) or (value < self.limit if self.at_least else value > self.limit)

    def __str__(self) -> str:
        return f"{self.about}: at {'least' if self.at_least else 'most'} {self.limit:g}"


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "learned": Check(
            "property network: correlation of prediction and score on held-out images",
            0.5,
            True,
            "look at the labels, at the attribute's windows, and at the scatter plot; a seed may be unlucky, too: try "
            "another one",
        ),
        "learned_binary": Check(
            "property network: AUROC of an attribute of 0 and 1 on held-out images",
            0.75,
            True,
            "look at the labels, and at the attribute's windows",
        ),
        "spread": Check(
            "generator: standard deviation of an expression, relative to the real images",
            0.5,
            True,
            "train longer, or from more images, before searching directions",
        ),
        "reached": Check(
            "generator: share of the real images' range of an expression that it covers",
            0.5,
            True,
            "train longer, or from more images, before searching directions",
        ),
        "pictures": Check(
            "generator: distance of its images from real ones for an untrained network, above the floor",
            0.25,
            False,
            "look at its pictures: they are blurs, or patterns that only deceive the networks that score them; train "
            "longer, and match scores later or not at all",
        ),
        "agreement": Check(
            "search: correlation of search CNN and judge on generated images",
            0.7,
            True,
            "train the generator longer: on blurs or artefacts a network's scores mean nothing",
        ),
        "outside": Check(
            "search: share of generated images with a score outside the data's range",
            0.05,
            False,
            "look at these images; train the generator longer, or the networks on more data",
        ),
        "trained": Check(
            "fine-tune: kimg that the best generator was trained for; 0 is the start",
            0.001,
            True,
            "nothing was gained over the start: look at the concept, at the learning rate, and at the floors of Watch",
        ),
    }
)
"""The checks by name, in the order in which stages meet them."""
MARGIN = 0.1
"""Share of the data's range by which a score may lie beyond the lowest and highest of the data."""


def failing(check: str, measured: Mapping[str, float], what: str) -> list[str]:
    """Reasons why a product is not fit: one for each measured attribute that fails a check.

    Args:
        check: Name in :data:`CHECKS`.
        measured: Attribute → value.
        what: What was found, for the message, such as ``r on held-out images``.
    """
    by = CHECKS[check]
    side = "at least" if by.at_least else "at most"
    return [
        f"{name}: {what} is {value:.3g}; expected {side} {by.limit:g}"
        for name, value in measured.items()
        if by.fails(value)
    ]


def unlike(distance: float, floor: float) -> list[str]:
    """Why a generator's images are too far from real ones, by the ``untrained_distance`` of both; empty if not."""
    return failing("pictures", {"its images": distance - floor}, "their untrained distance, above its floor,")


def marked(reasons: Iterable[str]) -> dict[str, str]:
    """What the description of a product gets for some reasons; nothing for none."""
    text = "; ".join(reasons)
    return {UNFIT: text} if text else {}


def marks(about: Mapping[str, Any]) -> list[str]:
    """The marks in a product's description, with those of what it was merged from."""
    parts = about.get("merged_from", {})
    found = [reason for part in parts.values() for reason in marks(part)] if isinstance(parts, Mapping) else []
    return [*([str(about[UNFIT])] if about.get(UNFIT) else []), *found]


def warn(what: object, reasons: Iterable[str], *checks: str) -> None:
    """Says loudly that something is not fit, why, and what to do; nothing where there is no reason."""
    found = list(reasons)
    if found:
        lines = [f"WARNING: {what} is not fit for use:", *(f"  {reason}" for reason in found)]
        print("\n".join([*lines, *(f"  → {CHECKS[name].then}" for name in checks)]))

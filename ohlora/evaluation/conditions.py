"""Conditions on what was measured of a latent's edits, and how many latents meet them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

GOOD = "good"
"""What a latent that meets every condition is called."""
PASSED = "passed"
"""The original's condition."""
IN_CONCEPT = "in_concept"
"""The condition that an unedited latent fits the concept."""


@dataclass(frozen=True)
class Condition:
    """Bounds on some of a latent's numbers.

    Attributes:
        name: The condition's, which is that of its column.
        bounds: Number → least and greatest value.
    """

    name: str
    bounds: Mapping[str, tuple[float, float]]

    def met(self, row: Mapping[str, float]) -> bool | None:
        """Whether all bounds hold; None where a number was not measured, and the others hold."""
        known = {name: row[name] for name in self.bounds if name in row}
        if not all(self.bounds[name][0] <= value <= self.bounds[name][1] for name, value in known.items()):
            return False
        return True if len(known) == len(self.bounds) else None


def passing(limits: Mapping[str, float]) -> Condition:
    """The original's condition: every attribute follows its strength with at least its limit, sign included."""
    return Condition(PASSED, {f"{name}_corr": (limit, math.inf) for name, limit in limits.items()})


def bounded(rules: Iterable[tuple[str, str, float]]) -> dict[str, tuple[float, float]]:
    """The bounds of some rules, each a number, a comparison (``>=``, ``<=``, ``>``, ``<``) and a limit."""
    found: dict[str, tuple[float, float]] = {}
    for name, comparison, limit in rules:
        low, high = found.get(name, (-math.inf, math.inf))
        if comparison.startswith(">"):
            low = max(low, limit if comparison == ">=" else math.nextafter(limit, math.inf))
        else:
            high = min(high, limit if comparison == "<=" else math.nextafter(limit, -math.inf))
        found[name] = low, high
    return found


def outcomes(conditions: Sequence[Condition], row: Mapping[str, float]) -> dict[str, bool | None]:
    """What becomes of each condition, and of all together: ``good``, None where that depends on what is not known."""
    found = {condition.name: condition.met(row) for condition in conditions}
    unmet, unknown = (any(value is what for value in found.values()) for what in (False, None))
    return found | {GOOD: False if unmet else None if unknown else True}


def rates(rows: Iterable[Mapping[str, bool | None]]) -> dict[str, float]:
    """Shares of latents that meet each condition, as ``<condition>_ratio``; of one that is not known, there is none.

    They are shares of the latents that fit the concept, where that is known; ``in_concept`` itself, and ``passed``,
    which is the original's rate, are shares of all.
    """
    table = list(rows)
    fitting = [row for row in table if row.get(IN_CONCEPT) is not False]
    found = {}
    for name in table[0]:
        met = [row[name] for row in (table if name in (PASSED, IN_CONCEPT) else fitting)]
        if met and None not in met:
            found[f"{name}_ratio"] = sum(map(bool, met)) / len(met)
    return found

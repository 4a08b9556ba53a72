"""Rules: conditions on attributes, such as ``gender >= 0.92``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ohlora.attributes import attribute

AT_HALF = ("gender >= 0.5", "quality >= 0.5", "age <= 0.5", "glass <= 0.5")
"""The rules of the concept (young woman, no glasses, good image quality) at thresholds of 0.5."""

COMPARISONS: dict[str, Callable[[Any, float], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
"""Comparison operator as written in a rule → the function that evaluates it."""


@dataclass(frozen=True)
class Rule:
    """One condition on an attribute.

    Attributes:
        attribute: Name of the attribute.
        comparison: A key of :data:`COMPARISONS`.
        limit: The number that values are compared with.
    """

    attribute: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Parses a rule; the attribute's name may end in ``_score``.

        Raises:
            ValueError: If the text is not ``ATTRIBUTE COMPARISON NUMBER``, or the attribute is unknown.
        """
        match = re.fullmatch(r"\s*(\w+?)(?:_score)?\s*(>=|<=|>|<)\s*(\S+)\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is no rule; expected for example 'gender >= 0.92' (with >=, <=, > or <)")
        attribute(match[1])
        return cls(match[1], match[2], float(match[3]))

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Evaluates the condition element by element: values of any shape in, booleans of that shape out."""
        return np.asarray(COMPARISONS[self.comparison](values, self.limit))

    def __str__(self) -> str:
        return f"{self.attribute} {self.comparison} {self.limit:g}"


def all_hold(rules: Iterable[Rule], scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Evaluates several rules together.

    Args:
        rules: One or more rules.
        scores: Attribute → N scores; must contain the attribute of every rule.

    Returns:
        N booleans: True where all rules hold.
    """
    return np.asarray(np.logical_and.reduce([rule.holds(scores[rule.attribute]) for rule in rules]))


CONCEPT = tuple(Rule.parse(rule).attribute for rule in AT_HALF)
"""The filters whose scores decide whether an image fits the concept."""

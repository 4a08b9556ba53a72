"""Rules: conditions on attributes, such as ``gender >= 0.92``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ohlora.attributes import vocabulary
from ohlora.errors import ConfigError

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
            ConfigError: If the text is not ``ATTRIBUTE COMPARISON NUMBER``, or the world has no such attribute.
        """
        match = re.fullmatch(r"\s*(\w+?)(?:_score)?\s*(>=|<=|>|<)\s*(\S+)\s*", text)
        try:
            if match is None:
                raise ValueError
            return cls(vocabulary()[match[1]].name, match[2], float(match[3]))
        except ConfigError:
            raise
        except ValueError:
            expected = "expected for example 'gender >= 0.92' (with >=, <=, > or <)"
            raise ConfigError(f"{text!r} is no rule; {expected}") from None

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Evaluates the condition element by element: values of any shape in, booleans of that shape out."""
        return np.asarray(COMPARISONS[self.comparison](values, self.limit))

    @property
    def condition(self) -> str:
        """The condition without the attribute, such as ``>= 0.92``."""
        return f"{self.comparison} {self.limit:g}"

    def __str__(self) -> str:
        return f"{self.attribute} {self.condition}"


def all_hold(rules: Iterable[Rule], scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Evaluates several rules together.

    Args:
        rules: One or more rules.
        scores: Attribute → N scores; must contain the attribute of every rule.

    Returns:
        N booleans: True where all rules hold.
    """
    return np.asarray(np.logical_and.reduce([rule.holds(scores[rule.attribute]) for rule in rules]))


def concept() -> list[Rule]:
    """The rules of the concept of the world in use, as its file declares them; none where it declares none."""
    return [Rule.parse(rule) for rule in vocabulary().concept]

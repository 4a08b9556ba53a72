"""Scores of images as a world declares them: read off parsing maps, or computed by a function of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ohlora.attributes import Attribute, vocabulary
from ohlora.errors import ConfigError, DataError
from ohlora.faces import scoring
from ohlora.utils.imports import named

Function = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None], float]
"""A function of an image (H×W×3 uint8) and its parsing map (class ids, H×W uint8), which is None without a parser."""


class Scores:
    """Scores images for some attributes, each from the source that the world in use declares.

    Args:
        attributes: The attributes; their sources are ``parsing`` or ``function``.
        variants: Attribute → algorithm of its score, in place of the declared one.
        parsed: Whether there are parsing maps.

    Attributes:
        names: Names of the attributes, in the order of the scores.

    Raises:
        ConfigError: If there is no such score, algorithm or function, or a score needs the maps that are not there.
    """

    def __init__(
        self, attributes: Sequence[Attribute], variants: Mapping[str, str] | None = None, parsed: bool = True
    ) -> None:
        self.names = tuple(attribute.name for attribute in attributes)
        self.where = vocabulary().where
        unknown = [name for name in variants or {} if name not in self.names]
        if unknown:
            known = ", ".join(self.names) or "none"
            raise ConfigError(f"there is no score of {', '.join(unknown)} to take a variant of; there are {known}")
        self._functions: dict[str, Function] = {}
        self._variants: dict[str, tuple[str, str]] = {}
        for attribute in attributes:
            name, source = attribute.name, attribute.source
            if source.kind == "function":
                self._functions[name] = self._resolved(attribute)
                continue
            variant = (variants or {}).get(name) or source.variant or scoring.DEFAULT_VARIANT
            try:
                scoring.check_variants({source.name: variant})
            except ValueError as error:
                raise ConfigError(f"{self.where}, attribute {name}: {error}") from error
            if not parsed:
                raise ConfigError(f"{name} is read off parsing maps; set model.init_args.parser")
            self._variants[name] = (source.name, variant)

    def __call__(self, image: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8] | None) -> dict[str, float]:
        """The raw scores of an image (H×W×3 uint8), from itself and its parsing map (H×W uint8).

        Raises:
            DataError: If a function returns no finite number.
        """
        found: dict[str, float] = {}
        frame = None
        for name in self.names:
            if name in self._functions:
                found[name] = self._computed(name, image, classes)
                continue
            assert classes is not None  # refused above
            frame = frame or scoring.prepare(image, classes)
            score, variant = self._variants[name]
            found[name] = scoring.SCORERS[score][variant](frame)
        return found

    def _computed(self, name: str, image: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8] | None) -> float:
        value: Any = self._functions[name](image, classes)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"the function of {name} returned {value!r}; expected a finite number")
        return number

    def _resolved(self, attribute: Attribute) -> Function:
        """A function by its path; modules are also found beside the world's file."""
        said = f"{self.where}, attribute {attribute.name}: function is {attribute.source.name!r}"
        folder = Path(self.where).parent
        found: Function = named("function", attribute.source.name, said, folder, "beside the world's file")
        return found

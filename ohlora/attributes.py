"""The attributes of a world: read from its file, checked, and asked for by every other module.

A world's file (``configs/worlds/*.yaml``) declares its attributes under ``attributes:``. Which vocabulary is in use is
set once per run by :func:`use`; until then it is that of the recipe, ``configs/worlds/celeba256.yaml``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from keyword import iskeyword
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml

from ohlora.errors import ConfigError
from ohlora.utils.files import shipped

Kind = Literal["binary", "score", "ordinal"]
Role = Literal["filter", "label", "expression", "grouping"]
SourceKind = Literal["column", "parsing", "network", "function"]

SOURCES: tuple[SourceKind, ...] = get_args(SourceKind)
KEYS = (
    *("meaning", "kind", "roles", "column", "parsing", "variant", "network", "function"),
    *("windows", "mirror", "keep", "limit", "grid", "motion", "levels", "physical", "reach", "rest"),
)
"""What a declaration may say."""
RESERVED = (
    *("all", "annotator", "case", "file", "fold", "group", "idx", "index"),
    *("label", "merged", "passed", "path", "property", "self", "strict"),
)
"""Names with a meaning of their own in tables, settings or calls."""
NEGATES = "negates"
"""What ``mirror`` says where the raw score of the mirror image has the other sign."""


class Crop(NamedTuple):
    """A window of the image; the edges are fractions of the image's height or width (0…1)."""

    top: float
    bottom: float
    left: float
    right: float


WHOLE = Crop(0.0, 1.0, 0.0, 1.0)
"""The whole image."""


class Source(NamedTuple):
    """Where an attribute's values come from.

    Attributes:
        kind: ``column`` of a table, ``parsing``: a score of parsing maps (see :data:`ohlora.faces.scoring.SCORERS`),
            ``network``: a file of a trained network that predicts it, or ``function``: a Python function.
        name: The column, score, file or function.
        variant: Which algorithm of a score; '' is the default one.
    """

    kind: SourceKind
    name: str
    variant: str = ""


_OWN_COLUMN = Source("column", "")


@dataclass(frozen=True)
class Motion:
    """How an attribute moves by itself, in shares (0…1) of its tested range, which is that of its slider.

    Attributes:
        breath: Farthest from the slider's position, to either side, with the breath.
        drift: Farthest from the slider's position, to either side, at random.
        blinks: Whether it falls to the lower end of the range for a moment every few seconds, as eyelids do.
        speaks: How far it rises from the lower end of the range when a spoken vowel is widest; 0 for what does not
            speak.
    """

    breath: float = 0.0
    drift: float = 0.0
    blinks: bool = False
    speaks: float = 0.0


class Physical(NamedTuple):
    """A physical value that belongs to an attribute, and rises with it.

    Attributes:
        column: The column of tables that holds it.
        unit: Its unit, in words.
    """

    column: str
    unit: str


class Reach(NamedTuple):
    """How far a good character's slider goes at least: in the unit of the physical value, or without one in z-scores.

    Attributes:
        low: What its lowest value is at most.
        high: What its highest value is at least.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Attribute:
    """A measurable property of an image.

    Attributes:
        name: The name in code, files and configurations.
        meaning: What a larger value means.
        kind: ``binary`` (0 or 1; predicted as a probability), ``score`` (a number; z-scores are learned) or ``ordinal``
            (whole-number levels; learned as z-scores, compared by rank).
        roles: ``filter`` (decides which images are kept), ``label`` (conditions fine-tune v1), ``expression`` (steered
            by the character), ``grouping`` (splits latents into groups before directions are searched).
        source: Where its values come from.
        windows: The windows of the image from which a network predicts it.
        mirror: What mirroring an image does to the raw score: '' nothing, ``negates``, or the name of the attribute
            with which it changes places.
        keep: Its conditions in the concept, such as ``>= 0.5``; none for an attribute that is no part of it.
        limit: Correlation of strength and score from which on an edit passes its evaluation.
        grid: Strengths of its evaluation, rising; empty where it is not steered.
        motion: How it moves by itself; None not at all.
        levels: Highest level of an ordinal, 1…9; 0 where it is not said.
        physical: A physical value that belongs to it, if any.
        reach: How far a good character's slider goes at least; None where nothing is asked.
        rest: Its value in a character at rest, in the unit of the physical value, or without one in z-scores; None
            where any will do.
    """

    name: str
    meaning: str
    kind: Kind
    roles: tuple[Role, ...] = ()
    source: Source = _OWN_COLUMN
    windows: tuple[Crop, ...] = (WHOLE,)
    mirror: str = ""
    keep: tuple[str, ...] = ()
    limit: float | None = None
    grid: tuple[float, ...] = ()
    motion: Motion | None = None
    levels: int = 0
    physical: Physical | None = None
    reach: Reach | None = None
    rest: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What its column of a table may be called, the likeliest first."""
        named = (self.source.name,) if self.source.kind == "column" and self.source.name else ()
        return tuple(dict.fromkeys((self.name, f"{self.name}_score", *named)))


@dataclass(frozen=True)
class Vocabulary:
    """The attributes of a world, in the order in which they are declared.

    Attributes:
        where: The file that declares them, for messages.
        declared: The attributes by name.
    """

    where: str = ""
    declared: Mapping[str, Attribute] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, said: Any, base: Vocabulary | None = None) -> Vocabulary:
        """Reads the section ``attributes`` of a world's file.

        Args:
            path: The file, for messages.
            said: The section: name → declaration, or null for an attribute of the base that is left out.
            base: The attributes of the world it builds on.

        Raises:
            ConfigError: If a declaration cannot be used; names file, attribute, key, and what was expected.
        """
        if not isinstance(said, Mapping):
            raise ConfigError(f"{path}: attributes holds {type(said).__name__}; expected name: declaration")
        declared = dict(base.declared) if base is not None else {}
        for name, about in said.items():
            if not isinstance(name, str):
                raise ConfigError(f"{path}: YAML reads the name of an attribute as {name!r}; put it into quotes")
            if about is None:
                if name not in declared:
                    raise ConfigError(f"{path}, attribute {name}: there is none to leave out; expected a declaration")
                del declared[name]
            else:
                declared[name] = _Declaration(path, name, about).read()
        for attribute in declared.values():
            other = attribute.mirror
            if other not in ("", NEGATES) and (other not in declared or declared[other].mirror != attribute.name):
                raise ConfigError(
                    f"{path}, attribute {attribute.name}: mirror is {other!r}; expected {NEGATES}, or an attribute "
                    f"whose mirror is {attribute.name}"
                )
            if other in declared and declared[other].kind != attribute.kind:
                raise ConfigError(
                    f"{path}, attribute {attribute.name}: it is a {attribute.kind} and its mirror {other} a "
                    f"{declared[other].kind}; expected the same kind"
                )
        return cls(path.as_posix(), declared)

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.declared.values())

    def __contains__(self, name: str) -> bool:
        return name in self.declared

    def __getitem__(self, name: str) -> Attribute:
        """The attribute with a name.

        Raises:
            ConfigError: If none has it; lists those that are declared.
        """
        if name not in self.declared:
            known = ", ".join(self.declared) or "none"
            raise ConfigError(f"unknown attribute {name!r}; {self.where} declares {known}")
        return self.declared[name]

    def names(self, role: Role) -> tuple[str, ...]:
        """Names of all attributes with a role."""
        return tuple(attribute.name for attribute in self if role in attribute.roles)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the scores and ordinals."""
        return tuple(attribute.name for attribute in self if attribute.kind != "binary")

    @property
    def scored(self) -> tuple[Attribute, ...]:
        """The attributes that are scored from an image, and its parsing map where there is one."""
        return tuple(attribute for attribute in self if attribute.source.kind in ("parsing", "function"))

    @property
    def concept(self) -> tuple[str, ...]:
        """The rules of the concept, such as ``age <= 0.5``."""
        return tuple(f"{attribute.name} {condition}" for attribute in self for condition in attribute.keep)

    @property
    def grid(self) -> dict[str, tuple[float, ...]]:
        """Attribute → strengths of its evaluation, for those that have some."""
        return {attribute.name: attribute.grid for attribute in self if attribute.grid}

    def described(self, names: Sequence[str]) -> tuple[dict[str, str], dict[str, Motion]]:
        """Meanings and motions by name, of those of some attributes that are declared and have one."""
        known = [self.declared[name] for name in names if name in self.declared]
        return {a.name: a.meaning for a in known}, {a.name: a.motion for a in known if a.motion is not None}

    def described_in(self, about: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, str], dict[str, Motion]]:
        """Meanings and motions that a file keeps of some attributes; those of :meth:`described` where it keeps none.

        The ``motions`` of earlier files are in other terms, and do not count.
        """
        meanings, motions = self.described(names)
        if "motion_shares" in about:
            motions = {name: Motion(**values) for name, values in about["motion_shares"].items()}
        return about.get("meanings", meanings), motions

    def predicted_by(self, network: str | Sequence[str]) -> tuple[Attribute, ...]:
        """The attributes of a network, by its name.

        Args:
            network: ``property`` (the labels), ``merged`` (labels, expressions and grouping attributes), the name of an
                attribute, or several.

        Raises:
            ConfigError: If there is no such attribute, or none with such a role.
        """
        roles: dict[str, tuple[Role, ...]] = {"property": ("label",), "merged": ("label", "expression", "grouping")}
        if not isinstance(network, str) or network not in roles:
            return tuple(self[name] for name in ([network] if isinstance(network, str) else network))
        found = tuple(attribute for attribute in self if set(attribute.roles) & set(roles[network]))
        if not found:
            raise ConfigError(f"{self.where} declares no {' or '.join(roles[network])}, so that {network} is empty")
        return found


class _Declaration:
    """One declaration, read key by key."""

    def __init__(self, path: Path, name: str, about: Any) -> None:
        self.where = f"{path}, attribute {name}"
        self.name, self.about = name, about
        if not name.isidentifier() or iskeyword(name) or name.endswith("_score") or name in RESERVED:
            raise ConfigError(
                f"{self.where}: this cannot be its name; expected letters, digits and _, not ending in _score, no "
                f"keyword of Python, and none of {', '.join(RESERVED)}"
            )
        if not isinstance(about, Mapping):
            raise ConfigError(f"{self.where}: it holds {about!r}; expected settings: {', '.join(KEYS)}")
        for key in about:
            if key not in KEYS:
                raise ConfigError(f"{self.where}: there is no key {key!r}; expected some of {', '.join(KEYS)}")

    def refused(self, key: str, expected: str) -> ConfigError:
        """What to raise for a key whose value cannot be used."""
        said = f"{key} is {self.about[key]!r}" if key in self.about else f"{key} is missing"
        return ConfigError(f"{self.where}: {said}; expected {expected}")

    def read(self) -> Attribute:
        """The attribute."""
        meaning, kind = self.about.get("meaning"), self.about.get("kind")
        if not isinstance(meaning, str) or not meaning:
            raise self.refused("meaning", "what a larger value means, in a few words")
        if kind not in get_args(Kind):
            raise self.refused("kind", f"one of {', '.join(get_args(Kind))}")
        roles = self.about.get("roles", [])
        if not isinstance(roles, list) or not set(map(str, roles)) <= set(get_args(Role)):
            raise self.refused("roles", f"a list of {', '.join(get_args(Role))}")
        expression = "expression" in roles
        grid, limit = self.grid(expression), self.limit(expression)
        return Attribute(
            self.name,
            meaning,
            kind,
            tuple(roles),
            self.source(),
            self.windows(),
            self.mirror(kind),
            self.keep(),
            limit,
            grid,
            self.motion(grid),
            self.levels(kind),
            self.physical(kind),
            self.reach(grid),
            self.rest(grid),
        )

    def source(self) -> Source:
        """Its source; the column of its own name by default."""
        given = [key for key in SOURCES if key in self.about]
        if len(given) > 1:
            raise ConfigError(f"{self.where}: it has {' and '.join(given)}; expected one source")
        kind: SourceKind = given[0] if given else "column"
        name, variant = self.about.get(kind, self.name), self.about.get("variant", "")
        if not isinstance(name, str) or not name:
            raise self.refused(kind, "a name")
        if kind == "function" and not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
            raise self.refused(kind, "package.module.function")
        if not isinstance(variant, str) or (variant and kind != "parsing"):
            raise self.refused("variant", "the name of an algorithm, together with parsing")
        return Source(kind, name, variant)

    def windows(self) -> tuple[Crop, ...]:
        """Its windows; the whole image by default."""
        given = self.about.get("windows", [list(WHOLE)])
        found = []
        for window in given if isinstance(given, list) else []:
            try:
                crop = Crop(*(float(Fraction(str(edge))) for edge in window))
            except (TypeError, ValueError, ZeroDivisionError):
                break
            if not (0 <= crop.top < crop.bottom <= 1 and 0 <= crop.left < crop.right <= 1):
                break
            found.append(crop)
        else:
            if found:
                return tuple(found)
        raise self.refused("windows", "a list of [top, bottom, left, right], each 0…1 or a fraction such as 3/8")

    def mirror(self, kind: Kind) -> str:
        """What mirroring does; that another attribute exists is checked once all are read."""
        found = self.about.get("mirror", "")
        if not isinstance(found, str) or found == self.name or (found == NEGATES and kind == "binary"):
            raise self.refused("mirror", f"{NEGATES} (not for 0 and 1), or the name of another attribute")
        if found == NEGATES and "levels" in self.about:  # 0…levels
            raise self.refused("mirror", "the levels to be left out, since those of mirror images are below 0")
        return found

    def keep(self) -> tuple[str, ...]:
        """Its conditions in the concept."""
        said = self.about.get("keep", [])
        found = said if isinstance(said, list) else [said]
        number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
        if not all(re.fullmatch(rf"(>=|<=|>|<) ?{number}", str(condition)) for condition in found):
            raise self.refused("keep", "a comparison such as '>= 0.5', or a list of some")
        return tuple(map(str, found))

    def limit(self, needed: bool) -> float | None:
        """The limit of its evaluation."""
        found = self.about.get("limit")
        if not self._number(found, -1, 1) and (needed or found is not None):
            raise self.refused("limit", "a correlation, -1…1, from which on an edit passes")
        return None if found is None else float(found)

    def grid(self, needed: bool) -> tuple[float, ...]:
        """The strengths of its evaluation."""
        found = self.about.get("grid", [])
        numbers = isinstance(found, list) and all(self._number(value) for value in found)
        if not numbers or (not found and needed) or (found and (len(found) < 2 or sorted(set(found)) != found)):
            raise self.refused("grid", "two or more strengths, rising")
        if found and found[-1] <= 0:
            raise self.refused("grid", "a highest strength above 0")
        return tuple(map(float, found))

    def motion(self, grid: Sequence[float]) -> Motion | None:
        """How it moves by itself."""
        found = self.about.get("motion")
        if found is None:
            return None
        shares = ("breath", "drift", "speaks")
        if (
            not grid
            or not isinstance(found, Mapping)
            or not found
            or not set(found) <= {*shares, "blinks"}
            or not all(self._number(found.get(key, 0), 0, 1) for key in shares)
            or not isinstance(found.get("blinks", False), bool)
        ):
            raise self.refused(
                "motion",
                f"some of {', '.join(shares)} (shares of the tested range, 0…1) and blinks: true or not, together with "
                "a grid",
            )
        return Motion(**found)

    def levels(self, kind: Kind) -> int:
        """The highest level of an ordinal."""
        found = self.about.get("levels", 0)
        if "levels" in self.about and (kind != "ordinal" or found not in range(1, 10) or isinstance(found, bool)):
            raise self.refused("levels", "the highest level, a whole number from 1 to 9, of an ordinal")
        return int(found)

    def physical(self, kind: str) -> Physical | None:
        """The physical value that belongs to it."""
        found = self.about.get("physical")
        if found is None:
            return None
        keys = set(Physical._fields)
        if not isinstance(found, Mapping) or set(found) != keys or not all(self._text(found[key]) for key in keys):
            raise self.refused("physical", "column and unit, a few words each")
        if kind == "binary":
            raise self.refused("physical", "it to be left out, since the attribute is 0 or 1")
        return Physical(found["column"], found["unit"])

    def reach(self, grid: Sequence[float]) -> Reach | None:
        """How far a slider goes."""
        found = self.about.get("reach")
        if found is None:
            return None
        keys = Reach._fields
        if (
            not grid
            or not isinstance(found, Mapping)
            or set(found) != set(keys)
            or not all(self._number(found[key]) for key in keys)
            or found["low"] >= found["high"]
        ):
            raise self.refused("reach", "numbers low and high, the first less, together with a grid")
        return Reach(float(found["low"]), float(found["high"]))

    def rest(self, grid: Sequence[float]) -> float | None:
        """Its value at rest."""
        found = self.about.get("rest")
        if found is None:
            return None
        if not grid or not self._number(found):
            raise self.refused("rest", "a number, together with a grid")
        return float(found)

    @staticmethod
    def _text(value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    @staticmethod
    def _number(value: Any, low: float | None = None, high: float | None = None) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (low is None or value >= low)
            and (high is None or value <= high)
        )


_in_use: list[Vocabulary] = []


def use(chosen: Vocabulary | None) -> None:
    """Makes a vocabulary the one in use; None goes back to that of the recipe."""
    _in_use[:] = [chosen] if chosen is not None else []


def vocabulary() -> Vocabulary:
    """The vocabulary in use."""
    return _in_use[0] if _in_use else recipe()


@cache
def recipe() -> Vocabulary:
    """The vocabulary of the recipe, which ships."""
    path = shipped("configs/worlds/celeba256.yaml")
    return Vocabulary.read(path, yaml.safe_load(path.read_text(encoding="utf-8"))["attributes"])

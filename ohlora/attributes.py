"""The attributes of a face, declared once.

Other modules take names, roles and crops from here; none has a list of attributes of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Role = Literal["filter", "label", "expression", "grouping"]
Range = Literal["probability", "z-score"]


class Crop(NamedTuple):
    """A window of the image; the edges are fractions of the image's height or width (0…1)."""

    top: float
    bottom: float
    left: float
    right: float


@dataclass(frozen=True)
class Attribute:
    """A measurable property of a face.

    Attributes:
        name: The name in code, files and configurations.
        meaning: What a larger value means.
        range: ``probability`` (0…1) or ``z-score`` (mean 0, standard deviation 1 over a population).
        roles: ``filter`` (decides which images are kept), ``label`` (conditions fine-tune v1), ``expression``
            (steered by the character), ``grouping`` (splits latents into groups before directions are searched).
        crops: The windows of the image from which a network predicts it.
        mirrors: Whether its raw score changes sign when the image is mirrored.
    """

    name: str
    meaning: str
    range: Range
    roles: frozenset[Role]
    crops: tuple[Crop, ...]
    mirrors: bool = False


_WHOLE = Crop(0.0, 1.0, 0.0, 1.0)
_TOP_HALF = Crop(0.0, 1 / 2, 0.0, 1.0)
_BOTTOM_HALF = Crop(1 / 2, 1.0, 0.0, 1.0)
_EYE_BAND = Crop(3 / 8, 9 / 16, 1 / 4, 3 / 4)


def _attribute(name: str, meaning: str, range_: Range, roles: tuple[Role, ...], *crops: Crop) -> Attribute:
    return Attribute(name, meaning, range_, frozenset(roles), crops, mirrors=name in ("pose", "roll"))


ATTRIBUTES: tuple[Attribute, ...] = (
    _attribute("gender", "more female", "probability", ("filter",), _WHOLE),
    _attribute("quality", "better image", "probability", ("filter",), Crop(0.0, 1 / 4, 1 / 4, 3 / 4)),
    _attribute("age", "older", "probability", ("filter",), _TOP_HALF),
    _attribute("glass", "glasses worn", "probability", ("filter",), Crop(5 / 16, 1 / 2, 1 / 4, 3 / 4)),
    _attribute("eyes", "eyes opened wider", "z-score", ("label", "expression"), _EYE_BAND),
    _attribute("hair_color", "brighter hair", "z-score", ("label", "grouping"), _WHOLE),
    _attribute("hair_length", "longer hair", "z-score", ("label", "grouping"), _BOTTOM_HALF),
    _attribute("mouth", "mouth opened wider", "z-score", ("label", "expression"), Crop(5 / 8, 13 / 16, 3 / 8, 5 / 8)),
    _attribute(
        "pose",
        "head turned to the image's right",
        "z-score",
        ("label", "expression"),
        Crop(7 / 16, 5 / 8, 11 / 32, 21 / 32),
    ),
    _attribute("background_mean", "brighter background", "z-score", ("label", "grouping"), _TOP_HALF),
    _attribute("background_std", "more varied background", "z-score", ("label",), _TOP_HALF),
    _attribute(
        "hairstyle",
        "curlier hair (small: straight)",
        "z-score",
        ("grouping",),
        Crop(1 / 2, 1.0, 0.0, 3 / 8),
        Crop(1 / 2, 1.0, 5 / 8, 1.0),
    ),
    _attribute("roll", "head tilted so that the image's right eye is lower", "z-score", (), _EYE_BAND),
)

_BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}


def attribute(name: str) -> Attribute:
    """Returns the attribute with a name.

    Raises:
        ValueError: If no attribute has that name; the message lists those that exist.
    """
    if name not in _BY_NAME:
        raise ValueError(f"unknown attribute {name!r}; expected one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def names(role: Role) -> tuple[str, ...]:
    """Returns the names of all attributes with a role, in the order of :data:`ATTRIBUTES`."""
    return tuple(a.name for a in ATTRIBUTES if role in a.roles)


def column(header: Iterable[str], name: str) -> str | None:
    """Finds the column of a table that holds an attribute.

    Args:
        header: The table's columns.
        name: Name of the attribute.

    Returns:
        ``<name>`` or ``<name>_score``, or None if the table has neither.
    """
    return next((c for c in (name, f"{name}_score") if c in header), None)


FILTERS = names("filter")
"""The 0/1 attributes by which images are kept or dropped."""

LABELS = names("label")
"""The attributes that condition fine-tune v1, in the order of its label vector."""

EXPRESSIONS = names("expression")
"""The attributes by which a character is steered."""

GROUPING = names("grouping")
"""The attributes by which latents are grouped, in the order of the letters of a group's name."""

MEASURED = tuple(a.name for a in ATTRIBUTES if a.range == "z-score")
"""The continuous attributes, which are measured from an image and its parsing map."""

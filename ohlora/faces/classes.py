"""The classes of a parsing map, the colours in which they are shown, and their names in other data sets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CLASSES: tuple[str, ...] = (
    "background",
    "skin",
    "left brow",
    "right brow",
    "left eye",
    "right eye",
    "nose",
    "upper lip",
    "inner mouth",
    "lower lip",
    "hair",
)
"""Names of the parsing classes, by id; "left" is the left half of the image."""

_OTHER_SIDE = {"left": "right", "right": "left"}

MIRRORED: tuple[int, ...] = tuple(
    CLASSES.index(" ".join(_OTHER_SIDE.get(word, word) for word in name.split())) for name in CLASSES
)
"""For each class id, the id that it has in the mirrored image, where left and right are exchanged."""

COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (0, 153, 255),
    (102, 255, 153),
    (0, 204, 153),
    (255, 255, 102),
    (255, 255, 204),
    (255, 153, 0),
    (255, 102, 255),
    (102, 0, 51),
    (255, 204, 255),
    (255, 0, 102),
)
"""RGB colours (0…255) in which parsing maps are shown, by class id; those of the original."""

CELEBAMASK_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "background": "background",
        "skin": "skin",
        "eye_g": "skin",
        "l_brow": "right brow",
        "r_brow": "left brow",
        "l_eye": "right eye",
        "r_eye": "left eye",
        "l_ear": "skin",
        "r_ear": "skin",
        "ear_r": "skin",
        "nose": "nose",
        "mouth": "inner mouth",
        "u_lip": "upper lip",
        "l_lip": "lower lip",
        "neck": "skin",
        "neck_l": "skin",
        "cloth": "background",
        "hair": "hair",
        "hat": "background",
    }
)
"""Part of CelebAMask-HQ (Lee et al., 2020) → our class, in the order in which the masks of the parts are painted.

Its ``l_`` and ``r_`` are the person's left and right, whereas our "left" is the left half of the image (see
:func:`ohlora.faces.parsing.sides_by_place`). Glasses come before eyes and brows, which they must not cover. Earrings
and necklaces count as skin, hats and clothes as background.
"""

"""Drawn people: the same person in several pictures, and a look-alike of each.

What of a face belongs to its person and what to the picture is :data:`OF_PERSON` and :data:`OF_PICTURE`. Persons come
in pairs: person 2n + 1 is person 2n but for one property, which was moved far enough to be seen. Picture k of both has
the same expression, tilt, clothes and background, so that the two show nothing but that difference.

Everything is a function of (seed, person, picture), and every value has a random stream of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from ohlora.toy import drawing
from ohlora.toy.drawing import DEFAULT_RATES, DRAWN, EXPRESSIONS, MEASURED, NUISANCES, ByteArray, Truth
from ohlora.utils import counted

OF_PICTURE = (*EXPRESSIONS, "roll", "clothes_hue", "background_mean", "background_std", "tint_hue")
"""What differs between two pictures of one person: expression, tilt of the head, clothes and background."""
OF_PERSON = tuple(name for name in (*DRAWN, *NUISANCES) if name not in (*OF_PICTURE, "quality"))
"""What makes a person: sex, age, glasses, skin, eyes, brows, nose, shape of the face, and hair. The quality of an image
is neither; it is always good."""
UNSEEN = ("nose_size",)
"""Properties of a person whose largest change cannot be seen at 64×64."""
OF_LOOK_ALIKES = tuple(name for name in OF_PERSON if name not in UNSEEN)
"""Properties by which look-alikes differ, one at a time."""
LEAST_CHANGE = 0.35
"""By how much of the population a property differs between look-alikes, as a share, at least; 0 and 1 change places."""
SEEN = 40.0
"""Two images differ visibly where their peak signal-to-noise ratio is below so many dB."""

_NORMAL = NormalDist()
_TAIL = 0.001


def person(seed: int, number: int, rates: Mapping[str, float] | None = None) -> Truth:
    """The values of a person, in the expression of its own face number ``number // 2``; image quality is good.

    Args:
        seed: Seed of the people, 0 or larger.
        number: Number of the person, 0 or larger.
        rates: 0/1 attribute → probability that it is 1, see :func:`ohlora.toy.drawing.sample_truth`; look-alikes that
            differ in it have the other value.

    Raises:
        ValueError: See :func:`ohlora.toy.drawing.sample_truth`.
    """
    first = drawing.sample_truth(seed, number // 2, rates).replace(quality=1.0)
    if number % 2 == 0:
        return first
    name = difference(seed, number)
    moved = counted.generator(seed, "look-alike/change", number // 2).random()
    return first.replace(**{name: _changed(name, _value(first, name), moved)})


def difference(seed: int, number: int) -> str:
    """The property, one of :data:`OF_LOOK_ALIKES`, in which a person and its look-alike differ."""
    return OF_LOOK_ALIKES[counted.generator(seed, "look-alike/property", number // 2).integers(len(OF_LOOK_ALIKES))]


def portrait(seed: int, number: int, picture: int, rates: Mapping[str, float] | None = None) -> Truth:
    """The values of one picture of a person; see :func:`person`.

    Raises:
        ValueError: See :func:`ohlora.toy.drawing.sample_truth`.
    """
    who = person(seed, number, rates)
    # A population of faces for every picture, so that the number of pictures changes none of them.
    other = drawing.sample_truth(counted.integer(seed, "picture", picture), number // 2)
    return who.replace(**{name: _value(other, name) for name in OF_PICTURE})


def properties(truth: Truth) -> np.ndarray:
    """What makes the person, as numbers of mean about 0 and deviation about 1: float32, in the order of OF_PERSON."""
    found = []
    for name in OF_PERSON:
        value = _value(truth, name)
        # Nuisances are uniform on 0…1.
        found.append(value if name in MEASURED else (2 * value - 1) * (1.0 if name in DEFAULT_RATES else 3**0.5))
    return np.array(found, np.float32)


def peak_signal_to_noise(a: ByteArray, b: ByteArray) -> float:
    """Peak signal-to-noise ratio of two images of one shape in dB; infinite for the same image."""
    error = float(np.square(a.astype(np.float32) - b.astype(np.float32)).mean())
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def _value(truth: Truth, name: str) -> float:
    return truth.nuisances[name] if name in truth.nuisances else truth.attributes[name]


def _changed(name: str, value: float, moved: float) -> float:
    """Another value of a property, by a random number 0…1; its distribution stays that of the population."""
    if name in DEFAULT_RATES:
        return 1 - value
    step = LEAST_CHANGE + (1 - 2 * LEAST_CHANGE) * moved  # around a circle, on which both ways are long enough
    if name in NUISANCES:
        return (value + step) % 1
    share = (_NORMAL.cdf(value) + step) % 1
    return _NORMAL.inv_cdf(min(max(share, _TAIL), 1 - _TAIL))

"""Drawn people: what makes a person, its pictures, and its look-alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ohlora import pipeline
from ohlora.toy import people
from ohlora.toy.drawing import DRAWN, NUISANCES, Truth, draw, sample_truth
from ohlora.toy.people import (
    LEAST_CHANGE,
    OF_LOOK_ALIKES,
    OF_PERSON,
    OF_PICTURE,
    SEEN,
    UNSEEN,
    difference,
    peak_signal_to_noise,
    person,
    portrait,
    properties,
)

TOY = pipeline.world("toy").attributes


def values(truth: Truth) -> dict[str, float]:
    return {**truth.attributes, **truth.nuisances}


def test_everything_belongs_to_the_person_or_to_the_picture() -> None:
    assert {*OF_PERSON, *OF_PICTURE, "quality"} == {*DRAWN, *NUISANCES}
    assert not {*OF_PERSON} & {*OF_PICTURE}
    assert {*TOY.names("expression")} < {*OF_PICTURE}, "expressions are never the person's"
    assert {"skin", "face_shape", "hair_color", "hair_length", "hairstyle", "glass"} < {*OF_PERSON}


def test_a_picture_is_a_function_of_seed_person_and_number() -> None:
    backwards = [portrait(3, n, k) for n in reversed(range(6)) for k in reversed(range(3))][::-1]
    assert backwards == [portrait(3, n, k) for n in range(6) for k in range(3)]
    assert len({tuple(values(truth).values()) for truth in backwards}) == 18
    assert portrait(4, 0, 0) != portrait(3, 0, 0)


def test_pictures_of_a_person_differ_in_what_is_the_picture_s_only() -> None:
    a, b = (values(portrait(3, 8, k)) for k in (0, 5))
    assert {name for name in a if a[name] != b[name]} == {*OF_PICTURE}
    assert all(portrait(3, n, 0).attributes["quality"] == 1 for n in range(200))


def test_look_alikes_differ_in_one_property_and_have_the_same_pictures() -> None:
    changes = []
    for n in range(0, 400, 2):
        a, b = values(portrait(3, n, 1)), values(portrait(3, n + 1, 1))
        name = difference(3, n)
        assert [key for key in a if a[key] != b[key]] == [name] and difference(3, n + 1) == name
        if name in NUISANCES:
            assert LEAST_CHANGE <= abs(a[name] - b[name]) <= 1 - LEAST_CHANGE and 0 <= b[name] <= 1
        changes.append(name)
    assert {*changes} == {*OF_LOOK_ALIKES} and max(Counter(changes).values()) < 40
    others = values(person(3, 10)), values(person(3, 12))
    assert sum(others[0][name] != others[1][name] for name in OF_PERSON) > 8


def test_rates_change_their_own_attribute_only() -> None:
    for n in range(0, 60, 2):
        plain, dense = values(portrait(5, n, 0)), values(portrait(5, n, 0, {"glass": 0.9}))
        assert {key for key in plain if plain[key] != dense[key]} <= {"glass"}


def test_properties_are_numbers_of_one_scale() -> None:
    found = np.stack([properties(person(1, n)) for n in range(0, 2000, 2)])
    assert found.shape == (1000, len(OF_PERSON)) and found.dtype == np.float32
    binary = [OF_PERSON.index(name) for name in ("gender", "age", "glass")]
    assert {*np.unique(found[:, binary])} == {-1, 1}
    rest = np.delete(found, binary, axis=1)
    assert np.abs(rest.mean(axis=0)).max() < 0.15 and np.abs(rest.std(axis=0) - 1).max() < 0.15


def test_the_ratio_of_known_images() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert peak_signal_to_noise(black, black) == float("inf")
    assert peak_signal_to_noise(black, black + np.uint8(255)) == pytest.approx(0)
    assert peak_signal_to_noise(black + np.uint8(10), black + np.uint8(13)) == pytest.approx(10 * np.log10(255**2 / 9))


def test_a_property_that_makes_look_alikes_is_seen() -> None:
    """Between its ends, on most faces that look straight ahead with open eyes."""
    ahead = {"eyes": 1.0, "mouth": 0.0, "pose": 0.0, "smile": 0.0, "roll": 0.0}
    for name in OF_PERSON:
        ends = (0.0, 1.0) if name in NUISANCES or name in ("gender", "age", "glass") else (-1.5, 1.5)
        ratios = []
        for k in range(8):
            face = sample_truth(2, k).replace(quality=1.0, **ahead)
            ratios.append(peak_signal_to_noise(*(draw(face.replace(**{name: end}), 64).image for end in ends)))
        seen = np.mean(np.array(ratios) < SEEN)
        assert seen == 0 if name in UNSEEN else seen > 0.6, f"{name}: {ratios}"


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="expected whole numbers of 0 or more"):
        people.portrait(-1, 0, 0)

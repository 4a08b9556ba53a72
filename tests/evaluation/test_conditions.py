"""Conditions on a latent's numbers."""

from __future__ import annotations

import math

import pytest

from ohlora.evaluation.conditions import Condition, outcomes, passing, rates

CONDITIONS = [
    passing({"eyes": 0.9, "mouth": 0.8}),
    Condition("eyes_reached", {"eye_opening_lowest": (-math.inf, 0.1), "eye_opening_highest": (0.9, math.inf)}),
]
GOOD = {"eyes_corr": 0.9, "mouth_corr": 0.95, "eye_opening_lowest": 0.1, "eye_opening_highest": 0.97}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [True, True, True]),  # limits belong to it
        ({"mouth_corr": -0.95}, [False, True, False]),
        ({"eye_opening_lowest": 0.11}, [True, False, False]),
        ({"eye_opening_highest": math.nan}, [True, False, False]),
    ],
)
def test_a_good_latent_meets_every_condition(changes: dict[str, float], expected: list[bool]) -> None:
    found = outcomes(CONDITIONS, GOOD | changes)
    assert list(found) == ["passed", "eyes_reached", "good"] and list(found.values()) == expected


def test_what_was_not_measured_is_not_known() -> None:
    of_original = {"eyes_corr": 0.9, "mouth_corr": 0.95}
    assert list(outcomes(CONDITIONS, of_original).values()) == [True, None, None]
    assert list(outcomes(CONDITIONS, of_original | {"eyes_corr": 0.5}).values()) == [False, None, False]
    # One bound that is broken is enough.
    assert outcomes(CONDITIONS, of_original | {"eye_opening_highest": 0.5})["eyes_reached"] is False


def test_rates_are_over_all_latents() -> None:
    rows = [GOOD, GOOD | {"eye_opening_lowest": 0.4}, GOOD | {"eyes_corr": 0.0}, GOOD]
    found = rates(outcomes(CONDITIONS, row) for row in rows)
    assert found == {"passed_ratio": 0.75, "eyes_reached_ratio": 0.75, "good_ratio": 0.5}
    assert rates([outcomes(CONDITIONS, {"eyes_corr": 0.9, "mouth_corr": 0.95})]) == {"passed_ratio": 1}


def test_latents_outside_the_concept_count_in_the_originals_rate_only() -> None:
    conditions = [*CONDITIONS, Condition("in_concept", {"unedited_gender": (0.5, 1)})]
    inside, outside = GOOD | {"unedited_gender": 0.9}, {"eyes_corr": 0.0, "unedited_gender": 0.2}
    of_all = [outcomes(conditions, row) for row in (inside, inside | {"eye_opening_lowest": 0.4}, GOOD | outside)]
    assert rates(of_all) == {
        "passed_ratio": 2 / 3, "in_concept_ratio": 2 / 3, "eyes_reached_ratio": 0.5, "good_ratio": 0.5,
    }  # fmt: skip
    assert rates(of_all[2:]) == {"passed_ratio": 0, "in_concept_ratio": 0}

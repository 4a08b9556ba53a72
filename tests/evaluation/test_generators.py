"""Measures of a generator's images against real ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ohlora.evaluation.features import Penultimate, RandomFeatures
from ohlora.evaluation.generators import (
    MEASURES,
    Observed,
    Observer,
    Reals,
    Spread,
    attribute_spread,
    set_measures,
    spread_summary,
    untrained_distance,
)
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.utils.images import resized


def observed(count: int, seed: int = 0, scale: float = 1.0) -> Observed:
    random = torch.Generator().manual_seed(seed)
    features = scale * torch.randn(count, 8, generator=random)
    return Observed(features, 2 * features + 1, {"eyes": features[:, 0].numpy(), "pose": features[:, 1].numpy()})


def test_the_spread_of_an_attribute() -> None:
    real = np.linspace(0, 100, 1001)  # its 5th and 95th percentile are 5 and 95
    assert attribute_spread(real, real) == Spread(1.0, 1.0)
    assert attribute_spread(real, real / 2 + 25) == pytest.approx(Spread(0.5, 45 / 90))  # 27.5 … 72.5
    assert attribute_spread(real, real * 2 - 50) == pytest.approx(Spread(2.0, 1.0))
    assert attribute_spread(real, real + 45) == pytest.approx(Spread(1.0, 0.5))  # as varied, but elsewhere
    assert attribute_spread(real, np.full(10, 50.0)) == Spread(0.0, 0.0)
    assert attribute_spread(real, real + 1000).reached == 0.0
    constant = attribute_spread(np.ones(10), real)
    assert math.isnan(constant.spread) and math.isnan(constant.reached)


def test_too_much_spread_counts_like_too_little() -> None:
    spreads = {"eyes": Spread(0.5, 1), "mouth": Spread(1.25, 1), "pose": Spread(math.nan, math.nan)}
    assert spread_summary(spreads) == pytest.approx({"spread_mean": 0.65, "spread_min": 0.5})
    assert spread_summary({"eyes": Spread(0.0, 0)}) == {"spread_mean": 0.0, "spread_min": 0.0}
    assert spread_summary({"pose": Spread(math.nan, math.nan)}) == {}


def test_the_floor_compares_halves_of_the_size_of_the_comparison() -> None:
    seen = observed(60)
    reals = Reals(seen, 30)
    assert (reals.count, reals.floor_count) == (30, 30) and reals.floor.keys() == MEASURES.keys()
    assert reals.floor == set_measures(seen.part(0, 30), seen.part(30, 60))
    assert reals.floor_spread["eyes"] == attribute_spread(seen.scores["eyes"][:30], seen.scores["eyes"][30:])
    same = reals.measures(seen)  # the first 30
    assert same["frechet_distance"] == pytest.approx(0, abs=1e-3) and same["coverage"] == 1.0
    assert reals.spread(seen.part(0, 30))["pose"] == Spread(1.0, 1.0)


def test_the_floor_has_what_the_data_allows() -> None:
    reals = Reals(observed(25), 20)
    assert (reals.count, reals.floor_count) == (20, 12) and reals.floor
    few = Reals(observed(7), 20)
    assert few.enough and few.count == 7 and not few.floor and not few.floor_spread
    assert not Reals(observed(5), 20).enough


def test_the_untrained_distance_has_no_more_images_than_its_floor() -> None:
    """With fewer images sets of one distribution seem farther apart; so both have as many."""
    reals, same = Reals(observed(120), 100), observed(100, 1)
    assert (reals.count, reals.floor_count) == (100, 60)
    expected = untrained_distance(reals.seen.part(0, 60), same.part(0, 60))
    assert reals.measures(same)["untrained_distance"] == pytest.approx(expected)
    assert reals.measures(same)["frechet_distance"] == pytest.approx(set_measures(reals.seen, same)["frechet_distance"])


def test_narrow_sets_are_found_out() -> None:
    reals = Reals(observed(400), 200)
    narrow = observed(200, 1, 0.5)
    measures = reals.measures(narrow)
    assert measures["frechet_distance"] > 5 * reals.floor["frechet_distance"]
    assert measures["recall"] < 0.5 * reals.floor["recall"] and measures["precision"] >= reals.floor["precision"]
    assert all(value.spread == pytest.approx(0.5, abs=0.1) for value in reals.spread(narrow).values())


def test_what_deceives_a_trained_network_is_far_away_for_an_untrained_one() -> None:
    real, fake = observed(400), observed(400, 1)
    near = set_measures(real, fake)["untrained_distance"]
    mean = real.untrained.mean(dim=0, keepdim=True).expand(400, -1)
    same = set_measures(real, Observed(fake.features, mean, fake.scores))["untrained_distance"]
    assert 0 <= near < 0.05 and same == pytest.approx(1, abs=0.01)  # as far as copies of the mean
    constant = Observed(real.features, torch.ones(400, 8), real.scores)
    assert math.isnan(set_measures(constant, fake)["untrained_distance"])


def test_networks_look_at_images_in_batches() -> None:
    torch.manual_seed(0)
    judge = attribute_cnn(("eyes", "pose"), "small", 16)
    filters = AttributeEnsemble.of([attribute_cnn("gender", "small", 32) for _ in range(2)]).eval()
    features = Penultimate(judge)
    images = torch.rand(11, 3, 16, 16) * 2 - 1
    observer = Observer(features, [filters, judge])
    seen = observer.observe(torch.split(images, 4), torch.device("cpu"))
    assert len(seen) == 11 and list(seen.scores) == ["gender", "eyes", "pose"]
    with torch.inference_mode():
        torch.testing.assert_close(seen.features, features(images))
        np.testing.assert_allclose(seen.scores["pose"], judge(images)[:, 1].numpy(), rtol=1e-5, atol=1e-6)
        larger = filters(resized(images, 32))[:, 0].numpy()
    np.testing.assert_allclose(seen.scores["gender"], larger, rtol=1e-5, atol=1e-6)
    alone = Observer(RandomFeatures(16)).observe([images], torch.device("cpu"))
    assert alone.features.shape == (11, 256) and not alone.scores
    for found in (seen, alone):
        torch.testing.assert_close(found.untrained, RandomFeatures(16)(images))

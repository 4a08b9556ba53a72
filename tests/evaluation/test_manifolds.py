"""Precision, recall, density and coverage, against sets whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.evaluation import manifolds
from ohlora.evaluation.manifolds import Density, manifold_measures, neighbour_distances


def points(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def by_definition(real: Tensor, fake: Tensor, k_manifold: int, k_density: int) -> dict[str, float]:
    """The measures as the papers define them, point by point."""
    x, y = real.numpy().astype(np.float64), fake.numpy().astype(np.float64)

    def reach(of: np.ndarray, k: int) -> list[float]:
        return [
            sorted(float(np.linalg.norm(a - b)) for j, b in enumerate(of) if j != i)[k - 1] for i, a in enumerate(of)
        ]

    near = np.array([[np.linalg.norm(a - b) for b in y] for a in x])  # reals × fakes
    in_manifold = near <= np.array(reach(x, k_manifold))[:, None]
    in_ball = near <= np.array(reach(x, k_density))[:, None]
    in_fakes = near <= np.array(reach(y, k_manifold))[None]
    return {
        "precision": float(in_manifold.any(axis=0).mean()),
        "recall": float(in_fakes.any(axis=1).mean()),
        "density": float(in_ball.sum() / (k_density * len(y))),
        "coverage": float(in_ball.any(axis=1).mean()),
    }


def test_distances_of_neighbours() -> None:
    first, second = neighbour_distances(points(0, 1, 3, 7).double(), 1, 2)
    assert first.tolist() == [1, 1, 2, 4] and second.tolist() == [3, 2, 3, 6]
    assert neighbour_distances(points(2, 2, 5).double(), 1)[0].tolist() == [0, 0, 3]  # a duplicate is a neighbour


def test_an_example_by_hand() -> None:
    # Reals reach 1, 1, 2, 4 and fakes 4.5, 4.5, 1, 1. 0.5 lies in the balls of 0 and 1, 5 in those of 3 and 7.
    found = manifold_measures(points(0, 1, 3, 7), points(0.5, 5, 20, 21), 1, 1)
    assert found == {"precision": 0.5, "recall": 1.0, "density": 1.0, "coverage": 1.0}


def test_identical_sets_cover_each_other() -> None:
    real = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    found = manifold_measures(real, real.clone())
    # Each ball holds its own centre besides its k neighbours.
    assert found == {"precision": 1.0, "recall": 1.0, "density": pytest.approx(6 / 5), "coverage": 1.0}


def test_disjoint_sets_do_not() -> None:
    real = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert set(manifold_measures(real, real + 100).values()) == {0.0}


def test_half_of_the_reals_covered() -> None:
    cluster = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    real = torch.cat([cluster, cluster + 1000])
    found = manifold_measures(real, torch.cat([cluster, cluster]))
    assert found["precision"] == 1.0 and found["recall"] == found["coverage"] == 0.5


def test_a_tight_cluster_is_dense_and_covers_little() -> None:
    line = torch.arange(0.0, 100.0)[:, None]
    found = manifold_measures(line, 50 + 0.01 * torch.arange(0.0, 20.0)[:, None])
    # On a line a ball with five neighbours reaches three steps; all fakes lie in those of 48 … 53, most in that of 47.
    assert found["precision"] == 1.0 and 1.0 < found["density"] < 1.5
    assert found["coverage"] in (0.06, 0.07) and found["recall"] == 0.01


def test_sets_of_one_distribution_have_density_one() -> None:
    random = torch.Generator().manual_seed(0)
    found = manifold_measures(torch.randn(1000, 4, generator=random), torch.randn(1000, 4, generator=random))
    assert found["density"] == pytest.approx(1, abs=0.05) and found["coverage"] > 0.9


def test_the_definition_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifolds, "BLOCK", 7)
    random = torch.Generator().manual_seed(0)
    real, fake = torch.randn(40, 3, generator=random), 0.7 * torch.randn(30, 3, generator=random) + 1000.5
    real = real + 1000  # far from the origin, where digits are lost
    assert manifold_measures(real, fake) == pytest.approx(by_definition(real, fake, 3, 5))
    assert manifold_measures(real, fake, 2, 4) == pytest.approx(by_definition(real, fake, 2, 4))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="sets of 5 and 9 images; expected at least 6 each"):
        manifold_measures(torch.zeros(5, 2), torch.zeros(9, 2))


def test_densities_of_single_images_average_to_that_of_the_set() -> None:
    random = torch.Generator().manual_seed(0)
    real, others, fake = (torch.randn(60, 4, generator=random) for _ in range(3))
    density = Density(real, others)
    assert density.of_reals == pytest.approx(manifold_measures(real, others)["density"])
    found = density(fake)
    assert found.shape == (60,)
    assert float(found.mean()) == pytest.approx(manifold_measures(real, fake)["density"] / density.of_reals)
    assert float(density(others).mean()) == pytest.approx(1)
    # By hand: reals reach 1, 1, 2, 4; 5 lies in the balls of 3 and 7, and the others in two and three.
    by_hand = Density(points(0, 1, 3, 7), points(3, 0.5), k=1)
    assert by_hand.of_reals == 2 and by_hand(points(5, 20)).tolist() == [1, 0]


def test_real_images_without_neighbours_are_no_measure() -> None:
    real = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="none of 20 real images lies near one of 20 others"):
        Density(real, real + 1000)
    with pytest.raises(ValueError, match="sets of 5 and 20 images; expected at least 6 and 1"):
        Density(real[:5], real)

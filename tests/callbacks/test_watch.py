"""Watching a fine-tuning, through the real entry point with tiny networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.attributes import recipe
from ohlora.evaluation.features import Penultimate, mean_pairwise_distance, set_distances
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.rules import Rule, all_hold
from ohlora.utils.files import read_rows, write_rows
from tests.conftest import tiny_networks
from tests.toy_tables import watching

Run = Callable[..., int]
FILTERS, LABELS = recipe().names("filter"), recipe().names("label")


@pytest.fixture
def watched(tmp_path: Path, ohlora: Run, image_folder: Path) -> Run:
    """Fine-tunes a tiny conditional GAN, watched by tiny random networks."""
    torch.manual_seed(0)
    g, d = tiny_networks(c_dim=len(LABELS))
    network_files.save_network(g, tmp_path / "g.safetensors")
    network_files.save_network(d, tmp_path / "d.safetensors")
    watch = watching(tmp_path)
    rng = np.random.default_rng(0)
    rows = [
        {"path": f"images/{k:03d}.png", **{f"{name}_score": round(float(rng.standard_normal()), 3) for name in LABELS}}
        for k in range(12)
    ]
    write_rows(tmp_path / "manifest.csv", rows)

    def run(*words: str, stage: str = "stage") -> int:
        settings = {
            "model.init_args.generator": tmp_path / "g.safetensors",
            "model.init_args.discriminator": tmp_path / "d.safetensors",
            "model.init_args.labels": "dataset",
            "data.init_args.folder": "null",
            "data.init_args.manifest": tmp_path / "manifest.csv",
            "data.init_args.label_columns": f"[{', '.join(f'{name}_score' for name in LABELS)}]",
            **watch,
            "trainer.callbacks.every_kimg": 0.016,
            "trainer.callbacks.recipe": '["gender >= 0.9", "glass <= 0.01"]',
            "trainer.callbacks.diversity_floor": 0.5,
        }
        given = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        return ohlora("fit", "finetune", *given, *words, stage_dir=tmp_path / stage)

    return run


def test_a_watched_run_tells_how_well_it_fits(watched: Run, tmp_path: Path) -> None:
    assert watched() == 0
    run = tmp_path / "stage" / "runs" / "0001"
    rows = read_rows(run / "metrics.csv")
    course = [row for row in rows if row.get("watch/concept_rate")]
    assert [float(row["kimg"]) for row in course] == [0, 0.016, 0.032]
    assert float(course[0]["watch/diversity"]) == 1
    for row in course:
        assert all(0 <= float(row[f"watch/{name}"]) <= 1 for name in (*FILTERS, "concept_rate", "concept_rate_recipe"))
        assert all(-1 <= float(row[f"watch/label_correlation/{name}"]) <= 1 for name in LABELS)
        assert all(0 <= float(row[f"watch/label_leakage/{name}"]) <= 1 for name in LABELS)
    (final,) = [row for row in rows if row.get("final/concept_rate")]
    assert float(final["final/frechet_distance"]) > 0 and final["final/kernel_distance"]
    table = read_rows(run / "label_correlations.csv")
    assert [row["label"] for row in table] == list(LABELS)
    assert float(table[2][LABELS[2]]) == pytest.approx(float(final[f"final/label_correlation/{LABELS[2]}"]), abs=1e-4)
    assert list((run / "pictures").glob("watch-*.png"))
    best = network_files.read_metadata(tmp_path / "stage" / "best_generator.safetensors")["provenance"]
    rates = [float(row["watch/concept_rate"]) for row in course] + [float(final["final/concept_rate"])]
    assert best["concept_rate"] == pytest.approx(max(rates), abs=1e-4)


def test_a_resumed_run_measures_the_same(watched: Run, tmp_path: Path) -> None:
    assert watched(stage="whole") == 0
    assert watched("--model.init_args.kimg", "0.016", stage="parts") == 0
    assert watched("--ckpt_path", "last", stage="parts") == 0
    tables = []
    for stage in ("whole", "parts"):
        rows = read_rows(tmp_path / stage / "runs" / "0001" / "metrics.csv")
        keys = [key for key in rows[0] if key.startswith(("watch/", "kimg"))]
        tables.append([{key: row.get(key, "") for key in keys} for row in rows if row.get("watch/diversity")])
    assert tables[0] == tables[1]


def test_the_diversity_floor_keeps_a_collapsed_generator_from_being_best(watched: Run, tmp_path: Path) -> None:
    assert watched("--trainer.callbacks.diversity_floor", "1.5") == 0
    assert not (tmp_path / "stage" / "best_generator.safetensors").exists()


def test_a_concept_that_nothing_measures_is_an_error(watched: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert watched("--trainer.callbacks.recipe", '["mouth >= 1"]') == 2
    assert "no rule of mouth >= 1 is about gender, quality, age, glass" in capsys.readouterr().err


def test_rules() -> None:
    scores = {"gender": np.array([0.9, 0.95, 1.0]), "glass": np.array([0.0, 0.5, 0.01])}
    rules = [Rule.parse("gender >= 0.95"), Rule.parse("glass_score<=0.01")]
    assert all_hold(rules, scores).tolist() == [False, False, True]
    assert str(rules[1]) == "glass <= 0.01"


def test_distances_grow_with_what_they_measure() -> None:
    torch.manual_seed(0)
    near, far = torch.randn(300, 8), torch.randn(300, 8) + 2
    same, other = set_distances(torch.randn(300, 8), near), set_distances(near, far)
    assert same["frechet_distance"] < 1 and other["frechet_distance"] == pytest.approx(8 * 4, rel=0.15)
    assert abs(same["kernel_distance"]) < 0.2 < other["kernel_distance"]
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert mean_pairwise_distance(points) == pytest.approx(10 / 3)
    assert mean_pairwise_distance(near * 2) == pytest.approx(2 * mean_pairwise_distance(near))


def test_wide_layers_are_projected_the_same_way_every_time() -> None:
    torch.manual_seed(0)
    network = attribute_cnn("merged")
    features = Penultimate(network)
    assert features.num_features == 256 and features.projection is not None
    torch.testing.assert_close(features.projection.T @ features.projection, torch.eye(256), atol=1e-5, rtol=0)
    assert torch.equal(features.projection, Penultimate(network).projection)  # type: ignore[arg-type]
    small = Penultimate(attribute_cnn("property", "small", 64))
    assert small.num_features == 192 and small(torch.zeros(2, 3, 64, 64)).shape == (2, 192)

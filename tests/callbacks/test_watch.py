"""Watching a generator in training, through the real entry point with tiny networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ohlora.attributes import recipe
from ohlora.callbacks.watch import Look, Watch
from ohlora.datamodules.drawn_faces import DrawnFaceDataset, DrawnFaces
from ohlora.evaluation.features import Penultimate, mean_pairwise_distance, set_distances
from ohlora.evaluation.generators import MEASURES, Observed, Observer, set_measures
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.networks.sampling import counted_batches, joined
from ohlora.rules import Rule, all_hold
from ohlora.utils import counted, images
from ohlora.utils.files import read_rows, write_rows
from tests.conftest import tiny_networks
from tests.toy_tables import watching

Run = Callable[..., int]
FILTERS, LABELS, EXPRESSIONS = (recipe().names(role) for role in ("filter", "label", "expression"))


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


def course(folder: Path) -> list[dict[str, float]]:
    """What a run has measured of its generator, without what others have logged at the same moments."""
    rows = read_rows(folder / "runs" / "0001" / "metrics.csv")
    watched = [row for row in rows if row.get("watch/diversity")]
    return [{k: float(v) for k, v in row.items() if v and k.startswith(("watch/", "kimg"))} for row in watched]


def best(folder: Path) -> dict[str, Any]:
    """What the best generator says of itself."""
    about: dict[str, Any] = network_files.read_metadata(folder / "best_generator.safetensors")["provenance"]
    return about


def test_a_watched_run_tells_how_well_it_fits(watched: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watched() == 0
    rows = course(tmp_path / "stage")
    assert [row["kimg"] for row in rows] == [0, 0.016, 0.032]  # the end is a point of the same curves
    assert rows[0]["watch/diversity"] == 1 and all(rows[0][f"watch/spread_kept/{name}"] == 1 for name in EXPRESSIONS)
    scored = network_files.load_attribute_cnn(tmp_path / "merged.safetensors").outputs
    for row in rows:
        assert all(0 <= row[f"watch/{name}"] <= 1 for name in (*FILTERS, "concept_rate", "concept_rate_recipe"))
        assert all(-1 <= row[f"watch/label_correlation/{name}"] <= 1 for name in LABELS)
        assert all(0 <= row[f"watch/label_leakage/{name}"] <= 1 for name in LABELS)
        assert all(0 <= row[f"watch/{name}"] <= 1 for name in ("precision", "recall", "coverage", "spread_min"))
        assert all(math.isfinite(row[f"watch/{name}"]) for name in MEASURES) and row["watch/frechet_distance"] > 0
        assert all(row[f"watch/spread/{name}"] >= 0 <= row[f"watch/reached/{name}"] <= 1 for name in scored)
        assert {f"watch/floor/{name}": rows[0][f"watch/floor/{name}"] for name in MEASURES}.items() <= row.items()
    run = tmp_path / "stage" / "runs" / "0001"
    table = read_rows(run / "label_correlations.csv")
    assert [row["label"] for row in table] == list(LABELS)
    assert float(table[2][LABELS[2]]) == pytest.approx(rows[-1][f"watch/label_correlation/{LABELS[2]}"], abs=1e-4)
    spreads = {row["attribute"]: float(row["spread"]) for row in read_rows(run / "spread.csv")}
    assert spreads == {name: pytest.approx(rows[-1][f"watch/spread/{name}"], abs=1e-4) for name in scored}
    pictures = {path.name.rpartition("-")[0] for path in (run / "pictures").iterdir()}
    assert pictures == {"watch", "spread", "spread_course", "score_correlations", "label_correlations"}
    together = {row["attribute"]: row for row in read_rows(run / "score_correlations.csv")}
    assert set(together) == {*FILTERS, *scored} and float(together["mouth"]["mouth"]) == 1
    assert best(tmp_path / "stage")["best_by"] == "concept_rate"
    rates = [row["watch/concept_rate"] for row in rows]
    assert best(tmp_path / "stage")["concept_rate"] == pytest.approx(max(rates), abs=1e-4)
    assert capsys.readouterr().out.count("no images are held out: the generator is compared with images that") == 1


def test_the_end_is_measured_where_no_interval_ends(watched: Run, tmp_path: Path) -> None:
    assert watched("--trainer.callbacks.every_kimg", "0.024") == 0
    rows = course(tmp_path / "stage")
    assert [row["kimg"] for row in rows] == [0, 0.024, 0.032] and len(
        {row["watch/frechet_distance"] for row in rows}
    ) == 3


@pytest.mark.slow
def test_a_resumed_run_measures_the_same(watched: Run, tmp_path: Path) -> None:
    assert watched(stage="whole") == 0
    assert watched("--model.init_args.kimg", "0.016", stage="parts") == 0
    assert watched("--ckpt_path", "last", stage="parts") == 0
    assert course(tmp_path / "whole") == course(tmp_path / "parts")
    assert best(tmp_path / "whole") == {**best(tmp_path / "parts"), "stage": "whole"}


def test_the_diversity_floor_keeps_a_collapsed_generator_from_being_best(
    watched: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watched("--trainer.callbacks.diversity_floor", "1.5") == 0
    assert not (tmp_path / "stage" / "best_generator.safetensors").exists()
    said = capsys.readouterr().out
    assert (
        "0 kimg: concept rate" in said and "but the diversity is 1.00 of the start's, below diversity_floor 1.5" in said
    )


def test_a_generator_that_loses_expressions_is_not_the_best(
    watched: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, shrunk = Watch._variety, "spread_kept/mouth"

    def variety(watch: Watch, seen: Observed) -> dict[str, float]:
        """As measured, but from the second look on, the mouth has a fifth of its spread."""
        found = measured(watch, seen)
        return found | ({shrunk: found[shrunk] / 5} if watch._start is not None and watch._latest is not None else {})

    monkeypatch.setattr(Watch, "_variety", variety)
    # By precision, so that a later look is better than the start.
    monkeypatch.setattr(Watch, "_keep_if_best", rising(Watch._keep_if_best))
    assert watched("--trainer.callbacks.spread_floor", "0.5") == 0
    assert best(tmp_path / "stage")["images_seen"] == 0
    said = capsys.readouterr().out
    assert "the spread of mouth is 0.2" in said and "below spread_floor 0.5: not kept as best_generator" in said
    assert watched("--trainer.callbacks.spread_floor", "0", stage="other") == 0
    assert best(tmp_path / "other")["images_seen"] == 32


def rising(keep: Callable[..., None]) -> Callable[..., None]:
    """Makes each look's concept rate higher than that of the one before."""

    def kept(watch: Watch, trainer: Any, stage: Any, look: Look) -> None:
        look.shown["concept_rate"] = look.now / 1000
        keep(watch, trainer, stage, look)

    return kept


def pretrain(ohlora: Run, *words: str, **settings: object) -> int:
    """Trains from random weights, watched by the settings given."""
    given = {"callbacks": "ohlora.callbacks.watch.Watch", "callbacks.count": 24, "callbacks.every_kimg": 0.016}
    given |= {f"callbacks.{name}": value for name, value in settings.items()}
    return ohlora("fit", "pretrain", *(w for k, v in given.items() for w in (f"--trainer.{k}", str(v))), *words)


def test_training_from_scratch_is_compared_with_images_held_out(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    properties = watching(tmp_path)["trainer.callbacks.properties"]
    assert pretrain(ohlora, properties=properties, best="spread_min") == 0
    said = capsys.readouterr().out
    assert "held out" not in said and "_floor" not in said  # those are for fine-tunes
    rows = course(tmp_path / "stage")
    assert [row["kimg"] for row in rows] == [0, 0.016, 0.032, 0.048]
    assert not any("spread_kept" in name for name in rows[0])
    chosen = max(rows, key=lambda row: row["watch/spread_min"])
    assert best(tmp_path / "stage")["images_seen"] == round(chosen["kimg"] * 1000)
    assert best(tmp_path / "stage")["spread_min"] == pytest.approx(chosen["watch/spread_min"], abs=1e-4)
    assert "Fréchet distance" in said and "spread min" in said

    data = DrawnFaces(16, 12, batch_size=8)
    data.setup("fit")
    assert data.held_out is not None and (data.held_out[0]["image"] == DrawnFaceDataset(13, 16, 0)[12]["image"]).all()
    network = network_files.load_attribute_cnn(str(properties))
    order = counted.permutation(0, "watch/reals", 0, len(data.held_out))[:48]
    reals = images.to_float(np.stack([data.held_out[int(k)]["image"] for k in order]))
    generator = network_files.load_generator(tmp_path / "stage" / "generator.safetensors")
    made, _ = joined(counted_batches(generator, 0, range(24), 50))
    seen, fakes = (
        Observer(Penultimate(network)).observe(torch.split(pictures, 50), torch.device("cpu"))
        for pictures in (reals, made)
    )
    real, floor = seen.part(0, 24), set_measures(seen.part(0, 24), seen.part(24, 48))
    for name, value in set_measures(real, fakes).items():
        assert rows[-1][f"watch/{name}"] == pytest.approx(value, rel=1e-3), name
        assert rows[-1][f"watch/floor/{name}"] == pytest.approx(floor[name], rel=1e-3), name
    about = network_files.read_metadata(tmp_path / "stage" / "generator.safetensors")["provenance"]
    excess = rows[-1]["watch/untrained_distance"] - rows[-1]["watch/floor/untrained_distance"]
    assert f"their untrained distance, above its floor, is {excess:.3g}; expected at most 0.25" in about["unfit"]
    assert "patterns that only deceive the networks" in said
    diversity = mean_pairwise_distance(fakes.features) / mean_pairwise_distance(real.features)
    assert rows[-1]["watch/diversity"] == pytest.approx(diversity, rel=1e-4)


def test_without_any_network_features_are_random(tmp_path: Path, ohlora: Run) -> None:
    assert pretrain(ohlora) == 0
    rows = course(tmp_path / "stage")
    assert set(rows[0]) == {
        "kimg",
        "watch/diversity",
        *(f"watch/{f}{name}" for name in MEASURES for f in ("", "floor/")),
    }
    distances = [row["watch/frechet_distance"] for row in rows]
    assert best(tmp_path / "stage")["frechet_distance"] == pytest.approx(min(distances), abs=1e-4)


def test_features_of_a_network_of_the_users(tmp_path: Path, ohlora: Run) -> None:
    save_file({"weight": torch.ones(3)}, tmp_path / "means.safetensors")
    settings = {
        "features.file": tmp_path / "means.safetensors",
        "features.network_class": "tests.evaluation.networks.Means",
        "features.network_args": '{"channels": 3}',
    }
    assert pretrain(ohlora, **settings) == 0
    means = course(tmp_path / "stage")
    assert means[0]["watch/floor/frechet_distance"] < 1 and "watch/recall" in means[0]
    config = (tmp_path / "stage" / "runs" / "0001" / "config.yaml").read_text()
    assert "network_class: tests.evaluation.networks.Means" in config
    assert ohlora("fit", "pretrain", "--config", str(tmp_path / "stage" / "runs" / "0001" / "config.yaml")) == 0
    assert course(tmp_path / "stage") == means


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"best": "concept_rate"}, "best is concept_rate, which needs filters"),
        ({"best": "spread_min"}, "best is spread_min, which needs properties"),
        ({"count": 1}, "count is 1; expected at least 2"),
        ({"spread_floor": -1}, "spread_floor is -1"),
        ({"features.file": "nowhere.onnx"}, "nowhere.onnx does not exist"),
    ],
)
def test_settings_that_cannot_be(
    ohlora: Run, settings: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(ohlora, **settings) == 2
    assert said in capsys.readouterr().err


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

"""What the tab World shows, and that it notices what changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora import pipeline
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.studio import overview
from ohlora.utils import images
from ohlora.utils.files import append_row
from ohlora.worlds import World


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path / "made"))
    return pipeline.world("toy")


def test_stages_with_marks_and_what_is_next(toy: World) -> None:
    said = overview.stages(toy)
    assert f"0 of {len(toy.stages)} stages made" in said and f"draw-faces {toy.folder}/drawn" in said
    assert "correlation of search CNN and judge on generated images" in said and "≥ 0.7" in said
    before = overview.stamp(toy)
    network = attribute_cnn("glass", "small", 16).eval()
    path = toy.path("filter_glass/glass.safetensors")
    network_files.save_network(network, path, provenance={"unfit": "glass: AUROC is 0.5 <expected more>"})
    assert overview.stamp(toy) != before
    said = overview.stages(toy)
    assert "made, not fit" in said and "glass.safetensors: glass: AUROC is 0.5 &lt;expected more&gt;" in said


def test_the_latest_run_with_curves_and_pictures(toy: World) -> None:
    assert overview.newest(toy, None) == ([], None, "<p>No stage has been run yet.</p>")
    for stage, number in (("filter_age", "0001"), ("filter_age", "0002"), ("finetune_v8", "0001")):
        folder = toy.path(stage) / "runs" / number
        folder.mkdir(parents=True)
        append_row(folder / "metrics.csv", {"kimg": 0.0, "loss/g": 2.0, "once": 7})
    assert sorted(map(overview.title, overview.runs(toy))) == ["filter_age/0002", "finetune_v8/0001"]
    run = toy.path("finetune_v8") / "runs" / "0001"
    before = overview.stamp(toy)
    append_row(run / "metrics.csv", {"kimg": 1.5, "loss/g": 0.5})
    for moment, grey in ((0, 10), (1500, 200)):
        picture = np.full((32, 32, 3), grey, np.uint8)
        images.save_png(picture, run / "pictures" / f"fakes-{moment:09d}.png")
    assert overview.stamp(toy) != before
    titles, shown, said = overview.newest(toy, "finetune_v8/0001")
    assert set(titles) == {"filter_age/0002", "finetune_v8/0001"} and shown == "finetune_v8/0001"
    assert said.count("<polyline") == 1 and 'points="0.0,0.0 240.0,80.0"' in said
    assert "loss/g: 0.5 at 1.5 kimg; 0.5 … 2" in said and "<td>once</td><td>7</td>" in said
    assert said.count("<img") == 1 and "fakes, after 1,500 images" in said
    assert overview.newest(toy, "gone/0001")[1] in titles
    (run / "metrics.csv").write_text("kimg,loss\n0,much\n")
    assert "could not convert string to float" in overview.newest(toy, "finetune_v8/0001")[2]

"""Commands that work on tables and network files: filter, merge, import, draw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora.__main__ import main as ohlora
from ohlora.formats import network_files
from ohlora.networks.attribute_cnn import PUBLISHED_FILTERS as FILTERS
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.toy import drawing
from ohlora.toy.drawing import MEASURED
from ohlora.utils.commands import Row, measuring
from ohlora.utils.files import read_rows
from tests import golden
from tests.networks.test_attribute_cnn import original

PUBLISHED = Path(__file__).parents[1] / "data" / "reference" / "scores_all_15k.csv"
RULES = ["gender >= 0.92", "quality >= 0.9", "age <= 0.008", "glass <= 0.01"]


def keep(*rules: str) -> list[str]:
    return [word for rule in rules for word in ("--keep", rule)]


def test_the_published_scores_keep_the_published_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kept.csv"
    assert ohlora(["filter", str(PUBLISHED), str(out), *keep(*RULES), "--from-index", "2000"]) == 0
    rows = read_rows(out)
    assert len(rows) == 4930 and len({row["img_no"] for row in rows}) == 4930
    assert all(float(row["gender_score"]) >= 0.92 and int(row["img_no"]) >= 2000 for row in rows)
    said = capsys.readouterr().out
    # What each rule costs, against the counts published for leaving it out.
    for rule, passed, without in zip(RULES, (11251, 12147, 6857, 11142), (5521, 5417, 9113, 5572), strict=True):
        assert f"{rule:20} passed by {passed}; {without - 4930} fail it alone" in said


def test_filtered_paths_are_relative_to_the_result(tmp_path: Path) -> None:
    table = tmp_path / "scores" / "scores.csv"
    table.parent.mkdir()
    table.write_text("index,path,gender,age_score\n0,../images/0.png,1,0.5\n1,../images/1.png,0,0.1\n")
    out = tmp_path / "deep" / "er" / "manifest.csv"
    assert ohlora(["filter", str(table), str(out), *keep("gender > 0.5", "age_score < 0.6")]) == 0
    assert read_rows(out) == [{"index": "0", "path": "../../images/0.png", "gender": "1", "age_score": "0.5"}]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["gender"], "is no rule"),
        (["gendre >= 1"], "unknown attribute 'gendre'"),
        (["gender >= much"], "is no rule; expected"),
        (["mouth >= 1"], "has no column for mouth; the header has img_no, gender_score"),
        (["gender > 1"], "no image of"),
    ],
)
def test_rules_that_cannot_be(
    rules: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ohlora(["filter", str(PUBLISHED), str(tmp_path / "out.csv"), *keep(*rules)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_merging_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("property", "hairstyle", "gender")}
    networks = {name: attribute_cnn(name, "small", 64).eval() for name in ("property", "hairstyle")}
    for name, network in networks.items():
        network_files.save_network(network, files[name], {"stage": name})
    target = tmp_path / "merged.safetensors"
    assert ohlora(["merge", str(files["property"]), str(files["hairstyle"]), str(target)]) == 0
    merged = network_files.load_attributes(target)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = torch.cat([network(images) for network in networks.values()], dim=1)
    assert merged.outputs == attribute_cnn("merged", "small", 64).outputs and torch.equal(merged(images), expected)
    origin = network_files.read_metadata(target)["provenance"]["merged_from"]
    assert origin["property.safetensors"] == {"stage": "property"}
    assert ohlora(["merge", str(target), str(files["hairstyle"]), str(tmp_path / "no.safetensors")]) == 2
    assert "each once" in capsys.readouterr().err
    network_files.save_network(AttributeEnsemble.of([attribute_cnn("gender", "small", 64)]), files["gender"])
    assert ohlora(["merge", str(files["gender"]), str(tmp_path / "no.safetensors")]) == 2
    assert "holds an ensemble" in capsys.readouterr().err


def test_cnns_of_the_same_attributes_become_an_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their files may have the same name, and their outputs another order."""
    names = attribute_cnn("property", "small", 64).outputs
    files = [tmp_path / str(k) / "cnn.safetensors" for k in range(3)]
    cnns = [attribute_cnn(list(order), "small", 64).eval() for order in (names, [*names[1::-1], *names[2:]], names)]
    for file, cnn, mark in zip(files, cnns, ({}, {}, {"unfit": "eyes: r on held-out images is 0.1"}), strict=True):
        network_files.save_network(cnn, file, mark)
    target = tmp_path / "search.safetensors"
    assert ohlora(["merge", *map(str, files), str(target)]) == 0
    assert "3 CNNs that judge together: eyes, hair_color" in capsys.readouterr().out
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    rows = [cnn(images)[:, [cnn.outputs.index(name) for name in names]] for cnn in cnns]
    found = network_files.load_attributes(target)
    assert found.outputs == names
    torch.testing.assert_close(found(images), torch.stack(rows).mean(dim=0))
    assert set(network_files.provenance(target)["merged_from"]) == {f"{k} cnn.safetensors" for k in (1, 2, 3)}
    assert network_files.marks(target) == ["eyes: r on held-out images is 0.1"]
    assert ohlora(["merge", str(files[0]), str(files[0]), str(tmp_path / "no.safetensors")]) == 2
    assert "the same network is there more than once" in capsys.readouterr().err
    wider = attribute_cnn("property", "small", 128)
    network_files.save_network(wider, files[0])
    assert ohlora(["merge", *map(str, files), str(tmp_path / "no.safetensors")]) == 2
    assert "networks that differ in nothing but weights: resolutions" in capsys.readouterr().err


def test_importing_cnns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = golden.manifest("filter-cnns")
    sources = [str(original(f"quality-{k}", manifest["quality"], tmp_path / f"quality_{k}.pt")) for k in (0, 1)]
    assert ohlora(["import-weights", sources[0], str(tmp_path / "one")]) == 0
    assert network_files.read_metadata(tmp_path / "one" / "quality.safetensors")["kind"] == "attribute_cnn"
    assert ohlora(["import-weights", *sources, str(tmp_path / "two")]) == 0
    ensemble = network_files.load_attributes(tmp_path / "two" / "quality.safetensors")
    single = network_files.load_attributes(tmp_path / "one" / "quality.safetensors")
    assert isinstance(ensemble, AttributeEnsemble) and len(ensemble.members) == 2
    images = torch.rand(1, 3, 256, 256) * 2 - 1
    assert torch.equal(ensemble.each(images)[0], single(images))
    other = str(original("glass", manifest["glass"], tmp_path / "glass.pt"))
    assert ohlora(["import-weights", sources[0], other, str(tmp_path / "mixed")]) == 2
    assert "several files make one ensemble" in capsys.readouterr().err
    assert ohlora(["import-weights", other, str(tmp_path / "no"), "--add-labels", "7"]) == 2
    assert "takes no labels" in capsys.readouterr().err
    state = torch.load(other, weights_only=True)
    torch.save(state | {"fc1.0.weight": torch.zeros(512, 100)}, tmp_path / "odd.pt")
    assert ohlora(["import-weights", str(tmp_path / "odd.pt"), str(tmp_path / "no")]) == 2
    assert "no filter CNN has these layers (fc1 (512, 100))" in capsys.readouterr().err
    assert not (tmp_path / "no").exists() and not (tmp_path / "mixed").exists()


def test_drawn_faces_in_files(tmp_path: Path) -> None:
    words = ["--count", "4", "--first", "2", "--seed", "3", "--resolution", "32", "--glass", "1"]
    assert ohlora(["draw-faces", str(tmp_path / "drawn"), *words]) == 0
    rows = read_rows(tmp_path / "drawn" / "manifest.csv")
    assert [row["index"] for row in rows] == ["2", "3", "4", "5"] and all(row["glass"] == "1" for row in rows)
    truth = drawing.sample_truth(3, 4, {"glass": 1.0})
    face = drawing.draw(truth, 32)
    for column, pixels in (("path", face.image), ("mask", face.parsing)):
        with Image.open(tmp_path / "drawn" / rows[2][column]) as picture:
            assert (np.asarray(picture) == pixels).all()
    assert all(float(rows[2][name]) == pytest.approx(truth.attributes[name], abs=1e-4) for name in MEASURED + FILTERS)
    for name, value in drawing.physical(truth).items():
        assert float(rows[2][name]) == pytest.approx(value, abs=1e-4)
    assert ohlora(["draw-faces", str(tmp_path / "drawn"), "--glass", "2"]) == 2


def test_results_are_a_table_and_a_few_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [
        ("gender filter, AUROC", 0.99, 0.98765),
        ("age filter, AUROC", 0.99, 0.9),
        ("parser, mean IoU", ">= 0.9", 0.95),
    ]
    headlines = {"auroc": "filter, AUROC", "iou": "parser, mean IoU"}
    main = measuring("metrics", "", lambda runs: rows, headlines)
    assert main(["--runs", str(tmp_path / "deep"), "--output", str(tmp_path / "table.csv")]) == 0
    assert [row["measured"] for row in read_rows(tmp_path / "table.csv")] == ["0.9877", "0.9", "0.95"]
    assert json.loads((tmp_path / "deep" / "results" / "metrics.json").read_text()) == {"auroc": 0.9, "iou": 0.95}
    assert "0.9877" in capsys.readouterr().out

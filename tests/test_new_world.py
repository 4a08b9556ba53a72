"""A world of one's own by the command line alone: from images and a table to a character."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import zipfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ohlora import attributes, handover, pipeline
from ohlora.__main__ import main
from ohlora.callbacks.watch import BEST, Look, Watch
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.evaluation.conditions import Condition, bounded
from ohlora.formats import network_files, tensor_files
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.starting import sizes
from ohlora.starting.survey import attribute_name, survey
from ohlora.studio.annotations import AnnotationFile
from ohlora.utils import images
from ohlora.utils.files import read_rows, write_rows
from scripts.draw_robots import draw, sample
from tests.conftest import tiny_networks
from tests.toy_tables import report_of_latents

STEERED = {"meaning": "more", "kind": "score", "roles": ["expression"], "grid": [-1, 1], "limit": 0.5}
QUIET = ["--trainer.logger.init_args.mode", "disabled", "--trainer.enable_progress_bar", "false"]
TINY: dict[str, list[str]] = {
    "property_cnn": ["--trainer.max_epochs", "3", "--data.init_args.batch_size", "16"],
    "judge_cnn": ["--trainer.max_epochs", "3", "--data.init_args.batch_size", "16"],
    "pretrain": [
        *("--model.init_args.architecture.channel_base", "128", "--model.init_args.architecture.channel_max", "8"),
        *("--model.init_args.architecture.z_dim", "8", "--model.init_args.architecture.w_dim", "8"),
    ],
    "vectorfind_v9": [
        *("--model.init_args.finder.init_args.latents", "4", "--model.init_args.finder.init_args.points", "2"),
        *("--model.init_args.finder.init_args.covariance_count", "100"),
    ],
    "evaluate_v9": [
        *("--model.init_args.unedited_count", "40", "--model.init_args.real_count", "40"),
        *("--data.init_args.count", "4", "--data.init_args.batch_size", "2"),
    ],
    "touch_up": [
        *("--model.init_args.unedited_count", "40", "--model.init_args.real_count", "40"),
        *("--model.init_args.touch_up.steps", "2", "--model.init_args.touch_up.edits", "2"),
        *("--data.init_args.count", "2", "--data.init_args.batch_size", "2"),
    ],
}
"""Stage → what makes it small enough for a test."""


def robots(folder: Path, count: int, size: int = 16) -> Path:
    """Robots as a user's own data would look: images in subfolders, and a table with semicolons."""
    lines = ["file;Lamp;turn;mouth;visor;note"]
    for k in range(count):
        robot = sample(0, k)
        path = folder / "images" / f"part {k % 2}" / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(robot, 32)).resize((size, size)).save(path)
        values = ";".join(f"{10 + 3 * robot.physical(name):.3f}" for name in ("lamp", "turn", "mouth"))
        lines.append(f"part {k % 2}\\{k:03d}.png;{values};{'yes' if robot.visor else 'no'};a robot")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8-sig")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OHLORA_ARTIFACTS", raising=False)
    return tmp_path


def next_of(world: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words of the command that doctor names next; none where all is done."""
    capsys.readouterr()
    assert main(["doctor", "--world", world, "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["Made"]
    return shlex.split(made["next"])[3:] if "next" in made else []


def test_robots_from_images_and_a_table_to_a_character(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By what doctor says is next, and nothing else."""
    robots(here / "robots", 120)
    words = ["--images", "robots/images", "--labels", "robots/labels.csv", "--steer", "Lamp", "turn", "mouth"]
    assert main(["new", "bots", *words, "--keep", "visor <= 0.5", "--device", "cpu", "--kimg", "0.4"]) == 0
    for stage in ("pretrain", "finetune_v8"):  # as written, but for the number of images that are watched
        overlay = here / "bots" / f"{stage}.yaml"
        settings = yaml.safe_load(overlay.read_text("utf-8"))
        settings["trainer"]["callbacks"][1]["init_args"]["count"] = 24
        overlay.write_text(yaml.safe_dump(settings), "utf-8")
    done = []
    while command := next_of("bots.yaml", capsys):
        verb, stage = command[0], command[1]
        name = stage if verb in ("fit", "predict", "test") else verb
        assert name not in done, f"{name} did not make what it promises"
        assert main([*command, *(QUIET if name == stage else []), *TINY.get(name, [])]) == 0, name
        done.append(name)
    assert done == [
        *("property_cnn", "judge_cnn", "pretrain", "score_original", "filter", "finetune_v8"),
        *("vectorfind_v9", "evaluate_v9", "select", "touch_up", "export-character", "animate"),
    ]
    (tested,) = read_rows(here / "artifacts/bots/evaluate_v9/test_statistics.csv")
    marked = tensor_files.described(here / "artifacts/bots/evaluate_v9/latents.safetensors").get("unfit", "")
    for name in ("lamp", "turn", "mouth"):
        agreed, outside = float(tested[f"agreement_{name}"] or "nan"), float(tested[f"outside_{name}"])
        assert (f"{name}: r of search CNN and judge on generated images" in marked) == (not agreed >= 0.7)
        assert (f"{name}: share of scores outside the data's range" in marked) == (outside > 0.05)
    for reason in network_files.marks(here / "artifacts/bots/property_cnn/property.safetensors"):
        assert f"network: {reason}" in marked
    assert marked, "networks of seconds are not fit for use"
    assert 0 <= float(tested["in_concept_ratio"]) <= 1 and 0 <= float(tested["unedited_visor_mean"]) <= 1
    kept = read_rows(here / "artifacts/bots/filter_original/manifest.csv")
    assert 0 < len(kept) < 120 and all(float(row["visor_score"]) <= 0.5 for row in kept)
    robot = Character.load(here / "artifacts/bots/characters/mina.safetensors")
    again = tensor_files.described(here / "artifacts/bots/touch_up/latents.safetensors").get("unfit", "")
    assert robot.card["unfit"] == again and "network: " in again
    capsys.readouterr()
    assert main(["doctor", "--world", "bots.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "correlation of search CNN and judge on generated images: at least 0.7" in shown
    assert f"    ! latents.safetensors: {marked}" in shown
    assert robot.attributes == ("lamp", "turn", "mouth") and robot.render(turn=0.1).size == (16, 16)
    assert re.fullmatch(r"Character\(lamp [-+].* … [-+].*, turn .*, mouth .*; 16×16\)", repr(robot))
    watched = read_rows(here / "artifacts/bots/finetune_v8/runs/0001/metrics.csv")
    assert any(row.get("watch/concept_rate") for row in watched)


# --- what is looked at, and what is written


def mixed(folder: Path) -> Path:
    """Images as people have them: of several sizes and modes, transparent, twice, alike, broken; and a table."""
    pictures = folder / "images"
    pictures.mkdir(parents=True)
    robots = [Image.fromarray(draw(sample(1, k), 48)) for k in range(12)]
    for k, robot in enumerate(robots):
        robot.save(pictures / f"{k:02d}.png")
    robots[0].save(pictures / "twin.bmp")
    robots[1].point(lambda level: min(255, level + 2)).save(pictures / "alike.png")
    robots[2].crop((0, 0, 48, 30)).convert("L").save(pictures / "wide.tif")
    veil = robots[3].copy()
    veil.putalpha(Image.fromarray(np.repeat([0, 255], 24).astype(np.uint8)[None].repeat(48, 0)))
    veil.save(pictures / "02.webp", lossless=True)
    (pictures / "broken.jpg").write_bytes(b"no image")
    (pictures / "notes.txt").write_text("mine")
    rows = [{"image": f"{k:02d}", "Long hair": k / 3, "level": k % 4, "same": 1, "who": "me"} for k in range(10)]
    rows[4]["Long hair"] = "NA"
    write_rows(folder / "table.csv", [*rows, {"image": "gone", "Long hair": 1, "level": 2, "same": 1, "who": "me"}])
    return folder


def test_what_is_there_is_said_and_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(here / "mine")
    words = ["new", "bots", "--images", "mine/images", "--labels", "mine/table.csv", "--device", "cpu"]
    assert main(words) == 2
    assert (
        "1 images are transparent in places; say what lies behind: --background white; "
        "1 images are not square; say what becomes of them: --fit crop or pad\n"
    ) in capsys.readouterr().err
    assert main([*words, "--background", "#102030"]) == 2
    assert "1 images are not square; say what becomes of them: --fit crop or pad" in capsys.readouterr().err
    assert not Path("bots.yaml").exists()
    assert main([*words, "--background", "#102030", "--fit", "pad", "--size", "32"]) == 0
    said = capsys.readouterr().out
    for part in (
        "16 images in mine/images: 15 of 48×48, 1 of 48×30; 14 RGB, 1 RGBA, 1 of grey levels",
        "1 transparent in places: 02.webp",
        "1 not square: wide.tif",
        "1 broken, left out: broken.jpg: unreadable (no known format)",
        "1 other files, left out: notes.txt (another suffix",
        "1 images repeat another pixel by pixel: 00.png = twin.bmp",
        "1 pairs look alike: 01.png ~ alike.png",
        "9 rows belong to an image, named by the column image",
        "2 rows without image: row 4 (02); row 12 (gone)",
        "7 images without row: 02.png; 02.webp; 10.png",
        "  long_hair (column 'Long hair'): score, 0 … 3, missing in 1 rows",
        "  level: ordinal, 0 … 3",
        "  same: left out, it is 1 in every row",
        "  who: left out, it holds text, such as 'me'",
        "32×32 on a CPU; steered: long_hair, level; concept: all images",
        "16 images are few for a StyleGAN",
    ):
        assert part in said, part
    data = here / "artifacts/bots/data"
    page = (data / "index.html").read_text()
    assert page.count("<img") == 3 and "16 images in mine/images" in page and "http" not in page
    copies = sorted(path.name for path in (data / "images").iterdir())
    assert len(copies) == 16 and {"02_png.png", "02_webp.png", "twin.png"} <= {*copies}
    with Image.open(data / "images/02_webp.png") as copy:
        assert copy.size == (32, 32) and copy.getpixel((2, 2)) == (16, 32, 48)
    with Image.open(data / "images/wide.png") as copy:
        assert copy.getpixel((16, 1)) == (16, 32, 48)  # padded above
    rows = read_rows(data / "labels.csv")
    assert list(rows[0]) == ["path", "Long hair", "level"] and rows[0]["path"] == "images/00.png"
    assert [row["Long hair"] for row in rows[3:5]] == ["", "1.6666666666666667"]
    assert {row["reason"].partition(" ")[0] for row in read_rows(data / "left_out.csv")}
    assert Path("bots.yaml").read_text().startswith("# Made by: ohlora new bots --images mine/images")
    pipe = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    assert pipe["bots-property_cnn"]["deps"] == ["artifacts/bots/data/labels.csv", "artifacts/bots/data/images"]
    assert main([*words, "--background", "white", "--fit", "crop"]) == 2
    assert "bots.yaml, bots is there already; choose another name, or replace it by --force" in capsys.readouterr().err
    other = [word if word != "bots" else "others" for word in words]
    assert main([*other, "--background", "white", "--fit", "crop", "--size", "16"]) == 0
    assert "dvc.yaml is about another world" in capsys.readouterr().out


def test_how_often_an_image_was_compared_is_no_attribute(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(here)
    shutil.copytree("images", "square", ignore=shutil.ignore_patterns("wide*", "02.webp"))
    rows = read_rows("table.csv")
    counts = [{"Long hair_comparisons": k % 3 + 1 if row["Long hair"] != "NA" else ""} for k, row in enumerate(rows)]
    write_rows(
        "table.csv", [row | own | {"my_comparisons": k} for k, (row, own) in enumerate(zip(rows, counts, strict=True))]
    )
    words = ["new", "bots", "--images", "square", "--labels", "table.csv", "--device", "cpu"]
    assert main([*words, "--weights", "Long hair_comparisons"]) == 0
    said = capsys.readouterr().out
    assert "  Long hair_comparisons: left out, it says how often an image was compared" in said
    assert "  my_comparisons: ordinal" in said, "there is no column my"
    assert "long_hair_comparisons" not in pipeline.world("bots.yaml").attributes
    overlay = yaml.safe_load(Path("bots/property_cnn.yaml").read_text())
    assert overlay["data"]["init_args"]["weights"] == "Long hair_comparisons"
    kept = read_rows("artifacts/bots/data/labels.csv")
    assert [row["Long hair_comparisons"] for row in kept][:5] == ["1", "2", "3", "1", ""]
    assert main([*words, "--force", "--attributes", "Long hair_comparisons"]) == 2
    assert "Long hair_comparisons: it says how often an image was compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["toy"], "WORLD is 'toy'; expected a name of letters, digits, _ and -, none of toy, demo"),
        (["bots"], "expected either --labels TABLE, or --annotate"),
        (["bots", "--labels", "none.csv"], "none.csv does not exist"),
        (["bots", "--labels", "table.csv", "--steer", "wings"], "--steer names wings; the table has long_hair, level"),
        (["bots", "--labels", "table.csv", "--steer", "levle"], "; did you mean level?"),
        (["bots", "--labels", "table.csv", "--generator", "none.pkl"], "none.pkl does not exist"),
        (["bots", "--labels", "table.csv", "--steer", "same"], "--steer names same; same: it is 1 in every row"),
        (["bots", "--labels", "table.csv", "--keep", "wings > 1"], "--keep 'wings > 1': expected for example"),
        (["bots", "--labels", "table.csv", "--size", "48"], "--size is 48; on a CPU expected one of 16, 32, 64"),
        (["bots", "--annotate", "happy"], "nothing can be steered; expected scores or levels, such as --annotate"),
        (["bots", "--annotate", "size:12"], "--annotate size:12: expected the highest level after the colon"),
        (["bots", "--labels", "table.csv", "--background", "glass"], "--background is 'glass'; expected a colour"),
    ],
)
def test_a_world_that_cannot_be_is_refused_in_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    mixed(here)
    shutil.copytree("images", "square", ignore=shutil.ignore_patterns("wide*", "02.webp"))
    assert main(["new", *words, "--images", "square", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and not Path("bots.yaml").exists()


def test_conditions_are_in_the_units_of_the_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(here)
    shutil.copytree("images", "square", ignore=shutil.ignore_patterns("wide*", "02.webp"))
    words = ["--images", "square", "--labels", "table.csv", "--device", "cpu", "--weights", "level"]
    rules = ["--keep", "Long hair >= 1", "--keep", "long_hair < 2.5"]
    assert main(["new", "bots", *words, *rules]) == 0
    values = [float(row["Long hair"]) for row in read_rows(Path("artifacts/bots/data/labels.csv")) if row["Long hair"]]
    mean, std = np.mean(values), np.std(values)
    (first, second) = pipeline.world("bots.yaml").attributes.concept
    assert first.startswith("long_hair >= ") and float(first.split()[-1]) == pytest.approx((1 - mean) / std, abs=1e-3)
    assert second.startswith("long_hair < ") and float(second.split()[-1]) == pytest.approx(
        (2.5 - mean) / std, abs=1e-3
    )
    assert "(in z-scores)" in capsys.readouterr().out
    overlay = yaml.safe_load(Path("bots/property_cnn.yaml").read_text())
    assert overlay["model"]["init_args"]["network"] == ["long_hair"]
    assert overlay["data"]["init_args"]["weights"] == "level"
    assert main(["new", "bots", *words, "--force", "--keep", "Long hair >= much"]) == 2
    assert "'much' is no number" in capsys.readouterr().err
    words = ["--images", "square", "--annotate", "size:4", "--keep", "size > 2"]
    assert main(["new", "bots", *words, "--force"]) == 2
    assert "without labels the scale of size is not known; add keep to bots.yaml later" in capsys.readouterr().err


def test_a_table_that_names_no_image_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robots(here, 3)
    write_rows(Path("other.csv"), [{"path": "x.png", "turn": 1}])
    assert main(["new", "bots", "--images", "images", "--labels", "other.csv"]) == 2
    assert "no column names images of images; the header has path, turn" in capsys.readouterr().err
    Path("other.csv").write_text('path;turn;when\n"part 0/000.png";0,5;2026-01-02\n"part 1/001.png";1;soon\n')
    assert main(["new", "bots", "--images", "images", "--labels", "other.csv"]) == 2
    assert "row 2: turn is '0,5'; expected a finite number or nothing, with a point" in capsys.readouterr().err
    Path("other.csv").write_text('path;turn;when\n"part 0/000.png";.5;2026-01-02\n"part 1/001.png";1;soon\n')
    assert main(["new", "bots", "--images", "images", "--labels", "other.csv", "--device", "cpu"]) == 0
    assert "when: left out, it holds text, such as '2026-01-02'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "name"),
    [("Long hair (cm)", "long_hair_cm"), ("eyes_score", "eyes"), ("3d", "a_3d"), ("class", "a_class"), ("눈", "눈")],
)
def test_columns_become_names(column: str, name: str) -> None:
    assert attribute_name(column) == name


def test_an_archive_of_nvidias_tools(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robots(here / "bots", 12)
    names = [f"part {k % 2}/{k:03d}.png" for k in range(12)]
    labels = {"labels": [[name, [k / 10, k % 2]] for k, name in enumerate(names)]}
    with zipfile.ZipFile("bots.zip", "w") as archive:
        for name in names:
            archive.write(here / "bots/images" / name, name)
        archive.writestr("dataset.json", json.dumps(labels))
    assert main(["new", "packed", "--images", "bots.zip", "--device", "cpu"]) == 0
    declared = pipeline.world("packed.yaml").attributes
    assert declared["label0"].roles == ("expression",) and declared["label1"].kind == "binary"
    assert len(read_rows(here / "artifacts/packed/data/labels.csv")) == 12
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr("../../evil.png", b"")
    assert main(["new", "evil", "--images", "evil.zip"]) == 2
    assert "'../../evil.png' would lie outside" in capsys.readouterr().err
    Path("no.zip").write_bytes(b"PK")
    Path("x.csv").write_text("path\n")
    assert main(["new", "no", "--images", "no.zip", "--labels", "x.csv"]) == 2
    assert "no.zip cannot be unpacked" in capsys.readouterr().err


def test_labels_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Doctor waits for the table, which the studio's session writes as it is read."""
    robots(here / "bots", 6)
    words = ["--images", "bots/images", "--annotate", "happy", "Size:4", "charm:score", "--device", "cpu"]
    assert main(["new", "birds", *words]) == 0
    said = capsys.readouterr().out
    folder, table = Path("artifacts/birds/data/images"), Path("artifacts/birds/data/labels.csv")
    given = f"--images {folder} --annotations {table} --attributes happy size charm\n"
    assert f"ohlora studio --world birds.yaml {given}" in said
    assert main(["doctor", "--world", "birds.yaml"]) == 0
    assert f"{table} (label images: ohlora studio --world birds.yaml" in capsys.readouterr().out
    attributes.use(pipeline.world("birds.yaml").attributes)
    pictures = images.images_in(folder)[0]
    AnnotationFile(table, pictures, ["happy"], folder=folder).write(0, {"happy": 1})
    levels = AnnotationFile(table, pictures, ["size"], folder)
    levels.write(0, {"size": 3})
    levels.write(1, {"size": 1})
    assert [(row["happy"], row["size"]) for row in read_rows(table)] == [("1", "3"), ("", "1")]
    # A score is made of comparisons.
    compared = [{"path_a": f"images/{a}", "path_b": f"images/{b}", "attribute": "charm", "answer": "a"}
                for a, b in pairwise(path.relative_to(folder) for path in pictures)]  # fmt: skip
    write_rows(table.with_name("compared.csv"), compared)
    assert main(["rank", str(table.with_name("compared.csv")), str(table), "--world", "birds.yaml"]) == 0
    charm = {row["path"]: float(row["charm"]) for row in read_rows(table)}
    assert sorted(charm.values(), reverse=True) == [charm[f"images/{p.relative_to(folder)}"] for p in pictures]
    assert next_of("birds.yaml", capsys)[:2] == ["fit", "property_cnn"]


def test_a_generator_in_place_of_training(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robots(here / "bots", 12, 32)
    generator, discriminator = tiny_networks()
    network_files.save_network(generator, here / "mine" / "generator.safetensors")
    words = ["--images", "bots/images", "--labels", "bots/labels.csv", "--generator", "mine/generator.safetensors"]
    assert main(["new", "bots2", *words, "--keep", "visor <= 0.5"]) == 2
    assert "has no discriminator, so that it cannot be fine-tuned" in capsys.readouterr().err
    network_files.save_network(discriminator, here / "mine" / "discriminator.safetensors")
    assert main(["new", "bots2", *words, "--size", "32"]) == 2
    assert "--size is 32, and the generator makes 16×16; leave it out" in capsys.readouterr().err
    assert main(["new", "bots2", *words, "--keep", "visor <= 0.5"]) == 0
    world = pipeline.world("bots2.yaml")
    assert "pretrain" not in world.stages and "finetune_v8" in world.stages
    assert world.path("pretrain/generator.safetensors").is_file()
    with Image.open("artifacts/bots2/data/images/part 0/000.png") as copy:
        assert copy.size == (16, 16)


def test_look_alikes_are_images_that_differ_by_little(here: Path) -> None:
    mixed(here)
    found = survey(here / "images")
    assert found.compared == 15  # one of each that repeats another
    assert [tuple(found.pictures[k].path.name for k in pair) for pair in found.near] == [("01.png", "alike.png")]


def test_the_table_of_sizes() -> None:
    for device, rows in sizes.SIZES.items():
        assert [row.resolution for row in rows] == sorted(row.resolution for row in rows)
        assert all(row.channel_base // row.resolution >= 8 and row.batch_size % 4 == 0 for row in rows)
        assert sizes.resolution_for(5, device) == 16
    assert sizes.resolution_for(500, "cpu") == 64 and sizes.resolution_for(500, "gpu") == 256
    assert sizes.epochs_for(100) == 60 and sizes.epochs_for(50_000) == 8


@pytest.mark.parametrize(("kimg", "augmented"), [("1.2", False), ("1.3", True)])
def test_images_are_augmented_where_they_are_seen_often(
    here: Path, capsys: pytest.CaptureFixture[str], kimg: str, augmented: bool
) -> None:
    """A hundred times; what is written says what is printed."""
    robots(here / "robots", 12)
    words = ["--images", "robots/images", "--labels", "robots/labels.csv", "--device", "cpu", "--kimg", kimg]
    assert main(["new", "bots", *words, "--keep", "visor <= 0.5"]) == 0
    said = "with ADA" if augmented else "without augmentation"
    assert f"is trained for {kimg} kimg in batches of 8, {said}: about 0.0 hours" in capsys.readouterr().out
    model = yaml.safe_load(Path("bots/pretrain.yaml").read_text())["model"]["init_args"]
    assert ("augmentation" in model) == augmented and model["use_noise"] is False
    assert yaml.safe_load(Path("bots/finetune_v8.yaml").read_text())["model"]["init_args"]["use_noise"] is False


# --- checks


def test_checks_know_their_side() -> None:
    assert handover.failing("spread", {"a": 0.4, "b": 0.6, "c": float("nan")}, "spread") == [
        "a: spread is 0.4; expected at least 0.5",
        "c: spread is nan; expected at least 0.5",
    ]
    assert handover.failing("outside", {"a": 0.04, "b": 0.06}, "share") == ["b: share is 0.06; expected at most 0.05"]
    assert handover.marked([]) == {} and handover.marked(["a", "b"]) == {"unfit": "a; b"}
    assert handover.marks({"unfit": "x", "merged_from": {"p": {"unfit": "y"}, "q": {}}}) == ["x", "y"]


def test_a_generator_that_covers_little_and_a_best_that_is_the_start_are_marked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attributes.use(attributes.Vocabulary.read(Path("mine.yaml"), {"turn": STEERED, "lamp": STEERED}))
    network_files.save_network(attribute_cnn(["turn", "lamp"], "small", 16).eval(), here / "property.safetensors")
    generator = tiny_networks()[0]
    for name, seen in (("generator.safetensors", 9000), (BEST, 0)):
        network_files.save_network(generator, here / name, {"images_seen": seen})
    watch = Watch(properties=str(here / "property.safetensors"))
    rows = [{"attribute": "turn", "spread": 0.3, "reached": 0.9}, {"attribute": "lamp", "spread": 0.8, "reached": 0.7}]
    watch._latest = Look(9000, {}, rows)
    trainer: Any = SimpleNamespace(default_root_dir=str(here), loggers=[])
    watch._hand_over(trainer, from_scratch=False)
    about = network_files.read_metadata(here / "generator.safetensors")["provenance"]
    assert about == {"images_seen": 9000, "unfit": "turn: its spread is 0.3; expected at least 0.5"}
    assert network_files.marks(here / BEST)[0].endswith(f"{BEST}: kimg seen is 0; expected at least 0.001")
    said = capsys.readouterr().out
    assert "WARNING: generator.safetensors is not fit for use:\n  turn: its spread is 0.3" in said
    assert "→ train longer, or from more images, before searching directions" in said
    assert f"WARNING: {BEST} is not fit for use:" in said


def test_bounds_of_a_concept() -> None:
    rules = [("a", ">=", -1.0), ("a", "<", 1.0), ("b", "<=", 0.5), ("a", ">=", -2.0)]
    inside = Condition("in_concept", bounded(rules))
    assert inside.met({"a": -1, "b": 0.5}) and not inside.met({"a": 1, "b": 0}) and not inside.met({"a": 0, "b": 0.6})
    assert bounded([("a", ">", 0.0)])["a"][0] > 0


def test_latents_of_the_concept_are_ranked(here: Path, weights: tuple[Path, Path]) -> None:
    folder = report_of_latents(here, weights[0])
    before = Report.load(folder).ranked()
    rows = read_rows(folder / "test_result.csv")
    for place, row in enumerate(rows):
        row["in_concept"] = str(place != before[0]).lower()
    write_rows(folder / "test_result.csv", rows)
    assert Report.load(folder).ranked() == before[1:]
    for row in rows:
        row["in_concept"] = "false"
    write_rows(folder / "test_result.csv", rows)
    assert Report.load(folder).ranked() == before

"""The demo, as a stranger runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ohlora import pipeline
from ohlora.__main__ import main as ohlora
from ohlora.characters.character import Character
from ohlora.characters.reports import RESULTS, STATISTICS
from ohlora.commands import demo, demo_page
from ohlora.formats import network_files
from ohlora.utils.files import read_rows, write_rows
from tests.conftest import tiny_networks


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the demo ran. Its commands are real; stages leave files of no content, and v1 is refused."""
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    found: list[list[str]] = []

    def run(words: list[str]) -> int:
        found.append(words)
        world = pipeline.world("demo")
        if words[0] not in ("fit", "predict", "test"):
            return ohlora(words)
        if words[1] == "finetune_v1":
            return 2
        for path in world.makes(world.stages[words[1]]):
            path.mkdir(parents=True) if not path.suffix else path.parent.mkdir(parents=True, exist_ok=True)
            scores = dict.fromkeys(("gender_score", "quality_score"), 1) | dict.fromkeys(
                ("age_score", "glass_score"), 0
            )
            write_rows(path, [{"index": 0, **scores}]) if path.suffix else None
        return 0

    monkeypatch.setattr(demo, "ohlora", run)
    return found


def refused(*words: str) -> int | str | None:
    """The exit code of a demo that ends at fine-tune v1."""
    with pytest.raises(SystemExit) as ended:
        ohlora(["demo", *words])
    return ended.value.code


def test_a_stopped_demo_goes_on(ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused() == 2
    assert [words[1] for words in ran[:2]] == ["generate_original", "score_original"] and len(ran) == 5
    said = capsys.readouterr().out
    assert "\n# step 1 of 17 · Make 1,000 images with the toy StyleGAN that ships · about 4 min left\n$ python" in said
    assert "→ 1 of 1 images pass all four rules." in said
    # The steps before took next to nothing here.
    assert re.search("\n# step 5 of 17 · Fine-tune v1 on them · about (100 s|2 min) left\n", said)
    checkpoint = tmp_path / "demo" / "finetune_v1" / "runs" / "0001" / "checkpoints" / "images-000001000.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    ran.clear()
    assert refused() == 2
    assert ran == [["fit", "finetune_v1", "--world", "demo", "--ckpt_path", "last"]]
    assert capsys.readouterr().out.startswith("\nsteps 1 to 4 are done already\n\n# step 5 of 17 · ")
    (tmp_path / "demo" / "filter_original" / "manifest.csv").unlink()
    ran.clear()
    assert refused() == 2
    assert [words[0] for words in ran] == ["filter", "fit"], "what is missing is made again, and no more"


def test_only_what_a_demo_made_is_removed_and_only_when_asked(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused() == 2
    names = (
        "labels/labels_2k.csv",
        "characters/own.safetensors",
        "notes.txt",
        "character/own.png",
        "animation/own.gif",
    )
    own = [tmp_path / "demo" / name for name in names]
    chosen = tmp_path / "demo" / "evaluate_v9" / "choices.csv"
    for path in (*own, chosen):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")}
    ran.clear()
    for words, code in ((["--help"], 0), (["--freshly"], 2)):
        assert refused(*words) == code
    assert ohlora(["demo", "--seed", "3"]) == 2
    assert (
        "ohlora demo: " in (said := capsys.readouterr().err) and "holds a demo of seed 0: go on with --seed 0" in said
    )
    assert not ran and before == {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")}
    assert refused("--fresh", "--seed", "3") == 2
    assert "removed generate_original, score_original," in capsys.readouterr().out
    assert ran[0][-2:] == ["--model.init_args.seed", "3"] and len(ran) == 5
    assert not chosen.exists() and all(path.is_file() for path in own)


def test_a_demo_that_was_stopped_at_once_keeps_its_seed(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "ohlora", lambda words: 143)
    assert refused("--seed", "3") == refused("--seed", "3") == 143
    assert capsys.readouterr().err.endswith("stopped at step 1: the same command goes on from there\n")
    assert ohlora(["demo"]) == 2 and "a demo of seed 3" in capsys.readouterr().err


@pytest.mark.parametrize("record", ["{", "[]", "{}", '{"seed": 0, "steps": {"a": 1}}', '{"seed": null, "steps": {}}'])
def test_a_damaged_record_is_one_line(
    record: str, ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "demo.json").write_text(record)
    assert ohlora(["demo"]) == 2 and not ran
    (line,) = capsys.readouterr().err.splitlines()
    assert "demo.json is damaged (" in line and "--fresh" in line
    assert refused("--fresh") == 2 and len(ran) == 5


def test_the_demo_can_go_elsewhere(ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "some where"
    assert refused("--output", str(other)) == 2
    assert (other / "demo" / "filter_original" / "manifest.csv").is_file() and not (tmp_path / "demo").exists()
    assert f"$ OHLORA_ARTIFACTS='{other}' python -m ohlora predict generate_original" in capsys.readouterr().out
    assert refused() == 2 and (tmp_path / "demo" / "filter_original").is_dir(), "the next call is not changed"


def test_half_a_fine_tune_is_not_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are of 16 images, so that it stops a little after the half."""
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    half, whole = (step for step in demo.Demo().steps() if step.stage == "finetune_v8")
    for seen, made in ((1504, (True, False)), (3008, (True, True))):
        for name, network in zip(("generator", "discriminator"), tiny_networks(), strict=True):
            path = tmp_path / "demo" / "finetune_v8" / f"{name}.safetensors"
            network_files.save_network(network, path, {"images_seen": seen})
        assert (demo.Demo().done(half), demo.Demo().done(whole)) == made


def test_the_page_shows_who_follows_best_and_worst(tmp_path: Path) -> None:
    write_rows(tmp_path / STATISTICS, [{"latents": 3, "eyes_passed_ratio": 1, "mouth_passed_ratio": 1}])
    corr = {0: (0.99, 0.95), 3: (0.98, 0.98), 35: (0.99, 0.9), 40: (0.99, 0.89)}
    rows = [{"case": case, "eyes_corr": eyes, "mouth_corr": mouth} for case, (eyes, mouth) in corr.items()]
    write_rows(tmp_path / RESULTS, rows)
    sheets = [
        tmp_path / "sheets" / f"{name}.png"
        for name in ("best_case_0000", "best_case_0003", "worst_case_0035", "worst_case_0040")
    ]
    sheets[0].parent.mkdir()
    for path in sheets:
        path.touch()
    assert demo_page.extremes(tmp_path) == (sheets[1], sheets[3])


def test_shares_of_few_images_say_how_little_is_known() -> None:
    assert demo_page.share(0.5, 400) == "50% (45% to 55%)"
    assert demo_page.share(0.5, 10) == "50% (24% to 76%)"
    assert demo_page.share(0.0, 10) == "0% (0% to 28%)" and demo_page.share(1.0, 10) == "100% (72% to 100%)"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_leaves_a_page_and_a_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    assert ohlora(["demo"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n→ ") == said.count("\n# step ") == 17
    (follow,) = re.findall(r"(\d+ of 24) faces follow in all of them", said)
    page = (tmp_path / "demo" / "index.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/webp') == 11
    assert f"<p>{follow} faces follow all sliders" in page and len(page) < 3e6
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page), "the page stands alone"
    assert all(command in page for command in ("ohlora filter ", "--ckpt_path last", "ohlora animate "))
    assert len(read_rows(tmp_path / "demo" / "generate_original" / "manifest.csv")) == 1000
    made = network_files.read_metadata(tmp_path / "demo" / "finetune_v8" / "generator.safetensors")
    assert made["provenance"]["images_seen"] == 3008
    face = Character.load(tmp_path / "demo" / "characters" / "mina.safetensors")
    assert face.render(mouth=0.5).size == (64, 64)
    # Resumed once, in the same run.
    assert [p.name for p in (tmp_path / "demo" / "finetune_v8" / "runs").iterdir()] == ["0001"]
    # A second call does nothing again, and leaves alone what was chosen in between.
    chosen = tmp_path / "demo" / "evaluate_v9" / "choices.csv"
    chosen.write_text("case,choice,latents\n")
    (tmp_path / "demo" / "characters" / "mina.webp").unlink()
    assert ohlora(["demo"]) == 0
    said = capsys.readouterr().out
    assert "steps 1 to 15 are done already" in said and said.count("\n→ ") == 1
    assert "# step 16 of 17 · Play it" in said and chosen.is_file()
    again = (tmp_path / "demo" / "index.html").read_text()
    assert again.count(" s)</span>") == page.count(" s)</span>") == 17

"""The stages' declaration: what is generated from it, what commands read and write, and hints of what is missing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ohlora import generated, pipeline, renamed, settings, worlds
from ohlora.__main__ import main as ohlora
from ohlora.commands import COMMANDS
from ohlora.errors import ConfigError, MissingArtifactError
from ohlora.worlds import Stage, World

ROOT = Path(__file__).parents[1]
WORLDS = [pipeline.world(name) for name in worlds.SHIPPED]
STAGES = [(world, stage) for world in WORLDS for stage in world.stages.values()]
CONFIGURED = [(world, stage) for world, stage in STAGES if stage.configured]


def name_of(value: World | Stage) -> str:
    return value.name


@pytest.fixture(autouse=True)
def in_the_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OHLORA_ARTIFACTS", raising=False)


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """The configuration that a command resolves to."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        ohlora([*words, "--print_config"])
    assert done.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def leaves(value: Any) -> Iterator[str]:
    """Every text in a configuration."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key != "default_root_dir":
                yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, str):
        yield value


def test_what_is_generated_is_up_to_date() -> None:
    for path, text in generated.everything().items():
        made_with = settings.schema()["made_with"]
        if path == Path("ohlora/settings.json") and made_with != {name: settings.released(name) for name in made_with}:
            continue  # other versions have other settings, on which the parser decides
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `ohlora pipeline --write`"


def test_the_declaration_needs_no_heavy_library() -> None:
    program = """
import sys
from ohlora.__main__ import main
assert main(["pipeline", "--world", "toy"]) == 0
slow = [name for name in ("torch", "lightning", "wandb", "numpy", "jsonargparse") if name in sys.modules]
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python -m ohlora fit finetune_v8 --world toy" in done.stdout


def covers(declared: Path, path: Path) -> bool:
    """Whether a declared path is a path, lies in it, or holds it."""
    return declared == path or path in declared.parents or declared in path.parents


@pytest.mark.parametrize(("world", "stage"), CONFIGURED, ids=name_of)
def test_what_a_configuration_names_is_declared(world: World, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    resolved = printed(shlex.split(world.command(stage))[3:], capsys)
    named = {Path(text) for text in leaves(resolved) if text.startswith(("artifacts/", "ohlora/weights/"))}
    assert named or not stage.inputs  # drawn people are no files
    declared = [*world.needs(stage), *world.makes(stage), world.path(stage.name)]
    missing = [path for path in named if not any(covers(d, path) for d in declared)]
    assert not missing, f"{world.name}-{stage.name}: {missing} are in no input and no output"
    unnamed = [
        path for path in world.needs(stage) if not any(path in (n, *n.parents) or n == path.parent for n in named)
    ]
    told_by_tables = {"images", "masks", "shards", "medians.json", "manifest.csv"}
    assert not [path for path in unnamed if path.name not in told_by_tables], "declared, but not read"


@pytest.mark.parametrize(("world", "stage"), STAGES, ids=name_of)
def test_what_a_command_makes_is_among_its_words(world: World, stage: Stage) -> None:
    """Outputs of commands without a configuration are among their words (tables of metrics have a default place)."""
    if not stage.configured and "measure_" not in stage.command:
        words = [Path(word) for word in shlex.split(world.command(stage))]
        for path in (*world.makes(stage), *[need for need in world.needs(stage) if need.parts[0] == "artifacts"]):
            inside = any(covers(word, path) for word in words if len(word.parts) > 1)
            assert inside or path.name.startswith(("shards", "images")), f"{world.name}-{stage.name}: {path}"
        assert words[3].name in COMMANDS or (ROOT / words[1]).is_file()


@pytest.mark.parametrize("world", WORLDS, ids=name_of)
def test_every_stage_gets_what_it_needs(world: World) -> None:
    """Each input is made by an earlier stage, ships, or is a download or the user's; no two stages make one file."""
    made: list[Path] = []
    for stage in world.stages.values():
        for name, path in zip(stage.inputs, world.needs(stage), strict=True):
            told = name in world.hints or name.startswith("./")
            ships = path.is_file() and path.parts[0] == "ohlora"
            assert told or ships or any(path == m or m in path.parents for m in made), f"{stage.name} needs {path}"
        for path in world.makes(stage):
            assert path not in made
            made.append(path)


LONG = {
    ("toy", "finetune_v8"): ["--config", "configs/finetune_v8.yaml", "--config", "configs/toy/finetune_v8.yaml"],
    ("demo", "finetune_v8"): [
        *("--config", "configs/finetune_v8.yaml", "--config", "configs/toy/finetune_v8.yaml"),
        *("--config", "configs/toy/demo/finetune_v8.yaml"),
    ],
    ("celeba256", "finetune_v8"): ["--config", "configs/finetune_v8.yaml"],
    ("demo", "score_v1"): [
        *("--config", "configs/score_v1.yaml", "--config", "configs/toy/score_v1.yaml", "--world", "demo")
    ],
    ("toy", "judge_age"): [
        *("--config", "configs/filter_age.yaml", "--config", "configs/toy/filter_age.yaml"),
        *("--model.init_args.seed", "1000", "--data.init_args.seed", "1000"),
        *("--data.init_args.annotations", "artifacts/toy/drawn_judge/manifest.csv"),
        *("--trainer.default_root_dir", "artifacts/toy/judge_age"),
    ],
}


@pytest.mark.parametrize(("world", "stage"), LONG, ids=str)
def test_the_short_way_is_the_same_run_as_the_long_one(
    world: str, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of = pipeline.world(world)
    verb = of.stages[stage].command
    short = printed([verb, stage, *(() if world == worlds.DEFAULT else ("--world", world))], capsys)
    assert short == printed([verb, *LONG[world, stage]], capsys)
    assert short["world"] == world and "${" not in str(short)
    assert short["trainer"]["default_root_dir"] == of.path(stage).as_posix()


OWN = """
about: a world of one's own
base: toy
root: mine
overlays: overlays
names: {finetune_v1_projection/generator.safetensors: ./v1.safetensors}
stages:
  finetune_v8:
  sample_v8:
  filter_again: {of: filter_v1}
"""


def test_a_world_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overlays").mkdir()
    (tmp_path / "mine.yaml").write_text(OWN)
    (tmp_path / "overlays" / "finetune_v8.yaml").write_text("world: mine.yaml\nmodel: {init_args: {kimg: 7}}\n")
    short = printed(["fit", "finetune_v8", "--world", "mine.yaml"], capsys)
    assert short["model"]["init_args"]["kimg"] == 7 and short["data"]["init_args"]["resolution"] == 64
    assert short["model"]["init_args"]["generator"] == "v1.safetensors"
    assert short["trainer"]["default_root_dir"] == "artifacts/mine/finetune_v8"
    assert ohlora(["pipeline", "--world", "mine.yaml", "--write"]) == 0
    written = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
    assert list(written) == ["mine-finetune_v8", "mine-sample_v8", "mine-filter_again"]
    assert written["mine-finetune_v8"]["cmd"] == "python -m ohlora fit finetune_v8 --world mine.yaml"
    assert "artifacts/mine/filter_again/manifest.csv --keep" in written["mine-filter_again"]["cmd"], "in its own folder"
    (params,) = written["mine-finetune_v8"]["params"]
    assert "overlays/finetune_v8.yaml" in params
    assert "v1.safetensors" in written["mine-finetune_v8"]["deps"]
    assert ohlora(["pipeline", "--world", "mine.yaml", "--write"]) == 0, "a generated file is replaced"
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert ohlora(["pipeline", "--world", "mine.yaml", "--write"]) == 2
    assert "dvc.yaml was not made by this command" in capsys.readouterr().err
    assert (tmp_path / "dvc.yaml").read_text() == "stages: {}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {finetune_v9: }", "no stage 'finetune_v9'"),
        ("stages: {finetune_v8: {input: []}}", "no setting of finetune_v8 'input'"),
        ("routes: mine", "no setting 'routes'; expected one of about, base"),
        ("- toy", "holds list; expected settings"),
        ("base: toys", "there is no world .*toys; expected toy, demo, celeba256, stylegan2"),
        ("base: mine.yaml", "a world cannot build on itself; change the base of"),
        ("base: 3", "base is 3; expected text"),
        ("root: [mine]", "root is .'mine'.; expected text"),
        ("names: [a]", "names is .'a'.; expected name: text"),
        ("hints: {a: 3}", "hints is .*; expected name: text"),
        ("stages:", "stages is None; expected name: what differs"),
        ("stages: [drawn]", "stages is .'drawn'.; expected name: what differs"),
        ("stages: {drawn: 3}", "stages is .*; expected name: what differs"),
        ("stages: {drawn: {inputs: drawn/images}}", "inputs of drawn is 'drawn/images'; expected a list of names"),
        ("stages: {drawn: {number: 3}}", "number of drawn is 3; expected text"),
        ("root: a\nabout: b\nroot: c", "line 3: root was said on line 1 already"),
        ("attributes: {on: {meaning: a, kind: score}}", "reads the name of an attribute as True; put it into quotes"),
    ],
)
def test_a_world_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        pipeline.world(str(tmp_path / "mine.yaml"))


def test_what_a_world_makes_itself_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    """The demo's world names a filter that ships; one that trains it uses its own, in stages after it as well."""
    (tmp_path / "mine.yaml").write_text("base: demo\nroot: mine\nstages: {filter_age: , score_original: }")
    mine = pipeline.world(str(tmp_path / "mine.yaml"))
    assert not mine.done(mine.stages["filter_age"])
    assert mine.path("filter_age/age.safetensors") == mine.folder / "filter_age" / "age.safetensors"
    assert "weights" in str(mine.path("filter_glass/glass.safetensors"))


def test_a_base_lies_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/first.yaml").write_text("base: toy\nroot: first\n")
    Path("mine/second.yaml").write_text("base: first.yaml\n")
    assert pipeline.world("mine/second.yaml").root == "second", "not in the folder of another world"
    assert list(pipeline.world("mine/second.yaml").stages) == list(pipeline.world("toy").stages)
    Path("mine/second.yaml").write_text("base: first.yaml\nroot: changed\n")
    assert pipeline.world("mine/second.yaml").root == "changed", "read anew"


@pytest.mark.parametrize("words", [["-c", "w.yaml"], ["--config", "{world: toy}"], ["--config", "w.yaml"]])
def test_paths_are_never_those_of_another_world(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interpolation is resolved before these ways to name a world are read."""
    monkeypatch.chdir(tmp_path)
    Path("w.yaml").write_text("world: toy\n")
    assert ohlora(["predict", "generate_v1", *words, "--print_config"]) == 2
    assert (
        "a configuration says world: toy, and paths are those of celeba256; add --world toy" in capsys.readouterr().err
    )
    given = printed(["predict", "generate_v1", "--world", "demo", *words], capsys)
    assert given["world"] == "demo" and given["model"]["init_args"]["output"] == "artifacts/demo/generate_v1"


def test_a_missing_input_is_met_with_what_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.use(pipeline.world("toy"))
    for path, how in {
        "artifacts/toy/finetune_v1/generator.safetensors": "made by: python -m ohlora fit finetune_v1 --world toy",
        "artifacts/toy/generate_v1/images/000001.png": "python -m ohlora predict generate_v1 --world toy",
        "artifacts/demo/sample_v8/x": None,
        "artifacts/sample_v8": "python -m ohlora predict sample_v8",
        "artifacts/labels/labels_2k.csv": "ohlora studio --world celeba256",
        "somewhere/else": None,
    }.items():
        found = pipeline.hint(path)
        assert found is None if how is None else how in str(found), path
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    with pytest.raises(MissingArtifactError, match=r"scores.csv does not exist; it is made by: .* score_v1 --world"):
        pipeline.require(tmp_path / "toy" / "score_v1" / "scores.csv")


def test_a_folder_with_its_earlier_name_is_met_with_the_command_that_moves_it(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    (root / "generate_10k" / "images").mkdir(parents=True)
    (root / "generate_10k" / "manifest.csv").touch()
    wanted = root / "generate_original" / "manifest.csv"
    with pytest.raises(MissingArtifactError, match="move it: mv ") as refused:
        pipeline.require(wanted)
    subprocess.run(str(refused.value).partition("move it: ")[2], shell=True, check=True)
    pipeline.require(wanted)
    assert (root / "generate_10k" / "manifest.csv").is_file(), "tables that name images by the old folder still work"

    (root / "vectorfind_v9").mkdir()
    for name in ("test_result.csv", "test_statistics.csv", "latents.safetensors", "directions.safetensors"):
        (root / "vectorfind_v9" / name).touch()
    command = renamed.moving(root / "evaluate_v9" / "test_result.csv")
    subprocess.run(str(command), shell=True, check=True)
    assert {path.name for path in (root / "vectorfind_v9").iterdir()} == {"directions.safetensors"}
    assert len(list((root / "evaluate_v9").iterdir())) == 3
    assert renamed.moving(root / "evaluate_v9" / "test_result.csv") is None


def test_the_documented_world_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    mine = pipeline.world("mine.yaml")
    assert mine.path("finetune_v1/generator.safetensors") == Path("my_generator.safetensors")
    assert mine.path("original/generator.safetensors").name == "generator.safetensors", "of the base"
    assert mine.path("filter_v1/manifest.csv") == Path("artifacts/mine/filter_v1/manifest.csv")
    assert mine.command(mine.stages["filter_v1"]).endswith("--keep 'glass >= 0.9' --world mine.yaml")
    pipeline.use(mine)
    assert pipeline.hint("artifacts/mine/labels/labels_2k.csv") == "annotate images: ohlora studio --world mine.yaml"

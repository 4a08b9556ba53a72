"""The whole chain on StyleGAN2 and StyleGAN3: the recipe by configuration alone, and the page on one's own StyleGAN.

Networks are tiny and stages take a few steps: what is tested is that every stage takes networks of these families and
hands them on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ohlora import pipeline
from ohlora.__main__ import main
from ohlora.characters.character import Character
from ohlora.formats import network_files
from ohlora.networks import stylegan2, stylegan3
from ohlora.utils.files import read_rows
from ohlora.worlds import VERBS
from tests.documented import ROOT, blocks, of_block, titled
from tests.golden import GOLDEN

HERE = Path(__file__).parent
QUIET = (
    "--trainer.accelerator",
    "cpu",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.logger.init_args.mode",
    "disabled",
)


def own_stylegan2() -> None:
    """Writes a StyleGAN2 of random weights in rosinality's form into the working directory, as ``stylegan2.pkl``."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"resolution": 64, "channel_base": 256, "channel_max": 16}
    generator = stylegan2.Generator(**sizes, z_dim=16, w_dim=16, mapping_layers=2)
    for network, name in ((generator, "generator"), (stylegan2.Discriminator(**sizes), "discriminator")):
        network_files.save_network(network, f"{name}.safetensors")
    assert main(["export-weights", "generator.safetensors", "discriminator.safetensors", "stylegan2.pkl"]) == 0


@pytest.mark.slow
def test_the_recipe_runs_on_a_stylegan2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(HERE / "worlds" / "tiny", "tiny")
    shutil.copy(HERE / "worlds" / "tiny_stylegan2.yaml", tmp_path)
    own_stylegan2()
    world = pipeline.world("tiny_stylegan2.yaml")
    for stage in world.stages.values():
        words = [stage.command, stage.name, *QUIET] if stage.configured else world.unconfigured(stage)
        assert main([*words, "--world", "tiny_stylegan2.yaml"] if stage.configured else words) == 0, stage.name
        assert all(path.exists() for path in world.makes(stage)), stage.name
    made = world.folder
    for name, labels in (("finetune_v1", "dataset"), ("finetune_v1_projection", "dataset"), ("finetune_v8", "normal")):
        generator = network_files.load_generator(made / name / "generator.safetensors")
        assert isinstance(generator, stylegan2.Generator) and (generator.c_dim, generator.labels) == (7, labels)
    head = network_files.load_discriminator(made / "finetune_v1_projection" / "discriminator.safetensors").label_head
    assert head == "projection"
    assert isinstance(Character.load(made / "characters" / "mina.safetensors").generator, stylegan2.Generator)


SMALL = {
    "generate_original": ["--data.init_args.count", "40"],
    "score_properties": ["--data.init_args.resolution", "16"],
    "_cnn": [
        *("--model.init_args.plan", "small", "--model.init_args.resolution", "16", "--data.init_args.batch_size", "16"),
        *("--trainer.max_epochs", "6", "--model.init_args.optimizer.init_args.lr", "0.005"),
    ],
    "vectorfind_v9": [
        *("--model.init_args.finder.init_args.latents", "10", "--model.init_args.finder.init_args.points", "2"),
        *("--model.init_args.finder.init_args.covariance_count", "200"),
    ],
    "sample_v8": [
        "--data.init_args.count",
        "80",
        "--data.init_args.batch_size",
        "40",
        "--model.init_args.shard_size",
        "40",
    ],
    "evaluate_v9": [
        *("--data.init_args.count", "4", "--model.init_args.unedited_count", "20"),
        *("--model.init_args.limits", "{brightness: 0, warmth: 0}"),
    ],
    "touch_up": [
        *("--data.init_args.count", "2", "--model.init_args.unedited_count", "20"),
        *("--model.init_args.touch_up.steps", "2", "--model.init_args.touch_up.edits", "2"),
    ],
}
"""Settings that make a stage small, by the end of its name."""


def small(words: list[str]) -> list[str]:
    """The words of a command after ``python -m ohlora``, at the size of the tests."""
    if words[0] not in VERBS:
        return words
    return [*words, *QUIET, *next(more for part, more in SMALL.items() if words[1].endswith(part))]


@pytest.mark.parametrize(
    ("file", "kind"), [("stylegan2-ada-16", stylegan2.Generator), ("stylegan3-r-16", stylegan3.Generator)]
)
def test_the_page_leads_to_a_character(file: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    page = ROOT / "docs" / "your_stylegan.md"
    for name, text in titled(page):
        Path(name).write_text(text)
    shutil.copy(GOLDEN / f"{file}.pkl", "cats.pkl")
    commands = [c for _, text in blocks(page, "sh") for c in of_block(page.name, text) if "cats" in c.text]
    for command in [c.words[3:] for c in commands]:
        assert main(small(command)) == 0, command
    assert all(pipeline.world("cats.yaml").done(stage) for stage in pipeline.world("cats.yaml").stages.values())
    cat = Character.load("artifacts/cats/characters/mina.safetensors")
    assert set(cat.motions) == {"brightness", "warmth"}
    assert isinstance(cat.generator, kind) and cat.attributes == ("brightness", "warmth")
    assert cat.render(brightness=0.1).size == (16, 16)
    rows = read_rows(Path("artifacts/cats/property_cnn/runs/0001/correlations.csv"))
    assert [row["attribute"] for row in rows] == ["brightness", "warmth"]

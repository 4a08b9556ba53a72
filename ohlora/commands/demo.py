"""The chain at its smallest: generate, filter, score, fine-tune v1 and v8 on what was kept, and make a character.

Ends with a page, ``artifacts/demo/index.html``, that shows what was made and by which commands.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ohlora import pipeline, worlds
from ohlora.__main__ import main as ohlora
from ohlora.attributes import EXPRESSIONS
from ohlora.characters.reports import RESULTS, STATISTICS
from ohlora.rules import CONCEPT
from ohlora.tracking import newest_checkpoint, run_of
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import read_rows

from . import demo_page

WORLD = "demo"


class Demo:
    """Runs the steps one after the other, says what each does and found, and keeps that for the page.

    Args:
        root: Folder of everything the demo makes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[demo_page.Step] = []

    def step(self, title: str, words: list[str], found: Callable[[], str]) -> None:
        """Says what comes, shows the command, runs it, and says what was found."""
        shown = worlds.typed(words)
        print(f"\n# {title}\n$ {shown}", flush=True)
        started = time.monotonic()
        code = ohlora(words)
        if code:
            sys.exit(code)
        step = demo_page.Step(title, shown, found(), time.monotonic() - started)
        self.steps.append(step)
        print(f"→ {step.found} ({step.seconds:.0f} s)", flush=True)

    def stage(self, verb: str, stage: str, title: str, found: Callable[[], str], *more: str) -> None:
        """A step of the entry point."""
        self.step(title, [verb, stage, "--world", WORLD, *more], found)

    def command(self, stage: str, title: str, found: Callable[[], str]) -> None:
        """A step that is a command without a configuration, with the words of its declaration."""
        world = pipeline.world(WORLD)
        declared = world.stages[stage]
        self.step(title, world.words(f"{declared.command} {declared.options}"), found)

    def generated(self, of: str, network: str) -> None:
        """Makes one of the two sets of images."""
        there = self.root / f"generate_{of}" / "images"
        self.stage("predict", f"generate_{of}", f"Make 1,000 images with {network}", lambda: f"They are in {there}.")

    def filtered(self, of: str, title: str) -> None:
        """Filters one of the two generated sets."""
        scores, kept = self.root / f"score_{of}" / "scores.csv", self.root / f"filter_{of}" / "manifest.csv"

        def found() -> str:
            return f"{len(read_rows(kept)):,} of {len(read_rows(scores)):,} images pass all four rules."

        self.command(f"filter_{of}", title, found)

    def scored(self, of: str) -> str:
        """What the filters found in one of the two generated sets."""
        rows = read_rows(self.root / f"score_{of}" / "scores.csv")
        means = {name: np.mean([float(row[f"{name}_score"]) for row in rows]) for name in CONCEPT}
        return "Mean scores: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()) + "."

    def tuned(self, stage: str) -> str:
        """How far a fine-tune came."""
        before, after = demo_page.concept_rates(newest_run(self.root / stage))
        return f"{before:.0%} of its images fit the concept before, {after:.0%} now."

    def tested(self) -> str:
        """Says what the evaluation of edits found."""
        (row,) = read_rows(self.root / "evaluate_v9" / STATISTICS)
        count = len(read_rows(self.root / "evaluate_v9" / RESULTS))
        said = ", ".join(f"{name} {float(row[f'{name}_corr_mean']):.2f}" for name in EXPRESSIONS)
        return f"{row['passed']} of {count} faces follow in all three; correlation of what was asked and seen: {said}."

    def character(self) -> None:
        """Ranks the candidates, writes the first as a character, and plays it."""
        folder = self.root / "characters"
        file, film = folder / "mina.safetensors", folder / "mina.gif"

        def best() -> str:
            row = read_rows(folder / "candidates.csv")[0]
            said = ", ".join(f"{name} {float(row[f'{name}_corr']):.3f}" for name in EXPRESSIONS)
            return f"Face number {row['case']} follows best: {said}."

        self.command("candidates", "Rank the faces that follow", best)
        self.command(
            "character",
            "Write the best as a character",
            lambda: f"One file of {file.stat().st_size / 1e6:.1f} MB: the generator, the face, and what steers it.",
        )
        self.command(
            "animation",
            "Play it",
            lambda: f"{film} sweeps eyes, mouth and pose, then rests and blinks.",
        )

    def run(self) -> None:
        """All steps."""
        root = self.root
        for stage in pipeline.world(WORLD).stages:  # each demo tells its story from the start
            if (root / stage).is_dir():
                shutil.rmtree(root / stage)
        self.generated("original", "the toy StyleGAN that ships")
        self.stage("predict", "score_original", "Let four filters look at them", lambda: self.scored("original"))
        self.filtered("original", "Keep young women without glasses, of good quality")
        self.stage(
            "predict",
            "score_properties",
            "Parse their faces and measure eyes, mouth, pose, hair and background",
            lambda: f"The scores in {root / 'score_properties' / 'scores.csv'} are the labels of what follows.",
        )
        self.stage("fit", "finetune_v1", "Fine-tune v1 on them", lambda: self.tuned("finetune_v1"))
        self.generated("v1", "fine-tune v1")
        self.stage("predict", "score_v1", "Let the filters look at them", lambda: self.scored("v1"))
        self.filtered("v1", "Keep those that fit beyond doubt")
        kimg = ("--model.init_args.kimg", "2")
        self.stage(
            "fit", "finetune_v8", "Fine-tune v8 on them, and stop half-way", lambda: "Stopped at 2,000 images.", *kimg
        )
        last = ("--ckpt_path", "last")
        self.stage("fit", "finetune_v8", "Go on where it stopped", lambda: self.tuned("finetune_v8"), *last)
        self.stage(
            "fit",
            "vectorfind_v9",
            "Find what moves eyes, mouth and pose, and nothing else",
            lambda: f"{root / 'vectorfind_v9' / 'directions.safetensors'} holds a step for each.",
        )
        self.stage("test", "evaluate_v9", "Edit 48 other faces fifty times each; a judge looks", self.tested)
        self.character()


def newest_run(stage_dir: Path) -> Path:
    """The run folder of a stage's newest checkpoint."""
    run = run_of(newest_checkpoint(stage_dir))
    assert run is not None
    return run


@command("ohlora demo")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    arguments("demo", "Runs the chain at a small size, and ends with a page.", "").parse_args(args)
    started = time.monotonic()
    root = pipeline.world(WORLD).folder
    demo = Demo(root)
    demo.run()
    page = root / "index.html"
    runs = {stage: newest_run(root / stage) for stage in ("finetune_v1", "finetune_v8")}
    demo_page.write(page, root, runs, demo.steps)
    character = root / "characters" / "mina.safetensors"
    print(f"\nDone in {time.monotonic() - started:.0f} s. The fine-tunes are a quarter and a tenth of the toy world's.")
    print(f"Open {page} in a browser. Or steer the character in Python:")
    print(f"  import ohlora\n  ohlora.Character.load('{character}').render(eyes=0.5, mouth=-1.0, pose=0.5).show()")

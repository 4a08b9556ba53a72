"""The chain at its smallest: generate, filter, score, fine-tune v1 and v8 on what was kept, and make a character.

Ends with a page, ``artifacts/demo/index.html``, that shows what was made and by which commands. What an earlier call
made is kept: steps that are done are skipped, and one that was stopped goes on.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean

from ohlora import pipeline, worlds
from ohlora.__main__ import main as ohlora
from ohlora.errors import ConfigError
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import artifacts_root, read_rows, replacing
from ohlora.worlds import World

WORLD = "demo"
RECORD, PAGE = "demo.json", "index.html"
ARTIFACTS = "OHLORA_ARTIFACTS"
HALF = 1.5
"""After how many kimg fine-tune v8 is stopped, to go on from there."""
TRUSTED = 20
"""For how many seconds the declared shares count beside what was measured: the first steps are short."""
SEED = {
    **dict.fromkeys(("generate_original", "finetune_v1", "generate_v1", "finetune_v8"), "--model.init_args.seed"),
    "vectorfind_v9": "--model.init_args.finder.init_args.seed",
    "evaluate_v9": "--model.init_args.seed",
    "touch_up": "--model.init_args.seed",
}
"""Stages that draw at random → the setting that is their seed."""


@dataclass(frozen=True)
class Step:
    """A step of the demo.

    Attributes:
        stage: The stage of the demo's world that it runs.
        title: What it does; no two are alike.
        share: Seconds it takes on two CPU cores, from which the time left is estimated.
        found: Says what it found, once it is done.
        more: Further words of the command.
        half: Whether it leaves a product that a later step goes on with.
    """

    stage: str
    title: str
    share: float
    found: Callable[[], str]
    more: tuple[str, ...] = ()
    half: bool = False


class Demo:
    """Runs the steps that are not done, one after the other, and says what each does and found.

    Args:
        seed: Seed of everything random.
        before: What stands before a command for it to find the demo's files.

    Raises:
        ConfigError: If the demo that is there has another seed.
    """

    def __init__(self, seed: int = 0, before: str = "") -> None:
        self.seed, self.before = seed, before
        self.world = pipeline.world(WORLD)
        self.root = self.world.folder
        self.record = self.root / RECORD
        self.ran: dict[str, tuple[str, float]] = {}
        """For each step that a call ran, by its title: the command, and the seconds it took."""
        made = 0
        if self.record.is_file():
            try:
                said = json.loads(self.record.read_text(encoding="utf-8"))
                made, steps = int(said["seed"]), said["steps"].items()
                self.ran = {title: (str(words), float(took)) for title, (words, took) in steps}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{self.record} is damaged ({error}), so that the seed of this demo is not known: choose another "
                    "--output, or replace the demo with --fresh"
                ) from error
        if made != seed and there(self.world):
            raise ConfigError(
                f"{self.root} holds a demo of seed {made}: go on with --seed {made}, choose another --output, or "
                "replace it with --fresh"
            )

    def steps(self) -> list[Step]:
        """All steps, in order."""
        root = self.root
        film = root / "characters" / "mina.webp"
        return [
            self.generated("original", "the toy StyleGAN that ships", 4),
            Step("score_original", "Let four filters look at them", 4, lambda: self.scored("original")),
            self.filtered("original", "Keep young women without glasses, of good quality"),
            Step(
                "score_properties",
                "Parse their faces and measure eyes, mouth, pose, hair and background",
                4,
                lambda: f"The scores in {root / 'score_properties' / 'scores.csv'} are the labels of what follows.",
            ),
            Step("finetune_v1", "Fine-tune v1 on them", 30, lambda: self.tuned("finetune_v1")),
            self.generated("v1", "fine-tune v1", 4),
            Step("score_v1", "Let the filters look at them again", 4, lambda: self.scored("v1")),
            self.filtered("v1", "Keep the images within strict limits"),
            Step(
                "finetune_v8",
                "Fine-tune v8 on them, and stop half-way",
                40,
                lambda: f"Stopped at {1000 * HALF:,.0f} images.",
                ("--model.init_args.kimg", str(HALF)),
                half=True,
            ),
            Step("finetune_v8", "Go on where it stopped", 40, lambda: self.tuned("finetune_v8")),
            Step(
                "vectorfind_v9",
                "Find what moves eyes, mouth, pose and smile, and nothing else",
                15,
                lambda: f"{root / 'vectorfind_v9' / 'directions.safetensors'} holds a step for each.",
            ),
            Step("evaluate_v9", "Bring 24 other faces to rest, and edit them; a judge looks", 45, self.tested),
            Step("candidates", "Rank the faces that follow", 1, self.best),
            Step("touch_up", "Train the edits of the best two further, and look again", 40, self.touched_up),
            Step("character", "Write the best as a character", 1, self.size),
            Step(
                "animation", "Play it", 1, lambda: f"{film} sweeps eyes, mouth, pose and smile, then rests and blinks."
            ),
            Step("page", "Write her as a page that anybody can open", 4, self.paged),
        ]

    def done(self, step: Step) -> bool:
        """Whether a step is done, by this or an earlier call or by hand."""
        if not self.world.done(self.world.stages[step.stage]):
            return False
        if step.stage != "finetune_v8" or step.half:
            return True
        from ohlora.formats.network_files import read_metadata

        made = read_metadata(self.root / "finetune_v8" / "generator.safetensors")
        return bool(made["provenance"]["images_seen"] > 1500 * HALF)  # a step may end a little after the half

    def words(self, step: Step) -> list[str]:
        """The words of a step's command; one that was stopped goes on from its newest checkpoint."""
        stage = self.world.stages[step.stage]
        if not stage.configured:
            return self.world.unconfigured(stage)
        words = [stage.command, stage.name, "--world", WORLD, *step.more]
        if self.seed and stage.name in SEED:
            words += [SEED[stage.name], str(self.seed)]
        if any((self.root / stage.name).glob("runs/*/checkpoints/images-*.ckpt")):
            words += ["--ckpt_path", "last"]
        return words

    def run(self) -> None:
        """All steps that are not done."""
        self.remember()
        steps = self.steps()
        skipped: list[int] = []
        for number, step in enumerate(steps, 1):
            if self.done(step):
                skipped.append(number)
                continue
            _say_done(skipped)
            import_module("ohlora.cli")  # takes seconds, which belong to no step
            words = self.words(step)
            shown = self.before + worlds.typed(words)
            print(f"\n# step {number} of {len(steps)} · {step.title} · {self.left(steps)}\n$ {shown}", flush=True)
            started = time.monotonic()
            if code := ohlora(words):
                print(f"stopped at step {number}: the same command goes on from there", file=sys.stderr)
                sys.exit(code)
            self.ran[step.title] = shown, round(time.monotonic() - started, 1)
            self.remember()
            print(f"→ {step.found()} ({self.ran[step.title][1]:.0f} s)", flush=True)
        _say_done(skipped)

    def remember(self) -> None:
        """Writes the record."""
        with replacing(self.record) as part:
            part.write_text(json.dumps({"seed": self.seed, "steps": self.ran}, indent=2) + "\n", encoding="utf-8")

    def left(self, steps: Sequence[Step]) -> str:
        """The time that the steps that are not done will take, if they take theirs as those that were run did."""
        known = [step for step in steps if step.title in self.ran]
        took, share = sum(self.ran[step.title][1] for step in known), sum(step.share for step in known)
        rate = (took + TRUSTED) / (share + TRUSTED)
        seconds = rate * sum(step.share for step in steps if not self.done(step))
        return (
            f"about {seconds / 60:.0f} min left" if seconds >= 100 else f"about {math.ceil(seconds / 10) * 10} s left"
        )

    def page(self) -> Path:
        """Writes the page that shows everything."""
        from ohlora.commands import demo_page

        shown = []
        for step in self.steps():
            words, took = self.ran.get(step.title) or (self.before + worlds.typed(self.words(step)), None)
            shown.append(demo_page.Step(step.title, words, step.found(), took))
        page = self.root / PAGE
        runs = {stage: newest_run(self.root / stage) for stage in ("finetune_v1", "finetune_v8")}
        physical = {of.name: of.physical.column for of in self.world.attributes if of.physical is not None}
        demo_page.write(page, self.root, runs, shown, physical)
        return page

    def generated(self, of: str, network: str, share: float) -> Step:
        """Makes one of the two sets of images."""
        there = self.root / f"generate_{of}" / "images"
        return Step(f"generate_{of}", f"Make 1,000 images with {network}", share, lambda: f"They are in {there}.")

    def filtered(self, of: str, title: str) -> Step:
        """Filters one of the two generated sets."""
        scores, kept = self.root / f"score_{of}" / "scores.csv", self.root / f"filter_{of}" / "manifest.csv"

        def found() -> str:
            return f"{len(read_rows(kept)):,} of {len(read_rows(scores)):,} images pass all four rules."

        return Step(f"filter_{of}", title, 0.1, found)

    def scored(self, of: str) -> str:
        """What the filters found in one of the two generated sets."""
        rows = read_rows(self.root / f"score_{of}" / "scores.csv")
        means = {
            name: fmean(float(row[f"{name}_score"]) for row in rows) for name in self.world.attributes.names("filter")
        }
        return "Mean scores: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()) + "."

    def tuned(self, stage: str) -> str:
        """How far a fine-tune came."""
        from ohlora.commands import demo_page

        before, after = demo_page.concept_rates(newest_run(self.root / stage))
        return f"{before:.0%} of its images fit the concept before, {after:.0%} now."

    def tested(self) -> str:
        """What the evaluation of edits found."""
        from ohlora.characters.reports import RESULTS, STATISTICS

        (row,) = read_rows(self.root / "evaluate_v9" / STATISTICS)
        count = len(read_rows(self.root / "evaluate_v9" / RESULTS))
        said = ", ".join(
            f"{name} {float(row[f'{name}_corr_mean']):.2f}" for name in self.world.attributes.names("expression")
        )
        far = [
            f"{of.physical.column} {float(row[f'{of.physical.column}_lowest_mean']):.2f} … "
            f"{float(row[f'{of.physical.column}_highest_mean']):.2f}"
            for of in self.world.attributes
            if of.physical is not None and f"{of.physical.column}_lowest_mean" in row
        ]
        reached = f"On average {', '.join(far)}. " if far else ""
        return (
            f"{reached}{row['passed']} of {count} faces follow in all of them; correlation of what was asked and seen: "
            f"{said}."
        )

    def touched_up(self) -> str:
        """How much farther sliders go once they are touched up."""
        from ohlora.characters.reports import RESULTS

        names = self.world.attributes.names("expression")
        before, after = (
            {row["case"]: row for row in read_rows(self.root / folder / RESULTS)}
            for folder in ("evaluate_v9", "touch_up")
        )
        said = (
            f"face {case}: "
            + ", ".join(
                f"{name} {float(before[case][f'{name}_reach']):.0%} → {float(row[f'{name}_reach']):.0%}"
                for name in names
            )
            for case, row in after.items()
        )
        passed = sum(row["passed"] == "true" for row in after.values())
        limits = "limits of the evaluation, which ask for more than can be seen: a face need not pass to be played"
        return (
            f"Share of the data's range that is reached: {'; '.join(said)}. {passed} of {len(after)} pass all {limits}."
        )

    def best(self) -> str:
        """Which candidate is first."""
        row = read_rows(self.root / "characters" / "candidates.csv")[0]
        said = ", ".join(
            f"{name} {float(row[f'{name}_corr']):.3f}" for name in self.world.attributes.names("expression")
        )
        return f"Face number {row['case']} is first: {said}."

    def paged(self) -> str:
        """What the page is."""
        page = self.root / "characters" / "mina.html"
        return f"{page}, {page.stat().st_size / 1e6:.1f} MB, has sliders and needs no server."

    def size(self) -> str:
        """What the character file holds."""
        size = (self.root / "characters" / "mina.safetensors").stat().st_size
        return f"One file of {size / 1e6:.1f} MB: the generator, the face, and what steers it."


def _say_done(skipped: list[int]) -> None:
    """Says which steps were skipped since the last that was run."""
    if skipped:
        which = f"step {skipped[0]} is" if len(skipped) == 1 else f"steps {skipped[0]} to {skipped[-1]} are"
        print(f"\n{which} done already", flush=True)
    skipped.clear()


def newest_run(stage_dir: Path) -> Path:
    """The run folder of a stage's newest checkpoint."""
    from ohlora.tracking import newest_checkpoint, run_of

    run = run_of(newest_checkpoint(stage_dir))
    assert run is not None
    return run


def there(world: World) -> list[Path]:
    """Everything that the demo makes, as far as it is there."""
    of = world.stages.values()
    folders = [world.folder / s.name for s in of if any(name.startswith(f"{s.name}/") for name in s.outputs)]
    files = [path for stage in world.stages.values() for path in world.makes(stage)]
    found = [path for path in (*folders, *files, world.folder / RECORD, world.folder / PAGE) if path.exists()]
    return [path for path in found if not any(folder in found for folder in path.parents)]


def remove(world: World) -> None:
    """Removes what earlier calls made, and nothing else of the folder."""
    found = there(world)
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if found:
        print(f"{world.folder}: removed {', '.join(path.relative_to(world.folder).as_posix() for path in found)}")


@contextmanager
def below(folder: Path | None) -> Iterator[str]:
    """Makes a folder the artifacts root, and yields what stands before a command that is to find it again."""
    earlier = os.environ.get(ARTIFACTS)
    if folder is not None:
        os.environ[ARTIFACTS] = str(folder)
    try:
        yield "" if folder is None else f"{ARTIFACTS}={shlex.quote(str(folder))} "
    finally:
        if folder is not None:
            os.environ.pop(ARTIFACTS)
            os.environ |= {} if earlier is None else {ARTIFACTS: earlier}


@command("ohlora demo")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "demo",
        "Runs the chain at its smallest, from generated images to a character that moves, and ends with a page that "
        "shows what was made. It takes two to seven minutes on two CPU cores. What is done is kept: a second call goes "
        "on where the first was stopped.",
        "",
        "--output /tmp/try --seed 3",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"make everything in DIR/demo (default: {artifacts_root() / 'demo'})",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of everything random (default: 0)")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="remove what earlier calls made, with what was chosen in the studio, and start anew",
    )
    given = parser.parse_args(args)
    started = time.monotonic()
    with below(given.output) as before:
        if given.fresh:
            remove(pipeline.world(WORLD))
        demo = Demo(given.seed, before)
        demo.run()
        page = demo.page()
    character = demo.root / "characters" / "mina.safetensors"
    sizes = "Its fine-tunes see 2,000 and 3,000 images; those of the toy world 50,000 and 10,000."
    print(f"\nDone in {time.monotonic() - started:.0f} s. {sizes}")
    print(f"Open {page} in a browser; {character.with_suffix('.html')} steers the character. Or in Python:")
    print(f"  import ohlora\n  ohlora.Character.load('{character}').render(eyes=0.5, mouth=-1.0, pose=0.5).show()")

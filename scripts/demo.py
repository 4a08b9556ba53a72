"""The chain at its smallest: generate, filter, score, fine-tune v1 and v8 on what was kept, and make a character.

python -m scripts.demo
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ohlora.__main__ import main as ohlora
from ohlora.files import read_rows
from ohlora.rules import AT_HALF
from ohlora.tracking import newest_checkpoint, run_of

from . import animate_character, export_character, filter_images, select_characters

STAGES = (
    "generate_10k",
    "score_10k",
    "filter_10k",
    "score_properties",
    "finetune_v1",
    "generate_15k",
    "score_15k",
    "filter_15k",
    "finetune_v8",
    "vectorfind_v9",
    "character",
)
RULES = {
    "10k": AT_HALF,
    "15k": ("gender >= 0.92", "quality >= 0.9", "age <= 0.008", "glass <= 0.01"),
}


def configs(stage: str) -> list[str]:
    """The options that lay the demo's overlays over a stage's recipe."""
    files = (f"configs/{stage}.yaml", f"configs/toy/{stage}.yaml", f"configs/toy/demo/{stage}.yaml")
    return [word for file in files for word in ("--config", file)]


def step(say: str, command: str, words: list[str], run: Callable[[list[str]], int] = ohlora) -> None:
    """Says what comes, shows the command, and runs it."""
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    print(f"\n# {say}\n$ {command} {shown}", flush=True)
    code = run(words)
    if code:
        sys.exit(code)


def filtered(root: Path, count: str) -> None:
    """Filters one of the two generated sets."""
    rules = [word for rule in RULES[count] for word in ("--keep", rule)]
    tables = [str(root / f"score_{count}" / "scores.csv"), str(root / f"filter_{count}" / "manifest.csv")]
    step(
        "Keep the young women without glasses", "python scripts/filter_images.py", [*tables, *rules], filter_images.main
    )


def character(root: Path) -> None:
    """Chooses the first candidate, writes it as a character, and plays it."""
    tested, folder = root / "vectorfind_v9", root / "character"
    with_generator = ["--generator", str(root / "finetune_v8" / "generator.safetensors")]
    step(
        "Rank those that follow",
        "python scripts/select_characters.py",
        [str(tested), str(folder), "--count", "8", *with_generator],
        select_characters.main,
    )
    case = read_rows(folder / "candidates.csv")[0]["case"]
    file = str(folder / "character.safetensors")
    step(
        "Write the first as a character",
        "python scripts/export_character.py",
        ["tested", str(tested), case, file, *with_generator],
        export_character.main,
    )
    step(
        "Play it",
        "python scripts/animate_character.py",
        [file, str(folder / "character.gif")],
        animate_character.main,
    )


def report(root: Path) -> None:
    """Names what there is to look at, and says how far the two fine-tunes came."""
    for stage in ("finetune_v1", "finetune_v8"):
        run = newest_run(root / stage)
        rows = read_rows(run / "metrics.csv")
        before = next(float(row["watch/concept_rate"]) for row in rows if row.get("watch/concept_rate"))
        after = next(float(row["final/concept_rate"]) for row in reversed(rows) if row.get("final/concept_rate"))
        fakes = sorted((run / "pictures").glob("fakes-*.png"))
        print(f"\n{stage}: {before:.0%} of its images fit the concept before, {after:.0%} after. Look at:")
        for what, path in (
            ("what it learned from (reals)", run / "pictures" / "reals-000000000.png"),
            ("before fine-tuning", fakes[0]),
            ("after fine-tuning, same latents", fakes[-1]),
            ("losses, scores, concept rate", run / "metrics.csv"),
            ("the fine-tuned generator", root / stage / "generator.safetensors"),
        ):
            print(f"  {what + ':':34}{path}")
    folder = root / "character"
    print("\nThe character. Look at:")
    for what, path in (
        ("candidates", folder / "candidates.png"),
        ("the edits of the best latent", sorted((root / "vectorfind_v9" / "sheets").glob("best_*.png"))[0]),
        ("the character, moving", folder / "character.gif"),
        ("its file", folder / "character.safetensors"),
    ):
        print(f"  {what + ':':34}{path}")
    print("Or in Python, after `import ohlora`:")
    print(f"ohlora.Character.load('{folder / 'character.safetensors'}').render(eyes=0.5, mouth=-1.0, pose=0.5).show()")
    print("\nAnd at what the networks saw in the images:")
    print(f"  {'scores of the original:':34}{root / 'score_10k' / 'scores.csv'}")
    print(f"  {'eyes, mouth, pose … of those kept:':34}{root / 'score_properties' / 'scores.csv'}")


def newest_run(stage_dir: Path) -> Path:
    """The run folder of a stage's newest checkpoint."""
    run = run_of(newest_checkpoint(stage_dir))
    assert run is not None
    return run


def main() -> int:
    """Runs the demo; returns its exit code."""
    started = time.monotonic()
    root = Path(os.environ.get("OHLORA_ARTIFACTS", "artifacts")) / "demo"
    for stage in STAGES:  # each demo tells its story from the start
        shutil.rmtree(root / stage, ignore_errors=True)
    entry = "python -m ohlora"
    step("1,000 images of the toy original StyleGAN", entry, ["predict", *configs("generate_10k")])
    step("Score them by gender, quality, age and glasses", entry, ["predict", *configs("score_10k")])
    filtered(root, "10k")
    step("Parse their faces and score what they show", entry, ["predict", *configs("score_properties")])
    step("Fine-tune v1 on them, labelled by those scores", entry, ["fit", *configs("finetune_v1")])
    step("1,000 images of fine-tune v1", entry, ["predict", *configs("generate_15k")])
    step("Score them as well", entry, ["predict", *configs("score_15k")])
    filtered(root, "15k")
    half = ["--model.init_args.kimg", "2"]
    step("Fine-tune v8 on them: 2,000 images seen", entry, ["fit", *configs("finetune_v8"), *half])
    step("Resume from where it stopped: 2,000 more", entry, ["fit", *configs("finetune_v8"), "--ckpt_path", "last"])
    step("Find what moves eyes, mouth and pose, and nothing else", entry, ["fit", *configs("vectorfind_v9")])
    step("Edit 48 other faces fifty times each; the judge looks", entry, ["test", *configs("vectorfind_v9")])
    character(root)
    print(f"\nDone in {time.monotonic() - started:.0f} s. The fine-tunes are a quarter and a tenth of the toy world's.")
    report(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())

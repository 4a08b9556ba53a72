"""The chain at its smallest: generate, filter, score, fine-tune on what was kept, resume once, name the pictures.

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
from ohlora.tracking import newest_checkpoint, run_of
from scripts import filter_images

STAGES = ("generate_10k", "score_10k", "filter_10k", "score_properties", "finetune_v8")
RULES = ("gender >= 0.5", "quality >= 0.5", "age <= 0.5", "glass <= 0.5")


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


def main() -> int:
    """Runs the demo; returns its exit code."""
    started = time.monotonic()
    root = Path(os.environ.get("OHLORA_ARTIFACTS", "artifacts")) / "demo"
    for stage in STAGES:  # each demo tells its story from the start
        shutil.rmtree(root / stage, ignore_errors=True)
    entry = "python -m ohlora"
    step("1,000 images of the toy original StyleGAN", entry, ["predict", *configs("generate_10k")])
    step("Score them by gender, quality, age and glasses", entry, ["predict", *configs("score_10k")])
    rules = [word for rule in RULES for word in ("--keep", rule)]
    tables = [str(root / "score_10k" / "scores.csv"), str(root / "filter_10k" / "manifest.csv")]
    step(
        "Keep the young women without glasses", "python scripts/filter_images.py", [*tables, *rules], filter_images.main
    )
    step("Parse their faces and score what they show", entry, ["predict", *configs("score_properties")])
    half = ["--model.init_args.kimg", "2"]
    step("Fine-tune on them: 2,000 images seen", entry, ["fit", *configs("finetune_v8"), *half])
    step("Resume from where it stopped: 2,000 more", entry, ["fit", *configs("finetune_v8"), "--ckpt_path", "last"])

    run = run_of(newest_checkpoint(root / "finetune_v8"))
    assert run is not None
    fakes = sorted((run / "pictures").glob("fakes-*.png"))
    generated = sorted((root / "generate_10k" / "runs").glob("*/pictures/generated-*.png"))
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. So short a fine-tuning changes little; what it learns from\n"
        "is the picture of reals: only faces that fit the concept. Look at:"
    )
    for what, path in (
        ("generated images", generated[-1]),
        ("their scores", root / "score_10k" / "scores.csv"),
        ("what was kept (reals)", run / "pictures" / "reals-000000000.png"),
        ("eyes, mouth, pose … of those", root / "score_properties" / "scores.csv"),
        ("before fine-tuning", fakes[0]),
        ("after fine-tuning, same latents", fakes[-1]),
        ("losses and scores", run / "metrics.csv"),
        ("the fine-tuned generator", root / "finetune_v8" / "generator.safetensors"),
    ):
        print(f"  {what + ':':34}{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The main job at its smallest: generates toy images, fine-tunes on them, resumes once, names the pictures.

python scripts/demo.py
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from ohlora.__main__ import main as ohlora
from ohlora.tracking import newest_checkpoint, run_of

STAGES = ("generate_10k", "finetune_v8")


def configs(stage: str) -> list[str]:
    """The options that lay the demo's overlays over a stage's recipe."""
    files = (f"configs/{stage}.yaml", f"configs/toy/{stage}.yaml", f"configs/toy/demo/{stage}.yaml")
    return [word for file in files for word in ("--config", file)]


def step(say: str, *words: str) -> None:
    """Says what comes, shows the command, and runs it."""
    print(f"\n# {say}\n$ python -m ohlora {' '.join(words)}", flush=True)
    code = ohlora(list(words))
    if code:
        sys.exit(code)


def main() -> int:
    """Runs the demo; returns its exit code."""
    started = time.monotonic()
    root = Path(os.environ.get("OHLORA_ARTIFACTS", "artifacts")) / "demo"
    for stage in STAGES:  # each demo tells its story from the start
        shutil.rmtree(root / stage, ignore_errors=True)
    step("1,000 images of the toy original StyleGAN", "predict", *configs("generate_10k"))
    half = ["--model.init_args.kimg", "2"]
    step("Fine-tune on them: 2,000 images seen", "fit", *configs("finetune_v8"), *half)
    step("Resume from where it stopped: 2,000 more", "fit", *configs("finetune_v8"), "--ckpt_path", "last")

    run = run_of(newest_checkpoint(root / "finetune_v8"))
    assert run is not None
    fakes = sorted((run / "pictures").glob("fakes-*.png"))
    generated = sorted((root / "generate_10k" / "runs").glob("*/pictures/generated-*.png"))
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. The generator was fine-tuned on images of its own,\n"
        "unfiltered: the faces should look as before, and the discriminator find no difference\n"
        "(auroc/real_fake near 0.5). Look at:"
    )
    for what, path in (
        ("generated images", generated[-1]),
        ("before fine-tuning", fakes[0]),
        ("after fine-tuning, same latents", fakes[-1]),
        ("losses and scores", run / "metrics.csv"),
        ("the fine-tuned generator", root / "finetune_v8" / "generator.safetensors"),
    ):
        print(f"  {what + ':':34}{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

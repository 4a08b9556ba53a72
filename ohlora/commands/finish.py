"""Makes the product of a training that was stopped early, of the run's newest checkpoint as it is.

The product says so in its provenance (``partial``). The run can still be resumed; its end replaces the product.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from ohlora.errors import ConfigError, MissingArtifactError
from ohlora.utils import mistakes
from ohlora.utils.commands import arguments
from ohlora.utils.files import shortened

PLAIN = {
    "accelerator": "cpu",
    "devices": "1",
    "num_nodes": "1",
    "strategy": "auto",
    "precision": "32-true",
    "logger": "false",
    "callbacks": "null",
    "fast_dev_run": "false",
    "overfit_batches": "0.0",
    "limit_train_batches": "null",
    "limit_val_batches": "null",
    "max_steps": "-1",
    "min_steps": "null",
    "min_epochs": "null",
    "num_sanity_val_steps": "0",
    "max_time": "null",
    "enable_progress_bar": "false",
}
"""Settings of the trainer that would stand in the way; nothing is trained or measured."""


def words_of(run: Path) -> list[str]:
    """The command line that finishes a run.

    Raises:
        MissingArtifactError: If the folder is none of a training with a checkpoint.
    """
    config = run / "config.yaml"
    if not config.is_file():
        raise MissingArtifactError(f"{config} does not exist; expected the folder of a run, and {_runs_near(run)}")
    from ohlora.tracking import checkpoints_in

    found = checkpoints_in(run)
    if not found:
        raise MissingArtifactError(f"{run} has no checkpoint; only a training that has saved one can be finished")
    if run.resolve().parent.name != "runs":
        raise ConfigError(f"{run} does not lie in the folder runs of a stage, to which its product belongs")
    trainer = PLAIN | {"default_root_dir": str(run.parent.parent)}
    settings = [word for name, value in trainer.items() for word in (f"--trainer.{name}", value)]
    return ["fit", "--config", str(config), *settings, "--ckpt_path", str(found[-1])]


def _runs_near(folder: Path) -> str:
    """Which runs there are where a run was looked for, as the end of a sentence."""
    nearest = next(place for place in (folder, *folder.parents) if place.is_dir())
    for pattern in ("[0-9]*", "runs/[0-9]*", "*/runs/[0-9]*", "*/*/runs/[0-9]*"):
        if found := sorted(str(config.parent) for config in nearest.glob(f"{pattern}/config.yaml")):
            return f"there {'is' if len(found) == 1 else 'are'} {shortened(found, ', ')}"
    return f"there is none below {nearest.absolute()}"


def main(args: list[str] | None = None) -> int:
    """Runs the command."""
    parser = arguments(
        "finish",
        "Makes the product of a training that was stopped early, of its newest checkpoint, and marks it as such.",
        "artifacts/finetune_v8/runs/0001",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    given = list(sys.argv[1:] if args is None else args)
    traceback = "--traceback" in given
    run: Path = parser.parse_args([word for word in given if word != "--traceback"]).run
    try:
        from ohlora import commandline

        words, world = commandline.expanded(words_of(run))
    except Exception as error:
        return mistakes.answer("ohlora finish", mistakes.readable(error), traceback)
    from ohlora import cli

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")  # of those left out
        return cli.run(words, world, traceback, cli.Finish)

"""The entry point: a thin LightningCLI with the project's defaults."""

from __future__ import annotations

import logging
import os
import pkgutil
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ohlora import commandline, outcomes, renamed, tracking, worlds
from ohlora.callbacks.checkpoint import ImagesSeenCheckpoint, read_checkpoint
from ohlora.callbacks.grids import SampleGrid
from ohlora.callbacks.progress import Progress
from ohlora.callbacks.stopping import Stopping
from ohlora.errors import ConfigError, MissingArtifactError, OhloraError
from ohlora.formats import network_files
from ohlora.modules.base import Stage
from ohlora.outcomes import NothingToDo
from ohlora.tracking import RunLogger
from ohlora.utils import checks, mistakes, signals, threads
from ohlora.utils.files import replacing
from ohlora.utils.locks import Lock
from ohlora.worlds import World

OF_EACH: dict[str, Any] = {"parser_mode": "omegaconf", "exit_on_error": False, "allow_abbrev": False}
PARSER: dict[str, Any] = OF_EACH | {"prog": "ohlora"} | dict.fromkeys(worlds.VERBS, OF_EACH)
"""How the parser and those of the commands read: settings are not abbreviated."""


class CLI(LightningCLI):
    """LightningCLI with run folders, resuming by ``--ckpt_path last`` and the user's words above the checkpoint's."""

    locks: ClassVar[list[Lock]] = []
    """What the run holds."""
    world = worlds.DEFAULT
    """The world whose paths and attributes are meant, as it was given."""
    told: ClassVar[bool] = False
    """Whether it has been said how to go on after a signal."""
    finishing = False
    """Whether to make a product of the checkpoint as it is, instead of training on."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the world, the checkpoint callback, which every stage has, and the project's defaults."""
        parser.add_argument(
            "--world",
            default=worlds.DEFAULT,
            help=f"where artifacts are kept: {', '.join(worlds.SHIPPED)}, or the path of a world's file",
        )
        parser.add_lightning_class_args(ImagesSeenCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.logger": {"class_path": "ohlora.tracking.RunLogger"},
                "trainer.max_epochs": -1,
                "trainer.use_distributed_sampler": False,
                "trainer.enable_model_summary": False,
                "trainer.num_sanity_val_steps": 0,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and joins the settings that the stage shares with its data.

        What was said in files and on the command line, as against defaults, is kept in ``said``.

        Raises:
            ConfigError: If a setting that follows another was given, and is not the same, or a configuration names
                another world than the one whose paths are meant.
        """
        words = [word for word in args if not word.startswith("--print_config")]
        # Nothing public parses what was said without insisting on what is to be linked.
        self.said = parser.parse_args(words, defaults=False, _skip_validation=True)
        command = str(self.said.subcommand)
        named = self.said[command].get("world", self.world)
        if named != self.world:
            raise ConfigError(
                f"a configuration says world: {named}, and paths are those of {self.world}; add --world {named}"
            )
        links = self._link(command)
        self.config = parser.parse_args(args)
        for source, target in links.items():
            value, typed = self.config[command].get(source), self.said[command].get(target)
            if typed is not None and typed != value:
                raise ConfigError(
                    f"{target} is {typed}, and {source} is {value}; expected the same. Give {source} only: the data "
                    "follows it"
                )

    def _link(self, command: str) -> dict[str, str]:
        """Makes settings of the data follow those of the stage; which ones, the stage's class says in ``shared``."""
        module, _, name = str(self.said[command].get("model.class_path")).rpartition(".")
        shared = getattr(getattr(sys.modules.get(module), name, None), "shared", ())
        links = {f"model.init_args.{name}": f"data.init_args.{name}" for name in shared}
        for source, target in links.items():
            self._parser(command).link_arguments(source, target)
        return links

    # Lightning's own takes every setting from the checkpoint, over the user's words, and fails on "last". It is called
    # between parsing and before_instantiate_classes; the public hooks there come too early (the configuration is not
    # yet final) or too late (stage and data are linked).
    def _parse_ckpt_path(self) -> None:
        """Finds the checkpoint and takes from it only what the user has not said."""
        command = str(self.config.subcommand)
        config = self.config[command]
        self.checkpoint: Path | None = None
        self.content: dict[str, Any] = {}
        if config.get("ckpt_path") is None:
            return
        stage = pkgutil.resolve_name(config.model.class_path)
        if not getattr(stage, "resumable", True):
            raise ConfigError(f"{stage.__name__} has no checkpoint; start it anew, without --ckpt_path")
        given = str(config.ckpt_path)
        stage_dir = config.trainer.default_root_dir or "."
        path = tracking.newest_checkpoint(stage_dir) if given == "last" else Path(given)
        if not path.is_file():
            raise MissingArtifactError(f"--ckpt_path {given}: no such file; 'last' finds the stage's newest checkpoint")
        self.checkpoint = path
        config.ckpt_path = str(path)
        of_run = tracking.run_of(path.resolve())
        if command == "fit" and of_run is not None and of_run.parent.parent != Path(stage_dir).resolve():
            raise ConfigError(
                f"{path} belongs to a run of the stage in {of_run.parent.parent}, and trainer.default_root_dir is "
                f"{stage_dir}; name a checkpoint of this stage, or --ckpt_path last"
            )
        content = self.content = read_checkpoint(path)
        stored = dict(content.get("hyper_parameters", {}))
        stored.pop("_instantiator", None)
        written_by = stored.pop("_class_path", config.model.class_path)
        if written_by != config.model.class_path:
            raise OhloraError(
                f"{path} was written by {written_by}, the configuration is for {config.model.class_path}; name a "
                "checkpoint of this stage, or --ckpt_path last"
            )
        unknown = [key for key in stored if key not in config.model.init_args]
        if unknown:
            what = "; ".join(renamed.setting_now(key) if key in renamed.SETTINGS else key for key in unknown)
            raise OhloraError(
                f"{path} has settings that {written_by} does not know: {what}. It was written by another version of "
                "ohlora: go on with that one, or start the stage anew"
            )
        said = self.said[command].get("model.init_args") or {}
        unsaid = {key: value for key, value in stored.items() if key not in said}
        if unsaid:
            merged = {command: {"model": {"class_path": config.model.class_path, "init_args": unsaid}}}
            self.config = self.parser.parse_object(merged, self.config)

    def instantiate_classes(self) -> None:
        """Builds stage, data and trainer, and connects them; a value that is refused is an error the user can mend."""
        try:
            super().instantiate_classes()
            if isinstance(self.model, Stage):
                self.model.connect(self.datamodule, self.trainer.loggers)
                self._check()
        except (TypeError, ValueError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None and not isinstance(cause, OhloraError):
                cause = cause.__cause__
            raise (
                cause if isinstance(cause, OhloraError) else ConfigError(mistakes.readable(cause) or str(cause))
            ) from error

    def _check(self) -> None:
        """Checks what would only go wrong later: the trainer's settings and the checkpoint against the stage."""
        stage = self.model
        if self.config.subcommand != "fit":
            return
        for name, off in (("gradient_clip_val", (None, 0)), ("accumulate_grad_batches", (1,))):
            if not stage.automatic_optimization and (value := getattr(self.trainer, name)) not in off:
                raise ConfigError(
                    f"trainer.{name} is {value}; {type(stage).__name__} takes its own optimizer steps, in which it has "
                    "no effect. Leave it out"
                )
        for name in ("min_epochs", "min_steps"):
            if not stage.automatic_optimization and (value := getattr(self.trainer, name)):
                raise ConfigError(
                    f"trainer.{name} is {value}; {type(stage).__name__} has an end of its own, beyond which it cannot "
                    "train. Leave it out"
                )
        self._check_trainer()
        if self.content:
            stage.check_checkpoint(self.content)

    def _check_trainer(self) -> None:
        """Checks what Lightning lets through: numbers, and what would train or validate before the training."""
        trainer: Any = self.trainer
        checks.at_least(1, **{"trainer.accumulate_grad_batches": trainer.accumulate_grad_batches})
        checks.at_least(0, **{"trainer.gradient_clip_val": trainer.gradient_clip_val})
        if isinstance(trainer.val_check_interval, int | float):
            checks.above(0, **{"trainer.val_check_interval": trainer.val_check_interval})
        if trainer.num_sanity_val_steps:
            raise ConfigError(
                f"trainer.num_sanity_val_steps is {trainer.num_sanity_val_steps}; a validation before the first step "
                "would count as an epoch. Leave it out"
            )
        for callback in trainer.callbacks:
            if isinstance(callback, BatchSizeFinder | LearningRateFinder):
                raise ConfigError(
                    f"trainer.callbacks has {type(callback).__name__}, whose trial trainings would count as the run. "
                    "Leave it out, and compare short runs (trainer.max_steps)"
                )

    def _check_folders(self, command: str) -> None:
        """Insists on folders that can be written, with room for what a checkpoint holds at least."""
        stage, training = self.model, command == "fit" and getattr(self.model, "resumable", False)
        size = sum(tensor.nbytes for tensor in stage.state_dict().values()) if training else 0
        checks.writable(self.trainer.default_root_dir, size)
        output = getattr(stage, "output", None)
        if isinstance(output, Path) and command != "validate":
            checks.writable(output.parent if output.suffix == ".csv" else output)
            sources = vars(self._get(self.config, "data").init_args).values()
            if any(isinstance(source, str) and Path(source).resolve() == output.resolve() for source in sources):
                raise ConfigError(
                    f"model.init_args.output is {output}, which the data is read from and would be lost; choose another"
                )
            if output.suffix == ".csv" and output.is_dir():
                raise ConfigError(f"model.init_args.output is {output}, which is a folder; expected a file to write")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Adds what each run has: the line of progress, the way signals are heard, and a logger for the run's folder.

        The line of progress is left out where it is off or the user chose another; it hears of each step first. Grids
        hear of it last: they tell what was measured.
        """
        settings = self._get(self.config_init, "trainer")
        callbacks = settings.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        chosen = any(isinstance(callback, ProgressBar) for callback in callbacks)
        shown = settings.get("enable_progress_bar") is not False and not chosen
        callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, SampleGrid))
        kwargs["callbacks"] = [Stopping(), *([Progress()] if shown else []), *callbacks]
        trainer = super().instantiate_trainer(**kwargs)
        if settings.get("strategy") == "auto" and trainer.world_size > 1:
            # Phases of a step, and members of an ensemble, leave parameters out, for which plain DDP has no patience.
            trainer = super().instantiate_trainer(**kwargs, strategy="ddp_find_unused_parameters_true")
        # trainer.fast_dev_run puts a logger that writes nothing in place of all others.
        kept = [logger for logger in trainer.loggers if not isinstance(logger, DummyLogger)]
        own = [logger for logger in kept if isinstance(logger, RunLogger)] or [RunLogger(mode="disabled")]
        trainer.loggers = [*own, *(logger for logger in kept if logger not in own)]
        return trainer

    def after_validate(self) -> None:
        """Says what was measured: no stage does, since a validation is part of its training."""
        measured = self.trainer.callback_metrics
        if self.trainer.is_global_zero:
            print(", ".join(f"{name} {float(value):.4g}" for name, value in measured.items()))

    def before_instantiate_classes(self) -> None:
        """Takes what commands have no use for out of the configuration.

        Raises:
            ConfigError: If a setting of stage or data is an empty text.
        """
        config = self.config[str(self.config.subcommand)]
        for part in ("model", "data"):
            given = (config.get(part) or {}).get("init_args") or {}
            empty = [f"{part}.init_args.{name}" for name, value in vars(given).items() if value == ""]
            if empty:  # pathlib would take the current folder
                raise ConfigError(f"{empty[0]} is empty; expected a value, or null for none")
        if self.config.subcommand == "predict":
            config.return_predictions = False  # they are in files, and all together may not fit into memory
        elif self.config.subcommand in ("validate", "test"):
            config.verbose = False  # Lightning's table of everything, below which the result would be lost

    def before_fit(self) -> None:
        """See :meth:`_open`."""
        outcomes.refuse_nothing(self.trainer)
        self._open("fit")

    def before_validate(self) -> None:
        """See :meth:`_open`."""
        self._open("validate")

    def before_test(self) -> None:
        """See :meth:`_open`."""
        self._open("test")

    def before_predict(self) -> None:
        """See :meth:`_open`."""
        self._open("predict")

    def _open(self, command: str) -> None:
        """Ends an idle run, and gives any other its folder: a new one, or the one of the checkpoint it goes on from.

        The folder, and what a prediction, test or search fills, are locked until the process ends.

        Raises:
            NothingToDo: If there is nothing to do; nothing has been written then.
            ConfigError: If another run holds folder or output.
        """
        fitting, stage = command == "fit", self.model
        of_checkpoint = tracking.run_of(self.checkpoint) if self.checkpoint and fitting else None
        root = Path(self.trainer.default_root_dir)
        if isinstance(stage, Stage):
            stage.finishing = self.finishing
            reason = stage.nothing_to_do(self.trainer, self.content if fitting else None) if command != "test" else None
            made = [folder / name for folder in (root, of_checkpoint or root) for name in stage.products[-1:]]
            if reason is not None and all(map(network_files.is_whole, made)):
                raise NothingToDo(f"{reason}: nothing to do")
        self._check_folders(command)
        free = self.trainer.world_size == 1 and not self.content  # Lightning, or the checkpoint, says it otherwise
        if free and self.trainer.strategy.root_device.type == "cpu":
            measured = threads.choose()
            if measured is not None and sys.stdout.isatty():  # a pipe gets results alone
                print(measured)
        if getattr(rank_zero_only, "rank", 0) != 0:
            return
        if isinstance(stage, Stage) and stage.output is not None and command != "validate":
            self.locks.append(Lock(stage.output))
        run = of_checkpoint or tracking.new_run(root)
        self.locks.append(Lock(run))
        told = self._parser(command).dump(self.config[command], skip_unset=False, skip_link_targets=False)
        for logger in tracking.run_loggers(self.trainer):
            logger.run_dir = str(run)
            logger.describe(Path(self.world).stem, command, yaml.safe_load(told))
            if fitting and of_checkpoint is not None and self.content.get("wandb_run_id") is not None:
                logger.run_id = self.content["wandb_run_id"]
        if not self.finishing:
            self._save_config(run / "config.yaml", told)

    def _save_config(self, path: Path, told: str) -> None:
        """Saves the resolved configuration; a resumed run keeps the earlier ones beside it."""
        if path.is_file():
            earlier = len(list(path.parent.glob("config.*.yaml")))
            path.rename(path.with_name(f"config.{earlier + 1}.yaml"))
        with replacing(path) as part:
            part.write_text(told, encoding="utf-8")

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs the command; says how to go on if a signal stops it."""
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            number = signals.received()
            if number is not None and self.trainer.is_global_zero and isinstance(self.model, Stage):
                print(f"stopped by {number.name} {self.model.how_to_go_on()}")
                type(self).told = True
            raise


class Finish(CLI):
    """Makes the product of a run's newest checkpoint."""

    finishing = True


def run(words: list[str], world: World, traceback: bool, cli: type[CLI] = CLI) -> int:
    """Runs one command of a stage.

    Args:
        words: Its long form, see :func:`ohlora.commandline.expanded`.
        world: The world it speaks of.
        traceback: Whether errors that the user can mend are raised as well.
        cli: What runs it.

    Returns:
        The exit code: 0 when done, 2 for an error the user can mend, shown as one line, 143 for a run that SIGTERM
        stopped, and 130 for one that Ctrl-C stopped.
    """
    _quiet()
    cli.locks, cli.told, cli.world = [], False, world.given
    with signals.handled():
        try:
            commandline.use(world)
            cli(save_config_callback=None, seed_everything_default=0, parser_kwargs=PARSER, args=words)
        except NothingToDo as reason:
            print(reason)
        except (SIGTERMException, signals.Stopped):
            return _stopped(cli.told)
        except Exception as error:
            if signals.received() is not None:  # what a signal stopped elsewhere, such as a loader process
                return _stopped(cli.told)
            return mistakes.answer("ohlora", _readable(error, words), traceback)
        finally:
            signals.release()
            for lock in cli.locks:
                lock.release()
    return 0


def _stopped(told: bool) -> int:
    """The exit code of a run that a signal stopped."""
    number = signals.received() or signal.SIGTERM
    if not told and getattr(rank_zero_only, "rank", 0) == 0:
        print(f"stopped by {number.name} before anything was written; the same command starts anew")
    return 128 + number


def _readable(error: Exception, words: list[str]) -> str | None:
    """One line for an error the user can mend; None for any other."""
    if not isinstance(error, ArgumentError):
        return mistakes.readable(error, "go on with --ckpt_path last" if words[0] == "fit" else mistakes.AGAIN)
    if now := renamed.now_called(str(error)):
        return now
    lines = [text for line in str(error).splitlines() if (text := re.sub(r"^[-\s]+", "", line).strip())]
    starts = [k for k, line in enumerate(lines) if line.startswith("Problem with given class_path")]
    if starts:  # the lines around it list the types that were tried
        lines = [lines[0], *lines[starts[-1] :]]
    noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value type:")
    return " ".join(line for line in lines if not line.startswith(noise))


def _quiet() -> None:
    """Silences what neither users of these commands nor this project can do anything about."""
    for message in (
        r".*does not have many workers.*",  # images are held decoded in memory: loader processes would only copy them
        r".*Total length of `DataLoader` across ranks is zero.*",  # a finished set has nothing left to predict
        r".*is deprecated, use `isinstance\(treespec, TreeSpec\).*",  # Lightning's own call of torch
        r"Metric `.*` will save all .* in buffer.*",  # of AUROC: a few thousand scores are few MB
    ):
        warnings.filterwarnings("ignore", message=message)
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own calls
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_no_advice)  # the same function twice counts once


def _no_advice(record: logging.LogRecord) -> bool:
    """Whether Lightning says more than configuration and ``ohlora doctor`` do; it has no switch for these lines."""
    return not re.search(
        r"litlogger|`weights_only` was not set|Restored all states|Seed set to|[GTH]PU available|"
        r"`Trainer\.\w+` stopped|LOCAL_RANK: \d+ - CUDA_VISIBLE_DEVICES|Running in `fast_dev_run` mode|"
        r"Detected KeyboardInterrupt|will override existing callbacks",
        record.getMessage(),
    )

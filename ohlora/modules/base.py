"""What every stage has in common, and what keeps training safe: settings across a resume, finite updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from ohlora import outcomes
from ohlora.datamodules.base import ImageDataModule
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.tracking import RunLogger, checkpoints_in, run_folder, run_loggers
from ohlora.utils import signals, threads
from ohlora.utils.files import shortened

Data = TypeVar("Data", bound=L.LightningDataModule)


class Stage(L.LightningModule, Generic[Data]):
    """Base of the stages: the data they work on, the images-seen clock, and writing to the loggers.

    A stage is connected to its data once, before training or prediction starts; the command line does that. From
    Python::

        stage.connect(data, trainer.loggers)
        trainer.fit(stage, datamodule=data)

    Settings go from the stage to the data in :meth:`hand_over` only; no datamodule looks at the stage. Scalars go
    through ``self.log`` or, where Lightning does not allow that (prediction, start and end of training), through
    ``log_metrics`` of the loggers; pictures and tables through :meth:`show`.

    A training that was completed leaves its product, made by :meth:`make_products`; a partial one does not, see
    :mod:`ohlora.outcomes`. What is measured at the end comes after the product, in ``on_fit_end``.

    Attributes:
        data_type: The kind of datamodule that the stage works on.
        resumable: Whether there are checkpoints to go on from.
        fixed: Settings that a resumed run must have as they were.
        output: Folder or file that a prediction, a test or a search fills; None where there is none.
        products: Files that a training leaves in the folder of the stage, in the order in which they are written.
        finishing: Whether the stage is to make its products from a checkpoint as it is, without further training.
        images_seen: The clock: images seen in training so far, by all processes together; a scalar, int64.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = L.LightningDataModule
    resumable: ClassVar[bool] = True
    fixed: ClassVar[tuple[str, ...]] = ()
    output: Path | None = None
    products: Sequence[str] = ()
    finishing = False
    images_seen: Tensor
    _data: Data | None = None
    _concluded = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.long))
        self._configured: list[list[dict[str, Any]]] = []

    def clock(self) -> int:
        """Images seen so far."""
        return int(self.images_seen)

    def connect(self, data: L.LightningDataModule, loggers: Iterable[Logger] = ()) -> None:
        """Takes the trainer's data and loggers, and hands over what these need to know: loggers get the clock.

        Raises:
            ConfigError: If the data is of another kind than the stage works on.
        """
        if not isinstance(data, self.data_type):
            raise ConfigError(
                f"the data is {type(data).__name__}; {type(self).__name__} works on {self.data_type.__name__}. Set "
                "data.class_path"
            )
        self._data = data  # type: ignore[assignment]  # data_type says which kind
        self.hand_over(self.data)
        for logger in loggers:
            if isinstance(logger, RunLogger):
                logger.connect(self.clock)

    def hand_over(self, data: Data) -> None:
        """Hands the data what it takes from the stage, by ``data.connect(...)``: for images, the clock."""
        if isinstance(data, ImageDataModule):
            data.connect(self.clock)

    @property
    def data(self) -> Data:
        """The datamodule of the run; raises a ConfigError if the stage has not been connected."""
        if self._data is None:
            raise ConfigError(f"{type(self).__name__} has no data; call connect(data) before the trainer starts")
        return self._data

    def show(
        self, pictures: Mapping[str, np.ndarray] | None = None, tables: Mapping[str, list[dict[str, Any]]] | None = None
    ) -> None:
        """Writes pictures (H×W×3 uint8) and tables of this moment to the run folder and W&B."""
        for logger in run_loggers(self.trainer):
            logger.record(pictures, tables)

    # --- whole, partial, idle

    @property
    def completed(self) -> bool:
        """Whether training has come to the end that the configuration gives it."""
        return True

    def nothing_to_do(self, trainer: L.Trainer, checkpoint: Mapping[str, Any] | None) -> str | None:
        """Why a run would have nothing to do, or None; asked before anything is written.

        Args:
            trainer: The trainer that would run.
            checkpoint: Content of the checkpoint that training would go on from, if any.
        """
        return None

    def partial(self) -> str | None:
        """Why this run, whose end has been reached, is not whole; None if it is."""
        if (setting := outcomes.left_out(self.trainer)) is not None:
            return f"{setting} leaves part of it out"
        if self.trainer.state.fn == "fit" and not self.completed:
            return f"training ended early, after {self.clock()} images"
        return None

    def make_products(self, about: Mapping[str, Any]) -> None:
        """Writes what a training leaves, on rank zero; ``about`` is added to the provenance."""

    def conclude(self) -> None:
        """Makes the products if the stage was completed, and says so if not; at the end of training, once."""
        if self._concluded:
            return
        self._concluded = True
        self.whole = (reason := self.partial()) is None
        if not self.trainer.is_global_zero:
            return
        if self.whole:
            self.make_products({})
        elif self.finishing:
            self.make_products({"partial": f"made by ohlora finish of a run stopped after {self.clock()} images"})
        else:
            self.say_partial(str(reason))

    def say_partial(self, reason: str) -> None:
        """Says that a partial run has left everything outside its folder as it was."""
        stage, run = Path(self.trainer.default_root_dir), run_folder(self.trainer)
        files = [stage / name for name in self.products] or [self.output or stage]
        more = f"; to make it of this run: ohlora finish {run}" if self.products and self.resumable else ""
        stands = "stands as it was" if files[-1].exists() else "was not written"
        print(f"partial run ({reason}): {files[-1]} {stands}; the run is in {run}{more}")

    def how_to_go_on(self) -> str:
        """What a run that a signal stopped has kept, and how to go on."""
        if self._concluded and self.products:
            return "after the product was written" if self.whole else "at the end of a partial run"
        if self.trainer.state.fn != "fit":
            return "before anything was written; the same command starts anew"
        newest = checkpoints_in(run_folder(self.trainer))[-1:]
        return (
            f"at {newest[0]}; go on with --ckpt_path last"
            if newest
            else "before there was anything to keep; start anew"
        )

    # --- training

    def scheduled(self, optimizers: list[Optimizer], schedule: LRSchedulerCallable | None) -> Any:
        """What ``configure_optimizers`` returns: optimizers, whose settings are noted, and a schedule for each."""
        self._configured = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in optimizers
        ]
        return (optimizers, [schedule(optimizer) for optimizer in optimizers]) if schedule else optimizers

    def check_checkpoint(self, checkpoint: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> None:
        """Insists on a checkpoint of the networks and optimizers that are configured.

        Args:
            checkpoint: Its content.
            state: What it must hold; None takes the parameters, which are known before there are data.

        Raises:
            ConfigError: Naming what differs.
        """
        advice = "go on with the settings that the checkpoint was made with, or start anew without --ckpt_path"
        stored = checkpoint.get("hyper_parameters", {})
        differing = [
            f"{name} is {stored[name]} in the checkpoint and {self.hparams[name]} now"
            for name in self.fixed
            if name in stored and name in self.hparams and stored[name] != self.hparams[name]
        ]
        if differing:
            raise ConfigError(f"{shortened(differing)}; {advice}")
        here, there = state if state is not None else dict(self.named_parameters()), checkpoint["state_dict"]
        wrong = [f"{name} is missing" for name in here if name not in there]
        wrong += [f"{name} is not known" for name in there if state is not None and name not in here]
        wrong += [
            f"{name} has shape {tuple(there[name].shape)}, expected {tuple(value.shape)}"
            for name, value in here.items()
            if name in there and there[name].shape != value.shape
        ]
        if wrong:
            raise ConfigError(f"the checkpoint holds other networks or data: {shortened(wrong)}; {advice}")
        made = self.configure_optimizers()
        optimizers: Any = made[0] if isinstance(made, tuple) else made
        states = checkpoint["optimizer_states"]
        if len(states) != len(optimizers):
            raise ConfigError(f"the checkpoint holds {len(states)} optimizers, expected {len(optimizers)}; {advice}")
        for optimizer, stepped in zip(optimizers, states, strict=True):
            groups = zip(optimizer.state_dict()["param_groups"], stepped["param_groups"], strict=False)
            if len(optimizer.param_groups) != len(stepped["param_groups"]) or any(
                len(group["params"]) != len(of_state["params"])
                or (group.keys() - of_state.keys() and of_state.keys() - group.keys() - {"initial_lr"})
                or any(group.get(name) != of_state.get(name) for name in ("amsgrad", "centered"))
                for group, of_state in groups
            ):
                raise ConfigError(
                    f"the checkpoint's optimizer was not a {type(optimizer).__name__} of these settings and parameters"
                    f"; {advice}"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the number of threads, on which the last bits of sums depend."""
        checkpoint["threads"] = torch.get_num_threads()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See :meth:`check_checkpoint`; now that there are data, of everything. Threads become as many as before."""
        self.check_checkpoint(checkpoint, self.state_dict())
        threads.restore(checkpoint.get("threads"))

    def on_train_start(self) -> None:
        """Drops logged rows that a resumed run measures again, and lets configured settings win over a checkpoint's.

        Only the learning rate goes on where a schedule has it.
        """
        if not self.finishing:
            for logger in run_loggers(self.trainer):
                logger.rewind()
        kept = ("lr", "initial_lr") if self.trainer.lr_scheduler_configs else ()
        for optimizer, groups in zip(self.trainer.optimizers, self._configured, strict=True):
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.update({key: value for key, value in settings.items() if key not in kept})
        if self.finishing:
            self.trainer.should_stop = True
        if self.resumable:
            signals.hold()  # a step is not cut

    def on_train_batch_end(self, *about: Any) -> None:
        """Stops training here if a signal came; at the end of an epoch that waits for the validation."""
        if self.resumable and not self.trainer.is_last_batch:
            self._stop_if_asked()

    def on_train_epoch_end(self) -> None:
        """Stops training here if a signal came."""
        if self.resumable:
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Lets Lightning stop after the step, on all ranks if on one, once everything about the step is written."""
        asked = signals.received() is not None
        if self.trainer.world_size > 1:
            asked = self.trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            self.trainer._signal_connector.received_sigterm = True

    def on_train_end(self) -> None:
        """Makes the products, before anything is measured."""
        self.conclude()
        if self.resumable:
            signals.release()
            signals.check()

    def on_fit_end(self) -> None:
        """The same where there was no step left to take."""
        self.conclude()


def try_optimizer(
    setting: str, optimizer: OptimizerCallable, schedule: LRSchedulerCallable | None, closure: bool
) -> None:
    """Takes a step of an optimizer and its schedule with a parameter of its own, so that wrong settings show at once.

    Args:
        setting: What the optimizer is called in the configuration.
        optimizer: Makes it.
        schedule: Makes its schedule, or None.
        closure: Whether training steps give the optimizer a closure.

    Raises:
        ConfigError: If it cannot be made or cannot step.
    """
    parameter = nn.Parameter(torch.ones(2, 2))
    what = setting
    try:
        made = optimizer([parameter])
        parameter.grad = torch.zeros(2, 2)
        what = "schedule"
        scheduler = schedule(made) if schedule is not None else None  # which counts the optimizer's steps
        what = setting
        made.step(lambda: 0.0) if closure else made.step()
        if scheduler is not None:
            what = "schedule"
            scheduler.step()
    except Exception as error:  # whatever the class thinks of its settings
        raise ConfigError(
            f"model.init_args.{what}: {type(error).__name__}: {error}; give it other settings or choose another class"
        ) from error


def check_finite(terms: Mapping[str, Tensor], parameters: Iterable[Tensor], network: str, when: str) -> None:
    """Insists on finite loss terms and gradients before an update is made with them.

    Raises:
        NonFiniteError: Naming the terms that are not finite, or the network that the parameters belong to, and ``when``
            that was, such as ``in step 7``.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    try:
        nn.utils.get_total_norm([*terms.values(), *gradients], error_if_nonfinite=True)
    except RuntimeError as error:
        if "non-finite" not in str(error):
            raise
        bad = [name for name, value in terms.items() if not torch.isfinite(value)] or [f"the gradient of {network}"]
        raise NonFiniteError(
            f"{', '.join(bad)} is not finite {when}: nothing was updated with it and the last checkpoint is untouched. "
            "Lower the learning rate, or look at the images of this step"
        ) from error

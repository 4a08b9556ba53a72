"""One folder per run, and the same metrics and pictures on Weights & Biases.

A stage's folder (``trainer.default_root_dir``) holds its product and ``runs/0001``, ``runs/0002``, …, each with the
resolved configuration, ``metrics.csv``, ``pictures/`` and ``checkpoints/``.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ohlora.errors import ConfigError, MissingArtifactError
from ohlora.utils import images
from ohlora.utils.accounts import wandb_key_found, wandb_reachable
from ohlora.utils.clock import Clock
from ohlora.utils.files import append_row, artifacts_root, read_rows, write_rows

CLOCK = "kimg"
EXTREMES = ("watch/", "loss/validation", "loss/inner_", "pearson/", "spearman/", "mse/", "mae/", "iou/", "eer/")
"""How the names of metrics begin whose least and greatest value W&B's summary of a run tells besides the last."""
WAIT = 30.0
"""Seconds that W&B has to answer at the start of a run."""
Mode = Literal["online", "offline", "disabled"]
MODES: Mapping[str, Mode] = {
    **{"online": "online", "run": "online", "shared": "online", "offline": "offline", "dryrun": "offline"},
    "disabled": "disabled",
}
"""Values of ``WANDB_MODE`` → ours."""


def new_run(stage_dir: str | Path) -> Path:
    """Makes the next numbered run folder of a stage."""
    runs = Path(stage_dir) / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    taken = max((int(p.name) for p in runs.iterdir() if re.fullmatch(r"\d{4,}", p.name)), default=0)
    for number in count(taken + 1):
        folder = runs / f"{number:04d}"
        with suppress(FileExistsError):  # another run took the number in the meantime
            folder.mkdir()
            break
    return folder


def checkpoint_folder(run_dir: str | Path) -> Path:
    """Where a run keeps its resumable checkpoints."""
    return Path(run_dir) / "checkpoints"


def checkpoints_in(run_dir: str | Path) -> list[Path]:
    """A run's resumable checkpoints, oldest first; names sort by images seen."""
    return sorted(checkpoint_folder(run_dir).glob("images-*.ckpt"))


def newest_checkpoint(stage_dir: str | Path) -> Path:
    """The newest checkpoint of the newest run of a stage that has one.

    Raises:
        MissingArtifactError: If no run of the stage has a checkpoint.
    """
    runs = sorted((Path(stage_dir) / "runs").glob("[0-9]*"), key=lambda p: (len(p.name), p.name), reverse=True)
    for run in runs:
        if found := checkpoints_in(run):
            return found[-1]
    raise MissingArtifactError(
        f"--ckpt_path last: no checkpoint below {Path(stage_dir) / 'runs'}; start the stage without --ckpt_path first"
    )


def run_of(checkpoint: str | Path) -> Path | None:
    """The run folder a checkpoint lies in, or None for a checkpoint elsewhere."""
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" and folder.parent.parent.name == "runs" else None


def run_folder(trainer: L.Trainer) -> Path:
    """Where a run writes: its own folder, or without one the stage's; known to rank zero."""
    folders = [logger.run_dir for logger in run_loggers(trainer) if logger.run_dir is not None]
    return Path(folders[0] if folders else trainer.default_root_dir)


def run_loggers(trainer: L.Trainer) -> list[RunLogger]:
    """The loggers of a trainer that write to the run folder."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


def _mode_said() -> Mode | None:
    """What ``WANDB_MODE`` says, in letters of any case; W&B itself reads it too, and takes small ones only.

    Raises:
        ConfigError: If it says something else.
    """
    said = os.environ.get("WANDB_MODE", "").strip()
    if not said:
        return None
    if said.lower() not in MODES:
        raise ConfigError(f"WANDB_MODE is {said!r}; expected online, offline or disabled")
    os.environ["WANDB_MODE"] = MODES[said.lower()]
    return MODES[said.lower()]


class RunLogger(Logger):
    """Writes metrics, pictures and tables to the run folder and to Weights & Biases, on the kimg axis.

    Lightning's own ``WandbLogger`` counts steps, which two optimizers and several batch sizes make meaningless.

    On W&B a run has its stage as job type, its world and command as tags, and the whole configuration; the entry point
    tells these by :meth:`describe`. What is printed is kept, too.

    Args:
        project: W&B project.
        name: W&B run name; None takes ``WANDB_NAME`` of the environment, and without it stage and number of the run,
            such as ``finetune_v8/0001``.
        mode: ``auto`` is online where a key is found (``WANDB_API_KEY`` or netrc) and offline otherwise, never asking;
            ``disabled`` keeps the run folder only.
        run_dir: The run's folder; the entry point fills it in.
        run_id: W&B run to go on with; the entry point takes it from the checkpoint.
        tags: W&B tags, besides the world and the command.
        group: W&B group; None takes ``WANDB_RUN_GROUP`` of the environment, by which the runs of a pipeline can be
            grouped, and without it the world.
        log_model: Whether what a run makes of networks and directions is kept on W&B as artifacts, together with what
            it was made from. W&B takes no inputs of an offline run; then only the configuration names them.
    """

    def __init__(
        self,
        project: str = "ohlora",
        name: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        run_dir: str | None = None,
        run_id: str | None = None,
        tags: list[str] | None = None,
        group: str | None = None,
        log_model: bool = False,
    ) -> None:
        super().__init__()
        self.project, self.run_name, self.tags, self.group = project, name, tags, group
        found = _mode_said() or ("online" if wandb_key_found() else "offline")
        self.mode: Mode = found if mode == "auto" else mode
        self.run_dir, self.run_id, self.log_model = run_dir, run_id or secrets.token_hex(4), log_model
        self._run: wandb.Run | None = None
        self._defined: set[str] = set()
        self._clock: Clock | None = None
        self._world: str | None = None
        self._about: list[str] = []
        self._config: Mapping[str, Any] = {}

    def describe(self, world: str, command: str, config: Mapping[str, Any]) -> None:
        """Tells, before the run begins, what it is.

        Args:
            world: Name of the world.
            command: ``fit``, ``validate``, ``test`` or ``predict``.
            config: The whole configuration, as nested mappings; W&B shows it in place of the stage's settings.
        """
        self._world, self._about, self._config = world, [world, command], config

    def connect(self, clock: Clock) -> None:
        """Takes over the stage's clock, the axis of everything."""
        self._clock = clock

    @property
    def kimg(self) -> float:
        """The moment: thousands of images seen.

        Raises:
            ConfigError: If the logger has not been connected.
        """
        if self._clock is None:
            raise ConfigError("RunLogger has no clock; call stage.connect(data, trainer.loggers) before the run")
        return self._clock() / 1000

    @property
    def name(self) -> str:
        """The W&B project."""
        return self.project

    @property
    def version(self) -> str:
        """The W&B run id."""
        return self.run_id

    @property
    def save_dir(self) -> str | None:
        """The run folder; known to rank zero, which Lightning broadcasts as ``trainer.log_dir``."""
        return self.run_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run:
        """The W&B run, with kimg as the axis of everything."""
        if self._run is None:
            if self.mode == "online" and not wandb_reachable():
                print("W&B cannot be reached: this run goes on offline")
                self.mode = "offline"
            try:
                self._run = self._begin()
            except wandb.errors.AuthenticationError as error:
                raise ConfigError(
                    f"W&B does not take the key: {error}. Run wandb login, or set WANDB_MODE=offline"
                ) from error
            except wandb.errors.CommError as error:
                if self.mode != "online":
                    raise
                print(f"W&B does not answer ({' '.join(str(error).split())[:160]}): this run goes on offline")
                wandb.teardown()
                self.mode = "offline"
                self._run = self._begin()
            self.run_id = self._run.id  # a sweep's agent chooses it
            self._run.define_metric(CLOCK)
            self._run.define_metric("*", step_metric=CLOCK)
            self._run.config.update(dict(self._config), allow_val_change=True)  # type: ignore[no-untyped-call]
            self._use_inputs(self._run)
            if self.mode == "offline":
                here = Path(self._run.dir).parent  # each time a run goes on, it gets another folder
                parts = sorted(here.parent.glob(f"offline-run-*-{self.run_id}"))
                print(f"W&B is offline; to upload this run: wandb sync {shlex.join(map(os.path.relpath, parts))}")
        return self._run

    def _begin(self) -> wandb.Run:
        """A new W&B run, or the one with this run's id."""
        run = Path(self.run_dir).resolve() if self.run_dir is not None else None
        stage = run.parent.parent.name if run is not None else None
        return wandb.init(
            project=self.project,
            name=self.run_name or os.environ.get("WANDB_NAME") or (f"{stage}/{run.name}" if run is not None else None),
            group=self.group or os.environ.get("WANDB_RUN_GROUP") or self._world,
            job_type=stage,
            tags=[*self._about, *(self.tags or [])],
            id=self.run_id,
            resume="allow",
            mode=self.mode,
            dir=self.run_dir or ".",
            settings=wandb.Settings(silent=True, console="wrap", init_timeout=WAIT),
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Adds the stage's settings to the W&B run, where the entry point has not told the whole configuration."""
        settings = vars(params) if isinstance(params, Namespace) else params
        self.experiment.config.update({} if self._config else settings, allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Notes numbers of this moment.

        Args:
            metrics: Name → value; names may group with a slash. NaN stands for what was not measured, and is left out.
            step: Not used: the clock is the axis.
        """
        row = {CLOCK: self.kimg} | {name: value for name, value in metrics.items() if not math.isnan(value)}
        if self.run_dir is not None:
            append_row(Path(self.run_dir) / "metrics.csv", row)
        for name in row.keys() - self._defined:
            if name.startswith(EXTREMES):  # one by one: which of two patterns holds that fit a name is left to chance
                self.experiment.define_metric(name, step_metric=CLOCK, summary="min,max,last")
            self._defined.add(name)
        self.experiment.log(row)

    @rank_zero_only
    def record(
        self,
        pictures: Mapping[str, np.ndarray] | None = None,
        tables: Mapping[str, list[dict[str, Any]]] | None = None,
        captions: Mapping[str, str] | None = None,
    ) -> None:
        """Notes pictures and tables of this moment.

        Args:
            pictures: Name → H×W×3 uint8; saved as ``pictures/<name>-<images seen>.png``.
            tables: Name → rows; saved as ``<name>.csv``, where a later moment's replaces an earlier one's, and called
                ``tables/<name>`` on W&B, where pictures have names of their own. A picture (H×W×3 uint8) in a row is
                shown in W&B's table and left out of the file.
            captions: Name of a picture → what W&B shows below it; by default the moment, where images have been seen.
        """
        kimg = self.kimg
        moment = f"{kimg:.6g} kimg" if kimg > 0 else None
        for name, picture in (pictures or {}).items():
            if self.run_dir is not None:
                stem = f"{name.replace('/', '-')}-{round(kimg * 1000):09d}"
                images.save_png(picture, Path(self.run_dir) / "pictures" / f"{stem}.png")
            self.experiment.log({CLOCK: kimg, name: wandb.Image(picture, caption=(captions or {}).get(name, moment))})
        for name, rows in (tables or {}).items():
            if self.run_dir is not None:
                plain = [{k: v for k, v in row.items() if not isinstance(v, np.ndarray)} for row in rows]
                write_rows(Path(self.run_dir) / f"{name}.csv", plain)
            columns: list[str | int] = list(rows[0])
            cells = [[row[str(column)] for column in columns] for row in rows]
            data = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in cells]
            self.experiment.log({CLOCK: kimg, f"tables/{name}": wandb.Table(columns=columns, data=data)})

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        """Warns of something: a message that W&B sends to whom the account says. The title has less than 64 letters."""
        self.experiment.alert(title=title, text=text, level="WARN")

    @rank_zero_only
    def keep_model(self, path: Path, about: Mapping[str, Any]) -> None:
        """Keeps a file of a network or of directions as an artifact, if ``log_model`` asks for it.

        Args:
            path: The file, which is copied.
            about: What is known of it: text, numbers, and mappings and lists of these.
        """
        if self.log_model and self.mode != "disabled":
            run = self.experiment
            run.log_artifact(_artifact(path, about), aliases=["latest", f"run-{run.id}"])

    def _use_inputs(self, run: wandb.Run) -> None:
        """Tells W&B what the run is made from, by content: the same file has the same digest wherever it was made."""
        if not self.log_model or self.mode == "disabled":
            return
        made_from = [_artifact(path) for path in _networks_in(self._config)]
        if self.mode == "online":
            for artifact in made_from:
                run.use_artifact(artifact)
        digests = {artifact.name: artifact.digest for artifact in made_from}
        run.config.update({"made_from": digests}, allow_val_change=True)  # type: ignore[no-untyped-call]

    def history(self, name: str) -> list[dict[str, float]]:
        """The moments of this run that have a metric, with all numbers noted at each."""
        path = Path(self.run_dir) / "metrics.csv" if self.run_dir is not None else None
        if path is None or not path.is_file():
            return []
        return [{k: float(v) for k, v in row.items() if v} for row in read_rows(path, cut=True) if row.get(name)]

    @rank_zero_only
    def rewind(self) -> None:
        """Drops rows later than now, for a resumed run is about to measure them again."""
        if self.run_dir is None:
            return
        path = Path(self.run_dir) / "metrics.csv"
        if path.is_file():
            write_rows(path, [row for row in read_rows(path, cut=True) if float(row[CLOCK]) <= self.kimg + 1e-9])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the W&B run, so that the next run in this process starts its own."""
        if self._run is None:
            return
        self._run.summary.update(self._extremes())
        self._run.finish(exit_code=0 if status == "success" else 1)
        self._run = None
        self._defined.clear()

    def _extremes(self) -> dict[str, dict[str, float]]:
        """Least, greatest and last value of metrics over the whole run, of which W&B knows only what it saw last.

        That is since the run was resumed, and with rows that were measured again.
        """
        path = Path(self.run_dir) / "metrics.csv" if self.run_dir is not None else None
        rows = read_rows(path, cut=True) if path is not None and path.is_file() else []
        found: dict[str, list[float]] = {}
        for row in rows:
            for name in (name for name, value in row.items() if value and name.startswith(EXTREMES)):
                found.setdefault(name, []).append(float(row[name]))
        return {name: {"min": min(seen), "max": max(seen), "last": seen[-1]} for name, seen in found.items()}


def _networks_in(config: Any) -> list[Path]:
    """The files of networks and directions that a configuration names and that are there, each once."""
    if isinstance(config, Mapping | list):
        parts = config.values() if isinstance(config, Mapping) else config
        return list(dict.fromkeys(path for part in parts for path in _networks_in(part)))
    named = isinstance(config, str) and config.endswith(".safetensors") and Path(config).is_file()
    return [Path(config)] if named else []


def _artifact(path: Path, about: Mapping[str, Any] | None = None) -> wandb.Artifact:
    """A file as an artifact, named after its place below the artifacts root, elsewhere after its folder."""
    whole, root = path.resolve(), artifacts_root().resolve()
    parts = whole.relative_to(root).parts if whole.is_relative_to(root) else whole.parts[-2:]
    name = re.sub(r"[^\w.-]", "-", "-".join(parts).removesuffix(path.suffix), flags=re.ASCII)
    artifact = wandb.Artifact(name, type="model", metadata=dict(about or {}))
    artifact.add_file(str(path))
    return artifact

"""Sampling a generator: latents to image files, or to style codes with what is seen in their images."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ohlora.callbacks.writers import ImageWriter, ShardWriter
from ohlora.datamodules.latents import Latents, pieces
from ohlora.errors import ConfigError
from ohlora.evaluation.scores import score_correlations
from ohlora.formats import network_files, sample_files, tensor_files
from ohlora.modules.base import Stage
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import NoiseMode
from ohlora.networks.sampling import counted_batches, counted_latents, joined
from ohlora.utils import checks, counted, images
from ohlora.utils.files import read_json, read_rows, write_json, write_rows

SETTINGS = "settings.json"
MANIFEST = "manifest.csv"
LATENTS = "latents.safetensors"
PREVIEW = 60
"""Images shown in the run folder's preview."""


class _Sampling(Stage[Latents]):
    """What both kinds of sampling have in common: counted latents, and a folder that holds one set of settings."""

    data_type = Latents
    holds: ClassVar[str]
    """The subfolder that is filled, and what it holds."""
    what: ClassVar[str]
    """What is made."""
    output: Path
    about: dict[str, Any]
    """The settings; there after ``setup``."""

    def __init__(self, generator: str, output: str, seed: int, noise_mode: Literal["const", "random"]) -> None:
        super().__init__()
        checks.seeds(seed=seed)
        self.path, self.output, self.seed = Path(generator), Path(output), seed
        self.noise_mode: NoiseMode = noise_mode
        self.generator = network_files.load_generator(self.path)

    def shares_to_do(self, count: int, batch_size: int) -> list[Sequence[int]]:
        """What is not there yet of ``count`` latents, in shares that one process does together."""
        raise NotImplementedError

    def hand_over(self, data: Latents) -> None:
        """Hands over which latents are still to be done."""
        data.connect(self.shares_to_do)

    def settings(self) -> dict[str, Any]:
        """The settings that the result depends on, besides the precision; they are kept beside it."""
        return {"generator": network_files.fingerprint(self.path), "seed": self.seed, "noise_mode": self.noise_mode}

    @property
    def sources(self) -> dict[str, Path]:
        """The files that :meth:`settings` name by their fingerprints."""
        return {"generator": self.path}

    def complete(self, count: int) -> None:
        """Called on rank zero once everything is there."""
        raise NotImplementedError

    def _checked(self, trainer: L.Trainer) -> dict[str, Any]:
        """The settings, as the folder has them if it has any.

        Raises:
            ConfigError: If the folder holds results of other settings, which are named.
        """
        path, filled = self.output / SETTINGS, self.output / self.holds
        wanted = self.settings() | {"precision": str(trainer.precision)}
        if not path.is_file():
            if filled.is_dir() and any(filled.iterdir()):
                raise ConfigError(f"{filled} holds files of unknown origin; choose another output")
            return wanted
        found = sample_files.renamed(read_json(path))
        found.setdefault("precision", wanted["precision"])  # sets of earlier versions do not tell it
        for name, source in self.sources.items():  # and name files by the digest of their bytes
            if network_files.is_fingerprint(found.get(name), source):
                wanted[name] = found[name]
        differing = [f"{k} {found.get(k)!r} there, {v!r} now" for k, v in wanted.items() if found.get(k) != v]
        if differing:
            raise ConfigError(
                f"{self.output} holds {self.holds} of other settings ({', '.join(differing)}); choose another output"
            )
        return wanted

    def nothing_to_do(self, trainer: L.Trainer, checkpoint: Mapping[str, Any] | None) -> str | None:
        """Whether the set is complete."""
        if not (self.output / SETTINGS).is_file():
            return None
        self._checked(trainer)
        if self.data.shares_to_do() or not self.is_complete(self.data.count):
            return None
        return f"all {self.data.count} {self.what} are in {self.output}"

    def is_complete(self, count: int) -> bool:
        """Whether everything is there that :meth:`complete` writes."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Refuses a folder that holds results of other settings, by a ConfigError that names them."""
        path, wanted = self.output / SETTINGS, self._checked(self.trainer)
        self.about = wanted
        self._made, self._started = 0, time.perf_counter()
        self.trainer.strategy.barrier("settings are compared before they are written")
        if self.trainer.is_global_zero and not path.is_file():
            write_json(path, wanted)
        if not self.data.shares_to_do():
            self._end()  # with nothing to predict, Lightning calls no further hook

    def on_predict_end(self) -> None:
        """Rank zero completes the set."""
        self.trainer.strategy.barrier("everything is written")
        self._end()

    def _end(self) -> None:
        missing = sum(len(share) for share in self.data.shares_to_do())
        if self.trainer.is_global_zero and missing:
            self.say_partial(self.partial() or "some are missing")
            print(f"{missing} of {self.data.count} latents are still to be done; the same command goes on")
        elif self.trainer.is_global_zero:
            self.complete(self.data.count)

    def how_to_go_on(self) -> str:
        """How much is there."""
        missing = sum(len(share) for share in self.data.shares_to_do())
        count = self.data.count
        return f"with {count - missing} of {count} {self.what} in {self.output}; the same command goes on"

    def noise_of(self, indices: Sequence[int]) -> list[np.random.Generator] | None:
        """What random noise is drawn from, for :meth:`ohlora.networks.generator.Generator.synthesize`."""
        return counted.generators(self.seed, "noise", indices) if self.noise_mode == "random" else None

    def log_at_end(self, metrics: dict[str, float]) -> None:
        """Writes scalars to the loggers: Lightning takes none from ``self.log`` in prediction."""
        if self._made:
            metrics |= {"images_per_second": self._made / (time.perf_counter() - self._started)}
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics)


class Generate(_Sampling):
    """Makes images from counted latents: ``images/000000.png``, …, a manifest and the latents.

    Image i depends on the generator and (seed, i) only, so any number of processes and any batch size make the same
    set (within one grey level), an interrupted run goes on where it stopped, and a finished one does nothing.

    Args:
        generator: Generator weights (a file written by ohlora).
        output: Folder to fill.
        seed: Seed of latents, labels and noise.
        noise_mode: ``const`` uses the generator's stored noise, ``random`` counted fresh noise per image.
        truncation_psi: Style codes of the first ``truncation_cutoff`` layers are pulled to the mean by this factor.
        truncation_cutoff: See ``truncation_psi``.
    """

    holds = what = "images"

    def __init__(
        self,
        generator: str,
        output: str,
        seed: int = 0,
        noise_mode: Literal["const", "random"] = "const",
        truncation_psi: float = 1.0,
        truncation_cutoff: int = 0,
    ) -> None:
        super().__init__(generator, output, seed, noise_mode)
        checks.at_least(0, truncation_cutoff=truncation_cutoff)
        checks.at_least(-math.inf, truncation_psi=truncation_psi)
        self.save_hyperparameters()
        self.truncation_psi, self.truncation_cutoff = truncation_psi, truncation_cutoff

    def image_path(self, index: int) -> Path:
        """Where image ``index`` goes."""
        return self.output / "images" / f"{index:06d}.png"

    def shares_to_do(self, count: int, batch_size: int) -> list[Sequence[int]]:
        """The images that are not there yet, by the batch."""
        missing: Sequence[int] = [i for i in range(count) if not self.image_path(i).is_file()]
        return pieces(missing, batch_size)

    def settings(self) -> dict[str, Any]:
        """What the images depend on."""
        return super().settings() | {"truncation_psi": self.truncation_psi, "truncation_cutoff": self.truncation_cutoff}

    def predict_step(self, batch: list[int], batch_idx: int) -> np.ndarray:
        """Images of a batch of indices: N×R×R×3 uint8."""
        z, label = counted_latents(self.generator, self.seed, batch)
        self._made += len(batch)
        truncation, noise = (self.truncation_psi, self.truncation_cutoff), self.noise_of(batch)
        return images.to_uint8(self.generator(z, label, *truncation, self.noise_mode, noise))

    def configure_callbacks(self) -> list[L.Callback]:
        """Writes each image to a file of its own."""
        return [ImageWriter(self.image_path)]

    def is_complete(self, count: int) -> bool:
        """Whether manifest and latents are there."""
        manifest = self.output / MANIFEST
        return manifest.is_file() and (self.output / LATENTS).is_file() and len(read_rows(manifest)) == count

    def complete(self, count: int) -> None:
        """Writes latents, manifest, and a preview in the run folder."""
        manifest = self.output / MANIFEST
        z, label = counted_latents(self.generator, self.seed, range(count))
        tensors = {"z": z} if label is None else {"z": z, "label": label}
        tensor_files.write(self.output / LATENTS, "ohlora-generated-latents", 1, tensors, seed=self.seed)
        rows = [{"index": i, "path": self.image_path(i).relative_to(self.output).as_posix()} for i in range(count)]
        resolution = self.generator.resolution
        shown = [images.read_rgb(self.image_path(i), resolution) for i in range(min(count, PREVIEW))]
        self.show({"generated": images.enlarge(images.grid(np.stack(shown), 10))})
        self.log_at_end({"images": count})
        write_rows(manifest, rows)
        print(f"{count} images in {self.output}, with {MANIFEST} and {LATENTS}")


class Sample(_Sampling):
    """Makes style codes and scores their images: shards of w, index and scores, and the scores' medians.

    No image leaves the device. Sample i depends on the networks and (seed, i) only; shards are made in fixed batches,
    so any number of processes makes the same set, and an interrupted run goes on with the first missing shard. Memory
    holds two shards, whatever the count.

    Args:
        generator: Generator weights (a file written by ohlora).
        network: The CNN that scores (the search CNN).
        output: Folder to fill: ``shards/``, ``medians.json``.
        seed: Seed of latents, labels and noise.
        noise_mode: ``const`` uses the generator's stored noise, ``random`` counted fresh noise per image.
        shard_size: Samples per file.
        median_count: The medians are those of the first so many samples.
        compile: Compiles synthesis and CNN with ``torch.compile``: worth it on a GPU and for long runs.
    """

    holds, what = "shards", "samples"

    def __init__(
        self,
        generator: str,
        network: str,
        output: str,
        seed: int = 0,
        noise_mode: Literal["const", "random"] = "const",
        shard_size: int = 5000,
        median_count: int = 20000,
        compile: bool = False,  # noqa: A002
    ) -> None:
        super().__init__(generator, output, seed, noise_mode)
        if shard_size < 1 or median_count < 1:
            raise ConfigError(f"shard_size is {shard_size} and median_count {median_count}; expected at least 1")
        self.save_hyperparameters()
        self.network = network_files.load_attributes(network)
        if self.network.resolution != self.generator.resolution:
            raise ConfigError(
                f"{network} is for resolution {self.network.resolution}, the generator makes "
                f"{self.generator.resolution}; expected the same"
            )
        self.network_path = Path(network)
        self.shard_size, self.median_count = shard_size, median_count
        self._see: Any = torch.compile(self._synthesize_and_score) if compile else self._synthesize_and_score

    def settings(self) -> dict[str, Any]:
        """What the samples depend on."""
        return super().settings() | {
            "network": network_files.fingerprint(self.network_path),
            "outputs": list(self.network.outputs),
            "shard_size": self.shard_size,
        }

    @property
    def sources(self) -> dict[str, Path]:
        """The files that :meth:`settings` name by their fingerprints."""
        return super().sources | {"network": self.network_path}

    def shares_to_do(self, count: int, batch_size: int) -> list[Sequence[int]]:
        """The shards that are not there yet."""
        present = sample_files.ranges_in(self.output)
        wanted = pieces(range(count), self.shard_size)
        return [shard for shard in wanted if not any(p.start == shard.start and p.stop >= shard.stop for p in present)]

    def _synthesize_and_score(self, w: Tensor, noise: list[np.random.Generator] | None) -> Tensor:
        made = self.generator.synthesize(Codes(w, Space.W), self.noise_mode, noise)
        return self.network(images.rounded(made))  # type: ignore[no-any-return]

    def predict_step(self, batch: list[int], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Codes (N×D) and scores (N×K) of a batch of indices, float32."""
        z, label = counted_latents(self.generator, self.seed, batch)
        with torch.autocast(self.device.type, enabled=False):  # codes are kept in full precision
            w = self.generator.map(z, label).values
        self._made += len(batch)
        return w.float(), self._see(w, self.noise_of(batch)).float()

    def configure_callbacks(self) -> list[L.Callback]:
        """Writes the shards."""
        return [ShardWriter(self.shard_size, self.data.count, self._write)]

    def _write(self, first: int, w: Tensor, scores: Tensor) -> None:
        sample_files.write_shard(self.output, first, w, scores, self.about)

    def is_complete(self, count: int) -> bool:
        """Whether the medians are there."""
        path = self.output / sample_files.MEDIANS
        stored = read_json(path) if path.is_file() else {}
        return bool(stored.get("count") == min(count, self.median_count))

    def complete(self, count: int) -> None:
        """Writes the medians, and shows scores and images."""
        path = self.output / sample_files.MEDIANS
        considered = min(count, self.median_count)
        names = self.network.outputs
        scores = sample_files.read_scores(self.output, considered)
        statistics = sample_files.statistics(names, scores)
        write_json(path, statistics)
        shown = range(min(count, PREVIEW))
        made, _ = joined(counted_batches(self.generator, self.seed, shown, 10, self.noise_mode, stream=""))
        by_statistic = {what: statistics[what] for what in ("mean", "median", "std")}
        metrics = {f"{what}/{name}": v for what, values in by_statistic.items() for name, v in values.items()}
        sheet = images.enlarge(images.grid(images.to_uint8(made), 10))
        pictures, tables = score_correlations(dict(zip(names, scores.T, strict=True)))
        self.show({"samples": sheet} | pictures, tables)
        self.log_at_end({"samples": float(count), **metrics})
        print(f"{count} samples in {self.output}; medians of the first {considered} in {sample_files.MEDIANS}")

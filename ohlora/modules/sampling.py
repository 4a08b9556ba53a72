"""Sampling a generator: latents to image files, or to style codes with what is seen in their images."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ohlora.datamodules.latents import pieces
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.formats import network_files, sample_files, tensor_files
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import NoiseMode
from ohlora.networks.sampling import counted_latents
from ohlora.pipeline import require
from ohlora.tracking import run_loggers
from ohlora.utils import counted, figures, images
from ohlora.utils.files import read_rows, replacing, write_rows

SETTINGS = "settings.json"
MANIFEST = "manifest.csv"
LATENTS = "latents.safetensors"
PREVIEW = 60
"""Images shown in the run folder's preview."""


class _Sampling(L.LightningModule):
    """What both kinds of sampling have in common: counted latents, and a folder that holds one set of settings.

    Args:
        generator: Generator weights (a file written by ohlora).
        output: Folder to fill.
        seed: Seed of latents, labels and noise.
        noise_mode: ``const`` uses the generator's stored noise, ``random`` counted fresh noise per image.
    """

    holds = "files"
    """The subfolder that is filled, and what it holds."""

    def __init__(self, generator: str, output: str, seed: int, noise_mode: Literal["const", "random"]) -> None:
        super().__init__()
        self.path, self.output, self.seed = Path(generator), Path(output), seed
        self.noise_mode: NoiseMode = noise_mode
        require(self.path)
        self.generator = network_files.load_generator(self.path)

    def shares_to_do(self, count: int, batch_size: int) -> list[Sequence[int]]:
        """What is not there yet of ``count`` latents, in shares that one process does together."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What the result depends on; kept beside it."""
        return {"generator": network_files.fingerprint(self.path), "seed": self.seed, "noise_mode": self.noise_mode}

    def complete(self, count: int) -> None:
        """Called on rank zero once everything is there."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Refuses a folder that holds results of other settings.

        Raises:
            ConfigError: Naming the settings that differ.
        """
        path = self.output / SETTINGS
        filled = self.output / self.holds
        if path.is_file():
            found, wanted = sample_files.renamed(json.loads(path.read_text(encoding="utf-8"))), self.settings()
            differing = [key for key in wanted if found.get(key) != wanted[key]]
            if differing:
                changes = ", ".join(f"{key} {found.get(key)!r} there, {wanted[key]!r} now" for key in differing)
                raise ConfigError(
                    f"{self.output} holds {self.holds} of other settings ({changes}); choose another output"
                )
        elif filled.is_dir() and any(filled.iterdir()):
            raise ConfigError(f"{filled} holds files of unknown origin; choose another output")
        self.trainer.strategy.barrier("settings are compared before they are written")
        if self.trainer.is_global_zero and not path.is_file():
            with replacing(path) as part:
                part.write_text(json.dumps(self.settings(), indent=2) + "\n", encoding="utf-8")
        if not self._todo():
            self._end()  # with nothing to predict, Lightning calls no further hook

    def on_predict_end(self) -> None:
        """Rank zero completes the set."""
        self.trainer.strategy.barrier("everything is written")
        self._end()

    def _todo(self) -> list[Sequence[int]]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return self.shares_to_do(data.count, data.batch_size)

    def _end(self) -> None:
        if not self.trainer.is_global_zero:
            return
        count = self.trainer.datamodule.count  # type: ignore[attr-defined]
        missing = sum(len(share) for share in self._todo())
        if missing:
            print(f"{missing} of {count} {self.holds} are still missing; the same command goes on")
        else:
            self.complete(count)

    def latents(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Counted latents on the stage's device: z (N×Z) and labels (N×K, or None)."""
        return counted_latents(self.generator, self.seed, indices)

    def noise_of(self, indices: Sequence[int]) -> list[np.random.Generator] | None:
        """What random noise is drawn from, for :meth:`ohlora.networks.generator.Generator.synthesize`."""
        return counted.generators(self.seed, "noise", indices) if self.noise_mode == "random" else None

    def record(
        self, metrics: dict[str, float], pictures: dict[str, np.ndarray], tables: dict[str, Any] | None = None
    ) -> None:
        """Notes figures, pictures and tables in the run folder and on W&B."""
        for logger in run_loggers(self.trainer):
            logger.record(0, metrics, pictures, tables)


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

    holds = "images"

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
        z, label = self.latents(batch)
        made = self.generator(
            z, label, self.truncation_psi, self.truncation_cutoff, self.noise_mode, self.noise_of(batch)
        )
        return images.to_uint8(made)

    def on_predict_batch_end(self, outputs: Any, batch: list[int], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Writes the batch; a file is there whole or not at all."""
        for index, image in zip(batch, outputs, strict=True):
            images.save_png(image, self.image_path(index))

    def complete(self, count: int) -> None:
        """Writes latents, manifest, and a preview in the run folder."""
        manifest = self.output / MANIFEST
        if manifest.is_file() and len(read_rows(manifest)) == count:
            print(f"all {count} images are in {self.output}: nothing to do")
            return
        z, label = self.latents(range(count))
        tensors = {"z": z} if label is None else {"z": z, "label": label}
        tensor_files.write(self.output / LATENTS, "ohlora-generated-latents", 1, tensors, seed=self.seed)
        rows = [{"index": i, "path": self.image_path(i).relative_to(self.output).as_posix()} for i in range(count)]
        resolution = self.generator.resolution
        shown = [images.read_rgb(self.image_path(i), resolution) for i in range(min(count, PREVIEW))]
        self.record({"images": count}, {"generated": images.enlarge(images.grid(np.stack(shown), 10))})
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

    holds = "shards"

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
        require(network)
        self.network = network_files.load_attributes(network)
        if self.network.resolution != self.generator.resolution:
            raise ConfigError(
                f"{network} is for resolution {self.network.resolution}, the generator makes "
                f"{self.generator.resolution}; expected the same"
            )
        self.network_path = Path(network)
        self.shard_size, self.median_count = shard_size, median_count
        self._see: Any = torch.compile(self._synthesize_and_score) if compile else self._synthesize_and_score
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None
        self._made, self._seconds = 0, 0.0

    def settings(self) -> dict[str, Any]:
        """What the samples depend on."""
        return super().settings() | {
            "network": network_files.fingerprint(self.network_path),
            "outputs": list(self.network.outputs),
            "shard_size": self.shard_size,
        }

    def shares_to_do(self, count: int, batch_size: int) -> list[Sequence[int]]:
        """The shards that are not there yet."""
        present = sample_files.ranges_in(self.output)
        wanted = pieces(range(count), self.shard_size)
        return [shard for shard in wanted if not any(p.start == shard.start and p.stop >= shard.stop for p in present)]

    def _synthesize_and_score(self, w: Tensor, noise: list[np.random.Generator] | None) -> Tensor:
        made = self.generator.synthesize(Codes(w, Space.W), self.noise_mode, noise)
        return self.network(images.rounded(made))  # type: ignore[no-any-return]

    def predict_step(self, batch: list[int], batch_idx: int) -> None:
        """Codes and scores of a batch, kept on the device until their shard is whole."""
        started = time.perf_counter()
        first = batch[0] // self.shard_size * self.shard_size
        if batch[0] == first:
            count = min(self.shard_size, self.trainer.datamodule.count - first)  # type: ignore[attr-defined]
            self._w = torch.empty(count, self.generator.w_dim, device=self.device)
            self._scores = torch.empty(count, len(self.network.outputs), device=self.device)
        place = slice(batch[0] - first, batch[-1] - first + 1)
        z, label = self.latents(batch)
        with torch.autocast(self.device.type, enabled=False):  # codes are kept in full precision
            w = self.generator.map(z, label).values
        self._w[place] = w
        self._scores[place] = self._see(w, self.noise_of(batch)).float()
        if place.stop == len(self._w):
            self._hand_over(first)
        self._made += len(batch)
        self._seconds += time.perf_counter() - started

    def _hand_over(self, first: int) -> None:
        """Gives a whole shard to the writer, which works while the next is made."""
        w, scores = self._w.cpu(), self._scores.cpu()
        bad = (~torch.isfinite(scores).all(dim=1)).nonzero()
        if len(bad):
            raise NonFiniteError(
                f"sample {first + int(bad[0])} has a score that is not finite; look at {self.network_path} and "
                f"{self.path}, or at the precision"
            )
        if self._written is not None:
            self._written.result()  # an error in writing shows here
        self._written = self._writer.submit(sample_files.write_shard, self.output, first, w, scores, self.settings())

    def on_predict_end(self) -> None:
        """Waits for the last shard, then completes the set."""
        if self._written is not None:
            self._written.result()
        self._writer.shutdown()
        super().on_predict_end()

    def complete(self, count: int) -> None:
        """Writes the medians, and shows scores and images."""
        path = self.output / sample_files.MEDIANS
        considered = min(count, self.median_count)
        stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not self._made and stored.get("count") == considered:
            print(f"all {count} samples are in {self.output}: nothing to do")
            return
        names = self.network.outputs
        scores = sample_files.read_scores(self.output, considered)
        statistics = sample_files.statistics(names, scores)
        with replacing(path) as part:
            part.write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
        with torch.inference_mode():
            shown = range(min(count, PREVIEW))
            made = [
                images.to_uint8(
                    self.generator(*self.latents(part), noise_mode=self.noise_mode, noise=self.noise_of(part))
                )
                for part in pieces(shown, 10)
            ]
        table = np.corrcoef(scores.T)
        metrics = {"samples": float(count)}
        if self._seconds:
            metrics["images_per_second"] = self._made / self._seconds
        for what in ("mean", "median", "std"):
            metrics |= {f"{what}/{name}": value for name, value in statistics[what].items()}
        rows = [
            {"attribute": name, **dict(zip(names, row.round(4).tolist(), strict=True))}
            for name, row in zip(names, table, strict=True)
        ]
        sheet = images.enlarge(images.grid(np.concatenate(made), 10))
        heat = figures.heat_map(table, names, names, "correlation of scores")
        self.record(metrics, {"samples": sheet, "score_correlations": heat}, {"score_correlations": rows})
        print(f"{count} samples in {self.output}; medians of the first {considered} in {sample_files.MEDIANS}")

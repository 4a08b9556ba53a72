"""Sampling a generator: latents to image files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from safetensors.numpy import save_file

from ohlora import checkpoints, counted, images
from ohlora.errors import ConfigError
from ohlora.files import read_rows, replacing, require, write_rows
from ohlora.tracking import run_loggers

SETTINGS = "settings.json"
MANIFEST = "manifest.csv"
LATENTS = "latents.safetensors"
PREVIEW = 60
"""Images shown in the run folder's preview."""


class Generate(L.LightningModule):
    """Makes images from counted latents: ``images/000000.png``, …, a manifest and the latents.

    Image i depends on the generator and (seed, i) only, so any number of processes and any batch size make the same
    set (within one grey level), an interrupted run goes on where it stopped, and a finished one does nothing.

    Args:
        generator: Generator weights (a file written by ohlora).
        output: Folder to fill.
        seed: Seed of latents, labels and noise.
        noise: ``fixed`` uses the generator's stored noise, ``random`` counted fresh noise per image.
        psi: Truncation: style codes of the first ``psi_layers`` layers are pulled towards the mean by this factor.
        psi_layers: See ``psi``.
        made_by: Command that makes the generator, named when it is missing.
    """

    def __init__(
        self,
        generator: str,
        output: str,
        seed: int = 0,
        noise: Literal["fixed", "random"] = "fixed",
        psi: float = 1.0,
        psi_layers: int = 0,
        made_by: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.path, self.output, self.seed = Path(generator), Path(output), seed
        self.noise, self.psi, self.psi_layers = noise, psi, psi_layers
        require(self.path, made_by)
        self.generator = checkpoints.load_generator(self.path)

    def image_path(self, index: int) -> Path:
        """Where image ``index`` goes."""
        return self.output / "images" / f"{index:06d}.png"

    def indices_to_do(self, count: int) -> list[int]:
        """The images that are not there yet."""
        return [i for i in range(count) if not self.image_path(i).is_file()]

    def settings(self) -> dict[str, Any]:
        """What the images depend on; kept beside them."""
        return {
            "generator": checkpoints.fingerprint(self.path),
            "seed": self.seed,
            "noise": self.noise,
            "psi": self.psi,
            "psi_layers": self.psi_layers,
        }

    def setup(self, stage: str) -> None:
        """Refuses a folder that holds images of other settings.

        Raises:
            ConfigError: Naming the settings that differ.
        """
        path = self.output / SETTINGS
        if path.is_file():
            found, wanted = json.loads(path.read_text(encoding="utf-8")), self.settings()
            differing = [key for key in wanted if found.get(key) != wanted[key]]
            if differing:
                changes = ", ".join(f"{key} {found.get(key)!r} there, {wanted[key]!r} now" for key in differing)
                raise ConfigError(f"{self.output} holds images of other settings ({changes}); choose another output")
        elif (self.output / "images").is_dir() and any((self.output / "images").iterdir()):
            raise ConfigError(f"{self.output / 'images'} holds files of unknown origin; choose another output")
        self.trainer.strategy.barrier("settings are compared before they are written")
        if self.trainer.is_global_zero and not path.is_file():
            with replacing(path) as part:
                part.write_text(json.dumps(self.settings(), indent=2) + "\n", encoding="utf-8")
        if not self.indices_to_do(self.trainer.datamodule.count):  # type: ignore[attr-defined]
            self._complete()  # with nothing to predict, Lightning calls no further hook

    def predict_step(self, batch: list[int], batch_idx: int) -> np.ndarray:
        """Images of a batch of indices: N×R×R×3 uint8."""
        g = self.generator
        z = counted.normal(self.seed, "z", batch, g.z_size).to(self.device)
        label = g.draw_labels(counted.generators(self.seed, "label", batch))
        noise = counted.generators(self.seed, "noise", batch) if self.noise == "random" else "fixed"
        return images.to_uint8(g(z, label, self.psi, self.psi_layers, noise))

    def on_predict_batch_end(self, outputs: Any, batch: list[int], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Writes the batch; a file is there whole or not at all."""
        for index, image in zip(batch, outputs, strict=True):
            images.save_png(image, self.image_path(index))

    def on_predict_end(self) -> None:
        """Rank zero completes the set."""
        self.trainer.strategy.barrier("all images are written")
        self._complete()

    def _complete(self) -> None:
        """Once all images are there: latents, manifest, and a preview in the run folder."""
        if not self.trainer.is_global_zero:
            return
        count = self.trainer.datamodule.count  # type: ignore[attr-defined]
        missing = self.indices_to_do(count)
        if missing:
            print(f"{len(missing)} of {count} images are still missing; the same command goes on")
            return
        manifest = self.output / MANIFEST
        if manifest.is_file() and len(read_rows(manifest)) == count:
            print(f"all {count} images are in {self.output}: nothing to do")
            return
        g = self.generator
        arrays = {"z": counted.normal(self.seed, "z", range(count), g.z_size).numpy()}
        label = g.draw_labels(counted.generators(self.seed, "label", range(count)))
        if label is not None:
            arrays["label"] = label.cpu().numpy()
        with replacing(self.output / LATENTS) as part:
            save_file(arrays, part, {"format": "ohlora-latents", "format_version": "1", "seed": str(self.seed)})
        rows = [{"index": i, "path": self.image_path(i).relative_to(self.output).as_posix()} for i in range(count)]
        shown = [images.read_rgb(self.image_path(i), g.resolution) for i in range(min(count, PREVIEW))]
        sheet = images.enlarge(images.grid(np.stack(shown), 10))
        for logger in run_loggers(self.trainer):
            logger.record(0, {"images": count}, {"generated": sheet})
        write_rows(manifest, rows)
        print(f"{count} images in {self.output}, with {MANIFEST} and {LATENTS}")

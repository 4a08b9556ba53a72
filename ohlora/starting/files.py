"""The files of a new world: its declaration, and the configurations laid over those that ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ohlora.attributes import Kind
from ohlora.pipeline import STAGES
from ohlora.starting.sizes import PASSES, RATES, Device, Size, epochs_for
from ohlora.utils.files import replacing

GRID = [-1.0, -0.5, 0.0, 0.5, 1.0]
"""Strengths of an edit's evaluation, in z-scores of the data."""
LIMIT = 0.85
"""Correlation of strength and score from which on an edit passes."""
LABELS, IMAGES = "data/labels.csv", "data/images"
SEARCH, JUDGE = "property_cnn/property.safetensors", "judge_cnn/judge.safetensors"
START = "pretrain/generator.safetensors"
END = "finetune_v8/generator.safetensors"
LATENTS = 300
"""Latents whose edits are evaluated."""
PICTURES = 0.4
"""Share of a StyleGAN's training after which it makes pictures, so that their scores can be matched."""
FINETUNE_RATE = 0.002
"""Learning rate of the fine-tune. Larger ones have spoilt the colours of a StyleGAN that was trained for an hour."""
LAST_RATE = 0.2
"""Share of its learning rate that the training of a StyleGAN ends with."""


@dataclass(frozen=True)
class Declared:
    """An attribute of the new world.

    Attributes:
        name: Its name.
        column: The table's column.
        kind: See :class:`ohlora.attributes.Attribute`.
        levels: Likewise; 0 where it is no ordinal.
        steered: Whether a character is steered by it.
        keep: Its conditions in the concept.
    """

    name: str
    column: str
    kind: Kind
    levels: int = 0
    steered: bool = False
    keep: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """The declaration in the world's file."""
        about: dict[str, Any] = {"meaning": f"more {self.name.replace('_', ' ')}", "kind": self.kind}
        if self.column != self.name:
            about["column"] = self.column
        if self.levels:
            about["levels"] = self.levels
        if self.steered:
            about |= {"roles": ["expression"], "grid": GRID, "limit": LIMIT}
        if self.keep:
            about["keep"] = list(self.keep)
        return about


@dataclass(frozen=True)
class NewWorld:
    """A new world.

    Attributes:
        name: Its name.
        made_by: The command that makes it.
        attributes: Its attributes.
        size: The StyleGAN that is trained, or whose resolution an imported one has.
        device: What it is trained on.
        kimg: Length of the training.
        count: Number of images.
        labelled: Number of images that have labels.
        generator: The imported generator and discriminator, below the world's root; none where one is trained.
        takes_labels: Whether the imported generator takes labels.
        weights: Column of the table that says how much a row counts, if there is one.
    """

    name: str
    made_by: str
    attributes: Sequence[Declared]
    size: Size
    device: Device
    kimg: float
    count: int
    labelled: int
    generator: Mapping[str, str]
    takes_labels: bool = False
    weights: str | None = None

    @property
    def file(self) -> Path:
        """The world's file."""
        return Path(f"{self.name}.yaml")

    @property
    def steered(self) -> list[str]:
        """What a character is steered by."""
        return [attribute.name for attribute in self.attributes if attribute.steered]

    @property
    def augments(self) -> bool:
        """Whether the images of the StyleGAN's training are augmented."""
        return self.kimg * 1000 / self.count > PASSES

    @property
    def finetune_kimg(self) -> float:
        """Length of the fine-tune: a tenth of the StyleGAN's."""
        return round(self.kimg / 10, 2)

    @property
    def has_concept(self) -> bool:
        """Whether a fine-tune narrows the generator."""
        return any(attribute.keep for attribute in self.attributes)

    def written(self) -> dict[Path, str]:
        """The files, with their text."""
        about = "# Made by: {}\n# Everything here can be changed; docs/your_own_world.md says what it means.\n"
        files = {self.file: about.format(self.made_by) + _text(self.declaration())}
        for stage, settings in self.overlays().items():
            files[Path(self.name) / f"{stage}.yaml"] = _text(settings)
        return files

    def write(self) -> list[Path]:
        """Writes the files; returns their paths."""
        for path, text in self.written().items():
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8")
        return list(self.written())

    # --- the world's file

    def declaration(self) -> dict[str, Any]:
        """What the world's file says."""
        names = {"merged/merged.safetensors": SEARCH, **self.generator}
        if not self.has_concept:
            names[END] = START
        studio = f"label images: ohlora studio --world {self.file}"
        return {
            "about": f"{self.name.replace('_', ' ')}, {self.size.resolution}×{self.size.resolution}",
            "root": self.name,
            "overlays": self.name,
            "attributes": {attribute.name: attribute.described() for attribute in self.attributes},
            "names": names,
            "hints": {LABELS: studio},
            "stages": self.stages(),
        }

    def stages(self) -> dict[str, Any]:
        """The stages, in order, and what differs in them."""
        learned = [LABELS, IMAGES]
        found: dict[str, Any] = {
            "property_cnn": {"about": "search CNN, from the table", "inputs": learned},
            "judge_cnn": {"inputs": learned},
        }
        if not self.generator:
            found["pretrain"] = {"inputs": [IMAGES, SEARCH, JUDGE]}
        if self.has_concept:
            found["score_original"] = {"about": "scores of the images", "inputs": [IMAGES, SEARCH]}
            found["filter_original"] = {"about": "keep the images of the concept", "options": ""}
            discriminator = START.replace("generator", "discriminator")
            found["finetune_v8"] = {
                "about": "fine-tune on the concept",
                "inputs": ["filter_original/manifest.csv", IMAGES, START, discriminator, SEARCH, JUDGE],
            }
        directions = "vectorfind_v9/directions.safetensors"
        found["vectorfind_v9"] = {"inputs": [END, SEARCH]}
        tested = [directions, END, SEARCH, JUDGE, IMAGES]
        found |= {"evaluate_v9": {"inputs": tested}, "candidates": None}
        report = [name for name in STAGES["touch_up"].inputs if name.startswith("evaluate_v9/")]
        found["touch_up"] = {"inputs": [*report, *tested]}
        return found | {"character": None, "animation": None}

    # --- configurations

    def overlays(self) -> dict[str, dict[str, Any]]:
        """Stage → what is laid over the configuration that ships."""
        found = {
            "property_cnn": self._network("property", 0),
            "judge_cnn": self._network("judge", 1000),
            "vectorfind_v9": self._stage({"image_batch_size": 100 if self.size.resolution <= 64 else 16}),
            "evaluate_v9": self._evaluation({"count": LATENTS}),
            "touch_up": self._evaluation({}),
        }
        if not self.generator:
            found["pretrain"] = self._pretrain()
        if self.has_concept:
            found["score_original"] = self._stage(
                {"networks": [_path(SEARCH)]},
                {"manifest": None, "folder": _path(IMAGES), "resolution": self.size.resolution},
            )
            found["finetune_v8"] = self._finetune()
        return found

    def _stage(self, model: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {"world": str(self.file), "trainer": {"accelerator": self._accelerator}}
        found["model"] = {"init_args": dict(model)}
        return found | ({"data": {"init_args": dict(data)}} if data is not None else {})

    @property
    def _accelerator(self) -> str:
        return "cpu" if self.device == "cpu" else "auto"

    def _network(self, product: str, seed: int) -> dict[str, Any]:
        """A property network, from the table alone."""
        epochs = epochs_for(max(1, self.labelled))
        model = {
            "network": [attribute.name for attribute in self.attributes],
            "save_as": product,
            "plan": "small" if self.size.resolution <= 128 else "original",
            "resolution": self.size.resolution,
            "stop_without": [],
            "optimizer": {"init_args": {"lr": 2e-3}},
            "schedule": {"init_args": {"T_max": epochs}},
            "seed": seed,
        }
        data = {"manifests": [_path(LABELS)], "raw": True, "flip": False, "batch_size": 64, "seed": seed}
        if self.weights is not None:
            data["weights"] = self.weights
        found = self._stage(model, data)
        found["trainer"]["max_epochs"] = epochs
        return found

    def _watch(self, kimg: float) -> list[dict[str, Any]]:
        """Grids, and figures by the judge: what matches the search CNN's scores may deceive that network."""
        watch = {"properties": _path(JUDGE), "every_kimg": max(1.0, round(kimg / 10, 1)), "best": "frechet_distance"}
        return [
            {"class_path": "ohlora.callbacks.grids.SampleGrid"},
            {"class_path": "ohlora.callbacks.watch.Watch", "init_args": watch},
        ]

    def _optimizers(self, rate: float) -> dict[str, Any]:
        adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": rate, "betas": [0.0, 0.99]}}
        return {"generator_optimizer": adam, "discriminator_optimizer": dict(adam)}

    def _pretrain(self) -> dict[str, Any]:
        """A whole configuration: none ships for images of one's own."""
        model: dict[str, Any] = {
            "architecture": self.size.architecture,
            "kimg": self.kimg,
            **self._optimizers(RATES[self.device]),
            "schedule": {
                "class_path": "torch.optim.lr_scheduler.LinearLR",
                "init_args": {"start_factor": 1.0, "end_factor": LAST_RATE, "total_iters": max(1, round(self.kimg))},
            },
            "labels": "none",
            "loss": "relativistic",
            "r1_gamma": self.size.gamma,
            "r2_gamma": self.size.gamma,
            "r1_interval": 1,
            "score_matching": 2.0,
            "score_matching_start": round(PICTURES * self.kimg, 1),
            "scored_by": [_path(SEARCH)],
            "max_generator_updates": 1,
            "use_noise": False,
            "ema_kimg": 5.0 if self.device == "cpu" else 10.0,
            "ema_rampup": 0.05,
            "log_every": 1.0,
        }
        if self.augments:
            model["augmentation"] = {"class_path": "ohlora.networks.augmentation.ADA", "init_args": {"flip": False}}
        data = {
            "resolution": self.size.resolution,
            "folder": _path(IMAGES),
            "batch_size": self.size.batch_size,
            "held_out": 2000,
        }
        return {
            "world": str(self.file),
            "seed_everything": 0,
            "trainer": {
                "accelerator": self._accelerator,
                "default_root_dir": _path("pretrain"),
                "callbacks": self._watch(self.kimg),
            },
            "model": {"class_path": "ohlora.modules.gan.GAN", "init_args": model},
            "data": {"class_path": "ohlora.datamodules.images.Images", "init_args": data},
        }

    def _finetune(self) -> dict[str, Any]:
        kimg = self.finetune_kimg
        model = {
            "generator": _path(START),
            "discriminator": _path(START.replace("generator", "discriminator")),
            "kimg": kimg,
            "labels": "normal" if self.takes_labels else "none",
            **self._optimizers(FINETUNE_RATE),
            "r1_gamma": 4.0,
            "score_matching": 1.0,
            "scored_by": [_path(SEARCH)],
            "use_noise": bool(self.generator),
            "ema_kimg": 2.2 if self.device == "cpu" else 10.0,
        }
        data = {
            "resolution": self.size.resolution,
            "manifest": _path("filter_original/manifest.csv"),
            "batch_size": self.size.batch_size,
        }
        found = self._stage(model, data)
        callbacks = self._watch(kimg)
        watch = callbacks[1]["init_args"]
        del watch["best"]  # the concept rate
        watch |= {"filters": None, "recipe": None}  # those of the recipe, which this is laid over, are of faces
        found["trainer"]["callbacks"] = callbacks
        return found

    def _evaluation(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The real images are the world's own."""
        reals = {
            "class_path": "ohlora.datamodules.images.Images",
            "init_args": {"resolution": self.size.resolution, "folder": _path(IMAGES)},
        }
        batch = 6 if self.size.resolution <= 64 else 2
        return self._stage({"reals": reals}, {**data, "batch_size": batch})


def _path(name: str) -> str:
    return f"${{world:{name}}}"


class _Plain(yaml.SafeDumper):  # type: ignore[misc]
    """Writes each value where it belongs, and short lists in a line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never refers to what was written before."""
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        """Lists of plain values in a line."""
        plain = all(isinstance(value, (str, int, float, bool)) for value in sequence)
        short = sum(len(str(value)) + 2 for value in sequence) < 90
        return super().represent_sequence(tag, sequence, flow_style=plain and short)


def _text(settings: Mapping[str, Any]) -> str:
    text: str = yaml.dump(dict(settings), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    return text

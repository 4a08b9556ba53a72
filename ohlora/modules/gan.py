"""GAN training: one LightningModule for pre-training, fine-tune v1 and fine-tune v8.

A training step is a declared list of phases, each one update of one network. What distinguishes the stages is all in
the configuration: where the weights start, which parameters train, how labels are drawn, how often R1 is applied and
whether the generator's update may repeat.
"""

from __future__ import annotations

import copy
import fnmatch
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torchmetrics
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from ohlora.datamodules.base import ImageBatch, ImageDataModule
from ohlora.errors import ConfigError, NonFiniteError
from ohlora.formats import network_files
from ohlora.modules.optimizers import apply_settings, settings_of
from ohlora.networks.codes import Codes, Space
from ohlora.networks.feature_cache import FeatureCache, Key
from ohlora.networks.generator import Discriminator, Generator, LabelHead, Labels
from ohlora.networks.losses import discriminator_loss, generator_loss, r1_penalty
from ohlora.networks.registry import DISCRIMINATORS, GENERATORS
from ohlora.networks.surgery import add_labels, with_projection
from ohlora.pipeline import require
from ohlora.tracking import run_loggers
from ohlora.utils import counted
from ohlora.utils.clock import crossed


@dataclass
class Architecture:
    """Kind and size of networks that start from random weights; see :mod:`ohlora.networks.registry` for the kinds.

    The sizes are what the networks' constructors call them, such as :class:`ohlora.networks.stylegan.Generator`.
    """

    kind: str = "stylegan"
    resolution: int = 256
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    channel_base: int = 16384
    channel_max: int = 512
    mbstd_group_size: int = 4


@dataclass(frozen=True)
class Phase:
    """One update of one network within a training step.

    Attributes:
        name: Name in messages.
        network: ``generator`` or ``discriminator``.
        loss: Computes the loss and notes its terms; gets the batch and the number of the repetition.
        interval: Runs in every so many steps.
        repeats: Whether the repeat rule applies.
    """

    name: str
    network: str
    loss: Callable[[Batch, int], Tensor]
    interval: int = 1
    repeats: bool = False


@dataclass
class Batch:
    """What one step works on.

    Attributes:
        images: Real images, N×3×R×R.
        label: Labels of real and fake alike, N×K, if any.
        indices: Global indices of the step's images: what is random about them is counted by these.
        keys: Which images of the dataset the real ones are, for the feature cache.
    """

    images: Tensor
    label: Tensor | None
    indices: list[int]
    keys: list[Key]


class GAN(L.LightningModule):
    """Trains a StyleGAN generator against a discriminator.

    Everything random is counted by the images seen (see :mod:`ohlora.utils.counted`), so a resumed run continues bit
    for bit on the CPU, and no state of a global random generator matters.

    Args:
        generator: Weights to start from (a file written by ohlora); None starts from random ones of ``architecture``.
        discriminator: Likewise.
        architecture: Size of networks that start from random weights; to be given exactly when both paths are None.
        kimg: Length of training, in thousands of images.
        generator_optimizer: Optimizer of the generator's trainable parameters.
        discriminator_optimizer: Optimizer of the discriminator's.
        schedule: Learning-rate schedule of both, stepped once per kimg; None keeps the rate constant.
        trainable_generator: Name patterns of the generator's parameters that train, such as ``mapping.*``.
        trainable_discriminator: Likewise for the discriminator, such as ``epilogue.*`` (its end).
        add_labels: Label inputs to give networks that start from files without any; a zero label then changes nothing.
        label_head: How the label enters the discriminator: ``linear`` or ``projection``. None keeps the file's;
            ``projection`` converts a linear one, which changes no score before the first step.
        mbstd_group_size: Largest group of the discriminator's minibatch standard deviation; None keeps the file's.
        labels: Where labels come from: ``none`` (networks without labels), ``dataset`` (the images' own labels, for
            real and fake alike), ``normal`` (N(0, 1)) or ``zeros``. Saved with the generator for sampling.
        shuffled_labels: Weight of a further term of the discriminator's loss, which takes real images with labels of
            other images for fakes (Reed et al., 2016); 0 leaves it out. Needs ``labels: dataset``.
        feature_cache: Memory for features of real images, in GiB per process. Where only ``epilogue.*`` of the
            discriminator trains, they are computed once and kept, if those of all images and their mirror images fit;
            0 keeps none.
        r1_gamma: R1 enters the loss as γ/2 times the penalty.
        r1_interval: R1 every so many steps. 1 adds it to the discriminator's loss in every step; otherwise it is a
            phase of its own, multiplied by the interval, with the optimizer's rate and betas corrected for it as in
            StyleGAN2 (Karras et al., 2020, appendix B).
        max_generator_updates: Upper limit of the repeat rule; 1 turns it off.
        repeat_ratio: The generator's update repeats, with fresh latents, until its loss is below this times the
            discriminator's loss of the step.
        style_mixing: Probability that an image's style codes come from two latents.
        ema_kimg: Half-life of the averaged generator, in kimg.
        w_avg_beta: Decay of the running mean of w per step.
        log_every: Interval of the figures, in kimg.
        seed: Seed of latents, labels, noise and mixing.
    """

    images_seen: Tensor
    steps: Tensor

    def __init__(
        self,
        kimg: float,
        generator_optimizer: OptimizerCallable,
        discriminator_optimizer: OptimizerCallable,
        generator: str | None = None,
        discriminator: str | None = None,
        architecture: Architecture | None = None,
        schedule: LRSchedulerCallable | None = None,
        trainable_generator: Sequence[str] = ("*",),
        trainable_discriminator: Sequence[str] = ("*",),
        add_labels: int = 0,
        label_head: LabelHead | None = None,
        mbstd_group_size: int | None = None,
        labels: Labels = "none",
        shuffled_labels: float = 0.0,
        feature_cache: float = 2.0,
        r1_gamma: float = 10.0,
        r1_interval: int = 16,
        max_generator_updates: int = 4,
        repeat_ratio: float = 2.0,
        style_mixing: float = 0.0,
        ema_kimg: float = 10.0,
        w_avg_beta: float = 0.995,
        log_every: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        if r1_interval < 1 or max_generator_updates < 1:
            raise ConfigError(
                f"r1_interval is {r1_interval} and max_generator_updates {max_generator_updates}; expected at least 1"
            )
        if shuffled_labels > 0 and labels != "dataset":
            raise ConfigError(f"shuffled_labels is {shuffled_labels} with labels {labels!r}; it needs 'dataset'")
        self.kimg, self.labels, self.seed, self.log_every = kimg, labels, seed, log_every
        self.shuffled_labels, self.feature_cache = shuffled_labels, feature_cache
        self.r1_gamma, self.r1_interval = r1_gamma, r1_interval
        self.max_generator_updates, self.repeat_ratio = max_generator_updates, repeat_ratio
        self.style_mixing, self.ema_kimg, self.w_avg_beta = style_mixing, ema_kimg, w_avg_beta
        self._optimizer_factories = {"generator": generator_optimizer, "discriminator": discriminator_optimizer}
        self._schedule = schedule
        self._sources = {"generator": generator, "discriminator": discriminator}
        self.configure_networks(architecture)
        self.configure_labels(add_labels, label_head)
        if mbstd_group_size is not None:
            self.discriminator.mbstd_group_size = mbstd_group_size
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)
        select_trainable(self.generator, trainable_generator, "trainable_generator")
        select_trainable(self.discriminator, trainable_discriminator, "trainable_discriminator")
        self.trunk_frozen = not any(p.requires_grad for p in self.discriminator.trunk_parameters())
        self.kept_features: FeatureCache | None = None
        self.configure_metrics()
        self.phases = self.configure_phases()
        self.latest_metrics: dict[str, float] = {}
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    # --- parts

    def configure_networks(self, architecture: Architecture | None) -> None:
        """Builds or loads generator and discriminator."""
        generator, discriminator = self._sources["generator"], self._sources["discriminator"]
        if (generator is None) != (discriminator is None) or (generator is None) == (architecture is None):
            raise ConfigError(
                "expected either weights for both 'generator' and 'discriminator', or an 'architecture' to start from "
                f"random weights; given generator={generator}, discriminator={discriminator}, "
                f"architecture={architecture}"
            )
        if generator is not None and discriminator is not None:
            for path in (generator, discriminator):
                require(path)
            self.generator: Generator = network_files.load_generator(generator).train()
            self.discriminator: Discriminator = network_files.load_discriminator(discriminator).train()
        elif architecture is not None:
            sizes = asdict(architecture)
            kind = sizes.pop("kind")
            if kind not in GENERATORS:
                raise ConfigError(f"architecture.kind is {kind!r}; expected {', '.join(GENERATORS)}")
            of_generator, of_discriminator = ("z_dim", "w_dim", "mapping_layers"), ("mbstd_group_size",)
            shared = {key: size for key, size in sizes.items() if key not in (*of_generator, *of_discriminator)}
            # Weights of a seed are the same whatever else has drawn from torch's global generator before.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                labels: Labels = "normal" if architecture.c_dim else "none"
                self.generator = GENERATORS[kind](**shared, **{key: sizes[key] for key in of_generator}, labels=labels)
                self.discriminator = DISCRIMINATORS[kind](**shared, **{key: sizes[key] for key in of_discriminator})

    def configure_labels(self, added: int, head: LabelHead | None) -> None:
        """Gives both networks label inputs and the discriminator its label head, and checks that they agree."""
        if added != 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                try:
                    self.generator = add_labels(self.generator, added)
                    self.discriminator = add_labels(self.discriminator, added)
                except ValueError as error:
                    raise ConfigError(f"add_labels is {added}: {error}") from error
        g, d = self.generator, self.discriminator
        if (g.resolution, g.c_dim) != (d.resolution, d.c_dim):
            raise ConfigError(
                f"generator has resolution {g.resolution} and label size {g.c_dim}, discriminator {d.resolution} "
                f"and {d.c_dim}; expected the same"
            )
        if (self.labels == "none") != (g.c_dim == 0):
            raise ConfigError(f"labels is {self.labels!r} for networks of label size {g.c_dim}; 'none' goes with 0")
        if head == "linear" and d.label_head == "projection":
            raise ConfigError(
                "label_head is 'linear' and the discriminator's is 'projection', which cannot be undone; leave it out "
                "or start from another discriminator"
            )
        if head == "projection" and d.label_head == "linear":
            try:
                self.discriminator = with_projection(d)
            except ValueError as error:
                raise ConfigError(f"label_head is 'projection': {error}") from error

    def configure_metrics(self) -> None:
        """Means of the loss terms and scores, and how well the discriminator tells real from fake."""
        names = ["loss/discriminator", "loss/generator", "loss/r1", "score/real", "score/fake", "generator_updates"]
        if self.shuffled_labels > 0:
            names += ["loss/shuffled", "score/shuffled"]
        self._means = {name: torchmetrics.MeanMetric() for name in names}
        # Registered too, so that they move to the device; module names must not hold a slash, so they are numbered.
        self.mean_metrics = nn.ModuleList(self._means.values())
        self.auroc = torchmetrics.classification.BinaryAUROC()

    def configure_phases(self) -> list[Phase]:
        """The updates of a training step, in order."""
        phases = [Phase("discriminator", "discriminator", self.discriminator_phase)]
        if self.r1_interval > 1 and self.r1_gamma > 0:
            phases.append(Phase("R1", "discriminator", self.r1_phase, interval=self.r1_interval))
        phases.append(Phase("generator", "generator", self.generator_phase, repeats=True))
        return phases

    def configure_optimizers(self) -> Any:
        """One optimizer per network over its trainable parameters; schedules step on the kimg clock."""
        optimizers: list[Optimizer] = []
        for name, network in (("generator", self.generator), ("discriminator", self.discriminator)):
            optimizer = self._optimizer_factories[name]([p for p in network.parameters() if p.requires_grad])
            if name == "discriminator" and any(phase.name == "R1" for phase in self.phases):
                correct_for_lazy_regularization(optimizer, self.r1_interval)
            optimizers.append(optimizer)
        self._configured = [settings_of(optimizer) for optimizer in optimizers]
        if self._schedule is None:
            return optimizers
        return optimizers, [self._schedule(optimizer) for optimizer in optimizers]

    # --- one step

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Runs the phases that are due on one batch and moves the clock."""
        started = time.perf_counter()
        first = int(self.images_seen)
        size, world = len(batch["image"]), self.trainer.world_size
        indices = [first + self.global_rank + world * k for k in range(size)]
        flips = batch.get("flipped", [False] * size)
        keys = list(zip(batch["index"], flips, strict=True))
        work = Batch(batch["image"], self._labels(batch, indices), indices, keys)
        optimizers = self._optimizers_by_name()
        losses: dict[str, Tensor] = {}
        for phase in self.phases:
            if int(self.steps) % phase.interval:
                continue
            limit = self.max_generator_updates if phase.repeats else 1
            for repetition in range(limit):
                losses[phase.name] = self._update(phase, optimizers[phase.network], work, repetition)
                if repetition + 1 == limit or self._generator_keeps_up(losses):
                    break
            if phase.repeats:
                self._means["generator_updates"].update(float(repetition + 1))
        self.generator.update_w_avg(self._mean_over_ranks(self._last_w_mean), self.w_avg_beta)
        total = size * world
        update_average(self.averaged, self.generator, 0.5 ** (total / (self.ema_kimg * 1000)))
        self.images_seen += total
        self.steps += 1
        self._seconds += time.perf_counter() - started
        self._advance_schedules(first)
        if crossed(first, first + total, self.log_every):
            self._report()
        if self.finished:
            self.trainer.should_stop = True

    def _update(self, phase: Phase, optimizer: LightningOptimizer, batch: Batch, repetition: int) -> Tensor:
        """One optimizer step of a phase; returns the loss without graph."""
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            self._terms: dict[str, Tensor] = {}
            loss = phase.loss(batch, repetition)
            # Named inputs keep autograd from following R1's graph on to the images.
            self.manual_backward(loss, inputs=[p for g in optimizer.param_groups for p in g["params"]])
            self._check_finite(phase, optimizer)
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    def _generator_keeps_up(self, losses: dict[str, Tensor]) -> bool:
        """The repeat rule, decided by all ranks together; asked only where it matters: it waits for the device."""
        generator, discriminator = (self._mean_over_ranks(losses[name]) for name in ("generator", "discriminator"))
        return bool(generator < self.repeat_ratio * discriminator)

    def discriminator_phase(self, batch: Batch, repetition: int) -> Tensor:
        """Logistic loss on fakes made without gradient and reals; with R1 where that is due in every step."""
        every_step = self.r1_every_step
        with torch.no_grad():
            fakes = self._fakes("discriminator", batch)
        fake_scores = self.discriminator.head(self._trunk(fakes), batch.label)
        reals = batch.images.detach().requires_grad_(every_step)
        real_features = self.discriminator.features(reals) if every_step else self._real_features(batch)
        real_scores = self.discriminator.head(real_features, batch.label)
        loss = self._note("loss/discriminator", discriminator_loss(fake_scores, real_scores))
        self._note("score/real", real_scores.mean())
        self._note("score/fake", fake_scores.mean())
        scores = torch.cat([real_scores, fake_scores]).detach().float()
        real = torch.cat([torch.ones_like(real_scores), torch.zeros_like(fake_scores)])
        self.auroc.update(scores, real.long())
        if self.shuffled_labels > 0:
            loss = loss + self.shuffled_labels * self._shuffled_term(real_features, batch)
        if every_step:
            loss = loss + self.r1_gamma / 2 * self._note("loss/r1", r1_penalty(real_scores, reals))
        return loss

    def _trunk(self, images: Tensor) -> Tensor:
        """Features for the discriminator's loss: without graph where none of it could train."""
        with torch.set_grad_enabled(not self.trunk_frozen):
            return self.discriminator.features(images)

    def _real_features(self, batch: Batch) -> Tensor:
        """Features of the reals, from memory where they are kept."""
        if self.kept_features is None:
            return self._trunk(batch.images)
        return self.kept_features(batch.images, batch.keys)

    def _shuffled_term(self, real_features: Tensor, batch: Batch) -> Tensor:
        """Reals with labels drawn from the data independently of them, taken for fakes: mean softplus(D(real, other)).

        Drawn per image and not permuted within the batch, so that the term is the same however many ranks share it.
        """
        others = self.generator.draw_labels(counted.generators(self.seed, "shuffled", batch.indices))
        scores = self.discriminator.head(real_features, others)
        self._note("score/shuffled", scores.mean())
        return self._note("loss/shuffled", nn.functional.softplus(scores).mean())

    def r1_phase(self, batch: Batch, repetition: int) -> Tensor:
        """R1 by itself, multiplied by its interval."""
        reals = batch.images.detach().requires_grad_(True)
        penalty = r1_penalty(self.discriminator(reals, batch.label), reals)
        return self.r1_interval * self.r1_gamma / 2 * self._note("loss/r1", penalty)

    def generator_phase(self, batch: Batch, repetition: int) -> Tensor:
        """Non-saturating loss on fresh fakes."""
        scores = self.discriminator(self._fakes(f"generator{repetition}", batch), batch.label)
        return self._note("loss/generator", generator_loss(scores))

    def _fakes(self, stream: str, batch: Batch) -> Tensor:
        """Fakes for a batch; latents, mixing and noise are counted by the images' global indices."""
        g = self.generator
        z = counted.normal(self.seed, f"{stream}/z", batch.indices, g.z_dim).to(batch.images)
        w = g.map(z, batch.label)
        self._last_w_mean = w.values.detach().mean(dim=0)
        if self.style_mixing > 0:
            w = self._mix(w, stream, batch)
        return g.synthesize(w, "random", counted.generators(self.seed, f"{stream}/noise", batch.indices))

    def _mix(self, w: Codes, stream: str, batch: Batch) -> Codes:
        """Style mixing: from a random layer on, an image's codes come from a second latent."""
        layers = self.generator.num_ws
        draws = counted.generators(self.seed, f"{stream}/mixing", batch.indices)
        cuts = [int(r.integers(1, layers)) if r.random() < self.style_mixing else layers for r in draws]
        z = np.stack([r.standard_normal(self.generator.z_dim, dtype=np.float32) for r in draws])
        second = self.generator.map(torch.from_numpy(z).to(w.values), batch.label)
        keep = torch.arange(layers)[None] < torch.tensor(cuts)[:, None]
        mixed = torch.where(keep[:, :, None].to(w.values.device), w.values[:, None], second.values[:, None])
        return Codes(mixed, Space.W_BY_LAYER)

    def _labels(self, batch: ImageBatch, indices: list[int]) -> Tensor | None:
        """The step's labels, the same for real and fake."""
        if self.labels == "dataset":
            label: Tensor = batch["label"]
            return label
        return self.generator.draw_labels(counted.generators(self.seed, "label", indices))

    # --- figures

    def _note(self, name: str, value: Tensor) -> Tensor:
        """Keeps a term for the finite check and the log, and returns it."""
        self._terms[name] = value.detach()
        self._means[name].update(value.detach())
        return value

    def _check_finite(self, phase: Phase, optimizer: LightningOptimizer) -> None:
        """Stops the run before a bad update, naming the step, the phase and the term."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients])
        if torch.isfinite(torch.stack([*self._terms.values(), norms.sum()])).all():
            return
        bad = [name for name, value in self._terms.items() if not torch.isfinite(value)]
        what = ", ".join(bad) if bad else f"gradient of the {phase.network}"
        raise NonFiniteError(
            f"{what} is not finite in step {int(self.steps)} ({int(self.images_seen)} images seen, phase "
            f"{phase.name}): "
            "nothing was updated with it and the last checkpoint is untouched. Lower the learning rate, or look at the "
            "images of this step"
        )

    def _report(self) -> None:
        # Every rank computes, since computing synchronises; only rank zero writes.
        metrics = {name: float(mean.compute()) for name, mean in self._means.items() if mean.update_called}
        metrics["auroc/real_fake"] = float(self.auroc.compute())
        rate = (int(self.images_seen) - self._reported_at) / max(self._seconds, 1e-9)
        metrics["images_per_second"] = rate
        for name, optimizer in self._optimizers_by_name().items():
            metrics[f"learning_rate/{name}"] = optimizer.param_groups[0]["lr"]
        self._reset_figures()
        self.latest_metrics = metrics
        for logger in run_loggers(self.trainer):
            logger.record(int(self.images_seen) / 1000, metrics)

    def _reset_figures(self) -> None:
        for metric in (*self._means.values(), self.auroc):
            metric.reset()
        self._seconds, self._reported_at = 0.0, int(self.images_seen)

    # --- hooks

    @property
    def finished(self) -> bool:
        """Whether all images of the budget have been seen."""
        return int(self.images_seen) >= self.kimg * 1000

    @property
    def r1_every_step(self) -> bool:
        """Whether R1 is part of the discriminator's loss in every step."""
        return self.r1_interval == 1 and self.r1_gamma > 0

    @property
    def resolution(self) -> int:
        """Height and width of the images this stage works on."""
        return self.generator.resolution

    def on_fit_start(self) -> None:
        """Checks that data and networks fit, and takes over the data's labels where training uses them."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule):
            dataset = data.train_set
            if dataset.resolution != self.resolution:
                raise ConfigError(
                    f"the images have resolution {dataset.resolution}, the generator {self.resolution}; "
                    "expected the same"
                )
            table = dataset.labels
            if self.labels == "dataset" and (table is None or table.shape[1] != self.generator.c_dim):
                raise ConfigError(
                    f"labels is 'dataset' and the generator takes {self.generator.c_dim} values, but the data has "
                    f"{'no labels' if table is None else f'{table.shape[1]} per image'}"
                )
            kept = torch.from_numpy(table) if self.labels == "dataset" and table is not None else None
            for network in (self.generator, self.averaged):
                network.set_labels(self.labels, kept)
            self.kept_features = FeatureCache(self._trunk) if self._features_fit(len(dataset)) else None
            self._check_std_group(data.batch_size)
        self._reset_figures()

    def _features_fit(self, count: int) -> bool:
        """Whether the features of all images, mirrored and not, are of use and find room."""
        each = 4 * math.prod(self.discriminator.feature_shape)  # bytes, in float32
        return self.trunk_frozen and not self.r1_every_step and 2 * count * each <= self.feature_cache * 2**30

    def _check_std_group(self, batch_size: int) -> None:
        """Insists that several ranks form the groups of images that one would."""
        world, group = self.trainer.world_size, self.discriminator.mbstd_group_size
        if world > 1 and (batch_size // world) % min(group, batch_size):
            raise ConfigError(
                f"the minibatch standard deviation takes groups of {min(group, batch_size)} images, and each of "
                f"{world} processes has {batch_size // world}; expected a multiple of the group. Raise "
                "data.init_args.batch_size, or lower model.init_args.mbstd_group_size"
            )

    def on_train_start(self) -> None:
        """Lets settings win over a checkpoint's, and ends at once when the whole budget has been seen already."""
        self._reset_figures()
        for logger in run_loggers(self.trainer):
            logger.rewind(int(self.images_seen) / 1000)
        apply_settings(self.trainer.optimizers, self._configured, scheduled=self._schedule is not None)
        if self.finished:
            rank_zero_info(
                f"{int(self.images_seen)} images have been seen, and model.init_args.kimg is {self.kimg}: nothing to do"
            )
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Writes the averaged generator and the discriminator to the run folder and, as the product, the stage's."""
        folder = self.trainer.log_dir
        if not self.trainer.is_global_zero:
            return
        provenance = {"stage": Path(self.trainer.default_root_dir).name, "images_seen": int(self.images_seen)}
        provenance |= {f"from_{name}": source for name, source in self._sources.items()}
        for target in dict.fromkeys(Path(f) for f in (folder, self.trainer.default_root_dir) if f):
            network_files.save_network(self.averaged, target / "generator.safetensors", provenance)
            network_files.save_network(self.discriminator, target / "discriminator.safetensors", provenance)
        print(f"wrote {Path(self.trainer.default_root_dir) / 'generator.safetensors'} and discriminator.safetensors")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes room for the label table, whose size the checkpoint decides."""
        for name in ("generator", "averaged"):
            table = checkpoint["state_dict"][f"{name}.label_table"]
            getattr(self, name).label_table = torch.zeros_like(table)

    # --- helpers

    def _optimizers_by_name(self) -> dict[str, LightningOptimizer]:
        optimizers: Any = self.optimizers()
        generator, discriminator = optimizers
        return {"generator": generator, "discriminator": discriminator}

    def _advance_schedules(self, before: int) -> None:
        if self._schedule is None:
            return
        for _ in range(int(self.images_seen) // 1000 - before // 1000):
            schedulers: Any = self.lr_schedulers()
            for scheduler in schedulers:
                scheduler.step()

    def _mean_over_ranks(self, value: Tensor) -> Tensor:
        reduced = self.trainer.strategy.reduce(value, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        return reduced


def select_trainable(network: nn.Module, patterns: Iterable[str], argument: str) -> None:
    """Lets exactly the parameters train whose name fits a pattern.

    Args:
        network: Its parameters' ``requires_grad`` is set.
        patterns: Shell-style patterns over parameter names.
        argument: Where the patterns come from, for the message.

    Raises:
        ConfigError: If a pattern fits no parameter.
    """
    names = [name for name, _ in network.named_parameters()]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            parts = sorted({name.split(".")[0] for name in names})
            raise ConfigError(f"{argument}: pattern {pattern!r} fits no parameter; names begin with {', '.join(parts)}")
        chosen.update(fitting)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)


def correct_for_lazy_regularization(optimizer: Optimizer, interval: int) -> None:
    """Makes interval + 1 optimizer steps amount to ``interval`` ones: rate and betas as in StyleGAN2, appendix B."""
    ratio = interval / (interval + 1)
    for group in optimizer.param_groups:
        group["lr"] *= ratio
        if "betas" in group:
            group["betas"] = tuple(beta**ratio for beta in group["betas"])


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves an averaged copy towards a network: parameters by ``1 − decay``, buffers at once."""
    targets, sources = [[p.detach() for p in n.parameters()] for n in (average, network)]
    torch._foreach_lerp_(targets, sources, 1 - decay)
    for target, source in zip(average.buffers(), network.buffers(), strict=True):
        target.copy_(source)

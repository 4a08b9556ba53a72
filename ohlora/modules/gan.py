"""GAN training: one LightningModule for pre-training, fine-tune v1 and fine-tune v8.

A training step is a declared list of phases, each one update of one network. What distinguishes the stages is all in
the configuration: where the weights start, which parameters train, how labels are drawn, how often R1 is applied and
whether the generator's update may repeat.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import lightning as L
import torch
import torchmetrics
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from ohlora import outcomes
from ohlora.attributes import vocabulary
from ohlora.callbacks.writers import save_product
from ohlora.datamodules.base import ImageBatch, ImageDataModule, random_batches
from ohlora.datamodules.images import refuse_turning
from ohlora.directions.edits import GUIDE
from ohlora.directions.label_contrast import LabelContrast, LabelPairs
from ohlora.errors import ConfigError
from ohlora.formats import network_files
from ohlora.modules.base import Stage, check_finite, try_optimizer
from ohlora.networks.augmentation import ADA, Augmentation
from ohlora.networks.codes import Codes, Space
from ohlora.networks.feature_cache import FeatureCache, Key
from ohlora.networks.generator import Discriminator, Generator, LabelHead, Labels
from ohlora.networks.losses import LOSSES, Loss, gradient_penalties, path_lengths
from ohlora.networks.registry import Architecture, random_networks
from ohlora.networks.score_matching import COMPONENTS, ScoreMatching
from ohlora.networks.surgery import add_labels, grown, with_projection
from ohlora.networks.training import (
    correct_for_lazy_regularization,
    freeze_blocks,
    mix_styles,
    select_trainable,
    update_average,
)
from ohlora.utils import checks, counted

PATH_LENGTH_RATE = 0.01
"""Share of a batch's mean in the running mean of path lengths, as in StyleGAN2."""
PENALTIES = {"real": "loss/r1", "fake": "loss/r2"}
"""Names of the gradient penalties, by the kind of images that they are computed on."""
SCORED_REALS = 2000
"""Real images that are scored for score matching, at most."""
STREAMS = {"real": "real", "fake": "discriminator"}
"""Streams of randomness of the discriminator's images, by their kind."""


@dataclass(frozen=True)
class Phase:
    """One update of one network, ``generator`` or ``discriminator``, within a training step.

    It runs once in every ``interval`` steps; by the repeat rule, then at most ``repeats`` times. ``loss`` computes the
    loss and notes its terms; it gets the batch and the number of the repetition.
    """

    name: str
    network: str
    loss: Callable[[Batch, int], Tensor]
    interval: int = 1
    repeats: int = 1


@dataclass
class Batch:
    """What one step works on.

    Attributes:
        images: Real images, N×3×R×R.
        label: Labels of real and fake alike, N×K, if any.
        indices: Global indices of the step's images: what is random about them is counted by these.
        keys: Which images of the dataset the real ones are, for the feature cache.
        fakes: Fakes of the discriminator's phases, once made.
        real_features: Features of the real images, once computed, if the discriminator's trunk is frozen.
        real_scores: Scores of the real images in the generator's phase, once computed.
    """

    images: Tensor
    label: Tensor | None
    indices: list[int]
    keys: list[Key]
    fakes: Tensor | None = None
    real_features: Tensor | None = None
    real_scores: Tensor | None = None


class Apart(NamedTuple):
    """A part of a network with a learning rate of its own.

    Attributes:
        what: What it is called in logs.
        module: Its module.
        rate: Its learning rate over that of the rest of the network.
    """

    what: str
    module: str
    rate: float


class GAN(Stage[ImageDataModule]):
    """Trains a StyleGAN generator against a discriminator.

    Everything random is counted by the images seen (see :mod:`ohlora.utils.counted`), so a resumed run continues bit
    for bit on the CPU, and no state of a global random generator matters.

    Args:
        kimg: Length of training, in thousands of images.
        generator_optimizer: Optimizer of the generator's trainable parameters.
        discriminator_optimizer: Likewise for the discriminator.
        generator: Weights to start from (a file written by ohlora); None starts from random ones of ``architecture``.
        discriminator: Likewise.
        architecture: Size of networks that start from random weights; to be given exactly when both paths are None.
        schedule: Learning-rate schedule of both, stepped once per kimg; None keeps the rate constant.
        trainable_generator: Name patterns of the generator's parameters that train, such as ``mapping.*``.
        trainable_discriminator: Likewise for the discriminator, such as ``epilogue.*`` (its end).
        frozen_blocks: Number of parts of the discriminator's trunk, from the image on, that do not train whatever their
            names; from-RGB is the first part, then each block is one (FreezeD, Mo et al., 2020).
        grow_to: Resolution to which networks that start from files are grown, above theirs; what is added changes
            nothing at first (:func:`ohlora.networks.surgery.grown`). None keeps the files'.
        add_labels: Label inputs to give networks that start from files without any; a zero label then changes nothing.
            ``label`` gives one for each label of the world.
        label_head: How the label enters the discriminator: None keeps the file's; ``projection`` converts a ``linear``
            one, which changes no score before the first step.
        label_rate: Learning rate of the module through which labels enter the discriminator's projection head, over
            that of the rest of the discriminator. A StyleGAN2's is a mapping, the weights of whose layers are stored a
            hundred times as large as others: it learns labels in short trainings at a rate of 100. 1 makes no
            difference.
        mapping_rate: Learning rate of the generator's mapping over that of the rest of the generator: the weights of
            its layers are stored a hundred times as large as others. 1 makes no difference.
        mbstd_group_size: Largest group of the discriminator's minibatch standard deviation; None keeps the file's.
        labels: Where labels come from: ``none`` (networks without labels), ``dataset`` (the images' own labels, for
            real and fake alike), ``normal`` (N(0, 1)) or ``zeros``. Saved with the generator for sampling.
        loss: ``logistic`` (Goodfellow et al., 2014), or ``relativistic``: each fake's score counts relative to that of
            a real image (Jolicoeur-Martineau, 2018; Huang et al., 2024, who combine it with R1 and R2).
        shuffled_labels: Weight of a further term of the discriminator's loss, which takes real images with labels of
            other images for fakes (Reed et al., 2016); 0 leaves it out. Needs ``labels: dataset``.
        feature_cache: Memory for features of real images, in GiB per process. Where the discriminator's trunk is
            frozen, they are computed once and kept, if those of all images and their mirror images fit; 0 keeps none.
        augmentation: What real images and fakes go through before the discriminator sees them, for small training sets:
            an object of :mod:`ohlora.networks.augmentation`, by ``class_path``, such as ``DiffAugment`` or ``ADA``. Not
            with kept features.
        r1_gamma: R1 enters the loss as γ/2 times the penalty. R1 is the gradient penalty on real images; 0 leaves it
            out.
        r2_gamma: R2 enters the loss as γ/2 times the penalty. R2 is the gradient penalty on fakes; 0 leaves it out.
        r1_interval: R1 and R2 every so many steps. 1 adds them to the discriminator's loss in every step; otherwise
            they are a phase of their own, multiplied by the interval, with the optimizer's rate and betas corrected for
            it as in StyleGAN2 (Karras et al., 2020, appendix B).
        max_generator_updates: Upper limit of the repeat rule; 1 turns it off.
        repeat_ratio: The generator's update repeats, with fresh latents, until its loss is below this times the
            discriminator's loss of the step.
        score_matching: Weight of a further term of the generator's loss, by which scores of generated images come to be
            distributed as those of real ones (:class:`ohlora.networks.score_matching.ScoreMatching`); 0 leaves it out.
            It teaches small features that the attributes are about, such as eyes. Needs ``scored_by``.
        score_matching_start: From how many kimg on. Before a generator makes pictures, it would learn patterns that
            deceive the networks.
        scored_by: Files of the networks that score attributes for ``score_matching``: a property (or merged) CNN, and
            in a fine-tune on a concept its filters too.
        matched_components: Principal components of the CNN's hidden layers that are matched beside the scores.
        label_contrast: Teaches that a label moves its attribute and leaves everything else as it is; None leaves it
            out.
        use_noise: Whether layers get random noise. Without, its strengths are 0 and stay so: a young generator that may
            use noise makes edges of it, and has to unlearn that later.
        style_mixing: Probability that an image's style codes come from two latents.
        path_length_weight: Weight of the path-length regularisation (Karras et al., 2020): the squared difference
            between the path lengths of half a batch and their running mean; 2 in StyleGAN2, 0 leaves it out.
        path_length_interval: Path-length regularisation every so many steps, as a phase of its own that is multiplied
            by the interval, with the optimizer's rate and betas corrected for it.
        ema_kimg: Half-life of the averaged generator, in kimg.
        ema_rampup: Share of the images seen that limits the half-life while training is young; 0.05 in StyleGAN2, 0 for
            none.
        w_avg_beta: Decay of the running mean of w per step.
        log_every: Interval over which metrics are averaged and logged, in kimg, to the nearest step; 0 logs none.
        seed: Seed of latents, labels, noise and mixing.
    """

    data_type: ClassVar[type[L.LightningDataModule]] = ImageDataModule
    fixed = (
        "trainable_generator",
        "trainable_discriminator",
        "frozen_blocks",
        "label_head",
        "label_rate",
        "mapping_rate",
        "add_labels",
        "grow_to",
        "matched_components",
        "use_noise",
    )
    products = ("discriminator.safetensors", "generator.safetensors")
    steps: Tensor
    path_length: Tensor
    headlines: Sequence[str] = ()
    """What a callback has measured of the generator at the end, in a few words."""

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
        frozen_blocks: int = 0,
        grow_to: int | None = None,
        add_labels: int | Literal["label"] = 0,
        label_head: LabelHead | None = None,
        label_rate: float = 1.0,
        mapping_rate: float = 1.0,
        mbstd_group_size: int | None = None,
        labels: Labels = "none",
        loss: Loss = "logistic",
        shuffled_labels: float = 0.0,
        feature_cache: float = 2.0,
        augmentation: Augmentation | None = None,
        r1_gamma: float = 10.0,
        r2_gamma: float = 0.0,
        r1_interval: int = 16,
        max_generator_updates: int = 4,
        repeat_ratio: float = 2.0,
        score_matching: float = 0.0,
        score_matching_start: float = 0.0,
        scored_by: Sequence[str] | None = None,
        matched_components: int = COMPONENTS,
        label_contrast: LabelContrast | None = None,
        use_noise: bool = True,
        style_mixing: float = 0.0,
        path_length_weight: float = 0.0,
        path_length_interval: int = 4,
        ema_kimg: float = 10.0,
        ema_rampup: float = 0.0,
        w_avg_beta: float = 0.995,
        log_every: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        if not 0 < kimg < math.inf:
            raise ConfigError(f"kimg is {kimg}; expected the length of training in thousands of images, above 0")
        checks.at_least(
            1,
            r1_interval=r1_interval,
            path_length_interval=path_length_interval,
            max_generator_updates=max_generator_updates,
            mbstd_group_size=mbstd_group_size,
        )
        checks.above(0, ema_kimg=ema_kimg, label_rate=label_rate, mapping_rate=mapping_rate)
        checks.at_least(
            0,
            r1_gamma=r1_gamma,
            r2_gamma=r2_gamma,
            path_length_weight=path_length_weight,
            shuffled_labels=shuffled_labels,
            feature_cache=feature_cache,
            repeat_ratio=repeat_ratio,
            score_matching=score_matching,
            score_matching_start=score_matching_start,
            matched_components=matched_components,
            ema_rampup=ema_rampup,
            log_every=log_every,
        )
        checks.between(0, 1, style_mixing=style_mixing, w_avg_beta=w_avg_beta)
        checks.seeds(seed=seed)
        checks.some(trainable_generator=trainable_generator, trainable_discriminator=trainable_discriminator)
        for name, optimizer in (("generator", generator_optimizer), ("discriminator", discriminator_optimizer)):
            try_optimizer(f"{name}_optimizer", optimizer, schedule, closure=False)
        if shuffled_labels > 0 and labels != "dataset":
            raise ConfigError(f"shuffled_labels is {shuffled_labels} with labels {labels!r}; it needs 'dataset'")
        if label_contrast is not None and labels not in ("dataset", "normal"):
            raise ConfigError(
                f"label_contrast changes labels, and labels is {labels!r}; set labels to 'dataset' or 'normal', or "
                "leave label_contrast out"
            )
        self.kimg, self.labels, self.seed, self.log_every = kimg, labels, seed, log_every
        self.shuffled_labels, self.feature_cache = shuffled_labels, feature_cache
        scored_by = scored_by or []
        if (score_matching > 0) != bool(scored_by):
            raise ConfigError(
                f"score_matching is {score_matching} and scored_by is {list(scored_by)}; expected a weight above 0 and "
                "files of networks that score attributes, or neither"
            )
        self.score_matching, self.score_matching_start = score_matching, score_matching_start
        self.loss, self.repeat_ratio = LOSSES[loss](), repeat_ratio
        self.r1_interval = r1_interval
        self.gammas = {kind: gamma for kind, gamma in (("real", r1_gamma), ("fake", r2_gamma)) if gamma > 0}
        self.style_mixing, self.ema_kimg, self.w_avg_beta = style_mixing, ema_kimg, w_avg_beta
        self.path_length_weight, self.path_length_interval = path_length_weight, path_length_interval
        self.ema_rampup = ema_rampup
        self._optimizer_factories, self._schedule = (generator_optimizer, discriminator_optimizer), schedule
        self._sources = {"generator": generator, "discriminator": discriminator}
        self.configure_networks(architecture, grow_to)
        self.configure_labels(len(vocabulary().names("label")) if add_labels == "label" else add_labels, label_head)
        if label_rate != 1 and self.discriminator.label_head != "projection":
            raise ConfigError(
                f"label_rate is {label_rate}, and the discriminator has no projection head; leave it out, or set "
                "label_head to projection"
            )
        self._apart: dict[str, Apart] = {}
        if mapping_rate != 1:
            self._apart["generator"] = Apart("mapping", "mapping", mapping_rate)
        if label_rate != 1:
            self._apart["discriminator"] = Apart("labels", self.discriminator.label_module, label_rate)
        if mbstd_group_size is not None:
            self.discriminator.mbstd_group_size = mbstd_group_size
        select_trainable(self.generator, trainable_generator, "trainable_generator")
        if mapping_rate != 1 and not any(p.requires_grad for p in self.generator.get_submodule("mapping").parameters()):
            raise ConfigError(
                f"mapping_rate is {mapping_rate}, and trainable_generator leaves out mapping.*; add it, or leave "
                "mapping_rate out"
            )
        if not use_noise:
            self.generator.leave_out_noise()
        self.G_ema = copy.deepcopy(self.generator).requires_grad_(False)
        select_trainable(self.discriminator, trainable_discriminator, "trainable_discriminator")
        freeze_blocks(self.discriminator, frozen_blocks)
        if label_head == "projection" or label_rate != 1:
            entry = self.discriminator.label_module
            if not any(p.requires_grad for p in self.discriminator.get_submodule(entry).parameters()):
                raise ConfigError(
                    f"trainable_discriminator leaves out {entry}.*, through which labels enter the projection head: "
                    "none could be learned. Add it, or leave label_head and label_rate out"
                )
        for name in self._sources:
            if not any(p.requires_grad for p in self.get_submodule(name).parameters()):
                raise ConfigError(
                    f"nothing of the {name} trains: trainable_{name} and frozen_blocks leave no parameter"
                )
        self.trunk_frozen = not any(p.requires_grad for p in self.discriminator.trunk_parameters())
        self.keeps_features = self.trunk_frozen and feature_cache > 0 and not (r1_interval == 1 and r1_gamma > 0)
        self.kept_features: FeatureCache | None = None
        if augmentation is not None and self.keeps_features:
            raise ConfigError(
                "augmentation makes other images of the real ones in every step, and with a frozen trunk their "
                "features are kept; set feature_cache to 0, let the trunk train, or leave augmentation out"
            )
        self.augmentation = augmentation
        if scored_by:
            self.matching = ScoreMatching(
                [network_files.load_attributes(path) for path in scored_by], matched_components
            )
        self.label_contrast = label_contrast
        if label_contrast is not None:
            self.pairs = LabelPairs(label_contrast, self._names_of_labels())
        self.phases = [Phase("discriminator", "discriminator", self.discriminator_phase)]
        if r1_interval > 1 and self.gammas:
            self.phases.append(Phase("gradient penalty", "discriminator", self.penalty_phase, interval=r1_interval))
        if path_length_weight > 0:
            self.register_buffer("path_length", torch.zeros(()))  # the running mean
            self.phases.append(Phase("path length", "generator", self.path_phase, interval=path_length_interval))
        self.phases.append(Phase("generator", "generator", self.generator_phase, repeats=max_generator_updates))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        names = ["loss/discriminator", "loss/generator", "loss/r1", "score/real", "score/fake", "generator_updates"]
        if r2_gamma > 0:
            names.append("loss/r2")
        if shuffled_labels > 0:
            names += ["loss/shuffled", "score/shuffled"]
        if path_length_weight > 0:
            names += ["loss/path_length", "path_length"]
        if score_matching > 0:
            names.append("loss/score_matching")
        if label_contrast is not None:
            names.append("loss/label_contrast")
        if isinstance(augmentation, ADA):
            names += ["ada/p", "ada/sign"]
        self._means = {name: torchmetrics.MeanMetric() for name in names}
        self.mean_metrics = nn.ModuleList(self._means.values())  # registered, so that they move to the device
        self.auroc = torchmetrics.classification.BinaryAUROC()

    # --- parts

    def configure_networks(self, architecture: Architecture | None, grow_to: int | None) -> None:
        """Builds or loads generator and discriminator, and grows them."""
        self.generator: Generator
        self.discriminator: Discriminator
        generator, discriminator = self._sources.values()
        if generator is not None and discriminator is not None and architecture is None:
            self.generator = network_files.load_generator(generator).train()
            self.discriminator = network_files.load_discriminator(discriminator).train()
            if not self.generator.trains:
                raise ConfigError(
                    f"{generator} holds a {self.generator.kind} generator, which is not trained here: it can be "
                    "sampled, scored, searched and steered"
                )
        elif generator is None and discriminator is None and architecture is not None:
            self.generator, self.discriminator = random_networks(architecture, self.seed)
        else:
            raise ConfigError(
                "expected either weights for both 'generator' and 'discriminator', or an 'architecture' to start from "
                f"random weights; given generator={generator}, discriminator={discriminator}, "
                f"architecture={architecture}"
            )
        if grow_to is not None:
            if architecture is not None:
                raise ConfigError(
                    f"grow_to is {grow_to} and architecture.resolution is {architecture.resolution}; networks that "
                    "start from random weights have their size from the architecture. Leave grow_to out"
                )
            with counted.seeded(self.seed):
                self.generator = grown(self.generator, grow_to)
                self.discriminator = grown(self.discriminator, grow_to)

    def configure_labels(self, added: int, head: LabelHead | None) -> None:
        """Gives both networks label inputs and the discriminator its label head, and checks that they agree."""
        if added != 0:
            with counted.seeded(self.seed):
                self.generator = add_labels(self.generator, added)
                self.discriminator = add_labels(self.discriminator, added)
        g, d = self.generator, self.discriminator
        if (g.resolution, g.c_dim) != (d.resolution, d.c_dim):
            raise ConfigError(
                f"generator has resolution {g.resolution} and label size {g.c_dim}, discriminator {d.resolution} "
                f"and {d.c_dim}; expected the same"
            )
        if (self.labels == "none") != (g.c_dim == 0):
            way = (
                "expected 'dataset', with a column for each in data.init_args.label_columns, 'normal' or 'zeros'"
                if g.c_dim
                else "expected 'none', or add_labels"
            )
            raise ConfigError(f"labels is {self.labels!r} and the networks take {g.c_dim} label values; {way}")
        if head == "linear" and d.label_head == "projection":
            raise ConfigError(
                "label_head is 'linear' and the discriminator's is 'projection', which cannot be undone; leave it out "
                "or start from another discriminator"
            )
        if head == "projection" and d.label_head == "linear":
            self.discriminator = with_projection(d)

    def _names_of_labels(self) -> tuple[str, ...]:
        """Names of the generator's labels, which are those of the world."""
        names = vocabulary().names("label")
        if self.generator.c_dim != len(names):
            raise ConfigError(
                f"label_contrast takes the labels for those of the world, {', '.join(names) or 'which has none'}; the "
                f"generator has {self.generator.c_dim}. Leave label_contrast out, or start from another generator"
            )
        return names

    def configure_optimizers(self) -> Any:
        """One optimizer per network over its trainable parameters; schedules step on the kimg clock."""
        factories = dict(zip(self._sources, self._optimizer_factories, strict=True))
        found = {name: of_network(self._groups(name)) for name, of_network in factories.items()}
        for name, apart in self._apart.items():
            found[name].param_groups[1]["lr"] *= apart.rate
        generator, discriminator = found.values()
        if any(phase.name == "gradient penalty" for phase in self.phases):
            correct_for_lazy_regularization(discriminator, self.r1_interval)
        if any(phase.name == "path length" for phase in self.phases):
            correct_for_lazy_regularization(generator, self.path_length_interval)
        return self.scheduled([generator, discriminator], self._schedule)

    def _groups(self, name: str) -> list[Any]:
        """A network's trainable parameters; what has a learning rate of its own is a second group."""
        apart = self._apart.get(name)
        trainable = {key: p for key, p in self.get_submodule(name).named_parameters() if p.requires_grad}
        if apart is None:
            return list(trainable.values())
        return [
            {"params": [p for key, p in trainable.items() if key.startswith(f"{apart.module}.") == second]}
            for second in (False, True)
        ]

    # --- one step

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Runs the phases that are due on one batch and moves the clock."""
        started, first = time.perf_counter(), self.clock()
        size, world = len(batch["image"]), self.trainer.world_size
        indices = list(range(first + self.global_rank, first + size * world, world))
        label = batch["label"] if self.labels == "dataset" else self._drawn_labels("label", indices)
        keys = list(zip(batch["index"], batch.get("flipped", [False] * size), strict=True))
        work = Batch(batch["image"], label, indices, keys)
        optimizers: Any = self.optimizers()
        by_network = dict(zip(self._sources, optimizers, strict=True))
        losses: dict[str, Tensor] = {}
        for phase in self.phases:
            if int(self.steps) % phase.interval:
                continue
            for repetition in range(phase.repeats):
                losses[phase.name] = self._update(phase, by_network[phase.network], work, repetition)
                if repetition + 1 == phase.repeats or self._generator_keeps_up(losses):
                    break
        self._means["generator_updates"].update(float(repetition + 1))  # the generator's phase is the last
        if isinstance(self.augmentation, ADA):
            self._means["ada/p"].update(self.augmentation.p)
            self.augmentation.observe(self._mean_over_ranks(self._last_sign), size * world)
        self.generator.update_w_avg(self._mean_over_ranks(self._last_w_mean), self.w_avg_beta)
        self.images_seen += size * world
        update_average(self.G_ema, self.generator, 0.5 ** (size * world / self._half_life()))
        self.steps += 1
        self._seconds += time.perf_counter() - started
        schedules: Any = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        for schedule in schedules * (self.clock() // 1000 - first // 1000):
            schedule.step()
        if self._steps_per_log and (self.finished or int(self.steps) % self._steps_per_log == 0):
            self._log_metrics()
        if self.finished:
            self.trainer.should_stop = True

    def _update(self, phase: Phase, optimizer: LightningOptimizer, batch: Batch, repetition: int) -> Tensor:
        """One optimizer step of a phase; returns the loss without graph."""
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            self._terms: dict[str, Tensor] = {}
            loss = phase.loss(batch, repetition)
            # Named inputs keep autograd from following R1's graph on to the images.
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.manual_backward(loss, inputs=parameters)
            when = f"in step {int(self.steps)} ({self.clock()} images seen, phase {phase.name})"
            check_finite(self._terms, parameters, f"the {phase.network}", when)
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    def _generator_keeps_up(self, losses: dict[str, Tensor]) -> bool:
        """The repeat rule, decided by all ranks together; asked only where it matters: it waits for the device."""
        generator, discriminator = (self._mean_over_ranks(losses[name]) for name in ("generator", "discriminator"))
        return bool(generator < self.repeat_ratio * discriminator)

    def discriminator_phase(self, batch: Batch, repetition: int) -> Tensor:
        """The loss on reals and on fakes made without gradient; with the penalties that are due in every step."""
        images: Tensor | None = None
        features: dict[str, Tensor] = {}
        if self.gammas and self.r1_interval == 1:
            images, features = self._penalised(batch)
        if "fake" not in features:
            features["fake"] = self._trunk(self._augmented(self._fakes_of_step(batch), batch, STREAMS["fake"]))
        if "real" not in features:
            if self.kept_features is not None:
                features["real"] = self.kept_features(batch.images, batch.keys)
            else:
                features["real"] = self._trunk(self._augmented(batch.images, batch, STREAMS["real"]))
        if self.trunk_frozen:
            batch.real_features = features["real"].detach()
        scores = {kind: self.discriminator.head(of_kind, batch.label) for kind, of_kind in features.items()}
        loss = self._note("loss/discriminator", self.loss.discriminator(scores["fake"], scores["real"]))
        for kind in ("real", "fake"):
            self._note(f"score/{kind}", scores[kind].mean())
            is_real = torch.full_like(scores[kind], kind == "real", dtype=torch.long)
            self.auroc.update(scores[kind].detach().float(), is_real)
        if isinstance(self.augmentation, ADA):
            self._last_sign = self._note("ada/sign", self.loss.signs(scores["fake"], scores["real"]).mean()).detach()
        if self.shuffled_labels > 0:
            loss = loss + self.shuffled_labels * self._shuffled_term(features["real"], scores["real"], batch)
        if images is not None:
            loss = loss + self._penalty(images, scores)
        return loss

    def _fakes_of_step(self, batch: Batch) -> Tensor:
        """The fakes of the discriminator's phases, between which the generator does not change; without graph."""
        if batch.fakes is None:
            with torch.no_grad():
                batch.fakes = self._fakes("discriminator", batch)
        return batch.fakes

    def _penalised(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The images with a gradient penalty, joined and requiring gradients, and their features by kind.

        The trunk sees every image by itself, so that reals and fakes can go through it together. The head cannot: it
        forms groups.
        """
        chosen = [batch.images if kind == "real" else self._fakes_of_step(batch) for kind in self.gammas]
        images = torch.cat(chosen).detach().requires_grad_()
        seen = self._augmented(images, batch, *(STREAMS[kind] for kind in self.gammas))
        return images, dict(zip(self.gammas, self.discriminator.features(seen).chunk(len(chosen)), strict=True))

    def _penalty(self, images: Tensor, scores: Mapping[str, Tensor]) -> Tensor:
        """R1, R2 or both, weighted, of the images of :meth:`_penalised` and their scores by kind."""
        penalties = gradient_penalties(torch.cat([scores[kind] for kind in self.gammas]), images)
        weighted = [
            gamma / 2 * self._note(PENALTIES[kind], penalty.mean())
            for (kind, gamma), penalty in zip(self.gammas.items(), penalties.chunk(len(self.gammas)), strict=True)
        ]
        return torch.stack(weighted).sum()

    def _augmented(self, images: Tensor, batch: Batch, *streams: str) -> Tensor:
        """Images as the discriminator gets to see them; of several streams, joined.

        The real images of a step are augmented in the same way in all of its phases.
        """
        if self.augmentation is None:
            return images
        draws = [counted.generators(self.seed, f"{stream}/augmentation", batch.indices) for stream in streams]
        augmented: Tensor = self.augmentation(images, [draw for of_stream in draws for draw in of_stream])
        return augmented

    def _trunk(self, images: Tensor) -> Tensor:
        """Features for the discriminator's loss: without graph where none of it could train."""
        with torch.set_grad_enabled(not self.trunk_frozen):
            return self.discriminator.features(images)

    def _shuffled_term(self, real_features: Tensor, real_scores: Tensor, batch: Batch) -> Tensor:
        """Reals with labels drawn from the data independently of them, taken for fakes.

        Drawn per image and not permuted within the batch, so that the term is the same however many ranks share it.
        """
        scores = self.discriminator.head(real_features, self._drawn_labels("shuffled", batch.indices))
        self._note("score/shuffled", scores.mean())
        return self._note("loss/shuffled", self.loss.rejection(scores, real_scores))

    def penalty_phase(self, batch: Batch, repetition: int) -> Tensor:
        """R1, R2 or both by themselves, multiplied by their interval."""
        images, features = self._penalised(batch)
        scores = {kind: self.discriminator.head(of_kind, batch.label) for kind, of_kind in features.items()}
        return self.r1_interval * self._penalty(images, scores)

    def path_phase(self, batch: Batch, repetition: int) -> Tensor:
        """Path-length regularisation on fakes of half the batch, multiplied by its interval."""
        half = max(1, len(batch.indices) // 2)
        indices, label = batch.indices[:half], None if batch.label is None else batch.label[:half]
        part = Batch(batch.images[:half], label, indices, batch.keys[:half])
        codes = self._codes("path", part).in_space(Space.W_BY_LAYER, self.generator.num_ws)
        if not codes.values.requires_grad:  # where the mapping is frozen
            codes = Codes(codes.values.clone().requires_grad_(), codes.space)
        noise = counted.generators(self.seed, "path/noise", indices)
        images = self.generator.synthesize(codes, "random", noise)
        directions = counted.normal(self.seed, "path/directions", indices, images[0].numel()).to(images)
        lengths = path_lengths(images, codes.values, directions.view_as(images))
        mean = self._mean_over_ranks(lengths.detach().mean())
        self.path_length.lerp_(mean.to(self.path_length), PATH_LENGTH_RATE)
        self._note("path_length", lengths.mean())
        penalty = self._note("loss/path_length", (lengths - self.path_length).square().mean())
        return self.path_length_interval * self.path_length_weight * penalty

    def generator_phase(self, batch: Batch, repetition: int) -> Tensor:
        """The loss on fresh fakes."""
        stream = f"generator{repetition}"
        if self.label_contrast is None:
            fakes = self._fakes(stream, batch)
        else:
            fakes, contrast = self._contrasted(stream, batch)
        scores = self.discriminator(self._augmented(fakes, batch, stream), batch.label)
        loss = self._note("loss/generator", self.loss.generator(scores, partial(self._real_scores, batch)))
        if self.score_matching > 0 and self.clock() >= 1000 * self.score_matching_start:
            loss = loss + self.score_matching * self._matching_term(fakes)
        if self.label_contrast is not None:
            loss = loss + self.label_contrast.weight * contrast
        return loss

    def _contrasted(self, stream: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Fakes for a batch, and the loss of pairs of them and fakes of the same latents with other labels."""
        assert batch.label is not None
        others = self._drawn_labels(f"{stream}/others", batch.indices)
        assert others is not None
        other = self.pairs.drawn(others, self.seed, f"{stream}/contrast", batch.indices)
        labels = torch.cat([batch.label, self.pairs.edited(batch.label, other, batch.indices)])
        images = self._fakes(stream, replace(batch, label=labels, indices=batch.indices * 2))
        return images[: len(other)], self._note("loss/label_contrast", self.pairs(images, labels))

    def _matching_term(self, fakes: Tensor) -> Tensor:
        """How far the attributes of fakes are from being distributed as those of real images."""
        scores = self.matching.scores(fakes)
        gathered = self.all_gather(scores.detach())
        assert isinstance(gathered, Tensor)
        of_all = gathered.view(-1, scores.shape[1])
        return self._note("loss/score_matching", self.matching(scores, of_all))

    def _real_scores(self, batch: Batch) -> Tensor:
        """Scores of the real images by the discriminator as it is in the generator's phase; without graph."""
        if batch.real_scores is None:
            features = batch.real_features
            with torch.no_grad():
                if features is None:
                    features = self.discriminator.features(self._augmented(batch.images, batch, STREAMS["real"]))
                batch.real_scores = self.discriminator.head(features, batch.label)
        return batch.real_scores

    def _fakes(self, stream: str, batch: Batch) -> Tensor:
        """Fakes for a batch; latents, mixing and noise are counted by the images' global indices."""
        noise = counted.generators(self.seed, f"{stream}/noise", batch.indices)
        return self.generator.synthesize(self._codes(stream, batch), "random", noise)

    def _codes(self, stream: str, batch: Batch) -> Codes:
        """The fakes' style codes, mixed where that is set; keeps their mean for ``w_avg``."""
        g = self.generator
        z = counted.normal(self.seed, f"{stream}/z", batch.indices, g.z_dim).to(batch.images)
        w = g.map(z, batch.label)
        self._last_w_mean = w.values.detach()[: len(batch.images)].mean(dim=0)
        if self.style_mixing > 0:
            draws = counted.generators(self.seed, f"{stream}/mixing", batch.indices)
            w = mix_styles(g, w, batch.label, self.style_mixing, draws)
        return w

    def _half_life(self) -> float:
        """Half-life of the averaged generator, in images."""
        whole = self.ema_kimg * 1000
        return min(whole, max(self.ema_rampup * self.clock(), 1e-9)) if self.ema_rampup > 0 else whole

    def _drawn_labels(self, stream: str, indices: list[int]) -> Tensor | None:
        return self.generator.draw_labels(counted.generators(self.seed, stream, indices))

    # --- metrics

    def _note(self, name: str, value: Tensor) -> Tensor:
        """Keeps a term for the finite check and the log, and returns it."""
        self._terms[name] = value.detach()
        self._means[name].update(value.detach())
        return value

    def _log_metrics(self) -> None:
        """Logs the means since the last time, in a step in which Lightning writes what is logged."""
        # Every rank computes, since computing synchronises; only rank zero writes.
        nothing = torch.tensor(torch.nan)  # R1 may not have been due; Lightning repeats the value of what is left out
        losses = {name: mean.compute() if mean.update_called else nothing for name, mean in self._means.items()}
        metrics = {name: losses.pop(name) for name in list(losses) if not name.startswith("loss/")}
        metrics["auroc/real_fake"] = self.auroc.compute()
        # LearningRateMonitor would write a row of its own one batch earlier and call the rates after the optimizers'
        # class, which both networks share; ThroughputMonitor would count grids and checkpoints as training.
        exact = {"images_per_second": (self.clock() - self._logged_at) / max(self._seconds, 1e-9)}
        for network, optimizer in zip(self._sources, self.trainer.optimizers, strict=True):
            exact[f"learning_rate/{network}"] = optimizer.param_groups[0]["lr"]
            if network in self._apart:
                exact[f"learning_rate/{self._apart[network].what}"] = optimizer.param_groups[1]["lr"]
        exact["epoch"] = self.clock() / len(self.data.train_set)
        self.log_dict(losses, prog_bar=True)
        self.log_dict(metrics | {name: torch.tensor(value, dtype=torch.double) for name, value in exact.items()})
        self._reset_metrics()

    def _reset_metrics(self) -> None:
        for metric in (*self._means.values(), self.auroc):
            metric.reset()
        self._seconds, self._logged_at = 0.0, self.clock()

    # --- hooks

    @property
    def from_scratch(self) -> bool:
        """Whether the networks started from random weights."""
        return self._sources["generator"] is None

    @property
    def finished(self) -> bool:
        """Whether all images of the budget have been seen."""
        return self.clock() >= self.kimg * 1000

    @property
    def steps_left(self) -> int:
        """Steps until all images of the budget have been seen, for the progress bar."""
        return math.ceil((self.kimg * 1000 - self.clock()) / self.data.batch_size)

    def on_fit_start(self) -> None:
        """Checks that data and networks fit, and takes over the data's labels where training uses them."""
        dataset = self.data.train_set
        expected = self.generator.resolution
        if dataset.resolution != expected:
            raise ConfigError(
                f"the images have resolution {dataset.resolution}, the generator {expected}; expected the same"
            )
        table = dataset.labels
        if self.labels == "dataset" and (table is None or table.shape[1] != self.generator.c_dim):
            raise ConfigError(
                f"labels is 'dataset' and the generator takes {self.generator.c_dim} values, but the data has "
                f"{'no labels' if table is None else f'{table.shape[1]} per image'}"
            )
        if self.label_contrast is not None and self.labels == "dataset":
            names = self._names_of_labels()
            if self.data.label_names != names:
                raise ConfigError(
                    f"label_contrast takes the labels for those of the world, {', '.join(names)}, and the data has "
                    f"{', '.join(self.data.label_names)}; set data.init_args.label_columns to 'label'"
                )
        if self.labels == "dataset" and self.augmentation is not None and self.augmentation.mirrors:
            refuse_turning(self.data.label_names, setting="model.init_args.augmentation.init_args.flip")
        kept = torch.from_numpy(table) if self.labels == "dataset" and table is not None else None
        for network in (self.generator, self.G_ema):
            network.set_labels(self.labels, kept)
        # Features of all images, mirrored and not, in float32; of use where each image's stay what they are.
        size = 2 * len(dataset) * 4 * math.prod(self.discriminator.feature_shape)
        keeps = self.keeps_features and size <= self.feature_cache * 2**30
        self.kept_features = FeatureCache(self._trunk) if keeps else None
        if self.score_matching > 0 and self.data.batch_size < 2:
            raise ConfigError(
                "score_matching compares the images of a batch; expected data.init_args.batch_size 2 or more"
            )
        self._check_std_group(self.data.batch_size)
        self._check_path_share(self.data.batch_size)
        every = self.log_every * 1000 / self.data.batch_size
        self._steps_per_log = max(1, round(every)) if every > 0 else 0
        self.trainer.log_every_n_steps = self._steps_per_log  # type: ignore[attr-defined]

    def _check_std_group(self, batch_size: int) -> None:
        """Insists on batches of whole groups, which several ranks form as one would."""
        world = self.trainer.world_size
        group, share = min(self.discriminator.mbstd_group_size, batch_size), batch_size // world
        if batch_size % world == 0 and share % group:
            of = f"each of {world} processes" if world > 1 else "a batch"
            raise ConfigError(
                f"the minibatch standard deviation takes groups of {group} images, and {of} has {share}; expected a "
                "multiple of the group. Choose another data.init_args.batch_size or model.init_args.mbstd_group_size"
            )

    def _check_path_share(self, batch_size: int) -> None:
        """Insists on shares that can be halved: half of each is then half of the batch, as one process takes it."""
        world = self.trainer.world_size
        share, rest = divmod(batch_size, world)
        if self.path_length_weight > 0 and world > 1 and not rest and share % 2:
            raise ConfigError(
                f"path lengths are measured on half of each process's images, and each of {world} processes has "
                f"{share}; expected an even number. Choose another data.init_args.batch_size"
            )

    def on_train_start(self) -> None:
        """Lets settings win over a checkpoint's, and ends at once when the whole budget has been seen already."""
        super().on_train_start()
        self._reset_metrics()
        if self.score_matching > 0:
            if self.score_matching_start >= self.kimg:
                print(
                    f"score_matching has no effect: it starts at {self.score_matching_start:g} kimg "
                    f"(score_matching_start), and this training ends at {self.kimg:g}"
                )
            reals = random_batches(self.data.train_set, SCORED_REALS, self.seed, "score matching", 50)
            self.matching.look_at(batch.to(self.device) for batch in reals)
        if self.finished:
            self.trainer.should_stop = True

    @property
    def completed(self) -> bool:
        """Whether all images of the budget have been seen, or early stopping has ended training."""
        return self.finished or outcomes.stopped_early(self.trainer)

    def nothing_to_do(self, trainer: L.Trainer, checkpoint: Mapping[str, Any] | None) -> str | None:
        """Whether the checkpoint has seen all images of the budget."""
        seen = int(checkpoint["state_dict"]["images_seen"]) if checkpoint else 0
        if seen < self.kimg * 1000:
            return None
        return f"{seen} images have been seen, and model.init_args.kimg is {self.kimg}"

    def make_products(self, about: Mapping[str, Any]) -> None:
        """Writes the discriminator and the averaged generator to the stage's folder and the run's."""
        sources = {f"from_{name}": path for name, path in self._sources.items()}
        guide = None if self.label_contrast is None else self.label_contrast.guide
        guided = {} if guide is None else {GUIDE: network_files.fingerprint(guide.file)}
        provenance = {"images_seen": self.clock(), **sources, **guided, **about}
        for name, network in zip(self.products, (self.discriminator, self.G_ema), strict=True):
            self._written = save_product(self.trainer, name, network, provenance)

    def on_fit_end(self) -> None:
        """Says what was written, and what has been measured of it since."""
        super().on_fit_end()
        if self.trainer.is_global_zero and (self.whole or self.finishing):
            reached = ", ".join([f"{self.clock() / 1000:.6g} kimg", *self.headlines])
            print(f"wrote {self._written}: {reached}")

    def on_train_batch_end(self, *about: Any) -> None:
        """Lets early stopping look at what was logged in this step: training by kimg has no epochs to wait for."""
        super().on_train_batch_end(*about)
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if self._steps_per_log and int(self.steps) % self._steps_per_log == 0:
            for callback in callbacks:
                if isinstance(callback, EarlyStopping):
                    callback.on_train_epoch_end(self.trainer, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes room for what has its size from the checkpoint: the label table."""
        state = checkpoint["state_dict"]
        for name in ("generator", "G_ema"):
            table = state.get(f"{name}.label_table")
            if table is None:
                break  # of other networks
            getattr(self, name).label_table = torch.zeros_like(table)
        super().on_load_checkpoint(checkpoint)

    def _mean_over_ranks(self, value: Tensor) -> Tensor:
        reduced = self.trainer.strategy.reduce(value, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        return reduced

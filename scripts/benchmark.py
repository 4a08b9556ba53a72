"""Measures what a stage costs.

``finetune`` takes the steps of fine-tune v1 (7 labels, the mapping and the discriminator's end train) from random
weights, and beside them, in the same process, those of a plain reference: the original's step, whose fakes keep the
generator's graph and a latent that requires gradients, with R1 in every step, the published layers and fp32. The repeat
rule is off on both sides.

``sample`` makes style codes and scores from random weights, and beside it follows the original's protocol: synthesis in
batches of 4 in fp32, images through numpy as grey levels, the CNN on one image at a time. ``directions`` times what
searches are made of: images with scores, and images with gradients. ``render`` times one image of a character.
``stylegan2`` times images and the parts of a training step of StyleGAN2, and beside them, in turns, a plain reference.

python scripts/benchmark.py finetune
python scripts/benchmark.py finetune --device cuda --precision bf16-mixed --steps 20
python scripts/benchmark.py sample
python scripts/benchmark.py directions
python scripts/benchmark.py render
python scripts/benchmark.py stylegan2
python scripts/benchmark.py stylegan2 --device cuda --batch 16 64 --precision tf32 --steps 20
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ohlora.attributes import recipe
from ohlora.characters.character import Character
from ohlora.datamodules.drawn_faces import DrawnFaces
from ohlora.datamodules.latents import Latents
from ohlora.directions.edits import Steps
from ohlora.formats import network_files, sample_files
from ohlora.modules.gan import GAN
from ohlora.modules.sampling import Sample
from ohlora.networks import stylegan2 as family2
from ohlora.networks.attribute_cnn import AttributeCNN, attribute_cnn
from ohlora.networks.codes import Codes, Space
from ohlora.networks.losses import gradient_penalties, path_lengths
from ohlora.networks.operations import EPSILON, LEAK, EqualizedConv2d
from ohlora.networks.registry import Architecture
from ohlora.networks.sampling import counted_latents, score_gradients, scores_of_codes
from ohlora.networks.stylegan import FUSED_FROM, Discriminator, Generator, StyleLayer
from ohlora.studio.steering import SteeringSession
from ohlora.utils import counted
from ohlora.utils.files import shipped

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where scripts is found if this is run as a file
from scripts import plain_stylegan2

PATH_INTERVAL = 4
"""StyleGAN2's interval of path lengths, in steps."""
R1_INTERVAL = 16
"""The recipe's interval of R1, in steps."""
EPOCHS = 39
"""Epochs of fine-tune v1; the cost of what is computed once per image is divided by them."""
EXACT_RESOLUTION = 32
"""Where gradients are compared in float64. In fp32, rounding alone carries activations across the kink of a leaky ReLU,
and each takes a thousandth of the generator's gradient with it; the reference strays as far from the truth as ours."""
ADAM = partial(torch.optim.Adam, lr=1e-4)
Gradients = dict[str, dict[str, Tensor]]


# --- the plain reference: the published layers, differentiated by autograd


class PublishedBlur(torch.autograd.Function):
    """Depth-wise binomial filter with the backward pass of the published code."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        """Filters N×C×H×W."""
        ctx.save_for_backward(kernel)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Filters with the flipped kernel."""
        (kernel,) = ctx.saved_tensors
        return F.conv2d(gradient, kernel.flip(2, 3), padding=1, groups=gradient.shape[1]), None


def published_blur(x: Tensor) -> Tensor:
    """The filter with a fresh kernel."""
    tap = x.new_tensor([0.25, 0.5, 0.25])
    kernel = (tap[:, None] * tap[None, :]).repeat(x.shape[1], 1, 1, 1)
    y: Tensor = PublishedBlur.apply(x, kernel)  # type: ignore[no-untyped-call]
    return y


def fused_kernel(weight: Tensor) -> Tensor:
    """The sum of a 3×3 kernel's four shifted copies in a 4×4 window."""
    k = F.pad(weight, (1, 1, 1, 1))
    return k[:, :, 1:, 1:] + k[:, :, :-1, 1:] + k[:, :, 1:, :-1] + k[:, :, :-1, :-1]


def plain_style_layer(layer: StyleLayer, x: Tensor | None, w: Tensor, noise: Tensor) -> Tensor:
    """One style layer as published: upsampling before the convolution below 128, one transposed convolution above."""
    if x is None:
        x, bias = layer.constant.repeat(len(w), 1, 1, 1), layer.bias
    else:
        weight, bias = layer.conv.scaled_weight(), layer.conv.bias
        if layer.up and layer.resolution >= FUSED_FROM:
            x = published_blur(F.conv_transpose2d(x, fused_kernel(weight).transpose(0, 1), stride=2, padding=1))
        elif layer.up:
            x = published_blur(F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1))
        else:
            x = F.conv2d(x, weight, padding=1)
    x = F.leaky_relu(x + noise * layer.noise_weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1), LEAK)
    x = x - x.mean(dim=(2, 3), keepdim=True)
    x = x / torch.sqrt((x**2).mean(dim=(2, 3), keepdim=True) + EPSILON)
    style: Tensor = layer.affine(w)
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    return x * (scale + 1) + shift


def plain_generator(g: Generator, z: Tensor, label: Tensor | None, noise: list[Tensor]) -> Tensor:
    """Latents to images through the published layers."""
    w, x = g.map(z, label).values, None
    for layer, of_layer in zip(g.synthesis.style_layers(), noise, strict=True):
        x = plain_style_layer(layer, x, w, of_layer)
    image: Tensor = g.synthesis.to_rgb(x)
    return image


def plain_down(layer: EqualizedConv2d, x: Tensor) -> Tensor:
    """A halving layer as published: average pooling after the convolution below 128, one strided convolution above."""
    weight, bias = layer.scaled_weight(), layer.bias
    if x.shape[-1] >= FUSED_FROM:
        return F.conv2d(published_blur(x), fused_kernel(weight) / 4, bias, stride=2, padding=1)
    pooled: Tensor = F.avg_pool2d(F.conv2d(published_blur(x), weight, bias, padding=1), 2)
    return pooled


def plain_discriminator(d: Discriminator, images: Tensor, label: Tensor | None) -> Tensor:
    """Scores through the published layers."""
    x = F.leaky_relu(F.conv2d(images, d.from_rgb.scaled_weight(), d.from_rgb.bias), LEAK)
    for layer in (layer for block in d.blocks.values() for layer in block.values()):  # type: ignore[operator]
        plain = plain_down(layer, x) if layer.down else F.conv2d(x, layer.scaled_weight(), layer.bias, padding=1)
        x = F.leaky_relu(plain, LEAK)
    return d.head(x, label)


def discriminator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    """The logistic loss."""
    return F.softplus(fake_scores).mean() + F.softplus(-real_scores).mean()


class Reference:
    """The original's step on copies of a stage's networks."""

    def __init__(self, module: GAN) -> None:
        assert isinstance(module.generator, Generator) and isinstance(module.discriminator, Discriminator)
        self.generator, self.discriminator = copy.deepcopy(module.generator), copy.deepcopy(module.discriminator)
        self.seed, self.r1_gamma = module.seed, module.gammas["real"]
        self.optimizers = {
            name: ADAM([p for p in network.parameters() if p.requires_grad])
            for name, network in (("generator", self.generator), ("discriminator", self.discriminator))
        }

    def step(self, reals: Tensor, indices: range, follow: nn.Module | None = None) -> Gradients:
        """One update of each network.

        Args:
            reals: N×3×R×R.
            indices: Global indices of the images; they decide latents, labels and noise.
            follow: Weights to take over after the discriminator's update, so that rounding in it does not reach the
                generator's gradients.

        Returns:
            The gradients of both networks, by parameter name.
        """
        g, d = self.generator, self.discriminator
        label = g.draw_labels(counted.generators(self.seed, "label", indices))
        with frozen(g):
            fake_scores = plain_discriminator(d, self._fakes("discriminator", indices, label), label)
            x = reals.detach().requires_grad_()
            real_scores = plain_discriminator(d, x, label)
            penalty = gradient_penalties(real_scores, x).mean()
            loss = discriminator_loss(fake_scores, real_scores) + self.r1_gamma / 2 * penalty
            of_discriminator = self._update("discriminator", d, loss)
        if follow is not None:
            d.load_state_dict(follow.state_dict())
        with frozen(d):
            scores = plain_discriminator(d, self._fakes("generator0", indices, label), label)
            of_generator = self._update("generator", g, F.softplus(-scores).mean())
        return {"discriminator": of_discriminator, "generator": of_generator}

    def _fakes(self, stream: str, indices: range, label: Tensor | None) -> Tensor:
        z = counted.normal(self.seed, f"{stream}/z", indices, self.generator.z_dim).to(self.generator.w_avg)
        generators = counted.generators(self.seed, f"{stream}/noise", indices)
        noise = self.generator.draw_noise("random", generators, len(indices))
        return plain_generator(self.generator, z.requires_grad_(), label, noise)

    def _update(self, name: str, network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
        self.optimizers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[name].step()
        return {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within it no parameter of a network takes gradients."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    yield
    for p in trainable:
        p.requires_grad_(True)


# --- ours, through the real trainer


class Watch(L.Callback):
    """Times a stage's steps, and the reference's after each of them; the first ``skip`` warm up.

    Attributes:
        seconds: Duration of each timed step of ours, in order.
        reference_seconds: Likewise of the reference.
        keeping_seconds: What computing the kept features of all images took.
        flops: Arithmetic of each warming step of ours.
        difference: Largest difference of a gradient from the reference's in the first step, over the largest value of
            the same parameter's.
    """

    def __init__(self, skip: int, beside_reference: bool) -> None:
        self.skip, self.beside_reference = skip, beside_reference
        self.seconds: list[float] = []
        self.reference_seconds: list[float] = []
        self.flops: list[int] = []
        self.keeping_seconds = self.difference = 0.0
        self._gradients: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fills the feature cache, and prepares the reference."""
        assert isinstance(pl_module, GAN)
        module, data = pl_module, next(iter(cast(Any, trainer.train_dataloader)))
        self._reals = data["image"].to(module.device)
        if module.kept_features is not None:
            keys = [(index, False) for index in data["index"]]
            with trainer.strategy.precision_plugin.train_step_context():
                self.keeping_seconds = timed(partial(module.kept_features, self._reals, keys))
        if self.beside_reference:
            self._reference = Reference(module)
            for name, optimizer in zip(("generator", "discriminator"), trainer.optimizers, strict=True):
                optimizer.register_step_pre_hook(partial(self._keep, name))

    def _keep(self, name: str, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not self.seconds:
            self._gradients[name] = [p.grad.clone() for p in optimizer.param_groups[0]["params"]]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the watch, and the count of arithmetic while warming up."""
        if batch_idx < self.skip:
            self._counting = ExitStack()
            self._counter: FlopCounterMode = self._counting.enter_context(flop_counter())
        self._started = now()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the watch, then lets the reference make the same step."""
        assert isinstance(pl_module, GAN)
        if batch_idx < self.skip:
            self._counting.close()
            self.flops.append(self._counter.get_total_flops())
        else:
            self.seconds.append(now() - self._started)
        if self.beside_reference:
            self._step_of_reference(pl_module, batch["image"], batch_idx)
        of = f"step {batch_idx + 1} of {batch_idx + 1 + pl_module.steps_left}, R1 every {pl_module.r1_interval}"
        said = "ours and the reference's" if self.beside_reference else "ours"
        print(f"{of}, {said}: {now() - self._started:.3g} s", file=sys.stderr, flush=True)

    def _step_of_reference(self, module: GAN, reals: Tensor, batch_idx: int) -> None:
        size = len(reals)
        indices = range(batch_idx * size, (batch_idx + 1) * size)
        first = batch_idx == 0
        started = now()
        expected = self._reference.step(reals, indices, module.discriminator if first else None)
        if batch_idx >= self.skip:
            self.reference_seconds.append(now() - started)
        if first:
            self.difference = max(
                float((gradient - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
                for name, of_network in expected.items()
                for gradient, wanted in zip(self._gradients[name], of_network.values(), strict=True)
            )


def now() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    started = now()
    work()
    return now() - started


def peak_memory(device: str) -> int:
    """Most memory held so far, in bytes: on the device, or by this process on a CPU."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def trainer(given: argparse.Namespace, precision: Any, callback: L.Callback) -> L.Trainer:
    """A trainer on one device that shows and keeps nothing."""
    return L.Trainer(
        accelerator="gpu" if given.device == "cuda" else "cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=-1,
        use_distributed_sampler=False,
        callbacks=[callback],
        default_root_dir=given.folder,
    )


def train(given: argparse.Namespace, r1_interval: int, steps: int, watch: Watch) -> GAN:
    """Takes a number of steps of fine-tune v1 from random weights."""
    L.seed_everything(0, verbose=False)
    module = GAN(
        kimg=given.batch * steps / 1000,
        generator_optimizer=ADAM,
        discriminator_optimizer=ADAM,
        architecture=Architecture(resolution=given.resolution, c_dim=7, mbstd_group_size=16),
        trainable_generator=["mapping.*"],
        trainable_discriminator=["epilogue.*"],
        labels="normal",
        r1_interval=r1_interval,
        max_generator_updates=1,
        log_every=0,
    )
    for p in (*module.generator.parameters(), *module.discriminator.parameters()):
        if p.ndim == 1:  # biases and noise are at work in a trained network
            nn.init.normal_(p, std=0.1)
    data = DrawnFaces(given.resolution, train_size=given.batch, batch_size=given.batch)
    module.connect(data)
    trainer(given, given.precision, watch).fit(module, datamodule=data)
    return module


def required_flops(module: GAN, batch: int, r1_share: float) -> float:
    """Arithmetic that the gradients of a step need, from that of each part's forward pass.

    A gradient by inputs costs as much as the forward pass, and so does one by weights. Needed are: the fakes twice; the
    trunk on fakes twice, and its and the synthesis's gradients by inputs once; the ends' and the mapping's own
    gradients. R1 adds the trunk three times (forward, gradient by the images, that gradient's change along itself) and
    the end four times (its weights' gradients too).
    """
    g, d = module.generator, module.discriminator
    assert isinstance(d, Discriminator)
    device = module.device
    z, w = torch.zeros(batch, g.z_dim, device=device), Codes(torch.zeros(batch, g.w_dim, device=device), Space.W)
    label = torch.zeros(batch, g.c_dim, device=device)
    images = torch.zeros(batch, 3, g.resolution, g.resolution, device=device)
    with torch.no_grad():
        features = d.features(images)
        mapping = count(lambda: g.map(z, label))
        synthesis = count(lambda: g.synthesize(w))
        trunk = count(lambda: d.features(images))
        head = count(lambda: d.head(features, label))
        conv = count(lambda: d.epilogue["conv"](torch.cat([features, features[:, :1]], dim=1)))
    discriminator_step = mapping + synthesis + trunk + 2 * (3 * head - conv)
    generator_step = 3 * mapping + 2 * (synthesis + trunk + head)
    return discriminator_step + generator_step + r1_share * (3 * trunk + 4 * head)


class _OneModule:
    """Counts everything together: torch's own tracker of modules refuses R1's gradient by the images."""

    parents: ClassVar = {"Global"}

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def flop_counter() -> FlopCounterMode:
    """Torch's counter of floating-point operations, without a table by module."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _OneModule()  # type: ignore[assignment]
    return counter


def count(work: Callable[[], object]) -> int:
    """Floating-point operations of some work."""
    with flop_counter() as counter:
        work()
    return int(counter.get_total_flops())


def finetune(given: argparse.Namespace) -> dict[str, float]:
    """Runs the comparison.

    Returns:
        The metrics of the last line: times in seconds per thousand images; ``gradient_difference`` from float64 at a
        small size, ``gradient_difference_rounded`` from the timed size and precision.
    """
    # With an interval of 2, steps with and without R1 take turns; each does what it does with one of 16.
    alternating = Watch(skip=2, beside_reference=False)
    module = train(given, r1_interval=2, steps=2 + 2 * given.steps, watch=alternating)
    memory = peak_memory(given.device)
    every = Watch(skip=1, beside_reference=True)
    train(given, r1_interval=1, steps=1 + given.steps, watch=every)
    exact = Watch(skip=1, beside_reference=True)
    small = {"resolution": min(given.resolution, EXACT_RESOLUTION), "batch": 4, "precision": "64-true"}
    train(argparse.Namespace(**(vars(given) | small)), r1_interval=1, steps=1, watch=exact)
    mean = {
        "with R1": sum(alternating.seconds[::2]) / given.steps,
        "without R1": sum(alternating.seconds[1::2]) / given.steps,
        "R1 every step": sum(every.seconds) / given.steps,
        "reference": sum(every.reference_seconds) / given.steps,
        "features of reals, once": alternating.keeping_seconds,
    }
    for name, seconds in mean.items():
        print(f"{name:24}{seconds:9.3f} s per {given.batch} images")
    step = (mean["with R1"] + (R1_INTERVAL - 1) * mean["without R1"]) / R1_INTERVAL
    step += mean["features of reals, once"] / EPOCHS
    executed = (alternating.flops[0] + (R1_INTERVAL - 1) * alternating.flops[1]) / R1_INTERVAL
    per_kimg = 1000 / given.batch
    return {
        "ratio": mean["reference"] / step,
        "ratio_every_step": mean["reference"] / mean["R1 every step"],
        "gradient_difference": exact.difference,
        "gradient_difference_rounded": every.difference,
        "required_share": required_flops(module, given.batch, 1 / R1_INTERVAL) / executed,
        "peak_memory_bytes": memory,
        "seconds_per_kimg": step * per_kimg,
        "seconds_per_kimg_every_step": mean["R1 every step"] * per_kimg,
        "seconds_per_kimg_reference": mean["reference"] * per_kimg,
    }


# --- sampling


class Stopwatch(L.Callback):
    """Times a prediction from its second batch on to its end, writing included.

    Attributes:
        seconds: What it took.
    """

    seconds = 0.0

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Starts once the first batch has warmed everything up."""
        if batch_idx == 1:
            self._started = now()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops."""
        self.seconds = now() - self._started


def sampled(given: argparse.Namespace, name: str, precision: str) -> tuple[float, np.ndarray]:
    """Samples into a folder; images per second, and the scores."""
    folder = Path(given.folder)
    module = Sample(
        str(folder / "generator.safetensors"),
        str(folder / "network.safetensors"),
        str(folder / name),
        shard_size=given.count,
        compile=given.compile,
    )
    watch, data = Stopwatch(), Latents(given.count, given.batch)
    module.connect(data)
    trainer(given, precision, watch).predict(module, datamodule=data, return_predictions=False)
    return (given.count - given.batch) / watch.seconds, sample_files.read_scores(folder / name)


@torch.inference_mode()
def sampled_as_published(generator: Generator, network: AttributeCNN, count: int, device: str) -> float:
    """The original's protocol; images per second."""
    generator, network = generator.to(device), network.to(device)
    kept: list[tuple[list[float], list[float]]] = []
    started = now()
    for first in range(0, count, 4):
        indices = range(first, first + 4)
        z, label = counted_latents(generator, 0, indices)
        noise = generator.noise_buffers()
        made = plain_generator(generator, z, label, noise).cpu().numpy()
        grey = np.clip((made.astype(np.float64) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
        codes = generator.map(z, label).values.cpu().numpy().tolist()
        for image, w in zip(grey, codes, strict=True):
            scaled = torch.from_numpy((image / 127.5 - 1)[None].astype(np.float32)).to(device)
            kept.append((w, network(scaled)[0].cpu().numpy().tolist()))
    return count / (now() - started)


def fastest_kernel(device: str, dtype: torch.dtype) -> float:
    """Arithmetic per second of the fastest of a matrix product and a convolution."""
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    x = torch.randn(8, 256, 64, 64, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    best = 0.0
    for work in (lambda: a @ a, lambda: F.conv2d(x, kernel, padding=1)):
        flops = count(work)
        best = max(best, flops / min(timed(work) for _ in range(5)))
    return best


def random_networks(resolution: int) -> tuple[Generator, AttributeCNN]:
    """A generator like fine-tune v8's and a search CNN, with random weights."""
    torch.manual_seed(0)
    generator = Generator(resolution, c_dim=7, labels="normal").eval().requires_grad_(False)
    network = attribute_cnn("merged", "original" if resolution >= 256 else "small", resolution).eval()
    for p in generator.parameters():
        if p.ndim == 1:
            nn.init.normal_(p, std=0.1)
    return generator, network.requires_grad_(False)


def sample(given: argparse.Namespace) -> dict[str, float]:
    """Runs the comparison.

    Returns:
        ``ratio`` and both speeds in images per second; ``peak_share``, our arithmetic per second over that of the
        fastest kernel; with bf16, the scores' differences from fp32 in standard deviations.
    """
    generator, network = random_networks(given.resolution)
    network_files.save_network(generator, Path(given.folder) / "generator.safetensors")
    network_files.save_network(network, Path(given.folder) / "network.safetensors")
    speed, scores = sampled(given, "ours", given.precision)
    published = sampled_as_published(generator, network, given.reference_count, given.device)
    dtype = torch.bfloat16 if given.precision == "bf16-mixed" else torch.float32
    z, label = torch.zeros(1, generator.z_dim), torch.zeros(1, 7)
    with torch.inference_mode():
        flops = count(lambda: network.cpu()(generator.cpu()(z, label)))
        peak = fastest_kernel(given.device, dtype)
    metrics = {
        "ratio": speed / published,
        "images_per_second": speed,
        "images_per_second_published": published,
        "peak_share": speed * flops / peak,
        "peak_memory_bytes": float(peak_memory(given.device)),
    }
    if given.precision != "32-true":
        _, exact = sampled(given, "exact", "32-true")
        apart = (scores - exact) / exact.std(axis=0)
        metrics["score_difference_rms"] = float(np.sqrt((apart**2).mean(axis=0)).max())
        metrics["score_difference_max"] = float(np.abs(apart).max())
    return metrics


def directions(given: argparse.Namespace) -> dict[str, float]:
    """Times what searches are made of.

    Returns:
        Images per second with scores (what samples cost) and with the gradients of all outputs (what latents cost), and
        from these the seconds that searches take by samples and by gradients (three passes).
    """
    generator, network = random_networks(given.resolution)
    generator, network = generator.to(given.device), network.to(given.device)
    codes = generator.map(*[torch.randn(given.batch, size, device=given.device) for size in (generator.z_dim, 7)])
    outputs = range(len(network.outputs))
    forward = partial(scores_of_codes, generator, [network], codes, given.batch)
    backward = partial(score_gradients, generator, network, codes, outputs, given.batch)
    speeds = {}
    for name, work in (("score", forward), ("gradient", backward)):
        work()
        speeds[name] = given.batch / min(timed(work) for _ in range(given.steps))
    metrics = {f"{name}s_per_second": speed for name, speed in speeds.items()}
    for latents in (300, 1000):
        metrics[f"seconds_by_gradients_{latents}"] = 3 * latents / speeds["gradient"]
    for count in (8000, 240000):
        metrics[f"seconds_by_samples_{count}"] = count / speeds["score"]
    return metrics | {"peak_memory_bytes": float(peak_memory(given.device))}


def render(given: argparse.Namespace) -> dict[str, float]:
    """Times one image of a character with random weights, and the studio's answer to a slider, which enlarges it.

    Returns:
        Milliseconds of each, medians, at 64×64 and at ``--resolution``.
    """
    metrics = {}
    for resolution in (64, given.resolution):
        torch.manual_seed(0)
        toy = shipped("weights/toy/generator.safetensors")
        generator = network_files.load_generator(toy) if resolution == 64 else Generator(resolution).eval()
        generator = generator.to(given.device)
        w = Codes(torch.randn(1, generator.w_dim, device=given.device), Space.W)
        steps = Steps(Codes(torch.randn(1, 3, generator.w_dim, device=given.device), Space.W))
        names = recipe().names("expression")
        character = Character(generator, w, names, steps, dict.fromkeys(names, (-1.0, 1.0)))
        works: dict[str, Callable[[], object]] = {
            "render": partial(character.render, eyes=0.1, mouth=0.1, pose=0.1),
            "studio": partial(SteeringSession(character).pictures, [[0.1, 0.1, 0.1]]),
        }
        for name, work in works.items():
            work()
            taken = [timed(work) for _ in range(given.steps)]
            metrics[f"{name}_milliseconds_{resolution}"] = 1000 * statistics.median(taken)
    return metrics


LENGTHS = {
    "finetune": "about 10 minutes on two CPU cores; shows each step as it is done",
    "sample": "about a minute on two CPU cores",
    "directions": "about 4 minutes on two CPU cores",
    "render": "about half a minute on two CPU cores",
    "stylegan2": "about half an hour on two CPU cores; shows each part as it is done",
}
"""How long each takes at its default sizes."""


# --- StyleGAN2


class Sides:
    """A StyleGAN2 with random weights, and the parts of its training step, by ours and by the plain reference.

    Args:
        resolution: Pixels a side.
        batch: Images of a step.
        device: Where.
        dtype: Of all tensors.
        channel_max: Largest number of feature maps.
    """

    def __init__(
        self, resolution: int, batch: int, device: str, dtype: torch.dtype = torch.float32, channel_max: int = 512
    ) -> None:
        torch.manual_seed(0)
        self.generator = family2.Generator(resolution, channel_max=channel_max)
        self.discriminator = family2.Discriminator(resolution, channel_max=channel_max)
        for network in (self.generator, self.discriminator):
            for name, p in network.named_parameters():
                if name.endswith((".bias", "noise_strength")):  # at work in a trained network
                    p.data += 0.1 * torch.randn_like(p)
            network.to(device, dtype)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, device=device, dtype=dtype)

        self.z, self.halved = drawn(batch, 512), max(1, batch // 2)
        self.reals = drawn(batch, 3, resolution, resolution)
        self.directions = drawn(self.halved, 3, resolution, resolution)
        self.noise = [drawn(batch, *b.shape[1:]) for b in self.generator.noise_buffers()]

    def codes(self, count: int) -> Tensor:
        """Codes by layer of the first latents."""
        g = self.generator
        return g.in_space(g.map(self.z[:count]), Space.W_BY_LAYER).values

    def images(self, ours: bool, codes: Tensor, fused: bool = False) -> Tensor:
        """Images of codes by layer; ``fused`` is the reference's way to make images without training."""
        g, noise = self.generator, [n[: len(codes)] for n in self.noise]
        if ours:
            return g.compute_images(g.compute_styles(codes), noise)
        return plain_stylegan2.images(g, codes, noise, fused)

    def scores(self, ours: bool, pictures: Tensor) -> Tensor:
        """The discriminator's scores."""
        return self.discriminator(pictures) if ours else plain_stylegan2.scores(self.discriminator, pictures)

    def part(self, name: str, ours: bool) -> Gradients:
        """One part of a step, with its backward pass; returns the gradients of the network that it trains."""
        network: nn.Module = self.discriminator if name in ("discriminator", "r1") else self.generator
        with frozen(self.generator if network is self.discriminator else self.discriminator):
            if name == "discriminator":
                with torch.no_grad():
                    fakes = self.images(ours, self.codes(len(self.z)))
                loss = discriminator_loss(self.scores(ours, fakes), self.scores(ours, self.reals))
            elif name == "r1":
                x = self.reals.clone().requires_grad_()
                scores = self.scores(ours, x)
                loss = gradient_penalties(scores, x).mean() if ours else plain_stylegan2.r1(scores, x)
            elif name == "path_length":
                codes = self.codes(self.halved)
                lengths = path_lengths if ours else plain_stylegan2.path_lengths
                loss = lengths(self.images(ours, codes), codes, self.directions).square().mean()
            else:
                loss = F.softplus(-self.scores(ours, self.images(ours, self.codes(len(self.z))))).mean()
            named = dict(network.named_parameters())
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {name: {key: g for key, g in zip(named, found, strict=True) if g is not None}}


PARTS = ("discriminator", "generator", "r1", "path_length")
"""What a training step of StyleGAN2 is made of."""


def differences(resolution: int) -> dict[str, float]:
    """Largest differences of reference and ours in float64, over the largest value: of outputs, and of gradients."""
    sides = Sides(resolution, 4, "cpu", torch.float64, channel_max=32)

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-12))

    codes = sides.codes(4)
    outputs = [apart(sides.images(False, codes, fused), sides.images(True, codes)) for fused in (False, True)]
    outputs.append(apart(sides.scores(False, sides.reals), sides.scores(True, sides.reals)))
    gradients = []
    for name in PARTS:
        (ours,), (plain,) = (sides.part(name, side).values() for side in (True, False))
        largest = max(float(g.abs().max()) for g in plain.values())
        gradients += [float((ours[key] - g).abs().max()) / largest for key, g in plain.items() if key in ours]
    return {"forward_difference": max(outputs), "gradient_difference": max(gradients)}


def stylegan2(given: argparse.Namespace) -> dict[str, float]:
    """Times images and training steps of StyleGAN2, ours and the plain reference's in turns.

    Returns:
        For each batch size, ratios of the reference's time to ours: of images, of a step with R1, and of the mean step
        with lazy regularisation; ours and the reference's milliseconds per image and seconds per thousand images; the
        share of the fastest kernel's arithmetic that images reach; differences of the two in float64.
    """
    if given.device == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = given.precision == "tf32"
    mixed = given.precision == "bf16-mixed"
    metrics = differences(min(given.resolution, EXACT_RESOLUTION))
    peak = fastest_kernel(given.device, torch.bfloat16 if mixed else torch.float32)
    total, done, began = len(given.batch) * (1 + len(PARTS)), 0, now()
    for batch in given.batch:
        sides = Sides(given.resolution, batch, given.device)
        with torch.no_grad():
            codes = sides.codes(batch)

        ours_made: Callable[[Tensor], Tensor] = partial(sides.images, True)
        if given.compile:  # images only: compiled functions cannot be differentiated twice
            ours_made = torch.compile(ours_made)

        def image(
            ours: bool, sides: Sides = sides, codes: Tensor = codes, made: Callable[[Tensor], Tensor] = ours_made
        ) -> None:
            with torch.no_grad():
                made(codes) if ours else sides.images(False, codes, fused=True)

        works: dict[str, Callable[[bool], object]] = {"image": image}
        works |= {name: partial(sides.part, name) for name in PARTS}
        seconds: dict[str, list[float]] = {}
        for name, work in works.items():
            taken: list[list[float]] = [[], []]
            with torch.autocast(given.device, torch.bfloat16, enabled=mixed):
                for repetition in range(1 + given.steps):  # the first warms up
                    for side, ours in enumerate((True, False)):
                        passed = timed(partial(work, ours))
                        if repetition:
                            taken[side].append(passed)
            seconds[name] = [statistics.median(of_side) for of_side in taken]
            done += 1
            said = "ours {:.3g} s, plain {:.3g} s".format(*seconds[name])
            about = f"[{done}/{total}, {now() - began:.0f} s] batch {batch}, {name.replace('_', ' ')}"
            print(f"{about}: {said}", file=sys.stderr, flush=True)
        base = [seconds["discriminator"][k] + seconds["generator"][k] for k in (0, 1)]
        with_r1 = [base[k] + seconds["r1"][k] for k in (0, 1)]
        lazy = [base[k] + seconds["r1"][k] / R1_INTERVAL + seconds["path_length"][k] / PATH_INTERVAL for k in (0, 1)]
        with torch.no_grad():
            flops = count(partial(sides.images, False, codes, True))
        metrics |= {
            f"image_ratio_{batch}": seconds["image"][1] / seconds["image"][0],
            f"step_with_r1_ratio_{batch}": with_r1[1] / with_r1[0],
            f"lazy_step_ratio_{batch}": lazy[1] / lazy[0],
            f"image_milliseconds_{batch}": 1000 * seconds["image"][0] / batch,
            f"image_milliseconds_plain_{batch}": 1000 * seconds["image"][1] / batch,
            f"seconds_per_kimg_{batch}": 1000 * lazy[0] / batch,
            f"seconds_per_kimg_plain_{batch}": 1000 * lazy[1] / batch,
            f"peak_share_{batch}": flops / seconds["image"][0] / peak,
        }
    return metrics | {"peak_memory_bytes": float(peak_memory(given.device))}


def main(args: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Measures what a stage costs; the last line is JSON.")
    commands = parser.add_subparsers(required=True)
    for work, about, defaults in (
        (finetune, "fine-tune v1 against the original's step", {"batch": 16, "steps": 2}),
        (sample, "sampling and scoring against the original's protocol", {"batch": 16}),
        (directions, "images with scores, and with gradients", {"batch": 8, "steps": 2}),
        (render, "one image of a character, and the studio's answer to a slider", {"steps": 20}),
        (stylegan2, "images and training steps of StyleGAN2 against a plain reference", {"steps": 2}),
    ):
        command = commands.add_parser(work.__name__, help=about, description=f"{about}; {LENGTHS[work.__name__]}")
        command.set_defaults(run=work)
        command.add_argument("--resolution", type=int, default=256, help="pixels a side (default: 256)")
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to run (default: cpu)")
        for name, value in defaults.items():
            said = "images at once" if name == "batch" else "timed steps, or repetitions"
            command.add_argument(f"--{name}", type=int, default=value, help=f"{said} (default: {value})")
        if work in (finetune, sample):
            precisions = ["32-true", "bf16-mixed"]
            command.add_argument("--precision", choices=precisions, default="32-true", help="ours (default: 32-true)")
        if work is stylegan2:
            said = "images at once, one size or several (default: 1 8)"
            command.add_argument("--batch", type=int, nargs="+", default=[1, 8], help=said)
            precisions = ["32-true", "tf32", "bf16-mixed"]
            command.add_argument(
                "--precision", choices=precisions, default="32-true", help="of both sides (default: 32-true)"
            )
        if work in (sample, stylegan2):
            said = "ours through torch.compile" if work is sample else "our images through torch.compile"
            command.add_argument("--compile", action="store_true", help=said)
        if work is sample:
            command.add_argument("--count", type=int, default=64, help="images of ours, the first batch untimed")
            command.add_argument("--reference-count", type=int, default=16, help="images of the reference")
    given = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as given.folder:  # a stage writes its results
        metrics = given.run(given)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in metrics.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

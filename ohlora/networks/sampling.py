"""Images of counted latents, and what attribute networks see in the images of style codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator, NoiseMode
from ohlora.utils import counted, images
from ohlora.utils.progress import tracked

BATCH = 100
"""Images that a network sees at once."""


class Scorer(Protocol):
    """Whatever sees K numbers in images, such as an attribute CNN."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the K numbers."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """N×K of images N×3×H×W in [−1, 1]."""
        ...


@torch.inference_mode()
def batched(
    compute: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device, batch_size: int = BATCH
) -> Tensor:
    """What a network makes of N inputs, batch by batch on its device; the result is on the CPU."""
    parts = tracked(torch.split(inputs, batch_size), "looking at images")
    return torch.cat([compute(batch.to(device)).cpu() for batch in parts])


def counted_latents(
    generator: Generator, seed: int, indices: Sequence[int], stream: str = ""
) -> tuple[Tensor, Tensor | None]:
    """Counted latents of N indices on the generator's device: z, N×Z, and labels, N×K, or None where it has none.

    ``stream`` says what they are for, such as ``"watch/"``; different streams are independent.
    """
    z = counted.normal(seed, f"{stream}z", indices, generator.z_dim).to(generator.w_avg)
    return z, generator.draw_labels(counted.generators(seed, f"{stream}label", indices))


def counted_batches(
    generator: Generator,
    seed: int,
    indices: Sequence[int],
    batch_size: int,
    noise_mode: NoiseMode = "random",
    stream: str = "watch/",
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images of counted latents, N×3×R×R, rounded to grey levels as files are, and their labels, if any.

    Batch by batch, on the generator's device, so that memory holds one batch only; :func:`joined` joins them.
    ``random`` noise is counted, too; for ``stream`` see :func:`counted_latents`.
    """
    for first in tracked(range(0, len(indices), batch_size), "making images"):
        part = indices[first : first + batch_size]
        with torch.inference_mode():  # not around a yield, where it would go on in the caller
            z, label = counted_latents(generator, seed, part, stream)
            noise = counted.generators(seed, f"{stream}noise", part) if noise_mode == "random" else None
            made = images.rounded(generator(z, label, noise_mode=noise_mode, noise=noise))
        yield made, label


def joined(batches: Iterable[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """All images of :func:`counted_batches` and their labels, if any, on the CPU."""
    made, labels = zip(*((image.cpu(), label) for image, label in batches), strict=True)
    known = [label.cpu() for label in labels if label is not None]
    return torch.cat(made), torch.cat(known) if known else None


@torch.inference_mode()
def scores_of_codes(
    generator: Generator, networks: Sequence[AttributeCNN | AttributeEnsemble], codes: Codes, batch_size: int
) -> list[Tensor]:
    """What each network sees in the images of M codes in any space, with the stored noise: M × its outputs each."""
    seen: list[list[Tensor]] = [[] for _ in networks]
    for part in codes.split(batch_size):
        made = images.rounded(generator.synthesize(part))
        for scores, network in zip(seen, networks, strict=True):
            scores.append(network(made))
    return [torch.cat(scores) for scores in seen]


@torch.no_grad()
def clipped_scores(generator: Generator, network: Scorer, codes: Codes, batch_size: int) -> Tensor:
    """What :func:`score_gradients` sees in the images of N codes, without gradients: N × its outputs."""
    parts = codes.split(batch_size)
    return torch.cat([network(generator.synthesize(part).clamp(-1, 1)) for part in parts])


def scored(network: AttributeCNN | AttributeEnsemble, images: Tensor) -> dict[str, np.ndarray]:
    """A network's outputs for N×3×R×R: attribute → N scores."""
    return scores_by_name(network, batched(network, images, next(network.parameters()).device))


def scores_by_name(network: AttributeCNN | AttributeEnsemble, scores: Tensor) -> dict[str, np.ndarray]:
    """A network's outputs, N×K: attribute → N scores."""
    return dict(zip(network.outputs, scores.cpu().numpy().T, strict=True))


def score_gradients(
    generator: Generator,
    network: Scorer,
    codes: Codes,
    outputs: Sequence[int],
    batch_size: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """What a network sees in the images of N codes, and how that changes with the codes.

    One forward pass and a backward pass per output; the images are clipped, not rounded.

    Args:
        generator: Makes the images, with its stored noise.
        network: Scores them; K outputs.
        codes: In the space in which gradients are wanted.
        outputs: Which outputs to differentiate.
        batch_size: Images made at once.

    Returns:
        Scores N×K, and gradients: N × len(outputs), then the shape of one code.
    """
    scores: list[Tensor] = []
    gradients: list[Tensor] = []
    with torch.inference_mode(False), torch.enable_grad():
        for part in tracked(list(codes.split(batch_size)), "gradients"):
            values = part.values.detach().clone().requires_grad_()
            seen = network(generator.synthesize(Codes(values, part.space)).clamp(-1, 1))
            each = [torch.autograd.grad(seen[:, k].sum(), values, retain_graph=True)[0] for k in outputs]
            scores.append(seen.detach())
            gradients.append(torch.stack(each, dim=1))
    return torch.cat(scores), torch.cat(gradients)

"""The networks compute what the reference implementation computed from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ohlora.formats import foreign
from ohlora.networks.generator import Discriminator, Generator
from tests import golden

CASES = {"stylegan-64-tiny": (21, 4, 64), "stylegan-256": (11, 2, 512), "genforce-256": (41, 2, 512)}


def close(computed: Tensor, expected: np.ndarray) -> None:
    difference = np.abs(computed.detach().numpy().reshape(expected.shape) - expected).max()
    assert difference <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference(case: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "foreign.pth"
    torch.save({name: golden.stylegan_state(case, name) for name in golden.manifest(case)}, path)
    networks = foreign.read_foreign(path).networks
    generator, discriminator = networks["generator"], networks["discriminator"]
    assert isinstance(generator, Generator) and isinstance(discriminator, Discriminator)
    expected = golden.values(case)
    seed, count, z_dim = CASES[case]
    labelled = generator.c_dim > 0
    inputs = golden.normal(seed, (count, z_dim), *([(count, generator.c_dim)] if labelled else []))
    z, label = inputs[0], inputs[1] if labelled else None

    w = generator.map(z, label)
    close(w.values, expected["w"])
    images = generator.synthesize(w)
    close(F.avg_pool2d(images, generator.resolution // 16), expected["image_pool16"])
    close(discriminator(images, label), expected["score_of_fake"])
    if not labelled:
        return
    close(images.mean(dim=(1, 2, 3)), expected["image_mean"])
    close(images.std(dim=(1, 2, 3), correction=0), expected["image_std"])
    middle = slice(generator.resolution // 2 - 4, generator.resolution // 2 + 4)
    close(images[:, :, middle, middle], expected["image_center"])
    truncated = generator(z, label, truncation_psi=0.7, truncation_cutoff=4)
    close(F.avg_pool2d(truncated, generator.resolution // 16), expected["truncated_pool16"])
    (noise,) = golden.normal(seed + 1, (count, 3, generator.resolution, generator.resolution))
    noise = (noise * 0.5).requires_grad_()
    scores = discriminator(noise, label)
    close(scores, expected["score_of_noise"])
    (gradient,) = torch.autograd.grad(scores.sum(), noise)
    close(gradient.square().sum(dim=(1, 2, 3)), expected["r1_per_image"])

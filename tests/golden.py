"""Rebuilds the reference implementation's weights and inputs that the golden values were computed from."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "data" / "golden"


def manifest(case: str) -> dict[str, dict[str, list[int]]]:
    """Network name → key → shape."""
    content: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / f"{case}.manifest.json").read_text())
    return content


def values(case: str) -> dict[str, np.ndarray]:
    """What the reference implementation computed."""
    with np.load(GOLDEN / f"{case}.npz") as file:
        return dict(file)


def stylegan_state(case: str, network: str) -> dict[str, Tensor]:
    """The foreign state dict of a StyleGAN case's ``generator`` or ``discriminator``."""
    salt = f"{case}/{network[0].upper()}"
    return {key: _stylegan_tensor(salt, key, shape) for key, shape in manifest(case)[network].items()}


def _stylegan_tensor(salt: str, key: str, shape: list[int]) -> Tensor:
    last = key.split(".")[-1]
    if last == "lod":
        return torch.zeros(())
    if last == "kernel":
        tap = torch.tensor([1.0, 2.0, 1.0]) / 4
        return (tap[:, None] * tap).expand(*shape).clone()
    r = np.random.default_rng(zlib.crc32(f"{salt}/{key}".encode())).standard_normal(shape)
    if last in ("bias", "w_avg") or "apply_noise.weight" in key:
        r = r * 0.1
    elif key.startswith("mapping.dense") and last == "weight":
        r = r * 100
    return torch.from_numpy(np.asarray(r, dtype=np.float32))


def normal(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Inputs drawn one after another from one generator."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


KEPT = ("resample_filter", "up_filter", "down_filter", "freqs", "phases", "transform", "magnitude_ema")
"""Last parts of keys of StyleGAN2 and StyleGAN3 that were kept as constructed."""
FIR = torch.tensor([1.0, 3.0, 3.0, 1.0])[:, None] * torch.tensor([1.0, 3.0, 3.0, 1.0]) / 64


def stylegan2_state(case: str, network: str) -> dict[str, Tensor]:
    """The state dict of a StyleGAN2 case's ``generator`` or ``discriminator``, with NVIDIA's or rosinality's keys."""
    initial = network[0].upper()
    state: dict[str, Tensor] = {}
    for key, shape in manifest(case)[network].items():
        tensor = stylegan2_tensor(f"{case}/{initial}", key, tuple(shape))
        state[key] = FIR * (4 if initial == "G" and key.endswith("kernel") else 1) if tensor is None else tensor
    return state


def stylegan2_tensor(salt: str, key: str, shape: tuple[int, ...]) -> Tensor | None:
    """A tensor of StyleGAN2 or StyleGAN3 by the rules of the golden values; None if it was kept as constructed."""
    last = key.split(".")[-1]
    if last in KEPT or last == "kernel":
        return None
    r = np.asarray(np.random.default_rng(zlib.crc32(f"{salt}/{key}".encode())).standard_normal(shape))
    if key.startswith(("mapping.fc", "style.")):
        r = r * (10 if last == "bias" else 100)
    elif key.endswith(("affine.bias", "modulation.bias")):
        r = 1 + r * 0.1
    elif last in ("bias", "noise_strength", "w_avg") or key.endswith("noise.weight"):
        r = r * 0.1
    return torch.from_numpy(np.asarray(r, dtype=np.float32))

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

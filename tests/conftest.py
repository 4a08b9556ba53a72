"""Shared helpers: the tiny configs run through the real entry point, in-process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

os.environ.setdefault("WANDB_MODE", "offline")

from ohlora import attributes
from ohlora.__main__ import main
from ohlora.characters.character import Character
from ohlora.datamodules.drawn_faces import DrawnFaces
from ohlora.directions.edits import Steps
from ohlora.formats import network_files
from ohlora.modules.gan import GAN
from ohlora.networks.codes import Codes, Space
from ohlora.networks.stylegan import Discriminator, Generator
from ohlora.utils import images
from ohlora.utils.files import shipped

CONF = Path(__file__).parent / "conf"
ROOT = Path(__file__).parents[1]
FORMAT_1 = Path(__file__).parent / "data" / "format_1"
"""Files of the first version of our formats, with what that version made of them in ``expected.npz``."""
TINY: dict[str, Any] = {"resolution": 16, "channel_base": 128, "channel_max": 8}


# Networks of these sizes are slower on several threads than on one; with another number the last bits differ.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Takes back what a test sets: threads, and the world in use."""
    yield
    torch.set_num_threads(1)
    attributes.use(None)


@pytest.fixture
def ohlora(tmp_path: Path) -> Callable[..., int]:
    """Runs ``ohlora COMMAND --config tests/conf/NAME.yaml`` below a temporary stage folder."""

    def run(command: str, conf: str, *words: str, stage_dir: Path = tmp_path / "stage") -> int:
        config = str(CONF / f"{conf}.yaml")
        return main([command, "--config", config, "--trainer.default_root_dir", str(stage_dir), *words])

    return run


def trained(module: GAN, folder: Path, batch_size: int = 8) -> L.Trainer:
    """Trains on twelve drawn faces until the module's budget is spent."""
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=-1,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
    data = DrawnFaces(16, 12, batch_size=batch_size)
    module.connect(data)
    trainer.fit(module, datamodule=data)
    return trainer


def tiny_networks(c_dim: int = 0, seed: int = 0) -> tuple[Generator, Discriminator]:
    """Random networks whose biases and noise weights are not zero, so that a lost tensor shows."""
    torch.manual_seed(seed)
    labels: Any = "normal" if c_dim else "none"
    g = Generator(**TINY, z_dim=8, w_dim=8, mapping_layers=2, c_dim=c_dim, labels=labels)
    d = Discriminator(**TINY, c_dim=c_dim)
    for network in (g, d):
        for parameter in network.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, std=0.1)
    # A fresh constant varies nowhere, and its instance norm would blow up rounding.
    torch.nn.init.normal_(g.get_parameter("synthesis.block4.layer0.constant"))
    torch.nn.init.normal_(g.w_avg, std=0.1)
    return g.eval(), d.eval()


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a tiny generator and discriminator."""
    g, d = tiny_networks()
    paths = tmp_path / "weights" / "generator.safetensors", tmp_path / "weights" / "discriminator.safetensors"
    network_files.save_network(g, paths[0])
    network_files.save_network(d, paths[1])
    return paths


@pytest.fixture
def drawn_mina(tmp_path: Path) -> Path:
    """A character with a face, 64×64: the mean face of the toy StyleGAN, which an attribute changes a little."""
    g = network_files.load_generator(shipped("weights/toy/generator.safetensors"))
    torch.manual_seed(3)
    code, steps = (
        Codes(g.w_avg[None].clone(), Space.W),
        Steps(Codes(0.1 * torch.randn(1, 1, g.w_avg.shape[0]), Space.W)),
    )
    path = tmp_path / "drawn" / "mina.safetensors"
    Character(g, code, ("mouth",), steps, {"mouth": (-1.0, 1.0)}).save(path)
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Twelve 16×16 PNGs."""
    rng = np.random.default_rng(0)
    for k in range(12):
        images.save_png(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), tmp_path / "images" / f"{k:03d}.png")
    return tmp_path / "images"


def network_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a network file."""
    return network_files.load_network(path).state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Bit-identical state dicts."""
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


NEEDED = ("ohlora", "configs", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


def ran(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def python_with_wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a new environment: the wheel is installed there, its dependencies are borrowed from here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    ran([*wheel, str(source)], folder)
    ran([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    python = str(folder / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", *map(str, folder.glob("*.whl"))]
    ran(install, folder)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python

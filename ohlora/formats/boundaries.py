"""Directions as others publish them: InterFaceGAN's boundaries."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ohlora.directions.edits import Directions
from ohlora.directions.groups import Groups
from ohlora.errors import ConfigError, FormatError
from ohlora.formats import foreign_files
from ohlora.networks.codes import Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_latents
from ohlora.pipeline import require

LatentSpace = Literal["w", "z"]
LATENTS = 2000
"""Latents whose change of w stands for a direction in Z."""
NOT_IN_A_NAME = {"boundary", "boundaries", "stylegan", "stylegan2", "pggan", "ffhq", "celebahq", "w", "z", "c"}
"""Words of a boundary's file name that do not name its attribute."""


def read_boundary(path: str | Path, size: int | None = None) -> Tensor:
    """Reads a boundary of InterFaceGAN (Shen et al., 2020).

    A boundary is the normal of the plane that a linear SVM found between latents with and without an attribute. It
    points to the side that has the attribute, so that adding it to a latent raises the attribute. InterFaceGAN writes
    it with length 1, in units of the latent space; a file with another length is returned as it is. The file does not
    say whether it lives in Z or in W, nor of which generator: whoever publishes it does, mostly in its name
    (``stylegan_ffhq_age_w_boundary.npy``).

    Args:
        path: An ``.npy`` file of shape 1×D or D; arrays of objects are refused.
        size: Size of the latents that it must fit; None takes any.

    Returns:
        The direction, 1×D, float32.

    Raises:
        MissingArtifactError: If there is no such file.
        FormatError: If it is not such an array, is not finite, is zero, or has another size.
    """
    path = Path(path)
    require(path)
    if what := foreign_files.no_array(path):
        raise FormatError(f"{path} cannot be read as an array: it {what}")
    expected = "expected a boundary of InterFaceGAN: an .npy file of 1×D numbers"
    try:
        # Mapped, so that a header that claims more than the file has is an error and no allocation.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (
        *(ValueError, EOFError, OSError, SyntaxError, TypeError, OverflowError),
        *(tokenize.TokenError, RecursionError, MemoryError),  # from NumPy's parser of damaged headers
    ) as error:
        reason = " ".join(str(error).split())[:160]
        raise FormatError(f"{path} cannot be read as an array ({reason}); {expected}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise FormatError(f"{path} is an archive of several arrays; {expected}")
    if array.dtype.kind != "f" or array.ndim > 2 or array.size == 0 or array.shape[-1:] != (array.size,):
        raise FormatError(f"{path} holds {array.dtype} of shape {array.shape}; {expected}")
    if size is not None and array.size != size:
        raise FormatError(f"{path} is a direction of {array.size} numbers; expected {size}, as the generator's latents")
    direction = torch.from_numpy(np.array(array, dtype=np.float32)).reshape(1, -1)
    if not torch.isfinite(direction).all() or not direction.norm() > 0:
        raise FormatError(f"{path} holds a direction that is zero or not finite; {expected}")
    return direction


def attribute_of(path: Path) -> str:
    """The attribute that the name of a boundary's file tells: ``age`` of ``stylegan_ffhq_age_w_boundary.npy``.

    Raises:
        ConfigError: If it tells none.
    """
    words = [word for word in re.split(r"[^0-9a-z]+", path.stem.lower()) if word and word not in NOT_IN_A_NAME]
    if not words:
        raise ConfigError(f"the name of {path} tells no attribute; say which with --attributes")
    return "_".join(words)


def read_boundaries(
    paths: Sequence[Path], attributes: Sequence[str], generator: Generator, space: LatentSpace
) -> tuple[Directions, dict[str, float]]:
    """Boundaries of InterFaceGAN as directions in W for one generator.

    A unit of strength is InterFaceGAN's: one unit of length along the boundary's normal, upwards. A direction in Z has
    no counterpart in W, which bends; its place takes the mean change of w, over counted latents, from one unit below to
    one unit above, halved.

    Args:
        paths: Files, one per attribute.
        attributes: Their attributes.
        generator: The generator whose latents they are directions of.
        space: Where they live.

    Returns:
        The directions, and for those in Z how well one direction in W stands for them: the mean cosine between it and
        the changes of single latents, by attribute.

    Raises:
        ConfigError: If there are not as many attributes as files, or one is named twice.
        FormatError: If a file is no boundary, or does not fit the generator.
    """
    if len(attributes) != len(paths) or len(set(attributes)) != len(attributes):
        raise ConfigError(f"{len(paths)} boundaries for {', '.join(attributes)}; expected one each, each once")
    size = generator.w_dim if space == "w" else generator.z_dim
    normals = torch.cat([read_boundary(path, size) for path in paths])
    steps, cosines = normals, dict[str, float]()
    if space == "z":
        steps, similar = _in_w(generator, normals)
        cosines = dict(zip(attributes, similar.tolist(), strict=True))
    units = steps.norm(dim=1)
    provenance = {"imported_from": [path.name for path in paths], "space": space}
    vectors = (steps / units[:, None])[None]
    found = Directions(
        tuple(attributes), vectors, units[None], Groups(), "interfacegan", provenance, Space.W, unit="vector"
    )
    return found, cosines


@torch.no_grad()
def _in_w(generator: Generator, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Mean changes of w along directions in Z (P×Z), P×D, and how similar those of single latents are, (P,)."""
    z, label = counted_latents(generator, 0, range(LATENTS), "boundary/")
    changes = [(generator.map(z + n, label).values - generator.map(z - n, label).values) / 2 for n in normals.to(z)]
    means = torch.stack([change.mean(dim=0) for change in changes])
    similar = [torch.cosine_similarity(c, mean[None]).mean() for c, mean in zip(changes, means, strict=True)]
    return means.cpu(), torch.stack(similar).cpu()

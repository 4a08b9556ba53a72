"""Directions as others publish them: InterFaceGAN's boundaries."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ohlora.errors import FormatError, MissingArtifactError


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
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; expected a boundary of InterFaceGAN (.npy)")
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

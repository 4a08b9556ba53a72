"""Face parsing: from images to parsing maps of 11 classes.

There are two back ends: our U-Net (:class:`ohlora.networks.face_parser.FaceParserNetwork`), and checkpoints for
semantic segmentation in the format of Hugging Face transformers, such as SegFormer (Xie et al., 2021) fine-tuned on
CelebAMask-HQ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from ohlora.errors import ConfigError, FormatError, MissingArtifactError
from ohlora.faces.classes import CELEBAMASK_CLASSES, CLASSES, COLOURS, MIRRORED
from ohlora.formats import network_files
from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.pipeline import require
from ohlora.utils.files import read_json
from ohlora.utils.images import resized, to_float

BACKGROUND = CLASSES.index("background")
BATCH = 50
"""Number of images that :func:`parsed` parses at once."""


def coloured(maps: np.ndarray) -> np.ndarray:
    """Converts parsing maps …×H×W to pictures …×H×W×3 uint8 in :data:`ohlora.faces.classes.COLOURS`."""
    pictures: np.ndarray = np.asarray(COLOURS, np.uint8)[maps]
    return pictures


def sides_by_place(maps: Tensor) -> Tensor:
    """Exchanges left and right eyes, or brows, where the left one lies further right in the image than the right one.

    Data sets disagree on whether "left" is the person's or the viewer's, and networks that were trained with mirrored
    images confuse the two. The scores need "left" to be the left half of the image. Maps are N×H×W uint8; one in which
    a side is missing stays as it is.
    """
    columns = torch.arange(maps.shape[2], device=maps.device, dtype=torch.float32)

    def centre(mask: Tensor) -> Tensor:
        counts = mask.sum(dim=1).float()
        return counts @ columns / counts.sum(dim=1)  # NaN where the class is missing; then the comparison is False

    sorted_maps = maps.clone()
    for left in (k for k, name in enumerate(CLASSES) if name.startswith("left ")):
        right = MIRRORED[left]
        is_left, is_right = maps == left, maps == right
        crossed = (centre(is_left) > centre(is_right))[:, None, None]
        sorted_maps[is_left & crossed] = right
        sorted_maps[is_right & crossed] = left
    return sorted_maps


class FaceParser(nn.Module, ABC):
    """Base class: images N×3×H×W in [−1, 1] → N×H'×W' uint8, ids into :data:`ohlora.faces.classes.CLASSES`."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Parses a batch of images."""

    @abstractmethod
    def background(self, images: Tensor) -> Tensor:
        """The probability that a pixel is background, N×H×W in [0, 1]."""


class UNetParser(FaceParser):
    """Our U-Net as a parser; a FormatError, which calls the network by ``name``, if its classes are not ours."""

    def __init__(self, network: FaceParserNetwork, name: str = "the network") -> None:
        super().__init__()
        if network.classes != CLASSES:
            raise FormatError(f"{name} has the classes {', '.join(network.classes)}; expected {', '.join(CLASSES)}")
        self.network = network.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Parses a batch; H' and W' are H and W."""
        return self.network(images).argmax(dim=1).to(torch.uint8)  # type: ignore[no-any-return]

    def background(self, images: Tensor) -> Tensor:
        """The probability that a pixel is background."""
        return self.network(images).softmax(dim=1)[:, BACKGROUND]  # type: ignore[no-any-return]


class SegmentationParser(FaceParser):
    """A semantic-segmentation checkpoint in the format of Hugging Face transformers as a parser.

    Args:
        folder: The checkpoint: ``config.json``, ``model.safetensors`` and, for size, mean and standard deviation of
            its input, ``preprocessor_config.json``.
        classes: The checkpoint's name of a class, or its id as text → our class.

    Raises:
        MissingArtifactError: If a file does not exist.
        ConfigError: If transformers is not installed, or ``classes`` does not fit the checkpoint.
        FormatError: If the checkpoint cannot be read.
    """

    table: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, folder: str | Path, classes: Mapping[str, str] = CELEBAMASK_CLASSES) -> None:
        super().__init__()
        folder = Path(folder)
        path = folder / "preprocessor_config.json"
        if not (folder / "config.json").is_file() or not path.is_file():
            raise MissingArtifactError(
                f"{folder} lacks config.json or preprocessor_config.json; expected a semantic-segmentation checkpoint "
                "of Hugging Face transformers, such as a download of jonathandinu/face-parsing"
            )
        settings = read_json(path)
        self.model = _load_segmentation(folder)
        names: dict[int, str] = {int(key): str(name) for key, name in self.model.config.id2label.items()}
        self.register_buffer("table", torch.tensor(class_table(names, classes), dtype=torch.uint8))
        self.size = _input_size(settings)
        for key in ("mean", "std"):
            values = settings.get(f"image_{key}", [0.5] * 3)
            self.register_buffer(key, torch.tensor(values, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Parses a batch; the checkpoint's coarse scores are interpolated, so that H' and W' are H and W."""
        return sides_by_place(self.table[self._scores(images).argmax(dim=1)])

    def background(self, images: Tensor) -> Tensor:
        """The probability that a pixel is background: that of all its classes that we call so."""
        return self._scores(images).softmax(dim=1)[:, self.table == BACKGROUND].sum(dim=1)

    def _scores(self, images: Tensor) -> Tensor:
        # Images are prepared here because the image processor of transformers would need torchvision.
        pixels = (images + 1) / 2
        if self.size is not None:
            pixels = resized(pixels, *self.size)
        scores = self.model(pixel_values=(pixels - self.mean) / self.std).logits
        return F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)


def _load_segmentation(folder: Path) -> Any:
    try:
        from transformers import AutoModelForSemanticSegmentation
    except ImportError as error:
        raise ConfigError(
            f"{folder} needs transformers, which is not installed; install the extra: pip install 'ohlora[parsing]'"
        ) from error
    try:
        model = AutoModelForSemanticSegmentation.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise FormatError(f"{folder} cannot be read as a semantic-segmentation checkpoint ({error})") from error
    return model.eval().requires_grad_(False)


def _input_size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the checkpoint's input, or None if images are not resized."""
    if not settings.get("do_resize", True):
        return None
    size = settings.get("size", 512)  # the default of transformers
    if isinstance(size, dict) and "height" in size:
        return int(size["height"]), int(size["width"])
    edge = int(size["shortest_edge"] if isinstance(size, dict) else size)
    return edge, edge  # faces are square


def class_table(names: Mapping[int, str], classes: Mapping[str, str]) -> list[int]:
    """Our class id for each class id 0…K−1 of a checkpoint.

    Args:
        names: The checkpoint's names of its classes by id.
        classes: The checkpoint's name of a class, or its id as text → our class.

    Raises:
        ConfigError: If a class of the checkpoint has no entry, an entry names an unknown class of ours, or an entry
            belongs to no class of the checkpoint.
    """
    known = {key for number, name in names.items() for key in (name, str(number))}
    unmapped = [name for number, name in names.items() if name not in classes and str(number) not in classes]
    unknown = [name for name in classes.values() if name not in CLASSES]
    # The default table names every part of CelebAMask-HQ; a checkpoint may have been trained on some of them.
    unused = [key for key in classes if key not in known] if classes is not CELEBAMASK_CLASSES else []
    if unmapped or unknown or unused:
        raise ConfigError(
            f"classes: the checkpoint's classes without an entry: {', '.join(unmapped) or 'none'}; unknown classes: "
            f"{', '.join(unknown) or 'none'}; entries that are no class of the checkpoint: "
            f"{', '.join(unused) or 'none'}. Expected for each of {', '.join(names.values())} one of "
            f"{', '.join(CLASSES)}"
        )
    return [CLASSES.index(classes.get(names[n], classes.get(str(n), ""))) for n in range(len(names))]


def load_parser(path: str | Path, classes: Mapping[str, str] | None = None) -> FaceParser:
    """Loads a parser from a file of our U-Net, or from the folder of a Hugging Face checkpoint.

    ``classes`` are for a folder only, see :class:`SegmentationParser`; by default those of CelebAMask-HQ.

    Raises:
        MissingArtifactError: If the file, or a file of the checkpoint, does not exist.
        ConfigError: If ``classes`` is given for a file, or does not fit the checkpoint, or transformers is missing.
        FormatError: If the file or checkpoint cannot be read, or the U-Net has other classes.
    """
    path = Path(path)
    if path.is_dir():
        return SegmentationParser(path, classes or CELEBAMASK_CLASSES)
    require(path)
    if classes:
        raise ConfigError(f"{path} is a U-Net of ohlora, which stores its classes; expected no 'classes'")
    return UNetParser(network_files.load_face_parser(path), str(path))


@torch.inference_mode()
def parsed(parser: FaceParser, images: np.ndarray) -> np.ndarray:
    """Parses N×H×W×3 uint8 images in batches, on the parser's device: N×H×W uint8."""
    device = next(parser.parameters()).device
    batches = [to_float(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    return np.concatenate([parser(batch.to(device)).cpu().numpy() for batch in batches])

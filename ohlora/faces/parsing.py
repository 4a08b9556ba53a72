"""Face parsing: images to maps of 11 classes.

Two back ends: our U-Net (:class:`ohlora.networks.face_parser.FaceParserNetwork`), and any semantic-segmentation
checkpoint in the format of Hugging Face transformers, such as SegFormer (Xie et al., 2021) fine-tuned on CelebAMask-HQ.
"""

from __future__ import annotations

import json
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
from ohlora.utils.images import to_float

BATCH = 50
"""Faces parsed at once."""


def coloured(maps: np.ndarray) -> np.ndarray:
    """Maps …×H×W → pictures …×H×W×3 uint8 in :data:`COLOURS`."""
    pictures: np.ndarray = np.asarray(COLOURS, np.uint8)[maps]
    return pictures


def sides_by_place(maps: Tensor) -> Tensor:
    """Lets left and right eyes or brows of N×H×W maps change places where the left one lies right of the other.

    Data sets disagree on whose left is meant, and networks trained with mirrored images mix them up; what is measured
    needs "left" to be the left in the image.
    """
    columns = torch.arange(maps.shape[2], device=maps.device, dtype=torch.float32)

    def centre(mask: Tensor) -> Tensor:
        counts = mask.sum(dim=1).float()
        return counts @ columns / counts.sum(dim=1)  # NaN where it is missing: nothing is known then

    sorted_maps = maps.clone()
    for left in (k for k, name in enumerate(CLASSES) if name.startswith("left ")):
        right = MIRRORED[left]
        is_left, is_right = maps == left, maps == right
        crossed = (centre(is_left) > centre(is_right))[:, None, None]
        sorted_maps[is_left & crossed] = right
        sorted_maps[is_right & crossed] = left
    return sorted_maps


class FaceParser(nn.Module):
    """Images N×3×H×W in [−1, 1] → class maps N×H'×W' uint8, ids into :data:`ohlora.toy.CLASSES`."""

    def forward(self, images: Tensor) -> Tensor:
        """Parses a batch."""
        raise NotImplementedError


class UNetParser(FaceParser):
    """Our U-Net as a parser.

    Args:
        network: A U-Net whose classes are :data:`ohlora.toy.CLASSES`.
        name: What to call it in messages, such as its file.

    Raises:
        FormatError: If its classes are others.
    """

    def __init__(self, network: FaceParserNetwork, name: str = "the network") -> None:
        super().__init__()
        if network.classes != CLASSES:
            raise FormatError(f"{name} has the classes {', '.join(network.classes)}; expected {', '.join(CLASSES)}")
        self.network = network.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Parses a batch; H' and W' are H and W."""
        return self.network(images).argmax(dim=1).to(torch.uint8)  # type: ignore[no-any-return]


class SegmentationParser(FaceParser):
    """A semantic-segmentation checkpoint in the format of Hugging Face transformers as a parser.

    Args:
        folder: The checkpoint: ``config.json``, ``model.safetensors`` and, for size, mean and standard deviation of
            its input, ``preprocessor_config.json``.
        classes: The checkpoint's label, or its id, → our class.

    Raises:
        MissingArtifactError: If a file is not there.
        ConfigError: If transformers is not installed, or the classes do not fit the checkpoint's labels.
        FormatError: If the checkpoint cannot be read.
    """

    table: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, folder: str | Path, classes: Mapping[str, str] = CELEBAMASK_CLASSES) -> None:
        super().__init__()
        folder = Path(folder)
        settings = _read_settings(folder)
        self.model = _load_segmentation(folder)
        labels: dict[int, str] = {int(key): str(label) for key, label in self.model.config.id2label.items()}
        self.register_buffer("table", torch.tensor(class_table(labels, classes), dtype=torch.uint8))
        self.size = _input_size(settings)
        for key, default in (("mean", 0.5), ("std", 0.5)):
            values = settings.get(f"image_{key}", [default] * 3)
            self.register_buffer(key, torch.tensor(values, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Parses a batch; the checkpoint's coarse scores are enlarged, so that H' and W' are H and W."""
        # transformers' own image processor would need torchvision.
        pixels = (images + 1) / 2
        if self.size is not None:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", align_corners=False, antialias=True)
        scores = self.model(pixel_values=(pixels - self.mean) / self.std).logits
        scores = F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)
        return sides_by_place(self.table[scores.argmax(dim=1)])


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not (folder / "config.json").is_file() or not path.is_file():
        raise MissingArtifactError(
            f"{folder} lacks config.json or preprocessor_config.json; expected a semantic-segmentation checkpoint of "
            "Hugging Face transformers, such as a download of jonathandinu/face-parsing"
        )
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings


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
    """Height and width that the checkpoint wants, or None to leave images as they are."""
    if not settings.get("do_resize", True):
        return None
    size = settings.get("size", 512)  # what transformers assumes
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])  # faces are square
    return int(size["height"]), int(size["width"])


def class_table(labels: Mapping[int, str], classes: Mapping[str, str]) -> list[int]:
    """Our class id for each id of a checkpoint.

    Args:
        labels: The checkpoint's labels by id, 0…K−1.
        classes: Label, or id as text, → our class.

    Returns:
        K class ids.

    Raises:
        ConfigError: If a label has no class, a class is unknown, or an entry fits no label.
    """
    known = {key for number, label in labels.items() for key in (label, str(number))}
    unmapped = [label for number, label in labels.items() if label not in classes and str(number) not in classes]
    strange = [name for name in classes.values() if name not in CLASSES]
    unused = [key for key in classes if key not in known] if classes is not CELEBAMASK_CLASSES else []
    if unmapped or strange or unused:
        raise ConfigError(
            f"classes: labels without a class: {', '.join(unmapped) or 'none'}; unknown classes: "
            f"{', '.join(strange) or 'none'}; entries that fit no label: {', '.join(unused) or 'none'}. Expected for "
            f"each of {', '.join(labels.values())} one of {', '.join(CLASSES)}"
        )
    return [CLASSES.index(classes.get(labels[n], classes.get(str(n), ""))) for n in range(len(labels))]


def load_parser(path: str | Path, classes: Mapping[str, str] | None = None) -> FaceParser:
    """A parser from a file of our U-Net, or from the folder of a Hugging Face checkpoint.

    Args:
        path: File or folder.
        classes: For a folder, its label or id → our class; by default :data:`CELEBAMASK_CLASSES`.

    Raises:
        OhloraError: If it is missing, of another kind, or does not fit; see the two classes.
    """
    path = Path(path)
    if path.is_dir():
        return SegmentationParser(path, classes or CELEBAMASK_CLASSES)
    require(path)
    if classes:
        raise ConfigError(f"{path} is a file of our U-Net, whose classes are known; expected no 'classes'")
    return UNetParser(network_files.load_face_parser(path), str(path))


@torch.inference_mode()
def parsed(parser: FaceParser, images: np.ndarray) -> np.ndarray:
    """A parser's maps of N×H×W×3 uint8 images: N×H×W uint8."""
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    return np.concatenate([parser(to_float(batch)).numpy() for batch in batches])

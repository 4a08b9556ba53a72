"""Networks that features of images are taken from, as files: ohlora's own, any network of torch, or ONNX.

This is the only place that reads them. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ohlora.errors import ConfigError, FormatError
from ohlora.evaluation.features import Features, NetworkFeatures, Penultimate
from ohlora.formats import network_files, tensor_files
from ohlora.networks.attribute_cnn import AttributeCNN
from ohlora.pipeline import require
from ohlora.utils.imports import named

HALF = (0.5, 0.5, 0.5)


@dataclass
class FeatureNetwork:
    """A file with a network whose outputs are features of images.

    Attributes:
        file: One of ohlora's attribute CNNs, whose last hidden layers are the features, or identity networks; or a file
            in ONNX format (``.onnx``), whose first output they are; or, with ``network_class``, safetensors weights.
        network_class: Class of the network that the weights belong to, such as ``my_package.networks.Encoder``: a
            ``torch.nn.Module`` that makes N features, of any shape, of N×3×H×H. Its module is installed, or lies beside
            the file.
        network_args: Arguments of the class.
        resolution: Height and width H that the network takes, to which images are resized; None takes them as they are,
            or as the ONNX file says. Networks of ohlora know their own.
        mean: What is subtracted from pixel values in 0…1, per channel (red, green, blue), before the network.
        std: What they are divided by then. By default the network gets [−1, 1]; ``mean`` 0 and ``std`` 1 give it 0…1.
    """

    file: str
    network_class: str | None = None
    network_args: dict[str, Any] | None = None
    resolution: int | None = None
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ConfigError(f"resolution is {self.resolution}; expected at least 1")
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std is {list(self.std)}; expected three numbers above 0")
        if self.network_args and self.network_class is None:
            raise ConfigError("network_args are those of a class; expected network_class as well")

    def load(self) -> Features:
        """Reads the file.

        Raises:
            MissingArtifactError: If it does not exist.
            ConfigError: If a setting does not go with the file, or the class cannot be used.
            FormatError: If the file cannot be used.
        """
        require(self.file)
        if self.network_class is not None:
            return self._features(self._weighted(self.network_class), self.resolution)
        if Path(self.file).suffix.lower() == ".onnx":
            network = OnnxNetwork(self.file)
            if None not in (network.resolution, self.resolution) and network.resolution != self.resolution:
                raise ConfigError(
                    f"resolution is {self.resolution}, and {self.file} takes {network.resolution}; leave it out"
                )
            return self._features(network, network.resolution or self.resolution)
        if self.resolution is not None or (tuple(self.mean), tuple(self.std)) != (HALF, HALF):
            raise ConfigError(
                f"{self.file} is to be a network of ohlora, which takes no resolution, mean and std; for another "
                "network give its network_class"
            )
        own = network_files.load_features(self.file)
        return Penultimate(own) if isinstance(own, AttributeCNN) else NetworkFeatures(own, own.resolution)

    def _features(self, network: nn.Module, resolution: int | None) -> Features:
        try:
            return NetworkFeatures(network, resolution, self.mean, self.std)
        except FormatError:
            raise
        except Exception as error:  # whatever the network thinks of its input
            taken = f"{resolution}×{resolution}" if resolution else "64×64"
            raise ConfigError(
                f"{self.network_class or self.file}, tried with two images of {taken}: {error}. Look at resolution"
            ) from error

    def _weighted(self, network_class: str) -> nn.Module:
        """The user's network, with its weights."""
        where = Path(self.file).parent
        made = named("class", network_class, f"network_class is {network_class!r}", where, f"beside {self.file}")
        try:
            network = made(**(self.network_args or {}))
        except Exception as error:  # whatever the class thinks of its arguments
            raise ConfigError(f"{network_class}: {type(error).__name__}: {error}; look at network_args") from error
        if not isinstance(network, nn.Module):
            raise ConfigError(f"{network_class} makes a {type(network).__name__}; expected a torch.nn.Module")
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        tensors: Mapping[str, Tensor] = tensor_files.read_tensors(self.file)
        network_files.check_state(tensors, shapes, frozenset(), self.file)
        network.load_state_dict(tensors)
        return network


class OnnxNetwork(nn.Module):
    """A network in ONNX format, run by onnxruntime on the CPU: N×3×H×H → its first output.

    Args:
        file: The file; its only input is N×3×H×H in float32, with any N or a fixed one.

    Attributes:
        resolution: H, where the file says it.
        differentiable: False: there are no gradients.

    Raises:
        ConfigError: If onnxruntime is not installed.
        FormatError: If the file cannot be read, or takes other inputs.
    """

    differentiable = False

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(
                f"{file} needs onnxruntime, which is not installed; install the extra: pip install 'ohlora[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes derive from Exception only
            raise FormatError(f"{file} cannot be read as ONNX ({error}); get it or export it again") from error
        inputs = self.session.get_inputs()
        shape = list(inputs[0].shape) if inputs else []
        sizes = [size if isinstance(size, int) else None for size in shape]  # others are names, for any size
        fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4 and sizes[1] in (3, None)
        if not fits or sizes[2] != sizes[3]:
            said = "; ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
            raise FormatError(f"{file} takes {said}; expected one input, tensor(float) N×3×H×H. Export it that way")
        self.name = inputs[0].name
        self.batch, self.resolution = sizes[0], sizes[2]

    def forward(self, images: Tensor) -> Tensor:
        """The output for N images, in batches of the file's size."""
        size = self.batch or len(images)
        found = []
        for part in torch.split(images.float().cpu(), size):
            filled = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            found.append(torch.from_numpy(self.session.run(None, {self.name: filled.numpy()})[0])[: len(part)])
        return torch.cat(found).to(images.device)

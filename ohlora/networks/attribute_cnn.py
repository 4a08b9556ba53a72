"""Convolutional networks that predict attributes from an image: filters, property scores and hairstyle.

All of them are instances of one configurable network. It has one branch per attribute, or per group of attributes that
share their windows. A branch crops its windows from the image, applies a stack of convolutions to each, and ends in two
dense layers. :func:`attribute_cnn` builds the original's networks and smaller ones by name.

Shapes: N images, R = resolution, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ohlora.attributes import FILTERS, LABELS, Crop, attribute
from ohlora.networks.operations import check_images

LEAK = 0.01
"""Slope of every leaky ReLU."""

Plan = Literal["original", "small"]


@dataclass(frozen=True)
class Branch:
    """Settings of one branch of the network.

    Attributes:
        outputs: Names of the attributes it predicts.
        crops: Windows of the image; each has convolutions of its own, whose outputs are concatenated before the dense
            layers.
        plan: Layers of one window, separated by spaces: ``32`` is a 3×3 convolution with 32 feature maps and no
            padding, ``32/2`` one with padding 1 and stride 2, ``pool`` a 2×2 maximum.
        hidden: Width of the dense layer before the last.
        conv_dropout: Probability with which a feature map is dropped after each convolution in training.
        dropout: Probability with which a hidden value is dropped in training.
        unit_range: Whether pixels are scaled to 0…1 before the convolutions, as in the original's filters.
        probability: Whether the outputs are followed by a sigmoid.
    """

    outputs: tuple[str, ...]
    crops: tuple[Crop, ...]
    plan: str
    hidden: int = 256
    conv_dropout: float = 0.05
    dropout: float = 0.45
    unit_range: bool = False
    probability: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Branch:
        """Reads what ``dataclasses.asdict`` wrote, also from JSON, where tuples have become lists."""
        crops = tuple(Crop(*crop) for crop in values["crops"])
        return cls(**{**values, "outputs": tuple(values["outputs"]), "crops": crops})


def _initialize(module: nn.Module) -> None:
    """Initialises convolutions as He et al. (2015) and dense layers as Glorot and Bengio (2010).

    With torch's default, activations shrink from layer to layer, and some members of an ensemble stay constant.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=LEAK)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)


class Window(nn.Sequential):
    """The convolutions of one window, N×3×h×w → N×C×h'×w'; each is followed by a leaky ReLU and channel dropout.

    Raises:
        ValueError: If the plan (see :class:`Branch`) cannot be parsed.
    """

    def __init__(self, plan: str, dropout: float) -> None:
        super().__init__()
        inputs, count = 3, 0
        for place, token in enumerate(plan.split()):
            if token == "pool":
                self.add_module(f"pool{place}", nn.MaxPool2d(2))
                continue
            width, _, stride = token.partition("/")
            if not width.isdecimal() or (stride and not stride.isdecimal()):
                raise ValueError(f"plan {plan!r}: {token!r} is neither 'pool' nor a width such as '32' or '32/2'")
            count += 1
            step = int(stride or 1)
            self.add_module(f"conv{count}", nn.Conv2d(inputs, int(width), 3, step, padding=1 if stride else 0))
            self.add_module(f"activation{count}", nn.LeakyReLU(LEAK, inplace=True))
            if dropout:
                self.add_module(f"dropout{count}", nn.Dropout2d(dropout))
            inputs = int(width)


class BranchNetwork(nn.Module):
    """One branch: images N×3×R×R in [−1, 1] → N × its number of outputs, before any sigmoid.

    Raises:
        ValueError: If the plan is invalid, or reduces a window to nothing.
    """

    def __init__(self, branch: Branch, resolution: int) -> None:
        super().__init__()
        self.branch, self.resolution = branch, resolution
        self.windows = nn.ModuleList(Window(branch.plan, branch.conv_dropout) for _ in branch.crops)
        self.dense = nn.Linear(self._flat_size(), branch.hidden)
        self.dropout = nn.Dropout(branch.dropout)
        self.score = nn.Linear(branch.hidden, len(branch.outputs))

    @torch.no_grad()
    def _flat_size(self) -> int:
        try:
            return self._convolve(torch.zeros(1, 3, self.resolution, self.resolution)).shape[1]
        except RuntimeError as error:  # raised by torch where a kernel is larger than its input
            raise ValueError(
                f"plan {self.branch.plan!r} leaves nothing of a window at resolution {self.resolution}"
            ) from error

    def _convolve(self, images: Tensor) -> Tensor:
        crops = self.branch.crops
        parts = [window(cut(images, crop)).flatten(1) for window, crop in zip(self.windows, crops, strict=True)]
        return torch.cat(parts, dim=1)

    def features(self, images: Tensor) -> Tensor:
        """The hidden layer: N×``hidden``, −1…1."""
        if self.branch.unit_range:
            images = (images + 1) / 2
        return torch.tanh(self.dense(self._convolve(images)))

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.dropout(self.features(images)))  # type: ignore[no-any-return]


class AttributeCNN(nn.Module):
    """Predicts attributes: images N×3×R×R in [−1, 1] → scores N×K; column k is the attribute ``outputs[k]``.

    Args:
        branches: Settings of the branches.
        resolution: Height and width R of the images.

    Attributes:
        outputs: Names of the K predicted attributes.

    Raises:
        ValueError: If there is no output, one occurs twice or is unknown, or a plan does not fit the resolution.
    """

    def __init__(self, branches: Sequence[Branch | Mapping[str, Any]], resolution: int = 256) -> None:
        super().__init__()
        specs = [b if isinstance(b, Branch) else Branch.from_dict(b) for b in branches]
        self.outputs = tuple(name for spec in specs for name in spec.outputs)
        if not specs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError(f"outputs are {', '.join(self.outputs) or 'none'}; expected at least one, each once")
        for name in self.outputs:
            attribute(name)
        self.resolution = resolution
        self.branches = nn.ModuleDict({spec.outputs[0]: BranchNetwork(spec, resolution) for spec in specs})
        self.apply(_initialize)

    @property
    def specs(self) -> list[Branch]:
        """The settings of the branches, in order."""
        return [b.branch for b in self.branches.values()]  # type: ignore[misc]

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that rebuild this network."""
        return {"branches": [asdict(spec) for spec in self.specs], "resolution": self.resolution}

    def logits(self, images: Tensor) -> Tensor:
        """The scores before any sigmoid, N×K; see :meth:`forward`."""
        check_images(images, self.resolution)
        return torch.cat([branch(images) for branch in self.branches.values()], dim=1)

    def features(self, images: Tensor) -> Tensor:
        """The hidden layers of all branches, concatenated: N × the sum of their widths, −1…1."""
        check_images(images, self.resolution)
        return torch.cat([branch.features(images) for branch in self.branches.values()], dim=1)  # type: ignore[operator]

    def read(self, features: Tensor) -> Tensor:
        """From what :meth:`features` returned, the scores N×K of :meth:`forward` in evaluation mode."""
        parts = torch.split(features, [spec.hidden for spec in self.specs], dim=1)
        logits = [branch.score(part) for branch, part in zip(self.branches.values(), parts, strict=True)]  # type: ignore[operator]
        return self._activated(torch.cat(logits, dim=1))

    def forward(self, images: Tensor) -> Tensor:
        """Scores, N×K.

        Raises:
            ValueError: If the images are not N×3×R×R.
        """
        return self._activated(self.logits(images))

    def _activated(self, scores: Tensor) -> Tensor:
        """Applies a sigmoid to the columns that are probabilities."""
        columns = [spec.probability for spec in self.specs for _ in spec.outputs]
        if not any(columns):
            return scores
        return torch.where(torch.tensor(columns, device=scores.device), torch.sigmoid(scores), scores)


class AttributeEnsemble(nn.Module):
    """Networks of one architecture whose outputs are averaged: images N×3×R×R in [−1, 1] → N×K.

    Args:
        members: Number of networks.
        branches: As for :class:`AttributeCNN`.
        resolution: Height and width R of the images.

    Raises:
        ValueError: If there is no member, or the branches are invalid.
    """

    def __init__(self, members: int, branches: Sequence[Branch | Mapping[str, Any]], resolution: int = 256) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"members is {members}; expected at least 1")
        networks = [AttributeCNN(branches, resolution) for _ in range(members)]
        self.members = nn.ModuleList(networks)
        self.outputs, self.resolution = networks[0].outputs, resolution

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that rebuild this ensemble."""
        return {"members": len(self.members), **self.members[0].arguments()}  # type: ignore[operator]

    def each(self, images: Tensor) -> Tensor:
        """The outputs of every member: members×N×K."""
        return torch.stack([member(images) for member in self.members])

    def forward(self, images: Tensor) -> Tensor:
        return self.each(images).mean(dim=0)

    @classmethod
    def of(cls, networks: Sequence[AttributeCNN]) -> AttributeEnsemble:
        """An ensemble of copies of networks.

        Raises:
            ValueError: If there is no network, or they differ in more than their weights.
        """
        if not networks or any(network.arguments() != networks[0].arguments() for network in networks):
            raise ValueError("an ensemble needs at least one network, and networks that differ in their weights only")
        ensemble = cls(len(networks), **networks[0].arguments())
        for member, network in zip(ensemble.members, networks, strict=True):
            member.load_state_dict(network.state_dict())
        return ensemble.train(networks[0].training)


def cut(images: Tensor, crop: Crop) -> Tensor:
    """Crops a window from N×C×H×W; its edges are rounded to whole pixels."""
    top, bottom = (round(edge * images.shape[2]) for edge in (crop.top, crop.bottom))
    left, right = (round(edge * images.shape[3]) for edge in (crop.left, crop.right))
    return images[:, :, top:bottom, left:right]


# --- named instances --------------------------------------------------------------------------------------------------


def _branch(outputs: tuple[str, ...], plan: str, **settings: Any) -> Branch:
    return Branch(outputs, attribute(outputs[0]).crops, plan, **settings)


def _filter(name: str, plan: str) -> Branch:
    return _branch((name,), plan, hidden=512, unit_range=True, probability=True)


_WIDE = "32 64 pool 64 pool 128 pool 128 pool 128"

_ORIGINAL: tuple[Branch, ...] = (
    _filter("gender", "32 64 pool 128 pool 128 pool 256 pool 256 pool"),
    _filter("quality", "32 64 pool 128 pool 128 pool 256"),
    _filter("age", "32 64 pool 128 pool 128 pool 256 pool 256"),
    _filter("glass", "32 64 pool 128 pool 128 pool 256"),
    _branch(("eyes",), "32 64 pool 64 pool 128 pool"),
    _branch(("hair_color",), f"{_WIDE} pool"),
    _branch(("hair_length",), _WIDE),
    _branch(("mouth",), "32 64 pool 64 pool 128 pool"),
    _branch(("pose",), "32 64 pool 64 pool 128 128"),
    _branch(("background_mean", "background_std"), _WIDE),
    _branch(("hairstyle",), "32 64 pool 64 pool 96 pool 128 128", hidden=512, dropout=0.25),
)

# Filters that the original does not have. Convolutions with strides and padding fit windows of any size.
_ANY_WINDOW = "32/2 64/2 128/2 256/2"
_ORIGINAL += tuple(_filter(name, _ANY_WINDOW) for name in FILTERS if name not in [b.outputs[0] for b in _ORIGINAL])

# For 64×64, where a window may be a dozen pixels high: padding, and strides instead of pooling. They take a fortieth of
# the operations.
_SMALL_PLANS = {
    "gender": "16/2 24/2 32/2 48/2",
    "quality": "16/2 24/2 48/2",
    "age": "16/2 24/2 32/2 48/2",
    "glass": "16/2 24/2 48/2",
    "eyes": "32/1 48/2 64/2",
    "hair_color": "16/2 32/2 48/2 64/2",
    "hair_length": "16/2 32/2 48/2 64/2",
    "mouth": "32/1 48/2 64/2",
    "pose": "32/1 48/2 64/2",
    "background_mean": "24/1 32/2 48/2 64/2",
    "hairstyle": "24/1 48/2 64/2 64/2",
}

_INSTANCES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in FILTERS},
    "property": LABELS,
    "hairstyle": ("hairstyle",),
    "merged": (*LABELS, "hairstyle"),
}


def _small(branch: Branch) -> Branch:
    plan, dropout = _SMALL_PLANS.get(branch.outputs[0], "16/2 24/2 48/2"), 0.3 if branch.probability else 0.0
    return replace(branch, plan=plan, hidden=32, conv_dropout=0.0, dropout=dropout, unit_range=False)


def attribute_cnn(name: str, plan: Plan = "original", resolution: int = 256) -> AttributeCNN:
    """A network by name, with random weights from torch's global generator.

    Args:
        name: A filter, such as ``gender`` (one probability), ``property`` (the attributes of
            :data:`ohlora.attributes.LABELS`), ``hairstyle``, or ``merged`` (property and hairstyle).
        plan: ``original`` for the published layers, meant for 256×256, or ``small`` for 64×64.
        resolution: Height and width of the images.

    Raises:
        ValueError: If there is no such network or plan, or the plan does not fit the resolution.
    """
    if name not in _INSTANCES or plan not in ("original", "small"):
        raise ValueError(
            f"no attribute network {name!r} with plan {plan!r}; expected one of {', '.join(_INSTANCES)} and a plan of "
            "original, small"
        )
    chosen = [branch for branch in _ORIGINAL if branch.outputs[0] in _INSTANCES[name]]
    return AttributeCNN([_small(b) if plan == "small" else b for b in chosen], resolution)


def merge(networks: Sequence[AttributeCNN]) -> AttributeCNN:
    """The branches of several networks in one, with their weights.

    Raises:
        ValueError: If they differ in resolution or predict the same attribute twice.
    """
    resolutions = {network.resolution for network in networks}
    if len(resolutions) != 1:
        raise ValueError(f"networks have resolutions {sorted(resolutions)}; expected one resolution")
    merged = AttributeCNN([spec for network in networks for spec in network.specs], resolutions.pop())
    for network in networks:
        for name, branch in network.branches.items():
            merged.branches[name].load_state_dict(branch.state_dict())
    return merged.train(networks[0].training)

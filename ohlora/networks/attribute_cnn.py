"""Convolutional networks that predict attributes from an image: filters, property scores and hairstyle.

All of them are instances of one configurable network. It has one branch per attribute, or per group of attributes that
share their windows. A branch crops its windows from the image, applies a stack of convolutions to each, and ends in two
dense layers. :func:`attribute_cnn` builds networks of a world's attributes, :func:`published` those of the original.
A network is rebuilt from its own arguments, of whatever world its attributes are.

Shapes: N images, R = resolution, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ohlora.attributes import WHOLE, Attribute, Crop, vocabulary
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
        ValueError: If there is no output, one occurs twice or has a name that torch needs, or a plan does not fit the
            resolution.
    """

    def __init__(self, branches: Sequence[Branch | Mapping[str, Any]], resolution: int = 256) -> None:
        super().__init__()
        specs = [b if isinstance(b, Branch) else Branch.from_dict(b) for b in branches]
        self.outputs = tuple(name for spec in specs for name in spec.outputs)
        if not specs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError(f"outputs are {', '.join(self.outputs) or 'none'}; expected at least one, each once")
        taken = [spec.outputs[0] for spec in specs if hasattr(nn.ModuleDict, spec.outputs[0])]
        if taken:
            raise ValueError(f"a branch cannot be called {', '.join(taken)}, as torch's own attributes; rename it")
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
        return self._activated(self.read_logits(features))

    def read_logits(self, features: Tensor) -> Tensor:
        """Likewise the scores before any sigmoid, N×K."""
        parts = torch.split(features, [spec.hidden for spec in self.specs], dim=1)
        logits = [branch.score(part) for branch, part in zip(self.branches.values(), parts, strict=True)]  # type: ignore[operator]
        return torch.cat(logits, dim=1)

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

    def logits(self, images: Tensor) -> Tensor:
        """The mean of the members' scores before any sigmoid, N×K."""
        return torch.stack([member.logits(images) for member in self.members]).mean(dim=0)  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        return self.each(images).mean(dim=0)

    @classmethod
    def of(cls, networks: Sequence[AttributeCNN]) -> AttributeEnsemble:
        """An ensemble of copies of networks; their branches may come in any order, and get that of the first.

        Raises:
            ValueError: If there is no network, or they differ in more than weights and the order of branches.
        """
        parts = [({spec.outputs: spec for spec in network.specs}, network.resolution) for network in networks]
        if not networks or any(part != parts[0] for part in parts):
            raise ValueError(
                "an ensemble needs at least one network, and networks that differ in nothing but weights: resolutions, "
                "windows, layers and the attributes of each branch must be the same"
            )
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

_TOP_HALF = Crop(0, 1 / 2, 0, 1)
_WIDE = "32 64 pool 64 pool 128 pool 128 pool 128"


def _filter(outputs: tuple[str, ...], crops: tuple[Crop, ...], plan: str) -> Branch:
    return Branch(outputs, crops, plan, hidden=512, unit_range=True, probability=True)


# The published layers, with the windows that they were published for.
_PUBLISHED: tuple[Branch, ...] = (
    _filter(("gender",), (WHOLE,), "32 64 pool 128 pool 128 pool 256 pool 256 pool"),
    _filter(("quality",), (Crop(0, 1 / 4, 1 / 4, 3 / 4),), "32 64 pool 128 pool 128 pool 256"),
    _filter(("age",), (_TOP_HALF,), "32 64 pool 128 pool 128 pool 256 pool 256"),
    _filter(("glass",), (Crop(5 / 16, 1 / 2, 1 / 4, 3 / 4),), "32 64 pool 128 pool 128 pool 256"),
    Branch(("eyes",), (Crop(3 / 8, 9 / 16, 1 / 4, 3 / 4),), "32 64 pool 64 pool 128 pool"),
    Branch(("hair_color",), (WHOLE,), f"{_WIDE} pool"),
    Branch(("hair_length",), (Crop(1 / 2, 1, 0, 1),), _WIDE),
    Branch(("mouth",), (Crop(5 / 8, 13 / 16, 3 / 8, 5 / 8),), "32 64 pool 64 pool 128 pool"),
    Branch(("pose",), (Crop(7 / 16, 5 / 8, 11 / 32, 21 / 32),), "32 64 pool 64 pool 128 128"),
    Branch(("background_mean", "background_std"), (_TOP_HALF,), _WIDE),
    Branch(
        ("hairstyle",),
        (Crop(1 / 2, 1, 0, 3 / 8), Crop(1 / 2, 1, 5 / 8, 1)),
        "32 64 pool 64 pool 96 pool 128 128",
        hidden=512,
        dropout=0.25,
    ),
)
PUBLISHED_FILTERS = tuple(branch.outputs[0] for branch in _PUBLISHED if branch.probability)
"""The filters that the original published, or describes."""

# Attributes and windows that the original does not have. Convolutions with strides and padding fit windows of any size.
_ANY_WINDOW = {"original": "32/2 64/2 128/2 256/2", "small": "16/2 32/2 48/2 64/2"}

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
    "smile": "32/1 48/2 64/2",
    "pose": "32/1 48/2 64/2",
    "background_mean": "24/1 32/2 48/2 64/2",
    "hairstyle": "24/1 48/2 64/2 64/2",
}


def _branch(outputs: tuple[str, ...], crops: tuple[Crop, ...], binary: bool, plan: Plan) -> Branch:
    """A branch with the layers tuned for its first output, or with those that fit any attribute and window.

    The published layers are tuned for the published windows too; the small ones fit windows of any size.
    """
    tuned = [b for b in _PUBLISHED if (b.outputs[0], b.crops, b.probability) == (outputs[0], crops, binary)]
    if tuned:
        branch = replace(tuned[0], outputs=outputs)
    else:
        branch = (_filter if binary else Branch)(outputs, crops, _ANY_WINDOW["original"])
    if plan == "original":
        return branch
    small, dropout = _SMALL_PLANS.get(outputs[0], _ANY_WINDOW["small"]), 0.3 if binary else 0.0
    return replace(branch, plan=small, hidden=32, conv_dropout=0.0, dropout=dropout, unit_range=False)


def built(attributes: Sequence[Attribute], plan: Plan = "original", resolution: int = 256) -> AttributeCNN:
    """A network of some attributes, with random weights from torch's global generator.

    Attributes that share their windows share a branch; those that are 0 or 1 are predicted as probabilities, in
    branches of their own.

    Args:
        attributes: The attributes.
        plan: ``original`` for the published layers, meant for 256×256, or ``small`` for 64×64. Where an attribute is
            not among those that layers were tuned for, or with ``original`` its windows are not the published ones,
            its layers are general ones of that size.
        resolution: Height and width of the images.

    Raises:
        ValueError: If there is no attribute or no such plan, or the plan does not fit the resolution.
    """
    if plan not in _ANY_WINDOW:
        raise ValueError(f"there is no plan {plan!r}; expected one of {', '.join(_ANY_WINDOW)}")
    sharing: dict[tuple[tuple[Crop, ...], bool], list[str]] = {}
    for attribute in attributes:
        sharing.setdefault((attribute.windows, attribute.kind == "binary"), []).append(attribute.name)
    branches = [_branch(tuple(names), crops, binary, plan) for (crops, binary), names in sharing.items()]
    return AttributeCNN(branches, resolution)


def attribute_cnn(network: str | Sequence[str], plan: Plan = "original", resolution: int = 256) -> AttributeCNN:
    """A network of the attributes of the world in use.

    Args:
        network: The name of an attribute, or of several; ``property`` for the labels, or ``merged`` for labels,
            expressions and grouping attributes.
        plan: See :func:`built`.
        resolution: Height and width of the images.

    Raises:
        ConfigError: If the world declares no such attribute.
        ValueError: See :func:`built`.
    """
    return built(vocabulary().predicted_by(network), plan, resolution)


def published(name: str) -> AttributeCNN:
    """A network of the original, at 256×256, with random weights from torch's global generator.

    Args:
        name: One of :data:`PUBLISHED_FILTERS`, ``property``, ``hairstyle``, or ``merged``, which is both.
    """
    scores = tuple(branch.outputs[0] for branch in _PUBLISHED if not branch.probability)
    chosen = {"property": scores[:-1], "merged": scores}.get(name, (name,))
    return AttributeCNN([branch for branch in _PUBLISHED if branch.outputs[0] in chosen])


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

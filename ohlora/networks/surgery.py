"""Surgery: networks that take more inputs and at first compute the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohlora.errors import ConfigError
from ohlora.networks import generator, stylegan, stylegan2
from ohlora.networks.generator import MAX_LABELS
from ohlora.networks.operations import GAIN

AnyNetwork = TypeVar("AnyNetwork", bound=generator.Generator | generator.Discriminator)


def add_labels(network: AnyNetwork, size: int) -> AnyNetwork:
    """A copy of a network without labels that takes ``size`` label values and, for a zero label, computes the same.

    A StyleGAN generator keeps the known columns of its first dense layer and gets zero columns for the label embedding,
    which is drawn from N(0, 1). The pixel norm over the longer vector and the larger fan-in cancel, so the columns stay
    as they are. A label drawn from N(0, 1) does change the generator's output from the first step on, since its
    embedding takes its share of the pixel norm: z (512 values) arrives at the first layer about 9 % smaller (8.9 %,
    mean over 20 embeddings of 7 values).

    A StyleGAN2 generator normalises z and embedding by themselves. Its known columns are scaled to make up for the
    larger fan-in, and the new ones start at zero, so that no label changes anything at first.

    A discriminator's known score weights are scaled to make up for the larger fan-in, the label's weights start at
    zero, and the bias stays.

    Raises:
        ConfigError: If the network has labels already, ``size`` is not 1 to
            :data:`ohlora.networks.generator.MAX_LABELS`, or its family cannot be given labels.
    """
    if network.c_dim or not 1 <= size <= MAX_LABELS:
        raise ConfigError(
            f"cannot add {size} label values to a network of label size {network.c_dim}; "
            f"expected 1 to {MAX_LABELS} and a network without labels"
        )
    if not isinstance(
        network, (stylegan.Generator, stylegan.Discriminator, stylegan2.Generator, stylegan2.Discriminator)
    ):
        families = f"{stylegan.Generator.kind} or {stylegan2.Generator.kind}"
        raise ConfigError(f"cannot add label values to a {network.kind} network; expected {families}")
    state = network.state_dict()
    of_generator = {"labels": "normal"} if isinstance(network, generator.Generator) else {}
    labelled = type(network)(**(network.arguments() | {"c_dim": size} | of_generator))
    own = labelled.state_dict()
    dense, score = "mapping.layers.dense0.weight", "epilogue.score.weight"
    if isinstance(network, generator.Discriminator):
        known = state[score].shape[1]
        state[score] = F.pad(state[score] * math.sqrt((known + size) / known), (0, size))
    elif isinstance(network, stylegan.Generator):
        state["mapping.label_embedding"] = own["mapping.label_embedding"]
        state[dense] = F.pad(state[dense], (0, stylegan.LABEL_EMBEDDING))
    else:
        state |= {key: own[key] for key in ("mapping.embedding.weight", "mapping.embedding.bias")}
        state[dense] = F.pad(
            state[dense] * math.sqrt((network.z_dim + network.w_dim) / network.z_dim), (0, network.w_dim)
        )
    if isinstance(network, generator.Generator):
        state["label_table"] = own["label_table"]
    labelled.to(next(network.parameters()).dtype).load_state_dict(state)
    return cast(AnyNetwork, labelled.train(network.training))


def with_projection(discriminator: generator.Discriminator) -> generator.Discriminator:
    """A copy of a discriminator whose label also enters by projection and which at first gives the same scores.

    StyleGAN's linear head stays as a part of the projection head; the new embedding starts at zero. StyleGAN2's
    projection head has no linear part: at first its mapping makes 1 of every label, and its scores of the features
    differ from each other and sum up to the known one. Random numbers are torch's.

    Raises:
        ConfigError: If the discriminator has no labels, its family has one label head only, or its linear head has
            learned labels for which the projection head has no place.
    """
    if not isinstance(discriminator, (stylegan.Discriminator, stylegan2.Discriminator)):
        raise ConfigError(
            f"a discriminator of kind {discriminator.kind} has one label head; expected {stylegan.Discriminator.kind}"
            f" or {stylegan2.Discriminator.kind}"
        )
    projecting = type(discriminator)(**(discriminator.arguments() | {"label_head": "projection"}))
    projecting.to(next(discriminator.parameters()).dtype)
    state = discriminator.state_dict()
    if isinstance(projecting, stylegan2.Discriminator):
        state |= _projecting_scores(projecting, state)
    else:
        for parameter in projecting.epilogue["embedding"].parameters():
            nn.init.zeros_(parameter)
    projecting.load_state_dict(projecting.state_dict() | state)
    return projecting.train(discriminator.training)


def _projecting_scores(projecting: stylegan2.Discriminator, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a projection head that scores as the linear head of a state dict does."""
    weight, bias = state["epilogue.score.weight"][0], state["epilogue.score.bias"]
    count = len(weight) - projecting.c_dim
    if weight[count:].any():
        raise ConfigError(
            "the discriminator has learned labels with a linear head, for which StyleGAN2's projection head has no "
            "place; convert it before training, or leave label_head out"
        )
    # The known score is the sum of all over √count; each is 1 / √count of it, and they differ by what cancels.
    rows = torch.randn(count, count).to(weight)
    rows = rows - rows.mean(dim=0) + weight[:count] / math.sqrt(len(weight))
    last = f"mapping.layers.dense{stylegan2.LABEL_LAYERS - 1}"
    one = 1 / (GAIN * stylegan.MAPPING_LR_MULTIPLIER)
    return {
        "epilogue.score.weight": rows,
        "epilogue.score.bias": (bias / math.sqrt(count)).expand(count),
        f"{last}.weight": torch.zeros(count, count).to(weight),
        f"{last}.bias": torch.full((count,), one).to(weight),
    }

"""Surgery: networks that take more inputs, or make larger images, and at first compute the same."""

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
from ohlora.networks.operations import GAIN, LEAK

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


def grown(network: AnyNetwork, resolution: int) -> AnyNetwork:
    """A copy of a StyleGAN2 network for images of a higher resolution that at first computes the same.

    Coarse structure is learned at a low resolution in a fraction of the time (progressive growing, Karras et al.,
    2018). No fading in is needed here, since what is added changes nothing at first (Net2Net, Chen et al., 2016):

    - A generator's new blocks have random weights, and to-RGB layers of zeros: its image is the known one, scaled up.
    - A discriminator's new blocks halve the image and hand on what the known from-RGB layer makes of it: its score is
      the known one of the image scaled down. Each colour runs through two channels, which hold its positive and its
      negative part; the other channels start at random and are not listened to at first.

    Random numbers are torch's.

    Args:
        network: A generator or discriminator.
        resolution: The new height and width, a power of two above the network's.

    Raises:
        ConfigError: If the family is another, the resolution is not higher, or a discriminator's new block has fewer
            than six channels.
    """
    if not isinstance(network, (stylegan2.Generator, stylegan2.Discriminator)):
        raise ConfigError(f"cannot grow a {network.kind} network; expected {stylegan2.Generator.kind}")
    if resolution <= network.resolution:
        raise ConfigError(
            f"cannot grow a network of {network.resolution}×{network.resolution} to {resolution}×{resolution}; "
            "expected a higher resolution"
        )
    try:
        larger = type(network)(**(network.arguments() | {"resolution": 2 * network.resolution}))
        stylegan.block_resolutions(resolution)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    larger.to(next(network.parameters()).dtype)
    state = network.state_dict()
    if isinstance(larger, stylegan2.Generator):
        new = f"synthesis.block{larger.resolution}.to_rgb.weight"
        state[new] = torch.zeros_like(larger.state_dict()[new])
    else:
        known = cast(stylegan2.Discriminator, network).from_rgb
        state |= _halving_parts(larger, known)
    larger.load_state_dict(larger.state_dict() | state)
    larger.train(network.training)
    done = cast(AnyNetwork, larger)
    return done if larger.resolution == resolution else grown(done, resolution)


def _halving_parts(larger: stylegan2.Discriminator, known: stylegan2.Layer) -> dict[str, Tensor]:
    """The tensors of a discriminator's from-RGB layer and first block that hand on what a from-RGB layer makes."""
    block = cast(stylegan2.Block, larger.blocks[f"block{larger.resolution}"])
    count = len(larger.from_rgb.weight)
    if count < 6:
        raise ConfigError(
            f"a discriminator's block of {larger.resolution}×{larger.resolution} would have {count} channels; expected "
            "at least 6, two for each colour. Start from networks with a larger channel_base"
        )
    signs = torch.tensor([1.0, -1.0]).to(known.weight)
    split = torch.eye(3).to(known.weight).repeat_interleave(2, dim=0) * signs.repeat(3)[:, None]  # 6×3: ±colour
    joined = split.T / (1 + LEAK)  # 3×6: leaky ReLU of +c less that of −c is c, but for this factor
    from_rgb, first = larger.from_rgb.weight.detach().clone(), block.layer0.weight.detach().clone()
    from_rgb[:6, :, 0, 0] = split / larger.from_rgb.scale
    first[:6] = 0
    first[:6, :6, 1, 1] = split @ joined / block.layer0.scale
    second = torch.zeros_like(block.layer1.weight)
    second[:, :6, 1, 1] = known.scaled_weight()[:, :, 0, 0] @ joined / block.layer1.scale
    bias = known.bias * (known.bias_scale / block.layer1.bias_scale)
    return {
        "from_rgb.weight": from_rgb,
        "from_rgb.bias": torch.zeros_like(larger.from_rgb.bias),
        f"blocks.block{larger.resolution}.layer0.weight": first,
        f"blocks.block{larger.resolution}.layer1.weight": second,
        f"blocks.block{larger.resolution}.layer1.bias": bias,
        f"blocks.block{larger.resolution}.skip": torch.zeros_like(block.skip),
    }

"""Paths: edits that bend, from one end of the data's range to the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ohlora.directions.edits import Latents, PathBasis, Steps, moved
from ohlora.directions.finder import Source
from ohlora.directions.jacobian import Jacobian
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import score_gradients

UNKNOWN = DataScale(-1.96, 1.96)
"""The data's range where the network does not tell it: of normal scores, the 2.5th and the 97.5th percentile."""
LEAST_GAIN = 0.1
"""A path ends where a node brings less than this share of what was asked of it."""
LEAST_ROOM = 0.2
"""A path goes at least so far to either side, in z-scores: also from a latent that is at the end of the range."""


class Paths(Jacobian):
    """Takes the data's range and the covariance of w, from which :class:`PathEdits` finds a path for each latent.

    The mean gradients of :class:`Jacobian`, by layer, become the directions that other latents share.

    Args:
        nodes: Nodes of a path on either side of the latent; each costs an image with a backward pass per score.
        damping: Of each step, as a share of the mean squared length of the scores' gradients: keeps steps short where
            gradients depend on each other (Levenberg, 1944).
        common: See :class:`ohlora.directions.jacobian.Jacobian`; steps are always by layer.
    """

    def __init__(self, nodes: int = 4, damping: float = 0.05, **common: Any) -> None:
        super().__init__(**common)
        if nodes < 1 or damping < 0:
            raise ConfigError(f"nodes is {nodes} and damping {damping}; expected at least 1 and 0")
        if self.layers not in ("all", "each"):
            raise ConfigError(f"layers is {self.layers!r}; paths take each layer by itself, so leave it out")
        if self.group_by:
            raise ConfigError("paths are a latent's own and need no groups; set group_by to []")
        self.layers = "each"
        self.nodes, self.damping = nodes, damping

    def basis(self, held: list[str], gradients: Tensor, covariance: Tensor, source: Source) -> PathBasis:
        """See :class:`ohlora.directions.edits.PathBasis`."""
        scales = [source.scales.get(name, UNKNOWN) for name in self.targets]
        low, high = (torch.tensor(ends) for ends in zip(*((of.low, of.high) for of in scales), strict=True))
        return PathBasis(tuple(held), covariance, low, high, self.nodes, self.damping)


@dataclass(frozen=True)
class PathEdits:
    """Paths of each latent's own, followed node by node with the gradients at the image reached so far.

    A node asks for a further part of the way to the end of the data's range, and for all other scores as they are in
    the unedited image; the step is the one of smallest Mahalanobis length that does that to first order
    (:mod:`ohlora.directions.covariance`), damped. What a step misses, the next one makes good. A strength is the change
    of the score that was reached, so that the score follows the strength wherever a path bends.

    Attributes:
        attributes: What is edited.
        basis: Where paths go, and how.
        generator: Makes the images.
        network: The search CNN.
        batch_size: Images made at once.
    """

    attributes: tuple[str, ...]
    basis: PathBasis
    generator: Generator
    network: AttributeCNN | AttributeEnsemble
    batch_size: int = 50

    def own(self, codes: Codes) -> Steps:
        """The paths of N codes in W: N×P, 2 · nodes + 1 nodes each."""
        b, count, size = self.basis, len(codes.values), len(self.attributes)
        places = [self.network.outputs.index(name) for name in b.outputs]
        targets = [b.outputs.index(name) for name in self.attributes]
        start = codes.in_space(Space.W_BY_LAYER, self.generator.num_ws).values
        (kind, device), shape = (start.dtype, start.device), start.shape[1:]
        covariance = torch.kron(torch.eye(shape[0]).to(b.covariance), b.covariance).to(device)
        # A path down and a path up of each latent and attribute: N·P·2 paths.
        x = start[:, None, None].expand(count, size, 2, *shape).reshape(-1, *shape)
        own = torch.tensor(targets, device=device).repeat_interleave(2).repeat(count)
        rows = torch.arange(len(x), device=device)
        going = torch.ones(len(x), dtype=torch.bool, device=device)
        ends = torch.stack([b.low, b.high], dim=1).to(device, torch.double).flatten().repeat(count)
        sign = torch.tensor([-1.0, 1.0], dtype=torch.double, device=device).repeat(count * size)
        shifts, strengths = [torch.zeros_like(x)], [torch.zeros(len(x), dtype=torch.double, device=device)]
        for k in range(b.nodes + 1):
            seen, gradients = score_gradients(
                self.generator, self.network, Codes(x, Space.W_BY_LAYER), places, self.batch_size
            )
            scores = seen[:, places].double()
            if k == 0:
                first = scores
                ends = sign * torch.maximum(sign * ends, sign * first[rows, own] + LEAST_ROOM)
                part = (ends - first[rows, own]) / b.nodes
            else:
                gain = sign * (scores - first)[rows, own] - sign * strengths[-1]
                going = going & (gain > LEAST_GAIN * part.abs())
                shift = (x - start.repeat_interleave(2 * size, dim=0)).to(kind)
                shifts.append(torch.where(going[:, None, None], shift, shifts[-1]))
                # Beyond its end a path stays where it is; nodes rise nevertheless.
                least = strengths[-1] + LEAST_GAIN * part
                strengths.append(torch.where(going, (scores - first)[rows, own], least))
            if k < b.nodes:
                wanted = first.clone()
                wanted[rows, own] += (k + 1) * part
                x = x + self._step(gradients.double(), wanted - scores, covariance).to(kind)
        by_node = torch.stack(shifts, dim=1).reshape(count, size, 2, b.nodes + 1, *shape)
        at = torch.stack(strengths, dim=1).reshape(count, size, 2, b.nodes + 1)
        values = torch.cat([by_node[:, :, 0].flip(2), by_node[:, :, 1, 1:]], dim=2)
        nodes = torch.cat([at[:, :, 0].flip(2), at[:, :, 1, 1:]], dim=2)
        return Steps(Codes(values, Space.W_BY_LAYER), nodes)

    def _step(self, gradients: Tensor, change: Tensor, covariance: Tensor) -> Tensor:
        """M steps L×D that change scores by M×K, from their gradients M×K×L×D."""
        flat = gradients.flatten(2)
        patterns = flat @ covariance
        gram = patterns @ flat.mT
        damping = self.basis.damping * torch.diagonal(gram, dim1=1, dim2=2).mean(dim=1)
        gram = gram + damping[:, None, None] * torch.eye(gram.shape[1]).to(gram)
        step: Tensor = torch.linalg.solve(gram, change[..., None]).mT @ patterns
        return step.reshape(len(flat), *gradients.shape[2:])

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Codes:
        """See :class:`ohlora.directions.edits.Edits`."""
        return moved(latents.codes, strengths, self.own(latents.codes))

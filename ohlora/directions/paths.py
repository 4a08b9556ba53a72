"""Paths: edits that bend, from one end of the data's range to the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ohlora.directions.covariance import covariance_root
from ohlora.directions.edits import PathBasis, Steps
from ohlora.directions.finder import Source
from ohlora.directions.held import AXIS
from ohlora.directions.own import OwnEdits, OwnFinder, data_range, room
from ohlora.networks.codes import Codes, Space
from ohlora.networks.sampling import clipped_scores, score_gradients
from ohlora.utils import checks, counted

LEAST_GAIN = 0.1
"""A path ends where a node brings less than this share of what was asked of it."""


class Paths(OwnFinder):
    """The data's range and the mean gradients of :class:`Jacobian`, from which :class:`PathEdits` takes each path.

    Args:
        nodes: Nodes of a path on either side of the latent; each costs an image with a backward pass per score.
        damping: Of each step, as a share of the gradients' own squared lengths: keeps steps short where gradients
            depend on each other (Marquardt, 1963).
        jitter: Gradients are taken at codes that are moved at random by so many standard deviations of w, since those
            at a code itself say what the smallest change would do (SmoothGrad; Smilkov et al., 2017).
        memory: Weight of the gradients of earlier nodes of the path against those of the last, 0…1.
        share: Weight of a latent's own gradients of scores against the mean over latents, 0…1.
        reach: How far a path goes, in parts of the way to the end of the data's range. More than 1, since the search
            CNN, whose gradients are followed, sees more of a change than another network does.
        common: See :class:`ohlora.directions.jacobian.Jacobian`; steps are always by layer.
    """

    edits = "paths"

    def __init__(
        self,
        nodes: int = 6,
        damping: float = 0.1,
        jitter: float = 0.15,
        memory: float = 0.5,
        share: float = 0.4,
        reach: float = 1.5,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        checks.at_least(1, nodes=nodes)
        checks.at_least(0, damping=damping, jitter=jitter)
        checks.between(0, 1, memory=memory, share=share)
        checks.above(0, reach=reach)
        self.nodes, self.damping, self.jitter, self.memory = nodes, damping, jitter, memory
        self.share, self.reach = share, reach

    def basis(self, held: list[str], gradients: Tensor, covariance: Tensor, source: Source) -> PathBasis:
        """See :class:`ohlora.directions.edits.PathBasis`."""
        low, high = data_range([source.scales.get(name) for name in self.targets])
        settings = (self.nodes, self.damping, self.jitter, self.memory, self.share, self.reach, self.seed)
        return PathBasis(tuple(held), gradients[0], covariance, low, high, *settings)


class PathEdits(OwnEdits[PathBasis]):
    """Paths of each latent's own, followed node by node with gradients near the image reached so far.

    A node asks for a further part of the way to the end of the data's range, or beyond it (``reach``), and for all
    other scores as they are in the unedited image; the step is the one of smallest Mahalanobis length that does that to
    first order (:mod:`ohlora.directions.covariance`), damped. Gradients of scores are shrunk towards the mean over
    latents. What a step misses, the next one makes good. A strength is the change of the score that was reached, so
    that the score follows the strength wherever a path bends.
    """

    def own(self, codes: Codes) -> Steps:
        """The paths of N codes in W: N×P, 2 · nodes + 1 nodes each."""
        b, count, size, places = self.basis, len(codes.values), len(self.attributes), self.places
        start = codes.in_space(Space.W_BY_LAYER, self.generator.num_ws).values
        (kind, device), shape = (start.dtype, start.device), start.shape[1:]
        covariance = torch.kron(torch.eye(shape[0]).to(b.covariance), b.covariance).to(device)
        # A path down and a path up of each latent and attribute: N·P·2 paths.
        x = start[:, None, None].expand(count, size, 2, *shape).reshape(-1, *shape)
        own = torch.tensor(self.targets, device=device).repeat_interleave(2).repeat(count)
        rows = torch.arange(len(x), device=device)
        going = torch.ones(len(x), dtype=torch.bool, device=device)
        sign = torch.tensor([-1.0, 1.0], dtype=torch.double, device=device).repeat(count * size)
        spread = covariance_root(b.covariance) * b.jitter
        # All paths of a latent begin at the same image, so that their first gradients can be averaged.
        begin = counted.normal(b.seed, "paths/begin", range(2 * size), shape[1]).to(spread) @ spread.T
        moving = counted.normal(b.seed, "paths/jitter", range(b.nodes), shape[1]).to(spread) @ spread.T
        mean = b.gradients.to(device, torch.double)
        # What all latents have in common says better what an attribute is; who a face is, only its own gradients say.
        shares = torch.tensor([1.0 if name.startswith(AXIS) else b.share for name in b.outputs]).to(mean)[:, None, None]
        known: Tensor | None = None
        shifts, strengths = [torch.zeros_like(x)], [torch.zeros(len(x), dtype=torch.double, device=device)]
        for k in range(b.nodes + 1):
            reached = Codes(x, Space.W_BY_LAYER)
            scores = clipped_scores(self.generator, self.network, reached, self.batch_size)[:, places].double()
            if k == 0:
                first = scores
                of_latents = first[:: 2 * size, self.targets]
                part = torch.stack(room((b.low, b.high), of_latents), dim=2).flatten() * b.reach / b.nodes
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
                jitter = moving[k] if k else begin.repeat(count, 1)[:, None]
                near = Codes(x + jitter.to(x), Space.W_BY_LAYER)
                _, found = score_gradients(self.generator, self.network, near, places, self.batch_size)
                if known is None:
                    of_latents = found.double().reshape(count, 2 * size, *found.shape[1:])
                    known = of_latents.mean(dim=1).repeat_interleave(2 * size, dim=0)
                else:
                    known = torch.lerp(found.double(), known, b.memory)
                x = x + self._step(torch.lerp(mean, known, shares), wanted - scores, covariance).to(kind)
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
        lengths = torch.diagonal(gram, dim1=1, dim2=2)
        # The rest keeps scores solvable that nothing moves any more.
        rest = 1e-6 * lengths.mean(dim=1, keepdim=True) + 1e-12
        gram = gram + torch.diag_embed(self.basis.damping * lengths + rest)
        step: Tensor = torch.linalg.solve(gram, change[..., None]).mT @ patterns
        return step.reshape(len(flat), *gradients.shape[2:])

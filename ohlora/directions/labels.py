"""Edits by the label inputs of a conditional generator, which cost nothing to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ohlora.directions.edits import Latents
from ohlora.networks.codes import Codes
from ohlora.networks.generator import Generator


@dataclass(frozen=True)
class LabelEdits:
    """Moves the ``attributes`` among the ``labels`` of a conditional generator; a unit is one unit of the label."""

    attributes: tuple[str, ...]
    generator: Generator
    labels: Sequence[str]

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Codes:
        """See :class:`ohlora.directions.edits.Edits`."""
        if latents.label is None:
            raise ValueError("the generator has no labels to move")
        strengths = strengths.to(latents.z).expand(len(latents.z), -1, -1)
        count = strengths.shape[1]
        label = latents.label[:, None].repeat(1, count, 1)
        label[:, :, [self.labels.index(name) for name in self.attributes]] += strengths
        z = latents.z[:, None].expand(-1, count, -1)
        codes = self.generator.map(z.flatten(0, 1), label.flatten(0, 1))
        return Codes(codes.values.reshape(len(z), count, -1), codes.space)

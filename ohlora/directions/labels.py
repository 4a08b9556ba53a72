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
    """Moves the label inputs of a conditional generator.

    Attributes:
        attributes: What is edited.
        generator: A generator with labels.
        labels: Names of its label inputs.
    """

    attributes: tuple[str, ...]
    generator: Generator
    labels: Sequence[str]

    def codes(self, latents: Latents, group: Tensor, strengths: Tensor) -> Codes:
        """See :class:`ohlora.directions.edits.Edits`; a unit is one unit of the label."""
        if latents.label is None:
            raise ValueError("the generator has no labels to move")
        strengths = strengths.to(latents.z).expand(len(latents.z), -1, -1)
        count = strengths.shape[1]
        label = latents.label[:, None].repeat(1, count, 1)
        for p, name in enumerate(self.attributes):
            label[:, :, list(self.labels).index(name)] += strengths[:, :, p]
        z = latents.z[:, None].expand(-1, count, -1)
        codes = self.generator.map(z.flatten(0, 1), label.flatten(0, 1))
        return Codes(codes.values.reshape(len(latents.z), count, -1), codes.space)

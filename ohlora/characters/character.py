"""A character: a generator, one latent and the directions that steer it, in one file.

Examples:
    >>> face = ohlora.Character.load("mina.safetensors")
    >>> face.render(eyes=0.5, mouth=-1.0, pose=0.0).save("mina.png")
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ohlora.attributes import Motion, recipe
from ohlora.characters import motion
from ohlora.characters.speech import Speech
from ohlora.directions.edits import UNITS, Steps, moved
from ohlora.errors import ConfigError, FormatError
from ohlora.formats import network_files, tensor_files
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.utils import figures, images

FORMAT = "ohlora-character"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Character:
    """A face that is steered by a few numbers.

    Attributes:
        generator: Makes the images, in evaluation mode.
        code: The latent's code, a batch of one.
        attributes: What can be steered, P names.
        steps: What strengths add to the code, upwards: 1×P straight steps or paths, in the code's space or in one that
            the generator can bring the code to (W by layer where style layers have parts of their own, or S).
        ranges: Attribute → lowest and highest strength that was tested.
        card: What the character is and where it comes from; ``unit`` says what one unit of strength is (one of
            :data:`ohlora.directions.edits.UNITS`; in files of format version 1, a few words).
        meanings: Attribute → what a larger value means.
        motions: Attribute → how it moves by itself, of those that do.
    """

    generator: Generator
    code: Codes
    attributes: tuple[str, ...]
    steps: Steps
    ranges: Mapping[str, tuple[float, float]]
    card: Mapping[str, Any] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    motions: Mapping[str, Motion] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What can be steered, and how far; no tensors."""
        size = self.generator.resolution
        ranges = ", ".join(f"{name} {low:+.2f} … {high:+.2f}" for name, (low, high) in self.ranges.items())
        return f"Character({ranges}; {size}×{size})"

    def __post_init__(self) -> None:
        if self.code.batch != (1,) or self.steps.batch != (1, len(self.attributes)):
            raise ValueError(
                f"there are codes for {self.code.batch} latents and steps for {self.steps.batch} attributes; expected "
                f"one latent and {len(self.attributes)} attributes ({', '.join(self.attributes)})"
            )
        for codes in (self.code, self.steps.shifts.flat()):
            self.generator.in_space(codes, codes.space)  # refuses what does not fit
        self.generator.in_space(self.code, self.steps.shifts.space)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Character:
        """Reads a character file of any version of the format.

        Raises:
            MissingArtifactError: If there is none.
            FormatError: If it is something else, or damaged.
        """
        about = tensor_files.read_metadata(path, FORMAT, FORMAT_VERSION, "a character")
        tensors = tensor_files.read_tensors(path)
        state = {key.removeprefix("generator."): tensors[key] for key in tensors if key.startswith("generator.")}
        try:
            if about["format_version"] == 1:  # which had one family, and told the space by the number of dimensions
                about = network_files.renamed({**about, "kind": "generator"})
                about["space"] = Space.W
                about["steps_space"] = Space.W if tensors["steps"].ndim == 2 else Space.W_BY_LAYER
                tensors["code"] = tensors["w"][None]
            generator = network_files.rebuilt(about, state, str(path))
            if not isinstance(generator, Generator):
                raise ValueError(f"its network is a {about['kind']}")
            return cls(
                generator.to(device),
                Codes(tensors["code"].to(device), Space(about["space"])),
                tuple(about["attributes"]),
                Steps(
                    Codes(tensors["steps"][None].to(device), Space(about["steps_space"])),
                    tensors["nodes"][None].to(device) if "nodes" in tensors else None,
                ),
                {name: (low, high) for name, (low, high) in about["ranges"].items()},
                about["card"],
                *recipe().described_in(about, about["attributes"]),
            )
        except Exception as error:  # whatever a damaged description leads to
            raise FormatError(f"{path}: its parts do not fit its own description ({error})") from error

    def save(self, path: str | Path) -> None:
        """Writes the character as one file, whole or not at all."""
        state = {f"generator.{key}": value for key, value in self.generator.state_dict().items()}
        state |= {"code": self.code.values} | {name: value[0] for name, value in self.steps.tensors.items()}
        tensor_files.write(
            path,
            FORMAT,
            FORMAT_VERSION,
            state,
            **network_files.description(self.generator),
            space=str(self.code.space),
            steps_space=str(self.steps.shifts.space),
            attributes=list(self.attributes),
            ranges={name: list(limits) for name, limits in self.ranges.items()},
            card=dict(self.card),
            meanings=dict(self.meanings),
            motion_shares={name: asdict(values) for name, values in self.motions.items()},
        )

    @property
    def unit(self) -> str:
        """What one unit of strength is, in words; empty where the file does not say."""
        said = str(self.card.get("unit", ""))
        return UNITS.get(said, said)

    def render(self, strict: bool = False, **strengths: float) -> Image.Image:
        """One image.

        Args:
            strict: Refuses strengths outside the tested range instead of clamping them with a warning.
            **strengths: Attribute → strength; an attribute left out stays as it is (0).

        Raises:
            ConfigError: For an attribute that the character does not have, or, if ``strict``, a strength out of range.
        """
        unknown = [name for name in strengths if name not in self.attributes]
        if unknown:
            known = ", ".join(self.attributes)
            raise ConfigError(f"the character cannot be steered by {', '.join(unknown)}; it has {known}")
        return Image.fromarray(self.frames([[strengths.get(name, 0.0) for name in self.attributes]], strict)[0])

    @torch.inference_mode()
    def frames(
        self, strengths: np.ndarray | Sequence[Sequence[float]], strict: bool = False, batch_size: int = 16
    ) -> np.ndarray:
        """Many images.

        Args:
            strengths: N×P, a column per attribute in the order of ``attributes``.
            strict: See :meth:`render`.
            batch_size: Images made at once.

        Returns:
            N×H×W×3 uint8.

        Raises:
            ConfigError: If the shape does not fit, a strength is no number or, if ``strict``, out of range.
        """
        wanted = torch.as_tensor(np.asarray(strengths, dtype=np.float32))
        if wanted.ndim != 2 or wanted.shape[1] != len(self.attributes):
            expected = f"N × {len(self.attributes)} ({', '.join(self.attributes)})"
            raise ConfigError(f"strengths have shape {tuple(wanted.shape)}; expected {expected}")
        start = self.generator.in_space(self.code, self.steps.shifts.space)
        codes = moved(start, self._within(wanted, strict).to(start.values.device), self.steps).flat()
        return np.concatenate([images.to_uint8(self.generator.synthesize(part)) for part in codes.split(batch_size)])

    def idle(
        self,
        times: np.ndarray | Sequence[float],
        strengths: Sequence[float] | None = None,
        seed: int = 0,
        speech: Speech | None = None,
    ) -> np.ndarray:
        """Strengths of the character at rest, or speaking.

        Args:
            times: N times, in seconds, ≥ 0.
            strengths: The positions of the sliders, to which the motion is added; 0 by default.
            seed: Of the random motion and of the blinks.
            speech: What is said from time 0 on, by an attribute whose motion ``speaks``.

        Returns:
            N×P; see :func:`ohlora.characters.motion.idle`.
        """
        return motion.idle(np.asarray(times), *self._moving(strengths), seed, speech)

    def shown(
        self,
        strengths: Sequence[float] | None = None,
        frames_per_second: float = motion.FRAMES_PER_SECOND,
        sweep: float = motion.SWEEP,
        rest: float = motion.REST,
        seed: int = 0,
        speech: Speech | None = None,
    ) -> np.ndarray:
        """Strengths of an animation, N×P: each attribute from end to end, then :meth:`idle`.

        See :func:`ohlora.characters.motion.shown`.
        """
        return motion.shown(*self._moving(strengths), frames_per_second, sweep, rest, seed, speech)

    def _moving(
        self, strengths: Sequence[float] | None
    ) -> tuple[tuple[str, ...], motion.Ranges, Mapping[str, Motion], Sequence[float]]:
        """What moves, and from where: by default from 0."""
        start = [0.0] * len(self.attributes) if strengths is None else strengths
        return self.attributes, self.ranges, self.motions, start

    def sheet(self, steps: int = 5, size: int = 128) -> np.ndarray:
        """A row of ``steps`` images per attribute, from its lowest to its highest strength, the others at 0.

        Images are enlarged to at most ``size`` pixels. The sheet is H×W×3 uint8.
        """
        pictures = images.enlarge(self.frames(motion.sweep(self.attributes, self.ranges, steps)), size)
        rows = dict(zip(self.attributes, np.split(pictures, len(self.attributes)), strict=True))
        return figures.strips({f"{name} {self._said(name)}": row for name, row in rows.items()})

    def _said(self, name: str) -> str:
        low, high = self.ranges[name]
        return f"{low:+.2f} … {high:+.2f}"

    def _within(self, strengths: Tensor, strict: bool) -> Tensor:
        if not torch.isfinite(strengths).all():
            raise ConfigError("a strength is not a finite number")
        low, high = (torch.tensor([self.ranges[name][k] for name in self.attributes]) for k in (0, 1))
        outside = ((strengths < low - 1e-6) | (strengths > high + 1e-6)).any(dim=0)
        if outside.any():
            said = "; ".join(
                f"{name} reaches {float(given.min()):g} … {float(given.max()):g}, tested is "
                f"{self.ranges[name][0]:g} … {self.ranges[name][1]:g}"
                for name, given, out in zip(self.attributes, strengths.T, outside, strict=True)
                if out
            )
            if strict:
                raise ConfigError(f"strengths out of range: {said}")
            warnings.warn(f"strengths are clamped: {said}", stacklevel=3)
        return strengths.clamp(low, high)

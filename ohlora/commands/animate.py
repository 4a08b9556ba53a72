"""Animates a character: its sliders from end to end, then breath and blinks, or speech on top of them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ohlora import pipeline
from ohlora.errors import ConfigError, DataError
from ohlora.pipeline import require
from ohlora.utils import checks
from ohlora.utils.commands import arguments, command
from ohlora.worlds import DEFAULT, SHIPPED

if TYPE_CHECKING:
    import numpy as np

    from ohlora.characters.character import Character
    from ohlora.characters.speech import Speech

BATCH = 16
"""Frames that are drawn at once."""
TRANSPARENT = "transparent"
"""What ``--background`` says where nothing is laid behind the face."""
LONGEST = 36_000
"""Frames of an animation at most, half an hour at 20 per second: a slip of some digits would take days."""


def placed(at: list[str], character: Character) -> list[float]:
    """The positions of the sliders.

    Args:
        at: ``NAME=STRENGTH`` each; sliders that are not named stay at 0.
        character: The character.

    Raises:
        ConfigError: If there is no such slider, or the strength is none within its range.
    """
    strengths = dict.fromkeys(character.attributes, 0.0)
    for given in at:
        name, _, value = given.partition("=")
        if name not in strengths:
            known = ", ".join(strengths)
            raise ConfigError(f"--at is {given!r}; expected NAME=STRENGTH with one of the sliders {known}")
        low, high = character.ranges[name]
        try:
            strengths[name] = float(value)
        except ValueError:
            strengths[name] = math.nan
        if not low - 0.005 <= strengths[name] <= high + 0.005:  # ranges are shown with two decimals
            raise ConfigError(f"--at is {given!r}; expected a strength from {low:.2f} to {high:.2f} for {name}")
    return list(strengths.values())


def said(given: argparse.Namespace) -> Speech | None:
    """The speech that was asked for."""
    from ohlora.characters import speech

    if given.speech_wav is not None:
        if given.rate is not None:
            raise ConfigError(f"--rate is {given.rate:g}, which is for --speech-text; a recording has its own rate")
        return speech.of_wav(given.speech_wav)
    if given.speech_text is not None:
        return speech.of_text(given.speech_text, speech.LETTERS_PER_SECOND if given.rate is None else given.rate)
    if given.rate is not None:
        raise ConfigError(
            f"--rate is {given.rate:g}, which is for --speech-text TEXT; give a text, or leave --rate out"
        )
    return None


def drawn(character: Character, strengths: np.ndarray) -> Iterator[np.ndarray]:
    """The frames, one after the other; few are held in memory."""
    from ohlora.utils.progress import tracked

    for start in tracked(range(0, len(strengths), BATCH), f"{BATCH} frames each"):
        yield from character.frames(strengths[start : start + BATCH])


def with_a_face(frames: Iterator[np.ndarray], parser: Path) -> Iterator[np.ndarray]:
    """Frames as they are, H×W×4 uint8.

    Raises:
        DataError: If no pixel of the first is opaque; names the face parser that cut it out.
    """
    first = next(frames)
    if not (first[..., 3] > 127).any():
        raise DataError(
            f"{parser}: to this face parser the whole first picture is background, but for specks; expected a face. "
            "Name the world whose parser knows such pictures (--world), or keep the background (without --background)"
        )
    yield first
    yield from frames


def without_background(
    background: str | None, world: str | None
) -> Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]:
    """What is done with the background of frames.

    Args:
        background: ``transparent``, a colour, or None to keep it.
        world: The world whose face parser finds it; by default the recipe's.

    Raises:
        ConfigError: If there is no such colour or world, or a world without a background to cut out.
        MissingArtifactError: If the world has no face parser.
    """
    if background is None:
        if world is not None:
            raise ConfigError(f"--world is {world}, which is for --background; give a background, or leave --world out")
        return lambda frames: frames
    from ohlora.utils import images

    colour = None if background == TRANSPARENT else images.colour(background, "--background")
    of = pipeline.world(world or DEFAULT)
    pipeline.use(of)
    from ohlora.faces import cutting
    from ohlora.faces.parsing import load_parser

    file = cutting.require_parser(of)
    parser = load_parser(file)

    def change(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        clear = cutting.steadied(with_a_face(cutting.cut_each(parser, frames), file))
        return clear if colour is None else cutting.laid(clear, colour)

    return change


@command("ohlora animate")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "animate",
        "Plays a character into a GIF, WebP, MP4 or WebM: every slider from end to end, then at rest with breath and "
        "blinks; or speaking.",
        "artifacts/toy/characters/mina.safetensors mina.gif",
        "artifacts/toy/characters/mina.safetensors mina.mp4 --speech-wav hello.wav",
        "artifacts/toy/characters/mina.safetensors mina.webp --speech-text 'Hello, I am Mina.' --at smile=1",
        "artifacts/demo/characters/mina.safetensors mina.webm --background transparent --world demo",
    )
    parser.add_argument("character", type=Path, metavar="CHARACTER", help="a character file")
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="the file to write; its ending is its format: .gif, .webp, .mp4 or .webm",
    )
    parser.add_argument(
        "--sweep",
        type=float,
        metavar="S",
        help="seconds in which each slider goes from end to end and back, 0 for none (default: 1.6; 0 with a speech)",
    )
    parser.add_argument(
        "--idle", type=float, metavar="S", help="seconds at rest (default: 8; 0.5 more than a speech takes)"
    )
    parser.add_argument("--fps", type=float, metavar="F", default=20.0, help="frames per second (default: 20)")
    parser.add_argument(
        "--scale",
        type=int,
        metavar="N",
        help="how many times each pixel is repeated (default: as often as fits into 256 pixels)",
    )
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="NAME=STRENGTH",
        help="position of a slider, to which all motion is added (default: 0); may be given for several sliders",
    )
    parser.add_argument("--seed", type=int, metavar="S", default=0, help="seed of drift and blinks (default: 0)")
    spoken = parser.add_mutually_exclusive_group()
    spoken.add_argument(
        "--speech-wav",
        type=Path,
        metavar="FILE",
        help="a recording (PCM) by whose loudness the mouth opens; MP4 and WebM carry its sound",
    )
    spoken.add_argument(
        "--speech-text", metavar="TEXT", help="a text that the mouth speaks, without sound: Latin letters or Hangul"
    )
    parser.add_argument("--rate", type=float, metavar="R", help="letters per second of the text (default: 12)")
    parser.add_argument(
        "--background",
        metavar="B",
        help="cut the background out, by the world's face parser: transparent (.webp and .webm), or a colour on which "
        "the face is laid, such as white or '#8090a0'",
    )
    parser.add_argument(
        "--world",
        help=f"whose face parser is meant by --background: {', '.join(SHIPPED)}, or the path of a world's file "
        f"(default: {DEFAULT})",
    )
    given = parser.parse_args(args)
    checks.seeds(**{"--seed": given.seed})
    checks.at_least(0, **{"--sweep": given.sweep, "--idle": given.idle})
    checks.at_least(1, **{"--scale": given.scale})
    require(given.character)
    from ohlora.utils import animations

    animations.check(given.target, given.fps, given.background == TRANSPARENT)
    change = without_background(given.background, given.world)
    speech = said(given)
    from ohlora.characters import motion
    from ohlora.characters.character import Character
    from ohlora.utils.progress import in_terminal

    character = Character.load(given.character)
    strengths = placed(given.at, character)
    if speech is not None and not any(own.speaks for own in character.motions.values()):
        raise ConfigError(
            f"{given.character}: none of its sliders ({', '.join(character.attributes)}) is moved by speech; expected "
            "one whose motion speaks, as its world's file declares"
        )
    sweep = given.sweep if given.sweep is not None else motion.SWEEP if speech is None else 0.0
    idle = given.idle if given.idle is not None else motion.REST if speech is None else speech.seconds + 0.5
    if speech is not None and idle < speech.seconds:
        raise ConfigError(f"--idle is {idle:g}; the speech takes {speech.seconds:.1f} s: expected more, or none given")
    start = sweep * len(character.attributes)
    count = round((start + idle) * given.fps)
    if not 1 < count <= LONGEST:
        raise ConfigError(
            f"{start + idle:g} seconds at {given.fps:g} frames per second are {count} frames; expected 2 to "
            f"{LONGEST:,}: change --sweep, --idle or --fps"
        )
    rows = character.shown(strengths, given.fps, sweep, idle, given.seed, speech)
    sound = speech.sound.after(start) if speech is not None and speech.sound is not None else None
    with in_terminal():
        animations.save(change(drawn(character, rows)), given.target, given.fps, given.scale, sound)
    told = [f"sweeps of {', '.join(character.attributes)}"] if start else []
    if speech is not None:
        silent = sound is None or given.target.suffix.lower() not in animations.CODECS
        told.append(f"speech {'without' if silent else 'with its'} sound")
    elif idle:
        told.append("at rest" if character.motions else "no attribute moves at rest (motion, in a world)")
    print(f"{given.target}: {count} frames, {count / given.fps:.1f} s: {', then '.join(told)}")

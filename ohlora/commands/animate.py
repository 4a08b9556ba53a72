"""Animates a character: every attribute sweeps through its range, then the idle motion with blinks follows."""

from __future__ import annotations

from pathlib import Path

from ohlora.errors import ConfigError
from ohlora.utils.commands import arguments, command


@command("ohlora animate")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "animate",
        "Plays a character into a GIF: every attribute through its range, then the idle motion with blinks.",
        "artifacts/toy/characters/mina.safetensors mina.gif",
    )
    parser.add_argument("character", type=Path, metavar="CHARACTER", help="a character file")
    parser.add_argument("target", type=Path, metavar="OUT.gif", help="the file to write")
    parser.add_argument("--steps", type=int, metavar="N", default=20, help="frames of each sweep (default: 20)")
    parser.add_argument("--idle", type=int, metavar="N", default=100, help="frames of the idle motion (default: 100)")
    parser.add_argument("--fps", type=float, metavar="F", default=20.0, help="frames per second (default: 20)")
    parser.add_argument("--seed", type=int, metavar="S", default=0, help="seed of the idle motion (default: 0)")
    given = parser.parse_args(args)
    if given.steps < 2 or given.idle < 0 or not 0 < given.fps <= 100:
        raise ConfigError(
            f"--steps is {given.steps}, --idle {given.idle} and --fps {given.fps}; expected --steps of at least 2, "
            "--idle of at least 0, and --fps above 0 and at most 100"
        )
    from ohlora.characters.character import Character
    from ohlora.utils import images

    character = Character.load(given.character)
    strengths = character.shown(given.steps, given.idle, given.fps, given.seed)
    images.save_gif(images.enlarge(character.frames(strengths), 256), given.target, given.fps)
    said = f"{len(strengths)} frames: sweeps of {', '.join(character.attributes)}"
    if given.idle:
        said += ", then the idle motion" if character.motions else "; no attribute moves at rest (motion, in a world)"
    print(f"{given.target}: {said}")

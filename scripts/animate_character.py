"""Animates a character: every attribute sweeps through its range, then the idle motion with blinks follows.

Usage::

    python scripts/animate_character.py mina.safetensors mina.gif
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ohlora.characters import motion
from ohlora.characters.character import Character
from ohlora.errors import ConfigError
from ohlora.utils import images
from ohlora.utils.commands import command


@command("animate_character")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes an animation of a character as a GIF.")
    parser.add_argument("character", type=Path, metavar="CHARACTER", help="a character file")
    parser.add_argument("target", type=Path, metavar="OUT.gif", help="the file to write")
    parser.add_argument("--steps", type=int, default=20, help="frames of each sweep (default: 20)")
    parser.add_argument("--idle", type=int, default=100, help="frames of the idle motion (default: 100)")
    parser.add_argument("--fps", type=float, default=20.0, help="frames per second (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the idle motion (default: 0)")
    given = parser.parse_args(args)
    if given.steps < 2 or given.idle < 0 or not 0 < given.fps <= 100:
        raise ConfigError(
            f"--steps is {given.steps}, --idle {given.idle} and --fps {given.fps}; expected --steps of at least 2, "
            "--idle of at least 0, and --fps above 0 and at most 100"
        )
    character = Character.load(given.character)
    names, ranges = character.attributes, character.ranges
    strengths = motion.shown(names, ranges, given.steps, given.idle, given.fps, given.seed)
    images.save_gif(images.enlarge(character.frames(strengths), 256), given.target, given.fps)
    print(f"{given.target}: {len(strengths)} frames: sweeps of {', '.join(names)}, then the idle motion")


if __name__ == "__main__":
    sys.exit(main())

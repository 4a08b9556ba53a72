"""``ohlora``, also ``python -m ohlora``: finds the command in the table and runs it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from difflib import get_close_matches
from importlib import import_module
from itertools import groupby

from ohlora.commands import COMMANDS, STAGES
from ohlora.utils import signals

USAGE = """\
usage: ohlora [--help] [--version] [--traceback] COMMAND ...

From a StyleGAN and a few thousand labelled images to a virtual character.

{commands}
  ohlora fit finetune_v8 --world toy    trains a stage of the toy world
  ohlora COMMAND --help                 lists the settings of a command
  ohlora fit --model.help CLASS         lists the settings of a stage (also --data.help)

options of fit, validate, test and predict:
  --world WORLD        toy, demo, celeba256 (the default), stylegan2, or the path of a world's file
  --config FILE        settings; may be given several times, later files win
  --a.b.c VALUE        one setting; wins over files
  --ckpt_path last     go on with the newest run of the same stage

option of every command:
  --traceback          show where an error comes from
"""


def usage() -> str:
    """The text of ``ohlora --help``."""
    lines = ""
    for group, entries in groupby(COMMANDS.items(), lambda item: item[1].group):
        lines += f"{group}:\n" + "".join(f"  {name:18} {entry.about}\n" for name, entry in entries) + "\n"
    return USAGE.format(commands=lines.rstrip("\n") + "\n")


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: Command line without the program's name; None takes the process's.

    Returns:
        The exit code: 0 when done, 2 for an error the user can mend, 143 when SIGTERM and 130 when Ctrl-C stopped it.
    """
    given = list(sys.argv[1:] if args is None else args)
    while len(given) > 1 and given[0] == "--traceback":
        given.append(given.pop(0))
    if given in ([], ["--traceback"]) or given[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if given[0] == "--version":
        from ohlora import __version__

        print(f"ohlora {__version__}")
        return 0
    name, *words = given
    if name.startswith("-"):  # settings before the command: only those of stages can stand there
        if not any(word in COMMANDS and COMMANDS[word].group == STAGES for word in words):
            near = get_close_matches(name, ("--help", "--version", "--traceback"), n=1)
            print(
                f"ohlora: there is no option {name}; " + (f"did you mean {near[0]}?" if near else "see ohlora --help"),
                file=sys.stderr,
            )
            return 2
        name, words = "fit", given
    if name not in COMMANDS:
        near = get_close_matches(name.replace("_", "-"), COMMANDS, n=1)
        meant = f"did you mean {near[0]}? The" if near else "the"
        print(f"ohlora: there is no command {name}; {meant} commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    entry = COMMANDS[name]
    with signals.handled() if name != "studio" else nullcontext():  # whose server has its own way to end
        try:
            code: int = import_module(entry.module).main(given if entry.group == STAGES else words)
        except signals.Stopped as stopped:
            print(f"ohlora {name}: stopped by {stopped.signal.name}; files are whole, run it again", file=sys.stderr)
            return 128 + stopped.signal
    return code


if __name__ == "__main__":
    sys.exit(main())

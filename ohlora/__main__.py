"""``python -m ohlora``: answers what needs no training at once, hands everything else to the entry point."""

from __future__ import annotations

import sys

USAGE = """\
usage: ohlora [--help] [--version] [--traceback] COMMAND ...

From a StyleGAN and a few thousand labels to a virtual character.

commands:
  fit        train a stage:             ohlora fit finetune_v8 --world toy
  predict    make or score images:      ohlora predict generate_original --world toy
  validate   measure on validation data
  test       measure on test data
  doctor     say what is installed, what has been made, and what to run next
  pipeline   list the stages of a world and their commands; write dvc.yaml
  studio     annotate, choose and steer in the browser

  ohlora COMMAND --help                 lists the settings of a command
  ohlora COMMAND --model.help CLASS     lists the settings of a stage (also --data.help)

options:
  --world WORLD        toy, demo, celeba256 (the default), or the path of a world's file
  --config FILE        settings; may be given several times, later files win
  --a.b.c VALUE        one setting; wins over files
  --ckpt_path last     go on with the newest run of the same stage
  --traceback          show where an error comes from
"""


def main(args: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: Command line without the program's name; None takes the process's.

    Returns:
        The exit code: 0 when done, 2 for an error the user can mend.
    """
    given = sys.argv[1:] if args is None else args
    if not given or given[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if given[0] == "--version":
        from ohlora import __version__

        print(f"ohlora {__version__}")
        return 0
    if given[0] == "doctor":
        from ohlora import doctor

        return doctor.main(given[1:])
    if given[0] == "pipeline":
        from ohlora import generated

        return generated.main(given[1:])
    if given[0] == "studio":
        from ohlora.studio import server

        return server.main(given[1:])
    from ohlora import commandline

    return commandline.main(given)


if __name__ == "__main__":
    sys.exit(main())

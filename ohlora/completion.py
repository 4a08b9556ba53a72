"""``ohlora completion``: the Tab key completes commands, stages, worlds, settings and their values.

The shell asks ohlora at every Tab, which takes about 0.2 s, so that stages and settings are those of the world and the
stage on the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ohlora import pipeline, settings, worlds
from ohlora.commandline import expanded
from ohlora.commands import COMMANDS
from ohlora.errors import OhloraError
from ohlora.usage import COMMON
from ohlora.utils.commands import Parser, command

SCRIPTS = {
    "bash": r"""# ohlora completion bash > ~/.local/share/bash-completion/completions/ohlora
_ohlora() {
  local IFS=$'\n'
  local found=$("${COMP_WORDS[0]}" completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  COMPREPLY=($(compgen -W "$found" -- "${COMP_WORDS[COMP_CWORD]#=}"))
}
complete -o default -F _ohlora ohlora
""",
    "zsh": r"""#compdef ohlora
# ohlora completion zsh > a folder of $fpath/_ohlora
_ohlora() {
  local -a found
  found=("${(@f)$("${words[1]}" completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _ohlora ohlora
""",
    "fish": r"""# ohlora completion fish > ~/.config/fish/completions/ohlora.fish
function __ohlora
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] completion --words $words[2..-1] 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path $words[-1]
    end
end
complete -c ohlora -f -a '(__ohlora)'
""",
}
"""Shell → what it runs at its start; names of files are completed by the shell where ohlora has nothing to say."""


def candidates(words: Sequence[str]) -> list[str]:
    """What may stand in place of the last of the words after the program's name, which is not yet complete."""
    *before, last = [word for word in words if word != "="] or [""]
    if not before:
        return [*COMMANDS, "--help", "--version"]
    name, previous = before[0], before[-1]
    if previous == "--world":
        return list(worlds.SHIPPED)
    if name == "completion":
        return list(SCRIPTS)
    if name not in worlds.VERBS:
        options: list[str] = settings.schema()["options"].get(name, [])
        return options if last.startswith("-") else []
    if len(before) == 1 and not last.startswith("-"):
        return list(dict.fromkeys(_stages(name)))
    nodes = _settings(before)
    if previous == "--ckpt_path":
        return ["last"]
    if previous.removeprefix("--") in nodes and not last.startswith("-"):
        return list(_values(nodes[previous.removeprefix("--")]))
    return ["--help", "--help-all", *(f"--{name}" for name in nodes)] if last.startswith("-") else []


def _stages(verb: str) -> Iterable[str]:
    for world in map(pipeline.world, (worlds.DEFAULT, *worlds.SHIPPED)):
        yield from (stage.name for stage in world.stages_of(verb))


def _settings(before: Sequence[str]) -> dict[str, settings.Node]:
    """The settings that are used most, and those of the stage on the line, with what may stand there."""
    found: dict[str, settings.Node] = {}
    for name in COMMON:
        section, _, key = name.partition(".")
        node = settings.schema()["commands"]["fit"]["properties"][section]
        of = settings.of_class(node.get("$ref", "").rpartition("/")[2])
        found[name] = of["properties"].get(key, {}) if of else {}
    try:
        said = settings.check(expanded(list(before[: len(before) - (before[-1].startswith("--"))]))[0])
    except OhloraError:  # the line is not finished
        return found
    for section in ("model", "data"):
        of = settings.of_class((said.get(section) or {}).get("class_path"))
        found |= {f"{section}.init_args.{name}": node for name, node in (of["properties"] if of else {}).items()}
    return found


def _values(node: settings.Node) -> Iterable[str]:
    for each in node.get("anyOf", [node]):
        yield from map(str, each.get("enum", ()))
        yield from ("true", "false") if each.get("type") == "boolean" else ()


@command("ohlora completion")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    if args and args[0] == "--words":  # what the scripts ask at every Tab
        print("\n".join(candidates(args[1:])))
        return
    parser = Parser(
        prog="ohlora completion",
        description="Prints what makes a shell complete commands of ohlora; its first line says where to put it.",
    )
    parser.add_argument("shell", choices=sorted(SCRIPTS))
    print(SCRIPTS[parser.parse_args(args).shell], end="")

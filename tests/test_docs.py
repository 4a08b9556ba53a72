"""Every command in README and docs is one that works: options exist, configurations resolve, words are taken."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ohlora import pipeline, worlds
from ohlora.__main__ import main as ohlora
from ohlora.commands import COMMANDS
from tests import documented
from tests.documented import PAGES, ROOT, Command

DOCUMENTED = documented.commands()


def of_the_entry_point(command: Command) -> bool:
    return command.words[:3] == ["python", "-m", "ohlora"] and command.words[3] in worlds.VERBS


ENTRY = sorted({c.text: c for c in DOCUMENTED if of_the_entry_point(c)}.values(), key=str)


class ParsedError(Exception):
    """Raised in place of a command's work."""


def test_there_are_commands_to_test() -> None:
    assert len(ENTRY) > 40 and {c.page for c in DOCUMENTED} >= {"README.md", "README.ko.md", "first_character.md"}


@pytest.mark.parametrize("command", ENTRY, ids=lambda c: f"{c.page}: {' '.join(c.words[3:])[:80]}")
def test_a_documented_configuration_resolves(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(documented.where(command, tmp_path))
    words = command.words[3:]
    for word in ("--ckpt_path", "last"):
        if word in words:
            words.remove(word)
    if "--help" in words:
        assert ohlora(words) == 0
        return
    asked = any(word.endswith(("help", "print_config")) for word in words)
    with pytest.raises(SystemExit) as done:
        ohlora(words if asked else [*words, "--print_config"])
    assert done.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [c for c in DOCUMENTED if not of_the_entry_point(c)],
    ids=lambda c: f"{c.page}: {c.text[:80]}",
)
def test_any_other_documented_command_is_one(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(documented.where(command, tmp_path))
    words = command.words
    match words:
        case ["make", *targets]:
            there = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{re.escape(t)}:|^INSTALLED := {re.escape(t)}$", there, re.M) for t in targets)
        case ["python", script, *given] if script.startswith("scripts/"):
            takes(importlib.import_module(f"scripts.{Path(script).stem}").main, given)
        case ["ohlora", name, *given] | ["python", "-m", "ohlora", name, *given] if name in COMMANDS:
            takes(importlib.import_module(COMMANDS[name].module).main, given)
        case ["pip", "install", *_]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            asked = re.search(r"\[([\w,]+)\]", words[-1])
            assert words[-1] in ("ohlora", ".") or (asked and set(asked[1].split(",")) <= set(extras))
        case ["dvc", "repro", "--glob", "bots-*"] if command.page == "your_own_world.md":
            pass  # `ohlora new bots …` above makes the world
        case ["dvc", "repro", "--glob", pattern]:
            assert pipeline.world(pattern.removesuffix("-*")).stages
        case ["dvc", "repro", stage]:
            world, _, name = stage.partition("-")
            assert name in pipeline.world(world).stages
        case ["dvc", "dag" | "status" | "commit" | "metrics" | "plots", *_]:
            pass
        case ["torchrun" | "sbatch", *_]:
            text = words[words.index("--wrap") + 1] if "--wrap" in words else " ".join(words)
            inner = shlex.split(text[text.index("-m ohlora") :])
            with pytest.raises(SystemExit) as done:
                ohlora([*inner[2:], "--print_config"])
            assert done.value.code == 0 and command.needs
        case ["git", "clone", *_] | ["cd", *_] | ["wandb", "login" | "sync", *_] | [".", ".venv/bin/activate"]:
            pass
        case ["wandb", "sweep", file]:
            assert (ROOT / file).is_file()
        case ["python", "label.py"] if command.page == "your_own_world.md":
            assert 'title="label.py"' in (ROOT / "docs" / command.page).read_text()
        case [".venv/bin/pre-commit", "install"]:
            pass
        case _:
            pytest.fail(f"{command.page}: no test knows {command.text!r}")


def takes(main: Callable[[list[str]], int], words: list[str]) -> None:
    """Insists that a command's parser takes the words."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: list[str] | None = None) -> None:
        parse(self, args)
        raise ParsedError

    expanded: list[str] = []
    for word in words:  # as the shell would
        braces = re.fullmatch(r"(.*)\{([^}]*)\}(.*)", word)
        expanded += [braces[1] + part + braces[3] for part in braces[2].split(",")] if braces else [word]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ParsedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        main(expanded)


def test_the_tutorial_leaves_out_no_command() -> None:
    """What a stage of the first character reads is made by a command above it on the page, or ships."""
    toy = pipeline.world("toy")
    stages = {toy.command(stage).removesuffix(" --world toy"): stage for stage in toy.stages.values()}
    page = ROOT / "docs" / "first_character.md"
    typed = [
        command.words
        for _, text in documented.blocks(page, "sh")
        for command in documented.of_block(page.name, text)
        if command.words[0] == "python"
    ]
    made: set[Path] = set()
    for words in typed:
        stage = stages[shlex.join(words).removesuffix(" --world toy")]
        missing = {path for path in toy.needs(stage) if path.is_relative_to(toy.folder)} - made
        assert not missing, f"{shlex.join(words)} needs {missing}"
        made |= set(toy.makes(stage))
        if toy.path("characters/mina.webp") in made:
            return  # what follows is no stage
    pytest.fail("the page ends before its character moves")


def test_what_needs_more_than_the_toy_world_says_so() -> None:
    """Commands of the recipe at 256×256 stand in blocks that say what they need."""
    for command in DOCUMENTED:
        asks = command.words[-2].endswith("help") if len(command.words) > 1 else False
        large = of_the_entry_point(command) and not asks and not re.search(r"--world|configs/toy/", command.text)
        if large or re.search(r"\.pth?\b", command.text):
            assert command.needs, f"{command.page}: {command.text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_figure_is_filled_in(page: Path) -> None:
    """No placeholder is left, such as a word in capitals with an underscore, outside code and links."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", page.read_text(encoding="utf-8"), flags=re.S)
    assert not re.findall(r"\b[A-Z]+_[A-Z0-9_]+\b|\bCOMPARISON\b", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#", "data:")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_is_there_and_described(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    marked = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    tags = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<img [^>]*>", text)]
    marked += [(tag.get("alt", ""), tag["src"]) for tag in tags]
    for said, target in marked:
        assert said and (page.parent / target).is_file(), f"{page.name}: {target}: {said!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_has_a_line_below_its_header_that_fits(page: Path) -> None:
    """Otherwise the site shows its text, with all the bars, in place of a table."""
    lines = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S).splitlines()
    for before, line in pairwise(lines):
        if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line):
            header = re.sub(r"`[^`]*`", "", before).replace("\\|", "")
            assert header.count("|") == line.count("|"), before


def test_the_diagram_needs_nothing_else_and_describes_itself() -> None:
    """It is shown without a network, by programs that read pages aloud too, and in both colour schemes."""
    text = (ROOT / "docs/images/chain.svg").read_text(encoding="utf-8")
    svg = {"svg": "http://www.w3.org/2000/svg"}
    root = ElementTree.fromstring(text)
    named = [root.find(f"svg:{name}", svg) for name in ("title", "desc")]
    assert all(part is not None and part.text and part.attrib["id"] in root.attrib["aria-labelledby"] for part in named)
    assert text.count("http") == 1 and "@import" not in text  # the namespace
    words = {part.text for part in root.iterfind("svg:text", svg)}
    assert words >= {"labels", "images", "StyleGAN", "directions", "evaluation", "character", "film", "page", "studio"}
    assert "mermaid" not in (ROOT / "mkdocs.yml").read_text() + "".join(page.read_text() for page in PAGES)

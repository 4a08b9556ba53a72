"""The shell commands of README and docs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = "# needs: "
TYPED = r"python -m ohlora [a-z-]+ \S|ohlora (?!(fit|test|predict|validate) )[a-z-]+ \S|python scripts/\w+\.py \S"
"""How a command in the midst of a text begins, with its first word."""


@dataclass(frozen=True)
class Command:
    """A command as a page has it, and what its block says it needs (``# needs: downloads``)."""

    page: str
    text: str
    needs: str

    @property
    def words(self) -> list[str]:
        """The command's words, without the shell's: comments, and variables that are set for it."""
        return shlex.split(re.sub(r"^([A-Z_]+=(\"[^\"]*\"|\S+) )+", "", self.text), comments=True)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page in a language: what follows the language in its first line, and the text."""
    return re.findall(rf"^```{language}([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def titled(page: Path) -> list[tuple[str, str]]:
    """The files that a page shows: name and content."""
    found = [block for language in ("yaml", "python") for block in blocks(page, language)]
    return [(title[1], text) for about, text in found if (title := re.search(r'title="(.*)"', about))]


def of_block(page: str, text: str) -> list[Command]:
    """The commands of a block: continued lines are joined, loops are unrolled once."""
    lines = text.replace("\\\n", " ").splitlines()
    needs = next((line.removeprefix(MARK) for line in lines if line.startswith(MARK)), "")
    found = []
    for line in lines:
        line = " ".join(line.split())
        loop = re.match(r"for (\w+) in (\S+)", line)
        if loop:
            text = text.replace(f"${loop[1]}", loop[2])
            return of_block(page, "\n".join(part for part in text.splitlines() if not re.match(r"for |done", part)))
        if line and not line.startswith("#"):
            found.append(Command(page, line, needs))
    return found


def commands() -> list[Command]:
    """All of them, each once per page."""
    found: dict[tuple[str, str], Command] = {}
    for page in PAGES:
        for _, text in blocks(page, "sh"):
            for command in of_block(page.name, text):
                found.setdefault((command.page, command.text), command)
        for text in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            if re.match(TYPED, text) and "…" not in text:
                found.setdefault((page.name, text), Command(page.name, text, "inline"))
    return list(found.values())


def where(command: Command, folder: Path) -> Path:
    """Where a command is run: in the source tree, or, where its page shows files, in a folder with these."""
    page = next(path for path in PAGES if path.name == command.page)
    files = titled(page)
    for name, text in files:
        (folder / name).write_text(text)
    return folder if files else ROOT

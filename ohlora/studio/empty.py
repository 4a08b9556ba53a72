"""What a tab of the studio shows where something is missing: what, why it is needed, and which command makes it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ohlora import pipeline
from ohlora.errors import MissingArtifactError, OhloraError

MADE_BY = "it is made by: "
"""How :func:`ohlora.pipeline.hint` begins where a command makes what is missing."""


def missing(path: Path, title: str, why: str, error: OhloraError, is_demo: bool) -> str:
    """HTML for the place of what cannot be shown.

    Args:
        path: The file or folder that is needed.
        title: What is not there, in a few words.
        why: What it is needed for.
        error: What went wrong.
        is_demo: Whether the studio shows the demo's world, which is made as a whole.
    """
    if not isinstance(error, MissingArtifactError):
        return _card(title, [escape(str(error))])
    how = pipeline.hint(path) or ""
    parts = [escape(why), f"Missing: <code>{escape(str(path))}</code>"]
    if is_demo:
        return _card(title, [*parts, f"The demo makes it, in some minutes: {_typed('ohlora demo')}"])
    if how.startswith(MADE_BY):
        parts.append(f"It is made by: {_typed(how.removeprefix(MADE_BY))}")
        parts.append("What that needs first, the tab World and <code>ohlora doctor</code> say.")
    else:
        parts.append(escape(how or str(error)))
    parts.append(
        f"Or look at the demo, which takes some minutes: {_typed('ohlora demo')}{_typed('ohlora studio --demo')}"
    )
    return _card(title, parts)


def _typed(command: str) -> str:
    return f'<pre tabindex="0">{escape(command)}</pre>'


def _card(title: str, parts: list[str]) -> str:
    return f'<section class="empty"><h2>{escape(title)}</h2>{"".join(f"<div>{part}</div>" for part in parts)}</section>'

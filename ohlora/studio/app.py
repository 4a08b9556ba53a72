"""The studio's page, with the tabs Label, Choose and Steer.

Every browser tab has a session of its own, and every change is saved at once. A tab of the page whose artifacts are
missing shows which ones, and the command that makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ohlora import pipeline, worlds
from ohlora.characters.character import FORMAT as CHARACTER
from ohlora.characters.reports import RESULTS, Report
from ohlora.errors import OhloraError
from ohlora.formats import tensor_files
from ohlora.formats.direction_files import FORMAT as DIRECTIONS
from ohlora.pipeline import require
from ohlora.studio.choices import ChoiceSession
from ohlora.studio.label import QUIET, label_tab, warning
from ohlora.studio.settings import Settings, inside
from ohlora.studio.socket import Steerable

STYLE = Path(__file__).with_name("studio.css").read_text(encoding="utf-8")
"""CSS of the page."""

SCRIPTS = ("keys.js", "steer.js")
HEAD = "".join(f"<script>{Path(__file__).with_name(name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS)
"""HTML for the head of the page: the scripts of the keyboard shortcuts and of the tab Steer."""


def build(settings: Settings) -> gr.Blocks:
    """Builds the page; it is not served yet."""
    with gr.Blocks(title="ohlora studio", analytics_enabled=False) as page:
        gr.Markdown(f"# ohlora studio\n`{settings.root}`")
        with gr.Tabs():
            with gr.Tab("Label", id="label"):
                label_tab(page, settings)
            with gr.Tab("Choose", id="choose"):
                _choose_tab(page, settings)
            with gr.Tab("Steer", id="steer"):
                gr.HTML("<ohlora-steer></ohlora-steer>")  # see steer.js
    return page


def _image(name: str, **settings: Any) -> gr.Image:
    return gr.Image(interactive=False, elem_classes="picture", elem_id=name, buttons=[], **settings)


def _acted(
    started: Callable[..., list[Any]], view: Callable[..., list[Any]], act: Callable[[Any], None]
) -> Callable[..., list[Any]]:
    """A handler that changes a tab's session and shows it, with what went wrong, or starts it where there is none."""

    def handler(tab: Any, *inputs: Any) -> list[Any]:
        if tab is None:
            return started(*inputs)
        try:
            act(tab)
        except OhloraError as error:
            return view(tab, *inputs, note=warning(error))
        return view(tab, *inputs)

    return handler


def _on(button: gr.Button, handler: Callable[..., Any], inputs: Any, outputs: list[Any]) -> None:
    """Calls a handler for every click of a button. Clicks are handled one after the other, so that none is lost."""
    button.click(
        handler, inputs, outputs, trigger_mode="multiple", concurrency_limit=1, concurrency_id="studio", **QUIET
    )


# --- choose


def _choose_tab(page: gr.Blocks, settings: Settings) -> None:
    session = gr.State(None)
    status = gr.Markdown(elem_id="choose-status")
    picture = _image("choose-image", show_label=False)
    with gr.Row():
        keep = gr.Button("Keep  [k]", variant="primary", elem_id="choose-key-k")
        star = gr.Button("Star  [s]", elem_id="choose-key-s")
        reject = gr.Button("Reject  [r]", elem_id="choose-key-r")
        back = gr.Button("Previous  [←]", elem_id="choose-key-ArrowLeft")
        ahead = gr.Button("Next  [→]", elem_id="choose-key-ArrowRight")
        reload = gr.Button("Reload the list", elem_id="choose-reload")
        count = gr.Number(19, label="Characters wanted", precision=0, minimum=1, elem_id="choose-count")
    message = gr.Markdown(elem_id="choose-message")
    table = gr.Dataframe(
        interactive=False,
        elem_id="choose-table",
        max_height=360,
        label="Click a row to show its latent, a heading to sort the table",
    )
    shown = [session, picture, status, table, message]

    def view(tab: ChoiceSession, wanted: float | None, note: str = "") -> list[Any]:
        choice = tab.choices.get(tab.case, "not chosen yet")
        line = (
            f"**case {tab.case}** · {choice} · {tab.position + 1} of {len(tab.ranked)} {tab.kind} · "
            f"**{tab.kept()} of {int(wanted or 0)}** wanted characters are kept"
        )
        words = ["chosen", settings.test, settings.root / "characters", "--generator", settings.generator]
        command = worlds.typed(["export-character", *map(str, words)])
        done = f"`{command}` writes a character file for each latent that is kept or starred." if tab.kept() else ""
        rows = gr.Dataframe(value=tab.table(), headers=tab.header())
        return [tab, tab.picture(), line, rows, note or done]

    def started(wanted: float | None) -> list[Any]:
        try:
            require(settings.test / RESULTS)
            require(settings.generator)
            return view(ChoiceSession(Report.load(settings.test, settings.generator)), wanted)
        except OhloraError as error:
            return [None, None, "", None, warning(error)]

    acted = partial(_acted, started, view)

    def picked(tab: ChoiceSession | None, wanted: float | None, event: gr.SelectData) -> list[Any]:
        return acted(lambda tab: tab.show(int(event.row_value[0])))(tab, wanted)

    page.load(started, count, shown)
    for button, choice in ((keep, "keep"), (star, "star"), (reject, "reject")):
        _on(button, acted(lambda tab, choice=choice: tab.choose(choice)), [session, count], shown)  # type: ignore[misc]
    _on(back, acted(lambda tab: tab.step(-1)), [session, count], shown)
    _on(ahead, acted(lambda tab: tab.step(1)), [session, count], shown)
    _on(reload, acted(lambda tab: tab.reload()), [session, count], shown)
    count.change(acted(lambda tab: None), [session, count], shown, **QUIET)
    table.select(picked, [session, count], shown, **QUIET)


# --- steer


def steerable(settings: Settings) -> Steerable:
    """What the tab Steer finds below the root."""

    def files_of(format_: str) -> tuple[list[str], list[str]]:
        """Finds files of a format in this world, and unreadable ones; both relative to its root."""
        found, damaged = tensor_files.files_of(settings.root, format_)
        # The other worlds' folders lie below the root of a world that has no folder of its own.
        others = {pipeline.world(name).root for name in worlds.SHIPPED} - {pipeline.world(settings.world).root}
        inner = [path for path in found if path.resolve().is_relative_to(settings.root.resolve())]
        kept, bad = ([path.relative_to(settings.root) for path in paths] for paths in (inner, damaged))
        return [p.as_posix() for p in kept if p.parts[0] not in others], [p.as_posix() for p in bad]

    def files() -> tuple[list[str], list[str], str]:
        (characters, damaged), (directions, _) = files_of(CHARACTER), files_of(DIRECTIONS)
        note = f"⚠️ these files cannot be read and are left out: {', '.join(damaged)}" if damaged else ""
        if not characters:
            wanted = settings.root / "characters" / "mina.safetensors"
            note = f"⚠️ there is no character below {settings.root}; {pipeline.hint(wanted)}"
        return characters, directions, note

    return Steerable(settings.root, files, partial(inside, settings.root))

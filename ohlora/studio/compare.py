"""Two images side by side in the tab Label: which has more of a score; and scores made of the answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from ohlora.attributes import vocabulary
from ohlora.datamodules.comparisons import Answer
from ohlora.errors import DataError, OhloraError
from ohlora.studio.annotations import AnnotationFile
from ohlora.studio.comparisons import ComparisonFile, ComparisonSession, table_of
from ohlora.studio.connection import WATCHED, warning
from ohlora.studio.pictures import QUIET, pictures_to_label
from ohlora.studio.settings import Settings
from ohlora.utils import pages

SIZE = 512
"""Height and width, in pixels, to which each image is enlarged at most."""
ANSWERS: tuple[tuple[Answer, str], ...] = (
    ("a", "Left [1]"),
    ("b", "Right [2]"),
    ("equal", "Equal, or cannot tell [3]"),
)
"""The answers, and the buttons that give them."""


EACH = "-"
"""What stands for labelling an image at a time, among the scores to compare in."""


class Panel(NamedTuple):
    """A part of the page that is shown in turn with another.

    Attributes:
        show: What it shows, by what was chosen and the values of ``inputs``.
        inputs: The parts of the page that it asks.
        outputs: The parts of the page that it sets.
    """

    show: Callable[..., list[Any]]
    inputs: list[Any]
    outputs: list[Any]


def comparison_session(settings: Settings, attribute: str, annotator: str = "") -> ComparisonSession:
    """Creates the session of a browser tab; its note tells why scores could not be written, where they could not.

    Raises:
        MissingArtifactError: If there are no images.
        DataError: If the table of comparisons cannot be used, or fewer than two images can be read.
    """
    pictures, note = pictures_to_label(settings)
    file = ComparisonFile(table_of(settings.annotations), pictures, settings.images)
    tab = ComparisonSession(file, attribute, annotator)
    notes = [tab.note or note]
    try:
        AnnotationFile(settings.annotations, pictures, [attribute], settings.images)
    except OhloraError as error:
        notes.append(
            f"{warning(error)}. Until this is mended, comparisons are saved, but no scores can be made of them"
        )
    tab.note = "\n\n".join(filter(None, notes))
    return tab


def compare_panel(settings: Settings, chosen: gr.Dropdown, who: gr.Textbox) -> Panel:
    """Adds the panel to the page.

    Args:
        settings: Paths and attributes.
        chosen: Its value is the attribute to compare in.
        who: Its value is who compares.
    """
    session = gr.State(None)
    question = gr.Markdown(elem_id="compare-question", elem_classes="question")
    pair = gr.HTML(elem_id="compare-pair")
    with gr.Row():
        buttons = [gr.Button(text, variant="primary", min_width=120) for _, text in ANSWERS]
    message = gr.Markdown(elem_id="compare-message")
    status = gr.Markdown(elem_id="compare-status")
    with gr.Row():
        undo = gr.Button("Undo [u]", min_width=120)
        scores = gr.Button("Make scores [m]", min_width=120)
        reload = gr.Button("Reload the comparisons", min_width=120)
    outputs = [session, question, pair, message, status]

    def view(tab: ComparisonSession, note: str = "") -> list[Any]:
        asked = f"### Which is more: {vocabulary()[tab.attribute].meaning}?"
        if tab.pair is None:
            asked = "### Every pair has been compared"
        try:
            shown, said = _pair(tab), note or tab.note
        except DataError as error:
            shown, said = "", warning(error)
        return [tab, asked, shown, said, "\n\n".join(_told(tab))]

    def started(attribute: str, annotator: str) -> list[Any]:
        try:
            return view(comparison_session(settings, attribute, annotator.strip()))
        except OhloraError as error:
            return [None, "", "", warning(error), ""]

    def acted(act: Callable[[ComparisonSession], str | None]) -> Callable[..., list[Any]]:
        """A handler that changes the session and shows it with what went wrong, or starts it where there is none."""

        def handler(tab: ComparisonSession | None, attribute: str, annotator: str) -> list[Any]:
            if tab is None:
                return started(attribute, annotator)
            try:
                return view(tab, act(tab) or "")
            except OhloraError as error:
                return view(tab, warning(error))

        return handler

    def made(tab: ComparisonSession) -> str:
        found = tab.scores_into(settings.annotations)
        written = f"Written into {settings.annotations.name} as z-scores."
        return "\n\n".join([*found.lines, written])

    def named(tab: ComparisonSession | None, annotator: str) -> list[Any]:
        if tab is None or annotator.strip() == tab.annotator:
            return [gr.skip() for _ in outputs]
        try:
            tab.compares_as(annotator.strip())
        except OhloraError as error:
            return view(tab, warning(error))
        return view(tab)

    def watched(tab: ComparisonSession | None) -> Any:
        if tab is None or not tab.file.changed:
            return gr.skip()
        return f"⚠️ {tab.file.path.name} was changed by another tab or program. Reload the comparisons"

    one: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 1, "concurrency_id": "label"}
    handlers: list[tuple[gr.Button, Callable[[ComparisonSession], str | None]]] = [
        (button, partial(_answered, answer)) for button, (answer, _) in zip(buttons, ANSWERS, strict=True)
    ]
    handlers += [(undo, lambda tab: tab.undo()), (reload, lambda tab: tab.reload()), (scores, made)]
    for button, act in handlers:
        button.click(acted(act), [session, chosen, who], outputs, **one, **QUIET)
    for event in (who.submit, who.blur):
        event(named, [session, who], outputs, **one, **QUIET)
    gr.Timer(WATCHED).tick(watched, session, message, **QUIET)

    def begun(attribute: str, annotator: str) -> list[Any]:
        return [gr.skip() for _ in outputs] if attribute == EACH else started(attribute, annotator)

    return Panel(begun, [who], outputs)


def _answered(answer: Answer, tab: ComparisonSession) -> None:
    tab.answer(answer)


def _pair(tab: ComparisonSession) -> str:
    """HTML of the two images; blind: their names are not told."""
    shown = zip(("left", "right"), tab.pictures(SIZE), strict=False)
    tags = [
        f'<img alt="the {side} image" src="{pages.address(Image.fromarray(picture), lossless=True)}">'
        for side, picture in shown
    ]
    return f'<div class="pair picture">{"".join(tags)}</div>'


def _told(tab: ComparisonSession) -> list[str]:
    """How far the comparisons are."""
    own = tab.own
    by = f", {tab.mine} by {tab.annotator}" if tab.annotator else ""
    count, every = len({path for one in own for path in (one.a, one.b)}), len(tab.file.pictures)
    lines = [f"{len(own)} comparisons{by} · {count} of {every} images compared"]
    if tab.apart > 1:
        lines.append(f"{tab.apart} groups of images are not connected yet")
    if (pace := tab.pace()) is not None:
        lines.append(f"{pace:.0f} per minute")
    return lines

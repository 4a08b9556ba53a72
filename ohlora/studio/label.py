"""The tab Label: an image, a question per attribute, and keys for the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ohlora.attributes import Attribute, vocabulary
from ohlora.datamodules.scores import ANNOTATOR
from ohlora.errors import ConfigError, OhloraError
from ohlora.formats import network_files
from ohlora.networks.sampling import scored
from ohlora.rules import concept
from ohlora.studio.annotations import AnnotationFile, AnnotationSession, Order, choices
from ohlora.studio.compare import EACH, Panel, compare_panel
from ohlora.studio.connection import WATCHED, warning
from ohlora.studio.empty import missing
from ohlora.studio.pictures import QUIET, pictures_to_label
from ohlora.studio.settings import Settings
from ohlora.utils import images, pages

BATCH = 64
"""Number of images that the filter ensembles score at once."""
KEYS = "1234567890qwertyiopasdfghklzxcvbnm"
"""Keys of the answers, given out in order; u and j have a meaning of their own."""
INVITATION = "Who labels? (only where several people do; asked once)"


def keys_of(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """The keys of the answers: attribute → answer → key.

    They are given out in the order in which the answers stand; the levels of an ordinal that is alone are its keys.
    """
    known = {name: choices(vocabulary()[name]) for name in names}
    if len(names) == 1 and (levels := known[names[0]]) is not None and len(levels) > 2:
        return {names[0]: {level: str(level) for level in levels}}
    free = iter(KEYS)
    return {name: {k: next(free, "") for k in _listed(of)} for name, of in known.items() if of is not None}


def _listed(of: range) -> range:
    """Answers in the order in which they are shown: yes before no, levels from 0 up."""
    return range(1, -1, -1) if len(of) == 2 else of


def _answers(name: str, keys: dict[int, str]) -> list[tuple[str, int]]:
    """The texts of the answers to an attribute, with their values."""
    binary = vocabulary()[name].kind == "binary"
    texts = {k: ("no", "yes")[k] if binary else str(k) for k in keys}
    return [(f"{texts[k]} [{key}]" if key else texts[k], k) for k, key in keys.items()]


def annotation_session(settings: Settings, annotator: str = "") -> AnnotationSession:
    """Creates the session of a browser tab.

    Raises:
        MissingArtifactError: If there are no images.
        DataError: If the table of annotations cannot be used.
    """
    pictures, note = pictures_to_label(settings)
    rules = {rule.attribute: rule for rule in concept()}
    binary = [name for name in settings.attributes if vocabulary()[name].kind == "binary"]
    # What is proposed is the annotation of the concept, so that most images take a single key.
    fits = {name: float(bool(rules[name].holds(np.array(1.0)))) if name in rules else 0.0 for name in binary}
    file = AnnotationFile(settings.annotations, pictures, settings.attributes, settings.images, annotator)
    return AnnotationSession(file, fits, note=note)


def ensemble_scores(
    settings: Settings, pictures: Sequence[Any], progress: Callable[[float, str], object]
) -> np.ndarray:
    """Scores images with the filter ensembles.

    Args:
        settings: The ensembles, and the K attributes.
        pictures: Paths of the N images.
        progress: Called before every batch with the share that is done (0…1) and a text.

    Returns:
        Probabilities, N×K, NaN for an attribute that no ensemble predicts.

    Raises:
        ConfigError: If there is no ensemble, or none that predicts one of the attributes.
        DataError: If an image cannot be used.
    """
    if not settings.filters:
        raise ConfigError("there are no filter ensembles yet; train them on a few hundred labels first")
    scores = np.full((len(pictures), len(settings.attributes)), np.nan)
    every = [network_files.load_attributes(path) for path in settings.filters]
    networks = [network for network in every if set(network.outputs) & set(settings.attributes)]
    if not networks:
        predicted = sorted({name for network in every for name in network.outputs})
        raise ConfigError(
            f"the ensembles predict {', '.join(predicted)}; expected some of {', '.join(settings.attributes)}"
        )
    for start in range(0, len(pictures), BATCH):
        progress(start / len(pictures), f"{start} of {len(pictures)} images")
        for network in networks:
            part = [images.read_rgb(path, int(network.resolution)) for path in pictures[start : start + BATCH]]
            for name, values in scored(network, images.to_float(np.stack(part))).items():
                if name in settings.attributes:
                    scores[start : start + len(part), settings.attributes.index(name)] = values
    return scores


def _question(of: Attribute) -> gr.Radio | gr.Slider:
    """What an attribute is answered with; its answers, keys and range are set when it is shown."""
    same: dict[str, Any] = {"label": of.name, "elem_id": f"label-{of.name}", "elem_classes": "question"}
    return gr.Slider(buttons=[], visible=False, **same) if choices(of) is None else gr.Radio(visible=False, **same)


def label_tab(page: gr.Blocks, settings: Settings) -> None:
    """Adds the tab's content to the page: images by themselves, or two of them side by side."""
    scores = [of.name for of in vocabulary() if of.kind == "score"]
    how = gr.Dropdown(
        [("Label an image at a time", EACH), *((f"Compare two images: {name}", name) for name in scores)],
        value=EACH,
        label="How to label",
        show_label=False,
        container=False,
        visible=bool(scores),
        elem_id="label-how",
    )
    single, comparing = gr.Column(), gr.Column(visible=False)
    who = gr.Textbox(label=INVITATION, max_lines=1, elem_id="label-annotator")
    with single:
        each = _each_panel(page, settings, who)
    with comparing:
        pairs = compare_panel(settings, how, who)
    one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "label"}
    changed = how.input(
        lambda value: [gr.Column(visible=value == EACH), gr.Column(visible=value != EACH)],
        how,
        [single, comparing],
        **one,
        **QUIET,
    )
    how.input(None, None, None, js="() => document.activeElement.blur()", **QUIET)  # so that keys are answers
    for panel in (each, pairs):
        changed.then(panel.show, [how, *panel.inputs], panel.outputs, **one, **QUIET)


def _each_panel(page: gr.Blocks, settings: Settings, who: gr.Textbox) -> Panel:
    """Adds what labels an image at a time."""
    every = list(vocabulary())
    session = gr.State(None)
    empty = gr.HTML(elem_id="label-empty", visible=False)
    with gr.Row(visible=False) as work:
        with gr.Column(scale=3):
            picture = gr.HTML(elem_id="label-image", elem_classes="picture")
        with gr.Column(scale=2):
            status = gr.Markdown(elem_id="label-status")
            questions = [_question(of) for of in every]
            confirm = gr.Button("Next [Enter]", variant="primary", elem_id="label-next")
            message = gr.Markdown(elem_id="label-message")
            with gr.Row():
                back = gr.Button("Previous [←]", min_width=120)
                ahead = gr.Button("Skip [→]", min_width=120)
            with gr.Row():
                undo = gr.Button("Undo [u]", min_width=120)
                jump = gr.Button("Next open [j]", min_width=120)
            blind = gr.Checkbox(
                label="Blind",
                info="Nothing that was filled in beforehand is shown, and Enter accepts nothing",
                elem_id="label-blind",
            )
            names = gr.Dropdown(
                [of.name for of in every],
                value=list(settings.attributes),
                multiselect=True,
                label="Attributes to label",
                elem_id="label-attributes",
            )
            order = gr.Radio(
                ["file", "uncertain", "disputed"],
                value="file",
                label="Order",
                info="uncertain: predictions of the filters close to 0.5; disputed: answers that they contradict",
                elem_id="label-order",
            )
            reload = gr.Button("Reload the table", elem_id="label-reload")
    shown = [session, empty, work, picture, status, *questions, message]

    def asked(tab: AnnotationSession, of: Attribute, keys: dict[str, dict[int, str]]) -> Any:
        """How the question of an attribute is shown."""
        if of.name not in tab.file.attributes:
            return (gr.Slider if choices(of) is None else gr.Radio)(visible=False)
        value = tab.answers.get(of.name)
        notes = [f"filters: {tab.predictions()[of.name]:.2f}"] if of.name in tab.predictions() else []
        if value is None and of.name in tab.annotation:
            notes.append(f"Enter accepts: {('no', 'yes')[int(tab.annotation[of.name])]}")
        elif value is None:
            notes.append("not answered yet")
        words = f"{of.name}: {of.meaning}"
        if choices(of) is not None:
            given = None if value is None else int(value)
            return gr.Radio(
                _answers(of.name, keys[of.name]), value=given, label=words, info=" · ".join(notes), visible=True
            )
        low, high, step = tab.file.scale(of.name)
        unset = ["question", *(["unset"] if value is None else [])]
        at = (low + high) / 2 if value is None else value
        about = f"{low:g} … {high:g}" + "".join(f" · {note}" for note in notes)
        slider = {"minimum": low, "maximum": high, "step": step, "elem_classes": unset}
        return gr.Slider(value=at, label=words, info=about, visible=True, **slider)

    def view(tab: AnnotationSession, note: str = "") -> list[Any]:
        keys = keys_of(tab.file.attributes)
        done, count = sum(map(tab.done, range(len(tab.file.pictures)))), len(tab.file.pictures)
        pace = tab.pace()
        state = "labelled" if tab.done(tab.index) else "labelled in part" if tab.answers else "not labelled"
        by = f" by {tab.file.annotator}" if tab.file.annotator else ""
        lines = [
            f"**{tab.file.pictures[tab.index].name}** · {state} · {tab.position + 1} of {len(tab.order)}",
            f"{done} of {count} labelled{by}" + (" in this tab" if tab.blind else ""),
        ]
        if pace is not None:
            left = (count - done) / pace
            lines.append(f"{pace:.0f} per minute, {left:.0f} min left at this pace")
        try:
            image, said = _image(tab), note
        except OhloraError as error:
            image, said = "", warning(error)
        fields = [asked(tab, of, keys) for of in every]
        return [tab, gr.HTML(visible=False), gr.Row(visible=True), image, "\n\n".join(lines), *fields, said]

    def started(chosen: Sequence[str], annotator: str, hidden: bool) -> list[Any]:
        try:
            tab = annotation_session(replace(settings, attributes=tuple(chosen)), annotator)
        except OhloraError as error:
            title, why = "No images to label", "Labels are answers about images; networks are trained on them."
            told = missing(settings.images, title, why, error, settings.world == "demo")
            return [None, gr.HTML(told, visible=True), gr.Row(visible=False), "", "", *[gr.skip() for _ in every], ""]
        tab.blind = hidden
        needs_name = ANNOTATOR in tab.file.columns and not annotator
        return view(tab, "Say below who labels." if needs_name else tab.note)

    given = [names, who, blind]

    def acted(act: Callable[..., None]) -> Callable[..., list[Any]]:
        """A handler that changes the session and shows it with what went wrong, or starts it where there is none."""

        def handler(tab: AnnotationSession | None, chosen: Any, annotator: str, hidden: bool, *more: Any) -> list[Any]:
            if tab is None:
                return started(chosen, annotator, hidden)
            try:
                act(tab, *more)
            except OhloraError as error:
                return view(tab, warning(error))
            return view(tab)

        return handler

    def arrange(tab: Any, *inputs: Any, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        def act(tab: AnnotationSession, kind: Order) -> None:
            if kind != "file" and tab.scores is None:
                used = replace(settings, attributes=tab.file.attributes)
                tab.scores = ensemble_scores(used, tab.file.pictures, lambda share, text: progress(share, desc=text))
            tab.arrange(kind)

        return acted(act)(tab, *inputs)

    def blinded(tab: AnnotationSession, hidden: bool) -> None:
        tab.blind = hidden

    def rechosen(tab: AnnotationSession | None, chosen: list[str], annotator: str, hidden: bool) -> list[Any]:
        if not chosen and tab is not None:
            return view(tab, "⚠️ choose at least one attribute")
        return started(chosen, annotator, hidden)

    def named(tab: AnnotationSession, annotator: str) -> None:
        if annotator.strip() != tab.file.annotator:
            tab.labels_as(annotator.strip())

    def watched(tab: AnnotationSession | None) -> Any:
        if tab is None or not tab.file.changed:
            return gr.skip()
        return f"⚠️ {tab.file.path.name} was changed by another tab or program. Reload the table"

    def on(event: Callable[..., Any], handler: Callable[..., Any], *more: Any, often: str = "multiple") -> None:
        """Calls a handler for an event. Events are handled one after the other, so that none is lost."""
        inputs = [session, *given, *more]
        one = {"trigger_mode": often, "concurrency_limit": 1, "concurrency_id": "label"}
        event(handler, inputs, shown, **one, **QUIET)

    # The browser remembers who labels.
    remembered = page.load(None, None, who, js="() => localStorage.getItem('ohlora-annotator') ?? ''", **QUIET)
    remembered.then(started, given, shown, **QUIET)
    for of, question in zip(every, questions, strict=True):
        answered = partial(_answered, of.name)
        if isinstance(question, gr.Radio):
            on(question.input, acted(answered), question)
        else:
            for event in (question.input, question.release):
                on(event, acted(answered), question, often="always_last")
    on(confirm.click, acted(lambda tab: tab.confirm()))
    on(back.click, acted(lambda tab: tab.step(-1)))
    on(ahead.click, acted(lambda tab: tab.step(1)))
    on(undo.click, acted(lambda tab: tab.undo()))
    on(jump.click, acted(lambda tab: tab.jump()))
    on(reload.click, acted(lambda tab: tab.file.reload()))
    on(blind.input, acted(blinded), blind)
    on(names.input, rechosen)
    for event in (who.submit, who.blur):
        on(event, acted(named), who)
        event(None, who, None, js="(name) => localStorage.setItem('ohlora-annotator', name.trim())", **QUIET)
    order.input(arrange, [session, *given, order], shown, api_visibility="private")
    gr.Timer(WATCHED).tick(watched, session, message, **QUIET)

    def again(value: str, *inputs: Any) -> list[Any]:
        return started(*inputs) if value == EACH else [gr.skip() for _ in shown]

    return Panel(again, given, shown)


def _answered(name: str, tab: AnnotationSession, value: float) -> None:
    tab.answer(name, value)


def _image(tab: AnnotationSession) -> str:
    """HTML of the image that is shown; a DataError if it cannot be read."""
    name = escape(tab.file.pictures[tab.index].name)
    return f'<img alt="{name}" src="{pages.address(Image.fromarray(tab.picture()), lossless=True)}">'

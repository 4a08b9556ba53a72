"""The studio's page, with the tabs Annotate, Choose and Steer.

Every browser tab has a session of its own, and every change is saved at once. A tab of the page whose artifacts are
missing shows which ones, and the command that makes them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ohlora import pipeline, worlds
from ohlora.attributes import vocabulary
from ohlora.characters.character import FORMAT as CHARACTER
from ohlora.characters.reports import RESULTS, Report
from ohlora.errors import ConfigError, MissingArtifactError, OhloraError
from ohlora.formats import network_files, tensor_files
from ohlora.formats.direction_files import FORMAT as DIRECTIONS
from ohlora.networks.sampling import scored
from ohlora.pipeline import require
from ohlora.rules import concept
from ohlora.studio.annotations import AnnotationFile, AnnotationSession, Order
from ohlora.studio.choices import ChoiceSession
from ohlora.studio.socket import Steerable
from ohlora.utils import images

BATCH = 64
"""Number of images that the filter ensembles score at once."""
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Settings of events that show no progress and have no public API."""

STYLE = """
.gradio-container { max-width: none !important; width: 100% !important; }
.picture img { image-rendering: pixelated; width: 100%; }
.toggles button { justify-content: flex-start; }
footer { display: none !important; }
ohlora-steer { display: block; }
.steer { display: grid; gap: 1rem 2rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 48rem) { .steer { grid-template-columns: minmax(0, 1fr) 22rem; } }
.steer .stage { display: flex; gap: 16px; justify-content: center; align-items: flex-start; min-width: 0; }
.steer figure { margin: 0; } .steer figure[hidden] { display: none; } .steer figcaption { text-align: center; }
.steer canvas { display: block; image-rendering: pixelated; border-radius: .5rem; max-width: 100%; }
.steer .controls { display: grid; gap: .75rem; align-content: start; min-width: 0; }
.steer label:not(.inline) { display: block; overflow-wrap: anywhere; }
.steer p { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.steer .row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.steer .row input[type=text] { flex: 1 1 8rem; min-width: 0; }
.steer .slider { display: grid; grid-template-columns: minmax(0, 1fr) 5.5rem; gap: 0 .5rem; align-items: center;
  margin-bottom: .5rem; }
.steer .slider input[type=range] { grid-column: 1 / -1; width: 100%; height: 1.5rem; margin: 0;
  accent-color: var(--color-accent); }
.steer select, .steer input[type=text], .steer input[type=number] { width: 100%; font: inherit; padding: .25rem .5rem;
  color: var(--body-text-color); background: var(--input-background-fill); border-radius: .4rem;
  border: 1px solid var(--border-color-primary); }
.steer button { font: inherit; padding: .35rem .8rem; border-radius: .4rem; cursor: pointer;
  color: var(--body-text-color); background: var(--button-secondary-background-fill);
  border: 1px solid var(--border-color-primary); }
.steer button.forget { margin-left: -.4rem; padding: .35rem .5rem; }
.steer .inline { display: inline-flex; gap: .5rem; align-items: center; }
.steer :focus-visible { outline: 2px solid var(--color-accent); outline-offset: 1px; }
"""
"""CSS of the page."""

# Gradio has no keyboard shortcuts. A key clicks the visible button whose id ends in "-key-" and its name, except while
# the user types text.
HEAD = """
<script>
document.addEventListener("keydown", (event) => {
  const target = event.target;
  const typing = target.matches("textarea, select, [contenteditable=true]") ||
    (target.matches("input") && !["checkbox", "range", "radio"].includes(target.type));
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  // A key that is held down repeats moves, but not answers.
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const name = event.key === " " ? "Enter" : event.key;
  for (const button of document.querySelectorAll(`button[id$="-key-${CSS.escape(name)}"]`)) {
    if (button.offsetParent !== null && !button.disabled) { event.preventDefault(); button.click(); return; }
  }
});
</script>
"""
HEAD += f"<script>{Path(__file__).with_name('steer.js').read_text(encoding='utf-8')}</script>"
"""HTML for the head of the page: the scripts of the keyboard shortcuts and of the tab Steer."""


@dataclass(frozen=True)
class Settings:
    """Paths and attributes that the page works with.

    Attributes:
        root: Folder of the artifacts of one world; files outside it are neither read nor written, except filters that
            ship with ohlora.
        world: Name of the world.
        images: Folder of the images to annotate.
        annotations: The table of annotations.
        attributes: The attributes to annotate.
        filters: Filter ensembles for the orders ``uncertain`` and ``disputed``.
        test: Folder of the evaluation of edits.
        generator: The generator that was tested.
    """

    root: Path
    world: str
    images: Path
    annotations: Path
    attributes: tuple[str, ...]
    filters: tuple[Path, ...]
    test: Path
    generator: Path

    @property
    def highest(self) -> int:
        """The highest annotation: 1, or the highest level of an ordinal, which is annotated alone."""
        return max(vocabulary()[name].levels or 1 for name in self.attributes)

    @classmethod
    def of(cls, given: argparse.Namespace) -> Settings:
        """Completes the command line with the paths at which the stages write.

        Raises:
            ConfigError: If a path lies outside the artifacts, or an attribute is unknown.
        """
        world = pipeline.world(given.world)
        pipeline.use(world)
        root = world.folder
        names = _annotated(given.attributes)
        generated = root / "generate_v1" / "images"
        tested = next((f for f in ("evaluate_v9", "evaluate_v8") if (root / f / RESULTS).is_file()), "evaluate_v9")
        trained = [world.path(f"filter_{name}/{name}.safetensors") for name in names]
        found = cls(
            root,
            given.world,
            given.images or (generated if generated.is_dir() else root / "generate_original" / "images"),
            given.annotations or root / "labels" / "labels_2k.csv",  # as in the filters' configs
            names,
            tuple([path for path in trained if path.is_file()] if given.filters is None else given.filters),
            given.test or root / tested,
            given.generator or root / "finetune_v8" / "generator.safetensors",
        )
        for path in (found.images, found.annotations, *(given.filters or ()), found.test, found.generator):
            inside(root, path)
        return found


def _annotated(given: Sequence[str] | None) -> tuple[str, ...]:
    """The attributes to annotate: those given, or the filters of the world in use.

    Raises:
        ConfigError: If one is unknown or cannot be annotated, or an ordinal is not alone.
    """
    known = vocabulary()
    names = known.names("filter") if given is None else tuple(given)
    kinds = {name: known[name] for name in names}
    unfit = [name for name, of in kinds.items() if of.kind != "binary" and not of.levels]
    if not names or unfit:
        what = f"{', '.join(unfit)} cannot be annotated" if unfit else f"{known.where} declares no filter"
        raise ConfigError(f"{what}; name binary attributes, or one ordinal with levels, in --attributes")
    if len(names) > 1 and any(of.levels for of in kinds.values()):
        ordinal = next(name for name, of in kinds.items() if of.levels)
        raise ConfigError(
            f"{ordinal} has levels, which take all number keys; annotate it alone: --attributes {ordinal}"
        )
    return names


def inside(root: Path, path: Path) -> Path:
    """Returns a path that lies below the artifacts.

    Raises:
        ConfigError: If it lies outside, also by a symbolic link.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{path} lies outside {root}; the studio reads and writes below the artifacts only")
    return path


def annotation_session(settings: Settings) -> AnnotationSession:
    """Creates the session of a browser tab.

    Raises:
        MissingArtifactError: If there are no images.
        DataError: If the table of annotations cannot be used.
    """
    require(settings.images, folder=True)
    found, left_out = images.images_in(settings.images)
    pictures = [inside(settings.root, path) for path in found]
    without = images.left_out_as(left_out, settings.images)
    if not pictures:
        reason = f"left out: {without}" if without else pipeline.hint(settings.images)
        raise MissingArtifactError(f"{settings.images} holds no images; {reason}")
    left_out_note = f"{settings.images}: took {len(pictures):,} images, left out {without}" if without else ""
    rules = {rule.attribute: rule for rule in concept()}
    # The proposed annotation is the one of the concept, so that most images take a single key.
    fits = {name: int(bool(rules[name].holds(np.array(1.0)))) if name in rules else 0 for name in settings.attributes}
    file = AnnotationFile(settings.annotations, pictures, settings.attributes, settings.highest, settings.images)
    return AnnotationSession(file, fits, note=left_out_note)


def ensemble_scores(
    settings: Settings, pictures: Sequence[Path], progress: Callable[[float, str], object]
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
        raise ConfigError("there are no filter ensembles yet; train them on a few hundred annotations first")
    scores = np.full((len(pictures), len(settings.attributes)), np.nan)
    networks = [network_files.load_attributes(path) for path in settings.filters]
    predicted = {name for network in networks for name in network.outputs}
    if not predicted & set(settings.attributes):
        raise ConfigError(
            f"the ensembles predict {', '.join(sorted(predicted))}; expected some of {', '.join(settings.attributes)}"
        )
    for start in range(0, len(pictures), BATCH):
        progress(start / len(pictures), f"{start} of {len(pictures)} images")
        for network in networks:
            part = [images.read_rgb(path, int(network.resolution)) for path in pictures[start : start + BATCH]]
            for name, values in scored(network, images.to_float(np.stack(part))).items():
                if name in settings.attributes:
                    scores[start : start + len(part), settings.attributes.index(name)] = values
    return scores


def build(settings: Settings) -> gr.Blocks:
    """Builds the page; it is not served yet."""
    with gr.Blocks(title="ohlora studio", analytics_enabled=False) as page:
        gr.Markdown(f"# ohlora studio\n`{settings.root}`")
        with gr.Tabs():
            with gr.Tab("Annotate", id="annotate"):
                _annotate_tab(page, settings)
            with gr.Tab("Choose", id="choose"):
                _choose_tab(page, settings)
            with gr.Tab("Steer", id="steer"):
                gr.HTML("<ohlora-steer></ohlora-steer>")  # see steer.js
    return page


def _image(name: str, **settings: Any) -> gr.Image:
    return gr.Image(interactive=False, elem_classes="picture", elem_id=name, buttons=[], **settings)


def _warning(error: OhloraError) -> str:
    return f"⚠️ {error}"


# --- annotate


def _annotate_tab(page: gr.Blocks, settings: Settings) -> None:
    session = gr.State(None)
    with gr.Row():
        with gr.Column(scale=3):
            picture = _image("annotate-image", show_label=False)
        with gr.Column(scale=2):
            status = gr.Markdown(elem_id="annotate-status")
            with gr.Column(elem_classes="toggles"):
                # Keys toggle attributes from 1 on, or are the levels of an ordinal.
                ordinal = settings.highest > 1
                toggles = [
                    gr.Button(str(k), elem_id=f"annotate-key-{k if ordinal else k + 1}")
                    for k in range(settings.highest + 1 if ordinal else len(settings.attributes))
                ]
            confirm = gr.Button("Save and next  [Enter]", variant="primary", elem_id="annotate-key-Enter")
            with gr.Row():
                back = gr.Button("Previous  [←]", elem_id="annotate-key-ArrowLeft")
                ahead = gr.Button("Next  [→]", elem_id="annotate-key-ArrowRight")
            with gr.Row():
                undo = gr.Button("Undo  [u]", elem_id="annotate-key-u")
                jump = gr.Button("Next without annotation  [j]", elem_id="annotate-key-j")
            order = gr.Radio(
                ["file", "uncertain", "disputed"],
                value="file",
                label="Order",
                info="uncertain: predictions of the filters close to 0.5; disputed: annotations that they contradict",
                elem_id="annotate-order",
            )
            reload = gr.Button("Reload the file", elem_id="annotate-reload")
            message = gr.Markdown(elem_id="annotate-message")
    shown = [session, picture, status, *toggles, message]

    def view(tab: AnnotationSession, note: str = "") -> list[Any]:
        annotation, predictions = tab.annotation, tab.predictions()
        buttons = []
        for k in range(len(toggles) if ordinal else 0):
            (name,) = settings.attributes
            text = f"[{k}]  {name}: {k} of {settings.highest} · more is {vocabulary()[name].meaning}"
            buttons.append(gr.Button(text, variant="primary" if annotation[name] == k else "secondary"))
        for k, name in enumerate(() if ordinal else settings.attributes):
            predicted = f" (filter: {predictions[name]:.2f})" if name in predictions else ""
            text = f"[{k + 1}]  {name}: {annotation[name]}{predicted} · 1 is {vocabulary()[name].meaning}"
            buttons.append(gr.Button(text, variant="primary" if annotation[name] else "secondary"))
        done, count = len(tab.file.annotations), len(tab.file.pictures)
        pace = tab.pace()
        name = tab.file.pictures[tab.index].name
        state = "annotated" if tab.index in tab.file.annotations else "not annotated"
        lines = [f"**{name}** · {state} · {tab.position + 1} of {len(tab.order)}", f"{done} of {count} annotated"]
        if pace is not None:
            left = (count - done) / pace
            lines.append(f"{pace:.0f} per minute, {left:.0f} min left at this pace")
        try:
            image = tab.picture()
        except OhloraError as error:
            return [tab, None, "\n\n".join(lines), *buttons, _warning(error)]
        return [tab, image, "\n\n".join(lines), *buttons, note]

    def started() -> list[Any]:
        try:
            tab = annotation_session(settings)
            return view(tab, tab.note)
        except OhloraError as error:
            off = [gr.Button(interactive=False) for _ in toggles]
            return [None, None, "", *off, _warning(error)]

    def arrange(tab: AnnotationSession | None, kind: Order, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        def act(tab: AnnotationSession) -> None:
            if kind != "file" and tab.scores is None:
                tab.scores = ensemble_scores(
                    settings, tab.file.pictures, lambda share, text: progress(share, desc=text)
                )
            tab.arrange(kind)

        return acted(act)(tab)

    acted = partial(_acted, started, view)

    page.load(started, None, shown)
    for k, button in enumerate(toggles):
        if ordinal:
            _on(button, acted(lambda tab, k=k: tab.grade(settings.attributes[0], k)), session, shown)  # type: ignore[misc]
        else:
            _on(button, acted(lambda tab, k=k: tab.toggle(settings.attributes[k])), session, shown)  # type: ignore[misc]
    _on(confirm, acted(lambda tab: tab.confirm()), session, shown)
    _on(back, acted(lambda tab: tab.step(-1)), session, shown)
    _on(ahead, acted(lambda tab: tab.step(1)), session, shown)
    _on(undo, acted(lambda tab: tab.undo()), session, shown)
    _on(jump, acted(lambda tab: tab.jump()), session, shown)
    _on(reload, acted(lambda tab: tab.file.reload()), session, shown)
    order.input(arrange, [session, order], shown, api_visibility="private")


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
            return view(tab, *inputs, note=_warning(error))
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
            return [None, None, "", None, _warning(error)]

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

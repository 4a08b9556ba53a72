"""The studio's page: three tabs over what the stages left.

Every tab of a browser has a session of its own; what it writes is written at once. A tab whose artifacts are missing
says which, and the command that makes them.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ohlora import pipeline, worlds
from ohlora.attributes import attribute
from ohlora.characters.character import FORMAT as CHARACTER
from ohlora.characters.reports import RESULTS, Report
from ohlora.errors import ConfigError, MissingArtifactError, OhloraError
from ohlora.formats import network_files, tensor_files
from ohlora.formats.direction_files import FORMAT as DIRECTIONS
from ohlora.networks.sampling import scored
from ohlora.pipeline import require
from ohlora.rules import AT_HALF, Rule
from ohlora.studio.annotations import AnnotationFile, LabelSession
from ohlora.studio.choices import ChoiceSession
from ohlora.studio.steering import FRAMES_PER_SECOND, Stage
from ohlora.utils import images

MOST_SLIDERS = 6
BATCH = 64

STYLE = """
.gradio-container { max-width: 76rem !important; margin: auto; }
.picture img { image-rendering: pixelated; width: 100%; }
.toggles button { justify-content: flex-start; }
footer { display: none !important; }
"""

# Keys press the visible button that carries them, except where one types.
HEAD = """
<script>
document.addEventListener("keydown", (event) => {
  const target = event.target;
  const typing = target.matches("textarea, select, [contenteditable=true]") ||
    (target.matches("input") && !["checkbox", "range", "radio"].includes(target.type));
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  // A key that is held down moves on, but answers once.
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const name = event.key === " " ? "Enter" : event.key;
  for (const button of document.querySelectorAll(`button[id$="-key-${CSS.escape(name)}"]`)) {
    if (button.offsetParent !== null && !button.disabled) { event.preventDefault(); button.click(); return; }
  }
});
</script>
"""


@dataclass(frozen=True)
class Settings:
    """Where things are. Every path is below ``root``.

    Attributes:
        root: The artifacts of one world; nothing outside is read or written.
        world: Its name.
        images: Folder of the images to label.
        labels: The label table.
        attributes: What is labelled.
        filters: Ensembles for the orders ``uncertain`` and ``disputed``.
        test: Folder of the image generation test.
        generator: The generator that was tested.
    """

    root: Path
    world: str
    images: Path
    labels: Path
    attributes: tuple[str, ...]
    filters: tuple[Path, ...]
    test: Path
    generator: Path

    @classmethod
    def of(cls, given: argparse.Namespace) -> Settings:
        """From the command line, with the places where the stages put things.

        Raises:
            ConfigError: If a path lies outside the artifacts, or an attribute is unknown.
        """
        world = pipeline.world(given.world)
        pipeline.use(world)
        root = world.folder
        for name in given.attributes:
            try:
                attribute(name)
            except ValueError as error:
                raise ConfigError(f"--attributes: {error}") from error
        generated = root / "generate_v1" / "images"
        tested = next((f for f in ("evaluate_v9", "evaluate_v8") if (root / f / RESULTS).is_file()), "evaluate_v9")
        trained = [world.path(f"filter_{name}/{name}.safetensors") for name in given.attributes]
        found = cls(
            root,
            given.world,
            given.images or (generated if generated.is_dir() else root / "generate_original" / "images"),
            given.labels or root / "labels" / "labels_2k.csv",
            tuple(given.attributes),
            tuple([path for path in trained if path.is_file()] if given.filters is None else given.filters),
            given.test or root / tested,
            given.generator or root / "finetune_v8" / "generator.safetensors",
        )
        for path in (found.images, found.labels, *(given.filters or ()), found.test, found.generator):
            inside(root, path)
        return found


def inside(root: Path, path: Path) -> Path:
    """A path, if it lies below the artifacts.

    Raises:
        ConfigError: If it does not.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{path} lies outside {root}; the studio reads and writes below the artifacts only")
    return path


def label_session(settings: Settings) -> LabelSession:
    """A new session over images and table.

    Raises:
        MissingArtifactError: If there are no images.
    """
    require(settings.images, folder=True)
    pictures = [inside(settings.root, path) for path in images.paths_in(settings.images)]
    if not pictures:
        raise MissingArtifactError(f"{settings.images} holds no images; {pipeline.hint(settings.images)}")
    rules = {rule.attribute: rule for rule in map(Rule.parse, AT_HALF)}
    # What fits the concept is assumed, so that most images take a single key.
    fits = {name: int(bool(rules[name].holds(np.array(1.0)))) if name in rules else 0 for name in settings.attributes}
    return LabelSession(AnnotationFile(settings.labels, pictures, settings.attributes), fits)


def ensemble_scores(
    settings: Settings, pictures: Sequence[Path], progress: Callable[[float, str], object]
) -> np.ndarray:
    """What the ensembles say of images: N×K in the order of the attributes, NaN where none predicts one.

    Raises:
        ConfigError: If there is no ensemble, or none that predicts what is labelled.
    """
    if not settings.filters:
        raise ConfigError("there are no filter ensembles yet; train them on a few hundred labels first")
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
    """The page, not yet served."""
    with gr.Blocks(title="ohlora studio", analytics_enabled=False) as page:
        gr.Markdown(f"# ohlora studio\n`{settings.root}`")
        with gr.Tabs():
            with gr.Tab("Label", id="label"):
                _label_tab(page, settings)
            with gr.Tab("Choose", id="choose"):
                _choose_tab(page, settings)
            with gr.Tab("Steer", id="steer"):
                _steer_tab(page, settings)
    return page


def _told(error: OhloraError) -> str:
    return f"⚠️ {error}"


# --- label


def _label_tab(page: gr.Blocks, settings: Settings) -> None:
    session = gr.State(None)
    with gr.Row():
        with gr.Column(scale=3):
            picture = gr.Image(
                show_label=False, interactive=False, elem_classes="picture", elem_id="label-image", buttons=[]
            )
        with gr.Column(scale=2):
            status = gr.Markdown(elem_id="label-status")
            with gr.Column(elem_classes="toggles"):
                toggles = [gr.Button(name, elem_id=f"label-key-{k + 1}") for k, name in enumerate(settings.attributes)]
            confirm = gr.Button("Save and next  [Enter]", variant="primary", elem_id="label-key-Enter")
            with gr.Row():
                back = gr.Button("Previous  [←]", elem_id="label-key-ArrowLeft")
                forth = gr.Button("Next  [→]", elem_id="label-key-ArrowRight")
            with gr.Row():
                undo = gr.Button("Undo  [u]", elem_id="label-key-u")
                jump = gr.Button("To the next unlabelled  [j]", elem_id="label-key-j")
            order = gr.Radio(
                ["file", "uncertain", "disputed"],
                value="file",
                label="Order",
                info="uncertain: what the filters are least sure of; disputed: labels they contradict",
                elem_id="label-order",
            )
            reload = gr.Button("Reload the file", elem_id="label-reload")
            message = gr.Markdown(elem_id="label-message")
    shown = [session, picture, status, *toggles, message]

    def view(at: LabelSession, told: str = "") -> list[Any]:
        answers, said = at.answer, at.said()
        buttons = []
        for k, name in enumerate(settings.attributes):
            guess = f" (filter: {said[name]:.2f})" if name in said else ""
            text = f"[{k + 1}]  {name}: {answers[name]}{guess} · 1 is {attribute(name).meaning}"
            buttons.append(gr.Button(text, variant="primary" if answers[name] else "secondary"))
        done, count = len(at.file.answers), len(at.file.pictures)
        pace = at.pace()
        name = at.file.pictures[at.place].name
        state = "labelled" if at.place in at.file.answers else "not labelled"
        lines = [f"**{name}** · {state} · {at.at + 1} of {len(at.order)}", f"{done} of {count} labelled"]
        if pace is not None:
            left = (count - done) / pace
            lines.append(f"{pace:.0f} a minute, {left:.0f} min left at this pace")
        try:
            shown = at.picture()
        except OhloraError as error:
            return [at, None, "\n\n".join(lines), *buttons, _told(error)]
        return [at, shown, "\n\n".join(lines), *buttons, told]

    def started() -> list[Any]:
        try:
            return view(label_session(settings))
        except OhloraError as error:
            off = [gr.Button(name, interactive=False) for name in settings.attributes]
            return [None, None, "", *off, _told(error)]

    def acted(act: Callable[[LabelSession], None]) -> Callable[[LabelSession | None], list[Any]]:
        def handler(at: LabelSession | None) -> list[Any]:
            if at is None:
                return started()
            try:
                act(at)
            except OhloraError as error:
                return view(at, _told(error))
            return view(at)

        return handler

    def arrange(at: LabelSession | None, kind: str, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        if at is None:
            return started()
        try:
            if kind != "file" and at.scores is None:
                at.scores = ensemble_scores(settings, at.file.pictures, lambda share, text: progress(share, desc=text))
            at.arrange(kind)  # type: ignore[arg-type]
        except OhloraError as error:
            return view(at, _told(error))
        return view(at)

    page.load(started, None, shown)
    for button, name in zip(toggles, settings.attributes, strict=True):
        _on(button, acted(lambda at, name=name: at.toggle(name)), session, shown)  # type: ignore[misc]
    _on(confirm, acted(lambda at: at.confirm()), session, shown)
    _on(back, acted(lambda at: at.step(-1)), session, shown)
    _on(forth, acted(lambda at: at.step(1)), session, shown)
    _on(undo, acted(lambda at: at.undo()), session, shown)
    _on(jump, acted(lambda at: at.jump()), session, shown)
    _on(reload, acted(lambda at: at.file.reload()), session, shown)
    order.input(arrange, [session, order], shown, api_visibility="private")


def _on(button: gr.Button, handler: Callable[..., Any], inputs: Any, outputs: list[Any]) -> None:
    """What a button does; presses wait for one another, so that none is lost."""
    button.click(
        handler,
        inputs,
        outputs,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_limit=1,
        concurrency_id="studio",
        api_visibility="private",
    )


# --- choose


def _choose_tab(page: gr.Blocks, settings: Settings) -> None:
    session = gr.State(None)
    status = gr.Markdown(elem_id="choose-status")
    picture = gr.Image(show_label=False, interactive=False, elem_classes="picture", elem_id="choose-image", buttons=[])
    with gr.Row():
        keep = gr.Button("Keep  [k]", variant="primary", elem_id="choose-key-k")
        star = gr.Button("Star  [s]", elem_id="choose-key-s")
        reject = gr.Button("Reject  [r]", elem_id="choose-key-r")
        back = gr.Button("Previous  [←]", elem_id="choose-key-ArrowLeft")
        forth = gr.Button("Next  [→]", elem_id="choose-key-ArrowRight")
        reload = gr.Button("Reload the list", elem_id="choose-reload")
        wish = gr.Number(19, label="Wished for", precision=0, minimum=1, elem_id="choose-wish")
    message = gr.Markdown(elem_id="choose-message")
    table = gr.Dataframe(
        interactive=False, elem_id="choose-table", max_height=360, label="Click a row to see it, a heading to sort"
    )
    shown = [session, picture, status, table, message]

    def view(at: ChoiceSession, wished: float | None, told: str = "") -> list[Any]:
        choice = at.choices.get(at.case, "not chosen yet")
        line = (
            f"**case {at.case}** · {choice} · {at.at + 1} of {len(at.places)} that pass · "
            f"**{at.kept()} of {int(wished or 0)}** wished for are kept"
        )
        words = ["chosen", settings.test, settings.root / "characters", "--generator", settings.generator]
        command = worlds.script(["scripts/export_character.py", *map(str, words)])
        done = f"`{command}` writes a character file for each that is kept." if at.kept() else ""
        rows = gr.Dataframe(value=at.table(), headers=at.header())
        return [at, at.picture(), line, rows, told or done]

    def started(wished: float | None) -> list[Any]:
        try:
            require(settings.test / RESULTS)
            require(settings.generator)
            return view(ChoiceSession(Report.load(settings.test, settings.generator)), wished)
        except OhloraError as error:
            return [None, None, "", None, _told(error)]

    def acted(act: Callable[[ChoiceSession], None]) -> Callable[[ChoiceSession | None, float | None], list[Any]]:
        def handler(at: ChoiceSession | None, wished: float | None) -> list[Any]:
            if at is None:
                return started(wished)
            try:
                act(at)
            except OhloraError as error:
                return view(at, wished, _told(error))
            return view(at, wished)

        return handler

    def picked(at: ChoiceSession | None, wished: float | None, event: gr.SelectData) -> list[Any]:
        return acted(lambda of: of.show(int(event.row_value[0])))(at, wished)

    page.load(started, wish, shown)
    for button, choice in ((keep, "keep"), (star, "star"), (reject, "reject")):
        _on(button, acted(lambda at, choice=choice: at.choose(choice)), [session, wish], shown)  # type: ignore[misc]
    _on(back, acted(lambda at: at.step(-1)), [session, wish], shown)
    _on(forth, acted(lambda at: at.step(1)), [session, wish], shown)
    _on(reload, acted(lambda at: at.reload()), [session, wish], shown)
    wish.change(acted(lambda at: None), [session, wish], shown, show_progress="hidden", api_visibility="private")
    table.select(picked, [session, wish], shown, show_progress="hidden", api_visibility="private")


# --- steer


def _steer_tab(page: gr.Blocks, settings: Settings) -> None:
    session = gr.State(None)
    with gr.Row():
        with gr.Column(scale=3), gr.Row():
            own = gr.Image(
                label="character",
                interactive=False,
                elem_classes="picture",
                elem_id="steer-image",
                format="png",
                buttons=[],
            )
            other = gr.Image(
                label="other directions",
                interactive=False,
                elem_classes="picture",
                visible=False,
                elem_id="steer-other",
                format="png",
                buttons=[],
            )
        with gr.Column(scale=2):
            character = gr.Dropdown([], label="Character", elem_id="steer-character")
            directions = gr.Dropdown([], label="Beside it, with other directions", elem_id="steer-directions")
            sliders = [
                gr.Slider(-1, 1, 0, step=0.01, label="–", visible=False, elem_id=f"steer-{k}")
                for k in range(MOST_SLIDERS)
            ]
            with gr.Row():
                idle = gr.Checkbox(False, label="At rest, with blinks", elem_id="steer-idle")
                centre = gr.Button("Back to 0  [0]", elem_id="steer-key-0")
            with gr.Row():
                saves = {
                    "png": gr.Button("Save PNG  [p]", elem_id="steer-key-p"),
                    "gif": gr.Button("Save GIF  [g]", elem_id="steer-key-g"),
                    "sheet": gr.Button("Save sheet  [h]", elem_id="steer-key-h"),
                }
            status = gr.Markdown(elem_id="steer-status")
            message = gr.Markdown(elem_id="steer-message")
            saved = gr.File(label="Saved", visible=False, elem_id="steer-saved")
    clock = gr.Timer(1 / FRAMES_PER_SECOND, active=False)
    seen = [own, other, status]

    def files_of(format_: str) -> tuple[list[str], list[str]]:
        """Those of this world, and the damaged ones, relative to its root."""
        found, damaged = tensor_files.files_of(settings.root, format_)
        # The other worlds' folders lie below the root of a world that has no folder of its own.
        others = {pipeline.world(name).root for name in worlds.SHIPPED} - {pipeline.world(settings.world).root}
        inner = [path for path in found if path.resolve().is_relative_to(settings.root.resolve())]
        kept, bad = ([path.relative_to(settings.root) for path in paths] for paths in (inner, damaged))
        return [p.as_posix() for p in kept if p.parts[0] not in others], [p.as_posix() for p in bad]

    def drawn(at: Stage | None, resting: bool, *values: float) -> list[Any]:
        if at is None:
            return [None, None, ""]
        asked = at.strengths(values[: len(at.character.attributes)], resting)
        picture, beside, taken = at.image(asked)
        said = ", ".join(f"{name} {value:+.2f}" for name, value in zip(at.character.attributes, asked, strict=True))
        return [picture, gr.Image(beside, visible=beside is not None), f"{said} · the server took {taken:.0f} ms"]

    def opened(name: str | None) -> list[Any]:
        hidden = [gr.Slider(visible=False) for _ in sliders]
        if not name:
            return [None, *hidden, None, gr.Image(visible=False), "", ""]
        try:
            at = Stage.load(inside(settings.root, settings.root / name))
        except OhloraError as error:
            return [None, *hidden, None, gr.Image(visible=False), "", _told(error)]
        names, ranges = at.character.attributes, at.character.ranges
        for k, steered in enumerate(names[:MOST_SLIDERS]):
            low, high = math.ceil(100 * ranges[steered][0]) / 100, math.floor(100 * ranges[steered][1]) / 100
            hidden[k] = gr.Slider(low, high, 0, label=f"{steered}: {attribute(steered).meaning}", visible=True)
        return [
            at,
            *hidden,
            *drawn(at, False, *[0.0] * len(names)),
            f"1 is {at.character.card['unit']}." if "unit" in at.character.card else "",
        ]

    def started() -> list[Any]:
        (characters, damaged), (found, _) = files_of(CHARACTER), files_of(DIRECTIONS)
        if not characters:
            wanted = settings.root / "characters" / "mina.safetensors"
            none = MissingArtifactError(f"there is no character below {settings.root}; {pipeline.hint(wanted)}")
            return [gr.Dropdown([]), gr.Dropdown([]), *opened(None)[:-1], _told(none)]
        first = gr.Dropdown(characters, value=characters[0])
        beginning = opened(characters[0])
        if damaged:
            beginning[-1] = f"⚠️ left out, since unreadable: {', '.join(damaged)}"
        return [first, gr.Dropdown(["", *found], value=""), *beginning]

    def compared(at: Stage | None, name: str | None, resting: bool, *values: float) -> list[Any]:
        told = ""
        if at is not None:
            try:
                at.compare(inside(settings.root, settings.root / name) if name else None)
                told = (
                    f"Right: {name}, its mean step, strengths in its own unit, so that sizes may differ."
                    if name
                    else ""
                )
            except OhloraError as error:
                at.compare(None)
                told = _told(error)
        return [at, *drawn(at, resting, *values), told]

    def kept(kind: str) -> Callable[..., list[Any]]:
        def handler(at: Stage | None, *values: float) -> list[Any]:
            if at is None:
                return ["", gr.File(visible=False)]
            try:
                folder = inside(settings.root, settings.root / "studio")
                path = at.save(kind, values[: len(at.character.attributes)], folder)  # type: ignore[arg-type]
            except OhloraError as error:
                return [_told(error), gr.File(visible=False)]
            # Gradio hands out what lies in its own folder, wherever the artifacts are.
            copy = shutil.copy(path, Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])))
            return [f"Saved {path}", gr.File(copy, visible=True)]

        return handler

    everything = [session, *sliders, *seen, message]
    quick: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
    page.load(started, None, [character, directions, *everything])
    character.input(opened, character, everything, show_progress="hidden", api_visibility="private")
    directions.input(compared, [session, directions, idle, *sliders], [session, *seen, message], **quick)
    for slider in sliders:
        slider.input(drawn, [session, idle, *sliders], seen, **quick)
    idle.input(lambda on: gr.Timer(active=on), idle, clock, show_progress="hidden", api_visibility="private")
    clock.tick(drawn, [session, idle, *sliders], seen, **quick)
    centre.click(
        lambda at: [*[0.0] * MOST_SLIDERS, *drawn(at, False, *[0.0] * MOST_SLIDERS)],
        session,
        [*sliders, *seen],
        **quick,
    )
    for kind, button in saves.items():
        button.click(kept(kind), [session, *sliders], [message, saved], api_visibility="private")

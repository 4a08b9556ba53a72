"""The studio's page, with the tabs World, Label, Choose and Steer.

Every browser tab has a session of its own, and every change is saved at once. A tab of the page whose artifacts are
missing shows which ones, and the command that makes them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ohlora import pipeline, worlds
from ohlora.characters.character import FORMAT as CHARACTER
from ohlora.errors import MissingArtifactError
from ohlora.faces import cutting
from ohlora.formats import tensor_files
from ohlora.formats.direction_files import FORMAT as DIRECTIONS
from ohlora.studio import overview
from ohlora.studio.connection import WATCHED
from ohlora.studio.empty import missing
from ohlora.studio.label import label_tab
from ohlora.studio.pictures import QUIET
from ohlora.studio.settings import Settings, inside
from ohlora.studio.socket import Steerable

STYLE = Path(__file__).with_name("studio.css").read_text(encoding="utf-8")
"""CSS of the page."""

SCRIPTS = ("keys.js", "tab.js", "choose.js", "steer.js")
HEAD = "".join(f"<script>{Path(__file__).with_name(name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS)
"""HTML for the head of the page: the scripts of the keyboard shortcuts and of the tabs Choose and Steer."""


def theme() -> gr.themes.Default:
    """The colours of the page, with enough contrast on light and dark screens."""
    found = gr.themes.Default(
        primary_hue="pink", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    strong = {"button_primary_background_fill": "*primary_700", "button_primary_background_fill_hover": "*primary_800"}
    dark = {f"{name}_dark": value for name, value in strong.items()}
    info = {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return found.set(**strong, **dark, **info)


def build(settings: Settings) -> gr.Blocks:
    """Builds the page; it is not served yet."""
    with gr.Blocks(title="ohlora studio", analytics_enabled=False) as page:
        gr.Markdown(f"# ohlora studio\n`{settings.root}`")
        with gr.Tabs():
            with gr.Tab("World", id="world"):
                _world_tab(page, settings)
            with gr.Tab("Label", id="label"):
                label_tab(page, settings)
            with gr.Tab("Choose", id="choose"):
                gr.HTML("<ohlora-choose></ohlora-choose>")  # see choose.js
            with gr.Tab("Steer", id="steer"):
                gr.HTML("<ohlora-steer></ohlora-steer>")  # see steer.js
    return page


def _world_tab(page: gr.Blocks, settings: Settings) -> None:
    seen = gr.State(())
    made = gr.HTML(elem_id="world-stages", elem_classes="world")
    runs = gr.Dropdown([], label="Latest runs", elem_id="world-runs")
    run = gr.HTML(elem_id="world-run", elem_classes="world")

    def shown(chosen: str | None) -> list[Any]:
        titles, title, told = overview.newest(pipeline.world(settings.world), chosen)
        return [gr.Dropdown(titles, value=title, visible=bool(titles)), told]

    def looked(before: tuple[tuple[str, float], ...], chosen: str | None) -> list[Any]:
        world = pipeline.world(settings.world)
        now = overview.stamp(world)
        if now == before:
            return [gr.skip() for _ in range(4)]
        return [now, overview.stages(world), *shown(chosen)]

    everything = [seen, made, runs, run]
    page.load(lambda chosen: looked((), chosen), runs, everything, **QUIET)
    gr.Timer(WATCHED).tick(looked, [seen, runs], everything, **QUIET)
    runs.input(lambda chosen: shown(chosen)[1], runs, run, **QUIET)


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
        return characters, directions, note

    def empty() -> str:
        """HTML where there is no character."""
        wanted = settings.root / "characters" / "mina.safetensors"
        why = "A character is one face with its sliders. The tab Choose exports some, too."
        error = MissingArtifactError(f"there is no character below {settings.root}")
        return missing(wanted, "No character to steer", why, error, settings.world == "demo")

    def parser() -> Path:
        return cutting.require_parser(pipeline.world(settings.world))

    return Steerable(settings.root, files, empty, partial(inside, settings.root), parser)

"""What the tab World shows: stages, checks and marks, and the latest run of each stage with its curves and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ohlora import handover
from ohlora.doctor import made
from ohlora.errors import OhloraError
from ohlora.utils import images, pages
from ohlora.utils.files import read_rows
from ohlora.worlds import World

CLOCK = "kimg"
METRICS, PICTURES = "metrics.csv", "pictures"
CURVES = 24
"""Curves of a run that are shown at most."""
WIDTH, HEIGHT = 240, 80
"""Of a curve, in pixels."""
LARGEST = 720
"""Height and width, in pixels, to which pictures are shrunk at most."""


def stages(world: World) -> str:
    """HTML of a world's stages, what is next, and the checks where a stage hands over to the next."""
    found = made(world)
    rows = []
    for stage in found["stages"]:
        why = "".join(f"<div>⚠️ {escape(reason)}</div>" for reason in stage[handover.UNFIT])
        sign = ("made, not fit" if why else "made") if stage["done"] else "–"
        rows.append([sign, f"<code>{escape(stage['name'])}</code>", escape(stage["about"]) + why])
    done = sum(stage["done"] for stage in found["stages"])
    checks = [[escape(c.about), f"{'≥' if c.at_least else '≤'} {c.limit:g}", escape(c.then)]
              for c in handover.CHECKS.values()]  # fmt: skip
    return (
        f"<h2>{escape(found['about'])}: {done} of {len(rows)} stages made</h2>{_next(found)}"
        + _table("Stages", ["state", "stage", "what it makes"], rows)
        + f"<details><summary>Checks where a stage hands over to the next</summary>"
        f"{_table('Checks', ['what is measured', 'limit', 'what to do where it fails'], checks)}</details>"
    )


def _next(found: dict[str, Any]) -> str:
    """What to run next, or what it waits for."""
    if "next" in found:
        return f'<p>Next:</p><pre tabindex="0">{escape(found["next"])}</pre>'
    if "blocked" not in found:
        return "<p>Everything is made.</p>"
    needs = [f"<li><code>{escape(n['path'])}</code> {escape(n['hint'] or '')}</li>" for n in found["blocked"]["needs"]]
    return f"<p>Next is <code>{escape(found['blocked']['stage'])}</code>, which needs:</p><ul>{''.join(needs)}</ul>"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{cells}</tbody></table></div>"
    )


def runs(world: World) -> list[Path]:
    """The latest run folder of each stage that has one, the one that was written last first."""
    found = []
    for name in world.stages:
        folders = [path for path in (world.path(name) / "runs").glob("[0-9]*") if path.is_dir()]
        if folders:
            found.append(max(folders, key=lambda path: (len(path.name), path.name)))
    return sorted(found, key=_written, reverse=True)


def title(run: Path) -> str:
    """What a run is called: its stage and number."""
    return f"{run.parent.parent.name}/{run.name}"


def stamp(world: World) -> tuple[tuple[str, float], ...]:
    """By what it is noticed that something was made: the files of stages and of their latest runs, with their times."""
    paths = [path for stage in world.stages.values() for path in world.makes(stage)]
    paths += [part for run in runs(world) for part in (run, run / METRICS, run / PICTURES)]
    return tuple((str(path), _written(path)) for path in paths)


def _written(path: Path) -> float:
    """When a file or folder was written; 0 for what is not there. Of a run, when its figures were."""
    place = path / METRICS if (path / METRICS).is_file() else path
    with suppress(OSError):
        return place.stat().st_mtime
    return 0.0


def run(folder: Path) -> str:
    """HTML of a run: its curves, the figures that were measured once, and the newest picture of each kind.

    Raises:
        DataError: If its figures or pictures cannot be read.
    """
    path = folder / METRICS
    rows = read_rows(path, cut=True) if path.is_file() else []
    names = [name for name in (rows[0] if rows else {}) if name != CLOCK]
    series = {name: [(float(row[CLOCK]), float(row[name])) for row in rows if row[name]] for name in names}
    lines = {name: points for name, points in series.items() if len({moment for moment, _ in points}) > 1}
    once = {name: points[-1][1] for name, points in series.items() if points and name not in lines}
    parts = [f"<h3>{escape(title(folder))}</h3>"]
    if lines:
        shown = "".join(_curve(name, lines[name]) for name in list(lines)[:CURVES])
        parts.append(f'<div class="curves">{shown}</div>')
        if len(lines) > CURVES:
            parts.append(f"<p>{len(lines) - CURVES} more are in <code>{escape(str(path))}</code>.</p>")
    if once:
        table = _table("Figures", ["figure", "value"], [[escape(n), f"{value:.4g}"] for n, value in once.items()])
        parts.append(f"<details><summary>{len(once)} figures, measured once</summary>{table}</details>")
    found = sorted((folder / PICTURES).glob("*-[0-9]*.png"))
    pictures = []
    for name, picture in {path.stem.rpartition("-")[0]: path for path in found}.items():
        small: Image.Image = images.as_rgb(images.decode(picture), "white")
        small.thumbnail((LARGEST, LARGEST))
        seen = int(picture.stem.rpartition("-")[2])
        pictures.append(pages.figure(small, f"{name}, after {seen:,} images" if seen else name, quality=85))
    if pictures:
        parts.append(f'<div class="pictures">{"".join(pictures)}</div>')
    return "".join(parts) if len(parts) > 1 else f"{parts[0]}<p>Nothing was measured yet.</p>"


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """A line over the moments of a run, with its name and last value."""
    moments, values = zip(*points, strict=True)
    first, last, low, high = min(moments), max(moments), min(values), max(values)
    place = [
        f"{WIDTH * (moment - first) / (last - first):.1f},{HEIGHT * (1 - (value - low) / ((high - low) or 1)):.1f}"
        for moment, value in points
    ]
    about = f"{name}: {values[-1]:.4g} at {last:g} {CLOCK}; {low:.4g} … {high:.4g}"
    return (
        f'<figure><figcaption>{escape(name)} <b>{values[-1]:.4g}</b></figcaption><svg viewBox="-4 -4 {WIDTH + 8} '
        f'{HEIGHT + 8}" role="img" aria-label="{escape(about)}"><polyline points="{" ".join(place)}"/></svg>'
        f"<small>{low:.4g} … {high:.4g}, to {last:g} {CLOCK}</small></figure>"
    )


def newest(world: World, chosen: str | None) -> tuple[list[str], str | None, str]:
    """The runs by their titles, the one to show, and its HTML: the chosen one if it is there, or the newest.

    What cannot be read is said in its place.
    """
    found = {title(path): path for path in runs(world)}
    shown = chosen if chosen in found else next(iter(found), None)
    if shown is None:
        return [], None, "<p>No stage has been run yet.</p>"
    try:
        return list(found), shown, run(found[shown])
    except (OhloraError, ValueError) as error:
        return list(found), shown, f"<p>⚠️ {escape(str(error))}</p>"

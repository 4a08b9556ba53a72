"""The page that the demo leaves: the character, how she came about, what comes next; then an appendix with the rest."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image
from scipy.stats import binomtest

from ohlora.characters.reports import RESULTS, STATISTICS
from ohlora.utils.files import read_rows, replacing
from ohlora.utils.pages import STYLE, figure


@dataclass(frozen=True)
class Step:
    """What was done, by which command, what it found, and how long it took, if that is known."""

    title: str
    command: str
    found: str
    seconds: float | None


QUALITY = 75
"""Of the pictures, as lossy WebP; the page is to be small enough to be sent."""


def concept_rates(run: Path) -> tuple[float, float]:
    """Share of a generator's images that fit the concept, before and after a fine-tune."""
    rows = read_rows(run / "metrics.csv")
    rates = [float(row["watch/concept_rate"]) for row in rows if row.get("watch/concept_rate")]
    return rates[0], rates[-1]


def watched(run: Path) -> int:
    """How many images a run's concept rates are shares of."""
    callbacks = OmegaConf.select(OmegaConf.load(run / "config.yaml"), "trainer.callbacks")
    (count,) = (of["init_args"]["count"] for of in callbacks if of["class_path"].endswith(".Watch"))
    return int(count)


def share(rate: float, count: int) -> str:
    """A share of so many images with its 95 % confidence interval, in percent (Wilson, 1927)."""
    interval = binomtest(round(rate * count), count).proportion_ci(method="wilson")
    return f"{rate:.0%} ({interval.low:.0%} to {interval.high:.0%})"


def picture(path: Path, caption: str, kind: str = "") -> str:
    """A picture file inside the page."""
    with Image.open(path) as image:
        return figure(image, caption, kind, quality=QUALITY)


def table(header: list[str], rows: list[list[str]], own: bool = False) -> str:
    """A table; ``own`` marks the cell of each row whose column bears the row's name."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = ""
    for row in rows:
        marks = [' class="own"' if own and name == row[0] else "" for name in header]
        cells = zip(marks, row, strict=True)
        body += "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for mark, cell in cells) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def before_and_after(stage: str, run: Path) -> str:
    """The same latents before and after a fine-tune."""
    before, after = concept_rates(run)
    first, last = grids(run)
    shown = picture(first, f"Before {stage}: {before:.0%} fit the concept")
    return f'<div class="pair">{shown}{picture(last, f"After: {after:.0%}; the same latents")}</div>'


def grids(run: Path) -> tuple[Path, Path]:
    """The images of a run's latents, before the first step and at the end."""
    found = sorted((run / "pictures").glob("fakes-*.png"))
    return found[0], found[-1]


def label_table(run: Path) -> str:
    """How far each label of fine-tune v1 is followed by each attribute."""
    rows = read_rows(run / "label_correlations.csv")
    cells = [[row["label"], *(f"{float(row[key]):+.2f}" for key in row if key != "label")] for row in rows]
    return table([*rows[0]], cells, own=True)


def edited(tested: Path) -> list[str]:
    """The attributes that were edited."""
    (row,) = read_rows(tested / STATISTICS)
    return [key.removesuffix("_passed_ratio") for key in row if key.endswith("_passed_ratio")]


def extremes(tested: Path) -> tuple[Path, Path]:
    """The sheets of the faces that follow best and worst, by the lowest of a face's correlations."""
    names = edited(tested)
    rows = read_rows(tested / RESULTS)
    follows = {int(row["case"]): min(float(row[f"{name}_corr"]) for name in names) for row in rows}
    sheets = sorted(
        (tested / "sheets").glob("*_case_*.png"), key=lambda path: follows[int(path.stem.rpartition("_")[2])]
    )
    return sheets[-1], sheets[0]


def edit_table(tested: Path) -> str:
    """What an edit of each attribute does, mean of all tested faces."""
    (row,) = read_rows(tested / STATISTICS)
    names = edited(tested)
    columns = {
        "correlation of asked and seen": "corr_mean",
        "change per unit asked (1 is meant)": "slope_mean",
        "share of other attributes in it": "leakage_mean",
    }
    cells = [[name, *(f"{float(row[f'{name}_{key}']):.3f}" for key in columns.values())] for name in names]
    return table(["edit of", *columns], cells)


def reach_table(tested: Path, physical: Mapping[str, str]) -> str:
    """How far each slider goes, mean of all tested faces; of attributes with a physical value, in that."""
    (row,) = read_rows(tested / STATISTICS)
    cells = []
    for name in edited(tested):
        value = physical.get(name, name)
        ends = [float(row[f"{value}_{end}_mean"]) for end in ("lowest", "highest")]
        share_of = f"{float(row[f'{name}_reach_mean']):.0%}" if f"{name}_reach_mean" in row else "not known"
        cells.append([name, value.replace("_", " "), f"{ends[0]:.2f}", f"{ends[1]:.2f}", share_of])
    return table(["slider", "measured as", "lowest", "highest", "share of what the drawings show"], cells)


def _took(step: Step) -> str:
    return "" if step.seconds is None else f" <span class=soft>({step.seconds:.0f} s)</span>"


def write(path: Path, root: Path, runs: dict[str, Path], steps: list[Step], physical: Mapping[str, str]) -> None:
    """Writes the page, one file without references to others.

    Args:
        path: The file.
        root: The demo's folder.
        runs: Run folders of ``finetune_v1`` and ``finetune_v8``.
        steps: What was done.
        physical: Attribute → name of its physical value, as far as they have one.
    """
    tested, folder, runs_of = root / "evaluate_v9", root / "characters", [runs["finetune_v1"], runs["finetune_v8"]]
    results = read_rows(tested / RESULTS)
    count = watched(runs_of[1])
    start, end = share(concept_rates(runs_of[0])[0], count), share(concept_rates(runs_of[1])[1], count)
    (first, _), (_, last) = map(grids, runs_of)
    best, worst = extremes(tested)
    names = edited(tested)
    passing = sum(row["passed"] == "true" for row in results)
    film = base64.b64encode((folder / "mina.webp").read_bytes()).decode()
    commands = "".join(
        f"<li>{escape(step.title)}{_took(step)}"
        f"<pre>{escape(step.command)}</pre><span class=soft>{escape(step.found)}</span></li>"
        for step in steps
    )
    reals = picture(
        runs_of[0] / "pictures" / "reals-000000000.png",
        "What v1 learned from: generated images that the filters kept",
    )
    html = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ohlora: from a StyleGAN to a character</title><style>{STYLE}</style></head><body><main>
<div class="hero"><img alt="The character, moving" src="data:image/webp;base64,{film}"><div>
<h1>From a StyleGAN to a character</h1>
<p>A StyleGAN that draws all kinds of faces was narrowed to one concept, a young woman without glasses, and
{len(names)} numbers were found that steer her: {", ".join(names)}. Everything here was made on this machine in
{sum(step.seconds or 0 for step in steps):.0f} seconds.</p></div></div>
<div class="numbers">
<div><b>{start}</b>of the images fitted the concept before</div>
<div><b>{end}</b>fit it after two short fine-tunes; in brackets 95% confidence intervals of {count} images</div>
<div><b>{(folder / "mina.safetensors").stat().st_size / 1e6:.1f} MB</b>is the character, one file</div></div>
<h2>1 · From all kinds of faces to one concept</h2>
<p>Filters kept the images that fit, and fine-tune v1 learned from those. Its images were filtered again, more strictly,
and v8 learned from those. These are the same latents, before all this and after it:</p>
<div class="pair">{picture(first, "Before: the StyleGAN that ships")}{picture(last, "After fine-tunes v1 and v8")}</div>
<h2>2 · What steers a face</h2>
<p>Steps in the space of style codes were found that move {", ".join(names)}. A judge that had no part in the search
looked at {len(results)} new faces, each slider moved from end to end. On average:</p>
{reach_table(tested, physical)}
{picture(best, "The face that follows best: each row, one slider", "tall")}
<h2>3 · Candidates, and the character</h2>
<p>Best first: each of {", ".join(names)} from end to end, then expressions combined. What moves the first two was
trained further, and the better of them became the character above. She is a drawing and shows no real person.</p>
{picture(folder / "candidates.png", "The best candidates", "tall")}
<h2>What comes next</h2>
<p><a href="characters/mina.html">Steer her in this browser</a>: that page needs no server, and can be sent to others.
In the studio you can choose another face; or take her into a program:</p>
<pre>python -m ohlora studio --demo</pre>
<pre>import ohlora
face = ohlora.Character.load({escape(repr(str(folder / "mina.safetensors")))})
face.render(eyes=0.5, mouth=-1.0, pose=0.5).show()</pre>
<p>With images and labels of your own, the same chain makes a character of your own; the documentation says how, and
<code>python -m ohlora doctor --world demo</code> lists what each stage needs.</p>
<details><summary>Appendix: what works less well, and every command</summary>
<h2>Faces that do not follow</h2>
<p>{passing} of {len(results)} faces follow all sliders as closely as the original project asked of its characters, over
a grid on which several sliders move at once.</p>
{edit_table(tested)}
{picture(worst, "The face that follows worst", "tall")}
<h2>Each fine-tune by itself</h2>{before_and_after("fine-tune v1", runs_of[0])}
<p></p>{before_and_after("fine-tune v8", runs_of[1])}
{reals}
<h2>Labels</h2>
<p>v1 is also given labels. How each attribute (column) follows each label (row): with the recipe's linear label head,
hardly. That is a finding, not a fault of the demo; <code>configs/finetune_v1_projection.yaml</code> shows what
works.</p>
{label_table(runs_of[0])}
<h2>The commands</h2><ol>{commands}</ol></details>
</main></body></html>
"""
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8")

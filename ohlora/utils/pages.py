"""How the pages look that commands write, and pictures inside them."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d2433, #e8eaf0); --soft: light-dark(#5b6475, #a2a9b8);
  --page: light-dark(#fbfaf8, #14171d); --card: light-dark(#fff, #1c2028); --line: light-dark(#e4e1da, #303642);
  --mark: light-dark(#c2185b, #ff80ab); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; } h2 { margin: 3rem 0 .5rem; font-size: 1.35rem; }
p { max-width: 44rem; } .soft { color: var(--soft); }
.hero { display: grid; grid-template-columns: 16rem 1fr; gap: 2rem; align-items: center; }
.hero img { width: 16rem; border-radius: .75rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .75rem; overflow: hidden; }
figure img { display: block; width: 100%; } figcaption { padding: .6rem .9rem; color: var(--soft); font-size: .9rem; }
figure.tall img { max-width: 56rem; margin: 0 auto; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.numbers div { flex: 1 1 10rem; background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: .9rem 1.1rem; } .numbers b { display: block; font-size: 1.7rem; color: var(--mark); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .75rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } td.own { font-weight: 700; color: var(--mark); }
ol { padding-left: 1.4rem; } li { margin-bottom: 1.1rem; }
pre { margin: .3rem 0; padding: .6rem .8rem; overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; font-size: .82rem; }
summary { cursor: pointer; font-size: 1.35rem; font-weight: 700; margin: 3rem 0 .5rem; }
@media (max-width: 40rem) { .hero { grid-template-columns: 1fr; } }
"""
"""The style sheet, for light and dark screens."""


def figure(image: Image.Image, caption: str, kind: str = "", **encoding: Any) -> str:
    """A picture inside a page, as WebP.

    Args:
        image: The picture.
        caption: What it shows.
        kind: Its class in the style sheet.
        encoding: Settings of PIL's WebP writer, such as ``quality`` or ``lossless``.
    """
    data = address(image.convert("RGB"), **encoding)
    return (
        f'<figure class="{kind}"><img alt="{escape(caption)}" src="{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def address(image: Image.Image, form: str = "WEBP", **encoding: Any) -> str:
    """A picture as an address that holds it.

    Args:
        image: The picture.
        form: PIL's name of the format.
        encoding: Settings of PIL's writer.
    """
    file = io.BytesIO()
    image.save(file, form, **encoding)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"

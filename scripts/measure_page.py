"""Measures a character's page in Chromium: how near its images are, and how many it draws per second.

Random settings of all sliders are drawn by the page and read back from its canvas; beside them, the character's own
images of the same settings. Then the page moves at rest, and the images that it draws are counted. WebGL is computed by
the CPU (SwiftShader).

python scripts/measure_page.py artifacts/demo/characters/mina.safetensors mina.html
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from ohlora.characters.character import Character
from ohlora.utils import images
from ohlora.utils.commands import command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where scripts is found if this is run as a file
from scripts.chromium import launched

SOFTWARE = ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
"""Options of Chromium by which it does as on a machine without a GPU: WebGL and everything else by the CPU."""
DRAWN = """(strengths) => {
  draw(strengths);
  const pixels = new Uint8Array(4 * data.width * data.height);
  gl.readPixels(0, 0, data.width, data.height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  return btoa(String.fromCharCode(...pixels.filter((_, k) => k % 4 < 3)));
}"""
COUNTED = """async (seconds) => {
  let count = 0;
  const inner = gl.drawArrays.bind(gl);
  gl.drawArrays = (...words) => { count++; inner(...words); };
  moving.checked = true;
  restart();
  const began = performance.now();
  await new Promise((done) => setTimeout(done, 1000 * seconds));
  gl.finish();
  const found = 1000 * count / (performance.now() - began);
  gl.drawArrays = inner;
  return found;
}"""


def drawn(page: Page, strengths: list[float]) -> np.ndarray:
    """What an opened page draws at the strengths of its sliders: H×W×3 uint8."""
    height, width = page.evaluate("[data.height, data.width]")
    pixels = np.frombuffer(base64.b64decode(page.evaluate(DRAWN, strengths)), np.uint8)
    return pixels.reshape(height, width, 3)[::-1]


def measure(character: Character, path: Path, count: int, seconds: float) -> dict[str, float]:
    """Opens a page in Chromium and measures it.

    Args:
        character: The character that it shows.
        path: The page.
        count: Random settings that are compared.
        seconds: How long images at rest are counted.

    Raises:
        MissingArtifactError: If there is no Chromium.
    """
    with launched(SOFTWARE) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.absolute().as_uri())
        page.evaluate("ready.then(() => { moving.checked = false; })")
        names = page.evaluate("sliders.map(({name}) => name)")
        low, high = np.array([character.ranges[name] for name in names]).T
        settings = np.random.default_rng(0).uniform(low, high, (count, len(names)))
        rows = np.tile([float(np.clip(0, *character.ranges[name])) for name in character.attributes], (count, 1))
        rows[:, [character.attributes.index(name) for name in names]] = settings
        shown = np.stack([drawn(page, row) for row in settings.tolist()])
        wanted = images.shrink(character.frames(rows), max(shown.shape[1:3]))
        errors = np.square(shown.astype(float) - wanted).mean((1, 2, 3))
        ratios = 10 * np.log10(255**2 / np.maximum(errors, 1e-6))
        rate = page.evaluate(COUNTED, seconds)
    return {
        "megabytes": path.stat().st_size / 1e6,
        "psnr_median": float(np.median(ratios)),
        "psnr_worst": float(ratios.min()),
        "images_per_second": rate,
    }


@command("measure_page")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Measures a character's page in Chromium; the last line is JSON.")
    parser.add_argument("character", type=Path, help="the character's file")
    parser.add_argument("page", type=Path, help="its page")
    parser.add_argument("--count", type=int, default=200, help="random settings (default: 200)")
    parser.add_argument("--seconds", type=float, default=10, help="seconds at rest (default: 10)")
    given = parser.parse_args(args)
    metrics = measure(Character.load(given.character), given.page, given.count, given.seconds)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in metrics.items()}))


if __name__ == "__main__":
    sys.exit(main())

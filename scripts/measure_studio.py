"""Measures the tab Steer of a studio that is running, in Chromium: frames per second, and how late they are.

A slider is moved sixty times a second, as by a hand that drags it; counted are the frames that are painted, and the
time from each movement until a frame that shows it, or a later one, is painted.

python scripts/measure_studio.py http://127.0.0.1:7860
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from ohlora.utils.commands import command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where scripts is found if this is run as a file
from scripts.chromium import launched

SOFTWARE = ["--no-sandbox", "--disable-gpu"]
"""Options of Chromium by which everything is computed by the CPU."""
DRAGGED = """async (seconds) => {
  const element = document.querySelector("ohlora-steer"), input = document.querySelector("#steer-0");
  const late = [], moved = [];
  let frames = 0;
  const painted = ({detail}) => {
    frames++;
    while (moved.length && moved[0].number <= detail) late.push(performance.now() - moved.shift().at);
  };
  element.addEventListener("painted", painted);
  const began = performance.now();
  for (let k = 0; performance.now() - began < 1000 * seconds; k++) {
    const share = .5 + .5 * Math.sin(k / 20);
    input.value = Number(input.min) + share * (Number(input.max) - Number(input.min));
    const before = element.sent;
    input.dispatchEvent(new Event("input", {bubbles: true}));
    // A movement that waits for two frames under way is shown by the one that is asked for next.
    moved.push({number: element.sent === before ? before + 1 : element.sent, at: performance.now()});
    await new Promise((done) => setTimeout(done, 1000 / 60));
  }
  const rate = 1000 * frames / (performance.now() - began);
  await new Promise((done) => setTimeout(done, 1000));
  element.removeEventListener("painted", painted);
  return [rate, late];
}"""


def measure(address: str, character: str, seconds: float) -> dict[str, float]:
    """Drags a slider of a studio.

    Args:
        address: Of the studio.
        character: The character to steer, as the studio names it; empty for the first.
        seconds: How long.

    Raises:
        MissingArtifactError: If there is no Chromium.
    """
    with launched(SOFTWARE) as browser:
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(f"{address}#character={character}" if character else address)
        page.get_by_role("tab", name="Steer").click()
        page.locator("#steer-status", has_text="the server took").wait_for()
        page.evaluate(DRAGGED, 1)  # warms up
        rate, late = page.evaluate(DRAGGED, seconds)
        size = page.evaluate("document.querySelector('#steer-picture').height")
    milliseconds = np.array(late)
    return {
        "resolution": size,
        "frames_per_second": rate,
        "milliseconds_median": float(np.median(milliseconds)),
        "milliseconds_95": float(np.percentile(milliseconds, 95)),
        "share_within_80": float((milliseconds <= 80).mean()),
    }


@command("measure_studio")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Measures the tab Steer of a running studio; the last line is JSON.")
    parser.add_argument("address", help="of the studio, as http://127.0.0.1:7860")
    parser.add_argument("--character", default="", help="as the studio names it (default: the first)")
    parser.add_argument("--seconds", type=float, default=10, help="how long a slider is dragged (default: 10)")
    given = parser.parse_args(args)
    metrics = measure(given.address, given.character, given.seconds)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in metrics.items()}))


if __name__ == "__main__":
    sys.exit(main())

"""Characters as web pages: what is in the file, and what it draws in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from ohlora.__main__ import main as ohlora
from ohlora.attributes import Motion
from ohlora.characters import page as pages
from ohlora.characters.character import Character
from ohlora.directions.edits import Steps
from ohlora.networks.codes import Codes, Space
from scripts import measure_page
from scripts.chromium import launched
from tests.browsers import MISSING
from tests.conftest import tiny_networks

NAMES = ("eyes", "mouth", "pose", "smile", "hair")
RANGES = {"eyes": (-1.0, 1.0), "mouth": (-0.5, 1.5), "pose": (-2.0, 2.0), "smile": (0.5, 1.0), "hair": (-1.0, 1.0)}
MOTIONS = {"eyes": Motion(drift=0.03, blinks=True), "mouth": Motion(speaks=0.8), "pose": Motion(0.04, 0.08)}
browsing = pytest.mark.skipif(MISSING, reason="no chromium here; .ci/run installs it")


@pytest.fixture(scope="module")
def mina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A character of five sliders; its head moves most, and it never stops smiling."""
    folder = tmp_path_factory.mktemp("page")
    torch.manual_seed(1)
    code, steps = torch.randn(1, 8), 0.3 * torch.randn(1, 5, 8)
    meanings = {"eyes": "eyes </script> & wider"}
    made = Steps(Codes(steps, Space.W))
    told = {"subject": "a drawing", "unit": "data"}
    character = Character(tiny_networks()[0], Codes(code, Space.W), NAMES, made, RANGES, told, meanings, MOTIONS)
    character.save(folder / "mina.safetensors")
    return folder / "mina.safetensors"


@pytest.fixture(scope="module")
def made(mina: Path) -> Path:
    """Its page."""
    assert ohlora(["export-character", "saved", str(mina), str(mina.with_name("mina.html"))]) == 0
    return mina.with_name("mina.html")


@pytest.fixture(scope="module")
def opened(made: Path) -> Iterator[Page]:
    """The page in a browser, which is not on the network."""
    with launched(measure_page.SOFTWARE) as browser:
        yield shown(browser, made)


def shown(browser: Browser, path: Path) -> Page:
    page: Page = browser.new_page(viewport={"width": 360, "height": 740})
    page.context.set_offline(True)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(path.as_uri())
    page.evaluate("ready.then(() => { moving.checked = false; })")
    return page


asked: list[str] = []
"""Every address that a page requested."""
faults: list[str] = []
"""Every error of a script."""


def test_the_grid_is_finest_where_the_image_changes_most(mina: Path) -> None:
    grid = pages.Grid.of(Character.load(mina))
    counts = {name: len(nodes) for name, nodes in grid.nodes.items()}
    assert list(counts) == ["eyes", "mouth", "pose", "smile"] and grid.left_out == ("hair",)
    assert counts["pose"] == max(counts.values()) >= pages.LIVELIEST and counts["smile"] == pages.LEAST
    assert 0.7 * pages.IMAGES < np.prod([*counts.values()]) <= pages.IMAGES
    assert (grid.nodes["mouth"][0], grid.nodes["mouth"][-1]) == RANGES["mouth"]
    one = pages.Grid.of(Character.load(mina), ["smile"])
    assert len(one.nodes["smile"]) == pages.MOST and one.left_out == ("eyes", "mouth", "pose", "hair")


def test_a_page_is_one_file_that_says_what_it_leaves_out(
    made: Path, mina: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = made.read_text(encoding="utf-8")
    assert "Not on this page: hair." in text and "A drawing. A strength of 1 is one z-score" in text
    assert not re.search(r"https?://|src=|href=\"(?!data:)|@import|url\(|\{\{", text)
    assert len(re.findall("</script>", text)) == 2 and len(text.encode()) <= 4_000_000
    path = tmp_path / "two.HTML"
    assert ohlora(["export-character", "saved", str(mina), str(path), "--sliders", "hair", "pose"]) == 0
    said = capsys.readouterr().out
    assert "625 images of 16×16, positions: hair 25, pose 25; left out: eyes, mouth, smile\n" in said
    assert "<kbd>1</kbd> … <kbd>2</kbd>" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mina.safetensors", "--sliders", "eyes"], "--sliders is for a page, and mina.safetensors is none"),
        (["mina.html", "--sliders", *NAMES], "expected one to 4 attributes, each once"),
        (["mina.html", "--sliders", "eyes", "eyes"], "--sliders is eyes eyes; expected one to 4 attributes"),
        (["mina.html", "--sliders", "nose"], "--sliders names nose; the character has eyes, mouth, pose, smile, hair"),
    ],
)
def test_sliders_that_are_refused(
    words: list[str],
    said: str,
    mina: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ohlora(["export-character", "saved", str(mina), *words]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@browsing
def test_a_page_shows_the_character(mina: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_page.main([str(mina), str(made), "--count", "30", "--seconds", "1"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics["psnr_median"] >= 30 and metrics["psnr_worst"] >= 24
    assert metrics["images_per_second"] > 1 and metrics["megabytes"] <= 4


@browsing
def test_a_page_moves_as_the_character_does(mina: Path, opened: Page) -> None:
    times = np.concatenate([np.arange(0, 30, 0.05), [1e5 + 0.3]])
    strengths = [0.5, 5.0, -1.9, 0.6]
    found = opened.evaluate("([times, set]) => times.map((time) => idle(time, set))", [times.tolist(), strengths])
    expected = Character.load(mina).idle(times, [*strengths, 0.0])[:, :4]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert expected[:, 0].min() == -1  # it blinks


@browsing
def test_a_page_is_used_by_keyboard_and_on_a_phone(opened: Page) -> None:
    page = opened
    values = "rows.map(({input}) => input.valueAsNumber)"
    assert page.evaluate(values) == [0, 0, 0, 0.5]
    page.keyboard.press("3")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageUp")
    page.wait_for_function(f"{values}[2] > .4")
    assert page.evaluate(values) == pytest.approx([0, 0, 0.44, 0.5])
    pose = page.get_by_role("slider", name="pose")
    assert pose.get_attribute("aria-valuetext") == "+0.44"
    page.get_by_role("slider", name="eyes").press("End")
    page.wait_for_function(f"{values}[0] === 1")
    page.keyboard.press("0")
    page.wait_for_function(f"{values}[0] === 0 && {values}[2] === 0")
    page.keyboard.press("i")
    page.wait_for_function(f"{values}[2] !== 0")
    assert page.get_by_label("Idle motion").is_checked()
    page.keyboard.press("i")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width, height in ((320, 640), (820, 1180), (1920, 1080)):
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
            page.wait_for_function("canvas.clientWidth % data.width === 0 && canvas.clientWidth > 200")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)"
    assert not faults and all(url.startswith(("file:", "data:")) for url in asked)

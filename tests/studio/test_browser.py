"""The studio in a browser: keys, pixels, a server that is killed, passwords, and paths outside the artifacts."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from ohlora.__main__ import main as ohlora
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.utils import images
from ohlora.utils.files import read_rows, shipped, write_rows
from scripts.chromium import launched
from tests.browsers import MISSING
from tests.films import decoded, opacity
from tests.toy_tables import report_of_latents

if MISSING:
    pytest.skip("no chromium here; .ci/run installs it", allow_module_level=True)


class Server:
    """``ohlora studio`` in a process of its own."""

    def __init__(self, root: Path, *words: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.root, self.words = root, words
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "ohlora", "studio", "--no-browser", "--port", str(self.port), *self.words]
        environment = os.environ | {"OHLORA_ARTIFACTS": str(self.root), "OMP_NUM_THREADS": "1"}
        self.log = (self.root / "server.log").open("w")
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        for _ in range(3000):
            try:
                urllib.request.urlopen(self.address, timeout=5)
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, (self.root / "server.log").read_text()
                time.sleep(0.1)
        raise AssertionError("the server did not answer within five minutes")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def artifacts(tmp_path: Path, weights: tuple[Path, Path]) -> Path:
    """Tiny artifacts in the folders of the toy world."""
    toy = tmp_path / "artifacts" / "toy"
    for k in range(12):
        images.save_png(np.full((16, 16, 3), 20 * k, np.uint8), toy / "generate_v1" / "images" / f"{k:06d}.png")
    (toy / "finetune_v8").mkdir()
    generator = toy / "finetune_v8" / "generator.safetensors"
    shutil.copy(weights[0], generator)
    report = Report.load(report_of_latents(toy / "evaluate_v9", generator), generator)
    report.character(0).save(toy / "characters" / "mina.safetensors")
    return tmp_path / "artifacts"


@pytest.fixture
def serve(artifacts: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*words: str) -> Server:
        servers.append(Server(artifacts, *words))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found
    hosts = {urllib.parse.urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts <= {"127.0.0.1"}, "the studio works without internet"


def opened(browser: Browser, at: Server | str, tab: str = "") -> Page:
    page: Page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("request", lambda request: asked.append(request.url))
    page.goto(at if isinstance(at, str) else at.address)
    if tab:
        page.get_by_role("tab", name=tab).click()
    return page


asked: list[str] = []
"""Every address that a page requested."""


def wait_for(page: Page, element: str, text: str) -> None:
    expect(page.locator(f"#{element}")).to_contain_text(text, timeout=20_000)


def choose(page: Page, label: str, option: str) -> None:
    """Chooses from a list, and opens it again where an answer of the server has closed it meanwhile."""
    for _ in range(3):
        page.get_by_label(label).click()
        try:
            page.get_by_role("option", name=option).click(timeout=5000)
        except PlaywrightTimeoutError:
            continue
        return
    raise AssertionError(f"{option} cannot be chosen from {label}")


def saved(table: Path, row: int, name: str, label: str) -> None:
    """Waits until a label is in the table."""
    ends = time.monotonic() + 20
    while read_rows(table)[row][name] != label:
        assert time.monotonic() < ends, f"{table.name} has no {name} of {label} in row {row}"
        time.sleep(0.05)


def checked(page: Page, question: str) -> str:
    """The answer that is marked, by its text."""
    return " ".join(page.locator(f"#label-{question} label:has(input:checked)").all_inner_texts())


def test_ten_annotations_survive_the_server(browser: Browser, serve: Callable[..., Server], artifacts: Path) -> None:
    server = serve()
    page = opened(browser, server, "Label")
    wait_for(page, "label-status", "000000.png")
    wait_for(page, "label-gender", "gender: more female")
    wait_for(page, "label-gender", "Enter accepts: yes")
    for k in range(10):
        if k % 3 == 0:
            page.keyboard.press("2")  # no
            wait_for(page, "label-status", "labelled in part")
            assert checked(page, "gender") == "no [2]" and checked(page, "glass") == ""
        page.keyboard.press("Enter")
        wait_for(page, "label-status", f"{k + 1} of 12 labelled")
    table = artifacts / "toy" / "labels" / "labels_2k.csv"
    written = read_rows(table)
    assert len(written) == 10 and [row["gender"] for row in written] == list("0110110110")
    server.kill()
    assert read_rows(table) == written
    server.start()
    page = opened(browser, server, "Label")
    wait_for(page, "label-status", "10 of 12 labelled")
    wait_for(page, "label-status", "000010.png")
    page.keyboard.press("u")
    wait_for(page, "label-message", "nothing to undo in this tab")
    page.keyboard.press("ArrowLeft")
    wait_for(page, "label-status", "000009.png")
    assert checked(page, "gender") == "no [2]"
    page.keyboard.press("7")  # glass: yes
    expect(page.locator("#label-glass label:has(input:checked)")).to_have_text("yes [7]")
    saved(table, 9, "glass", "1")  # the page marks an answer before the server has it
    page.keyboard.press("u")
    expect(page.locator("#label-glass label:has(input:checked)")).to_have_text("no [8]")
    page.keyboard.press("j")
    wait_for(page, "label-status", "000010.png")
    assert read_rows(table) == written

    # A second tab writes the table; the first one notices, may not overwrite it, and can continue after reloading.
    second = opened(browser, server, "Label")
    wait_for(second, "label-status", "10 of 12 labelled")
    second.keyboard.press("Enter")
    wait_for(second, "label-status", "11 of 12 labelled")
    wait_for(page, "label-message", "labels_2k.csv was changed by another tab or program")
    page.keyboard.press("Enter")
    wait_for(page, "label-message", "this answer was not saved")
    assert len(read_rows(table)) == 11
    page.locator("#label-reload").click()
    wait_for(page, "label-status", "11 of 12 labelled")


def test_scores_blind_answers_and_annotators(browser: Browser, serve: Callable[..., Server], artifacts: Path) -> None:
    table = artifacts / "toy" / "labels" / "labels_2k.csv"
    path = "../generate_v1/images/000000.png"
    write_rows(table, [{"path": path, "gender": 1, "pose": -2.5}, {"path": path.replace("0.p", "1.p"), "pose": 1.5}])
    page = opened(browser, serve("--attributes", "gender", "pose"), "Label")
    wait_for(page, "label-status", "000001.png")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#label-pose input[type=range]")).to_have_value("-2.5")
    assert checked(page, "gender") == "yes [1]"
    page.get_by_label("Blind").check()
    expect(page.locator("#label-gender label:has(input:checked)")).to_have_count(0)
    wait_for(page, "label-pose", "−2.5 … 1.5 · not answered yet".replace("−", "-"))
    before = table.read_bytes()
    page.locator("h1").first.click()
    page.keyboard.press("Enter")
    wait_for(page, "label-message", "not answered yet: gender, pose")
    assert table.read_bytes() == before

    # Who labels is asked once: the browser remembers it.
    page.get_by_label("Who labels?").fill("kim")
    page.get_by_label("Who labels?").press("Enter")
    wait_for(page, "label-status", "labelled by kim in this tab")
    page.locator("h1").first.click()
    page.wait_for_timeout(2000)  # to leave the field sends the name again, and the answers are drawn anew
    page.keyboard.press("2")
    wait_for(page, "label-status", "labelled in part")
    page.locator("#label-pose input[type=range]").press("ArrowRight")
    wait_for(page, "label-status", "· labelled ·")
    page.locator("h1").first.click()
    page.keyboard.press("Enter")
    wait_for(page, "label-status", "000001.png")
    assert [(row["annotator"], row["gender"], row["pose"]) for row in read_rows(table)] == [
        ("", "1", "-2.5"),
        ("kim", "0", "-0.46"),
        ("", "", "1.5"),
    ]
    page.reload()
    page.get_by_role("tab", name="Label").click()
    expect(page.get_by_label("Who labels?")).to_have_value("kim", timeout=20_000)
    wait_for(page, "label-status", "1 of 12 labelled by kim")

    # Any attribute of the world can be asked for.
    choose(page, "Attributes to label", "age")
    wait_for(page, "label-age", "age: older")
    for name in ("label-gender", "label-pose", "label-age"):
        assert page.locator(f"#{name}").is_visible()


def test_two_images_are_compared(browser: Browser, serve: Callable[..., Server], artifacts: Path) -> None:
    server, labels = serve(), artifacts / "toy" / "labels"
    page = opened(browser, server, "Label")
    wait_for(page, "label-status", "000000.png")
    choose(page, "How to label", "Compare two images: pose")
    wait_for(page, "compare-question", "Which is more: head turned to the image's right?")
    expect(page.locator("#label-status")).to_be_hidden()

    def shown() -> list[int]:
        """The levels of grey of the two images."""
        found: list[int] = page.locator("#compare-pair img").evaluate_all(
            """(images) => Promise.all(images.map(async (image) => {
              await image.decode();
              const canvas = document.createElement("canvas").getContext("2d");
              canvas.drawImage(image, 0, 0);
              return canvas.getImageData(0, 0, 1, 1).data[0];
            }))"""
        )
        return found

    table = labels / "labels_2k_comparisons.csv"
    for k in range(20):
        left, right = shown()
        page.keyboard.press("3" if k == 4 else "1" if left > right else "2")
        wait_for(page, "compare-status", f"{k + 1} comparisons ·")
        row = read_rows(table)[-1]
        assert len(read_rows(table)) == k + 1
        assert [int(Path(row[side]).stem) * 20 for side in ("path_a", "path_b")] == [left, right]
        assert row["answer"] == ("equal" if k == 4 else "a" if left > right else "b")
    wait_for(page, "compare-status", "12 of 12 images compared")
    before = shown()
    page.keyboard.press("1")
    wait_for(page, "compare-status", "21 comparisons")
    page.keyboard.press("u")
    wait_for(page, "compare-status", "20 comparisons")
    assert shown() == before and len(read_rows(table)) == 20

    # It goes on where it stopped, after the server was killed.
    server.kill()
    server.start()
    page = opened(browser, server, "Label")
    wait_for(page, "label-status", "000000.png")
    choose(page, "How to label", "Compare two images: pose")
    wait_for(page, "compare-status", "20 comparisons · 12 of 12 images compared")
    assert shown() == before
    page.keyboard.press("u")
    wait_for(page, "compare-message", "nothing to undo in this tab")
    page.keyboard.press("m")
    wait_for(page, "compare-message", "Written into labels_2k.csv as z-scores")
    wait_for(page, "compare-message", "pose: 12 images by 20 comparisons")
    scores = {int(row["idx"]): float(row["pose"]) for row in read_rows(labels / "labels_2k.csv")}
    assert len(scores) == 12 and np.corrcoef([scores[k] for k in range(12)], range(12))[0, 1] > 0.9

    # The question of a single image knows the score; another tab's comparison is noticed.
    choose(page, "How to label", "Label an image at a time")
    wait_for(page, "label-status", "000000.png")
    expect(page.locator("#compare-question")).to_be_hidden()
    choose(page, "How to label", "Compare two images: pose")
    wait_for(page, "compare-status", "20 comparisons")
    # The status has said so before; the message of before goes when the table has been read again.
    expect(page.locator("#compare-message")).not_to_contain_text("Written into", timeout=20_000)
    write_rows(table, read_rows(table)[:5])
    wait_for(page, "compare-message", "labels_2k_comparisons.csv was changed by another tab or program")
    page.keyboard.press("1")
    wait_for(page, "compare-message", "this answer was not saved")
    page.get_by_role("button", name="Reload the comparisons").click()
    wait_for(page, "compare-status", "5 comparisons")

    # Who compares is the same who labels.
    page.get_by_label("Who labels?").fill("kim")
    page.get_by_label("Who labels?").press("Enter")
    wait_for(page, "compare-status", "5 comparisons, 0 by kim")
    page.locator("h1").first.click()
    page.keyboard.press("1")
    wait_for(page, "compare-status", "6 comparisons, 1 by kim")
    assert read_rows(table)[-1]["annotator"] == "kim"
    for width in (390, 1024, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_function("document.documentElement.scrollWidth === innerWidth")
        first, second = (box.bounding_box() for box in page.locator("#compare-pair img").all())
        assert first is not None and second is not None and first["y"] == second["y"] and first["x"] < second["x"]


def test_what_is_chosen_is_exported(browser: Browser, serve: Callable[..., Server], artifacts: Path) -> None:
    server = serve()
    page = opened(browser, server, "Choose")
    wait_for(page, "choose-status", "case 11 · not chosen yet · 1 of 3 shown · 3 that passed · 0 of 19")
    page.keyboard.press("s")
    wait_for(page, "choose-status", "case 13 · not chosen yet · 2 of 3 shown")
    page.keyboard.press("r")
    wait_for(page, "choose-status", "case 10")
    page.keyboard.press("k")
    wait_for(page, "choose-status", "case 10 · keep · 3 of 3 shown · 3 that passed · 2 of 19")
    page.keyboard.press("u")
    wait_for(page, "choose-status", "case 10 · not chosen yet")
    page.keyboard.press("k")
    wait_for(page, "choose-status", "case 10 · keep")

    # A heading sorts the table and the gallery, and Next follows that order.
    cards = page.locator("#choose-gallery .card")
    lines = page.locator("#choose-body tr")

    def shown() -> list[str]:
        order = cards.evaluate_all("(cards) => cards.map((card) => card.dataset.case)")
        assert order == lines.evaluate_all("(lines) => lines.map((line) => line.dataset.case)")
        return [str(number) for number in order]

    assert shown() == ["11", "13", "10"]
    heading = page.get_by_role("columnheader", name="eyes leakage")
    heading.get_by_role("button").click()
    assert shown() == ["11", "10", "13"] and heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").click()
    assert shown() == ["13", "10", "11"] and heading.get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="Show case 13").click()
    wait_for(page, "choose-status", "case 13 · reject · 1 of 3 shown")
    page.keyboard.press("ArrowRight")
    wait_for(page, "choose-status", "case 10 · keep · 2 of 3 shown")

    # Filters, by choice and by any figure.
    page.locator("#choose-show").select_option("reject")
    assert shown() == ["13"]
    page.locator("#choose-show").select_option("")
    page.get_by_role("button", name="Add a filter").click()
    page.get_by_label("Figure to filter by").select_option("mouth_corr")
    page.get_by_label("Limit").fill("0.95")
    assert shown() == ["11"]
    page.get_by_label("Comparison").select_option("at most")
    assert shown() == ["13", "10"]
    page.get_by_role("button", name="Remove").click()

    # A film plays under the pointer.
    card = page.locator(".card[data-case='11']")
    face = "(card) => card.querySelector('canvas').toDataURL()"
    before = card.evaluate(face)
    card.locator(".face").hover()
    page.wait_for_function("document.querySelector(\".card[data-case='11']\").dataset.frame > 1")
    assert card.evaluate(face) != before
    page.mouse.move(0, 0)
    page.wait_for_function(
        "(was) => document.querySelector(\".card[data-case='11'] canvas\").toDataURL() === was", arg=before
    )

    # Several at once, and back.
    page.keyboard.press("a")
    wait_for(page, "choose-status", "3 selected")
    page.get_by_label("case 11", exact=True).uncheck()
    page.locator("h1").first.click()
    page.keyboard.press("r")
    wait_for(page, "choose-status", "1 of 19 wanted")
    page.keyboard.press("u")
    wait_for(page, "choose-status", "2 of 19 wanted")

    page.get_by_role("button", name="Export").click()
    wait_for(page, "choose-message", "2 characters for the tab Steer are in")
    toy = artifacts / "toy"
    assert sorted(path.name for path in (toy / "characters").iterdir()) == [
        "0010.safetensors",
        "0011.safetensors",
        "mina.safetensors",
    ]
    words = ["--generator", str(toy / "finetune_v8" / "generator.safetensors")]
    assert ohlora(["export-character", "chosen", str(toy / "evaluate_v9"), str(toy / "chosen"), *words]) == 0
    for name in ("0010.safetensors", "0011.safetensors"):
        assert (toy / "chosen" / name).read_bytes() == (toy / "characters" / name).read_bytes()

    # A list that is changed on disk is noticed, and not overwritten.
    write_rows(toy / "evaluate_v9" / "choices.csv", read_rows(toy / "evaluate_v9" / "choices.csv")[:1])
    wait_for(page, "choose-message", "choices.csv was changed by another tab or program. Reload the list")
    page.keyboard.press("s")
    wait_for(page, "choose-message", "this answer was not saved")
    page.get_by_role("button", name="Reload the list").click()
    wait_for(page, "choose-status", "1 of 19 wanted")
    for width in (390, 1024, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_function("document.documentElement.scrollWidth === innerWidth")


PIXELS = """() => {
  const canvas = document.querySelector("#steer-picture");
  return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
}"""


def values(page: Page) -> list[float]:
    ranges = page.locator("#steer-sliders [type=range]")
    found: list[float] = ranges.evaluate_all("(inputs) => inputs.map((input) => input.valueAsNumber)")
    return found


def test_a_slider_moves_the_face(browser: Browser, serve: Callable[..., Server], artifacts: Path) -> None:
    page = opened(browser, serve(), "Steer")
    wait_for(page, "steer-status", "mouth +0.00")
    before = page.evaluate(PIXELS)
    character = Character.load(artifacts / "toy" / "characters" / "mina.safetensors")
    assert np.array_equal(np.reshape(before, (16, 16, 4))[..., :3], np.asarray(character.render()))
    page.locator("#steer-1").press("ArrowRight")
    page.locator("#steer-1").press("PageUp")
    wait_for(page, "steer-status", "mouth +0.66")
    moved = page.evaluate(PIXELS)
    assert np.array_equal(np.reshape(moved, (16, 16, 4))[..., :3], np.asarray(character.render(mouth=0.66)))
    typed = page.get_by_label("mouth, typed")
    typed.fill("99")
    typed.press("Enter")
    wait_for(page, "steer-message", "mouth: 99 is clamped to 3; tested is -3 … 3")
    wait_for(page, "steer-status", "mouth +3.00")
    page.locator("h1").first.click()
    page.keyboard.press("u")
    wait_for(page, "steer-status", "mouth +0.66")
    assert page.evaluate(PIXELS) == moved

    # The address, a preset and a saved picture bring the settings back.
    again = opened(browser, page.url)
    wait_for(again, "steer-status", "mouth +0.66")
    again.close()
    page.get_by_label("Name of a preset").fill("aside")
    page.get_by_role("button", name="Keep").click()
    page.locator("h1").first.click()
    page.keyboard.press("p")
    wait_for(page, "steer-message", "png-0001.png")
    page.keyboard.press("0")
    wait_for(page, "steer-status", "mouth +0.00")
    assert page.evaluate(PIXELS) == before
    page.get_by_role("button", name="aside", exact=True).click()
    wait_for(page, "steer-status", "mouth +0.66")
    page.keyboard.press("0")
    wait_for(page, "steer-status", "mouth +0.00")
    saved = artifacts / "toy" / "studio" / "png-0001.png"
    page.evaluate(DROP, base64.b64encode(saved.read_bytes()).decode())
    wait_for(page, "steer-status", "mouth +0.66")
    page.keyboard.press("h")
    wait_for(page, "steer-message", "sheet-0001.png")

    # Another character follows the same sliders; moves are recorded of both.
    shutil.copy(
        artifacts / "toy" / "characters" / "mina.safetensors", artifacts / "toy" / "characters" / "lee.safetensors"
    )
    page.get_by_text("Other characters side by side").click()
    page.get_by_role("checkbox", name="characters/lee.safetensors").check()
    expect(page.locator("#steer-stage figcaption")).to_have_text(["mina", "lee"])
    both = "(id) => document.querySelector(id).toDataURL()"
    page.wait_for_function(f"({both})('#steer-picture') === ({both})('#steer-picture-1')")
    page.locator("#steer-form").select_option("webm")
    record(page, "#steer-1", "PageDown", "mouth +0.06")
    film = decoded(artifacts / "toy" / "studio" / "film-0001.webm").frames
    assert film.shape[1:] == (256, 512, 3) and np.abs(film[0].astype(int) - film[-1]).mean() > 1
    page.get_by_role("checkbox", name="characters/lee.safetensors").uncheck()
    expect(page.locator("#steer-stage figure")).to_have_count(1)
    page.keyboard.press("u")
    wait_for(page, "steer-status", "mouth +0.66")

    # At rest, the handles move on from the sliders.
    page.get_by_label("Idle motion").check()
    expect(page.locator("#steer-status")).not_to_contain_text("mouth +0.66", timeout=20_000)
    first = values(page)
    page.wait_for_timeout(700)
    assert values(page) != first
    page.get_by_label("Idle motion").uncheck()
    wait_for(page, "steer-status", "mouth +0.66")

    # On every screen the picture is a whole multiple of its pixels, and nothing is wider than the page.
    for width, height, least in ((360, 740, 256), (1280, 900, 560), (1920, 1080, 768)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("document.documentElement.scrollWidth === innerWidth")
        page.wait_for_function(
            "(least) => { const wide = document.querySelector('#steer-picture').clientWidth;"
            " return wide >= least && wide % 16 === 0; }",
            arg=least,
        )


def record(page: Page, slider: str, key: str, then: str) -> None:
    """Records a press of a key on a slider, after which the status says ``then``, as the first film."""
    page.locator("h1").first.click()
    page.keyboard.press("v")
    wait_for(page, "steer-message", "Recording")
    page.locator(slider).press(key)
    wait_for(page, "steer-status", then)
    page.wait_for_timeout(200)  # a film takes 0.1 s at least
    page.locator("h1").first.click()
    page.keyboard.press("v")
    wait_for(page, "steer-message", "film-0001.webm")


def test_the_background_is_transparent(
    browser: Browser, serve: Callable[..., Server], artifacts: Path, drawn_mina: Path
) -> None:
    toy = artifacts / "toy"
    shutil.copy(drawn_mina, toy / "characters" / "mina.safetensors")
    server = serve()
    page = opened(browser, server, "Steer")
    wait_for(page, "steer-status", "mouth +0.00")
    wait_for(page, "steer-uncut", "A transparent background is not offered: the background is found by a face parser")
    wait_for(page, "steer-uncut", "python -m ohlora fit face_parser --world toy")
    expect(page.get_by_label("Background transparent")).to_be_hidden()

    (toy / "face_parser").mkdir()
    shutil.copy(shipped("weights/toy/parser.safetensors"), toy / "face_parser" / "parser.safetensors")
    page.reload()
    page.get_by_role("tab", name="Steer").click()
    wait_for(page, "steer-status", "mouth +0.00")
    expect(page.locator("#steer-uncut")).to_be_hidden()
    page.get_by_label("Background transparent").check()
    wait_for(page, "steer-message", "An MP4 cannot be transparent: recordings are WebM now")
    expect(page.locator("#steer-form")).to_have_value("webm")
    expect(page.locator("#steer-form option").first).to_be_disabled()
    page.wait_for_function(f"({PIXELS})()[3] === 0")
    seen = np.reshape(page.evaluate(PIXELS), (64, 64, 4))
    assert seen[0, -1, 3] == 0 and (seen[24:40, 24:40, 3] == 255).all()
    record(page, "#steer-0", "PageUp", "mouth +0.20")
    alpha = opacity(toy / "studio" / "film-0001.webm")
    assert alpha[:, :16, :16].max() < 5 and alpha[:, 96:160, 96:160].min() > 250
    page.keyboard.press("g")
    wait_for(page, "steer-message", ".gif has no transparency with soft edges; choose .webp or .webm")
    page.get_by_label("Background transparent").uncheck()
    page.wait_for_function(f"({PIXELS})()[3] === 255")
    expect(page.locator("#steer-form option").first).to_be_enabled()


DROP = """(coded) => {
  const bytes = Uint8Array.from(atob(coded), (sign) => sign.charCodeAt(0)), files = new DataTransfer();
  files.items.add(new File([bytes], "saved.png"));
  document.querySelector("ohlora-steer").dispatchEvent(new DragEvent("drop", {dataTransfer: files}));
}"""


def test_a_password_is_asked_for(browser: Browser, serve: Callable[..., Server]) -> None:
    server = serve("--password", "secret")
    page: Page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.address)
    for word, inside in (("wrong", False), ("secret", True)):
        page.get_by_label("username").fill("ohlora")
        page.get_by_label("password").fill(word)
        page.get_by_role("button", name="Login").click()
        if inside:
            expect(page.get_by_role("tab", name="Steer")).to_be_visible(timeout=20_000)
        else:
            page.wait_for_timeout(1500)
            assert not page.get_by_role("tab", name="Steer").is_visible()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.address}/config")


def test_nothing_outside_the_artifacts_is_served(
    browser: Browser, serve: Callable[..., Server], artifacts: Path, tmp_path: Path
) -> None:
    server = serve()
    secret = tmp_path / "secret.png"
    images.save_png(np.zeros((4, 4, 3), np.uint8), secret)
    for path in (secret, Path("/etc/passwd"), Path("pyproject.toml").absolute()):
        for route in ("gradio_api/file=", "file="):
            with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
                urllib.request.urlopen(f"{server.address}/{route}{path}")
    # A table inside that names an image outside is refused.
    table = artifacts / "toy" / "labels" / "labels_2k.csv"
    names = {"gender": 1, "quality": 1, "age": 0, "glass": 0}
    write_rows(table, [{"path": "../../../secret.png", **names}])
    page = opened(browser, server, "Label")
    wait_for(page, "label-empty", "there is no image ../../../secret.png among those to label")


def test_a_tab_without_artifacts_says_what_makes_them(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        page = opened(browser, server, "Label")
        wait_for(page, "label-empty", "python -m ohlora predict generate_original --world toy")
        page = opened(browser, server, "Choose")
        wait_for(page, "choose-empty", "python -m ohlora test evaluate_v9 --world toy")
        wait_for(page, "choose-empty", "ohlora studio --demo")
        page = opened(browser, server, "Steer")
        wait_for(page, "steer-empty", f"python -m ohlora export-character tested {tmp_path}/toy/touch_up best")
        for element in ("label", "choose", "steer"):
            page.get_by_role("tab", name=element.title()).click()
            wait_for(page, f"{element}-empty", "Or look at the demo")
    finally:
        server.kill()

"""`model.html` in a real browser: drawn, silent, opened by mouse and keyboard, filtered, printed."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, wait_for
from materials import HOSTILE, chain, dense, hostile, material, residual

from exporter.formats.report import page
from exporter.records import Material

pytestmark = pytest.mark.browser

READY = "document.documentElement?.dataset.ready === 'true'"
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "End": 35, " ": 32}
# The chosen or focused box is an element whose accessible name begins with the box's text.
BOX = "[...document.querySelectorAll('#picture [role=button]')].find((box) => box.ariaLabel.startsWith({name}))"
STATUS = "document.getElementById('graph-status').textContent"
ROWS = "[...document.querySelectorAll('#layers-app [role=row] [col-id=Layer]')].map((cell) => cell.textContent.trim())"


class Page:
    """A report in the browser, and what one can do there."""

    def __init__(self, browser: Browser, path: Path) -> None:
        self.browser, self.url = browser, path.as_uri()
        browser.events.clear()
        browser.open(self.url)
        wait_for(lambda: browser.evaluate(READY), lambda: f"the page is ready: {self.complaints()}")

    def do(self, script: str) -> Any:
        return self.browser.evaluate(script)

    def click(self, name: str) -> None:
        self.do(f"{BOX.format(name=json.dumps(name))}.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")

    def press(self, *keys: str) -> None:
        for key in keys:
            about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.browser._call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.browser._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def write(self, selector: str, text: str) -> None:
        self.do(f"document.querySelector({json.dumps(selector)}).focus()")
        self.browser._call("Input.insertText", text=text)

    def wait(self, script: str) -> Any:
        return wait_for(lambda: self.do(script), lambda: f"{script}; {self.complaints()}")

    def choose(self, selector: str, value: str) -> None:
        script = (
            f"(() => {{ const menu = document.querySelector({json.dumps(selector)}); menu.value = {json.dumps(value)};"
        )
        self.do(f"{script} menu.dispatchEvent(new Event('change')); }})()")

    def boxes(self) -> list[str]:
        found: list[str] = self.do(
            "[...document.querySelectorAll('#picture [role=button]')].map((box) => box.ariaLabel)"
        )
        return found

    def focused(self) -> str:
        return str(self.do("document.activeElement.ariaLabel ?? ''"))

    def media(self, **features: str) -> None:
        named = [
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items() if name != "media"
        ]
        self.browser._call("Emulation.setEmulatedMedia", media=features.get("media", ""), features=named)

    def complaints(self) -> list[str]:
        """Exceptions, console messages and what the page's policy had to block."""
        self.do("0")
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"])[:500] for event in self.browser.events if event["method"] in kinds]

    def requests(self) -> set[str]:
        self.do("0")
        asked = [event["params"] for event in self.browser.events if event["method"] == "Network.requestWillBeSent"]
        urls = {about["request"]["url"] for about in asked} - {self.url}
        return {url for url in urls if not url.startswith("data:")}

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that the browser tells a screen reader."""
        nodes = self.browser._call("Accessibility.getFullAXTree")["nodes"]
        told = [node for node in nodes if not node.get("ignored")]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in told]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


def shown(browser: Browser, folder: Path, name: str, made: Material) -> Page:
    (folder / name).mkdir(exist_ok=True)
    page.write(made, folder / name)
    return Page(browser, folder / name / "model.html")


@pytest.fixture
def report(browser: Browser, folder: Path) -> Page:
    return shown(browser, folder, "residual", material(residual(), stats=True))


def test_it_draws_without_a_word_and_without_the_network(report: Page) -> None:
    boxes = report.boxes()
    assert [name.split(",")[0] for name in boxes] == [
        "image",
        "stem",
        "block1 … block6",
        "unused",
        "inner · Functional",
        "head",
    ]
    assert "×6" in boxes[2]
    assert report.do("document.querySelectorAll('#picture .edge').length") == 5
    assert report.do("document.querySelectorAll('.chart svg').length") >= 3
    assert report.complaints() == []
    assert report.requests() == set()


def test_a_click_opens_a_block_and_another_closes_it(report: Page) -> None:
    report.click("block1")
    inside = [name.split(",")[0] for name in report.boxes()]
    assert "block1_conv" in inside
    assert "block1_add" in inside
    assert report.do(STATUS) == "block1 … block6 opened, 3 boxes"
    assert report.do(f"{BOX.format(name=json.dumps('block1 …'))}.ariaExpanded") == "true"
    stubs = report.do("[...document.querySelectorAll('#picture .stub')].map((stub) => stub.textContent.trim())")
    assert any("stem, the copy before" in stub for stub in stubs)
    report.click("block1 …")
    assert len(report.boxes()) == 6


def test_a_click_on_a_layer_tells_all_about_it(report: Page) -> None:
    report.click("stem")
    details = report.do("document.querySelector('.details').innerText")
    for text in ("Conv2D 3×3", "2,304", "filters=16", "block1_conv", "From", "kernel"):
        assert text in details
    assert report.do("document.querySelector('.details .histogram').ariaLabel").startswith("Histogram from ")


def test_search_finds_a_layer_inside_of_folded_blocks(report: Page) -> None:
    report.write("#search", "block4_o")
    report.wait("document.querySelectorAll('.autocomplete__option').length === 1")
    report.press("ArrowDown", "Enter")
    report.wait("document.querySelector('.details h3')?.textContent === 'block4_out'")
    assert report.do("document.querySelector('.copies select').value") == "3"
    assert any(name.startswith("block1_out") for name in report.boxes())


def test_a_path_is_marked(report: Page) -> None:
    press = "[...document.querySelectorAll('.actions button')].find((button) => button.textContent.startsWith({}))"
    report.click("stem")
    report.do(f"{press.format(json.dumps('Path'))}.click()")
    report.click("head")
    marked = [name.split(",")[0] for name in report.boxes() if name.endswith("on the marked path")]
    assert marked == ["stem", "block1 … block6", "inner · Functional", "head"]
    # Six blocks of four layers, stem, head, and the nested model with three layers inside.
    assert report.do(STATUS) == "30 layers from stem to head are marked"
    report.click("unused")
    report.do(f"{press.format(json.dumps('Downstream'))}.click()")
    assert report.do(STATUS) == "1 layer downstream of unused is marked"
    report.do("[...document.querySelectorAll('button')].find((button) => button.textContent === 'Clear path').click()")
    assert report.do("document.querySelectorAll('.marked').length") == 0


def test_the_table_sorts_and_filters(report: Page) -> None:
    sizes = {layer.namespace: layer.params for layer in residual().layers}

    # The table replaces its rows one after the other, in its own time.
    def rows() -> list[str]:
        return [name for name in report.do(ROWS) if name in sizes]

    wait_for(lambda: rows()[:3] == ["image", "stem", "block1_conv"], lambda: f"in their order: {rows()}")
    report.do("document.querySelector('#layers-app [col-id=Parameters] .ag-header-cell-label').click()")

    def are_sorted() -> bool:
        found = [sizes[name] for name in rows()]
        return found[:1] == [max(sizes.values())] and found == sorted(found, reverse=True)

    wait_for(are_sorted, lambda: f"sorted by parameters: {rows()}")
    report.write("#layers-app input[type=search]", "ReLU")
    report.wait("document.querySelector('#layers-app .status').textContent.startsWith('6 of 32 layers, 0 parameters')")
    filtered = {f"block{number}_relu" for number in range(1, 7)}
    wait_for(lambda: set(rows()) == filtered, lambda: f"filtered: {rows()}")


def test_a_hundred_thousand_rows_keep_few_elements(browser: Browser, folder: Path) -> None:
    report = shown(browser, folder, "long", material(chain(100_000, equal=False)))
    assert report.do("document.querySelector('#layers-app .status').textContent").startswith("100,000 of 100,000")
    assert report.do("document.querySelectorAll('#layers-app [role=row]').length") < 100
    report.do("document.querySelector('#layers-app .ag-grid-viewport').scrollTop = 1e9")
    report.wait(f"{ROWS}.includes('dense_99999')")
    assert report.do("document.querySelectorAll('#layers-app [role=row]').length") < 100
    assert len(report.boxes()) <= 40
    for _ in range(2):
        blocks = "[...document.querySelectorAll('#picture [aria-expanded=false]')]"
        report.do(f"{blocks}.at(-1).dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))")
    assert 40 < len(report.boxes()) <= 120
    assert report.do("document.querySelectorAll('*').length") < 12_000
    assert report.complaints() == []


def test_a_crowd_of_connections_becomes_labels(browser: Browser, folder: Path) -> None:
    """A thousand lines between forty boxes would keep the browser busy for minutes, and show nothing."""
    report = shown(browser, folder, "dense", material(dense(200)))
    blocks = report.boxes()
    report.click(blocks[-1])
    assert len(blocks) < len(report.boxes()) <= len(blocks) + 40
    assert 0 < report.do("document.querySelectorAll('#picture .edge').length") < 400
    stubs = report.do("[...document.querySelectorAll('#picture .stub title')].map((title) => title.textContent)")
    assert any("mix_0, mix_1" in stub for stub in stubs)
    assert report.complaints() == []


def test_the_keyboard_is_enough(report: Page) -> None:
    report.press("Tab")
    assert report.do("document.activeElement.textContent") == "Skip to the content"
    for _ in range(40):
        report.press("Tab")
        if report.focused().startswith("image"):
            break
    assert report.focused().startswith("image")
    report.press("ArrowDown", "ArrowDown")
    assert report.focused().startswith("block1 …")
    report.press("Enter")
    assert report.do(STATUS).endswith("opened, 3 boxes")
    report.press("ArrowDown")
    assert report.focused().startswith("block1_conv")
    report.press("Enter")
    assert report.do("document.querySelector('.details h3').textContent") == "block1_conv"
    report.press("Escape")
    assert report.focused().startswith("block1 …")
    assert len(report.boxes()) == 6
    report.press("End")
    assert report.focused().startswith("head")


def test_a_screen_reader_is_told_roles_and_names(report: Page) -> None:
    told = report.accessible()
    for role, name in (
        ("heading", "net"),
        ("navigation", "Sections"),
        ("main", ""),
        ("region", "Graph"),
        ("combobox", "Find a layer"),
        ("toolbar", "Graph"),
        ("button", "Smaller"),
        ("grid", "Layers"),
        ("grid", "Weights"),
        ("searchbox", "Filter layers"),
        ("columnheader", "Parameters"),
    ):
        assert (role, name) in told, [pair for pair in told if pair[0] == role]
    buttons = [name for role, name in told if role == "button"]
    assert any(name.startswith("stem, Conv2D 3×3, 8×8×16 float32 · 2.3 k params") for name in buttons)
    assert all(buttons)
    images = [name for role, name in told if role in ("img", "image")]
    assert any(name.startswith("Histogram from") for name in images)


def test_dark_mode_follows_the_system_and_the_switch(report: Page) -> None:
    def brightness() -> int:
        colour = report.do("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    report.media(prefers_color_scheme="dark")
    assert brightness() < 150
    report.media(prefers_color_scheme="light")
    assert brightness() > 700
    report.choose("#themes select", "dark")
    assert brightness() < 150
    report.media(media="print")
    assert brightness() > 700
    report.media()


def test_it_prints_all_rows(report: Page, tmp_path: Path) -> None:
    from pypdf import PdfReader

    answer = report.browser._call("Page.printToPDF", printBackground=True)
    path = tmp_path / "model.pdf"
    path.write_bytes(base64.b64decode(answer["data"]))
    text = "".join(page.extract_text() for page in PdfReader(path).pages)
    # Names may be broken into lines, and fonts have ligatures.
    text = "".join(unicodedata.normalize("NFKC", text).split())
    for layer in residual().layers:
        assert layer.namespace in text
    assert "Fullscreen" not in text
    assert "Permissionisherebygranted" not in text


def test_nothing_of_a_hostile_model_runs(browser: Browser, folder: Path) -> None:
    made = material(hostile(residual()), stats=False, source=HOSTILE, weights=HOSTILE)
    report = shown(browser, folder, "hostile", replace(made, job=replace(made.job, name=HOSTILE)))
    for state in ("aria-expanded=false", "aria-pressed"):
        report.do(
            f"document.querySelector('#picture [{state}]').dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
        )
    report.write("#search", "script")
    report.wait("document.querySelectorAll('.autocomplete__option').length > 5")
    report.press("ArrowDown", "Enter")
    report.wait("document.querySelector('.details') !== null")
    assert report.do("document.images.length") == 0
    assert report.do("document.title") == HOSTILE
    assert report.complaints() == []
    assert report.requests() == set()

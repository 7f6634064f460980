"""The viewer in a real browser: the graph is drawn, and nothing leaves the machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import websocket
from browser import Browser, wait_for
from onnx import TensorProto, helper, numpy_helper
from test_view_choice import ALL, export
from view_graphs import residual, transformer

from exporter.formats.view_model.facts import LayerFacts
from exporter.formats.view_model.model import view_model
from exporter.view.choice import choose, whole
from exporter.view.server import Viewer
from exporter.view.site import Shown
from exporter.view.targets import resolve

pytestmark = pytest.mark.browser

HOSTILE = 'a "b"#c?d%41<e>&f\'é.onnx'
# Netron has drawn when the body's class is `default` and the canvas has a size; before, it asks for consent.
DRAWN = """(() => {
    const [body, canvas] = [document.body, document.getElementById('canvas')];
    if (document.readyState !== 'complete') { return false; }
    const button = document.getElementById('message-button');
    if (body.classList.contains('notification') && button.innerText === 'Accept') { button.click(); }
    return body.className === 'default' && canvas.hasAttribute('height');
})()"""
# A click on the convolution opens its sidebar; there, on its kernel, the tensor with its values.
CLICK_NODE = """(() => {
    const titles = [...document.querySelectorAll('.node-item-type')];
    const node = titles.find((title) => title.textContent.includes('Conv'));
    return node.dispatchEvent(new MouseEvent('click', { bubbles: true }));
})()"""
CLICK_WEIGHT = """(() => {
    const button = document.querySelector('#sidebar [title="Show Tensor"]');
    return button !== null && button.dispatchEvent(new MouseEvent('click', { bubbles: true }));
})()"""
SIDEBAR = "document.getElementById('sidebar').innerText"


def tiny_model(path: Path, *, data_file: str | None = None) -> Path:
    """Conv → Relu with a kernel of 8×3×3×3; in a file of its own if asked for."""
    values = np.linspace(-1, 1, 216, dtype=np.float32).reshape(8, 3, 3, 3)
    kernel = numpy_helper.from_array(values, "kernel")
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], name="stem/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["scores"], name="stem/relu"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, 16, 16])
    model = helper.make_model(helper.make_graph(nodes, "tiny", [image], [scores], [kernel]))
    onnx.save(model, path, save_as_external_data=data_file is not None, location=data_file, size_threshold=0)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


def show(browser: Browser, url: str) -> str:
    """Open the page, accept what it asks, wait until it has drawn; the text of the graph."""

    browser.events.clear()
    browser.open(url)
    wait_for(
        lambda: browser.evaluate(DRAWN),
        lambda: f"the graph is drawn; the page says {browser.evaluate('document.body.innerText')!r}",
    )
    return str(browser.evaluate("document.getElementById('canvas').textContent"))


def policy_violations(browser: Browser) -> list[str]:
    entries = (event["params"]["entry"] for event in browser.events if event["method"] == "Log.entryAdded")
    return [entry["text"] for entry in entries if "Content Security Policy" in entry["text"]]


def test_the_graph_is_drawn_and_nothing_leaves_the_machine(browser: Browser, tmp_path: Path) -> None:
    with Viewer([whole(resolve(tiny_model(tmp_path / "model.onnx").parent))]) as viewer:
        text = show(browser, viewer.url)
        picture = tmp_path / "graph.png"
        browser.screenshot(picture)
    assert "Conv" in text
    assert "Relu" in text
    assert browser.evaluate("document.title") == "model.onnx"
    assert picture.stat().st_size > 5000
    assert browser.strangers() == set()
    # Netron tried its analytics, and the policy stopped it; nothing else was in the way of the page.
    stopped = policy_violations(browser)
    assert all("ipinfo.io" in text or "analytics.google.com" in text for text in stopped), stopped


@pytest.mark.parametrize("name", ["model.onnx", HOSTILE], ids=["plain", "hostile"])
def test_a_weight_in_a_file_of_its_own_is_read_when_clicked(browser: Browser, tmp_path: Path, name: str) -> None:
    with Viewer([whole(tiny_model(tmp_path / name, data_file=name + ".data"))]) as viewer:
        assert "Conv" in show(browser, viewer.url)
        assert browser.evaluate("document.title") == name
        browser.evaluate(CLICK_NODE)
        wait_for(lambda: browser.evaluate(CLICK_WEIGHT), "the sidebar of the node")
        # The metrics of the values: the standard deviation of the kernel.
        wait_for(lambda: "0.58002940" in browser.evaluate(SIDEBAR), lambda: browser.evaluate(SIDEBAR))
    assert browser.strangers() == set()


CLICK = """(() => {{
    const titles = [...document.querySelectorAll('.node-item-type')];
    const found = titles.find((title) => title.textContent.includes({text}));
    return found !== undefined && found.dispatchEvent(new MouseEvent('click', {{ bubbles: true }}));
}})()"""
PAGE = (
    "[...document.querySelectorAll('#toolbar-path .toolbar-path-name-button')].map((each) => each.textContent).at(-1)"
)
# Of Chromium's work: what a graph by its blocks may take; the measured times are in docs/viewing.md.
LIMIT_SECONDS = 20.0


def click(browser: Browser, text: str) -> None:
    wait_for(lambda: browser.evaluate(CLICK.format(text=json.dumps(text))), f"a box {text}")


def enter(browser: Browser, title: str) -> None:
    """Open the page of the first function with that title: the sign beside it."""
    browser.evaluate(
        f"""[...document.querySelectorAll('.node-item-type')].find((sign) => sign.textContent.includes('\u0192')
        && sign.parentElement.textContent.includes({json.dumps(title)}))
        .dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))"""
    )
    wait_for(lambda: browser.evaluate(PAGE) == title, lambda: f"{title}; the page is {browser.evaluate(PAGE)}")
    wait_for(lambda: browser.evaluate(DRAWN), f"the drawing of {title}")


def graph(browser: Browser) -> str:
    return str(browser.evaluate("document.getElementById('canvas').textContent"))


def test_blocks_can_be_entered_and_tell_about_their_layers(browser: Browser, tmp_path: Path) -> None:
    flat = transformer(400, scopes=True)
    facts = {f"encoder/layer_{at}/feed": LayerFacts("FeedForward", "?×64 float32", 8320, 4096) for at in range(400)}
    onnx.save(view_model(flat, facts), tmp_path / "model.view.onnx")
    with Viewer([choose(tmp_path / "model.view.onnx", tmp_path)]) as viewer:
        assert "encoder" in show(browser, viewer.url)
        enter(browser, "encoder")
        enter(browser, "layer_0…399 ×20")
        enter(browser, "layer_0…399")
        assert "LayerNormalization" in graph(browser)
        enter(browser, "attention")
        assert "↩ mask/mul:0" in graph(browser)
        assert "64×64" in graph(browser), "the shape of a weight"
        click(browser, "Softmax")
        wait_for(lambda: "400" in browser.evaluate(SIDEBAR), "the sidebar of a node")
        values = "[...document.querySelectorAll('#sidebar input, #sidebar .sidebar-item-value')]"
        wait_for(lambda: browser.evaluate(SIDEBAR), "the sidebar")
        sidebar = browser.evaluate(f"{values}.map((item) => item.value || item.innerText).join('\\n')")
        assert "layer_{0..399}/attention/Softmax" in sidebar
        assert "encoder/layer_{0..399}/attention" in sidebar
    assert browser.strangers() == set()


def test_statistics_of_the_tables_are_in_the_sidebar(browser: Browser, tmp_path: Path) -> None:
    folder = export(tmp_path / "small", residual(2), *ALL)
    with Viewer([choose(folder, tmp_path)]) as viewer:
        show(browser, viewer.url)
        wait_for(lambda: browser.evaluate("document.body.dataset.attached"), "the attachment")
        click(browser, "Add")
        names = "[...document.querySelectorAll('#sidebar [title]')].map((item) => item.title)"
        wait_for(lambda: {"macs", "flops"} <= set(browser.evaluate(names)), lambda: browser.evaluate(SIDEBAR))


@pytest.mark.slow
def test_large_graphs_are_drawn_at_once(tmp_path: Path) -> None:
    """Each in a browser of its own: the flat one may take it down. It is given up when it has shown enough."""
    for name, flat in (("chain", residual(4000)), ("masked", transformer(400))):
        onnx.save(flat, tmp_path / f"{name}.onnx")
        view = seconds_to_draw(choose(tmp_path / f"{name}.onnx", tmp_path), LIMIT_SECONDS)
        assert view < LIMIT_SECONDS
        whole_file = seconds_to_draw(choose(tmp_path / f"{name}.onnx", tmp_path, full=True), 4 * view)
        assert whole_file >= 4 * view, f"{name}: {view:.1f} s by its blocks, {whole_file:.1f} s flat"


def seconds_to_draw(shown: Shown, limit_seconds: float) -> float:
    """How long Chromium works on the drawing; the limit for what takes longer, or brings it down."""
    with Viewer([shown]) as viewer, Browser() as own:
        before = own.processor_seconds()
        own.open(viewer.url)

        def is_over() -> bool:
            return is_drawn(own) or own.processor_seconds() - before > limit_seconds

        try:
            wait_for(is_over, "the drawing")
        except (RuntimeError, ConnectionError, websocket.WebSocketException):
            return limit_seconds
        return min(own.processor_seconds() - before, limit_seconds)


def is_drawn(browser: Browser) -> bool:
    """Without waiting for a page that is busy."""
    try:
        return bool(browser.evaluate(DRAWN, patience_seconds=1))
    except websocket.WebSocketTimeoutException:
        return False

"""TensorBoard and Model Explorer in a real browser: what the exports hold is drawn."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from browser import Browser, wait_for
from test_boards import material
from test_pictures import GRAPHS

from exporter.formats import event_file, explorer_graph
from exporter.formats.board_nodes import LayerBoard
from exporter.formats.event_graph import EventNames
from exporter.formats.scopes import Scopes
from exporter.records import ModelGraph, TensorStatistics, Weight

pytestmark = pytest.mark.browser

RUNS = ("hostile", "looped", "residual", "siamese")

# Finds elements in the shadow trees of TensorBoard's pages, too.
FIND = """window.find = (selector) => {
    const found = [], walk = (root) => {
        found.push(...root.querySelectorAll(selector));
        root.querySelectorAll('*').forEach((element) => element.shadowRoot && walk(element.shadowRoot));
    };
    walk(document);
    return found;
}; true"""
# The nodes that are drawn, by their whole names; hidden pages keep theirs.
NODES = "find('g.node').filter((node) => node.getClientRects().length).map((node) => node.getAttribute('data-name'))"
EDGES = "find('path.edgeline').filter((edge) => edge.getClientRects().length).length"
CLICK_ITEM = """(() => {
    const found = find('paper-item').find((item) => item.textContent.trim() === %r);
    found && found.click();
    return found !== undefined;
})()"""
IS_CONCEPTUAL = "find('paper-radio-button').find((found) => found.getAttribute('name') === 'conceptual_graph').checked"
EXPAND = """find('g.node').find((node) => node.getAttribute('data-name') === %r).querySelector('.nodeshape')
    .dispatchEvent(new MouseEvent('dblclick', { bubbles: true }))"""
HISTOGRAMS = """find('vz-histogram-timeseries').filter((chart) => [...chart.shadowRoot.querySelectorAll('path')]
    .some((path) => (path.getAttribute('d') || '').length > 100)).length"""


@contextmanager
def server(arguments: Sequence[str], port: int) -> Iterator[str]:
    """The address of a server that has begun to answer; it ends with the block."""
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: process.poll() is not None or answers(url), f"{arguments[0]} answers")
        assert process.poll() is None, f"{arguments[0]} ended with {process.returncode}"
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=60):
            return True
    except (URLError, OSError):
        return False


def free_port() -> int:
    """One that nobody is given meanwhile: the system chooses from 32768 on, and Ray below 20000."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise OSError("a hundred ports are in use")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def tensorboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard with a run for each graph."""
    folder, port = tmp_path_factory.mktemp("runs"), free_port()
    for name in RUNS:
        (folder / name).mkdir()
        graph, statistics = with_weights(GRAPHS[name])
        event_file.write(material(graph, statistics=statistics), folder / name)
    arguments = ("tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port))
    with server(arguments, port) as url:
        yield url


def with_weights(graph: ModelGraph) -> tuple[ModelGraph, dict[str, TensorStatistics]]:
    """The graph with a kernel in each layer, and statistics of them."""
    names = [f"{layer.namespace}/kernel" for layer in graph.layers][:6]
    weights = tuple(Weight(name, name, (32,), "float32", 128, True) for name in names)
    edges, counts = tuple(float(edge) for edge in range(33)), tuple(range(1, 33))
    found = TensorStatistics(histogram_edges=edges, histogram_counts=counts, nans=0, infs=0, distinct=32)
    return ModelGraph(**vars(graph) | {"weights": weights}), dict.fromkeys(names, found)


def drawn(browser: Browser, wanted: set[str]) -> None:
    def are_there() -> bool:
        return wanted <= set(browser.evaluate(NODES))

    wait_for(are_there, lambda: f"{sorted(wanted)} are drawn, not {browser.evaluate(NODES)}")


def show_graph(browser: Browser, url: str, run: str) -> None:
    """Open the page anew and choose the run's op graph. A choice before the page's own would be overridden by it."""
    browser.open("about:blank")
    browser.open(f"{url}#graphs")
    wait_for(lambda: browser.evaluate(FIND) and browser.evaluate(NODES), "a first graph")
    assert browser.evaluate(CLICK_ITEM % run)


def test_tensorboard_draws_both_graphs(browser: Browser, tensorboard: str, tmp_path: Path) -> None:
    stages = {"conv1_conv", "conv2_block1", "conv4_block2..conv4_block23_x22", "predictions"}
    show_graph(browser, tensorboard, "residual")
    drawn(browser, stages)
    assert not browser.evaluate(IS_CONCEPTUAL)
    assert browser.evaluate(EDGES) == 10
    browser.evaluate(EXPAND % "conv2_block1")
    drawn(browser, {"conv2_block1/conv2_block1_add", "conv2_block1/conv2_block1_0_conv"})
    browser.evaluate(CLICK_ITEM % "keras")
    wait_for(lambda: browser.evaluate(IS_CONCEPTUAL), "the conceptual graph is chosen")
    # The new picture has every block closed again.
    wait_for(lambda: "conv2_block1/conv2_block1_add" not in browser.evaluate(NODES), "a new picture")
    drawn(browser, stages)
    picture = tmp_path / "graph.png"
    browser.screenshot(picture)
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize("run", [name for name in RUNS if name != "residual"])
def test_tensorboard_draws_every_node_of_strange_graphs(browser: Browser, tensorboard: str, run: str) -> None:
    board = LayerBoard(material(GRAPHS[run]), Scopes(GRAPHS[run]))
    names = EventNames(board)
    outermost = {names[node.key].split("/")[0] for node in board}
    show_graph(browser, tensorboard, run)
    drawn(browser, outermost)
    assert len(browser.evaluate(NODES)) == len(outermost)


def test_tensorboard_draws_the_histograms(browser: Browser, tensorboard: str) -> None:
    browser.open("about:blank")
    browser.open(f"{tensorboard}#histograms")
    wait_for(
        lambda: browser.evaluate(FIND) and browser.evaluate(HISTOGRAMS) >= 2,
        lambda: f"histograms are drawn: {browser.evaluate('document.body.innerText')!r}",
    )
    assert browser.strangers() == set()


def test_model_explorer_shows_the_graph_and_its_data(tmp_path: Path) -> None:
    """In a browser of its own: its page asks others for fonts, which TensorBoard's does not."""
    model_explorer = pytest.importorskip("model_explorer", exc_type=ImportError)
    graph, statistics = with_weights(GRAPHS["residual"])
    explorer_graph.write(material(graph, statistics=statistics), tmp_path)
    config = model_explorer.config().add_model_from_path(str(tmp_path / explorer_graph.GRAPH_FILE))
    for name in ("explorer_parameters.json", explorer_graph.HEALTH_FILE):
        config.add_node_data_from_path(str(tmp_path / name))
    port = free_port()
    arguments = (
        "model_explorer",
        "--no_open_in_browser",
        "--skip_health_check",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    )
    total = sum(layer.params for layer in graph.layers)
    wanted = ("conv4_block2..conv4_block23 x22", "explorer_weight_health.json", f"Sum\t{total}")
    with server(arguments, port) as url, Browser() as browser:
        browser.open(f"{url}?data={config.to_url_param_value()}")
        text = "document.body ? document.body.innerText : ''"
        wait_for(
            lambda: all(words in browser.evaluate(text) for words in wanted),
            lambda: f"{wanted} are shown: {browser.evaluate(text)}",
        )
        picture = tmp_path / "explorer.png"
        wait_for(lambda: browser.screenshot(picture) or picture.stat().st_size > 30_000, "the picture")

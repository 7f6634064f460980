"""How long a browser takes to draw large ONNX graphs in Netron: flat, and by the blocks of their view.

python benchmarks/view.py --limit 120 --output view.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
import psutil
import websocket
from compare import log, machine, table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import view_graphs
from browser import Browser, wait_for
from test_view_browser import DRAWN

from exporter.view.choice import choose
from exporter.view.server import Viewer
from exporter.view.site import Shown

GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "residual blocks, 20,000 nodes": lambda: view_graphs.residual(4000),
    "transformer, 96 layers, one mask": lambda: view_graphs.transformer(96),
    "transformer, 400 layers, one mask": lambda: view_graphs.transformer(400),
}


@dataclass(frozen=True)
class Drawing:
    """`seconds` is None when nothing was drawn in time; `peak_bytes` is that of all processes of the browser."""

    seconds: float | None
    peak_bytes: int
    end: str = ""

    def texts(self, limit: float) -> tuple[str, str]:
        seconds = f"{self.seconds:.1f} s" if self.seconds is not None else self.end or f"not in {limit:.0f} s"
        return seconds, f"{self.peak_bytes / 1e6:.0f} MB"


def draw(shown: Shown, limit: float) -> Drawing:
    """From the address to the drawing, in a browser of its own."""
    with Viewer([shown]) as viewer, Browser() as browser:
        root = psutil.Process(browser._process.pid)
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                with suppress(psutil.Error):
                    processes = [root, *root.children(recursive=True)]
                    peak[0] = max(peak[0], sum(each.memory_info().rss for each in processes))

        thread = threading.Thread(target=watch)
        thread.start()
        started, end = time.monotonic(), ""
        seconds: float | None = None
        try:
            browser.open(viewer.url)
            wait_for(lambda: browser.evaluate(DRAWN), "the drawing", limit)
            seconds = time.monotonic() - started
        except TimeoutError:
            pass
        except (RuntimeError, OSError, websocket.WebSocketException):
            end = f"the page crashed after {time.monotonic() - started:.0f} s"
        done.set()
        thread.join()
    return Drawing(seconds, peak[0], end)


def measure(name: str, limit: float) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(GRAPHS[name](), path)
        place = Path(folder, "place")
        place.mkdir()
        started = time.monotonic()
        view = choose(path, place)
        made = time.monotonic() - started
        log(f"{name}: view made in {made:.1f} s")
        blocks = draw(view, limit)
        log(f"{name}: by its blocks {blocks}")
        flat = draw(choose(path, place, full=True), limit)
        log(f"{name}: flat {flat}")
        size = f"{view.path.stat().st_size / 1000:.0f} kB"
        return [name, f"{made:.1f} s", size, *blocks.texts(limit), *flat.texts(limit)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=120, help="seconds to wait for each drawing")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    heads = ["graph", "view made in", "its size", "drawn by its blocks", "browser's memory", "drawn flat", "memory"]
    rows = [measure(name, options.limit) for name in GRAPHS]
    text = "\n".join([*machine(), "", *table(heads, rows), ""])
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

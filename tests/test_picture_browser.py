"""The SVG in a real browser: text stays inside its box, ids lead somewhere, nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, wait_for
from layer_graphs import GRAPHS
from test_picture_options import material

from exporter.formats import svg_picture

pytestmark = pytest.mark.browser
# Hinting and rounding of glyphs, in points.
TOLERANCE = 1.5
OVERFLOWS = """
[...document.querySelectorAll('g.node')].flatMap(node => {
  const shapes = [...node.querySelectorAll('polygon, path, ellipse, rect')].map(shape => shape.getBBox());
  const box = {left: Math.min(...shapes.map(s => s.x)), right: Math.max(...shapes.map(s => s.x + s.width)),
               top: Math.min(...shapes.map(s => s.y)), bottom: Math.max(...shapes.map(s => s.y + s.height))};
  return [...node.querySelectorAll('text')].filter(text => {
    const words = text.getBBox();
    return words.x < box.left - TOLERANCE || words.x + words.width > box.right + TOLERANCE
        || words.y < box.top - TOLERANCE || words.y + words.height > box.bottom + TOLERANCE;
  }).map(text => text.textContent);
})
""".replace("TOLERANCE", str(TOLERANCE))
# Of text outside of boxes: the heading, the legend, titles of clusters, links.
OUTSIDE = """
(() => {
  const [, , width, height] = document.documentElement.getAttribute('viewBox').split(' ').map(Number);
  const page = document.documentElement.getBoundingClientRect(), scale = page.width / width;
  return [...document.querySelectorAll('text')].filter(text => {
    const words = text.getBoundingClientRect();
    return words.left < page.left || words.right > page.left + width * scale
        || words.bottom > page.top + height * scale;
  }).map(text => text.textContent);
})()
"""
COVERED = """
[...document.querySelectorAll('g.graph > rect')].map(ground => {
  const end = ground.getBBox(), texts = [];
  for (let next = ground.nextElementSibling; next && next.tagName === 'text'; next = next.nextElementSibling)
    texts.push(next.getBBox());
  return texts.every(t => t.x >= end.x - 0.5 && t.x + t.width <= end.x + end.width + 5);
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


def shown(browser: Browser, folder: Path, name: str, **options: Any) -> Path:
    svg_picture.write(material(GRAPHS[name], **options), folder)
    path = folder / "model.svg"
    browser.open(path.as_uri())
    wait_for(lambda: browser.evaluate("document.readyState === 'complete'"), "the picture")
    return path


@pytest.mark.parametrize("options", [{}, {"direction": "right"}, {"max_nodes": 6}, {"theme": "print"}], ids=str)
@pytest.mark.parametrize("name", ["residual", "siamese", "u_net", "masked", "strange", "hostile"])
def test_no_text_overflows_its_box(browser: Browser, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    shown(browser, tmp_path, name, **options)
    assert browser.evaluate("document.querySelectorAll('g.node text').length") > 2
    assert browser.evaluate(OVERFLOWS) == []
    assert browser.evaluate(OUTSIDE) == []
    assert all(browser.evaluate(COVERED))


def test_a_key_in_the_address_leads_to_its_layer(browser: Browser, tmp_path: Path) -> None:
    path = shown(browser, tmp_path, "siamese")
    browser.open(f"{path.as_uri()}#encoder/conv")
    assert browser.evaluate("document.getElementById('encoder/conv').querySelector('text').textContent") == "Conv2D"
    assert browser.evaluate("document.getElementById('encoder/conv').querySelector('title').textContent").startswith(
        "encoder/conv\n"
    )


def test_the_picture_fetches_nothing_and_has_a_name(browser: Browser, tmp_path: Path) -> None:
    shown(browser, tmp_path, "residual")
    tree = browser._call("Accessibility.getFullAXTree")["nodes"]
    (image,) = [node for node in tree if node.get("role", {}).get("value") in ("image", "img")][:1]
    assert image["name"]["value"].startswith("residual")
    assert {address for address in browser.strangers() if not address.startswith("file:")} == set()

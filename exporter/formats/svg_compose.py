"""One SVG document from the pictures of the columns: heading, legend, links, searchable text and tooltips."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.formats.dot_labels import clean
from exporter.formats.node_style import FAINT_INK, FONT, INK, STYLES, Style, amount, kind, shape_text
from exporter.records import ModelGraph, TensorSpec

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
# Verdana has the widths of DejaVu Sans, which it comes from, where that is not installed.
FAMILY = f"{FONT}, Verdana, sans-serif"
MARGIN, GUTTER, HEADING, LINK_SPACE = 16.0, 26.0, 78.0, 16.0
LEGEND_STEP = 6.1
TRANSLATION = re.compile(r"translate\(([-\d.]+)[ ,]+([-\d.]+)\)")


@dataclass(frozen=True)
class Panel:
    """A column's picture in points: size, and the shift of its own origin."""

    group: ElementTree.Element
    width: float
    height: float
    shift: tuple[float, float]


def compose(
    graph: ModelGraph, drawings: Sequence[bytes], styles: Iterable[Style] | None = None, words: str = ""
) -> bytes:
    """The document, in UTF-8. Equal input gives equal bytes: Graphviz's comments and version stay out.

    `styles` are those of the legend, by default of the kinds of layers; `words` what stands under the model's name.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    panels = [panel(drawing) for drawing in drawings]
    lefts = [MARGIN]
    for item in panels:
        lefts.append(lefts[-1] + item.width + GUTTER)
    legend = list(legend_entries(used_styles(graph) if styles is None else styles))
    width = max(lefts[-1] - GUTTER + MARGIN, legend[-1][1] + MARGIN, 360.0)
    height = HEADING + max(item.height for item in panels) + 2 * LINK_SPACE + MARGIN
    root = ElementTree.Element(
        f"{{{SVG}}}svg",
        {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}", "role": "img"},
    )
    root.extend(heading(graph.name, words or description(graph), width, height))
    root.extend(swatch for entry in legend for swatch in entry[0])
    root.extend(links(panels, lefts))
    root.extend(placed(panels, lefts))
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def element(tag: str, text: str = "", **attributes: str | float) -> ElementTree.Element:
    names = {name.replace("_", "-"): str(value) for name, value in attributes.items()}
    made = ElementTree.Element(f"{{{SVG}}}{tag}", names)
    made.text = clean(text) or None
    return made


def panel(drawing: bytes) -> Panel:
    root = ElementTree.fromstring(drawing)
    group = root.find(f"{{{SVG}}}g")
    box = [float(number) for number in root.get("viewBox", "0 0 1 1").split()]
    if group is None:
        group = element("g")
    for background in group.findall(f"{{{SVG}}}polygon"):
        group.remove(background)
    found = TRANSLATION.search(group.get("transform", ""))
    shift = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    return Panel(group, box[2], box[3], shift)


def heading(name: str, words: str, width: float, height: float) -> Iterator[ElementTree.Element]:
    yield element("title", name)
    yield element("desc", words)
    yield element("rect", width=f"{width:.0f}", height=f"{height:.0f}", fill="white")
    style: dict[str, str | float] = {"font_family": FAMILY, "x": MARGIN}
    yield element("text", name, y=28, font_size=20, font_weight="bold", fill=INK, **style)
    yield element("text", words, y=46, font_size=11, fill=FAINT_INK, **style)


def description(graph: ModelGraph) -> str:
    """`347 layers · 44.7 M parameters · 224×224×3 float32 → 1000 float32`; the batch dimension is left out."""
    total = sum(layer.params for layer in graph.layers)
    layers = f"{len(graph.layers):,} layer{'s' if len(graph.layers) != 1 else ''}"
    return f"{layers} · {amount(total)} parameters · {specs_text(graph.inputs)} → {specs_text(graph.outputs)}"


def specs_text(specs: Sequence[TensorSpec]) -> str:
    shown = [f"{shape_text([spec.shape])} {spec.dtype or '?'}" for spec in specs[:3]]
    return ", ".join(shown) + (f" and {len(specs) - 3} more" if len(specs) > 3 else "")


def used_styles(graph: ModelGraph) -> list[Style]:
    """Those of the kinds of layers in the model."""
    kinds = {kind(layer) for layer in graph.layers}
    return [style for name, style in STYLES.items() if name in kinds]


def legend_entries(styles: Iterable[Style]) -> Iterator[tuple[list[ElementTree.Element], float]]:
    """A swatch and its word for each style, with the place where the entry ends."""
    left = MARGIN
    for style in styles:
        swatch = element("rect", x=f"{left:.1f}", y=56, width=12, height=12, fill=style.fill, stroke=style.border)
        word = element("text", style.title, x=f"{left + 17:.1f}", y=66, font_family=FAMILY, font_size=10, fill=INK)
        left += 34 + LEGEND_STEP * len(style.title)
        yield [swatch, word], left
    yield [], left


def placed(panels: Sequence[Panel], lefts: Sequence[float]) -> Iterator[ElementTree.Element]:
    for number, (item, left) in enumerate(zip(panels, lefts, strict=False)):
        tidy(item.group, number)
        across, down = item.shift[0] + left, item.shift[1] + HEADING + LINK_SPACE
        item.group.set("transform", f"translate({across:.2f} {down:.2f})")
        yield item.group


def tidy(group: ElementTree.Element, number: int) -> None:
    """Ids that are unique in the document; tooltips as `<title>` elements instead of Graphviz's own names."""
    for inner in group.iter():
        if "id" in inner.attrib:
            inner.set("id", f"c{number}_{inner.get('id')}")
        if inner.get("font-family") == FONT:
            inner.set("font-family", FAMILY)
    for inner in [group, *group.findall(f"{{{SVG}}}g")]:
        for name in inner.findall(f"{{{SVG}}}title"):
            inner.remove(name)
    for anchor in list(group.iter(f"{{{SVG}}}a")):
        words = anchor.attrib.pop(f"{{{XLINK}}}title", "")
        anchor.tag = f"{{{SVG}}}g"
        anchor.attrib.pop("target", None)
        if words:
            anchor.insert(0, element("title", words))


def links(panels: Sequence[Panel], lefts: Sequence[float]) -> Iterable[ElementTree.Element]:
    """Lines from the end of each column through the gutter to the head of the next."""
    bottom = HEADING + LINK_SPACE
    for (here, left), (there, right) in pairwise(zip(panels, lefts, strict=False)):
        start, end = end_point(here, "link_out", left), end_point(there, "link_in", right)
        if start and end:
            gutter = right - GUTTER / 2
            low, high = bottom + here.height + 4, HEADING + 6
            steps = [start, (start[0], low), (gutter, low), (gutter, high), (end[0], high), end]
            yield element(
                "path", d=rounded(steps), fill="none", stroke="#8fa1b5", stroke_width=2.5, stroke_linejoin="round"
            )


def end_point(item: Panel, name: str, left: float) -> tuple[float, float] | None:
    """Where a link's circle is in the document."""
    for group in item.group.findall(f"{{{SVG}}}g[@id='{name}']"):
        circle = group.find(f".//{{{SVG}}}ellipse")
        if circle is not None:
            across, down = float(circle.get("cx", 0)), float(circle.get("cy", 0))
            return across + item.shift[0] + left, down + item.shift[1] + HEADING + LINK_SPACE
    return None


def rounded(points: Sequence[tuple[float, float]]) -> str:
    """A path along the points with corners of 6 points' radius at most."""
    words = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        entry, leave = toward(corner, before), toward(corner, after)
        words.append(f"L{entry[0]:.1f},{entry[1]:.1f}Q{corner[0]:.1f},{corner[1]:.1f} {leave[0]:.1f},{leave[1]:.1f}")
    words.append(f"L{points[-1][0]:.1f},{points[-1][1]:.1f}")
    return "".join(words)


def toward(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    across, down = other[0] - corner[0], other[1] - corner[1]
    length = (across**2 + down**2) ** 0.5
    share = min(6.0, length / 2) / length if length else 0.0
    return corner[0] + across * share, corner[1] + down * share

"""One SVG document from the pictures of the columns: heading, legend, links, searchable text and tooltips."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.errors import InternalError
from exporter.formats.dot_labels import clean
from exporter.formats.node_style import FONT, Style, amount, shape_text
from exporter.formats.pictures.links import links
from exporter.formats.pictures.panels import GUTTER, LINK_SPACE, MARGIN, SVG, Panel, element, panel, placed, text_width
from exporter.formats.pictures.themes import LIGHT, Theme
from exporter.records import ModelGraph, TensorSpec

XLINK = "http://www.w3.org/1999/xlink"
# Verdana has the widths of DejaVu Sans, which it comes from, where that is not installed.
FAMILY = f"{FONT}, Verdana, sans-serif"
# The baselines of the model's name and of the words under it, the top of the legend and the height of its lines.
NAME_LINE, WORDS_LINE, LEGEND_TOP, LEGEND_LINE = 28.0, 46.0, 56.0, 18.0
# The legend goes on in another line where it would be wider than the picture and this.
NARROWEST = 620.0
SIZE = re.compile(rb'viewBox="0 0 (\d+) (\d+)"')
# Ids with a colon are those of no layer.
TITLE_ID, DESCRIPTION_ID = "picture:title", "picture:description"


@dataclass(frozen=True)
class Frame:
    """What surrounds a drawing: the words under the model's name, a longer description, the legend, attributes by id.

    Ids that have no attributes are left out. The drawings are columns, or rows if they flow to the `right`.
    """

    styles: Sequence[Style]
    words: str
    description: str = ""
    theme: Theme = LIGHT
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    right: bool = False


def compose(name: str, drawings: Sequence[bytes], frame: Frame) -> bytes:
    """The document, in UTF-8. Equal input gives equal bytes: Graphviz's comments and version stay out."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    bare = [panel(drawing) for drawing in drawings]
    body_width = max(item.width for item in bare) if frame.right else sum(item.width + GUTTER for item in bare)
    legend, lines = legend_of(frame, max(body_width, NARROWEST))
    panels = list(placed(bare, LEGEND_TOP + lines * LEGEND_LINE + 4, right=frame.right))
    width, height = extent(panels, name, frame, legend)
    root = element("svg", viewBox=f"0 0 {width:.0f} {height:.0f}", width=f"{width:.0f}", height=f"{height:.0f}")
    root.attrib |= {"role": "img", "aria-labelledby": f"{TITLE_ID} {DESCRIPTION_ID}"}
    root.extend(heading(name, frame, width, height))
    root.extend(legend)
    root.extend(links(panels, frame.theme.link, right=frame.right))
    root.extend(finished(panels, frame))
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def size_of(document: bytes) -> tuple[float, float]:
    """Width and height in points of a document that `compose` made, from its beginning."""
    found = SIZE.search(document[:1000])
    if found is None:
        raise InternalError("a picture without a size")
    return float(found[1]), float(found[2])


def extent(
    panels: Sequence[Panel], name: str, frame: Frame, legend: Sequence[ElementTree.Element]
) -> tuple[float, float]:
    space = LINK_SPACE if len(panels) > 1 else 0.0
    texts = [text_width(name, 20, bold=True), text_width(frame.words, 11)]
    ends = [float(item.get("x", 0)) + text_width(item.text or "", 10) for item in legend]
    ends += [MARGIN + width for width in texts] + [item.left + item.width + space * frame.right for item in panels]
    return max(ends) + MARGIN, max(item.top + item.height for item in panels) + space * (not frame.right) + MARGIN


def heading(name: str, frame: Frame, width: float, height: float) -> Iterator[ElementTree.Element]:
    theme = frame.theme
    yield element("title", name, id=TITLE_ID)
    yield element("desc", frame.description or frame.words, id=DESCRIPTION_ID)
    yield element("rect", width=f"{width:.0f}", height=f"{height:.0f}", fill=theme.background)
    style: dict[str, str | float] = {"font_family": FAMILY, "x": MARGIN}
    yield element("text", name, y=NAME_LINE, font_size=20, font_weight="bold", fill=theme.ink, **style)
    yield element("text", frame.words, y=WORDS_LINE, font_size=11, fill=theme.faint_ink, **style)


def totals(graph: ModelGraph) -> str:
    """`347 layers · 44.7 M parameters · 224×224×3 float32 → 1000 float32`; the batch dimension is left out."""
    total = sum(layer.params for layer in graph.layers)
    layers = f"{len(graph.layers):,} layer{'s' if len(graph.layers) != 1 else ''}"
    # Weights alone go from nothing to nothing.
    flow = f" · {specs_text(graph.inputs)} → {specs_text(graph.outputs)}" if graph.level != "tensor" else ""
    return f"{layers} · {amount(total)} parameters{flow}"


def specs_text(specs: Sequence[TensorSpec]) -> str:
    shown = [f"{shape_text([spec.shape])} {spec.dtype or '?'}" for spec in specs[:3]]
    return ", ".join(shown) + (f" and {len(specs) - 3} more" if len(specs) > 3 else "")


def legend_of(frame: Frame, width: float) -> tuple[list[ElementTree.Element], int]:
    """A swatch and its word for each style, and in how many lines."""
    found: list[ElementTree.Element] = []
    left, line = MARGIN, 0
    for style in frame.styles:
        wide = 36 + text_width(style.title, 10)
        if left > MARGIN and left + wide > MARGIN + width:
            left, line = MARGIN, line + 1
        top = LEGEND_TOP + line * LEGEND_LINE
        square: dict[str, str | float] = {"width": 12, "height": 12, "fill": style.fill, "stroke": style.border}
        found.append(element("rect", x=f"{left:.1f}", y=f"{top:.0f}", **square))
        word: dict[str, str | float] = {"font_family": FAMILY, "font_size": 10, "fill": frame.theme.ink}
        found.append(element("text", style.title, x=f"{left + 17:.1f}", y=f"{top + 10:.0f}", **word))
        left += wide
    return found, line + 1


def finished(panels: Sequence[Panel], frame: Frame) -> Iterator[ElementTree.Element]:
    given: set[str] = set()
    for item in panels:
        tidy(item.group, frame.attributes, given)
        item.group.extend(list(titles_on_top(item.group)))
        across, down = item.shift[0] + item.left, item.shift[1] + item.top
        item.group.set("transform", f"translate({across:.2f} {down:.2f})")
        yield item.group


def tidy(group: ElementTree.Element, attributes: Mapping[str, Mapping[str, str]], given: set[str]) -> None:
    """Ids that mean something, each `given` once; tooltips as `<title>` elements instead of Graphviz's own names."""
    for inner in group.iter():
        # Graphviz puts `a_` before the id of what has a tooltip, in a group without a class.
        own = inner.attrib.pop("id", "")
        own = own if "class" in inner.attrib else own.removeprefix("a_")
        if own in attributes and own not in given:
            given.add(own)
            inner.attrib |= {"id": own, **{name: clean(value) for name, value in attributes[own].items()}}
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


def titles_on_top(group: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The titles of clusters again above all arrows, each on a piece of its cluster's ground."""
    for cluster in group.findall(f"{{{SVG}}}g[@class='cluster']"):
        texts = list(cluster.iter(f"{{{SVG}}}text"))
        shapes = [shape for tag in ("path", "polygon") for shape in cluster.iter(f"{{{SVG}}}{tag}")]
        if not texts or not shapes:
            continue
        for holder in list(cluster.iter()):
            for text in holder.findall(f"{{{SVG}}}text"):
                holder.remove(text)
        yield title_ground(texts, shapes[0])
        yield from texts


def title_ground(texts: Sequence[ElementTree.Element], frame: ElementTree.Element) -> ElementTree.Element:
    """A piece of a frame's ground behind a title, short of the frame's border."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", frame.get("d") or frame.get("points") or "0")]
    left = min(float(text.get("x", 0)) for text in texts)
    right = max(
        float(text.get("x", 0))
        + text_width(text.text or "", float(text.get("font-size", 12)), bold=text.get("font-weight") == "bold")
        for text in texts
    )
    right = min(right, max(numbers[::2]) - 4)
    base, high = float(texts[0].get("y", 0)), max(float(text.get("font-size", 12)) for text in texts)
    place: dict[str, str | float] = {"x": f"{left - 2:.1f}", "y": f"{base - 0.95 * high:.1f}"}
    fill = frame.get("fill", "none")
    return element("rect", width=f"{max(right - left, 1):.1f}", height=f"{1.2 * high:.1f}", fill=fill, **place)

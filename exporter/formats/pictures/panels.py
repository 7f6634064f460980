"""The pictures of single columns, and how they are put on a page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.formats.dot_labels import clean

SVG = "http://www.w3.org/2000/svg"
# Points around the page, between panels, and for the links at their ends.
MARGIN, GUTTER, LINK_SPACE = 16.0, 26.0, 16.0
# Width of a character in the size of 1, of ordinary and of bold text; somewhat more than the average.
CHARACTER, BOLD_CHARACTER = 0.63, 0.71
TRANSLATION = re.compile(r"translate\(([-\d.]+)[ ,]+([-\d.]+)\)")


@dataclass(frozen=True)
class Panel:
    """A column's picture in points: size, the shift of its own origin, and where its corner is in the document."""

    group: ElementTree.Element
    width: float
    height: float
    shift: tuple[float, float]
    left: float = 0.0
    top: float = 0.0


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


def placed(panels: Sequence[Panel], top: float, *, right: bool) -> Iterator[Panel]:
    """The panels side by side, or below each other."""
    space = LINK_SPACE if len(panels) > 1 else 0.0
    left, top = (MARGIN + space, top) if right else (MARGIN, top + space)
    for item in panels:
        yield Panel(item.group, item.width, item.height, item.shift, left, top)
        left, top = (left, top + item.height + GUTTER) if right else (left + item.width + GUTTER, top)


def element(tag: str, text: str = "", /, **attributes: str | float) -> ElementTree.Element:
    """`x1=2.0` becomes the attribute `x1`, `font_size` the attribute `font-size`."""
    names = {name.replace("_", "-"): str(value) for name, value in attributes.items()}
    made = ElementTree.Element(f"{{{SVG}}}{tag}", names)
    made.text = clean(text) or None
    return made


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """An estimate, rather too large; signs of East Asian scripts are as wide as high."""
    units = sum(1.0 if ord(sign) > 0x2E80 else BOLD_CHARACTER if bold else CHARACTER for sign in text)
    return units * size

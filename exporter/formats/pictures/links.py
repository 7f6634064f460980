"""Lines between the panels of a page: from the end of each column, or row, to the head of the next."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from itertools import pairwise

from exporter.formats.pictures.panels import GUTTER, LINK_SPACE, SVG, Panel, element

Point = tuple[float, float]


def links(panels: Sequence[Panel], color: str, *, right: bool) -> Iterable[ElementTree.Element]:
    """Lines from the end of each column through the gutter to the head of the next."""
    for here, there in pairwise(panels):
        start, end = end_point(here, "link_out"), end_point(there, "link_in")
        if start and end:
            steps = [start, *(row_route if right else column_route)(here, there, start, end), end]
            look = {"stroke": color, "stroke_width": "2.5", "stroke_linejoin": "round"}
            yield element("path", d=rounded(steps), fill="none", **look)


def column_route(here: Panel, there: Panel, start: Point, end: Point) -> list[Point]:
    gutter = there.left - GUTTER / 2
    low, high = here.top + here.height + 4, there.top - LINK_SPACE + 6
    return [(start[0], low), (gutter, low), (gutter, high), (end[0], high)]


def row_route(here: Panel, there: Panel, start: Point, end: Point) -> list[Point]:
    gutter = there.top - GUTTER / 2
    far, near = here.left + here.width + 4, there.left - LINK_SPACE + 6
    return [(far, start[1]), (far, gutter), (near, gutter), (near, end[1])]


def end_point(item: Panel, name: str) -> Point | None:
    """Where a link's circle is in the document."""
    for group in item.group.findall(f"{{{SVG}}}g[@id='{name}']"):
        circle = group.find(f".//{{{SVG}}}ellipse")
        if circle is not None:
            across, down = float(circle.get("cx", 0)), float(circle.get("cy", 0))
            return across + item.shift[0] + item.left, down + item.shift[1] + item.top
    return None


def rounded(points: Sequence[Point]) -> str:
    """A path along the points with corners of 6 points' radius at most."""
    words = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        entry, leave = toward(corner, before), toward(corner, after)
        words.append(f"L{entry[0]:.1f},{entry[1]:.1f}Q{corner[0]:.1f},{corner[1]:.1f} {leave[0]:.1f},{leave[1]:.1f}")
    words.append(f"L{points[-1][0]:.1f},{points[-1][1]:.1f}")
    return "".join(words)


def toward(corner: Point, other: Point) -> Point:
    across, down = other[0] - corner[0], other[1] - corner[1]
    length = (across**2 + down**2) ** 0.5
    share = min(6.0, length / 2) / length if length else 0.0
    return corner[0] + across * share, corner[1] + down * share

"""The tree of blocks: stretches of the drawing order, from namespaces and from repeated structure."""

from __future__ import annotations

from itertools import groupby

from exporter.formats.view_model.flat import Flat
from exporter.formats.view_model.items import Item, Maker
from exporter.formats.view_model.pages import SMALLEST_BLOCK, page


def tree(graph: Flat) -> list[Item]:
    """The items of the outermost page."""
    maker = Maker(graph)
    return page(maker, _scoped(maker, 0, len(graph.nodes), 0)) if graph.nodes else []


def _scoped(maker: Maker, start: int, stop: int, depth: int) -> list[Item]:
    """The items of a stretch in which all namespaces agree up to `depth`: a block for each next part of them."""
    paths, items = maker.graph.paths, []

    def scope(place: int) -> str | None:
        return paths[place][depth] if len(paths[place]) > depth else None

    for name, members in groupby(range(start, stop), key=scope):
        places = list(members)
        if name is None:
            items += [maker.leaf(place) for place in places]
            continue
        inside = _scoped(maker, places[0], places[-1] + 1, depth + 1)
        if SMALLEST_BLOCK <= len(places) < stop - start and len(inside) > 1:
            inside = [maker.block(page(maker, inside), "scope", "/".join(paths[places[0]][: depth + 1]))]
        items += inside
    return items

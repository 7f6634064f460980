"""Ids of the elements of a picture: the keys of the catalogue, escaped as in a URL.

The id of a layer is its key (`layer` in layers.parquet) with everything but ASCII letters, digits, `/`, `_`, `.`, `-`
and `~` percent-encoded, so that `urllib.parse.unquote` gives the key back and `model.svg#the/key` leads to it. Ids of
blocks begin with `block:`, which no encoded key has in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from exporter.formats.repetition import Block, layers_of
from exporter.formats.sketch import rows_of
from exporter.records import Layer

# A picture names all the layers that it folds as long as they are not more than this, which is half a megabyte.
MOST_NAMED = 10_000

Attributes = dict[str, str]


def element_id(key: str) -> str:
    """Also for names that are no valid Unicode, and for an empty one."""
    return quote(key.encode("utf-8", "surrogatepass"), safe="/") or "%"


class Identifiers:
    """Gives out ids; `attributes` says what else the element with an id is to carry, `data-layers` above all."""

    def __init__(self, layer_count: int) -> None:
        self.names_all = layer_count <= MOST_NAMED
        self.attributes: dict[str, Attributes] = {}
        self._blocks: dict[int, str] = {}

    def layer(self, row: tuple[Layer, ...]) -> str:
        """The id of the first of a layer's folded copies."""
        found = element_id(row[0].namespace)
        copies = {"data-copies": str(len(row))} if len(row) > 1 else {}
        self.attributes[found] = {"data-class": row[0].class_name, **copies, **self._layers(row)}
        return found

    def block(self, block: Block) -> str:
        """That of a nested model is its layer's."""
        if block.models:
            return self.layer(block.models)
        if id(block) not in self._blocks:
            base = f"block:{element_id(next(layers_of(block)).namespace)}"
            found, number = base, 1
            while found in self.attributes:
                number += 1
                found = f"{base}:{number}"
            inside = (layer for row in rows_of(block) for layer in row) if block.closed else ()
            self.attributes[found] = {"data-times": str(block.times), **self._layers(inside)}
            self._blocks[id(block)] = found
        return self._blocks[id(block)]

    def _layers(self, layers: Iterable[Layer]) -> Attributes:
        keys = " ".join(element_id(layer.namespace) for layer in layers) if self.names_all else ""
        return {"data-layers": keys} if keys else {}

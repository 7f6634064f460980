"""Which rows of a table are shown, and in which order: streams, as long as nothing has to be sorted."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from exporter.errors import UsageError
from exporter.suspicions import Row

# So many are shown where an order is asked for and no number.
DEFAULT_TOP = 20
# Largest first, but for those in `ASCENDING`; a row in which the number is unknown comes last.
ORDERS: dict[str, dict[str, Callable[[Row], Any]]] = {
    "layers": {
        "params": lambda row: row["params"],
        "bytes": lambda row: row["weight_bytes"],
        "macs": lambda row: -1 if row["macs"] is None else row["macs"],
        "name": lambda row: row["layer"],
        "index": lambda row: row["index"],
    },
    "tensors": {
        "params": lambda row: math.prod(row["shape"]),
        "bytes": lambda row: row["nbytes"],
        "name": lambda row: row["tensor"],
    },
}
SORTS = tuple(ORDERS["layers"])
ASCENDING = ("name", "index")


@dataclass(frozen=True)
class Choice:
    """`order` is one of `SORTS` or None for the table's own, `top` None for all rows; `depth` counts levels from 1."""

    order: str | None = None
    top: int | None = None
    depth: int | None = None


def chosen(table: str, rows: Iterable[Row], choice: Choice) -> Iterator[Row]:
    """The rows that are shown. With a `top`, no more than those are held. Raises UsageError for an unknown order."""
    depth = choice.depth
    if depth is not None and table == "layers":
        rows = (row for row in rows if row["depth"] < depth)
    # Tables are in the order of the index.
    if choice.order is None or (choice.order == "index" and table == "tensors"):
        return islice(rows, choice.top)
    if choice.order not in ORDERS[table]:
        has_not = f"weights have no {choice.order}" if choice.order in SORTS else "there is no such order"
        why, hint = f"{has_not}: there are {', '.join(ORDERS[table])}", "--sort bytes"
        raise UsageError("cannot be used", where=f"--sort {choice.order}", why=why, hint=hint)
    key, ascending = ORDERS[table][choice.order], choice.order in ASCENDING
    if choice.top is None:
        return iter(sorted(rows, key=key, reverse=not ascending))
    return iter((heapq.nsmallest if ascending else heapq.nlargest)(choice.top, rows, key=key))

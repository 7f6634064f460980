"""What in the statistics of a model's weights deserves a look, as sentences that name the tensors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

Row = dict[str, Any]


# What the sentences are made from: keys of the `tensors` table.
KEYS = ("tensor", "shape", "dtype", "nans", "infs", "dead_filters", "distinct", "min", "sha256")


def suspicions(rows: Collection[Row], most: int | None, more: str = " (--all shows them)") -> list[str]:
    """Sentences about `tensors` rows with statistics; of each kind at most so many, None for all.

    `rows` is gone through several times. `more` says where the others are.
    """
    kinds = (_not_finite(rows), _dead_filters(rows), _constant(rows), _identical(rows))
    return [line for kind in kinds for line in _limited(list(kind), most, more)] + list(_plain_constants(rows))


def _limited(lines: list[str], most: int | None, more: str) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"… and {len(lines) - most} more like it{more}"]


def _size(row: Row) -> int:
    return math.prod(row["shape"])


def _not_finite(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        counts = [f"{row[key]:,} {word}" for key, word in (("nans", "NaN"), ("infs", "infinite")) if row[key]]
        if counts:
            yield f"{row['tensor']}: {' and '.join(counts)} of {_size(row):,} elements"


def _dead_filters(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if row["dead_filters"] and not _is_constant(row):
            yield f"{row['tensor']}: {row['dead_filters']:,} of {row['shape'][-1]:,} output channels are all zero"


def _is_constant(row: Row) -> bool:
    return row["distinct"] == 1 and _size(row) > 1 and row["min"] is not None


def _is_initial(row: Row) -> bool:
    """A vector of zeros or ones: a bias, or the state of a batch norm, as initializers make them."""
    return _is_constant(row) and len(row["shape"]) < 2 and row["min"] in (0, 1)


def _constant(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if _is_constant(row) and not _is_initial(row):
            yield f"{row['tensor']}: all {_size(row):,} elements are {row['min']:g}"


def _plain_constants(rows: Iterable[Row]) -> Iterator[str]:
    initial = [row["min"] for row in rows if _is_initial(row)]
    if initial:
        zeros, ones = initial.count(0), initial.count(1)
        yield f"{zeros:,} vectors of zeros and {ones:,} of ones, as initializers make them"


def _identical(rows: Iterable[Row]) -> Iterator[str]:
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for row in rows:
        if _size(row) > 1 and not _is_constant(row):
            groups[row["sha256"], row["dtype"], tuple(row["shape"])].append(row["tensor"])
    for names in groups.values():
        if len(names) > 1:
            yield f"identical: {', '.join(names)}"

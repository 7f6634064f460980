"""Are two weights the same? Read from the ONNX files in chunks, so that their size does not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.diff.initializers import Place, places
from exporter.diff.tables import Row, Tables

CHUNK_ELEMENTS = 2**20
IDENTICAL, DIFFERENT, UNKNOWN = "identical", "different", "unknown"
# These leave the values as they are; a `layout` only moves them.
EXACT = ("none", "layout")


@dataclass(frozen=True)
class WeightDifference:
    """`status` is identical (every bit), different or unknown, and `reason` says why it is unknown or how it is known.

    `max_abs` is the largest absolute difference of two elements, infinite where a NaN or an infinity is on one side
    only; `relative` that divided by the largest magnitude in the first model, `count` the elements that differ. They
    are None where they are not known.
    """

    status: str
    reason: str = ""
    max_abs: float | None = None
    relative: float | None = None
    count: int | None = None
    elements: int | None = None


class Weights:
    """Compares weights of two exports by their rows in the tables `tensors`."""

    def __init__(self, before: Tables, after: Tables) -> None:
        self.folders = (before.folder, after.folder)
        self.one_source = _is_one_source(before.model, after.model)
        self._places: dict[Path, dict[str, Place]] = {}

    def compare(self, old: Row, new: Row) -> WeightDifference:
        """Of weights of equal shape. Raises SourceError when a file of the export is damaged."""
        if self.one_source and old["tensor"] == new["tensor"]:
            return WeightDifference(IDENTICAL, "equal digest of the source", 0.0, 0.0, 0, math.prod(old["shape"]))
        digests = (old["sha256"], new["sha256"])
        comparable = None not in digests and old["dtype"] == new["dtype"]
        if comparable and digests[0] == digests[1]:
            return WeightDifference(IDENTICAL, "equal SHA-256", 0.0, 0.0, 0, math.prod(old["shape"]))
        found = self._through_onnx(old, new)
        if comparable and found.status == UNKNOWN:
            return WeightDifference(DIFFERENT, f"SHA-256 differs; by how much is unknown: {found.reason}")
        return found

    def _through_onnx(self, old: Row, new: Row) -> WeightDifference:
        if reason := _obstacle(old, "first") or _obstacle(new, "second"):
            return WeightDifference(UNKNOWN, reason)
        first, second = (self._place(folder, row) for folder, row in zip(self.folders, (old, new), strict=True))
        if first is None or second is None:
            return WeightDifference(UNKNOWN, "the bytes are not where the table says")
        kinds = (old["transform"], new["transform"])
        if first.dims != second.dims or kinds[0] != kinds[1]:
            return WeightDifference(UNKNOWN, f"stored in two ways: {kinds[0]} and {kinds[1]}")
        found = difference(first, second)
        if kinds[0] in EXACT:
            return found
        return _indirect(found, old)

    def _place(self, folder: Path, row: Row) -> Place | None:
        if folder not in self._places:
            self._places[folder] = places(folder / "model.onnx")
        return self._places[folder].get(row["initializer"])


def _is_one_source(before: Row, after: Row) -> bool:
    """Whether both exports are of the same bytes. Random weights of a file may come from a function without a seed."""
    columns = ("source_digest", "kind", "weights")
    known = before and after and before["source_digest"]
    if not known or any(before[column] != after[column] for column in columns):
        return False
    return before["kind"] == "application" or not before["weights"].startswith("random")


def _obstacle(row: Row, which: str) -> str:
    if row["initializer"] is None:
        return f"the {which} export has no ONNX file with it, and one of them has no statistics (--stats)"
    return ""


def _indirect(found: WeightDifference, row: Row) -> WeightDifference:
    """What a cast or folded initializer says about the weight that went into it."""
    how = f"cast to {row['stored_dtype']}" if row["transform"] == "cast" else "combined with other weights"
    if found.status == DIFFERENT and row["transform"] == "cast":
        return replace(found, reason=f"compared as {how}")
    what = "identical in both" if found.status == IDENTICAL else "different"
    return WeightDifference(UNKNOWN, f"the ONNX files have it only {how}, and that is {what}")


def difference(old: Place, new: Place) -> WeightDifference:
    """Element by element, in the order in which they are stored; two dtypes are compared as float64."""
    elements = math.prod(old.dims)
    if old.dtype == new.dtype and all(a.tobytes() == b.tobytes() for a, b in _chunks(old, new)):
        return WeightDifference(IDENTICAL, "", 0.0, 0.0, 0, elements)
    count, largest, scale = 0, 0.0, 0.0
    for a, b in _chunks(old, new):
        changed = _bits(a) != _bits(b) if old.dtype == new.dtype else a.astype(np.float64) != b.astype(np.float64)
        first, second = a[changed].astype(np.float64), b[changed].astype(np.float64)
        with np.errstate(invalid="ignore"):
            gap = np.abs(first - second)
        gap[np.isnan(gap)] = np.inf
        gap[(first == second) | (np.isnan(first) & np.isnan(second))] = 0.0
        count += int(changed.sum())
        largest = max(largest, float(gap.max(initial=0.0)))
        magnitudes = np.abs(a.astype(np.float64))
        scale = max(scale, float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0)))
    relative = largest / scale if scale else None
    if not count:
        return WeightDifference(DIFFERENT, "equal values in two dtypes", 0.0, 0.0, 0, elements)
    return WeightDifference(DIFFERENT, "", largest, relative, count, elements)


def _bits(values: np.ndarray) -> Any:
    """Two NaNs of the same bits are equal, and 0.0 and -0.0 are not."""
    return values.view(f"V{values.itemsize}") if values.itemsize > 8 else values.view(f"u{values.itemsize}")


def _chunks(old: Place, new: Place) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield from zip(old.chunks(CHUNK_ELEMENTS), new.chunks(CHUNK_ELEMENTS), strict=True)

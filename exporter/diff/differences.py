"""Compares two exports: layers, their settings, shapes, connections, weights and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.diff import tables
from exporter.diff.matching import is_automatic, match
from exporter.diff.tables import Row, Tables
from exporter.diff.weights import IDENTICAL, UNKNOWN, WeightDifference, Weights

ADDED, REMOVED, CHANGED, REWIRED, RENAMED, SAME = "added", "removed", "changed", "rewired", "renamed", "same"
COLUMNS = (
    "class",
    "trainable",
    "input_shapes",
    "output_shapes",
    "input_dtypes",
    "output_dtypes",
    "calls",
)
COSTS = ("params", "params_trainable", "weight_bytes", "macs", "flops", "activation_bytes")
TOTALS = ("params", "params_trainable", "weight_bytes", "macs", "flops", "peak_activation_bytes")
TENSOR_COLUMNS = ("shape", "dtype", "trainable")


@dataclass(frozen=True)
class Change:
    """A value that differs. `field` is a column of the tables, or `settings.` and the path of a setting."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class TensorPair:
    """A weight in both models (`values` is None where the shapes differ), or in one: the other name is None then."""

    old: str | None
    new: str | None
    changes: tuple[Change, ...] = ()
    values: WeightDifference | None = None

    @property
    def status(self) -> str:
        """What is to be said of the values."""
        if self.old is None or self.new is None:
            return REMOVED if self.new is None else ADDED
        if self.values is None:
            return CHANGED
        return {IDENTICAL: SAME, UNKNOWN: UNKNOWN}.get(self.values.status, CHANGED)


def _differs(tensor: TensorPair) -> bool:
    return bool(tensor.changes) or tensor.status not in (SAME, UNKNOWN)


@dataclass(frozen=True)
class LayerPair:
    """A layer in both models, or in one: the key in the other is None then.

    `renamed` is whether somebody gave it another name, or its place is inside of another model; a number that Keras
    counts (`dense_7`) is not a name. `connections` are changes of what comes in, with keys of the second model where
    the layer that it comes from has one.
    """

    old: str | None
    new: str | None
    class_name: str
    renamed: bool = False
    changes: tuple[Change, ...] = ()
    connections: tuple[Change, ...] = ()
    costs: tuple[Change, ...] = ()
    tensors: tuple[TensorPair, ...] = ()

    @property
    def key(self) -> str:
        return str(self.old if self.new is None else self.new)

    @property
    def status(self) -> str:
        """The weightiest of what is to be said; `unknown` where only weights that cannot be compared may differ."""
        if self.old is None or self.new is None:
            return REMOVED if self.new is None else ADDED
        if self.changes or self.costs or any(map(_differs, self.tensors)):
            return CHANGED
        if self.connections or self.renamed:
            return REWIRED if self.connections else RENAMED
        return UNKNOWN if any(tensor.status == UNKNOWN for tensor in self.tensors) else SAME

    @property
    def is_only_trained_otherwise(self) -> bool:
        """Whether freezing is all that happened to it: there are hundreds of such layers in a fine-tuned model."""
        frozen = {change.field for change in self.changes} == {"trainable"}
        return self.status == CHANGED and frozen and all(tensor.status in (SAME, UNKNOWN) for tensor in self.tensors)


@dataclass(frozen=True)
class Difference:
    """Of two models: `layers` in the order of the second, those that are removed at the end; `totals` of all layers."""

    before: Tables
    after: Tables
    layers: tuple[LayerPair, ...]
    totals: tuple[Change, ...]

    @property
    def counts(self) -> Counter[str]:
        return Counter(layer.status for layer in self.layers)

    @property
    def weights(self) -> Counter[str]:
        return Counter(tensor.status for layer in self.layers for tensor in layer.tensors)

    @property
    def is_equal(self) -> bool:
        """Whether the models are known to be the same: not while a weight could not be compared."""
        return set(self.counts) <= {SAME} and set(self.weights) <= {SAME}


def compare(before: Path, after: Path, names: tuple[str, str]) -> Difference:
    """The difference of two folders of exports, which the user calls by `names`. Raises SourceError."""
    old, new = tables.read(before, names[0]), tables.read(after, names[1])
    layers = tuple(Comparison(old, new).layers())
    totals = [Change(name, _total(old, name), _total(new, name)) for name in TOTALS]
    return Difference(old, new, layers, tuple(totals))


def _total(tables: Tables, column: str) -> int | None:
    """That of the table models; without it what can be said from the layers."""
    if tables.model or column not in ("params", "params_trainable", "weight_bytes"):
        value: int | None = tables.model.get(column)
        return value
    return sum(row[column] for row in tables.layers)


class Comparison:
    """Two models while their layers are paired and compared."""

    def __init__(self, before: Tables, after: Tables) -> None:
        self.before, self.after = before, after
        self.partner = match(before, after)
        self.weights = Weights(before, after)

    def layers(self) -> Iterator[LayerPair]:
        origin = {new: old for old, new in self.partner.items()}
        for row in self.after.layers:
            yield self._pair(origin.get(row["layer"]), row["layer"])
        for row in self.before.layers:
            if row["layer"] not in self.partner:
                yield self._pair(row["layer"], None)

    def _pair(self, old: str | None, new: str | None) -> LayerPair:
        if old is None or new is None:
            tables, key = (self.before, old) if new is None else (self.after, new)
            tensors = [
                TensorPair(*((None, row["tensor"]) if old is None else (row["tensor"], None)))
                for row in tables.tensors_of.get(key or "", ())
            ]
            return LayerPair(old, new, tables.by_key[key or ""]["class"], tensors=tuple(tensors))
        ours, theirs = self.before.by_key[old], self.after.by_key[new]
        return LayerPair(
            old,
            new,
            theirs["class"],
            renamed=self._is_renamed(ours, theirs),
            changes=(*changed(ours, theirs, COLUMNS), *self._settings(old, new)),
            connections=tuple(self._connections(old, new)),
            costs=changed(ours, theirs, COSTS, unknown_differs=False),
            tensors=tuple(self._tensors(old, new)),
        )

    def _is_renamed(self, old: Row, new: Row) -> bool:
        moved = (old["parent"] and self.partner.get(old["parent"])) != new["parent"]
        counted = is_automatic(old["name"], old["class"]) and is_automatic(new["name"], new["class"])
        return moved or (old["name"] != new["name"] and not counted)

    def _settings(self, old: str, new: str) -> Iterator[Change]:
        ours, theirs = self.before.settings[old], self.after.settings[new]
        for path in dict.fromkeys([*ours, *theirs]):
            if path not in ours or path not in theirs or ours[path] != theirs[path]:
                yield Change(f"settings.{path}", ours.get(path), theirs.get(path))

    def _connections(self, old: str, new: str) -> Iterator[Change]:
        ours = {_port(edge): self._source(edge) for edge in self.before.edges_into.get(old, ())}
        theirs = {_port(edge): _source(edge, edge["source"]) for edge in self.after.edges_into.get(new, ())}
        for port in sorted({*ours, *theirs}):
            if ours.get(port) != theirs.get(port):
                call, number = port
                where = f"input {number}" + (f" of call {call}" if call else "")
                yield Change(where, _source_text(ours.get(port)), _source_text(theirs.get(port)))

    def _source(self, edge: Row) -> tuple[str, bool, int, int]:
        """As the second model calls it; a layer that is not there differs from all that are."""
        key = str(edge["source"])
        return (self.partner.get(key, key), key in self.partner, edge["source_call"], edge["source_output"])

    def _tensors(self, old: str, new: str) -> Iterator[TensorPair]:
        """Paired by name inside of the layer, then by order."""
        ours, theirs = self.before.tensors_of.get(old, ()), self.after.tensors_of.get(new, ())
        by_name = {_local_name(row): row for row in theirs}
        partner = {row["tensor"]: by_name.pop(_local_name(row), None) for row in ours}
        left = iter(by_name.values())
        for row in ours:
            other = partner[row["tensor"]] or next(left, None)
            if other is None:
                yield TensorPair(row["tensor"], None)
                continue
            values = self.weights.compare(row, other) if row["shape"] == other["shape"] else None
            yield TensorPair(row["tensor"], other["tensor"], changed(row, other, TENSOR_COLUMNS), values)
        yield from (TensorPair(None, row["tensor"]) for row in left)


def changed(old: Row, new: Row, columns: tuple[str, ...], *, unknown_differs: bool = True) -> tuple[Change, ...]:
    """Columns with different values; with `unknown_differs` off NULL agrees with everything."""
    pairs = [(column, old[column], new[column]) for column in columns]
    return tuple(
        Change(column, ours, theirs)
        for column, ours, theirs in pairs
        if ours != theirs and (unknown_differs or None not in (ours, theirs))
    )


def _local_name(tensor: Row) -> str:
    """The name of a weight inside of its layer: `kernel` of `block/dense_3/kernel`."""
    return str(tensor["tensor"]).removeprefix(f"{tensor['layer']}/")


def _port(edge: Row) -> tuple[int, int]:
    return edge["target_call"], edge["target_input"]


def _source(edge: Row, key: str) -> tuple[str, bool, int, int]:
    return (key, True, edge["source_call"], edge["source_output"])


def _source_text(source: tuple[str, bool, int, int] | None) -> str | None:
    if source is None:
        return None
    key, _, call, output = source
    return key + (f" (call {call})" if call else "") + (f", output {output}" if output else "")

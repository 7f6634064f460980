"""A difference in words: as lines for a terminal, as Markdown, and as data for JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exporter.diff.differences import (
    ADDED,
    CHANGED,
    REMOVED,
    RENAMED,
    REWIRED,
    SAME,
    Change,
    Difference,
    LayerPair,
    TensorPair,
)
from exporter.diff.weights import UNKNOWN
from exporter.memory import format_bytes

# What is to be said first, with the sign that stands before a layer and how many of them are counted in words.
SIGNS = {CHANGED: "~", REMOVED: "-", ADDED: "+", REWIRED: ">", RENAMED: "=", UNKNOWN: "?"}
WORDS = {
    SAME: "the same",
    CHANGED: "changed",
    REMOVED: "removed",
    ADDED: "added",
    REWIRED: "connected to others",
    RENAMED: "renamed only",
    UNKNOWN: "with weights that cannot be compared",
}
# Without --all.
MOST_LAYERS, MOST_DETAILS, MOST_FIELDS, LONGEST_VALUE = 12, 6, 8, 60


@dataclass(frozen=True)
class Entry:
    """One layer: a sign, its title, and what is different."""

    sign: str
    title: str
    details: tuple[str, ...]


def table(difference: Difference, *, everything: bool) -> Iterator[str]:
    """For a terminal: the summary first, then a few layers of each kind of change, or all."""
    rows = [("", "A", "B", "change"), *_totals(difference)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for letter, tables in (("A", difference.before), ("B", difference.after)):
        weights = f", weights: {tables.model['weights']}" if tables.model else ""
        yield f"{letter}: {tables.name}{weights}"
    for name, *cells in rows:
        yield "  ".join(
            [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        ).rstrip()
    yield from summary(difference)
    for status, entries in _shown(difference, everything):
        yield ""
        for entry in entries:
            yield f"{entry.sign} {entry.title}"
            yield from (f"    {detail}" for detail in entry.details)
        if hidden := difference.counts[status] - len(entries):
            yield f"{SIGNS[status]} {_hidden(status, hidden, bool(entries))} (--all shows them)"


def markdown(difference: Difference, *, everything: bool) -> Iterator[str]:
    yield f"| | {_cell(difference.before.name)} | {_cell(difference.after.name)} | change |"
    yield "|---|---:|---:|---:|"
    yield from (f"| {' | '.join(row)} |" for row in _totals(difference))
    yield ""
    yield from (f"- {line}" for line in summary(difference))
    if difference.is_equal:
        return
    yield from ("", "| | layer | difference |", "|---|---|---|")
    for status, entries in _shown(difference, everything):
        for entry in entries:
            yield f"| {entry.sign} | {_cell(entry.title)} | {'<br>'.join(map(_cell, entry.details))} |"
        if hidden := difference.counts[status] - len(entries):
            yield f"| {SIGNS[status]} | {_hidden(status, hidden, bool(entries))} | |"


def _hidden(status: str, number: int, more: bool) -> str:
    return f"… and {number:,} more {WORDS[status]}" if more else f"{number:,} {WORDS[status]}"


def record(difference: Difference) -> dict[str, Any]:
    """Everything that differs, as data for JSON; layers that are the same are only counted. Infinity is a text."""
    layers = [_layer_record(layer) for layer in difference.layers if layer.status != SAME]
    data = {
        "equal": difference.is_equal,
        "before": difference.before.name,
        "after": difference.after.name,
        "layers": {status: difference.counts[status] for status in WORDS},
        "weights": {status: difference.weights[status] for status in (SAME, CHANGED, UNKNOWN, ADDED, REMOVED)},
        "totals": [asdict(change) for change in difference.totals],
        "differences": layers,
    }
    finite: dict[str, Any] = _finite(data)
    return finite


def summary(difference: Difference) -> Iterator[str]:
    """Layers and weights, counted; what could not be compared and why."""
    if difference.is_equal:
        layers = _counted(len(difference.layers), "layer")
        yield f"equal: {layers}, {_counted(difference.weights[SAME], 'weight')} bit-identical"
        return
    counts = difference.counts
    yield "layers: " + ", ".join(f"{counts[status]:,} {words}" for status, words in WORDS.items() if counts[status])
    if fields := Counter(field for layer in difference.layers for field in _fields(layer)):
        yield "changed: " + ", ".join(f"{field} of {number:,}" for field, number in fields.most_common(MOST_FIELDS))
    if weights := ", ".join(_weight_counts(difference)):
        yield f"weights: {weights}"
    reasons = Counter(
        tensor.values.reason for tensor in _tensors(difference) if tensor.status == UNKNOWN and tensor.values
    )
    yield from (f"unknown, {number:,} of the weights: {reason}" for reason, number in reasons.most_common())


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _fields(layer: LayerPair) -> Iterator[str]:
    """What is changed in a layer, each once."""
    if layer.status == CHANGED:
        yield from dict.fromkeys(change.field.removeprefix("settings.") for change in layer.changes)
        if any(tensor.status == CHANGED for tensor in layer.tensors):
            yield "weights"


def _weight_counts(difference: Difference) -> Iterator[str]:
    counts = difference.weights
    if counts[SAME]:
        yield f"{counts[SAME]:,} bit-identical"
    if counts[CHANGED]:
        gaps = [
            (tensor.values.max_abs, tensor.new)
            for tensor in _tensors(difference)
            if tensor.values is not None and tensor.values.max_abs
        ]
        largest = f" (by at most {max(gaps)[0]:.3g}, in {max(gaps)[1]})" if gaps else ""
        yield f"{counts[CHANGED]:,} different{largest}"
    yield from (
        f"{counts[status]:,} {words}"
        for status, words in ((UNKNOWN, "unknown"), (ADDED, "added"), (REMOVED, "removed"))
        if counts[status]
    )


def _tensors(difference: Difference) -> Iterator[TensorPair]:
    return (tensor for layer in difference.layers for tensor in layer.tensors)


def _totals(difference: Difference) -> list[tuple[str, str, str, str]]:
    layers = Change("layers", len(difference.before.layers), len(difference.after.layers))
    return [
        (change.field, _amount(change.field, change.old), _amount(change.field, change.new), _growth(change))
        for change in (layers, *difference.totals)
        if (change.old, change.new) != (None, None)
    ]


def _amount(field: str, value: int | None) -> str:
    if value is None:
        return "unknown"
    return format_bytes(value) if field.endswith("_bytes") else f"{value:,}"


def _growth(change: Change) -> str:
    if None in (change.old, change.new):
        return "unknown"
    if change.old == change.new:
        return "none"
    return f"{(change.new - change.old) / change.old:+.1%}" if change.old else f"{change.new:+,}"


def _shown(difference: Difference, everything: bool) -> Iterator[tuple[str, Sequence[Entry]]]:
    for status, sign in SIGNS.items():
        layers = [layer for layer in difference.layers if layer.status == status]
        layers.sort(key=lambda layer: layer.is_only_trained_otherwise)
        if layers:
            most = len(layers) if everything else 0 if status == UNKNOWN else MOST_LAYERS
            yield status, [_entry(sign, layer, everything) for layer in layers[:most]]


def _entry(sign: str, layer: LayerPair, everything: bool) -> Entry:
    title = f"{layer.key} ({layer.class_name})"
    if layer.old and layer.new and layer.old != layer.new:
        title = f"{layer.old} → {layer.new} ({layer.class_name})"
    found = list(details(layer))
    hidden = 0 if everything else max(0, len(found) - MOST_DETAILS)
    return Entry(sign, title, (*found[: len(found) - hidden], *([f"… {hidden} more"] if hidden else [])))


def details(layer: LayerPair) -> Iterator[str]:
    """What is different in a layer that is in both models, one line for each."""
    if layer.old is None or layer.new is None:
        return
    fields = {change.field for change in layer.changes}
    for change in (*layer.changes, *layer.connections):
        yield f"{change.field.removeprefix('settings.')}: {_value(change.old)} → {_value(change.new)}"
    for tensor in layer.tensors:
        yield from _tensor_details(tensor, fields)
    for change in layer.costs:
        yield f"{change.field}: {_amount(change.field, change.old)} → {_amount(change.field, change.new)}"


def _tensor_details(tensor: TensorPair, told: Container[str]) -> Iterator[str]:
    """Without what has been told of the layer: its weights are trained as it is."""
    name = (tensor.new or tensor.old or "").rpartition("/")[2]
    if tensor.status in (ADDED, REMOVED):
        yield f"{name}: {tensor.status}"
    for change in tensor.changes:
        if not (change.field == "trainable" and "trainable" in told):
            yield f"{name}: {change.field} {_value(change.old)} → {_value(change.new)}"
    if tensor.values and tensor.values.count:
        found = tensor.values
        relative = f", {found.relative:.2g} of the largest magnitude" if found.relative is not None else ""
        how = f" ({found.reason})" if found.reason else ""
        yield f"{name}: {found.count:,} of {found.elements:,} elements differ, by at most {found.max_abs:.3g}" + (
            f"{relative}{how}"
        )
    elif tensor.status == CHANGED and tensor.values:
        yield f"{name}: different ({tensor.values.reason})"


def _value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _layer_record(layer: LayerPair) -> dict[str, Any]:
    tensors = [asdict(tensor) | {"status": tensor.status} for tensor in layer.tensors if tensor.status != SAME]
    return {"status": layer.status, **asdict(layer), "tensors": tensors}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

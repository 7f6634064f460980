"""What `export-model inspect` shows of an export's folder, as a stream of lines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from exporter.commands import listing
from exporter.commands.columns import Layout, Parts
from exporter.commands.row_choice import ASCENDING, Choice, chosen
from exporter.errors import UsageError
from exporter.formats.block_tree import block_tree, summed
from exporter.formats.node_style import TRAIT_SETTINGS, amount
from exporter.formats.outline import fitted
from exporter.memory import format_bytes
from exporter.stored.model import read_model
from exporter.stored.tables import rows as stored_rows
from exporter.suspicions import Row, suspicions

# Of a pipe or a file, which have no size.
PAGE_WIDTH, PAGE_LINES = 100, 50
# Of the screen beside the rows: the heading, the totals, the hint, the next prompt.
OTHER_LINES = 5
LAYER_KEYS = ("layer", "class", "output_shapes", "params", "weight_bytes", "macs", "connected_to")
CHOOSING_KEYS = ("index", "name", "depth")


@dataclass(frozen=True)
class Look:
    """How the rows are shown; `everything` means each row, with nothing folded and nothing left out."""

    style: str
    stats: bool
    everything: bool
    choice: Choice

    @property
    def table(self) -> str:
        return "tensors" if self.stats else "layers"

    @property
    def folds(self) -> bool:
        """Whether repeated blocks are one line: where nobody asks for rows."""
        asked = self.everything or self.stats or self.choice.order or self.choice.top
        return not asked and self.style in ("table", "tree")


def lines(folder: Path, look: Look) -> Iterator[Parts]:
    """All that is printed of an export's folder. Raises SourceError and UsageError."""
    if look.style in ("json", "csv"):
        return ([(text, {})] for text in _data(folder, look))
    if look.stats:
        return _weights(folder, look)
    about = next(stored_rows(folder, "models"), {})
    count, screen = about.get("layers", 0), _screen_lines() - OTHER_LINES
    if look.folds and (look.style == "tree" or count > screen):
        return _folded(folder, look, about)
    # What fits is shown layer by layer, as Keras does.
    return _layers(folder, look, about)


def _screen_lines() -> int:
    return shutil.get_terminal_size((PAGE_WIDTH, PAGE_LINES)).lines


def _width() -> int | None:
    """Of a terminal; pipes and files have no limit."""
    return shutil.get_terminal_size((PAGE_WIDTH, PAGE_LINES)).columns if sys.stdout.isatty() else None


def _rows(folder: Path, look: Look) -> Iterator[Row]:
    columns = () if look.stats else (*LAYER_KEYS, *CHOOSING_KEYS)
    return chosen(look.table, stored_rows(folder, look.table, columns), look.choice)


def _layers(folder: Path, look: Look, about: Row) -> Iterator[Parts]:
    columns = listing.layer_columns(about.get("params", 0), nested=look.style == "tree")
    if look.choice.order is None:
        yield from listing.table(partial(_rows, folder, look), columns, _width())
    else:
        # Sorted once; a table needs two passes.
        held = list(_rows(folder, look))
        yield from listing.table(lambda: iter(held), columns, _width())
        if about and len(held) < about["layers"]:
            yield _left_out(look, held, "layers", about["layers"], about["weight_bytes"])
    yield from totals(about)


def _left_out(look: Look, shown: Sequence[Row], what: str, count: int, nbytes: int) -> Parts:
    rest = nbytes - sum(row["nbytes" if look.stats else "weight_bytes"] for row in shown)
    more = "more" if look.choice.order in ASCENDING or look.choice.depth else "smaller"
    return _text(f"… and {count - len(shown):,} {more} {what}, {format_bytes(rest)} (--all)")


def _text(text: str) -> Parts:
    return [(text, {})]


def totals(about: Row) -> Iterator[Parts]:
    """The last lines; nothing where there is no table of the model."""
    if not about:
        return
    params, trainable = about["params"], about["params_trainable"]
    size = format_bytes(about["weight_bytes"])
    dtypes = ", ".join(entry["dtype"] for entry in about["weights_by_dtype"])
    costs = f", {macs} MACs" if (macs := _macs(about)) else ""
    yield _text(
        f"{about['layers']:,} layers, {params:,} parameters ({trainable:,} trainable, {params - trainable:,} not)"
    )
    yield _text(f"{size} of weights{f' in {dtypes}' if dtypes else ''}{costs}; weights: {about['weights']}")


def _macs(about: Row) -> str:
    """`≥` where those of some layers are unknown; nothing where all that are known are none."""
    if about["macs"] is None or (about["layers_without_cost"] and not about["macs"]):
        return ""
    return f"{'≥' if about['layers_without_cost'] else ''}{amount(about['macs'])}"


def _folded(folder: Path, look: Look, about: Row) -> Iterator[Parts]:
    """The model's outline in its own order: as much as fits on the screen, or all of it as a tree."""
    model = read_model(folder, settings=TRAIT_SETTINGS, weights=False)
    entries = block_tree(model.graph, model.costs)
    room = None if look.style == "tree" else max(_screen_lines() - OTHER_LINES, 1)
    shown = fitted(entries, room, look.choice.depth)
    layout = Layout(shown, summed(entries), shutil.get_terminal_size((PAGE_WIDTH, PAGE_LINES)).columns, with_bytes=True)
    yield layout.heading()
    yield from map(layout.row, shown)
    yield from totals(about)
    closed = any(line.closed or line.left_out for line in shown)
    yield [(f"{'more inside: --format tree; ' if closed else ''}every layer: --all", {"dim": True})]


def _measured(folder: Path) -> list[Row]:
    """Raises UsageError where the export was made without statistics."""
    rows = list(stored_rows(folder, "tensors"))
    if any(row["sha256"] is None for row in rows):
        hint = "export it again with --stats, or name the source instead of the folder"
        raise UsageError("has no statistics", where=str(folder), why="it was exported without --stats", hint=hint)
    return rows


def _weights(folder: Path, look: Look) -> Iterator[Parts]:
    rows = _measured(folder)
    shown = list(chosen("tensors", rows, look.choice))
    yield from listing.table(lambda: iter(shown), listing.TENSOR_COLUMNS, _width())
    if len(shown) < len(rows):
        yield _left_out(look, shown, "weights", len(rows), sum(row["nbytes"] for row in rows))
    findings = suspicions(rows, None if look.everything else look.choice.top)
    yield _text("")
    yield _text("suspicious:" if findings else "nothing is suspicious")
    yield from (_text(f"  {finding}") for finding in findings)


def _data(folder: Path, look: Look) -> Iterator[str]:
    """For programs: all rows unless some are asked for."""
    about = next(stored_rows(folder, "models"), {})
    if look.stats:
        measured = _measured(folder)
        keys: Sequence[str] = list(measured[0]) if measured else ()
        rows, findings = chosen("tensors", measured, look.choice), suspicions(measured, None)
    else:
        keys, rows, findings = LAYER_KEYS, _rows(folder, look), []
    if look.style == "csv":
        return listing.csv_text(rows, keys)
    return listing.json_text(about, rows, keys, findings)

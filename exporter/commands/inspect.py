"""`export-model inspect TARGET`: the layers of a model, or statistics of its weights, on one screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from exporter import console, plan
from exporter.commands.exported import exported
from exporter.commands.rows import aligned, csv_line, plain
from exporter.errors import SourceError, UsageError
from exporter.memory import format_bytes
from exporter.session import Run
from exporter.suspicions import Row, suspicions

FORMATS = ("table", "json", "csv")
BARS = " ▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 16
LAYER_KEYS = ("layer", "class", "output_shapes", "params", "weight_bytes", "macs")
EPILOG = """
\b
Examples:
  export-model inspect outputs/resnet101
  export-model inspect model.keras --stats
  export-model inspect model.keras --stats --all --format csv > weights.csv
"""


@click.command(epilog=EPILOG)
@click.argument("target")
@click.option("--stats", is_flag=True, help="Weights, with histograms, and what is suspicious in them.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rows, the largest ones.")
@click.option("--all", "everything", is_flag=True, help="All rows, in the model's own order.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--weights", default="auto", show_default=True, help="Of a source: auto, imagenet, random or a file.")
@click.option("--trust-code", is_flag=True, help="Run code that comes with a source. Only for models you trust.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the worker printed.")
@click.pass_obj
def command(
    run: Run,
    target: str,
    *,
    stats: bool,
    top: int,
    everything: bool,
    style: str,
    weights: str,
    trust_code: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Show the layers of TARGET or, with --stats, its weights.

    TARGET is the folder of an export, or a source as `export-model` takes it, which is then exported into a temporary
    folder. Without --all, the largest layers or weights are shown.
    """
    options = plan.ExportOptions(
        formats=("parquet",), weights=weights, stats=stats, verify=False, trust_code=trust_code
    )
    display = console.choose_display(quiet=quiet or style != "table", verbose=False, debug=debug)
    with exported(run, target, options, display, needs="tensors.parquet") as folder:
        rows = _tensors(folder) if stats else _layers(folder)
    findings = suspicions(rows, None if everything or style != "table" else top) if stats else []
    shown = rows if everything else _largest(rows, "nbytes" if stats else "params", top)
    if style == "table":
        _print_table(shown, rows, stats)
        _print_findings(findings, stats)
    else:
        console.say(_as_json(shown, findings) if style == "json" else _as_csv(shown), err=False)
    return 0


def _read(path: Path, keys: Sequence[str]) -> list[Row]:
    """The columns that there are. Raises SourceError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [key for key in keys if key in file.schema_arrow.names] if keys else None
            rows: list[Row] = file.read(columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SourceError("cannot be read", where=str(path), why=str(error), hint="export it again") from error
    return rows


def _layers(folder: Path) -> list[Row]:
    return _read(folder / "layers.parquet", LAYER_KEYS)


def _tensors(folder: Path) -> list[Row]:
    """Raises UsageError where the export was made without statistics."""
    rows = _read(folder / "tensors.parquet", ())
    if any(row.get("sha256") is None for row in rows):
        hint = "export it again with --stats, or name the source instead of the folder"
        raise UsageError("has no statistics", where=str(folder), why="it was exported without --stats", hint=hint)
    return rows


def _largest(rows: Sequence[Row], key: str, top: int) -> list[Row]:
    return sorted(rows, key=lambda row: -row[key])[:top]


def sparkline(counts: Sequence[int] | None) -> str:
    """A histogram as one line; an empty bin is a space, every other at least the lowest bar."""
    counts = counts or ()
    step = max(1, len(counts) // SPARKLINE_WIDTH)
    bins = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    most = max(bins, default=0)
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] if count else BARS[0] for count in bins)


def _shape(shape: Sequence[int | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


TENSOR_COLUMNS: dict[str, Callable[[Row], str]] = {
    "tensor": lambda row: row["tensor"],
    "shape": lambda row: _shape(row["shape"]),
    "dtype": lambda row: row["dtype"],
    "bytes": lambda row: format_bytes(row["nbytes"]),
    "histogram": lambda row: sparkline(row["histogram_counts"]),
    "min": lambda row: _number(row["min"]),
    "max": lambda row: _number(row["max"]),
    "mean": lambda row: _number(row["mean"]),
    "std": lambda row: _number(row["std"]),
    "zeros": lambda row: f"{row['zeros']:,}",
}


def _layer_columns(total: int) -> dict[str, Callable[[Row], str]]:
    return {
        "layer": lambda row: row["layer"],
        "class": lambda row: row["class"],
        "output": lambda row: " ".join("" if shape is None else _shape(shape) for shape in row["output_shapes"] or ()),
        "params": lambda row: f"{row['params']:,}",
        "share": lambda row: f"{row['params'] / total:.1%}" if total else "",
        "bytes": lambda row: format_bytes(row["weight_bytes"]),
        "MACs": lambda row: "" if row.get("macs") is None else f"{row['macs']:,}",
    }


def _print_table(shown: Sequence[Row], rows: Sequence[Row], stats: bool) -> None:
    columns = TENSOR_COLUMNS if stats else _layer_columns(sum(row["params"] for row in rows))
    lines = [list(columns), *([cell(row) for cell in columns.values()] for row in shown)]
    for line in aligned(lines, [False] * len(columns)):
        console.say(line, err=False)
    if len(shown) < len(rows):
        what, key = ("weights", "nbytes") if stats else ("layers", "weight_bytes")
        rest = sum(row[key] for row in rows) - sum(row[key] for row in shown)
        console.say(f"… and {len(rows) - len(shown):,} smaller {what}, {format_bytes(rest)} (--all)", err=False)


def _print_findings(findings: Sequence[str], stats: bool) -> None:
    if stats:
        console.say("\nsuspicious:" if findings else "\nnothing is suspicious", err=False)
        for finding in findings:
            console.say(f"  {finding}", err=False)


def _as_json(rows: Sequence[Row], findings: Sequence[str]) -> str:
    """A norm that float64 cannot hold is null."""
    record = {"rows": plain(list(rows)), "suspicious": findings}
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)


def _as_csv(rows: Sequence[Row]) -> str:
    return "\n".join(map(csv_line, [rows[0], *(row.values() for row in rows)])) if rows else ""

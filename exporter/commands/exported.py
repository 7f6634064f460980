"""What a command looks at: an export that is there, or a fresh one of a source, made aside and removed afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter import console, plan
from exporter.errors import UsageError
from exporter.session import Run, export_aside
from exporter.storage.exports import at_hand, tables


@contextmanager
def exported(
    run: Run, target: str, options: plan.ExportOptions, display: console.Display, *, needs: str
) -> Iterator[Path]:
    """The folder of an export that has the table `needs`, such as `layers.parquet`. Raises ExportError."""
    with at_hand(target, tables) as folder:
        if Path(folder, needs).exists():
            yield Path(folder)
            return
        if Path(folder, "manifest.json").exists():
            hint = f"export it again with --to parquet{' --stats' if options.stats else ''}"
            raise UsageError("cannot be shown", where=target, why=f"this export has no {needs}", hint=hint)
    with tempfile.TemporaryDirectory(prefix="export-model-aside-", ignore_cleanup_errors=True) as place:
        yield export_aside(run, display, options, target, Path(place))

"""All that a batch tells: while it runs on stderr and in the metrics file, at its end on stdout and in its reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from exporter import console
from exporter.batch.listener import Listener, Listeners
from exporter.batch.tasks import BatchResult
from exporter.displays import batch_summary, json_log
from exporter.displays.lines import Lines, OneModel
from exporter.errors import ExportError, OutputError, UsageError
from exporter.records import Outcome
from exporter.reports.batch_report import Gathering, write_reports
from exporter.reports.exit_status import exit_status
from exporter.reports.metrics_file import MetricsFile
from exporter.reports.tally import Budget
from exporter.storage import exports
from exporter.storage.addresses import is_address, place_in, public

LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class TellingOptions:
    """The flags that say what is told. `report`: whether the batch leaves its own table and pages."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    log_format: str = "text"
    metrics_file: str | None = None
    report: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.log_format not in LOG_FORMATS:
            raise UsageError(
                "cannot be used", where=f"--log-format {self.log_format}", why=f"there are {', '.join(LOG_FORMATS)}"
            )


class Telling:
    """Of one batch of `count` models into the folder `output`; its block gives the terminal back whatever happens."""

    def __init__(self, options: TellingOptions, output: str, count: int, budget: Budget) -> None:
        """Raises OutputError when the metrics file cannot be written."""
        self.options, self.output = options, output
        name = os.path.basename(os.path.abspath(output))
        self._gathering = Gathering(name, budget)
        self._display = choose_display(options, count, budget)
        self._metrics = MetricsFile(Path(options.metrics_file), name, budget) if options.metrics_file else None
        self.listener = Listeners([*filter(None, [self._display, self._metrics, self._gathering])])

    def __enter__(self) -> Telling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if close := getattr(self._display, "close", None):
            close()

    def conclude(self, refused: Sequence[Outcome], batch: BatchResult) -> int:
        """Reports and summary of the ended batch. Returns its exit status."""
        status = exit_status(refused, batch)
        written: Sequence[str] = ()
        report = self._gathering.report
        assert report is not None, "the batch has ended"
        if self.options.report:
            try:
                with exports.written_to(self.output) as folder:
                    paths = write_reports(report, folder)
                written = [place_in(self.output, path.name) for path in paths]
            except (OutputError, UsageError) as error:
                self._report(error)
                status = status or error.status
        if not self.options.quiet:
            place = public(self.output) if is_address(self.output) else self.output
            batch_summary.show(report, written, place=place, verbose=self.options.verbose)
        if self._metrics and self._metrics.error:
            self._report(self._metrics.error)
            status = status or self._metrics.error.status
        return status

    def _report(self, error: ExportError) -> None:
        if self.options.log_format == "json":
            json_log.write("error", error=json_log.error_record(error))
        else:
            console.report(error)


def choose_display(options: TellingOptions, count: int, budget: Budget) -> Listener:
    """What fits to stderr: JSON where it is asked for, a table that moves on a terminal, lines elsewhere."""
    quiet, verbose, debug = options.quiet, options.verbose, options.debug
    if options.log_format == "json":
        return json_log.JsonLog(budget, quiet=quiet, debug=debug)
    if count == 1:
        return OneModel(console.choose_display(quiet=quiet, verbose=verbose, debug=debug), quiet=quiet)
    if not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from exporter.displays.live_table import LiveTable

        return LiveTable(budget, verbose=verbose, debug=debug)
    return Lines(quiet=quiet, verbose=verbose, debug=debug)

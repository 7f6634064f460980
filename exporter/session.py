"""One call of the program: run what has been planned, report, and say how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from exporter import console, plan, resuming, summary, wire
from exporter.errors import StoppedError, from_record, gravest_status
from exporter.options import checked
from exporter.records import Job, Outcome
from exporter.storage.addresses import public

# Of files with weights beside an ONNX file, which a look at its graph does not need.
DATA_ENDING = ".onnx.data"
Planned = Job | plan.Refusal


class Run(Protocol):
    """Turns a job into its outcome, within `limits`; `exporter.supervisor.run` is the real one."""

    def __call__(self, job: Job, *, watch: Callable[[wire.Event], None], **limits: Any) -> Outcome: ...


def run_in_child(job: Job, *, watch: Callable[[wire.Event], None], **limits: Any) -> Outcome:
    from exporter import early_start
    from exporter.batch.execution import execute
    from exporter.readers import is_only_read

    server = early_start.reading_server()
    if server and is_only_read(job):
        limits = {"spawn": server.spawn, **limits}
    return execute(job, begin=lambda: None, watch=watch, **limits)


def export_aside(run: Run, display: console.Display, options: plan.ExportOptions, source: str, place: Path) -> Path:
    """The folder of a fresh export in `place`, for a command that only looks at it. Raises ExportError."""
    (job,) = plan.plan([source], replace(options, output=str(place)))
    if isinstance(job, plan.Refusal):
        raise job.error
    display.begin(job.name)
    try:
        outcome = run(job, watch=display.take)
    finally:
        display.end()
    if outcome.error is not None:
        raise from_record({key: str(value) for key, value in outcome.error.items()})
    return Path(outcome.output_path)


class Session:
    """`force` exports again what is up to date; the others say how much is printed."""

    def __init__(self, run: Run, *, force: bool, quiet: bool, verbose: bool, debug: bool) -> None:
        self.run, self.force = run, force
        self.quiet, self.verbose, self.debug = quiet, verbose, debug

    def export(self, entry: Planned) -> Outcome:
        """One source, which has the display to itself. Raises StoppedError."""
        outcome = self._outcome(entry)
        if error := summary.failure(outcome):
            trace = str((outcome.error or {}).get("trace", "")) if self.debug else ""
            console.report(error, trace)
        if not self.quiet:
            summary.show(outcome, verbose=self.verbose)
        return outcome

    def export_all(self, planned: Sequence[Planned], options: plan.ExportOptions) -> list[Outcome]:
        """Several, side by side as a batch that leaves no report; in the order of the sources. Raises StoppedError."""
        from exporter.batch.tasks import Policy
        from exporter.batch_session import BatchSession
        from exporter.displays.telling import TellingOptions

        policy = Policy(max_memory_bytes=checked(options).max_memory_bytes, force=self.force)
        telling = TellingOptions(quiet=self.quiet, verbose=self.verbose, debug=self.debug, report=False)
        return BatchSession(self.run, policy, telling).carry_out(planned, options.output).outcomes

    def _outcome(self, entry: Planned) -> Outcome:
        if isinstance(entry, plan.Refusal):
            return Outcome(entry.source, "failed", error=entry.error.as_record())
        display = console.choose_display(quiet=self.quiet, verbose=self.verbose, debug=self.debug)
        try:
            if not self.force and self._is_done(entry):
                return resuming.skipped(entry)
            display.begin(entry.name)
            try:
                return self.run(replace(entry, is_alone=True), watch=display.take)
            finally:
                display.end()
        except KeyboardInterrupt:
            why, hint = f"{entry.name} is not finished", "the same command again"
            raise StoppedError("interrupted", why=why, hint=hint) from None

    def _is_done(self, job: Job) -> bool:
        """A digest of large files takes a while, which should not look like a hang."""
        if resuming.must_read(job) and not self.quiet:
            console.say(f"{job.name}: reading the source to see whether it has changed")
        return resuming.is_done(job)

    def view(self, outcomes: Sequence[Outcome], browser: bool, port: int | None) -> None:
        """Show the first model that is there, until Ctrl-C."""
        for outcome in outcomes:
            if outcome.status != "failed":
                serve([outcome.output_path], browser=browser, port=port)
                return

    def status(self, outcomes: Sequence[Outcome]) -> int:
        """That of the gravest failure, 0 without one."""
        return gravest_status(map(summary.failure, outcomes))


def serve(
    targets: Sequence[str], *, browser: bool, port: int | None, full: bool = False, host: str | None = None
) -> None:
    """Netron, until Ctrl-C. Raises SourceError, UsageError and UnsupportedError."""
    import tempfile

    from exporter.storage.exports import brought
    from exporter.view import choice, server

    host = host or server.LOOPBACK
    with tempfile.TemporaryDirectory(prefix="export-model-view-") as folder, ExitStack() as copies:
        shown = []
        for number, target in enumerate(targets, 1):
            place = Path(folder, str(number))
            place.mkdir()
            path = copies.enter_context(brought(target, lambda name: full or not name.endswith(DATA_ENDING)))
            shown.append(choice.choose(path, place, full=full))
            console.say(f"{public(target) if path != target else target}: {shown[-1].reason}")
        if host not in server.OWN_NAMES:
            console.say(f"--host {host}: everybody who can reach this machine there can see the model", fg="yellow")
        server.serve(shown, port=port, browser=browser, announce=_announce, host=host)


def _announce(address: str) -> None:
    console.say(f"{address} shows the model, Ctrl-C ends it", err=False)

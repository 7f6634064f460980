"""What the user sees while jobs run, and how errors read: everything here goes to stderr."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

import click

from exporter import wire
from exporter.errors import ExportError
from exporter.memory import format_bytes

# Names and messages may come out of a model file: no control characters (terminal escapes) and no lone surrogates.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
PLAIN_PROGRESS_SECONDS = 10.0
# A rate taken over less than this says nothing.
SETTLING_SECONDS = 0.5
# Each call of `click.echo` flushes, which takes longer than making a line.
ECHOED_LINES = 500
# The texts of a line, each with the arguments of `click.style`.
Styled = Iterable[tuple[str, Mapping[str, Any]]]


def say(text: str, *, err: bool = True, **style: Any) -> None:
    """Print a line that no terminal and no encoding trips over; `style` is that of `click.style`."""
    say_parts([(text, style)], err=err)


def say_parts(parts: Styled, *, err: bool = True) -> None:
    """A line of texts with a style each. Without a terminal, or with NO_COLOR (no-color.org), there are no colours."""
    click.echo(_joined(parts, err), err=err, color=_colours())


def page(lines: Iterable[Styled]) -> None:
    """Lines for stdout; on a terminal those of more than a screen go through the pager, as they come."""
    stream, most = iter(lines), shutil.get_terminal_size().lines - 1
    first = list(islice(stream, most + 1)) if sys.stdout.isatty() else []
    if len(first) > most:
        click.echo_via_pager((f"{_joined(line, False)}\n" for line in chain(first, stream)), color=_colours())
        return
    rest = chain(first, stream)
    while several := [_joined(line, False) for line in islice(rest, ECHOED_LINES)]:
        click.echo("\n".join(several), color=_colours())


def _joined(parts: Styled, err: bool) -> str:
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    line = []
    for text, style in parts:
        encodable = printable(text).encode(encoding, "replace").decode(encoding)
        line.append(click.style(encodable, **style) if style else encodable)
    return "".join(line)


def _colours() -> bool | None:
    """What `click.echo` takes: None leaves it to whether there is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def printable(text: str) -> str:
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def report(error: ExportError, trace: str = "") -> None:
    """The error as the user reads it; `trace` is for `--debug`."""
    say(f"error: {error}", fg="red")
    if error.hint:
        say(f"  try: {error.hint}")
    if trace:
        say(trace.rstrip())


class Pace:
    """How fast bytes go, and when they will be done: the mean since the first that were told."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def text(self, done_bytes: int, total_bytes: int) -> str:
        """`1.2 GB of 12 GB, 800 MB/s, 14 s left`; without the last two as long as they are not known."""
        now = time.monotonic()
        start, before = self._start = self._start or (now, done_bytes)
        text = f"{format_bytes(done_bytes)} of {format_bytes(total_bytes)}"
        if now - start < SETTLING_SECONDS or done_bytes == before:
            return text
        rate = (done_bytes - before) / (now - start)
        left = (total_bytes - done_bytes) / rate
        return f"{text}, {format_bytes(int(rate))}/s, {left:.0f} s left"


class Display:
    """Progress that nobody sees (`-q`), and what the visible ones have in common."""

    def __init__(self, *, verbose: bool = False, debug: bool = False) -> None:
        self.verbose, self.debug = verbose, debug
        self.name = ""
        self.pace = Pace()

    def begin(self, name: str) -> None:
        """A model starts."""
        self.name = name

    def end(self) -> None:
        """The model that was begun has ended, well or not."""

    def take(self, event: wire.Event) -> None:
        """Show what the worker, or the parent that watches it, has to tell."""
        if isinstance(event, wire.StageEvent):
            self.pace = Pace()
        if isinstance(event, wire.LogEvent) and self.debug and event.tail.strip():
            self.line(f"the worker printed:\n{event.tail.rstrip()}")

    def line(self, text: str) -> None:
        """A line that stays."""
        say(f"{self.name}: {text}")


class PlainDisplay(Display):
    """Lines for logs and pipes: one for each finished stage, and now and then how many bytes are done."""

    def __init__(self, *, verbose: bool = False, debug: bool = False) -> None:
        super().__init__(verbose=verbose, debug=debug)
        self._progress_shown = time.monotonic()

    def begin(self, name: str) -> None:
        super().begin(name)
        self.line("started")

    def take(self, event: wire.Event) -> None:
        super().take(event)
        if text := self._text(event):
            self.line(text)

    def _text(self, event: wire.Event) -> str:
        if isinstance(event, wire.NoteEvent):
            return f"note: {event.text}"
        if isinstance(event, wire.StageEvent):
            self._progress_shown = time.monotonic()
            return self._stage_line(event)
        due = time.monotonic() - self._progress_shown >= PLAIN_PROGRESS_SECONDS
        if isinstance(event, wire.ProgressEvent):
            text = self.pace.text(event.done_bytes, event.total_bytes)
            self._progress_shown = time.monotonic() if due else self._progress_shown
            return f"{event.stage}: {text}" if due else ""
        return ""

    def _stage_line(self, event: wire.StageEvent) -> str:
        if event.state == "end":
            return stage_line(event)
        return f"{event.stage} …" if self.verbose else ""


class TerminalDisplay(Display):
    """A line that moves: the stage, its seconds, its bytes, the memory in use. Finished stages stay above it."""

    def __init__(self, *, verbose: bool = False, debug: bool = False) -> None:
        super().__init__(verbose=verbose, debug=debug)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        text = [TextColumn("{task.fields[" + key + "]}", markup=False) for key in ("model", "stage", "bytes", "memory")]
        columns = (SpinnerColumn(), text[0], text[1], BarColumn(20), text[2], TimeElapsedColumn(), text[3])
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def begin(self, name: str) -> None:
        super().begin(name)
        self._begin_stage("start")
        self._progress.start()

    def end(self) -> None:
        self._progress.stop()

    def line(self, text: str, style: str = "dim") -> None:
        """Through rich, which keeps the moving line below it; the text is no markup."""
        self._progress.console.out(f"{printable(self.name)}: {printable(text)}", style=style, highlight=False)

    def take(self, event: wire.Event) -> None:
        super().take(event)
        if isinstance(event, wire.MemoryEvent):
            self._progress.update(self._task, memory=format_bytes(event.rss_bytes))
        elif isinstance(event, wire.ProgressEvent):
            done = self.pace.text(event.done_bytes, event.total_bytes)
            self._progress.update(self._task, completed=event.done_bytes, total=event.total_bytes, bytes=done)
        elif isinstance(event, wire.NoteEvent):
            self.line(f"note: {event.text}", style="bold yellow")
        elif isinstance(event, wire.StageEvent):
            self._take_stage(event)

    def _take_stage(self, event: wire.StageEvent) -> None:
        if event.state == "end":
            self.line(stage_line(event))
        self._begin_stage(event.stage if event.state == "start" else "…")

    def _begin_stage(self, stage: str) -> None:
        """Each stage is a task of its own, so that its seconds start at zero and its bar has no total yet."""
        for task in list(self._progress.task_ids):
            self._progress.remove_task(task)
        fields: Mapping[str, Any] = {
            "model": printable(self.name),
            "stage": printable(stage),
            "bytes": "",
            "memory": "",
        }
        self._task = self._progress.add_task("", total=None, **fields)


def stage_line(event: wire.StageEvent) -> str:
    return f"{event.stage}: {event.seconds:.1f} s, peak memory {format_bytes(event.peak_rss_bytes)}"


def choose_display(*, quiet: bool, verbose: bool, debug: bool) -> Display:
    """What fits to stderr: a moving line on a terminal, plain lines elsewhere, nothing with `-q`."""
    if quiet:
        return Display(debug=debug)
    moving = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return (TerminalDisplay if moving else PlainDisplay)(verbose=verbose, debug=debug)

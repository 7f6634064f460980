"""Progress of an export in the cell of a notebook: one line that changes, and the notes."""

from __future__ import annotations

import sys
import time
from typing import Any

from exporter import console, wire
from exporter.memory import format_bytes

# A notebook's page redraws for every change.
UPDATE_SECONDS = 0.25


def choose_display(*, quiet: bool) -> console.Display:
    """The display of the command line, unless there is a notebook's page."""
    if quiet or not _in_notebook():
        return console.choose_display(quiet=quiet, verbose=False, debug=False)
    return CellDisplay()


def _in_notebook() -> bool:
    """Whether a kernel shows rich output; nothing is imported for the question."""
    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell is not None else None
    return current is not None and getattr(current, "kernel", None) is not None


class CellDisplay(console.Display):
    """Through IPython's own means: a line on the standard output could not be taken back."""

    def __init__(self) -> None:
        super().__init__()
        from IPython.display import display

        self._handle = display({"text/plain": "…"}, raw=True, display_id=True)
        self._shown_at = 0.0
        self._stage, self._memory = "", ""

    def begin(self, name: str) -> None:
        super().begin(name)
        self._show("starting", at_once=True)

    def end(self) -> None:
        self._show("", at_once=True)

    def take(self, event: wire.Event) -> None:
        super().take(event)
        if isinstance(event, wire.StageEvent):
            self._stage = event.stage if event.state == "start" else ""
            self._show(self._stage)
        elif isinstance(event, wire.ProgressEvent):
            self._show(f"{self._stage}: {self.pace.text(event.done_bytes, event.total_bytes)}")
        elif isinstance(event, wire.MemoryEvent):
            self._memory = format_bytes(event.rss_bytes)
            self._show(self._stage)

    def _show(self, text: str, *, at_once: bool = False) -> None:
        """The line of the moment; nothing is left of it at the end."""
        now = time.monotonic()
        if not at_once and now - self._shown_at < UPDATE_SECONDS:
            return
        self._shown_at = now
        parts: list[Any] = [self.name, text, f"{self._memory} in use" if self._memory else ""]
        line = ", ".join(part for part in parts if part) if text else ""
        self._handle.update({"text/plain": line}, raw=True)

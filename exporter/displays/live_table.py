"""A batch on a terminal: a row for each model that runs, totals below, and what deserves to stay above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from exporter import console, wire
from exporter.batch.tasks import BatchResult, Task
from exporter.displays.lines import Lines, clock
from exporter.memory import format_bytes
from exporter.records import Outcome
from exporter.reports.entries import DONE, SKIPPED, TITLES, duration
from exporter.reports.tally import Budget, Running

# The line below all on which the cursor stands.
CURSOR_LINES = 1
# With less, there are only totals.
ROOM_FOR_ROWS = 2
STYLES = {"red": "bold red", "yellow": "bold yellow"}


class LiveTable(Lines):
    """Drawn about four times a second by the batch's own thread; never higher than the terminal."""

    def __init__(
        self, budget: Budget, *, verbose: bool = False, debug: bool = False, screen: Console | None = None
    ) -> None:
        super().__init__(verbose=verbose, debug=debug)
        self.budget = budget
        self.screen = screen or Console(stderr=True)
        self._live = Live(console=self.screen, auto_refresh=False, transient=True)
        self._paces: dict[int, console.Pace] = {}

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        super().begin(tasks, refused)
        self._live.start()
        self._draw()

    def event(self, task: Task, event: wire.Event) -> None:
        super().event(task, event)
        if isinstance(event, wire.StageEvent):
            self._paces.pop(task.number, None)

    def is_worth_a_line(self, outcome: Outcome) -> bool:
        return self.verbose or outcome.status not in (DONE, SKIPPED)

    def tick(self, used_bytes: int) -> None:
        super().tick(used_bytes)
        self._draw()

    def end(self, batch: BatchResult) -> None:
        super().end(batch)
        self.close()

    def close(self) -> None:
        """Give the terminal back; also after a defect, and more than once."""
        self._live.stop()

    def say(self, text: str, **style: Any) -> None:
        """Through rich, which keeps the table below it; the text is no markup."""
        self.screen.out(console.printable(text), style=STYLES.get(style.get("fg", "")), highlight=False)

    def _draw(self) -> None:
        self._live.update(self.picture(), refresh=True)

    def picture(self) -> Group:
        """As many rows as there is room for, and the totals; in a tiny terminal only how many models are finished."""
        height = max(1, self.screen.size.height - CURSOR_LINES)
        totals = list(self._totals())[: height if height <= ROOM_FOR_ROWS else None]
        running = sorted(self.tally.running.values(), key=lambda each: each.since)
        room = height - len(totals)
        shown = running if len(running) <= room else running[: max(0, room - 1)]
        left_out = len(running) - len(shown)
        more = [_line(f"… {left_out} more running", "dim")] if left_out and room else []
        return Group(self._table(shown), *more, *totals)

    def _table(self, shown: Sequence[Running]) -> Table:
        table = Table.grid(padding=(0, 2))
        for justify in ("left", "left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        for each in shown:
            table.add_row(*(Text(console.printable(cell)) for cell in self._cells(each)))
        return table

    def _cells(self, each: Running) -> Iterator[str]:
        yield each.task.job.name + (f" (attempt {each.attempt})" if each.attempt > 1 else "")
        yield each.stage
        yield clock(each.since)
        yield format_bytes(each.rss_bytes) if each.rss_bytes else ""
        pace = self._paces.setdefault(each.task.number, console.Pace())
        yield pace.text(each.done_bytes, each.total_bytes) if each.total_bytes else ""

    def _totals(self) -> Iterator[Text]:
        tally = self.tally
        counts = [(count, TITLES[status]) for status, count in reversed(tally.counts.items())]
        counts += [(len(tally.running), "running"), (tally.waiting_count, "waiting")]
        yield _line(f"{tally.finished_count}/{tally.planned}: {joined(counts)}", "bold")
        limit = self.budget.max_memory_bytes
        memory = f"memory {format_bytes(tally.used_bytes)}{f' of {format_bytes(limit)}' if limit else ''}"
        left = tally.seconds_left()
        parts = [memory, duration(tally.elapsed_seconds)]
        parts += [] if left is None else [f"about {duration(left)} left"]
        yield _line(" · ".join(parts), "dim")


def joined(counts: Sequence[tuple[int, str]]) -> str:
    return " · ".join(f"{count:,} {what}" for count, what in counts if count)


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")

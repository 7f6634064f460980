"""`--metrics-file`: how a batch stands, for the textfile collector of Prometheus's node exporter.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. The file is replaced as a whole,
at most once a second, so that the collector never reads half of one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter import __version__, wire
from exporter.batch.listener import Listener
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.errors import OutputError
from exporter.files import named_with, remove_temporaries, write_lines
from exporter.records import Outcome
from exporter.reports.tally import Budget, Tally

PREFIX = "export_model_batch_"
SECONDS_BETWEEN = 1.0
LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Metric:
    """`kind` is `counter` or `gauge`; `unit`s are in names, as Prometheus wants it."""

    name: str
    kind: str
    about: str


MODELS = Metric("models", "gauge", "Models of the batch by what has become of them so far.")
RETRIES = Metric("retries_total", "counter", "Attempts that failed and were followed by another one.")
TRIED_SECONDS = Metric("model_seconds_total", "counter", "Time that finished models took, all together.")
OUTPUT = Metric("output_bytes_total", "counter", "Bytes of the files that were written.")
USED = Metric("memory_bytes", "gauge", "Memory of all processes of the batch now.")
ALLOWED = Metric("memory_limit_bytes", "gauge", "What all processes of the batch may take together.")
JOBS = Metric("jobs", "gauge", "Models that may be exported at once.")
STARTED = Metric("start_time_seconds", "gauge", "When the batch started, Unix time.")
SUCCESS = Metric("last_success_time_seconds", "gauge", "When a model was done for the last time, Unix time.")
ENDED = Metric("end_time_seconds", "gauge", "When the batch ended, Unix time; absent as long as it runs.")
UPDATED = Metric("update_time_seconds", "gauge", "When this was written, Unix time.")
INFO = Metric("info", "gauge", "Version of export-model; always 1.")


class MetricsFile(Listener):
    """Rewrites the file as the batch goes on. `error` is why it could not be written, which stops no export."""

    def __init__(self, path: Path, batch: str, budget: Budget) -> None:
        """`batch` tells several batches on one machine apart. Raises OutputError when the file cannot be written."""
        self.path, self.batch, self.budget = path, batch, budget
        self.tally = Tally()
        self.error: OutputError | None = None
        self._written = 0.0
        remove_temporaries(path)
        self._replace(durable=True)

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self.tally.begin(tasks, refused)
        self._write()

    def started(self, task: Task, attempt: int) -> None:
        self.tally.started(task, attempt)

    def event(self, task: Task, event: wire.Event) -> None:
        self.tally.event(task, event)

    def waiting(self, task: Task, why: str) -> None:
        self.tally.waiting(task, why)

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self.tally.retried(task, outcome, why)

    def finished(self, result: Result) -> None:
        self.tally.finished(result)

    def tick(self, used_bytes: int) -> None:
        self.tally.tick(used_bytes)
        if time.monotonic() - self._written >= SECONDS_BETWEEN:
            self._write()

    def end(self, batch: BatchResult) -> None:
        self.tally.end(batch)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self._replace(durable=False)
            self.error = None
        except OutputError as error:
            self.error = error

    def _replace(self, *, durable: bool) -> None:
        with named_with("--metrics-file"):
            write_lines(self.path, lines(self.tally, self.batch, self.budget), durable=durable)


def lines(tally: Tally, batch: str, budget: Budget) -> Iterator[str]:
    """The whole file."""
    by_status = {status.replace(" ", "_"): count for status, count in tally.counts.items()}
    by_status |= {"running": len(tally.running), "waiting": tally.waiting_count}
    yield from _family(MODELS, [({"batch": batch, "status": key}, value) for key, value in by_status.items()])
    single: dict[Metric, float | None] = {
        RETRIES: tally.retries,
        TRIED_SECONDS: tally.tried_seconds,
        OUTPUT: tally.output_bytes,
        USED: tally.used_bytes,
        ALLOWED: budget.max_memory_bytes,
        JOBS: budget.jobs,
        STARTED: tally.started_time,
        SUCCESS: tally.success_time,
        ENDED: tally.end_time,
        UPDATED: time.time(),
    }
    for metric, value in single.items():
        if value is not None:
            yield from _family(metric, [({"batch": batch}, value)])
    yield from _family(INFO, [({"batch": batch, "version": __version__}, 1)])


def _family(metric: Metric, samples: Sequence[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    name = PREFIX + metric.name
    yield f"# HELP {name} {metric.about}"
    yield f"# TYPE {name} {metric.kind}"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{text.translate(LABEL_ESCAPES)}"' for key, text in labels.items())
        yield f"{name}{{{pairs}}} {value:.15g}"

"""One model of a batch as its reports show it, whatever became of it; no file and no text format in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporter.errors import ExportError

DONE, MISMATCH, FAILED, SKIPPED, NOT_RUN = "done", "mismatch", "failed", "skipped", "not run"
# In the order of what one wants to see first. A model that was skipped was not exported, and is never called done.
TITLES = {FAILED: "failed", MISMATCH: "mismatch", NOT_RUN: "not run", DONE: "done", SKIPPED: "up to date"}
# What has files that can be used.
EXPORTED = (DONE, MISMATCH, SKIPPED)


@dataclass(frozen=True)
class Entry:
    """The columns of batch.parquet (`exporter.schema.BATCH` says what they mean), with the error as it was raised.

    `folder` is the model's folder below that of the batch. `versions` and `files` are empty without an export.
    """

    model: str
    source: str
    kind: str | None
    status: str
    error: ExportError | None = None
    attempts: int = 0
    started: float | None = None
    seconds: float | None = None
    waited_seconds: float | None = None
    peak_rss_bytes: int | None = None
    tree_peak_rss_bytes: int | None = None
    need_bytes: int | None = None
    verification: str | None = None
    verification_reason: str | None = None
    max_abs_difference: float | None = None
    weights: str | None = None
    params: int | None = None
    weight_bytes: int | None = None
    layers: int | None = None
    onnx_nodes: int | None = None
    files: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None
    source_digest: str | None = None
    versions: Mapping[str, str | None] | None = None
    export_model_version: str | None = None
    folder: str = ""

    @property
    def status_code(self) -> int | None:
        """The exit status that this model alone would have had."""
        if self.error is not None:
            return self.error.status
        return None if self.status == NOT_RUN else 0

    @property
    def sentence(self) -> str:
        """The error without the name of the model, which stands beside it; empty without an error."""
        if self.error is None or self.error.where != self.model:
            return "" if self.error is None else str(self.error)
        return f"{self.error.what}: {self.error.why}" if self.error.why else self.error.what

    @property
    def output_bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.files)

    @property
    def memory_bytes(self) -> int | None:
        """The most that is known of what the export took."""
        return max(filter(None, (self.peak_rss_bytes, self.tree_peak_rss_bytes)), default=None)

    @property
    def is_random(self) -> bool:
        return (self.weights or "").startswith("random")


@dataclass(frozen=True)
class BatchReport:
    """All models of a batch in the order of its plan, and the run: `started` is unix time, `seconds` wall time.

    `memory_bytes` is the most that all processes held together, None when nobody looked.
    """

    name: str
    entries: Sequence[Entry]
    started: float
    seconds: float
    jobs: int | None = None
    max_memory_bytes: int | None = None
    memory_bytes: int | None = None
    retries: int = 0
    interrupted: bool = False

    def counts(self) -> dict[str, int]:
        return counts(entry.status for entry in self.entries)

    def of(self, *statuses: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.status in statuses]


def counts(statuses: Iterable[str]) -> dict[str, int]:
    """How many there are of each status, in the order of `TITLES`, zeros included."""
    found = Counter(statuses)
    return {status: found[status] for status in TITLES}


def totals_text(found: Mapping[str, int]) -> str:
    """`2 failed, 37 done, 1 up to date`."""
    return ", ".join(f"{count:,} {TITLES[status]}" for status, count in found.items() if count) or "no models"


def verdict(entry: Entry) -> str:
    """What the verification said, in a word or two; nothing but a comparison that passed reads as passed."""
    texts = {"passed": "passed", "mismatch": "MISMATCH", "skipped": "not checked", "none": "no ONNX file"}
    return texts.get(entry.verification or "", "–")


def duration(seconds: float | None) -> str:
    """`6.3 s`, `2 min 05 s`, `3 h 20 min`."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"

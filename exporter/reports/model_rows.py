"""The table of all models in `report.html`, with bars for time and memory, as a stream of rows."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from exporter.formats.node_style import amount
from exporter.formats.report.facts import text
from exporter.memory import format_bytes
from exporter.reports.batch_markdown import in_order
from exporter.reports.entries import TITLES, BatchReport, Entry, duration, verdict

PAGE = "model.html"
# A column, and whether it holds numbers.
COLUMNS = {
    "model": False,
    "status": False,
    "verification": False,
    "time": True,
    "memory": True,
    "parameters": True,
    "layers": True,
    "ONNX nodes": True,
    "size": True,
    "files": False,
}
VERDICT_CLASSES = {"passed": "", "mismatch": "wrong", "skipped": "not-checked"}


def table(report: BatchReport) -> Iterator[str]:
    yield '<table id="table"><thead><tr>'
    for name, is_number in COLUMNS.items():
        yield f'<th scope="col"{_number(is_number)}>{name}</th>'
    yield "</tr></thead><tbody>"
    longest = max((entry.seconds or 0.0 for entry in report.entries), default=0.0)
    most = max((max(entry.memory_bytes or 0, entry.need_bytes or 0) for entry in report.entries), default=0)
    for entry in in_order(report):
        yield _row(entry, longest, most)
    yield "</tbody></table>"


def _number(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _row(entry: Entry, longest: float, most: int) -> str:
    cells = (
        _status(entry),
        _verification(entry),
        _cell(duration(entry.seconds) + bar(entry.seconds, longest), entry.seconds),
        _memory(entry, most),
        _count(entry.params),
        _count(entry.layers),
        _count(entry.onnx_nodes),
        _cell(format_bytes(entry.output_bytes), entry.output_bytes) if entry.files else _cell("–", None),
        f"<td>{_files(entry)}</td>",
    )
    return f'<tr class="{entry.status.replace(" ", "-")}">{_name(entry)}{"".join(cells)}</tr>\n'


def _name(entry: Entry) -> str:
    """Linked to the model's page, or to its folder where it has none."""
    about = ", ".join(part for part in (entry.source if entry.source != entry.model else "", entry.kind or "") if part)
    shown = text(entry.model)
    if entry.files:
        page = PAGE if any(name == PAGE for name, _ in entry.files) else ""
        shown = f'<a href="{_address(entry, page)}">{shown}</a>'
    random = '<small class="random">RANDOM WEIGHTS</small>' if entry.is_random else ""
    return f'<th scope="row" data-value="{text(entry.model)}">{shown}<small>{text(about)}</small>{random}</th>'


def _address(entry: Entry, file: str) -> str:
    return text(f"./{quote(entry.folder)}/{quote(file)}")


def _status(entry: Entry) -> str:
    why = f"<small>{text(entry.sentence)}</small>" if entry.error else ""
    status = TITLES[entry.status]
    return f'<td data-value="{status}"><span class="status">{status}</span>{why}</td>'


def _verification(entry: Entry) -> str:
    reason = f"<small>{text(entry.verification_reason)}</small>" if entry.verification_reason else ""
    worst = (
        "" if entry.max_abs_difference is None else f"<small>largest difference {entry.max_abs_difference:.2g}</small>"
    )
    kind = VERDICT_CLASSES.get(entry.verification or "", "not-checked")
    shown = verdict(entry)
    return f'<td data-value="{text(shown)}"><span class="{kind}">{text(shown)}</span>{worst}{reason}</td>'


def _memory(entry: Entry, most: int) -> str:
    used = entry.memory_bytes
    if used is None:
        return _cell("–", None)
    return _cell(format_bytes(used) + bar(used, most, entry.need_bytes), used)


def bar(value: float | None, largest: float, mark: float | None = None) -> str:
    """A bar for the eye; the number stands beside it."""
    if value is None or largest <= 0:
        return ""
    line = "" if mark is None else f'<b style="left:{100 * mark / largest:.1f}%"></b>'
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * value / largest:.1f}%"></i>{line}</span>'


def _count(number: int | None) -> str:
    return _cell("–" if number is None else amount(number), number)


def _cell(shown: str, value: float | None) -> str:
    """What is sorted by is the number, empty where it is unknown."""
    return f'<td class="number" data-value="{"" if value is None else f"{value:.9g}"}">{shown}</td>'


def _files(entry: Entry) -> str:
    if not entry.files:
        return "–"
    links = "".join(
        f'<li><a href="{_address(entry, name)}">{text(name)}</a> {format_bytes(nbytes)}</li>'
        for name, nbytes in entry.files
    )
    count = len(entry.files)
    return f"<details><summary>{count} file{'s' if count > 1 else ''}</summary><ul>{links}</ul></details>"

"""The table and the pages that a batch leaves: read by pandas, DuckDB, a Markdown parser, an HTML parser, a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from batches import Accidents, make_model
from browser import Browser, wait_for
from markdown_it import MarkdownIt

from exporter import cli, files, plan
from exporter.errors import OutputError, ResourceError, UsageError
from exporter.query.catalogue import open_catalogue
from exporter.reports import batch_markdown, batch_page, batch_table
from exporter.reports.batch_report import write_reports
from exporter.reports.entries import TITLES, BatchReport, Entry, duration, totals_text
from exporter.reports.totals import facts
from exporter.schema import BATCH, SCHEMA_VERSION
from exporter.storage import exports

HOSTILE = "</script><img src=x onerror=\"document.title='ran'\"><!--'&{{data}} | *x* _y_ `z` @me #1 http://e.org"
SOURCES = ("broken", "flaky", "fine", "wrong")
ARGUMENTS = ["--to", "parquet", "--jobs", "1", "-o", "zoo"]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models, and `zoo`, in which a batch of them has ended."""
    folder = tmp_path_factory.mktemp("batch")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("models").mkdir()
        for width, name in enumerate(SOURCES, 3):
            make_model(Path("models", f"{name}.onnx"), width)
        sources = [f"models/{name}.onnx" for name in SOURCES]
        sources[2] = str(Path(sources[2]).absolute())
        assert cli.main(["batch", "missing.onnx", *sources, *ARGUMENTS], Accidents()) == 3
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "batch.parquet").set_index("model")


def test_the_table_has_the_documented_schema(place: Path) -> None:
    schema = pq.read_schema(place / "zoo" / "batch.parquet")
    assert schema.equals(BATCH)
    assert schema.metadata[b"export_model.schema_version"].decode() == SCHEMA_VERSION


def test_the_table_says_what_became_of_each_model(place: Path) -> None:
    rows = table(place / "zoo")
    assert list(rows.index) == ["missing.onnx", *SOURCES]
    assert list(rows.status) == ["failed", "failed", "done", "done", "mismatch"]
    assert list(rows.status_code) == [4, 6, 0, 0, 3]
    assert list(rows.attempts) == [0, 1, 2, 1, 1]
    assert list(rows.kind.isna()) == [True, False, False, False, False]
    assert rows.started.notna().tolist() == [False, True, True, True, True]
    assert rows.loc["fine"].seconds == 6.25
    assert rows.loc["fine"].tree_peak_rss_bytes == 700_000_000
    assert rows.loc["broken"][["error_type", "error_what", "error_hint"]].tolist() == [
        "UnsupportedError",
        "cannot be read",
        "another file",
    ]
    assert rows.loc["wrong"].error_type == "MismatchError"
    assert rows.loc["wrong"].max_abs_difference == 0.25
    assert rows.loc["fine"].verification == "none"


def test_the_table_agrees_with_the_catalogue_and_the_disk(place: Path) -> None:
    joined = duckdb.sql(
        f"SELECT b.model, b.params = m.params AND b.weight_bytes = m.weight_bytes AND b.layers = m.layers "
        f"AND b.source_digest = m.source_digest AND b.onnx_nodes = m.nodes "
        f"FROM '{place}/zoo/batch.parquet' b JOIN '{place}/zoo/*/models.parquet' m USING (model, source, kind)"
    ).fetchall()
    assert sorted(joined) == [("fine", True), ("flaky", True), ("wrong", True)]
    for model, row in table(place / "zoo").iterrows():
        listed = {file["name"]: file["nbytes"] for file in row["files"]}
        there = {path.name: path.stat().st_size for path in (place / "zoo" / str(model)).glob("*.parquet")}
        assert listed == there
        assert row.output_bytes == sum(there.values())


@pytest.mark.parametrize("style", ["json", "csv", "markdown", "table"])
def test_the_table_can_be_queried_beside_the_catalogue(
    style: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "SELECT b.model, b.status, b.started, m.params FROM batch b LEFT JOIN models m USING (model) ORDER BY 1"
    assert cli.main(["query", "--catalogue", str(place / "zoo"), "--format", style, sql]) == 0
    out = capsys.readouterr().out
    assert "missing.onnx" in out
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", out)
    if style == "json":
        rows = json.loads(out)
        assert [(row["model"], row["status"], row["params"]) for row in rows] == [
            ("broken", "failed", None),
            ("fine", "done", 20),
            ("flaky", "done", 16),
            ("missing.onnx", "failed", None),
            ("wrong", "mismatch", 24),
        ]


def test_the_table_of_a_catalogue_in_python(place: Path) -> None:
    with open_catalogue(place / "zoo") as catalogue:
        started = catalogue.sql("SELECT started FROM batch WHERE model = 'fine'").to_arrow()["started"].to_pylist()
        assert started == [table(place / "zoo").loc["fine"].started], "the same moment, whatever the time zone"
        assert catalogue.batch.to_arrow().num_rows == 1 + len(SOURCES)
    with open_catalogue(place / "zoo" / "fine") as catalogue:
        empty = catalogue.sql("SELECT b.* FROM models m JOIN batch b USING (model)").to_arrow()
    assert (empty.num_rows, empty.schema.names) == (0, BATCH.names)


def test_the_table_is_found_in_an_object_store_too(place: Path) -> None:
    """A folder by its address is one to pyarrow."""
    with open_catalogue((place / "zoo").as_uri()) as catalogue:
        assert catalogue.batch.to_arrow().num_rows == 1 + len(SOURCES)
        assert catalogue.models.to_arrow().num_rows == len(SOURCES) - 1


def test_no_report_has_a_path_of_this_machine(place: Path) -> None:
    for name in ("batch.parquet", "report.md", "report.html"):
        content = (place / "zoo" / name).read_bytes()
        assert str(place).encode() not in content, name
        assert b"models/broken" not in content
    assert table(place / "zoo").loc["broken"].error_why == "broken.onnx is odd"


def test_a_second_run_has_the_numbers_of_the_first(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    first = table(Path("zoo"))
    runner = Accidents()
    arguments = ["batch", "models/fine.onnx", "models/flaky.onnx", "models/broken.onnx", *ARGUMENTS]
    assert cli.main([*arguments[:-1], "zoo", "--no-report"], runner) == 6
    assert table(Path("zoo")).equals(first), "--no-report leaves the old one"
    assert cli.main(arguments, runner) == 6
    assert set(runner.jobs) == {"broken"}
    second = table(Path("zoo"))
    assert dict(second.status) == {"fine": "skipped", "flaky": "skipped", "broken": "failed"}
    same = ["params", "weight_bytes", "layers", "onnx_nodes", "source_digest", "fingerprint", "output_bytes"]
    for model in ("fine", "flaky"):
        assert second.loc[model][same].tolist() == first.loc[model][same].tolist()
    assert second.loc["fine"].attempts == 0
    assert pd.isna(second.loc["fine"].started)
    shown = (Path("zoo") / "report.html").read_text(encoding="utf-8")
    assert "up to date" in shown
    assert ">done<" not in shown
    assert "2 up to date" in capsys.readouterr().out


def test_an_interrupted_batch_reports_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("interrupting", "later", "last"):
        make_model(Path(f"{name}.onnx"))
    sources = ["interrupting.onnx", "later.onnx", "last.onnx"]
    assert cli.main(["batch", *sources, *ARGUMENTS], Accidents()) == 130
    rows = table(Path("zoo"))
    assert list(rows.status) == ["done", "not run", "not run"]
    assert rows.loc["later"].attempts == 0
    assert pd.isna(rows.loc["later"].status_code)
    assert "interrupted" in Path("zoo", "report.md").read_text(encoding="utf-8")
    captured = capsys.readouterr()
    assert "2 not run, 1 done" in captured.out
    assert "1 of 3 finished and kept, not finished: later, last" in captured.err


@pytest.mark.slow
def test_the_summary_ends_with_what_went_wrong(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    names = ["broken", "fine", "wrong"]
    arguments = [*(f"models/{name}.onnx" for name in names), *ARGUMENTS[:-1], "other"]
    assert cli.main(["batch", *arguments], Accidents()) == 3
    out = capsys.readouterr().out
    parts = [
        "fine ",
        "broken: failed: cannot be read",
        "try: another file",
        "wrong: mismatch",
        "report: other/",
        "1 fai",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)
    assert out.rstrip().splitlines()[-1].startswith("1 failed, 1 mismatch, 1 done in ")
    assert cli.main(["batch", "-q", *arguments], Accidents()) == 6
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["batch.parquet", "report.md", "report.html"])
def test_a_report_that_cannot_be_written_costs_no_export(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(Path("a.onnx"))
    Path("zoo", name).mkdir(parents=True)
    assert cli.main(["batch", "a.onnx", *ARGUMENTS], Accidents()) == OutputError.status
    captured = capsys.readouterr()
    assert f"zoo/{name}: cannot be written" in captured.err
    assert "1 done" in captured.out
    assert Path("zoo", "a", "manifest.json").exists()
    assert list(Path("zoo").glob(".*")) == []


def test_a_report_without_a_client_for_its_place_costs_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(place: str) -> Any:
        raise UsageError("cannot be used", where=place, why="its client is not installed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exports, "written_to", missing)
    make_model(Path("a.onnx"))
    assert cli.main(["batch", "a.onnx", *ARGUMENTS], Accidents()) == UsageError.status
    captured = capsys.readouterr()
    assert "zoo: cannot be used: its client is not installed" in captured.err
    assert captured.out.rstrip().splitlines()[-1].startswith("1 done in ")


def test_what_a_killed_batch_left_of_a_report_goes(tmp_path: Path) -> None:
    for name in (".report.md.123.tmp", ".batch.parquet.9.tmp", ".other.123.tmp"):
        (tmp_path / name).touch()
    write_reports(batch_report(), tmp_path)
    assert [path.name for path in tmp_path.glob(".*")] == [".other.123.tmp"]


def test_two_batches_in_one_folder_write_one_after_the_other(tmp_path: Path) -> None:
    written: list[bool] = []
    with files.reserved(tmp_path, ()):
        other = threading.Thread(target=lambda: written.append(bool(write_reports(batch_report(), tmp_path))))
        other.start()
        other.join(0.2)
        assert written == []
        assert list(tmp_path.iterdir()) == []
    other.join(300)
    assert written == [True]


def test_what_is_secret_in_an_address_is_told_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Nothing listens on port 9.
    source = "http://user:s3cr3t@127.0.0.1:9/models/some.onnx?X-Amz-Signature=s3cr3t"
    assert cli.main(["batch", source, *ARGUMENTS, "--log-format", "json", "--metrics-file", "m.prom"], Accidents()) > 0
    captured = capsys.readouterr()
    assert "s3cr3t" not in captured.out + captured.err
    assert table(Path("zoo")).loc["some.onnx"].status == "failed"
    assert not any(b"s3cr3t" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


# The pages, with names and sentences that would be more than text.


def entries() -> list[Entry]:
    error = ResourceError("was killed", where=HOSTILE, why=f"because of {HOSTILE}", hint=f"try {HOSTILE}")
    written = (("model.html", 10), ("a b#c?.parquet", 5))
    done = Entry("fine", "fine.onnx", "onnx", "done", attempts=1, seconds=60.0, verification="passed", params=1000)
    return [
        replace(done, files=written, folder="fine", peak_rss_bytes=500_000_000, need_bytes=900_000_000),
        Entry(HOSTILE, HOSTILE, "onnx", "failed", error, attempts=2, seconds=5.0, folder="x", need_bytes=2 * 10**9),
        replace(done, model="old", status="skipped", verification="skipped", verification_reason=HOSTILE, seconds=2.0),
        replace(done, model="random", weights="random (seed 0)", params=5, seconds=600.0),
        Entry("later", "later.onnx", "onnx", "not run"),
    ]


def batch_report() -> BatchReport:
    return BatchReport(HOSTILE, entries(), 1_795_693_481.0, 725.2, 4, 16 * 10**9, 7 * 10**9, 3)


def markdown(report: BatchReport) -> Any:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse("\n".join(batch_markdown.lines(report)))


def texts(tokens: Any) -> str:
    """What a reader sees: entities are resolved, and `<code>` of raw HTML has its text beside it."""
    import html

    children = [child for token in tokens for child in token.children or []]
    return html.unescape(" ".join(child.content for child in children if child.type != "html_inline"))


def test_the_page_of_markdown_is_a_report_to_a_parser() -> None:
    tokens = markdown(batch_report())
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == ["Failed (1)", "Not run (1)", "All models"]
    assert sum(token.type == "tr_open" for token in tokens) == 1 + len(list(facts(batch_report()))) + 1 + len(entries())
    shown = " ".join(texts(tokens).split())
    assert f"because of {HOSTILE}" in shown
    assert "1 failed, 1 not run, 2 done, 1 up to date" in shown


def test_nothing_in_markdown_comes_out_of_a_name() -> None:
    tokens = markdown(batch_report())
    children = [child for token in tokens for child in token.children or []]
    raw = {child.content for child in children if child.type == "html_inline"}
    assert raw <= {"<code>", "</code>", "<br>"}
    assert not any(token.type == "html_block" for token in tokens)
    links = [child.attrs["href"] for child in children if child.type == "link_open"]
    assert links == ["fine/"]
    assert not any(child.type == "image" for child in children)


class Reader(HTMLParser):
    """Elements, attributes and text of a page; complains where elements do not nest."""

    VOID = ("meta", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.elements: list[str] = []
        self.text = ""
        self.attributes: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def test_the_page_is_sound_and_loads_nothing() -> None:
    page = Reader("".join(batch_page.page(batch_report())))
    assert page.elements.count("script") == 1
    assert "img" not in page.elements
    assert "link" not in page.elements
    assert not any(name.startswith("on") for name in page.attributes)
    assert {link for link in page.links if not link.startswith(("#", "./fine/"))} == set()
    assert page.text.count(HOSTILE) >= 4
    assert page.text.index("Failed (1)") < page.text.index("All models")


def test_links_lead_to_files_that_are_there(place: Path) -> None:
    page = Reader((place / "zoo" / "report.html").read_text(encoding="utf-8"))
    links = [unquote(link) for link in page.links if link.startswith("./")]
    assert len(links) >= 1
    assert all((place / "zoo" / link).exists() for link in links)


def test_names_of_files_are_quoted_in_links() -> None:
    page = Reader("".join(batch_page.page(batch_report())))
    assert "./fine/model.html" in page.links
    assert "./fine/a%20b%23c%3F.parquet" in page.links


def test_a_batch_of_nothing_has_reports_too(tmp_path: Path) -> None:
    empty = BatchReport("zoo", [], 0.0, 0.0)
    written = write_reports(empty, tmp_path / "new" / "zoo")
    assert [path.name for path in written] == ["batch.parquet", "report.md", "report.html"]
    assert pq.read_table(written[0]).num_rows == 0
    Reader(written[2].read_text(encoding="utf-8"))


def test_a_thousand_models_are_reported_in_little_time_and_space(tmp_path: Path) -> None:
    first = entries()[0]
    many = [replace(first, model=f"model{number}", folder=f"model{number}") for number in range(1000)]
    write_reports(BatchReport("zoo", many, 0.0, 0.0), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    assert pq.read_table(tmp_path / batch_table.FILE).num_rows == 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_totals_name_each_status_that_there_is() -> None:
    assert totals_text(dict.fromkeys(TITLES, 0)) == "no models"
    assert totals_text({"failed": 2, "done": 1000}) == "2 failed, 1,000 done"


def documented() -> Iterator[tuple[str, ...]]:
    page = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    section = page.partition("### batch.parquet")[2].partition("\n## ")[0]
    yield from re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (yes|no) \| (.*) \|$", section, re.MULTILINE)


def test_the_documentation_of_the_table_is_up_to_date() -> None:
    wanted = [
        (
            field.name,
            str(field.type).replace("element: ", ""),
            "yes" if field.nullable else "no",
            field.metadata[b"description"].decode(),
        )
        for field in BATCH
    ]
    assert list(documented()) == wanted, "\n".join(f"| `{n}` | `{t}` | {u} | {d} |" for n, t, u, d in wanted)


def test_what_the_documentation_shows_of_the_table_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "outputs").symlink_to(place / "zoo")
    monkeypatch.chdir(place / "elsewhere")
    page = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8").partition("### Reports")[2].partition("\n### ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        with pd.option_context("display.max_columns", None):
            exec(compile(block, "docs/batches.md", "exec"), {})  # noqa: S102 (the documentation is ours)
        assert "failed" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["failed", "not run"])
@pytest.mark.parametrize(("count", "folded"), [(batch_page.OPEN_ITEMS, 0), (batch_page.OPEN_ITEMS + 3, 3)])
def test_of_long_lists_the_rest_is_folded(status: str, count: int, folded: int) -> None:
    error = ResourceError("cannot", why="it is so") if status == "failed" else None
    entries = [Entry(f"model {number}", "m", None, status, error) for number in range(count)]
    text = "".join(batch_page.failures(BatchReport("zoo", entries, 0.0, 1.0)))
    shown, _, rest = text.partition("<details>")
    assert shown.count("<li") == count - folded
    assert rest.count("<li") == folded
    assert (f"<summary>{folded} more</summary>" in rest) == bool(folded)
    assert all(f">model {number}<" in text for number in range(count))


@pytest.mark.browser
def test_the_page_sorts_filters_and_prints_in_a_browser(tmp_path: Path) -> None:
    batch_page.write(batch_report(), tmp_path)
    rows = "[...document.querySelectorAll('#table tbody tr')].filter((row) => !row.hidden)"
    names = f"{rows}.map((row) => row.cells[0].dataset.value)"
    with Browser() as browser:
        browser.open((tmp_path / "report.html").as_uri())
        wait_for(lambda: browser.evaluate("document.querySelectorAll('thead button').length == 10"), "the script runs")
        assert browser.evaluate(names) == [HOSTILE, "later", "fine", "random", "old"]
        click = "document.querySelectorAll('thead button')[{}].click()"
        browser.evaluate(click.format(3))
        assert browser.evaluate(names) == ["random", "fine", HOSTILE, "old", "later"]
        assert browser.evaluate("document.querySelectorAll('th')[3].ariaSort") == "descending"
        browser.evaluate(click.format(3))
        assert browser.evaluate(names) == ["old", HOSTILE, "fine", "random", "later"]
        browser.evaluate(click.format(0))
        assert browser.evaluate(names)[1:] == ["fine", "later", "old", "random"]
        browser.evaluate(
            "{ const f = document.getElementById('filter'); f.value = 'UP to'; f.dispatchEvent(new Event('input')); }"
        )
        assert browser.evaluate(names) == ["old"]
        assert browser.evaluate("document.getElementById('shown').textContent") == "1 of 5 models"
        assert browser.evaluate("document.title") == f"Batch {HOSTILE}"
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.strangers() <= {(tmp_path / "report.html").as_uri()}
        assert [
            event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_report_is_written(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done stays, nothing half written does, and the same command again writes the report."""

    def page(report: BatchReport) -> Iterator[str]:
        yield "half of it"
        send(number)
        yield "the rest"

    monkeypatch.chdir(tmp_path)
    make_model(Path("a.onnx"))
    with monkeypatch.context() as patch:
        patch.setattr(batch_page, "page", page)
        assert cli.main(["batch", "a.onnx", *ARGUMENTS], Accidents()) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert {path.name for path in Path("zoo").iterdir()} == {"a", "batch.parquet", "report.md"}
    assert cli.main(["batch", "a.onnx", *ARGUMENTS], Accidents()) == 0
    assert "1 up to date" in capsys.readouterr().out
    assert Path("zoo", "report.html").read_text().endswith("</html>\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_batch_is_planned(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(Path("a.onnx"))
    monkeypatch.setattr(plan, "plan_entries", lambda entries: send(number))
    runner = Accidents()
    assert cli.main(["batch", "a.onnx", *ARGUMENTS], runner) == 130
    assert "interrupted" in capsys.readouterr().err
    assert runner.jobs == []
    assert not Path("zoo").exists()


def send(number: signal.Signals) -> None:
    """To this process, which must not end by it."""
    assert signal.getsignal(number) is not signal.SIG_DFL
    os.kill(os.getpid(), number)


@pytest.mark.slow
def test_a_batch_that_is_terminated_leaves_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What runs here does not heed that it is stopped, and so comes to its end."""
    monkeypatch.chdir(tmp_path)
    for name in ("terminating", "waiting"):
        make_model(Path(f"{name}.onnx"))
    words = ["batch", "terminating.onnx", "waiting.onnx", *ARGUMENTS, "--metrics-file", "batch.prom"]
    assert cli.main(words, Accidents()) == 130
    assert list(table(Path("zoo")).status) == ["done", "not run"]
    assert "not run" in Path("zoo", "report.html").read_text()
    metrics = Path("batch.prom").read_text()
    assert 'status="not_run"} 1' in metrics
    assert "export_model_batch_end_time_seconds{" in metrics
    assert "not finished: waiting" in capsys.readouterr().err

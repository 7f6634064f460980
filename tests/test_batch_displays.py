"""What a batch shows while it runs: lines, a table that fits the terminal, and JSON as it is documented."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from batches import Accidents, failed, make_model
from rich.console import Console

from exporter import cli, wire
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.console import Display, PlainDisplay
from exporter.displays import batch_summary
from exporter.displays.json_log import FIELDS
from exporter.displays.lines import Lines, OneModel
from exporter.displays.live_table import LiveTable
from exporter.errors import ERRORS, UsageError
from exporter.records import Job, Outcome, Verification, WrittenFile
from exporter.reports.entries import BatchReport, Entry
from exporter.reports.tally import Budget, Tally

ROOT = Path(__file__).parent.parent
ARGUMENTS = ["--to", "parquet", "--jobs", "1"]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def task(number: int, name: str = "") -> Task:
    name = name or f"model{number}"
    return Task(number, Job(f"{name}.onnx", "onnx", name, f"outputs/{name}", ("onnx",), "f", "d"), 10**9)


def done(each: Task, **changes: Any) -> Result:
    outcome = Outcome(
        each.job.name,
        "done",
        each.job.output_path,
        seconds=6.25,
        tree_peak_rss_bytes=685_000_000,
        files=(WrittenFile("model.onnx", 1000, "a"),),
        verification=Verification("passed"),
    )
    return Result(each, replace(outcome, **changes), 1, 0.0, 0.0)


def broken(each: Task, kind: str = "ResourceError") -> Result:
    error = ERRORS[kind]("was killed", where=each.job.name, why="out of memory", hint="free some").as_record()
    return Result(each, replace(failed(each.job), error=error), 1, 0.0, 0.0)


def skipped(each: Task) -> Result:
    return Result(each, Outcome(each.job.name, "skipped", each.job.output_path), 0, None, 0.0)


def ended(*results: Result, interrupted: bool = False) -> BatchResult:
    return BatchResult(results, interrupted, 12.0, 2 * 10**9)


# Lines


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (done(task(1, "resnet50")), "1/2 resnet50: done in 6.2 s, verified, peak memory 685 MB\n"),
        (done(task(1, "a"), verification=None), "1/2 a: done in 6.2 s, NOT verified, peak memory 685 MB\n"),
        (done(task(1, "a"), verification=Verification("skipped")), "NOT verified"),
        (done(task(1, "a"), files=(), verification=None), "1/2 a: done in 6.2 s, peak memory 685 MB\n"),
        (
            broken(task(1, "a")),
            "1/2 a: failed after 1.5 s, peak memory 7 B\nerror: a: was killed: out of memory\n  try: f",
        ),
        (done(task(1, "a"), status="mismatch", verification=Verification("mismatch")), "1/2 a: mismatch after 6.2 s"),
    ],
)
def test_a_finished_model_is_a_line(result: Result, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin([result.task, task(2)], [])
    lines.finished(result)
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.out == ""
    assert ("verified" in line) or "verified" not in captured.err


def tell_all(display: Any) -> None:
    first, second, third = task(1, "one"), task(2, "two"), task(3, "three")
    refusal = Outcome("four", "failed", error=UsageError("is unknown", where="four", hint="five").as_record())
    display.begin([first, second, third], [refusal])
    display.started(first, 1)
    display.event(first, wire.StageEvent("convert", "start"))
    display.event(first, wire.MemoryEvent(5, 7))
    display.event(first, wire.ProgressEvent("convert", 5, 10))
    display.event(first, wire.StageEvent("convert", "end", 2.5, 702_000_000))
    display.event(first, wire.NoteEvent("a note"))
    display.event(first, wire.LogEvent("printed\n"))
    display.tick(10**9)
    display.retried(first, broken(first, "TransientError").outcome, "once more, alone")
    display.started(first, 2)
    display.finished(broken(first))
    display.waiting(second, "another batch is there")
    display.finished(skipped(second))
    display.started(third, 1)
    display.stopping("interrupted: three will be finished")
    display.finished(done(third))
    display.end(ended(broken(first), skipped(second), done(third), interrupted=True))


ALWAYS = ["error: four: is unknown\n  try: five", "error: one: was killed: out of memory\n  try: free some"]
USUAL = ["one: note: a note", "one: one: was killed: out of memory; once more, alone", "one: started, attempt 2"]
USUAL += ["2/4 one: failed after", "two: waits: another batch is there", "4/4 three: done in"]


@pytest.mark.parametrize(
    ("flags", "told", "untold"),
    [
        ({}, ALWAYS + USUAL, ["convert", "up to date", "printed"]),
        ({"quiet": True}, [*ALWAYS, "interrupted: three"], [*USUAL, "convert", "up to date", "printed"]),
        ({"verbose": True}, [*USUAL, "one: convert: 2.5 s, peak memory 702 MB", "3/4 two: up to date"], ["printed"]),
        ({"debug": True}, [*USUAL, "one: the worker printed:\nprinted"], ["convert"]),
    ],
)
def test_lines_say_as_much_as_is_asked_for(
    flags: dict[str, bool], told: list[str], untold: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tell_all(Lines(**flags))
    shown = capsys.readouterr().err
    assert [text for text in told if text not in shown] == []
    assert [text for text in untold if text in shown] == []


@pytest.mark.slow
def test_a_single_model_of_a_batch_is_shown_as_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(Path("a.onnx"))
    assert cli.main(["a.onnx", *ARGUMENTS[:2], "-o", "one"], Accidents()) == 0
    alone = capsys.readouterr().err
    assert cli.main(["batch", "a.onnx", *ARGUMENTS, "-o", "two"], Accidents()) == 0
    batch = capsys.readouterr().err
    assert alone.splitlines()[:2] == ["a: started", "a: read: 0.5 s, peak memory 350 MB"]
    assert batch.splitlines()[: len(alone.splitlines())] == alone.splitlines()


@pytest.mark.parametrize("quiet", [False, True])
def test_a_single_model_that_is_tried_again_says_why(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    display = OneModel(Display() if quiet else PlainDisplay(), quiet=quiet)
    only = task(1, "only")
    display.begin([only], [])
    display.waiting(only, "another export is there")
    display.started(only, 1)
    display.retried(only, broken(only).outcome, "once more, alone")
    display.started(only, 2)
    display.finished(broken(only))
    display.end(ended(broken(only)))
    shown = capsys.readouterr().err
    assert ("waits: another export" in shown) == (not quiet)
    assert ("out of memory; once more, alone" in shown) == (not quiet)
    assert shown.endswith("error: only: was killed: out of memory\n  try: free some\n")


# The table that moves


def live(width: int, height: int, **flags: bool) -> LiveTable:
    screen = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    return LiveTable(Budget(4, 16 * 10**9), screen=screen, **flags)


def drawn(table: LiveTable) -> list[str]:
    paper = Console(file=io.StringIO(), width=table.screen.width, height=table.screen.height, color_system=None)
    paper.print(table.picture())
    return paper.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(100, 50), (80, 24), (30, 10), (20, 5), (10, 3), (80, 1)])
@pytest.mark.parametrize("running", [0, 1, 40])
def test_the_table_is_never_larger_than_the_terminal(width: int, height: int, running: int) -> None:
    table = live(width, height)
    tasks = [task(number, f"a_model_with_a_rather_long_name_{number}") for number in range(60)]
    table.begin(tasks, [])
    for each in tasks[:running]:
        table.started(each, 1)
        table.event(each, wire.StageEvent("weights", "start"))
        table.event(each, wire.ProgressEvent("weights", 10**9, 10**10))
        table.event(each, wire.MemoryEvent(10**9, 10**9))
    lines = drawn(table)
    assert 1 <= len(lines) <= max(height - 1, 1)
    assert max(map(len, lines)) <= width
    shown = sum("a_" in line for line in lines)
    if width >= 80 and shown < running and height > 3:
        assert f"… {running - shown} more running" in lines[shown]
        assert shown == height - 4
    table.close()


def test_the_table_shows_who_does_what_and_how_far_all_is() -> None:
    table = live(120, 20)
    tasks = [task(number) for number in range(1, 11)]
    table.begin(tasks, [])
    for each in tasks[:3]:
        table.started(each, 1)
    table.event(tasks[0], wire.StageEvent("weights", "start"))
    table.event(tasks[0], wire.ProgressEvent("weights", 10**9, 10**10))
    table.event(tasks[0], wire.MemoryEvent(640_000_000, 700_000_000))
    table.finished(done(tasks[1]))
    table.finished(skipped(tasks[2]))
    table.started(tasks[3], 2)
    table.tick(3 * 10**9)
    first, second, counts, totals = drawn(table)
    assert re.fullmatch(r"model1 +weights +0:\d\d +640 MB +1 GB of 10 GB *", first)
    assert second.split()[:4] == ["model4", "(attempt", "2)", "start"]
    assert counts.strip() == "2/10: 1 up to date · 1 done · 2 running · 6 waiting"
    assert re.fullmatch(r"memory 3 GB of 16 GB · \d+\.\d s · about 21\.9 s left *", totals), totals
    table.close()


def test_failures_and_retries_stay_above_the_table_and_the_terminal_is_given_back() -> None:
    table = live(100, 20)
    tell_all(table)
    shown = table.screen.file.getvalue()  # type: ignore[attr-defined]
    for text in [
        *"\n".join(ALWAYS).splitlines(),
        "was killed: out of memory; once more, alone",
        "one: note: a note",
        "interrupted: three",
    ]:
        assert text in CONTROL.sub("", shown)
    assert "done in" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is visible again"
    table.close()


def test_a_name_is_no_escape_sequence() -> None:
    table = live(100, 20)
    evil = task(1, "[red]\x1b[2J\x07evil")
    table.begin([evil], [])
    table.started(evil, 1)
    table.finished(broken(evil))
    table.started(evil, 1)
    shown = "\n".join(drawn(table)) + table.screen.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "[red]" in shown
    table.close()


def test_an_estimate_needs_something_to_estimate_from() -> None:
    tally = Tally()
    tasks = [task(number) for number in range(5)]
    tally.begin(tasks, [])
    assert tally.seconds_left() is None
    tally.finished(skipped(tasks[0]))
    assert tally.seconds_left() is None
    tally.started(tasks[1], 1)
    tally.finished(done(tasks[1], seconds=10.0))
    tally.started(tasks[2], 1)
    tally.started(tasks[3], 1)
    assert tally.waiting_count == 1
    assert tally.seconds_left() == 10.0 * (1 + 1) / 2


# JSON


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def run_json(
    capsys: pytest.CaptureFixture[str], *arguments: str, run: Callable[..., Outcome] | None = None
) -> tuple[int, list[dict[str, Any]]]:
    status = cli.main(["batch", *arguments, "--log-format", "json"], run or Accidents())
    return status, records(capsys.readouterr().err)


@pytest.mark.slow
def test_all_that_is_on_stderr_is_json_with_the_documented_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("flaky", "broken", "fine", "wrong"):
        make_model(Path(f"{name}.onnx"))
    sources = ["flaky.onnx", "broken.onnx", "missing.onnx", "fine.onnx", "wrong.onnx"]
    status, events = run_json(capsys, *sources, *ARGUMENTS, "--debug")
    for event in events:
        assert set(event) == {"time", "event", *FIELDS[event["event"]]}
        assert event["time"].endswith("Z")
        datetime.fromisoformat(event["time"])
    kinds = {event["event"] for event in events}
    assert kinds == set(FIELDS) - {"model_waiting", "batch_stopping", "error"}
    (end,) = (event for event in events if event["event"] == "batch_finished")
    assert (end["status"], end["retries"]) == (status, 1)
    assert end["counts"] == {"failed": 2, "mismatch": 1, "not run": 0, "done": 2, "skipped": 0}
    finished = {event["model"]: event for event in events if event["event"] == "model_finished"}
    assert {name: event["status"] for name, event in finished.items()} == {
        "flaky": "done",
        "broken": "failed",
        "fine": "done",
        "wrong": "mismatch",
    }
    assert finished["flaky"]["attempt"] == 2
    assert finished["broken"]["error"]["status"] == 6
    assert finished["broken"]["error"]["trace"] == "Traceback of the worker"
    assert finished["wrong"]["error"]["type"] == "MismatchError"
    assert finished["fine"]["bytes"] == sum(path.stat().st_size for path in Path("outputs/fine").glob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [["--log-format", "json"], ["--metrics-file", "a.prom"], ["--report"], ["--no-report"]]
)
def test_an_export_with_a_flag_of_a_batch_is_one(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(Path("fine.onnx"))
    assert cli.main(["fine.onnx", "--to", "parquet", *flags], Accidents()) == 0
    assert Path("outputs", "report.html").exists() == ("--no-report" not in flags)
    assert Path("a.prom").exists() == ("a.prom" in flags)
    assert capsys.readouterr().err.startswith("{") == ("json" in flags)


def test_other_events_have_their_fields_too(capsys: pytest.CaptureFixture[str]) -> None:
    from exporter.displays.json_log import JsonLog

    tell_all(JsonLog(Budget()))
    events = records(capsys.readouterr().err)
    assert {"model_waiting", "batch_stopping"} <= {event["event"] for event in events}
    assert all(set(event) == {"time", "event", *FIELDS[event["event"]]} for event in events)
    assert events[-1]["status"] == 130
    tell_all(JsonLog(Budget(), quiet=True))
    quiet = {event["event"] for event in records(capsys.readouterr().err)}
    assert not quiet & {"stage_started", "stage_finished", "progress"}


@pytest.mark.parametrize("flag", [["--log-format", "json"], ["--log-format=json"]])
def test_a_command_line_that_is_wrong_is_json_too(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch", "resnet50", "--to", "nothing", *flag], Accidents()) == 2
    (event,) = records(capsys.readouterr().err)
    assert event["event"] == "error"
    assert event["error"]["where"] == "--to nothing"
    assert cli.main(["batch", "resnet50", "--nothing", *flag], Accidents()) == 2
    (event,) = records(capsys.readouterr().err)
    assert "--nothing" in event["error"]["what"]


def test_a_log_format_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch", "resnet50", "--log-format", "xml"], Accidents()) == 2
    assert "--log-format xml: cannot be used: there are text, json" in capsys.readouterr().err


def test_the_documentation_lists_every_event_and_field() -> None:
    page = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    section = page.partition("### The JSON log")[2].partition("\n### ")[0]
    listed = {
        name: tuple(re.findall(r"`(\w+)`", cell))
        for name, cell in re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    }
    assert listed == FIELDS


@pytest.mark.parametrize(
    ("columns", "left_out"), [(200, []), (60, ["weights"]), (36, ["weights", "files", "peak memory"])]
)
def test_the_summary_has_the_columns_that_a_terminal_has_room_for(
    columns: int, left_out: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Entry("m", "m.onnx", None, "done", seconds=1.0, verification="none", weights="from the ONNX file")
    monkeypatch.setenv("COLUMNS", str(columns))
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        batch_summary.show(BatchReport("zoo", [done], 0.0, 1.0), (), place="zoo", verbose=False)
    _, headings, row, *_ = capsys.readouterr().out.splitlines()
    assert [name for name in batch_summary.HEADINGS if name not in headings] == [
        name for name in batch_summary.HEADINGS if name in left_out
    ]
    assert max(len(headings), len(row)) <= columns
    batch_summary.show(BatchReport("zoo", [done], 0.0, 1.0), (), place="zoo", verbose=False)
    assert capsys.readouterr().out.splitlines()[1].split() == " ".join(batch_summary.HEADINGS).split()

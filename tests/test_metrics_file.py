"""`--metrics-file` as Prometheus reads it: through the parser of its own client library."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batches import Accidents, make_model
from prometheus_client.parser import text_string_to_metric_families
from test_batch_displays import broken, done, ended, skipped, task, tell_all

from exporter import cli
from exporter.batch.tasks import Result
from exporter.errors import OutputError
from exporter.records import Outcome
from exporter.reports import metrics_file
from exporter.reports.metrics_file import MetricsFile
from exporter.reports.tally import Budget

NAME = "export_model_batch_"


def read(path: Path) -> dict[str, Any]:
    """Values by name, those of models by status."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            name = sample.name.removeprefix(NAME)
            if name == "models":
                found.setdefault(name, {})[sample.labels["status"]] = sample.value
            else:
                assert name not in found
                found[name] = sample.value
    return found


@pytest.mark.slow
def test_a_batch_leaves_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("flaky", "broken", "fine", "wrong"):
        make_model(Path(f"{name}.onnx"))
    sources = ["flaky.onnx", "broken.onnx", "missing.onnx", "fine.onnx", "wrong.onnx"]
    arguments = ["--to", "parquet", "--jobs", "2", "--max-memory", "8GB", "--metrics-file", "batch.prom"]
    before = time.time()
    assert cli.main(["batch", *sources, *arguments], Accidents()) == 3
    values = read(Path("batch.prom"))
    zero = {"not_run": 0, "skipped": 0, "running": 0, "waiting": 0}
    assert values["models"] == {"failed": 2, "mismatch": 1, "done": 2} | zero
    assert (values["retries_total"], values["jobs"], values["memory_limit_bytes"]) == (1, 2, 8 * 10**9)
    written = sum(path.stat().st_size for path in Path("outputs").glob("*/*.parquet"))
    assert values["output_bytes_total"] == written
    assert values["model_seconds_total"] == 3 * 6.25 + 1.5
    for name in ("start_time_seconds", "last_success_time_seconds", "end_time_seconds", "update_time_seconds"):
        assert before <= values[name] <= time.time()
    assert values["info"] == 1
    assert sorted(path.name for path in Path().glob("*prom*")) == ["batch.prom"]


def test_the_numbers_follow_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "batch.prom"
    now = [1000.0]
    monkeypatch.setattr(metrics_file, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    metrics = MetricsFile(path, "zoo", Budget(2, 10**10))
    tasks = [task(number) for number in range(6)]
    metrics.begin(tasks, [])
    assert read(path)["models"]["waiting"] == 6
    assert "last_success_time_seconds" not in read(path)
    metrics.started(tasks[0], 1)
    metrics.started(tasks[1], 1)
    metrics.tick(3 * 10**9)
    assert read(path)["models"]["running"] == 0, "at most once a second"
    now[0] += 1.0
    metrics.tick(4 * 10**9)
    values = read(path)
    assert (values["models"]["running"], values["models"]["waiting"], values["memory_bytes"]) == (2, 4, 4 * 10**9)
    assert "end_time_seconds" not in values
    metrics.finished(done(tasks[0]))
    metrics.retried(tasks[1], broken(tasks[1]).outcome, "once more")
    metrics.finished(skipped(tasks[2]))
    now[0] += 1.0
    metrics.tick(0)
    models = read(path)["models"]
    assert (models["done"], models["skipped"], models["running"], models["waiting"]) == (1, 1, 0, 4)
    unfinished = [Result(each, Outcome(each.job.name, "not run"), 0, None, 0.0) for each in tasks[3:]]
    metrics.finished(broken(tasks[1]))
    metrics.end(ended(done(tasks[0]), broken(tasks[1]), skipped(tasks[2]), *unfinished, interrupted=True))
    models = read(path)["models"]
    assert (models["not_run"], models["failed"], models["waiting"], models["running"]) == (3, 1, 0, 0)


def test_a_name_is_a_label_whatever_it_is(tmp_path: Path) -> None:
    name = 'a "quoted" \\ name\nof two lines {x="y"} 層'
    metrics = MetricsFile(tmp_path / "batch.prom", name, Budget())
    tell_all(metrics)
    families = text_string_to_metric_families((tmp_path / "batch.prom").read_text(encoding="utf-8"))
    assert {sample.labels["batch"] for family in families for sample in family.samples} == {name}
    assert "memory_limit_bytes" not in read(tmp_path / "batch.prom"), "unknown is left out"


def test_a_file_that_cannot_be_written_is_said_before_the_batch_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(Path("a.onnx"))
    runner = Accidents()
    arguments = ["--to", "parquet", "--metrics-file", "nowhere/batch.prom"]
    assert cli.main(["batch", "a.onnx", *arguments], runner) == OutputError.status
    told = capsys.readouterr().err
    assert "nowhere/batch.prom: cannot be written" in told
    assert "--metrics-file" in told.splitlines()[-1]
    assert "--output" not in told
    assert runner.jobs == []


def test_what_a_killed_batch_left_of_it_goes(tmp_path: Path) -> None:
    for name in (".batch.prom.123.tmp", ".other.prom.123.tmp"):
        (tmp_path / name).touch()
    MetricsFile(tmp_path / "batch.prom", "zoo", Budget())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.prom.123.tmp", "batch.prom"]


def test_a_file_that_cannot_be_written_later_stops_no_batch(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    metrics = MetricsFile(folder / "batch.prom", "zoo", Budget())
    (folder / "batch.prom").unlink()
    folder.rmdir()
    tell_all(metrics)
    assert metrics.error is not None
    folder.mkdir()
    tell_all(metrics)
    assert metrics.error is None
    assert read(folder / "batch.prom")["retries_total"] == 2


def test_the_documentation_lists_every_metric() -> None:
    page = (Path(__file__).parent.parent / "docs" / "batches.md").read_text(encoding="utf-8")
    listed = dict(re.findall(rf"^\| `{NAME}(\w+)` \| (gauge|counter) \|", page, re.MULTILINE))
    metrics = [value for value in vars(metrics_file).values() if isinstance(value, metrics_file.Metric)]
    assert listed == {metric.name: metric.kind for metric in metrics}

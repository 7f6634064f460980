"""One job in its process: what it tells while it works, what it leaves, and that it always leaves the same."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import onnx
import pyarrow.parquet
import pytest
from exporting import REPOSITORY, command, job_for, leftovers, manifest, metadata
from keras import layers

from exporter import files, memory, receipts, reporting, wire, worker
from exporter.child_process import SpawnedChild, spawn_worker
from exporter.errors import InternalError, InUseError, ResourceError, SourceError
from exporter.records import Job
from exporter.sources.digest import source_digest

pytestmark = pytest.mark.slow

TABLES = ("layers.parquet", "tensors.parquet", "edges.parquet", "nodes.parquet")
# In the order in which they are written; the tables tell the verdict and so come last.
ARTIFACTS = ("model.onnx", "model.dot", "model.svg", "models.parquet", *TABLES)
# What differs between two runs of the same job.
MEASURED = ("seconds", "stages", "memory", "verification")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.clear_session()
    x = keras.Input((8, 8, 3), name="image")
    y = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(x))
    y = layers.Dense(3, name="head")(layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(y)))
    path = tmp_path_factory.mktemp("models") / "m.keras"
    keras.Model(x, y).save(path)
    return path


@pytest.fixture(scope="module")
def first(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the real command, from absolute paths, with everything."""
    output = tmp_path_factory.mktemp("first")
    result = command([archive, "-o", output, "--to", "onnx,parquet,dot,svg"], cwd=output)
    assert result.status == 0, result.text
    return output / "m"


@pytest.fixture(scope="module")
def second(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by another name, in another folder, in another order of hashes."""
    output = tmp_path_factory.mktemp("second")
    environment = {"PYTHONHASHSEED": "7"}
    arguments = [os.path.relpath(archive, output), "--to", "svg,dot,parquet,onnx"]
    result = command(arguments, cwd=output, environment=environment)
    assert result.status == 0, result.text
    return output / "outputs" / "m"


def test_the_artifacts_are_there_and_nothing_else(first: Path) -> None:
    assert sorted(path.name for path in first.iterdir()) == sorted([*ARTIFACTS, files.MANIFEST])
    assert leftovers(first.parent) == []


@pytest.mark.parametrize("name", ARTIFACTS)
def test_two_runs_give_the_same_bytes(first: Path, second: Path, name: str) -> None:
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_two_receipts_differ_in_what_was_measured_only(first: Path, second: Path) -> None:
    one, two = manifest(first), manifest(second)
    assert list(one) == list(two)
    assert {key for key in one if one[key] != two[key]} <= set(MEASURED)
    assert one["verification"]["outputs"] == two["verification"]["outputs"]


def test_no_path_of_this_machine_is_in_an_artifact(first: Path, archive: Path) -> None:
    """Also not inside of compressed columns."""
    texts = {path.name: path.read_bytes() for path in first.iterdir()}
    for name in TABLES:
        table = pyarrow.parquet.read_table(first / name)
        texts[f"rows of {name}"] = json.dumps(table.to_pylist(), default=str).encode()
        texts[f"schema of {name}"] = str(table.schema.metadata).encode()
    secrets = [str(archive.parent), str(first.parent), str(REPOSITORY), sys.prefix, str(Path.home()) + "/", "/tmp/"]
    assert [(name, secret) for name, text in texts.items() for secret in secrets if secret.encode() in text] == []


def test_the_receipt(first: Path, archive: Path) -> None:
    receipt = manifest(first)
    assert (receipt["manifest_version"], receipt["tool"]["name"]) == (1, "export-model")
    assert (receipt["model"], receipt["kind"], receipt["source"]) == ("m", "keras_archive", "m.keras")
    assert receipt["source_digest"] == source_digest(job_for(archive, first))
    assert receipt["versions"]["keras"] == keras.__version__
    assert receipt["arguments"]["formats"] == ["onnx", "parquet", "dot", "svg"]
    assert receipt["arguments"]["source"] == "m.keras"
    assert "output_path" not in receipt["arguments"]
    assert (receipt["weights"], receipt["opset"], receipt["layers"]) == ("from the archive", 18, 6)
    assert receipt["params"] == 3 * 3 * 3 * 4 + 4 + 4 * 4 + 4 * 3 + 3
    assert receipt["weight_bytes"] == 4 * receipt["params"]
    assert receipt["inputs"] == [{"name": "image", "shape": [None, 8, 8, 3], "dtype": "float32"}]
    assert [spec["name"] for spec in receipt["outputs"]] == ["head"]
    assert receipt["onnx_nodes"]["total"] >= receipt["onnx_nodes"]["with_layer"] > 0
    assert receipt["notes"] == []
    assert [record["name"] for record in receipt["files"]] == list(ARTIFACTS)
    for record in receipt["files"]:
        data = (first / record["name"]).read_bytes()
        assert (record["nbytes"], record["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_receipt_s_measurements(first: Path) -> None:
    receipt = manifest(first)
    names = [stage["name"] for stage in receipt["stages"]]
    assert names == ["import", "build", "convert", "weights", "dot", "svg", "verify", "source", "parquet"]
    assert 0 < sum(stage["seconds"] for stage in receipt["stages"]) <= receipt["seconds"] + 0.1
    peaks = [stage["peak_rss_bytes"] for stage in receipt["stages"]]
    assert peaks == sorted(peaks)
    used = receipt["memory"]
    # The one is read inside of the stage, the other at its end.
    assert 0 <= peaks[0] - used["import_rss_bytes"] < 2**20
    assert used["largest_tensor_bytes"] == 3 * 3 * 3 * 4 * 4
    assert used["bound_bytes"] == memory.conversion_bound_bytes(used["import_rss_bytes"], used["largest_tensor_bytes"])
    assert peaks[-1] <= used["peak_rss_bytes"] <= used["bound_bytes"]
    assert receipt["verification"]["status"] == "passed"
    assert receipt["verification"]["peak_rss_bytes"] > 200_000_000


def test_the_onnx_file_says_where_it_comes_from(first: Path) -> None:
    model = onnx.load(str(first / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert metadata(first) == {"export_model.source": "m.keras", "export_model.weights": "from the archive"}
    assert model.producer_name == "export-model"
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["head"]
    assert all(entry.key == "namespace" for node in model.graph.node for entry in node.metadata_props)


# In this process --------------------------------------------------------------------------------------------------


def told(stream: io.StringIO) -> list[Any]:
    return [wire.event_from_json(line.encode()) for line in stream.getvalue().splitlines()]


def test_events_are_lines_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second word about progress comes too early, however slow this machine is."""
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    stream = io.StringIO()
    reporter = worker.Reporter(stream)

    def work() -> None:
        reporter.progress(5, 10)
        reporter.progress(6, 10)
        reporter.progress(10, 10)
        reporter.note("one", "two")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), reporter.stage("convert"):
        work()
    events = told(stream)
    assert events[:-1] == [
        wire.StageEvent("convert", "start"),
        wire.ProgressEvent("weights", 5, 10),
        wire.ProgressEvent("weights", 10, 10),
        wire.NoteEvent("one"),
        wire.NoteEvent("two"),
    ]
    assert (events[-1].stage, events[-1].state) == ("convert", "end")
    assert events[-1].peak_rss_bytes > 0
    assert reporter.notes == ["one", "two"]
    assert [stage.name for stage in reporter.stages] == ["convert"]


@pytest.fixture
def job(archive: Path, tmp_path: Path) -> Job:
    return job_for(archive, tmp_path, formats=("onnx",))


@pytest.mark.parametrize(
    ("error", "kind", "what"),
    [
        (SourceError("is corrupt", where="m"), SourceError, "is corrupt"),
        (ZeroDivisionError("by zero"), InternalError, "unexpected ZeroDivisionError"),
        (MemoryError("Unable to allocate 9 GiB"), ResourceError, "the memory is used up"),
        (OSError(28, "No space"), InternalError, "unexpected OSError"),
    ],
)
def test_every_error_becomes_an_outcome(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, what: str
) -> None:
    def fail(work: worker.Work) -> None:
        raise error

    monkeypatch.setattr(worker.Work, "run", fail)
    outcome = worker.carry_out(job, worker.Reporter(io.StringIO()))
    assert outcome.error is not None
    assert (outcome.status, outcome.error["type"], outcome.error["what"]) == ("failed", kind.__name__, what)
    assert type(error).__name__ in outcome.error["trace"]
    assert not Path(job.output_path).exists()
    assert wire.outcome_from_json(wire.outcome_to_json(outcome)) == outcome


def test_a_folder_in_use_is_an_outcome(job: Job) -> None:
    with files.Export(Path(job.output_path)):
        outcome = worker.carry_out(job, worker.Reporter(io.StringIO()))
    assert outcome.error is not None
    assert outcome.error["type"] == InUseError.__name__
    assert "another export is writing there" in outcome.error["why"]


@pytest.mark.parametrize(
    ("kind", "source", "name"),
    [("application", "ResNet101", "ResNet101"), ("keras_archive", "/home/me/secret/m.keras", "m.keras")],
)
def test_the_public_name_has_no_folders(job: Job, kind: str, source: str, name: str) -> None:
    assert receipts.public_name(dataclasses.replace(job, kind=kind, source=source)) == name


def start(job: Job, folder: Path, descriptor: int) -> subprocess.Popen[bytes]:
    files.write_lines(folder / "job.json", [wire.job_to_json(job)])
    with open(folder / "log", "wb") as log:
        child = spawn_worker(folder / "job.json", folder / "result.json", descriptor, log)
    assert isinstance(child, SpawnedChild)
    return child.process


def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_without_a_parent_ends(job: Job, tmp_path: Path) -> None:
    """The parent was killed: nobody would read the result, stop it or enforce --max-memory."""
    reading, writing = os.pipe()
    process = start(job, tmp_path, writing)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    wait(lambda: process.poll() is not None)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    assert files.read_manifest(Path(job.output_path)) is None
    files.remove_leftovers(Path(job.output_path))
    assert not Path(job.output_path).exists()


def test_the_process_writes_its_result_last(job: Job, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = start(dataclasses.replace(job, verify=False), tmp_path, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as events:
        lines = events.read().splitlines()
    assert process.wait(300) == 0
    stages = [event for event in map(wire.event_from_json, lines) if isinstance(event, wire.StageEvent)]
    assert [(event.stage, event.state) for event in stages] == [
        (name, state) for name in ("import", "build", "convert", "weights", "source") for state in ("start", "end")
    ]
    outcome = wire.outcome_from_json((tmp_path / "result.json").read_text())
    assert (outcome.status, outcome.weights) == ("done", "from the archive")
    assert [stage.name for stage in outcome.stages] == ["import", "build", "convert", "weights", "source"]
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("skipped", "--no-verify was given")
    assert outcome.files[0].name == "model.onnx"

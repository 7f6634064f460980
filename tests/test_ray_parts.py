"""What goes to the nodes of a cluster, and what they refuse; nothing here starts Ray."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batch_runs import BatchRun

from exporter import __version__, wire
from exporter.batch import ray_cluster, ray_task
from exporter.batch.ray_task import Seldom, carry_out, independent
from exporter.batch.shared_folder import SharedFolder, require_seen
from exporter.batch.tasks import Policy
from exporter.errors import OutputError, UsageError
from exporter.records import Job, Outcome, SourceOptions

JOB = Job("m.keras", "keras_archive", "m", "outputs/m", ("parquet",), "f", "d")


class Mailbox:
    """In place of the actor: what was put into it."""

    def __init__(self) -> None:
        self.letters: list[ray_task.Letter] = []
        self.put = self

    def remote(self, letter: ray_task.Letter) -> None:
        self.letters.append(letter)


def work(job: Job, *, begin: Any, watch: Any) -> Outcome:
    begin()
    watch(wire.NoteEvent("on the node"))
    return Outcome(job.name, "done", job.output_path)


@pytest.mark.parametrize(
    ("kind", "source", "there"),
    [
        ("keras_archive", "m.keras", "/here/m.keras"),
        ("checkpoint", "training/ckpt-3", "/here/training/ckpt-3"),
        ("keras_archive", "s3://bucket/m.keras", "s3://bucket/m.keras"),
        ("application", "ResNet50", "ResNet50"),
        ("factory", "models.py:make", "/here/models.py:make"),
        ("factory", "package.models:make", "package.models:make"),
    ],
)
def test_paths_mean_the_same_on_every_node(kind: str, source: str, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: "/here")
    reading = SourceOptions(custom_objects=("mine.py", "package.objects"))
    job = independent(replace(JOB, kind=kind, source=source, reading=reading))
    assert job.source == there
    assert job.output_path == "/here/outputs/m"
    assert job.reading.custom_objects == ("/here/mine.py", "package.objects")
    assert job.weights == "auto"
    assert job.fingerprint == JOB.fingerprint


def test_a_file_of_weights_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.weights.h5").touch()
    monkeypatch.chdir(tmp_path)
    assert independent(replace(JOB, weights="w.weights.h5")).weights == str(tmp_path / "w.weights.h5")


def test_a_task_tells_and_returns(tmp_path: Path) -> None:
    mailbox, shared = Mailbox(), SharedFolder(tmp_path / "outputs")
    done = carry_out(7, JOB, work, str(shared.mark), __version__, mailbox)
    shared.close()
    assert done.outcome.status == "done"
    assert done.letters == 2
    assert mailbox.letters == [ray_task.Letter(7), ray_task.Letter(7, wire.NoteEvent("on the node"))]


def test_another_version_is_refused() -> None:
    outcome = carry_out(7, JOB, work, None, "0.0.1", Mailbox()).outcome
    assert outcome.error is not None
    assert "the batch was started by 0.0.1" in outcome.error["why"]


def test_a_folder_that_is_not_shared_is_refused(tmp_path: Path) -> None:
    outcome = carry_out(7, JOB, work, str(tmp_path / "outputs" / ".shared-1"), __version__, Mailbox()).outcome
    assert outcome.error is not None
    assert outcome.error["type"] == "OutputError"
    assert "is not shared with all nodes" in outcome.error["what"]
    assert not (tmp_path / "outputs").exists()


def test_the_mark_goes_and_so_does_that_of_a_killed_batch(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    abandoned = SharedFolder(folder)
    other = SharedFolder(folder)
    require_seen(abandoned.mark, "node")
    os.close(abandoned._descriptor)
    third = SharedFolder(folder)
    with pytest.raises(OutputError, match="there is not there on node"):
        require_seen(abandoned.mark, "node")
    require_seen(other.mark, "node")
    other.close()
    third.close()
    assert not folder.exists()


def test_frequent_events_are_told_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[wire.Event] = []
    seldom = Seldom(told.append)
    for number in range(100):
        # Two and a half seconds in all.
        monkeypatch.setattr(ray_task, "time", SimpleNamespace(monotonic=lambda now=number / 40: now))
        seldom(wire.MemoryEvent(number, number))
        seldom(wire.ProgressEvent("weights", number, 100))
        seldom(wire.NoteEvent(str(number)))
    assert sum(isinstance(event, wire.NoteEvent) for event in told) == 100
    assert len(told) - 100 == 2 * 3


@pytest.mark.parametrize(
    ("address", "fragment"),
    [("ray://head:10001", "has to run on a machine of the cluster"), (None, "pip install 'export-model")],
)
def test_refused_before_anything_starts(address: str | None, fragment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if address is None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        ray_cluster.connect(address, Policy())
    assert fragment in f"{caught.value} {caught.value.hint}"


@pytest.mark.cluster
def test_nobody_listens_there(tmp_path: Path) -> None:
    batch = BatchRun(tmp_path, ["resnet50", "--executor", "ray", "--ray-address", "127.0.0.1:9"], "parquet")
    assert batch.status() == 8, batch.text
    assert "127.0.0.1:9: cannot reach the Ray cluster: " in batch.text

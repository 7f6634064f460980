"""Batches for tests of what they tell: real exports of tiny ONNX files in this process, and accidents on demand."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter import wire, worker
from exporter.errors import TransientError, UnsupportedError
from exporter.records import Job, Outcome, OutputDifference, Verification

WRONG = Verification("mismatch", outputs=(OutputDifference("y", (1, 3), 0.25, 1.0, 1e-5),))


def make_model(path: Path, width: int = 3) -> None:
    """One dense layer, 4 × width weights."""
    value = helper.make_tensor_value_info
    node = helper.make_node("MatMul", ["x", "kernel"], ["y"], name="dense")
    kernel = numpy_helper.from_array(np.ones((4, width), np.float32), "kernel")
    ends = [value("x", TensorProto.FLOAT, [1, 4])], [value("y", TensorProto.FLOAT, [1, width])]
    graph = helper.make_graph([node], path.stem, *ends, [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))


class Accidents:
    """Takes the place of the supervisor: what befalls a model follows from its name, the rest is exported."""

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def __call__(self, job: Job, *, watch: Callable[[wire.Event], None], **limits: Any) -> Outcome:
        self.jobs.append(job.name)
        watch(wire.StageEvent("read", "start"))
        watch(wire.MemoryEvent(300_000_000, 400_000_000))
        watch(wire.ProgressEvent("read", 5, 10))
        watch(wire.StageEvent("read", "end", 0.5, 350_000_000))
        watch(wire.NoteEvent("a note on the way"))
        watch(wire.LogEvent("printed by the worker\n"))
        if job.name.startswith("broken"):
            error = UnsupportedError("cannot be read", where=job.name, why=f"{job.source} is odd", hint="another file")
            return dataclasses.replace(failed(job), error=error.as_record() | {"trace": "Traceback of the worker"})
        if job.name.startswith("flaky") and self.jobs.count(job.name) == 1:
            error = TransientError("was killed by SIGKILL", where=job.name, why="probably out of memory")
            return dataclasses.replace(failed(job), error=error.as_record())
        if job.name.startswith("interrupting"):
            os.kill(os.getpid(), signal.SIGINT)
        if job.name.startswith("terminating"):
            os.kill(os.getpid(), signal.SIGTERM)
        outcome = worker.carry_out(job, worker.Reporter(io.StringIO()))
        outcome = dataclasses.replace(outcome, tree_peak_rss_bytes=700_000_000, seconds=6.25)
        return dataclasses.replace(outcome, status="mismatch", verification=WRONG) if job.name == "wrong" else outcome


def failed(job: Job) -> Outcome:
    return Outcome(job.name, "failed", job.output_path, seconds=1.5, peak_rss_bytes=5, tree_peak_rss_bytes=7)

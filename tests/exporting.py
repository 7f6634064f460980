"""Runs exports for tests: many in this process, which imports TensorFlow once, or through the real command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import onnx
import tf2onnx
from keras.src.backend.common import global_state

from exporter import files, plan, wire, worker
from exporter.records import Job, Outcome, Verification
from exporter.verification import children, roles, verifying

REPOSITORY = Path(__file__).resolve().parent.parent
SCOPE = "stateless_scope"
# Nothing listens on port 9, so that a download fails at once, with or without a network.
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "HTTP", "HTTPS")}


def job_for(source: str | Path, output: Path, **options: Any) -> Job:
    """The job that the command line would make of it."""
    defaults = {"formats": ("onnx",), "output": str(output)}
    (job,) = plan.plan([str(source)], plan.ExportOptions(**defaults | options))
    if isinstance(job, plan.Refusal):
        raise job.error
    return job


def export_here(source: str | Path, output: Path, **options: Any) -> Outcome:
    return run_here(job_for(source, output, **options))


def run_here(job: Job, *, watch: Callable[[wire.Event], None] = lambda event: None) -> Outcome:
    """What the worker does, in this process, with the children of its verification too.

    It can take the place of `exporter.supervisor.run` in `cli.main`.
    """
    keras.utils.clear_session()
    # tf2onnx numbers what it makes through the life of a process; a worker's process starts at the beginning.
    tf2onnx.utils.INTERNAL_NAME = 1
    with mock.patch.object(verifying, "run_children", _roles_here):
        try:
            return worker.carry_out(job, worker.Reporter(io.StringIO()))
        finally:
            global_state.set_global_attribute(SCOPE, None)


def _roles_here(folder: Path, limit_bytes: int | None = None, understudies: object = None) -> Verification:
    """In place of two child processes: both roles, outside of the hollow scope that the worker lives in."""
    request = wire.restore(children.Request, json.loads((folder / "request.json").read_text("utf-8")))
    with outside_hollow_scope():
        for role, run in (("reference", roles.run_reference), ("runtime", roles.run_runtime)):
            # A child of its own numbers layers from the beginning, and random values follow from names.
            keras.utils.clear_session()
            try:
                run(request, folder)
            except Exception as error:  # noqa: BLE001 (a child that dies of it)
                return children._failed(role, 1, f"{type(error).__name__}: {error}")
            if (folder / "result.json").exists():
                break
    return wire.restore(Verification, json.loads((folder / "result.json").read_text("utf-8")))


@contextmanager
def outside_hollow_scope() -> Iterator[None]:
    scope = global_state.get_global_attribute(SCOPE)
    global_state.set_global_attribute(SCOPE, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(SCOPE, scope)


@dataclass(frozen=True)
class Result:
    """What a finished command left."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def command(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    environment: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
    module: str = "exporter",
) -> Result:
    """`export-model ARGUMENTS` as a user runs it."""
    words = [*prefix, sys.executable, "-m", module, *map(str, arguments)]
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)} | NO_NETWORK | (environment or {})
    child = subprocess.run(words, cwd=cwd, env=settings, capture_output=True, text=True, check=False)
    return Result(child.returncode, child.stdout, child.stderr)


def manifest(folder: Path) -> dict[str, Any]:
    found = files.read_manifest(folder)
    assert found is not None, f"no receipt in {folder}: {sorted(path.name for path in folder.glob('*'))}"
    return found


def initializers(folder: Path) -> dict[str, np.ndarray]:
    """The weights in the ONNX file, by name."""
    model = onnx.load(str(folder / "model.onnx"))
    return {proto.name: onnx.numpy_helper.to_array(proto) for proto in model.graph.initializer}


def metadata(folder: Path) -> dict[str, str]:
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def leftovers(folder: Path) -> list[str]:
    """Names of what an export must not leave behind, anywhere below the folder."""
    return sorted(path.name for path in folder.rglob(".*"))

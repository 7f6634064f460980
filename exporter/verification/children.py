"""The processes of a comparison, one after the other, so that the memory needed is that of the larger and not the sum.

`reference` runs the source with its framework and keeps its outputs in a file; `runtime` runs the ONNX file, without
TensorFlow, and compares. After a mismatch `sensitivity` finds out whether the source agrees with itself.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from exporter import wire
from exporter.records import Job, TensorSpec, Verification
from exporter.verification.understudy import Understudy

Understudies = Mapping[str, Understudy]
# Those who are always needed; what else there is to do is rare.
UNDERSTUDIED = ("reference", "runtime")
NOBODY: Understudies = MappingProxyType({})
SAMPLE_SECONDS = 0.05
ABOVE_LIMIT = None
# The line of a traceback that says what was raised.
RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt): ")
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Failed to allocate memory")


@dataclass(frozen=True)
class Request:
    """What the children need: the job as it was carried out, the inputs with their final shapes, where the file is.

    `larger` are shapes for a source that does not take the usual ones, `index_inputs` names of inputs that are whole
    numbers below `index_limit`, whatever their dtype.
    """

    job: Job
    inputs: tuple[TensorSpec, ...]
    index_limit: int
    atol: float
    rtol: float
    onnx_path: str
    larger: tuple[tuple[TensorSpec, ...], ...] = ()
    index_inputs: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[tuple[TensorSpec, ...], ...]:
        return (self.inputs, *self.larger)


def begin(role: str, folder: Path, understudies: Understudies) -> None:
    """Let an understudy play its role beside what else is done; `run_children` then waits for it."""
    understudies[role].start((role, str(folder)), _log_of(role, folder))


def run_children(folder: Path, limit_bytes: int | None, understudies: Understudies) -> Verification:
    """`sensitivity` only has to say something after a mismatch."""
    for role in ("reference", "runtime", "sensitivity"):
        status, log = _run_child(role, folder, limit_bytes, understudies.get(role))
        if role == "sensitivity" and status != 0:
            # Nothing speaks for the ONNX file then: the mismatch stands.
            break
        if status == ABOVE_LIMIT:
            return Verification("skipped", "it went above what --max-memory leaves for it")
        if status != 0:
            return _failed(role, status, log)
        result = folder / "result.json"
        found = wire.restore(Verification, json.loads(result.read_text(encoding="utf-8"))) if result.exists() else None
        if found and not (found.status == "mismatch" and found.outputs):
            break
    assert found is not None
    return found


def _run_child(
    role: str, folder: Path, limit_bytes: int | None, understudy: Understudy | None
) -> tuple[int | None, str]:
    """Exit status and what it printed. One that grows above the limit is ended here, before the parent ends it all."""
    import psutil

    child = _started(role, folder, understudy)
    process, status = psutil.Process(child.pid), None
    while limit_bytes is not None and (status := child.poll()) is None:
        with suppress(psutil.Error):
            if process.memory_info().rss > limit_bytes:
                child.kill()
                child.wait()
                return ABOVE_LIMIT, ""
        time.sleep(SAMPLE_SECONDS)
    status = child.wait()
    log = _log_of(role, folder)
    return status, log.read_text("utf-8", "replace") if log.exists() else ""


def _started(role: str, folder: Path, understudy: Understudy | None) -> Understudy | subprocess.Popen[bytes]:
    arguments, log = (role, str(folder)), _log_of(role, folder)
    if understudy is not None:
        if not understudy.is_at_work:
            understudy.start(arguments, log)
        return understudy
    command = [sys.executable, "-m", "exporter.verification.roles", *arguments]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=descriptor)
    finally:
        os.close(descriptor)


def _log_of(role: str, folder: Path) -> Path:
    return folder / f"{role}.log"


def _failed(role: str, status: int, log: str) -> Verification:
    """A source that does not run leaves nothing to compare with; an ONNX file that does not run is wrong."""
    lines = [line.rstrip() for line in reversed(log.splitlines()) if line.strip()]
    # Messages may have several lines, of which the last say least.
    last = next((line for line in lines if RAISED.match(line)), lines[0].strip() if lines else "it printed nothing")
    why = f"killed by signal {-status}, probably out of memory" if status < 0 else last[:500]
    if role == "reference":
        return Verification("skipped", f"the source could not be run for comparison: {why}")
    if status < 0 or any(word in last for word in OUT_OF_MEMORY):
        return Verification("skipped", f"ONNX Runtime could not be run: {why}")
    return Verification("mismatch", f"ONNX Runtime cannot run the file: {why}")

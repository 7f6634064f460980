"""A process that has imported what workers need, and makes each of them by `fork`: 20 ms instead of 4 seconds.

Every job still has a process of its own, which begins in the state that this one has after importing and nothing else:
it never opens a source. Its memory is shared with its children until they change it.

Run as `python -m exporter.fork_server CONTROL_FD KIND`; `exporter.fork_client` is at the other end, and requests are
answered one after the other. Importing TensorFlow starts no thread of its own; those of OpenBLAS and jemalloc know
about `fork`. When the other end is closed this process ends, and workers see by themselves that nobody watches them.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

from exporter.startup import collect_rarely, hidden, lean_imports

# What the workers of each kind begin with: those that only read files do without TensorFlow.
READING, FRAMEWORK = "reading", "framework"
READERS = (
    "pyarrow.parquet",
    "exporter.worker",
    "exporter.storage.exports",
    "exporter.formats.catalogue",
    "exporter.readers.keras_archive",
)
CONVERTERS = ("exporter.formats.onnx_model", "exporter.sources.opened", "exporter.sources.reference")
PRELOADED = {READING: READERS, FRAMEWORK: (*READERS, *CONVERTERS)}
REQUEST_BYTES = 65_536


def main(control_descriptor: str, kind: str) -> None:
    control = socket.socket(fileno=int(control_descriptor))
    # Ctrl-C in a terminal reaches the whole group; who watches decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import(kind)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 2)
        if not message:
            return
        request = json.loads(message)
        answer = _reaped(request["reap"]) if "reap" in request else {"pid": _forked(control, request, *descriptors)}
        control.send(json.dumps(answer).encode())


def _import(kind: str) -> None:
    collect_rarely()
    with hidden(("pandas",)), lean_imports():
        for module in PRELOADED[kind]:
            importlib.import_module(module)
    gc.freeze()


def _forked(control: socket.socket, request: dict[str, str], events: int, log: int) -> int:
    """The worker's process id. In the worker this never returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        # Here too, so that it leads its group as soon as anybody knows of it.
        with suppress(OSError):
            os.setpgid(pid, pid)
        os.close(events)
        os.close(log)
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        control.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        from exporter import worker

        worker.main(request["job"], request["result"], str(events))
        status = 0
    except BaseException:  # noqa: BLE001 (the end of a process: what it prints is in the log, and its status tells)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _reaped(pid: int) -> dict[str, Any]:
    """Waits for its end; the caller has killed it if need be."""
    _, status, usage = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return {"status": os.waitstatus_to_exitcode(status), "peak_rss_bytes": usage.ru_maxrss * unit}


if __name__ == "__main__":
    main(*sys.argv[1:])

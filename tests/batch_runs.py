"""`export-model batch` under way as a user runs it, for tests of what happens to it, and what is left then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors.numpy

from exporter import files

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 300.0
# A file with so many tensors takes a few seconds; `held` makes sure that its job is not over before it is needed.
MANY_TENSORS = 8_000


class BatchRun:
    """The command in a folder; what it tells goes to a file. It leads a process group of its own."""

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        formats: str = "parquet,json",
        log: str = "log.txt",
        **environment: str,
    ) -> None:
        self.log_path = folder / log
        with self.log_path.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exporter", "batch", "-v", "--no-report", "--to", formats, *words],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.log_path.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.text.count(text) < count:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C in a terminal, which reaches the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def status(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def workers(self) -> list[psutil.Process]:
        """Those that have a job: children of the process that makes workers, each of which leads a group.

        That process has others for moments, such as `uname`, for which Python's `platform` waits.
        """
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [each for each in below if each.ppid() != self.process.pid and os.getpgid(each.pid) == each.pid]
        except (psutil.NoSuchProcess, ProcessLookupError):
            return []


@contextmanager
def held(find: Callable[[], Sequence[psutil.Process]], count: int) -> Iterator[list[psutil.Process]]:
    """The first so many processes that are found stand still inside, however slow all others are."""
    found: list[psutil.Process] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while len(found) < count:
            assert time.monotonic() < deadline, f"no more than these are there: {found}"
            for each in find():
                if each not in found:
                    with suppress(psutil.NoSuchProcess):
                        each.suspend()
                        found.append(each)
            time.sleep(0.02)
        yield found
    finally:
        for each in found:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def weights_file(path: Path, tensors: int) -> str:
    """A file whose export needs no TensorFlow; its name."""
    safetensors.numpy.save_file({f"layer{n}.weight": np.full((3, 2), n, np.float32) for n in range(tensors)}, path)
    return path.name


def manifest_of(folder: Path) -> dict[str, Any]:
    receipt = files.read_manifest(folder)
    assert receipt is not None, sorted(folder.iterdir())
    return receipt


def digests(output: Path) -> dict[str, dict[str, str]]:
    """The files of each model's folder, each of which has to be complete and as its receipt says, without leftovers."""
    found = {}
    for folder in output.iterdir():
        listed = {record["name"]: record["sha256"] for record in manifest_of(folder)["files"]}
        assert {path.name for path in folder.iterdir()} == {*listed, files.MANIFEST}
        found[folder.name] = {name: files.sha256(folder / name) for name in listed}
        assert found[folder.name] == listed
    return found


def processes_in(folder: Path) -> list[psutil.Process]:
    """Those whose current folder it is: a batch, and all that it started."""
    found = psutil.process_iter(["cwd", "status"])
    return [each for each in found if each.info["cwd"] == str(folder) and each.info["status"] != psutil.STATUS_ZOMBIE]


def wait_for_the_end(folder: Path) -> None:
    """What a batch leaves running ends by itself."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alive := processes_in(folder):
        assert time.monotonic() < deadline, f"these go on: {alive}"
        time.sleep(0.1)

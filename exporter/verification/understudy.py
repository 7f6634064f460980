"""The processes that run the source and the file for comparison, made before the worker has changed anything.

Each is a copy of the worker by `fork` at the moment when the framework has been imported, so that it need not import it
again (4 s), and sleeps until it is needed. What the worker does meanwhile (hollow variables, names that were taken) it
never sees.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

# On other systems the libraries do not bear a `fork` without a new program.
IS_POSSIBLE = sys.platform == "linux"
NAME = b"understudy"
Main = Callable[[Sequence[str]], None]


class Understudy:
    """Asleep until `start`; then as a `subprocess.Popen` of what `main` is given."""

    def __init__(self, main: Main) -> None:
        reading, self._control = os.pipe()
        self._status: int | None = None
        self.is_at_work = False
        self.pid = os.fork()
        if not self.pid:
            _sleep(reading, main)
        os.close(reading)

    def start(self, arguments: Sequence[str], log: Path) -> None:
        """What the process prints goes to the file `log`. Once only."""
        os.write(self._control, json.dumps({"arguments": list(arguments), "log": str(log)}).encode() + b"\n")
        os.close(self._control)
        self.is_at_work = True

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._status if self._status is not None else self._waited(os.WNOHANG)

    def wait(self) -> int:
        status = self.poll()
        while status is None:
            status = self._waited(0)
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Whatever it does; afterwards it writes nothing any more."""
        self.kill()
        self.wait()

    def _waited(self, options: int) -> int | None:
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


def _sleep(reading: int, main: Main) -> NoReturn:
    """Wait for the arguments; their end without any means that the worker has ended."""
    status = 1
    try:
        # The lock of the output folder and the events belong to the worker alone.
        os.closerange(3, reading)
        os.closerange(reading + 1, os.sysconf("SC_OPEN_MAX"))
        _take_name()
        with os.fdopen(reading, encoding="utf-8") as control:
            line = control.readline()
        if line:
            request = json.loads(line)
            log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(log, 2)
            main(request["arguments"])
        status = 0
    except BaseException:  # noqa: BLE001 (the end of a process: the worker reads what it prints, and its status)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _take_name() -> None:
    """Tell those who watch this process that its memory is its own and not lent by `vfork`."""
    descriptor = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(descriptor, NAME)
    os.close(descriptor)

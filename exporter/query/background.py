"""Processes that make the copies of tables: nobody waits for them, and they go on after the command has ended.

They have the lowest priority and say nothing: a copy that cannot be made is one that later queries do without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

# With any value, no copies are made.
SWITCH = "EXPORT_MODEL_NO_COPY"
LOWEST_PRIORITY = 19

# Kept, because Python warns of a process that nobody remembers, and reaps those that have ended when it starts another.
_started: list[subprocess.Popen[bytes]] = []


def is_allowed() -> bool:
    return not os.environ.get(SWITCH)


def start(module: str, request: Any) -> bool:
    """Run a module, which gets the request as JSON; False where copies are not wanted, or there is no room for it."""
    if not is_allowed():
        return False
    try:
        with tempfile.TemporaryFile() as stream:
            stream.write(json.dumps(request).encode())
            stream.seek(0)
            command, quiet = [sys.executable, "-m", module], subprocess.DEVNULL
            maker = subprocess.Popen(command, stdin=stream, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return False
    _started[:] = [*(each for each in _started if each.poll() is None), maker]
    return True


def request() -> Any:
    """In the process that was started: what it has been asked for. Everything else has precedence from then on."""
    os.nice(LOWEST_PRIORITY)
    return json.load(sys.stdin)

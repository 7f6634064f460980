"""Ends this process where a library does not come back: libhdf5 goes round in circles in some damaged files.

Nothing in Python can end that, because the library holds the interpreter's lock. The system can: it has a clock that
this process winds up as long as its interpreter is alive.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Of processor time, so that a machine with much else to do is no reason. The largest configs take two to be parsed.
STUCK_SECONDS = 20.0
WINDING_SECONDS = 0.5
# What a process dies of that has been stuck; nothing else sends it.
STUCK = signal.SIGVTALRM


@contextmanager
def heartbeat(seconds: float = STUCK_SECONDS) -> Iterator[None]:
    """Inside, a call that keeps the interpreter for so long is the end of this process."""
    ended = threading.Event()

    def wind() -> None:
        while not ended.wait(WINDING_SECONDS):
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)

    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    winder = threading.Thread(target=wind, name="heartbeat", daemon=True)
    winder.start()
    try:
        yield
    finally:
        ended.set()
        winder.join()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

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
# For a small file less is enough, where no other threads use up the time: parsing JSON, the slowest of what is done in
# one call, takes a third of what this gives it (0.36 s for 10 MB, on a machine with much else to do).
LEAST_SECONDS, NBYTES_PER_SECOND = 5.0, 10_000_000
WINDING_SECONDS = 0.5
# What a process dies of that has been stuck; nothing else sends it.
STUCK = signal.SIGVTALRM


def patience(nbytes: int) -> float:
    """How long a call may take that reads of a file of this size, in seconds of processor time."""
    return min(STUCK_SECONDS, LEAST_SECONDS + nbytes / NBYTES_PER_SECOND)


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

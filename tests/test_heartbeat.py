"""A process whose interpreter stands still ends; one that only has much to do does not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from exporter.heartbeat import LEAST_SECONDS, STUCK_SECONDS, patience

# The clock is wound up ten times while it runs down, so that a machine with much else to do is no reason to die of.
PROGRAM = """
import time
from exporter import heartbeat
heartbeat.WINDING_SECONDS = 0.05
with heartbeat.heartbeat(0.6):
    {}
time.sleep(0.1)
print("came to the end")
"""
# Python has nothing to say before the sum is there.
STANDS_STILL = "sum(range(10**12))"
WORKS = "deadline = time.process_time() + 1.2\n    while time.process_time() < deadline: pass"


@pytest.mark.parametrize(("work", "status"), [(STANDS_STILL, -signal.SIGVTALRM), (WORKS, 0)])
def test_only_a_call_that_does_not_come_back_is_the_end(work: str, status: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(work)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == status, ended.stderr
    assert ("came to the end" in ended.stdout) is (status == 0)


def test_small_files_get_less_time_and_large_ones_all_of_it() -> None:
    """A second for 10 MB; a config of that size is parsed in a third of one."""
    assert patience(0) == LEAST_SECONDS == 5
    assert patience(50_000_000) == 10
    assert patience(10**12) == STUCK_SECONDS

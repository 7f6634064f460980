"""What every test may rely on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest
from stores import S3, s3_server

# The same examples in each run, however long one takes on a busy machine: a limit of 200 ms for each, and complaints
# about slow ones, would be failures now and then. `--hypothesis-profile default` looks for new ones.
hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _signals_work() -> Iterator[None]:
    """A shell starts background jobs, the tests perhaps among them, with SIGINT ignored, and `nohup` with SIGHUP.

    Children inherit that, and then nothing would interrupt them.
    """
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture
def s3(server: S3) -> S3:
    server.clear()
    return server

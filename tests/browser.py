"""A headless Chromium, driven through the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import pytest
import websocket

Result = TypeVar("Result")
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A container's /dev/shm may be too small for it.
    "--disable-dev-shm-usage",
    "--window-size=1200,900",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
# On a machine with much else to do; nothing here takes long on another.
PATIENCE_SECONDS = 300.0
LOCAL_SCHEMES = ("data", "blob", "about")


def chromium() -> str:
    """The program to drive; skips the test where there is none, or fails it if a browser is required."""
    wanted = os.environ.get("CHROMIUM")
    found = shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    reason = f"no browser: {wanted or ', '.join(NAMES)} not found (the environment variable CHROMIUM names another)"
    if os.environ.get("EXPORT_MODEL_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def wait_for(
    question: Callable[[], Result], what: Callable[[], str] | str, seconds: float = PATIENCE_SECONDS
) -> Result:
    """The first true answer; asks every 50 ms. Raises TimeoutError with `what` was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise TimeoutError(f"{what if isinstance(what, str) else what()}: not within {seconds} s")


class Browser:
    """One page. `events` holds what Chromium has told so far about its network, log and exceptions."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._command = 0
        self._worked: dict[int, float] = {}

    def start(self) -> Browser:
        program = chromium()
        self._profile = tempfile.mkdtemp(prefix="export-model-browser-")
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._socket = websocket.create_connection(self._endpoint(), timeout=PATIENCE_SECONDS)
            page = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session: str | None = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, url: str) -> None:
        """Go to `url`; raises RuntimeError when there is no such page. Does not wait until the page is ready."""
        answer = self._call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise RuntimeError(f"{url}: {answer['errorText']}")

    def evaluate(self, script: str, patience_seconds: float = PATIENCE_SECONDS) -> Any:
        """The value of a JavaScript expression in the page. Raises RuntimeError and WebSocketException."""
        self._socket.settimeout(patience_seconds)
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def strangers(self) -> set[str]:
        """The hosts, other than 127.0.0.1, that a request was let out to; one that a policy blocked is not.

        That a request was blocked is told some time after the request itself.
        """
        wait_for(lambda: not self._undecided(), lambda: f"an end of {self._undecided()}")
        failed = self._told("Network.loadingFailed")
        blocked = {about["requestId"] for about in failed if about.get("blockedReason") == "csp"}
        return {host for request, host in self._asked() if request not in blocked}

    def _undecided(self) -> set[tuple[str, str]]:
        """Requests of which nothing more is known yet."""
        self.evaluate("0")  # collects the events until now
        ends = self._told("Network.responseReceived", "Network.loadingFinished", "Network.loadingFailed")
        ended = {about["requestId"] for about in ends}
        return {(request, host) for request, host in self._asked() if request not in ended}

    def _asked(self) -> set[tuple[str, str]]:
        """The requests to elsewhere: their ids and hosts, of a file its address."""
        urls = {
            (about["requestId"], urlsplit(about["request"]["url"])) for about in self._told("Network.requestWillBeSent")
        }
        found = {(request, url.hostname or url.geturl()) for request, url in urls if url.scheme not in LOCAL_SCHEMES}
        return {(request, host) for request, host in found if host != "127.0.0.1"}

    def _told(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] in methods]

    def processor_seconds(self) -> float:
        """How long all of its processes have worked so far, which is the same on a machine with much else to do."""
        with suppress(psutil.Error):
            root = psutil.Process(self._process.pid)
            for each in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = each.cpu_times()
                    self._worked[each.pid] = times.user + times.system
        return sum(self._worked.values())

    def close(self) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the session that was started above, and no other
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _endpoint(self) -> str:
        """The address of the protocol, which Chromium writes into its profile when it is ready."""
        file = Path(self._profile, "DevToolsActivePort")

        def lines() -> list[str]:
            if self._process.poll() is not None:
                raise RuntimeError(f"the browser ended with status {self._process.returncode}")
            found = file.read_text().split() if file.exists() else []
            return found if len(found) == 2 else []

        port, path = wait_for(lines, "the browser's port")
        return f"ws://127.0.0.1:{port}{path}"

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._command += 1
        message = {"id": self._command, "method": method, "params": params}
        session = getattr(self, "_session", None)
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._command:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

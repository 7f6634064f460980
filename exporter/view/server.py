"""A small web server for the browser of this machine: the chosen files, to those who ask by our own name."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socketserver
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO

from exporter.errors import UsageError
from exporter.view.site import ASSET_TYPES, Shown, Site, key, site

LOOPBACK = "127.0.0.1"
# A page of another site may point its own name at 127.0.0.1 (DNS rebinding); its browser then sends that name. Any
# port will do: over `ssh -L` it is not ours.
OWN_NAMES = (LOOPBACK, "localhost", "[::1]")
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d+)?", re.IGNORECASE)
# The page's scripts and workers may fetch from here only, and show no picture that a model's text points at. Netron
# sets styles inline, and saves a picture of the graph through `data:` and `blob:`.
HEADERS = {
    "Content-Security-Policy": "connect-src 'self'; default-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class _Server(socketserver.ThreadingTCPServer):
    # Not `http.server.HTTPServer`: that one asks the DNS for the name of this machine.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, content: Site) -> None:
        self.content, self.host = content, host
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a browser may hang up at any time
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "export-model"
    sys_version = ""

    def do_GET(self) -> None:
        if not is_own(self.headers.get("Host", ""), self.server.host):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        path, content = key(self.path.encode("latin-1")), self.server.content
        if path in content.texts:
            self._send_text(*content.texts[path])
        elif path in content.files:
            self._send_file(*content.files[path])
        elif path in content.attachments:
            self._send_text(content.attachments[path].attachment(), ASSET_TYPES[".json"])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815

    def _send_text(self, content: bytes, content_type: str) -> None:
        self._start(len(content), content_type)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_file(self, path: Path, content_type: str) -> None:
        try:
            stream: BinaryIO = path.open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with stream:
            nbytes = os.fstat(stream.fileno()).st_size
            self._start(nbytes, content_type)
            if self.command != "HEAD" and nbytes:
                self.connection.sendfile(stream, count=nbytes)

    def _start(self, nbytes: int, content_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(nbytes))
        self.end_headers()

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silence: only the command line speaks."""


def is_own(header: str, host: str) -> bool:
    """Whether a `Host` header names this server as its user would; `host` is what it listens on.

    Where that is not the loopback, others reach it by an address of this machine: numbers cannot be rebound.
    """
    found = HOST.fullmatch(header)
    name = found["name"].lower() if found else ""
    if name in OWN_NAMES or host in OWN_NAMES:
        return name in OWN_NAMES
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name.strip("[]")))
    return bool(name) and name == host.lower()


class Viewer:
    """Serves models at `url` while the block lasts, each at one of `urls`. Raises UsageError for an impossible port."""

    def __init__(self, shown: Sequence[Shown], port: int | None = None, host: str = LOOPBACK) -> None:
        content = site(shown)
        self._server = _listen(content, host, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://{host}:{self._server.server_address[1]}/"
        self.urls = [self.url + address.removeprefix("/") for address in content.addresses]

    def __enter__(self) -> Viewer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _listen(content: Site, host: str, port: int | None) -> _Server:
    try:
        return _Server(host, port or 0, content)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "ports are numbers from 1 to 65535"
        hint = "choose another number for --port, or leave it out for a free one"
        where = f"port {port}" if host == LOOPBACK else f"{host}, port {port}"
        raise UsageError("cannot listen", where=where, why=why or str(error), hint=hint) from error


def serve(
    shown: Sequence[Shown], *, port: int | None, browser: bool, announce: Callable[[str], None], host: str = LOOPBACK
) -> None:
    """Show models until Ctrl-C or SIGTERM; call it in the main thread. `announce` is given the address to open.

    `port` None takes a free one. Raises UsageError and UnsupportedError.
    """
    with Viewer(shown, port, host) as viewer, suppress(KeyboardInterrupt), _terminable():
        announce(viewer.url)
        if browser:
            webbrowser.open(viewer.url)
        threading.Event().wait()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block in the way that Ctrl-C does."""

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

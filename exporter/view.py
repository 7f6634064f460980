"""One model file in Netron, for the browser of this machine only.

Netron's own server hands out every file of the model's folder, to any `Host`, reads files whole into memory and
cannot open names that hold `"`, `#`, `?`, `%` or `<`; its page calls a geolocation and an analytics service. Here the
page and scripts of the installed package are served beside one model, streamed, and the browser is told to talk to
nobody else.
"""

from __future__ import annotations

import html
import importlib.util
import os
import re
import shlex
import signal
import socketserver
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO
from urllib.parse import quote, unquote_to_bytes

from exporter.errors import SourceError, UnsupportedError, UsageError
from exporter.files import read_manifest

LOOPBACK = "127.0.0.1"
MODEL_FILE = "model.onnx"
# External data of `x.onnx`: our name for it (also that of onnx's own tools), and that of Hugging Face's exporters.
SIDECAR_SUFFIXES = (".data", "_data")
# External data in several files, as `--shard-size` makes them.
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.onnx\.data")
# Of the endings that Netron's `accept` knows (view.js), those that mean a model.
MODEL_NAME = re.compile(
    r".*\.(keras|h5|hd5|hdf5|json|pb|pbtxt|graphdef|meta|tflite|lite|onnx|onnxtxt|ort|pt|pt2|pth|pte|torchscript"
    r"|safetensors|gguf|mlmodel|mlir|caffemodel|prototxt|pdmodel|xml|mnn|circle|uff|npz)",
    re.IGNORECASE | re.DOTALL,
)
ASSET_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
}
BINARY = "application/octet-stream"
# A page of another site may point its own name at 127.0.0.1 (DNS rebinding); its browser then sends that name. Any
# port will do: over `ssh -L` it is not ours.
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)
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


def resolve(target: str | Path) -> Path:
    """The model file to show: `target` itself, or `model.onnx` of an export's folder. Raises SourceError."""
    path = Path(target)
    if path.is_dir():
        return _model_of_folder(path)
    if not path.exists():
        raise SourceError(
            "does not exist", where=str(path), hint="name a model file or the folder of an export, such as outputs/NAME"
        )
    if not path.is_file() or MODEL_NAME.fullmatch(path.name) is None:
        raise SourceError(
            "cannot be shown",
            where=str(path),
            why="Netron opens model files, by their ending: .onnx, .keras, .h5, .tflite, .pb and others",
            hint="rename it if it is a model, or convert it first: `export-model SOURCE --to onnx`",
        )
    return _readable(path)


def _model_of_folder(folder: Path) -> Path:
    model = folder / MODEL_FILE
    if model.is_file():
        return _readable(model)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SourceError("cannot be read", where=str(folder), why=error.strerror or str(error)) from error
    source = "SOURCE" if read_manifest(folder) else shlex.quote(str(folder))
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise SourceError(
        f"has no {MODEL_FILE}",
        where=str(folder),
        why=f"it holds {listed}" if names else "it is empty",
        hint=f"`export-model {source} --to onnx` makes one",
    )


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise SourceError("cannot be read", where=str(path), why=error.strerror or str(error)) from error
    return path


@dataclass(frozen=True)
class Site:
    """All that may be fetched: the page, and for each request path (decoded) a file and its content type."""

    page: bytes
    files: Mapping[bytes, tuple[Path, str]]


def site(model: Path) -> Site:
    """Netron's page, set to open `model`, its assets, the model and its external data. Raises UnsupportedError."""
    assets = _assets()
    files = {b"/" + os.fsencode(path.name): (path, ASSET_TYPES[path.suffix]) for path in assets.values()}
    whole = (model.with_name(model.name + suffix) for suffix in SIDECAR_SUFFIXES)
    shards = (path for path in model.parent.glob("model-*.onnx.data") if SHARD.fullmatch(path.name))
    for sidecar in filter(Path.is_file, (*whole, *shards)):
        name = os.fsencode(sidecar.name)
        # Netron asks for the location that stands in the model as it is, unquoted: a `#` or `?` cuts it short.
        files |= dict.fromkeys((_key(b"/data/" + name), b"/data/" + name), (sidecar, BINARY))
    files[b"/data/" + os.fsencode(model.name)] = (model, BINARY)
    return Site(_page(assets["index.html"], model), files)


def _assets() -> dict[str, Path]:
    spec = importlib.util.find_spec("netron")
    folders = spec.submodule_search_locations if spec else None
    paths = Path(folders[0]).iterdir() if folders else ()
    assets = {path.name: path for path in paths if path.suffix in ASSET_TYPES}
    if "index.html" not in assets:
        raise UnsupportedError("Netron is not installed", why="its page is not there", hint="pip install netron")
    return assets


def _page(index: Path, model: Path) -> bytes:
    """`index.html` with the `meta` elements by which Netron's own server tells the page what to open."""
    name = os.fsencode(model.name).decode(errors="replace")
    address = "/data/" + quote(os.fsencode(model.name), safe="")
    facts = {"type": "Python", "file": address, "name": name, "identifier": name}
    metas = "\n".join(f'<meta name="{key}" content="{html.escape(value)}">' for key, value in facts.items())
    page, found = re.subn(
        r'<meta name="version" content="[^"]*">',
        lambda version: f"{version[0]}\n{metas}",
        index.read_text(encoding="utf-8"),
        count=1,
    )
    if not found:
        raise UnsupportedError(
            "this version of Netron is not known",
            where=str(index),
            why="its page has no place for the name of a model",
            hint="pip install 'netron<10'",
        )
    return page.encode()


def _key(address: bytes) -> bytes:
    """The path of a request as the table knows it: without query and fragment, with its `%xx` decoded."""
    return unquote_to_bytes(re.split(rb"[?#]", address, maxsplit=1)[0])


class _Server(socketserver.ThreadingTCPServer):
    # Not `http.server.HTTPServer`: that one asks the DNS for the name of this machine.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, content: Site) -> None:
        self.content = content
        super().__init__((LOOPBACK, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a browser may hang up at any time
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "export-model"
    sys_version = ""

    def do_GET(self) -> None:
        if OWN_HOST.fullmatch(self.headers.get("Host", "")) is None:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        key = _key(self.path.encode("latin-1"))
        if key in (b"/", b"/index.html"):
            self._start(len(self.server.content.page), ASSET_TYPES[".html"])
            if self.command != "HEAD":
                self.wfile.write(self.server.content.page)
        elif key in self.server.content.files:
            self._send_file(*self.server.content.files[key])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815

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


class Viewer:
    """Serves one model at `url` while the block lasts. Raises UsageError for a port that cannot be had."""

    def __init__(self, model: Path, port: int | None = None) -> None:
        self._server = _listen(site(model), port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}/"

    def __enter__(self) -> Viewer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _listen(content: Site, port: int | None) -> _Server:
    try:
        return _Server(port or 0, content)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "ports are numbers from 1 to 65535"
        hint = "choose another number for --port, or leave it out for a free one"
        raise UsageError("cannot listen", where=f"port {port}", why=why or str(error), hint=hint) from error


def serve(path: Path, *, port: int | None, browser: bool, announce: Callable[[str], None]) -> None:
    """Show `path` until Ctrl-C or SIGTERM; call it in the main thread. `announce` is given the address to open.

    `port` None takes a free one. Raises UsageError and UnsupportedError.
    """
    with Viewer(path, port) as viewer, suppress(KeyboardInterrupt), _terminable():
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

"""Object stores and web servers on this machine, which keep what they are asked and can be made to fail."""

from __future__ import annotations

import functools
import http.client
import http.server
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exporter.storage import exports, objects

SECRET = "test-secret-access-key"
BUCKET = "zoo"
WORDS = {"4": b"<Code>AccessDenied</Code><Message>not for you</Message>"}
OTHER_WORDS = b"<Code>InternalError</Code><Message>out of order</Message>"
# Of a fault: the connection ends instead of an answer.
CUT = "cut"


@dataclass(frozen=True)
class Asked:
    """One request, such as `PUT zoo/runs/model.onnx.data` with `partNumber=1&uploadId=…`."""

    method: str
    path: str
    query: str

    @property
    def what(self) -> str:
        """`PUT model.onnx`, `POST model.onnx.data uploads`, `PUT model.onnx.data part`."""
        kind = self.query.partition("=")[0].replace("partNumber", "part")
        return f"{self.method} {self.path.rpartition('/')[2]} {kind}".strip()


@dataclass
class S3:
    """A server that speaks S3, with a bucket; `fault` says how a request fails, None if it does not."""

    address: str = f"s3://{BUCKET}/runs"
    client: Any = None
    asked: list[Asked] = field(default_factory=list)
    fault: Callable[[Asked], str | None] = lambda asked: None
    # One request after the other: moto closes what is replaced under those who read it.
    turn: threading.Lock = field(default_factory=threading.Lock)

    def names(self, prefix: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found]

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def content(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def put_folder(self, folder: Path, prefix: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def clear(self) -> None:
        for key in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=key)
        self.asked.clear()
        self.fault = lambda asked: None

    def unfinished_uploads(self) -> int:
        return len(self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


@contextmanager
def s3_server() -> Iterator[S3]:
    """Credentials and the endpoint are in the environment, as a user would set them, while the block lasts."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    s3 = S3()
    inner = DomainDispatcherApplication(create_backend_app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = make_server("127.0.0.1", 0, functools.partial(_asked, s3, inner), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _forget(server.server_port)
            objects._filesystem.cache_clear()
            exports._recent.clear()
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            s3.client = boto3.client("s3")
            s3.client.create_bucket(Bucket=BUCKET)
            s3.asked.clear()
            yield s3
        finally:
            objects._filesystem.cache_clear()
            server.shutdown()
            thread.join()


def _forget(port: int) -> None:
    """What an earlier server of this process was given: moto has one memory for all."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200


def _asked(s3: S3, inner: Any, environ: dict[str, Any], answer: Any) -> Iterable[bytes]:
    """Before the server: what is asked is kept, and may fail."""
    asked = Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
    is_own = "Boto3/" in environ.get("HTTP_USER_AGENT", "")
    fault = None if is_own else s3.fault(asked)
    if not is_own:
        s3.asked.append(asked)
    if fault == CUT:
        with suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []
    if fault:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = b"<Error>" + WORDS.get(fault[0], OTHER_WORDS) + b"</Error>"
        answer(fault, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
        return [body]
    with s3.turn:
        found: Iterable[bytes] = inner(environ, answer)
        return found


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server's answers, with the requests kept in the server's `asked`."""

    def send_response(self, code: int, message: str | None = None) -> None:
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        super().send_response(code, message)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""


@contextmanager
def web_server(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[tuple[str, list[str]]]:
    """The address of a server for the files in a folder, and what it has been asked."""
    answers = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()

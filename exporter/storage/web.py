"""Files of web servers, to read: through the standard library, so that no extra is needed."""

from __future__ import annotations

import base64
import errno
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from exporter.storage.objects import Stored

WEB_SECONDS = 60.0
PIECE_BYTES = 2**20
# Servers of presigned addresses allow GET and nothing else; others do not know HEAD.
NO_HEAD = (403, 405, 501)


class WebFile:
    """The file at an address. Methods raise OSError."""

    def __init__(self, address: str) -> None:
        self._address = address

    def file(self) -> Stored:
        """Its size and version without its content; a server that takes no HEAD is asked for the first byte."""
        try:
            with closing(self._open("HEAD")) as answer:
                return _told(answer.headers, _length(answer.headers.get("Content-Length")))
        except urllib.error.HTTPError as error:
            if error.code not in NO_HEAD:
                raise _as_usual(error) from error
        with closing(self._get(Range="bytes=0-0")) as answer:
            whole = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
            return _told(answer.headers, _length(whole or answer.headers.get("Content-Length")))

    def content(self) -> Iterator[bytes]:
        """From one request, so that it is one version of the file."""
        with closing(self._get()) as answer:
            expected, got = _length(answer.headers.get("Content-Length")), 0
            while piece := answer.read(PIECE_BYTES):
                got += len(piece)
                yield piece
        if expected >= 0 and got != expected:
            raise ConnectionResetError(f"{got} of {expected} bytes came")

    def _get(self, **headers: str) -> Any:
        try:
            return self._open("GET", **headers)
        except urllib.error.HTTPError as error:
            raise _as_usual(error) from error

    def _open(self, method: str, **headers: str) -> Any:
        parts = urlsplit(self._address)
        user, at, host = parts.netloc.rpartition("@")
        address = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        request = urllib.request.Request(address, headers={"User-Agent": "export-model", **headers}, method=method)
        if at:
            words = base64.b64encode(unquote(user).encode()).decode()
            # Where the server sends us elsewhere, it is not for that one.
            request.add_unredirected_header("Authorization", f"Basic {words}")
        return urllib.request.urlopen(request, timeout=WEB_SECONDS)


def _told(headers: Any, nbytes: int) -> Stored:
    """The version is the ETag or, where there is none, the time of the last change."""
    return Stored("", nbytes, (headers.get("ETag") or headers.get("Last-Modified") or "").strip('"'))


def _length(text: str | None) -> int:
    """-1 where the server does not say."""
    return int(text) if text and text.strip().isdecimal() else -1


def _as_usual(error: urllib.error.HTTPError) -> OSError:
    """As other stores say it."""
    said = f"the server says {error.code} {error.reason}"
    if error.code in (404, 410):
        return FileNotFoundError(said)
    if error.code in (401, 403, 407):
        return PermissionError(said)
    return OSError(errno.EBUSY, said) if error.code >= 500 or error.code == 429 else OSError(said)

"""The viewer's server: what it shows, to whom, and how it ends. No model is parsed here; any bytes will do."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html import unescape
from pathlib import Path

import psutil
import pytest

from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.files import write_json
from exporter.view import site
from exporter.view.server import Viewer, serve
from exporter.view.site import Shown
from exporter.view.targets import resolve

ROOT = Path(__file__).parent.parent
SERVE = """
import sys
from pathlib import Path
from exporter.view.server import serve
from exporter.view.site import Shown
from exporter.view.targets import resolve
path = resolve(sys.argv[1])
serve([Shown(path, path.name, beside=path)], port=None, browser=False, announce=lambda url: print(url, flush=True))
print("closed")
"""
CONTENT = bytes(range(256)) * 16
HOSTILE = ['a"b.onnx', "a#b.onnx", "a?b.onnx", "a%41.onnx", "a<b>&c.onnx", "a b'é.onnx", "..onnx", "\udcff.onnx"]


def get(url: str, path: str = "", *, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body. `path` goes out as it stands, without the care that a browser takes."""
    address = url.removeprefix("http://").rstrip("/")
    with closing(http.client.HTTPConnection(address, timeout=300)) as connection:
        connection.putrequest(method, "/" + path, skip_host=True)
        if host != "":
            connection.putheader("Host", host or address)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def shown(path: Path) -> list[Shown]:
    """The whole file, as it is."""
    return [Shown(path, path.name, beside=path)]


def meta(page: bytes, name: str) -> str:
    found = re.search(rf'<meta name="{name}" content="([^"]*)">', page.decode())
    assert found is not None
    return unescape(found[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export with its receipt, external data, and a neighbour that is nobody's business."""
    exported = tmp_path / "outputs" / "ResNet50"
    exported.mkdir(parents=True)
    (exported / "model.onnx").write_bytes(CONTENT)
    (exported / "model.onnx.data").write_bytes(b"weights")
    (exported / "model-00001-of-00002.onnx.data").write_bytes(b"a shard")
    (exported / "secret.txt").write_text("secret")
    write_json(exported / "manifest.json", {"files": []})
    return exported


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with Viewer(shown(resolve(folder))) as viewer:
        yield viewer.url


def test_the_page_opens_the_model(url: str) -> None:
    status, headers, page = get(url)
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert meta(page, "identifier") == meta(page, "name") == "model.onnx"
    status, headers, body = get(url, meta(page, "file").lstrip("/") + "?cb=1")
    assert (status, body) == (200, CONTENT)
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["index.js", "view.js", "grapher.css", "onnx-metadata.json?version=1", "icon.png"])
def test_netrons_assets_are_served(url: str, name: str) -> None:
    status, headers, body = get(url, name)
    assert status == 200
    assert body
    assert "connect-src 'self'" in headers["content-security-policy"], "workers take their policy from their script"


def test_the_external_data_is_served_by_its_own_name(url: str) -> None:
    assert get(url, "data/model.onnx.data")[::2] == (200, b"weights")
    assert get(url, "data/model-00001-of-00002.onnx.data")[::2] == (200, b"a shard")


@pytest.mark.parametrize(
    "path",
    [
        "data/secret.txt",
        "data/manifest.json",
        "data/",
        "data/../secret.txt",
        "data/./model.onnx",
        "data/%2e%2e/ResNet50/secret.txt",
        "data//etc/passwd",
        "data/%2Fetc%2Fpasswd",
        "data/model.onnx%00",
        "data/model.onnx.dat",
        "model.onnx",
        "server.py",
        "__init__.py",
        "../netron/server.py",
    ],
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    assert get(url, path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", ""])
@pytest.mark.parametrize("path", ["", "data/model.onnx", "index.js", "nothing"])
def test_another_host_is_refused(url: str, host: str, path: str) -> None:
    status, _, body = get(url, path, host=host)
    assert status == 403
    assert CONTENT not in body


@pytest.mark.parametrize("host", ["localhost:9000", "LOCALHOST", "127.0.0.1"])
def test_a_forwarded_port_is_accepted(url: str, host: str) -> None:
    assert get(url, host=host)[0] == 200


def test_head_sends_no_body_and_post_is_refused(url: str) -> None:
    status, headers, body = get(url, "data/model.onnx", method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")
    assert get(url, method="POST")[0] == 501


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENT)
    path.with_name(name + ".data").write_bytes(b"weights")
    with Viewer(shown(resolve(path))) as viewer:
        page = get(viewer.url)[2]
        assert meta(page, "identifier") == os.fsencode(name).decode(errors="replace")
        assert get(viewer.url, meta(page, "file").lstrip("/") + "?cb=1")[::2] == (200, CONTENT)


@pytest.mark.slow
def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(300 * 10**6)
    with child(path) as (process, url), closing(socket.create_connection(address_of(url))) as connection:
        connection.sendall(b"GET /data/large.onnx HTTP/1.0\r\nHost: localhost\r\n\r\n")
        received = 0
        while block := connection.recv(1 << 20):
            received += len(block)
        assert received > 300 * 10**6
        assert psutil.Process(process.pid).memory_info().rss < 100 * 10**6


def test_a_file_that_is_gone_is_not_found(url: str, folder: Path) -> None:
    (folder / "model.onnx").unlink()
    assert get(url, "data/model.onnx")[0] == 404


def test_a_browser_that_hangs_up_leaves_no_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.truncate(100 * 10**6)
    with Viewer(shown(path)) as viewer:
        with closing(socket.create_connection(address_of(viewer.url))) as connection:
            connection.sendall(b"GET /data/large.onnx HTTP/1.0\r\nHost: localhost\r\n\r\n")
            connection.recv(100)
        assert get(viewer.url)[0] == 200
    assert capfd.readouterr() == ("", "")


def address_of(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    return host, int(port)


@contextmanager
def child(target: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The viewer as a process of its own, and its address."""
    command = [sys.executable, "-c", SERVE, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well_and_at_once(folder: Path, number: signal.Signals) -> None:
    with child(folder) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        idle = socket.create_connection(address_of(url))  # as a browser keeps one
        assert get(url)[0] == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=300)  # a connection that stays open holds nothing up
        idle.close()
    assert (process.returncode, output, errors) == (0, "closed\n", "")


def test_it_listens_on_the_loopback_only(folder: Path) -> None:
    with child(folder) as (process, url):
        listening = [c.laddr for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == [address_of(url)]


def test_a_port_can_be_chosen_and_taken_again_at_once(folder: Path) -> None:
    with Viewer(shown(resolve(folder))) as viewer:
        _, port = address_of(viewer.url)
        assert get(viewer.url)[0] == 200
    with Viewer(shown(resolve(folder)), port) as viewer:
        assert address_of(viewer.url) == ("127.0.0.1", port)
        assert get(viewer.url)[0] == 200


def test_a_busy_port_is_an_error_with_a_hint(url: str, folder: Path) -> None:
    port = address_of(url)[1]
    with pytest.raises(UsageError, match="in use") as caught:
        serve(shown(resolve(folder)), port=port, browser=False, announce=pytest.fail)
    assert str(port) in caught.value.where
    assert "--port" in caught.value.hint


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_impossible_port_is_an_error(folder: Path, port: int) -> None:
    with pytest.raises(UsageError, match="1 to 65535"):
        Viewer(shown(resolve(folder)), port)


def test_the_browser_is_opened_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", browse)
    announced: list[str] = []
    serve(shown(resolve(folder)), port=None, browser=True, announce=announced.append)
    assert announced == opened


def test_a_folder_and_its_file_are_the_same(folder: Path) -> None:
    assert resolve(folder) == resolve(str(folder / "model.onnx")) == folder / "model.onnx"


@pytest.mark.parametrize("name", ["m.onnx", "m.keras", "m.h5", "m.tflite", "saved_model.pb", "M.ONNX"])
def test_a_model_file_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert resolve(tmp_path / name) == tmp_path / name


def refused(target: Path) -> ExportError:
    with pytest.raises(SourceError) as caught:
        resolve(target)
    assert caught.value.hint or caught.value.why
    return caught.value


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in str(refused(tmp_path / "nothing"))


def test_an_export_without_onnx_says_what_it_holds(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    error = refused(folder)
    assert "model.onnx.data, secret.txt" in str(error)
    assert "`export-model SOURCE --to onnx`" in error.hint


def test_a_folder_that_is_no_export_may_be_a_source(tmp_path: Path) -> None:
    saved = tmp_path / "my model"
    saved.mkdir()
    assert "it is empty" in str(refused(saved))
    for number in range(10):
        (saved / f"{number}.bin").touch()
    error = refused(saved)
    assert "7.bin and 2 more" in str(error)
    assert f"`export-model '{saved}' --to onnx`" in error.hint


def test_what_netron_would_not_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").touch()
    assert ".keras" in refused(tmp_path / "table.parquet").why
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch(mode=0)
    assert "Permission denied" in str(refused(tmp_path / "model.onnx"))
    assert "Permission denied" in str(refused(tmp_path))


def test_an_unknown_page_of_netron_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.html").write_text("<html></html>")
    monkeypatch.setattr(site, "_assets", lambda: {"index.html": tmp_path / "index.html"})
    with pytest.raises(UnsupportedError, match="not known"):
        Viewer(shown(resolve(folder)))
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="not installed"):
        Viewer(shown(resolve(folder)))

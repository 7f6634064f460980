"""Exports in object stores and sources by address, against a server on this machine that speaks S3, and the web."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import CUT, S3, SECRET, Asked, Quiet, s3_server, web_server

from exporter import files, private_folder
from exporter.errors import InUseError, OutputError, SourceError, UsageError
from exporter.storage import addresses, exports, fetching, lease, objects, publishing
from exporter.storage.lease import LEASE, Lease
from exporter.storage.objects import ObjectStore

MIB = 2**20
RECEIPT = files.MANIFEST


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3, pytest.MonkeyPatch.context() as patch:
        # A server that is out of order stays so: trying again only takes time.
        patch.setattr(objects, "CLIENT_ATTEMPTS", 1)
        patch.setattr(objects, "CONNECTION_ATTEMPTS", 1)
        patch.setattr(objects, "PART_BYTES", 5 * MIB)
        patch.setattr(publishing, "SMALL_BYTES", MIB)
        patch.setattr(publishing, "STALL_SECONDS", 60.0)
        objects._filesystem.cache_clear()
        yield s3
        objects._filesystem.cache_clear()


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of temporary files, whatever happens."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.glob(f"{private_folder.PREFIX}*")) == []


def export(folder: Path, **contents: bytes) -> Path:
    """A finished export; `model_onnx` is `model.onnx`."""
    folder.mkdir(parents=True)
    records = []
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        records.append({"name": name.replace("_", "."), "nbytes": len(content), "sha256": digest})
    (folder / RECEIPT).write_text(json.dumps({"files": records, "fingerprint": folder.name}))
    return folder


def publish(folder: Path, s3: S3) -> None:
    store = ObjectStore(f"{s3.address}/net")
    with Lease(store) as held:
        publishing.publish(folder, store, held, lambda done, total: None)


def there(s3: S3) -> dict[str, bytes]:
    """The files of the export in the store, by name."""
    return {key.removeprefix("runs/net/"): s3.content(key) for key in s3.names("runs/net/")}


def here(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def order(s3: S3) -> list[str]:
    """What was asked, without the lease, and runs of parts as one."""
    found: list[str] = []
    for asked in s3.asked:
        if LEASE not in asked.path and found[-1:] != [asked.what]:
            found.append(asked.what)
    return found


LARGE = os.urandom(12 * MIB)


# Addresses


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("https://user:secret@host:8000/m.onnx?X-Amz-Signature=secret#x", "https://host:8000/m.onnx"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("s3://KEY:secret@bucket/a", "s3://bucket/a"),
    ],
)
def test_what_of_an_address_is_shown(address: str, shown: str) -> None:
    assert addresses.public(address) == shown
    assert addresses.redacted(f"cannot read {address} now") == f"cannot read {shown} now"


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("https://host/a", "cannot be written"),
        ("ftp://host/a", "unknown kind of address"),
        ("s3:///a", "names no bucket"),
        ("s3://KEY:secret@bucket/a", "has credentials"),
        ("s3://bucket/a?b", "has a query"),
    ],
)
def test_what_cannot_be_an_output(address: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        addresses.check_output(address)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


def test_a_file_address_is_a_path() -> None:
    assert addresses.local("file:///a%20b/c") == "/a b/c"
    assert addresses.local("plain/path") == "plain/path"
    assert not addresses.is_address("file:///a")
    with pytest.raises(UsageError, match="another machine"):
        addresses.local("file://host/a")


def test_a_missing_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(UsageError, match="is not installed") as caught:
        ObjectStore("gs://bucket/a")
    assert caught.value.hint == "pip install 'export-model[gs]'"


# Exports go there


@pytest.mark.slow
def test_the_receipt_is_last_and_large_files_go_in_parts(s3: S3, tmp_path: Path) -> None:
    folder = export(tmp_path / "new", model_onnx_data=LARGE, model_onnx=b"graph", layers_parquet=b"rows")
    publish(folder, s3)
    assert there(s3) == here(folder)
    assert order(s3) == [
        "GET manifest.json",
        "POST model.onnx.data uploads",
        "PUT model.onnx.data part",
        "POST model.onnx.data uploadId",
        "PUT model.onnx",
        "PUT layers.parquet",
        "GET zoo list-type",
        "PUT manifest.json",
    ]
    assert sum(asked.query.startswith("partNumber") for asked in s3.asked) == 3


@pytest.mark.slow
def test_an_export_replaces_an_older_one(s3: S3, tmp_path: Path) -> None:
    publish(export(tmp_path / "old", model_onnx=b"old graph", model_dot=b"old picture"), s3)
    s3.put("runs/net/notes.txt", b"somebody's")
    s3.asked.clear()
    folder = export(tmp_path / "new", model_onnx_data=LARGE, model_onnx=b"graph")
    publish(folder, s3)
    assert there(s3) == here(folder) | {"notes.txt": b"somebody's"}
    asked = order(s3)
    sent, retired = asked.index("PUT model.onnx.data part"), asked.index("DELETE manifest.json")
    appeared = asked.index("POST model.onnx.data uploadId")
    assert sent < retired < appeared < asked.index("DELETE model.dot") < asked.index("PUT manifest.json")
    assert asked[-1] == "PUT manifest.json"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500 Internal Server Error", CUT])
def test_an_upload_that_breaks_leaves_the_old_export(fault: str, s3: S3, tmp_path: Path) -> None:
    old = export(tmp_path / "old", model_onnx=b"old graph")
    publish(old, s3)
    s3.fault = lambda asked: fault if asked.query.startswith("partNumber=2") else None
    with pytest.raises(OutputError) as caught:
        publish(export(tmp_path / "new", model_onnx_data=LARGE, model_onnx=b"graph"), s3)
    assert (caught.value.where, caught.value.status) == ("s3://zoo/runs/net", 7)
    assert there(s3) == here(old)
    assert s3.unfinished_uploads() == 0


@pytest.mark.slow
def test_a_store_that_takes_nothing_more(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the time-out nor Ctrl-C waits for it."""
    given_up = threading.Event()
    monkeypatch.setattr(ObjectStore, "write", lambda self, name, content: given_up.wait())
    monkeypatch.setattr(publishing, "STALL_SECONDS", 0.5)
    folder = export(tmp_path / "new", model_onnx=b"graph")
    with pytest.raises(OutputError, match="took nothing"):
        publish(folder, s3)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    store = ObjectStore(f"{s3.address}/net")
    with pytest.raises(KeyboardInterrupt), Lease(store) as held:
        publishing.publish(folder, store, held, stop)
    given_up.set()
    assert there(s3) == {}


@pytest.mark.slow
def test_a_break_while_files_appear_leaves_nothing_that_looks_finished(s3: S3, tmp_path: Path) -> None:
    publish(export(tmp_path / "old", model_onnx=b"old graph", model_dot=b"old picture"), s3)
    s3.fault = lambda asked: "500 Internal Server Error" if asked.what == "PUT layers.parquet" else None
    folder = export(tmp_path / "new", model_onnx=b"graph", layers_parquet=b"rows")
    with pytest.raises(OutputError, match="out of order"):
        publish(folder, s3)
    assert RECEIPT not in there(s3)
    assert exports.read_manifest(f"{s3.address}/net") is None
    s3.fault = lambda asked: None
    publish(folder, s3)
    assert there(s3) == here(folder), "what the first export left is gone, too"


def test_what_the_store_has_is_compared(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectStore, "write", lambda self, name, content: s3.put(f"runs/net/{name}", content[:3]))
    with pytest.raises(OutputError, match="3 bytes of 5 bytes arrived"):
        publish(export(tmp_path / "new", model_onnx=b"graph"), s3)
    assert RECEIPT not in there(s3)


def test_what_is_sent_is_what_was_made(s3: S3, tmp_path: Path) -> None:
    folder = export(tmp_path / "new", model_onnx=b"graph")
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(OutputError, match="not the one that was made"):
        publish(folder, s3)
    assert RECEIPT not in there(s3)


def test_a_receipt_and_its_files_take_two_requests(s3: S3, tmp_path: Path) -> None:
    publish(export(tmp_path / "new", model_onnx=b"graph", layers_parquet=b"rows", model_dot=b"dot"), s3)
    s3.asked.clear()
    place = f"{s3.address}/net"
    manifest = exports.read_manifest(place)
    assert manifest is not None
    assert exports.is_complete(place, manifest)
    assert exports.known_manifest(place) == manifest
    assert [asked.what for asked in s3.asked] == ["GET manifest.json", "GET zoo list-type"]
    s3.put("runs/net/model.dot", b"shorter or longer")
    assert not exports.is_complete(place, manifest)


@pytest.mark.parametrize("content", [b"", b"{", b'{"files": [{"name": "../x", "nbytes": 1}]}', b"[]"])
def test_a_receipt_that_is_none(content: bytes, s3: S3) -> None:
    s3.put("runs/net/manifest.json", content)
    assert exports.read_manifest(f"{s3.address}/net") is None


@pytest.mark.parametrize(
    ("address", "why", "hint"),
    [("s3://no-such-bucket/a", "bucket does not exist", "bucket"), ("s3://zoo/runs", "Access Denied", "credentials")],
)
def test_a_place_that_takes_nothing(address: str, why: str, hint: str, s3: S3, tmp_path: Path) -> None:
    if "denied" in why.lower():
        s3.fault = lambda asked: "403 Forbidden" if asked.method == "PUT" else None
    with pytest.raises(OutputError) as caught, Lease(ObjectStore(f"{address}/net")):
        pass
    assert hint in caught.value.hint
    assert caught.value.where == f"{address}/net/{LEASE}"


# One at a time


def test_a_second_export_is_kept_out(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, so that a batch goes on with other models."""
    monkeypatch.setattr(lease, "LOOK_SECONDS", 60.0)
    store = ObjectStore(f"{s3.address}/net")
    with Lease(store):
        with pytest.raises(InUseError, match="another export"), Lease(store):
            pass
        assert there(s3).keys() == {LEASE}
    assert there(s3) == {}
    with Lease(store):
        pass


def test_one_on_another_machine_is_seen_to_be_alive(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_is_neighbour", lambda held: False)
    monkeypatch.setattr(lease, "_is_dead", lambda held: False)
    store = ObjectStore(f"{s3.address}/net")
    with Lease(store), pytest.raises(InUseError, match="another export"), Lease(store):
        pass


@pytest.mark.slow
def test_a_lease_that_could_not_be_given_back_expires(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its process goes on, as a batch does after the network was gone for a while."""
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.2)
    s3.put(f"runs/net/{LEASE}", json.dumps({"owner": "an earlier job", **lease._this_process()}).encode())
    store = ObjectStore(f"{s3.address}/net")
    with pytest.raises(InUseError), Lease(store):
        pass
    time.sleep(0.3)
    with Lease(store):
        pass


def test_the_lease_of_a_process_that_is_gone_holds_nobody_up(s3: S3) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    held = lease._this_process() | {"process": child, "owner": "gone", "left": ["model.dot"]}
    s3.put(f"runs/net/{LEASE}", json.dumps(held).encode())
    s3.put("runs/net/model.dot", b"left")
    impatient = threading.Event()
    impatient.set()
    with Lease(ObjectStore(f"{s3.address}/net"), impatient) as ours:
        assert ours.left == ("model.dot",)
        ours.require()


@pytest.mark.slow
def test_a_lease_that_is_not_renewed_expires(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a clock says: one on another machine may be wrong."""
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.3)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.1)
    s3.put(f"runs/net/{LEASE}", b'{"owner": "elsewhere", "machine": "other", "process": 1}')
    with Lease(ObjectStore(f"{s3.address}/net")) as ours:
        ours.require()
        s3.put(f"runs/net/{LEASE}", b'{"owner": "a third"}')
        with pytest.raises(InUseError):
            ours.require()
    assert there(s3).keys() == {LEASE}, "that of the third stays"


def test_parts_of_a_killed_process_are_forgotten(s3: S3) -> None:
    s3.client.create_multipart_upload(Bucket="zoo", Key="runs/net/model.onnx.data")
    s3.client.create_multipart_upload(Bucket="zoo", Key="runs/network/model.onnx.data")
    s3.put(f"runs/net/{LEASE}", b'{"owner": ""}')
    with Lease(ObjectStore(f"{s3.address}/net")):
        assert s3.unfinished_uploads() == 1, "that of another model goes on"
    for upload in s3.client.list_multipart_uploads(Bucket="zoo")["Uploads"]:
        s3.client.abort_multipart_upload(Bucket="zoo", Key=upload["Key"], UploadId=upload["UploadId"])


# Sources come from there


def test_a_file_is_fetched_in_pieces(s3: S3, tmp_path: Path) -> None:
    s3.put("models/net.onnx", LARGE)
    told: list[tuple[int, int]] = []
    path = fetching.fetch("s3://zoo/models/net.onnx", tmp_path / "to", lambda done, total: told.append((done, total)))
    assert path == tmp_path / "to" / "net.onnx"
    assert path.read_bytes() == LARGE
    assert told[-1] == (len(LARGE), len(LARGE))
    assert [asked.what for asked in s3.asked] == ["HEAD net.onnx", *["GET net.onnx"] * 3, "HEAD net.onnx"]


def test_a_folder_is_fetched(s3: S3, tmp_path: Path) -> None:
    contents = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "empty.txt": b""}
    for name, content in contents.items():
        s3.put(f"models/saved/{name}", content)
    path = fetching.fetch("s3://zoo/models/saved/", tmp_path / "to")
    assert {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()} == contents
    seen = fetching.look("s3://zoo/models/saved")
    assert seen.nbytes == 10
    s3.put("models/saved/empty.txt", b"full")
    assert fetching.look("s3://zoo/models/saved").version != seen.version


@pytest.mark.parametrize("key", ["models/saved/../../../etc/x", "models/saved//x", "models/saved/a\\b"])
def test_names_that_lead_out_of_the_folder_are_refused(key: str, s3: S3, tmp_path: Path) -> None:
    s3.put("models/saved/a", b"1")
    s3.put(key, b"2")
    with pytest.raises(SourceError, match="leads out of its folder"):
        fetching.fetch("s3://zoo/models/saved", tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_a_source_that_is_replaced_midway(s3: S3, tmp_path: Path) -> None:
    s3.put("models/net.onnx", LARGE)

    def replace(asked: Asked) -> None:
        if asked.method == "GET":
            s3.put("models/net.onnx", LARGE[::-1])

    s3.fault = replace
    with pytest.raises(SourceError, match="replaced while it was read"):
        fetching.fetch("s3://zoo/models/net.onnx", tmp_path / "to")


@pytest.mark.parametrize("fault", ["500 Internal Server Error", CUT])
def test_a_network_that_goes_away(fault: str, s3: S3, tmp_path: Path) -> None:
    s3.put("models/net.onnx", LARGE)
    gone = threading.Event()

    def fail_later(asked: Asked) -> str | None:
        if asked.method != "GET":
            return None
        found, _ = (fault if gone.is_set() else None), gone.set()
        return found

    s3.fault = fail_later
    with pytest.raises(SourceError) as caught:
        fetching.fetch("s3://zoo/models/net.onnx", tmp_path / "to")
    assert caught.value.status == 4
    assert list((tmp_path / "to").iterdir()) == [], "no half file"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("s3://zoo/models/missing.onnx", "nothing is there"),
        ("s3://no-such-bucket/net.onnx", "bucket does not exist"),
        ("http://127.0.0.1:9/net.onnx", "no connection"),
    ],
)
def test_a_source_that_is_not_there(address: str, why: str, s3: S3, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        fetching.look(address)
    assert caught.value.where == address
    assert caught.value.hint


def test_secrets_are_not_told(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        objects.ObjectStore, "file", lambda self: (_ for _ in ()).throw(OSError(f"no {SECRET} at http://u:p@h/x?sig=1"))
    )
    with pytest.raises(SourceError) as caught:
        fetching.look("s3://zoo/a")
    assert "no … at http://h/x" in str(caught.value)


def test_without_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr(objects, "READ_SECONDS", 5)
    objects._filesystem.cache_clear()
    try:
        with pytest.raises(SourceError, match="no credentials were found") as caught:
            fetching.look("s3://zoo/a")
    finally:
        objects._filesystem.cache_clear()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


# The web


@pytest.mark.slow
def test_a_file_of_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "net one.onnx").write_bytes(LARGE[:MIB])
    with web_server(tmp_path / "site") as (address, asked):
        seen = fetching.look(f"{address}/net%20one.onnx")
        assert (seen.nbytes, bool(seen.version)) == (MIB, True)
        path = fetching.fetch(f"{address}/net%20one.onnx?signature=x", tmp_path / "to")
        with pytest.raises(SourceError, match="nothing is there"):
            fetching.look(f"{address}/other.onnx")
    assert path.name == "net one.onnx"
    assert path.read_bytes() == LARGE[:MIB]
    signed = "/net%20one.onnx?signature=x"
    assert asked == ["HEAD /net%20one.onnx", f"HEAD {signed}", f"GET {signed}", f"HEAD {signed}", "HEAD /other.onnx"]


class Short(Quiet):
    """Sends less than it has said."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read()[:-5])


class WithoutHead(Quiet):
    """As for addresses that are signed for one method."""

    def do_HEAD(self) -> None:  # noqa: N802 (the name that http.server looks for)
        self.send_error(403)


@pytest.mark.slow
def test_a_web_server_that_ends_too_early(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"0123456789")
    with (
        web_server(tmp_path, Short) as (address, _),
        pytest.raises(SourceError, match="the connection broke: 5 of 10 bytes came"),
    ):
        fetching.fetch(f"{address}/net.onnx", tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.slow
def test_a_web_server_that_takes_no_head(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"0123456789")
    with web_server(tmp_path, WithoutHead) as (address, asked):
        assert fetching.look(f"{address}/net.onnx").nbytes == 10
    assert asked == ["HEAD /net.onnx", "GET /net.onnx"]


@pytest.mark.slow
def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"0123456789")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 9}))
    with web_server(tmp_path) as (address, asked):
        with pytest.raises(Exception, match="too full") as caught:
            fetching.fetch(f"{address}/net.onnx", tmp_path / "to")
        assert "TMPDIR" in caught.value.hint  # type: ignore[attr-defined]
        assert asked == ["HEAD /net.onnx"]


# Who reads an export


@pytest.mark.slow
def test_an_export_is_brought_here(s3: S3, tmp_path: Path) -> None:
    folder = export(tmp_path / "new", model_onnx_data=b"weights", layers_parquet=b"rows")
    publish(folder, s3)
    with exports.at_hand(f"{s3.address}/net", exports.tables) as place:
        assert here(Path(place)).keys() == {"layers.parquet", RECEIPT}
        assert Path(place).name == "net"
    assert not Path(place).exists()
    s3.client.delete_object(Bucket="zoo", Key="runs/net/layers.parquet")
    with pytest.raises(SourceError, match="missing or not whole"), exports.at_hand(f"{s3.address}/net"):
        pass


@pytest.mark.slow
def test_what_is_no_export_stays_where_it_is(s3: S3, tmp_path: Path) -> None:
    s3.put("models/net.onnx", b"graph")
    with exports.at_hand("s3://zoo/models/net.onnx") as place:
        assert place == "s3://zoo/models/net.onnx"
    with exports.brought("s3://zoo/models/net.onnx") as place:
        assert Path(place).read_bytes() == b"graph"
    with exports.at_hand(str(tmp_path)) as place:
        assert place == str(tmp_path)

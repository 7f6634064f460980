"""Files appear whole or not at all, and a folder never looks finished when it is not."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest

from exporter import files
from exporter.errors import OutputError
from exporter.files import MANIFEST, Export

REPOSITORY = Path(__file__).resolve().parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One file ---------------------------------------------------------------------------------------------------------


def test_a_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with files.new_file(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def write_and_raise(stream: BinaryIO, error: BaseException) -> None:
    stream.write(b"new")
    raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.EIO, "x"), MemoryError()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)), files.new_file(path) as stream:
        write_and_raise(stream, error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EFBIG, "the file would be larger"),
        (errno.EISDIR, "a folder is in the way"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_the_system_s_reasons_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=f"a.txt: cannot be written: {why}") as caught:
        files.write_lines(tmp_path / "a.txt", ["text"])
    assert caught.value.status == 7
    assert caught.value.hint or number == errno.EIO
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["file/a.txt", "missing/a.txt", "folder"])
def test_places_where_no_file_can_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        files.write_lines(tmp_path / place, ["text"])
    assert names(tmp_path) == ["file", "folder"]


def test_lines_are_utf_8_and_streamed(tmp_path: Path) -> None:
    files.write_lines(tmp_path / "a.txt", (f"é{number}" for number in range(3)))
    assert (tmp_path / "a.txt").read_bytes() == "é0\né1\né2\n".encode()


# The folder of an export ------------------------------------------------------------------------------------------


def receipt(folder: Path, *file_names: str, **more: Any) -> dict[str, Any]:
    written = files.describe(folder, file_names, {})
    return {"files": [vars(entry) for entry in written], **more}


def export(folder: Path, **contents: str) -> None:
    with Export(folder) as under_way:
        for name, text in contents.items():
            files.write_lines(under_way.staging / name, [text])
        under_way.commit(contents, receipt(under_way.staging, *contents))


def test_an_export_replaces_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "m"
    export(folder, a="1", b="1")
    (folder / "notes.txt").write_text("the user's own")
    (folder / ".staging-old").mkdir()
    (folder / ".a.123.tmp").touch()
    export(folder, a="2", c="2")
    assert names(folder) == ["a", "c", MANIFEST, "notes.txt"]
    manifest = files.read_manifest(folder)
    assert manifest is not None
    assert files.is_complete(folder, manifest)
    assert (folder / "a").read_text() == "2\n"


def test_the_old_receipt_goes_first_and_the_new_one_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "m"
    export(folder, a="1", b="1")
    steps: list[tuple[str, bool]] = []
    original = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).parent == folder:
            steps.append((Path(target).name, (folder / MANIFEST).exists()))
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    export(folder, a="2", b="2")
    assert steps == [("a", False), ("b", False), (MANIFEST, False)]


@pytest.mark.parametrize("second", [{"data": "2", "model": "2"}, {"model": "2"}], ids=str)
def test_at_no_moment_is_a_file_beside_another_s_data(
    second: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model` refers to `data`, if there is any: wherever an export ends, the two belong together."""
    folder = tmp_path / "m"
    export(folder, data="1", model="1")
    original = os.replace
    seen: list[dict[str, str]] = []

    def replace(source: Path, target: Path) -> None:
        original(source, target)
        seen.append({name: (folder / name).read_text().strip() for name in names(folder) if (folder / name).is_file()})

    monkeypatch.setattr(os, "replace", replace)
    export(folder, **second)
    moments = [state for state in seen if "model" in state and MANIFEST not in state]
    assert moments, "the receipt is away while files change"
    assert all(state.get("data", "") in (state["model"], second.get("data", "")) for state in moments), moments
    assert not any(state["model"] == "1" and state.get("data") != "1" for state in moments), moments


@pytest.mark.parametrize("before", ["nothing", "an older result"])
def test_a_failed_export_changes_nothing(tmp_path: Path, before: str) -> None:
    folder = tmp_path / "m"
    if before != "nothing":
        export(folder, a="1")
    with (
        pytest.raises(ZeroDivisionError),
        Export(folder) as under_way,
        files.new_file(under_way.staging / "a") as stream,
    ):
        write_and_raise(stream, ZeroDivisionError())
    assert folder.exists() == (before != "nothing")
    if folder.exists():
        assert names(folder) == ["a", MANIFEST]
        assert (folder / "a").read_text() == "1\n"


def test_a_disk_that_is_full_at_the_very_end_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "m"
    export(folder, a="1")
    original = files.write_json

    def fail(path: Path, data: dict[str, Any]) -> None:
        original(path, data)
        raise OutputError("cannot be written", why="the disk is full")

    monkeypatch.setattr(files, "write_json", fail)
    with pytest.raises(OutputError):
        export(folder, a="2", b="2")
    assert names(folder) == ["a", MANIFEST]
    assert (folder / "a").read_text() == "1\n"


def test_a_folder_in_the_way_of_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "m" / "a").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder is in the way"):
        export(tmp_path / "m", a="1")
    assert files.read_manifest(tmp_path / "m") is None


def test_a_second_export_into_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with Export(folder) as first:
        files.write_lines(first.staging / "a", ["1"])
        with pytest.raises(OutputError, match="another export is writing there"):
            export(folder, a="2")
        files.remove_leftovers(folder)
        first.commit(["a"], receipt(first.staging, "a"))
    assert names(folder) == ["a", MANIFEST]
    export(folder, a="3")


def test_an_export_that_cannot_begin_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**named: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr("tempfile.mkdtemp", fail)
        with pytest.raises(OutputError, match="the disk is full"):
            export(tmp_path / "m", a="1")
    assert not (tmp_path / "m").exists()
    export(tmp_path / "m", a="1")


def test_a_folder_that_vanishes_while_it_is_being_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export that ends at that moment removes the folder, because it is empty."""
    import fcntl

    original = fcntl.flock
    calls: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / "m").rmdir()
        calls.append(descriptor)
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    export(tmp_path / "m", a="1")
    assert names(tmp_path / "m") == ["a", MANIFEST]


@pytest.mark.parametrize("place", ["file/m", "/proc/m", "file"])
def test_folders_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        export(tmp_path / place, a="1")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"files": {}}',
        '{"files": [1]}',
        '{"files": [{"name": "a"}]}',
        '{"files": [{"name": "../a", "nbytes": 1}]}',
        '{"files": [{"name": "/a", "nbytes": 1}]}',
        '{"files": [{"name": "..", "nbytes": 1}]}',
        '{"files": ' + "[" * 100_000,
    ],
)
def test_a_receipt_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / MANIFEST).write_text(text)
    assert files.read_manifest(tmp_path / "m") is None
    export(tmp_path / "m", b="1")
    assert (tmp_path / "a").exists()


def test_completeness_is_names_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    export(folder, a="1", b="1")
    manifest = files.read_manifest(folder)
    assert manifest is not None
    assert files.is_complete(folder, manifest)
    (folder / "a").write_text("longer")
    assert not files.is_complete(folder, manifest)
    (folder / "a").unlink()
    assert not files.is_complete(folder, manifest)


# Death at any moment ----------------------------------------------------------------------------------------------

EXPORTER = """
import sys, time
from pathlib import Path
from exporter import files
folder = Path(sys.argv[1])
print("ready", flush=True)
for number in range(1000):
    with files.Export(folder) as export:
        names = [f"{number % 3}-{index}" for index in range(20)] + ["same"]
        for name in names:
            files.write_lines(export.staging / name, [str(number)] * 50)
        written = files.describe(export.staging, names, {})
        export.commit(names, {"number": number, "files": [vars(entry) for entry in written]})
"""


def check_what_is_left(folder: Path) -> dict[str, Any] | None:
    """Either a whole result with its receipt, or nothing that looks finished; None then."""
    manifest = files.read_manifest(folder) if folder.exists() else None
    if manifest is None:
        assert not (folder / MANIFEST).exists()
        return None
    for record in manifest["files"]:
        assert files.sha256(folder / record["name"]) == record["sha256"], record["name"]
    return manifest


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    folder, dice, seen = tmp_path / "m", random.Random(0), set()
    for attempt in range(200):
        if attempt >= 25 and True in seen:
            break
        child = subprocess.Popen([sys.executable, "-c", EXPORTER, str(folder)], stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert child.stdout is not None
        child.stdout.readline()
        # On a busy machine an export takes longer: the window grows until one has come to its end.
        time.sleep(dice.uniform(0, 0.04 * (1 + attempt / 25)))
        child.kill()
        child.communicate()
        seen.add(check_what_is_left(folder) is not None)
    export(folder, a="1")
    assert "a" in names(folder)
    assert not [name for name in names(folder) if name.startswith(".")]
    assert True in seen


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.keras"
    code = f"""
        import keras
        layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
        keras.Sequential(layers).save({str(path)!r})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True)
    return path


def run(archive: Path, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """The command, as the leader of a process group."""
    words = [sys.executable, "-m", "exporter", str(archive), "-o", str(folder), "--force", "--to", "onnx,parquet,dot"]
    return subprocess.Popen(
        [*words, *more],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def processes_at_work(folder: Path) -> Iterator[psutil.Process]:
    """Every process that has something below the folder open: the folder's lock, or a file in it."""
    for process in psutil.process_iter():
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(str(folder)) for link in links):
            yield process


def wait_for_orphans(folder: Path) -> None:
    """The worker has a process group of its own; it ends itself when its parent is gone."""
    deadline = time.monotonic() + 300
    while list(processes_at_work(folder)):
        assert time.monotonic() < deadline, "a worker goes on without its parent"
        time.sleep(0.05)


def kill_at_random_moments(archive: Path, folder: Path, runs: int, longest_seconds: float) -> None:
    dice = random.Random(0)
    for _ in range(runs):
        process = run(archive, folder, "--seed", str(dice.randrange(1000)))
        with suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.5, longest_seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wait_for_orphans(folder)
        check_what_is_left(folder / "m")
    assert run(archive, folder).wait() == 0
    assert check_what_is_left(folder / "m") is not None
    assert not list(folder.rglob(".*"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds a worker by its open files in /proc")
@pytest.mark.slow
def test_kill_9_of_the_real_command(archive: Path, tmp_path: Path) -> None:
    assert run(archive, tmp_path).wait() == 0
    before = json.loads((tmp_path / "m" / MANIFEST).read_text())
    kill_at_random_moments(archive, tmp_path, 2, 6.0)
    after = json.loads((tmp_path / "m" / MANIFEST).read_text())
    assert [entry["sha256"] for entry in before["files"]] == [entry["sha256"] for entry in after["files"]]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds a worker by its open files in /proc")
@pytest.mark.timeout(3600)
def test_kill_9_of_the_real_command_many_times(archive: Path, tmp_path: Path) -> None:
    kill_at_random_moments(archive, tmp_path, 20, 9.0)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    kill_at_random_moments(archive, tmp_path, 5, 4.0)

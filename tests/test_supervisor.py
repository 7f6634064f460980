"""Whatever befalls a worker becomes an outcome; no process and no half-made folder is left behind."""

from __future__ import annotations

import functools
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter import files, supervisor, wire
from exporter.child_process import LISTING_SECONDS, Child, Spawn, child_environment, spawn_worker
from exporter.records import Job, Outcome, Stage

REPOSITORY = Path(__file__).resolve().parent.parent
# A worker reads its job, says what it does, and writes its result as a whole.
PREAMBLE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from exporter import files, wire
from exporter.records import Outcome, Stage

job_path, result_path, events = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
job = wire.job_from_json(job_path.read_text())
folder = Path(job.output_path)
(folder / ".staging-abc").mkdir(parents=True)

def tell(event):
    os.write(events, wire.event_to_json(event).encode() + b"\\n")

def finish(**fields):
    outcome = Outcome(**{"name": job.name, "status": "done", "output_path": job.output_path} | fields)
    (folder / ".staging-abc").rmdir()
    files.write_lines(result_path, [wire.outcome_to_json(outcome)])

def wait_until_seen(before=lambda: None):
    tell(wire.NoteEvent("look"))
    before()
    deadline = time.monotonic() + 300
    while not (job_path.parent / "seen").exists() and time.monotonic() < deadline:
        time.sleep(0.01)

tell(wire.StageEvent("convert", "start"))
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("X", "application", "x", str(tmp_path / "out" / "x"), ("onnx",), "f", "d", input_shapes={"": (1, None)})


@pytest.fixture
def worker(tmp_path: Path) -> Callable[[str], Spawn]:
    """Makes a runner of a few lines of Python."""

    def make(body: str) -> Spawn:
        script = tmp_path / "worker.py"
        script.write_text(PREAMBLE + textwrap.dedent(body))
        return functools.partial(spawn_worker, command=[sys.executable, str(script)])

    return make


class Events(list[wire.Event]):
    def of(self, kind: type) -> list[wire.Event]:
        return [event for event in self if isinstance(event, kind)]


class Looking:
    """Tells a worker that says "look" when its memory, and its children, have been looked at after that."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._seen = Path()
        self._asked: float | None = None

    def spawn(self, job_path: Path, *rest: Any) -> Child:
        self._seen = job_path.parent / "seen"
        return self._spawn(job_path, *rest)

    def watch(self, event: wire.Event) -> None:
        if isinstance(event, wire.NoteEvent) and event.text == "look":
            self._asked = time.monotonic()
        is_asked = self._asked is not None and time.monotonic() - self._asked > LISTING_SECONDS
        if is_asked and isinstance(event, wire.MemoryEvent):
            self._seen.touch()


def run(job: Job, spawn: Spawn) -> tuple[Outcome, Events]:
    events, looking = Events(), Looking(spawn)

    def watch(event: wire.Event) -> None:
        looking.watch(event)
        events.append(event)

    outcome = supervisor.run(job, watch=watch, spawn=looking.spawn)
    assert not list(Path(job.output_path).glob(".staging-*")), "half-made files were left behind"
    return outcome, events


def error_text(outcome: Outcome) -> str:
    assert outcome.status == "failed"
    assert outcome.error is not None
    return "{where}: {what}: {why}".format(**outcome.error)


def still_runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_success(job: Job, worker: Callable[[str], Spawn]) -> None:
    spawn = worker("""
        assert job.input_shapes == {"": (1, None)}
        tell(wire.ProgressEvent("convert", 5, 10))
        tell(wire.NoteEvent("weights are random"))
        ballast = b"x" * 60_000_000
        wait_until_seen()
        tell(wire.StageEvent("convert", "end", 0.2, 77))
        finish(weights="imagenet", stages=(Stage("convert", 0.2, 77),), peak_rss_bytes=5)
        print("chatter")
    """)
    outcome, events = run(job, spawn)
    assert (outcome.status, outcome.weights, outcome.stages) == ("done", "imagenet", (Stage("convert", 0.2, 77),))
    assert outcome.peak_rss_bytes == 5
    assert 60_000_000 < outcome.tree_peak_rss_bytes < 500_000_000
    assert [event for event in events if not isinstance(event, wire.MemoryEvent)] == [
        wire.StageEvent("convert", "start"),
        wire.ProgressEvent("convert", 5, 10),
        wire.NoteEvent("weights are random"),
        wire.NoteEvent("look"),
        wire.StageEvent("convert", "end", 0.2, 77),
        wire.LogEvent("chatter\n"),
    ]
    assert events.of(wire.MemoryEvent)


@pytest.mark.slow
def test_the_memory_of_grandchildren_counts(job: Job, worker: Callable[[str], Spawn]) -> None:
    spawn = worker("""
        code = "ballast = b'x' * 100_000_000; print(flush=True); input()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        children = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
        [child.stdout.readline() for child in children]
        wait_until_seen()
        [child.communicate(b"\\n") for child in children]
        finish(peak_rss_bytes=5)
    """)
    outcome, _ = run(job, spawn)
    assert outcome.peak_rss_bytes == 5
    assert outcome.tree_peak_rss_bytes > 200_000_000


def test_a_crash_shows_the_last_line_of_the_log(job: Job, worker: Callable[[str], Spawn]) -> None:
    outcome, events = run(job, worker("raise RuntimeError('the flux compensator')"))
    assert outcome.error is not None
    assert outcome.error["type"] == "InternalError"
    assert "status 1 and no result during stage convert: RuntimeError: the flux compensator" in error_text(outcome)
    assert "--debug" in outcome.error["hint"]
    (log,) = events.of(wire.LogEvent)
    assert isinstance(log, wire.LogEvent)
    assert "Traceback" in log.tail
    assert outcome.seconds > 0
    assert outcome.peak_rss_bytes > 1_000_000


def test_an_end_without_a_result_is_a_defect(job: Job, worker: Callable[[str], Spawn]) -> None:
    outcome, _ = run(job, worker("(folder / '.staging-abc').rmdir()"))
    assert "ended with status 0 and no result during stage convert: it printed nothing" in error_text(outcome)


@pytest.mark.parametrize(
    ("name", "kind", "fragment"),
    [
        ("SIGKILL", "TransientError", "was killed by SIGKILL: probably out of memory; its peak was"),
        ("SIGSEGV", "InternalError", "was ended by SIGSEGV during stage weights"),
        (
            "SIGVTALRM",
            "SourceError",
            "cannot be read: the HDF5 library finds no end in it, in stage weights",
        ),
        ("SIGTERM", "TransientError", "was stopped: by SIGTERM from outside, during stage weights"),
    ],
)
def test_death_by_signal_is_a_sentence(
    job: Job, worker: Callable[[str], Spawn], name: str, kind: str, fragment: str
) -> None:
    spawn = worker(f"""
        tell(wire.StageEvent("convert", "end", 1.0, 7))
        tell(wire.StageEvent("weights", "start"))
        (folder / ".manifest.json.7.tmp").touch()
        os.kill(os.getpid(), signal.{name})
    """)
    outcome, _ = run(job, spawn)
    assert fragment in error_text(outcome)
    assert "stage weights" in error_text(outcome)
    assert outcome.error is not None
    assert outcome.error["type"] == kind
    assert outcome.stages == (Stage("convert", 1.0, 7),)
    assert not Path(job.output_path).exists()


def test_a_result_that_is_there_counts_although_the_process_dies_after_it(
    job: Job, worker: Callable[[str], Spawn]
) -> None:
    outcome, _ = run(job, worker("finish(); os.kill(os.getpid(), signal.SIGSEGV)"))
    assert outcome.status == "done"


@pytest.mark.parametrize("result", ["garbage", "[]", '{"name": "x"}', '{"name": "x", "status": 1}', "\xff"])
def test_a_result_that_is_garbage_is_a_defect(job: Job, worker: Callable[[str], Spawn], result: str) -> None:
    outcome, _ = run(job, worker(f"result_path.write_bytes({result!r}.encode('latin1')); sys.exit(1)"))
    assert "wrote a result that cannot be read" in error_text(outcome)


def test_garbage_among_the_events_is_skipped(job: Job, worker: Callable[[str], Spawn]) -> None:
    spawn = worker("""
        os.write(events, b"chatter\\n\\xff\\xfe\\n{}\\n[1]\\n\\n" + b"x" * 3_000_000 + b"\\n")
        tell(wire.NoteEvent("still here"))
        finish()
    """)
    outcome, events = run(job, spawn)
    assert outcome.status == "done"
    assert events.of(wire.NoteEvent) == [wire.NoteEvent("still here")]


@pytest.mark.slow
def test_a_worker_may_close_its_events_early(job: Job, worker: Callable[[str], Spawn]) -> None:
    started = time.monotonic()
    outcome, events = run(job, worker("wait_until_seen(lambda: os.close(events)); finish()"))
    longest_seconds = time.monotonic() - started
    assert outcome.status == "done"
    assert 2 <= len(events.of(wire.MemoryEvent)) <= longest_seconds / supervisor.SAMPLE_SECONDS + 1


def test_chatter_goes_to_the_log_and_only_its_end_is_kept(
    job: Job, worker: Callable[[str], Spawn], capfd: pytest.CaptureFixture[str]
) -> None:
    spawn = worker("""
        os.write(1, b"\\xff noise\\n" * 100_000)
        os.write(2, b"the end\\n")
        assert sys.stdin.read() == ""
        finish()
    """)
    outcome, events = run(job, spawn)
    assert outcome.status == "done"
    assert capfd.readouterr() == ("", "")
    (log,) = events.of(wire.LogEvent)
    assert isinstance(log, wire.LogEvent)
    assert log.tail.endswith("noise\nthe end\n")
    assert len(log.tail) <= supervisor.LOG_TAIL_BYTES


@pytest.mark.slow
def test_above_max_memory_the_whole_tree_is_killed(job: Job, worker: Callable[[str], Spawn], tmp_path: Path) -> None:
    spawn = worker(f"""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
        wait_until_seen()
        hog = b"x" * 160_000_000
        time.sleep(600)
    """)
    limited = Job(**{**vars(job), "max_memory_bytes": 150_000_000})
    outcome, _ = run(limited, spawn)
    assert "x: went above --max-memory 150 MB: stage convert; its peak was" in error_text(outcome)
    assert outcome.error is not None
    assert outcome.error["type"] == "ResourceError"
    assert outcome.error["hint"] == "raise --max-memory"
    assert 150_000_000 < outcome.tree_peak_rss_bytes < 400_000_000
    assert not still_runs(int((tmp_path / "pid").read_text()))


def test_verification_can_be_left_out_where_memory_is_short(job: Job, worker: Callable[[str], Spawn]) -> None:
    outcome, _ = run(job, worker("tell(wire.StageEvent('verify', 'start')); os.kill(os.getpid(), signal.SIGKILL)"))
    assert outcome.error is not None
    assert "--no-verify" in outcome.error["hint"]


@pytest.mark.slow
def test_what_a_worker_leaves_running_ends_with_it(job: Job, worker: Callable[[str], Spawn], tmp_path: Path) -> None:
    spawn = worker(f"""
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        children = [subprocess.Popen(sleeping), subprocess.Popen(sleeping, start_new_session=True)]
        Path({str(tmp_path / "pids")!r}).write_text(" ".join(str(child.pid) for child in children))
        wait_until_seen()
        finish()
    """)
    outcome, _ = run(job, spawn)
    assert outcome.status == "done"
    assert [pid for pid in (tmp_path / "pids").read_text().split() if still_runs(int(pid))] == []


def test_ctrl_c_kills_the_worker_and_goes_on(job: Job, worker: Callable[[str], Spawn], tmp_path: Path) -> None:
    spawn = worker(f"""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
        tell(wire.NoteEvent("hanging"))
        time.sleep(600)
    """)

    def interrupt_when_it_hangs(event: wire.Event) -> None:
        if isinstance(event, wire.NoteEvent):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervisor.run(job, watch=interrupt_when_it_hangs, spawn=spawn)
    assert not still_runs(int((tmp_path / "pid").read_text()))
    assert not Path(job.output_path).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_parent_interrupts_and_handlers_are_put_back(
    job: Job, worker: Callable[[str], Spawn], number: signal.Signals
) -> None:
    before, timers = signal.getsignal(number), list[threading.Timer]()

    def watch(event: wire.Event) -> None:
        """What comes while the worker runs: until then nobody takes the signal, and this very process would end."""
        if isinstance(event, wire.StageEvent):
            timers.append(threading.Timer(0.1, os.kill, (os.getpid(), number)))
            timers[0].start()

    with pytest.raises(KeyboardInterrupt):
        supervisor.run(job, watch=watch, spawn=worker("time.sleep(600)"))
    timers[0].join()
    assert signal.getsignal(number) == before
    assert not Path(job.output_path).exists()


def test_a_folder_in_use_by_another_export_is_left_alone(job: Job, worker: Callable[[str], Spawn]) -> None:
    spawn = worker("(folder / '.staging-abc').rmdir(); os.kill(os.getpid(), signal.SIGKILL)")
    with files.Export(Path(job.output_path)) as export:
        supervisor.run(job, watch=lambda event: None, spawn=spawn)
        assert export.staging.is_dir()


def test_it_runs_outside_the_main_thread(job: Job, worker: Callable[[str], Spawn]) -> None:
    spawn, outcomes = worker("finish()"), []
    thread = threading.Thread(target=lambda: outcomes.append(run(job, spawn)[0]))
    thread.start()
    thread.join(300)
    assert [outcome.status for outcome in outcomes] == ["done"]


def test_a_worker_that_cannot_start_is_an_outcome(job: Job) -> None:
    def refuse(*arguments: Any, **named: Any) -> Child:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    outcome = supervisor.run(job, watch=lambda event: None, spawn=refuse)
    assert "cannot start a worker" in error_text(outcome)


def test_no_place_for_temporary_files_is_an_outcome(job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    outcome = supervisor.run(job, watch=lambda event: None)
    assert "temporary files" in error_text(outcome)


def test_nothing_is_left_in_the_temporary_folder(
    job: Job, worker: Callable[[str], Spawn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run(job, worker("finish()"))
    run(job, worker("os.abort()"))
    assert not list((tmp_path / "tmp").iterdir())


def test_the_childs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    environment = child_environment()
    assert environment["KERAS_BACKEND"] == "tensorflow"
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
    assert (environment["TF_CPP_MIN_LOG_LEVEL"], environment["TF_ENABLE_ONEDNN_OPTS"]) == ("3", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert child_environment()["CUDA_VISIBLE_DEVICES"] == "0"


def test_modules_of_the_current_folder_are_not_imported(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = "raise SystemExit('code of the current folder ran')"
    (tmp_path / "exporter").mkdir()
    for name in ("exporter/__init__.py", "json.py"):
        (tmp_path / name).write_text(trap)
    monkeypatch.chdir(tmp_path)
    code = "import exporter, json; print(exporter.__file__)"
    spawn = functools.partial(spawn_worker, command=[sys.executable, "-c", code])
    outcome, _ = run(job, spawn)
    assert str(REPOSITORY) in error_text(outcome)
    assert "of the current folder" not in error_text(outcome)

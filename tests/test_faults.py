"""What befalls a batch from outside, by the real command: signals, hangs, killed workers, a second batch, a full disk.

`tests/test_faults_kill.py` has the many runs that are killed at random moments.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batch_runs import (
    MANY_TENSORS,
    REPOSITORY,
    BatchRun,
    digests,
    held,
    processes_in,
    wait_for_the_end,
    weights_file,
)
from batches import make_model

from exporter import plan, resuming, worker
from exporter.formats import FORMATS
from exporter.options import ExportOptions
from exporter.records import Job, Outcome

SOURCES = [f"m{number}.safetensors" for number in range(3)]
READ_ALONE = [name for name in FORMATS if name != "onnx"]


def job_for(source: Path, output: Path, **options: Any) -> Job:
    (job,) = plan.plan([str(source)], ExportOptions(output=str(output), **options))
    assert isinstance(job, Job), job
    return job


def carried_out(job: Job) -> Outcome:
    return worker.carry_out(job, worker.Reporter(io.StringIO()))


def error_text(outcome: Outcome) -> str:
    assert outcome.status == "failed", outcome
    assert outcome.error is not None
    return "{type}: {where}: {what}: {why}".format(**outcome.error)


# The disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.onnx"
    make_model(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_ALONE)
def test_no_file_may_grow(name: str, model: Path, tmp_path: Path) -> None:
    """`ulimit -f`: the first write fails in every format, and the result from before stays as it was."""
    if any(not shutil.which(each) and not _can_import(each) for each in FORMATS[name].imports):
        pytest.skip(f"{FORMATS[name].imports} are not installed")
    job = job_for(model, tmp_path, formats=(name,))
    assert carried_out(job).status == "done"
    before = digests(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        outcome = carried_out(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "OutputError" in error_text(outcome)
    assert "cannot be written: the file would be larger than" in error_text(outcome)
    assert digests(tmp_path) == before


def _can_import(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.fixture(scope="module")
def full_disk(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """What `tests/full_disk.py` found on a small file system: by format, what happened with ever more free space."""
    folder = tmp_path_factory.mktemp("full")
    words = [sys.executable, str(REPOSITORY / "tests" / "full_disk.py"), str(model), str(folder)]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    reasons = []
    # A mount in a namespace of its own needs no privilege where the system allows that to everybody.
    for prefix in (["unshare", "--mount", "--map-root-user"], ["unshare", "--mount"], []):
        if prefix and not shutil.which("unshare"):
            continue
        ran = subprocess.run([*prefix, *words], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            found: dict[str, list[dict[str, str]]] = json.loads(ran.stdout)
            return found
        assert "CANNOT MOUNT" in ran.stderr or "unshare" in ran.stderr, ran.stderr
        reasons.append(ran.stderr.strip().splitlines()[-1])
    pytest.skip(f"no small file system can be mounted: {reasons}")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_disk_is_full(name: str, full_disk: dict[str, list[dict[str, str]]]) -> None:
    """With no free page, with one, with two, …: a sentence and the old result, until there is room."""
    *failures, last = full_disk[name]
    assert last["error"] == "", last
    assert failures
    for each in failures:
        assert each["error"].startswith("OutputError"), each
        assert "disk is full" in each["error"] or "disk is too full" in each["error"], each
        assert each["left"] == "as before", each


# The source -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_source_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """Its header was sound, its weights are gone when they are asked for."""
    path = tmp_path / "m.safetensors"
    weights_file(path, 2_000)
    job = job_for(path, tmp_path / "out", formats=("parquet",), stats=True)

    class Shrinking(worker.Reporter):
        def progress(self, done_bytes: int, total_bytes: int) -> None:
            os.truncate(path, path.stat().st_size - 24 * 1_000)
            super().progress(done_bytes, total_bytes)

    outcome = worker.carry_out(job, Shrinking(io.StringIO()))
    assert error_text(outcome).startswith("SourceError")
    assert "m.safetensors, tensor layer" in error_text(outcome)
    assert "the file ends" in error_text(outcome)
    assert not (tmp_path / "out" / "m").exists()


@pytest.mark.slow
def test_a_source_on_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own error for a block that cannot be read, from the second read of weights on."""
    path = tmp_path / "m.safetensors"
    weights_file(path, 50)
    job = job_for(path, tmp_path / "out", formats=("parquet",), stats=True)
    from exporter.readers import safetensors_file

    original, calls = safetensors_file.Extent.read, []

    def read(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 20:
            raise OSError(5, "Input/output error")
        return original(self, *arguments)

    monkeypatch.setattr(safetensors_file.Extent, "read", read)
    outcome = carried_out(job)
    assert error_text(outcome).startswith("SourceError")
    assert "Input/output error" in error_text(outcome)
    assert not (tmp_path / "out" / "m").exists()


# The clock --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_clock_that_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """What is done stays done whatever the times of files say, and nothing takes less than no time."""
    seconds = iter(range(2 * 10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
    job = job_for(model, tmp_path, formats=("json", "parquet"))
    outcome = carried_out(job)
    assert outcome.status == "done"
    assert outcome.seconds >= 0
    assert all(stage.seconds >= 0 for stage in outcome.stages)
    for path, year in ((model, 2050), (tmp_path / "m" / "manifest.json", 1980), (tmp_path / "m", 2050)):
        os.utime(path, ((year - 1970) * 31_556_952.0,) * 2)
    assert resuming.is_done(job_for(model, tmp_path, formats=("json", "parquet")))


@pytest.mark.slow
def test_what_is_done_with_the_clock_of_another_year_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    """No artifact holds a time."""
    carried_out(job_for(model, tmp_path / "now", formats=tuple(READ_ALONE)))
    monkeypatch.setattr(time, "time", lambda: 315_532_800.0)
    carried_out(job_for(model, tmp_path / "then", formats=tuple(READ_ALONE)))
    assert digests(tmp_path / "now") == digests(tmp_path / "then")


# Signals, hangs, killed workers, other batches --------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources, each of which takes a second or more, and with what a batch of them gives."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for number in range(3):
        weights_file(folder / f"m{number}.safetensors", MANY_TENSORS)
    batch = BatchRun(folder, SOURCES)
    assert batch.status() == 0, batch.text
    return folder


@pytest.fixture
def place(tmp_path: Path, undisturbed: Path) -> Path:
    """A folder with the sources alone."""
    for name in SOURCES:
        os.link(undisturbed / name, tmp_path / name)
    return tmp_path


def finish(place: Path, undisturbed: Path) -> None:
    """The same command again does the rest."""
    wait_for_the_end(place)
    rest = BatchRun(place, SOURCES)
    assert rest.status() == 0, rest.text
    assert digests(place / "outputs") == digests(undisturbed / "outputs")


@pytest.mark.slow
def test_ctrl_c_once_finishes_what_runs(place: Path, undisturbed: Path) -> None:
    batch = BatchRun(place, [*SOURCES, "--jobs", "2"])
    with held(batch.workers, 2):
        batch.wait_for(": started", 2)
        batch.interrupt()
        batch.wait_for("Ctrl-C again stops now")
    assert batch.status() == 130, batch.text
    assert sorted(digests(place / "outputs")) == ["m0", "m1"]
    assert "m0, m1 will be finished" in batch.text
    assert processes_in(place) == []
    finish(place, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGHUP,)], ids=str)
def test_stopping_at_once(place: Path, signals: tuple[signal.Signals, ...]) -> None:
    """Ctrl-C twice, `kill`, a terminal that is closed: nothing half done is left, and nothing runs."""
    batch = BatchRun(place, [*SOURCES, "--jobs", "2"])
    with held(batch.workers, 2):
        batch.wait_for(": started", 2)
        for count, number in enumerate(signals):
            if count:
                # Two of a kind at once may arrive as one.
                batch.wait_for("Ctrl-C again stops now")
            os.kill(batch.process.pid, number)
        assert batch.status() == 130, batch.text
    assert digests(place / "outputs") == {} if (place / "outputs").exists() else True
    assert processes_in(place) == []


@pytest.mark.slow
def test_a_worker_that_never_answers(tmp_path: Path) -> None:
    """A stopped process is as silent as can be; the others are done meanwhile."""
    sources = [weights_file(tmp_path / f"m{number}.safetensors", 3 if number else MANY_TENSORS) for number in range(3)]
    batch = BatchRun(tmp_path, [*sources, "--jobs", "1", "--timeout", "20s"])
    with held(batch.workers, 1):
        assert batch.status() == 8, batch.text
    assert "m0: took longer than --timeout 20 s" in batch.text
    assert sorted(digests(tmp_path / "outputs")) == ["m1", "m2"]
    assert processes_in(tmp_path) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_for_want_of_memory_is_tried_again_alone(place: Path, undisturbed: Path) -> None:
    """As the system does it: SIGKILL."""
    batch = BatchRun(place, [*SOURCES, "--jobs", "2"])
    with held(batch.workers, 2) as workers:
        workers[0].kill()
    assert batch.status() == 0, batch.text
    assert "was killed by SIGKILL: probably out of memory" in batch.text
    assert "once more, alone" in batch.text
    assert "started, attempt 2" in batch.text
    finish(place, undisturbed)


@pytest.mark.slow
def test_two_batches_at_once_on_the_same_output(place: Path, undisturbed: Path) -> None:
    """One waits where the other is at work; together they do everything once."""
    both = [BatchRun(place, SOURCES, log="log0.txt")]
    with held(both[0].workers, 1):
        both.append(BatchRun(place, SOURCES, log="log1.txt"))
        both[1].wait_for("waits: another export is writing there")
    assert [batch.status() for batch in both] == [0, 0], [batch.text for batch in both]
    text = "".join(batch.text for batch in both)
    assert text.count(": done in") == len(SOURCES), text
    finish(place, undisturbed)

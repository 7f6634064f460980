"""The command line as a table: what is typed, the exit status, and what is said where."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pty
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from exporter import cli, console, files, memory, wire
from exporter.commands.reading_options import OPTIONS, reading_options
from exporter.errors import (
    ERRORS,
    MismatchError,
    OutputError,
    SourceError,
    TransientError,
    TrustError,
    gravest_status,
)
from exporter.options import ExportOptions
from exporter.records import Job, Outcome, OutputDifference, PictureOptions, Stage, Verification, WrittenFile
from exporter.sources.detection.applications import application_names

FORBIDDEN = ("tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx", "numpy", "pyarrow", "h5py", "netron")
DIFFERENCE = OutputDifference("predictions", (1, 1000), 3.5e-10, 1e-6, 1e-5)
PASSED = Verification("passed", outputs=(DIFFERENCE,))
RANDOM = "random (seed 0)"


class Recorder:
    """A runner that does no work: each model's outcome is given by its name."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __call__(self, job: Job, *, watch: Callable[[wire.Event], None], **limits: Any) -> Outcome:
        self.jobs.append(job)
        watch(wire.StageEvent("convert", "start"))
        watch(wire.MemoryEvent(5, 7))
        watch(wire.ProgressEvent("convert", 5, 10))
        watch(wire.StageEvent("convert", "end", 2.5, 702_000_000))
        watch(wire.NoteEvent("a note on the way"))
        watch(wire.LogEvent("printed by the worker\n"))
        done = Outcome(
            name=job.name,
            status="done",
            output_path=job.output_path,
            weights="imagenet",
            seconds=12.34,
            peak_rss_bytes=700_000_000,
            tree_peak_rss_bytes=1_400_000_000,
            stages=(Stage("convert", 2.5, 702_000_000),),
            files=(WrittenFile("model.onnx", 178_000_000, "a" * 64),),
            verification=PASSED,
        )
        return VARIANTS.get(job.name, lambda outcome: outcome)(done)


def interrupted(outcome: Outcome) -> Outcome:
    raise KeyboardInterrupt


def defective(outcome: Outcome) -> Outcome:
    raise ZeroDivisionError("a defect")


def failed(outcome: Outcome, name: str) -> Outcome:
    error = ERRORS[name]("cannot go on", where="layer `x`", why="\x1b[2J a reason", hint="this").as_record()
    return Outcome(outcome.name, "failed", outcome.output_path, error=error | {"trace": "Traceback of the worker"})


MISMATCH = Verification("mismatch", outputs=(dataclasses.replace(DIFFERENCE, max_abs=0.25),))
UNFIT = Verification("skipped", reason="not enough memory", needed_bytes=5_000_000_000)
VARIANTS: dict[str, Callable[[Outcome], Outcome]] = {
    "vgg16": lambda outcome: dataclasses.replace(outcome, weights=RANDOM, notes=("no network",)),
    "vgg19": lambda outcome: dataclasses.replace(outcome, status="mismatch", verification=MISMATCH),
    "xception": lambda outcome: dataclasses.replace(outcome, verification=UNFIT),
    "mobilenet": lambda outcome: dataclasses.replace(outcome, verification=None),
    "resnet50": lambda outcome: failed(outcome, TrustError.__name__),
    "resnet152": lambda outcome: failed(outcome, OutputError.__name__),
    "densenet121": interrupted,
    "densenet169": defective,
}


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.chdir(tmp_path)
    return Recorder()


# What is typed; exit status; fragments of stdout; fragments of stderr.
TABLE: list[tuple[str, int, list[str], list[str]]] = [
    ("--version", 0, ["export-model 0.1.0"], []),
    ("", 0, ["Usage: export-model SOURCE..."], []),
    ("--help", 0, ["Usage: export-model SOURCE...", "Examples:", "Exit status", "130", "view TARGET"], []),
    ("export --help", 0, ["Usage: export-model SOURCE..."], []),
    ("view --help", 0, ["TARGET", "--no-browser"], []),
    (
        "resnet101",
        0,
        [
            "resnet101: done in 12.3 s, peak memory 1.4 GB",
            "outputs/resnet101",
            "model.onnx  178 MB",
            "weights: imagenet",
            "verification: passed",
            "predictions (1×1000) differs by at most 3.5e-10, allowed 1e-05",
        ],
        ["resnet101: convert: 2.5 s, peak memory 702 MB", "note: a note on the way"],
    ),
    ("export ResNet101", 0, ["resnet101: done"], []),
    ("--no-verify resnet101 -v", 0, ["convert  2.5 s  702 MB"], ["convert …"]),
    ("resnet101 --debug", 0, [], ["the worker printed:\nprinted by the worker"]),
    ("resnet101 -o elsewhere", 0, ["elsewhere/resnet101"], []),
    ("vgg16", 0, ["RANDOM WEIGHTS (seed 0)", "not trained", "note: no network"], []),
    ("xception", 0, ["SKIPPED", "has not been compared", "not enough memory (it needs 5 GB)"], []),
    ("mobilenet", 0, ["verification: NOT DONE"], []),
    (
        "vgg19",
        3,
        ["vgg19: mismatch", "MISMATCH"],
        [
            "error: vgg19: the ONNX file and its source disagree: predictions (1×1000) differs by at most 0.25",
            "  try: ",
        ],
    ),
    ("resnet50", 5, [], ["error: layer `x`: cannot go on: �[2J a reason\n  try: this\n"]),
    ("resnet50 --debug", 5, [], ["Traceback of the worker"]),
    (
        "resnet101 resnet152 resnet50 vgg16",
        7,
        [
            "model ",
            "verification",
            "resnet101  done",
            "vgg16      done",
            "resnet152: failed",
            "1.4 GB",
            "RANDOM WEIGHTS",
        ],
        ["4/4 ", "resnet101: done in 12.3 s, verified, peak memory 1.4 GB", "cannot go on", "note: a note on the way"],
    ),
    ("resnet10 resnet101", 2, ["resnet10: failed", "resnet101  done"], ["error: 'resnet10'", "try: resnet101 or"]),
    ("missing.keras", 4, [], ["error: missing.keras: cannot be read: no such file"]),
    ("resnet101 resnet101", 0, ["resnet101: done"], []),
    ("densenet169", 1, [], ["error: a defect of export-model: ZeroDivisionError: a defect", "--debug"]),
    ("densenet169 --debug", 1, [], ["Traceback (most recent call last)"]),
    ("densenet121", 130, [], ["error: interrupted: densenet121 is not finished", "try: the same command again"]),
    ("resnet101 --to onxx", 2, [], ["error: --to onxx: is an unknown format", "try: --to onnx"]),
    ("resnet101 --opset 99", 2, [], ["--opset 99: cannot be used: supported opsets are 13 to 28"]),
    ("resnet101 --opset x", 2, [], ["error: Invalid value for '--opset'", "try: export-model --help"]),
    ("resnet101 --bad", 2, [], ["No such option"]),
    ("export", 2, [], ["Missing argument"]),
    ("view", 2, [], ["Missing argument", "export-model view --help"]),
    ("querry", 2, [], ["error: 'querry': is unknown: it is neither a command nor a file", "try: export-model query"]),
    ("Inspekt resnet101", 2, [], ["try: export-model inspect"]),
    ("help", 0, ["Usage: export-model SOURCE..."], []),
    ("help view", 0, ["Usage: export-model view"], []),
    ("resnet101 -j1 --dry-run", 0, ["1 to do"], []),
    ("resnet101 vgg16 -j2 --view", 2, [], ["--view is not for a batch: -j2 makes it one", "export-model view FOLDER"]),
    ("resnet101 --jobs 1 --no-report", 0, ["resnet101", "1 done"], []),
    ("view nowhere", 4, [], ["error: nowhere"]),
    ("resnet101 --view --to parquet", 2, [], ["--view shows the ONNX file"]),
    ("resnet101 --max-memory many", 2, [], ["is not a size"]),
]


@pytest.mark.parametrize(("typed", "status", "said", "complained"), TABLE, ids=[row[0] or "nothing" for row in TABLE])
def test_the_table(
    recorder: Recorder,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    status: int,
    said: list[str],
    complained: list[str],
) -> None:
    assert cli.main(typed.split(), recorder) == status
    out, err = capsys.readouterr()
    assert [fragment for fragment in said if fragment not in out] == [], out
    assert [fragment for fragment in complained if fragment not in err] == [], err
    assert "\x1b" not in out + err
    assert ("Traceback" in err) == ("--debug" in typed and status != 0)


@pytest.mark.parametrize("name", ["xception", "mobilenet", "vgg19"])
def test_what_was_not_verified_never_reads_as_passed(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    cli.main([name], recorder)
    cli.main([name, "missing.keras"], recorder)
    assert "passed" not in "".join(capsys.readouterr())


def test_no_model_is_taken_for_a_misspelled_command(recorder: Recorder) -> None:
    for name in application_names().values():
        assert cli.main(["-q", name.lower()], recorder) in {0, 3, 5, 7, 130, 1}, name
    assert len(recorder.jobs) == len(set(application_names().values()))


def test_quiet_prints_errors_only(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-q", "resnet101", "vgg16"], recorder) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["-q", "resnet50"], recorder) == TrustError.status
    assert capsys.readouterr().err.startswith("error: ")


def test_flags_reach_the_job(recorder: Recorder) -> None:
    typed = (
        "resnet101 --to ONNX,dot --to svg --seed 3 --opset 17 --batch-size 2 --input-shape x:?,8 --no-verify --atol 1 "
        "--rtol 2 --max-memory 4GiB --trust-code --layout-seconds 5 --weights random "
        "--depth 2 --expand stem --expand block* --max-nodes 40 --direction right --theme dark --color-by macs"
    )
    assert cli.main(typed.split(), recorder) == 0
    (job,) = recorder.jobs
    assert job.formats == ("onnx", "dot", "svg")
    assert (job.seed, job.opset, job.batch_size, job.input_shapes) == (3, 17, 2, {"x": (None, 8)})
    assert (job.verify, job.atol, job.rtol, job.max_memory_bytes) == (False, 1.0, 2.0, 2**32)
    assert (job.trust_code, job.layout_seconds, job.weights) == (True, 5.0, "random")
    assert job.picture == PictureOptions(2, ("stem", "block*"), 40, "right", "dark", "macs")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--depth -1", "counts levels"),
        ("--max-nodes 0", "at least one box"),
        ("--direction left", "down, right"),
        ("--theme drak", "--theme dark"),
        ("--color-by flops", "class, params, macs, dtype"),
        ("--expand all --depth 1", "leave them out"),
        ("--expand --quiet", "not the name of a block"),
        ("--to onnx --theme dark", "options for pictures are for dot, svg, png, pdf"),
    ],
)
def test_wrong_options_of_pictures_say_what_is_right(
    flags: str, words: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = [] if "--to" in flags else ["--to", "svg"]
    assert cli.main(["resnet101", *formats, *flags.split()], recorder) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert recorder.jobs == []


def test_every_source_is_run_once_and_the_first_that_failed_gives_the_status(recorder: Recorder) -> None:
    assert cli.main(["resnet152", "resnet50", "VGG16", "vgg16", "resnet10", "resnet101"], recorder) == 7
    assert sorted(job.name for job in recorder.jobs) == ["resnet101", "resnet152", "resnet50", "vgg16"]


def test_several_models_run_side_by_side_and_leave_no_report(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = threading.Barrier(2, timeout=300)

    def run(job: Job, *, watch: Callable[[wire.Event], None], **limits: Any) -> Outcome:
        both.wait()
        return recorder(job, watch=watch)

    monkeypatch.setattr(memory, "processors", lambda: 2)
    assert cli.main(["resnet101", "vgg16"], run) == 0
    assert len(recorder.jobs) == 2
    assert list(tmp_path.iterdir()) == []


def test_several_models_share_the_memory_that_is_allowed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model may take more than all together."""
    assert cli.main(["resnet101", "vgg16", "--max-memory", "4GiB"], recorder) == 0
    assert [job.max_memory_bytes for job in recorder.jobs] == [2**32, 2**32]
    assert "of the 4.29 GB allowed" in capsys.readouterr().out


def test_what_is_up_to_date_is_skipped_and_force_redoes_it(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["vgg16"], recorder)
    (job,) = recorder.jobs
    folder = Path(job.output_path)
    folder.mkdir(parents=True)
    files.write_json(folder / files.MANIFEST, {"fingerprint": job.fingerprint, "files": [], "weights": RANDOM})
    capsys.readouterr()
    assert cli.main(["vgg16"], recorder) == 0
    out = capsys.readouterr().out
    assert "up to date (--force redoes it)" in out
    assert "RANDOM WEIGHTS" in out
    assert "passed" not in out
    assert len(recorder.jobs) == 1
    assert cli.main(["vgg16", "--force"], recorder) == 0
    assert len(recorder.jobs) == 2


def test_view_after_an_export_shows_the_first_that_is_there(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from exporter.view import choice, server
    from exporter.view.site import Shown

    calls: list[tuple[list[Path], int | None, bool, str]] = []

    def serve(
        shown: list[Shown], *, port: int | None, browser: bool, announce: Callable[[str], None], host: str
    ) -> None:
        announce("http://127.0.0.1:1")
        calls.append(([each.path for each in shown], port, browser, host))

    def choose(target: str, place: Path, *, full: bool) -> Shown:
        assert place.is_dir()
        return Shown(Path(target), "model.onnx", f"because full is {full}")

    monkeypatch.setattr(choice, "choose", choose)
    monkeypatch.setattr(server, "serve", serve)
    assert cli.main(["resnet50", "resnet101", "vgg19", "--view", "--no-browser", "--port", "8080"], recorder) == 3
    assert cli.main(["view", "here", "there", "--full", "--host", "0.0.0.0"], recorder) == 0
    assert calls == [
        ([Path("outputs/resnet101")], 8080, False, "127.0.0.1"),
        ([Path("here"), Path("there")], None, True, "0.0.0.0"),
    ]
    printed = capsys.readouterr()
    assert "http://127.0.0.1:1" in printed.out
    assert "resnet101: because full is False" in printed.err
    assert "there: because full is True" in printed.err
    assert "--host 0.0.0.0: everybody who can reach this machine" in printed.err


def test_the_exit_statuses_in_the_help_are_those_of_the_errors() -> None:
    listed = {line.split()[0] for line in cli.EPILOG.split("Exit status")[1].splitlines()[1:] if line.strip()}
    assert listed == {str(error.status) for error in ERRORS.values()} | {"0", "130"}
    assert MismatchError.status == 3


def test_the_gravest_of_several_is_the_exit_status_in_any_order() -> None:
    order = cli.EPILOG.partition("in the order ")[2].partition(":")[0].split()
    assert sorted(order) == sorted({str(error.status) for error in ERRORS.values()}), "each has its place"
    refused, mismatch, killed = SourceError("is broken"), MismatchError("disagrees"), TransientError("was killed")
    for errors in itertools.permutations([refused, None, mismatch, killed]):
        assert gravest_status(errors) == killed.status
    assert gravest_status([refused, mismatch]) == mismatch.status
    assert gravest_status([None, None]) == gravest_status([]) == 0
    found = [next(error for error in ERRORS.values() if str(error.status) == status)("…") for status in order]
    assert [str(gravest_status(found[place:])) for place in range(len(found))] == order


def forbidden_modules(code: str, *arguments: str, cwd: Path | None = None) -> set[str]:
    """Run code in a fresh interpreter; which of the modules that the parent must not import did it import?"""
    report = "\nimport sys\nprint('MODULES', *sys.modules, file=sys.__stdout__)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", textwrap.dedent(code) + report, *arguments]
    out = subprocess.check_output(command, text=True, cwd=cwd, env=environment, stderr=subprocess.STDOUT)
    modules = {name.partition(".")[0] for name in out.partition("MODULES")[2].split()}
    assert "exporter" in modules
    return modules & {*FORBIDDEN, "rich", "psutil"}


def test_progress_has_a_rate_and_an_estimate_once_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([100.0, 100.1, 102.0, 103.0])
    # Of this module alone: another thread would take one of them.
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    pace = console.Pace()
    assert pace.text(10**9, 5 * 10**9) == "1 GB of 5 GB"
    assert pace.text(2 * 10**9, 5 * 10**9) == "2 GB of 5 GB"
    assert pace.text(3 * 10**9, 5 * 10**9) == "3 GB of 5 GB, 1 GB/s, 2 s left"
    assert pace.text(5 * 10**9, 5 * 10**9) == "5 GB of 5 GB, 1.33 GB/s, 0 s left"


def test_help_imports_nothing_heavy() -> None:
    assert forbidden_modules("from exporter.cli import main; main(['--help'])") == set()


def test_help_imports_no_more_of_the_program_than_it_shows() -> None:
    """Records alone would take a third of the time: each of their classes is compiled anew."""
    code = "import sys; from exporter.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    modules = {name for name in run.stderr.split() if name.startswith("exporter.")}
    assert "exporter.commands.export_options" in modules
    assert modules & {"exporter.records", "exporter.wire", "exporter.plan", "exporter.session"} == set()
    assert "dataclasses" not in run.stderr.split()


def test_help_is_fast() -> None:
    """0.3 s is promised, which is about five times what Click alone takes to import, on any machine and under any load.

    Half of that is reached. It waits for nothing, so that processor time is what counts.
    """

    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    measured = [(seconds("-m", "exporter", "--help"), seconds("-c", "import click")) for _ in range(6)]
    of_help, of_click = (min(column) for column in zip(*measured, strict=True))
    assert of_help < 2.5 * of_click


# A whole parent, up to the process border and back, with a worker that needs no framework.
PARENT = """
import functools, sys
from exporter import cli, supervisor
from exporter.child_process import spawn_worker
spawn = functools.partial(spawn_worker, command=[sys.executable, "worker.py"])
status = cli.main(sys.argv[1:], lambda job, **limits: supervisor.run(job, **{**limits, "spawn": spawn}))
"""
WORKER = """
import os, sys, time
from pathlib import Path
from exporter import files, wire
from exporter.records import Outcome
job = wire.job_from_json(Path(sys.argv[1]).read_text())
os.write(int(sys.argv[3]), b'{"stage": "convert", "state": "start"}\\n')
os.write(int(sys.argv[3]), b'{"progress": {"stage": "convert", "done": 5, "total": 10}}\\n')
if job.name == "vgg19":
    time.sleep(600)
while "WAIT_FOR" in os.environ and not os.path.exists(os.environ["WAIT_FOR"]):
    time.sleep(0.01)
os.write(int(sys.argv[3]), b'{"stage": "convert", "state": "end", "seconds": 0.3, "peak_rss_bytes": 5}\\n')
files.write_lines(Path(sys.argv[2]), [wire.outcome_to_json(Outcome(job.name, "done", job.output_path))])
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "worker.py").write_text(WORKER)
    return tmp_path


def test_a_whole_run_keeps_the_frameworks_out_of_the_parent(workplace: Path) -> None:
    assert forbidden_modules(PARENT, "resnet101", "vgg16", "resnet10", cwd=workplace) == {"psutil"}


def start(
    workplace: Path, *arguments: str, stderr: int = subprocess.PIPE, **environment: str
) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "TERM": "xterm"} | environment
    command = [sys.executable, "-c", PARENT + "raise SystemExit(status)", *arguments]
    return subprocess.Popen(command, cwd=workplace, env=environment, stdout=subprocess.PIPE, stderr=stderr)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_and_names_what_is_left(workplace: Path, name: str) -> None:
    """Ctrl-C once would wait for the model that runs."""
    process = start(workplace, "-v", "vgg16", "resnet50", "vgg19")
    assert process.stderr is not None
    seen = b""
    try:
        while seen.count(b": done") < 2 or b"vgg19: started" not in seen:
            line = process.stderr.readline()
            assert line
            seen += line
        process.send_signal(signal.Signals[name])
        if name == "SIGINT":
            while b"vgg19 will be finished, Ctrl-C again stops now" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.terminate()
    assert process.returncode == 130
    assert b"2 of 3 finished and kept, not finished: vgg19" in err
    assert b"vgg16 " in out
    assert b"Traceback" not in err


def test_a_signal_ends_a_single_model_at_once(workplace: Path) -> None:
    process = start(workplace, "-v", "vgg19")
    assert process.stderr is not None
    try:
        while b"convert" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        process.terminate()
    assert process.returncode == 130
    assert b"interrupted: vgg19 is not finished" in err


def test_a_reader_that_has_seen_enough_is_no_defect() -> None:
    """As `export-model query --example | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "exporter", "query", "--example"]
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_terminal_shows_the_stage_that_runs(workplace: Path) -> None:
    master, terminal = pty.openpty()
    process = start(workplace, "resnet101", stderr=terminal, WAIT_FOR="shown")
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(master, 65_536):
            shown += chunk
            if b"5 B of 10 B" in shown:
                (workplace / "shown").touch()
    except OSError:
        # Linux's way of saying that the other side of a terminal is closed.
        pass
    out, _ = process.communicate(timeout=300)
    os.close(master)
    assert process.returncode == 0
    assert b"5 B of 10 B" in shown
    assert b"convert: 0.3 s, peak memory 5 B" in shown
    assert b"resnet101: done" in out


@pytest.mark.parametrize("name", ["export", "inspect", "summary", "diff"])
def test_every_command_that_reads_a_source_reads_it_as_an_export_does(name: str) -> None:
    """The same options, under the names of the fields of `ExportOptions`."""
    command = cli.app.get_command(click.Context(cli.app), name)
    assert command is not None
    wanted = {parameter.name for parameter in click.command()(reading_options(lambda **_: None)).params}
    assert len(wanted) == len(OPTIONS)
    assert wanted <= {parameter.name for parameter in command.params}
    assert wanted <= {field.name for field in dataclasses.fields(ExportOptions)}

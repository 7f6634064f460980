"""Files of settings on the command line: what counts more, and what `--dry-run` says without doing anything."""

from __future__ import annotations

import json
import shlex
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from exporter import cli, files
from exporter.records import Job, Outcome

ZOO = """
[settings]
jobs = 1
output = "out"
max-memory = "6GB"
[defaults]
weights = "random"
to = ["parquet", "svg"]
[[models]]
source = ["mobilenet", "vgg16"]
[[models]]
source = "mobilenet_v2"
name = "second"
theme = "print"
"""


class Recorder:
    """A runner that writes a receipt and nothing else."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __call__(self, job: Job, *, watch: object, **limits: Any) -> Outcome:
        self.jobs.append(job)
        folder = Path(job.output_path)
        folder.mkdir(parents=True)
        files.write_json(folder / files.MANIFEST, {"fingerprint": job.fingerprint, "files": []})
        return Outcome(job.name, "done", job.output_path)

    def by_name(self) -> dict[str, Job]:
        return {job.name: job for job in self.jobs}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo.toml").write_text(ZOO)
    return tmp_path


def no_worker(job: Job, **_: Any) -> Outcome:
    raise AssertionError("a worker was started")


@pytest.mark.parametrize(
    "words",
    [
        ["batch", "zoo.toml"],
        ["batch", "--config", "zoo.toml"],
        ["--config", "zoo.toml"],
        ["--config=zoo.toml"],
        ["zoo.toml"],
    ],
    ids=" ".join,
)
def test_a_file_says_what_is_exported(zoo: Path, words: list[str]) -> None:
    run = Recorder()
    assert cli.main(words, run=run) == 0
    jobs = run.by_name()
    assert {name: job.output_path for name, job in jobs.items()} == {
        "mobilenet": "out/mobilenet",
        "vgg16": "out/vgg16",
        "second": "out/second",
    }
    assert {job.formats for job in jobs.values()} == {("parquet", "svg")}
    assert {name: job.picture.theme for name, job in jobs.items()} == {
        "mobilenet": "light",
        "vgg16": "light",
        "second": "print",
    }


def test_flags_have_the_last_word_and_sources_are_added(zoo: Path) -> None:
    run = Recorder()
    words = ["batch", "zoo.toml", "resnet50", "--to", "dot", "-o", "elsewhere", "--theme", "dark", "--retries", "0"]
    assert cli.main(words, run=run) == 0
    jobs = run.by_name()
    assert sorted(jobs) == ["mobilenet", "resnet50", "second", "vgg16"]
    assert {job.formats for job in jobs.values()} == {("dot",)}
    assert {job.picture.theme for job in jobs.values()} == {"dark"}
    assert {job.weights for job in jobs.values()} == {"random"}
    assert {Path(job.output_path).parent.name for job in jobs.values()} == {"elsewhere"}


def test_a_flag_with_its_usual_value_counts_too(zoo: Path) -> None:
    run = Recorder()
    assert cli.main(["batch", "zoo.toml", "--weights", "auto"], run=run) == 0
    assert {job.weights for job in run.jobs} == {"auto"}


def test_mistakes_are_reported_and_nothing_is_started(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ZOO.replace("jobs = 1", 'jobs = 0\ntimeout = "long"\nfail-fast = "yes"').replace("6GB", "lots")
    (zoo / "zoo.toml").write_text(text)
    assert cli.main(["batch", "zoo.toml"], run=no_worker) == 2
    said = capsys.readouterr().err
    assert "4 mistakes in zoo.toml, and nothing has been started" in said
    assert "zoo.toml:3: jobs = 0 is not possible" in said
    assert 'zoo.toml:4: timeout = "long" cannot be used: it is no time (timeout = "30m")' in said
    assert 'zoo.toml:5: fail-fast = "yes" is not true or false' in said
    assert 'zoo.toml:7: max-memory = "lots" cannot be used' in said
    assert [path.name for path in zoo.iterdir()] == ["zoo.toml"]


def test_a_dry_run_prints_the_plan_and_does_nothing(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch", "zoo.toml"], run=Recorder()) == 0
    (zoo / "out" / "vgg16" / files.MANIFEST).unlink()
    before = sorted(zoo.rglob("*"))
    capsys.readouterr()
    (zoo / "broken.keras").write_text("no model")
    assert cli.main(["zoo.toml", "broken.keras", "--dry-run"], run=no_worker) == 4
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert rows[0] == ["model", "kind", "source", "formats", "status", "memory", "folder"]
    assert rows[1] == ["mobilenet", "application", "MobileNet", "parquet,svg", "up", "to", "date", "-", "out/mobilenet"]
    assert rows[2][:6] == ["vgg16", "application", "VGG16", "parquet,svg", "to", "do"]
    assert rows[2][6:] == ["1.67", "GB", "out/vgg16"]
    assert rows[4] == ["-", "-", "broken.keras", "-", "refused", "-", "-"]
    assert "4 models: 1 to do, 2 up to date, 1 refused" in printed.out
    assert "at most 1.67 GB for one model (estimated), 6 GB are allowed" in printed.out
    assert "broken.keras: is not a model" in printed.err
    assert sorted(zoo.rglob("*")) == sorted([*before, zoo / "broken.keras"])


def test_a_dry_run_as_json(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resnet50", "no_such_net", "--dry-run", "--format", "json"], run=no_worker) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["totals"] == {"models": 2, "to_do": 1, "up_to_date": 0, "refused": 1}
    first, second = found["models"]
    assert (first["model"], first["status"], first["folder"]) == ("resnet50", "to do", "outputs/resnet50")
    # Its verification imports TensorFlow twice over.
    assert first["need_bytes"] > 10**9
    assert (second["source"], second["status"], second["error"]["type"]) == ("no_such_net", "refused", "UsageError")


def test_force_leaves_nothing_up_to_date(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch", "zoo.toml"], run=Recorder()) == 0
    assert cli.main(["batch", "zoo.toml", "--force", "--dry-run"], run=no_worker) == 0
    assert "3 to do, 0 up to date" in capsys.readouterr().out


def test_a_batch_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch"], run=no_worker) == 2
    assert "no SOURCE is named" in capsys.readouterr().err


PAGE = (Path(__file__).parent.parent / "docs" / "batches.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Configuration")[2].partition("\n## ")[0]


def block(language: str) -> str:
    return SECTION.partition(f"```{language}\n")[2].partition("```")[0]


@pytest.fixture
def documented(zoo: Path) -> Path:
    """The folder that the page speaks of."""
    (zoo / "zoo.toml").write_text(block("toml"))
    (zoo / "saved").mkdir()
    for name in ("a", "b", "b_old"):
        with zipfile.ZipFile(zoo / "saved" / f"{name}.keras", "w") as archive:
            archive.writestr("config.json", json.dumps({"name": name}))
    return zoo


def test_the_file_of_the_page_means_what_it_says(documented: Path) -> None:
    run = Recorder()
    assert cli.main(["batch", "zoo.toml"], run=run) == 0
    jobs = run.by_name()
    assert sorted(jobs) == ["a", "b", "efficientnetb0", "resnet101", "resnet50", "small_320"]
    assert {job.batch_size for name, job in jobs.items() if name in "ab"} == {1}
    assert jobs["small_320"].input_shapes == {"": (1, 320, 320, 3)}


def test_commands_of_the_page_run(documented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each in a folder in which nothing has been exported; two of the three quick ones are among all applications."""
    words = [shlex.split(line, comments=True) for line in block("sh").splitlines()]
    assert len(words) == 5
    for program, *arguments in words:
        run = Recorder()
        assert program == "export-model"
        assert cli.main([*arguments, "--force"], run=run) == 0
        assert bool(run.jobs) != ("--dry-run" in arguments)
        shutil.rmtree(documented / "zoo", ignore_errors=True)
    assert '{"totals": {"models": 41,' in capsys.readouterr().out


def test_the_report_of_the_page_is_what_is_printed(documented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = block("toml").replace("max-memory", "max_memory").replace('"random"', '"randm"')
    (documented / "zoo.toml").write_text(
        text.replace("ResNet50", "ResNet51").replace('"saved/*.keras', '"saved/*.kears')
    )
    assert cli.main(["batch", "zoo.toml"], run=no_worker) == 2
    assert capsys.readouterr().err.strip() == block("text").strip()

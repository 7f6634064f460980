"""The documents run: the README's code blocks, its commands, and the pages that are generated."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import cli
from exporter.errors import ERRORS
from exporter.query.questions import QUESTIONS
from exporter.records import Job, Outcome
from exporter.schema import SCHEMAS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSPECT, NOTEBOOKS = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("inspect", "notebooks"))
QUERYING, NETWORKS, SUMMARY, BOARDS, VIEWING = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("querying", "networkx", "summary", "boards", "viewing")
)


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str = README) -> list[list[str]]:
    lines = [line for block in blocks("sh", page) for line in block.splitlines() if line.startswith("export-model ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's example has been run, as far as its queries need it."""
    folder = tmp_path_factory.mktemp("readme")
    command = [sys.executable, "-m", "exporter", "resnet101", "--to", "parquet", "--weights", "random"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("block", blocks("python"), ids=["pandas", "duckdb"])
@pytest.mark.slow
def test_queries_of_the_readme_run(block: str, exported: Path) -> None:
    result = subprocess.run([sys.executable, "-c", block], cwd=exported, check=True, capture_output=True, text=True)
    assert "Conv2D" in result.stdout


RECIPES = ["catalogue", "duckdb", "pandas", "polars", "join"]


@pytest.mark.parametrize("block", blocks("python", QUERYING), ids=RECIPES)
@pytest.mark.slow
def test_recipes_for_queries_run(block: str, exported: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block]
    result = subprocess.run(command, cwd=exported, env=environment, check=True, capture_output=True, text=True)
    assert "resnet101" in result.stdout
    assert "Conv2D" in result.stdout


@pytest.mark.parametrize("arguments", commands(QUERYING), ids=" ".join)
@pytest.mark.slow
def test_commands_for_queries_run(arguments: list[str], exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    assert cli.main(arguments) == 0


SUMMARIES = [words for words in commands(SUMMARY) if words[0] == "summary"]


@pytest.mark.parametrize("arguments", SUMMARIES, ids=" ".join)
@pytest.mark.slow
def test_summaries_run(
    arguments: list[str], exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported)
    assert cli.main(arguments) == 0
    assert "44,707,176 parameters" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", commands(INSPECT), ids=" ".join)
@pytest.mark.slow
def test_inspections_run(
    arguments: list[str], exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported)
    assert cli.main(arguments) == 0
    assert "conv" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_of_notebooks_runs(tmp_path: Path) -> None:
    """All of its blocks as one program, one after the other."""
    code = "\n".join(blocks("python", NOTEBOOKS))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "outputs/digits/model.onnx" in result.stdout
    assert "3 layers" in result.stdout
    assert "7,850" in result.stdout


@pytest.mark.slow
def test_what_the_pages_of_networks_and_of_markdown_show_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in [words for page in (SUMMARY, NETWORKS) for words in commands(page) if words[0] != "summary"]:
        assert cli.main([*arguments, "--weights", "random", "--no-verify", "--force"]) == 0, arguments
    command = [
        sys.executable,
        "-m",
        "exporter",
        "resnet101",
        "--to",
        "onnx,parquet",
        "--weights",
        "random",
        "--no-verify",
    ]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    capfd.readouterr()
    for block in blocks("python", NETWORKS):
        subprocess.run([sys.executable, "-c", block], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    printed = capfd.readouterr().out
    assert "MultiDiGraph named 'resnet101' with 347 nodes and 379 edges" in printed
    assert "Conv2D" in printed


def test_every_question_is_in_the_page_of_queries() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", QUERYING.partition("## Questions")[2], re.MULTILINE)
    assert dict(listed) == {name: question.text for name, question in QUESTIONS.items()}


EXPORTING = [words for words in [*commands(), *commands(BOARDS)] if words[0] not in cli.COMMANDS]
LOOKING = [words for words in commands() if words[0] in cli.COMMANDS]


@pytest.mark.slow
def test_what_the_readme_shows_of_exports_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    for name in ("before", "after", "model"):
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")]).save(exported / f"{name}.keras")
    monkeypatch.chdir(exported)
    assert cli.main(["model.keras", "--to", "onnx", "-o", "elsewhere"]) == 0
    shutil.copy(Path("elsewhere", "model", "model.onnx"), "from_elsewhere.onnx")
    for arguments in LOOKING:
        assert cli.main(arguments) == 0, arguments
    assert "head" in Path("difference.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [*EXPORTING, *commands(VIEWING)], ids=" ".join)
def test_commands_of_the_readme_are_understood(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_stand_ins()
    served: list[Path] = []
    monkeypatch.setattr("exporter.session.serve", lambda target, **_: served.append(target))
    monkeypatch.setattr("exporter.session.serve", lambda target, **_: served.append(target))
    ran: list[Job] = []

    def run(job: Job, *, watch: object, **limits: object) -> Outcome:
        ran.append(job)
        return Outcome(job.name, "done", job.output_path)

    assert cli.main(arguments, run=run) == 0
    assert bool(served) == ("view" in arguments or "--view" in arguments)
    assert bool(ran) == (arguments[0] != "view")


def make_stand_ins() -> None:
    """Files with the README's names that look like what they should be, as far as the parent process reads them."""
    import zipfile

    import h5py

    for name in ("model.keras", "huge.keras"):
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr("config.json", "{}")
    # An IR version and an empty graph.
    Path("model.onnx").write_bytes(b"\x08\x0a\x3a\x00")
    Path("models.py").touch()
    Path("model.json").write_text('{"class_name": "Functional", "config": {}}')
    Path("model.weights.json").write_text('{"weight_map": {"/layers/dense/vars": "model_00000.weights.h5"}}')
    Path("model_00000.weights.h5").touch()
    with h5py.File("old_model.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    with h5py.File("my.weights.h5", "w") as file:
        file.create_group("layers")


def test_readme_lists_every_exit_status() -> None:
    section = README.partition("### Exit status")[2].partition("\n## ")[0]
    listed = {int(status) for status in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert listed == {error.status for error in ERRORS.values()} | {0, 130}


def catalogue_page() -> str:
    """`docs/catalogue.md`, from the schemas and the descriptions of their fields."""
    page = [(ROOT / "docs" / "catalogue.head.md").read_text(encoding="utf-8").rstrip()]
    for schema in SCHEMAS.values():
        name = schema.metadata[b"export_model.table"].decode()
        page += ["", f"## {name}.parquet", "", "| column | type | may be NULL | meaning |", "|---|---|---|---|"]
        for field in schema:
            null = "yes" if field.nullable else "no"
            page.append(f"| `{field.name}` | `{field.type}` | {null} | {field.metadata[b'description'].decode()} |")
    return "\n".join(page).replace("element: ", "") + "\n"


def test_catalogue_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8") == catalogue_page(), (
        "run: python tests/test_docs.py"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "catalogue.md").write_text(catalogue_page(), encoding="utf-8")

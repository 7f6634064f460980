"""`export-model query` as it is typed: the formats, the prompt, and what is said when it cannot be done."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from test_layer_table import a_material

from exporter import cli
from exporter.formats import layer_table, model_table
from exporter.query.questions import QUESTIONS

MODELS = "SELECT model, layers, opset, weights_by_dtype FROM models"


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has one finished export."""
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "outputs" / "net").mkdir(parents=True)
    layer_table.write(a_material(), folder)
    model_table.write(a_material(nodes=None), folder)
    (folder / "manifest.json").write_text("{}")
    return tmp_path / "outputs"


def asked(*words: str, typed: str = "") -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    runner = CliRunner()
    with runner.isolation(input=typed) as (out, err, _):
        status = cli.main(["query", *words])
        return status, out.getvalue().decode(), err.getvalue().decode()


def test_a_table_has_so_many_rows_and_says_how_many_more_there_are() -> None:
    status, out, _ = asked("SELECT layer, params, parent FROM layers ORDER BY index", "--limit", "2")
    assert (status, out.splitlines()) == (
        0,
        [
            "layer  params  parent",
            "image       0  NULL",
            "conv      112  NULL",
            "… and 2 more rows (--limit 0 shows all)",
        ],
    )
    assert len(asked("SELECT * FROM layers", "--limit", "0")[1].splitlines()) == 5


def test_long_cells_are_cut_and_line_ends_do_not_break_the_table() -> None:
    _, out, _ = asked("SELECT repeat('x', 100) AS a, 'b' || chr(10) || 'c' AS b, chr(27) AS c")
    assert out.splitlines()[1].split("  ")[:2] == ["x" * 59 + "…", "b c"]
    assert "\x1b" not in out


def test_json() -> None:
    _, out, _ = asked(
        "SELECT model, 'nan'::DOUBLE AS a, NULL AS b, [1.5, 'inf'::DOUBLE] AS c FROM layers", "--format", "json"
    )
    assert json.loads(out) == [{"model": "net", "a": None, "b": None, "c": [1.5, None]}] * 4
    assert json.loads(asked("SELECT 1 WHERE false", "--format", "json")[1]) == []


def test_csv() -> None:
    _, out, _ = asked(MODELS, "--format", "csv")
    head, row = csv.reader(io.StringIO(out))
    assert (head, row[:3]) == (["model", "layers", "opset", "weights_by_dtype"], ["net", "4", ""])
    assert json.loads(row[3])[0] == {"dtype": "bfloat16", "params": 4, "nbytes": 8}


def test_markdown() -> None:
    _, out, _ = asked("SELECT 'a|b' AS x, 1 AS y", "--format", "markdown")
    assert out.splitlines() == ["| x | y |", "| --- | ---: |", "| a\\|b | 1 |"]


def test_files(tmp_path: Path) -> None:
    assert asked(MODELS, "--format", "parquet", "-o", "m.parquet") == (0, "", "")
    assert pq.read_table(tmp_path / "m.parquet")["layers"].to_pylist() == [4]
    assert asked("SELECT 1 AS a", "-o", "m.csv") == (0, "", "")
    assert (tmp_path / "m.csv").read_text() == "a\n1\n"
    status, _, err = asked(MODELS, "--format", "parquet")
    assert (status, "-o FILE" in err) == (2, True)
    status, _, err = asked(MODELS, "-o", "missing/m.csv")
    assert (status, "missing" in err) == (7, True)


def test_a_failing_query_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("old")
    assert asked("SELECT error('no') FROM models", "-o", "m.csv")[0] == 2
    assert (tmp_path / "m.csv").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"m.csv", "outputs"}


def test_examples_are_listed_and_run() -> None:
    assert [line.split()[0] for line in asked("--example")[1].splitlines()] == list(QUESTIONS)
    assert asked("--example", "deepest-models")[1].splitlines()[1].split() == ["net", "4", "1", "3"]
    status, _, err = asked("--example", "nonsense")
    assert (status, "largest-layers" in err) == (2, True)


def test_sql_from_standard_input() -> None:
    assert asked("--format", "csv", typed="SELECT count(*) AS n\nFROM layers")[1] == "n\n4\n"


def test_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(
        [".tables", ".schema edges", ".nonsense", "", "SELECT count(*) AS n", "FROM layers;", "SELECT x;", ".quit"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr("exporter.commands.query.is_conversation", lambda: True)
    status, out, err = asked()
    assert (status, list(lines)) == (0, [])
    assert "edges: model, source" in out
    assert "source_call int64: which call of the source, from 0" in out
    assert out.splitlines()[-2:] == ["n", "4"]
    assert ".examples" in err
    assert "the query failed" in err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["SELECT nope FROM layers"], 2, "arithmetic_intensity"),
        (["DROP VIEW layers"], 2, "only read"),
        (["SELEC"], 2, "parsed"),
        (["SELECT 1; SELECT 2"], 2, "2 statements"),
        (["SELECT content FROM read_text('/etc/passwd')"], 2, "refused"),
        (["SELECT * FROM models", "--catalogue", "elsewhere"], 2, "elsewhere"),
    ],
)
def test_mistakes(words: list[str], status: int, says: str) -> None:
    found, out, err = asked(*words)
    assert (found, out) == (status, ""), err
    assert says in err

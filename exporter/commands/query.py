"""`export-model query`: SQL over the tables of all exports."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter import console, files
from exporter.commands import rows
from exporter.errors import ExportError, UsageError
from exporter.query.questions import QUESTIONS
from exporter.schema import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_ROWS = 50
FORMATS = ("table", "csv", "json", "parquet", "markdown")
EPILOG = """
\b
Examples:
  export-model query "SELECT model, class, sum(params) FROM layers GROUP BY ALL ORDER BY 3 DESC"
  export-model query --example largest-layers
  export-model query --catalogue 's3://bucket/exports' --format csv -o models.csv "SELECT * FROM models"
"""
HELP = """.tables          the tables
.schema TABLE    the columns of a table
.examples        questions that are often asked
.quit            the end, as Ctrl-D
Anything else is SQL and ends with a semicolon."""


@click.command(epilog=EPILOG)
@click.argument("sql", required=False)
@click.option(
    "--catalogue",
    "places",
    metavar="PLACE",
    multiple=True,
    default=("outputs",),
    help="A folder, a glob or an address (s3://, gs://, az://, http://); may be repeated.  [default: outputs]",
)
@click.option("--format", "style", type=click.Choice(FORMATS), help="[default: table; csv with -o]")
@click.option("-o", "--output", metavar="FILE", help="Write the result there.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    default=TABLE_ROWS,
    show_default=True,
    help="Rows of a table; 0 shows all. The other formats always have all rows.",
)
@click.option(
    "--example",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Answer a frequent question; without NAME, list them.",
)
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def command(
    sql: str | None,
    *,
    places: Sequence[str],
    style: str | None,
    output: str | None,
    limit: int,
    example: str | None,
    debug: bool,
) -> None:
    """Answer SQL with the tables models, layers, tensors, nodes and edges of all exports, and batch.

    SQL is DuckDB's, and can only read. Without SQL it is asked for, or read from standard input. docs/catalogue.md
    says what the columns mean.
    """
    ask = Ask(places, style or ("csv" if output else "table"), output, limit)
    if example == "":
        _list_examples()
    elif example is not None:
        ask(_question(example))
    elif sql is not None:
        ask(sql)
    elif is_conversation():
        _converse(ask)
    else:
        ask(sys.stdin.read())


class Ask:
    """Answers queries in one way."""

    def __init__(self, places: Sequence[str], style: str, output: str | None, limit: int) -> None:
        if style == "parquet" and output is None:
            raise UsageError("--format parquet needs a file to write to", hint="-o FILE")
        self.places, self.style, self.output, self.limit = places, style, output, limit

    def __call__(self, sql: str) -> None:
        """Raises what `exporter.query.sql.run` raises, and OutputError."""
        from exporter.query.sql import run

        with run(self.places, sql, tell=console.say) as result:
            reader = result.to_arrow_reader(rows.BATCH_ROWS)
            if self.style == "parquet":
                rows.write_parquet(Path(str(self.output)), reader)
            elif self.output is not None:
                files.write_lines(Path(self.output), self._lines(reader))
            else:
                for line in self._lines(reader):
                    console.say(line, err=False)

    def _lines(self, reader: pa.RecordBatchReader) -> Iterator[str]:
        if self.style == "table":
            return rows.table_lines(reader, self.limit)
        return rows.WRITERS[self.style](reader)


def _question(name: str) -> str:
    if name not in QUESTIONS:
        raise UsageError("is no example", where=name, hint=f"one of {', '.join(QUESTIONS)}")
    return QUESTIONS[name].sql


def _list_examples() -> None:
    width = max(map(len, QUESTIONS))
    for name, question in QUESTIONS.items():
        console.say(f"{name:{width}}  {question.text}", err=False)


def is_conversation() -> bool:
    return sys.stdin.isatty()


def _converse(ask: Ask) -> None:
    """Questions and answers until Ctrl-D; an error ends a question, not the conversation."""
    with suppress(ImportError):
        import readline  # noqa: F401 (gives `input` a history and editing)
    console.say("SQL; ends with a semicolon. .tables, .schema TABLE, .examples, .help, .quit")
    lines: list[str] = []
    while True:
        try:
            line = input("sql> " if not lines else "...> ")
        except EOFError:
            console.say("")
            return
        except KeyboardInterrupt:
            console.say("")
            lines.clear()
            continue
        if not lines and line.strip().startswith("."):
            if line.strip() == ".quit":
                return
            _obey(line.strip())
        elif line.strip() or lines:
            lines.append(line)
            if line.rstrip().endswith(";"):
                _answer(ask, "\n".join(lines))
                lines.clear()


def _answer(ask: Ask, sql: str) -> None:
    try:
        ask(sql)
    except ExportError as error:
        console.report(error)
    except KeyboardInterrupt:
        console.say("stopped")


def _obey(line: str) -> None:
    """A command of the prompt."""
    word, _, rest = line.partition(" ")
    if word == ".tables":
        for name, schema in TABLES.items():
            console.say(f"{name}: {', '.join(schema.names)}", err=False)
    elif word == ".schema" and rest.strip() in TABLES:
        for column in TABLES[rest.strip()]:
            text = f"{column.name} {column.type}: {column.metadata[b'description'].decode()}"
            console.say(text.replace("element: ", ""), err=False)
    elif word == ".examples":
        _list_examples()
    else:
        console.say(HELP)

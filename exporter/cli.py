"""The command line: read flags, call one function, print, choose the exit status.

`--help` answers at once: what only a command needs is imported when it is carried out.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from exporter import __version__
from exporter.commands.export_options import export_options
from exporter.commands.request_options import request_options
from exporter.commands.telling_options import telling_options
from exporter.defaults import DEFAULT_FORMATS
from exporter.errors import ExportError, InternalError, StoppedError, UsageError

if TYPE_CHECKING:
    from exporter.session import Run

EPILOG = """
\b
Examples:
  export-model resnet101
  export-model resnet101 --to onnx,parquet,dot,svg --view
  export-model model.keras --input-shape 1,224,224,3 --max-memory 4GiB
  export-model mobilenet_v2 efficientnet_b0 -o models --weights random
  export-model view outputs/resnet101

\b
Commands:
  export SOURCE...  what happens without a command: export models
  batch SOURCE...   export many models, with reports; files say which, and how
  view TARGET...    show exports or model files in Netron
  query SQL         ask the tables of all exports; query --example lists questions
  inspect TARGET    show the layers of a model, or statistics of its weights
  diff A B          say what is different between two models
  check SOURCE FILE.onnx
                    compare an ONNX file of any converter with its source
  summary SOURCE    show what a model consists of, on one screen

\b
Exit status; of several SOURCEs the gravest, in the order 1 7 8 3 4 6 5 2:
  0    all done, or up to date
  1    a defect of this program
  2    wrong usage: an unknown name, format or option value
  3    the ONNX file and its source disagree (the files are kept)
  4    the source cannot be read
  5    refused, because it would run code that came with the model
  6    not supported by this version
  7    the output cannot be written
  8    not enough memory or time
  130  interrupted; finished models stay
"""


# Commands whose modules are imported when they are used; each module has one called `command`.
COMMANDS = {
    "batch": "exporter.commands.batch",
    "check": "exporter.commands.check",
    "diff": "exporter.commands.diff",
    "inspect": "exporter.commands.inspect",
    "query": "exporter.commands.query",
    "summary": "exporter.commands.summary",
}


# With one of these an export is a batch, of one model or of many.
OF_A_BATCH = {
    *("--config", "--dry-run", "--log-format", "--metrics-file", "--report", "--no-report"),
    *("-j", "--jobs", "--timeout", "--retries", "--fail-fast", "--continue", "--executor", "--ray-address"),
}
# So much alike are a command and the word that is taken for its misspelling.
ALIKE = 0.75


class DefaultToExport(click.Group):
    """`export-model SOURCE` is `export-model export SOURCE`, and `export-model --help` is its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = args or ["--help"]
        if words[0] == "help":
            words = [*words[1:2], "--help"]
        is_command = words[0] in self.commands or words[0] in COMMANDS
        if not is_command:
            self._refuse_misspelled(words[0])
            words = ["export", *words]
        if words[0] == "export" and any(map(_is_of_a_batch, words)):
            words[0] = "batch"
            if "--view" in words:
                why = f"{next(filter(_is_of_a_batch, words))} makes it one"
                raise UsageError(
                    "--view is not for a batch", why=why, hint="export-model view FOLDER, when it has ended"
                )
        return super().parse_args(ctx, words)

    def invoke(self, ctx: click.Context) -> Any:
        """Who reads the output may have seen enough (`| head`): the status is that of a program that SIGPIPE ends."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What is left in the buffer would be tried again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE

    def _refuse_misspelled(self, word: str) -> None:
        """No model is called nearly as a command is. Raises UsageError."""
        if not word.isalpha() or os.path.exists(word):
            return
        import difflib

        if near := difflib.get_close_matches(word.lower(), [*self.commands, *COMMANDS], n=1, cutoff=ALIKE):
            why, hint = "it is neither a command nor a file", f"export-model {near[0]}"
            raise UsageError("is unknown", where=repr(word), why=why, hint=hint)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            command: click.Command = importlib.import_module(COMMANDS[name]).command
            return command
        return super().get_command(ctx, name)


def _is_of_a_batch(word: str) -> bool:
    """A file of settings, named as a source, or an option that only a batch has."""
    name = word[:2] if word.startswith("-j") else word.partition("=")[0]
    return name in OF_A_BATCH or (word.lower().endswith(".toml") and not word.startswith("-"))


class ShortUsage(click.Command):
    """Its usage line is the one that people type."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("export-model", "SOURCE... [OPTIONS]")
        formatter.write_usage("export-model", "view TARGET... [OPTIONS]", prefix="       ")


@click.group(cls=DefaultToExport, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def app() -> None:
    """Convert TensorFlow and Keras models into files that can be inspected without TensorFlow."""


@app.command(cls=ShortUsage, epilog=EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@request_options(expose_value=False)
@export_options
@telling_options(expose_value=False)
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="Stop a model that goes above it, such as 4GiB; several share it.  [default: no limit]",
)
@click.option("--force", is_flag=True, help="Export again what is up to date.")
@click.option("--view", "viewing", is_flag=True, help="Then show the first finished model in Netron.")
@click.option("--no-browser", is_flag=True, help="With --view: print the address only.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="With --view.  [default: a free one]")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the time and memory of each stage.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the worker printed.")
@click.version_option(__version__, message="export-model %(version)s")
@click.pass_obj
def export(run: Run, sources: tuple[str, ...], **flags: Any) -> int:
    """Convert TensorFlow and Keras models into files that can be inspected without TensorFlow.

    A SOURCE is a model of keras.applications in any spelling (resnet101, EfficientNetV2B0); a Keras file (.keras, .h5)
    or architecture in JSON; a SavedModel, frozen graph or checkpoint of TensorFlow; a .tflite file; a model.json of
    TensorFlow.js; an .onnx file; a file of weights (.weights.h5, .safetensors); or a Python function that makes a
    model (package.module:function, with --trust-code). Each is exported in a process of its own, several at a time as
    processors and memory allow; one that fails does not stop the rest, and one that is up to date is skipped.
    With several, Ctrl-C once lets finish what runs, twice stops at once.
    """
    from exporter import plan
    from exporter.session import Session

    session = Session(run, **{name: flags.pop(name) for name in ("force", "quiet", "verbose", "debug")})
    viewing, browser, port = flags.pop("viewing"), not flags.pop("no_browser"), flags.pop("port")
    if viewing and not {"onnx", "netron"} & set(flags["formats"] or DEFAULT_FORMATS):
        raise UsageError("--view shows the ONNX file", why="it is not among the formats of --to", hint="--to onnx")
    options = plan.ExportOptions(**flags)
    planned = plan.plan(sources, options)
    outcomes = [session.export(planned[0])] if len(planned) == 1 else session.export_all(planned, options)
    if viewing:
        session.view(outcomes, browser, port)
    return session.status(outcomes)


@app.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Show every node, and send the weights that are in the file to the page.")
@click.option("--host", metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1, this machine only]")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="[default: a free one]")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def view(
    targets: tuple[str, ...], full: bool, host: str | None, port: int | None, no_browser: bool, debug: bool
) -> None:
    """Show TARGETS, folders of exports or model files, in Netron on this machine until Ctrl-C.

    A large model is shown by its blocks and without its weights; what is shown, and why, is printed.
    """
    from exporter.session import serve

    serve(targets, browser=not no_browser, port=port, full=full, host=host)


def run_in_child(job: Any, **limits: Any) -> Any:
    """`exporter.session.run_in_child`, which is a `Run`."""
    from exporter import session

    return session.run_in_child(job, **limits)


def main(arguments: Sequence[str] | None = None, run: Run = run_in_child) -> int:
    """The one place that turns errors into text and an exit status; `run` takes the place of the worker in tests."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return app.main(words, prog_name="export-model", standalone_mode=False, obj=run) or 0
    except Exception as problem:  # noqa: BLE001 (the boundary: what nobody foresaw is reported here and nowhere else)
        error = _translated(problem)
        _report(error, _trace() if "--debug" in words else "", words)
        return error.status


def _trace() -> str:
    import traceback

    return traceback.format_exc()


def _report(error: ExportError, trace: str, words: Sequence[str]) -> None:
    """As a program that reads the log wants it, where one does: also when the command line was not understood."""
    if "json" in words or "--log-format=json" in words:
        from exporter.displays import json_log

        if json_log.is_wanted(words):
            json_log.write("error", error=json_log.error_record(error, trace))
            return
    from exporter import console

    console.report(error, trace)


def _translated(problem: Exception) -> ExportError:
    if isinstance(problem, ExportError):
        return problem
    if isinstance(problem, click.Abort):
        return StoppedError("interrupted")
    if isinstance(problem, click.UsageError):
        command = problem.ctx.command_path.removesuffix(" export") if problem.ctx else "export-model"
        return UsageError(problem.format_message().rstrip("."), hint=f"{command} --help")
    why = f"{type(problem).__name__}: {problem}"
    return InternalError("a defect of export-model", why=why, hint="the same with --debug, and report what it prints")

"""The program's beginning: what a worker will need is imported beside what the command line needs.

A catalogue of a file takes a second, of which a third would be waiting for one Python process after the other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.fork_client import ForkServer

# Commands that look at a source through its catalogue.
LOOKING = ("inspect", "summary", "diff")
# Those that read no source, or make their workers themselves.
OTHERS = ("batch", "check", "query", "view")
READ_FILES = (".keras", ".h5", ".hdf5", ".onnx", ".tflite", ".safetensors", "model.json")

# Made before anything else was known; None where it would be of no use.
_server: ForkServer | None = None


def main() -> int:
    """What the installed command calls. The exit status."""
    words = sys.argv[1:]
    if will_read(words):
        _begin()
    from exporter.cli import main as run

    return run()


def will_read(words: Sequence[str]) -> bool:
    """Whether the words look like a catalogue of a file; wrong guesses cost nothing but a process."""
    if not any(word.lower().endswith(READ_FILES) for word in words) or {"--help", "-h"} & set(words):
        return False
    if words[0] in OTHERS:
        return False
    if words[0] in LOOKING:
        return True
    joined = " ".join(words).replace("=", " ")
    formats = joined.partition("--to ")[2].split(" ")[0]
    return bool(formats) and "onnx" not in formats and "netron" not in formats


def _begin() -> None:
    global _server
    from exporter.fork_client import IS_POSSIBLE, ForkServer

    if IS_POSSIBLE:
        _server = ForkServer("reading")
        _server.begin()


def reading_server() -> ForkServer | None:
    """The one that was begun early."""
    return _server

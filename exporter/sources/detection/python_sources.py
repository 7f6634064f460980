"""Models that come from Python: a factory by its name, and what a live model has said of itself.

Nothing is imported: the code of a factory, and that of the packages around it, runs in the worker if it is trusted.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from exporter.errors import SourceError, TrustError, UsageError
from exporter.sources.detection.kinds import FACTORY, LIVE_MODEL, Seen
from exporter.sources.keras_models.live_file import MARK

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# `package.module:function` or `folder/file.py:function`.
FACTORY_NAME = re.compile(r"(?P<place>.+\.py|[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")
TRUST_HINT = "if you trust that code, repeat the command with --trust-code"


def file_kind(seen: Seen) -> str | None:
    """The description of a live model is HDF5 with a mark. Raises UsageError for a Python file alone."""
    if seen.path.suffix == ".py":
        raise _function_missing(seen.path)
    if not seen.head.startswith(HDF5_SIGNATURE):
        return None
    import h5py

    try:
        with h5py.File(seen.path, "r", locking=False) as stream:
            return LIVE_MODEL if MARK in stream.attrs else None
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def named_source(source: str) -> tuple[str, str] | None:
    """A factory; its function gives the model its name."""
    found = FACTORY_NAME.fullmatch(source)
    return (FACTORY, found["function"].rpartition(".")[2]) if found else None


def parts(source: str) -> tuple[str, str]:
    """`file.py:make` → (`file.py`, `make`). Raises UsageError."""
    found = FACTORY_NAME.fullmatch(source)
    if found is None:
        why, hint = "it is not FILE.py:FUNCTION or MODULE:FUNCTION", "models.py:make_model"
        raise UsageError("is no factory", where=source, why=why, hint=hint)
    return found["place"], found["function"]


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """`width=32` → 32, `name=small` → `small`: what is no JSON is a text, and so is `"32"`. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            why, hint = "it is not NAME=VALUE with the name of a parameter", "--arg width=32"
            raise UsageError("cannot be used", where=f"--arg {text}", why=why, hint=hint)
        if name in found:
            why, hint = "the same argument is given twice", "give each argument once"
            raise UsageError("cannot be used", where=f"--arg {text}", why=why, hint=hint)
        try:
            found[name] = json.loads(value, parse_constant=_no_json)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def _no_json(text: str) -> None:
    """Python's parser takes NaN and Infinity too."""
    raise ValueError(text)


def argument_texts(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The inverse of `parse_arguments`. Raises UsageError for a value that JSON has not."""
    try:
        return tuple(f"{name}={json.dumps(value, allow_nan=False)}" for name, value in arguments.items())
    except (TypeError, ValueError) as error:
        why, hint = str(error), "numbers, texts, true, false, lists and tables of them"
        raise UsageError("cannot be used", where="--args", why=why, hint=hint) from error


def factory_files(source: str) -> list[str]:
    """The file in which the function is. Raises SourceError."""
    return [code_file(parts(source)[0])]


def code_file(place: str) -> str:
    """The file of `file.py` or of a module, found without importing the packages around it. Raises SourceError."""
    if place.endswith(".py"):
        if not os.path.isfile(place):
            raise SourceError("cannot be read", where=place, why="no such file", hint="check the path")
        return place
    search = [*sys.path, os.getcwd()]
    names = place.split(".")
    for count in range(1, len(names) + 1):
        spec = PathFinder.find_spec(".".join(names[:count]), search)
        if spec is None:
            break
        if count == len(names) and spec.origin and os.path.isfile(spec.origin):
            return spec.origin
        search = list(spec.submodule_search_locations or ())
    why = "there is no such module in this environment or in the current folder"
    raise SourceError("cannot be imported", where=place, why=why, hint="name its file instead: path/to/file.py")


def check_trust(kind: str, source: str, custom_objects: tuple[str, ...], *, trusted: bool) -> None:
    """Before anything is started that would import the code. Raises TrustError."""
    places = [*([source] if kind == FACTORY else ()), *custom_objects]
    if places and not trusted:
        why = f"{' and '.join(places)} would be imported and run on this machine"
        raise TrustError("is Python code", where=places[0], why=why, hint=TRUST_HINT)


def _function_missing(path: Path) -> UsageError:
    """Names the functions that the file has; it is parsed and not run."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        body = []
    names = [node.name for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    hint = " or ".join(f"{path}:{name}" for name in names[:3]) or f"{path}:FUNCTION"
    return UsageError(
        "is a Python file", where=str(path), why="the function that makes the model is missing", hint=hint
    )

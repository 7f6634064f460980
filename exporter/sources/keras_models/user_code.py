"""The user's own Python code, imported in the worker: custom objects of Keras, and the modules of factories."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from exporter.errors import ExportError, SourceError
from exporter.records import Job
from exporter.sources.detection.python_sources import check_trust, code_file


class ModuleReturned(Exception):  # noqa: N818 (no error: another way to go on)
    """A factory makes a `tf.Module` or a `tf.function`, which is saved and read as a SavedModel."""


def register_custom_objects(job: Job) -> None:
    """Make Keras find classes and functions of the modules that the job names. Raises TrustError and SourceError."""
    check_trust(job.kind, job.source, job.reading.custom_objects, trusted=job.trust_code)
    for place in job.reading.custom_objects:
        found = _public_objects(import_code(place))
        if not found:
            why = "it defines no layers, models or functions with public names"
            raise SourceError("has no custom objects", where=place, why=why, hint="name the file that has the classes")
        keras.saving.get_custom_objects().update(found)


def known_names() -> frozenset[str]:
    """What is registered, by this module or by the imported code itself."""
    return frozenset(keras.saving.get_custom_objects())


def _public_objects(module: ModuleType) -> dict[str, Any]:
    """What the module itself defines, under the names that configs use for it."""
    found = {}
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        if is_own and (inspect.isclass(value) or inspect.isfunction(value)):
            found[name] = value
            if inspect.isclass(value):
                found[keras.saving.get_registered_name(value)] = value
    return found


def import_code(place: str) -> ModuleType:
    """The module of `file.py` or `package.module`. Raises SourceError with the line at which importing it failed.

    Folders are put at the end of the search path, so that nothing in them takes the place of an installed library.
    """
    path = Path(code_file(place)).absolute()
    with user_errors(place):
        if place.endswith(".py"):
            return _import_file(path)
        _search_in(os.getcwd())
        return importlib.import_module(place)


def _import_file(path: Path) -> ModuleType:
    """Under the dotted name that it has inside of packages, so that its relative imports work."""
    names, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    _search_in(str(root))
    if len(names) > 1:
        return importlib.import_module(".".join(names))
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    if known is not None or name in sys.stdlib_module_names:
        name = f"user_code_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _search_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


@contextmanager
def user_errors(place: str) -> Iterator[None]:
    """Turn what the user's code raises, whatever it is, into an error with its line."""
    try:
        yield
    except (ExportError, MemoryError):
        raise
    except SystemExit as error:
        raise SourceError("ends the process", where=place, why=f"sys.exit({error.code!r}) was called") from error
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        why, hint = f"{type(error).__name__}: {text}", "--debug shows where it comes from and what it printed"
        raise SourceError("raises an error", where=_line(error, place), why=why, hint=hint) from error


def _line(error: Exception, place: str) -> str:
    """The last line of code that is neither a library's nor ours; `place` where there is none."""
    libraries = (os.path.dirname(os.path.dirname(os.path.abspath(keras.__file__))), os.path.dirname(os.__file__))
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*libraries, ours, "<frozen")):
            return f"{place}, line {frame.lineno} of {os.path.basename(frame.filename)}"
    return place

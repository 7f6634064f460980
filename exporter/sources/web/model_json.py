"""A `model.json` of TensorFlow.js: its topology, and where the bytes of each weight are.

Each group of the weights manifest is the content of its files, one behind the other, cut where their sizes say; in
it the weights follow each other without gaps. Written by tfjs-converter and by TensorFlow.js itself
(`tfjs-core/src/io/types.ts` has the layout).
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import SourceError
from exporter.sources.file_names import is_plain_name
from exporter.sources.json_file import read_json

WEIGHTS = "from the TensorFlow.js weights"
COPY_HINT = "copy model.json again, with all the files that its weightsManifest names"
TOPOLOGY, MANIFEST = "modelTopology", "weightsManifest"
# Bytes of an element. The parent process reads this module, and does without NumPy.
DTYPES = {"float32": 4, "int32": 4, "bool": 1, "complex64": 8, "uint8": 1, "float16": 2, "int8": 1, "int16": 2}
DTYPES |= {"uint16": 2, "uint32": 4, "float64": 8}
QUANTISED = ("uint8", "uint16", "float16")
MOST_AXES = 64


@dataclass(frozen=True)
class Quantisation:
    """value = stored × scale + lowest, in the type `dtype`; half precision is stored as it is."""

    dtype: str
    scale: float = 1.0
    lowest: float = 0.0


@dataclass(frozen=True)
class WebWeight:
    """`start` is its first byte in the group's content. Elements of text have sizes of their own."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: int
    start: int
    stored_nbytes: int
    quantisation: Quantisation | None = None

    @property
    def nbytes(self) -> int:
        """As numbers of its type."""
        return self.stored_nbytes if self.dtype == "string" else math.prod(self.shape) * DTYPES[self.dtype]


@dataclass(frozen=True)
class WebModel:
    """`groups` are the files of each group."""

    path: str
    content: Mapping[str, Any]
    groups: tuple[tuple[str, ...], ...]
    weights: Mapping[str, WebWeight]

    @property
    def topology(self) -> Mapping[str, Any]:
        found = self.content.get(TOPOLOGY)
        return found if isinstance(found, dict) else {}

    @property
    def is_graph(self) -> bool:
        return isinstance(self.topology.get("node"), list)


def read_model_json(path: str) -> WebModel:
    """Raises SourceError; the files with the weights must be there and as large as the manifest says."""
    content = parsed(path)
    try:
        found = list(_groups(content, path))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        why = f"its {MANIFEST}: {type(error).__name__}: {error}"
        raise SourceError("is corrupt", where=path, why=why, hint=COPY_HINT) from error
    weights = {weight.name: weight for _, group in found for weight in group}
    return WebModel(path, content, tuple(files for files, _ in found), weights)


def parsed(path: str) -> dict[str, Any]:
    """The JSON. Raises SourceError."""
    content = read_json(path, COPY_HINT)
    if not isinstance(content, dict) or not isinstance(content.get(TOPOLOGY), dict):
        raise SourceError("is not a TensorFlow.js model", where=path, why=f"it has no {TOPOLOGY}", hint=COPY_HINT)
    return content


def weight_files(path: str) -> list[str]:
    """The files that the manifest names, each once, in its order. Raises SourceError."""
    files = [_file(path, name) for name in named_files(path)]
    for file in files:
        _size(file, path)
    return files


def named_files(path: str) -> list[str]:
    """The names in the manifest, whether they are there or not. Raises SourceError."""
    groups = parsed(path).get(MANIFEST) or []
    lists = [group.get("paths") or [] for group in groups if isinstance(group, dict)] if _is_list(groups) else []
    names = [name for names in lists if _is_list(names) for name in names]
    if not _is_list(groups) or not all(map(_is_list, lists)) or not all(isinstance(name, str) for name in names):
        why = f"its {MANIFEST} has something else than lists of names"
        raise SourceError("is corrupt", where=path, why=why, hint=COPY_HINT)
    return list(dict.fromkeys(names))


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _groups(content: Mapping[str, Any], path: str) -> Iterator[tuple[tuple[str, ...], list[WebWeight]]]:
    for number, group in enumerate(content.get(MANIFEST) or ()):
        files = tuple(_file(path, name) for name in group["paths"])
        there = sum(_size(file, path) for file in files)
        weights, start = [], 0
        for entry in group["weights"]:
            weight = _weight(entry, number, start, files, there)
            weights.append(weight)
            start += weight.stored_nbytes
        if start != there:
            names = ", ".join(map(os.path.basename, files)) or "no file"
            why = f"the weights of group {number + 1} take {start:,} bytes, and {names} has {there:,}"
            raise SourceError("does not fit its weights", where=path, why=why, hint=COPY_HINT)
        yield files, weights


def _weight(entry: Mapping[str, Any], group: int, start: int, files: tuple[str, ...], there: int) -> WebWeight:
    shape = tuple(int(size) for size in entry["shape"])
    name, dtype, stored = str(entry["name"]), str(entry["dtype"]), entry.get("quantization")
    if len(shape) > MOST_AXES or any(size < 0 for size in shape):
        raise ValueError(f"the shape of {name} is {list(shape)[:MOST_AXES]}")
    if dtype == "string":
        return WebWeight(name, shape, dtype, group, start, _text_nbytes(files, start, math.prod(shape), there))
    if dtype not in DTYPES:
        raise ValueError(f"the type of {name} is {dtype}")
    quantisation = None
    if stored is not None:
        kind = str(stored["dtype"])
        if kind not in QUANTISED:
            raise ValueError(f"{name} is stored as {kind}")
        numbers = (float(stored.get("scale", 1.0)), float(stored.get("min", 0.0)))
        quantisation = Quantisation(kind) if kind == "float16" else Quantisation(kind, *numbers)
    itemsize = DTYPES[quantisation.dtype if quantisation else dtype]
    return WebWeight(name, shape, dtype, group, start, math.prod(shape) * itemsize, quantisation)


def _text_nbytes(files: tuple[str, ...], start: int, count: int, there: int) -> int:
    """Each text has its length in four bytes before it."""
    if 4 * count > there - start:
        raise ValueError(f"{count:,} texts in {there - start:,} bytes")
    content, place = b"".join(Path(file).read_bytes() for file in files), start
    for _ in range(count):
        place += 4 + int.from_bytes(content[place : place + 4], "little")
    return place - start


def _file(path: str, name: Any) -> str:
    """Beside the model or in a folder there. Raises SourceError."""
    text = str(name)
    if not all(map(is_plain_name, text.split("/"))) or re.search(r"^\w+:", text):
        why = f"its {MANIFEST} names {text[:200]!r}, which is not in its folder"
        hint = "is it from a source that you trust?"
        raise SourceError("leads out of its folder", where=path, why=why, hint=hint)
    folder = os.path.realpath(os.path.dirname(path) or ".")
    if os.path.commonpath([folder, os.path.realpath(os.path.join(folder, text))]) != folder:
        why = f"{text} is a link to elsewhere"
        raise SourceError("leads out of its folder", where=path, why=why, hint="put the file itself beside the model")
    return os.path.join(os.path.dirname(path), text)


def _size(file: str, path: str) -> int:
    try:
        found = os.stat(file)
    except OSError as error:
        why = f"{os.path.basename(file)}: {error.strerror or error}"
        raise SourceError("is not complete", where=path, why=why, hint=COPY_HINT) from error
    if not stat.S_ISREG(found.st_mode):
        why = f"{os.path.basename(file)} is no file"
        raise SourceError("is not complete", where=path, why=why, hint=COPY_HINT)
    return found.st_size

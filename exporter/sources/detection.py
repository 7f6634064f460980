"""What a SOURCE on the command line is: found by content for a path that exists, by name otherwise.

Nothing here imports TensorFlow or Keras, and no more of a file is read than says what it is.
"""

from __future__ import annotations

import ast
import codecs
import difflib
import functools
import importlib.util
import json
import mmap
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.protobuf import fields
from exporter.sources import weight_map

APPLICATION, KERAS_ARCHIVE, KERAS_H5 = "application", "keras_archive", "keras_h5"
ARCHITECTURE, KERAS_FOLDER = "architecture", "keras_folder"
ONNX_FILE = "onnx_file"

PATH_SUFFIXES = (".keras", ".h5", ".hdf5", ".pb", ".onnx", ".tflite", ".zip", ".json", ".pt", ".pth", ".ckpt", ".index")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD_BYTES = 4096
# Fields of ModelProto in onnx.proto.
ONNX_IR_VERSION, ONNX_GRAPH, ONNX_LAST_FIELD = 1, 7, 26
# Opsets, functions and pieces of metadata are fields each; more than this many are no model.
ONNX_MOST_FIELDS = 100_000
# 60 characters of at most 4 bytes in UTF-8 stay below the 255 bytes that a file system allows, with room for a suffix.
NAME_CHARACTERS = 60
SAVE_HINT = "save the model from Keras with model.save('model.keras') and export that file"
WEIGHTS_HINT = (
    "give the application's name, or a file with the architecture, and this file with --weights, such as: "
    "export-model resnet101 --weights {}"
)


@dataclass(frozen=True)
class SourceRef:
    """`source` is the name in `keras.applications` (`ResNet101`) or the path as given; `name` is safe for a folder."""

    kind: str
    source: str
    name: str


def detect(source: str) -> SourceRef:
    """Say what `source` is. Raises UsageError (unknown name), SourceError and UnsupportedError."""
    if not source.strip():
        raise UsageError("no SOURCE is named", why="the argument is empty", hint="export-model resnet101")
    path = Path(source)
    mode = _mode(path)
    if mode is None:
        return _by_name(source)
    if stat.S_ISDIR(mode):
        return _directory(path, source)
    if not stat.S_ISREG(mode):
        raise SourceError("is not a model", where=source, why="it is neither a file nor a folder", hint=SAVE_HINT)
    try:
        return SourceRef(_kind_of_file(path), source, safe_name(path))
    except OSError as error:
        raise SourceError("cannot be read", where=source, why=error.strerror or str(error)) from error


def files_of(reference: SourceRef) -> list[str]:
    """The files whose content is the source, in a fixed order; none for an application. Raises SourceError."""
    if reference.kind == APPLICATION:
        return []
    if reference.kind != KERAS_FOLDER:
        return [reference.source]
    weights = weight_map.folder_weights(reference.source)
    assets = sorted(path for path in (Path(reference.source) / "assets").rglob("*") if path.is_file())
    found = weight_map.weights_files(str(weights)) if weights else []
    return [os.path.join(reference.source, "config.json"), *found, *map(str, assets)]


def application_names() -> dict[str, str]:
    """The models of the installed Keras, normalised spelling → exported name, read from its source text."""
    spec = importlib.util.find_spec("keras")
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedError(
            "names of Keras applications cannot be used",
            why="Keras is not installed",
            hint="pip install keras tensorflow",
        )
    return _exported_functions(Path(spec.submodule_search_locations[0]) / "applications" / "__init__.py")


def normalise(name: str) -> str:
    """`mobilenet-v3_Small` → `mobilenetv3small`."""
    return re.sub(r"[-_. ]", "", name.lower())


def safe_name(path: Path) -> str:
    """A folder name for the model in a file: its stem without characters that shells, URLs or Netron trip over."""
    name = re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:NAME_CHARACTERS]
    return name or "model"


@functools.cache
def _exported_functions(path: Path) -> dict[str, str]:
    """Names starting with a capital that a module imports: by Keras's convention the model functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = (alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names)
    names = sorted({alias.asname or alias.name for alias in aliases})
    return {normalise(name): name for name in names if name[0].isupper()}


def _mode(path: Path) -> int | None:
    """The file type bits, None when there is nothing of that name. Raises SourceError."""
    try:
        return path.stat().st_mode
    except PermissionError as error:
        raise SourceError("cannot be read", where=str(path), why="permission denied", hint="check `ls -l`") from error
    except (OSError, ValueError):
        return None


def _application(source: str) -> SourceRef | None:
    name = application_names().get(normalise(source))
    return SourceRef(APPLICATION, name, name.lower()) if name else None


def _by_name(source: str) -> SourceRef:
    if _looks_like_path(source):
        raise _missing(Path(source))
    if found := _application(source):
        return found
    near = difflib.get_close_matches(normalise(source), application_names(), n=3, cutoff=0.6)
    hint = " or ".join(near) or "a name such as resnet101, or the path of a .keras or .h5 file"
    raise UsageError(
        "is unknown", where=repr(source), why="no such file, and no such model in keras.applications", hint=hint
    )


def _looks_like_path(source: str) -> bool:
    return "/" in source or "\\" in source or source.lower().endswith(PATH_SUFFIXES)


def _missing(path: Path) -> SourceError:
    """Names the nearest file in the same folder, for a misspelled path."""
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        siblings = []
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.6)
    hint = str(path.with_name(near[0])) if near else "check the path"
    return SourceError("cannot be read", where=str(path), why="no such file or folder", hint=hint)


def _directory(path: Path, source: str) -> SourceRef:
    """A bare model name means the model even where an export of it lies beside, as after `--output .`."""
    if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise UnsupportedError(
            "is a SavedModel", where=source, why="this version cannot read SavedModel folders yet", hint=SAVE_HINT
        )
    if not _looks_like_path(source) and (found := _application(source)):
        return found
    if (path / "config.json").is_file():
        _check_json(path / "config.json")
        return SourceRef(KERAS_FOLDER, source, safe_name(path.absolute()))
    raise SourceError("is not a model", where=source, why="it is a folder", hint="give a .keras or .h5 file")


def _kind_of_file(path: Path) -> str:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(HEAD_BYTES)
        is_hdf5 = any(_has_signature_at(stream.fileno(), offset) for offset in _signature_offsets(size))
    if head.startswith(b"PK"):
        return _check_archive(path)
    if is_hdf5:
        return _check_hdf5(path)
    if head.lstrip().startswith(b"{"):
        return _check_json(path)
    if _is_onnx(path, size):
        return ONNX_FILE
    raise _not_a_model(path, head)


def _signature_offsets(size: int) -> Iterator[int]:
    """Where HDF5 allows its signature: 0, 512 and each doubling (format specification, superblock)."""
    yield 0
    offset = 512
    while offset < size:
        yield offset
        offset *= 2


def _has_signature_at(descriptor: int, offset: int) -> bool:
    return os.pread(descriptor, len(HDF5_SIGNATURE), offset) == HDF5_SIGNATURE


def _check_archive(path: Path) -> str:
    """A Keras archive has its config at the top level of the zip; only the zip's directory is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError) as error:
        raise SourceError(
            "is truncated or corrupt",
            where=str(path),
            why=f"as a zip archive: {error}",
            hint="copy or download it again",
        ) from error
    if "config.json" not in names:
        raise SourceError(
            "is not a Keras archive", where=str(path), why="the zip archive has no config.json", hint=SAVE_HINT
        )
    return KERAS_ARCHIVE


def _check_hdf5(path: Path) -> str:
    import h5py

    try:
        # Without a lock, which read-only and network file systems may refuse.
        with h5py.File(path, "r", locking=False) as stream:
            if "model_config" in stream.attrs:
                return KERAS_H5
            holds_weights = (
                "layer_names" in stream.attrs or "layers" in stream or "_layer_checkpoint_dependencies" in stream
            )
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise SourceError(
            "is truncated or corrupt",
            where=str(path),
            why=f"as an HDF5 file: {error}",
            hint="copy or download it again",
        ) from error
    raise _weights_only(path) if holds_weights else _foreign_hdf5(path)


def _check_json(path: Path) -> str:
    """What `model.to_json()` gives, which is also the `config.json` of a Keras archive."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError("cannot be read", where=str(path), why=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        why, hint = f"as JSON: {error}", "copy or download it again"
        raise SourceError("is truncated or corrupt", where=str(path), why=why, hint=hint) from error
    keys = content if isinstance(content, dict) else {}
    if isinstance(keys.get("class_name"), str) and "config" in keys:
        return ARCHITECTURE
    if weight_map.MAP_KEY in keys:
        raise _weights_only(path)
    raise SourceError("is not a model", where=str(path), why="the JSON describes no Keras model", hint=SAVE_HINT)


def _is_onnx(path: Path, size: int) -> bool:
    """Whether the file is one protocol-buffer message with the fields of an ONNX model, the graph among them."""
    if not size:
        return False
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = [each.number for each in islice(fields(data, 0, size), ONNX_MOST_FIELDS)]
        except ValueError:
            return False
    return found.count(ONNX_GRAPH) == 1 and ONNX_IR_VERSION in found and max(found) <= ONNX_LAST_FIELD


def _weights_only(path: Path) -> ExportError:
    why = "the file holds weights only, without the model that they belong to"
    return SourceError("is not a whole model", where=str(path), why=why, hint=WEIGHTS_HINT.format(path))


def _foreign_hdf5(path: Path) -> ExportError:
    return SourceError("is not a Keras model", where=str(path), why="the HDF5 file has no model_config", hint=SAVE_HINT)


def _not_a_model(path: Path, head: bytes) -> ExportError:
    if head.startswith(b"version https://git-lfs"):
        why, hint = "it is a Git LFS pointer, not the file itself", "git lfs pull"
        return SourceError("is not a model", where=str(path), why=why, hint=hint)
    if head[4:8] == b"TFL3":
        why = "this version cannot read TensorFlow Lite files"
        return UnsupportedError("is a TensorFlow Lite model", where=str(path), why=why, hint=SAVE_HINT)
    if not head:
        why = "the file is empty"
    elif _is_text(head):
        why = "it is a text file"
    else:
        why = "neither a Keras archive nor an HDF5 or ONNX file"
    return SourceError("is not a model", where=str(path), why=why, hint=SAVE_HINT)


def _is_text(head: bytes) -> bool:
    try:
        # Incremental, because the end of the head may cut a character in two.
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False

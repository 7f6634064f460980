"""What a SOURCE on the command line is: found by content for a path that exists, by name otherwise.

Nothing here imports TensorFlow or Keras, and no more of a file is read than says what it is. Each family of kinds has a
module: its `file_kind(seen)` and `folder_kind(path)` say the kind, or None for what is none of theirs.
"""

from __future__ import annotations

import codecs
import difflib
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import ExportError, SourceError, UsageError
from exporter.sources.detection import (
    keras_files,
    onnx_files,
    python_sources,
    safetensors_files,
    tensorflow_files,
    tfjs_files,
    tflite_files,
)
from exporter.sources.detection.applications import application_names, normalise
from exporter.sources.detection.kinds import (
    APPLICATION,
    CHECKPOINT,
    FACTORY,
    GRAPH_DEF,
    KERAS_FOLDER,
    KERAS_WEIGHTS,
    KINDS,
    META_GRAPH,
    ONNX_FILE,
    SAFETENSORS,
    SAVE_HINT,
    SAVED_MODEL,
    TFJS_GRAPH,
    TFJS_LAYERS,
    TFLITE_FILE,
    Seen,
)
from exporter.sources.keras_models.weight_map import weights_files
from exporter.sources.safetensors_index import index_files
from exporter.storage.neighbours import export_in, is_export

# Asked in this order, those with a signature first.
FILE_KINDS: tuple[Callable[[Seen], str | None], ...] = (
    safetensors_files.file_kind,
    tflite_files.file_kind,
    tfjs_files.file_kind,
    python_sources.file_kind,
    keras_files.file_kind,
    onnx_files.file_kind,
    tensorflow_files.file_kind,
)
FOLDER_KINDS: tuple[Callable[[Path], str | None], ...] = (keras_files.folder_kind, tensorflow_files.folder_kind)
# For a SOURCE that is no path: each says the kind and the safe name, or None.
NAMED_SOURCES: tuple[Callable[[str], tuple[str, str] | None], ...] = (
    python_sources.named_source,
    tensorflow_files.named_source,
)
# The files of kinds that are more than one file, in a fixed order; what a digest is made of.
FILES_OF: dict[str, Callable[[str], list[str]]] = {
    APPLICATION: lambda source: [],
    KERAS_FOLDER: keras_files.folder_files,
    FACTORY: python_sources.factory_files,
    SAVED_MODEL: tensorflow_files.saved_model_files,
    META_GRAPH: tensorflow_files.meta_graph_files,
    CHECKPOINT: tensorflow_files.checkpoint_files,
    TFJS_LAYERS: tfjs_files.files,
    TFJS_GRAPH: tfjs_files.files,
    KERAS_WEIGHTS: weights_files,
    SAFETENSORS: index_files,
}

PATH_SUFFIXES: tuple[str, ...] = (".keras", ".h5", ".hdf5", ".pb", ".pbtxt", ".meta", ".index", ".ckpt", ".onnx")
PATH_SUFFIXES += (".tflite", ".safetensors", ".zip", ".json", ".pt", ".pth")
# Most of these are called model.json.
NAMED_BY_FOLDER = (TFJS_LAYERS, TFJS_GRAPH)
# What a file without a signature claims to be.
NAMED_BY_SUFFIX = {".onnx": ONNX_FILE, ".pb": GRAPH_DEF, ".tflite": TFLITE_FILE, ".safetensors": SAFETENSORS}
HEAD_BYTES = 4096
# 60 characters of at most 4 bytes in UTF-8 stay below the 255 bytes that a file system allows, with room for a suffix.
NAME_CHARACTERS = 60


@dataclass(frozen=True)
class SourceRef:
    """`source` is the name in `keras.applications` (`ResNet101`) or the path as given; `name` is safe for a folder.

    `seen` says what the content looks like where `--source-kind` says that it is something else.
    """

    kind: str
    source: str
    name: str
    seen: str = ""


def detect(source: str, kind: str = "") -> SourceRef:
    """Say what `source` is; `kind` has the last word. Raises UsageError (unknown), SourceError, UnsupportedError."""
    if not kind:
        return _detected(source)
    check_kind(kind)
    try:
        found = _detected(source)
    except ExportError as error:
        if kind == APPLICATION or _mode(Path(source)) is None:
            raise
        return SourceRef(kind, source, safe_name(Path(source)), f"{error.what} ({error.why})")
    if found.kind == kind:
        return found
    if APPLICATION in (kind, found.kind):
        why = f"it is {KINDS[found.kind]}"
        raise UsageError(f"is not {KINDS[kind]}", where=source, why=why, hint="leave --source-kind out")
    return SourceRef(kind, source, found.name, f"is {KINDS[found.kind]}")


def check_kind(kind: str) -> None:
    """Raises UsageError for a kind that there is not; empty means that the content says it."""
    if kind and kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        why, hint = f"there are {', '.join(KINDS)}", f"--source-kind {near[0]}" if near else "leave it out"
        raise UsageError("is an unknown kind of source", where=f"--source-kind {kind}", why=why, hint=hint)


def files_of(reference: SourceRef) -> list[str]:
    """The files whose content is the source, in a fixed order; none for an application. Raises SourceError."""
    files = FILES_OF.get(reference.kind)
    return files(reference.source) if files else [reference.source]


def safe_name(path: Path) -> str:
    """A folder name for the model in a file: its stem without characters that shells, URLs or Netron trip over."""
    name = re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:NAME_CHARACTERS]
    return name or "model"


def _detected(source: str) -> SourceRef:
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
        kind = _kind_of_file(path)
        is_plain = kind in NAMED_BY_FOLDER and path.stem == "model"
        return SourceRef(kind, source, safe_name(path.absolute().parent if is_plain else path))
    except OSError as error:
        raise SourceError("cannot be read", where=source, why=error.strerror or str(error)) from error


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
    for named_source in NAMED_SOURCES:
        if found := named_source(source):
            return SourceRef(found[0], source, found[1])
    if looks_like_path(source):
        raise _missing(Path(source))
    if application := _application(source):
        return application
    near = difflib.get_close_matches(normalise(source), application_names(), n=3, cutoff=0.6)
    hint = " or ".join(near) or "a name such as resnet101, or the path of a .keras or .h5 file"
    raise UsageError(
        "is unknown", where=repr(source), why="no such file, and no such model in keras.applications", hint=hint
    )


def looks_like_path(source: str) -> bool:
    """Whether it cannot be the name of a model."""
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
    if not looks_like_path(source) and (found := _application(source)):
        return found
    for folder_kind in FOLDER_KINDS:
        if kind := folder_kind(path):
            return SourceRef(kind, source, safe_name(path.absolute()))
    why, hint = "it is a folder", "give a .keras or .h5 file"
    if is_export(path):
        why = "it is the folder of an export"
        hint = f"export-model inspect {path} shows it; export the model that it was made of"
    elif export := export_in(path):
        why, hint = "it is a folder of exports", f"name one of them, such as {export}, or their sources"
    raise SourceError("is not a model", where=source, why=why, hint=hint)


def _kind_of_file(path: Path) -> str:
    with open(path, "rb") as stream:
        seen = Seen(path, stream.read(HEAD_BYTES), path.stat().st_size)
    for file_kind in FILE_KINDS:
        if kind := file_kind(seen):
            return kind
    raise _not_a_model(path, seen.head)


def _not_a_model(path: Path, head: bytes) -> ExportError:
    if head.startswith(b"version https://git-lfs"):
        why, hint = "it is a Git LFS pointer, not the file itself", "git lfs pull"
        return SourceError("is not a model", where=str(path), why=why, hint=hint)
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        raise keras_files.pickled(path, "a pickle")
    hint = SAVE_HINT
    if not head:
        why = "the file is empty"
    elif _is_text(head):
        why = "it is a text file"
    elif named := NAMED_BY_SUFFIX.get(path.suffix.lower()):
        why, hint = f"it has the name of {KINDS[named]}, and is none, or not whole", "copy or download it again"
    else:
        why = "it is of no kind that is known (docs/sources.md has them)"
    return SourceError("is not a model", where=str(path), why=why, hint=hint)


def _is_text(head: bytes) -> bool:
    try:
        # Incremental, because the end of the head may cut a character in two.
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False

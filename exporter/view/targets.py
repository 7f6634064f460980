"""What the user points at, as a file that can be shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from exporter.errors import SourceError
from exporter.files import read_manifest
from exporter.storage.neighbours import export_in

MODEL_FILE = "model.onnx"
VIEW_FILE = "model.view.onnx"
# Of the endings that Netron's `accept` knows (view.js), those that mean a model.
MODEL_NAME = re.compile(
    r".*\.(keras|h5|hd5|hdf5|json|pb|pbtxt|graphdef|meta|tflite|lite|onnx|onnxtxt|ort|pt|pt2|pth|pte|torchscript"
    r"|safetensors|gguf|mlmodel|mlir|caffemodel|prototxt|pdmodel|xml|mnn|circle|uff|npz)",
    re.IGNORECASE | re.DOTALL,
)


def resolve(target: str | Path) -> Path:
    """The model file of a target: itself, or `model.onnx` of an export's folder, or its view where there is no other.

    Raises SourceError.
    """
    path = Path(target)
    if path.is_dir():
        return _model_of_folder(path)
    if not path.exists():
        raise SourceError(
            "does not exist", where=str(path), hint="name a model file or the folder of an export, such as outputs/NAME"
        )
    if not path.is_file() or MODEL_NAME.fullmatch(path.name) is None:
        raise SourceError(
            "cannot be shown",
            where=str(path),
            why="Netron opens model files, by their ending: .onnx, .keras, .h5, .tflite, .pb and others",
            hint="rename it if it is a model, or convert it first: `export-model SOURCE --to onnx`",
        )
    return _readable(path)


def _model_of_folder(folder: Path) -> Path:
    for name in (MODEL_FILE, VIEW_FILE):
        if (folder / name).is_file():
            return _readable(folder / name)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SourceError("cannot be read", where=str(folder), why=error.strerror or str(error)) from error
    if export := export_in(folder):
        why, hint = "it is a folder of exports", f"name one of them, such as {export}"
        raise SourceError(f"has no {MODEL_FILE}", where=str(folder), why=why, hint=hint)
    source = "SOURCE" if read_manifest(folder) else shlex.quote(str(folder))
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise SourceError(
        f"has no {MODEL_FILE}",
        where=str(folder),
        why=f"it holds {listed}" if names else "it is empty",
        hint=f"`export-model {source} --to onnx` makes one",
    )


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise SourceError("cannot be read", where=str(path), why=error.strerror or str(error)) from error
    return path

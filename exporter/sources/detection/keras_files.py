"""Files that Keras writes: archives, HDF5, JSON, and the folder of a model."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ExportError, SourceError, UnsupportedError
from exporter.sources.detection.kinds import (
    ARCHITECTURE,
    KERAS_ARCHIVE,
    KERAS_FOLDER,
    KERAS_H5,
    KERAS_WEIGHTS,
    SAFETENSORS,
    SAVE_HINT,
    Seen,
)
from exporter.sources.keras_models import weight_map
from exporter.sources.safetensors_index import is_shard_map

if TYPE_CHECKING:
    import h5py

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def file_kind(seen: Seen) -> str | None:
    """Raises SourceError for what is of such a layout and no model."""
    if seen.head.startswith(b"PK"):
        return _check_archive(seen.path)
    if _is_hdf5(seen):
        return _check_hdf5(seen.path)
    if seen.head.lstrip().startswith(b"{"):
        return _check_json(seen.path)
    return None


def folder_kind(path: Path) -> str | None:
    """Raises SourceError for a config.json that is no model's."""
    if not (path / "config.json").is_file():
        return None
    _check_json(path / "config.json")
    return KERAS_FOLDER


def folder_files(source: str) -> list[str]:
    """The files of a model's folder, in a fixed order. Raises SourceError."""
    weights = weight_map.folder_weights(source)
    assets = sorted(path for path in (Path(source) / "assets").rglob("*") if path.is_file())
    found = weight_map.weights_files(str(weights)) if weights else []
    return [os.path.join(source, "config.json"), *found, *map(str, assets)]


def _is_hdf5(seen: Seen) -> bool:
    with open(seen.path, "rb") as stream:
        return any(_has_signature_at(stream.fileno(), offset) for offset in _signature_offsets(seen.nbytes))


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
    if any(name.endswith("/data.pkl") for name in names):
        raise pickled(path, "a PyTorch file")
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
            holds_weights = _holds_weights(stream)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise SourceError(
            "is truncated or corrupt",
            where=str(path),
            why=f"as an HDF5 file: {error}",
            hint="copy or download it again",
        ) from error
    if holds_weights:
        return KERAS_WEIGHTS
    raise _foreign_hdf5(path)


def _holds_weights(file: h5py.File) -> bool:
    """By what the legacy format lists in attributes, or by the groups of variables of the format of Keras 3."""
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return True
    marks = ("layers", "_layer_checkpoint_dependencies", "vars")
    return any(mark in file for mark in marks) or any("vars" in item for item in file.values() if hasattr(item, "keys"))


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
    if is_shard_map(keys):
        return SAFETENSORS
    if weight_map.MAP_KEY in keys:
        _refuse_pickles(keys[weight_map.MAP_KEY], path)
        return KERAS_WEIGHTS
    raise SourceError("is not a model", where=str(path), why="the JSON describes no Keras model", hint=SAVE_HINT)


def _refuse_pickles(shards: object, path: Path) -> None:
    """Raises UnsupportedError for an index of PyTorch's files."""
    names = shards.values() if isinstance(shards, dict) else ()
    if any(isinstance(name, str) and name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise pickled(path, "an index of PyTorch files")


def pickled(path: Path, what: str) -> ExportError:
    why = "it holds pickled Python objects, and loading them would run code"
    return UnsupportedError(f"is {what}", where=str(path), why=why, hint="save the weights as safetensors")


def _foreign_hdf5(path: Path) -> ExportError:
    return SourceError("is not a Keras model", where=str(path), why="the HDF5 file has no model_config", hint=SAVE_HINT)

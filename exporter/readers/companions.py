"""The other files of a source that was given by the address of one of them: fetched from beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from exporter.sources.detection import SourceRef, tensorflow_files
from exporter.sources.detection.kinds import (
    CHECKPOINT,
    KERAS_WEIGHTS,
    META_GRAPH,
    ONNX_FILE,
    SAFETENSORS,
    TFJS_GRAPH,
    TFJS_LAYERS,
)
from exporter.sources.keras_models.weight_map import is_sharded, named_weights
from exporter.sources.safetensors_index import is_index, named_shards
from exporter.sources.web.model_json import named_files
from exporter.storage.fetching import Progress, fetch_beside, names_like


def fetch_companions(reference: SourceRef, address: str, progress: Progress) -> None:
    """What is not there stays away: who reads the source says what it lacks. Raises SourceError."""
    path = Path(reference.source)
    if path.is_dir() or reference.kind not in NAMES:
        return
    fetch_beside(address, NAMES[reference.kind](path, address), path, progress)


def _data_files(path: Path, address: str) -> Iterable[str]:
    """Names in the external data of an ONNX file."""
    from google.protobuf.message import DecodeError

    from exporter.readers.onnx_initializers import missing_files
    from exporter.readers.onnx_parts import read_parts

    with suppress(ValueError, TypeError, DecodeError):
        return missing_files(read_parts(path))
    return ()


def _of_checkpoint(path: Path, address: str) -> Iterable[str]:
    prefix = tensorflow_files.checkpoint_prefix(path.name)
    found = names_like(address, f"{prefix}.")
    return [name for name in found if name == f"{prefix}.index" or tensorflow_files.DATA_FILE.search(name)]


NAMES: dict[str, Callable[[Path, str], Iterable[str]]] = {
    ONNX_FILE: _data_files,
    TFJS_LAYERS: lambda path, address: named_files(str(path)),
    TFJS_GRAPH: lambda path, address: named_files(str(path)),
    KERAS_WEIGHTS: lambda path, address: named_weights(str(path)) if is_sharded(str(path)) else (),
    SAFETENSORS: lambda path, address: named_shards(str(path)) if is_index(str(path)) else (),
    CHECKPOINT: _of_checkpoint,
    META_GRAPH: _of_checkpoint,
}
